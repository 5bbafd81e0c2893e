# SPDX-License-Identifier: Apache-2.0
"""The broker's live tables against a bundle of its log, in both directions. AUD-110 to AUD-114.

The log proves what happened; the tables are what the broker acts by. Whoever edits them past the log acts by
something that nobody agreed to.

1. ``log_entry`` and ``log_envelope`` are the bundle's, byte for byte, stored checkpoints have its roots
   (AUD-113); other columns say what the bytes say (AUD-112). Entries behind the bundle are read as the tables
   have them, and named: what they say counts, and is not proven;
2. each business row has its entry (AUD-110), each entry its row (AUD-111), and both say the same (AUD-112),
   by `policies.verify.mirrors`;
3. each confidential field has its row in the private store unless it was erased (AUD-111); the row opens the
   commitment (AUD-112); nothing that was erased is still there (AUD-114).

    with open_database("sqlite:/srv/pool") as rows:
        reconcile(history, rows, report)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.encoding import parse
from policies.errors import EncodingError, IriaiError
from policies.log.entries import EntryType, check_entry, commitment
from policies.log.merkle import leaf_hash
from policies.ports import to_ms
from policies.verify.errors import InputError
from policies.verify.mirrors import MIRRORS, Entries
from policies.verify.report import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.mirrors import Mirror, Pair
    from policies.verify.report import Report
    from policies.verify.rows import Rows

__all__ = ["TABLES", "reconcile"]

_RULES = ("AUD-110", "AUD-111", "AUD-112", "AUD-113", "AUD-114")
TABLES: Mapping[str, str] = {
    "log_entry": "idx",
    "log_envelope": "idx",
    "log_checkpoint": "size",
    **{one.table: one.order for one in MIRRORS},
    "log_private": "event_id",
}
"""Tables that are read, with the column that orders them."""

_ENTRY_COLUMNS: Mapping[str, type] = {
    "idx": int,
    "body": bytes,
    "event_id": bytes,
    "leaf_hash": bytes,
    "ts_ms": int,
}
_ENVELOPE_COLUMNS: Mapping[str, type] = {"idx": int, "dsse": bytes}
_PRIVATE_COLUMNS: Mapping[str, type] = {"event_id": bytes, "field": str, "salt": bytes, "value": bytes}


def reconcile(history: History, rows: Rows, report: Report) -> None:
    """AUD-110 to AUD-114.

    Args:
        history: Of a bundle that was audited: members' envelopes were checked.
        rows: The tables.
        report: Gets the findings.

    Raises:
        InputError: They are tables of another log: each row would be a finding, and none would mean anything.
    """
    _check_origin(history, rows)
    rows = counted = _Counted(rows)
    later = _check_log(history, rows, report)  # 1.
    if later:
        report.not_checked(f"AUD-110 to 113: {len(later)} entries behind the bundle, as the tables have them")
    _check_envelopes(history, rows, report)
    _check_checkpoints(history, rows, report)
    entries = Entries(history, tuple(later))
    for mirror in MIRRORS:  # 2.
        _compare(mirror, entries, rows, report)
    _check_private(history, entries, rows, report)  # 3.
    wrong = sum(report.counts[rule] for rule in _RULES)
    said = f"{wrong} findings say where they differ" if wrong else "all agree"
    shown = f"{sum(counted.read.values())} rows of {len(counted.read)} tables beside the log: {said}"
    report.recomputed(f"AUD-110 to 114: {shown}")


class _Counted:
    """Tables of a source; how many rows of each were read, so that silence can be told from agreement."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.read: dict[str, int] = {}

    def table(self, name: str, order: str) -> Iterator[Mapping[str, Any]] | None:
        """As `policies.verify.rows.Rows`."""
        found = self._rows.table(name, order)
        return None if found is None else self._counted(name, found)

    def _counted(self, name: str, table: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        self.read[name] = 0
        for row in table:
            self.read[name] += 1
            yield row


def _typed(
    table: Iterator[Mapping[str, Any]], name: str, columns: Mapping[str, type], report: Report
) -> Iterator[Mapping[str, Any]]:
    """Rows whose columns are of their types."""
    for row in table:
        if all(isinstance(row.get(column), kind) for column, kind in columns.items()):
            yield row
        else:
            report.add("AUD-112", f"{name}: a row of another form")


# --- the log ---


def _check_origin(history: History, rows: Rows) -> None:
    """Refuses tables whose first entry and first checkpoint are another log's."""
    entry = next(iter(rows.table("log_entry", TABLES["log_entry"]) or ()), {})
    note = next(iter(rows.table("log_checkpoint", TABLES["log_checkpoint"]) or ()), {}).get("note")
    body, origin = entry.get("body"), note.partition("\n")[0] if isinstance(note, str) else ""
    ours = isinstance(body, bytes) and history.size > 0 and leaf_hash(body) == history.tree.leaf(0)
    if not ours and origin and origin != history.checkpoint.origin:
        raise InputError(
            need=plain(f"tables of the log {history.checkpoint.origin}, which the bundle is of"),
            found=plain(f"tables of the log {origin}"),
            remedy="name that log's database, or its bundle and your policy for it",
        )


def _check_log(history: History, rows: Rows, report: Report) -> list[tuple[int, Entry]]:
    """Compares ``log_entry``; entries behind the bundle."""
    table = rows.table("log_entry", TABLES["log_entry"])
    later: list[tuple[int, Entry]] = []
    if table is None:
        report.not_checked("AUD-113: log_entry was not given")
        return later
    expected = 0
    for row in _typed(table, "log_entry", _ENTRY_COLUMNS, report):
        index = row["idx"]
        for missing in range(expected, min(index, history.size)):
            report.add("AUD-111", "no row in log_entry", index=missing)
        if index < expected:
            report.add("AUD-113", f"row {index} of log_entry out of place")
            continue
        expected = index + 1
        entry = _entry(history, index, row, report)
        if entry is not None and index >= history.size:
            later.append((index, entry))
    for missing in range(expected, history.size):
        report.add("AUD-111", "no row in log_entry", index=missing)
    return later


def _entry(history: History, index: int, row: Mapping[str, Any], report: Report) -> Entry | None:
    """The entry of a row, its columns compared; None if it is none."""
    body = row["body"]
    if index < history.size and leaf_hash(body) != history.tree.leaf(index):
        report.add("AUD-113", "log_entry has other bytes", index=index)
        return None
    entry = history.entries.get(index)
    if entry is None:
        try:
            entry = check_entry(body)
        except IriaiError as error:
            if index >= history.size:
                report.add(
                    "AUD-113", f"behind the bundle: needs {error.need}; found {error.found}", index=index
                )
            return None
    columns = {
        "event_id": entry.id,
        "leaf_hash": leaf_hash(body),
        "type": entry.type.value,
        "scope": entry.scope,
        "run": entry.run,
        "round": entry.round,
        "actor": entry.actor,
    }
    wrong = [name for name, value in columns.items() if row.get(name) != value]
    wrong += [] if row["ts_ms"] // 60_000 * 60_000 == to_ms(entry.ts) else ["ts_ms"]
    if wrong:
        report.add("AUD-112", "log_entry: " + " ".join(wrong), index=index)
    return entry


def _check_envelopes(history: History, rows: Rows, report: Report) -> None:
    table = rows.table("log_envelope", TABLES["log_envelope"])
    if table is None:
        report.not_checked("AUD-113: log_envelope was not given")
        return
    seen = set()
    for row in _typed(table, "log_envelope", _ENVELOPE_COLUMNS, report):
        index = row["idx"]
        seen.add(index)
        envelope, sender = history.envelopes.get(index), history.senders.get(index)
        if index >= history.size or (envelope is None and history.grade != "auditor"):
            continue
        if envelope is None or envelope.to_bytes() != row["dsse"]:
            report.add("AUD-113", "log_envelope has another envelope than the bundle", index=index)
        elif sender is not None:
            told = (sender.payload["chain"], sender.payload["seq"], sender.payload["seen"]["size"])
            if (row.get("chain"), row.get("seq"), row.get("seen_size")) != told:
                report.add("AUD-112", "log_envelope: chain, seq or seen_size", index=index)
    for index in sorted(set(history.envelopes) - seen):
        report.add("AUD-111", "no row in log_envelope", index=index)


def _check_checkpoints(history: History, rows: Rows, report: Report) -> None:
    """Stored checkpoints have the roots of the tree."""
    table = rows.table("log_checkpoint", TABLES["log_checkpoint"]) or iter(())
    for row in _typed(table, "log_checkpoint", {"size": int, "root": bytes}, report):
        if row["size"] <= history.size and row["root"] != history.tree.root(row["size"]):
            report.add("AUD-113", f"log_checkpoint of size {row['size']} has another root")


# --- business rows ---


def _compare(mirror: Mirror, entries: Entries, rows: Rows, report: Report) -> None:
    table = rows.table(mirror.table, mirror.order)
    if table is None:
        report.not_checked(f"AUD-110 to 112: {mirror.table} was not given")
        return
    told: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}
    for index, (key, fields) in mirror.entries(entries):
        told[key] = index, fields
    found = set()
    for key, fields in _pairs(mirror, table, report):
        if key not in told:
            report.add("AUD-110", f"{mirror.name} {_shown(key)}")
            continue
        found.add(key)
        index, said = told[key]
        wrong = [name for name, value in fields.items() if value != said.get(name)]
        if wrong:
            shown = "; ".join(f"{name}: row {fields[name]}, log {said.get(name)}" for name in wrong)
            report.add("AUD-112", f"{mirror.name} {_shown(key)}: {shown}", index=index)
    if mirror.both:
        for key in told.keys() - found:
            report.add("AUD-111", f"{mirror.name} {_shown(key)}", index=told[key][0])


