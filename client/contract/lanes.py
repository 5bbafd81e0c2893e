# SPDX-License-Identifier: Apache-2.0
"""This node's side of a negotiation as it can prove it: every message verified, none ever taken back.

The broker hands out the messages of this party's lanes, of all rounds. `verified`, in this order; nothing
is believed, kept or answered before all of it holds:

1. each message is signed by the one who says it: this node's key, or the pinned broker key;
2. it is of this negotiation, in ascending order, each id once;
3. it is of one lane: the lane before had ended, a pid is never used again, rounds never go back;
4. ``prev`` is the hash of the lane's message before;
5. it may follow: the table of `policies.contract.negotiation.pool`, less the two shortcuts that only
   bilateral clients have (a contributor's opening request, and AGREED without an ACCEPTED);
6. it is about the text that the lane holds, so AGREED and FINALIZED name what this node accepted and
   signed;
7. what the broker says about the lane is what its messages say;
8. nothing that was seen before is missing or other than it was.

What was verified is kept in the lane book (`client.contract.lane_book`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from client.errors import PeerAnswerError
from policies.contract.errors import (
    BadTransitionError,
    DigestMismatchError,
    LaneMessageError,
    MessageConflictError,
)
from policies.contract.negotiation.lanes import BROKER, CONTRIBUTOR, LaneMessage, open_message, read_message
from policies.contract.negotiation.pool import ENDED, TRANSITIONS, LaneState
from policies.encoding import is_digest
from policies.errors import EncodingError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Lane", "Line", "NegotiationView", "joined", "line_of", "read_view", "verified"]

_LEADS_TO: Final = {
    "request": LaneState.REQUESTED,
    "offer": LaneState.OFFERED,
    "accept": LaneState.ACCEPTED,
    "agree": LaneState.AGREED,
    "verify": LaneState.VERIFIED,
    "finalize": LaneState.FINALIZED,
    "terminate": LaneState.TERMINATED,
}
_SHORTCUTS: Final = frozenset(
    {(None, LaneState.REQUESTED, CONTRIBUTOR), (LaneState.REQUESTED, LaneState.AGREED, BROKER)}
)
_REPORT: Final = "sign nothing more in this negotiation; send what the broker showed to the other parties"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message of this party's lanes, with its number over all rounds."""

    seq: int
    envelope: Envelope
    message: LaneMessage

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {"seq": self.seq, "message": self.envelope.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Where this party's newest lane stands, by its messages."""

    pid: str
    party: str
    round: int
    state: LaneState
    digest: str
    last_hash: str

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiationView:
    """What the broker says about a negotiation; `lane` and `lines` are proven once `verified` gave them back.

    Attributes:
        id: ``neg_…``.
        contract_id: Of all its texts.
        version: Of all its texts.
        round: Present round.
        state: ``open``, ``finalized`` or ``terminated``.
        digest: The open text.
        lanes: State of each party's lane: the broker's word.
        waiting_for: Parties who have something to say: the broker's word.
        approved: Whether the broker's second person approved the text; None if it does not say.
        lane: This party's lane, as the broker says.
        deadline_ms: When the lane ends by itself.
        closed: Why the round ended, if it did.
        lines: Messages of this party's lanes.
        diff: What changed since the text that this party saw last.
        lint: Findings about the text.
    """

    id: str
    contract_id: str
    version: int
    round: int
    state: str
    digest: str
    lanes: Mapping[str, str]
    waiting_for: tuple[str, ...]
    approved: bool | None
    lane: Lane | None
    deadline_ms: int | None
    closed: Mapping[str, Any] | None
    lines: tuple[Line, ...]
    diff: tuple[Mapping[str, Any], ...]
    lint: tuple[Mapping[str, Any], ...]

    @property
    def last_seq(self) -> int:
        """Number of the newest message; 0 before the first."""
        return self.lines[-1].seq if self.lines else 0


# --- reading ---


def read_view(answer: object) -> NegotiationView:
    """The broker's answer by its shape; it proves nothing yet.

    Raises:
        PeerAnswerError: Another shape.
        LaneMessageError: A message is none.
    """
    try:
        return _view(answer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PeerAnswerError(
            need="a negotiation", found=f"another form ({type(error).__name__})", remedy="check both versions"
        ) from error
    except EncodingError as error:
        raise LaneMessageError(need=error.need, found=error.found, remedy=_REPORT) from error


def _view(tree: Any) -> NegotiationView:  # noqa: ANN401  a JSON document
    lane = tree["lane"]
    return NegotiationView(
        id=_text(tree["id"]),
        contract_id=_text(tree["contract_id"]),
        version=_number(tree["version"]),
        round=_number(tree["round"]),
        state=_text(tree["state"]),
        digest=_digest(tree["digest"]),
        lanes={_text(name): _text(state) for name, state in tree["lanes"].items()},
        waiting_for=tuple(_text(one) for one in tree["waiting_for"]),
        approved=None if tree.get("approved") is None else bool(tree["approved"]),
        lane=None if lane is None else _lane(lane),
        deadline_ms=None if lane is None or lane["deadline_ms"] is None else _number(lane["deadline_ms"]),
        closed=tree["closed"],
        lines=tuple(line_of(one) for one in tree["messages"]),
        diff=tuple(tree["diff"]),
        lint=tuple(tree["lint"]),
    )


def _lane(tree: Mapping[str, Any]) -> Lane:
    return Lane(
        pid=_text(tree["pid"]),
        party=_text(tree["party"]),
        round=_number(tree["round"]),
        state=LaneState(tree["state"]),
        digest=_digest(tree["digest"]),
        last_hash=_digest(tree["last_hash"]),
    )


def line_of(tree: Mapping[str, Any]) -> Line:
    """The message behind a seq and a DSSE object; it proves nothing yet."""
    envelope = Envelope.from_json(tree["message"])
    return Line(seq=_number(tree["seq"]), envelope=envelope, message=read_message(envelope.payload))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(type(value).__name__)
    return value


def _digest(value: object) -> str:
    if not is_digest(value):
        raise ValueError(type(value).__name__)
    return _text(value)


# --- proving ---


def verified(
    view: NegotiationView,
    *,
    negotiation: str,
    own_key: bytes,
    broker_key: bytes,
    kept: tuple[Line, ...],
    former: tuple[bytes, ...] = (),
) -> Lane | None:
    """This party's newest lane, by messages that all hold; see the module for the steps.

    Args:
        view: With every message, those that were kept among them.
        negotiation: That was asked for.
        own_key: This node's raw public key.
        broker_key: The pinned one.
        kept: Messages that were verified before.
        former: Public keys that this node had before; messages of a negotiation that is over are theirs.

    Raises:
        SignatureInvalidError, LaneMessageError: Step 1.
        BadTransitionError: Steps 2, 3, 5 and 7.
        MessageConflictError: Steps 2, 4 and 8.
        DigestMismatchError: Step 6.
    """
    # 1.
    for one in view.lines:
        own = next((key for key in former if one.envelope.signed_by(key)), own_key)
        open_message(one.envelope, own if one.message.sender == CONTRIBUTOR else broker_key)
    # 2.
    _check_order(view, negotiation)
    # 3. to 6.
    lane: Lane | None = None
    used: set[str] = set()
    for one in view.lines:
        lane = _followed(lane, one.message, used)
        used.add(lane.pid)
    # 7.
    if lane != view.lane:
        raise _bad(f"the lane that its messages show: {_shown(lane)}", _shown(view.lane))
    # 8.
    known = {one.seq: one.envelope for one in view.lines}
    for one in kept:
        if known.get(one.seq) != one.envelope:
            raise _conflict(f"message {one.seq} as it was shown before", "another one, or none")
    return lane


def _check_order(view: NegotiationView, negotiation: str) -> None:
    if view.id != negotiation:
        raise _bad(f"negotiation {negotiation}", ascii(view.id)[:60])
    numbers = [one.seq for one in view.lines]
    if numbers != sorted(set(numbers)) or (numbers and numbers[0] < 1):
        raise _bad("messages in ascending order", "another order")
    ids = [one.message.id for one in view.lines]
    if len(ids) != len(set(ids)):
        raise _conflict("each message id once", "one that is used twice")
    strangers = [one.message.negotiation for one in view.lines if one.message.negotiation != negotiation]
    if strangers:
        raise _bad(f"messages of {negotiation}", f"one of {strangers[0]}")


def _followed(lane: Lane | None, message: LaneMessage, used: set[str]) -> Lane:
    """The lane after one more message (steps 3 to 6)."""
    over = lane is None or (lane.state is LaneState.TERMINATED and message.pid != lane.pid)
    before = None if over else lane
    # 3.
    if before is None and message.pid in used:
        raise _bad("a new lane, because the one before has ended", f"{message.pid} again")
    if before is not None and (message.pid, message.party) != (before.pid, before.party):
        raise _bad(f"a message of lane {before.pid} of {before.party}", f"{message.pid} of {message.party}")
    least = 1 if lane is None else lane.round
    if message.round < least:
        raise _bad(f"a round from {least} on", f"round {message.round}")
    # 4.
    if message.prev != (None if before is None else before.last_hash):
        raise _conflict("the hash of the lane's message before", f"prev {message.prev}")
    # 5.
    state, into = None if before is None else before.state, _LEADS_TO[message.type]
    step = (state, into, message.sender)
    if step not in TRANSITIONS or step in _SHORTCUTS:
        raise _bad(f"what may follow {state or 'the start'}", f"{message.type} by the {message.sender}")
    # 6.
    free = before is None or message.type == "request"
    if not free and before is not None and message.digest != before.digest:
        raise DigestMismatchError(
            need=f"{message.type} of {before.digest}, which this lane holds",
            found=message.digest,
            remedy=_REPORT,
        )
    return Lane(
        pid=message.pid,
        party=message.party,
        round=message.round,
        state=into,
        digest=message.digest,
        last_hash=message.hash,
    )


def _shown(lane: Lane | None) -> str:
    if lane is None:
        return "none"
    return f"{lane.pid} round {lane.round} {lane.state} on {lane.digest}, last {lane.last_hash}"


def _bad(need: str, found: str) -> BadTransitionError:
    return BadTransitionError(need=need, found=found, remedy=_REPORT)


def _conflict(need: str, found: str) -> MessageConflictError:
    return MessageConflictError(need=need, found=found, remedy=_REPORT)


def joined(kept: Iterable[Line], view: NegotiationView) -> NegotiationView:
    """The view with the kept messages in front of those that are new in it."""
    fresh = {one.seq: one for one in view.lines}
    old = tuple(one for one in kept if one.seq not in fresh)
    return replace(view, lines=tuple(sorted((*old, *view.lines), key=lambda one: one.seq)))
