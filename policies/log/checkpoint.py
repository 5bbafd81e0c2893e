# SPDX-License-Identifier: Apache-2.0
r"""Checkpoints and signed notes (C2SP tlog-checkpoint, signed-note, tlog-cosignature): reading them.

**Note**: text lines, an empty line, then one line per signature: an em dash, the key name, base64 of key
hash (4 bytes) and signature. At most 64 KiB of UTF-8, no control characters.

**Checkpoint**: three lines, origin, size, base64 of the root. Extension lines are refused. The origin is
the name of the log's key, whose Ed25519 signature (kind 0x01, over the text) every checkpoint carries.

**Cosignature**: 8 bytes of time (seconds since 1970, big-endian), then the signature over text and time:

- Ed25519 (kind 0x04) signs ``"cosignature/v1\ntime <decimal>\n"`` and the note's text;
- ML-DSA-44 (kind 0x06) signs ``"subtree/v1\n\0"``, cosigner name, time, origin, 0, size and root. Names have
  one byte of length before them, numbers are 8 bytes, big-endian. The time is never 0.

Rules of `open_note`:

- Unknown signatures are ignored. A known name and key hash whose signature fails rejects the whole note.
- What is opened is signed by somebody known; it is for the caller to say who is enough
  (`open_checkpoint` for the log alone, `policies.log.policy` for the log and a quorum).

Keys and vkeys are in `policies.log.vkeys`, making cosignatures in `policies.log.cosignature`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from policies.errors import SignatureInvalidError
from policies.identity import SigningKey, verify
from policies.limits import INTEGER_MAX
from policies.log.errors import QuorumError
from policies.log.mldsa import verify_ml_dsa
from policies.log.vkeys import NAME, KeyKind, VerifierKey, note_error, strict_b64

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Checkpoint",
    "KeyKind",
    "Note",
    "SignatureLine",
    "VerifierKey",
    "checkpoint_text",
    "cosigned_message",
    "open_checkpoint",
    "open_note",
    "parse_checkpoint",
    "parse_note",
    "parse_signature_line",
    "sign_checkpoint",
    "signed_by_log",
    "verify_signature",
]

NOTE_BYTES = 64 * 1024  # 16 signatures of ML-DSA-44 fit
SIGNATURE_LINES = 100
TIME_MAX_S = 253_402_300_799  # the last second that RFC 3339 can write
_EM_DASH = "\u2014"
_HASH4_BYTES = 4
_TIME_BYTES = 8
_ROOT_BYTES = 32
_CHECKPOINT_LINES = 3
_NAME_BYTES = 255  # of a name in the message that ML-DSA-44 signs
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]")


class SignatureLine(NamedTuple):
    """One signature of a note; nothing is verified. ``signature`` is what stands after the key hash."""

    name: str
    hash4: bytes
    signature: bytes

    def text(self) -> str:
        """The line, with its newline."""
        return f"{_EM_DASH} {self.name} {base64.b64encode(self.hash4 + self.signature).decode('ascii')}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note. `parse_note` fills the first two fields, `open_note` all.

    Attributes:
        text: What is signed, with its last newline.
        signatures: (name, key hash, signature) in the note's order, unknown ones too.
        verified: Keys whose signature holds, each once.
        times: When each verified cosigner signed, seconds since 1970 by key name; the latest, if several.
    """

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]
    verified: tuple[VerifierKey, ...] = ()
    times: Mapping[str, int] = field(default_factory=dict, hash=False)

    def to_text(self) -> str:
        """The note as published."""
        return self.text + "\n" + "".join(SignatureLine(*one).text() for one in self.signatures)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement that the log ``origin`` has ``size`` entries and this root (32 bytes)."""

    origin: str
    size: int
    root: bytes


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """The three lines that are signed."""
    root = base64.b64encode(checkpoint.root).decode("ascii")
    return f"{checkpoint.origin}\n{checkpoint.size}\n{root}\n"


def sign_checkpoint(key: SigningKey, checkpoint: Checkpoint) -> str:
    """The signed note for a checkpoint; the key's name is the origin."""
    text = checkpoint_text(checkpoint)
    named = VerifierKey(checkpoint.origin, key.public)
    signature = key.sign(text.encode("utf-8"))
    return Note(text, ((named.name, named.hash4, signature),)).to_text()


def parse_signature_line(line: str) -> SignatureLine:
    """The parts of one signature line, its newline included; nothing is verified yet.

    Raises:
        NoteError: Another form, or another spelling of the same line.
    """
    dash, name, encoded = ([*line.removesuffix("\n").split(" ", 2), "", ""])[:3]
    raw = strict_b64(encoded)
    if dash != _EM_DASH or not NAME.fullmatch(name) or raw is None or len(raw) <= _HASH4_BYTES:
        raise note_error("a signature line: em dash, name, base64", line)
    parsed = SignatureLine(name, raw[:_HASH4_BYTES], raw[_HASH4_BYTES:])
    if parsed.text() != line:
        raise note_error("the one spelling of a signature line, with its newline", line)
    return parsed


