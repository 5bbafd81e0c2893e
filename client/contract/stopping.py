# SPDX-License-Identifier: Apache-2.0
"""Halt, resume, exit and attest, as this node says them; and what the other parties said, fetched.

Each statement goes in this order:

1. the notice is signed and on the disk: it binds this node's guard from here on, whoever can be reached;
2. what the broker took of the other parties is fetched and verified;
3. own notices that are not taken go out, oldest first, each with its envelope for the log.

Where the broker is away, 2 and 3 are done by the worker, or by the next of these commands. Where it refuses,
or something fails after it has taken a notice, the command ends with that error's exit code, and says what
was said and whether the broker has it. While this node's key changes (`client.rotating`), 1 is done and the
rest waits until it has changed. A notice that changes nothing any more (the contract ended meanwhile) is
taken and logged all the same; the answer says so.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from client.contract.leaving import consequences, consequences_for, gets
from client.contract.notice_terms import check_terms
from client.contract.notices import Notices
from client.contract.posting import Told, exchange
from client.contract.reading import NOT_YET, broker_rows, fetch_envelope, resolve
from client.errors import NotConfirmedError, PeerAnswerError, PeerUnreachableError, RotationOpenError
from policies.contract.errors import LifecycleError, NotExecutedError
from policies.contract.lifecycle import PENDING, key_of, life_view, remaining, standing
from policies.contract.notices import Notice, attestation_subject
from policies.errors import IriaiError
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.lifecycle import Life

__all__ = ["attest", "halt", "leave", "lifecycle", "resolved", "resume"]

_AWAY = "the broker is away: the worker sends it (iriai-node run), or the next of these commands"


# --- commands ---


def halt(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str,
    *,
    code: str,
    clause: str | None = None,
    text: str | None = None,
) -> Answer:
    """Stops everything under a contract: here at once, elsewhere as soon as the broker hears of it.

    Raises:
        NoticeMalformedError: Reason, clause or text do not fit; nothing is signed or kept.
        NoticeEntitlementError: The contract does not let this party halt.
        LifecycleError: The contract has ended.
        NoticesUnknownError: What was said about it is lost here; nothing runs anyway.
    """
    desk = _Desk(member, shelf, outbox, contract)
    said = desk.say("halt", code=code, clause=clause, text=text)
    return desk.answer(
        [said],
        (
            f"halted   {desk.held.contract.digest}",
            "here     from now on: nothing is trained, judged or fetched under it",
            "goes on  when every contributor resumes: iriai-node contract resume "
            + short(desk.held.contract.digest),
        ),
    )


def resume(member: Member, shelf: ContractShelf, outbox: Outbox, contract: str, *, code: str) -> Answer:
    """Agrees that a halted contract goes on: one notice for each open halt that this party has not resumed.

    Raises:
        LifecycleError: No halt is open.
    """
    desk = _Desk(member, shelf, outbox, contract)
    desk.exchange()
    life, party = desk.life(), desk.held.party.party
    open_halts = [one for one in life.halts if party not in life.resumed_by[one.digest]]
    if not open_halts:
        raise LifecycleError(
            need="a halt that this party has not resumed",
            found="none open" if not life.halts else "all resumed by this party",
            remedy="iriai-node contract status shows who is waited for",
        )
    said = [desk.say("resume", code=code, refers=one.digest) for one in open_halts]
    shown = [
        f"resumes  {one.party}: {one.code}" + (f" [{one.clause}]" if one.clause else "") for one in open_halts
    ]
    return desk.answer(said, tuple(shown))


def leave(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str,
    *,
    choice: str,
    code: str,
    confirm: Callable[[str], bool],
    tell: Callable[[Iterable[str]], None],
    absent: str | None = None,
) -> Answer:
    """Leaves a contract, once a person has read what follows, clause by clause.

    With ``absent``, says instead that another contributor is to leave, which has its effect when all the
    others have said so.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the envelope.
        contract: Digest, or its first hex digits.
        choice: What becomes of models that hold this party's updates and are not released.
        code: Reason code.
        confirm: Shows the digest to a person and gives their answer.
        tell: Shows lines to a person before they are asked.
        absent: Short name of a contributor that is absent for good; None: this party leaves.

    Raises:
        LifecycleError: The absent one has left, or this party said so before.
        RefusedError: The contract does not allow this exit; the clause is named.
        NotConfirmedError: Nobody said yes.
    """
    desk = _Desk(member, shelf, outbox, contract)
    desk.exchange()
    check_terms(desk.held.contract, {"code": code})
    held, life = desk.held, desk.life()
    if absent is None:
        follows = consequences(held.contract, life, held.party.party, choice, desk.now)
    else:
        follows = consequences_for(held.contract, life, absent, choice)
    tell([f"[{clause}] {words}" for clause, words in follows])
    if not confirm(short(held.contract.digest)):
        raise NotConfirmedError(
            need="a person's word", found="no", remedy="read it again: iriai-node contract show"
        )
    said = desk.say("exit", code=code, choice=choice, subject=absent)
    if absent is not None:
        return desk.answer([said], (f"asks out {absent} of {held.contract.digest}",))
    return desk.answer([said], (f"left     {held.contract.digest}", "you get", *gets(member.home, held)))


def attest(
    member: Member, shelf: ContractShelf, outbox: Outbox, contract: str, *, use: str, country: str
) -> Answer:
    """States under signature what this party uses the models for, and where.

    Raises:
        NoticeMalformedError: ``use`` is no word, or ``country`` no country code.
    """
    desk = _Desk(member, shelf, outbox, contract)
    said = desk.say("attest", code="use.attested", subject=attestation_subject(use=use, country=country))
    return desk.answer([said], (f"attested {use}, in {country}",))


def lifecycle(
    member: Member, shelf: ContractShelf, outbox: Outbox, contract: str, *, restore: bool = False
) -> Answer:
    """Where a contract stands and what its parties said, verified here.

    ``restore`` fetches it all anew, and puts aside what does not verify here or can count no more.
    """
    desk = _Desk(member, shelf, outbox, contract, anew=restore)
    sent = desk.exchange()
    life, contract_ = desk.life(), desk.held.contract
    waited = {
        one.digest: [name for name in remaining(contract_, life) if name not in life.resumed_by[one.digest]]
        for one in life.halts
    }
    shown = life_view(contract_, life, desk.now)
    from_when = (
        f"PENDING, begins at {contract_.term.effective}"
        if shown["standing"] == PENDING
        else f"{shown['standing']} since {shown['since']}"
    )
    text = [f"contract {contract_.digest}", f"standing {from_when}"]
    for one in life.halts:
        why = (
            f"{one.code}" + (f" [{one.clause}]" if one.clause else "") + (f": {one.text}" if one.text else "")
        )
        text.append(f"halt     by {one.party} at {one.at}, {why}")
        text.append(f"         waits for a resume by {', '.join(waited[one.digest])}")
    text += [f"left     {name} at {gone.at}; unreleased: {gone.choice}" for name, gone in life.exited.items()]
    if life.terminated is not None:
        text.append(f"ended    by {life.terminated.clause}: {life.terminated.code}")
    aside = [facts for event, facts in desk.told if event == "notice-rejected"]
    for facts in aside:
        text.append(f"aside    {facts['kind']}, moved to notices/rejected/{facts['file']}: it counts no more")
        text.append(f"         needs {facts['need']}; found {facts['found']}")
    text += [] if sent else [_AWAY] if desk.unsent() else ["the broker is away: this is what is known here"]
    return Answer(
        data={
            **shown,
            "waiting_for": waited,
            "unsent": [one.digest for one in desk.unsent()],
            "rejected": aside,
        },
        text=tuple(text),
    )


class _Desk:
    """One command's view of one contract."""

    def __init__(
        self, member: Member, shelf: ContractShelf, outbox: Outbox, contract: str, *, anew: bool = False
    ) -> None:
        """Finds an executed contract.

        Raises:
            NoSuchThingError: It is not here.
            NotExecutedError: Not everybody signed it.
        """
        self._member, self._shelf, self._outbox, self._anew = member, shelf, outbox, anew
        self.held = shelf.get(resolved(member, shelf, contract))
        if not self.held.is_executed:  # the last signature may have come a moment ago
            with contextlib.suppress(PeerUnreachableError, *NOT_YET):
                self.held = fetch_envelope(member, shelf, self.held.contract.digest)
        if not self.held.is_executed:
            raise NotExecutedError(
                need="a contract that everybody signed",
                found=_unsigned(member, self.held.contract.digest),
                remedy="iriai-node contract list shows where it stands",
            )
        self.now = _now(member)
        self.told: list[Told] = []

    def life(self) -> Life:
        return Notices(self._shelf).life(self.held, self.now)

    def unsent(self) -> tuple[Notice, ...]:
        return Notices(self._shelf).unsent(self.held)

    def say(self, kind: str, **terms: Any) -> Notice:  # noqa: ANN401  fields of a notice
        """Signs a notice and keeps it, once everything that a person typed fits.

        Raises:
            NoticeMalformedError: A reason, clause or text does not; nothing is signed.
        """
        check_terms(self.held.contract, terms)
        notices, party = Notices(self._shelf), self.held.party.party
        life = notices.life(self.held)
        said = Notice(
            kind=kind,
            contract=self.held.contract.digest,
            party=party,
            seq=life.next_seq(party),
            at=life.next_at(party, self.now),
            **terms,
        )
        key = self._member.identity.holding(key_of(self.held.contract, life, party))
        return notices.say(self.held, said, key)

    def exchange(self) -> bool:
        """Whether the broker was reached; while this node's key changes, nothing is sent."""
        try:
            self._outbox.check_settled()
            exchange(self._member, self._shelf, self._outbox, self.held, anew=self._anew, told=self.told)
        except (PeerUnreachableError, RotationOpenError):
            return False
        return True

    def answer(self, said: Iterable[Notice], text: tuple[str, ...]) -> Answer:
        """What was said, and whether the broker has it.

        What is said here counts, whatever fails on the way to the broker; so a failure is part of the answer.
        """
        failed = self._failed_exchange()
        sent = {facts["notice"]: facts.get("code", "taken") for _, facts in self.told if "notice" in facts}
        waiting = {one.digest for one in self.unsent()} - set(sent)
        away = "not sent yet" if failed is None else f"not taken: {failed.code}"
        rows = [
            (one.kind, one.seq, away if one.digest in waiting else sent.get(one.digest, "taken"), one.digest)
            for one in said
        ]
        stands = standing(self.held.contract, self.life(), self.now)
        lines = (*text, f"standing {stands}", *table(("notice", "number", "broker", "digest"), rows))
        return Answer(
            data={
                "contract": self.held.contract.digest,
                "standing": stands,
                "notices": [dict(zip(("kind", "seq", "broker", "digest"), row, strict=True)) for row in rows],
                "failed": None if failed is None else failed.as_dict(),
            },
            text=(*lines, *_why(failed, waits=bool(waiting))),
            exit_code=0 if failed is None else failed.exit_code,
        )

    def _failed_exchange(self) -> IriaiError | None:
        try:
            self.exchange()
        except IriaiError as error:
            return error
        return None


