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

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.limits import SECAGG_ROUNDS
from policies.secagg import group_mac, masks
from policies.secagg.asks import (
    AdvertiseAsk,
    ConfirmAsk,
    ContributeAsk,
    OpenAnswer,
    OpenAsk,
    Previous,
    read_adverts,
    read_unmask,
)
from policies.secagg.contexts import NO_NONCE, Context, Frame, Lane, mac_key, mac_offset
from policies.secagg.dealing import Kind
from policies.secagg.documents import Confirmation, VectorHeader, check, is_signed, sign, vectors_root
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    KeyNotPinnedError,
    PartitionBadError,
    RoundBurnedError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    SlotUsedError,
    ViewsDifferError,
)
from policies.secagg.holding import Answers, Holding
from policies.secagg.keystream import mask_lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from policies.identity import SigningKey
    from policies.ports import Entropy
    from policies.secagg.contexts import Teams
    from policies.secagg.terms import Terms

    ExpectedTeams = Callable[[int, Mapping[str, bytes]], Teams]
    """Teams of a round, from each member's nonce reveal (`NO_NONCE` where it is owed), in roster order."""
    Guard = Callable[[Sequence["OpenedSum"], "OpenedSum"], None]
    """Raises if the last sum must not be opened after the others."""

__all__ = ["Masked", "NodeMachine", "OpenedSum", "Slot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An attempt that this node takes part in.

    Attributes:
        round, attempt, base_model: As asked and checked.
        team: Whose sum the update goes into.
        previous: The opened sum that the ask speaks of, for `NodeMachine.check_sum`; None for the first.
    """

    round: int
    attempt: int
    base_model: str
    team: tuple[str, ...]
    previous: Previous | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """What leaves: the masked vector ``uint32 [d]``, the digest of its bytes, and the answer beside it."""

    vector: NDArray[np.uint32]
    digest: str
    answer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSum:
    """What this node helped to open: the online members of each opened team."""

    round: int
    attempt: int
    supports: tuple[tuple[str, ...], ...]


class _Stage(enum.IntEnum):
    ADMITTED = 1
    MASKED = 2
    CONFIRMED = 3
    UNMASKED = 4


@dataclass(slots=True, eq=False)
class _Attempt:
    """The newest slot; all older ones are burned."""

    slot: Slot
    context: Context
    ask: bytes = field(repr=False)
    ctx: bytes
    stage: _Stage = _Stage.ADMITTED
    header: VectorHeader | None = None
    confirmation: Confirmation | None = None
    answers: Answers = field(default_factory=Answers, repr=False)

    @property
    def at(self) -> tuple[int, int]:
        return self.slot.round, self.slot.attempt


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
    ) -> None:
        if terms.member(party).key != key.public:
            raise _refused_key(party)
        self._terms, self._party, self._key, self._entropy = terms, party, key, entropy
        self._expected_teams, self._guard = expected_teams, guard
        self._number = 0
        self._pending: Holding | None = None
        self._present: Holding | None = None
        self._attempt: _Attempt | None = None
        self._opened_round = opened_round
        self._told_for = 0  # newest round that the own nonce was revealed for
        self._opened: deque[OpenedSum] = deque(maxlen=SECAGG_ROUNDS)

    def __repr__(self) -> str:
        return f"<secure aggregation of {self._party} in {self._terms.run}>"

    @property
    def opened(self) -> tuple[OpenedSum, ...]:
        """The newest sums that this node helped to open, oldest first."""
        return tuple(self._opened)

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
        held = Holding.begin(frame, terms=self._terms, party=self._party, entropy=self._entropy)
        self._number, self._pending = frame.number, held
        return held.answers.keep("advertise", ask, held.signed_advert(self._key))

    def share(self, ask: bytes) -> bytes:
        """Shares of the pending setup's secrets, sealed for each advertiser; checks in `Holding.take_adverts`.

        Raises:
            SetupGoneError: No setup waits for it.
            SlotUsedError: Shares were dealt for other adverts.
            KeyNotPinnedError, ContextMismatchError, CohortTooSmallError: As `Holding.take_adverts`.
        """
        held = self._waiting("share", ask)
        if isinstance(held, bytes):
            return held
        held.take_adverts(read_adverts(ask, self._terms), check_crowd=self._check_crowd)
        return held.answers.keep("share", ask, held.deal(self._key, self._entropy))

    def open(self, ask: bytes) -> bytes:
        """The seal of the pending setup, which is then the present one; or who dealt wrong shares.

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
            held.take_shares(OpenAsk.from_bytes(ask, self._terms).packages, check_crowd=self._check_crowd)
        except ShareBadError as error:
            answer = OpenAnswer(liar=held.fail(error))
        else:
            answer = OpenAnswer(seal=held.seal)
            self._present, self._pending = held, None
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
        are the ones that the nonces give; 6. each can keep `Terms.k_open` groups; 7. the sum opened before is
        one of this setup, and as this node saw it.

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
        if self._attempt is not None and self._attempt.ask == ask and self._attempt.stage is _Stage.ADMITTED:
            return self._attempt.slot
        self._check_order(round, attempt)
        held.check_nonces(wanted.nonces, round)
        context = _context(held, wanted)
        self._check_teams(context)
        self._check_crowds(held.members, context.teams)
        self._check_previous(wanted.previous, context)
        slot = Slot(
            round=round,
            attempt=attempt,
            base_model=base_model,
            team=context.team_of(self._party),
            previous=wanted.previous,
        )
        held.forget(held.frame.slot(round, attempt) - 1)
        self._attempt = _Attempt(slot, context, ask, context.digest(self._terms))
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
        held, found = self._newest(slot.round, slot.attempt, _Stage.ADMITTED)
        if found.slot is not slot:
            raise _used("the slot as it was admitted")
        found.stage = _Stage.MASKED
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

        1. the slot is the newest, masked, and no other set was confirmed; 2. the online set is of members and
        large enough; 3. teams to open are of this attempt and keep `Terms.k_open` groups; 4. the own vector is
        in the list as it was sent; 5. each vector is signed by its member in the own context.

        Raises:
            SetupGoneError, RoundBurnedError, SlotUsedError: 1.
            CohortTooSmallError: 2, 3.
            ContextMismatchError: 2, 3, 5.
            ViewsDifferError: 4.
        """
        _, found = self._newest(round, attempt, _Stage.MASKED)
        if (again := found.answers.again("confirm", ask)) is not None:
            return again
        if found.stage is not _Stage.MASKED:
            raise _used("one set confirmed for a slot")
        wanted = ConfirmAsk.from_bytes(ask, self._terms)
        self._check_online(tuple(wanted.online), wanted.opened, found.context)
        headers = [
            VectorHeader(ctx=found.ctx, party=party, digest=one.digest, lane=one.lane)
            for party, one in wanted.online.items()
        ]
        self._check_own_vector(headers, found)
        for header in headers:
            check(header, wanted.online[header.party].signature, party=header.party, terms=self._terms)
        found.confirmation = Confirmation(
            ctx=found.ctx, online=tuple(wanted.online), opened=wanted.opened, root=vectors_root(headers)
        )
        found.stage = _Stage.CONFIRMED
        return found.answers.keep("confirm", ask, sign(found.confirmation, self._key))

    def unmask(self, ask: bytes, *, round: int, attempt: int) -> bytes:  # noqa: A002
        """One share per member of each opened team, and the nonce for the next round; the checks, in this order.

        1. the slot is the newest, confirmed, and was not unmasked for another ask; 2. at least t online
        members signed the bytes that this node signed; 3. the release guard allows it. Then the round is
        burned, the slot's secrets are deleted, and only then is there an answer.

        Raises:
            SetupGoneError, RoundBurnedError: 1.
            ContextMismatchError: Not confirmed by this node.
            ViewsDifferError: 2, a signature over other bytes: an incident.
            CohortTooSmallError: 2, too few.
        """
        held, found = self._newest(round, attempt, _Stage.CONFIRMED)
        if (again := found.answers.again("unmask", ask)) is not None:
            return again
        if found.stage is not _Stage.CONFIRMED or found.confirmation is None:
            raise _burned("one answer to UNMASK in a round", "another ask")
        self._check_confirmed(read_unmask(ask, self._terms), found.confirmation)
        opened = _opened(found)
        if self._guard is not None:
            self._guard(self.opened, opened)
        found.stage, self._opened_round = _Stage.UNMASKED, round
        self._opened.append(opened)
        answer = self._shares(held, found) + self._next_nonce(held, round)
        held.forget(held.frame.slot(round, attempt))
        return found.answers.keep("unmask", ask, answer)

    def check_sum(self, slot: Slot, z: NDArray[np.uint32]) -> None:
        """Returns if ``z`` is the sum that the members' tags of the slot's `Slot.previous` add up to.

        Args:
            slot: From `admit`.
            z: ``uint32 [d]`` beside the ask; of several opened teams their sum.

        Raises:
            SumWrongError: It is not.
            SlotUsedError: A newer slot was admitted.
        """
        if not self._terms.group_mac or slot.previous is None:
            return
        held, found = self._newest(slot.round, slot.attempt, _Stage.ADMITTED)
        ctx = slot.previous.context(found.context).digest(self._terms)
        offset = mac_offset(held.group, seal=held.seal, ctx=ctx) * len(slot.previous.online)
        key = mac_key(held.group, seal=held.seal, ctx=ctx)
        group_mac.check(key, z, (slot.previous.tags - offset) % 2**64)

    # the checks

    def _holding(self, number: int) -> Holding:
        if self._present is None or self._present.frame.number != number:
            raise _gone(f"setup {number} in this process")
        return self._present

    def _newest(self, round: int, attempt: int, least: _Stage) -> tuple[Holding, _Attempt]:  # noqa: A002
        """The newest slot and its setup, if it is this one and has come so far."""
        found, held = self._attempt, self._present
        if found is None or held is None or found.context.setup != held.setup:
            raise _gone("the setup of this slot in this process")
        if found.at > (round, attempt):
            raise _burned("the newest slot", f"round {round}, attempt {attempt}")
        if found.at != (round, attempt) or found.stage < least:
            raise _mismatch("a slot that is ready for this", f"round {round}, attempt {attempt}")
        if least is _Stage.ADMITTED and found.stage is not least:
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

    def _check_crowd(self, parties: Sequence[str]) -> None:
        self._terms.check_open(parties)

    def _check_teams(self, context: Context) -> None:
        """Invariant 4: nobody chooses the teams, and nobody hides a nonce that this node has told."""
        reveals = dict(zip(context.members, context.nonces, strict=True))
        expected: Teams = (context.members,)
        if self._expected_teams is not None:
            if reveals[self._party] == NO_NONCE and context.round <= self._told_for:
                raise _bad_partition("the own nonce, which was revealed", "none")
            expected = self._expected_teams(context.round, reveals)
        if context.teams != expected:
            raise _bad_partition("the teams that the nonces give", "others")

    def _check_crowds(self, online: Sequence[str], teams: Teams) -> None:
        """Enough members online, and enough groups in each of these teams."""
        self._check_crowd(online)
        for team in teams:
            found = len(self._terms.groups(set(team) & set(online)))
            if found < self._terms.k_open:
                raise CohortTooSmallError(
                    need=f"{self._terms.k_open} independent groups in an opened team",
                    found=str(found),
                    remedy="wait for more members, or amend the contract",
                    clause=self._terms.clause,
                )

    def _check_previous(self, previous: Previous | None, context: Context) -> None:
        if previous is None:
            return
        if previous.round >= context.round or not set(previous.online) <= set(context.members):
            raise _mismatch("a sum of members, opened in an earlier round", "another")
        newest = self._attempt
        if newest is None or newest.at != (previous.round, previous.attempt):
            return
        online = tuple(one for team in _opened(newest).supports for one in team)
        same = newest.context == previous.context(context) and sorted(online) == sorted(previous.online)
        if not same and newest.context.setup == context.setup and newest.confirmation is not None:
            raise ViewsDifferError(
                need="the last attempt as this node saw it",
                found="another context",
                remedy="stop, and tell the other members: the broker shows two views",
            )

    def _check_online(self, online: tuple[str, ...], opened: tuple[int, ...], context: Context) -> None:
        if not set(online) <= set(context.members):
            raise _mismatch("members of this setup", "others")
        if not opened or opened[-1] >= len(context.teams):
            raise _mismatch("teams of this attempt", "others, or none")
        self._check_crowds(online, tuple(context.teams[one] for one in opened))

    def _check_own_vector(self, headers: Sequence[VectorHeader], found: _Attempt) -> None:
        if found.header not in headers:
            raise ViewsDifferError(
                need="the own vector as it was sent",
                found="another one, or none",
                remedy="stop, and tell the other members: the broker changes what members send",
            )

    def _check_confirmed(self, signatures: Mapping[str, bytes], confirmation: Confirmation) -> None:
        """Invariant 3: t members of the online set signed what this node signed."""
        if not set(signatures) <= set(confirmation.online):
            raise _mismatch("signatures of online members", "others")
        others = [
            party
            for party, signature in signatures.items()
            if not is_signed(confirmation, signature, self._terms.member(party).key)
        ]
        if others:
            raise ViewsDifferError(
                need="confirmations of the bytes that this node confirmed",
                found="others by " + ", ".join(others),
                remedy="keep this request, it is the evidence; tell the other members",
            )
        if len(signatures) < self._terms.t:
            raise CohortTooSmallError(
                need=f"{self._terms.t} confirmations",
                found=str(len(signatures)),
                remedy="the next attempt",
                clause=self._terms.clause,
            )

    # what leaves

    def _mac_key(self, held: Holding, ctx: bytes) -> bytes | None:
        return mac_key(held.group, seal=held.seal, ctx=ctx) if self._terms.group_mac else None

    def _counts(self, held: Holding, ctx: bytes, tag: int) -> list[int]:
        """The lane beside the vector: one, the weight, the tag."""
        offset = mac_offset(held.group, seal=held.seal, ctx=ctx) if self._terms.group_mac else 0
        return [1, self._terms.weights[held.position - 1], (tag + offset) % 2**64]

    def _shares(self, held: Holding, found: _Attempt) -> bytes:
        """Of b for who is online, of s for who is not; nothing for a team that stays closed."""
        slot, (online, opened) = held.frame.slot(*found.at), _sets(found)
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
        members=held.members,
        teams=wanted.teams,
        nonces=wanted.nonces,
    )


def _sets(found: _Attempt) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if found.confirmation is None:
        return (), ()
    return found.confirmation.online, found.confirmation.opened


def _opened(found: _Attempt) -> OpenedSum:
    online, opened = _sets(found)
    supports = (tuple(one for one in found.context.teams[number] if one in online) for number in opened)
    return OpenedSum(round=found.slot.round, attempt=found.slot.attempt, supports=tuple(supports))


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


def _bad_partition(need: str, found: str) -> PartitionBadError:
    return PartitionBadError(
        need=need, found=found, remedy="tell the other members: the broker chooses teams"
    )


def _refused_key(party: str) -> SecaggError:
    return KeyNotPinnedError(
        need=f"the key that the contract pins for {party}",
        found="this node's key",
        remedy="amend the contract with the new key",
    )