def parse_note(note: str) -> Note:
    """Parts of a signed note; nothing is verified yet.

    Raises:
        NoteError: Not a signed note, or not in its one spelling.
    """
    if len(note) > NOTE_BYTES or not note.endswith("\n"):
        raise note_error(f"at most {NOTE_BYTES} bytes that end in a newline", f"{len(note)} characters")
    if _CONTROL.search(note):
        raise note_error("UTF-8 without control characters", "others")
    if len(note.encode("utf-8")) > NOTE_BYTES:
        raise note_error(f"at most {NOTE_BYTES} bytes", f"{len(note.encode('utf-8'))} bytes")
    text, found, tail = note.rpartition("\n\n")
    if not found or not text:
        raise note_error("a text and an empty line before the signatures", "none")
    lines = tail.split("\n")[:-1]
    if not 0 < len(lines) <= SIGNATURE_LINES:
        raise note_error(f"1 to {SIGNATURE_LINES} signature lines", str(len(lines)))
    return Note(text + "\n", tuple(parse_signature_line(line + "\n") for line in lines))


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text: exactly three lines.

    Raises:
        NoteError: Another form, extension lines included.
    """
    lines = text.split("\n")
    if len(lines) != _CHECKPOINT_LINES + 1 or lines[-1]:
        raise note_error("three lines: origin, size, root", f"{len(lines) - 1} lines")
    origin, size, root_text = lines[:_CHECKPOINT_LINES]
    root = strict_b64(root_text)
    if not origin or not _SIZE.fullmatch(size) or int(size) > INTEGER_MAX:
        raise note_error("an origin and a decimal size", f"{origin} {size}")
    if root is None or len(root) != _ROOT_BYTES:
        raise note_error("base64 of a 32-byte root", root_text)
    return Checkpoint(origin, int(size), root)


def cosigned_message(key: VerifierKey, text: str, time_s: int) -> bytes:
    """What a cosigner's signature is over.

    Raises:
        NoteError: A time that cannot be written, or for ML-DSA-44 a text that is no checkpoint.
    """
    if not 0 < time_s <= TIME_MAX_S:
        raise note_error(f"a time from 1 to {TIME_MAX_S} s after 1970", str(time_s))
    if key.kind is KeyKind.COSIGNER:
        return f"cosignature/v1\ntime {time_s}\n{text}".encode()
    checkpoint = parse_checkpoint(text)
    name, origin = key.name.encode("utf-8"), checkpoint.origin.encode("utf-8")
    if not 0 < len(name) <= _NAME_BYTES or len(origin) > _NAME_BYTES:
        raise note_error(f"names of at most {_NAME_BYTES} bytes", f"{len(name)} and {len(origin)}")
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes([len(name)]) + name,
            time_s.to_bytes(8, "big"),
            bytes([len(origin)]) + origin,
            (0).to_bytes(8, "big"),  # a checkpoint is the subtree from the first entry
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def verify_signature(key: VerifierKey, text: str, signature: bytes) -> int | None:
    """Checks one signature over a note's text.

    Args:
        key: Known by the caller, not by the note.
        text: The note's text.
        signature: What stands after the key hash.

    Returns:
        When a cosigner signed, seconds since 1970; None for a log's own signature.

    Raises:
        NoteError: It does not verify, or its time is none.
        MlDsaMissingError: The library cannot check it.
    """
    time_s = None
    message = text.encode("utf-8")
    if key.kind is not KeyKind.LOG:
        time_s = int.from_bytes(signature[:_TIME_BYTES], "big")
        message, signature = cosigned_message(key, text, time_s), signature[_TIME_BYTES:]
    check = verify_ml_dsa if key.kind is KeyKind.ML_DSA_44 else verify
    try:
        check(key.public_key, signature, message)
    except SignatureInvalidError as error:
        raise note_error(
            f"a signature by {key.name}+{key.hash4.hex()}", "one that does not verify"
        ) from error
    return time_s


def _shown(signatures: Iterable[tuple[str, bytes, bytes]]) -> str:
    return ", ".join(f"{ascii(name)[1:-1]}+{hash4.hex()}" for name, hash4, _ in signatures)[:400]


def _untrusted(keys: Iterable[VerifierKey], signatures: Iterable[tuple[str, bytes, bytes]]) -> QuorumError:
    wanted = ", ".join(f"{key.name}+{key.hash4.hex()}" for key in keys)
    return QuorumError(
        need="a signature by a log key of the policy: " + (wanted or "none is listed"),
        found=_shown(signatures),
        remedy="compare the log's vkey by another way; this may be another log, or a forged one",
    )


def open_note(note: str, verifiers: Iterable[VerifierKey]) -> Note:
    """A note that at least one of these keys signed, with who signed and when.

    1. the note parses strictly; 2. every signature of a known name and key hash holds; 3. there is one.

    Raises:
        NoteError: Steps 1 and 2.
        QuorumError: Step 3.
    """
    parsed = parse_note(note)
    known = {(key.name, key.hash4): key for key in verifiers}
    verified: dict[VerifierKey, None] = {}
    times: dict[str, int] = {}
    for name, hash4, signature in parsed.signatures:
        key = known.get((name, hash4))
        if key is None:
            continue
        time_s = verify_signature(key, parsed.text, signature)
        verified[key] = None
        if time_s is not None:
            times[name] = max(time_s, times.get(name, 0))
    if not verified:
        raise _untrusted(known.values(), parsed.signatures)
    return Note(parsed.text, parsed.signatures, tuple(verified), times)


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that one of these log keys signed.

    1. the note parses strictly; 2. its text is a checkpoint; 3. no signature of a known name and key hash
    fails; 4. one of them is a log's own (kind 0x01) by a key whose name is the checkpoint's origin.

    Raises:
        NoteError: Steps 1 to 3.
        QuorumError: Step 4.
    """
    known = tuple(keys)
    checkpoint = parse_checkpoint(parse_note(note).text)
    opened = open_note(note, known)
    if not signed_by_log(checkpoint, opened):
        raise _untrusted(known, opened.signatures)
    return checkpoint


def signed_by_log(checkpoint: Checkpoint, opened: Note) -> bool:
    """Whether the log that the checkpoint names signed it itself."""
    return any(key.kind is KeyKind.LOG and key.name == checkpoint.origin for key in opened.verified)
