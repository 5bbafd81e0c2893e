# SPDX-License-Identifier: Apache-2.0
"""The rows that a repair writes, made from a bundle, pack by pack.

    keys = keys_of(bundle, store, session)
    for rows in packs(bundle, keys, start): ...      entries, envelopes and what is disclosed, from start on

A pack with an envelope that nobody can believe is refused (`broker.log.repair_keys`). A disclosure that
does not open what its entry commits to is left out, and counted as missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.log.errors import LogRepairError
from broker.log.repair_keys import EnvelopeKeys
from broker.store import tables
from policies.encoding import canonical, sha256
from policies.log.entries import Entry, EntryType, Event, check_entry, commitment, request_digest
from policies.log.merkle import leaf_hash
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.log.bundle_source import BundleSource
    from broker.store import Session, Store
    from policies.signing import Envelope

__all__ = ["Row", "Rows", "keys_of", "packs"]

Row = dict[str, Any]
_PACK: Final = 256
_NAMED_BY: Final = ("key", "vkey")  # confidential fields that are the text of a key
_ERASED: Final = f'"type":"{EntryType.ERASURE_PERFORMED.value}"'.encode("ascii")


def keys_of(bundle: BundleSource, store: Store, session: Session) -> EnvelopeKeys:
    """What may name a public key: the bundle's documents, and what the databases still have."""
    texts = [*bundle.documents()]
    for n in range(-(-bundle.size // _PACK)):
        texts += [value for _, name, _, value in bundle.disclosures(n) if name in _NAMED_BY and value]
    texts += [*session.scalars(select(tables.organisation.c.node_key))]
    texts += [*session.scalars(select(tables.auditor.c.key))]
    table = tables.log_private
    with store.read_private() as private:
        values = private.scalars(select(table.c.value).where(table.c.field.in_(_NAMED_BY)))
        texts += [bytes(one).decode("utf-8", "replace") for one in values]
    keys = EnvelopeKeys(one for one in texts if isinstance(one, str))
    rows = select(tables.log_envelope.c.chain, tables.log_envelope.c.signer).order_by(
        tables.log_envelope.c.idx
    )
    for chain, signer in session.execute(rows):
        keys.stored(chain, signer)
    return keys


def packs(bundle: BundleSource, keys: EnvelopeKeys, start: int) -> Iterator[Rows]:
    """Rows of every entry from an index on, pack by pack.

    Raises:
        LogRepairError: An envelope that nobody can believe.
    """
    erased: set[tuple[int, str]] = set()
    for bodies in bundle.bodies():
        for entry in (check_entry(body) for body in bodies if _ERASED in body):
            erased |= {(at, name) for at in entry.pub.get("indexes", ()) for name in entry.pub["fields"]}
    for n, bodies in enumerate(bundle.bodies()):
        first = n * _PACK
        entries = {at: check_entry(body) for at, body in enumerate(bodies, start=first)}
        for at, entry in entries.items():
            keys.saw(at, entry)
        if first + len(bodies) > start:
            coming = {at: entry for at, entry in entries.items() if at >= start}
            yield Rows(coming, bundle.envelopes(n), bundle.disclosures(n), keys, erased)


class Rows:
    """Rows of these entries of one pack."""

    def __init__(
        self,
        known: dict[int, Entry],
        envelopes: dict[int, Envelope],
        opened: list[Any],
        keys: EnvelopeKeys,
        erased: set[tuple[int, str]],
    ) -> None:
        self.entries: list[Row] = []
        self.envelopes: list[Row] = []
        self.private: list[Row] = []
        missing = {(at, name) for at, entry in known.items() for name in entry.sd} - erased
        times: dict[int, int] = {}
        for index, name, salt, value in opened:
            entry = known.get(index)
            if entry is not None and commitment(salt, name, value) == entry.sd.get(name):
                row = {"event_id": entry.id, "field": name, "salt": salt, "value": canonical(value)}
                self.private.append(row)
                missing.discard((index, name))
                if name == "at":
                    times[index] = to_ms(value)
        self.undisclosed = len(missing)
        for index, entry in known.items():
            self.entries.append(_entry_row(index, entry, times.get(index, to_ms(entry.ts))))
            if entry.env is not None:
                self.envelopes.append(_envelope_row(index, entry, envelopes.get(index), keys))


def _entry_row(index: int, entry: Entry, ts_ms: int) -> Row:
    return {
        "idx": index,
        "event_id": entry.id,
        "req_sha256": _request(entry),
        "leaf_hash": leaf_hash(entry.body),
        "body": entry.body,
        "type": entry.type.value,
        "scope": entry.scope,
        "run": entry.run,
        "round": entry.round,
        "actor": entry.actor,
        "ts_ms": ts_ms,
    }


def _request(entry: Entry) -> bytes:
    if entry.env is not None:
        return bytes.fromhex(entry.env.removeprefix("sha256:"))
    return request_digest(
        Event(
            type=entry.type,
            actor=entry.actor,
            scope=entry.scope,
            run=entry.run,
            round=entry.round,
            refs=entry.refs,
            pub=entry.pub,
        )
    )


def _envelope_row(index: int, entry: Entry, envelope: Envelope | None, keys: EnvelopeKeys) -> Row:
    if envelope is None:
        raise LogRepairError(
            need=f"the envelope of entry {index}",
            found="none",
            remedy="take another bundle; nothing was changed",
        )
    payload = keys.open(index, entry, envelope)
    return {
        "idx": index,
        "chain": payload["chain"],
        "seq": payload["seq"],
        "env": sha256(envelope.payload),
        "signer": envelope.signatures[0][0],
        "seen_size": payload["seen"]["size"],
        "dsse": envelope.to_bytes(),
    }
