# SPDX-License-Identifier: Apache-2.0
"""What a candidate's evaluation report says of leaks, and what the contract is told of it. Standard library.

- ``leaks`` (``iriai-leak-report/1``, `policies.leak_report`): canaries over the whole cohort, their scores
  and figures. It passes as ``membership-inference-report`` if the lower end of *every* area under the curve
  is within the contract's bound: the one over all canaries, each party's own, and each one over all but one
  party's; one maker that trains on the wrong canaries silences none but its own. It passes as
  ``canary-report`` if besides the epsilon that one run shows is within the claim.
- ``untrained`` names parties whose area is so far below a half that an honest cohort has one in a thousand:
  they did not train on the canaries that they committed to, and nothing passes.
- ``audits``: what each silo's own audits on synthetic data came to, as it signed them: ``conformance`` of its
  engine before the run, ``property``: the skill of a property inference on what leaves it.
- The contract is told the largest *lower* end of these areas (``mia_auc``): one area of 64 canaries has a
  standard error of 0.07, so a bare estimate above the bound would refuse honest models by luck. A model that
  knows no canary is refused in two of a thousand cases, one exactly at the bound in one of ten.
  ``canaries_fired`` are none,
  or every input field of the recipe and every secret of the contract: a score cannot say by which field.
- A test that finds nothing is an alarm that stayed silent, never a proof.

    facts = leak_facts(report, fields=recipe_fields, secrets=secret_fields)
    facts.mia_auc, facts.canaries_fired, facts.property_skill      # None: not known, which refuses
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.limits import CANARIES_MIN, MIA_AUC_MAX
from policies.log.schema import AUDIT_FIGURES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "CANARIES",
    "CODE_FAILED",
    "CODE_MISSING",
    "MEMBERSHIP",
    "PROPERTY",
    "SAYS",
    "SCHEMA",
    "LeakFacts",
    "audits_hold",
    "leak_checks",
    "leak_facts",
    "property_skill",
    "verdicts",
]

Json = Any
SCHEMA: Final = "iriai-leak-report/1"
CANARIES: Final = "canary-report"
MEMBERSHIP: Final = "membership-inference-report"
PROPERTY: Final = "property-leak-report"
CODE_MISSING: Final = "privacy.canary-missing"
CODE_FAILED: Final = "privacy.audit-failed"
_UNTRAINED: Final = 0.001  # of honest cohorts that have a party so far below a half
SAYS: Final = (
    "An alarm, never a proof: canaries that were not learned by heart do not show that nothing was, and a"
    " bound from so few guesses cannot come near the claim."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakFacts:
    """Facts of a release request; None is not known, and refuses."""

    mia_auc: str | None
    property_skill: str | None
    canaries_fired: tuple[str, ...] | None


def audits_hold(value: Json) -> bool:
    """Whether this is what a silo may say of its own audits: exactly these figures and nothing else."""
    return AUDIT_FIGURES.holds(value)


def property_skill(audits: Mapping[str, Mapping[str, Json]], trained: Collection[str]) -> str | None:
    """The largest skill that property audits found; None unless everybody whose update is in it sent one."""
    told = {name: one["property"]["skill"] for name, one in audits.items() if one["property"] is not None}
    return max(told.values(), key=float) if trained and set(trained) <= set(told) else None


def verdicts(leaks: Mapping[str, Json], *, auc_max: str | None) -> dict[str, Json]:
    """What follows from the other fields of a leak report.

    ``auc_max``, ``auc_worst`` (the largest lower end), ``untrained``, ``passed`` and ``code``.

    Args:
        leaks: With ``claim``, ``canaries``, ``missing``, ``auc``, ``parties`` and ``epsilon_low``.
        auc_max: The contract's bound; `MIA_AUC_MAX` where it names none.
    """
    bound, passed = auc_max or str(MIA_AUC_MAX), {CANARIES: False, MEMBERSHIP: False}
    worst, strange = _worst(leaks), _untrained(leaks["parties"])
    found: dict[str, Json] = {"auc_max": bound, "auc_worst": worst, "untrained": strange, "passed": passed}
    if leaks["missing"] or leaks["canaries"] < CANARIES_MIN or leaks["auc"] is None or worst is None:
        return found | {"code": CODE_MISSING}
    claim = leaks["claim"]
    passed[MEMBERSHIP] = not strange and float(worst) <= float(bound)
    within = claim is None or float(leaks["epsilon_low"]) <= float(claim)
    passed[CANARIES] = passed[MEMBERSHIP] and within
    return found | {"code": None if all(passed.values()) else CODE_FAILED}


def _worst(leaks: Mapping[str, Json]) -> str | None:
    """The largest lower end of the areas over all, over each party's, and over all but each party's."""
    rows = leaks["parties"].values()
    areas = [leaks["auc"], *(row[name] for row in rows for name in ("auc", "auc_without"))]
    lows: list[str] = [area["low"] for area in areas if area is not None]
    return max(lows, key=float, default=None)


def _untrained(parties: Mapping[str, Mapping[str, Json]]) -> list[str]:
    """Parties whose coins and scores fit together so badly that honest ones hardly ever do."""
    level = _UNTRAINED / max(1, len(parties))
    told = {name: row["chance"] for name, row in parties.items()}
    return sorted(name for name, chance in told.items() if chance is not None and float(chance) < level)


def leak_checks(report: Mapping[str, Json], asked: Collection[str]) -> dict[str, str]:
    """Outcome of each check that a contract asks for, as ``candidate.evaluated`` has it.

    Args:
        report: The evaluation report.
        asked: Evidence of the contract's release clause.
    """
    leaks, found = report.get("leaks"), {}
    for name in (CANARIES, MEMBERSHIP):
        if name in asked:
            found[name] = "pass" if leaks is not None and leaks["passed"][name] else "fail"
    if PROPERTY in asked:
        skill = _skill(report)
        bound = report.get("property_max")
        found[PROPERTY] = "pass" if skill is not None and _within(skill, bound) else "fail"
    return found


def leak_facts(report: Mapping[str, Json], *, fields: Iterable[str], secrets: Iterable[str]) -> LeakFacts:
    """What the contract is told of a report; see the module.

    Args:
        report: The evaluation report.
        fields: Input fields of the recipe.
        secrets: Trade-secret fields of the contract.
    """
    leaks, skill = report.get("leaks"), _skill(report)
    if leaks is None or leaks["code"] == CODE_MISSING or leaks["auc"] is None:
        return LeakFacts(mia_auc=None, property_skill=skill, canaries_fired=None)
    fired = () if leaks["passed"][CANARIES] else tuple(sorted({*fields, *secrets}))
    return LeakFacts(mia_auc=leaks["auc_worst"], property_skill=skill, canaries_fired=fired)


def _skill(report: Mapping[str, Json]) -> str | None:
    return property_skill(report.get("audits", {}), report.get("trained", ()))


def _within(value: str, bound: str | None) -> bool:
    return bound is None or float(value) <= float(bound)
