# SPDX-License-Identifier: Apache-2.0
"""Witnesses as operators and auditors see them: the same rows, words and sums for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.console.screens import Column
from broker.console.values import Code, Count, Name, Nothing, State, T, Value, When

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COLUMNS", "arithmetic", "witness_row"]

COLUMNS: Final = (
    Column("name", T("Key")),
    Column("owner", T("Owner"), sort=True),
    Column("state", T("State"), sort=True),
    Column("heard", T("Last cosignature")),
    Column("size", T("On size")),
)


def arithmetic(status: Mapping[str, Any]) -> T:
    """The quorum in a sentence; ``status`` is that of `broker.witnessing.Witnessing`."""
    heard = sum(not one["missing"] for one in status["witnesses"])
    if not status["k"]:
        return T("No quorum is asked for: receipts are signed by the log alone.")
    return T(
        "{k} of {n} are needed, {m} were heard lately.",
        k=Count(status["k"]),
        n=Count(status["n"]),
        m=Count(heard),
    )


def witness_row(one: Mapping[str, Any], now_ms: int) -> dict[str, Value]:
    """One witness of the status, by the names of `COLUMNS`."""
    age_s = one["age_s"]
    return {
        "name": Code(str(one["name"])),
        "owner": Name(str(one["legal_name"])),
        "state": State("missing" if one["missing"] else "heard"),
        "heard": Nothing(T("never heard")) if age_s is None else When(now_ms - int(age_s) * 1000),
        "size": Nothing() if one["size"] is None else Count(int(one["size"])),
    }
