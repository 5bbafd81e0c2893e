# SPDX-License-Identifier: Apache-2.0
"""The auditor's tables as CSV files, for programs that calculate with them.

======================  ==================================================================================
entries.csv             every entry: place, who, what, leaf hash, fields in clear and opened ones as JSON
findings.csv            every finding that the report keeps
epsilon.csv             every spend of privacy budget as its owner signed it
operator_actions.csv    console actions, accesses, disclosures, erasures, exports
======================  ==================================================================================

A cell that a spreadsheet would run (it begins with ``= + - @``, a tab or a carriage return, also behind
blanks) is written behind an apostrophe; what cannot be seen is written out. Files that are there are never
overwritten.
"""

from __future__ import annotations

import csv
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.verify.errors import InputError
from policies.verify.shown import actor_of, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["ACTIONS", "cell", "table_files", "write_tables"]

Json = Any
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r")
_CELL_CHARS = 32_000  # a spreadsheet's cell holds 32,767
_T = EntryType
ACTIONS = (
    _T.CONSOLE_ACTION,
    _T.ACCESS_GRANTED,
    _T.ACCESS_REVOKED,
    _T.ACCESS_USED,
    _T.DISCLOSURE_MADE,
    _T.ERASURE_PERFORMED,
    _T.EXPORT_AUDIT_BUNDLE,
)
"""What the people who run the broker did, and who read what is confidential."""


def cell(value: object) -> str:
    """Text of one cell that no program runs."""
    raw = "" if value is None else str(value)
    text = visible(raw, _CELL_CHARS)
    risky = raw.startswith(_RUN_BY_SPREADSHEETS) or raw.lstrip().startswith(_RUN_BY_SPREADSHEETS)
    return "'" + text if risky else text


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _entries(history: History) -> Iterator[tuple[object, ...]]:
    yield (
        *(
            "index",
            "type",
            "ts",
            "scope",
            "run",
            "round",
            "actor",
            "party",
            "refs",
            "env",
            "event_id",
            "leaf",
        ),
        *("pub", "opened"),
    )
    for index in range(history.size):
        entry = history.entries.get(index)
        if entry is None:
            yield index, "unreadable"
            continue
        party = actor_of(history, entry)
        yield (
            *(index, entry.type.value, entry.ts, entry.scope, entry.run, entry.round, entry.actor),
            party if party != entry.actor else "",
            " ".join(str(one) for one in entry.refs),
            *(entry.env, entry.id.hex(), history.tree.leaf(index).hex(), _json(dict(entry.pub))),
            _json(dict(history.opened.get(index, {}))),
        )


def _findings(report: Report) -> Iterator[tuple[object, ...]]:
    yield "id", "severity", "index", "evidence", "checks", "by_hand"
    for one in report.findings:
        told = one.to_json()
        yield one.id, one.severity, one.index, one.evidence, told["checks"], told["by_hand"]


def _epsilon(history: History) -> Iterator[tuple[object, ...]]:
    yield (
        *("index", "ts", "party", "scope", "run", "round", "mechanism", "plan", "steps"),
        *("lineage", "rho_nano", "epsilon_after"),
    )
    for index, entry in history.of(_T.EPSILON_SPENT):
        stated = history.stated(index) or history.opened.get(index, {})
        yield (
            *(index, entry.ts, actor_of(history, entry), entry.scope, entry.run, entry.round),
            *(entry.pub["mechanism"], entry.pub["plan"], entry.pub["steps"]),
            *(stated.get("lineage"), stated.get("rho_nano"), stated.get("epsilon_after")),
        )


def _actions(history: History) -> Iterator[tuple[object, ...]]:
    yield "index", "type", "ts", "at", "who", "what", "result", "request", "fields"
    for index, entry in history.of(*ACTIONS):
        pub = entry.pub
        yield (
            *(index, entry.type.value, entry.ts, history.opened.get(index, {}).get("at")),
            pub.get("operator") or pub.get("grantee") or entry.actor,
            pub.get("action") or pub.get("resource") or pub.get("reason") or entry.type.value,
            *(pub.get("result"), pub.get("request"), _json(dict(pub))),
        )


def table_files(folder: Path) -> list[Path]:
    """Where the files are in a folder."""
    return [folder / f"{name}.csv" for name in ("entries", "epsilon", "findings", "operator_actions")]


def write_tables(folder: Path, history: History | None, report: Report) -> list[Path]:
    """Writes the files into a folder, which is made where there is none; gives their paths.

    Without a history that could be read there are only findings.

    Raises:
        InputError: One of the files is there already; then nothing is written.
    """
    made: dict[str, Iterable[tuple[object, ...]]] = {"findings.csv": _findings(report)}
    if history is not None:
        made |= {"entries.csv": _entries(history), "epsilon.csv": _epsilon(history)}
        made |= {"operator_actions.csv": _actions(history)}
    there = [path.name for path in table_files(folder) if path.exists()]
    if there:
        raise InputError(
            need="a folder without tables of an earlier audit",
            found=" ".join(there),
            remedy="name another folder; an audit's files are never overwritten",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, rows in made.items():
            file = stack.enter_context((folder / name).open("x", encoding="utf-8", newline=""))
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerows([cell(one) for one in row] for row in rows)
    return [folder / name for name in sorted(made)]
