# SPDX-License-Identifier: Apache-2.0
"""AUD-071, second half: the documents that a release rests on are in the bundle and say what they must.

The privacy statement is the broker's signed word; every figure in it that follows from a plan is computed
again, and whom it is about is compared with the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.errors import EncodingError, IriaiError
from policies.identity import key_id
from policies.log.entries import EntryType, alias
from policies.privacy import statement as statements
from policies.signing import Envelope, parse_envelope_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_report", "check_statement"]

Json = Any
_MALFORMED = (IriaiError, KeyError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError)


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
    """The evaluation report is in the bundle and about this candidate."""
    try:
        document = parse_envelope_json(_bytes(history, entry.pub["report"]))
    except EncodingError as error:
        report.add("AUD-071", f"report: needs {error.need}; found {error.found}", index=index)
        return
    if not isinstance(document, dict) or document.get("candidate") != entry.pub["candidate"]:
        report.add("AUD-071", "the report is about another candidate", index=index)


def check_statement(history: History, index: int, entry: Entry, report: Report) -> None:
    """The privacy statement: 1. signed by the broker; 2. its figures; 3. its subject; 4. its contributors."""
    named = entry.pub["statement"]
    if named is None:
        report.not_checked("AUD-071: a release without a privacy statement")
        return
    try:
        document = _signed(history, _bytes(history, named))  # 1.
        statements.check_statement(document)  # 2.
    except EncodingError as error:
        report.add("AUD-071", f"statement: needs {error.need}; found {error.found}", index=index)
        return
    except _MALFORMED as error:
        found = error.found if isinstance(error, IriaiError) else type(error).__name__
        report.add("AUD-071", f"statement: its figures do not follow from its plans: {found}", index=index)
        return
    _check_subject(history, index, entry, document, report)
    report.facts["privacy"] = document["verdict"]


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
    plan = history.plan_of(recipe)
    if any((row["plan"] or {}).get("document") != plan for row in document["contributors"]):
        wrong.append("plan")
    if history.grade == "auditor":  # 4.
        told = {row["party"] for row in document["contributors"]}
        wrong += [] if told == _contributors(history, entry) else ["contributors"]
    if wrong:
        report.add("AUD-071", "the statement differs from the log: " + " ".join(wrong), index=index)


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
