# SPDX-License-Identifier: Apache-2.0
"""Which business row stands for which entries: the table that ``reconcile`` compares by.

A `Mirror` gives, from a row and from an entry, the same key and the same fields. ``both`` says whether an
entry without its row is a finding too: some rows are kept only where they are needed.

==================  ====================================================================
row                 entries
==================  ====================================================================
organisation        org.onboarded; out: org.suspended, org.left; in again: org.reinstated; its key: key.added
                    or key.rotated
operator, auditor   key.added of that role; an auditor who is revoked: key.revoked
approval            console.action org.approve about the same evidence
contract_document   contract.proposed; a final one: contract.finalized
contract_notice     contract.halted, contract.resumed, contract.exited
run                 run.opened; its outcome: run.closed
round               round.closed; its models: round.opened, aggregate.released
ledger_mirror       epsilon.spent of a training step
candidate           candidate.evaluated
vote                vote.cast
release             model.released
decision            decision.recorded
witness             witness.added without a witness.removed
access_grant        access.granted; over: access.revoked
==================  ====================================================================

A party is found by its alias, which recomputes: also in entries behind the bundle, whose signatures nobody
has checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import digest
from policies.errors import IdentityError
from policies.identity import parse_key
from policies.log.entries import ALIAS_KEY_BYTES, EntryType, alias
from policies.ports import iso_minute

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["MIRRORS", "Entries", "Mirror", "Pair"]

_T = EntryType
Row = Mapping[str, Any]
Pair = tuple[tuple[Any, ...], dict[str, Any]]
"""Key and fields."""
_ACTIVE: Final = "active"
_OUT: Final = frozenset({"suspended", "revoked"})


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of the bundle, and those that the tables have behind it."""

    history: History
    later: tuple[tuple[int, Entry], ...] = ()

    def of(self, *kinds: EntryType) -> Iterator[tuple[int, Entry]]:
        """Entries of these types, in order."""
        yield from self.history.of(*kinds)
        yield from ((index, entry) for index, entry in self.later if entry.type in kinds)

    def party(self, entry: Entry) -> str | None:
        """Short name of the party that an entry is by, in its contract."""
        clause = self.history.party(entry.scope, self.history.org_of(entry.actor, entry))
        return None if clause is None else clause.party


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """How one table mirrors the log.

    Attributes:
        name: What is compared, in words.
        table: Name of the table.
        order: Column of its primary key.
        row: Key and fields of a row; None for rows that no entry stands for.
        entries: Key, fields and index of what the log says; a later one of the same key replaces the earlier.
        both: Whether each key of the log must have its row.
    """

    name: str
    table: str
    order: str
    row: Callable[[Row], Pair | None]
    entries: Callable[[Entries], Iterable[tuple[int, Pair]]]
    both: bool = True


def _kid(text: object) -> str:
    """Digest of a key's bytes, as entries name it; of no key: the text itself."""
    try:
        return digest(parse_key(str(text)))
    except IdentityError:
        return str(text)


def _json(text: object) -> Any:  # noqa: ANN401  a JSON document
    try:
        return json.loads(str(text))
    except ValueError:
        return None


# --- membership ---


def _organisation_row(row: Row) -> Pair | None:
    key = row["alias_key"]
    if len(key) != ALIAS_KEY_BYTES:
        return None  # it waits for its approval
    return (alias(key, None, None, None),), {"org": row["org_id"], "revoked": row["state"] in _OUT}


def _organisation_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    org: dict[str, Any] = {}
    for index, entry in entries.of(_T.ORG_ONBOARDED, _T.ORG_SUSPENDED, _T.ORG_REINSTATED, _T.ORG_LEFT):
        name = entry.pub["org"]
        if entry.type is _T.ORG_ONBOARDED:
            org[name] = entries.history.org_of(name, entry)
        gone = entry.type in (_T.ORG_SUSPENDED, _T.ORG_LEFT)
        yield index, ((name,), {"org": org.get(name), "revoked": gone})


def _node_key_row(row: Row) -> Pair | None:
    return ((_kid(row["node_key"]),), {}) if len(row["alias_key"]) == ALIAS_KEY_BYTES else None


def _node_key_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.KEY_ADDED, _T.KEY_ROTATED):
        if entry.pub["role"] == "node":
            yield index, ((entry.pub["kid" if entry.type is _T.KEY_ADDED else "new"],), {})


