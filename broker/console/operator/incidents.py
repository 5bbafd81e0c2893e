# SPDX-License-Identifier: Apache-2.0
"""Incidents: what the log declares and nobody has dealt with; and an operator's word that somebody did.

Closing one changes no other rule: whose reply is the evidence stays out of that run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from broker.auditing.incidents import close_incident
from broker.console.errors import FormError
from broker.console.operator.showing import OPERATOR, PAGE, index_after, run_link
from broker.console.screens import OPERATORS, Column, Done, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Digest, Moment, Nothing, State, T, Value
from broker.errors import RequestInvalidError
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["REASON", "room"]

room = Room("incidents")
REASON: Final = re.compile(r"[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}")
_REASON_CHARS: Final = 80
_STATES: Final = (("", T("all")), ("open", T("open")), ("closed", T("closed")))
_CLOSED: Final = {"open": False, "closed": True}
_INDEX_CHARS: Final = 15


@room.screen(
    "/console/incidents",
    name="incidents",
    title=T("Incidents"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker incident list --dir DIR --key FILE",
    nav=True,
)
def incidents(view: View) -> Screen:
    """Every incident, newest first; what is open can be closed."""
    state = view.query.get("state", "")
    if state not in {name for name, _ in _STATES}:
        raise FormError(need="state open or closed", found=ascii(state)[:40], remedy="choose one of the list")
    service = view.services.incidents
    shown, more = service.page(
        view.session, limit=PAGE, after=index_after(view.query), closed=_CLOSED.get(state)
    )
    still = len(service.open(view.session))
    answer = T("No incident is open.")
    if still:
        answer = T("{n} incidents are open. Look at each, then say how it was dealt with.", n=Count(still))
    table = Table(
        name="incidents",
        caption=T("Incidents, newest first"),
        columns=(
            Column("entry", T("Entry")),
            Column("state", T("State"), sort=True),
            Column("kind", T("Kind"), sort=True),
            Column("run", T("Run")),
            Column("round", T("Round")),
            Column("at", T("When")),
            Column("evidence", T("Evidence")),
            Column("closed", T("Closed by entry")),
        ),
        rows=[_row(one) for one in shown],
        empty=T("No incident fits this filter.")
        if state
        else T(
            "Incidents would be here: lies that somebody signed, sums that were wrong. None was declared."
        ),
        more=None if more is None else {"after": str(more)},
    )
    forms = [_filter(state)]
    if still and view.role == "operator":
        newest, _ = service.page(view.session, limit=PAGE, closed=False)
        forms.append(_closing(newest, still))
    panel = Panel(
        name="list",
        title=T("What happened that should not"),
        prose=(answer,),
        table=table.sorted_by(view.query),
        forms=forms,
    )
    return Screen(panels=(panel,))


def _row(one: dict[str, Any]) -> dict[str, Value]:
    return {
        "entry": Code(str(one["index"])),
        "state": State("open" if one["closed"] is None else "closed"),
        "kind": Code(one["kind"]),
        "run": Nothing() if one["run"] is None else run_link(one["run"]),
        "round": Nothing() if one["round"] is None else Count(one["round"]),
        "at": Moment(to_ms(one["at"])),
        "evidence": Digest(one["evidence"]),
        "closed": Nothing() if one["closed"] is None else Code(str(one["closed"])),
    }


def _filter(state: str) -> Form:
    field = Field(name="state", label=T("State"), kind="select", value=state, choices=_STATES, required=False)
    return Form(action="/console/incidents", method="get", button=T("Show"), fields=(field,))


def _closing(newest: Sequence[dict[str, Any]], still: int) -> Form:
    choices = [
        (str(one["index"]), T("entry {n}: {kind}", n=Code(str(one["index"])), kind=Code(one["kind"])))
        for one in newest
    ]
    return Form(
        action="/console/incidents/close",
        button=T("Close the incident"),
        effect=(
            T("One entry closes it for good; {n} others stay open.", n=Count(still - 1)),
            T("Whoever is out of a run by it stays out of that run."),
        ),
        fields=(
            Field(name="index", label=T("Incident"), kind="select", choices=choices),
            Field(
                name="reason",
                label=T("How it was dealt with"),
                help=T(
                    "A reason code: small letters, with dots or hyphens, such as {example}.",
                    example=Code("node.repaired"),
                ),
            ),
        ),
    )


@room.act("/console/incidents/close", name="incident-close", roles=OPERATOR, sees=Sees.EVERYTHING)
async def close(act: Act) -> Done:
    """Writes down that an incident is dealt with."""
    text, reason = act.field("index", most=_INDEX_CHARS), act.field("reason", most=_REASON_CHARS)
    if not text.isdecimal() or not text.isascii():
        raise RequestInvalidError(
            need="the index of an entry", found=ascii(text), remedy="choose one of the list"
        )
    if not REASON.fullmatch(reason):
        raise RequestInvalidError(
            need="a reason code: small letters and digits, parted by dots or hyphens",
            found=ascii(reason)[1:-1][:60],
            remedy="write it like node.repaired",
        )

    def effect(session: Session, tx: LogTx) -> None:
        close_incident(
            session, tx, index=int(text), reason=reason, operator=act.operator, request=act.request
        )

    await act.change(effect)
    return Done("/console/incidents", T("The incident of entry {n} is closed.", n=Code(text)))
