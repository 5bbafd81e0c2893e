# SPDX-License-Identifier: Apache-2.0
"""One attempt under secure aggregation: what is asked in it, and how its sum is opened, or not.

After the masked vectors are there (`broker.federation.collecting` asks, `SecureAttempt.take` adds each):

1. CONFIRM: the online set is fixed; who is in it signs it. ``need`` is t; fewer: the attempt is abandoned, and
   the next one has keys of its own;
2. what is about to be opened is written down, durably: from here on the round has no further attempt;
3. UNMASK: ``need`` is t again; fewer: the round is lost;
4. masks come off; the number of vectors, and the norm of the mean, must be what they can be; the transcript is
   on the disk before the model is in the log.

A vector is taken only if the log would take what its member signed beside it: once a sum is opened, nobody can be
left out of it. A broker that starts again asks the same attempt again and is given the same bytes; if members were
asked to unmask before, it is about the same online set, or the round is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from broker.federation.checkpoints import model_digest
from broker.federation.collecting import Errand
from broker.federation.envelopes import add_envelopes
from broker.federation.secure.files import Files, Transcripts, Unmasking
from broker.federation.secure.setups import Setups
from broker.federation.secure.sums import MaskedSum, apart
from broker.federation.secure.talk import Talk
from broker.federation.secure.vectors import Vectors, sweep
from policies.encoding import b64, unb64
from policies.errors import EncodingError
from policies.exchange import ExchangeType
from policies.robustness.norms import norm_test, rounding_room
from policies.secagg.agreed import agreed_terms
from policies.secagg.collector import Attempt, Opened
from policies.secagg.errors import ContextMismatchError, SecaggError, SumWrongError
from policies.secagg.ring import mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from broker.federation.asking import Asking
    from broker.federation.books import Books
    from broker.federation.engine import EngineRun, Reply
    from broker.federation.participants import Participant
    from broker.federation.records import Opening, Received
    from broker.federation.replies import NodeReply
    from broker.federation.standing import Standing
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe
    from policies.secagg.collector import Setup

__all__ = ["SecureAttempt", "SecureRounds", "Summed"]

_SUM_HEAD: Final = 4  # bytes before the facts of an opened sum, its length


class VectorLateError(SecaggError):
    """A vector that came after the online set was shown to members."""

    code = "round-closed"


class _TriedError(Exception):
    """Takes a transaction back that was only tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """An opened sum.

    Attributes:
        online: Parties whose vectors are in it, sorted.
        aggregate: Digest of the ring sum's bytes.
        transcript: Digest of the transcript, which is on the disk.
        mean: ``[d]``, weighted mean of their updates.
    """

    online: tuple[str, ...]
    aggregate: str
    transcript: str
    mean: npt.NDArray[np.float64]


class SecureRounds:
    """The secure side of one run."""

    def __init__(
        self,
        tools: Tools,
        run: str,
        contract: Contract,
        recipe: Recipe,
        *,
        asking: Asking,
        standing: Standing,
        books: Books,
    ) -> None:
        self.tools = tools
        self.run = run
        self.contract = contract
        self.books = books
        self.standing = standing
        self.terms = agreed_terms(contract, recipe.canonical, run=run)
        self.files = Files(tools.settings.dir, run)
        self.transcripts = Transcripts(tools.settings.dir)
        self.vectors = Vectors(tools.settings.dir, run, contract, tools.clock)
        self.talk = Talk(tools, run, contract, asking=asking, standing=standing)
        self.setups = Setups(run, self.terms, talk=self.talk, files=self.files, journal=tools.journal)

    async def begin(
        self,
        engine_run: EngineRun,
        opening: Opening,
        weights: npt.NDArray[np.floating],
        barred: Collection[str],
    ) -> SecureAttempt:
        """The attempt, with a setup that covers it if there can be one."""
        slot = opening.round, opening.attempt
        asked = tuple(one for one in opening.cohort if one.node not in barred)
        before = self.files.unmasking(slot)
        if before is None:
            setup = await self.setups.ready(engine_run, opening.round, asked)
        else:
            setup = self.setups.kept(before.setup)
        return SecureAttempt(self, slot, setup, before, weights)

    def settled(self, attempt: SecureAttempt, received: Mapping[str, Received]) -> None:
        """Learns from an attempt who has no keys and who was away; deletes vectors whose time is over."""
        gone = [party for party, one in received.items() if one.reason == "secagg.setup-gone"]
        if attempt.setup is not None:
            self.setups.heard(attempt.slot[0], there=attempt.vectors, gone=gone)
        sweep(self.tools.settings.dir, self.tools.clock.now_ms())

    async def check_log(self, sender: Participant, reply: NodeReply, slot: tuple[int, int]) -> None:
        """Returns if the log would take a reply's envelopes now; nothing is written.

        Raises:
            EnvelopesRefusedError: It would not.
        """

        def work(session: Session, tx: LogTx) -> None:
            whole = (self.run, *slot)
            add_envelopes(
                session, tx, sender, reply, contract=self.contract.digest, slot=whole, books=self.books
            )
            raise _TriedError

        try:
            await self.tools.writer.run(work)
        except _TriedError:
            return


