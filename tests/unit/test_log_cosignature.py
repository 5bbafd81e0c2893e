# SPDX-License-Identifier: Apache-2.0
"""Cosignatures: what is signed byte by byte, what is refused, and how they come onto a note."""

from __future__ import annotations

import struct

import pytest

from policies.errors import SignatureInvalidError, WeakKeyError
from policies.identity import SigningKey, verify
from policies.log import mldsa
from policies.log.checkpoint import (
    TIME_MAX_S,
    Checkpoint,
    KeyKind,
    SignatureLine,
    VerifierKey,
    checkpoint_text,
    open_note,
    parse_note,
    sign_checkpoint,
)
from policies.log.cosignature import cosign, cosigner_vkey, merge, open_line, parse_line
from policies.log.errors import MlDsaMissingError, NoteError, QuorumError
from policies.log.mldsa import MlDsaKey, check_ml_dsa_key, verify_ml_dsa

ORIGIN = "pool.example/log/2026a"
NAME = "kita/witness"
LOG, KITA, NORD = (SigningKey.from_seed(bytes([one]) * 32) for one in b"LKN")
QUANTUM = MlDsaKey.from_seed(b"Q" * 32)
HEAD = Checkpoint(ORIGIN, 20_852_163, b"\x07" * 32)
TEXT = checkpoint_text(HEAD)
NOTE = sign_checkpoint(LOG, HEAD)
TIME_S = 1_790_000_000
KEYS = (KITA, QUANTUM)


def test_an_ed25519_cosignature_is_over_time_and_text() -> None:
    parsed = parse_line(cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S))
    assert parsed.name == NAME
    assert parsed.hash4 == VerifierKey(NAME, KITA.public, KeyKind.COSIGNER).hash4
    assert struct.unpack(">Q", parsed.signature[:8]) == (TIME_S,)
    verify(KITA.public, parsed.signature[8:], f"cosignature/v1\ntime {TIME_S}\n{TEXT}".encode())


def test_an_ml_dsa_cosignature_is_over_the_subtree_from_the_first_entry() -> None:
    parsed = parse_line(cosign(QUANTUM, name=NAME, text=TEXT, time_s=TIME_S))
    name, origin = NAME.encode(), ORIGIN.encode()
    message = b"subtree/v1\n\0" + struct.pack(
        f">B{len(name)}sQB{len(origin)}sQQ32s",
        len(name),
        name,
        TIME_S,
        len(origin),
        origin,
        0,
        HEAD.size,
        HEAD.root,
    )
    assert len(parsed.signature) == 8 + 2420
    assert struct.unpack(">Q", parsed.signature[:8]) == (TIME_S,)
    verify_ml_dsa(QUANTUM.public, parsed.signature[8:], message)


@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "ml-dsa-44"])
def test_a_line_opens_under_its_key_and_no_other(key) -> None:
    line = cosign(key, name=NAME, text=TEXT, time_s=TIME_S)
    vkey = cosigner_vkey(key, NAME)
    assert open_line(line, TEXT, [vkey, VerifierKey(ORIGIN, LOG.public)]) == (vkey, TIME_S)
    for strangers in ([], [cosigner_vkey(NORD, NAME)], [cosigner_vkey(key, "nord/witness")]):
        with pytest.raises(QuorumError):
            open_line(line, TEXT, strangers)


@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "ml-dsa-44"])
def test_a_cosignature_is_of_one_head_one_time_and_whole(key) -> None:
    line = cosign(key, name=NAME, text=TEXT, time_s=TIME_S)
    parsed, vkey = parse_line(line), cosigner_vkey(key, NAME)
    other = checkpoint_text(Checkpoint(ORIGIN, HEAD.size + 1, HEAD.root))
    with pytest.raises(NoteError):
        open_line(line, other, [vkey])
    for changed in (
        (TIME_S + 1).to_bytes(8, "big") + parsed.signature[8:],
        bytes(8) + parsed.signature[8:],
        (TIME_MAX_S + 1).to_bytes(8, "big") + parsed.signature[8:],
        b"\xff" * 8 + parsed.signature[8:],
        parsed.signature[:-1],
        parsed.signature + b"\0",
        parsed.signature[:7],
        parsed.signature[8:],
    ):
        with pytest.raises(NoteError):
            open_line(SignatureLine(NAME, parsed.hash4, changed).text(), TEXT, [vkey])


def test_a_log_signature_is_no_cosignature() -> None:
    line = SignatureLine(*parse_note(NOTE).signatures[0]).text()
    with pytest.raises(QuorumError):
        open_line(line, TEXT, [VerifierKey(ORIGIN, LOG.public)])


