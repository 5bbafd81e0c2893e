# SPDX-License-Identifier: Apache-2.0
"""What this node says in a lane: ACCEPTED and VERIFIED by a person's consent, TERMINATED by their refusal.

Nothing is said by software alone. `carry_on` acts on what a person decided before, in a command or, later,
in the worker (`client.contract.tending`), and only about the digest that they decided on, in the round in
which they
did. `refuse` takes the word back on this node first, durably, before it asks anybody for anything.

Before VERIFIED leaves, each time:

1. the lane's messages, all verified, show AGREED on the digest of the consent;
2. the contract may still be signed by this node (`client.contract.signable.check_before_signing`), the linter
   finds no error, and no warning that the consent does not acknowledge;
3. the broker's own signature over the contract is there and holds;
4. the entry ``contract.signed`` for the log, with the acknowledged warnings as a confidential value, is
   durable, then the message, then both are sent.

ACCEPTED or VERIFIED that did not arrive goes out again only while the word stands and step 2 holds; else it
is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, short
from client.contract.consent import consent_for, end_consents, unacknowledged, warnings_of, withdraw_consent
from client.contract.conversation import Conversation
from client.contract.lane_book import LaneBook, Refusal
from client.contract.reading import broker_rows, fetch, resolve
from client.contract.signable import check_before_signing
from client.errors import NoSuchThingError, NotConfirmedError, NotJoinedError, NotSignedError
from client.membership import alias_key, membership
from client.receipts import LogView, collect, fetch_consistency
from policies.contract import CONTRACT_TYPE, signers
from policies.contract.errors import OvertakenError
from policies.contract.negotiation.lanes import check_reason
from policies.contract.negotiation.pool import LaneState
from policies.encoding import b64, canonical, digest
from policies.errors import IriaiError
from policies.log.entries import alias
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.contract.consent import Consent
    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.negotiation.lanes import LaneMessage

__all__ = ["carry_on", "check_open", "need_alias", "negotiation_of", "refuse", "signed_body"]

ROUND_CLOSED: Final = "round-closed"
_OPEN: Final = "open"
_SHORT_CHARS: Final = 12  # of a digest's hex digits


def negotiation_of(member: Member, held: Held) -> str:
    """Id of the negotiation in which a contract is the open text.

    Raises:
        OvertakenError: Another text of this contract is open by now.
        NotSignedError: Nobody negotiates it.
    """
    contract = held.contract
    rows = broker_rows(member)
    for one in rows:
        if one["digest"] == contract.digest and isinstance(one.get("negotiation"), str):
            return str(one["negotiation"])
    own = (contract.contract_id, contract.version)
    for one in rows:
        if one["digest"] != contract.digest and (one.get("contract_id"), one.get("version")) == own:
            raise _overtaken(contract.digest, str(one["digest"]))
    raise NotSignedError(
        need=f"an open negotiation of {contract.digest}", found="none", remedy="ask the operator to offer it"
    )


def _overtaken(wanted: str, found: str) -> OvertakenError:
    return OvertakenError(
        need=f"{wanted} as the open text",
        found=f"{found}, by a counter-offer",
        remedy=f"iriai-node contract diff {short(wanted)} {short(found)}; then sign, counter or refuse it",
    )


def check_open(talk: Conversation, held: Held) -> None:
    """Returns if the lane holds this text and can still lead to a contract.

    Raises:
        OvertakenError: It holds another text.
        NotSignedError: The round has ended.
    """
    lane, view = talk.read(), talk.view
    if lane.digest != held.contract.digest:
        raise _overtaken(held.contract.digest, lane.digest)
    if view.state == "terminated" or lane.state is LaneState.TERMINATED:
        closed = view.closed or {}
        why = ", ".join(str(closed[key]) for key in ("code", "clause", "text", "party") if closed.get(key))
        raise NotSignedError(
            need="an open round",
            found=f"one that ended: {why or 'no reason given'}",
            remedy="ask for a new offer",
        )


# --- what is said in the lane ---


def need_alias(member: Member) -> bytes:
    """The key of this organisation's aliases in the log.

    Raises:
        NotJoinedError: The organisation is not approved yet.
    """
    key = alias_key(member.home)
    if key is None:
        state = membership(member)["state"]
        key = alias_key(member.home)
        if key is None:
            raise NotJoinedError(
                need="an approved organisation",
                found=str(state),
                remedy="two operators approve it; then sign",
            )
    return key


def carry_on(member: Member, shelf: ContractShelf, outbox: Outbox, talk: Conversation) -> str | None:
    """Says what a kept consent or refusal allows in the lane's present state; gives what was said.

    1. a message that is on its way goes out again, if the word behind it stands; 2. a lane in AGREED whose
    round has closed is ended; 3. a kept refusal is said; 4. ACCEPTED, then VERIFIED, by the consent for
    exactly the lane's text and round. A consent ends with its lane.
    """
    lane = talk.read()
    end_consents(shelf, talk.negotiation, _live(talk))
    # 1.
    said = "resent" if _resent(member, shelf, talk) else None
    lane = talk.lane
    # 2.
    if lane.state is LaneState.AGREED and talk.view.state == "terminated":
        talk.say("terminate", lane.digest, code=ROUND_CLOSED)
        end_consents(shelf, talk.negotiation, None)
        return ROUND_CLOSED
    # 3.
    refusal = talk.refusal
    if refusal is not None and refusal.digest == lane.digest and lane.state in _REFUSABLE:
        _terminate(talk, refusal)
        return "terminate"
    # 4.
    if talk.view.state != _OPEN or lane.state not in {LaneState.OFFERED, LaneState.AGREED}:
        return said
    held = fetch(member, shelf, lane.digest)
    consent = consent_for(shelf, held.contract, talk.negotiation, lane.round)
    if consent is None:
        return said
    if lane.state is LaneState.OFFERED:
        _check_again(member, shelf, held, consent)
        said, lane = "accept", talk.say("accept", lane.digest)
    if lane.state is LaneState.AGREED:
        _verify(member, shelf, outbox, talk, consent)
        said = "verify"
    return said


_REFUSABLE: Final = frozenset({LaneState.OFFERED, LaneState.AGREED})
_BY_CONSENT: Final = frozenset({"accept", "verify"})


def _live(talk: Conversation) -> tuple[str, int] | None:
    """Digest and round of the lane, if it is signed or can still be."""
    over = talk.view.state == "terminated" or talk.lane.state is LaneState.TERMINATED
    return None if over else (talk.lane.digest, talk.lane.round)


def _resent(member: Member, shelf: ContractShelf, talk: Conversation) -> bool:
    """Sends what is still on its way, if the word behind it stands; else drops it, for good.

    Raises:
        NotConfirmedError, NotSignedError, UnacknowledgedError: Why it was dropped.
    """
    message = talk.outgoing()
    if message is None:
        return False
    if message.type in _BY_CONSENT:
        try:
            if not _still_meant(member, shelf, talk, message):
                talk.drop()
                return False
        except IriaiError:
            talk.drop()
            raise
    return talk.resend()


def _still_meant(member: Member, shelf: ContractShelf, talk: Conversation, message: LaneMessage) -> bool:
    """Whether the consent stands by which a message was written, and the contract may still be signed."""
    refusal, held = talk.refusal, shelf.get(message.digest)
    consent = consent_for(shelf, held.contract, talk.negotiation, message.round)
    if consent is None or (refusal is not None and refusal.digest == message.digest):
        return False
    _check_again(member, shelf, held, consent)
    return message.type == "accept" or message.acknowledged == consent.acknowledged


def _check_again(member: Member, shelf: ContractShelf, held: Held, consent: Consent) -> None:
    """Steps 2 and 3 once more: time, software and files may be others than when the person said yes."""
    check_before_signing(member, shelf, held)
    missing = {one.id for one in warnings_of(held.contract)} - set(consent.acknowledged)
    if missing:
        raise unacknowledged(missing)


def _verify(
    member: Member, shelf: ContractShelf, outbox: Outbox, talk: Conversation, consent: Consent
) -> None:
    """Sends VERIFIED with this node's signature over the contract, and the log entry of it."""
    held = shelf.get(consent.contract)
    contract = held.contract
    _check_again(member, shelf, held, consent)
    _check_broker_signed(member, held)
    seal = Envelope.seal(contract.canonical, CONTRACT_TYPE, member.identity.key)
    body = signed_body(member, contract.digest, consent.acknowledged)
    slot = f"contract.signed {contract.digest} {digest(canonical(body))}"  # other warnings are another word
    with outbox.writing() as letters:
        envelope = letters.seal("contract.signed", body=body, scope=contract.digest, slot=slot)
        signature = b64(seal.signatures[0][1])
        letters.note(
            kind="contract.signed",
            size_bytes=len(envelope.to_bytes()) + len(signature),
            digest=digest(envelope.payload),
            contract=contract.digest,
        )
    extras: dict[str, Any] = {"signature": signature, "envelope": envelope.to_json()}
    talk.say("verify", contract.digest, acknowledged=consent.acknowledged, extras=extras)
    view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
    collect(member.client, outbox, view, older_than_ms=member.clock.now_ms())


