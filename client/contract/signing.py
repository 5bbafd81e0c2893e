# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract sign``: everything that is checked, shown and asked before a person's word is kept.

`sign` goes in this order and stops at the first thing that does not hold:

1. the bytes have the digest, every recipe is here, and this node is a party
   (`client.contract.reading.fetch`);
2. the contract may be signed by this node at all (`client.contract.signable.check_before_signing`), and
   its text is the open one of a round that has not ended;
3. linter: no error, and every warning acknowledged by its id;
4. the text for people, where the contract binds one, is the file that the person holds;
5. the person compares the digest; their word is kept (`client.contract.consent`);
6. ACCEPTED is sent, and, once all have accepted and the broker has agreed, VERIFIED with the signature
   (`client.contract.negotiating.carry_on`).

Repeating it goes on from where it stands, without asking again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from client.answers import Answer, short
from client.contract.consent import Consent, consent_for, give_consent, unacknowledged, warnings_of
from client.contract.conversation import Conversation
from client.contract.lane_book import LaneBook
from client.contract.negotiating import carry_on, check_open, need_alias, negotiation_of
from client.contract.reading import NOT_YET, fetch, fetch_envelope, resolve
from client.contract.shelf import check_prose
from client.contract.signable import check_before_signing
from client.errors import NoSuchThingError, NotConfirmedError, ProseMismatchError
from policies.contract.negotiation.pool import LaneState
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.lint import LintFinding

__all__ = ["sign"]


def _say_nothing(_lines: tuple[str, ...]) -> None:
    """Nobody is at a terminal."""


def _acknowledge_nothing(_finding: LintFinding) -> bool:
    return False


def sign(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str,
    *,
    confirm: Callable[[str], bool],
    acknowledge: Callable[[LintFinding], bool] = _acknowledge_nothing,
    acknowledged: Collection[str] = (),
    prose: bytes | None = None,
    wait_s: int = 0,
    tell: Callable[[tuple[str, ...]], None] = _say_nothing,
    brief: bool = False,
) -> Answer:
    """Accepts a contract and, once all did and the broker agreed, signs it. Repeating it goes on from there.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the log envelope.
        contract: The whole digest, or its first 12 hex digits.
        confirm: Shows the first 12 hex digits to a person and gives their answer.
        acknowledge: Shows a warning to a person and gives whether they accept it.
        acknowledged: Ids of warnings that a person accepted before.
        prose: The text for people, as the person holds it.
        wait_s: How long to wait for the others.
        tell: Takes the summary that stands above the question.
        brief: Tell title, digest and count of warnings alone: the person read the rest before.

    Raises:
        NotJoinedError: The organisation is not approved yet.
        NotSignedError, ProseMismatchError, UnacknowledgedError, NotConfirmedError: Steps 2 to 5.
        OvertakenError: Another text is open by now.
        IriaiError: See `client.contract.reading.fetch` and `client.contract.lanes.verified`.
    """
    # 1.
    held = fetch(member, shelf, resolve(member, shelf, contract))
    if held.is_executed:
        return _answer(member, held, None)
    # 2.
    check_before_signing(member, shelf, held)
    need_alias(member)
    negotiation = negotiation_of(member, held)
    shown = Conversation(member, outbox, negotiation)
    check_open(shown, held)
    # 3. to 5.
    if not _has_consent(shelf, held, negotiation, shown.lane.round):
        accepted = _acknowledged(held, acknowledge, set(acknowledged))
        bound = _compared_prose(shelf, held, prose)
        tell(_brief(held, accepted) if brief else _summary(held, accepted, bound))
        if not confirm(short(held.contract.digest)):
            raise NotConfirmedError(
                need="a person's word", found="no", remedy="read it: iriai-node contract show"
            )
        give_consent(
            shelf,
            Consent(
                contract=held.contract.digest,
                party=held.party.party,
                at=iso_s(member.clock.now_ms()),
                acknowledged=accepted,
                prose=bound,
                negotiation=negotiation,
                round=shown.lane.round,
            ),
        )
    # 6. and 7.
    with LaneBook(member.home).alone(wait=True):
        talk = Conversation(member, outbox, negotiation)
        talk.put_refusal(None)
        carry_on(member, shelf, outbox, talk)
        if talk.lane.state is LaneState.ACCEPTED and wait_s > 0:
            talk.wait({LaneState.AGREED}, wait_s=wait_s)
            carry_on(member, shelf, outbox, talk)
    with contextlib.suppress(*NOT_YET):
        held = fetch_envelope(member, shelf, held.contract.digest)
    shelf.mark_shown(held.contract)
    return _answer(member, held, talk)


def _has_consent(shelf: ContractShelf, held: Held, negotiation: str, number: int) -> bool:
    """Whether a person's word on this text in this round is here; one that is damaged is asked for again."""
    try:
        return consent_for(shelf, held.contract, negotiation, number) is not None
    except NotConfirmedError:
        return False


