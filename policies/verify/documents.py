# SPDX-License-Identifier: Apache-2.0
"""AUD-071, second half: the documents that a release rests on are in the bundle and say what they must.

The privacy statement is the broker's signed word; every figure in it that follows from a plan is computed
again, and whom it is about is compared with the log. A second accountant looks at its plans:
`policies.verify.accountants`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.thresholds import smallest_sum
from policies.errors import EncodingError, IriaiError
from policies.identity import key_id
from policies.log.entries import EntryType, alias
from policies.log.kinds import DECIMAL, DIGEST, INTEGER, Kind
from policies.privacy import statement as statements
from policies.privacy.accounting import ORDERS
from policies.privacy.leakage import leak_facts
from policies.signing import Envelope, parse_envelope_json
from policies.verify.accountants import check_accounting
from policies.verify.judgements import votes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_report", "check_statement", "find_report"]

Json = Any
_REPORT = "iriai-evaluation-report/1"
_LEAKS = {"leaks", "audits", "trained", "property_max"}
_LIFETIME = {
    "alpha_star": Kind("order", lambda value: isinstance(value, int) and value in ORDERS),
    "rho_spent_nano": INTEGER,
    "rho_max_nano": INTEGER,
    "epsilon_filter": DECIMAL,
    "ledger_head": DIGEST,
}
_MALFORMED = (IriaiError, KeyError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError)


def find_report(history: History, entry: Entry) -> dict[str, Json] | None:
    """The evaluation report that an entry names, if it is in the bundle and about the entry's candidate."""
    try:
        document = parse_envelope_json(_bytes(history, entry.pub["report"]))
    except EncodingError:
        return None
    about = isinstance(document, dict) and document.get("candidate") == entry.pub["candidate"]
    return document if about else None


def _bytes(history: History, named: str) -> bytes:
    """Bytes of a document of the bundle.

    Raises:
        EncodingError: It is not there.
    """
    data = history.files.get(f"statements/{named.removeprefix('sha256:')}.json")
    if data is None:
        raise EncodingError(need=f"{named} in the bundle", found="nothing", remedy="export it again")
    return data


def check_report(history: History, index: int, entry: Entry, report: Report) -> None:
    """The evaluation report is in the bundle and says what the log says: whose evaluations, and the end."""
    try:
        document = parse_envelope_json(_bytes(history, entry.pub["report"]))
    except EncodingError as error:
        report.add("AUD-071", f"report: needs {error.need}; found {error.found}", index=index)
        return
    if not isinstance(document, dict) or document.get("candidate") != entry.pub["candidate"]:
        report.add("AUD-071", "the report is about another candidate", index=index)
        return
    contract, recipe = history.contracts.get(entry.scope or ""), history.recipe_of(entry.run)
    if contract is None or history.grade != "auditor":
        return
    told, missed = _evaluations(history, index, entry, document.get("evaluations"))
    groups = {one.group for one in contract.contributors if one.party in told.values()}
    expected = {
        "schema": _REPORT,
        "candidate": entry.pub["candidate"],
        "run": entry.run,
        "contract": entry.scope,
        "recipe": recipe,
        "plan": history.evaluation_of(recipe),
        "evaluations": {history.entries[at].actor: history.entries[at].pub["evaluation"] for at in told},
        "min_parties": contract.aggregation.min_parties,
        "passed": len(groups) >= contract.aggregation.min_parties,
    }
    named = (expected.keys() | document.keys()) - _LEAKS  # those are AUD-078
    wrong = sorted(k for k in named if expected.get(k) != document.get(k))
    if (entry.pub["checks"].get("federated-evaluation") == "pass") != expected["passed"]:
        wrong.append("checks")
    if wrong:
        report.add("AUD-071", "the report differs from the log: " + " ".join(wrong), index=index)
    if missed:
        report.add("AUD-076", "evaluations that the report leaves out: " + " ".join(missed), index=index)


