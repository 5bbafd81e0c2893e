# SPDX-License-Identifier: Apache-2.0
"""AUD-078: the leak report of a candidate holds what was revealed, and all in it follows from that.

What an auditor computes again depends on what is at hand:

- always: whose reveals the report holds, and the verdicts that follow from its figures;
- with numpy: the figures, from the scores in the report;
- with the model's bytes and pydantic: the scores, byte for byte.

Both are loaded by name: the verifier itself runs on the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from policies.errors import IriaiError
from policies.log.entries import EntryType, alias
from policies.privacy.accounting import epsilon_rdp, epsilon_text
from policies.privacy.canaries import CanarySecret
from policies.privacy.conformance import figure, mu_expected
from policies.privacy.leakage import (
    CANARIES,
    MEMBERSHIP,
    PROPERTY,
    SAYS,
    SCHEMA,
    audits_hold,
    leak_checks,
    verdicts,
)
from policies.privacy.ledger import plan_facts
from policies.verify.canaries import asked_of, check_canaries, trained_orgs
from policies.verify.documents import find_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.canaries import Canaries
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_leaks"]

Json = Any
_MALFORMED = (IriaiError, KeyError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError)
_COMPUTED: Final = frozenset({"auc", "tpr_at_1_percent_fpr", "epsilon_low", "parties", "missing"})
_FIGURES: Final = frozenset({"scores", "auc", "auc_without", "chance"})  # of a party
_PROPERTY_FIELDS: Final = ("trained", "property_max")


def check_leaks(history: History, report: Report, models: Mapping[str, bytes]) -> None:
    """Every evaluation under a contract that asks for a test for leaks.

    Args:
        history: Read and with senders.
        report: Takes the findings.
        models: Bytes of models that the auditor has, by digest.
    """
    canaries = check_canaries(history, report)
    if history.grade != "auditor":
        return
    for index, entry in history.of(EntryType.CANDIDATE_EVALUATED):
        document, contract = find_report(history, entry), history.contracts.get(entry.scope or "")
        if document is not None and contract is not None:
            place = _Evaluation(history, index, entry, contract, document, report)
            _check_evaluation(place, canaries, models)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One ``candidate.evaluated`` and its report."""

    history: History
    index: int
    entry: Entry
    contract: Contract
    document: Mapping[str, Json]
    report: Report

    @property
    def leaks(self) -> Mapping[str, Json]:
        """The leak report."""
        found: Mapping[str, Json] = self.document["leaks"]
        return found

    @property
    def parties(self) -> list[Mapping[str, Json]]:
        """Parties of the leak report, in the order of their aliases: that of scores and coins."""
        return [one for _, one in sorted(self.leaks["parties"].items())]

    @property
    def recipe(self) -> str | None:
        """Digest of the run's recipe."""
        return self.history.recipe_of(self.entry.run)

    @property
    def plan(self) -> dict[str, Json] | None:
        """Document of the run's plan."""
        return self.history.plan_of(self.recipe)

    def alias(self, org: str) -> str:
        """Name of an organisation in the run as a whole."""
        return alias(self.history.aliases[org], self.entry.scope, self.entry.run, None)

    @property
    def trained(self) -> list[str]:
        """Organisations whose update is in the model."""
        return trained_orgs(self.history, self.entry.run, self.index)


def _check_evaluation(one: _Evaluation, canaries: Canaries, models: Mapping[str, bytes]) -> None:
    """1. reveals; 2. figures; 3. verdicts; 4. audits; 5. the checks that the entry states.

    Figures are computed over what was revealed: a report of other parties or coins has none to compare.
    """
    wrong: list[str] = []
    asked = one.contract.release.evidence
    try:
        if asked_of(one.contract):
            wrong += _reveals(one, canaries) or _figures(one, models)  # 1. 2. 3.
        elif "leaks" in one.document:
            wrong.append("leaks")
        wrong += _audits(one)  # 4.
        checks = one.entry.pub["checks"]
        stated = {name: checks[name] for name in (CANARIES, MEMBERSHIP, PROPERTY) if name in checks}
        wrong += [] if stated == leak_checks(one.document, asked) else ["checks"]  # 5.
    except _MALFORMED as error:
        wrong.append(f"its form ({type(error).__name__})")
    if wrong:
        one.report.add("AUD-078", "the leak report differs: " + " ".join(wrong), index=one.index)


