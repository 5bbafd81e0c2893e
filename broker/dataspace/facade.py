# SPDX-License-Identifier: Apache-2.0
"""The facade for connectors of dataspaces: provider side of the Dataspace Protocol's contract negotiation.

A connector comes under a pair of a contract that exists (`broker.dataspace.offers`); it cannot make or
change one. In one transaction with every message of a consumer:

1. the negotiation is the connector's own; for others it does not exist
2. both pids are those of the negotiation
3. the same bytes again change nothing
4. the consumer may do this now (`policies.contract.odrl.dsp_lane.heard`)
5. the message and the new state are stored
6. the provider moves (`dsp_lane.answer`): its message is stored, and told by `broker.dataspace.callbacks`

- The answer shows the state that the consumer's message led to; the provider's own move is told separately,
  as the protocol has it.
- A request is agreed at once only if its offer is ours, term by term; any other is met with ours.
- FINALIZED records the agreement, once per connector and pair: a second negotiation ends in the same one.
- No entry of the log speaks of it: the contract is already there, and the vocabulary of entries has no word
  for a view of it. That an operator registered a connector is a ``console.action``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.contracts.errors import CallbackRefusedError, NotPartyError, TooManyOpenError
from broker.contracts.service import FINALIZED as FINAL
from broker.contracts.service import state_of
from broker.dataspace.rows import (
    CONSUMER,
    PROVIDER,
    NegotiationRow,
    agreement_of,
    first_message,
    last_of_consumer,
    negotiation_of,
    negotiation_of_consumer,
    recent_count,
    record_agreement,
    recorded,
    store_message,
    store_negotiation,
    store_state,
)
from policies.contract.errors import DspMessageError, MessageConflictError
from policies.contract.lifecycle import OFFERED as NOT_FINAL
from policies.contract.negotiation.pool import LaneState
from policies.contract.odrl import agreement, offer
from policies.contract.odrl import dsp_messages as dsp
from policies.contract.odrl.dsp_lane import DspLane, Facts, Move, answer, deadline_after, heard
from policies.contract.odrl.profile import PREFIX
from policies.encoding import canonical, digest_of, new_id
from policies.errors import InvariantError
from policies.limits import DSP_NEGOTIATIONS
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.dataspace.counterparties import Counterparty
    from broker.dataspace.offers import DspOffers
    from broker.store import Session
    from policies.contract.odrl import Pair
    from policies.encoding import Json
    from policies.ports import Clock, Entropy

__all__ = ["Facade", "Negotiation", "Said"]

_ID_BYTES: Final = 10
_S = LaneState


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiation:
    """What a consumer is shown of a negotiation."""

    provider_pid: str
    consumer_pid: str
    state: str

    def to_json(self) -> dict[str, Json]:
        """As a ContractNegotiation."""
        return dsp.negotiation(self.provider_pid, self.consumer_pid, self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of a running negotiation: where it leads, and its bytes.

    Attributes:
        to: The state that it asks for.
        kind: Its ``@type``.
        pids: That it names.
        data: As it came.
        offer: Of a counter-offer.
    """

    to: LaneState
    kind: str
    pids: dsp.Heard
    data: bytes
    offer: dict[str, Json] | None = None


