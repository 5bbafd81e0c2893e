# SPDX-License-Identifier: Apache-2.0
"""The bundle, written from the databases as a stream; `broker.log.sections` says what is in it.

- The same state and the same head give the same bytes.
- The head is the caller's choice: where there are witnesses the newest checkpoint with the quorum of the
  broker's policy, so that an auditor's own quorum holds; else the newest signed one.
- What was erased by an entry behind the head is gone, and the bundle would not say why: then it is refused,
  until a checkpoint covers the erasure.
- The policy in it is one that an entry of the bundle names.
"""

from __future__ import annotations

import hashlib
import os
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from broker.keyfiles import PRIVATE
from broker.log.errors import LogUnavailableError
from broker.log.sections import Sections
from broker.log.survey import View
from broker.store import tables
from policies.log.bundle import BundleWriter, head_bytes
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from broker.log.append import Writer
    from broker.log.receipts import Head
    from broker.store import Store
    from policies.signing import Envelope

__all__ = ["Exported", "View", "export"]

_VERSION: Final = 2


class Exported(NamedTuple):
    """A bundle that was written: its size in entries and bytes, and its digest."""

    entries: int
    size_bytes: int
    digest: str


def export(
    store: Store,
    writer: Writer,
    path: Path,
    *,
    policy: str,
    software: str,
    contracts: Iterable[tuple[bytes, Envelope]] = (),
    transcript: Callable[[str], bytes | None] = lambda _: None,
    first_policy: str | None = None,
    head: Head | None = None,
    view: View | None = None,
) -> Exported:
    """Writes a bundle to a file that only the owner may read.

    Args:
        store: The databases.
        writer: For the head and the receipts.
        path: Replaced if it exists.
        policy: Text of the broker's copy of the policy file.
        software: Version of this program.
        contracts: Canonical bytes and signatures of the contracts that the view may see; those that no entry
            names are left out.
        transcript: Reads one by its digest.
        first_policy: Takes the place of ``policy`` if no entry of the bundle names that one.
        head: Where it ends; the newest signed head, if None.
        view: Whose it is; the operators', who see everything, if None.

    Raises:
        BundleError: More than a bundle may hold.
        LogFrozenError: The log has no head that it can show.
        LogUnavailableError: No checkpoint covers an erasure yet.
        OSError: The disk or the folder does not allow it; nothing is left of the file.
    """
    head = writer.head() if head is None else head
    _check_erasures(store, head)
    with store.read() as session:
        sections = Sections(
            store,
            session,
            writer.receipts,
            head=head,
            view=view or View(),
            policies=(policy,) if first_policy is None else (policy, first_policy),
            contracts=contracts,
            transcript=transcript,
        )
        done = _write(path, sections, head=head, origin=writer.origin, software=software)
    try:
        _check_erasures(store, head)
    except LogUnavailableError:
        path.unlink()
        raise
    return done


def _check_erasures(store: Store, head: Head) -> None:
    entry = tables.log_entry
    where = (entry.c.type == EntryType.ERASURE_PERFORMED.value) & (entry.c.idx >= head.size)
    with store.read() as session:
        index = session.scalar(select(entry.c.idx).where(where).limit(1))
    if index is not None:
        raise LogUnavailableError(
            need=f"a checkpoint that covers the erasure at entry {index}",
            found=f"one of {head.size} entries",
            remedy="ask again when witnesses have cosigned a newer one; operators may take --signed",
        )


def _write(path: Path, sections: Sections, *, head: Head, origin: str, software: str) -> Exported:
    """The file, beside its name first: whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with (
            open(part, "w+b", opener=_private) as file,
            TemporaryFile(dir=path.parent) as scratch,
        ):
            writer = BundleWriter(file, scratch=scratch)
            facts = {"grade": sections.grade, "origin": origin, "software": software}
            writer.add("BUNDLE", head_bytes(version=_VERSION, size=head.size, **facts))
            for one in sections.files():
                writer.add_pieces(one.name, one.pieces)
            size = writer.finish()
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            name = hashlib.file_digest(file, "sha256").hexdigest()
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Exported(head.size, size, f"sha256:{name}")


def _private(name: str, flags: int) -> int:
    """Opens a file that only the owner may read, from its first byte on."""
    return os.open(name, flags | os.O_NOFOLLOW, PRIVATE)