class SecureAttempt:
    """One attempt of one round.

    Attributes:
        slot: Round and attempt.
        setup: Whose keys mask it; None: nobody can be asked.
        errand: What is asked.
        vectors: Parties whose vector is in the sum, with its digest.
        unmasked: Members were asked to unmask.
    """

    def __init__(
        self,
        rounds: SecureRounds,
        slot: tuple[int, int],
        setup: Setup | None,
        before: Unmasking | None,
        weights: npt.NDArray[np.floating],
    ) -> None:
        self._rounds = rounds
        self._before = before
        self._sum = MaskedSum(rounds.terms, rounds.vectors)
        self.slot = slot
        self.setup = setup
        self.unmasked = before is not None
        self.vectors: dict[str, str] = {}
        if setup is None:
            self.errand = Errand(type=ExchangeType.SA_CONTRIBUTE, tensor=b"", members=frozenset())
            return
        base = np.ascontiguousarray(weights, dtype="<f4").tobytes()
        kept = rounds.files.sum_before(setup.number, slot) if rounds.terms.group_mac else None
        previous, z = (None, b"") if kept is None else _parted(kept, rounds)
        self._attempt = Attempt(
            setup, round=slot[0], attempt=slot[1], base_model=model_digest(weights), previous=previous
        )
        self.errand = Errand(
            type=ExchangeType.SA_CONTRIBUTE,
            tensor=base + z,
            dtype="uint32" if rounds.terms.group_mac else "float32",
            body={"ask": b64(self._attempt.contribute_ask())},
            members=frozenset(setup.members),
            masked=self,
        )

    @property
    def liars(self) -> Mapping[str, str]:
        """Party → code, of members that are left out because of what they answered."""
        return self._rounds.setups.liars

    async def take(self, sender: Participant, outcome: Reply, reply: NodeReply) -> None:
        """Takes a masked vector into the sum; implements `broker.federation.receiving.Masked`.

        Raises:
            SecaggError: It is not what its member must send.
            EnvelopesRefusedError: The log does not take what the member signed beside it.
        """
        tensor = outcome.tensor
        if tensor is None:
            raise _unanswered()
        named = tensor.spec.digest
        if self._before is not None and self._before.online.get(sender.party) != named:
            raise VectorLateError(
                need="a vector before members were asked to confirm",
                found="a later one",
                remedy="nothing: the next round takes it in",
                offender=sender.party,
            )
        await self._rounds.check_log(sender, reply, self.slot)
        self._attempt.vector(sender.party, _answer(outcome), named)
        await self._sum.add(tensor)
        self.vectors[sender.party] = named

    async def open(
        self, engine_run: EngineRun, cohort: Sequence[Participant], lap: Callable[[str], None]
    ) -> Summed | None:
        """Confirms, unmasks and opens the sum of the vectors that are there.

        Args:
            engine_run: Of the engine.
            cohort: Of the attempt.
            lap: Notes how long a phase took.

        Returns:
            The sum; None if it was not opened, or may not be used. `unmasked` then says whether the round is lost.
        """
        try:
            return await self._open(engine_run, {one.party: one for one in cohort}, lap)
        except SecaggError as error:
            if error.offender is not None:
                self._rounds.setups.blame({error.offender: error.code})
            self._rounds.tools.journal.note(
                "secagg.not-opened",
                run=self._rounds.run,
                round=self.slot[0],
                attempt=self.slot[1],
                code=error.code,
                party=error.offender or "",
            )
            return None

    async def _open(
        self, engine_run: EngineRun, cohort: Mapping[str, Participant], lap: Callable[[str], None]
    ) -> Summed | None:
        rounds, attempt = self._rounds, self._attempt
        if self._before is not None and self._before.online != self.vectors:
            return None
        ask = attempt.confirm_ask()
        online = tuple(cohort[party] for party in sorted(self.vectors))
        heard = await rounds.talk.exchange(
            engine_run,
            ExchangeType.SA_CONFIRM,
            self.slot,
            dict.fromkeys(online, ask),
            attempt.confirmed,
            need=rounds.terms.t,
        )
        rounds.setups.blame(heard.offenders)
        lap("confirm_ms")
        if not attempt.enough_confirmed or rounds.standing.halted(rounds.contract):
            return None
        self._begin_unmasking(heard.good)
        ask = attempt.unmask_ask()
        heard = await rounds.talk.exchange(
            engine_run,
            ExchangeType.SA_UNMASK,
            self.slot,
            dict.fromkeys(online, ask),
            attempt.unmasked,
            need=rounds.terms.t,
        )
        rounds.setups.blame(heard.offenders)
        lap("unmask_ms")
        return await self._summed() if attempt.enough_unmasked else None

    def _begin_unmasking(self, confirmed: Collection[str]) -> None:
        self.unmasked = True
        if self._before is not None or self.setup is None:
            return
        self._rounds.files.begin_unmasking(
            Unmasking(
                slot=self.slot,
                setup=self.setup.number,
                online=dict(self.vectors),
                confirmed=tuple(sorted(confirmed)),
            )
        )

    async def _summed(self) -> Summed | None:
        rounds, terms, online = self._rounds, self._rounds.terms, tuple(sorted(self.vectors))
        z, named = await self._sum.opened(self._attempt.remove())
        opened = self._attempt.finish(named)
        data = opened.transcript
        kept = await apart(lambda: rounds.transcripts.save(data), len(data))
        if terms.group_mac and self.setup is not None:
            rounds.files.save_sum(self.setup.number, self.slot, _joined(opened, z))
        rounds.setups.save()
        value = mean(z, terms, online)
        room = rounding_room(members=len(online), step=terms.kappa(online), size=terms.dimension)
        found = norm_test(value, bound=terms.norm_max, room=room)
        if not found.passed:
            raise SumWrongError(
                need=f"a mean of norm at most {found.most:.6g}",
                found=f"{found.norm:.3g}",
                remedy="some member did not clip; the round is not applied",
                clause=terms.clause,
            )
        return Summed(online=online, aggregate=named, transcript=kept, mean=value)


def _answer(outcome: Reply) -> bytes:
    try:
        return unb64(outcome.header.body["answer"])
    except (KeyError, TypeError, EncodingError) as error:
        raise _unanswered() from error


def _unanswered() -> ContextMismatchError:
    return ContextMismatchError(
        need="a masked vector and what its member signed about it", found="none", remedy="update the node"
    )


def _joined(opened: Opened, z: np.ndarray) -> bytes:
    """An opened sum as its file has it."""
    raise NotImplementedError


def _parted(data: bytes, rounds: SecureRounds) -> tuple[Opened, bytes]:
    """What `_joined` wrote."""
    raise NotImplementedError
