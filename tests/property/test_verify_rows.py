# SPDX-License-Identifier: Apache-2.0
"""Rows read in part are the rows; incidents are closed as a plain reading of all entries says."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.log.entries import EntryType
from policies.verify.incidents import check_incidents, subject_of
from policies.verify.ledger import CLOSES, CODES, MEMBER, Ledger, Row
from policies.verify.report import Report

SIZE = 600  # more than two tiles


def test_some_fields_of_rows_are_those_of_the_whole_rows() -> None:
    ledger = Ledger(SIZE)
    rows = [Row(at % 5, run=b"%d" % at, mark=b"%08d" % at, minute=at, flags=at % 256) for at in range(SIZE)]
    ledger.write(0, rows)
    ledger.codes[:] = bytes(row.code for row in rows)
    whole = list(ledger.rows())
    assert [index for index, _ in whole] == [at for at in range(SIZE) if at % 5]
    some = list(ledger.columns("code", "flags", "minute", "run", "mark"))
    assert some == [(at, (row.code, row.flags, row.minute, row.run, row.mark)) for at, row in whole]
    assert all(ledger.row(at) == row for at, row in whole)


def test_fields_that_are_asked_for_in_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="code"):
        list(Ledger(1).columns("flags", "code"))


@dataclass
class Told:
    """What an entry of an incident, or an action that closes one, says."""

    type: EntryType
    env: str | None = None
    pub: dict[str, Any] = field(default_factory=dict)
    run: str | None = None


def open_at_the_end(told: list[Told]) -> list[int]:
    """The rule in its plain words: each closing of the broker's own uses up one action before it."""
    actions = [at for at, one in enumerate(told) if one.type is EntryType.CONSOLE_ACTION]
    still: dict[str, int] = {}
    for at, one in enumerate(told):
        if one.type is EntryType.INCIDENT_DECLARED:
            still.setdefault(one.pub["kind"], at)
        elif one.type is EntryType.INCIDENT_CLOSED:
            if one.env is None:
                if not actions or actions[0] > at:
                    continue
                actions.pop(0)
            still.pop(one.pub["kind"], None)
    return sorted(still.values())


def told_of(drawn: tuple[str, str]) -> Told:
    what, kind = drawn
    if what == "action":
        return Told(EntryType.CONSOLE_ACTION)
    entry_type = EntryType.INCIDENT_DECLARED if what.startswith("declare") else EntryType.INCIDENT_CLOSED
    env = "sha256:" + "0f" * 32 if what.endswith("by member") else None
    return Told(entry_type, env, {"kind": kind, "evidence": "sha256:" + "00" * 32})


def row_of(one: Told) -> Row:
    if one.type is EntryType.CONSOLE_ACTION:
        return Row(CODES[one.type], request=CLOSES)
    if one.env is not None:
        return Row(CODES[one.type], flags=MEMBER, env=b"\x0f" * 32)
    return Row(CODES[one.type], env=subject_of(one))  # type: ignore[arg-type]  # it has what is read


WHAT = ["declare", "declare by member", "close", "close by member", "action"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WHAT), st.sampled_from(["a", "b"])), min_size=1, max_size=14))
def test_incidents_are_open_until_one_in_order_closes_them(drawn: list[tuple[str, str]]) -> None:
    told = [told_of(one) for one in drawn]
    ledger, report = Ledger(len(told)), Report()
    ledger.write(0, [row_of(one) for one in told])
    ledger.codes[:] = bytes(CODES[one.type] for one in told)
    check_incidents(SimpleNamespace(ledger=ledger, entries=dict(enumerate(told))), report)  # type: ignore[arg-type]
    assert sorted(one.index or 0 for one in report.findings) == open_at_the_end(told)