def test_a_log_may_sign_with_a_second_key_of_the_other_kind() -> None:
    note = merge(NOTE, [cosign(QUANTUM, name=ORIGIN, text=TEXT, time_s=TIME_S)])
    opened = open_note(note, [VerifierKey(ORIGIN, LOG.public), cosigner_vkey(QUANTUM, ORIGIN)])
    assert [key.kind for key in opened.verified] == [KeyKind.LOG, KeyKind.ML_DSA_44]


@pytest.mark.parametrize("time_s", [0, -1, TIME_MAX_S + 1, 2**64])
@pytest.mark.parametrize("key", KEYS, ids=["ed25519", "ml-dsa-44"])
def test_nothing_is_signed_at_a_time_that_cannot_be_written(key, time_s: int) -> None:
    with pytest.raises(NoteError):
        cosign(key, name=NAME, text=TEXT, time_s=time_s)


def test_ml_dsa_signs_only_checkpoints_and_names_that_fit() -> None:
    for name, text in (
        ("n" * 256, TEXT),
        (NAME, "no checkpoint\n"),
        (NAME, TEXT + "extension\n"),
        (NAME, TEXT.replace(ORIGIN, "o" * 256)),
    ):
        with pytest.raises(NoteError):
            cosign(QUANTUM, name=name, text=text, time_s=TIME_S)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb", "n" * 301, "\x1b[2J", "a\u2003b"])
def test_a_name_that_no_line_can_carry_signs_nothing(name: str) -> None:
    with pytest.raises(NoteError):
        cosign(KITA, name=name, text=TEXT, time_s=TIME_S)


def test_merging_keeps_the_logs_signature_first_and_each_key_once() -> None:
    first = cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S)
    later = cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S + 60)
    nord = cosign(NORD, name="nord/witness", text=TEXT, time_s=TIME_S)
    merged = merge(NOTE, [first, later, nord])
    assert merged == NOTE + first + nord
    assert merge(merged, [nord, later]) == merged
    assert merge(NOTE, []) == NOTE


def test_of_two_keys_with_one_name_both_stay_and_the_later_time_is_told() -> None:
    lines = [cosign(KITA, name=NAME, text=TEXT, time_s=9), cosign(QUANTUM, name=NAME, text=TEXT, time_s=7)]
    vkeys = [cosigner_vkey(KITA, NAME), cosigner_vkey(QUANTUM, NAME)]
    opened = open_note(merge(NOTE, lines), vkeys)
    assert (opened.verified, dict(opened.times)) == (tuple(vkeys), {NAME: 9})


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "no line\n",
        NOTE,
        cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S)[:-1],
        cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S) * 2,
        cosign(KITA, name=NAME, text=TEXT, time_s=TIME_S).replace("\u2014", "-"),
        f"\u2014 {NAME} AAAA\n",
        f"\u2014 {NAME} AAAAAAA\n",
    ],
)
def test_what_is_no_signature_line_is_refused_and_never_merged(line: str) -> None:
    with pytest.raises(NoteError):
        parse_line(line)
    with pytest.raises(NoteError):
        merge(NOTE, [line])


def test_more_signatures_than_a_note_holds_are_refused() -> None:
    lines = [SignatureLine(f"w{at}", b"hash", b"s").text() for at in range(100)]
    with pytest.raises(NoteError):
        merge(NOTE, lines)
    assert len(parse_note(merge(NOTE, lines[:99])).signatures) == 100


def test_a_library_without_ml_dsa_refuses_and_never_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = cosign(QUANTUM, name=NAME, text=TEXT, time_s=TIME_S)
    note, vkey = merge(NOTE, [line]), cosigner_vkey(QUANTUM, NAME)
    monkeypatch.setitem(__import__("sys").modules, f"{_ASYMMETRIC}.mldsa", None)
    monkeypatch.delattr(__import__(_ASYMMETRIC, fromlist=["mldsa"]), "mldsa")
    for attempt in (
        lambda: MlDsaKey.from_seed(b"Q" * 32),
        lambda: VerifierKey.parse(vkey.text()),
        lambda: verify_ml_dsa(QUANTUM.public, bytes(2420), b""),
        lambda: open_note(note, [vkey]),
    ):
        with pytest.raises(MlDsaMissingError) as refused:
            attempt()
        assert "constraints.txt" in refused.value.remedy
    assert open_note(note, [VerifierKey(ORIGIN, LOG.public)]).times == {}


_ASYMMETRIC = "cryptography.hazmat.primitives.asymmetric"


def test_ml_dsa_keys_and_signatures_of_another_length_are_refused() -> None:
    with pytest.raises(WeakKeyError):
        check_ml_dsa_key(QUANTUM.public[:-1])
    with pytest.raises(SignatureInvalidError):
        verify_ml_dsa(QUANTUM.public, b"", b"message")
    assert repr(QUANTUM) == "MlDsaKey()"
    assert (len(QUANTUM.public), mldsa.KEY_BYTES) == (1312, 1312)
