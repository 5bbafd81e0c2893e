# SPDX-License-Identifier: Apache-2.0
"""What one unit of work may do to the log: look an event up, add an event.

Nothing of it is visible before the batch commits.

Rules that hold for every entry, checked in this order by `LogTx.add`:
1. the same event again gives the old index and nothing else happens; the same id with other content is
   `log.conflict`;
2. the first entry is ``log.genesis``, and no other is;
3. a member's envelope is by the key that signed its chain last, or by one that an entry ``key.rotated`` put
   in its place; it has the next number, names the payload before it, and has seen a checkpoint of this
   history. A member has one chain: another one of the same line of keys begins with ``chain.reset``, which
   names the one that ends, and nothing more goes on that one. An auditor may begin one whenever it concludes;
4. references point to earlier entries;
5. the body fits the schema of its type.

The signature of a member's envelope is the caller's to check (`policies.log.envelope.open_envelope`, under
the key in force), before the work is submitted: it needs no lock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select

from broker.log.errors import LogConflictError
from broker.log.rotations import Rotations, signer_of
from broker.store import tables
from broker.store.prepared import Prepared
from policies.encoding import canonical, sha256
from policies.errors import invariant
from policies.log.entries import (
    SALT_BYTES,
    EntryType,
    entry_body,
    event_id,
    private_values,
    request_digest,
)
from policies.log.envelope import ChainState, Seen
from policies.log.errors import ChainError, EntryError, SeenError
from policies.log.merkle import leaf_hash
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.log.known import KnownIds
    from broker.log.savepoints import Savepoints
    from broker.log.tree import GrowingTree
    from broker.store import Session
    from policies.log.entries import Event
    from policies.ports import Entropy

__all__ = ["Batch", "LogTx"]

_ENTRY = tables.log_entry
_ENVELOPE = tables.log_envelope
_KNOWN: Final = Prepared(
    select(_ENTRY.c.idx, _ENTRY.c.req_sha256).where(_ENTRY.c.event_id == bindparam("event_id"))
)
_TIP: Final = Prepared(
    select(_ENVELOPE.c.seq, _ENVELOPE.c.env, _ENVELOPE.c.signer, _ENVELOPE.c.seen_size)
    .where(_ENVELOPE.c.chain == bindparam("chain"))
    .order_by(_ENVELOPE.c.seq.desc())
)
_BEGUN: Final = Prepared(
    select(_ENVELOPE.c.chain, _ENVELOPE.c.signer).where(
        _ENVELOPE.c.idx.in_(select(_ENVELOPE.c.idx).where(_ENVELOPE.c.seq == 0))  # by the index of chains
    )
)
_RESETS: Final = Prepared(
    select(_ENVELOPE.c.dsse)
    .join(_ENTRY, _ENTRY.c.idx == _ENVELOPE.c.idx)
    .where(_ENTRY.c.type == EntryType.CHAIN_RESET.value)
)
_ENDED: Final = "ended"  # whose chain it is that another one took the place of: no key has this id
_ADD_ENTRIES: Final = Prepared(insert(_ENTRY))
_ADD_ENVELOPES: Final = Prepared(insert(_ENVELOPE))

Row = dict[str, object]


@dataclass(slots=True, kw_only=True)
class Batch:
    """What all units of work of one transaction share, and what they leave to be written at its end."""

    origin: str
    now_ms: int
    size: int
    signed_size: int
    tree: GrowingTree
    entropy: Entropy
    known: KnownIds
    ids: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    chains: dict[str, tuple[ChainState, str]] = field(default_factory=dict)
    ended: frozenset[str] | None = None
    leaves: list[bytes] = field(default_factory=list)
    private_rows: list[Row] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    envelopes: list[Row] = field(default_factory=list)

    def write_waiting(self, session: Session) -> None:
        """Writes entries and envelopes that were added and are not in the tables yet.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        entries, self.entries = self.entries, []
        envelopes, self.envelopes = self.envelopes, []
        _ADD_ENTRIES.many(session, entries)
        _ADD_ENVELOPES.many(session, envelopes)