def _key_entries(role: str) -> Callable[[Entries], Iterator[tuple[int, Pair]]]:
    def found(entries: Entries) -> Iterator[tuple[int, Pair]]:
        mine: set[str] = set()
        for index, entry in entries.of(_T.KEY_ADDED, _T.KEY_REVOKED):
            kid = entry.pub["kid"]
            if entry.type is _T.KEY_ADDED and entry.pub["role"] == role:
                mine.add(kid)
                yield index, ((kid,), {"revoked": False})
            elif entry.type is _T.KEY_REVOKED and kid in mine:
                yield index, ((kid,), {"revoked": True})

    return found


def _person_row(row: Row) -> Pair:
    return (_kid(row["key"]),), {"revoked": row["state"] != _ACTIVE}


def _approval_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.CONSOLE_ACTION):
        if (entry.pub["action"], entry.pub["result"]) == ("org.approve", "done"):
            yield index, ((entry.pub["operator"], entry.pub["subject"]), {})


# --- contracts ---


def _document_row(row: Row) -> Pair:
    fields = {
        "version": row["version"],
        "supersedes": row["supersedes"],
        "bytes": digest(bytes(row["bytes"])),
    }
    return (row["digest"],), fields


def _document_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.CONTRACT_PROPOSED):
        pub = entry.pub
        fields = {
            "version": pub["version"],
            "supersedes": pub["supersedes"],
            "bytes": pub["contract"],
        }
        yield index, ((pub["contract"],), fields)


def _final_row(row: Row) -> Pair | None:
    return ((row["digest"],), {}) if row["state"] == "finalized" else None


def _final_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    yield from ((index, ((one.pub["contract"],), {})) for index, one in entries.of(_T.CONTRACT_FINALIZED))


_NOTICED: Final = {"halt": _T.CONTRACT_HALTED, "resume": _T.CONTRACT_RESUMED, "exit": _T.CONTRACT_EXITED}


def _notice_row(row: Row) -> Pair | None:
    kind = _NOTICED.get(row["kind"])
    return None if kind is None else ((row["digest"],), {"contract": row["contract"], "kind": kind.value})


def _notice_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(*_NOTICED.values()):
        fields = {"contract": entry.pub["contract"], "kind": entry.type.value}
        yield index, ((entry.pub["notice"],), fields)


# --- runs ---


def _run_row(row: Row) -> Pair:
    return (row["run_id"],), {"recipe": row["recipe_digest"], "outcome": row["outcome"]}


def _run_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    recipes: dict[str | None, Any] = {}
    for index, entry in entries.of(_T.RUN_OPENED, _T.RUN_CLOSED):
        if entry.type is _T.RUN_OPENED:
            recipes[entry.run] = entry.pub["recipe"]
        fields = {"recipe": recipes.get(entry.run), "outcome": entry.pub.get("outcome")}
        yield index, ((entry.run,), fields)


def _round_row(row: Row) -> Pair:
    told = _json(row["verdicts"])
    refused = list(told.values()).count("refused") if isinstance(told, dict) else None
    fields = {
        "accepted": row["accepted"],
        "refused": refused,
        "base": row["base"],
        "model": row["model"],
    }
    return (row["run_id"], row["round"], row["attempt"]), fields


def _round_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    base: dict[tuple[Any, ...], Any] = {}
    model: dict[tuple[Any, ...], Any] = {}
    for index, entry in entries.of(_T.ROUND_OPENED, _T.AGGREGATE_RELEASED, _T.ROUND_CLOSED):
        key = (entry.run, entry.round, entry.pub["attempt"])
        if entry.type is _T.ROUND_OPENED:
            base[key] = entry.pub["base_model"]
        elif entry.type is _T.AGGREGATE_RELEASED:
            model[key] = entry.pub["model"]
        else:
            counts = {name: entry.pub[name] for name in ("accepted", "refused")}
            yield index, (key, counts | {"base": base.pop(key, None), "model": model.pop(key, None)})


def _ledger_row(row: Row) -> Pair:
    fields = {"plan": row["plan_digest"], "steps": row["steps"]}
    return (row["party"], row["run_id"], row["round"], row["attempt"]), fields


def _ledger_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.EPSILON_SPENT):
        run, number, attempt = ([*entry.pub["mechanism"].split("/"), "", ""])[:3]
        if number.isdecimal():  # else: an evaluation
            key = (entries.party(entry), run, int(number), int(attempt))
            yield index, (key, {"plan": entry.pub["plan"], "steps": entry.pub["steps"]})


# --- what came of them ---


def _evaluated_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.CANDIDATE_EVALUATED):
        yield index, ((entry.pub["candidate"],), {"run": entry.run})


def _evaluated_row(row: Row) -> Pair | None:
    return (row["digest"],), {"run": row["run_id"]}


def _vote_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.VOTE_CAST):
        yield index, ((entry.pub["subject"], entries.party(entry), entry.pub["vote"]), {})


