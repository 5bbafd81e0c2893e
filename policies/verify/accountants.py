# SPDX-License-Identifier: Apache-2.0
"""AUD-064: the figures of a privacy statement by a second accountant, where one is installed.

For each plan of a statement, in this order:

1. The tight figure, where one is stated, is a number that a sound accountant can give: a lower bound from the
   standard library (`policies.verify.tight`). That it is at most ``epsilon_rdp + 0.01`` is checked with the
   statement itself.
2. With dp-accounting: its tight figure is the stated one, to 0.01.
3. With dp-accounting: its Rényi accountant gives our ``epsilon_rdp``, to 1e-6. Two programs by different
   people agree then about the figure that every cap uses.

dp-accounting is loaded by name, and only once a statement is at hand: the verifier itself runs on the
standard library. Without it, and for a plan so weak that its figure means nothing, steps 2 and 3 are listed
as not recomputed; with it the report says what was.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from policies.log.kinds import DECIMAL
from policies.privacy.accounting import epsilon_rdp
from policies.privacy.ledger import plan_facts
from policies.verify.tight import is_too_small

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from policies.verify.report import Report

__all__ = ["check_accounting"]

Json = Any
_LIBRARY: Final = "policies.privacy.tight"
_PLD_TOLERANCE: Final = 0.01
_RDP_TOLERANCE: Final = 1e-6
_EPSILON_MOST: Final = 100.0  # of no use above, and a tight accountant's tables grow with it
_UNFIT: Final = (AttributeError, TypeError, ValueError, ArithmeticError, MemoryError)


def check_accounting(rows: Sequence[Mapping[str, Json]], index: int, report: Report) -> None:
    """AUD-064 for the rows of a statement.

    Args:
        rows: Contributors of the statement, under plans that are those of the log.
        index: Of the release.
        report: Takes the findings, and says what was recomputed or not.
    """
    told = {(_plan(row), row["claim"]["epsilon_pld"]) for row in rows if row["plan"] is not None}
    for plan, tight in sorted(told, key=str):
        for wrong in _wrong(plan, tight, report):
            report.add("AUD-064", wrong, index=index)


def _plan(row: Mapping[str, Json]) -> tuple[float, float, int, float]:
    document = row["plan"]["document"]
    q, sigma, steps, _ = plan_facts(document)
    return q, sigma, steps, float(document["delta"])


def _wrong(plan: tuple[float, float, int, float], tight: str | None, report: Report) -> Iterator[str]:
    q, sigma, steps, delta = plan
    if tight is not None and not DECIMAL.holds(tight):  # 1.
        yield "epsilon_pld is no number"
        return
    if tight is not None and is_too_small(float(tight), q=q, sigma=sigma, steps=steps, delta=delta):
        yield f"epsilon_pld {tight} is below what any sound accountant gives"
    own = epsilon_rdp(q, sigma, steps, delta)
    found = _second(plan, own, report)
    if found is None:
        return
    pld, rdp = found
    if tight is not None and not abs(float(tight) - pld) <= _PLD_TOLERANCE:  # 2.
        yield f"epsilon_pld {tight}, recomputed {pld:.6f}"
    if not abs(own - rdp) <= _RDP_TOLERANCE and rdp > 0:  # 3. it says 0 where delta alone covers a tiny cost
        yield f"epsilon_rdp {own:.9f}, by the second accountant {rdp:.9f}"
    stated = "none stated" if tight is None else f"stated {tight}"
    report.recomputed(f"AUD-064: epsilon_pld {pld:.6f} ({stated}), epsilon_rdp {rdp:.6f}, by dp-accounting")


def _second(plan: tuple[float, float, int, float], own: float, report: Report) -> tuple[float, float] | None:
    """Tight and Rényi figure by dp-accounting, or None, and the report says why."""
    q, sigma, steps, delta = plan
    why = f"epsilon_rdp is above {_EPSILON_MOST:g}"
    if own <= _EPSILON_MOST:
        try:
            found = import_module(_LIBRARY).second_figures(q=q, sigma=sigma, steps=steps, delta=delta)
            return float(found.pld), float(found.rdp)
        except ImportError:
            why = "dp-accounting is not installed"
        except _UNFIT as error:
            why = f"dp-accounting: {type(error).__name__}"
    report.not_checked(f"AUD-064: epsilon_pld not recomputed, only its bounds ({why})")
    return None
