# SPDX-License-Identifier: Apache-2.0
r"""Keys that sign notes, by their names (C2SP signed-note, tlog-cosignature).

A **verifier key** (vkey) is the line that people compare and policy files hold::

    <name>+<8 hex digits of the key hash>+<base64 of one kind byte and the public key>

- The key hash is ``SHA256(name || "\n" || kind || key)[:4]``. It only finds the key to try and proves
  nothing: anybody can make a key with a given hash.
- Kinds: a log's Ed25519 key (0x01), a cosigner's Ed25519 key (0x04), an ML-DSA-44 key of either (0x06).
- Keys under which a signature proves nothing (small order, not canonical) are refused wherever a key is read.

Example::

    >>> VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").kind.name
    'LOG'
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum

from policies.identity import check_public_key
from policies.log.errors import NoteError
from policies.log.mldsa import check_ml_dsa_key

__all__ = ["NAME", "KeyKind", "VerifierKey", "note_error", "strict_b64"]

NAME = re.compile(r"[^\s+\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,300}")
_HASH4 = re.compile(r"[0-9a-f]{8}")


def note_error(need: str, found: str) -> NoteError:
    """A refusal of a note, or of a key that signs notes."""
    return NoteError(
        need=need,
        found=ascii(found.replace("\u2014", "--"))[1:-1][:120],
        remedy="fetch the checkpoint again, unchanged",
    )


def strict_b64(text: str) -> bytes | None:
    """Bytes behind the one canonical base64 spelling of them, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64.b64encode(raw).decode("ascii") == text else None


class KeyKind(IntEnum):
    """What a key signs with, and over what: the type byte of signed-note."""

    LOG = 0x01
    COSIGNER = 0x04
    ML_DSA_44 = 0x06


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that signs notes, by its name. Not checked when it is made: `parse` and `checked` do."""

    name: str
    public_key: bytes
    kind: KeyKind = KeyKind.LOG

    @property
    def hash4(self) -> bytes:
        """Key hash of signed-note, 4 bytes."""
        head = self.name.encode("utf-8") + b"\n" + bytes([self.kind])
        return hashlib.sha256(head + self.public_key).digest()[:4]

    @property
    def organisation(self) -> str:
        """Who holds the key: its name before the last slash. Keys of one organisation have one vote."""
        return self.name.rpartition("/")[0] or self.name

    def text(self) -> str:
        """The vkey."""
        key = base64.b64encode(bytes([self.kind]) + self.public_key).decode("ascii")
        return f"{self.name}+{self.hash4.hex()}+{key}"

    def checked(self) -> VerifierKey:
        """This key, if a signature under it proves something.

        Raises:
            NoteError: A name that no signature line can carry.
            WeakKeyError: A key under which a signature proves nothing.
        """
        if not NAME.fullmatch(self.name):
            raise note_error("a key name without spaces, plus signs and control characters", self.name)
        if self.kind is KeyKind.ML_DSA_44:
            check_ml_dsa_key(self.public_key)
        else:
            check_public_key(self.public_key)
        return self

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Key behind a vkey.

        Raises:
            NoteError: Another form, another algorithm, or a key hash that is not this key's.
            WeakKeyError: A key under which a signature proves nothing.
        """
        name, hash_hex, key = ([*text.split("+", 2), "", ""])[:3]
        raw = strict_b64(key)
        if not NAME.fullmatch(name) or not _HASH4.fullmatch(hash_hex) or not raw:
            raise note_error("a vkey: name+hash+key", text)
        if raw[0] not in tuple(KeyKind):
            raise note_error("a vkey of type 0x01, 0x04 or 0x06", f"type {raw[0]:#04x} in {text}")
        found = cls(name, raw[1:], KeyKind(raw[0]))
        if found.hash4.hex() != hash_hex:  # before the key itself: a slip of the pen is told as one
            raise note_error(
                f"key hash {found.hash4.hex()}, as name and key give it: one was mistyped or changed",
                hash_hex,
            )
        return found.checked()
