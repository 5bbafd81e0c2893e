# SPDX-License-Identifier: Apache-2.0
"""Gate G1: what the conformance audit of a node found, as a value that travels and is checked elsewhere.

- The audit runs before a contract starts, with the node's real engine, sampler, noise and plan on synthetic
  units (`client.learning.conformance`). Here is only its report: no data of a site can be in it.
- Every figure is a decimal string. Each check says what was needed and what was found.
- `load` takes a report of another party, however deep or odd: it is refused if a check is missing, if one
  passed against its own figure, or if the verdict is not the one that follows; `check_about` compares it with
  plan and recipe, and `check_report` asks that it passed as well.

    report = ConformanceReport.load(document)     # PlanIncompleteError: no report
    check_report(report, plan_document)           # AuditFailedError: failed, or about another plan
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import check_profile, decimal_text, digest_of, is_digest
from policies.errors import EncodingError
from policies.privacy.errors import AuditFailedError, PlanIncompleteError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CHECKS",
    "SCHEMA",
    "Check",
    "ConformanceReport",
    "check_about",
    "check_report",
    "figure",
    "mu_expected",
    "sentences",
]

Json = dict[str, Any]
SCHEMA: Final = "iriai-conformance/1"
PASSED: Final = "passed"
FAILED: Final = "failed"
CHECKS: Final[dict[str, str]] = {
    "steps": "every step is counted and noisy, also with no unit drawn, and none runs beyond the plan",
    "remove-one": "removing any one unit moves the sum by at most the clip norm, and nothing else is in it",
    "frames": "no unit brings more frames into a step than the plan allows",
    "sampling": "each unit is drawn on its own, afresh at every step and in every run, with its probability",
    "noise-strength": "the noise has the plan's variance, in every tensor and beside every batch",
    "noise-shape": "the noise is Gaussian, and on no coarse grid",
    "noise-fresh": "no step, tensor, run or generator repeats the noise of another",
    "mu": "a unit weighs as much against the noise as the plan says, no more and no less",
    "epsilon-low": "what the canaries give away does not refute the epsilon that is claimed",
}
FIGURES: Final = (
    "mu",
    "mu_low",
    "mu_expected",
    "epsilon_low",
    "epsilon_sure",
    "epsilon_pld",
    "delta",
    "weight",
    "noise_std",
    "noise_std_planned",
    "sampling_rate",
    "remove_one",
    "clip_norm",
    "noise_chance",
    "shape_chance",
    "fresh_chance",
)
_DIGESTS: Final = ("plan", "recipe", "software")
_TEXTS: Final = (*_DIGESTS, "engine", "sampler", "generator")
_COUNTS: Final = ("canaries", "directions", "steps", "parameters")
_DIGITS: Final = 6
_TOLERANCE: Final = 1e-3
_CHANCES: Final = {
    "noise-strength": "noise_chance",
    "noise-shape": "shape_chance",
    "noise-fresh": "fresh_chance",
}
_UNLIKELY: Final = 1e-6


def figure(value: float) -> str:
    """A number as plain decimal text of six significant digits; what is not finite becomes a huge number."""
    if not math.isfinite(value):
        return "999999999999"
    text = f"{float(f'{value:.{_DIGITS - 1}e}'):.12f}"
    return decimal_text(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tested: the name from `CHECKS`, what it needs, what was found."""

    name: str
    passed: bool
    need: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceReport:
    """What the audit of one plan on one node found.

    Attributes:
        plan: Digest of the plan.
        recipe: Digest of the recipe whose model was used.
        software: Digest of the software that was audited (`client.software`).
        engine: The engine that was audited, by its name in step receipts, or its class.
        sampler: The sampler.
        generator: Generator of noise and choices.
        canaries: Units whose gradient is one direction.
        directions: Orthonormal directions among them.
        steps: Noisy steps that were looked at.
        parameters: Length of the recipe's weight vector.
        figures: Decimal strings by name (`FIGURES`). ``epsilon_low`` is at 95 %; the verdict rests on
            ``epsilon_sure``, at one false alarm in a million, because a correct plan whose claim is exact
            is above its own claim at 95 % in one audit of twenty.
        checks: In the order of `CHECKS`.
        seconds: How long it took, a decimal string.
    """

    plan: str
    recipe: str
    software: str
    engine: str
    sampler: str
    generator: str
    canaries: int
    directions: int
    steps: int
    parameters: int
    figures: Mapping[str, str]
    checks: tuple[Check, ...]
    seconds: str

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(one.passed for one in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(one for one in self.checks if not one.passed)

    @property
    def document(self) -> Json:
        """The JSON form, `SCHEMA`."""
        texts = {name: getattr(self, name) for name in (*_TEXTS, *_COUNTS)}
        return {
            "schema": SCHEMA,
            **texts,
            "figures": dict(self.figures),
            "checks": [asdict(one) for one in self.checks],
            "verdict": PASSED if self.passed else FAILED,
            "seconds": self.seconds,
        }

    @property
    def digest(self) -> str:
        """Digest of the canonical bytes of the JSON form."""
        return digest_of(self.document)

    @classmethod
    def load(cls, document: object) -> ConformanceReport:
        """The report behind a parsed JSON value, of whatever origin.

        Raises:
            PlanIncompleteError: Another form, a figure or check too many or too few, or a verdict that does
                not follow from the checks.
        """
        try:
            check_profile(document)  # no deeper than a signed document: what follows may recurse
            report = _read(document)
        except (KeyError, TypeError, ValueError, AttributeError, EncodingError) as error:
            raise _unfit(type(error).__name__) from error
        if report.document != document:
            raise _unfit("fields that do not follow from each other")
        return report

    def need_passed(self) -> None:
        """Refuses a failed audit.

        Raises:
            AuditFailedError: With the first check that failed.
        """
        if self.passed:
            return
        first = self.failures[0]
        others = "" if len(self.failures) == 1 else f", and {len(self.failures) - 1} more"
        raise AuditFailedError(
            need=f"{first.name}: {first.need}",
            found=f"{first.found}{others}",
            remedy="train nothing with this installation; reinstall it, and show the report to the auditor",
        )


def _read(document: Any) -> ConformanceReport:  # noqa: ANN401  whatever another party sent
    figures = {name: str(document["figures"][name]) for name in FIGURES}
    for text in (*figures.values(), document["seconds"]):
        if decimal_text(text) != text:
            raise ValueError(text)
    checks = tuple(Check(**row) for row in document["checks"])
    if [one.name for one in checks] != list(CHECKS) or not all(type(one.passed) is bool for one in checks):
        raise ValueError("checks")
    if not all(type(text) is str for one in checks for text in (one.need, one.found)):
        raise TypeError("checks")
    _check_figures(figures, {one.name for one in checks if one.passed})
    counts = {name: document[name] for name in _COUNTS}
    if not all(type(one) is int and one >= 0 for one in counts.values()):
        raise ValueError("counts")
    texts = {name: str(document[name]) for name in (*_TEXTS, "seconds")}
    if not all(is_digest(texts[name]) for name in _DIGESTS):
        raise ValueError("digests")
    whole: Json = {**texts, **counts}
    return ConformanceReport(figures=figures, checks=checks, **whole)


def _check_figures(figures: Mapping[str, str], passed: set[str]) -> None:
    """No check passed whose own figure says otherwise.

    Raises:
        ValueError: One did.
    """
    told = {name: float(text) for name, text in figures.items()}
    holds = {name: told[chance] >= _UNLIKELY for name, chance in _CHANCES.items()}
    holds["remove-one"] = told["remove_one"] <= 1
    holds["mu"] = told["mu"] > 0 and told["weight"] > 0
    holds["epsilon-low"] = told["epsilon_sure"] <= told["epsilon_pld"]
    wrong = [name for name, right in holds.items() if name in passed and not right]
    if wrong:
        raise ValueError(wrong[0])


def _unfit(found: str) -> PlanIncompleteError:
    return PlanIncompleteError(
        need=f"a whole report {SCHEMA}", found=found, remedy="run the audit again: iriai-node privacy audit"
    )


def mu_expected(plan: Mapping[str, Any]) -> float:
    """``q sqrt(T) / sigma`` of a plan's document: mu of the sum that the plan protects (arXiv 1911.11607)."""
    q, sigma = float(plan["sampling_prob"]), float(plan["noise_multiplier"])
    return q * math.sqrt(int(plan["steps"])) / sigma


def check_about(report: ConformanceReport, plan: Mapping[str, Any], *, recipe: str | None = None) -> None:
    """Returns if a report is about a plan, whether it passed or not, in this order.

    1. It is about this plan. 2. About this recipe, if one is given. 3. Its expected figures are the ones that
    follow from the plan.

    Args:
        report: What somebody says.
        plan: Document of the plan.
        recipe: Digest of the recipe.

    Raises:
        AuditFailedError: One of them does not hold.
    """
    wanted = digest_of(dict(plan))
    if report.plan != wanted:
        raise _foreign(f"an audit of the plan {wanted[:19]}", report.plan[:19])
    if recipe is not None and report.recipe != recipe:
        raise _foreign(f"an audit of the recipe {recipe[:19]}", report.recipe[:19])
    for name, value in (
        ("mu_expected", mu_expected(plan)),
        ("delta", float(plan["delta"])),
        ("clip_norm", float(plan["clip_norm"])),
    ):
        if not math.isclose(float(report.figures[name]), value, rel_tol=_TOLERANCE):
            raise _foreign(f"{name} {figure(value)}", report.figures[name])


def check_report(report: ConformanceReport, plan: Mapping[str, Any], *, recipe: str | None = None) -> None:
    """Passes a report as evidence about a plan: `check_about`, then that it passed.

    Raises:
        AuditFailedError: One of them does not hold.
    """
    check_about(report, plan, recipe=recipe)
    report.need_passed()


def _foreign(need: str, found: str) -> AuditFailedError:
    return AuditFailedError(need=need, found=found, remedy="run the audit again: iriai-node privacy audit")


def sentences(report: ConformanceReport) -> Sequence[str]:
    """The report for people: what was tested, each figure with its claim, the verdict."""
    head = (
        f"plan        {report.plan}",
        f"tested      {report.canaries} made-up units, {report.directions} directions, {report.steps} steps",
        f"            of {report.engine}, {report.sampler} and {report.generator}; no episode was opened",
    )
    lines = [
        line
        for one in report.checks
        for line in (
            f"{'ok' if one.passed else 'FAILED':<11} {CHECKS[one.name]}",
            f"              needed {one.need}",
            f"              found  {one.found}",
        )
    ]
    verdict = "passed" if report.passed else "FAILED: " + ", ".join(one.name for one in report.failures)
    return (*head, *lines, f"verdict     {verdict} in {report.seconds} s")
