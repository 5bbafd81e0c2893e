# SPDX-License-Identifier: Apache-2.0
r"""Checkpoints, signed notes and the auditor's policy file (C2SP tlog-checkpoint, signed-note, tlog-policy).

**Note**: text lines, an empty line, then one line per signature: an em dash, the key name, base64 of key
hash (4 bytes) and signature.

**Checkpoint**: three lines, origin, size, base64 of the root. Extension lines are refused. The origin is
the name of the log's key.

**Verifier key** (vkey): ``<name>+<8 hex digits of the key hash>+<base64 of 0x01 and the 32 key bytes>``;
the key hash is ``SHA256(name || "\n" || 0x01 || key)[:4]``.

**Policy file**: what the auditor trusts, from the auditor's own hand. One statement per line, ``#`` starts
a comment::

    log pool.example/log/2026a+<hash>+<key>     required; at least one
    broker ed25519:<64 hex>                     required; the key that signs contracts and statements
    contract sha256:<64 hex>                    optional, repeatable; only these contracts are accepted
    quorum none                                 no witness is required

Members' keys are not in it: they stand in the signed contract, and the contract is pinned here by digest.
Without a ``contract`` line the contract, and with it the members' keys, is taken from the bundle, where the
broker's pinned key must have signed it; the report says so. ``witness`` and ``group`` lines are parsed and
checked for form. Cosignatures are not verified by this version, and a policy that demands a quorum of
witnesses is refused rather than half obeyed.

- Unknown signatures on a note are ignored. A known name and key hash whose signature fails rejects the
  whole note.
- Weak keys (small order, not canonical), the same key under two names and the same name twice are refused.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.encoding import is_digest
from policies.errors import IdentityError, SignatureInvalidError
from policies.identity import KEY_BYTES, SIGNATURE_BYTES, SigningKey, check_public_key, parse_key, verify
from policies.limits import INTEGER_MAX
from policies.log.errors import NoteError, PolicyError, QuorumError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Checkpoint",
    "Note",
    "Policy",
    "VerifierKey",
    "checkpoint_text",
    "open_checkpoint",
    "parse_checkpoint",
    "parse_note",
    "parse_policy",
    "policy_text",
    "sign_checkpoint",
]

NOTE_BYTES = 64 * 1024
SIGNATURE_LINES = 100
POLICY_BYTES = 64 * 1024
POLICY_LINES = 500
_ED25519 = b"\x01"
_EM_DASH = "\u2014"
_NAME = re.compile(r"[^\s+]{1,300}")
_HASH4 = re.compile(r"[0-9a-f]{8}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_WORD = re.compile(r"[A-Za-z0-9._/:-]{1,100}")


def _note_error(need: str, found: str) -> NoteError:
    return NoteError(
        need=need, found=ascii(found)[1:-1][:120], remedy="fetch the checkpoint again, unchanged"
    )


def _policy_error(line: int, need: str, found: str) -> PolicyError:
    return PolicyError(
        need=f"line {line}: {need}", found=ascii(found)[1:-1][:120], remedy="correct the policy file"
    )


def _strict_b64(text: str) -> bytes | None:
    """Bytes behind the one canonical base64 spelling of them, or None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return raw if base64.b64encode(raw).decode("ascii") == text else None


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 key of a log, by its name."""

    name: str
    public_key: bytes

    @property
    def hash4(self) -> bytes:
        """Key hash of signed-note, 4 bytes."""
        return hashlib.sha256(self.name.encode("utf-8") + b"\n" + _ED25519 + self.public_key).digest()[:4]

    def text(self) -> str:
        """The vkey."""
        return (
            f"{self.name}+{self.hash4.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode('ascii')}"
        )

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Key behind a vkey.

        Raises:
            NoteError: Another form, another algorithm, or a key hash that is not this key's.
            WeakKeyError: A key under which a signature proves nothing.
        """
        name, hash_hex, key = ([*text.split("+", 2), "", ""])[:3]
        raw = _strict_b64(key)
        if not _NAME.fullmatch(name) or not _HASH4.fullmatch(hash_hex) or raw is None:
            raise _note_error("a vkey: name+hash+key", text)
        if raw[:1] != _ED25519 or len(raw) != KEY_BYTES + 1:
            raise _note_error("an Ed25519 vkey (type 0x01)", text)
        found = cls(name, check_public_key(raw[1:]))
        if found.hash4.hex() != hash_hex:
            raise _note_error(f"key hash {found.hash4.hex()}", hash_hex)
        return found


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed signed note; nothing is verified yet. ``signatures`` are (name, key hash, signature)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def to_text(self) -> str:
        """The note as published."""
        lines = [
            f"{_EM_DASH} {name} {base64.b64encode(hash4 + signature).decode('ascii')}\n"
            for name, hash4, signature in self.signatures
        ]
        return self.text + "\n" + "".join(lines)


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


