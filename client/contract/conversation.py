# SPDX-License-Identifier: Apache-2.0
"""One negotiation, as this node holds it with its broker: read, verified, kept, answered.

    talk = Conversation(member, outbox, "neg_…")
    lane = talk.read()                       # every message fetched and verified again
    (`client.contract.lanes`) lane = talk.say("accept", digest)        # durable, then sent, then read back
    lane = talk.wait({LaneState.AGREED}, wait_s=20)

- A message is written to the lane book before it is sent. Until it is found in the lane, or the lane went
  on without it, `resend` sends the same bytes under the same Idempotency-Key.
- Every transmission is noted in the outbox (``negotiation.accept``), also one that goes out again; a VERIFIED
  is noted with the log envelope that it carries (``contract.signed``).
- What the broker answers to a message proves nothing; the lane is read again instead.
- A refusal ends a message: it would be refused again. Silence and "try again" do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from client.contract.lane_book import LaneBook, Refusal
from client.contract.lanes import Lane, NegotiationView, joined, read_view, verified
from client.errors import PeerAnswerError, RemoteRefusalError
from policies.contract.negotiation.lanes import (
    CONTRIBUTOR,
    LaneMessage,
    new_message_id,
    read_message,
    seal_message,
)
from policies.encoding import canonical
from policies.limits import LANE_POLL_S, LANE_POLLS
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from client.contract.lane_book import Page
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.negotiation.pool import LaneState

__all__ = ["Conversation"]

_TRY_AGAIN: Final = 75
_BROKEN: Final = 500
_SIGNS: Final = "verify"
_NO_EXTRAS: Final[Mapping[str, Any]] = {}


class Conversation:
    """See the module. `view` is the broker's newest answer, its lane and messages verified."""

    def __init__(self, member: Member, outbox: Outbox, negotiation: str) -> None:
        self._member = member
        self._outbox = outbox
        self._book = LaneBook(member.home)
        self.negotiation = negotiation
        self._page: Page = self._book.page(negotiation)
        self._view: NegotiationView | None = None

    @property
    def view(self) -> NegotiationView:
        """What the broker says; read first."""
        return self._view if self._view is not None else self._read()

    @property
    def lane(self) -> Lane:
        """This party's newest lane, proven by its messages.

        Raises:
            PeerAnswerError: The broker shows none.
        """
        lane = self.view.lane
        if lane is None:
            raise PeerAnswerError(
                need="a lane of this party", found="none", remedy="ask the operator who the parties are"
            )
        return lane

    @property
    def refusal(self) -> Refusal | None:
        """A person's no that waits for AGREED."""
        return self._page.refusal

    def read(self) -> Lane:
        """The lane, by all its messages, fetched and verified once more.

        Raises:
            IriaiError: Something in it does not hold; see `client.contract.lanes.verified`. Nothing is kept.
        """
        self._read()
        return self.lane

    def wait(self, states: Collection[LaneState], *, wait_s: int) -> Lane:
        """The lane once it is in one of these states, has ended, or the time is over."""
        until_ms = self._member.clock.now_ms() + wait_s * 1000
        most_s = max(1, min(LANE_POLL_S, int(self._member.client.timeout_s) // 2))
        lane = self.read()
        for _ in range(LANE_POLLS):
            left_ms = until_ms - self._member.clock.now_ms()
            if lane.state in states or lane.ended or self.view.state != "open" or left_ms <= 0:
                break
            self._read(after=self.view.last_seq, wait_s=min(most_s, 1 + left_ms // 1000))
            lane = self.lane
        return lane

    def say(self, kind: str, digest: str, *, extras: Mapping[str, Any] = _NO_EXTRAS, **fields: Any) -> Lane:  # noqa: ANN401  fields of a message
        """Says something in the lane: durable first, then sent, then read back.

        Args:
            kind: ``accept``, ``request``, ``verify`` or ``terminate``.
            digest: The contract that it is about.
            extras: What travels beside the message: signature, envelope, contract, recipes, prose.
            fields: ``code``, ``clause``, ``text``, ``acknowledged``.

        Raises:
            RemoteRefusalError: The broker refused; the lane is as it was.
            PeerUnreachableError: Nothing answered; `resend` sends the same bytes.
        """
        envelope = self.drafted(kind, digest, **fields)
        body = {"message": envelope.to_json(), "after": self.view.last_seq, **extras}
        self._keep(replace(self._page, outgoing=body))
        return self._send(body)

    def drafted(self, kind: str, digest: str, **fields: Any) -> Envelope:  # noqa: ANN401  fields of a message
        """The next message of the lane, signed and not sent.

        Raises:
            LaneMessageError: A field is not of the format.
        """
        lane = self.lane
        message = LaneMessage(
            id=new_message_id(self._member.entropy.token_bytes(10)),
            negotiation=self.negotiation,
            pid=lane.pid,
            round=lane.round,
            party=lane.party,
            sender=CONTRIBUTOR,
            type=kind,
            digest=digest,
            prev=lane.last_hash,
            at=iso_s(self._member.clock.now_ms()),
            **fields,
        )
        return seal_message(message, self._member.identity.key)

    def resend(self) -> bool:
        """Sends the message that is still on its way, byte for byte; gives whether there was one.

        Call `read` before: a message that arrived, or that the lane went on without, is not sent again. What
        is said by a person's word needs that word still: see `client.contract.negotiating.carry_on`, or
        `drop` it.
        """
        body = self._page.outgoing
        if body is None:
            return False
        self._send(body)
        return True

    def drop(self) -> None:
        """Forgets the message that is on its way; it is never sent again."""
        self._keep(replace(self._page, outgoing=None))

    def outgoing(self) -> LaneMessage | None:
        """The message that is on its way."""
        return self._page.message

    def put_refusal(self, refusal: Refusal | None) -> None:
        """Keeps a no for later, or forgets it."""
        self._keep(replace(self._page, refusal=refusal))

    def _send(self, body: Mapping[str, Any]) -> Lane:
        message = read_message(Envelope.from_json(body["message"]).payload)
        if message.type != _SIGNS:
            with self._outbox.writing() as letters:
                letters.note(
                    kind=f"negotiation.{message.type}",
                    size_bytes=len(canonical(dict(body))),
                    digest=message.hash,
                    clause=message.clause,
                    contract=message.digest,
                )
        try:
            self._member.client.post(
                f"/negotiations/{self.negotiation}/messages", dict(body), idempotency_key=message.id
            )
        except RemoteRefusalError as error:
            if error.exit_code != _TRY_AGAIN and error.http_status < _BROKEN:
                self._keep(replace(self._page, outgoing=None))
            raise
        return self.read()

    def _read(self, *, after: int = 0, wait_s: int = 0) -> NegotiationView:
        """Fetches, verifies, keeps; with ``after``, what is kept up to there stands for itself."""
        answer = self._member.client.get(f"/negotiations/{self.negotiation}?after={after}&wait_s={wait_s}")
        view = read_view(answer)
        if after:
            view = joined([one for one in self._page.lines if one.seq <= after], view)
        lane = verified(
            view,
            negotiation=self.negotiation,
            own_key=self._member.identity.key.public,
            former=self._member.identity.former,
            broker_key=self._member.broker.key,
            kept=self._page.lines,
        )
        self._keep(replace(self._page, lines=view.lines, outgoing=self._still_out(view, lane)))
        self._view = view
        return view

    def _still_out(self, view: NegotiationView, lane: Lane | None) -> Mapping[str, Any] | None:
        """The outgoing message, unless it arrived or can follow nothing any more."""
        message = self.outgoing()
        arrived = message is not None and any(one.message.id == message.id for one in view.lines)
        if message is None or arrived or lane is None or message.prev != lane.last_hash:
            return None
        return self._page.outgoing

    def _keep(self, page: Page) -> None:
        if page != self._page:
            self._book.keep(self.negotiation, page)
            self._page = page