class LogTx:
    """One unit of work's hold on the log. It ends with the function that it was given to."""

    def __init__(self, session: Session, batch: Batch, savepoints: Savepoints) -> None:
        self._session = session
        self._savepoints = savepoints
        self._batch = batch
        self._entries: list[Row] = []
        self._envelopes: list[Row] = []
        self._private: list[Row] = []
        self._ids: dict[bytes, tuple[int, bytes]] = {}
        self._chains: dict[str, tuple[ChainState, str]] = {}
        self.touched: list[int] = []

    @property
    def now_ms(self) -> int:
        """Time of this batch; entries get it, and so should the rows that belong to them."""
        return self._batch.now_ms

    @property
    def size(self) -> int:
        """Index that the next entry gets."""
        return self._batch.size + len(self._entries)

    def once(self, event_id: bytes, req_sha256: bytes) -> int | None:
        """Index of an event that is in the log already, None for a new one.

        Its receipt comes with the answer of `submit`.

        Args:
            event_id: From `policies.log.entries.event_id`, 16 bytes.
            req_sha256: From `policies.log.entries.request_digest`; for a member's envelope the SHA-256 of its
                payload.

        Raises:
            LogConflictError: The id is in the log with other content.
        """
        found = self._ids.get(event_id) or self._batch.ids.get(event_id)
        if found is None:
            if not self._batch.known.may_hold(event_id):
                return None
            with self._savepoints.quiet():
                row = _KNOWN.first(self._session, {"event_id": event_id})
            if row is None:
                return None
            found = self._ids[event_id] = (row[0], row[1])
        index, known = found
        if known != req_sha256:
            raise LogConflictError(
                need=f"the content of entry {index}",
                found="the same event with other content",
                remedy="compare what you sent with your outbox before you send anything further",
            )
        if index not in self.touched:
            self.touched.append(index)
        return index

    def known(self, event: Event) -> int | None:
        """`once` for an event: its index if it is in the log already.

        Raises:
            LogConflictError: The id is in the log with other content.
        """
        return self.once(event_id(event), request_digest(event))

    def add(self, event: Event) -> int:
        """Adds an event, or finds it where it is already.

        Returns:
            Its index.

        Raises:
            LogConflictError: Rule 1 of the module docstring.
            EntryError: Rules 2, 4 and 5.
            ChainError: Rule 3 (`log.slot-taken`, `log.seq-gap`, `log.seen-unknown`, `log.chain`).
            BodyTooLargeError: The body is above the bound.
        """
        key, request = event_id(event), request_digest(event)
        index = self.once(key, request)  # 1.
        if index is not None:
            return index
        index = self.size
        if (event.type is EntryType.LOG_GENESIS) != (index == 0):  # 2.
            raise _refuse("log.genesis as the first entry and only there", f"{event.type} at index {index}")
        step = self._next(event)  # 3.
        if any(not 0 <= one < index for one in event.refs):  # 4.
            raise _refuse(f"references below {index}", str(max(event.refs)))
        self._stage(event, index, key, request)  # 5.
        if step is not None:
            state, signer, row = step
            self._chains[state.chain] = state, signer
            self._envelopes.append(row)
        return index

    def _stage(self, event: Event, index: int, key: bytes, request: bytes) -> None:
        batch = self._batch
        values = private_values(event, batch.now_ms)
        drawn = batch.entropy.token_bytes(SALT_BYTES * len(values))
        salts = {name: drawn[at * SALT_BYTES : (at + 1) * SALT_BYTES] for at, name in enumerate(values)}
        body = entry_body(event, log=batch.origin, now_ms=batch.now_ms, salts=salts)
        self._entries.append(
            {
                "idx": index,
                "event_id": key,
                "req_sha256": request,
                "leaf_hash": leaf_hash(body),
                "body": body,
                "type": event.type.value,
                "scope": event.scope,
                "run": event.run,
                "round": event.round,
                "actor": event.actor,
                "ts_ms": batch.now_ms,
            }
        )
        self._private += [
            {"event_id": key, "field": name, "salt": salts[name], "value": canonical(value)}
            for name, value in values.items()
        ]
        self._ids[key] = (index, request)
        self.touched.append(index)

    def _next(self, event: Event) -> tuple[ChainState, str, Row] | None:
        """State of the member's chain after this event's envelope, its owner, and the envelope's row."""
        envelope = event.envelope
        if envelope is None:
            return None
        payload = json.loads(
            envelope.payload
        )  # checked by whoever checked the signature, and by its digest below
        if payload["log"] != self._batch.origin:
            raise _refuse(f"an envelope for {self._batch.origin}", "one for another log")
        signer = envelope.signatures[0][0]
        before, owner = self._tip(payload["chain"])
        if owner == _ENDED:
            raise ChainError(
                need="the chain that took the place of this one",
                found=f"chain {payload['chain']}, which a chain.reset ended",
                remedy="restore the outbox that made the new chain; if it is lost: iriai-node chain reset",
            )
        if owner is None and payload["seq"] == 0 and event.type is not EntryType.AUDIT_CONCLUDED:
            self._begin(event, payload, signer)
        if signer != (owner or signer) and not self._rotated(str(owner), signer):
            raise ChainError(
                need=f"a chain of the key {signer}",
                found="one that another key began",
                remedy="each node draws a chain of its own; send nothing further until this is explained",
            )
        state = before.accept(payload)
        if state.prev != event.env:
            raise _refuse("a canonical payload", "another spelling of one")
        self._check_seen(Seen.from_json(payload["seen"]))
        row: Row = {
            "idx": self.size,
            "chain": state.chain,
            "seq": payload["seq"],
            "env": sha256(envelope.payload),
            "signer": signer,
            "seen_size": state.seen_size,
            "dsse": envelope.to_bytes(),
        }
        return state, signer, row

    def _begin(self, event: Event, payload: Mapping[str, Any], signer: str) -> None:
        """Whether a chain may begin: it is the first of its line of keys, or says which one it replaces."""
        with self._savepoints.quiet():
            begun = dict(_BEGUN.all(self._session, {}))
        begun |= {chain: owner for chain, (_, owner) in (self._batch.chains | self._chains).items()}
        line = Rotations.read(self._session).line(signer)
        mine = {chain for chain, owner in begun.items() if owner in line}
        resets = event.type is EntryType.CHAIN_RESET
        old = str(payload["body"]["old_chain"]) if resets else ""
        if old in mine - self._over():
            self._chains[old] = ChainState(chain=old), _ENDED
        elif mine or resets:
            raise ChainError(
                need="one chain of a node; another one begins with a chain.reset that names it",
                found=f"{event.type.value} as the first of chain {payload['chain']}",
                remedy="restore outbox.db; if it is lost: iriai-node chain reset",
            )

    def _over(self) -> frozenset[str]:
        """Chains that a ``chain.reset`` of an earlier batch ended."""
        if self._batch.ended is None:
            with self._savepoints.quiet():
                rows = _RESETS.all(self._session, {})
            said = [json.loads(Envelope.from_bytes(row[0]).payload)["body"]["old_chain"] for row in rows]
            self._batch.ended = frozenset(said)
        return self._batch.ended

    def _rotated(self, old: str, new: str) -> bool:
        """Whether an entry says that one key took the place of another; keys by their ids."""
        kind = _ENTRY.c.type == EntryType.KEY_ROTATED.value
        pubs = [json.loads(body)["pub"] for body in self._session.scalars(select(_ENTRY.c.body).where(kind))]
        return any((signer_of(one["old"]), signer_of(one["new"])) == (old, new) for one in pubs)

    def _tip(self, chain: str) -> tuple[ChainState, str | None]:
        """Where a chain stands, and the id of the key that began it."""
        known = self._chains.get(chain) or self._batch.chains.get(chain)
        if known is not None:
            return known
        with self._savepoints.quiet():
            row = _TIP.first(self._session, {"chain": chain})
        if row is None:
            return ChainState(chain=chain), None
        seq, env, signer, seen_size = row
        if chain in self._over():
            signer = _ENDED
        prev = f"sha256:{env.hex()}"
        return ChainState(chain=chain, next_seq=seq + 1, prev=prev, seen_size=seen_size), signer

    def _check_seen(self, seen: Seen) -> None:
        batch = self._batch
        if seen.size <= batch.signed_size and batch.tree.root(seen.size) == seen.root:
            return
        raise SeenError(
            need=f"a checkpoint of this log, of at most {batch.signed_size} entries",
            found=f"size {seen.size} root {seen.root.hex()}",
            remedy="keep the checkpoint as evidence and compare checkpoints with the other members",
        )

    def keep(self) -> None:
        """Hands what was added over to the batch; called once, when the unit of work has ended well."""
        batch = self._batch
        invariant(
            all(row["idx"] == batch.size + at for at, row in enumerate(self._entries)), "indices in order"
        )
        batch.leaves += [
            bytes(row["leaf_hash"]) for row in self._entries if isinstance(row["leaf_hash"], bytes)
        ]
        batch.size += len(self._entries)
        batch.entries += self._entries
        batch.envelopes += self._envelopes
        batch.private_rows += self._private
        batch.ids |= self._ids
        batch.chains |= self._chains


def _refuse(need: str, found: str) -> EntryError:
    return EntryError(need=need, found=found, remedy="report this with the command that led to it")
