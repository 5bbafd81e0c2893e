# SPDX-License-Identifier: Apache-2.0
"""Benefit: what did I get for contributing? As far as this node knows, and saying what it does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.models import holds_own
from client.page.panels import shown
from client.page.values import (
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Mark,
    Moment,
    Panel,
    Screen,
    Table,
    msg,
)
from policies.exchange import ExchangeType
from policies.limits import REPORT_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["benefit", "models_here"]


def benefit(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="benefit",
        title=msg("Benefit"),
        question=msg("What did I get for contributing?"),
        command="iriai-node models list",
        panels=(
            shown("models", msg("Models on your own held-out data"), lambda: _models(site)),
            shown("judged", msg("Candidates that this node judged"), lambda: _judged(site)),
            Panel(
                name="alone",
                title=msg("What you would have alone"),
                empty=Empty(
                    msg("Here would stand the loss of a model trained on your data alone."),
                    msg(
                        "Unknown: no command of a node trains one. "
                        "The sandbox measures it on cells of its own."
                    ),
                ),
            ),
            Panel(
                name="share",
                title=msg("Your share"),
                empty=Empty(
                    msg("Here would stand what your data added to the common model."),
                    msg("Unknown here: it follows from every member's results, which no member may see."),
                    Command("iriai-node statement show"),
                ),
            ),
        ),
    )


def models_here(site: Site, *, individual: bool) -> Iterator[dict[str, Any]]:
    """What is known of each model that is here; a file of another form is left out."""
    if not site.home.models.exists():
        return
    for folder in sorted(site.home.models.iterdir()):
        if folder.name.startswith("individual-") != individual:
            continue
        try:
            yield json.loads((folder / "model.json").read_bytes())
        except (OSError, ValueError):
            continue


def _models(site: Site) -> Panel:
    title = msg("Models on your own held-out data")
    rows = [_row(one) for one in models_here(site, individual=True)]
    if not rows:
        return Panel(
            name="models",
            title=title,
            empty=Empty(
                msg(
                    "Here stand the common model and your own beside it: which one does better on your cells."
                ),
                msg("No released model was trained on here yet."),
                Command("iriai-node models personalise MODEL"),
            ),
        )
    columns = (
        Column("model", msg("Model")),
        Column("common", msg("Loss of the common one"), numeric=True),
        Column("own", msg("Loss of your own"), numeric=True),
        Column("gain", msg("Better by"), numeric=True),
        Column("units", msg("Units that report"), numeric=True),
        Column("kept", msg("Kept")),
        Column("sure", msg("How sure")),
    )
    told = msg("Losses of units that chose nothing: lower is better. These figures stay on this site.")
    return Panel(
        name="models",
        title=title,
        prose=(told,),
        table=Table(msg("The common model and your own"), columns, tuple(rows)),
    )


def _row(one: dict[str, Any]) -> tuple[Value, ...]:
    units, gain = int(one.get("report_units") or 0), one.get("gain")
    kept = msg("your own") if holds_own(one) else msg("the common one")
    return (
        Digest(str(one["model"])),
        _number(one.get("held_out_loss_common")),
        _number(one.get("held_out_loss")),
        None if gain is None else f"{100 * float(gain):+.1f} %",
        units,
        kept,
        _sure(units),
    )


def _number(value: object) -> Value:
    return None if value is None else str(value)


def _sure(units: int) -> Mark:
    if not units:
        return Mark("warn", msg("undetermined: a second held-out unit is needed"), "undetermined")
    if units < REPORT_UNITS:
        return Mark("warn", msg("may be chance: record more attempts"), "may-be-chance")
    return Mark("good", msg("measured on enough units"), "enough")


def _judged(site: Site) -> Panel:
    title = msg("Candidates that this node judged")
    rows = tuple(
        (
            Data(one.run),
            Digest(str(one.document["evaluation"].get("candidate"))),
            _number(one.document["evaluation"].get("noised_loss")),
            Moment(one.at_ms),
        )
        for one in site.outbox.left.decisions(limit=1000)
        if one.kind == ExchangeType.JUDGE.value and one.document.get("evaluation", {}).get("candidate")
    )
    if not rows:
        return Panel(
            name="judged",
            title=title,
            empty=Empty(
                msg("Here stands how candidates did on your held-out data; only your vote left."),
                msg("No candidate was judged here yet."),
                Command("iriai-node guard log"),
            ),
        )
    columns = (
        Column("run", msg("Run")),
        Column("candidate", msg("Candidate")),
        Column("loss", msg("Loss, with noise"), numeric=True),
        Column("at", msg("When")),
    )
    told = msg(
        "The loss that the vote was about, with the noise that protects your episodes added to it: it may be "
        "below zero. The lower, the better; only your vote left."
    )
    return Panel(
        name="judged",
        title=title,
        prose=(told,),
        table=Table(msg("Candidates on your held-out data"), columns, rows),
    )
