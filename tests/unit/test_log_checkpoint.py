# SPDX-License-Identifier: Apache-2.0
"""Signed notes and verifier keys."""

from __future__ import annotations

import base64
import hashlib

import pytest

from policies.errors import WeakKeyError
from policies.identity import SigningKey
from policies.log.checkpoint import (
    NOTE_BYTES,
    Checkpoint,
    KeyKind,
    Note,
    SignatureLine,
    VerifierKey,
    checkpoint_text,
    open_checkpoint,
    open_note,
    parse_checkpoint,
    parse_note,
    parse_signature_line,
    sign_checkpoint,
)
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.errors import NoteError, QuorumError
from policies.log.mldsa import SIGNATURE_BYTES, MlDsaKey

ORIGIN = "pool.example/log/2026a"
KEY = SigningKey.from_seed(b"L" * 32)
OTHER = SigningKey.from_seed(b"O" * 32)
VKEY = VerifierKey(ORIGIN, KEY.public)
CHECKPOINT = Checkpoint(ORIGIN, 17, b"\x05" * 32)
NOTE = sign_checkpoint(KEY, CHECKPOINT)


def test_a_signed_checkpoint_opens_under_its_key() -> None:
    assert open_checkpoint(NOTE, [VKEY]) == CHECKPOINT
    assert NOTE.startswith(f"{ORIGIN}\n17\n")


def test_the_example_key_of_the_signed_note_specification() -> None:
    # golang.org/x/mod/sumdb/note and C2SP signed-note: the well-known key "PeterNeumann" and its note
    vkey = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    note = (
        text + "\n\u2014 PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    parsed = parse_note(note)
    assert parsed.text == text
    assert parsed.signatures[0][:2] == ("PeterNeumann", vkey.hash4)
    from policies.identity import verify

    verify(vkey.public_key, parsed.signatures[0][2], text.encode())


def test_a_vkey_round_trips() -> None:
    assert VerifierKey.parse(VKEY.text()) == VKEY


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("+", " ", 1),
        lambda text: text[:-4],
        lambda text: text.replace(VKEY.hash4.hex(), "00000000"),
        lambda text: ORIGIN + "+" + VKEY.hash4.hex() + "+" + base64.b64encode(b"\x02" + KEY.public).decode(),
        lambda text: "",
        lambda text: "+".join(
            [ORIGIN, VKEY.hash4.hex(), base64.b64encode(b"\x01" + b"\x01" + bytes(31)).decode()]
        ),
    ],
)
def test_a_malformed_or_weak_vkey_is_refused(change) -> None:
    with pytest.raises((NoteError, WeakKeyError)):
        VerifierKey.parse(change(VKEY.text()))


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n17\n{base64.b64encode(bytes(32)).decode()}\nextension\n",
        f"{ORIGIN}\n017\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n9007199254740993\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n17\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n17\n{base64.b64encode(bytes(32)).decode()[:-1]}\n",
        f"\n17\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n17\n",
    ],
)
def test_a_checkpoint_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "no newline at the end",
        NOTE.replace("\u2014", "-"),
        NOTE + "\n",
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("17", "17\x1b[2J"),
        NOTE[:-2] + "\n",
        NOTE.partition("\n\n")[0] + "\n\n",
        NOTE + NOTE.rpartition("\n\n")[2] * 200,
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(note, [VKEY])


def test_no_character_of_a_note_can_change() -> None:
    for at in range(len(NOTE)):
        changed = NOTE[:at] + chr(ord(NOTE[at]) ^ 1) + NOTE[at + 1 :]
        with pytest.raises((NoteError, QuorumError)):
            open_checkpoint(changed, [VKEY])


def test_unknown_signatures_are_ignored_and_a_failing_known_one_rejects() -> None:
    parsed = parse_note(NOTE)
    stranger = VerifierKey("stranger.example", OTHER.public)
    signature = (stranger.name, stranger.hash4, OTHER.sign(parsed.text.encode()))
    both = Note(parsed.text, (*parsed.signatures, signature)).to_text()
    assert open_checkpoint(both, [VKEY]) == CHECKPOINT
    bad = Note(parsed.text, (*parsed.signatures, (stranger.name, stranger.hash4, bytes(64)))).to_text()
    assert open_checkpoint(bad, [VKEY]) == CHECKPOINT
    with pytest.raises(NoteError):
        open_checkpoint(bad, [VKEY, stranger])


def test_only_the_origins_own_key_counts() -> None:
    stranger = VerifierKey("stranger.example", OTHER.public)
    text = checkpoint_text(CHECKPOINT)
    note = Note(text, ((stranger.name, stranger.hash4, OTHER.sign(text.encode())),)).to_text()
    with pytest.raises(QuorumError):
        open_checkpoint(note, [VKEY, stranger])
    with pytest.raises(QuorumError) as refused:
        open_checkpoint(NOTE, [])
    assert refused.value.exit_code == 6


