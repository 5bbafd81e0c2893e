# SPDX-License-Identifier: Apache-2.0
"""Signed requests of one run, with the news of the log, and the outcomes that come back.

- Each request carries the newest checkpoint, the proof that it extends the one which this node signed last,
  and receipts for what its last reply brought. What finds no room in a header is left out: the node asks for
  it over HTTP.
- It carries how rounds were closed that the node gave something to and has not acknowledged, with their
  proofs (`broker.federation.acks`); what finds no room comes with a later one.
- The messages of secure aggregation that carry no work of their own have no such news: they are small, and a
  node answers the same bytes with the same bytes.
- What a node says it has seen is taken from its signed envelopes, and trusted for nothing but the choice of
  that proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.contracts.lineage import scopes_of
from broker.federation.acks import Closings
from broker.federation.engine import Expect, Request
from broker.federation.participants import under_present_key
from broker.federation.replies import read_reply
from broker.federation.spends import logged_spend
from policies.encoding import b64, digest
from policies.exchange import DTYPES, ExchangeType, TensorSpec, seal_request
from policies.limits import RECEIPT_NEWS_BYTES, ROUND_GRACE_S, SECAGG_SETUP_BYTES
from policies.ports import from_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from broker.federation.engine import EngineRun, Failure, Reply
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.tools import Tools
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Asking"]

Json = Any
_WITHOUT_NEWS = frozenset(
    {
        ExchangeType.SA_ADVERTISE,
        ExchangeType.SA_SHARE,
        ExchangeType.SA_OPEN,
        ExchangeType.SA_CONFIRM,
        ExchangeType.SA_UNMASK,
    }
)


class Asking:
    """Everything that one run says to nodes, and how their replies are read.

    Attributes:
        requests: How many were sent so far.
    """

    def __init__(self, tools: Tools, run: str, contract: Contract, recipe: Recipe) -> None:
        self._tools = tools
        self._run = run
        self._contract = contract
        self._recipe = recipe
        with tools.store.read() as session:
            self._scopes = scopes_of(session, run)
        self.requests = 0
        self._seen: dict[str, int] = {}
        self._receipts: dict[str, Sequence[int]] = {}
        self._closings = Closings(run)

    def owe_receipts(self, party: str, indexes: Sequence[int]) -> None:
        """Entries whose receipts go out with the next request to a party, instead of the last ones."""
        self._receipts[party] = indexes

    def deadline_ms(self) -> int:
        """When an exchange that begins now ends."""
        return self._tools.clock.now_ms() + self._recipe.deadline_s * 1000

    def request(
        self,
        to: Participant,
        kind: ExchangeType,
        slot: tuple[int, int],
        *,
        body: Mapping[str, Json],
        model: bytes | None,
        deadline_ms: int,
        dtype: str = "float32",
    ) -> Request:
        """A signed request to one node.

        Args:
            to: Whom.
            kind: What is asked.
            slot: Round and attempt.
            body: What belongs to the kind; news of the log are added.
            model: Bytes of the tensor.
            deadline_ms: Until when a reply counts.
            dtype: Of the tensor.
        """
        spec = None
        if model is not None:
            spec = TensorSpec(digest=digest(model), dtype=dtype, shape=(len(model) // DTYPES[dtype],))
        news = {} if kind in _WITHOUT_NEWS else self._news(to)
        header = seal_request(
            self._tools.broker_key,
            contract=self._contract.digest,
            recipe=self._recipe.digest,
            run=self._run,
            round=slot[0],
            attempt=slot[1],
            type=kind,
            node=to.node,
            deadline_ms=deadline_ms,
            tensor=spec,
            body={**body, **news},
        )
        return Request(
            node=to.node,
            type=kind,
            round=slot[0],
            attempt=slot[1],
            header=header,
            tensor=model,
            expect=self._expect(kind),
        )

    def _expect(self, kind: ExchangeType) -> Expect | None:
        """Form of a good reply's tensor."""
        if kind in (ExchangeType.PING, ExchangeType.CONTRIBUTE):
            return Expect(dtype="float32", shape=(self._recipe.parameters,))
        if kind is ExchangeType.SA_CONTRIBUTE:
            return Expect(dtype="uint32", shape=(self._recipe.parameters,))
        if kind in (ExchangeType.SA_ADVERTISE, ExchangeType.SA_SHARE):
            return Expect(dtype="uint8", at_most=SECAGG_SETUP_BYTES)
        return None

    def exchange(
        self, engine_run: EngineRun, requests: Sequence[Request], *, deadline_ms: int, need: int = 0
    ) -> AsyncIterator[Reply | Failure]:
        """Asks, and yields one outcome for each request."""
        self.requests += len(requests)
        return self._tools.engine.exchange(
            engine_run, requests, deadline=from_ms(deadline_ms), need=need, grace_s=ROUND_GRACE_S
        )

    def read(self, sender: Participant, reply: Reply) -> NodeReply:
        """The checked content of a reply; notes which checkpoint the node has verified.

        Raises:
            ReplyRefusedError: It does not say what it must.
        """
        found = read_reply(
            reply,
            sender=under_present_key(self._tools.contracts, self._contract, sender),
            contract=self._contract,
            recipe=self._recipe,
            origin=self._tools.writer.origin,
            now_ms=self._tools.clock.now_ms(),
            scopes=self._scopes,
            paid=lambda mechanism: self._paid(sender, mechanism),
        )
        for one in found.signed:
            seen = int(one.payload["seen"]["size"])
            self._seen[sender.party] = max(self._seen.get(sender.party, 0), seen)
        return found

    def _paid(self, sender: Participant, mechanism: str) -> Mapping[str, Json] | None:
        with self._tools.store.read() as session:
            found = logged_spend(session, sender, mechanism)
        return None if found is None else found[1]

    def _log_news(self, to: Participant) -> dict[str, Json] | None:
        """The newest checkpoint, with the proof that it extends the one that this node signed last."""
        head = self._tools.writer.head()
        if head.size == 0:
            return None
        old = min(self._seen.get(to.party, 0), head.size)
        proof = self._tools.writer.consistency(old, head.size) if 0 < old < head.size else []
        return {"note": head.note, "proof": [b64(one) for one in proof], "old_size": old}

    def _news(self, to: Participant) -> dict[str, Json]:
        room = RECEIPT_NEWS_BYTES
        receipts = self._shown(self._receipts.get(to.party, ()), room)
        room -= sum(len(one["entry"]) + len(one["proof"]) for one in receipts)
        with self._tools.store.read() as session:
            self._closings.read(session)
        size = self._tools.writer.head().size
        closed = self._shown([one for one in self._closings.owed(to) if one < size], room)
        news: dict[str, Json] = {"log": self._log_news(to), "receipts": receipts}
        return news | ({"closed": closed} if closed else {})

    def _shown(self, indexes: Sequence[int], room: int) -> list[dict[str, str]]:
        """Entries with their receipts, as many as there is room for, in their order."""
        receipts = self._tools.writer.receipts
        found = []
        for index in indexes:
            one = {"entry": receipts.body(index).decode("utf-8"), "proof": receipts.receipt(index).to_text()}
            room -= len(one["entry"]) + len(one["proof"])
            if room < 0:
                break
            found.append(one)
        return found
