# SPDX-License-Identifier: Apache-2.0
"""Trees against a naive recomputation by the definition of RFC 9162, and mutated proofs that must never be accepted."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.log.errors import ProofError
from policies.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)

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
