# SPDX-License-Identifier: Apache-2.0
"""The node's side of secure aggregation: one machine per run, in the worker's memory, without I/O.

Invariants, which every check below serves:

1. Keys, thresholds, groups, norm bound, weights and ring come from `Terms`, which the node made of contract
   and recipe. A message that names one of them is refused: it is another message.
2. One slot masks one vector, ever. It counts as used before the first byte is masked.
3. For each peer of a slot at most one of {share of b, share of s} is revealed, once, for one online set that
   at least t members signed.
4. Nothing is revealed for a team with fewer than `Terms.k_open` groups among the survivors.
5. A round in which this node answered UNMASK takes no other attempt; rounds go strictly forward.
6. Two views of anything give another context: masks that do not cancel, or a refused signature.
7. What was opened before goes to the release guard first (``guard``), before anything is revealed.
8. The sum is a function of signed bytes: what was revealed is in the transcript.

2, 3 and 5 outlive a setup: they are kept by the machine. Nothing outlives the process: keys that are only in
memory cannot be used twice from a restored disk. What a process before this one may have opened is told by
``opened_round``: no attempt of that round or an earlier one is taken.

Order of calls; the same bytes asked again give the same answer, and other bytes are refused:

    setup   advertise → share → open                 a pending setup takes the present one's place once opened
    slot    admit → mask → confirm → unmask          a newer slot burns all older ones

A machine keeps at most two setups, the present and a pending one, however many are asked for.

    machine = NodeMachine(terms, "kita", key=key, entropy=entropy)
    slot = machine.admit(ask, round=1, attempt=1, base_model=digest)
    masked = machine.mask(slot, update)
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from policies.limits import SECAGG_ROUNDS
from policies.secagg import masks
from policies.secagg.asks import (
    AdvertiseAsk,
    ConfirmAsk,
    ContributeAsk,
    OpenAnswer,
    OpenAsk,
    read_adverts,
    read_unmask,
)
from policies.secagg.contexts import NO_NONCE, Context, Frame, Lane, mac_key, mac_offset
from policies.secagg.dealing import Kind
from policies.secagg.documents import Confirmation, VectorHeader, check, sign, vectors_root
from policies.secagg.errors import (
    ContextMismatchError,
    KeyNotPinnedError,
    RoundBurnedError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    SlotUsedError,
)
from policies.secagg.holding import Holding
from policies.secagg.keystream import mask_lane
from policies.secagg.rules import Rules
from policies.secagg.slots import Masked, OpenedSum, Slot, SlotState, Stage
from policies.secagg.sum_keys import SumKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from policies.identity import SigningKey
    from policies.ports import Entropy
    from policies.secagg.rules import ExpectedTeams
    from policies.secagg.terms import Terms

    Guard = Callable[[Sequence["OpenedSum"], "OpenedSum"], None]
    """Raises if the last sum must not be opened after the others."""

__all__ = ["Masked", "NodeMachine", "OpenedSum", "Slot"]


class NodeMachine:
    """A node in one run.

    Args:
        terms: Of the run.
        party: The own name in the contract.
        key: That the contract pins for it.
        entropy: The operating system's, in a real process.
        expected_teams: Computes the teams that a round's nonces give; None where the contract has no probe
            rounds: one team then, everybody.
        guard: The release guard; None where only one sum of a round can be opened.
        opened_round: The newest round that this party may have helped to open before this process began.
        sum_keys: Of an earlier contract's machine in the same run.
    """

    def __init__(
        self,
        terms: Terms,
        party: str,
        *,
        key: SigningKey,
        entropy: Entropy,
        expected_teams: ExpectedTeams | None = None,
        guard: Guard | None = None,
        opened_round: int = 0,
        sum_keys: SumKeys | None = None,
    ) -> None:
        if terms.member(party).key != key.public:
            raise _refused_key(party)
        self._terms, self._party, self._key, self._entropy = terms, party, key, entropy
        self._guard = guard
        self._rules = Rules(terms, party, expected_teams=expected_teams)
        self._number = 0
        self._pending: Holding | None = None
        self._present: Holding | None = None
        self._attempt: SlotState | None = None
        self._opened_round = opened_round
        self.sum_keys = sum_keys or SumKeys()
        self._told_for = 0  # newest round that the own nonce was revealed for
        self._opened: deque[OpenedSum] = deque(maxlen=SECAGG_ROUNDS)

    def __repr__(self) -> str:
        return f"<secure aggregation of {self._party} in {self._terms.run}>"

    @property
    def opened(self) -> tuple[OpenedSum, ...]:
        """The newest sums that this node helped to open, oldest first."""
        return tuple(self._opened)

    @property
    def witnessed(self) -> int:
        """A round before the present setup that t members confirmed, by what its members signed; 0: none.

        Of ``max_colluders + 1`` members that say they helped to open it or a later one, one at least is
        honest; and an honest one helps nobody to open what fewer than t confirmed.
        """
        held = self._present
        told = sorted((held.adverts[one].opened for one in held.members), reverse=True) if held else []
        return told[self._terms.max_colluders] if len(told) > self._terms.max_colluders else 0

    # setup

    def advertise(self, ask: bytes) -> bytes:
        """Fresh keys for a setup, signed.

        Raises:
            ContextMismatchError: No setup of this run, or not a newer one.
        """
        for held in (self._pending, self._present):
            if held is not None and (again := held.answers.again("advertise", ask)) is not None:
                return again
        wanted = AdvertiseAsk.from_bytes(ask)
        frame = Frame.of(
            self._terms, number=wanted.number, first_round=wanted.first_round, rounds=wanted.rounds
        )
        if frame.number <= self._number:
            raise _mismatch(f"a setup after number {self._number}", f"number {frame.number}")
        held = Holding.begin(
            frame,
            terms=self._terms,
            party=self._party,
            entropy=self._entropy,
            opened=self._opened_round,
        )
        self._number, self._pending = frame.number, held
        return held.answers.keep("advertise", ask, held.signed_advert(self._key))

    def share(self, ask: bytes) -> bytes:
        """Shares of the pending setup's secrets, sealed for each advertiser.

        The checks are those of `Holding.take_adverts`.

        Raises:
            SetupGoneError: No setup waits for it.
            SlotUsedError: Shares were dealt for other adverts.
            KeyNotPinnedError, ContextMismatchError, CohortTooSmallError: As `Holding.take_adverts`.
        """
        held = self._waiting("share", ask)
        if isinstance(held, bytes):
            return held
        held.take_adverts(read_adverts(ask, self._terms), check_crowd=self._rules.check_crowd)
        return held.answers.keep("share", ask, held.deal(self._key, self._entropy))

    def open(self, ask: bytes) -> bytes:
        """The seal of the pending setup, which is then the present one; or who dealt wrong shares, proved.

        Before it complains, the setup is over here: none of its slots is ever used.

        Raises:
            SetupGoneError: No setup waits for it.
            KeyNotPinnedError, ContextMismatchError, CohortTooSmallError: As `Holding.take_shares`.
        """
        held = self._waiting("open", ask)
        if isinstance(held, bytes):
            return held
        if not held.answers.given("share"):
            raise _gone("shares of a setup that were dealt")
        try:
            held.take_shares(
                OpenAsk.from_bytes(ask, self._terms).packages, check_crowd=self._rules.check_crowd
            )
        except ShareBadError as error:
            liar, proof = held.fail(error)
            answer = OpenAnswer(liar=liar, proof=proof)
        else:
            answer = OpenAnswer(seal=held.seal)
            self._present, self._pending = held, None
            self.sum_keys.keep(held, self._terms)
            self._told_for = held.frame.first_round
        return held.answers.keep("open", ask, answer.to_bytes(self._terms))

    def _waiting(self, kind: str, ask: bytes) -> Holding | bytes:
        """The pending setup, or the answer that the same bytes had."""
        for held in (self._pending, self._present):
            if held is not None and (again := held.answers.again(kind, ask)) is not None:
                return again
        if self._pending is None or self._pending.failed:
            raise _gone("a setup that was advertised by this process")
        if self._pending.answers.given(kind):
            raise SlotUsedError(
                need="what was asked before", found=f"another {kind}", remedy="run a new setup"
            )
        return self._pending

    # a round

    def admit(self, ask: bytes, *, round: int, attempt: int, base_model: str) -> Slot:  # noqa: A002
        """Everything that can be refused before a node trains for an attempt; the checks, in this order.

        1. the setup is the present one and has the slot; 2. the ask is about this round, attempt and model;
        3. no round or slot is taken twice or backwards; 4. nonces are links of the members' chains; 5. teams
        are the ones that the nonces give; 6. each can keep `Terms.k_open` groups; 7. the sums that are
        shown are of their setups' members, and as this node saw them.

        Raises:
            SetupGoneError: 1.
            ContextMismatchError: 2, 4, 7.
            RoundBurnedError, SlotUsedError: 3.
            PartitionBadError: 5.
            CohortTooSmallError: 6.
            ViewsDifferError: 7.
        """
        wanted = ContributeAsk.from_bytes(ask, self._terms)
        held = self._holding(wanted.number)
        held.frame.slot(wanted.round, wanted.attempt)
        if (wanted.round, wanted.attempt, wanted.base_model) != (round, attempt, base_model):
            raise _mismatch(f"round {round}, attempt {attempt} and its model", "others")
        if self._attempt is not None and self._attempt.ask == ask and self._attempt.stage is Stage.ADMITTED:
            return self._attempt.slot
        self._check_order(round, attempt)
        held.check_nonces(wanted.nonces, round)
        context = _context(held, wanted)
        self._rules.check_teams(context, told_for=self._told_for)
        self._rules.check_crowds(held.members, context.teams)
        self._rules.check_shown(wanted.shown, round, self.sum_keys, self._attempt)
        slot = Slot(
            round=round,
            attempt=attempt,
            base_model=base_model,
            team=context.team_of(self._party),
            server=wanted.server,
            shown=wanted.shown,
            resume=wanted.resume,
        )
        held.forget(held.frame.slot(round, attempt) - 1)
        self._attempt = SlotState(slot, context, ask, context.digest(self._terms))
        return slot

    def mask(self, slot: Slot, values: NDArray[Any]) -> Masked:
        """The update under the masks of its slot, which is used from here on, whatever happens.

        Args:
            slot: From `admit`.
            values: float32 ``[d]`` of `policies.secagg.ring.check_update`, or int64 grid values ``[d]``.

        Raises:
            SlotUsedError: It was used, or a newer one was admitted.
            UpdateUnfitError: The update does not fit the ring.
        """
        held, found = self._newest(slot.round, slot.attempt, Stage.ADMITTED)
        if found.slot is not slot:
            raise _used("the slot as it was admitted")
        found.stage = Stage.MASKED
        secrets = held.take_slot(held.frame.slot(slot.round, slot.attempt))
        keys = held.mask_keys(secrets, found.context, Lane.VECTOR)
        key = self._mac_key(held, found.ctx)
        vector, digest, tag = masks.mask(values, keys, terms=self._terms, party=self._party, mac_key=key)
        lane = mask_lane(
            self._counts(held, found.ctx, tag), held.mask_keys(secrets, found.context, Lane.COUNTS)
        )
        found.header = VectorHeader(ctx=found.ctx, party=self._party, digest=digest, lane=lane)
        return Masked(vector=vector, digest=digest, answer=lane + sign(found.header, self._key))

    def confirm(self, ask: bytes, *, round: int, attempt: int) -> bytes:  # noqa: A002
        """This node's signature over the one set of vectors that may be opened; the checks, in this order.

        1. the slot is the newest, masked, and no other set was confirmed; 2. the online set is of members
        and large enough; 3. teams to open are of this attempt and keep `Terms.k_open` groups; 4. the own
        vector is in the list as it was sent; 5. each vector is signed by its member in the own context.

        Raises:
            SetupGoneError, RoundBurnedError, SlotUsedError: 1.
            CohortTooSmallError: 2, 3.
            ContextMismatchError: 2, 3, 5.
            ViewsDifferError: 4.
        """
        _, found = self._newest(round, attempt, Stage.MASKED)
        if (again := found.answers.again("confirm", ask)) is not None:
            return again
        if found.stage is not Stage.MASKED:
            raise _used("one set confirmed for a slot")
        wanted = ConfirmAsk.from_bytes(ask, self._terms)
        self._rules.check_online(tuple(wanted.online), wanted.opened, found.context)
        headers = [
            VectorHeader(ctx=found.ctx, party=party, digest=one.digest, lane=one.lane)
            for party, one in wanted.online.items()
        ]
        self._rules.check_own_vector(headers, found.header)
        for header in headers:
            check(header, wanted.online[header.party].signature, party=header.party, terms=self._terms)
        found.confirmation = Confirmation(
            ctx=found.ctx, online=tuple(wanted.online), opened=wanted.opened, root=vectors_root(headers)
        )
        found.stage, self.sum_keys.confirmed = Stage.CONFIRMED, round
        return found.answers.keep("confirm", ask, sign(found.confirmation, self._key))

    def unmask(self, ask: bytes, *, round: int, attempt: int) -> bytes:  # noqa: A002
        """One share per member of each opened team, and the next nonce; the checks, in this order.

        1. the slot is the newest, confirmed, and was not unmasked for another ask; 2. at least t online
        members signed the bytes that this node signed; 3. the release guard allows it. Then the round is
        burned, the slot's secrets are deleted, and only then is there an answer.

        Raises:
            SetupGoneError, RoundBurnedError: 1.
            ContextMismatchError: Not confirmed by this node.
            ViewsDifferError: 2, a signature over other bytes: an incident.
            CohortTooSmallError: 2, too few.
        """
        held, found = self._newest(round, attempt, Stage.CONFIRMED)
        if (again := found.answers.again("unmask", ask)) is not None:
            return again
        if found.stage is not Stage.CONFIRMED or found.confirmation is None:
            raise _burned("one answer to UNMASK in a round", "another ask")
        self._rules.check_confirmed(read_unmask(ask, self._terms), found.confirmation)
        opened = found.opened()
        if self._guard is not None:
            self._guard(self.opened, opened)
        found.stage, self._opened_round = Stage.UNMASKED, round
        self._opened.append(opened)
        answer = self._shares(held, found) + self._next_nonce(held, round)
        held.forget(held.frame.slot(round, attempt))
        return found.answers.keep("unmask", ask, answer)

    def check_sums(self, slot: Slot, sums: Sequence[NDArray[np.uint32]]) -> tuple[Terms | None, ...]:
        """Looks at the members' tags of the sums that are shown beside an ask.

        Args:
            slot: From `admit`.
            sums: For each of `Slot.shown`, ``uint32``: ``[d]`` of each opened team, one behind the other.

        Returns:
            For each the terms of its setup; None where this node was no member of that, and cannot tell.

        Raises:
            SumWrongError: One is not the sum that the members' tags add up to.
        """
        if not self._terms.group_mac:
            return (None,) * len(slot.shown)
        return tuple(
            self.sum_keys.check(said, list(z.reshape(len(said.opened), -1)))
            for said, z in zip(slot.shown, sums, strict=True)
        )

    # where it stands

    def _holding(self, number: int) -> Holding:
        if self._present is None or self._present.frame.number != number:
            raise _gone(f"setup {number} in this process")
        return self._present

    def _newest(self, round: int, attempt: int, least: Stage) -> tuple[Holding, SlotState]:  # noqa: A002
        """The newest slot and its setup, if it is this one and has come so far."""
        found, held = self._attempt, self._present
        if found is None or held is None or found.context.setup != held.setup:
            raise _gone("the setup of this slot in this process")
        if found.at > (round, attempt):
            raise _burned("the newest slot", f"round {round}, attempt {attempt}")
        if found.at != (round, attempt) or found.stage < least:
            raise _mismatch("a slot that is ready for this", f"round {round}, attempt {attempt}")
        if least is Stage.ADMITTED and found.stage is not least:
            raise _used("a slot that masks one vector")
        return held, found

    def _check_order(self, round: int, attempt: int) -> None:  # noqa: A002
        """Invariants 2 and 5."""
        if round <= self._opened_round:
            raise _burned(f"a round after {self._opened_round}", f"round {round}")
        if self._attempt is not None and self._attempt.at >= (round, attempt):
            if self._attempt.slot.round > round:
                raise _burned(f"a round from {self._attempt.slot.round} on", f"round {round}")
            raise _used(f"an attempt after {self._attempt.slot.attempt}")

    # what leaves

    def _mac_key(self, held: Holding, ctx: bytes) -> bytes | None:
        return mac_key(held.group, seal=held.seal, ctx=ctx) if self._terms.group_mac else None

    def _counts(self, held: Holding, ctx: bytes, tag: int) -> list[int]:
        """The lane beside the vector: one, the weight, the tag."""
        offset = mac_offset(held.group, seal=held.seal, ctx=ctx) if self._terms.group_mac else 0
        return [1, self._terms.weights[held.position - 1], (tag + offset) % 2**64]

    def _shares(self, held: Holding, found: SlotState) -> bytes:
        """Of b for who is online, of s for who is not; nothing for a team that stays closed."""
        slot, (online, opened) = held.frame.slot(*found.at), found.sets
        return b"".join(
            held.share(slot, peer, Kind.OWN if peer in online else Kind.PAIR)
            for number in opened
            for peer in found.context.teams[number]
        )

    def _next_nonce(self, held: Holding, round: int) -> bytes:  # noqa: A002
        if not held.frame.covers(round + 1):
            return NO_NONCE
        self._told_for = round + 1
        return held.keys.nonce(held.frame, round + 1)


def _context(held: Holding, wanted: ContributeAsk) -> Context:
    return Context(
        setup=held.setup,
        seal=held.seal,
        round=wanted.round,
        attempt=wanted.attempt,
        base_model=wanted.base_model,
        server=wanted.server,
        members=held.members,
        teams=wanted.teams,
        nonces=wanted.nonces,
    )


def _mismatch(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need, found=found, remedy="compare the digests of both sides; usually an old message"
    )


def _gone(need: str) -> SetupGoneError:
    return SetupGoneError(need=need, found="none", remedy="run a new setup")


def _used(need: str) -> SlotUsedError:
    return SlotUsedError(need=need, found="a second one", remedy="the next attempt or round")


def _burned(need: str, found: str) -> RoundBurnedError:
    return RoundBurnedError(need=need, found=found, remedy="the next round")


def _refused_key(party: str) -> SecaggError:
    return KeyNotPinnedError(
        need=f"the key that the contract pins for {party}",
        found="this node's key",
        remedy="amend the contract with the new key",
    )
