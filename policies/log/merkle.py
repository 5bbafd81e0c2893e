# SPDX-License-Identifier: Apache-2.0
"""Merkle trees of RFC 6962 and RFC 9162 with SHA-256: hashing, appending, proving, verifying.

- A leaf hashes with the prefix 0x00, a node with 0x01, so that a leaf never passes for a node.
- `Frontier` is the compact range of a tree: the roots of its perfect subtrees, largest first. It is all
  that appending needs.
- Proofs are made from leaf hashes that a callback fetches by range; no tree is kept in memory.
- Verifiers take the exact number of hashes, never more or fewer, and raise `ProofError`; none returns a bool.
- Consistency from size 0 proves nothing, so it is refused; a caller who starts at nothing decides that for
  itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policies.log.errors import ProofError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "PROOF_HASHES_MAX",
    "Frontier",
    "LeafFetch",
    "MemoryTree",
    "Subtree",
    "consistency_proof",
    "folded_roots",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "prefix_of",
    "prove_consistency",
    "prove_inclusion",
    "range_root",
    "root_from_leaves",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
PROOF_HASHES_MAX = 63  # of any proof: a tree has at most 2^63 - 1 leaves
EMPTY_ROOT = hashlib.sha256(b"").digest()
SIZE_MAX = 2**63 - 1
_REMEDY = (
    "fetch the proof again; if it repeats, keep it as evidence and compare checkpoints with the other members"
)

LeafFetch = Callable[[int, int], Sequence[bytes]]
"""Leaf hashes ``[start, end)``, exactly ``end - start`` of them, 32 bytes each."""

Subtree = Callable[[int, int], bytes]
"""Root of the leaves ``[start, end)``; ``start`` is a multiple of the range's largest power of two."""


def leaf_hash(body: bytes) -> bytes:
    """``SHA256(0x00 || body)`` (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA256(0x01 || left || right)`` (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: its size, and the roots of its perfect subtrees, largest first."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= SIZE_MAX or len(self.nodes) != self.size.bit_count():
            raise ProofError(
                need=f"{self.size.bit_count()} subtree roots for size {self.size}",
                found=f"{len(self.nodes)}",
                remedy="rebuild the frontier from the stored entries",
            )
        if any(len(node) != HASH_BYTES for node in self.nodes):
            raise ProofError(need="hashes of 32 bytes", found="another length", remedy="rebuild the frontier")

    def append(self, *leaf_hashes: bytes) -> Frontier:
        """The frontier after these leaf hashes (32 bytes each)."""
        size, nodes = self.size, list(self.nodes)
        for leaf in leaf_hashes:
            node, rest = leaf, size
            while rest & 1:
                node = node_hash(nodes.pop(), node)
                rest >>= 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """Root of the tree, 32 bytes; `EMPTY_ROOT` for size 0."""
        return _fold(self.nodes)

    def to_bytes(self) -> bytes:
        """The subtree roots one after the other, as the head row stores them."""
        return b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Frontier of a stored head row.

        Raises:
            ProofError: The length does not fit the size.
        """
        if len(data) % HASH_BYTES:
            raise ProofError(need="whole hashes", found=f"{len(data)} bytes", remedy="rebuild the frontier")
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)))


def root_from_leaves(leaf_hashes: Iterable[bytes]) -> bytes:
    """Root of a whole tree from the hashes of its leaves (`leaf_hash`, 32 bytes each); `EMPTY_ROOT` for none.

    Raises:
        ProofError: A hash of another length.
    """
    nodes: list[bytes] = []
    for size, leaf in enumerate(leaf_hashes):
        _check_hashes(leaf)
        node, rest = leaf, size
        while rest & 1:
            node = node_hash(nodes.pop(), node)
            rest >>= 1
        nodes.append(node)
    return _fold(nodes)


def _fold(nodes: Sequence[bytes]) -> bytes:
    """Root over the roots of perfect subtrees, largest first."""
    if not nodes:
        return EMPTY_ROOT
    node = nodes[-1]
    for left in reversed(nodes[:-1]):
        node = node_hash(left, node)
    return node


