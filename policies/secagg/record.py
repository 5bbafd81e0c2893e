# SPDX-License-Identifier: Apache-2.0
"""The bytes that stay of an opened sum: signed documents, sets, and the secrets that opened it.

One packed document (`policies.secagg.packing`), so that writing what was read gives the same bytes:

    0  canonical JSON: v, setup, first_round, rounds, round, attempt, base_model, server, parties that
       advertised and members, teams, online, opened, z (digest per opened team)
    1  adverts: per advertiser (payload, signature, blob)
    2  share headers: per member (payload, signature)
    3  nonce reveals, 32 bytes per member
    4  per online member: digest of its vector (32), lane (24), signature (64)
    5  confirmations: per signer its position in the roster (1) and signature (64)
    6  per member of an opened team, in the order of teams: b if it is online, else the private bytes of s

Reading checks the form only; `policies.secagg.transcript` checks what it says. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from policies.encoding import canonical, is_digest, parse
from policies.errors import EncodingError
from policies.secagg.documents import SIGNATURE_BYTES, SignedBytes
from policies.secagg.errors import ContextMismatchError
from policies.secagg.keystream import LANE_BYTES
from policies.secagg.labels import KEY_BYTES
from policies.secagg.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.secagg.contexts import Teams

__all__ = ["VECTOR_BYTES", "Record", "VectorEntry", "cut"]

_Value = TypeVar("_Value")
VECTOR_BYTES: Final = KEY_BYTES + LANE_BYTES + SIGNATURE_BYTES
_CONFIRM_BYTES: Final = 1 + SIGNATURE_BYTES
_PARTS: Final = 7
_PLAIN: Final = ("first_round", "rounds", "round", "attempt", "base_model", "server")
_NUMBERS: Final = ("setup", "first_round", "rounds", "round", "attempt")
_KEYS: Final = frozenset(
    {"v", *_NUMBERS, "base_model", "server", "adverts", "members", "teams", "online", "opened", "z"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorEntry:
    """A masked vector without its bytes: digest, masked lane, signature."""

    digest: str
    lane: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """120 bytes."""
        return bytes.fromhex(self.digest.removeprefix("sha256:")) + self.lane + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> VectorEntry:
        """What `to_bytes` wrote."""
        digest, rest = data[:KEY_BYTES], data[KEY_BYTES:]
        return cls(digest=f"sha256:{digest.hex()}", lane=rest[:LANE_BYTES], signature=rest[LANE_BYTES:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Transcript of one opened attempt.

    Attributes:
        number, first_round, rounds: Of the setup.
        round, attempt, base_model, server: Of the attempt.
        adverts: Per advertiser, in roster order.
        shares: Per member M, in roster order, with an empty blob.
        nonces: Per member.
        teams: Of the attempt.
        online: U3 and their vectors, in roster order.
        opened: Numbers of the opened teams, rising.
        confirmations: Signatures by position, rising.
        secrets: Per member of an opened team, in the order of teams: b if online, else s.
        sums: Per opened team, digest of the opened sum.
    """

    number: int
    first_round: int
    rounds: int
    round: int
    attempt: int
    base_model: str
    server: str
    adverts: Mapping[str, SignedBytes]
    shares: Mapping[str, SignedBytes]
    nonces: tuple[bytes, ...]
    teams: Teams
    online: Mapping[str, VectorEntry]
    opened: tuple[int, ...]
    confirmations: Mapping[int, bytes]
    secrets: Mapping[str, bytes] = field(repr=False)
    sums: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """The one spelling."""
        adverts = (pack([one.payload, one.signature, one.blob]) for one in self.adverts.values())
        shares = (pack([one.payload, one.signature]) for one in self.shares.values())
        confirmations = (bytes([at]) + signature for at, signature in self.confirmations.items())
        parts = [
            canonical(self._facts()),
            pack(list(adverts)),
            pack(list(shares)),
            b"".join(self.nonces),
            b"".join(one.to_bytes() for one in self.online.values()),
            b"".join(confirmations),
            b"".join(self.secrets.values()),
        ]
        return pack(parts)

    def _facts(self) -> dict[str, Any]:
        return {
            "v": 1,
            "setup": self.number,
            "first_round": self.first_round,
            "rounds": self.rounds,
            "round": self.round,
            "attempt": self.attempt,
            "base_model": self.base_model,
            "server": self.server,
            "adverts": list(self.adverts),
            "members": list(self.shares),
            "teams": [list(one) for one in self.teams],
            "online": list(self.online),
            "opened": list(self.opened),
            "z": list(self.sums),
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """What `to_bytes` wrote, and nothing else.

        Raises:
            ContextMismatchError: Other parts, fields, types or sizes, or another spelling of the same.
        """
        try:
            found = cls._read(data)
        except (EncodingError, TypeError, ValueError, IndexError) as error:
            raise _unreadable(type(error).__name__) from error
        if found.to_bytes() != data:
            raise _unreadable("another spelling")
        return found

    @classmethod
    def _read(cls, data: bytes) -> Record:
        facts, adverts, shares, nonces, vectors, confirmations, secrets = unpack(data, _PARTS)
        head = _head(facts)
        teams = tuple(tuple(one) for one in head["teams"])
        opened = tuple(head["opened"])
        revealed = [party for number in opened for party in teams[number]]
        signed = cut(confirmations, _CONFIRM_BYTES)
        return cls(
            number=head["setup"],
            **{name: head[name] for name in _PLAIN},
            adverts=_by(head["adverts"], [_signed(one, blob=True) for one in unpack(adverts)]),
            shares=_by(head["members"], [_signed(one, blob=False) for one in unpack(shares)]),
            nonces=tuple(cut(nonces, KEY_BYTES, len(head["members"]))),
            teams=teams,
            online=_by(head["online"], [VectorEntry.from_bytes(one) for one in cut(vectors, VECTOR_BYTES)]),
            opened=opened,
            confirmations={one[0]: one[1:] for one in signed},
            secrets=_by(revealed, cut(secrets, KEY_BYTES)),
            sums=tuple(head["z"]),
        )


def cut(data: bytes, size: int, count: int | None = None) -> list[bytes]:
    """Entries of one size, exactly ``count`` of them where it is given.

    Raises:
        ContextMismatchError: Bytes are missing or left over.
    """
    if len(data) % size or (count is not None and len(data) != size * count):
        raise _unreadable(f"{len(data)} bytes")
    return [data[at : at + size] for at in range(0, len(data), size)]


def _head(data: bytes) -> dict[str, Any]:
    head = parse(data)
    if not isinstance(head, dict) or set(head) != _KEYS or head["v"] != 1:
        raise _unreadable("other fields")
    numbers = [head[name] for name in _NUMBERS] + list(head["opened"])
    names = [
        *head["adverts"],
        *head["members"],
        *head["online"],
        *(one for team in head["teams"] for one in team),
    ]
    if not all(type(one) is int and one >= 0 for one in numbers) or not all(
        type(one) is str for one in names
    ):
        raise _unreadable("other types")
    named = [head["base_model"], head["server"], *head["z"]]
    if not all(map(is_digest, named)) or len(head["z"]) != len(head["opened"]):
        raise _unreadable("no digest of each sum")
    return head


def _by(parties: Sequence[str], values: Sequence[_Value]) -> dict[str, _Value]:
    found = dict(zip(parties, values, strict=True))
    if len(found) != len(values):
        raise _unreadable("a party twice")
    return found


def _signed(data: bytes, *, blob: bool) -> SignedBytes:
    payload, signature, *rest = unpack(data, 3 if blob else 2)
    return SignedBytes(payload=payload, signature=signature, blob=rest[0] if rest else b"")


def _unreadable(found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need="a transcript of an opened sum, as the broker writes it", found=found, remedy="fetch it again"
    )
