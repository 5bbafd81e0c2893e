# SPDX-License-Identifier: Apache-2.0
"""What one person proposed and another one approves: what waits, and what exactly would happen.

An approval is a person's word for exactly the subject's bytes; if the world has changed meanwhile, the
proposal is void and nothing happens (`broker.acts.service`). One's own proposal is for somebody else, by
whichever way one made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.auth.proposals import State as Stage
from broker.console.screens import (
    OPERATORS,
    Column,
    Done,
    Fact,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import Code, Count, Digest, Link, Name, Nothing, State, T, Value, When
from broker.membership.errors import NotMemberError
from policies.limits import APPROVALS_NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.auth.proposals import Outcome, Proposal
    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["about", "room", "what_of"]

room = Room("proposals")
PAGE: Final = 50
_WHAT: Final = {
    "contract.activate": T("A contract comes into force as soon as all its parties have signed it."),
    "org.remove": T("The membership of an organisation ends for good; its keys are revoked."),
    "org.restore": T("A suspended organisation takes part again."),
    "key.rotate": T("A key of the broker is replaced by a new one."),
    "witness.add": T("The witness of an auditor counts towards the quorum from then on."),
    "witness.remove": T("A witness no longer counts towards the quorum."),
    "person.add": T("Somebody may log in here with a role that can approve."),
    "person.reset": T("Somebody gets a new way to log in; the old ones end."),
}
_OTHER: Final = T("What the subject below says.")


def what_of(found: Proposal) -> T:
    """What would happen, in one sentence."""
    return _WHAT.get(found.kind, _OTHER)


def about(view: View, found: Proposal) -> Value:
    """The object of a proposal, with a link to it where it has a screen."""
    facts = found.facts
    if found.kind.startswith("contract."):
        return Link(Name(str(facts.get("title"))), f"/console/contracts/{facts.get('contract')}")
    if "org" in facts and found.kind.startswith("org."):
        org = str(facts["org"])
        try:
            name = view.services.directory.member(org).legal_name
        except NotMemberError:
            return Code(org)
        return Link(Name(name), f"/console/members/{org}")
    said = next((facts[one] for one in ("name", "person", "key", "role", "witness") if facts.get(one)), None)
    return Nothing() if said is None else Name(str(said)[:200])


@room.screen(
    "/console/proposals",
    name="proposals",
    title=T("Proposals"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker proposal list --dir DIR --key FILE",
    nav=True,
)
def proposals(view: View) -> Screen:
    """What waits for a second person."""
    own = view.signed_in.person.name
    everything = view.services.acts.proposals.newest(view.session)
    wanted = view.query.get("state", "")
    found = [one for one in everything if wanted in {"", one.at(view.now_ms).value}]
    after = view.query.get("after", "")
    place = next((number + 1 for number, one in enumerate(found) if one.id == after), 0)
    page = found[place : place + PAGE]
    mine = sum(one.waits_for(own, view.now_ms) for one in everything)
    table = Table(
        name="proposals",
        caption=T("Proposals, the newest first"),
        columns=(
            Column("what", T("What would happen")),
            Column("about", T("About")),
            Column("state", T("State"), sort=True),
            Column("by", T("Proposed by"), sort=True),
            Column("made", T("Proposed")),
            Column("expires", T("Until")),
            Column("behind", T("Stand behind it")),
        ),
        rows=[_row(view, one) for one in page],
        empty=T(
            "Nothing was proposed. What takes two people is proposed where it belongs: "
            "on the screens of {members}, {contracts} and {keys}.",
            members=Link(T("members"), "/console/members"),
            contracts=Link(T("contracts"), "/console/contracts"),
            keys=Link(T("keys"), "/console/keys"),
        )
        if not everything
        else T("No proposal is in this state. Choose another one to see the rest."),
        more={"after": page[-1].id} if len(found) > place + PAGE else None,
    ).sorted_by(view.query)
    return Screen(
        panels=(
            Panel(
                name="list",
                title=T("What was proposed"),
                prose=(
                    T("Proposals that wait for your word: {n}.", n=Count(mine))
                    if mine
                    else T("Nothing waits for your word."),
                ),
                facts=(Fact("mine", T("Wait for you"), Count(mine)),),
                table=table,
                forms=(_filter(wanted),) if everything else (),
            ),
        )
    )


def _filter(wanted: str) -> Form:
    choices: list[tuple[str, Value]] = [("", T("any")), *((one.value, State(one.value)) for one in Stage)]
    field = Field(name="state", label=T("State"), kind="select", value=wanted, choices=choices)
    return Form(action="/console/proposals", button=T("Show"), method="get", fields=(field,))


def _row(view: View, one: Proposal) -> Mapping[str, Value]:
    return {
        "what": Link(what_of(one), f"/console/proposals/{one.id}"),
        "about": about(view, one),
        "state": State(one.at(view.now_ms).value),
        "by": Name(one.proposer),
        "made": When(one.created_ms),
        "expires": When(one.expires_ms),
        "behind": T("{n} of {of}", n=Count(len(one.names)), of=Count(APPROVALS_NEEDED)),
    }


@room.screen(
    "/console/proposals/{id}",
    name="proposal",
    title=T("Proposal"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker proposal show PROPOSAL --dir DIR --key FILE",
)
def proposal(view: View) -> Screen:
    """One proposal: what exactly would happen, and the form to say yes or no."""
    found = view.services.acts.proposals.find(view.session, view.path["id"])
    return Screen(
        panels=(_stands(view, found), _subject(found), *_words(view, found)),
        title=T("Proposal: {what}", what=about(view, found)),
        trail=((T("Proposals"), "/console/proposals"),),
        command=f"iriai-broker proposal show {found.id} --dir DIR --key FILE",
    )


def _stands(view: View, found: Proposal) -> Panel:
    state = found.at(view.now_ms).value
    ended = () if found.decided_ms is None else (Fact("ended", T("Ended"), When(found.decided_ms)),)
    decided = () if found.decided_by is None else (Fact("decided", T("Ended by"), Name(found.decided_by)),)
    why = () if found.why is None else (Fact("why", T("Reason"), Code(found.why)),)
    return Panel(
        name="stands",
        title=T("What would happen"),
        prose=(what_of(found), *_next(view, found)),
        facts=(
            Fact("state", T("State"), State(state)),
            Fact("about", T("About"), about(view, found)),
            Fact("proposer", T("Proposed by"), Name(found.proposer)),
            Fact("made", T("Proposed"), When(found.created_ms)),
            Fact("expires", T("Until"), When(found.expires_ms)),
            *ended,
            *decided,
            *why,
            Fact("kind", T("Kind"), Code(found.kind)),
            Fact("digest", T("Digest of the subject"), Digest(found.digest)),
        ),
        table=Table(
            name="behind",
            caption=T("Who stands behind it"),
            columns=(
                Column("name", T("Person")),
                Column("at", T("Since")),
                Column("how", T("Confirmed with")),
            ),
            rows=[
                {"name": Name(one.name), "at": When(one.at_ms), "how": Code(one.how)} for one in found.behind
            ],
            empty=T("Nobody of the broker yet: a contributor put this text. Two people have to approve it."),
        ),
    )


def _next(view: View, found: Proposal) -> Iterator[Value]:
    if found.at(view.now_ms) is not Stage.PROPOSED:
        yield T("It has ended; nothing more can be done with it.")
        if found.kind == "person.add" and found.state is Stage.APPROVED:
            name = str(found.facts["name"])
            yield T(
                "{name} gets in by a one-time link. Two operators ask for it, one after the other: "
                "{command}. The first is told a code, the second the link; hand over both.",
                name=Name(name),
                command=Code(f"iriai-broker operator reset-login {name} --dir DIR --key FILE"),
            )
    elif view.signed_in.person.name in found.names:
        yield T("You stand behind it. Somebody else has to approve it; nobody approves their own.")
    else:
        yield T("Read below what exactly would happen. If it is right, approve it; if not, refuse it.")


def _subject(found: Proposal) -> Panel:
    rows: list[Mapping[str, Value]] = [
        {"name": Code(name), "value": _fact(value)} for name, value in sorted(found.facts.items())
    ]
    return Panel(
        name="subject",
        title=T("Exactly this is approved"),
        prose=(T("The digest is computed over these facts; nothing else can happen under it."),),
        table=Table(
            name="subject",
            caption=T("The subject, as it is signed"),
            columns=(Column("name", T("Field")), Column("value", T("Value"))),
            rows=rows,
            empty=T("The subject has no facts of its own."),
        ),
    )


def _fact(value: object) -> Value:
    """A fact of a subject: others wrote it, so it is shown as text."""
    if value is None:
        return Nothing()
    if isinstance(value, list):
        return Name("; ".join(_line(one) for one in value))
    text = _line(value)
    return Digest(text) if text.startswith(("sha256:", "ed25519:")) else Name(text)


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in sorted(value.items()))
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _words(view: View, found: Proposal) -> Iterator[Panel]:
    """The forms, as long as it is open."""
    if found.at(view.now_ms) is not Stage.PROPOSED:
        return
    if found.waits_for(view.signed_in.person.name, view.now_ms):
        missing = APPROVALS_NEEDED - len(found.names) - 1
        effect = (
            T("It happens at once, in the same moment as your approval.")
            if missing <= 0
            else T("Approvals by other people that are still missing then: {n}.", n=Count(missing))
        )
        if found.kind == "contract.activate" and missing <= 0:
            effect = T("The text is in force as soon as its last party has signed it.")
        form = Form(
            action=f"/console/proposals/{found.id}/approve",
            button=T("Approve"),
            effect=(effect,),
            subject=found.subject,
        )
        yield Panel(name="approve", title=T("Approve it"), forms=(form,))
    field = Field(name="reason", label=T("Reason, as a word: operator-decision"), value="operator-decision")
    form = Form(
        action=f"/console/proposals/{found.id}/refuse",
        button=T("Refuse"),
        fields=(field,),
        effect=(T("The proposal ends, and nothing happens. One person is enough."),),
        danger=True,
    )
    yield Panel(name="refuse", title=T("Refuse it"), forms=(form,))


@room.act("/console/proposals/{id}/approve", name="proposal-approve", roles=OPERATORS, sees=Sees.EVERYTHING)
async def approve(act: Act) -> Done:
    """Approves exactly what the person was shown."""
    name, services = act.path["id"], act.services
    with services.store.read() as session:
        found = services.acts.proposals.find(session, name)
    confirmed = await act.confirmed(found.subject)
    outcomes: list[Outcome] = []

    def effect(session: Session, tx: LogTx) -> None:
        outcomes.append(
            services.acts.approve(
                session, tx, name, act.operator, act.request, digest=found.digest, evidence=confirmed
            )
        )

    await act.change(effect)
    return _told(name, outcomes, T("It is approved."))


@room.act("/console/proposals/{id}/refuse", name="proposal-refuse", roles=OPERATORS, sees=Sees.EVERYTHING)
async def refuse(act: Act) -> Done:
    """Ends a proposal."""
    name, reason = act.path["id"], act.word("reason")
    outcomes: list[Outcome] = []

    def effect(session: Session, tx: LogTx) -> None:
        outcomes.append(act.services.acts.refuse(session, tx, name, act.operator, act.request, reason=reason))

    await act.change(effect)
    return _told(name, outcomes, T("It is refused."))


def _told(name: str, outcomes: list[Outcome], said: T) -> Done:
    """What became of it: the steps that follow the commit, or why nothing happened.

    Raises:
        ProposalError: It ended instead; that is kept.
    """
    to = f"/console/proposals/{name}"
    if not outcomes:
        return Done(to, T("This form was sent before; nothing was done again."))
    outcome = outcomes[0]
    if outcome.refusal is not None:
        raise outcome.refusal
    for step in outcome.after:
        step()
    if outcome.proposal.at(outcome.proposal.created_ms) is Stage.PROPOSED:
        return Done(to, T("Your approval is kept; another person has to approve it too."))
    return Done(to, said)
