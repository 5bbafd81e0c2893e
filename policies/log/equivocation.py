# SPDX-License-Identifier: Apache-2.0
"""Evidence that a log told two histories: two notes that it signed and that cannot both be true.

- **Same size**: two roots. The notes are all the evidence there is.
- **Different sizes**: the notes and a proof that leads to the root of the larger one and to another root
  than the smaller one has. Hashes cannot be made to fit, so the larger tree has another beginning.

The proof is a consistency proof in the larger tree. It always starts with the root of the subtree on the
right edge of the smaller size; RFC 9162 leaves that hash out where the smaller size is a power of two, but
there the verifier takes it from the smaller head, which is the one in doubt. `prove` makes it.

File ``equivocation.proof``, in which everything has one spelling::

    iriai-equivocation/v1
    proof 2                        or `proof none`
    <base64 of a hash>             as many as it says
    note 5                         lines of the first note
    <its lines>
    note 6
    <its lines>

Whoever has the log's vkey can check it by hand: both signatures, then the hashes (RFC 9162, section 2.1.4.2).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.log.checkpoint import NOTE_BYTES, open_checkpoint, parse_checkpoint, parse_note
from policies.log.errors import ProofError
from policies.log.merkle import HASH_BYTES, PROOF_HASHES_MAX, folded_roots
from policies.log.vkeys import strict_b64

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from policies.log.checkpoint import Checkpoint, VerifierKey

    class Tree(Protocol):
        """What `prove` needs of the larger log: `TileTree` and `MemoryTree` are two."""

        def root(self, size: int) -> bytes: ...
        def consistency(self, old: int, new: int) -> list[bytes]: ...


__all__ = ["Evidence", "parse_evidence", "prove"]

FILE_NAME = "equivocation.proof"
_MAGIC = "iriai-equivocation/v1"
_COUNT = re.compile(r"(proof|note) (none|[1-9][0-9]{0,3})")


def _refuse(need: str, found: str) -> ProofError:
    return ProofError(
        need=need,
        found=ascii(found)[1:-1][:120],
        remedy="keep both notes; fetch the tiles of the larger one and compare again",
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two notes of one log, in any order, and where their sizes differ a proof; `check` judges them."""

    first: str
    second: str
    proof: tuple[bytes, ...] | None = None

    def to_text(self) -> str:
        """The evidence as a file."""
        proof = self.proof or ()
        lines = [_MAGIC, f"proof {len(proof) or 'none'}"]
        lines += [base64.b64encode(one).decode("ascii") for one in proof]
        for note in (self.first, self.second):
            lines += [f"note {note.count(chr(10))}", note.removesuffix("\n")]
        return "\n".join([*lines, ""])

    def check(self, log_keys: Iterable[VerifierKey]) -> str:
        """What contradicts, in words.

        1. both notes open under these keys; 2. they are of one log; 3. of one size: their roots differ;
        4. otherwise the proof leads to the larger root; 5. and to another root than the smaller one.

        Raises:
            NoteError: Step 1, a note is malformed or a known signature fails.
            QuorumError: Step 1, the log did not sign one of them.
            ProofError: Both notes can be true, or nothing shows that they cannot.
        """
        keys = tuple(log_keys)
        one, other = open_checkpoint(self.first, keys), open_checkpoint(self.second, keys)
        if one.origin != other.origin:
            raise _refuse("two notes of one log", f"{one.origin} and {other.origin}")
        if one.size == other.size:
            return _two_roots(one, other)
        smaller, larger = sorted((one, other), key=lambda head: head.size)
        return _another_beginning(smaller, larger, self.proof)


def _two_roots(one: Checkpoint, other: Checkpoint) -> str:
    if one.root == other.root:
        raise _refuse("two roots for one size", f"the same root for {one.size} entries")
    return f"{one.origin} signed two roots for {one.size} entries: {one.root.hex()} and {other.root.hex()}"


def _another_beginning(smaller: Checkpoint, larger: Checkpoint, proof: tuple[bytes, ...] | None) -> str:
    if proof is None or not smaller.size:
        raise _refuse(
            "a proof in the tree of the larger note, from a smaller one that is not empty",
            f"sizes {smaller.size} and {larger.size} and no proof",
        )
    older, newer = folded_roots(smaller.size, larger.size, proof)
    if newer != larger.root:
        raise _refuse(f"a proof that leads to the larger root {larger.root.hex()}", newer.hex())
    if older == smaller.root:
        raise _refuse(
            "a proof that contradicts the smaller root", "one that confirms it: both notes are true"
        )
    return (
        f"{larger.origin} signed {larger.size} entries that do not begin with the {smaller.size} it signed:"
        f" the root of those is {older.hex()}, and it signed {smaller.root.hex()}"
    )


def prove(first: str, second: str, tree_of_larger: Tree | None = None) -> Evidence:
    """Evidence from two notes of one log and, where their sizes differ, the tree of the larger one.

    The tree may be fetched from the log itself: what does not lead to the signed root is refused by
    `Evidence.check`, which is the caller's next step.

    Raises:
        NoteError: A note is malformed.
        ProofError: The tree is missing or has other sizes.
    """
    one, other = (parse_checkpoint(parse_note(note).text) for note in (first, second))
    old, new = sorted((one.size, other.size))
    if old == new or not old:
        return Evidence(first, second)
    if tree_of_larger is None:
        raise _refuse(f"the tree of size {new}", "none")
    proof = tree_of_larger.consistency(old, new)
    if old.bit_count() == 1:
        proof = [tree_of_larger.root(old), *proof]
    return Evidence(first, second, tuple(proof))


def parse_evidence(text: str) -> Evidence:
    """Evidence from its file; nothing is verified yet.

    Raises:
        ProofError: Another form, or another spelling of the same evidence.
    """
    if len(text) > 2 * NOTE_BYTES + 8 * 1024:
        raise _refuse("a small file", f"{len(text)} characters")
    lines = text.split("\n")[::-1]  # the next line is the last of the list
    if lines.pop() != _MAGIC:
        raise _refuse(_MAGIC, text[:40])
    proof = [_hash(one) for one in _section(lines, "proof")]
    first, second = ("".join(f"{one}\n" for one in _section(lines, "note")) for _ in range(2))
    evidence = Evidence(first, second, tuple(proof) or None)
    if len(proof) > PROOF_HASHES_MAX or evidence.to_text() != text:
        raise _refuse("the one spelling of the evidence", "another")
    return evidence


def _section(lines: list[str], what: str) -> list[str]:
    head = lines.pop() if lines else ""
    found = _COUNT.fullmatch(head)
    if found is None or found[1] != what:
        raise _refuse(f"`{what} <lines>`", head)
    count = 0 if found[2] == "none" else int(found[2])
    if count > len(lines):
        raise _refuse(f"{count} lines", str(len(lines)))
    return [lines.pop() for _ in range(count)]


def _hash(line: str) -> bytes:
    raw = strict_b64(line)
    if raw is None or len(raw) != HASH_BYTES:
        raise _refuse("base64 of 32 bytes", line)
    return raw
