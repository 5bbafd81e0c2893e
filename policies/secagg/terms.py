# SPDX-License-Identifier: Apache-2.0
"""What contract and recipe fix for every sum of a run. Each side computes it; it never arrives in a message.

- The roster is the recipe's contributors, sorted by party; position 1..n is the Shamir abscissa.
- ``t = floor(2n/3) + 1`` shares open a secret.
- ``max_colluders`` c needs ``c < 2t - n`` and ``max(t, min_parties) - c >= 2``: two different sums of one
  round would need more honest helpers than there are.
- ``k_open`` groups must be left in an opened sum: ``max(min_parties, c + 2)``, with noise shares also
  ``honest_min + c``.
- ``max_share`` holds for whoever is left in an opened sum, by weight: heads alone would let a sum be one
  heavy member's update (`policies.contract.thresholds`).
- B bits per value: ``n * 2^B`` has room in 31 bits. The scale is a power of two over C, so that float32 holds
  it exactly enough never to round up past the ring.
- With noise shares all weights are equal: a share that is scaled down hides less.

Standard library only: the verifier computes the same.

    terms = terms_of(contract, recipe=digest, run=run, manifest=digest, dimension=1_180, honest_min=None)
    terms.t, terms.k_open, terms.bits, terms.position("kita")
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from policies.contract.thresholds import (
    CONTRIBUTORS_MIN,
    WEIGHT_RATIO,
    groups_to_open,
    least_online,
    most_colluders,
    share_at_most,
    threshold,
    weights_fit,
)
from policies.identity import parse_key
from policies.limits import SECAGG_PARTIES
from policies.privacy.errors import SharesUnfitError
from policies.secagg.errors import CohortTooSmallError, ThresholdError
from policies.secagg.labels import hashed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.contract.clauses import Contract

__all__ = ["Member", "Terms", "terms_of"]

_RING_BITS = 31
_WEIGHT_ONE = 1_000_000
_FLOAT32_LEAST, _FLOAT32_MOST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of normal numbers


def ring_bits(n: int) -> int:
    """B for n members: ``n * 2^B`` has room in 31 bits."""
    return (((1 << _RING_BITS) - 1) // n).bit_length() - 1


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
        max_share: Of the contract, decimal text: of the weight in an opened sum, for each group.
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
    max_share: str
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
        return ring_bits(self.n)

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

    @cached_property
    def any_team_fits(self) -> bool:
        """Whether any members of ``k_open`` groups keep ``max_share``, so that chance may choose them."""
        weights = {one: self.weight(one) for one in self.parties}
        groups = {one.party: one.group for one in self.roster}
        if len(set(groups.values())) < self.k_open:
            return False
        _, share = share_at_most(weights, groups, members=self.k_open, groups=self.k_open)
        return share <= Fraction(self.max_share)

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
            CohortTooSmallError: Too few members, too few independent groups, or one group that has more of
                the weight than ``max_share``.
        """
        online = set(parties)
        found = self.groups(online)
        if not online <= set(self.parties):
            raise self._small("members of the contract only", ", ".join(sorted(online - set(self.parties))))
        if len(online) < self.least_online:
            raise self._small(f"{self.least_online} members", f"{len(online)}")
        if len(found) < self.k_open:
            raise self._small(f"{self.k_open} independent groups", f"{len(found)}")
        self._check_share(online)

    def check_team(self, parties: Iterable[str]) -> None:
        """Returns if the sum of a team with exactly these survivors may be opened.

        Raises:
            CohortTooSmallError: Others than members, too few independent groups, or too large a share.
        """
        team = set(parties)
        if not team <= set(self.parties):
            raise self._small("members of the contract only", ", ".join(sorted(team - set(self.parties))))
        found = len(self.groups(team))
        if found < self.k_open:
            raise self._small(f"{self.k_open} independent groups in an opened team", f"{found}")
        self._check_share(team)

    def _check_share(self, parties: set[str]) -> None:
        """Weights are rounded to millionths, so one that stands on the bound may be a millionth above it."""
        by_group: dict[str, int] = {}
        for one, weight in zip(self.roster, self.weights, strict=True):
            if one.party in parties:
                by_group[one.group] = by_group.get(one.group, 0) + weight
        largest, total = max(by_group.values()), sum(by_group.values())
        if largest - len(parties) > Fraction(self.max_share) * total:
            group = max(by_group, key=lambda name: by_group[name])
            found = f"{largest / total:.3f} of the weight for {group}"
            raise self._small(f"at most {self.max_share} of the weight for one group of an opened sum", found)

    def _small(self, need: str, found: str) -> CohortTooSmallError:
        return CohortTooSmallError(
            need=need, found=found, remedy="wait for more members, or amend the contract", clause=self.clause
        )


def terms_of(
    contract: Contract, *, recipe: str, run: str, manifest: str, dimension: int, honest_min: int | None
) -> Terms:
    """The terms of a run; the checks, in this order.

    1. the recipe is one of the contract's; 2. from 3 members up to `SECAGG_PARTIES`; 3. the colluder rule;
    4. an ``update_norm_max`` whose scale is a float32 of full precision; 5. no weight below a hundredth of
    the largest; 6. with noise shares, equal weights.

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
    _check_scale(aggregation.update_norm_max, n, aggregation.clause)
    decimals = [Fraction(value) for value in contract.weights(names).values()]
    weights = _millionths(decimals, aggregation.clause)
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
        max_share=aggregation.max_share,
        min_parties=aggregation.min_parties,
        max_colluders=c,
        honest_min=honest_min,
        group_mac=aggregation.group_mac == "on",
        clause=aggregation.clause,
    )


def _check_scale(norm_max: str, n: int, clause: str) -> None:
    """A scale that is 0, infinite or subnormal would quantise to nothing, or past the ring."""
    norm = float(norm_max)
    fits = 0 < norm < math.inf and _FLOAT32_LEAST <= 2.0 ** ring_bits(n) / norm <= _FLOAT32_MOST
    if not fits:
        need = "update_norm_max of ordinary size: a finite scale in float32, of full precision"
        raise _unfit(need, norm_max[:40], "another update_norm_max", clause)


def _millionths(weights: Sequence[Fraction], clause: str) -> tuple[int, ...]:
    """Of the largest weight; by the bound none is below 10 000."""
    if min(weights) <= 0 or not weights_fit(weights):
        found = f"1 to {float(min(weights) / max(weights)):.3g}"
        need = f"weights within {WEIGHT_RATIO} to 1: a lighter member hides nobody"
        raise _unfit(need, found, "weights that are closer, or weights: equal", clause)
    return tuple(round(one / max(weights) * _WEIGHT_ONE) for one in weights)


def _unfit(need: str, found: str, remedy: str, clause: str) -> ThresholdError:
    return ThresholdError(need=need, found=found, remedy=remedy, clause=clause)