def _why(failed: IriaiError | None, *, waits: bool) -> tuple[str, ...]:
    """Lines about what did not reach the broker, or failed after it had."""
    if failed is None:
        return (_AWAY,) if waits else ()
    head = (
        "said     it counts here from now on, and goes out again until the broker takes it; what failed:"
        if waits
        else "said     the broker has it; what failed afterwards:"
    )
    clause = f" [clause {failed.clause}]" if failed.clause else ""
    return (
        head,
        f"  {failed.code}{clause}",
        f"  need:   {failed.need}",
        f"  found:  {failed.found}",
        f"  remedy: {failed.remedy}",
    )


def _unsigned(member: Member, contract: str) -> str:
    """What a contract is that is not executed here, in the broker's words; an offer while it is away."""
    try:
        rows = [one for one in broker_rows(member) if one["digest"] == contract]
    except (PeerUnreachableError, PeerAnswerError):
        rows = []
    state = rows[0].get("state") if rows else None
    if state == "terminated":
        return "one whose negotiation was terminated: it binds nobody"
    waited = rows[0].get("waiting_for") if rows else None
    if state == "finalized" or not isinstance(waited, list) or not waited:
        return "an offer whose signatures are not all here"
    return "an offer that waits for " + ", ".join(map(str, waited))


def resolved(member: Member, shelf: ContractShelf, name: str) -> str:
    """The whole digest; from this node's own contracts first, so that a halt needs nobody."""
    mine = [
        one for one in shelf.digests() if one.removeprefix("sha256:").startswith(name.removeprefix("sha256:"))
    ]
    return mine[0] if len(mine) == 1 and len(name) >= len(short(mine[0])) else resolve(member, shelf, name)


def _now(member: Member) -> str:
    return iso_s(member.clock.now_ms())