def _split(size: int) -> int:
    """Largest power of two below ``size`` (which is at least 2)."""
    return 1 << (size - 1).bit_length() - 1


def range_root(start: int, end: int, node: Callable[[int, int], bytes]) -> bytes:
    """Root of the leaves ``[start, end)`` from the nodes of a stored tree.

    Args:
        start: A multiple of the largest power of two that fits into the range.
        end: Behind the last leaf.
        node: Root of the ``index``-th perfect subtree of ``2 ** level`` leaves, by (level, index).
    """
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(node(level, start >> level))
        start += 1 << level
    return _fold(nodes)


def _subtrees(fetch: LeafFetch) -> Subtree:
    def subtree(start: int, end: int) -> bytes:
        leaves = fetch(start, end)
        if len(leaves) != end - start:
            raise ProofError(
                need=f"{end - start} leaf hashes", found=str(len(leaves)), remedy="repair the store"
            )
        return root_from_leaves(leaves)

    return subtree


def inclusion_proof(index: int, size: int, fetch: LeafFetch) -> list[bytes]:
    """Hashes from the leaf upwards that show that leaf ``index`` is in the tree of ``size``.

    RFC 9162, section 2.1.3.1.

    Raises:
        ProofError: The index is not inside the tree.
    """
    return prove_inclusion(index, size, _subtrees(fetch))


