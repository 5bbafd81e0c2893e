# SPDX-License-Identifier: Apache-2.0
r"""Cosignatures of checkpoints (C2SP tlog-cosignature): making them, and putting them on a note.

A cosigner states that at a time this was the largest head of this log that it had seen, and that it was
consistent with all that it had seen before. Who says so without checking first is `policies.log.witness`'s
business; here are only the bytes. What is signed stands in `policies.log.checkpoint`.

Order of calls of whoever collects: `open_line` for each line that arrives (refuses what is unknown or does
not hold), store it, `merge` what is stored into the log's note.

Example::

    line = cosign(key, name="org_kita/witness", text=parse_note(note).text, time_s=1_790_000_000)
    full = merge(note, [line])
    open_note(full, [log_vkey, witness_vkey]).times == {"org_kita/witness": 1_790_000_000}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.identity import SigningKey
from policies.log.checkpoint import (
    NOTE_BYTES,
    KeyKind,
    Note,
    SignatureLine,
    VerifierKey,
    cosigned_message,
    parse_note,
    parse_signature_line,
    verify_signature,
)
from policies.log.errors import QuorumError
from policies.log.mldsa import MlDsaKey
from policies.log.vkeys import note_error

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CosigningKey",
    "cosign",
    "cosigner_vkey",
    "line_time_s",
    "merge",
    "merge_fitting",
    "open_line",
    "parse_line",
]

_TIME_BYTES = 8

CosigningKey = SigningKey | MlDsaKey
"""A private key that can cosign: Ed25519 (kind 0x04) or ML-DSA-44 (kind 0x06)."""


def cosigner_vkey(key: CosigningKey, name: str) -> VerifierKey:
    """The verifier key under which this key's cosignatures are known."""
    kind = KeyKind.ML_DSA_44 if isinstance(key, MlDsaKey) else KeyKind.COSIGNER
    return VerifierKey(name, key.public, kind)


def cosign(key: CosigningKey, *, name: str, text: str, time_s: int) -> str:
    """One signature line over a checkpoint.

    Args:
        key: Of the witness; of a log that signs with ML-DSA-44 too, its second key.
        name: Name of the key.
        text: Text of the log's note.
        time_s: Seconds since 1970.

    Raises:
        NoteError: A name, text or time that cannot be signed.
    """
    vkey = cosigner_vkey(key, name).checked()
    signed = key.sign(cosigned_message(vkey, text, time_s))
    signature = time_s.to_bytes(_TIME_BYTES, "big") + signed
    return SignatureLine(name, vkey.hash4, signature).text()


def parse_line(line: str) -> SignatureLine:
    """The parts of a signature line, its newline included; nothing is verified yet.

    Raises:
        NoteError: Another form, or another spelling of the same line.
    """
    return parse_signature_line(line)


def open_line(line: str, text: str, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, int]:
    """Whose cosignature a line is, and when it was made.

    1. the line parses; 2. its name and key hash are a known cosigner's; 3. its signature holds.

    Raises:
        NoteError: Steps 1 and 3.
        QuorumError: Step 2.
    """
    parsed = parse_line(line)
    known = {(key.name, key.hash4): key for key in keys if key.kind is not KeyKind.LOG}
    key = known.get((parsed.name, parsed.hash4))
    if key is None:
        raise QuorumError(
            need="a cosignature by a known witness",
            found=f"{ascii(parsed.name)[1:-1][:100]}+{parsed.hash4.hex()}",
            remedy="make the witness's key known first, by a statement under its organisation's key",
        )
    time_s = verify_signature(key, text, parsed.signature)
    if time_s is None:  # pragma: no cover  only a log's own signature has no time
        raise note_error("a cosignature", "a log's signature")
    return key, time_s


def merge(note: str, lines: Iterable[str]) -> str:
    """The note with these signature lines behind its own; of one name and key hash the first stays.

    Raises:
        NoteError: The note or a line is malformed, or there is no room for all of them.
    """
    parsed = parse_note(note)
    kept: dict[tuple[str, bytes], SignatureLine] = {}
    for one in (*(SignatureLine(*each) for each in parsed.signatures), *map(parse_line, lines)):
        kept.setdefault((one.name, one.hash4), one)
    return parse_note(Note(parsed.text, tuple(kept.values())).to_text()).to_text()


def merge_fitting(note: str, lines: Iterable[str]) -> str:
    """As `merge`, in this order, without the lines that find no room in a note.

    Raises:
        NoteError: The note or a line is malformed.
    """
    parsed = parse_note(note)
    kept = {(one[0], one[1]): SignatureLine(*one) for one in parsed.signatures}
    left = NOTE_BYTES - len(parsed.to_text().encode("utf-8"))
    for one in map(parse_line, lines):
        size = len(one.text().encode("utf-8"))
        if (one.name, one.hash4) not in kept and size <= left:
            kept[one.name, one.hash4] = one
            left -= size
    return parse_note(Note(parsed.text, tuple(kept.values())).to_text()).to_text()


def line_time_s(line: str) -> int:
    """When a cosignature says that it was made, in seconds since 1970; nothing is verified.

    Raises:
        NoteError: The line is malformed.
    """
    return int.from_bytes(parse_line(line).signature[:_TIME_BYTES], "big")