def signed_body(member: Member, contract: str, acknowledged: Iterable[str]) -> dict[str, Any]:
    """What the log entry says: who signed what, and which warnings the person acknowledged, if any."""
    own, ids = alias(need_alias(member), contract, None, None), list(acknowledged)
    body: dict[str, Any] = {"contract": contract, "party": own}
    return body | ({"acknowledged": ids} if ids else {})


def _check_broker_signed(member: Member, held: Held) -> None:
    """Returns if the broker signed the contract, which is what AGREED says.

    Raises:
        NotSignedError: It did not.
    """
    contract = held.contract
    envelope = Envelope.from_bytes(member.client.get_bytes(f"/contracts/{contract.digest}/envelope"))
    if contract.broker.party not in signers(contract, envelope):
        raise NotSignedError(
            need=f"the broker's signature over {contract.digest}, which AGREED promises",
            found="none",
            remedy="do not sign; report it to the other parties",
            clause=contract.broker.clause,
        )


def refuse(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    contract: str,
    *,
    code: str,
    confirm: Callable[[str], bool],
    clause: str | None = None,
    text: str | None = None,
) -> Answer:
    """Withdraws the consent and ends the lane, and with it the round for all, with a reason.

    The no is kept on this node, and what was on its way is dropped, before anything is asked: while the
    broker is away nothing is said by the earlier word, and the worker says the no later. A lane in ACCEPTED
    only the broker can end: the refusal is said as soon as it has AGREED.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Notes what leaves.
        contract: The whole digest, or its first 12 hex digits.
        code: Reason code, lower-case with dots.
        confirm: Shows the first 12 hex digits to a person and gives their answer.
        clause: The clause that is the reason.
        text: One line for the other parties.

    Raises:
        NoSuchThingError: The contract has no such clause.
        LaneMessageError: Code or text are not of the format.
        NotConfirmedError: The person said no; nothing was sent, and a consent stays what it was.
        OvertakenError: Another text is open by now.
        NotSignedError: The lane has ended, or it is signed already.
    """
    held = _held_here(shelf, contract) or fetch(member, shelf, resolve(member, shelf, contract))
    if clause is not None and held.contract.clause(clause) is None:
        raise NoSuchThingError(
            need="a clause of this contract",
            found=ascii(clause)[1:-1][:60],
            remedy="iriai-node contract show",
        )
    check_reason(code, clause, text)
    if not confirm(short(held.contract.digest)):
        raise NotConfirmedError(need="a person's word", found="no", remedy="nothing was sent")
    refusal = Refusal(digest=held.contract.digest, code=code, clause=clause, text=text)
    withdraw_consent(shelf, held.contract.digest)
    book = LaneBook(member.home)
    with book.alone(wait=True):
        book.withdraw(refusal)
        talk = Conversation(member, outbox, negotiation_of(member, held))
        _refuse(talk, held, refusal)
    later = talk.lane.state is LaneState.ACCEPTED
    return Answer(
        data={
            "contract": held.contract.digest,
            "lane": talk.lane.state.value,
            "said": not later,
            "code": code,
        },
        text=(
            f"refused  {held.contract.digest}: {code}" + (f" [{clause}]" if clause else ""),
            "kept: an accepted lane ends once the broker has agreed (iriai-node run); nothing is signed"
            if later
            else "sent: this round is over for all; the operator may open another",
        ),
    )


