# SPDX-License-Identifier: Apache-2.0
"""One round: who contributed, who was refused by which clause, what came of it, and what the log has of it.

- Operators see everybody; a member's person its own organisation's lines, and counts.
- What a node's ledger says of its own budget is confidential: the log has a commitment, and the screen the
  clause that keeps it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.console.operator.runs import RUN_READERS, note_asked, refused_screen
from broker.console.operator.showing import Aliases, event_link, party_name, run_link
from broker.console.screens import Column, Fact, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Hidden,
    Moment,
    Nothing,
    State,
    T,
    Value,
)
from broker.contracts.errors import NotPartyError
from broker.membership.directory import Operator
from broker.runs.rounds import left_behind
from policies.log.entries import EntryType as E
from policies.ports import to_ms

if TYPE_CHECKING:
    from broker.console.viewing import View
    from broker.runs.rounds import Left
    from broker.runs.views import Shown
    from policies.contract import Contract

__all__ = ["room"]

room = Room("rounds")
_ROUND_CHARS: Final = 6
_ABOUT_ALL: Final = frozenset(
    one.value
    for one in (
        E.ROUND_OPENED,
        E.ROUND_CLOSED,
        E.AGGREGATE_RELEASED,
        E.ROUND_JUDGED,
        E.ROUND_CHOSEN,
        E.SUM_WITHDRAWN,
    )
)
"""Entries about the round itself, which members see whoever they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """One round as its reader may know it.

    Attributes:
        attempts: Settled attempts, as the run's service tells them.
        rows: The same attempts with the verdict on each party.
        left: The log's entries of the round: all, or the reader's own and those about nobody.
        aliases: Who stands behind the log's names, as far as the reader may know.
    """

    run: str
    number: int
    contract: Contract
    attempts: list[dict[str, Any]]
    rows: list[Any]
    left: tuple[Left, ...]
    aliases: Aliases
    whole: bool

    def of(self, kind: E) -> list[Left]:
        """Entries of a kind."""
        return [one for one in self.left if one.type == kind.value]


