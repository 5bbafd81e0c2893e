# SPDX-License-Identifier: Apache-2.0
"""Proofs and receipts from the in-memory tree, and signing after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.log import LogUnavailableError, NotInLogError
from broker.log.tree import GrowingTree
from policies.log.checkpoint import Checkpoint, open_checkpoint
from policies.log.entries import event_id
from policies.log.errors import ProofError
from policies.log.merkle import Frontier, MemoryTree, leaf_hash, verify_consistency, verify_inclusion
from policies.log.proofs import parse_receipt
from tests.logsim import ORIGIN, LogSim, console
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sim(tmp_path: Path, database: str) -> Iterator[LogSim]:
    with LogSim(tmp_path, **log_urls(database)) as made:
        yield made


def fail_signer(sim: LogSim, *, on: bool) -> None:
    connection = sim.store.signer.raw_connection()
    connection.driver_connection.execute(f"PRAGMA query_only = {'ON' if on else 'OFF'}")  # type: ignore[union-attr]
    connection.close()


def test_every_size_of_a_growing_tree_is_the_whole_tree_of_that_size() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(70)]
    tree, frontier = GrowingTree(), Frontier()
    for size, leaf in enumerate(leaves, start=1):
        tree.append(leaf)
        frontier = frontier.append(leaf)
        assert tree.frontier() == frontier
        whole = MemoryTree(leaves[:size])
        for older in range(size + 1):
            assert tree.root(older) == MemoryTree(leaves[:older]).root()
        for index in range(size):
            assert tree.inclusion(index, size) == whole.inclusion(index)


def test_receipts_of_all_entries_hold_at_the_head(sim: LogSim) -> None:
    writer = sim.started(entries=37)
    head = writer.head()
    assert open_checkpoint(head.note, [sim.vkey]) == Checkpoint(ORIGIN, head.size, head.root)
    for index in range(37):
        leaf = leaf_hash(writer.receipts.body(index))
        text = writer.receipts.receipt(index).to_text()
        parse_receipt(text).verify(leaf, [sim.vkey])
        verify_inclusion(index=index, size=37, leaf_hash=leaf, proof=writer.proof(index), root=head.root)
    by_event = writer.receipts.receipt_of(event_id(console(7)))
    assert by_event == writer.receipts.receipt(7)


def test_every_head_is_consistent_with_every_later_one(sim: LogSim) -> None:
    writer = sim.started()
    heads = [writer.head()]
    for number in range(1, 12):
        sim.add(*(console(number * 10 + part) for part in range(number % 4 + 1)))
        heads.append(writer.head())
    for at, old in enumerate(heads):
        for new in heads[at:]:
            verify_consistency(
                size1=old.size,
                size2=new.size,
                root1=old.root,
                root2=new.root,
                proof=writer.consistency(old.size, new.size),
            )
    with pytest.raises(ProofError):
        writer.consistency(0)


def test_unknown_entries_have_no_receipt(sim: LogSim) -> None:
    writer = sim.started(entries=2)
    for call in (
        lambda: writer.receipts.receipt(2),
        lambda: writer.receipts.receipt(-1),
        lambda: writer.receipts.body(2),
        lambda: writer.receipts.leaf(2),
        lambda: writer.receipts.receipt_of(b"x" * 16),
    ):
        with pytest.raises(NotInLogError) as refused:
            call()
        assert refused.value.http_status == 404


def test_a_crash_between_commit_and_signature_is_signed_at_the_next_start(sim: LogSim) -> None:
    writer = sim.started(entries=3)
    before = writer.head()
    fail_signer(sim, on=True)
    assert isinstance(
        writer.submit(lambda _session, log: log.add(console(7))).exception(), LogUnavailableError
    )
    assert writer.head() == before
    with pytest.raises(NotInLogError):  # committed, but nothing signed covers it
        writer.receipts.receipt_of(event_id(console(7)))
    sim.close()
    writer = sim.open()
    after = writer.head()
    assert after.size == 4
    verify_consistency(size1=3, size2=4, root1=before.root, root2=after.root, proof=writer.consistency(3))
    assert writer.receipts.receipt_of(event_id(console(7))).index == 3
    assert sim.add(console(7)) == [3]


def test_a_start_after_a_crash_publishes_the_stored_note_again(sim: LogSim) -> None:
    note = sim.started(entries=3).head().note
    sim.store.close()  # the process dies here: nothing is recorded in the main database
    assert sim.open().head().note == note


def test_proofs_of_a_long_log_need_few_hashes() -> None:
    tree = GrowingTree()
    for number in range(20_000):
        tree.append(leaf_hash(number.to_bytes(4, "big")))
    root = tree.root(20_000)
    for index in range(0, 20_000, 997):
        proof = tree.inclusion(index, 20_000)
        assert len(proof) <= 15
        verify_inclusion(index=index, size=20_000, leaf_hash=tree.leaf(index), proof=proof, root=root)
