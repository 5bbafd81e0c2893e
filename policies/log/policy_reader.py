# SPDX-License-Identifier: Apache-2.0
"""The statements of a policy file, one by one; what they mean together is in `policies.log.policy`.

A reader takes the lines in order, because a name must be defined before it is used. Call `read` for each
line, then `finish`; the fields are then the parts of a policy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policies.encoding import is_digest
from policies.errors import IdentityError
from policies.identity import parse_key
from policies.log.errors import NoteError, PolicyError
from policies.log.vkeys import KeyKind, VerifierKey

__all__ = ["NO_QUORUM", "Group", "PolicyReader", "policy_error"]

NO_QUORUM = "none"
_COUNT = re.compile(r"[1-9][0-9]{0,2}")
_WORD = re.compile(r"[A-Za-z0-9._/:-]{1,100}")
_COMMENT = re.compile(r"(^|[ \t])#.*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
# how many words may follow each statement
_WORDS = {
    "log": (1, 2),
    "broker": (1, 1),
    "contract": (1, 1),
    "witness": (2, 3),
    "group": (3, 200),
    "quorum": (1, 1),
}


def policy_error(line: int, need: str, found: str) -> PolicyError:
    """A refusal of a policy file; line 0 is the file as a whole."""
    return PolicyError(
        need=f"line {line}: {need}" if line else need,
        found=ascii(found)[1:-1][:120],
        remedy="correct the policy file",
    )


@dataclass(frozen=True, slots=True)
class Group:
    """``threshold`` of the members must have cosigned; members are witnesses or earlier groups."""

    threshold: int
    members: tuple[str, ...]


class PolicyReader:
    """Reads a policy file line by line; each statement has one method."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.brokers: list[bytes] = []
        self.contracts: list[str] = []
        self.witnesses: dict[str, VerifierKey] = {}
        self.groups: dict[str, Group] = {}
        self.keys: set[bytes] = set()
        self.ids: set[tuple[str, bytes]] = set()
        self.in_group: set[str] = set()
        self.quorum = ""

    @property
    def names(self) -> set[str]:
        """Witnesses and groups that were defined."""
        return {*self.witnesses, *self.groups}

    def _new_key(self, line: int, key: bytes) -> bytes:
        if key in self.keys:
            raise policy_error(line, "each key once", "the same public key again")
        self.keys.add(key)
        return key

    def _new_vkey(self, line: int, text: str, kinds: tuple[KeyKind, ...]) -> VerifierKey:
        key = VerifierKey.parse(text)
        if key.kind not in kinds:
            raise policy_error(line, "a vkey of type " + " or ".join(f"{one:#04x}" for one in kinds), text)
        self._new_key(line, key.public_key)
        if (key.name, key.hash4) in self.ids:
            raise policy_error(line, "each name and key hash once", f"{key.name}+{key.hash4.hex()} again")
        self.ids.add((key.name, key.hash4))
        return key

    def _new_name(self, line: int, name: str) -> str:
        if name in self.names or name == NO_QUORUM or not _WORD.fullmatch(name):
            raise policy_error(line, "a new name", name)
        return name

    def read(self, line: int, text: str) -> None:
        """One line of the file.

        Raises:
            PolicyError: It is not understood, or unsafe.
        """
        plain = text.removesuffix("\r")
        words = _COMMENT.sub("", plain).split()
        if _CONTROL.search(plain):
            raise policy_error(line, "no control characters", plain)
        if not words:
            return
        least, most = _WORDS.get(words[0], (1, 0))
        if not least <= len(words) - 1 <= most:
            raise policy_error(line, "log, broker, contract, witness, group or quorum", " ".join(words))
        try:
            getattr(self, f"_{words[0]}")(line, words[1:])
        except (NoteError, IdentityError) as error:
            raise policy_error(line, error.need, error.found) from error

    def _log(self, line: int, rest: list[str]) -> None:
        self.logs.append(self._new_vkey(line, rest[0], (KeyKind.LOG, KeyKind.ML_DSA_44)))

    def _broker(self, line: int, rest: list[str]) -> None:
        self.brokers.append(self._new_key(line, parse_key(rest[0])))

    def _contract(self, line: int, rest: list[str]) -> None:
        if not is_digest(rest[0]):
            raise policy_error(line, "sha256:<64 hex digits>", rest[0])
        self.contracts.append(rest[0])

    def _witness(self, line: int, rest: list[str]) -> None:
        name = self._new_name(line, rest[0])
        self.witnesses[name] = self._new_vkey(line, rest[1], (KeyKind.COSIGNER, KeyKind.ML_DSA_44))

    def _group(self, line: int, rest: list[str]) -> None:
        name, threshold, members = self._new_name(line, rest[0]), rest[1], tuple(rest[2:])
        for member in members:
            if member not in self.names or member in self.in_group:
                raise policy_error(
                    line, "names that were defined before, each in one group, once", " ".join(rest)
                )
            self.in_group.add(member)
        count = {"any": "1", "all": str(len(members))}.get(threshold, threshold)
        if not _COUNT.fullmatch(count) or int(count) > len(members):
            raise policy_error(line, f"any, all or a number from 1 to {len(members)}", threshold)
        self.groups[name] = Group(int(count), members)

    def _quorum(self, line: int, rest: list[str]) -> None:
        if self.quorum or rest[0] not in self.names | {NO_QUORUM}:
            raise policy_error(line, "one quorum line with none or a name that was defined before", rest[0])
        self.quorum = rest[0]

    def finish(self) -> None:
        """Refuses what lacks a required line; call it after the last line."""
        if len(self.brokers) != 1 or not any(key.kind is KeyKind.LOG for key in self.logs):
            raise policy_error(0, "at least one log line of type 0x01 and exactly one broker line", "others")
        if not self.quorum:
            raise policy_error(0, f"a quorum line, if only `quorum {NO_QUORUM}`", "none")