def _acknowledged(held: Held, acknowledge: Callable[[LintFinding], bool], given: set[str]) -> tuple[str, ...]:
    """Ids of all warnings, once a person acknowledged each.

    Raises:
        NoSuchThingError: An id that is none of this contract's warnings.
        UnacknowledgedError: Names those that nobody acknowledged.
    """
    warnings = {one.id: one for one in warnings_of(held.contract)}
    strangers = sorted(given - set(warnings))
    if strangers:
        raise NoSuchThingError(
            need="ids of this contract's warnings: " + (", ".join(sorted(warnings)) or "there are none"),
            found=", ".join(ascii(one)[1:-1] for one in strangers)[:200],
            remedy="iriai-node contract sign without --acknowledge shows each",
        )
    missing = [one.id for one in warnings.values() if one.id not in given and not acknowledge(one)]
    if missing:
        raise unacknowledged(missing)
    return tuple(sorted(warnings))


def _compared_prose(shelf: ContractShelf, held: Held, prose: bytes | None) -> str | None:
    """SHA-256 of the text for people, once the person's own copy is that text; None if none is bound.

    Raises:
        NotConfirmedError: The contract binds a text, and the person showed none.
        ProseMismatchError: They showed another one.
    """
    bound, path = held.contract.prose, shelf.prose_file(held.contract)
    if bound is None:
        if prose is not None:
            raise ProseMismatchError(
                need="no text: the contract binds none", found="a file", remedy="sign without --prose"
            )
        return None
    if prose is None:
        here = f"a copy lies in {path}" if path is not None and path.exists() else "ask the operator for it"
        raise NotConfirmedError(
            need=f"the text for people, which prevails: SHA-256 {bound.sha256}",
            found="no file",
            remedy=f"read it ({here}), then sign with --prose FILE",
            clause=bound.clause,
        )
    shelf.put_prose(held.contract, check_prose(bound, prose))
    return bound.sha256


def _summary(held: Held, acknowledged: tuple[str, ...], prose: str | None) -> tuple[str, ...]:
    """What is about to be said, above the question."""
    contract = held.contract
    return (
        f"contract  {contract.digest}",
        f"title     {contract.title} (version {contract.version})",
        f"you are   {held.party.party}; sign by {contract.sign_by}; in force from {contract.term.effective}",
        f"prose     {'the same text as in your file' if prose else 'none is bound'}",
        "warnings  " + (", ".join(acknowledged) or "none"),
        "sent now  ACCEPTED: your word on this text, signed by this node's key",
        "later     once all accepted and the broker signed: your signature over the contract, and its",
        "          entry contract.signed for the log, with the warnings above behind a commitment;",
        "          nothing about your data",
    )


def _brief(held: Held, acknowledged: tuple[str, ...]) -> tuple[str, ...]:
    """What a person read before, and where the rest of it stands."""
    contract = held.contract
    return (
        f"title     {contract.title} (version {contract.version})",
        f"warnings  {len(acknowledged)} acknowledged; this command without --yes shows each",
        f"all of it iriai-node contract show {short(contract.digest)}",
    )


def _answer(member: Member, held: Held, talk: Conversation | None) -> Answer:
    lane = None if talk is None else talk.lane
    state = "finalized" if held.is_executed else "open" if talk is None else talk.view.state
    waiting = [] if talk is None or held.is_executed else list(talk.view.waiting_for)
    return Answer(
        data={
            "contract": held.contract.digest,
            "state": state,
            "lane": "FINALIZED" if lane is None else lane.state.value,
            "round": None if lane is None else lane.round,
            "lanes": {} if talk is None else dict(talk.view.lanes),
            "waiting_for": waiting,
            "executed": held.is_executed,
        },
        text=(
            f"contract  {held.contract.digest}",
            f"lane      {'FINALIZED' if lane is None else lane.state.value}",
            "waiting   " + (", ".join(waiting) or "for nobody"),
            *(("approved  not yet by the broker's second person",) if _held(talk, waiting) else ()),
            *_next(member, held, None if lane is None else lane.state),
        ),
    )


def _held(talk: Conversation | None, waiting: list[str]) -> bool:
    """Whether everybody has signed, and the broker alone is waited for."""
    return (
        bool(waiting)
        and talk is not None
        and talk.view.approved is False
        and set(talk.view.lanes.values()) == {LaneState.VERIFIED.value}
    )


def _next(member: Member, held: Held, state: LaneState | None) -> tuple[str, ...]:
    """What follows, and who does it."""
    worker = f"iriai-node run --dir {member.home.root}"
    if held.is_executed:
        return ("executed: everybody signed", f"next: {worker}")
    if state is LaneState.VERIFIED:
        return ("signed; it is final once everybody has, and two of the broker's people", f"next: {worker}")
    return (f"accepted; your signature follows once all have accepted: {worker}, or this command again",)
