# SPDX-License-Identifier: Apache-2.0
"""Home: is my node well, and what will it do next?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.membership import membership, worker_of
from client.owner_runs import listed
from client.page.panels import heard, shown
from client.page.values import (
    Code,
    Column,
    Command,
    Data,
    Empty,
    Fact,
    Form,
    Link,
    Mark,
    Moment,
    Panel,
    Screen,
    Several,
    Table,
    msg,
)
from client.progress import is_training
from client.seat import seat_of
from client.settings import load_settings
from policies.contract.lifecycle.life import (
    ACTIVE,
    EXPIRED,
    HALTED,
    OFFERED,
    PENDING,
    SUPERSEDED,
    TERMINATED,
)
from policies.errors import IriaiError
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import Held
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Text, Value
    from policies.contract.clauses import RecipeClause

__all__ = ["STANDINGS", "held_contracts", "home"]

_ME: Final = "/membership/me"
_STATES: Final = {
    "active": Mark("good", msg("active: the broker lets it take part"), "active"),
    "waiting-approval": Mark("warn", msg("waiting until two operators approve it"), "waiting-approval"),
    "suspended": Mark("bad", msg("suspended by the broker's operators"), "suspended"),
    "revoked": Mark("bad", msg("revoked: this node is out for good"), "revoked"),
    "removed": Mark("bad", msg("removed from the pool"), "removed"),
}
STANDINGS: Final = {
    ACTIVE: Mark("good", msg("in force"), ACTIVE),
    PENDING: Mark("warn", msg("signed by all, not in force yet"), PENDING),
    HALTED: Mark("bad", msg("halted"), HALTED),
    EXPIRED: Mark("idle", msg("expired"), EXPIRED),
    TERMINATED: Mark("idle", msg("ended"), TERMINATED),
    SUPERSEDED: Mark("idle", msg("superseded by a newer version"), SUPERSEDED),
    OFFERED: Mark("warn", msg("offered, not signed by all"), OFFERED),
    "UNKNOWN": Mark("bad", msg("unknown: notices cannot be read, so everything is refused"), "UNKNOWN"),
}


def home(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="home",
        title=msg("Home"),
        question=msg("Is my node well, and what will it do next?"),
        command="iriai-node status",
        panels=(
            shown("state", msg("State"), lambda: _state(site)),
            shown("broker", msg("The broker"), lambda: _broker(site)),
            shown("next", msg("What it will do next"), lambda: _next(site)),
            shown("runs", msg("Runs that asked this node"), lambda: _runs(site)),
            shown("word", msg("Your word"), lambda: _word(site)),
        ),
    )


def _state(site: Site) -> Panel:
    worker, rules = worker_of(site.home), load_settings(site.home).local
    running = (
        Mark("good", msg("running"), "running")
        if worker["running"]
        else Mark("bad", msg("not running: nothing is answered, nothing is heard"), "not-running")
    )
    facts = [
        Fact("node", msg("This node"), Data(f"{site.identity.node}")),
        Fact("org", msg("Organisation"), Data(load_settings(site.home).legal_name or site.identity.org)),
        Fact("worker", msg("Worker"), running),
        Fact("paused", msg("Pause"), _paused(paused=rules.paused)),
    ]
    if not worker["running"]:
        facts.append(Fact("start", msg("Start it with"), Command(f"iriai-node run --dir {site.home.root}")))
    progress = worker.get("progress")
    facts.append(Fact("training", msg("Training"), _training(progress)))
    return Panel(name="state", title=msg("State"), facts=tuple(facts))


def _paused(*, paused: bool) -> Mark:
    if paused:
        return Mark("warn", msg("paused: nothing is trained or judged"), "paused")
    return Mark("good", msg("not paused"), "not-paused")


def _training(progress: dict[str, Any] | None) -> Value:
    if progress is None:
        return msg("nothing")
    at_ms = progress.get("at_ms")
    told = {
        "run": Data(str(progress.get("run"))),
        "at": Moment(at_ms) if isinstance(at_ms, int) else msg("unknown"),
        **{name: _count(progress.get(name)) for name in ("round", "rounds")},
    }
    if not is_training(progress):
        return msg("nothing now; last {run}: round {round} of {rounds}, done {at}", **told)
    steps = {name: _count(progress.get(name)) for name in ("step", "steps", "seconds")}
    return msg(
        "{run}: round {round} of {rounds}, step {step} of {steps} after {seconds} s, {at}", **told, **steps
    )


def _count(value: object) -> Value:
    return value if isinstance(value, int) else str(value)


def _broker(site: Site) -> Panel:
    title, found = msg("The broker"), []
    try:
        facts = membership(site.member)
        word = str(facts["state"])
        found.append(Fact("state", msg("It says that this node is"), _STATES.get(word, Code(word))))
    except IriaiError:  # shown below, with its code
        found.append(Fact("state", msg("It says that this node is"), None))
    found.append(Fact("url", msg("Address"), Code(site.member.client.url)))
    found.append(Fact("asked", msg("It asked this node last"), _asked_last(site)))
    return heard(site, _ME, Panel(name="broker", title=title, facts=tuple(found)))


def _asked_last(site: Site) -> Value:
    """When something left for it last: every answer of this node is a row."""
    newest_ms = site.outbox.left.newest_ms()
    return None if newest_ms is None else Moment(newest_ms)


def held_contracts(site: Site) -> Iterator[Held]:
    """Contracts that are here and can be read, the newest version first."""
    found = []
    for digest in site.shelf.digests():
        try:
            found.append(site.shelf.get(digest))
        except IriaiError:  # the screen of contracts says so
            continue
    yield from sorted(found, key=lambda one: -one.contract.version)


def _next(site: Site) -> Panel:
    from client.contract.reading import standing_of

    rows = []
    now_ms = site.clock.now_ms()
    begins = []
    for held in held_contracts(site):
        stands = standing_of(site.shelf, held, now_ms) if held.is_executed else OFFERED
        if stands == PENDING:
            at = Moment(to_ms(held.contract.term.effective))
            begins.append(msg("{title}, signed by all, begins at {at}: nothing is trained under it before.",
                              title=Data(held.contract.title), at=at))  # fmt: skip
        if stands != ACTIVE:
            continue
        rows += [_row(site, held, one) for one in held.contract.recipes if one.datasets_of(held.party.party)]
    title = msg("What it will do next")
    if not rows:
        return Panel(
            name="next",
            title=title,
            prose=tuple(begins),
            empty=Empty(
                msg("Here stand the recipes that this node trains when the broker asks."),
                msg("No contract is in force yet.")
                if begins
                else msg("No contract is in force that reads data of yours."),
                Link("/contract", msg("See your contracts")),
            ),
        )
    columns = (
        Column("recipe", msg("Recipe")),
        Column("purpose", msg("Purpose")),
        Column("data", msg("Your data")),
        Column("fields", msg("Fields read"), numeric=True),
        Column("cost", msg("Privacy of one run")),
        Column("done", msg("Rounds done"), numeric=True),
        Column("left", msg("Rounds left"), numeric=True),
        Column("until", msg("Until")),
    )
    told = msg(
        "The broker says when; a round begins only if the contract, your own rules and your budget "
        "all allow it."
    )
    return Panel(
        name="next",
        title=title,
        prose=(*begins, told),
        table=Table(msg("Recipes that this node trains when it is asked"), columns, tuple(rows)),
    )


def _row(site: Site, held: Held, clause: RecipeClause) -> tuple[Value, ...]:
    seat = seat_of(
        site.shelf, held.contract.digest, clause.recipe_digest, rules=load_settings(site.home).local
    )
    done = site.outbox.left.rounds_elsewhere(seat.versions, clause.recipe_digest, "")
    return (
        Data(clause.id),
        Code(clause.purpose),
        Several(tuple(Data(one) for one in clause.datasets_of(held.party.party))),
        len(seat.recipe.fields),
        _cost(seat.recipe.plan_document, held),
        done,
        max(0, clause.max_rounds - done),
        Moment(to_ms(held.contract.term.expires)),
    )


def _cost(plan: dict[str, Any] | None, held: Held) -> Text:
    caps = held.contract.caps(held.party.party)
    if plan is None or caps is None:
        return msg("NOT PRIVATE: models may reveal episodes")
    return msg("at most ε {epsilon} at δ {delta}", epsilon=caps.epsilon_per_release, delta=caps.delta)


def _runs(site: Site) -> Panel:
    found = listed(site.home, site.outbox, site.shelf).data
    rows = tuple(_run(one) for one in found["runs"])
    title = msg("Runs that asked this node")
    prose = (
        ()
        if found["readable"]
        else (msg("Which runs you stopped cannot be read, so every run is stopped until you say so."),)
    )
    if not rows:
        return Panel(
            name="runs",
            title=title,
            prose=prose,
            empty=Empty(
                msg("Here stands every run that asked this node for a round."),
                msg("None has asked yet: a run begins when the operator opens one under your contract."),
                Command("iriai-node runs list"),
            ),
        )
    columns = (
        Column("run", msg("Run")),
        Column("at", msg("Asked last")),
        Column("round", msg("Round"), numeric=True),
        Column("answer", msg("Answer")),
        Column("owner", msg("Your word")),
    )
    return Panel(
        name="runs",
        title=title,
        prose=prose,
        table=Table(msg("Runs, the newest first"), columns, rows),
        links=(Link("/withdraw", msg("Stop one of them")),),
    )


def _run(one: dict[str, Any]) -> tuple[Value, ...]:
    answers = {
        "allowed": Mark("good", msg("allowed"), "allowed"),
        "REFUSED": Mark("bad", msg("refused"), "refused"),
        "-": None,
    }
    words = {
        "STOPPED": Mark("bad", msg("stopped by you"), "stopped"),
        "over": Mark("idle", msg("over"), "over"),
        "goes on": Mark("good", msg("goes on"), "goes-on"),
    }
    return (
        Link("/refusals", Data(one["run"]), {"run": one["run"]})
        if one["answer"] == "REFUSED"
        else Data(one["run"]),
        None if one["at"] == "-" else Moment(to_ms(one["at"])),
        one["round"] if isinstance(one["round"], int) else None,
        answers.get(one["answer"]),
        words[one["owner"]],
    )


def _word(site: Site) -> Panel:
    paused = load_settings(site.home).local.paused
    if paused:
        form = Form(
            act="resume",
            button=msg("Resume"),
            effects=(msg("The next round that is asked for is looked at again; nothing else changes."),),
        )
    else:
        form = Form(act="pause", button=msg("Pause"), effects=tuple(_pausing(site)))
    return Panel(
        name="word",
        title=msg("Your word"),
        forms=(form,),
        links=(Link("/withdraw", msg("Withdraw: stop a run, or leave a contract")),),
    )


def _pausing(site: Site) -> Iterator[Text]:
    try:
        open_runs = sum(
            1 for one in listed(site.home, site.outbox, site.shelf).data["runs"] if one["owner"] == "goes on"
        )
    except IriaiError:
        open_runs = 0
    yield msg("Works at once, also for a running worker: nothing is trained or judged from then on.")
    yield msg("Runs that go on now, and get no more of this node: {runs}.", runs=open_runs)
    yield msg("What is spent of your budget stays spent; a pause gives nothing back and costs nothing.")
