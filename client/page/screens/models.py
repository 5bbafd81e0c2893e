# SPDX-License-Identifier: Apache-2.0
"""Models: what may I deploy, what waits for my vote, what serves?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from client.models import models_list
from client.page.panels import heard, shown
from client.page.screens.benefit import models_here
from client.page.values import (
    Choice,
    Code,
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Form,
    Mark,
    Moment,
    Panel,
    Screen,
    Several,
    Table,
    msg,
)
from client.releases import release_list
from policies.errors import IriaiError

if TYPE_CHECKING:
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["models"]

_RELEASES: Final = "/releases"
_CANDIDATES: Final = "/candidates"
_VOTES: Final = {
    "approve": Mark("good", msg("approved by you"), "approve"),
    "veto": Mark("bad", msg("vetoed by you"), "veto"),
}
_STATES: Final = {
    "released": Mark("good", msg("released"), "released"),
    "vetoed": Mark("bad", msg("vetoed"), "vetoed"),
    "refused": Mark("bad", msg("refused at the gate"), "refused"),
    "waiting": Mark("warn", msg("waiting at the gate"), "waiting"),
    "open": Mark("warn", msg("waiting at the gate"), "open"),
}
_TIERS: Final = {
    "open": msg("open: everybody"),
    "consortium": msg("consortium: the members of the contract"),
    "private": msg("private: stays here"),
}


def models(site: Site, asked: Asked) -> Screen:
    """The screen."""
    del asked
    return Screen(
        name="models",
        title=msg("Models"),
        question=msg("What may I deploy, and what waits for my vote?"),
        command="iriai-node models list",
        panels=(
            shown("candidates", msg("Candidates at the gate"), lambda: _candidates(site)),
            shown("released", msg("Released to you"), lambda: _released(site)),
            shown("here", msg("Here on this site"), lambda: _here(site)),
            shown("serving", msg("What serves"), lambda: _serving(site)),
        ),
    )


def _candidates(site: Site) -> Panel:
    title, rows = msg("Candidates at the gate"), release_list(site.member).data["candidates"]
    if not rows:
        return heard(
            site,
            _CANDIDATES,
            Panel(
                name="candidates",
                title=title,
                empty=Empty(
                    msg("Here stands each model that waits for release, and your vote about it."),
                    msg("No candidate yet: a run makes one when its rounds are over."),
                    Command("iriai-node release list"),
                ),
            ),
        )
    columns = (
        Column("candidate", msg("Candidate")),
        Column("state", msg("State")),
        Column("vote", msg("Your vote")),
        Column("votes", msg("Votes")),
        Column("held", msg("Held back by")),
        Column("run", msg("Run")),
    )
    found = tuple(_candidate(one) for one in rows)
    waiting = [one for one in rows if str(one.get("state")) not in {"released", "vetoed", "refused"}]
    panel = Panel(
        name="candidates",
        title=title,
        table=Table(msg("Candidates, and your vote"), columns, found),
        forms=tuple(form for one in waiting for form in _votes(site, one)),
    )
    return heard(site, _CANDIDATES, panel)


def _candidate(one: dict[str, Any]) -> tuple[Value, ...]:
    state, vote = str(one.get("state")), one.get("own_vote")
    held = one.get("refused_by") or sorted(
        {str(found.get("clause")) for found in one.get("waits_for") or () if isinstance(found, dict)}
    )
    return (
        Digest(str(one.get("candidate"))),
        _STATES.get(state, Code(state)),
        None if vote is None else _VOTES.get(str(vote), Code(str(vote))),
        None if one.get("voted") is None else Data(str(one["voted"])),
        Several(tuple(Code(str(clause)) for clause in held)),
        None if one.get("run") is None else Data(str(one["run"])),
    )


def _votes(site: Site, one: dict[str, Any]) -> tuple[Form, ...]:
    candidate = str(one.get("candidate"))
    kept = {"candidate": candidate}
    before = msg("Candidate {candidate}; read first: {command}", candidate=Digest(candidate),
                 command=Command(f"iriai-node release show {candidate}"))  # fmt: skip
    return (
        Form(
            act="approve",
            button=msg("Approve"),
            hidden=kept,
            effects=(
                before,
                msg("Your organisation's vote counts once; the last one before the decision holds."),
            ),
        ),
        Form(
            act="veto",
            button=msg("Veto"),
            hidden=kept,
            effects=(msg("Where the contract gives you a veto, nobody can ever fetch this candidate."),),
            choices=_clauses(site, one),
            choice_label=msg("In the name of the clause"),
            grave=True,
        ),
    )


def _clauses(site: Site, one: dict[str, Any]) -> tuple[Choice, ...]:
    """Clauses in whose name a veto may be made; none where the contract is not here."""
    try:
        held = site.shelf.get(str(one.get("contract")))
    except IriaiError:
        return ()
    names = [str(found["clause"]) for found in _walk(held.contract.document)]
    none = Choice("", msg("no clause is named"))
    return (none, *(Choice(name, Data(name)) for name in sorted(set(names))))


def _walk(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401  JSON
    if isinstance(value, dict):
        own = [value] if isinstance(value.get("clause"), str) else []
        return own + [found for one in value.values() for found in _walk(one)]
    return [found for one in value for found in _walk(one)] if isinstance(value, list) else []


def _released(site: Site) -> Panel:
    title, answer = msg("Released to you"), models_list(site.member)
    if answer.error is not None:  # what is here stands in the panel below
        raise answer.error
    rows = answer.data["models"]
    if not rows:
        return heard(
            site,
            _RELEASES,
            Panel(
                name="released",
                title=title,
                empty=Empty(
                    msg("Here stands each model that the contract lets you have."),
                    msg("No release yet: candidates wait at the gate for tests and votes."),
                    Command("iriai-node models list"),
                ),
            ),
        )
    columns = (
        Column("model", msg("Model")),
        Column("tier", msg("Tier")),
        Column("recipe", msg("Recipe")),
        Column("run", msg("Run")),
        Column("here", msg("Here")),
        Column("next", msg("Next step")),
    )
    own = {str(one.get("model")) for one in models_here(site, individual=True)}
    table = Table(msg("Released models"), columns, tuple(_release(one, own) for one in rows))
    return heard(site, _RELEASES, Panel(name="released", title=title, table=table))


def _release(one: dict[str, Any], own: set[str]) -> tuple[Value, ...]:
    model, tier = str(one["model"]), str(one.get("tier"))
    short = model.removeprefix("sha256:")[:12]
    after = f"package {short} --out FILE" if model in own else f"personalise {short}"
    step = "iriai-node models " + (after if one["here"] else f"pull {short}")
    return (
        Digest(model),
        _TIERS.get(tier, Code(tier)),
        Data(str(one["recipe_id"])) if one.get("recipe_id") else Digest(str(one.get("recipe"))),
        Data(str(one.get("run"))),
        Mark("good", msg("yes"), "yes") if one["here"] else Mark("idle", msg("no"), "no"),
        Command(step),
    )


def _here(site: Site) -> Panel:
    title = msg("Here on this site")
    own = {str(one.get("model")): one for one in models_here(site, individual=True)}
    rows = tuple(_pulled(one, own) for one in models_here(site, individual=False))
    if not rows:
        return Panel(
            name="here",
            title=title,
            empty=Empty(
                msg("Here stand models that were fetched, and what was trained on from them."),
                msg("None was fetched yet."),
                Command("iriai-node models pull MODEL"),
            ),
        )
    columns = (
        Column("model", msg("Model")),
        Column("tier", msg("Tier")),
        Column("verdict", msg("Privacy statement")),
        Column("pulled", msg("Fetched")),
        Column("own", msg("Your own model of it")),
        Column("next", msg("Next step")),
    )
    return Panel(
        name="here",
        title=title,
        prose=(msg("Packages are files where you wrote them; what serves one is shown below."),),
        table=Table(msg("Models on this site"), columns, rows),
    )


def _pulled(one: dict[str, Any], own: dict[str, dict[str, Any]]) -> tuple[Value, ...]:
    model, tier = str(one.get("model")), str(one.get("tier"))
    mine = own.get(model)
    at_ms = one.get("pulled_ms")
    return (
        Digest(model),
        _TIERS.get(tier, Code(tier)),
        Code(str(one.get("verdict"))),
        Moment(at_ms) if isinstance(at_ms, int) else None,
        None if mine is None else Digest(str(mine.get("individual"))),
        Command(f"iriai-node models package {model.removeprefix('sha256:')[:12]} --out FILE"),
    )


def _serving(site: Site) -> Panel:
    title, rows = msg("What serves"), []
    for path in sorted(site.home.serving.glob("*/service.json")):
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        rows.append(
            (
                Data(path.parent.name),
                Digest(str(found.get("model"))),
                Digest(str(found.get("package"))),
                Code(str(found.get("url"))),
                Command(f"iriai-node models status --name {path.parent.name}"),
            )
        )
    if not rows:
        return Panel(
            name="serving",
            title=title,
            empty=Empty(
                msg("Here stands each service that acts in a cell of this site."),
                msg("None runs here."),
                Command("iriai-node models serve PACKAGE"),
            ),
        )
    columns = (
        Column("name", msg("Service")),
        Column("model", msg("Model")),
        Column("package", msg("Package")),
        Column("url", msg("Address")),
        Column("status", msg("How it does")),
    )
    return Panel(name="serving", title=title, table=Table(msg("Services"), columns, tuple(rows)))