def _release_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.MODEL_RELEASED):
        fields = {"contract": entry.scope, "statement": entry.pub["statement"]}
        yield index, ((entry.pub["model"], entry.pub["tier"]), fields)


def _release_row(row: Row) -> Pair:
    fields = {"contract": row["contract"], "statement": row["statement_digest"]}
    return (row["model"], row["tier"]), fields


def _decision_row(row: Row) -> Pair:
    fields = {"contract": row["contract"], "point": row["point"], "bytes": digest(bytes(row["bytes"]))}
    return (row["digest"],), fields


def _decision_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    for index, entry in entries.of(_T.DECISION_RECORDED):
        named = entry.pub["decision"]
        yield index, ((named,), {"contract": entry.scope, "point": entry.pub["point"], "bytes": named})


# --- who watches ---


def _witness_row(row: Row) -> Pair | None:
    return ((row["name"],), {"vkey": row["vkey"]}) if row["state"] == _ACTIVE else None


def _witness_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    there: dict[str, tuple[int, Pair]] = {}
    for index, entry in entries.of(_T.WITNESS_ADDED, _T.WITNESS_REMOVED):
        name = entry.pub["witness"]
        if entry.type is _T.WITNESS_ADDED:
            there[name] = index, ((name,), {"vkey": entry.pub["vkey"]})
        else:
            there.pop(name, None)
    yield from there.values()


def _grant_row(row: Row) -> Pair:
    fields, until = _json(row["fields"]), row["until_ms"]
    told = {
        "grantee": row["grantee"],
        "fields": None if fields == ["*"] else fields,
        "from_index": row["from_index"],
        "until": None if until is None else iso_minute(until),
        "over": row["state"] == "over",
    }
    return (row["id"],), told


def _grant_entries(entries: Entries) -> Iterator[tuple[int, Pair]]:
    given: dict[str, dict[str, Any]] = {}
    for index, entry in entries.of(_T.ACCESS_GRANTED, _T.ACCESS_REVOKED):
        name = entry.pub["grant"]
        if entry.type is _T.ACCESS_GRANTED:
            given[name] = {one: entry.pub[one] for one in ("grantee", "fields", "from_index", "until")}
        over = entry.type is _T.ACCESS_REVOKED
        yield index, ((name,), given.get(name, {}) | {"over": over})


MIRRORS: Final = (
    Mirror(
        name="organisation",
        table="organisation",
        order="org_id",
        row=_organisation_row,
        entries=_organisation_entries,
    ),
    Mirror(
        name="node key",
        table="organisation",
        order="org_id",
        row=_node_key_row,
        entries=_node_key_entries,
        both=False,
    ),
    Mirror(
        name="operator",
        table="operator",
        order="name",
        row=_person_row,
        entries=_key_entries("operator"),
    ),
    Mirror(name="auditor", table="auditor", order="name", row=_person_row, entries=_key_entries("auditor")),
    Mirror(
        name="approval",
        table="approval",
        order="org_id",
        row=lambda row: ((row["operator"], row["subject_digest"]), {}),
        entries=_approval_entries,
    ),
    Mirror(
        name="contract",
        table="contract_document",
        order="digest",
        row=_document_row,
        entries=_document_entries,
    ),
    Mirror(
        name="final contract",
        table="contract_document",
        order="digest",
        row=_final_row,
        entries=_final_entries,
        both=False,
    ),
    Mirror(
        name="notice",
        table="contract_notice",
        order="digest",
        row=_notice_row,
        entries=_notice_entries,
    ),
    Mirror(name="run", table="run", order="run_id", row=_run_row, entries=_run_entries),
    Mirror(name="round", table="round", order="run_id", row=_round_row, entries=_round_entries),
    Mirror(name="ledger", table="ledger_mirror", order="run_id", row=_ledger_row, entries=_ledger_entries),
    Mirror(
        name="candidate",
        table="candidate",
        order="digest",
        row=_evaluated_row,
        entries=_evaluated_entries,
    ),
    Mirror(
        name="vote",
        table="vote",
        order="candidate",
        row=lambda row: ((row["candidate"], row["party"], row["verdict"]), {}),
        entries=_vote_entries,
        both=False,
    ),
    Mirror(name="release", table="release", order="model", row=_release_row, entries=_release_entries),
    Mirror(name="decision", table="decision", order="digest", row=_decision_row, entries=_decision_entries),
    Mirror(name="witness", table="witness", order="name", row=_witness_row, entries=_witness_entries),
    Mirror(name="grant", table="access_grant", order="id", row=_grant_row, entries=_grant_entries),
)
"""Every table that is compared with the log's business entries."""
