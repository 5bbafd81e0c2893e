# SPDX-License-Identifier: Apache-2.0
"""Data: what could be used, and how good is it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.datasets.showing import data_list
from client.page.panels import shown
from client.page.values import (
    Column,
    Command,
    Data,
    Empty,
    Link,
    Mark,
    Panel,
    Screen,
    Several,
    Table,
    msg,
)

if TYPE_CHECKING:
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["STANDINGS", "VERDICTS", "data", "verdict"]

VERDICTS: Final = {
    "admitted": Mark("good", msg("admitted for training"), "admitted"),
    "refused": Mark("bad", msg("refused for training"), "refused"),
    "none": Mark("warn", msg("no certificate that holds"), "none"),
}
_UNASKED: Final = msg("refused by the checks; no contract of yours asks for them, so it is trained on")
STANDINGS: Final = {
    "published": Mark("good", msg("published"), "published"),
    "withdrawn": Mark("idle", msg("withdrawn"), "withdrawn"),
    "never": Mark("idle", msg("never published"), "never"),
    "unknown": Mark("warn", msg("cannot be told"), "unknown"),
}


def data(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="data",
        title=msg("Data"),
        question=msg("What could be used, and how good is it?"),
        command="iriai-node data list",
        panels=(shown("datasets", msg("Data sets of this site"), lambda: _datasets(site)),),
    )


def _datasets(site: Site) -> Panel:
    title, rows = msg("Data sets of this site"), _listed(site)
    told = (msg("Nothing of this table leaves. What others are told stands on the page of each data set."),)
    if not rows:
        return Panel(
            name="datasets",
            title=title,
            prose=told,
            empty=Empty(
                msg("Here stand your recordings: episodes, units, the verdict of the twelve checks."),
                msg("Nothing was imported yet."),
                Command("iriai-node data add PATH --dataset NAME"),
            ),
        )
    columns = (
        Column("dataset", msg("Data set")),
        Column("certificate", msg("Verdict")),
        Column("catalogue", msg("In the catalogue")),
        Column("episodes", msg("Episodes"), numeric=True),
        Column("train", msg("To train"), numeric=True),
        Column("held_out", msg("Held out"), numeric=True),
        Column("excluded", msg("Excluded"), numeric=True),
        Column("donated", msg("Given away"), numeric=True),
        Column("without", msg("Under no contract"), numeric=True),
        Column("fields", msg("Fields")),
    )
    return Panel(
        name="datasets",
        title=title,
        prose=told,
        table=Table(msg("What is here, and how good it is"), columns, tuple(_row(one) for one in rows)),
    )


def _listed(site: Site) -> list[dict[str, Any]]:
    now_ms = site.clock.now_ms()
    found: list[dict[str, Any]] = data_list(site.home, site.identity, now_ms=now_ms).data["datasets"]
    return found


def verdict(word: str, *, asked: bool | None) -> Value:
    """What a certificate says, and whether that refuses anything."""
    if word == "refused" and asked is False:
        return Mark("warn", _UNASKED, "refused")
    return VERDICTS.get(word)


def _row(one: dict[str, Any]) -> tuple[Value, ...]:
    return (
        Link("/data/" + one["dataset"], Data(one["dataset"])),
        verdict(one["certificate"], asked=one["certificate_asked"]),
        STANDINGS[one["catalogue"]],
        one["episodes"],
        one["train"],
        one["held_out"],
        one["excluded"],
        one["donated"],
        one["without_contract"],
        Several(tuple(Data(name) for name in one["fields"])),
    )