def _evaluations(
    history: History, index: int, entry: Entry, named: Json
) -> tuple[dict[int, str | None], list[str]]:
    """Evaluations of a candidate before its `candidate.evaluated`.

    Returns:
        Senders of those that the report must hold, by index; and senders of others, which came with a later
        reply.
    """
    told: dict[int, str | None] = {}
    missed: list[str] = []
    for at, one in history.of(EntryType.EVALUATION_RECEIVED):
        about = (one.scope, one.run, one.pub["candidate"]) == (entry.scope, entry.run, entry.pub["candidate"])
        if at >= index or not about:
            continue
        if at in entry.refs or (isinstance(named, dict) and one.actor in named):
            told[at] = history.sender_party(at)
        else:
            missed.append(history.sender_party(at) or one.actor)
    return told, sorted(missed)


def check_statement(history: History, index: int, entry: Entry, report: Report) -> None:
    """The privacy statement: 1. signed by the broker; 2. figures; 3. subject; 4. contributors; 5. bounds."""
    named = entry.pub["statement"]
    if named is None:
        report.not_checked("AUD-071: a release without a privacy statement")
        return
    try:
        document = _signed(history, _bytes(history, named))  # 1.
        statements.check_statement(document)  # 2.
        _check_subject(history, index, entry, document, report)
    except EncodingError as error:
        report.add("AUD-071", f"statement: needs {error.need}; found {error.found}", index=index)
        return
    except _MALFORMED as error:
        found = error.found if isinstance(error, IriaiError) else type(error).__name__
        report.add("AUD-071", f"statement: its figures do not follow from its plans: {found}", index=index)
        return
    report.facts["privacy"] = document["verdict"]
    report.tallies["not_private"] += document["verdict"] == statements.NOT_PRIVATE


def _signed(history: History, data: bytes) -> dict[str, Json]:
    """What the broker signed.

    Raises:
        EncodingError: Another form, or not signed by the broker of the policy and nobody else.
    """
    obj = parse_envelope_json(data)
    envelope = Envelope.from_json(obj)
    signed = (
        envelope.payload_type == statements.PAYLOAD_TYPE
        and envelope.to_json() == obj
        and [hint for hint, _ in envelope.signatures] == [key_id(history.policy.broker)]
        and envelope.signed_by(history.policy.broker)
    )
    document = parse_envelope_json(envelope.payload)
    if not signed or not isinstance(document, dict):
        raise EncodingError(need="one signature by the broker", found="others", remedy="export it again")
    return document


def _check_subject(
    history: History, index: int, entry: Entry, document: Mapping[str, Json], report: Report
) -> None:
    recipe = history.recipe_of(entry.run)
    subject = {"run": entry.run, "model": entry.pub["model"], "contract": entry.scope, "recipe": recipe}
    wrong = [name for name, value in subject.items() if document["subject"].get(name) != value]  # 3.
    wrong += _wrong_judging(history, entry, document)
    plan = history.plan_of(recipe)
    if any((row["plan"] or {}).get("document") != plan for row in document["contributors"]):
        wrong.append("plan")
    wrong += _wrong_terms(history, entry, document)
    if history.grade != "auditor":
        report.not_checked("AUD-071: whom the statement leaves out (this is a member's bundle)")
    else:  # 4.
        told = [row["party"] for row in document["contributors"]]
        wrong += [] if sorted(told) == sorted(_contributors(history, entry)) else ["contributors"]
    if not wrong:  # 5. once the rows are those of the log: as few as there are contributors, under its plan
        wrong += [] if all(map(_lifetime_holds, document["contributors"])) else ["lifetime"]
        check_accounting(document["contributors"], index, report)
    if wrong:
        report.add("AUD-071", "the statement differs from the log: " + " ".join(wrong), index=index)