class Facade:
    """The service; methods that take a session are units of work of the writer."""

    def __init__(
        self, *, contracts: Contracts, offers: DspOffers, clock: Clock, entropy: Entropy, participant: str
    ) -> None:
        """``participant``: how the broker is called in agreements."""
        self._contracts = contracts
        self._offers = offers
        self._clock = clock
        self._entropy = entropy
        self._participant = participant

    # --- what a consumer sends ---

    def begin(
        self, session: Session, counterparty: Counterparty, message: dsp.Request, data: bytes
    ) -> Negotiation:
        """Begins a negotiation about one of the offers that are open to the connector.

        Raises:
            CallbackRefusedError: Another callback address than the registered one.
            NotPartyError: No such offer for this connector.
            MessageConflictError: The consumer's pid is used already, for another request.
            TooManyOpenError: The connector has too many negotiations.
        """
        _check_callback(message, counterparty)
        known = negotiation_of_consumer(session, counterparty.name, message.consumer_pid)
        if known is not None:
            return _repeated(session, known, data)
        pair = self._offers.find(session, counterparty, message.offer_id)
        if pair is None:
            raise NotPartyError(
                need="an offer of the catalogue", found=message.offer_id, remedy="ask the catalogue again"
            )
        now_ms = self._clock.now_ms()
        _check_room(recent_count(session, counterparty.name, now_ms))
        state = heard(None, _S.REQUESTED)
        pid = PREFIX + new_id("negotiation", self._entropy.token_bytes(_ID_BYTES)).replace("_", ":", 1)
        store_negotiation(
            session,
            provider_pid=pid,
            consumer_pid=message.consumer_pid,
            counterparty=counterparty.name,
            contract=pair.digest,
            offer=pair.offer_id,
            state=state.value,
            rounds=1,
            deadline_ms=deadline_after(state, now_ms=now_ms, before_ms=None),
            at_ms=now_ms,
        )
        kind = "ContractRequestMessage"
        store_message(session, pid, sender=CONSUMER, kind=kind, data=data, at_ms=now_ms)
        self._move(session, counterparty, pid, same_terms=_same_terms(message.offer, pair))
        return Negotiation(provider_pid=pid, consumer_pid=message.consumer_pid, state=state)

    def take(self, session: Session, counterparty: Counterparty, pid: str, said: Said) -> Negotiation:
        """Takes a message of a running negotiation; the steps are those of the module.

        Raises:
            NotPartyError: Step 1.
            DspMessageError: Step 2, or a counter-offer to another offer.
            BadTransitionError: Step 4.
        """
        # 1.
        row = negotiation_of(session, counterparty.name, pid)
        # 2.
        _check_pids(row, said.pids)
        # 3.
        if last_of_consumer(session, pid) == said.data:
            return _shown(row)
        # 4.
        same_terms = said.offer is not None and self._is_ours(session, counterparty, row, said.offer)
        state, now_ms = heard(_S(row.state), said.to), self._clock.now_ms()
        # 5.
        rounds = row.rounds + (1 if state is _S.REQUESTED else 0)
        deadline_ms = deadline_after(state, now_ms=now_ms, before_ms=row.deadline_ms)
        store_message(session, pid, sender=CONSUMER, kind=said.kind, data=said.data, at_ms=now_ms)
        store_state(session, pid, state, rounds=rounds, deadline_ms=deadline_ms, at_ms=now_ms)
        # 6.
        self._move(session, counterparty, pid, same_terms=same_terms)
        return Negotiation(provider_pid=pid, consumer_pid=row.consumer_pid, state=state)

    def look(self, session: Session, counterparty: Counterparty, pid: str) -> Negotiation:
        """Lets the provider move, if something changed since the last message, and shows where it stands.

        Raises:
            NotPartyError: Step 1.
        """
        self._move(session, counterparty, pid)
        return _shown(negotiation_of(session, counterparty.name, pid))

    def is_due(self, session: Session, counterparty: Counterparty, pid: str) -> bool:
        """Whether `look` would change something.

        Raises:
            NotPartyError: Step 1.
        """
        row = negotiation_of(session, counterparty.name, pid)
        return self._due(session, counterparty, row, same_terms=False) is not None

    # --- the provider's move ---

    def _pair(self, session: Session, counterparty: Counterparty, row: NegotiationRow) -> Pair | None:
        contract = self._contracts.read_in(session, row.contract)
        here = self._offers.open_in(session, contract, counterparty)
        return next((one for one in here if one.offer_id == row.offer), None)

    def _is_ours(
        self, session: Session, counterparty: Counterparty, row: NegotiationRow, sent: dict[str, Json]
    ) -> bool:
        if sent["@id"] != row.offer:
            raise DspMessageError(
                need=f"offer.@id: {row.offer}, which this negotiation is about",
                found=ascii(sent["@id"])[1:-1][:120],
                remedy="begin another negotiation about another offer",
            )
        pair = self._pair(session, counterparty, row)
        return pair is not None and _same_terms(sent, pair)

    def _due(
        self, session: Session, counterparty: Counterparty, row: NegotiationRow, *, same_terms: bool
    ) -> Move | None:
        contract = self._contracts.read_in(session, row.contract)
        final = state_of(session, row.contract) == FINAL
        facts = Facts(
            standing=self._contracts.standing(contract, session) if final else NOT_FINAL,
            open=self._pair(session, counterparty, row) is not None,
            same_terms=same_terms,
        )
        lane = DspLane(state=_S(row.state), rounds=row.rounds, deadline_ms=row.deadline_ms)
        return answer(lane, facts, now_ms=self._clock.now_ms())

    def _move(
        self, session: Session, counterparty: Counterparty, pid: str, *, same_terms: bool = False
    ) -> None:
        """The provider's move, if it has one: its message is stored and waits to be told."""
        row, now_ms = negotiation_of(session, counterparty.name, pid), self._clock.now_ms()
        move = self._due(session, counterparty, row, same_terms=same_terms)
        if move is None:
            return
        message = self._message(session, counterparty, row, move)
        data = canonical(message)
        store_message(session, pid, sender=PROVIDER, kind=message["@type"], data=data, at_ms=now_ms)
        deadline_ms = deadline_after(move.to, now_ms=now_ms, before_ms=row.deadline_ms)
        store_state(session, pid, move.to, rounds=row.rounds, deadline_ms=deadline_ms, at_ms=now_ms)
        if move.to is _S.FINALIZED:
            record_agreement(session, row, agreement_of(session, pid), at_ms=now_ms)

    def _message(
        self, session: Session, counterparty: Counterparty, row: NegotiationRow, move: Move
    ) -> dict[str, Json]:
        pids = (row.provider_pid, row.consumer_pid)
        if move.to is _S.TERMINATED:
            return dsp.termination_message(*pids, code=move.code or "", reason=move.reason or "")
        if move.to is _S.FINALIZED:
            return dsp.event_message(*pids, dsp.FINALIZED)
        pair = self._pair(session, counterparty, row)
        if pair is None:
            raise InvariantError(
                need="a negotiation whose pair is not open ends", found="it goes on", remedy="report this"
            )
        if move.to is _S.OFFERED:
            return dsp.offer_message(*pids, offer(pair, target=True))
        return dsp.agreement_message(*pids, self._agreement(session, counterparty, pair))

    def _agreement(self, session: Session, counterparty: Counterparty, pair: Pair) -> dict[str, Json]:
        """The agreement of a connector under a pair: the recorded one, if there is one."""
        number = digest_of([pair.id, counterparty.name]).removeprefix("sha256:")
        name = f"{PREFIX}agreement:{number}"
        return recorded(session, name) or agreement(
            pair,
            name=name,
            assigner=self._participant,
            assignee=counterparty.participant,
            timestamp=iso_s(self._clock.now_ms()),
        )


