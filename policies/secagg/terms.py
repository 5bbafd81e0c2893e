# SPDX-License-Identifier: Apache-2.0
"""What contract and recipe fix for every sum of a run. Each side computes it; it never arrives in a message.

- The roster is the recipe's contributors, sorted by party; position 1..n is the Shamir abscissa.
- ``t = floor(2n/3) + 1`` shares open a secret.
- ``max_colluders`` c needs ``c < 2t - n`` and ``max(t, min_parties) - c >= 2``: two different sums of one
  round would need more honest helpers than there are.
- ``k_open`` groups must be left in an opened sum: ``max(min_parties, c + 2)``, with noise shares also
  ``honest_min + c``.
- B bits per value: ``n * 2^B`` has room in 31 bits. The scale is a power of two over C, so that float32 holds
  it exactly enough never to round up past the ring.
- With noise shares all weights are equal: a share that is scaled down hides less.

Standard library only: the verifier computes the same.

    terms = terms_of(contract, recipe=digest, run=run, manifest=digest, dimension=1_180, honest_min=None)
    terms.t, terms.k_open, terms.bits, terms.position("kita")
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from policies.contract.thresholds import (
    CONTRIBUTORS_MIN,
    groups_to_open,
    least_online,
    most_colluders,
    threshold,
)
from policies.identity import parse_key
from policies.limits import SECAGG_PARTIES
from policies.privacy.errors import SharesUnfitError
from policies.secagg.errors import CohortTooSmallError, ThresholdError
from policies.secagg.labels import hashed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.contract.clauses import Contract

__all__ = ["Member", "Terms", "terms_of"]

_RING_BITS = 31
_WEIGHT_ONE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One contributor of the roster: party, independent group, raw Ed25519 key as the contract pins it."""

    party: str
    group: str
    key: bytes


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Everything that a message must agree with; make it with `terms_of`.

    Attributes:
        contract, recipe, manifest: Digests (``sha256:…``); manifest is that of the recipe's tensors.
        run: The run.
        roster: Sorted by party.
        dimension: d, values of an update.
        norm_max: C, ``update_norm_max`` of the contract, decimal text.
        weights: Per member, millionths of the largest weight.
        min_parties, max_colluders: Of the contract.
        honest_min: Of the plan with noise shares, else None.
        group_mac: Whether sums carry the members' tag.
        clause: Of the contract's aggregation, for refusals.
    """

    contract: str
    recipe: str
    manifest: str
    run: str
    roster: tuple[Member, ...]
    dimension: int
    norm_max: str
    weights: tuple[int, ...]
    min_parties: int
    max_colluders: int
    honest_min: int | None
    group_mac: bool
    clause: str

    @property
    def n(self) -> int:
        """Members of the roster."""
        return len(self.roster)

    @property
    def t(self) -> int:
        """Shares that open a secret; also the least number of members behind an opened sum."""
        return threshold(self.n)

    @property
    def k_open(self) -> int:
        """Independent groups that must be left in an opened sum."""
        return groups_to_open(self.min_parties, self.max_colluders, self.honest_min)

    @property
    def least_online(self) -> int:
        """Members that must be left in an opened sum."""
        return least_online(self.n, self.min_parties)

    @property
    def bits(self) -> int:
        """B: a quantised value lies within ``±2^B``."""
        return (((1 << _RING_BITS) - 1) // self.n).bit_length() - 1

    @cached_property
    def scale(self) -> float:
        """s: grid steps per unit of an update; the float32 value, exactly."""
        exact = 2.0**self.bits / float(self.norm_max)
        value: float = struct.unpack("<f", struct.pack("<f", exact))[0]
        return value

    @cached_property
    def parties(self) -> tuple[str, ...]:
        """Names of the roster, in its order."""
        return tuple(one.party for one in self.roster)

    def position(self, party: str) -> int:
        """1-based place in the roster, the Shamir abscissa.

        Raises:
            CohortTooSmallError: No member.
        """
        if party not in self.parties:
            raise CohortTooSmallError(
                need="a contributor of the recipe", found=party, remedy="ask members only", clause=self.clause
            )
        return self.parties.index(party) + 1

    def member(self, party: str) -> Member:
        """One of the roster; raises as `position`."""
        return self.roster[self.position(party) - 1]

    def weight(self, party: str) -> Fraction:
        """A member's weight, at most 1."""
        return Fraction(self.weights[self.position(party) - 1], _WEIGHT_ONE)

    def groups(self, parties: Iterable[str]) -> frozenset[str]:
        """Independent groups among some members."""
        asked = set(parties)
        return frozenset(one.group for one in self.roster if one.party in asked)

    def kappa(self, parties: Iterable[str]) -> float:
        """What one step of the opened sum is worth in the weighted mean: ``1 / (s * sum of weights)``."""
        total = sum((self.weight(one) for one in parties), Fraction(0))
        return float(1 / (Fraction(self.scale) * total))

    @cached_property
    def roster_digest(self) -> bytes:
        """Of parties, groups and keys, in order."""
        return hashed("roster", *((one.party, one.group, one.key) for one in self.roster))

    @cached_property
    def quant_digest(self) -> bytes:
        """Of ring, bits, scale and range."""
        return hashed("quant", _RING_BITS + 1, self.bits, struct.pack("<f", self.scale), self.norm_max)

    @cached_property
    def weights_digest(self) -> bytes:
        """Of all weights, in order."""
        return hashed("weights", *self.weights)

    def check_open(self, parties: Iterable[str]) -> None:
        """Returns if a sum over exactly these members may be opened.

        Raises:
            CohortTooSmallError: Too few members, or too few independent groups.
        """
        online = set(parties)
        found = self.groups(online)
        if not online <= set(self.parties):
            raise self._small("members of the contract only", ", ".join(sorted(online - set(self.parties))))
        if len(online) < self.least_online:
            raise self._small(f"{self.least_online} members", f"{len(online)}")
        if len(found) < self.k_open:
            raise self._small(f"{self.k_open} independent groups", f"{len(found)}")

    def check_team(self, parties: Iterable[str]) -> None:
        """Returns if the sum of a team with exactly these survivors may be opened.

        Raises:
            CohortTooSmallError: Others than members, or too few independent groups.
        """
        team = set(parties)
        if not team <= set(self.parties):
            raise self._small("members of the contract only", ", ".join(sorted(team - set(self.parties))))
        found = len(self.groups(team))
        if found < self.k_open:
            raise self._small(f"{self.k_open} independent groups in an opened team", f"{found}")

    def _small(self, need: str, found: str) -> CohortTooSmallError:
        return CohortTooSmallError(
            need=need, found=found, remedy="wait for more members, or amend the contract", clause=self.clause
        )


