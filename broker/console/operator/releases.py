# SPDX-License-Identifier: Apache-2.0
"""The release gate: which models wait, which rights allow each to whom, and on what evidence.

- A tier is a right: to whom a model may go. The gate's own decisions say what an open tier lacks.
- Votes are the contributors'; a veto names its clause. Operators see all, a member's person its own.
- Statement and report are downloads of the bytes that were signed, or that their digest names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from broker.console.errors import FormError
from broker.console.operator.runs import RUN_READERS
from broker.console.operator.showing import (
    PAGE,
    Aliases,
    contract_choice,
    contract_link,
    model_link,
    party_name,
    place_after,
    run_link,
)
from broker.console.screens import Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.statements import told
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Moment,
    Nothing,
    Number,
    State,
    T,
    Value,
    When,
)
from broker.contracts.errors import NotPartyError
from broker.contracts.lineage import versions
from broker.delivery.candidates import PRIVATE
from broker.delivery.records import exports_of, find_candidate, tests_of, tiers_of, votes_of
from broker.membership.directory import Operator
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.viewing import View
    from broker.delivery.records import Cast, Tested
    from policies.contract import Contract

__all__ = ["room"]

room = Room("releases")
_STATES: Final = (
    ("", T("all")),
    ("waiting", T("waits at the gate")),
    ("released", T("released")),
    ("refused", T("refused")),
    ("discarded", T("discarded")),
)


@room.screen(
    "/console/releases",
    name="releases",
    title=T("Releases"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker release list --dir DIR --key FILE",
    nav=True,
)
def releases(view: View) -> Screen:
    """Models that wait, or waited, at the release gate; newest first."""
    rows, more = _page(view)
    delivery = view.services.delivery
    lines = delivery.candidates(view.session, view.party, rows)
    by_digest = {row.digest: row for row in rows}
    table = Table(
        name="candidates",
        caption=T("Models at the release gate, newest first"),
        columns=(
            Column("model", T("Model")),
            Column("state", T("State"), sort=True),
            Column("contract", T("Contract")),
            Column("run", T("Run")),
            Column("tiers", T("Released to")),
            Column("approve", T("Approvals")),
            Column("veto", T("Vetoes")),
            Column("waits", T("Waits for")),
            Column("opens", T("Opens by time")),
        ),
        rows=[_row(view, one, by_digest[str(one["candidate"])]) for one in lines],
        empty=_empty(view),
        more=more,
    )
    waiting = sum(one["state"] == "waiting" for one in lines)
    answer = T("Models on this page that wait at the gate: {n}.", n=Count(waiting))
    panel = Panel(
        name="list",
        title=T("Models at the gate"),
        prose=(answer,),
        table=table.sorted_by(view.query),
        forms=(_filter(view),),
    )
    return Screen(panels=(panel,), refresh_s=30)


def _page(view: View) -> tuple[list[Any], dict[str, str] | None]:
    """Rows of one page, newest first, and where the next one begins."""
    state, contract = view.query.get("state", ""), view.query.get("contract", "")
    if state not in {name for name, _ in _STATES}:
        raise FormError(need="a state of the list", found=ascii(state)[:40], remedy="choose one of it")
    after = place_after(view.query)
    rows = [
        row
        for row in reversed(view.services.delivery.candidate_rows(view.session, view.party))
        if state in {"", row.state} and contract in {"", row.contract}
        if after is None or (row.opened_ms, row.digest) < after
    ]
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return rows[:PAGE], None if last is None else {"after": f"{last.opened_ms}.{last.digest}"}


def _filter(view: View) -> Form:
    state = Field(
        name="state",
        label=T("State"),
        kind="select",
        value=view.query.get("state", ""),
        choices=_STATES,
        required=False,
    )
    return Form(
        action="/console/releases", method="get", button=T("Show"), fields=(state, contract_choice(view))
    )


def _empty(view: View) -> T:
    if view.query.get("state") or view.query.get("contract"):
        return T("No model fits these filters. Choose others, or all.")
    return T(
        "Models would be here once a run has ended with one. See what the runs do on the screen of runs."
    )


def _row(view: View, one: dict[str, Any], row: Any) -> dict[str, Value]:  # noqa: ANN401
    contract = view.services.contracts.read_in(view.session, row.contract)
    votes = one["votes"]
    unknown = Nothing(T("for operators to know"))
    waits = [str(each["check"]) for each in one["waits_for"]]
    return {
        "model": model_link(row.digest),
        "state": State(row.state),
        "contract": contract_link(view, contract),
        "run": run_link(row.run_id),
        "tiers": _codes([str(each.tier) for each in tiers_of(view.session, row.digest)]),
        "approve": unknown if votes is None else Count(list(votes.values()).count("approve")),
        "veto": unknown if votes is None else Count(list(votes.values()).count("veto")),
        "waits": _codes(sorted(set(waits))),
        "opens": Nothing() if one["opens_ms"] is None else When(one["opens_ms"]),
    }


def _codes(texts: Sequence[str]) -> Value:
    return Code(", ".join(texts)) if texts else Nothing()


# --- one model ---


@room.screen(
    "/console/releases/{digest}",
    name="release",
    title=T("Model"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker release show MODEL --dir DIR --key FILE",
)
def release_screen(view: View) -> Screen:
    """One model at the gate: tests, votes, tiers, and whom it was given to."""
    row, contract = _candidate(view)
    line: dict[str, Any] = view.services.delivery.candidates(view.session, view.party, [row])[0]
    tests = tests_of(view.session, row.run_id, row.digest)
    return Screen(
        panels=[
            _gate(view, row, contract, line, tests),
            _tests(tests),
            _votes(view, row, contract, line),
            _tiers(view, row, contract, line),
            _given(view, row, contract),
        ],
        title=Digest(row.digest),
        trail=((T("Releases"), "/console/releases"),),
        command=f"iriai-broker release show {row.digest} --dir DIR --key FILE",
    )


def _candidate(view: View) -> tuple[Any, Contract]:
    """The candidate of the path and its contract.

    Raises:
        NotPartyError: None that is the reader's to see.
    """
    digest = view.path["digest"]
    row = find_candidate(view.session, digest)
    missing = NotPartyError(
        need="a model of one of your contracts",
        found=ascii(digest)[1:-1][:80],
        remedy="open it from the list",
    )
    if row is None:
        raise missing
    try:
        return row, view.services.contracts.for_caller(row.contract, view.party)
    except NotPartyError as error:
        raise missing from error


def _gate(
    view: View,
    row: Any,  # noqa: ANN401
    contract: Contract,
    line: dict[str, Any],
    tests: Sequence[Tested],
) -> Panel:
    number = Nothing() if row.round is None else Count(row.round)
    private = _is_private(view, row, contract)
    facts = [
        Fact("state", T("State"), State(row.state)),
        Fact("privacy", T("Privacy"), State("private" if private else "not-private")),
        Fact("contract", T("Contract"), contract_link(view, contract)),
        Fact("recipe", T("Recipe"), Code(row.recipe_id)),
        Fact("run", T("Run"), run_link(row.run_id)),
        Fact("round", T("Round that it is from"), number),
        Fact("refused-by", T("Refused by clauses"), _codes([str(one) for one in line["refused_by"]])),
        Fact(
            "opens",
            T("Time alone may open a tier"),
            Nothing() if line["opens_ms"] is None else When(line["opens_ms"]),
        ),
        Fact("report", T("Evaluation report"), _download(tests[-1].report if tests else None, "reports")),
    ]
    public = T("NOT PRIVATE: do not rely on any protection of the training data.")
    prose = (_answer(row, line),) if private else (public, _answer(row, line))
    return Panel(name="gate", title=T("Where it stands"), prose=prose, facts=facts)


def _is_private(view: View, row: Any, contract: Contract) -> bool:  # noqa: ANN401
    """Whether its recipe adds noise, and no statement of a release denies that it is private."""
    recipe = view.services.contracts.annex(view.session, contract, row.recipe_digest)
    named = [one.statement_digest for one in tiers_of(view.session, row.digest) if one.statement_digest]
    said = [told(view.session, one).get("verdict") for one in named]
    return load_recipe(recipe).plan is not None and all(one == "PRIVATE" for one in said)


def _answer(row: Any, line: dict[str, Any]) -> T:  # noqa: ANN401
    if row.state == "released":
        return T("It is released; the tiers below say to whom.")
    if row.state == "waiting":
        return T("It waits: {n} conditions of its tiers are open.", n=Count(len(line["waits_for"])))
    return T("It was refused; the clauses below say why, and the model stays where it is.")


def _download(digest: str | None, kind: str) -> Value:
    if digest is None:
        return Nothing(T("none yet"))
    return Link(Digest(digest), f"/console/{kind}/{digest}")


def _tests(tests: Sequence[Tested]) -> Panel:
    """Each check of the newest evaluation, with its evidence."""
    rows: list[dict[str, Value]] = []
    if tests:
        last = tests[-1]
        for check, outcome in sorted(last.checks.items()):
            row: dict[str, Value] = {"check": Code(check), "outcome": State(outcome)}
            rows.append(row | {"entry": Code(str(last.index)), "at": Moment(last.at_ms)})
    facts = _figures(tests[-1].document) if tests else []
    table = Table(
        name="tests",
        caption=T("Tests before a release"),
        columns=(
            Column("check", T("Test")),
            Column("outcome", T("Outcome")),
            Column("entry", T("Entry")),
            Column("at", T("When")),
        ),
        rows=rows,
        empty=T("Tests would be here once the silos have judged the model on episodes that were held out."),
    )
    return Panel(name="tests", title=T("Was it tested?"), facts=facts, table=table)


def _figures(document: dict[str, Any]) -> list[Fact]:
    """What the report measured."""
    facts = [Fact("judged", T("Silos that judged it"), Count(len(document.get("evaluations", {}))))]
    if "min_parties" in document:
        facts.append(
            Fact("judges-needed", T("Independent groups needed"), Count(int(document["min_parties"])))
        )
    leaks = document.get("leaks") or {}
    if leaks.get("mia_auc") is not None:
        facts.append(Fact("mia-auc", T("Guessing who was in it (AUC)"), Number(str(leaks["mia_auc"]))))
    return facts


def _votes(view: View, row: Any, contract: Contract, line: dict[str, Any]) -> Panel:  # noqa: ANN401
    """The last vote of each party, with the clause that a veto names."""
    aliases = Aliases.of(view, contract, row.run_id, None)
    last: dict[str, Cast] = {}
    for one in votes_of(view.session, row.run_id, row.digest):
        party = aliases.party(one.actor)
        if party is not None:
            last[party] = one
    rows: list[dict[str, Value]] = [
        {
            "party": party_name(contract, party),
            "vote": State(one.vote),
            "clause": Nothing() if one.clause is None else Code(one.clause),
            "entry": Code(str(one.index)),
            "at": Moment(one.at_ms),
        }
        for party, one in sorted(last.items())
    ]
    approvals = contract.release.approvals
    facts = (
        Fact("voted", T("Parties that voted"), Count(line["voted"])),
        Fact("approvals-needed", T("Approvals needed"), Count(approvals.min)),
        Fact("veto-clauses", T("A veto may name"), _codes(list(approvals.veto))),
    )
    table = Table(
        name="votes",
        caption=T("Votes"),
        columns=(
            Column("party", T("Party")),
            Column("vote", T("Vote")),
            Column("clause", T("By clause")),
            Column("entry", T("Entry")),
            Column("at", T("When")),
        ),
        rows=rows,
        empty=T(
            "Nobody voted yet. A contributor votes by {command}.",
            command=Code(f"iriai-node release approve {row.digest}"),
        )
        if isinstance(view.party, Operator)
        else T("You did not vote yet: {command}", command=Code(f"iriai-node release approve {row.digest}")),
    )
    return Panel(name="votes", title=T("Who approved it, and who did not"), facts=facts, table=table)


def _tiers(view: View, row: Any, contract: Contract, line: dict[str, Any]) -> Panel:  # noqa: ANN401
    """Each tier of its recipe: to whom, under which licence, and what it lacks."""
    released = {one.tier: one for one in tiers_of(view.session, row.digest)}
    clause = contract.recipe(row.recipe_digest)
    tiers = [one for one in contract.tiers if clause is not None and one.recipe == clause.id]
    lacks: dict[str, list[str]] = {}
    for one in line["waits_for"]:
        lacks.setdefault(str(one["tier"]), []).append(f"{one['check']}: {one['need']}; {one['found']}")
    rows: list[dict[str, Value]] = []
    for tier in tiers:
        done = released.get(tier.tier)
        word = "released" if done is not None else ("waiting" if row.state == "waiting" else "refused")
        rows.append(
            {
                "tier": Code(tier.tier),
                "state": State("private" if tier.tier == PRIVATE else word),
                "recipients": _codes(list(tier.recipients)),
                "licence": Foreign(tier.licence, contract.language),
                "clause": Code(tier.clause),
                "lacks": Foreign("; ".join(lacks[tier.tier])) if tier.tier in lacks else Nothing(),
                "statement": _download(None if done is None else done.statement_digest, "statements"),
                "released": Nothing() if done is None else Moment(done.at_ms),
            }
        )
    table = Table(
        name="tiers",
        caption=T("To whom it may go"),
        columns=(
            Column("tier", T("Tier")),
            Column("state", T("State")),
            Column("recipients", T("Recipients")),
            Column("licence", T("Licence")),
            Column("clause", T("By clause")),
            Column("lacks", T("What it lacks")),
            Column("statement", T("Privacy statement")),
            Column("released", T("Released")),
        ),
        rows=rows,
        empty=T("The contract names no tier for this recipe, so the model goes to nobody."),
    )
    return Panel(name="tiers", title=T("Which rights allow it, and to whom"), table=table)


def _given(view: View, row: Any, contract: Contract) -> Panel:  # noqa: ANN401
    """Packages that were given out; a member's person sees its own organisation's."""
    scopes = versions(view.session, contract.digest)
    names: dict[str, str] = {}
    for scope in scopes:
        text = view.services.contracts.read_in(view.session, scope)
        names |= Aliases.of(view, text, None, None).names
    rows: list[dict[str, Value]] = [
        {
            "to": party_name(contract, names[one.recipient]),
            "tier": Code(one.tier),
            "entry": Code(str(one.index)),
            "at": Moment(one.at_ms),
        }
        for one in exports_of(view.session, scopes, row.digest, most=PAGE)
        if one.recipient in names
    ]
    table = Table(
        name="given",
        caption=T("The newest packages that were given out"),
        columns=(
            Column("to", T("To")),
            Column("tier", T("Tier")),
            Column("entry", T("Entry")),
            Column("at", T("When")),
        ),
        rows=rows,
        empty=T(
            "Nobody downloaded it. A party does by {command}.",
            command=Code(f"iriai-node models pull {row.digest}"),
        ),
    )
    return Panel(name="given", title=T("Who has it"), table=table)


# --- downloads ---


@room.file("/console/statements/{digest}", name="release-statement", roles=RUN_READERS, sees=Sees.OWN)
def statement_file(view: View) -> Response:
    """The privacy statement of a release, as it was signed."""
    name = view.path["digest"]
    return _file(view.services.delivery.statement(view.session, name, view.party), "statement", name)


@room.file("/console/reports/{digest}", name="release-report", roles=RUN_READERS, sees=Sees.OWN)
def report_file(view: View) -> Response:
    """The evaluation report of a candidate, as its digest names it."""
    name = view.path["digest"]
    return _file(view.services.delivery.report(view.session, name, view.party), "report", name)


def _file(data: bytes, kind: str, digest: str) -> Response:
    short = digest.removeprefix("sha256:")[:16]
    named = {"Content-Disposition": f'attachment; filename="{kind}-{short}.json"'}
    return Response(data, headers=named, media_type="application/json")
