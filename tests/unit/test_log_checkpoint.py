# SPDX-License-Identifier: Apache-2.0
"""Signed notes, verifier keys and policy files."""

from __future__ import annotations

import base64

import pytest

from policies.errors import IriaiError, WeakKeyError
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import (
    Checkpoint,
    Note,
    Policy,
    VerifierKey,
    checkpoint_text,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_policy,
    policy_text,
    sign_checkpoint,
)
from policies.log.errors import NoteError, PolicyError, QuorumError

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
        lambda text: ORIGIN + "+" + VKEY.hash4.hex() + "+" + base64.b64encode(b"\x04" + KEY.public).decode(),
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


BROKER = key_text(OTHER.public)
GOOD = f"# mine\nlog {VKEY.text()}\nbroker {BROKER}\nquorum none\n"


def test_a_policy_round_trips() -> None:
    policy = parse_policy(GOOD)
    assert policy == Policy(logs=(VKEY,), broker=OTHER.public)
    pinned = parse_policy(GOOD + f"contract sha256:{'a' * 64}\n")
    assert pinned.contracts == ("sha256:" + "a" * 64,)
    assert parse_policy(policy_text(pinned)) == pinned


def witness(name: str, seed: bytes) -> str:
    return f"witness {name} " + VerifierKey(f"{name}.example/w", SigningKey.from_seed(seed).public).text()


def test_witnesses_and_groups_are_parsed_and_named() -> None:
    text = GOOD.replace("quorum none\n", "")
    text += (
        f"{witness('kita', b'K' * 32)}\n{witness('nord', b'N' * 32)}\ngroup pool 1 kita nord\nquorum none\n"
    )
    assert parse_policy(text).witnesses == ("kita", "nord")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none",
        f"log {VKEY.text()}\n",
        f"broker {BROKER}\n",
        GOOD + f"broker {key_text(KEY.public)}\n",
        GOOD + f"log {VKEY.text()}\n",
        GOOD + "quorum none\n",
        GOOD + "trust everyone\n",
        GOOD + "_log x\n",
        GOOD + "contract abc\n",
        GOOD.replace(BROKER, "ed25519:" + "01" + "00" * 31),
        GOOD.replace(BROKER, key_text(KEY.public)),
        GOOD.replace(VKEY.text(), "x"),
        GOOD.replace("quorum none", "quorum pool"),
        GOOD + "group pool 1 kita\n",
        GOOD + f"{witness('kita', b'K' * 32)}\n{witness('kita', b'N' * 32)}\n",
        GOOD + f"{witness('kita', b'K' * 32)}\n{witness('none', b'N' * 32)}\n",
        GOOD + f"{witness('kita', b'K' * 32)}\ngroup pool 2 kita\n",
        GOOD + f"{witness('kita', b'K' * 32)}\ngroup pool any kita kita\n",
        GOOD + "witness kita x\n",
        GOOD + "log\n",
        "#\n" * 600,
    ],
)
def test_a_policy_that_cannot_be_trusted_as_written_is_refused(text: str) -> None:
    with pytest.raises(IriaiError) as refused:
        parse_policy(text)
    assert isinstance(refused.value, PolicyError)


def test_a_quorum_of_witnesses_is_refused_rather_than_ignored() -> None:
    text = GOOD.replace("quorum none\n", f"{witness('kita', b'K' * 32)}\nquorum kita\n")
    with pytest.raises(PolicyError, match="does not verify cosignatures"):
        parse_policy(text)