def _pairs(mirror: Mirror, table: Iterator[Mapping[str, Any]], report: Report) -> Iterator[Pair]:
    for row in table:
        try:
            pair = mirror.row(row)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # whatever a file may hold
            report.add("AUD-112", f"{mirror.table}: a row of another form")
            continue
        if pair is not None:
            yield pair


def _shown(key: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in key)


# --- the private store ---


def _check_private(history: History, entries: Entries, rows: Rows, report: Report) -> None:
    table = rows.table("log_private", TABLES["log_private"])
    if table is None:
        report.not_checked("AUD-114: log_private was not given")
        return
    erased = {
        (at, name)
        for _, entry in entries.of(EntryType.ERASURE_PERFORMED)
        for at in entry.pub["indexes"]
        for name in entry.pub["fields"]
    }
    indexes = {entry.id: index for index, entry in history.entries.items()}
    kept: dict[int, set[str]] = {}
    for row in _typed(table, "log_private", _PRIVATE_COLUMNS, report):
        index = indexes.get(row["event_id"])
        if index is None:
            continue  # behind the bundle, or of a batch that did not commit
        kept.setdefault(index, set()).add(row["field"])
        if (index, row["field"]) in erased:
            report.add("AUD-114", f"{row['field']} is still in log_private", index=index)
        elif not _opens(history.entries[index], row):
            report.add("AUD-112", f"log_private: {row['field']} does not open its commitment", index=index)
    for index, entry in sorted(history.entries.items()):
        gone = [one for one in entry.sd if one not in kept.get(index, ()) and (index, one) not in erased]
        if gone:
            report.add("AUD-111", "no row in log_private: " + " ".join(sorted(gone)), index=index)


def _opens(entry: Entry, row: Mapping[str, Any]) -> bool:
    name = row["field"]
    try:
        value = parse(row["value"])
    except EncodingError:
        return False
    return name in entry.sd and commitment(row["salt"], name, value) == entry.sd[name]
