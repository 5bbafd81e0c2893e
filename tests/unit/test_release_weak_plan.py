# SPDX-License-Identifier: Apache-2.0
"""A plan that promises nothing has no tight figure: its statement is made without one, and no gate fails of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from broker.release.gate import Gate
from policies.privacy.plan import DpPlan
from tests.learnsim import small_recipe


async def test_a_gate_states_a_plan_above_a_hundred_without_a_tight_figure() -> None:
    document = small_recipe().plan.document
    weak = DpPlan.load({**document, "noise_multiplier": "0.0001", "sampling_prob": "0.2", "steps": 200})
    gate: Any = Gate(None)  # type: ignore[arg-type]  no tool is needed to state a claim
    await gate._compute(weak)
    case = SimpleNamespace(
        contract=SimpleNamespace(digest="c"),
        run="r",
        recipe=SimpleNamespace(plan=weak, digest="d"),
        report={},
    )
    row = gate._claim(SimpleNamespace(alias=lambda *_args: "A1"), case)
    assert row["claim"]["epsilon_pld"] is None
    assert float(row["claim"]["epsilon_rdp"]) > 1e6