def terms_of(
    contract: Contract, *, recipe: str, run: str, manifest: str, dimension: int, honest_min: int | None
) -> Terms:
    """The terms of a run; the checks, in this order.

    1. the recipe is one of the contract's; 2. from 3 members up to `SECAGG_PARTIES`; 3. the colluder rule;
    4. with noise shares, equal weights.

    Args:
        contract: That everybody signed.
        recipe: Digest.
        run: The run.
        manifest: Digest of the recipe's tensors.
        dimension: Values of an update.
        honest_min: Of a plan with noise shares, else None.

    Raises:
        ThresholdError: One does not hold.
        SharesUnfitError: Noise shares under unequal weights.
    """
    aggregation = contract.aggregation
    found = contract.recipe(recipe)
    if found is None:
        raise _unfit("a recipe of the contract", recipe, "compare the digests", aggregation.clause)
    names = sorted(found.participants)
    clauses = [one for one in (contract.party(name) for name in names) if one is not None]
    n, c = len(clauses), aggregation.max_colluders
    if not CONTRIBUTORS_MIN <= n <= SECAGG_PARTIES:
        need = f"{CONTRIBUTORS_MIN} to {SECAGG_PARTIES} contributors"
        raise _unfit(need, str(n), "other participants", aggregation.clause)
    most = most_colluders(n, least_online(n, aggregation.min_parties))
    if c > most:
        remedy = "more contributors, or fewer colluders in the contract"
        raise _unfit(f"max_colluders at most {most}", str(c), remedy, aggregation.clause)
    decimals = {name: Fraction(value) for name, value in contract.weights(names).items()}
    largest = max(decimals.values())
    weights = tuple(round(decimals[name] / largest * _WEIGHT_ONE) for name in names)
    if honest_min is not None and set(weights) != {_WEIGHT_ONE}:
        raise SharesUnfitError(
            need="equal weights with noise shares",
            found="fixed weights that differ",
            remedy="weights: equal, or noise local-full",
            clause=aggregation.clause,
        )
    roster = tuple(Member(party=one.party, group=one.group, key=parse_key(one.key)) for one in clauses)
    return Terms(
        contract=contract.digest,
        recipe=recipe,
        manifest=manifest,
        run=run,
        roster=roster,
        dimension=dimension,
        norm_max=aggregation.update_norm_max,
        weights=weights,
        min_parties=aggregation.min_parties,
        max_colluders=c,
        honest_min=honest_min,
        group_mac=aggregation.group_mac == "on",
        clause=aggregation.clause,
    )


def _unfit(need: str, found: str, remedy: str, clause: str) -> ThresholdError:
    return ThresholdError(need=need, found=found, remedy=remedy, clause=clause)
