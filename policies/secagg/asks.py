# SPDX-License-Identifier: Apache-2.0
"""The bytes that broker and node exchange: each side writes and reads them here, in one spelling.

Members travel as positions in the roster, rising. A message has the fields below and no others: what contract
and recipe fix (threshold, bound, weights, ring) is in none, so a message that repeats it is refused.

    ask        advertise   JSON {setup, first_round, rounds}
               share       positions; per advertiser its signed advert
               open        positions of M; per member its signed share header, and for the reader commitments
                           and ciphertext
               contribute  JSON {setup, round, attempt, base_model, server, teams}; nonces of M; opened sums
                           that are shown to this member; the model that is sent along to it
               confirm     JSON {online, opened}; per online member digest, lane and signature (120 bytes)
               unmask      per signer position and signature (65 bytes)
    answer     advertise   signed advert
               share       signed header, commitments, ciphertexts
               open        0 and the seal, or 1, the position of a dealer that lies, and the key that shows it
               contribute  lane and signature (88 bytes)
               confirm     signature (64 bytes)
               unmask      shares (66 bytes each), next nonce (32)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from policies.encoding import canonical, is_digest, parse
from policies.errors import EncodingError
from policies.limits import SECAGG_SETUP_BYTES
from policies.secagg.documents import SIGNATURE_BYTES, SignedBytes
from policies.secagg.errors import ContextMismatchError
from policies.secagg.keystream import LANE_BYTES
from policies.secagg.labels import KEY_BYTES
from policies.secagg.packing import pack, unpack
from policies.secagg.record import VECTOR_BYTES, VectorEntry, cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.secagg.contexts import Teams
    from policies.secagg.terms import Terms

__all__ = [
    "AdvertiseAsk",
    "ConfirmAsk",
    "ContributeAsk",
    "OpenAnswer",
    "OpenAsk",
    "Package",
    "Previous",
    "Resume",
    "ShareAnswer",
    "read_adverts",
    "read_unmask",
    "signed_bytes",
    "signed_from",
    "vector_answer",
    "write_adverts",
    "write_unmask",
]

_SIGNER_BYTES: Final = 1 + SIGNATURE_BYTES
_LIES: Final = 1
_TAGS: Final = 2**64
_PREVIOUS: Final = {
    **dict.fromkeys(("setup", "round", "attempt"), int),
    **dict.fromkeys(("base_model", "server"), str),
    **dict.fromkeys(("members", "teams", "opened", "online", "tags"), list),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertiseAsk:
    """Which setup is asked for."""

    number: int
    first_round: int
    rounds: int

    def to_bytes(self) -> bytes:
        """As it travels."""
        return canonical({"setup": self.number, "first_round": self.first_round, "rounds": self.rounds})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """As it came."""
        head = _head(data, setup=int, first_round=int, rounds=int)
        return cls(number=head["setup"], first_round=head["first_round"], rounds=head["rounds"])


def signed_bytes(signed: SignedBytes) -> bytes:
    """A signed document with its blob."""
    return pack([signed.payload, signed.signature, signed.blob])


def signed_from(data: bytes) -> SignedBytes:
    """What `signed_bytes` wrote; nothing is verified."""
    payload, signature, blob = unpack(data, 3)
    return SignedBytes(payload=payload, signature=signature, blob=blob)


def write_adverts(adverts: Mapping[str, SignedBytes], terms: Terms) -> bytes:
    """The ask of SHARE."""
    return pack([_places(adverts, terms), *(signed_bytes(one) for one in adverts.values())])


def read_adverts(data: bytes, terms: Terms) -> dict[str, SignedBytes]:
    """Signed adverts by party, in roster order; nothing is verified."""
    places, *rest = _parts(data)
    parties = _parties(places, terms, len(rest))
    return dict(zip(parties, map(signed_from, rest), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareAnswer:
    """A dealer's header, and per holder in roster order commitments and ciphertext (its own is empty)."""

    header: SignedBytes
    commitments: tuple[bytes, ...]
    ciphertexts: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """As it travels."""
        return pack([signed_bytes(self.header), pack(self.commitments), pack(self.ciphertexts)])

    @classmethod
    def from_bytes(cls, data: bytes, *, holders: int) -> Self:
        """As it came; nothing is verified."""
        header, commitments, ciphertexts = unpack(data, 3)
        return cls(
            header=signed_from(header),
            commitments=unpack(commitments, holders),
            ciphertexts=unpack(ciphertexts, holders),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What one holder gets of one dealer."""

    header: SignedBytes
    commitments: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAsk:
    """Packages by dealer: those of all members of the setup, in roster order."""

    packages: Mapping[str, Package]

    def to_bytes(self, terms: Terms) -> bytes:
        """As it travels."""
        found = [
            pack([signed_bytes(one.header), one.commitments, one.ciphertext])
            for one in self.packages.values()
        ]
        return pack([_places(self.packages, terms), *found])

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """As it came; nothing is verified."""
        places, *rest = _parts(data)
        parties = _parties(places, terms, len(rest))
        pieces = (unpack(one, 3) for one in rest)
        packages = [
            Package(header=signed_from(header), commitments=commitments, ciphertext=ciphertext)
            for header, commitments, ciphertext in pieces
        ]
        return cls(packages=dict(zip(parties, packages, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAnswer:
    """The seal that a member computed, or the dealer whose shares are not what it signed.

    Attributes:
        seal: Of the setup.
        liar: Who dealt them.
        proof: Private key of what the dealer sealed for this member.
    """

    seal: bytes | None = None
    liar: str | None = None
    proof: bytes = field(default=b"", repr=False)

    def to_bytes(self, terms: Terms) -> bytes:
        """As it travels."""
        if self.liar is not None:
            return bytes([_LIES, terms.position(self.liar)]) + self.proof
        return bytes(1) + (self.seal or b"")

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """As it came."""
        if len(data) == 2 + KEY_BYTES and data[0] == _LIES:
            return cls(liar=_parties(data[1:2], terms, 1)[0], proof=data[2:])
        if len(data) != 1 + KEY_BYTES or data[0]:
            raise _other("a seal or a complaint", f"{len(data)} bytes")
        return cls(seal=data[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """A sum that was opened before, maybe under another setup or contract: what its tag is checked with.

    Members travel by name: rosters of two contracts may differ.

    Attributes:
        setup: Number of its setup.
        round, attempt, base_model, server, teams, nonces: Of its context.
        opened: Numbers of the teams whose sums were opened, rising.
        online: Members whose vectors are in one of them, sorted.
        tags: Per opened team, the sum of its members' tags.
    """

    setup: int
    round: int
    attempt: int
    base_model: str
    server: str
    teams: Teams
    nonces: tuple[bytes, ...]
    opened: tuple[int, ...]
    online: tuple[str, ...]
    tags: tuple[int, ...]

    @property
    def at(self) -> tuple[int, int]:
        """Round and attempt."""
        return self.round, self.attempt

    @property
    def supports(self) -> Teams:
        """Per opened team, the members whose vectors are in its sum."""
        inside = set(self.online)
        return tuple(tuple(one for one in self.teams[number] if one in inside) for number in self.opened)

    def to_bytes(self) -> bytes:
        """As it travels: each member's name once."""
        members = sorted(one for team in self.teams for one in team)
        places = {name: at for at, name in enumerate(members)}
        head = {
            "setup": self.setup,
            "round": self.round,
            "attempt": self.attempt,
            "base_model": self.base_model,
            "server": self.server,
            "members": members,
            "teams": [[places[one] for one in team] for team in self.teams],
            "opened": list(self.opened),
            "online": [places[one] for one in self.online],
            "tags": [str(one) for one in self.tags],
        }
        return pack([canonical(head), b"".join(self.nonces)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """As it came."""
        facts, nonces = unpack(data, 2)
        head = _head(facts, **_PREVIOUS)
        members, opened = head["members"], _rising(head["opened"])
        if not all(type(one) is str for one in members) or sorted(set(members)) != members:
            raise _other("names of members, sorted", "others")
        teams = tuple(tuple(members[at] for at in _within(team, members)) for team in head["teams"])
        if sorted(one for team in teams for one in team) != members or not opened:
            raise _other("each member in one team, and an opened one", "others")
        _within(list(opened), teams)
        return cls(
            **{name: head[name] for name in ("setup", "round", "attempt")},
            base_model=_digest(head["base_model"]),
            server=_digest(head["server"]),
            teams=teams,
            nonces=tuple(cut(nonces, KEY_BYTES, len(members))),
            opened=opened,
            online=tuple(members[at] for at in _within(head["online"], members)),
            tags=_tags(head["tags"], len(opened)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """A model of the run that comes with its optimiser's state, for a node that lost the thread.

    Attributes:
        base_model, server: Its digests, as in a context.
        step: Steps of the server before it.
    """

    base_model: str
    server: str
    step: int

    def to_bytes(self) -> bytes:
        """As it travels."""
        return canonical({"base_model": self.base_model, "server": self.server, "step": self.step})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """As it came."""
        head = _head(data, base_model=str, server=str, step=int)
        if head["step"] < 0:
            raise _other("a number of steps", "one below 0")
        return cls(base_model=_digest(head["base_model"]), server=_digest(head["server"]), step=head["step"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributeAsk:
    """One attempt; ``shown`` and ``resume`` are about what lies behind the base model in the tensor."""

    number: int
    round: int
    attempt: int
    base_model: str
    server: str
    teams: Teams
    nonces: tuple[bytes, ...]
    shown: tuple[Previous, ...]
    resume: Resume | None = None

    def to_bytes(self, terms: Terms) -> bytes:
        """As it travels."""
        head = {
            "setup": self.number,
            "round": self.round,
            "attempt": self.attempt,
            "base_model": self.base_model,
            "server": self.server,
            "teams": _team_places(self.teams, terms),
        }
        shown = pack([one.to_bytes() for one in self.shown])
        resume = b"" if self.resume is None else self.resume.to_bytes()
        return pack([canonical(head), b"".join(self.nonces), shown, resume])

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """As it came."""
        facts, nonces, shown, resume = _parts(data, 4)
        head = _head(facts, setup=int, round=int, attempt=int, base_model=str, server=str, teams=list)
        return cls(
            number=head["setup"],
            round=head["round"],
            attempt=head["attempt"],
            base_model=_digest(head["base_model"]),
            server=_digest(head["server"]),
            teams=_read_teams(head["teams"], terms),
            nonces=tuple(cut(nonces, KEY_BYTES)),
            shown=tuple(map(Previous.from_bytes, unpack(shown))),
            resume=Resume.from_bytes(resume) if resume else None,
        )


def vector_answer(data: bytes) -> tuple[bytes, bytes]:
    """Lane and signature of an answer to CONTRIBUTE."""
    if len(data) != LANE_BYTES + SIGNATURE_BYTES:
        raise _other(f"{LANE_BYTES + SIGNATURE_BYTES} bytes", f"{len(data)}")
    return data[:LANE_BYTES], data[LANE_BYTES:]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmAsk:
    """U3 with its vectors, and the numbers of the teams that are to be opened."""

    online: Mapping[str, VectorEntry]
    opened: tuple[int, ...]

    def to_bytes(self, terms: Terms) -> bytes:
        """As it travels."""
        head = {"online": list(_places(self.online, terms)), "opened": list(self.opened)}
        return pack([canonical(head), b"".join(one.to_bytes() for one in self.online.values())])

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """As it came; nothing is verified."""
        facts, vectors = _parts(data, 2)
        head = _head(facts, online=list, opened=list)
        parties = _parties(head["online"], terms)
        entries = [VectorEntry.from_bytes(one) for one in cut(vectors, VECTOR_BYTES, len(parties))]
        return cls(online=dict(zip(parties, entries, strict=True)), opened=_rising(head["opened"]))


def write_unmask(signatures: Mapping[str, bytes], terms: Terms) -> bytes:
    """The ask of UNMASK."""
    return b"".join(bytes([terms.position(one)]) + signature for one, signature in signatures.items())


def read_unmask(data: bytes, terms: Terms) -> dict[str, bytes]:
    """Signatures of a confirmation by party, in roster order; nothing is verified."""
    entries = cut(data, _SIGNER_BYTES)
    parties = _parties(bytes(one[0] for one in entries), terms)
    return dict(zip(parties, (one[1:] for one in entries), strict=True))


def _parts(data: bytes, count: int | None = None) -> tuple[bytes, ...]:
    if len(data) > SECAGG_SETUP_BYTES:
        raise _other(f"at most {SECAGG_SETUP_BYTES} bytes", f"{len(data)}")
    found = unpack(data, count)
    if not found:
        raise _other("a list of members", "nothing")
    return found


def _head(data: bytes, **fields: type) -> dict[str, Any]:
    try:
        found = parse(data)
    except EncodingError as error:
        raise _other("canonical JSON", "other bytes") from error
    if not isinstance(found, dict) or set(found) != set(fields):
        raise _other("exactly " + ", ".join(sorted(fields)), "other fields")
    for name, kind in fields.items():
        if type(found[name]) is not kind:
            raise _other(f"{name} of type {kind.__name__}", type(found[name]).__name__)
    return found


def _digest(text: str) -> str:
    if not is_digest(text):
        raise _other("the digest of a model", ascii(text)[:80])
    return text


def _places(parties: Sequence[str] | Mapping[str, object], terms: Terms) -> bytes:
    return bytes(terms.position(one) for one in parties)


def _parties(places: bytes | list[Any], terms: Terms, count: int | None = None) -> tuple[str, ...]:
    """Members at rising positions: each once, in roster order."""
    found = _rising(list(places))
    if (found and not 1 <= found[0] <= found[-1] <= terms.n) or (count is not None and len(found) != count):
        raise _other(f"positions from 1 to {terms.n}, and an entry for each", "others")
    return tuple(terms.parties[at - 1] for at in found)


def _rising(numbers: list[Any]) -> tuple[int, ...]:
    if not all(type(one) is int for one in numbers) or sorted(set(numbers)) != numbers:
        raise _other("whole numbers, each once and rising", "others")
    return tuple(numbers)


def _within(places: object, names: Sequence[object]) -> tuple[int, ...]:
    """Rising places in a list."""
    if type(places) is not list:
        raise _other("a list of places", "another value")
    found = _rising(places)
    if found and not 0 <= found[0] <= found[-1] < len(names):
        raise _other(f"places from 0 to {len(names) - 1}", "others")
    return found


def _tags(texts: list[Any], count: int) -> tuple[int, ...]:
    texts = [one if type(one) is str and one.isascii() and one.isdigit() else str(_TAGS) for one in texts]
    if len(texts) != count or not all(len(one) <= len(str(_TAGS)) and int(one) < _TAGS for one in texts):
        raise _other("for each opened team a sum of tags below 2^64", "others")
    return tuple(map(int, texts))


def _team_places(teams: Teams, terms: Terms) -> list[list[int]]:
    return [list(_places(team, terms)) for team in teams]


def _read_teams(teams: list[Any], terms: Terms) -> Teams:
    if not all(type(one) is list for one in teams):
        raise _other("teams as lists of positions", "others")
    return tuple(_parties(one, terms) for one in teams)


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need, found=found, remedy="update node or broker: they write this message differently"
    )