def _held_here(shelf: ContractShelf, name: str) -> Held | None:
    """The contract behind a digest or its first hex digits, if it is here: no broker is asked for it."""
    start = name.removeprefix("sha256:")
    found = [one for one in shelf.digests() if one.removeprefix("sha256:").startswith(start)]
    return shelf.get(found[0]) if len(found) == 1 and len(start) >= _SHORT_CHARS else None


def _refuse(talk: Conversation, held: Held, refusal: Refusal) -> None:
    """Says the no, or keeps it until it can be said; where nothing can be refused, it is forgotten.

    Raises:
        OvertakenError, NotSignedError: The lane holds another text, has ended, or is signed.
    """
    try:
        check_open(talk, held)
    except (OvertakenError, NotSignedError):
        talk.put_refusal(None)
        raise
    if talk.lane.state in _REFUSABLE:
        _terminate(talk, refusal)
    elif talk.lane.state is LaneState.ACCEPTED:
        talk.put_refusal(refusal)
    else:
        talk.put_refusal(None)
        raise NotSignedError(
            need="a lane in OFFERED, ACCEPTED or AGREED",
            found=str(talk.lane.state),
            remedy="what is signed ends by exit or amendment: iriai-node contract show",
        )


def _terminate(talk: Conversation, refusal: Refusal) -> None:
    talk.say("terminate", refusal.digest, code=refusal.code, clause=refusal.clause, text=refusal.text)
    talk.put_refusal(None)
