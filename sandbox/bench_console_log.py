# SPDX-License-Identifier: Apache-2.0
"""A log as a busy broker has it after years, for measuring screens: finished runs, one after the other.

    fill(folder, 1_000_000)

- A run has five rounds of four members: each a submission, a decision of its guard, a spend and an
  acknowledgement, in its own envelope; the broker's verdicts, decisions, aggregates, closings. One decision
  of a run refuses; an operator acts once. Rows of runs, rounds and budgets stand beside, as the broker's own
  services write them.
- Incidents: one in each of the first 60 runs, so that the smaller log fills a page of each screen as the
  larger one does; then one in every 20. All but five are closed.
- Members are made up: keys, chains and aliases of nobody who is enrolled. Every entry has its identity,
  schema, salts, tiles and signature, as ever; what rounds say of models is random.
- What is left below one run is filled with operators' actions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select

from broker.store.tables import ledger_mirror, round_, run
from policies.encoding import new_id
from policies.identity import SigningKey
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.envelope import ChainState, Seen, check_payload, seal_envelope
from policies.ports import iso_minute
from sandbox.clock import random_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.log import LogTx, Writer
    from broker.store import Session, Store

__all__ = ["Filling", "fill"]

Json = dict[str, Any]
_E = EntryType
_MEMBERS: Final = 4
_ROUNDS: Final = 5
_AT_ONCE: Final = 16  # runs of one unit of work
_EACH: Final = 60  # first runs, of which each has an incident
_EVERY: Final = 20
_OPEN: Final = 5
_CLAUSE: Final = "rounds"


def fill(broker_dir: Path, size: int) -> None:
    """Appends entries to the log of a broker that does not run, until it has so many."""
    from broker.boot import open_services
    from broker.clock import SystemClock
    from broker.entropy import SystemEntropy
    from broker.fleet import NoFleet

    services = open_services(broker_dir, clock=SystemClock(), entropy=SystemEntropy(), engine=NoFleet())
    try:
        Filling(services.store, services.writer).up_to(size)
    finally:
        services.close()


def _digest() -> str:
    return "sha256:" + random_bytes(32).hex()


def _action(name: str) -> Event:
    pub = {"operator": "alice", "action": name, "subject": _digest(), "result": "done", "request": _digest()}
    return Event(type=_E.CONSOLE_ACTION, pub=pub)


@dataclass(slots=True, kw_only=True)
class _Member:
    """Somebody made up who sends envelopes."""

    party: str
    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(random_bytes(32)))
    chain: ChainState = field(default_factory=lambda: ChainState(chain=random_bytes(8).hex()))

    def says(self, kind: EntryType, body: Json, **frame: Any) -> Event:  # noqa: ANN401  fields of an envelope
        """The next event of its chain."""
        envelope = seal_envelope(
            self.key,
            kind=kind,
            chain=self.chain.chain,
            seq=self.chain.next_seq,
            prev=self.chain.prev,
            nonce=random_bytes(16),
            ack=None,
            body=body,
            **frame,
        )
        payload = check_payload(json.loads(envelope.payload))
        self.chain = self.chain.accept(payload)
        return from_envelope(envelope, payload, actor=random_bytes(8).hex())


class Filling:
    """One broker's log while it grows."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._writer = writer
        self._members = [_Member(party=f"maker-{number}") for number in range(_MEMBERS)]
        with store.read() as session:
            known = session.execute(select(run).order_by(run.c.opened_ms)).mappings().first()
            rounds = select(round_.c.verdicts).where(round_.c.model.is_not(None)).limit(1)
            self._verdicts = session.scalar(rounds) or "{}"
        self._model = dict(known) if known is not None else None
        self.scope = _digest() if known is None else str(known["contract"])
        self._runs = 0 if writer.head().size < _EACH * _run_entries() else _EACH

    def up_to(self, size: int) -> None:
        """Appends until there are so many entries."""
        while (left := size - self._writer.head().size) >= _run_entries() + _INCIDENT:
            self._submit(min(_AT_ONCE, left // (_run_entries() + _INCIDENT)))
        while (left := size - self._writer.head().size) > 0:
            actions = [_action("bench.rest") for _ in range(min(left, 256))]
            self._writer.submit(_adding(actions)).result()

    def _submit(self, count: int) -> None:
        head = self._writer.head()
        first, self._runs = self._runs, self._runs + count
        frame = {"log": self._writer.origin, "seen": Seen(head.size, head.root)}

        def work(session: Session, log: LogTx) -> None:
            for number in range(first, first + count):
                _Run(session, log, frame, self).write(number)

        self._writer.submit(work).result()

    @property
    def members(self) -> list[_Member]:
        """Who takes part in every run."""
        return self._members

    @property
    def like(self) -> Json | None:
        """The row of a run that there was; None where none was."""
        return self._model

    @property
    def verdicts(self) -> str:
        """Of a round that there was."""
        return self._verdicts


class _Run:
    """One finished run: its entries, in the order in which they happen, and its rows."""

    def __init__(self, session: Session, log: LogTx, frame: Json, filling: Filling) -> None:
        self._session = session
        self._log = log
        self._filling = filling
        self._id = new_id("run", random_bytes(10))
        like = filling.like
        self._scope = filling.scope
        self._recipe = _digest() if like is None else str(like["recipe_digest"])
        self._frame = frame | {"time_ms": log.now_ms, "scope": self._scope, "run": self._id}
        self._plan = _digest()

    def write(self, number: int) -> None:
        """Everything of it; whether it has an incident depends on its number."""
        self._add(_E.RUN_OPENED, {"recipe": self._recipe, "contract": self._scope})
        if self._filling.like is not None:
            self._insert_run()
        base = _digest()
        for at in range(1, _ROUNDS + 1):
            base = self._round(at, base, refuses=at == 1)
        self._add(_E.RUN_CLOSED, {"final_round": _ROUNDS, "outcome": "completed"})
        self._log.add(_action("run.stop"))
        if number < _EACH or number % _EVERY == 0:
            self._incident(closes=number >= _OPEN)

    def _insert_run(self) -> None:
        like = self._filling.like or {}
        new = {"run_id": self._id, "state": "closed", "outcome": "completed", "round": _ROUNDS}
        row = like | new | {"opened_ms": self._log.now_ms, "stop_ms": None, "start": None, "error": None}
        self._session.execute(insert(run).values(**row))

    def _add(self, kind: EntryType, pub: Json, **more: Any) -> int:  # noqa: ANN401  fields of an event
        event = Event(type=kind, scope=self._scope, run=self._id, pub=pub, **more)
        return self._log.add(event)

    def _place(self, number: int) -> Json:
        """Where screens say that something happened; nowhere without runs beside the log: they lead there."""
        return {"scope": self._scope, "run": self._id, "round": number} if self._filling.like else {}

    def _incident(self, *, closes: bool) -> None:
        pub, place = {"kind": "reply.signature", "evidence": _digest()}, self._place(1)
        declared = self._log.add(Event(type=_E.INCIDENT_DECLARED, pub=pub, **place))
        if closes:
            self._log.add(_action("incident.close"))
            self._log.add(Event(type=_E.INCIDENT_CLOSED, pub=pub, refs=(declared,), **place))

    def _round(self, number: int, base: str, *, refuses: bool) -> str:
        """One round; gives its model."""
        minute = iso_minute(self._log.now_ms)
        opened = {"recipe": self._recipe, "plan": None, "base_model": base, "deadline": minute}
        self._add(_E.ROUND_OPENED, opened | {"cohort": _MEMBERS, "attempt": 1}, round=number)
        sent = [self._contribution(one, number) for one in self._filling.members]
        for at, index in enumerate(sent):
            self._decision("broker", number, refuses=refuses and at == 0)
            self._add(_E.CONTRIBUTION_ACCEPTED, {}, round=number, refs=(index,))
        model = _digest()
        summed = {"aggregate": _digest(), "model": model, "attempt": 1, "count": _MEMBERS, "transcript": None}
        self._add(_E.AGGREGATE_RELEASED, summed, round=number, refs=tuple(sent))
        parties = {random_bytes(8).hex(): {"received": 1, "verdict": "accepted"} for _ in sent}
        counts = {"received": _MEMBERS, "accepted": _MEMBERS, "refused": 0, "withdrawn": 0}
        told = counts | {"attempt": 1, "parties": parties, "outcome": "aggregated"}
        closed = self._add(_E.ROUND_CLOSED, told, round=number, refs=tuple(sent))
        for one in self._filling.members:
            body = {"closed": closed, "leaf": _digest(), "count": _MEMBERS}
            self._log.add(one.says(_E.ROUND_ACK, body, **self._frame, round=number))
        if self._filling.like is not None:
            self._insert_round(number, base, model)
        return model

    def _insert_round(self, number: int, base: str, model: str) -> None:
        values = {"base": base, "model": model, "accepted": _MEMBERS, "refused": 0}
        row = {"run_id": self._id, "round": number, "attempt": 1, "at_ms": self._log.now_ms}
        self._session.execute(
            insert(round_).values(**row, **values, verdicts=self._filling.verdicts, trained=1)
        )
        place = {"run_id": self._id, "round": number, "attempt": 1, "plan_digest": self._plan, "steps": 4}
        spent = [place | {"party": one.party} for one in self._filling.members]
        self._session.execute(insert(ledger_mirror), spent)

    def _contribution(self, member: _Member, number: int) -> int:
        """What a member sends in a round, the update last; gives the index of the submission."""
        frame = self._frame | {"round": number}
        decided = {"point": "node", "outcome": "allow", "clauses": [], "decision": _digest()}
        self._log.add(member.says(_E.DECISION_RECORDED, decided, **frame))
        spent = {"mechanism": f"{self._id}/{number}/1", "plan": self._plan, "steps": 4}
        spent |= {"lineage": "arm-1", "rho_nano": number * 1_000, "epsilon_after": f"0.{number}"}
        self._log.add(member.says(_E.EPSILON_SPENT, spent, **frame))
        update = {"update": _digest(), "plan": None, "steps": 4, "attempt": 1}
        return self._log.add(member.says(_E.SUBMISSION_RECEIVED, update, **frame))

    def _decision(self, point: str, number: int, *, refuses: bool) -> None:
        said = ("refuse", [_CLAUSE]) if refuses else ("allow", [])
        pub = {"point": point, "outcome": said[0], "clauses": said[1], "decision": _digest()}
        self._log.add(Event(type=_E.DECISION_RECORDED, pub=pub, **self._place(number)))


_INCIDENT: Final = 3


def _run_entries() -> int:
    """Entries of a run without an incident."""
    member, verdicts, closing = 4, 2, 3
    return 3 + _ROUNDS * (_MEMBERS * (member + verdicts) + closing)


def _adding(events: list[Event]) -> Callable[[Session, LogTx], None]:
    def work(_session: Session, log: LogTx) -> None:
        for event in events:
            log.add(event)

    return work
