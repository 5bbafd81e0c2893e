# SPDX-License-Identifier: Apache-2.0
"""Budget: how much privacy is spent, and what is left?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from client.budgets.reckoning import told_spends
from client.budgets.showing import budget_show
from client.page.panels import shown
from client.page.values import (
    Code,
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Fact,
    Gauge,
    Mark,
    Moment,
    Panel,
    Screen,
    Share,
    Table,
    msg,
)
from policies.privacy.blocks import HELD_OUT, TRAIN, split_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.budgets.reckoning import ToldSpend, ToldSpends
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Text, Value

__all__ = ["UNITS", "budget"]

_SPLITS: Final = {TRAIN: msg("to train"), HELD_OUT: msg("held out, to judge by")}
UNITS: Final = {
    "episode": msg("one recorded attempt"),
    "work-piece": msg("all attempts at one work piece"),
    "order": msg("all attempts of one order"),
    "demonstrator": msg("all attempts of one person"),
}

_CHANGES: Final = {
    "zero-out": msg("what one unit adds is replaced by nothing"),
    "add-remove": msg("one unit is there, or it is not"),
    "replace-one": msg("one unit is replaced by another"),
}
_SOURCES: Final = {
    "lifetime": msg("you, in this node's settings"),
    "settings": msg("you, in this node's settings"),
    "contract": msg("the contract"),
    "default": msg("nobody yet: the first contract will"),
}


def budget(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="budget",
        title=msg("Budget"),
        question=msg("How much privacy is spent, and what is left?"),
        command="iriai-node budget show",
        panels=(
            *_lineages(site),
            shown("contracts", msg("Contract by contract"), lambda: _contracts(site)),
            shown("runs", msg("Run by run"), lambda: _runs(site)),
        ),
    )


def _shown(site: Site) -> dict[str, Any]:
    def show() -> dict[str, Any]:
        return budget_show(site.home, site.member, site.shelf, site.outbox, told=_told(site)).data

    found: dict[str, Any] = site.once("budget", show)
    return found


def _told(site: Site) -> ToldSpends:
    found: ToldSpends = site.once("told", lambda: told_spends(site.outbox))
    return found


def _lineages(site: Site) -> tuple[Panel, ...]:
    """One panel for each lineage; why there is none, or why nobody knows, in one."""
    title = msg("The budget of your data")
    names: list[str] = []

    def first() -> Panel:
        told = _shown(site)
        names.extend(one["lineage"] for one in told["lineages"])
        opening = told["opening"]["epsilon"]
        return Panel(
            name="opening",
            title=msg("New data"),
            facts=(
                Fact(
                    "epsilon",
                    msg("Their budget is opened with ε"),
                    opening or msg("the cap of the first contract that trains on them"),
                ),
                Fact("from", msg("As said by"), _SOURCES.get(told["opening"]["from"])),
            ),
            empty=None
            if told["lineages"]
            else Empty(
                msg("Here stands what is spent, held and left of the budget of each lineage of data."),
                msg("Nothing is spent: the first run that trains on your data opens their budget."),
                Command("iriai-node privacy plan --recipe FILE"),
            ),
        )

    opening = shown("opening", title, first)
    return (
        *(shown(f"lineage-{number}", title, partial(_lineage, site, number)) for number in range(len(names))),
        opening,
    )


def _lineage(site: Site, number: int) -> Panel:
    one = _shown(site)["lineages"][number]
    train = [block for block in one["blocks"] if split_of(block["block"]) == TRAIN] or one["blocks"]
    spent, held, whole = (
        sum(block[f"rho_{part}_nano"] for block in train) for part in ("spent", "held", "max")
    )
    runs = [block["runs_left"] for block in train if block["runs_left"] is not None]
    title = msg("The budget of your data: {lineage}", lineage=Code(one["lineage"]))
    bar = Gauge(
        spent,
        held,
        whole,
        msg(
            "Spent {spent}, held for runs under way {held}, of the whole budget for training.",
            spent=Share(spent, whole),
            held=Share(held, whole),
        ),
    )
    facts = (
        Fact("spent", msg("Spent"), Share(spent, whole)),
        Fact("held", msg("Held for runs that are under way"), Share(held, whole)),
        Fact("left", msg("Left"), Share(max(0, whole - spent - held), whole)),
        Fact("runs-left", msg("Enough for runs like the last one"), min(runs) if runs else None),
        Fact("cap", msg("Cap over the life of these data"), f"ε {one['epsilon_max']}, δ {one['delta']}"),
        Fact("unit", msg("What is protected as one unit"), UNITS.get(one["unit"], Code(one["unit"]))),
        Fact(
            "neighbours",
            msg("What counts as a change"),
            _CHANGES.get(one["adjacency"], Code(one["adjacency"])),
        ),
        Fact("chain", msg("Ledger"), _chain(one["chain"])),
        Fact("mirror", msg("Known to the log"), _mirror(one["mirror"])),
        *_waived(one["waived"]),
    )
    return Panel(
        name=f"lineage-{number}",
        title=title,
        prose=(_promise(one),),
        gauge=bar,
        facts=facts,
        table=Table(msg("Block by block"), _BLOCK_COLUMNS, tuple(_block(block) for block in one["blocks"])),
    )


def _promise(one: dict[str, Any]) -> Text:
    return msg(
        "Whoever sees every model that is ever made of these data can hardly tell whether {unit} was among "
        "them: what they see becomes likelier by a factor of at most e^{epsilon}, but for a chance of "
        "{delta}.",
        unit=UNITS.get(one["unit"], Code(one["unit"])),
        epsilon=one["epsilon_max"],
        delta=one["delta"],
    )


def _chain(chain: dict[str, Any]) -> Value:
    return msg(
        "verified, {entries} entries, the newest {at}", entries=chain["entries"], at=Moment(chain["at_ms"])
    )


def _mirror(mirror: dict[str, Any]) -> Mark:
    told = msg(
        "{in_log} of {touched} spends are in the log for certain",
        in_log=mirror["in_log"],
        touched=mirror["touched"],
    )
    return Mark("good", told, "agrees") if mirror["agrees"] else Mark("warn", told, "waits")


def _waived(marks: Iterable[dict[str, Any]]) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            f"waived-{number}",
            msg("NOT PRIVATE"),
            Mark(
                "bad",
                msg("used without privacy under {contract}: no ε holds against who saw that",
                    contract=Digest(one["contract"])),
                "waived",
            ),
        )
        for number, one in enumerate(marks)
    )  # fmt: skip


_BLOCK_COLUMNS: Final = (
    Column("block", msg("Block")),
    Column("for", msg("Used")),
    Column("units", msg("Units"), numeric=True),
    Column("spent", msg("Spent"), numeric=True),
    Column("held", msg("Held"), numeric=True),
    Column("left", msg("Left"), numeric=True),
    Column("runs", msg("Runs left"), numeric=True),
    Column("epsilon", msg("ε spent, by the filter"), numeric=True),
)


def _block(one: dict[str, Any]) -> tuple[Value, ...]:
    whole = one["rho_max_nano"]
    return (
        Code(one["block"]),
        _SPLITS.get(split_of(one["block"])),
        one["units"],
        Share(one["rho_spent_nano"], whole),
        Share(one["rho_held_nano"], whole),
        Share(one["rho_left_nano"], whole),
        one["runs_left"],
        one["epsilon_spent"],
    )


def _contracts(site: Site) -> Panel:
    title, rows = msg("Contract by contract"), _shown(site)["budgets"]
    if not rows:
        return Panel(
            name="contracts",
            title=title,
            empty=Empty(
                msg("Here stands how far the cap of each contract is used."),
                msg("Nothing was charged to a contract yet."),
                Command("iriai-node contract show"),
            ),
        )
    columns = (
        Column("contract", msg("Contract")),
        Column("for", msg("Used")),
        Column("spent", msg("ε spent"), numeric=True),
        Column("total", msg("ε with what is held"), numeric=True),
        Column("cap", msg("Cap"), numeric=True),
        Column("delta", msg("δ"), numeric=True),
        Column("steps", msg("Steps"), numeric=True),
    )
    found = tuple(
        (
            Digest(one["scope"]),
            _SPLITS.get(str(one["part"]), Code(str(one["part"]))),
            one["epsilon_spent"],
            one["epsilon_total"],
            one["epsilon_max"],
            one["delta"],
            one["steps_spent"],
        )
        for one in rows
    )
    return Panel(name="contracts", title=title, table=Table(msg("What contracts cap"), columns, found))


@dataclass(slots=True)
class _Run:
    """What one run spent of one lineage in one split."""

    run: str
    lineage: str
    split: str
    steps: int = 0
    mechanisms: int = 0
    in_log: int = 0
    at_ms: int = 0


def _spent(spends: Iterable[ToldSpend]) -> list[_Run]:
    found: dict[tuple[str, str, str], _Run] = {}
    for one in spends:
        kept = found.setdefault((one.run, one.lineage, one.split), _Run(one.run, one.lineage, one.split))
        kept.steps += one.steps
        kept.mechanisms += 1
        kept.in_log += one.in_log
        kept.at_ms = max(kept.at_ms, one.at_ms)
    return sorted(found.values(), key=lambda one: -one.at_ms)


def _runs(site: Site) -> Panel:
    title, rows = msg("Run by run"), _spent(_told(site).values())
    if not rows:
        return Panel(
            name="runs",
            title=title,
            empty=Empty(
                msg("Here stands what each run spent."),
                msg("No run spent anything yet."),
                Command("iriai-node runs list"),
            ),
        )
    columns = (
        Column("run", msg("Run")),
        Column("for", msg("Used")),
        Column("rounds", msg("Spends"), numeric=True),
        Column("steps", msg("Steps"), numeric=True),
        Column("log", msg("In the log")),
        Column("at", msg("Last")),
    )
    found = tuple(
        (
            Data(one.run),
            _SPLITS.get(one.split),
            one.mechanisms,
            one.steps,
            msg("{n} of {m}", n=one.in_log, m=one.mechanisms),
            Moment(one.at_ms),
        )
        for one in rows
    )
    return Panel(name="runs", title=title, table=Table(msg("What each run spent"), columns, found))
