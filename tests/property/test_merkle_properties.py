# SPDX-License-Identifier: Apache-2.0
"""Trees against a naive recomputation by the definition of RFC 9162, and mutated proofs that must never be accepted."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.log.errors import ProofError
from policies.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    MemoryTree,
    consistency_proof,
    folded_roots,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)
from policies.log.tiles import TileTree

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = st.integers(1, 70)


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(str(one).encode()) for one in range(size)]


def naive_root(items: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, as written."""
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return items[0]
    split = 1
    while split * 2 < len(items):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(items[:split]) + naive_root(items[split:])).digest()


@given(st.integers(0, 130))
def test_every_way_to_a_root_agrees_with_the_definition(size: int) -> None:
    items = leaves(size)
    expected = naive_root(items)
    assert root_from_leaves(items) == MemoryTree(items).root() == Frontier().append(*items).root() == expected


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_frontier_goes_on_from_stored_bytes(first: int, second: int) -> None:
    items = leaves(first + second)
    stored = Frontier().append(*items[:first])
    again = Frontier.from_bytes(stored.size, stored.to_bytes()).append(*items[first:])
    assert again.root() == naive_root(items)


@given(SIZES, st.data())
def test_inclusion_proofs_verify_and_both_ways_to_make_them_agree(size: int, data: st.DataObject) -> None:
    items, index = leaves(size), data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, lambda start, end: items[start:end])
    assert proof == MemoryTree(items).inclusion(index)
    verify_inclusion(index=index, size=size, leaf_hash=items[index], proof=proof, root=naive_root(items))


@given(SIZES, st.data())
def test_consistency_proofs_verify_and_both_ways_to_make_them_agree(new: int, data: st.DataObject) -> None:
    items, old = leaves(new), data.draw(st.integers(1, new))
    proof = consistency_proof(old, new, lambda start, end: items[start:end])
    assert proof == MemoryTree(items).consistency(old)
    verify_consistency(
        size1=old,
        size2=new,
        root1=naive_root(items[:old]),
        root2=naive_root(items),
        proof=proof,
    )


@given(st.integers(2, 40), st.data())
def test_a_changed_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    items, index = leaves(size), data.draw(st.integers(0, size - 1))
    proof, root = MemoryTree(items).inclusion(index), naive_root(items)
    changed = data.draw(mutations(proof))
    other = data.draw(st.sampled_from([one for one in range(size + 2) if one != index]))
    for fields in (
        {"proof": changed},
        {"leaf_hash": leaf_hash(b"another")},
        {"root": leaf_hash(b"another")},
        {"index": other},
        {"leaf_hash": root, "size": 1, "index": 0, "proof": proof},
    ):
        good = {"index": index, "size": size, "leaf_hash": items[index], "proof": proof, "root": root}
        with pytest.raises(ProofError):
            verify_inclusion(**(good | fields))


@given(st.integers(2, 40), st.data())
def test_a_changed_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    items, old = leaves(new), data.draw(st.integers(1, new - 1))
    proof = MemoryTree(items).consistency(old)
    roots = {"root1": naive_root(items[:old]), "root2": naive_root(items)}
    for fields in (
        {"proof": data.draw(mutations(proof))},
        {"root1": roots["root2"]},
        {"root2": roots["root1"]},
        {"size1": 0},
        {"size1": new + 1},
        {"size1": new},
    ):
        with pytest.raises(ProofError):
            verify_consistency(**({"size1": old, "size2": new, "proof": proof} | roots | fields))


