# SPDX-License-Identifier: Apache-2.0
"""Which keys this node had, one after the other: a hand-over per change of key, signed by both keys.

::

    keys/history.json   {"schema":"iriai-keys/1","handovers":[DSSE, …]}, oldest first
    keys/next.key       the key that is about to follow, while a change of key is under way

A hand-over (payload type `HANDOVER_TYPE`) says where the old key stops in what this node signs for itself::

    {"schema":"iriai-handover/1","old":key,"new":key,"at":time,
     "ledgers":{"<file stem>":{"seq":first entry of the new key,"head":digest of the entry before}}}

- Entries of a budget ledger below ``seq`` are the old key's, all later ones the new key's; the entry before
  must be there with this digest, or the ledger is an older copy.
- Hand-overs form a chain: each old key is the new key of the one before. Private keys are not kept: who finds
  a given-up key can sign nothing that is believed here.

    history = read_history(home.keys)
    history.former(identity.key.public)      # public keys before the present one, oldest first
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from client.errors import KeyFileError
from client.settings import sync_folder, write_durably
from policies.encoding import canonical, is_digest, parse
from policies.errors import IriaiError
from policies.identity import SigningKey, key_text, parse_key
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "HANDOVER_TYPE",
    "HandOver",
    "KeyHistory",
    "Mark",
    "adopt_next",
    "append",
    "next_key",
    "put_next",
    "read_history",
]

HANDOVER_TYPE: Final = "application/vnd.iriai.handover.v1+json"
NEXT: Final = "next.key"
_HISTORY: Final = "history.json"
_SCHEMA: Final = "iriai-keys/1"
_HANDOVER: Final = "iriai-handover/1"
_SIGNATURES: Final = 2


class Mark(NamedTuple):
    """First entry of a ledger that the new key signed, and the digest of the entry before it."""

    seq: int
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One change of key, read strictly.

    Attributes:
        old: The key that was given up, as text.
        new: The key that follows, as text.
        at: When, by this node's clock.
        ledgers: Where the new key begins, by the file stem of each budget ledger.
    """

    old: str
    new: str
    at: str
    ledgers: Mapping[str, Mark]

    @property
    def payload(self) -> bytes:
        """The canonical bytes that both keys sign."""
        ledgers = {stem: one._asdict() for stem, one in self.ledgers.items()}
        return canonical(
            {"schema": _HANDOVER, "old": self.old, "new": self.new, "at": self.at, "ledgers": ledgers}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHistory:
    """Every hand-over of this node, verified, oldest first."""

    handovers: tuple[HandOver, ...] = ()
    envelopes: tuple[Envelope, ...] = field(default=(), repr=False)

    @property
    def last(self) -> HandOver | None:
        """The newest one, or None."""
        return self.handovers[-1] if self.handovers else None

    def knows(self, key: bytes) -> bool:
        """Whether a key is one of this node's; the first history is empty and knows any."""
        text = key_text(key)
        return not self.handovers or any(text in (one.old, one.new) for one in self.handovers)

    def until(self, key: bytes) -> tuple[HandOver, ...]:
        """The hand-overs that led to a key."""
        text = key_text(key)
        ends = [number for number, one in enumerate(self.handovers, 1) if one.new == text]
        return self.handovers[: ends[-1]] if ends else ()

    def former(self, key: bytes) -> tuple[bytes, ...]:
        """The public keys before a key, oldest first."""
        return tuple(parse_key(one.old) for one in self.until(key))

    def marks(self, stem: str, key: bytes) -> tuple[tuple[int, bytes], ...]:
        """Former signers of a ledger: each with the first entry that is not its own any more."""
        return tuple(
            (one.ledgers[stem].seq, parse_key(one.old)) for one in self.until(key) if stem in one.ledgers
        )

    def newest_mark(self, stem: str, key: bytes) -> tuple[int, str] | None:
        """Position and digest of the last entry of a ledger that some hand-over names, or None."""
        found = [one.ledgers[stem] for one in self.until(key) if stem in one.ledgers]
        return (found[-1].seq - 1, found[-1].head) if found else None


_EMPTY: Final = KeyHistory()


def read_history(keys: Path) -> KeyHistory:
    """The hand-overs in a node's key folder, each signed by both of its keys.

    Raises:
        KeyFileError: The file was changed, or does not belong together.
    """
    path = keys / _HISTORY
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _EMPTY
    try:
        tree: Any = parse(data)
        if set(tree) != {"schema", "handovers"} or tree["schema"] != _SCHEMA:
            raise _damaged(path, "another document")
        envelopes = tuple(Envelope.from_json(one) for one in tree["handovers"])
        handovers = tuple(_opened(one, path) for one in envelopes)
    except KeyFileError:
        raise
    except (IriaiError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, type(error).__name__) from error
    if any(before.new != one.old for before, one in itertools.pairwise(handovers)):
        raise _damaged(path, "a hand-over of another key")
    return KeyHistory(handovers=handovers, envelopes=envelopes)


def _opened(envelope: Envelope, path: Path) -> HandOver:
    tree: Any = parse(envelope.payload)
    if envelope.payload_type != HANDOVER_TYPE or tree["schema"] != _HANDOVER:
        raise _damaged(path, "another document")
    marks = {stem: Mark(one["seq"], one["head"]) for stem, one in tree["ledgers"].items()}
    if not all(type(one.seq) is int and one.seq > 0 and is_digest(one.head) for one in marks.values()):
        raise _damaged(path, "a ledger without a position")
    found = HandOver(
        old=str(tree["old"]), new=str(tree["new"]), at=str(tree["at"]), ledgers=MappingProxyType(marks)
    )
    both = len(envelope.signatures) == _SIGNATURES and found.payload == envelope.payload
    if not both or not all(envelope.signed_by(parse_key(one)) for one in (found.old, found.new)):
        raise _damaged(path, "a hand-over that one of its keys has not signed")
    return found


def append(keys: Path, handover: HandOver, *, old: SigningKey, new: SigningKey) -> None:
    """Adds a hand-over, durably; one that led to this key already stays as it is."""
    history = read_history(keys)
    if history.last is not None and history.last.new == handover.new:
        return
    sealed = Envelope.seal(handover.payload, HANDOVER_TYPE, old, new)
    _opened(sealed, keys / _HISTORY)
    tree = {"schema": _SCHEMA, "handovers": [one.to_json() for one in (*history.envelopes, sealed)]}
    write_durably(keys / _HISTORY, canonical(tree))


def next_key(keys: Path, data: bytes | None) -> SigningKey | None:
    """The key that is about to follow, from the bytes of its file.

    Raises:
        KeyFileError: They are no key.
    """
    if data is None:
        return None
    try:
        return SigningKey.from_pem(data)
    except (IriaiError, ValueError, TypeError) as error:
        raise KeyFileError(
            need=f"an Ed25519 key in {keys / NEXT}",
            found=type(error).__name__,
            remedy="restore it from the backup; the broker may know this key already",
        ) from error


def put_next(keys: Path, key: SigningKey) -> None:
    """Makes a new private key durable beside the present one; a crash leaves it whole or not at all."""
    write_durably(keys / NEXT, key.to_pem())


def adopt_next(keys: Path) -> None:
    """The next key becomes the node's key in one step; the old private key is gone with it."""
    with contextlib.suppress(FileNotFoundError):
        (keys / NEXT).replace(keys / "node.key")
    sync_folder(keys)


def _damaged(path: Path, found: str) -> KeyFileError:
    return KeyFileError(
        need=f"the hand-overs of this node's keys in {path}",
        found=found,
        remedy="restore the folder keys from the backup; nothing is signed before",
    )