def prove_inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """`inclusion_proof` from the roots of subtrees.

    Raises:
        ProofError: The index is not inside the tree.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise ProofError(need=f"0 <= index < {size}", found=str(index), remedy="ask for an entry of the tree")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, fetch: LeafFetch) -> list[bytes]:
    """Hashes that show that the tree of size ``old`` is a prefix of the tree of size ``new``.

    RFC 9162, section 2.1.4.1.

    Returns:
        The proof; empty when the sizes are equal.

    Raises:
        ProofError: ``old`` is 0 or larger than ``new``.
    """
    return prove_consistency(old, new, _subtrees(fetch))


def prove_consistency(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """`consistency_proof` from the roots of subtrees.

    Raises:
        ProofError: ``old`` is 0 or larger than ``new``.
    """
    if not 0 < old <= new <= SIZE_MAX:
        raise ProofError(need="0 < old size <= new size", found=f"{old}, {new}", remedy="ask for a prefix")
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(subtree(middle, end))
            end = middle
        else:
            proof.append(subtree(start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(subtree(start, end))
    proof.reverse()
    return proof


def prefix_of(size: int, wanted: int | None) -> int:
    """How many of ``size`` leaves are meant: ``wanted``, or all without it.

    Raises:
        ProofError: More leaves than there are.
    """
    meant = size if wanted is None else wanted
    if not 0 <= meant <= size:
        raise ProofError(need=f"at most {size} leaves", found=str(meant), remedy="ask for a prefix")
    return meant


class MemoryTree:
    """A whole tree in memory, for readers: roots of all its prefixes and proofs in logarithmic time.

    Args:
        leaf_hashes: Of all entries, in order.
    """

    def __init__(self, leaf_hashes: Iterable[bytes]) -> None:
        self._levels = [list(leaf_hashes)]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = range(0, len(below) - 1, 2)
            self._levels.append([node_hash(below[at], below[at + 1]) for at in pairs])

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def leaf(self, index: int) -> bytes:
        """Leaf hash of an entry."""
        return self._levels[0][index]

    def root(self, size: int | None = None) -> bytes:
        """Root of the first ``size`` leaves; of all of them without it.

        Raises:
            ProofError: More leaves than there are.
        """
        return self._range(0, self._prefix(size))

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """`inclusion_proof` in the tree of ``size``, or of all leaves."""
        return prove_inclusion(index, self._prefix(size), self._range)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """`consistency_proof` from ``old`` to ``new``, or to all leaves."""
        return prove_consistency(old, self._prefix(new), self._range)

    def _prefix(self, size: int | None) -> int:
        return prefix_of(self.size, size)

    def _range(self, start: int, end: int) -> bytes:
        return range_root(start, end, lambda level, index: self._levels[level][index])


def _check_hashes(*hashes: bytes) -> None:
    for one in hashes:
        if len(one) != HASH_BYTES:
            raise ProofError(need="hashes of 32 bytes", found=f"{len(one)} bytes", remedy=_REMEDY)


def _check_length(proof: Sequence[bytes], need: int) -> None:
    if len(proof) != need:
        raise ProofError(need=f"exactly {need} hashes", found=str(len(proof)), remedy=_REMEDY)


def _same_root(computed: bytes, root: bytes, what: str) -> None:
    if computed != root:
        raise ProofError(need=f"{what} {root.hex()}", found=computed.hex(), remedy=_REMEDY)


def verify_inclusion(
    leaf_hash: bytes,
    index: int,
    size: int,
    proof: Sequence[bytes],
    root: bytes,
) -> None:
    """Checks that ``leaf_hash`` is at ``index`` in the tree of ``size`` with ``root``.

    RFC 9162, section 2.1.3.2.

    Raises:
        ProofError: Anything does not fit, one hash too many or too few included.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise ProofError(need=f"0 <= index < {size}", found=str(index), remedy=_REMEDY)
    _check_hashes(leaf_hash, root, *proof)
    inner = (index ^ (size - 1)).bit_length()
    _check_length(proof, inner + (index >> inner).bit_count())
    node = leaf_hash
    for level, sibling in enumerate(proof):
        node = node_hash(sibling, node) if level >= inner or index >> level & 1 else node_hash(node, sibling)
    _same_root(node, root, "root")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """Checks that the tree (``size1``, ``root1``) is a prefix of the tree (``size2``, ``root2``).

    RFC 9162, section 2.1.4.2.

    Raises:
        ProofError: Anything does not fit; also for ``size1`` 0, from which nothing follows.
    """
    if not 0 < size1 <= size2 <= SIZE_MAX:
        raise ProofError(need="0 < old size <= new size", found=f"{size1}, {size2}", remedy=_REMEDY)
    if size1 == size2:
        _check_length(proof, 0)
        _same_root(root1, root2, "root")
        return
    _check_hashes(root1, root2, *proof)
    # Where the old tree is one perfect subtree, its root is the start, and no proof repeats it.
    whole = size1.bit_count() == 1
    older, newer = folded_roots(size1, size2, [root1, *proof] if whole else proof)
    _same_root(older, root1, "old root")
    _same_root(newer, root2, "new root")


def folded_roots(size1: int, size2: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The old and the new root that the hashes of a consistency proof lead to; nothing is compared.

    Args:
        size1: Leaves of the smaller tree.
        size2: Leaves of the larger tree.
        hashes: The proof. Its first hash is the root of the subtree on the right edge of the smaller tree;
            where that is the whole smaller tree, proofs of RFC 9162 leave it out and it must be put before.

    Raises:
        ProofError: Sizes that do not differ, or another number of hashes.
    """
    if not 0 < size1 < size2 <= SIZE_MAX:
        raise ProofError(need="0 < old size < new size", found=f"{size1}, {size2}", remedy=_REMEDY)
    _check_hashes(*hashes)
    # The subtree that ends exactly at `size1` and lies on its right edge has 2**shift leaves.
    shift = (size1 & -size1).bit_length() - 1
    inner = ((size1 - 1) ^ (size2 - 1)).bit_length() - shift
    border = ((size1 - 1) >> (inner + shift)).bit_count()
    _check_length(hashes, 1 + inner + border)
    older = newer = hashes[0]
    bits = (size1 - 1) >> shift
    for level, sibling in enumerate(hashes[1:]):
        if level >= inner or (bits >> level) & 1:
            older = node_hash(sibling, older)
            newer = node_hash(sibling, newer)
        else:
            newer = node_hash(newer, sibling)
    return older, newer
