# SPDX-License-Identifier: Apache-2.0
"""A witness's verdicts: every status, what a refusal keeps, and what a call says on the wire."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest

from policies.identity import SigningKey
from policies.log.checkpoint import (
    TIME_MAX_S,
    Checkpoint,
    SignatureLine,
    VerifierKey,
    open_note,
    parse_note,
    sign_checkpoint,
)
from policies.log.cosignature import cosigner_vkey, merge, open_line
from policies.log.equivocation import prove
from policies.log.errors import NoteError, ProofError
from policies.log.merkle import EMPTY_ROOT, MemoryTree, leaf_hash
from policies.log.mldsa import MlDsaKey
from policies.log.witness import (
    Cosign,
    Refuse,
    WitnessState,
    checkpoint_path,
    consider,
    parse_request,
    request_text,
)

ORIGIN = "pool.example/log/2026a"
NAME = "kita/witness"
LOG, KITA, STRANGER = (SigningKey.from_seed(bytes([one]) * 32) for one in b"LKS")
VKEY = VerifierKey(ORIGIN, LOG.public)
NOW_S = 1_790_000_000


def tree(size: int, forked_at: int | None = None) -> MemoryTree:
    return MemoryTree(leaf_hash(b"lie" if at == forked_at else str(at).encode()) for at in range(size))


TRUE, LIE = tree(40), tree(40, forked_at=3)


def note(size: int, *, of: MemoryTree = TRUE, origin: str = ORIGIN, key: SigningKey = LOG) -> str:
    return sign_checkpoint(key, Checkpoint(origin, size, of.root(size)))


def ask(
    state: WitnessState | None,
    offered: str,
    old_size: int,
    proof: list[bytes] | None = None,
    *,
    now_s: int = NOW_S,
    key: SigningKey | MlDsaKey = KITA,
) -> Cosign | Refuse:
    return consider(
        state,
        offered,
        old_size=old_size,
        proof=proof or [],
        log_keys=[VKEY],
        origin=ORIGIN,
        key=key,
        name=NAME,
        now_s=now_s,
    )


def stated(size: int, *, of: MemoryTree = TRUE, time_s: int = NOW_S) -> WitnessState:
    return WitnessState(size=size, root=of.root(size), time_s=time_s, note=note(size, of=of))


def refused(verdict: Cosign | Refuse, status: int) -> Refuse:
    assert isinstance(verdict, Refuse)
    assert verdict.status == status
    assert verdict.reason
    return verdict


def granted(verdict: Cosign | Refuse) -> Cosign:
    assert isinstance(verdict, Cosign), verdict
    return verdict


@pytest.mark.parametrize("key", [KITA, MlDsaKey.from_seed(b"Q" * 32)], ids=["ed25519", "ml-dsa-44"])
def test_a_first_head_is_cosigned_and_remembered(key) -> None:
    given = granted(ask(None, note(17), 0, key=key))
    assert given.state == stated(17)
    vkey = cosigner_vkey(key, NAME)
    assert open_line(given.line, parse_note(note(17)).text, [vkey]) == (vkey, NOW_S)
    assert open_note(merge(note(17), [given.line]), [VKEY, vkey]).times == {NAME: NOW_S}


@pytest.mark.parametrize(("old", "new"), [(1, 2), (3, 17), (4, 40), (16, 17), (16, 32), (39, 40), (17, 17)])
def test_a_later_head_is_cosigned_with_its_proof(old: int, new: int) -> None:
    given = granted(ask(stated(old), note(new), old, TRUE.consistency(old, new), now_s=NOW_S + 5))
    assert given.state == stated(new, time_s=NOW_S + 5)


def test_the_empty_log_is_cosigned_before_its_first_entry() -> None:
    empty = sign_checkpoint(LOG, Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    state = granted(ask(None, empty, 0)).state
    assert state.size == 0
    assert granted(ask(state, empty, 0)).state == state
    assert granted(ask(state, note(9), 0)).state.size == 9


@pytest.mark.parametrize(
    "offered",
    [
        "",
        "no note\n",
        note(17)[:-1],
        note(17).replace("\n17\n", "\n17\nextension\n"),
        note(17).replace("\n17\n", "\n017\n"),
        "x" * 70_000,
        note(17) + "\ud800\n",
    ],
)
def test_400_what_is_no_checkpoint(offered: str) -> None:
    for state in (None, stated(9)):
        assert refused(ask(state, offered, 9, TRUE.consistency(9, 17)), 400).evidence is None


@pytest.mark.parametrize("old_size", [18, 40, -1, 2**53])
def test_400_an_old_size_beyond_the_head(old_size: int) -> None:
    refused(ask(None, note(17), old_size), 400)
    assert refused(ask(stated(17), note(17), old_size), 400).evidence is None


def test_403_what_the_log_did_not_sign() -> None:
    refused(ask(None, note(17, key=STRANGER), 0), 403)
    refused(ask(None, note(17).replace("\n17\n", "\n18\n"), 0), 403)
    failing = SignatureLine(ORIGIN, VKEY.hash4, bytes(64)).text()
    refused(ask(None, f"{parse_note(note(17)).text}\n{failing}", 0), 403)


def test_signatures_of_others_are_ignored_though_they_prove_nothing() -> None:
    granted(ask(None, merge(note(17), [SignatureLine("other", b"hash", b"s" * 64).text()]), 0))


def test_404_another_log() -> None:
    other = note(17, origin="pool.example/log/2027a")
    assert ORIGIN in refused(ask(None, other, 0), 404).reason


def test_409_names_what_was_cosigned_last() -> None:
    assert refused(ask(None, note(17), 9, TRUE.consistency(9, 17)), 409).known_size == 0
    answer = refused(ask(stated(9), note(17), 0), 409)
    assert (answer.known_size, answer.evidence) == (9, None)
    assert refused(ask(stated(9), note(17), 5, TRUE.consistency(5, 17)), 409).known_size == 9


@pytest.mark.parametrize(
    "proof",
    [
        [],
        TRUE.consistency(9, 18),
        TRUE.consistency(8, 17),
        TRUE.consistency(9, 17)[:-1],
        [b"short"],
        [bytes(32)] * 64,
    ],
)
def test_422_a_proof_that_does_not_fit_shows_the_notes_and_proves_nothing(proof: list[bytes]) -> None:
    answer = refused(ask(stated(9), note(17), 9, proof), 422)
    assert answer.evidence is not None
    assert (answer.evidence.first, answer.evidence.second) == (note(9), note(17))
    with pytest.raises(ProofError):
        answer.evidence.check([VKEY])


def test_422_a_proof_from_nothing_or_between_equal_heads() -> None:
    assert refused(ask(None, note(17), 0, [bytes(32)]), 422).evidence is None
    assert refused(ask(stated(17), note(17), 17, [bytes(32)]), 422).evidence is None


def test_422_the_empty_log_has_one_root() -> None:
    refused(ask(None, sign_checkpoint(LOG, Checkpoint(ORIGIN, 0, bytes(32))), 0), 422)


def test_422_another_root_for_the_same_size_convicts() -> None:
    answer = refused(ask(stated(17), note(17, of=LIE), 17), 422)
    assert answer.evidence is not None
    assert "two roots" in answer.evidence.check([VKEY])


@pytest.mark.parametrize("old", [5, 6, 7, 9, 17, 31])
def test_422_another_beginning_convicts(old: int) -> None:
    answer = refused(ask(stated(old), note(40, of=LIE), old, LIE.consistency(old)), 422)
    assert answer.evidence is not None
    assert "do not begin with" in answer.evidence.check([VKEY])


@pytest.mark.parametrize("old", [4, 8, 16, 32])
def test_422_another_beginning_behind_a_power_of_two_convicts_with_the_tiles(old: int) -> None:
    answer = refused(ask(stated(old), note(40, of=LIE), old, LIE.consistency(old)), 422)
    assert answer.evidence is not None
    assert answer.evidence.proof is None
    proven = prove(answer.evidence.first, answer.evidence.second, LIE)
    assert "do not begin with" in proven.check([VKEY])


def test_a_smaller_head_shows_both_notes_however_it_is_offered() -> None:
    for old_size, status in ((17, 400), (9, 409), (0, 409)):
        answer = refused(ask(stated(17), note(9), old_size), status)
        assert answer.known_size == 17
        assert answer.evidence is not None
        assert {answer.evidence.first, answer.evidence.second} == {note(17), note(9)}
        with pytest.raises(ProofError):  # the smaller note may be an old one
            answer.evidence.check([VKEY])


def test_503_a_clock_that_went_back_signs_nothing_and_keeps_the_state() -> None:
    state = stated(9)
    for now_s in (NOW_S - 1, NOW_S - 3600, 0, -5, TIME_MAX_S + 1):
        answer = refused(ask(state, note(17), 9, TRUE.consistency(9, 17), now_s=now_s), 503)
        assert (answer.known_size, answer.evidence) == (9, None)
    refused(ask(None, note(17), 0, now_s=0), 503)
    assert state == stated(9)
    assert granted(ask(state, note(17), 9, TRUE.consistency(9, 17), now_s=NOW_S)).state.time_s == NOW_S


def test_the_same_head_may_be_cosigned_again_later() -> None:
    given = granted(ask(stated(17), note(17), 17, now_s=NOW_S + 60))
    assert given.state == replace(stated(17), time_s=NOW_S + 60)


def test_a_call_round_trips() -> None:
    proof = TRUE.consistency(9, 17)
    parsed = parse_request(request_text(old_size=9, proof=proof, note=note(17)).encode())
    assert (parsed.old_size, list(parsed.proof), parsed.note) == (9, proof, note(17))
    first = parse_request(request_text(old_size=0, proof=[], note=note(17)).encode())
    assert (first.old_size, first.proof, first.note) == (0, (), note(17))
    assert request_text(old_size=0, proof=[], note=note(17)).startswith(f"old 0\n\n{ORIGIN}\n17\n")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 00\n\nnote\n",
        b"old -1\n\nnote\n",
        b"old 9999999999999999\n\nnote\n",
        b"old  0\n\nnote\n",
        b"new 0\n\nnote\n",
        b"old 0\r\n\r\nnote\n",
        b"old 9\nnot base64\n\nnote\n",
        b"old 9\n" + base64.b64encode(bytes(31)) + b"\n\nnote\n",
        b"old 9\n" + base64.b64encode(bytes(32)).rstrip(b"=") + b"\n\nnote\n",
        b"old 9\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\nnote\n",
        b"old 0\n\n\xff\xfe",
        b"old 0\n\n" + b"x" * 80_000,
    ],
)
def test_a_call_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(NoteError):
        parse_request(body)


def test_a_witness_shows_a_log_under_the_hash_of_its_origin() -> None:
    assert checkpoint_path(ORIGIN) == f"{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
