# SPDX-License-Identifier: Apache-2.0
"""Withdraw: what can I end, and what follows if I do? The numbers come before the button."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from client import withdrawing
from client.known_runs import names_of_runs
from client.page.panels import shown
from client.page.screens.home import STANDINGS, held_contracts
from client.page.values import (
    Bytes,
    Choice,
    Command,
    Data,
    Digest,
    Empty,
    Form,
    Link,
    Mark,
    Panel,
    Screen,
    Several,
    msg,
)
from policies.contract.lifecycle.life import ACTIVE, HALTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import Held
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Text
    from client.withdrawing import ContractEffect, RunEffect

__all__ = ["REASON", "withdraw"]

REASON: Final = "party.leaves"
_CHOICES: Final = (
    Choice("retrain", msg("they are refused; the others may train anew without your data")),
    Choice("discard", msg("they are discarded and never released")),
)


def withdraw(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="withdraw",
        title=msg("Withdraw"),
        question=msg("What can I end, and what follows?"),
        command="iriai-node withdraw",
        panels=(
            shown("runs", msg("Stop a run"), lambda: _runs(site)),
            shown("rounds", msg("Refuse every further round"), lambda: _rounds(site)),
            *(
                shown(
                    f"contract-{number}",
                    msg("Leave a contract"),
                    partial(_contract, site, held, number),
                )
                for number, held in enumerate(_standing(site))
            ),
        ),
    )


def _standing(site: Site) -> list[Held]:
    """Contracts that can be left; none where none can be read, which the screen of contracts explains."""
    try:
        return [one for one in held_contracts(site) if one.is_executed]
    except Exception:  # noqa: BLE001  the edge of the screen: the panel of runs says what is wrong
        return []


def _runs(site: Site) -> Panel:
    title = msg("Stop a run")
    names = site.outbox.left.decided_runs() | (names_of_runs(site.home) or frozenset())
    effects = [withdrawing.run_effect(site.home, site.shelf, site.outbox, name) for name in sorted(names)]
    open_runs = [one for one in effects if not one.over]
    if not open_runs:
        return Panel(
            name="runs",
            title=title,
            empty=Empty(
                msg("Here stands each run that may still ask this node, with what stopping it means."),
                msg("None may: no run asked yet, or all are over."),
                Link("/", msg("Back to your node")),
            ),
        )
    return Panel(name="runs", title=title, forms=tuple(_run(one) for one in open_runs))


def _run(one: RunEffect) -> Form:
    if one.stopped:
        return Form(
            act="run-resume",
            button=msg("Let it go on"),
            hidden={"run": one.run},
            effects=(msg("{run} is stopped by you: it may ask for rounds again.", run=Data(one.run)),),
        )
    return Form(
        act="run-stop",
        button=msg("Stop this run"),
        hidden={"run": one.run},
        effects=tuple(_run_effects(one)),
        grave=True,
    )


def _run_effects(one: RunEffect) -> Iterator[Text]:
    yield msg("{run}: from now on no update of it leaves this site.", run=Data(one.run))
    yield msg(
        "Given for good: {rounds} rounds, {messages} messages, {size}.",
        rounds=one.rounds_given,
        messages=one.messages,
        size=Bytes(one.bytes_sent),
    )
    if one.training:
        yield msg("This node trains for it just now: that round is given up, its privacy may be spent.")
    yield from _others(one)
    yield msg("You can let it go on again; what is spent of your budget stays spent.")


def _others(one: RunEffect | ContractEffect) -> Iterator[Text]:
    if one.groups_left is None or one.groups_needed is None:
        yield msg("How many others remain is unknown: the contract cannot be read.")
        return
    yield msg(
        "Without you {left} groups remain; a round needs {needed}.",
        left=one.groups_left,
        needed=one.groups_needed,
    )
    if one.groups_left < one.groups_needed:
        yield msg("That is too few: rounds of the others fail.")


def _rounds(site: Site) -> Panel:
    del site
    return Panel(
        name="rounds",
        title=msg("Refuse every further round"),
        prose=(
            msg("A pause refuses every round of every run and contract until you resume. It ends nothing."),
        ),
        links=(Link("/", msg("Pause on the home screen")),),
    )


def _contract(site: Site, held: Held, number: int) -> Panel:
    digest = held.contract.digest
    effect = withdrawing.contract_effect(site.shelf, site.outbox, digest)
    title = msg("Leave the contract {digest}", digest=Digest(digest))
    name = f"contract-{number}"
    if effect.standing not in {ACTIVE, HALTED} or _has_left(site, held):
        return Panel(
            name=name,
            title=title,
            empty=Empty(
                msg("Here would stand what leaving it means."),
                msg("It cannot be left now: {standing}.", standing=_why(site, held, effect)),
                Command(f"iriai-node contract status {digest.removeprefix('sha256:')[:12]}"),
            ),
        )
    form = Form(
        act="leave",
        button=msg("Leave this contract for good"),
        hidden={"contract": digest},
        effects=tuple(_contract_effects(held, effect)),
        choices=_choices(held),
        choice_label=msg("Models that hold your updates and are not released"),
        grave=True,
    )
    return Panel(name=name, title=title, prose=(msg("There is no way back in."),), forms=(form,))


def _choices(held: Held) -> tuple[Choice, ...]:
    """What the contract lets a leaver choose; one choice alone where it is agreed already."""
    agreed = held.contract.exit.unreleased_models
    return tuple(one for one in _CHOICES if agreed in {one.value, "leaver-chooses"})


def _has_left(site: Site, held: Held) -> bool:
    from client.contract.notices import Notices

    return held.party.party in Notices(site.shelf).life(held).exited


def _why(site: Site, held: Held, effect: ContractEffect) -> Mark:
    if _has_left(site, held):
        return Mark("idle", msg("you have left it"), "left")
    return STANDINGS.get(effect.standing, Mark("warn", msg("not in force"), effect.standing))


def _contract_effects(held: Held, effect: ContractEffect) -> Iterator[Text]:
    leaves = held.contract.exit
    yield msg(
        "Runs under it that end for this node: {n} ({runs}).",
        n=len(effect.runs),
        runs=Several(tuple(Data(one) for one in effect.runs)),
    )
    yield msg(
        "Given for good: {rounds} rounds, {size}.", rounds=effect.rounds_given, size=Bytes(effect.bytes_sent)
    )
    yield msg(
        "Your duties run on for {days} days [{clause}].", days=leaves.notice_days, clause=Data(leaves.clause)
    )
    yield msg("Models that are released stay with those who have them, with you as well.")
    yield msg("Models keep what they learned from your data, within the privacy bounds; that is not undone.")
    yield msg("Budget that was spent or reserved stays spent.")
    yield msg(
        "Without you {left} groups remain; the contract needs {needed}.",
        left=effect.groups_left,
        needed=effect.groups_needed,
    )
    if effect.groups_left < effect.groups_needed:
        yield msg("That is too few: the contract ends for everybody.")