@room.screen(
    "/console/runs/{run_id}/rounds/{number}",
    name="round",
    title=T("Round"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker run show RUN --dir DIR --key FILE",
)
def round_screen(view: View) -> Screen:
    """A round of a run that the reader may see."""
    run_id = view.path["run_id"]
    trail = ((T("Runs"), "/console/runs"), (Code(run_id), f"/console/runs/{run_id}"))
    shown = view.services.runs.views.show(view.session, run_id, view.party)
    note_asked(view, [shown])
    if shown.body is None or shown.body.get("budget_only"):
        return refused_screen(shown, trail)
    found = _found(view, shown)
    return Screen(
        panels=[
            _outcome(found),
            _contributions(view, found),
            _attempts(found),
            _decisions(view, found),
            _accounting(found),
            _entries(found),
        ],
        title=T("Round {n}", n=Count(found.number)),
        trail=trail,
        command=f"iriai-broker run show {found.run} --dir DIR --key FILE",
    )


def _found(view: View, shown: Shown) -> _Round:
    """The round of the path.

    Raises:
        NotPartyError: No such round for this reader.
    """
    run_id, text = view.path["run_id"], view.path["number"]
    body: dict[str, Any] = dict(shown.body or {})
    number = int(text) if text.isdecimal() and text.isascii() and len(text) <= _ROUND_CHARS else 0
    whole = isinstance(view.party, Operator)
    attempts = [one for one in body["rounds"] if one["round"] == number]
    left = left_behind(view.session, run_id, number) if attempts or whole else ()
    if not attempts and not left:
        raise NotPartyError(
            need="a round of this run", found=ascii(text)[1:-1][:20], remedy="open it from its run"
        )
    contract = view.services.contracts.read_in(view.session, body["contract"])
    aliases = Aliases.of(view, contract, run_id, number)
    mine = tuple(one for one in left if whole or one.type in _ABOUT_ALL or aliases.party(one.actor))
    return _Round(
        run=run_id,
        number=number,
        contract=contract,
        attempts=attempts,
        rows=[one for one in shown.rounds if one["round"] == number],
        left=mine,
        aliases=aliases,
        whole=whole,
    )


# --- what came of it ---


def _outcome(found: _Round) -> Panel:
    models = [one for one in found.attempts if one["model"] is not None]
    aggregates = found.of(E.AGGREGATE_RELEASED)
    pub = aggregates[-1].pub if aggregates else {}
    facts = [
        Fact("run", T("Run"), run_link(found.run)),
        Fact("attempts", T("Settled attempts"), Count(len(found.attempts))),
        Fact("model", T("Model"), Digest(models[-1]["model"]) if models else Nothing(T("none came of it"))),
    ]
    if pub:
        transcript = pub.get("transcript")
        none = Nothing(T("none: updates were not masked under this contract"))
        facts += [
            Fact("aggregate", T("Sum of the updates"), Digest(str(pub["aggregate"]))),
            Fact("count", T("Updates in the model"), Count(int(str(pub["count"])))),
            Fact("transcript", T("Transcript of the masked sum"), _digest(transcript, none)),
        ]
    facts += _verdict(found)
    return Panel(name="outcome", title=T("What came of it"), prose=(_answer(found),), facts=facts)


def _digest(value: object, none: Nothing) -> Value:
    return none if value is None else Digest(str(value))


def _answer(found: _Round) -> T:
    if not found.attempts:
        return T("It is being asked; nothing is settled yet.")
    last = found.attempts[-1]
    n = Count(last["accepted"])
    if last["model"] is not None:
        return T("A model came of it, with the updates of {n} members.", n=n)
    return T("No model came of it: too few groups were left. The table says what became of each update.")


def _verdict(found: _Round) -> list[Fact]:
    """What silos said about its model, where the contract asks them."""
    facts = []
    for one in found.of(E.ROUND_JUDGED):
        said = T("{n} of {m} silos accept it", n=_count(one, "accepting"), m=_count(one, "voting"))
        facts.append(Fact("verdict", T("Verdict of the silos"), said))
    for one in found.of(E.SUM_WITHDRAWN):
        said = T("{n} members say that the sum is wrong; its model was taken back", n=_count(one, "saying"))
        facts.append(Fact("withdrawn", T("Withdrawn"), said))
    return facts


def _count(one: Left, name: str) -> Count:
    return Count(int(str(one.pub[name])))


# --- who contributed ---


def _contributions(view: View, found: _Round) -> Panel:
    """The verdict on each member in each attempt, with the clause behind a refusal."""
    submissions = {one.index: one for one in found.of(E.SUBMISSION_RECEIVED)}
    refused: dict[tuple[str, int], Left] = {}
    entries: dict[tuple[str, int], int] = {}
    for one in submissions.values():
        party = found.aliases.party(one.actor)
        if party is not None:
            entries[(party, int(str(one.pub["attempt"])))] = one.index
    for one in found.of(E.CONTRIBUTION_REFUSED):
        behind = submissions.get(one.refs[0]) if one.refs else None
        party = None if behind is None else found.aliases.party(behind.actor)
        if behind is not None and party is not None:
            refused[(party, int(str(behind.pub["attempt"])))] = one
    rows = []
    known = set(found.aliases.names.values())
    for row in found.rows:
        reasons = json.loads(row["reasons"] or "{}")
        for party, verdict in sorted(json.loads(row["verdicts"]).items()):
            if party in known:
                slot = party, row["attempt"]
                rows.append(
                    _contribution(
                        found, slot, verdict, reasons.get(party), refused.get(slot), entries.get(slot)
                    )
                )
    table = Table(
        name="contributions",
        caption=T("What became of each member's update"),
        columns=(
            Column("party", T("Member"), sort=True),
            Column("attempt", T("Attempt")),
            Column("verdict", T("Verdict"), sort=True),
            Column("reason", T("Reason")),
            Column("clause", T("By clause")),
            Column("receipt", T("Entry of the submission")),
        ),
        rows=rows,
        empty=T("Members would be here once an attempt of this round is settled."),
    ).sorted_by(view.query)
    return Panel(name="contributions", title=T("Who contributed"), table=table)


def _contribution(  # noqa: PLR0917  one row is these
    found: _Round,
    slot: tuple[str, int],
    verdict: str,
    reason: str | None,
    refusal: Left | None,
    entry: int | None,
) -> dict[str, Value]:
    clause = None if refusal is None else refusal.pub.get("clause")
    return {
        "party": party_name(found.contract, slot[0]),
        "attempt": Count(slot[1]),
        "verdict": State(verdict),
        "reason": Code(reason) if reason else Nothing(),
        "clause": Nothing() if clause is None else Code(str(clause)),
        "receipt": Nothing() if entry is None else Code(str(entry)),
    }


def _attempts(found: _Round) -> Panel:
    opened = {int(str(one.pub["attempt"])): one for one in found.of(E.ROUND_OPENED)}
    settled = {one["attempt"]: one for one in found.attempts}
    numbers = [one for one in sorted({*opened, *settled}) if one in settled or found.whole]
    rows = [_attempt(one, opened.get(one), settled.get(one)) for one in numbers]
    table = Table(
        name="attempts",
        caption=T("Its attempts"),
        columns=(
            Column("attempt", T("Attempt")),
            Column("outcome", T("Outcome")),
            Column("cohort", T("Members asked")),
            Column("opened", T("Opened")),
            Column("deadline", T("Members answer until, to the minute")),
            Column("settled", T("Settled")),
            Column("accepted", T("In the model")),
            Column("unused", T("Held, unused")),
            Column("refused", T("Refused")),
            Column("silent", T("Silent")),
            Column("unasked", T("Spared")),
        ),
        rows=rows,
        empty=T("No attempt was opened yet."),
    )
    return Panel(name="attempts", title=T("How often it was asked"), table=table)


def _attempt(number: int, opened: Left | None, settled: dict[str, Any] | None) -> dict[str, Value]:
    row: dict[str, Value] = {"attempt": Count(number)}
    if opened is not None:
        row |= {
            "cohort": _count(opened, "cohort"),
            "opened": Moment(opened.at_ms),
            "deadline": Moment(to_ms(str(opened.pub["deadline"]))),
        }
    if settled is None:
        return row | {"outcome": State("training"), "settled": Nothing(T("not settled"))}
    row |= {name: Count(settled[name]) for name in ("accepted", "unused", "refused", "silent", "unasked")}
    word = "aggregated" if settled["model"] is not None else "abandoned"
    return row | {"outcome": State(word), "settled": Moment(settled["at_ms"])}


# --- what the log has of it ---


def _decisions(view: View, found: _Round) -> Panel:
    """Decisions on record about this round: the broker's, and those of nodes."""
    decided = found.of(E.DECISION_RECORDED) if found.whole else []
    rows: list[dict[str, Value]] = [
        {
            "entry": event_link(view, one.index),
            "point": Code(str(one.pub["point"])),
            "outcome": State(str(one.pub["outcome"])),
            "clauses": _codes(one.pub["clauses"]),
            "by": _who(found, one.actor),
        }
        for one in decided
    ]
    table = Table(
        name="decisions",
        caption=T("Decisions about this round"),
        columns=(
            Column("entry", T("Entry")),
            Column("point", T("Decided at")),
            Column("outcome", T("Outcome")),
            Column("clauses", T("Refused by")),
            Column("by", T("By")),
        ),
        rows=rows,
        empty=T("No decision about this round is on record yet.")
        if found.whole
        else T("Your node has its own: {command}", command=Code("iriai-node guard log")),
    )
    return Panel(name="decisions", title=T("What the contract said"), table=table)


def _codes(values: object) -> Value:
    texts = [str(one) for one in values] if isinstance(values, list) else []
    return Code(", ".join(texts)) if texts else Nothing()


def _who(found: _Round, actor: str) -> Value:
    party = found.aliases.party(actor)
    return Code(actor) if party is None else party_name(found.contract, party)


def _accounting(found: _Round) -> Panel:
    """Budget entries of the round: public steps; what a ledger says of itself is its owner's."""
    privacy = found.contract.privacy
    rows: list[dict[str, Value]] = [
        {
            "party": _who(found, one.actor),
            "entry": Code(str(one.index)),
            "mechanism": Code(str(one.pub["mechanism"])),
            "steps": _count(one, "steps"),
            "plan": Digest(str(one.pub["plan"])),
            "epsilon": Hidden(privacy.clause),
        }
        for one in found.of(E.EPSILON_SPENT)
    ]
    table = Table(
        name="accounting",
        caption=T("What was paid for it"),
        columns=(
            Column("party", T("Member")),
            Column("entry", T("Entry")),
            Column("mechanism", T("Mechanism")),
            Column("steps", T("Noisy steps")),
            Column("plan", T("Plan")),
            Column("epsilon", T("Epsilon after it, by the node's ledger")),
        ),
        rows=rows,
        empty=T("The contract asks for no privacy budget, so nothing is paid.")
        if privacy.mode == "none"
        else T("Members would be here once their budget entries are in the log."),
    )
    return Panel(name="accounting", title=T("Privacy accounting"), table=table)


def _entries(found: _Round) -> Panel:
    """Every entry of the round; its index is what a receipt proves."""
    rows: list[dict[str, Value]] = [
        {
            "entry": Code(str(one.index)),
            "type": Code(one.type),
            "by": _who(found, one.actor),
            "at": Moment(one.at_ms),
        }
        for one in found.left
    ]
    table = Table(
        name="entries",
        caption=T("Its entries"),
        columns=(
            Column("entry", T("Entry")),
            Column("type", T("Type")),
            Column("by", T("By")),
            Column("at", T("When")),
        ),
        rows=rows,
        empty=T("The log has no entry of this round yet."),
        total=len(rows),
    )
    return Panel(name="entries", title=T("What the log has of it"), table=table)
