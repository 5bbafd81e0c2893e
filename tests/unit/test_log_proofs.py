# SPDX-License-Identifier: Apache-2.0
"""Receipts of both grades: what the log alone promises, and what a quorum of witnesses saw too."""

from __future__ import annotations

import pytest

from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, VerifierKey, parse_note, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.errors import NoteError, ProofError, QuorumError
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import pool_policy
from policies.log.proofs import Receipt, parse_receipt

ORIGIN = "pool.example/log/2026a"
LOG, BROKER = SigningKey.from_seed(b"L" * 32), SigningKey.from_seed(b"B" * 32)
VKEY = VerifierKey(ORIGIN, LOG.public)
TREE = MemoryTree(leaf_hash(str(at).encode()) for at in range(9))
NOTE = sign_checkpoint(LOG, Checkpoint(ORIGIN, 9, TREE.root()))
WITNESSES = {
    name: SigningKey.from_seed(name.encode().ljust(32, b".")) for name in ("kita", "nord", "auditor")
}
POLICY = pool_policy(
    logs=[VKEY],
    broker=BROKER.public,
    witnesses={name: [cosigner_vkey(key, f"{name}/witness")] for name, key in WITNESSES.items()},
)


def receipt(*witnesses: str, index: int = 4) -> Receipt:
    text = parse_note(NOTE).text
    lines = [
        cosign(WITNESSES[name], name=f"{name}/witness", text=text, time_s=1_790_000_000) for name in witnesses
    ]
    return Receipt(index, tuple(TREE.inclusion(index)), merge(NOTE, lines))


def test_a_witnessed_receipt_tells_the_head_and_who_cosigned_it_when() -> None:
    held = parse_receipt(receipt("kita", "nord", "auditor").to_text())
    head, note = held.verify_witnessed(TREE.leaf(4), POLICY)
    assert (head.size, head.root) == (9, TREE.root())
    assert dict(note.times) == dict.fromkeys(
        ("kita/witness", "nord/witness", "auditor/witness"), 1_790_000_000
    )
    assert held.verify(TREE.leaf(4), [VKEY]) == head


def test_a_signed_receipt_does_not_pass_for_a_witnessed_one() -> None:
    for held in (receipt(), receipt("kita", "nord")):
        assert held.verify(TREE.leaf(4), [VKEY]).size == 9
        with pytest.raises(QuorumError):
            held.verify_witnessed(TREE.leaf(4), POLICY)


def test_a_witnessed_receipt_is_of_its_own_leaf_and_place() -> None:
    held = receipt("kita", "nord", "auditor")
    with pytest.raises(ProofError):
        held.verify_witnessed(TREE.leaf(5), POLICY)
    with pytest.raises(ProofError):
        Receipt(5, held.proof, held.note).verify_witnessed(TREE.leaf(4), POLICY)
    with pytest.raises(NoteError):
        Receipt(4, held.proof, held.note.replace("\n9\n", "\n8\n")).verify_witnessed(TREE.leaf(4), POLICY)


def test_another_spelling_of_a_receipt_is_refused() -> None:
    text = receipt("kita").to_text()
    for changed in (
        "",
        text[:-1] + " ",
        text.replace("index 4", "index 04"),
        text.replace("@v1\n", "@v1\nextra AAAA\n"),
        text.replace("=\n", "\n", 1),
        text.replace("index 4\n", "index 4\n" + "A" * 43 + "=\n" + "AAAA\n"),
        text.replace("index 4\n", "index 4\n" + ("A" * 43 + "=\n") * 64),
        "x" * 100_000,
    ):
        with pytest.raises((ProofError, NoteError)):
            parse_receipt(changed).verify(TREE.leaf(4), [VKEY])
