# SPDX-License-Identifier: Apache-2.0
"""What one outcome of an exchange comes to: accepted, refused, declined or silent; never an exception.

- Silent: nothing came in time. Refused: something came that is not what was asked for; its sender is out of
  this attempt. Declined: the node itself said no.
- An update is looked at beside what its node did in the run: canaries, step receipt (`Counters`).
- A plain vector is judged by its own numbers: finite, norm within the contract's bound. A masked one has
  none: `Masked` takes it into the sum, or says why not. Neither may have been counted before.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import select

from broker.contracts.lineage import versions
from broker.federation.aggregate import inspect
from broker.federation.books import DIVERGED
from broker.federation.counters import Counters
from broker.federation.engine import Failure
from broker.federation.envelopes import EnvelopesRefusedError
from broker.federation.errors import ABSENCES, FAILURES
from broker.federation.records import ACCEPTED, DECLINED, REFUSED, SILENT, Received
from broker.federation.signed import ReplyRefusedError
from broker.runs.verdicts import ABSENT
from broker.store.tables import log_entry
from policies.encoding import digest
from policies.log.entries import EntryType
from policies.privacy.errors import PrivacyError
from policies.secagg.errors import SecaggError

if TYPE_CHECKING:
    from broker.federation.asking import Asking
    from broker.federation.engine import Reply, TensorHandle
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.tools import Journal
    from broker.store import Store
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Masked", "Receiving", "verdict_of"]

_INLINE_BYTES = 1024 * 1024


class Masked(Protocol):
    """Takes masked vectors into the sum of one attempt."""

    async def take(self, sender: Participant, outcome: Reply, reply: NodeReply) -> None:
        """Takes one.

        Raises:
            SecaggError: It is not what its member must send.
            EnvelopesRefusedError: The log does not take what the member signed beside it.
        """
        ...


class Receiving:
    """Judges the outcomes of one run's exchanges."""

    def __init__(
        self, asking: Asking, contract: Contract, recipe: Recipe, *, run: str, store: Store, journal: Journal
    ) -> None:
        self._asking = asking
        self._counters = Counters(store, run, contract, recipe)
        self._run = run
        self._bound = contract.aggregation.update_norm_max
        self._journal = journal
        self._counted = _submitted(store, contract)

    async def judge(
        self, sender: Participant, outcome: Reply | Failure, masked: Masked | None = None
    ) -> Received:
        """The verdict about one outcome of ``train.contribute``, or of its masked kind.

        Args:
            sender: Whose outcome it is.
            outcome: What came.
            masked: Takes a masked vector; None where vectors are plain.
        """
        if isinstance(outcome, Failure):
            self._journal.note("reply.failed", run=self._run, node=outcome.node, code=outcome.code)
            return Received(verdict=verdict_of(outcome.code), reason=outcome.code)
        try:
            reply = self._asking.read(sender, outcome)
        except ReplyRefusedError as error:
            evidence = outcome.raw if error.reason in DIVERGED else None
            return self.refused(sender, error.reason, need=error.need, found=error.found, evidence=evidence)
        if not outcome.ok or outcome.tensor is None:
            return self._declined(outcome, reply)
        try:
            self._counters.check(sender, reply)
        except PrivacyError as error:
            return self.refused(sender, error.code, need=error.need, found=error.found, reply=reply)
        if masked is None:
            return await self._inspect(sender, outcome.tensor, reply)
        return await self._take(sender, outcome, reply, masked)

    def _declined(self, outcome: Reply, reply: NodeReply) -> Received:
        code = outcome.header.code or ""
        if code in ABSENT:
            self._journal.note("reply.failed", run=self._run, node=outcome.node, code=code)
            return Received(verdict=SILENT, reason=code, reply=reply)
        clauses = list(reply.decision.clauses) if reply.decision is not None else []
        self._journal.note("reply.declined", run=self._run, node=outcome.node, code=code, clauses=clauses)
        return Received(verdict=DECLINED, reason=outcome.header.code, reply=reply)

    async def _take(self, sender: Participant, outcome: Reply, reply: NodeReply, masked: Masked) -> Received:
        counted = self._counted_before(sender, outcome.tensor, reply)
        if counted is not None:
            return counted
        try:
            await masked.take(sender, outcome, reply)
        except EnvelopesRefusedError as error:
            return self.refused(
                sender,
                error.reason,
                need=error.need,
                found=error.found,
                evidence=error.evidence,
            )
        except SecaggError as error:
            return self.refused(sender, error.code, need=error.need, found=error.found, reply=reply)
        return Received(verdict=ACCEPTED, reply=reply)

    def refused(
        self,
        sender: Participant,
        reason: str,
        *,
        need: str,
        found: str,
        reply: NodeReply | None = None,
        evidence: bytes | None = None,
    ) -> Received:
        """A refusal, which the broker's own lines name too."""
        self._journal.note("reply.refused", run=self._run, node=sender.node, code=reason)
        return Received(
            verdict=REFUSED, reason=reason, need=need, found=found, reply=reply, evidence=evidence
        )

    async def _inspect(self, sender: Participant, tensor: TensorHandle, reply: NodeReply) -> Received:
        large = tensor.spec.size_bytes > _INLINE_BYTES
        seen = await asyncio.to_thread(inspect, tensor) if large else inspect(tensor)
        if not seen.finite:
            return self.refused(
                sender, "update.not-finite", need="finite numbers", found="NaN or infinity", reply=reply
            )
        if seen.norm > float(self._bound):
            need = f"a norm of at most {self._bound}"
            return self.refused(sender, "update.norm", need=need, found=f"{seen.norm:.3g}", reply=reply)
        return self._counted_before(sender, tensor, reply) or Received(verdict=ACCEPTED, reply=reply)

    def _counted_before(
        self, sender: Participant, tensor: TensorHandle | None, reply: NodeReply
    ) -> Received | None:
        """The refusal of a vector that was submitted before, by whomever; else None, and it counts."""
        own = digest(reply.submission.envelope.payload) if reply.submission is not None else ""
        if tensor is None or self._counted.setdefault(tensor.spec.digest, own) == own:
            return None
        need, found = "an update that was not submitted before", "one that was"
        return self.refused(sender, "duplicate", need=need, found=found, reply=reply)


def verdict_of(code: str) -> str:
    """What it counts as that a node gave no update, by its code."""
    if code in ABSENCES or code in ABSENT:
        return SILENT
    return REFUSED if code in FAILURES and code != "engine.refused" else DECLINED


def _submitted(store: Store, contract: Contract) -> dict[str, str]:
    """Digest of every update that was submitted under the contract → digest of the envelope that named it.

    In all versions of it: no update counts twice because of an amendment.
    """
    kind = log_entry.c.type == EntryType.SUBMISSION_RECEIVED.value
    with store.read() as session:
        of = kind & log_entry.c.scope.in_(versions(session, contract.digest))
        entries = [json.loads(body) for body in session.scalars(select(log_entry.c.body).where(of))]
    return {one["pub"]["update"]: one["env"] for one in entries}