def _wrong_judging(history: History, entry: Entry, document: Mapping[str, Json]) -> list[str]:
    """Plans of queries on held-out units that are not those of recipe and contract."""
    recipe, told = history.recipe_of(entry.run), document["evaluation"]
    wrong = [] if told["plan"]["digest"] == history.evaluation_of(recipe) else ["evaluation"]
    votes = votes_of(history.contracts.get(entry.scope or ""), history.recipes.get(recipe or "", {}))
    named = None if told["votes"] is None else told["votes"]["document"]
    return wrong if named == votes else [*wrong, "votes"]


def _wrong_terms(history: History, entry: Entry, document: Mapping[str, Json]) -> list[str]:
    """Terms that are not those of contract, recipe and evaluation; tables of another number of silos."""
    contract, terms = history.contracts.get(entry.scope or ""), document["terms"]
    start = history.recipes.get(history.recipe_of(entry.run) or "", {}).get("start") or {}
    wrong = [] if terms["seed_set"] == start.get("seed_set") else ["seed_set"]
    if contract is not None:
        summed = contract.aggregation.secure_aggregation
        wrong += [] if terms["secure_aggregation"] == summed else ["secure_aggregation"]
        slot = contract.privacy.reply_slot_ms or 0
        wrong += [] if terms["reply_slot_ms"] == slot else ["reply_slot_ms"]
    wrong += _wrong_tests(history, entry, document)
    if contract is not None:
        wrong += _wrong_tables(contract, history.recipe_of(entry.run) or "", document)
    return wrong


def _wrong_tables(contract: Contract, recipe: str, document: Mapping[str, Json]) -> list[str]:
    """Tables by colluders that are of another sum than the smallest that may be opened."""
    for row in document["contributors"]:
        table = (row["claim"] or {}).get("epsilon_by_colluders")
        plan = row["plan"]["document"] if table else {}
        if table and len(table) != smallest_sum(contract, recipe, plan["honest_min"]):
            return ["epsilon_by_colluders"]
    return []


def _wrong_tests(history: History, entry: Entry, document: Mapping[str, Json]) -> list[str]:
    """Leak tests and audits of engines that are not those of the candidate's last evaluation."""
    evaluated = [
        one
        for _, one in history.of(EntryType.CANDIDATE_EVALUATED)
        if (one.run, one.pub["candidate"]) == (entry.run, entry.pub["model"])
    ]
    found = find_report(history, evaluated[-1]) if evaluated else None
    if found is None:
        return []  # said by the evaluation itself
    leaks, terms = found.get("leaks"), document["terms"]
    auc = leak_facts(found, fields=(), secrets=()).mia_auc
    tested = None if leaks is None else evaluated[-1].pub["report"]
    wrong = [] if terms["leak_report"] == tested else ["leak_report"]
    wrong += [] if terms["mia_auc"] == auc else ["mia_auc"]
    told = found.get("audits", {})
    for row in document["contributors"]:
        if row["plan"] is not None and row["audit"] != told.get(row["party"], {}).get("conformance"):
            wrong.append("audit")
    return wrong


def _lifetime_holds(row: Mapping[str, Json]) -> bool:
    """The owner's lifetime follows from no plan in the log, yet has bounds."""
    lifetime = row["lifetime"]
    if row["plan"] is None or lifetime is None:
        return True
    fits = set(lifetime) == set(_LIFETIME) and all(
        kind.holds(lifetime[name]) for name, kind in _LIFETIME.items()
    )
    return fits and bool(lifetime["rho_spent_nano"] <= lifetime["rho_max_nano"])


def _contributors(history: History, entry: Entry) -> set[str]:
    """Aliases, for the run as a whole, of everybody whose update is in an aggregate of it."""
    used = {
        ref
        for _, one in history.of(EntryType.AGGREGATE_RELEASED)
        if one.run == entry.run
        for ref in one.refs
        if ref in history.entries and history.entries[ref].type is EntryType.SUBMISSION_RECEIVED
    }
    orgs = {history.senders[ref].org for ref in used if ref in history.senders}
    return {
        alias(history.aliases[org], entry.scope, entry.run, None) for org in orgs if org in history.aliases
    }
