# SPDX-License-Identifier: Apache-2.0
"""What the duties share: news of the log, the budget, the envelopes, and the note of what leaves.

A reply with envelopes is finished in the transaction that seals them (`Desktop.finish`). One without any, as
the messages of secure aggregation have it, is noted without an fsync (`Desktop.answer`, `Outbox.noting`).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from client.acks import seal_acks
from client.errors import BacklogError
from client.federation.handlers import HandlerReply, Refusal
from client.refusals import keep_refusal, refusals_kept
from policies.encoding import digest
from policies.exchange import seal_reply, tensor_spec
from policies.limits import OUTBOX_PENDING
from policies.log.errors import MemberEnvelopeError
from policies.privacy.errors import BudgetUnknownError, PlanMismatchError
from policies.privacy.ledger import USE
from policies.reply_body import check_reply_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from client.audits.figures import AuditShelf
    from client.budgets import Budgets
    from client.guard import Guard
    from client.judged import Judged
    from client.outbox import Letters, Outbox
    from client.outbox.rows import Closing
    from client.privacy.store import BudgetStore, Spend
    from client.privacy.units import Units
    from client.receipts import LogView
    from client.seat import Seat
    from client.settings import LocalRules
    from policies.exchange import RequestHeader
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy
    from policies.privacy.canaries import CanarySecret
    from policies.privacy.caps import Cap
    from policies.privacy.plan import DpPlan, EvalPlan
    from policies.privacy.receipts import MadeWith
    from policies.recipe import Recipe
    from policies.signing import Envelope

__all__ = ["Desktop", "Learner", "check_units", "mark_uses"]

_UNCOUNTED = "uncounted "  # and a lineage: contracts without caps under which its data were used


class Learner(Protocol):
    """Training and judging on this site's data; the worker's implementation holds torch."""

    def ready(self, seat: Seat) -> None:
        """Gets ready to train for a seat, where it is not; returns once it is.

        Raises:
            IriaiError: It cannot train, and says so again when it is asked for an update.
        """
        ...

    def initial(self, recipe: Recipe) -> np.ndarray:
        """The weights that every node derives from the recipe, ``[P] float32``."""
        ...

    def units(self, seat: Seat, split: str, canaries: CanarySecret | None = None) -> Units:
        """The frozen units of a split, with the blocks that they are in; they stay on the site.

        The manifest is that of the units and of the canaries that are trained on beside them.
        """
        ...

    def update(
        self,
        seat: Seat,
        run: str,
        slot: tuple[int, int],
        weights: np.ndarray,
        spend: Callable[[str], None],
        *,
        canaries: CanarySecret | None = None,
        grid_step: float | None = None,
    ) -> np.ndarray:
        """The update of a round and attempt, ``[P] float32``; on a grid ``[P] int64``.

        Calls ``spend`` with the manifest of the units that it will read, before the first gradient. Canaries
        whose coin says so are among them.

        Args:
            seat: Whose data.
            run: The run; its units are frozen with its first update.
            slot: Round and attempt.
            weights: Base model of the round.
            spend: See above.
            canaries: Of the run, or None.
            grid_step: With noise shares, one step of the sum's grid in units of the clipped sum; else None.
        """
        ...

    def made_with(self, seat: Seat) -> MadeWith:
        """Names of the code that made the last private update of a seat."""
        ...

    def judge(self, seat: Seat, weights: np.ndarray) -> tuple[float, bool]:
        """Noised mean loss, which stays on the site, and the vote."""
        ...

    def gains(
        self, seat: Seat, plan: EvalPlan, models: Sequence[np.ndarray], against: np.ndarray
    ) -> tuple[int, ...]:
        """Noised gains of models over another one, in billionths: one query, whatever their number."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desktop:
    """What all duties share.

    Attributes:
        untold: Runs with a spend that could not be told to the log.
        closed: How rounds were closed, as the last request with news showed it.
        acked: What was acknowledged in the transaction that is open.
    """

    guard: Guard
    outbox: Outbox
    view: LogView
    budgets: Budgets
    learner: Learner
    audits: AuditShelf
    rules: Callable[[], LocalRules]
    key: SigningKey
    clock: Clock
    entropy: Entropy
    phase: Callable[[RequestHeader, str], None]
    untold: set[str] = field(default_factory=set)
    closed: list[Closing] = field(default_factory=list)
    acked: list[Envelope] = field(default_factory=list)

    def news(self, header: RequestHeader) -> None:
        """Takes the news of the log that came with a request."""
        self.view.news(header.body.get("log"), header.body.get("receipts"), later=True)
        self.closed[:] = self.view.closings(header.body.get("closed"))

    def keeping(self, header: RequestHeader, judged: Judged | None = None) -> AbstractContextManager[None]:
        """Keeps a refusal that is raised inside, for ``guard log`` and ``explain`` (`client.refusals`)."""
        return refusals_kept(self.outbox, header, self.clock, judged)

    def check_told(self, header: RequestHeader) -> None:
        """Returns if every spend of a run could be told to the log.

        Raises:
            BudgetUnknownError: One could not; nothing more is spent for this run.
        """
        if header.run in self.untold:
            raise BudgetUnknownError(
                need=f"every spend of {header.run} in the log",
                found="one that no entry can hold",
                remedy="take part in another run; the ledger keeps the spend",
            )

    def spend(
        self,
        seat: Seat,
        header: RequestHeader,
        plan: DpPlan | EvalPlan | None,
        split: str,
        *,
        manifest: str,
        subject: str | None = None,
        canaries: CanarySecret | None = None,
        held_as: str | None = None,
    ) -> Spend | None:
        """Reserves a run's plan if it is not, and touches; durable when it returns.

        Under a contract without caps nothing is charged: None, and the use is kept.

        Args:
            seat: Whose data and caps.
            header: The request.
            plan: What is charged; None without privacy.
            split: Of the units.
            manifest: Of the units that are about to be read.
            subject: The candidate that is judged.
            canaries: Of the run, if some are read beside the units; they cost nothing.
            held_as: Name of the reservation in the ledger, where it is not the run's.

        Raises:
            BudgetExhaustedError: A cap does not hold the plan, or no step is left.
            PlanMismatchError: Other units than the reserved ones would be read.
            LineageUnknownError: The units have no lineage, or belong to another one.
        """
        if seat.cap is None or plan is None:
            self._uncounted(seat, split)
            return None
        run = held_as or header.run
        store = self.budgets.look(seat.lineage, charged_before=self.outbox.charged(seat.lineage))
        reserved = None if store is None else store.reserved(run, split=split)
        if store is None or reserved is None:
            units = self.learner.units(seat, split, canaries)
            check_units(header, units.manifest, manifest)
            store = self._reserve(seat, run, plan, seat.cap, units)
        else:  # a successor, or the owner, may have tightened the cap since
            check_units(header, reserved, manifest)
            for cap in (seat.own, seat.cap if seat.before else None):
                if cap is not None:
                    store.check_holds(cap, split=split)
        return store.touch(run, header.round, header.attempt, split=split, subject=subject)

    def _reserve(self, seat: Seat, run: str, plan: DpPlan | EvalPlan, cap: Cap, units: Units) -> BudgetStore:
        """Holds a run's plan in the ledger of its data, which is opened with it if there is none."""
        self.budgets.check_units(seat.lineage, units)

        def reserve(store: BudgetStore) -> None:
            mark_uses(store, self.outbox)
            store.reserve(plan, cap, run=run, recipe=seat.recipe.digest, units=units, own=seat.own)

        charged = self.outbox.charged(seat.lineage)
        known = self.budgets.look(seat.lineage, charged_before=charged)
        if known is not None:
            reserve(known)
            return known
        return self.budgets.of(
            seat.lineage,
            seat.opening or cap,
            unit=plan.unit,
            adjacency=plan.adjacency,
            charged_before=charged,
            first=reserve,
        )

    def _uncounted(self, seat: Seat, split: str) -> None:
        """Keeps for good that data are used under a contract without caps, before they are read.

        Raises:
            LineageUnknownError: The units belong to another lineage.
        """
        name, contract = _UNCOUNTED + seat.lineage, seat.held.contract.digest
        units = self.learner.units(seat, split)
        if units.blocks:
            self.budgets.check_units(seat.lineage, units)
        if contract not in self.outbox.listed(name):
            with self.outbox.writing() as letters:
                letters.keep(f"{name} {contract}", contract)

    @contextmanager
    def telling(self, header: RequestHeader) -> Iterator[Letters]:
        """A transaction that tells a spend; where no entry can hold it, nothing more is spent for its run.

        What the request showed of closed rounds is acknowledged first.
        """
        try:
            with self.outbox.writing() as letters:
                self.acked[:] = seal_acks(letters, self.outbox, self.closed, run=header.run)
                yield letters
        except MemberEnvelopeError:
            self.untold.add(header.run)
            raise
        finally:
            self.acked.clear()

    def finish(
        self,
        letters: Letters,
        header: RequestHeader,
        reply: HandlerReply,
        sealed: list[Envelope],
        *,
        clause: str | None,
    ) -> HandlerReply:
        """The reply with all envelopes that need a receipt, and the note of what leaves with it.

        What the request showed of closed rounds is acknowledged with it (`client.acks`), if it is not yet.

        Raises:
            ReplyFieldError: It would say more than a reply may; nothing is noted, and nothing leaves.
        """
        acks = seal_acks(letters, self.outbox, self.closed, run=header.run)
        envelopes = [one.to_json() for one in (*letters.pending(), *self.acked, *sealed, *acks)]
        body = {**reply.body, "envelopes": envelopes} if envelopes else reply.body
        made = HandlerReply(status=reply.status, code=reply.code, body=body, tensor=reply.tensor)
        self._note(letters, header, made, clause)
        return made

    def answer(self, header: RequestHeader, reply: HandlerReply, *, clause: str | None) -> HandlerReply:
        """A reply without envelopes, once what leaves with it is noted.

        Raises:
            ReplyFieldError: As `finish`.
        """
        with self.outbox.noting() as letters:
            self._note(letters, header, reply, clause)
        return reply

    def _note(self, letters: Letters, header: RequestHeader, made: HandlerReply, clause: str | None) -> None:
        check_reply_body(header.type, made.body)
        spec = None if made.tensor is None else tensor_spec(made.tensor)
        data = seal_reply(self.key, header, status=made.status, code=made.code, tensor=spec, body=made.body)
        letters.note(
            kind=header.type.value,
            size_bytes=len(data) + (spec.size_bytes if spec is not None else 0),
            digest=spec.digest if spec is not None else digest(data),
            clause=clause,
            contract=header.contract,
            run=header.run,
            round=header.round,
            attempt=header.attempt,
        )

    def backlog(self, header: RequestHeader) -> Refusal | None:
        """A refusal with the oldest envelopes only, where no header has room for all of them and new ones."""
        if len(self.outbox.pending(OUTBOX_PENDING + 1)) <= OUTBOX_PENDING:
            return None
        reply = HandlerReply(status="refused", code=BacklogError.code)
        with self.outbox.writing() as letters:
            if len(self.outbox.pending(OUTBOX_PENDING + 1)) <= OUTBOX_PENDING:  # receipts were just stored
                return None
            keep_refusal(letters, self.outbox, header, _backlog(), at_ms=self.clock.now_ms())
            made = self.finish(letters, header, reply, [], clause=None)
        return Refusal(code=BacklogError.code, body=made.body)


def mark_uses(store: BudgetStore, outbox: Outbox) -> None:
    """Marks in a ledger the uses without privacy of its data that the outbox knows and the ledger lacks."""
    for contract in outbox.listed(_UNCOUNTED + store.state.lineage.scope):
        if contract not in store.state.waived:
            store.waive(contract, by=USE)


def _backlog() -> BacklogError:
    return BacklogError(
        need=f"at most {OUTBOX_PENDING} envelopes without a receipt",
        found="more",
        remedy="nothing: the oldest went out with the refusal; iriai-node outbox list shows what waits",
    )


def check_units(header: RequestHeader, reserved: str | None, manifest: str) -> None:
    """Returns if the units that are about to be read are the ones that a run's budget was reserved for.

    Raises:
        PlanMismatchError: They are not, or nothing is reserved any more.
    """
    if manifest != reserved:
        raise PlanMismatchError(
            need=f"the units that were reserved for {header.run}",
            found="other units",
            remedy="data that came later take part in the next run",
        )