def _reveals(one: _Evaluation, canaries: Canaries) -> list[str]:
    """Names of what is not as the log has it: parties, what they revealed, who is missing."""
    told, missing = {}, []
    for org in one.trained:
        at, secret = canaries.revealed.get((org, one.entry.run), (one.index, None))
        if secret is None or at >= one.index:
            missing.append(one.alias(org))
            continue
        told[one.alias(org)] = {
            "audit": secret.audit,
            "seed": secret.seed.hex(),
            "salt": secret.salt.hex(),
            "flips": secret.flips,
        }
    parties = one.leaks["parties"].items()
    found = {name: {k: value for k, value in row.items() if k not in _FIGURES} for name, row in parties}
    wrong = [] if found == told else ["parties"]
    wrong += [] if one.leaks["missing"] == sorted(missing) else ["missing"]
    return wrong + ["scores" for _, row in parties if len(row["scores"]) != len(row["flips"])]


def _figures(one: _Evaluation, models: Mapping[str, bytes]) -> list[str]:
    """Names of fields that do not follow: from the log, from the scores, from the figures."""
    leaks, flips = one.leaks, "".join(row["flips"] for row in one.parties)
    expected = {
        "schema": SCHEMA,
        "says": SAYS,
        "candidate": one.entry.pub["candidate"],
        "recipe": one.recipe,
        "claim": None if one.plan is None else _claim(one.plan),
        "canaries": len(flips),
        "trained": flips.count("1"),
        **_computed(one, flips, models),
        **verdicts(leaks, auc_max=one.contract.release.max_mia_auc),
    }
    strange = set(leaks) - set(expected) - _COMPUTED
    return sorted(strange) + sorted(name for name, value in expected.items() if leaks[name] != value)


def _claim(plan: Mapping[str, Json]) -> str:
    q, sigma, steps, _ = plan_facts(plan)
    return epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=float(plan["delta"])))


def _computed(one: _Evaluation, flips: str, models: Mapping[str, bytes]) -> dict[str, Json]:
    """Figures from the scores, and scores from the model, as far as they can be computed here."""
    try:
        made = import_module("policies.leak_report")
    except ImportError:
        one.report.not_checked("AUD-078: figures of leak reports (numpy is not installed)")
        return {}
    scores = [score for row in one.parties for score in row["scores"]]
    delta = 0.0 if one.plan is None else float(one.plan["delta"])
    found: dict[str, Json] = made.figure_fields(made.leak_figures(scores, flips, delta=delta))
    data = models.get(one.entry.pub["candidate"])
    if data is None:
        one.report.not_checked("AUD-078: scores of leak reports (give the bytes of the model with --model)")
    rows = one.leaks["parties"] if data is None else _scored(one, data)
    own = made.party_figures(rows)
    return found | {"parties": {name: {**row, **own[name]} for name, row in rows.items()}}


def _scored(one: _Evaluation, data: bytes) -> dict[str, Json]:
    """The parties of a report, with scores computed from the model."""
    text = one.history.files[f"annexes/{(one.recipe or '').removeprefix('sha256:')}.json"]
    recipe, units = import_module("policies.recipe").load(text), import_module("policies.canary_units")
    found = {}
    for name, row in one.leaks["parties"].items():
        secret = CanarySecret(
            run=one.entry.run or "",
            seed=bytes.fromhex(row["seed"]),
            salt=bytes.fromhex(row["salt"]),
            count=len(row["flips"]),
        )
        found[name] = {**row, "scores": list(units.canary_scores(recipe, units.weights_of(data), secret))}
    return found


def _audits(one: _Evaluation) -> list[str]:
    """The silos' own audits are those that they signed with their evaluations."""
    history, entry, told = one.history, one.entry, dict[str, Json]()
    for at, said in history.of(EntryType.EVALUATION_RECEIVED):
        about = (said.scope, said.run, said.pub["candidate"]) == (
            entry.scope,
            entry.run,
            entry.pub["candidate"],
        )
        if at in entry.refs and at < one.index and about and at in history.senders:
            figures = history.senders[at].payload["body"].get("figures")
            told |= {said.actor: figures} if audits_hold(figures) else {}
    wrong = [] if one.document.get("audits", {}) == told else ["audits"]
    planned = None if one.plan is None else figure(mu_expected(one.plan))
    audited = {name: figures["conformance"] for name, figures in told.items() if figures["conformance"]}
    wrong += [f"mu_expected({name})" for name, row in audited.items() if row["mu_expected"] != planned]
    expected: dict[str, Json] = {}
    if PROPERTY in one.contract.release.evidence:
        names = sorted(one.alias(org) for org in one.trained)
        expected = {"trained": names, "property_max": one.contract.release.max_property_skill}
    return wrong + [name for name in _PROPERTY_FIELDS if one.document.get(name) != expected.get(name)]
