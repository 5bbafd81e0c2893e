# SPDX-License-Identifier: Apache-2.0
"""One attempt under secure aggregation: what is asked in it, and how its sum is opened, or not.

After the masked vectors are there (`broker.federation.collecting` asks, `SecureAttempt.take` adds each):

1. CONFIRM: the online set is fixed; who is in it signs it. ``need`` is t; fewer: the attempt is abandoned,
   and the next one has keys of its own;
2. what is about to be opened is written down, durably: from here on the round has no further attempt;
3. UNMASK: ``need`` is t again; fewer: the round is lost;
4. masks come off; the number of vectors must be what it can be; the transcript is on the disk before the
   model is in the log. What becomes of the sums is `broker.federation.secure.teams`.

In a probe (`policies.secagg.probes`) each team has its own sum, all under one confirmation. A team that kept
fewer groups than a sum takes stays closed.

A vector is taken only if its member names the sum that it was shown beside the model, and no other
(``checked`` of its submission), and if the log would take what it signed: once a sum is opened, nobody can be
left out of it. A broker that starts again asks the same attempt again and is given the same bytes;
if members were asked to unmask before, it is about the same online set, or the round is lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from broker.federation.checkpoints import model_bytes
from broker.federation.collecting import Errand
from broker.federation.secure.earlier import Earlier
from broker.federation.secure.files import Unmasking
from broker.federation.secure.sums import MaskedSum, apart_from_loop
from broker.federation.secure.teams import Sums, TeamSum
from policies.encoding import b64, unb64
from policies.errors import EncodingError, invariant
from policies.exchange import ExchangeType
from policies.secagg.collector import Attempt
from policies.secagg.errors import ContextMismatchError, SecaggError, SumWrongError, VectorLateError
from policies.secagg.opening import OpenedSum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from broker.federation.engine import EngineRun, Reply
    from broker.federation.participants import Participant
    from broker.federation.records import Received
    from broker.federation.replies import NodeReply
    from broker.federation.secure.rounds import SecureRounds
    from broker.federation.secure.shown import Base
    from broker.federation.secure.talk import Heard
    from policies.encoding import Json
    from policies.secagg.asks import Previous
    from policies.secagg.collector import Setup

__all__ = ["SecureAttempt"]


class SecureAttempt:
    """One attempt of one round.

    Attributes:
        slot: Round and attempt.
        setup: Whose keys mask it; None: nobody can be asked.
        errand: What is asked.
        vectors: Party → digest of its vector, of those in the sum.
        unmasked: Members were asked to unmask.
        offenders: Party → code, of those that answered CONFIRM or UNMASK wrongly, or dealt wrong shares.
        holds: The sum was opened, and nothing about it is wrong that the broker can see.
        shown: The opened sum that members are shown beside the model; None: none.
    """

    def __init__(
        self,
        rounds: SecureRounds,
        slot: tuple[int, int],
        setup: Setup | None,
        *,
        apart: Mapping[str, Received],
        before: Unmasking | None,
        base: Base,
    ) -> None:
        self._rounds = rounds
        self._before = before
        self._sums: list[MaskedSum] = []
        self._checked: dict[str, object] | None = None
        self._sent_along: set[str] = set()
        self.shown: Previous | None = None
        self.holds = False
        self._attempt: Attempt | None = None
        self.slot = slot
        self.setup = setup
        self.unmasked = before is not None
        self.vectors: dict[str, str] = {}
        self.offenders: dict[str, str] = {}
        self.errand = Errand(type=ExchangeType.SA_CONTRIBUTE, tensor=b"", apart=apart, masked=self)
        if setup is not None:
            self.errand = self._asked(setup, base, apart)

    def _asked(self, setup: Setup, base: Base, apart: Mapping[str, Received]) -> Errand:
        terms, number = self._rounds.terms, self.slot[0]
        self._attempt = Attempt(
            setup,
            round=number,
            attempt=self.slot[1],
            base_model=base.model,
            server=base.server,
            teams=self._rounds.teams(setup, number),
        )
        self._sums = [MaskedSum(terms, self._rounds.vectors) for _ in self._attempt.context.teams]
        errand = Errand(
            type=ExchangeType.SA_CONTRIBUTE,
            tensor=model_bytes(base.checkpoint.weights),
            dtype="uint32" if terms.group_mac else "float32",
            body={"ask": b64(self._attempt.contribute_ask())},
            apart=apart,
            masked=self,
        )
        earlier = self._rounds.shown.newest(number) if terms.group_mac else None
        if earlier is None:
            return errand
        self.shown, self._checked = earlier.said, earlier.checked()
        return replace(errand, own=self._own(setup, base, errand.tensor))

    def _own(self, setup: Setup, base: Base, model: bytes) -> dict[str, tuple[bytes, Mapping[str, Json]]]:
        """What each member is asked with; in the normal case the same bytes, made once."""
        found: dict[str, tuple[bytes, Mapping[str, Json]]] = {}
        made: dict[tuple[object, ...], tuple[bytes, Mapping[str, Json]]] = {}
        for party in setup.members:
            beside = self._rounds.shown.beside(party, self.slot[0], setup.number, base)
            if beside.resume is not None:
                self._sent_along.add(party)
            key = (*(one.at for one in beside.said), beside.resume)
            if key not in made:
                ask = self._begun.contribute_ask(beside.said, beside.resume)
                made[key] = model + beside.tensor, {"ask": b64(ask)}
            found[party] = made[key]
        return found

    @property
    def followed(self) -> set[str]:
        """Members that trained after a model was sent along to them."""
        return self._sent_along & self.vectors.keys()

    @property
    def _begun(self) -> Attempt:
        invariant(self._attempt is not None, "a setup behind what is asked")
        assert self._attempt is not None  # noqa: S101  for the type checker
        return self._attempt

    async def take(self, sender: Participant, outcome: Reply, reply: NodeReply) -> None:
        """Takes a masked vector into the sum; implements `broker.federation.receiving.Masked`.

        Raises:
            SecaggError: It is not what its member must send.
            EnvelopesRefusedError: The log does not take what the member signed beside it.
        """
        tensor, answer = outcome.tensor, _answer(outcome)
        if tensor is None:
            raise _unanswered()
        self._check_named(reply)
        named = tensor.spec.digest
        if self._before is not None and self._before.online.get(sender.party) != named:
            raise VectorLateError(
                need="a vector before members were asked to confirm",
                found="a later one",
                remedy="nothing: the next round takes it in",
                offender=sender.party,
            )
        await self._rounds.check_log(sender, reply, self.slot)
        self._begun.vector(sender.party, answer, named)
        teams = self._begun.context.teams
        mine = next(number for number, team in enumerate(teams) if sender.party in team)
        await self._sums[mine].add(tensor)
        self.vectors[sender.party] = named

    def _check_named(self, reply: NodeReply) -> None:
        """A member names the newest sum; one that was no member of that sum's setup cannot, and names none.

        Raises:
            ContextMismatchError: It is not so.
        """
        told = None if reply.submission is None else reply.submission.payload["body"].get("checked")
        of_this_setup = self.shown is not None and self.shown.setup == self._begun.setup.number
        if reply.submission is None or told not in (
            [self._checked] if of_this_setup else [self._checked, None]
        ):
            raise _unnamed()

    async def open(
        self, engine_run: EngineRun, cohort: Sequence[Participant], lap: Callable[[str], None]
    ) -> Sums | None:
        """Confirms, unmasks and opens the sums of the vectors that are there.

        Args:
            engine_run: Of the engine.
            cohort: Of the attempt.
            lap: Notes how long a phase took.

        Returns:
            The sums; None if they were not opened. `unmasked` says whether the round is lost.
        """
        online = tuple(one for one in cohort if one.party in self.vectors)
        if self._before is not None and self._before.online != self.vectors:
            return None
        try:
            if not await self._confirmed(engine_run, online, lap):
                return None
            if not await self._unmasked(engine_run, online, lap):
                return None
            return await self._summed()
        except SecaggError as error:
            self.not_used(error)
            return None

    def not_used(self, error: SecaggError) -> None:
        """Blames whom an error names, or doubts all whose vectors are in it; says that no sum is used."""
        if error.offender is not None:
            self._blame({error.offender: error.code})
        self.holds = False
        if error.offender is None and isinstance(error, SumWrongError):
            self._rounds.setups.failed(self._begun.online)
        self._note("secagg.not-opened", code=error.code, party=error.offender or "")

    async def _confirmed(
        self, engine_run: EngineRun, online: Sequence[Participant], lap: Callable[[str], None]
    ) -> bool:
        """Whether t members signed the online set, and it may still be opened."""
        attempt, before, late = self._begun, self._before, dict[str, bytes]()

        def hear(party: str, answer: bytes) -> None:
            if before is None or party in before.confirmed:
                attempt.confirmed(party, answer)
            else:
                late[party] = answer

        need = self._rounds.terms.t if before is None else 0  # again: in the same bytes, of the same signers
        asks = dict.fromkeys(online, attempt.confirm_ask())
        heard = await self._exchange(engine_run, ExchangeType.SA_CONFIRM, asks, hear, need)
        for party, answer in late.items():
            if not attempt.enough_confirmed:
                attempt.confirmed(party, answer)
        lap("confirm_ms")
        if not attempt.enough_confirmed or self._rounds.halted:
            self._note("secagg.not-confirmed", confirmed=len(heard.good))
            return False
        self._check_guard()
        if before is None:
            self._begin_unmasking(heard.good)
        return True

    def _check_guard(self) -> None:
        """The rank rule, before anybody is asked to unmask: the sums of a round are of one attempt.

        Raises:
            CohortTooSmallError: They would give away a sum over too few groups.
        """
        attempt = self._begun
        supports = tuple(
            tuple(one for one in attempt.context.teams[number] if one in attempt.online)
            for number in attempt.opened_teams
        )
        opened = OpenedSum(round=self.slot[0], attempt=self.slot[1], supports=supports)
        self._rounds.guard((), opened)

    def _begin_unmasking(self, confirmed: Collection[str]) -> None:
        invariant(self.setup is not None, "a setup behind what is unmasked")
        self._rounds.files.begin_unmasking(
            Unmasking(
                slot=self.slot,
                setup=0 if self.setup is None else self.setup.number,
                online=dict(self.vectors),
                confirmed=tuple(sorted(confirmed)),
            )
        )
        self.unmasked = True

    async def _unmasked(
        self, engine_run: EngineRun, online: Sequence[Participant], lap: Callable[[str], None]
    ) -> bool:
        """Whether t members gave their shares. All are asked: an answer to CONFIRM may have been late."""
        attempt, terms = self._begun, self._rounds.terms
        asks = dict.fromkeys(online, attempt.unmask_ask())
        # where the next round may be a probe its teams follow from everybody's nonce, which comes with it
        need = 0 if self._rounds.may_probe(self.slot[0] + 1) else terms.t
        heard = await self._exchange(engine_run, ExchangeType.SA_UNMASK, asks, attempt.unmasked, need)
        self._rounds.setups.keep_nonces(self.slot[0] + 1)
        lap("unmask_ms")
        if not attempt.enough_unmasked:
            self._note("secagg.not-unmasked", unmasked=len(heard.good))
        return attempt.enough_unmasked

    async def _exchange(
        self,
        engine_run: EngineRun,
        kind: ExchangeType,
        asks: Mapping[Participant, bytes],
        hear: Callable[[str, bytes], None],
        need: int,
    ) -> Heard:
        heard = await self._rounds.talk.exchange(engine_run, kind, self.slot, asks, hear, need=need)
        self._blame(heard.offenders)
        return heard

    async def _summed(self) -> Sums:
        """The opened sums, once everything about them that can be checked holds.

        Raises:
            ShareBadError: A dealer's shares do not give what it advertised.
            SumWrongError: Counts are not what they can be.
        """
        rounds, terms, attempt = self._rounds, self._rounds.terms, self._begun
        teams = [await self._team(number) for number in attempt.opened_teams]
        opened = attempt.finish(*(one.digest for one in teams))
        data = opened.transcript
        kept = await apart_from_loop(lambda: rounds.transcripts.save(data), len(data))
        if terms.group_mac:
            z = b"".join(one.z.astype("<u4").tobytes() for one in teams)
            rounds.shown.keep(Earlier(said=opened.previous(), z=z))
        self.holds = True
        return Sums(teams=tuple(teams), transcript=kept, terms=terms, noise_std=rounds.noise_std)

    async def _team(self, number: int) -> TeamSum:
        attempt = self._begun
        z, named = await self._sums[number].opened(attempt.remove(number))
        parties = tuple(sorted(set(attempt.context.teams[number]) & set(attempt.online)))
        return TeamSum(number=number, parties=parties, z=z, digest=named)

    def _blame(self, offenders: Mapping[str, str]) -> None:
        self.offenders |= offenders
        self._rounds.setups.blame(offenders)

    def _note(self, event: str, **facts: object) -> None:
        run, (number, attempt) = self._rounds.run, self.slot
        self._rounds.journal.note(event, run=run, round=number, attempt=attempt, **facts)


def _answer(outcome: Reply) -> bytes:
    try:
        return unb64(outcome.header.body["answer"])
    except (KeyError, TypeError, EncodingError) as error:
        raise _unanswered() from error


def _unnamed() -> ContextMismatchError:
    return ContextMismatchError(
        need="a submission that names the sum that was shown, as checked",
        found="another",
        remedy="update the node",
    )


def _unanswered() -> ContextMismatchError:
    return ContextMismatchError(
        need="a masked vector and what its member signed about it", found="none", remedy="update the node"
    )