def parse_note(note: str) -> Note:
    """Parts of a signed note; nothing is verified yet.

    Raises:
        NoteError: Not a signed note, or not in its one spelling.
    """
    if len(note) > NOTE_BYTES or not note.endswith("\n"):
        raise _note_error(f"at most {NOTE_BYTES} characters that end in a newline", f"{len(note)} characters")
    if any(char != "\n" and (ord(char) < 0x20 or ord(char) == 0x7F) for char in note):  # noqa: PLR2004
        raise _note_error("no control characters", "one")
    text, found, tail = note.rpartition("\n\n")
    if not found:
        raise _note_error("an empty line before the signatures", "none")
    signatures = []
    for line in tail.splitlines():
        dash, name, encoded = ([*line.split(" ", 2), "", ""])[:3]
        raw = _strict_b64(encoded)
        if dash != _EM_DASH or not _NAME.fullmatch(name) or raw is None or len(raw) <= 4:  # noqa: PLR2004
            raise _note_error(f"{_EM_DASH} <name> <base64>", line)
        signatures.append((name, raw[:4], raw[4:]))
    if not 0 < len(signatures) <= SIGNATURE_LINES:
        raise _note_error(f"1 to {SIGNATURE_LINES} signature lines", str(len(signatures)))
    parsed = Note(text + "\n", tuple(signatures))
    if parsed.to_text() != note:
        raise _note_error("the one spelling of a signed note", "another")
    return parsed


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text: exactly three lines.

    Raises:
        NoteError: Another form, extension lines included.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004  three lines, each ended
        raise _note_error("three lines: origin, size, root", f"{len(lines) - 1} lines")
    origin, size, root_text = lines[:3]
    root = _strict_b64(root_text)
    if not origin or not _SIZE.fullmatch(size) or int(size) > INTEGER_MAX:
        raise _note_error("an origin and a decimal size", f"{origin} {size}")
    if root is None or len(root) != 32:  # noqa: PLR2004  SHA-256
        raise _note_error("base64 of a 32-byte root", root_text)
    return Checkpoint(origin, int(size), root)


