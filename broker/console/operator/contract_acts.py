# SPDX-License-Identifier: Apache-2.0
"""What operators may do with a contract: halt it at once, or propose that it may come into force.

One person halts, by a notice that the broker signs; it takes two to let a text come into force
(`broker.acts.contracts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.console.screens import Done, Field, Form, Panel, Room, Sees
from broker.console.values import (
    Code,
    Count,
    Link,
    T,
)
from broker.contracts.rows import ACTIVATE
from broker.store.tables import candidate, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.auth.proposals import Outcome
    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract

__all__ = ["act_panels", "room"]

room = Room("contract-acts")
_OPERATOR: Final = frozenset({"operator"})
_HALTABLE: Final = frozenset({"ACTIVE", "HALTED", "PENDING"})


def act_panels(view: View, found: Contract, row: Mapping[str, Any]) -> Iterator[Panel]:
    """The forms for whoever looks; nothing for a person of a member."""
    if view.role not in {"operator", "approver"}:
        return
    if row["proposal"] is not None:
        name = str(row["proposal"])
        yield Panel(
            name="activation",
            title=T("Activation"),
            prose=(
                T("Two of the broker's people let exactly this text come into force."),
                Link(T("Look at the proposal"), f"/console/proposals/{name}"),
            ),
        )
    elif row["state"] in {"offered", "signed"} and not row["approved"] and view.role == "operator":
        form = Form(
            action=f"/console/contracts/{found.digest}/activate",
            button=T("Propose its activation"),
            effect=(T("Another person has to approve it; until then the text cannot come into force."),),
        )
        yield Panel(name="activation", title=T("Activation"), forms=(form,))
    if view.role == "operator" and row["standing"] in _HALTABLE:
        yield _halt_panel(view, found)


def _halt_panel(view: View, found: Contract) -> Panel:
    if "broker" not in found.halt.who:
        told = T("Clause {clause} does not let the broker halt it.", clause=Code(found.halt.clause))
        return Panel(name="halt", title=T("Halt it"), prose=(told,))
    return Panel(
        name="halt",
        title=T("Halt it"),
        prose=(T("One person is enough. It goes on once all contributors have signed that it may."),),
        forms=(
            Form(
                action=f"/console/contracts/{found.digest}/halt",
                button=T("Halt"),
                fields=(
                    Field(
                        name="code",
                        label=T("Reason, as a word: operator-decision"),
                        value="operator-decision",
                    ),
                    Field(
                        name="clause",
                        label=T("Clause that is the reason"),
                        kind="select",
                        choices=[
                            ("", T("none")),
                            *((one.clause, Code(one.clause)) for one in found.clauses()),
                        ],
                    ),
                    Field(
                        name="text",
                        label=T("One line for its parties"),
                        help=T("It is signed, logged, and shown to all of them."),
                        required=False,
                    ),
                ),
                effect=_losses(view, found),
                danger=True,
            ),
        ),
    )


def _losses(view: View, found: Contract) -> tuple[T, ...]:
    """What a halt stops, in numbers."""
    runs = view.session.scalars(
        select(run.c.run_id).where((run.c.contract == found.digest) & run.c.outcome.is_(None))
    ).all()
    waiting = view.session.scalars(
        select(candidate.c.digest)
        .join(run, run.c.run_id == candidate.c.run_id)
        .where((run.c.contract == found.digest) & (candidate.c.state == "waiting"))
    ).all()
    return (
        T("Open runs that stop before their next round: {n}.", n=Count(len(runs))),
        T("Models that wait at the gate and stay there: {n}.", n=Count(len(waiting))),
        T("Contributors who must all sign before it goes on: {n}.", n=Count(len(found.contributors))),
    )


@room.act("/console/contracts/{digest}/halt", name="contract-halt", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def halt(act: Act) -> Done:
    """Stops a contract by a notice that the broker signs, as the API does."""
    services = act.services
    found = services.contracts.get(act.path["digest"])
    code, clause = act.word("code"), act.form.get("clause", "").strip() or None
    text = act.form.get("text", "").strip() or None

    def effect(session: Session, tx: LogTx) -> None:
        services.lives.halt(
            session,
            tx,
            contract=found,
            operator=act.operator,
            code=code,
            clause=clause,
            text=text,
            request=act.request,
        )

    act.after.append(lambda: services.lives_changed(found))
    await act.change(effect)
    return Done(f"/console/contracts/{found.digest}", T("It is halted."))


@room.act(
    "/console/contracts/{digest}/activate", name="contract-activate", roles=_OPERATOR, sees=Sees.EVERYTHING
)
async def activate(act: Act) -> Done:
    """Proposes that a text may come into force."""
    digest = act.path["digest"]
    made: list[Outcome] = []

    def effect(session: Session, tx: LogTx) -> None:
        made.append(
            act.services.acts.propose(session, tx, ACTIVATE, {"contract": digest}, act.operator, act.request)
        )

    await act.change(effect)
    to = f"/console/proposals/{made[0].proposal.id}" if made else "/console/proposals"
    return Done(to, T("It is proposed. Another person has to approve it."))
