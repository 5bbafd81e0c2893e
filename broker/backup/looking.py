# SPDX-License-Identifier: Apache-2.0
"""Whether the copies of the two databases hold what they should: pages, log, tiles, envelopes, newest note.

1. SQLite finds no damaged page; 2. every body hashes to its stored leaf hash, and all of them lead to the
stored head; 3. the tiles and envelopes are those of the bodies; 4. the newest published note is the root of
these bodies at its size, and a key of the log signed it.

Nothing is written, and no file appears beside the copies.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from sqlalchemy import create_engine, select

from broker.backup.errors import BackupDamagedError
from broker.log.envelopes import damaged_envelope
from broker.log.recovery import read_head
from broker.log.tiles import differing
from broker.log.tree import GrowingTree
from broker.store import postgres, tables
from policies.log.checkpoint import open_checkpoint
from policies.log.errors import LogError, ProofError
from policies.log.merkle import EMPTY_ROOT, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from broker.settings import Database
    from broker.store import Session
    from policies.log.vkeys import VerifierKey

__all__ = ["Looked", "check_log", "check_pages", "reading"]

_CHUNK: Final = 2_000
_ENTRY = tables.log_entry
_CHECKPOINT = tables.log_checkpoint
_FAULTS: Final = (sqlite3.DatabaseError, ProofError, LogError)


class Looked(NamedTuple):
    """A log that holds: entries, the newest note (empty for the empty log), size and root that it signed."""

    size: int
    note: str
    signed: int
    root: bytes


def check_pages(path: Path) -> None:
    """Returns if SQLite finds nothing wrong with a file.

    Raises:
        BackupDamagedError: It does; or it is no database.
    """
    try:
        with closing(_connected(path)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise _damaged(f"{path.name}: a database", str(error)) from error
    if found != "ok":
        raise _damaged(f"{path.name}: whole pages", str(found))


@contextmanager
def reading(where: Database) -> Iterator[Session]:
    """A session that reads a copy, or a database of PostgreSQL, and cannot change it."""
    if isinstance(where, str):
        engine = postgres.reading_engine(where)
    else:
        engine = create_engine("sqlite+pysqlite://", creator=lambda: _connected(where))
    try:
        with engine.connect() as session:
            yield session
    finally:
        engine.dispose()


def check_log(session: Session, vkeys: Iterable[VerifierKey]) -> Looked:
    """Hashes the log again, steps 2 to 4.

    Raises:
        BackupDamagedError: One of them does not hold.
    """
    tree = _hashed(session)
    tiles, _ = differing(session, tree)
    damage = tiles or damaged_envelope(session)
    if damage is not None:
        raise _damaged("tiles and envelopes of these bodies", damage)
    row = session.execute(
        select(_CHECKPOINT.c.size, _CHECKPOINT.c.root, _CHECKPOINT.c.note).order_by(_CHECKPOINT.c.size.desc())
    ).first()
    if row is None:
        return Looked(tree.size, "", 0, EMPTY_ROOT)
    try:
        checkpoint = open_checkpoint(row.note, vkeys)
    except LogError as error:
        raise _damaged("a note that the log's key signed", error.found) from error
    if checkpoint.size > tree.size or tree.root(checkpoint.size) != checkpoint.root:
        raise _damaged(f"the bodies that the note of size {checkpoint.size} signs", f"{tree.size} other ones")
    return Looked(tree.size, row.note, checkpoint.size, checkpoint.root)


def _hashed(session: Session) -> GrowingTree:
    tree = GrowingTree()
    query = select(_ENTRY.c.idx, _ENTRY.c.body, _ENTRY.c.leaf_hash).order_by(_ENTRY.c.idx)
    with session.execution_options(yield_per=_CHUNK).execute(query) as rows:
        for part in rows.partitions():
            leaves = []
            for at, (index, body, stored) in enumerate(part, tree.size):
                leaf = leaf_hash(body)
                if index != at or leaf != stored:
                    raise _damaged(f"entry {at} as it was hashed", "another one, or none")
                leaves.append(leaf)
            tree.extend(leaves)
    try:
        head = read_head(session)
    except ProofError as error:
        raise _damaged("a head of the log", error.found) from error
    if tree.frontier() != head:
        raise _damaged(f"a head of {tree.size} entries", f"one of {head.size}")
    return tree


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)


def _damaged(need: str, found: str) -> BackupDamagedError:
    return BackupDamagedError(
        need=need,
        found=found[:200],
        remedy="use another backup; if the broker itself says so too, keep its folder as it is and see "
        "iriai-broker log status",
    )