def test_every_verifier_is_told_who_signed_and_when() -> None:
    text = checkpoint_text(CHECKPOINT)
    witness = cosigner_vkey(OTHER, "kita/witness")
    line = cosign(OTHER, name="kita/witness", text=text, time_s=1_790_000_000)
    opened = open_note(merge(NOTE, [line]), [witness, VKEY])
    assert opened.text == text
    assert opened.verified == (VKEY, witness)
    assert dict(opened.times) == {"kita/witness": 1_790_000_000}
    assert open_note(NOTE, [witness, VKEY]).verified == (VKEY,)


def test_a_note_that_nobody_known_signed_is_refused() -> None:
    with pytest.raises(QuorumError):
        open_note(NOTE, [VerifierKey(ORIGIN, OTHER.public)])
    with pytest.raises(QuorumError):
        open_note(NOTE, [])


def test_a_cosigners_key_named_like_the_log_does_not_stand_for_the_log() -> None:
    text = checkpoint_text(CHECKPOINT)
    line = parse_signature_line(cosign(OTHER, name=ORIGIN, text=text, time_s=5))
    note = Note(text, (line,)).to_text()
    known = [VKEY, cosigner_vkey(OTHER, ORIGIN)]
    assert open_note(note, known).verified == (known[1],)
    with pytest.raises(QuorumError):
        open_checkpoint(note, known)


def test_a_note_with_sixteen_post_quantum_signatures_is_read() -> None:
    lines = [
        SignatureLine(f"w{at}.example/witness", bytes([at]) * 4, b"s" * (8 + SIGNATURE_BYTES)).text()
        for at in range(16)
    ]
    note = merge(NOTE, lines)
    assert len(note.encode()) < NOTE_BYTES
    assert len(parse_note(note).signatures) == 17
    assert open_checkpoint(note, [VKEY]) == CHECKPOINT


def test_a_note_above_64_kib_is_refused_in_bytes_not_characters() -> None:
    signatures = NOTE.rpartition("\n\n")[2]
    fits = "x" * (NOTE_BYTES - len(signatures.encode()) - 2) + "\n\n" + signatures
    assert len(parse_note(fits).text) > 60_000
    with pytest.raises(NoteError):
        parse_note("x" + fits)
    with pytest.raises(NoteError):
        parse_note(fits.replace("xx", "\u00e9\u00e9", 1))


@pytest.mark.parametrize(
    "note",
    [
        "\n\n" + NOTE.rpartition("\n\n")[2],
        NOTE.replace("\u2014 ", "\u2014  "),
        NOTE.replace("17", "17\ud800"),
        NOTE.replace("17", "17\x7f"),
        NOTE[:-1],
        NOTE[:-1] + " \n",
        NOTE.replace("\n\u2014", "\r\n\u2014"),
        NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 two words"),
        NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 a\u2028b"),
        NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 a\x9b2J"),
        NOTE.rpartition(" ")[0] + " AAAAAA==\n",
    ],
)
def test_a_note_in_another_spelling_is_refused(note: str) -> None:
    with pytest.raises(NoteError):
        parse_note(note)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_vkey_of_each_kind_round_trips_and_its_hash_depends_on_the_kind(kind: KeyKind) -> None:
    public = MlDsaKey.from_seed(b"P" * 32).public if kind is KeyKind.ML_DSA_44 else KEY.public
    key = VerifierKey("kita.example/w", public, kind)
    assert VerifierKey.parse(key.text()) == key
    assert key.organisation == "kita.example"
    other = KeyKind.COSIGNER if kind is KeyKind.LOG else KeyKind.LOG
    assert key.hash4 != VerifierKey(key.name, public, other).hash4


def test_a_vkey_of_an_unknown_kind_or_a_short_post_quantum_key_is_refused() -> None:
    for raw in (b"\x02" + KEY.public, b"\x05" + KEY.public, b"\xff" + KEY.public, b"\x06" + KEY.public, b""):
        key_hash = hashlib.sha256(b"k\n" + raw).digest()[:4].hex()
        with pytest.raises((NoteError, WeakKeyError)):
            VerifierKey.parse(f"k+{key_hash}+{base64.b64encode(raw).decode()}")


def test_every_kind_of_ed25519_key_that_proves_nothing_is_refused() -> None:
    for weak in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xff" * 32):
        for kind in (KeyKind.LOG, KeyKind.COSIGNER):
            with pytest.raises(WeakKeyError):
                VerifierKey.parse(VerifierKey("k", weak, kind).text())
