# SPDX-License-Identifier: Apache-2.0
"""What this node's kept audits say, as it signs it beside its judgement of a candidate.

Nothing of an episode is in it: audits run on made-up units.

- ``conformance``: figures of the audit that this process made of the recipe (`client.audits.conforming`);
  where it
  made none, of the newest that is kept (`client.audits.kept`); null without one. It is compared with plan
  and recipe before anything is signed: a file can be edited, or be about something else.
- ``property``: the skill of the newest audit of product mixes under the recipe, null without one. It is that
  of single updates, or of their sum where the contract requires secure aggregation.
- A contract that asks for a property report is not trained under before there is one: the budget would be
  spent for a candidate that nobody may release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.audits import kept, kept_mix
from policies.privacy.conformance import check_about
from policies.privacy.errors import AuditFailedError
from policies.privacy.leakage import PROPERTY

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.seat import Seat
    from client.settings import Home
    from policies.contract import Contract
    from policies.privacy.conformance import ConformanceReport
    from policies.privacy.property_skill import PropertyReport
    from policies.recipe import Recipe

__all__ = ["AuditShelf", "conformance_facts"]

Json = Any
_VERDICTS: Final = {True: "pass", False: "fail"}


class AuditShelf:
    """The audits of one node.

    Args:
        home: Where reports are kept.
        own: The report that this process made of a recipe, if it made one.
    """

    def __init__(self, home: Home, own: Callable[[Recipe], ConformanceReport | None] | None = None) -> None:
        self._home = home
        self._own = own

    def figures(self, seat: Seat) -> dict[str, Json] | None:
        """Figures of a seat's recipe; None where there is no audit at all.

        Raises:
            PlanIncompleteError: A kept file is no report.
            AuditFailedError: A report is about another recipe or plan.
        """
        conformance = self._conformance(seat.recipe)
        mix = kept_mix(self._home, seat.recipe.digest)
        if conformance is None and mix is None:
            return None
        return {
            "conformance": None if conformance is None else conformance_facts(conformance),
            "property": None if mix is None else _property(mix, seat.held.contract),
        }

    def _conformance(self, recipe: Recipe) -> ConformanceReport | None:
        if recipe.plan is None:
            return None
        report = None if self._own is None else self._own(recipe)
        if report is None:
            return kept(self._home, recipe)
        check_about(report, recipe.plan.document, recipe=recipe.digest)
        return report

    def need(self, seat: Seat) -> None:
        """Returns if the audits that the contract's release asks for were made.

        Raises:
            AuditFailedError: The audit of product mixes is missing, or about another recipe.
            PlanIncompleteError: Its file is no report.
        """
        release = seat.held.contract.release
        if PROPERTY not in release.evidence or kept_mix(self._home, seat.recipe.digest) is not None:
            return
        raise AuditFailedError(
            need="an audit of product mixes under this recipe, for the property-leak report",
            found="none",
            remedy=f"iriai-node privacy audit --mix --recipe {seat.recipe.digest}"
            f" --contract {seat.held.contract.digest}",
            clause=release.clause,
        )


def conformance_facts(report: ConformanceReport) -> dict[str, Json]:
    """The figures of a report that others are told: expected and measured mu, lower epsilon, verdict."""
    return {
        "report": report.digest,
        "mu": report.figures["mu"],
        "mu_expected": report.figures["mu_expected"],
        "eps_low": report.figures["epsilon_low"],
        "verdict": _VERDICTS[report.passed],
    }


def _property(report: PropertyReport, contract: Contract) -> dict[str, Json]:
    summed, bound = contract.aggregation.secure_aggregation == "required", contract.release.max_property_skill
    skill = report.skills["sum" if summed else "update"]["value"]
    within = bound is None or float(skill) <= float(bound)
    return {"report": report.digest, "skill": skill, "verdict": _VERDICTS[within]}
