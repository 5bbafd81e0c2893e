# SPDX-License-Identifier: Apache-2.0
"""Rows of the outbox as values, and its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.exchange import RequestHeader
    from policies.signing import Envelope

__all__ = ["Closing", "Decided", "Proven", "Seen", "Sent", "Stored", "WitnessedNote"]


SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS envelope(
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, scope TEXT, run TEXT, round INTEGER, slot TEXT UNIQUE,
  env TEXT NOT NULL UNIQUE, dsse BLOB NOT NULL, at_ms INTEGER NOT NULL,
  log_index INTEGER, leaf BLOB, receipt TEXT) STRICT;
CREATE TABLE IF NOT EXISTS sent(
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  digest TEXT NOT NULL, clause TEXT, contract TEXT, run TEXT, round INTEGER, attempt INTEGER,
  first_seq INTEGER, last_seq INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS seen(
  size INTEGER PRIMARY KEY, root TEXT NOT NULL, note TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS decision(
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, contract TEXT NOT NULL, recipe TEXT NOT NULL,
  run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL,
  allow INTEGER NOT NULL, clauses TEXT NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS stop(at_ms INTEGER NOT NULL, reason TEXT NOT NULL, evidence TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS envelope_kept BEFORE DELETE ON envelope BEGIN SELECT RAISE(ABORT, 'kept'); END;
CREATE TRIGGER IF NOT EXISTS sent_kept BEFORE DELETE ON sent BEGIN SELECT RAISE(ABORT, 'kept'); END;
CREATE TRIGGER IF NOT EXISTS envelope_fixed
  BEFORE UPDATE OF seq, env, dsse ON envelope BEGIN SELECT RAISE(ABORT, 'fixed'); END;
CREATE TABLE IF NOT EXISTS cosigned(
  one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root TEXT NOT NULL, time_s INTEGER NOT NULL,
  note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS witnessed(size INTEGER PRIMARY KEY, note TEXT NOT NULL, at_ms INTEGER NOT NULL)
  STRICT;
CREATE TABLE IF NOT EXISTS witnessed_receipt(
  env TEXT PRIMARY KEY, size INTEGER NOT NULL, receipt TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;
"""


SELECT = (
    "SELECT seq, kind, scope, run, round, slot, envelope.env, dsse, envelope.at_ms, log_index,"
    " envelope.receipt, w.receipt FROM envelope LEFT JOIN witnessed_receipt w ON w.env = envelope.env "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The last checkpoint that this node verified as consistent with all it saw before."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A receipt that was verified: index in the log, leaf hash, and its text with the entry's bytes."""

    index: int
    leaf: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """An entry ``round.closed`` that was verified: where it stands, its leaf hash, of which attempt it is."""

    index: int
    leaf: bytes
    scope: str | None
    run: str | None
    round: int | None
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedNote:
    """A checkpoint with cosignatures that some contract's quorum accepts, and when it was seen first."""

    size: int
    note: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One envelope of this node's chain; ``receipt`` is of grade signed, ``witnessed`` of grade witnessed."""

    seq: int
    kind: str
    scope: str | None
    run: str | None
    round: int | None
    slot: str | None
    env: str
    envelope: Envelope
    at_ms: int
    log_index: int | None
    receipt: str | None
    witnessed: str | None = None

    @property
    def event_id(self) -> str:
        """Id of its entry in the log, 32 hex digits."""
        return self.env.removeprefix("sha256:")[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One decision of this node's guard; ``document``: record, request, state, salt, local findings."""

    at_ms: int
    contract: str
    recipe: str
    run: str
    round: int
    attempt: int
    kind: str
    allow: bool
    clauses: tuple[str, ...]
    document: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        header: RequestHeader,
        at_ms: int,
        *,
        allow: bool,
        clauses: tuple[str, ...] = (),
        document: Mapping[str, Any],
    ) -> Self:
        """What was decided about a request."""
        return cls(
            at_ms=at_ms,
            contract=header.contract,
            recipe=header.recipe,
            run=header.run,
            round=header.round,
            attempt=header.attempt,
            kind=header.type.value,
            allow=allow,
            clauses=clauses,
            document=document,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One transmission. ``receipts`` is ``-`` without envelopes, else ``n of m``.

    ``first`` and ``last`` are the rows of its envelopes (`Stored.seq`), None without any.
    """

    at_ms: int
    kind: str
    size_bytes: int
    digest: str
    clause: str | None
    contract: str | None
    run: str | None
    round: int | None
    attempt: int | None
    receipts: str
    first: int | None = None
    last: int | None = None
