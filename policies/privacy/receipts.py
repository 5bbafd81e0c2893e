# SPDX-License-Identifier: Apache-2.0
"""The step receipt: what a node says beside every private update about how it was made.

``{"steps_total": …, "ledger_head": …, "sampler": …, "engine": …, "generator": …}``, signed with
``submission.received``, which has plan, run, round and attempt already. Nothing in it follows from an
episode: steps are those of the plan, the head is a digest of the node's own ledger, the names are those of
code. Standard library only.

`check_receipt`, in this order: 1. sampler, engine and generator are known ones; 2. no more steps than the
plan has; 3. as many as the log shows of this node in this run; 4. a ledger head that no earlier update had.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.privacy.errors import AuditFailedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ENGINES", "GENERATORS", "SAMPLERS", "MadeWith", "check_receipt"]

Json = Any
SAMPLERS: Final = frozenset({"poisson-units"})
ENGINES: Final[Mapping[str, str]] = {
    "LoopEngine": "loop",
    "OpacusHooksEngine": "opacus-hooks",
    "PackedEngine": "packed",
}
"""Class of an engine (`client.learning.engines`) → its name in receipts."""
GENERATORS: Final = frozenset({"chacha20-os"})
_REMEDY: Final = "update the node; its ledger and its receipts show every step"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeWith:
    """Names of the code that made a private update.

    Attributes:
        engine: Of the clipped sum.
        sampler: Of units.
        generator: Of noise, with where its key comes from.
    """

    engine: str
    sampler: str = "poisson-units"
    generator: str = "chacha20-os"

    def receipt(self, *, steps_total: int, ledger_head: str) -> dict[str, Json]:
        """The receipt of one update."""
        return {**asdict(self), "steps_total": steps_total, "ledger_head": ledger_head}


def check_receipt(
    receipt: Mapping[str, Json] | None, *, plan_steps: int, steps: int, heads: Collection[str]
) -> None:
    """Returns if a receipt is what an honest node would send; see the module for the checks.

    Args:
        receipt: Of an update; its form was checked by the entry's schema.
        plan_steps: All steps of the plan.
        steps: Steps of this node in this run, this update's included, by the entries of its spends.
        heads: Ledger heads of its earlier updates.

    Raises:
        AuditFailedError: It is not.
    """
    if receipt is None:
        raise _failed("a step receipt beside a private update", "none")
    known = {"sampler": SAMPLERS, "engine": frozenset(ENGINES.values()), "generator": GENERATORS}
    for name, names in known.items():  # 1.
        if receipt[name] not in names:
            raise _failed(f"{name}: one of {' '.join(sorted(names))}", str(receipt[name]))
    if receipt["steps_total"] > plan_steps:  # 2.
        raise _failed(f"at most {plan_steps} steps", str(receipt["steps_total"]))
    if receipt["steps_total"] != steps:  # 3.
        raise _failed(f"{steps} steps, as its spends in the log", str(receipt["steps_total"]))
    if receipt["ledger_head"] in heads:  # 4.
        raise _failed("a ledger that went on", "the head of an earlier update")


def _failed(need: str, found: str) -> AuditFailedError:
    return AuditFailedError(need=need, found=found, remedy=_REMEDY)
