# SPDX-License-Identifier: Apache-2.0
"""What every signature and every mask of a setup and of an attempt is bound to, and the keys that follow.

    setup = H("setup", frame, (party, advert digest) in roster order)
    seal  = H("seal", setup, (party, share header digest) of the members M that shared)
    ctx   = H("ctx", setup, seal, round, attempt, teams, nonce reveals,
              manifest, d, base model, server's state, recipe, ring, weights)

Two views of any of it give another ``ctx``: masks that do not cancel, signatures that do not verify. The
nonce reveals are in it so that nobody is shown other teams for a reason of its own; the digest of the
server's state, so that a sum whose tag holds vouches for model and state before it. Standard library and
`cryptography` only: the verifier derives the same keys from revealed secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policies.encoding import digest
from policies.limits import ATTEMPTS_PER_ROUND, INTEGER_MAX, SECAGG_ROUNDS
from policies.secagg.errors import ContextMismatchError, SetupGoneError
from policies.secagg.labels import KEY_BYTES, derived, hashed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.secagg.keystream import Signed
    from policies.secagg.terms import Terms

__all__ = [
    "NO_NONCE",
    "NO_STATE",
    "Context",
    "Frame",
    "Lane",
    "agreement",
    "chained",
    "mac_key",
    "mac_offset",
    "members_key",
    "pair_key",
    "public_of",
    "seal_digest",
    "self_key",
    "setup_digest",
]

NO_NONCE: Final = bytes(KEY_BYTES)
"""Stands for the reveal of a member that owes it."""
NO_STATE: Final = digest(b"")
"""Digest of the state of a server that remembers nothing (`policies.server_step.state_digest`)."""
Teams = tuple[tuple[str, ...], ...]


class Lane(StrEnum):
    """What is masked side by side, each under keys of its own."""

    VECTOR = "u32"
    COUNTS = "u64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a setup is for: contract, recipe, run and roster, its number in the run, and its rounds."""

    contract: str
    recipe: str
    run: str
    roster: str
    number: int
    first_round: int
    rounds: int

    @classmethod
    def of(cls, terms: Terms, *, number: int, first_round: int, rounds: int) -> Frame:
        """The frame of a setup under these terms.

        Raises:
            ContextMismatchError: A number below 1 or beyond its bound.
        """
        bounds = {"setup": (number, INTEGER_MAX), "first round": (first_round, INTEGER_MAX - SECAGG_ROUNDS)}
        bounds["rounds"] = (rounds, SECAGG_ROUNDS)
        for name, (value, most) in bounds.items():
            if not 1 <= value <= most:
                raise ContextMismatchError(
                    need=f"{name} from 1 to {most}", found=str(value), remedy="update node or broker"
                )
        return cls(
            contract=terms.contract,
            recipe=terms.recipe,
            run=terms.run,
            roster=terms.roster_digest.hex(),
            number=number,
            first_round=first_round,
            rounds=rounds,
        )

    @property
    def slots(self) -> int:
        """Slots of the setup: each round's attempts."""
        return self.rounds * ATTEMPTS_PER_ROUND

    @property
    def last_round(self) -> int:
        """The last round that has slots."""
        return self.first_round + self.rounds - 1

    def covers(self, round: int) -> bool:  # noqa: A002  the word of the protocol
        """Whether a round has slots here."""
        return self.first_round <= round <= self.last_round

    def slot(self, round: int, attempt: int) -> int:  # noqa: A002
        """Number of a slot, from 0.

        Raises:
            SetupGoneError: No slot of this setup.
        """
        if not self.covers(round) or not 1 <= attempt <= ATTEMPTS_PER_ROUND:
            raise SetupGoneError(
                need=f"a round from {self.first_round} to {self.last_round} and its attempt",
                found=f"round {round}, attempt {attempt}",
                remedy="run a new setup",
            )
        return (round - self.first_round) * ATTEMPTS_PER_ROUND + attempt - 1

    def facts(self) -> dict[str, Any]:
        """As in signed documents."""
        return {
            "contract": self.contract,
            "recipe": self.recipe,
            "run": self.run,
            "roster": self.roster,
            "setup": self.number,
            "first_round": self.first_round,
            "rounds": self.rounds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One attempt as all its members must see it.

    Attributes:
        setup, seal: Digests of the setup, 32 bytes each.
        round, attempt: Of the slot.
        base_model: Digest (``sha256:…``) of the model that is trained on.
        server: Digest of the server's state before the round (`policies.server_step.state_digest`).
        members: M, in roster order.
        teams: Who is summed together, each in roster order; a plain round has one team, M.
        nonces: Reveals in the order of ``members``, `NO_NONCE` where one is owed.
    """

    setup: bytes
    seal: bytes
    round: int
    attempt: int
    base_model: str
    server: str
    members: tuple[str, ...]
    teams: Teams
    nonces: tuple[bytes, ...]

    def digest(self, terms: Terms) -> bytes:
        """``ctx``, 32 bytes."""
        return hashed(
            "ctx",
            self.setup,
            self.seal,
            self.round,
            self.attempt,
            self.teams,
            self.nonces,
            terms.manifest,
            terms.dimension,
            self.base_model,
            self.server,
            terms.recipe,
            terms.quant_digest,
            terms.weights_digest,
        )

    def team_of(self, party: str) -> tuple[str, ...]:
        """The team that a member is summed in.

        Raises:
            ContextMismatchError: In none.
        """
        for team in self.teams:
            if party in team:
                return team
        raise ContextMismatchError(
            need="each member in a team", found=f"{party} in none", remedy="update the broker"
        )


def setup_digest(frame: Frame, adverts: Mapping[str, bytes]) -> bytes:
    """``setup``: of the frame and, per party in roster order, its advert's digest."""
    facts = frame.facts()
    return hashed("setup", [(name, facts[name]) for name in sorted(facts)], sorted(adverts.items()))


def seal_digest(setup: bytes, headers: Mapping[str, bytes]) -> bytes:
    """``seal``: of the setup and, per member in roster order, its share header's digest."""
    return hashed("seal", setup, sorted(headers.items()))


def public_of(private: bytes) -> bytes:
    """X25519 public key of 32 private bytes (RFC 7748)."""
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def agreement(private: bytes, public: bytes) -> bytes:
    """X25519 of a private and a public key.

    Raises:
        ContextMismatchError: A point of low order: the result would be zero for everybody.
    """
    own = X25519PrivateKey.from_private_bytes(private)
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ContextMismatchError(
            need="an X25519 key that an agreement is possible with",
            found="a point of low order",
            remedy="leave the party that signed it out",
        ) from error


def self_key(b: bytes, *, seal: bytes, lane: Lane, ctx: bytes, position: int) -> bytes:
    """Key of a member's own mask."""
    return derived(b, seal, "self", lane.value, ctx, position)


def pair_key(agreed: bytes, *, seal: bytes, lane: Lane, ctx: bytes, between: tuple[int, int]) -> bytes:
    """Key of the mask that two positions share."""
    return derived(agreed, seal, "pair", lane.value, ctx, min(between), max(between))


def pair_masks(
    private: bytes, *, own: int, others: Iterable[tuple[int, bytes]], seal: bytes, ctx: bytes, lane: Lane
) -> tuple[Signed, ...]:
    """Masks that a member adds (+1) or subtracts (-1) for others of its team, by position and slot key."""
    return tuple(
        (
            1 if position > own else -1,
            pair_key(agreement(private, public), seal=seal, lane=lane, ctx=ctx, between=(own, position)),
        )
        for position, public in others
    )


def members_key(parts: Sequence[bytes], seal: bytes) -> bytes:
    """G: the key of the members that the broker lacks, from each member's part in roster order."""
    return derived(b"".join(parts), seal, "group")


def mac_key(group: bytes, *, seal: bytes, ctx: bytes) -> bytes:
    """Key of the group tag of one attempt."""
    return derived(group, seal, "mac", ctx)


def mac_offset(group: bytes, *, seal: bytes, ctx: bytes) -> int:
    """What each member adds to its tag: a multiple of an opened sum is then not a sum with a right tag."""
    return int.from_bytes(derived(group, seal, "mac-offset", ctx)[:8], "big")


def chained(nonce: bytes, steps: int) -> bytes:
    """The link of a nonce chain so many steps on; the last one is in the advert."""
    for _ in range(steps):
        nonce = hashed("nonce", nonce)
    return nonce