def mutations(proof: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Proofs that differ from this one: a flipped bit, one hash too many, one too few, another order, another length."""
    extra = st.integers(0, len(proof)).map(lambda at: [*proof[:at], leaf_hash(b"x"), *proof[at:]])
    if not proof:
        return extra
    at = st.integers(0, len(proof) - 1)
    flipped = st.tuples(at, st.integers(0, 255)).map(
        lambda pair: [flip(one, pair[1]) if index == pair[0] else one for index, one in enumerate(proof)]
    )
    dropped = at.map(lambda index: proof[:index] + proof[index + 1 :])
    short = at.map(lambda index: [one[:31] if at_ == index else one for at_, one in enumerate(proof)])
    return st.one_of(extra, flipped, dropped, short)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def naive_inclusion_root(index: int, size: int, leaf: bytes, proof: list[bytes]) -> bytes | None:
    """Root that an inclusion proof leads to, from the top down as RFC 9162, section 2.1.3.1, defines proofs."""
    if size == 1:
        return leaf if not proof else None
    if not proof:
        return None
    split = 1
    while split * 2 < size:
        split *= 2
    *lower, last = proof
    if index < split:
        left = naive_inclusion_root(index, split, leaf, lower)
        return None if left is None else node_hash(left, last)
    right = naive_inclusion_root(index - split, size - split, leaf, lower)
    return None if right is None else node_hash(last, right)


def naive_consistency_roots(
    old: int, new: int, proof: list[bytes], old_root: bytes, *, whole: bool = True
) -> tuple[bytes, bytes] | None:
    """Old and new root that a consistency proof leads to, top down as section 2.1.4.1 defines proofs."""
    if old == new:
        if whole:
            return (old_root, old_root) if not proof else None
        return (proof[0], proof[0]) if len(proof) == 1 else None
    if not proof:
        return None
    split = 1
    while split * 2 < new:
        split *= 2
    *lower, last = proof
    if old <= split:
        found = naive_consistency_roots(old, split, lower, old_root, whole=whole)
        return None if found is None else (found[0], node_hash(found[1], last))
    found = naive_consistency_roots(old - split, new - split, lower, old_root, whole=False)
    return None if found is None else (node_hash(last, found[0]), node_hash(last, found[1]))


def accepts(verify: Callable[..., None], *fields: object) -> bool:
    try:
        verify(*fields)
    except ProofError:
        return False
    return True


@given(st.integers(1, 40), st.data())
def test_the_inclusion_verifier_agrees_with_the_definition_on_any_proof(
    size: int, data: st.DataObject
) -> None:
    items, index = leaves(size), data.draw(st.integers(0, size - 1))
    tree = MemoryTree(items)
    true = tree.inclusion(index)
    proof = data.draw(st.one_of(st.just(true), mutations(true), st.just(tree.inclusion(size - 1 - index))))
    claimed = data.draw(st.integers(0, size - 1))
    leaf = data.draw(st.sampled_from([items[index], items[claimed], tree.root()]))
    led_to = naive_inclusion_root(claimed, size, leaf, proof)
    whole = all(len(one) == 32 for one in proof)
    assert accepts(verify_inclusion, leaf, claimed, size, proof, tree.root()) == (
        whole and led_to == tree.root()
    )
    if led_to is not None and whole:  # the same for roots of trees that nobody built
        assert accepts(verify_inclusion, leaf, claimed, size, proof, led_to)


@given(st.integers(1, 40), st.data())
def test_the_consistency_verifier_agrees_with_the_definition_on_any_proof(
    new: int, data: st.DataObject
) -> None:
    items, old = leaves(new), data.draw(st.integers(1, new))
    tree = MemoryTree(items)
    true = tree.consistency(old)
    proof = data.draw(st.one_of(st.just(true), mutations(true)))
    claimed = data.draw(st.integers(1, new))
    root1 = data.draw(st.sampled_from([tree.root(old), tree.root(claimed), items[0]]))
    led_to = naive_consistency_roots(claimed, new, proof, root1)
    whole = all(len(one) == 32 for one in proof)
    expected = whole and led_to == (root1, tree.root())
    assert accepts(verify_consistency, claimed, new, root1, tree.root(), proof) == expected
    if led_to is not None and whole:
        assert accepts(verify_consistency, claimed, new, led_to[0], led_to[1], proof) == (
            claimed.bit_count() != 1 or claimed == new or led_to[0] == root1
        )


@given(st.integers(2, 70), st.data())
def test_a_proof_leads_to_both_roots_when_its_first_hash_stands_there(new: int, data: st.DataObject) -> None:
    items, old = leaves(new), data.draw(st.integers(1, new - 1))
    tree = MemoryTree(items)
    proof = tree.consistency(old)
    hashes = [tree.root(old), *proof] if old.bit_count() == 1 else proof
    assert folded_roots(old, new, hashes) == (tree.root(old), tree.root())
    for changed in (hashes[1:], [*hashes, hashes[0]], [hashes[0][:31], *hashes[1:]]):
        with pytest.raises(ProofError):
            folded_roots(old, new, changed)
    for sizes in ((0, new), (new, new), (new, old)):
        with pytest.raises(ProofError):
            folded_roots(*sizes, hashes)


@given(st.integers(1, 300), st.data())
def test_trees_of_leaves_and_of_tiles_make_the_same_proofs(size: int, data: st.DataObject) -> None:
    items = leaves(size)
    memory = MemoryTree(items)

    def fetch(level: int, n: int, width: int) -> bytes:
        if level == 0:
            return b"".join(items[n * 256 : n * 256 + width])
        return b"".join(naive_root(items[at * 256 : at * 256 + 256]) for at in range(width))

    tiled = TileTree(size, fetch)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert tiled.root() == naive_root(items)
    assert tiled.inclusion(index) == memory.inclusion(index)
    assert tiled.consistency(old) == memory.consistency(old)
    assert tiled.consistency(old, old) == []


def test_a_memory_tree_proves_nothing_beyond_its_leaves() -> None:
    tree = MemoryTree(leaves(5))
    for use in (lambda: tree.inclusion(3, 6), lambda: tree.consistency(3, 6), lambda: tree.root(-1)):
        with pytest.raises(ProofError):
            use()


def test_a_leaf_never_passes_for_a_node() -> None:
    left, right = leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)
    with pytest.raises(ProofError):
        verify_inclusion(
            index=0, size=1, leaf_hash=leaf_hash(left + right), proof=[], root=node_hash(left, right)
        )


def test_the_empty_tree() -> None:
    assert Frontier().root() == MemoryTree(()).root() == EMPTY_ROOT
    with pytest.raises(ProofError):
        inclusion_proof(0, 0, lambda _start, _end: [])
    with pytest.raises(ProofError):
        consistency_proof(0, 1, lambda _start, _end: [])


@pytest.mark.parametrize(("size", "count"), [(3, 1), (-1, 0), (4, 2)])
def test_a_frontier_of_the_wrong_shape_is_refused(size: int, count: int) -> None:
    with pytest.raises(ProofError):
        Frontier(size, tuple(leaves(count)))


def test_a_store_that_returns_too_few_hashes_is_noticed() -> None:
    with pytest.raises(ProofError):
        inclusion_proof(0, 4, lambda start, end: leaves(end - start)[1:])
    with pytest.raises(ProofError):
        MemoryTree(leaves(3)).root(4)
    with pytest.raises(ProofError):
        Frontier.from_bytes(1, b"x" * 31)
    with pytest.raises(ProofError):
        Frontier(1, (b"x",))