def _check_callback(message: dsp.Request, counterparty: Counterparty) -> None:
    if (message.callback or "").rstrip("/") != counterparty.callback:
        raise CallbackRefusedError(
            need=f"the registered address {counterparty.callback}",
            found=ascii(message.callback)[:120],
            remedy="send that one, or ask the operators to register another",
        )


def _check_room(count: int) -> None:
    if count >= DSP_NEGOTIATIONS:
        raise TooManyOpenError(
            need=f"at most {DSP_NEGOTIATIONS} negotiations that are open or of this day",
            found=str(count + 1),
            remedy="end those that you do not need, and begin no more today",
        )


def _repeated(session: Session, row: NegotiationRow, data: bytes) -> Negotiation:
    if first_message(session, row.provider_pid) != data:
        raise MessageConflictError(
            need="a consumerPid that was not used",
            found=row.consumer_pid,
            remedy="give a new negotiation a pid of its own",
        )
    return _shown(row)


def _check_pids(row: NegotiationRow, said: dsp.Heard) -> None:
    for name, here, given in (
        ("providerPid", row.provider_pid, said.provider_pid),
        ("consumerPid", row.consumer_pid, said.consumer_pid),
    ):
        if here != given:
            raise DspMessageError(
                need=f"{name}: {here}, as in the negotiation",
                found=ascii(given)[1:-1][:80],
                remedy="send the pids of this negotiation",
            )


def _same_terms(sent: dict[str, Json], pair: Pair) -> bool:
    """Whether an offer is ours, term by term; the order of rules and constraints means nothing."""
    ours = offer(pair, target=True)
    strange = set(sent) - set(ours) - {"assigner", "assignee"}
    both = {"target": pair.target, **sent}
    return not strange and all(_plain(both.get(name)) == _plain(ours[name]) for name in ours)


def _plain(value: Json) -> Json:
    """A JSON value in which the order of lists means nothing."""
    if isinstance(value, list):
        return sorted((_plain(one) for one in value), key=canonical)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value


def _shown(row: NegotiationRow) -> Negotiation:
    return Negotiation(provider_pid=row.provider_pid, consumer_pid=row.consumer_pid, state=row.state)