def open_checkpoint(note: str, keys: Iterable[VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that one of these log keys signed.

    1. the note parses strictly; 2. its text is a checkpoint; 3. no signature of a known name and key hash
    fails; 4. one of them is by a key whose name is the checkpoint's origin.

    Raises:
        NoteError: Steps 1 to 3.
        QuorumError: Step 4.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.text)
    known = {(key.name, key.hash4): key for key in keys}
    signed = False
    for name, hash4, signature in parsed.signatures:
        key = known.get((name, hash4))
        if key is None:
            continue
        try:
            verify(key.public_key, signature, parsed.text.encode("utf-8"))
        except SignatureInvalidError as error:
            raise _note_error(f"a signature by {name}+{hash4.hex()}", "one that does not verify") from error
        signed = signed or (name == checkpoint.origin and len(signature) == SIGNATURE_BYTES)
    if not signed:
        raise QuorumError(
            need="a signature by a log key of the policy: "
            + (", ".join(f"{key.name}+{key.hash4.hex()}" for key in known.values()) or "none is listed"),
            found=", ".join(f"{ascii(name)[1:-1]}+{hash4.hex()}" for name, hash4, _ in parsed.signatures)[
                :400
            ],
            remedy="compare the log's vkey by another way; this may be another log, or a forged one",
        )
    return checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an auditor trusts: ``contracts`` may be empty, ``witnesses`` are named and not checked."""

    logs: tuple[VerifierKey, ...]
    broker: bytes
    contracts: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()


def policy_text(policy: Policy) -> str:
    """A policy file that `parse_policy` reads."""
    lines = [f"log {key.text()}" for key in policy.logs]
    lines += [f"broker ed25519:{policy.broker.hex()}"]
    lines += [f"contract {one}" for one in policy.contracts]
    return "\n".join([*lines, "quorum none", ""])


class _PolicyReader:
    """Reads a policy file line by line; each statement has one method."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.brokers: list[bytes] = []
        self.contracts: list[str] = []
        self.witnesses: list[str] = []
        self.names: set[str] = {"none"}
        self.keys: set[bytes] = set()
        self.quorum: str | None = None

    def _new_key(self, line: int, key: bytes) -> bytes:
        if key in self.keys:
            raise _policy_error(line, "each key once", "the same public key again")
        self.keys.add(key)
        return key

    def _new_name(self, line: int, name: str) -> str:
        if name in self.names or not _WORD.fullmatch(name):
            raise _policy_error(line, "a new name", name)
        self.names.add(name)
        return name

    def read(self, line: int, words: list[str]) -> None:
        """One statement."""
        statement, rest = words[0], words[1:]
        counts = {"log": (1, 2), "broker": (1, 1), "contract": (1, 1), "witness": (2, 3), "group": (3, 200)}
        least, most = counts.get(statement, (1, 1))
        if statement not in {*counts, "quorum"} or not least <= len(rest) <= most:
            raise _policy_error(line, "log, broker, contract, witness, group or quorum", " ".join(words))
        getattr(self, f"_{statement}")(line, rest)

    def _log(self, line: int, rest: list[str]) -> None:
        key = VerifierKey.parse(rest[0])
        self._new_key(line, key.public_key)
        self.logs.append(key)

    def _broker(self, line: int, rest: list[str]) -> None:
        self.brokers.append(self._new_key(line, parse_key(rest[0])))

    def _contract(self, line: int, rest: list[str]) -> None:
        if not is_digest(rest[0]):
            raise _policy_error(line, "sha256:<64 hex digits>", rest[0])
        self.contracts.append(rest[0])

    def _witness(self, line: int, rest: list[str]) -> None:
        self._new_name(line, rest[0])
        vkey = rest[1].split("+", 2)
        if len(vkey) != 3 or not _HASH4.fullmatch(vkey[1]):  # noqa: PLR2004  name, hash, key
            raise _policy_error(line, "a vkey", rest[1])
        self._new_key(line, vkey[2].encode("utf-8"))
        self.witnesses.append(rest[0])

    def _group(self, line: int, rest: list[str]) -> None:
        members = rest[2:]
        threshold = rest[1] in ("any", "all") or (rest[1].isdecimal() and 0 < int(rest[1]) <= len(members))
        if not threshold or len(set(members)) != len(members) or not set(members) <= self.names - {"none"}:
            raise _policy_error(
                line, "any, all or a number, then names that were defined before", " ".join(rest)
            )
        self._new_name(line, rest[0])

    def _quorum(self, line: int, rest: list[str]) -> None:
        if self.quorum is not None or rest[0] not in self.names:
            raise _policy_error(line, "one quorum line with none or a name that was defined before", rest[0])
        if rest[0] != "none":
            raise _policy_error(
                line, "quorum none: this version does not verify cosignatures of witnesses", rest[0]
            )
        self.quorum = rest[0]


def parse_policy(text: str) -> Policy:
    """The auditor's policy file; see the module docstring.

    Raises:
        PolicyError: A line that is not understood, something unsafe, or a required line is missing.
    """
    lines = text.split("\n")
    if len(text) > POLICY_BYTES or len(lines) > POLICY_LINES:
        raise _policy_error(0, f"at most {POLICY_BYTES} characters and {POLICY_LINES} lines", "more")
    reader = _PolicyReader()
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            reader.read(number, words)
        except (NoteError, IdentityError) as error:
            raise _policy_error(number, error.need, error.found) from error
    if not reader.logs or len(reader.brokers) != 1:
        raise _policy_error(0, "at least one log line and exactly one broker line", "others")
    return Policy(
        logs=tuple(reader.logs),
        broker=reader.brokers[0],
        contracts=tuple(reader.contracts),
        witnesses=tuple(reader.witnesses),
    )
