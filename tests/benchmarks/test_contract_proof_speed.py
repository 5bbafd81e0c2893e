# SPDX-License-Identifier: Apache-2.0
"""How long one amendment takes to prove or to refute. The table is printed (-s); the target is a second or two."""

from __future__ import annotations

import time

import pytest

from policies.contract.amendment import diff, prove
from tests.amendsim import LOOSENINGS, TIGHTENINGS, Edit, named, successor
from tests.contractsim import contract

MOST_S = 2.0  # of one amendment of this contract, also on a slow machine
PLANTED = LOOSENINGS[:6] + tuple(
    named(one)
    for one in ("outputs are fresher", "more local steps", "the quorum is lower", "more rejected rounds")
)


def row(edit: Edit) -> tuple[float, str]:
    old, new = contract(), successor(edit)
    diff(old, new)
    start = time.perf_counter()
    verdict = prove(old, new)
    took = time.perf_counter() - start
    told = "NO LOOSER" if verdict.no_looser else " ".join(one.clause for one in verdict.witnesses)
    return took, f"{edit.way:8} {edit.name:36} {took * 1000:6.0f} ms  {told}"


@pytest.mark.slow
def test_ten_loosenings_are_refuted_and_ten_tightenings_proven_in_time() -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    prove(contract(), successor(PLANTED[0]))  # the prover loads
    rows = [row(edit) for edit in (*PLANTED, *TIGHTENINGS[:10])]
    print("\n" + "\n".join(line for _, line in rows))
    assert max(took for took, _ in rows) < MOST_S
