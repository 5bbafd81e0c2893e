# SPDX-License-Identifier: Apache-2.0
"""Evidence of two histories: what convicts, and what must never convict a log that told one."""

from __future__ import annotations

import pytest

from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.equivocation import Evidence, parse_evidence, prove
from policies.log.errors import NoteError, ProofError, QuorumError
from policies.log.merkle import EMPTY_ROOT, MemoryTree, leaf_hash

ORIGIN = "pool.example/log/2026a"
LOG = SigningKey.from_seed(b"L" * 32)
VKEY = VerifierKey(ORIGIN, LOG.public)
SIZE = 40


def tree(size: int, forked_at: int | None = None) -> MemoryTree:
    """A log; a forked one has another entry at one place."""
    return MemoryTree(leaf_hash(b"lie" if at == forked_at else str(at).encode()) for at in range(size))


TRUE, LIE = tree(SIZE), tree(SIZE, forked_at=3)


def note(of: MemoryTree, size: int, *, origin: str = ORIGIN, key: SigningKey = LOG) -> str:
    return sign_checkpoint(key, Checkpoint(origin, size, of.root(size)))


@pytest.mark.parametrize("size", [4, 17, SIZE])
def test_two_roots_for_one_size_convict(size: int) -> None:
    evidence = Evidence(note(TRUE, size), note(LIE, size))
    assert f"two roots for {size} entries" in evidence.check([VKEY])
    assert "two roots" in prove(note(LIE, size), note(TRUE, size)).check([VKEY])


@pytest.mark.parametrize("old", range(4, SIZE))
def test_another_beginning_convicts_for_every_size_powers_of_two_included(old: int) -> None:
    smaller, larger = note(TRUE, old), note(LIE, SIZE)
    evidence = prove(smaller, larger, LIE)
    told = evidence.check([VKEY])
    assert LIE.root(old).hex() in told
    assert TRUE.root(old).hex() in told
    assert prove(larger, smaller, LIE).check([VKEY]) == told
    assert parse_evidence(evidence.to_text()) == evidence


def test_what_was_forked_later_does_not_convict() -> None:
    for old in (1, 2, 3):
        with pytest.raises(ProofError, match="contradicts"):
            prove(note(TRUE, old), note(LIE, SIZE), LIE).check([VKEY])


@pytest.mark.parametrize("old", range(1, SIZE + 1))
def test_one_history_never_convicts(old: int) -> None:
    with pytest.raises(ProofError):
        prove(note(TRUE, old), note(TRUE, SIZE), TRUE).check([VKEY])


@pytest.mark.parametrize("old", [1, 4, 5, 7, 16, 31])
def test_no_invented_proof_convicts_a_log_that_told_the_truth(old: int) -> None:
    smaller, larger = note(TRUE, old), note(TRUE, SIZE)
    made = prove(smaller, larger, TRUE).proof
    assert made is not None
    invented = [
        None,
        (),
        made[1:],
        made[:-1],
        (*made, made[0]),
        (bytes(32), *made[1:]),
        (*made[:-1], bytes(32)),
        tuple(reversed(made)),
        prove(note(LIE, old), note(LIE, SIZE), LIE).proof,
        tuple(TRUE.consistency(old)),
        (bytes(31), *made[1:]),
    ]
    for proof in invented:
        if proof == made:  # the proof of the standard form is this one where it leaves nothing out
            continue
        with pytest.raises(ProofError):
            Evidence(smaller, larger, proof).check([VKEY])


def test_the_empty_tree_contradicts_nothing() -> None:
    empty = sign_checkpoint(LOG, Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    with pytest.raises(ProofError):
        prove(empty, note(TRUE, SIZE), TRUE).check([VKEY])
    with pytest.raises(ProofError):
        Evidence(empty, note(TRUE, SIZE), (bytes(32),)).check([VKEY])


def test_notes_that_the_log_did_not_sign_prove_nothing() -> None:
    stranger = SigningKey.from_seed(b"S" * 32)
    with pytest.raises(QuorumError):
        Evidence(note(TRUE, 9), note(LIE, 9, key=stranger)).check([VKEY])
    with pytest.raises(QuorumError):
        Evidence(note(TRUE, 9), note(LIE, 9)).check([])
    with pytest.raises(NoteError):
        Evidence(note(TRUE, 9), note(LIE, 9).replace("\n9\n", "\n8\n")).check([VKEY])
    with pytest.raises(NoteError):
        Evidence(note(TRUE, 9), "no note").check([VKEY])


def test_notes_of_two_logs_do_not_contradict_each_other() -> None:
    other = "pool.example/log/2027a"
    keys = [VKEY, VerifierKey(other, LOG.public)]
    with pytest.raises(ProofError, match="one log"):
        Evidence(note(TRUE, 9), note(LIE, 9, origin=other)).check(keys)


def test_both_keys_of_a_rotated_log_stand_for_it() -> None:
    new = SigningKey.from_seed(b"N" * 32)
    evidence = Evidence(note(TRUE, 9), note(LIE, 9, key=new))
    assert "two roots" in evidence.check([VKEY, VerifierKey(ORIGIN, new.public)])


def test_different_sizes_need_the_tree_of_the_larger() -> None:
    with pytest.raises(ProofError, match="tree of size 40"):
        prove(note(TRUE, 9), note(LIE, SIZE))
    with pytest.raises(ProofError):
        prove(note(TRUE, 9), note(LIE, SIZE), tree(20))


def test_the_file_is_readable_line_by_line() -> None:
    text = prove(note(TRUE, 5), note(LIE, 6), LIE).to_text()
    lines = text.split("\n")
    assert lines[:2] == ["iriai-equivocation/v1", "proof 3"]
    assert lines[5:7] == ["note 5", ORIGIN]
    assert text.count("note 5\n") == 2
    assert (
        Evidence(note(TRUE, 5), note(LIE, 5))
        .to_text()
        .startswith("iriai-equivocation/v1\nproof none\nnote 5\n")
    )


def test_another_spelling_of_the_file_is_refused() -> None:
    text = prove(note(TRUE, 5), note(LIE, 6), LIE).to_text()
    for changed in (
        "",
        "iriai-equivocation/v1",
        "iriai-equivocation/v1\n",
        text[:-1],
        text + "\n",
        text + "more\n",
        text.replace("v1", "v2", 1),
        text.replace("proof 3", "proof 4"),
        text.replace("proof 3", "proof 2"),
        text.replace("proof 3", "proof 03"),
        text.replace("proof 3", "proof none"),
        text.replace("proof 3", "note 3"),
        text.replace("note 5", "note 6", 1),
        text.replace("note 5", "note none"),
        text.replace("note 5", "note 9999"),
        text.replace("=\n", "\n", 1),
        text.replace("\n", "\r\n"),
        "iriai-equivocation/v1\nproof 64\n" + "A" * 43 + "=\n",
        "x" * 200_000,
    ):
        with pytest.raises(ProofError):
            parse_evidence(changed)


def test_no_character_of_the_evidence_can_change() -> None:
    evidence = prove(note(TRUE, 5), note(LIE, 6), LIE)
    text = evidence.to_text()
    for at in range(len(text)):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        with pytest.raises((ProofError, NoteError, QuorumError)):
            parse_evidence(changed).check([VKEY])
