# SPDX-License-Identifier: Apache-2.0
"""Terms of made-up members, and entropy that repeats itself: for tests of numbers, not of messages."""

from __future__ import annotations

import hashlib

from policies.secagg.masks import MaskKeys
from policies.secagg.terms import Member, Terms

ONE = 1_000_000


def ring_terms(
    n: int = 4, dimension: int = 10, *, norm_max: str = "1", weights: tuple[int, ...] = ()
) -> Terms:
    """Terms of members m00, m01, …, each a group of its own."""
    members = tuple(Member(party=f"m{at:02}", group=f"g{at:02}", key=bytes([at] * 32)) for at in range(n))
    return Terms(
        contract="sha256:" + "1" * 64,
        recipe="sha256:" + "2" * 64,
        manifest="sha256:" + "3" * 64,
        run="run_ring",
        roster=members,
        dimension=dimension,
        norm_max=norm_max,
        weights=weights or (ONE,) * n,
        max_share="1",
        min_parties=3,
        max_colluders=1,
        honest_min=None,
        group_mac=True,
        clause="aggregation",
    )


def key(*names: object) -> bytes:
    """32 bytes that depend on the names."""
    return hashlib.sha256(repr(names).encode()).digest()


def pair(at: int, other: int) -> tuple[int, bytes]:
    """The pair mask of ``at`` with ``other``: plus towards later members, minus towards earlier ones."""
    return (1 if at < other else -1, key("pair", min(at, other), max(at, other)))


def keys_of(at: int, team: range | list[int]) -> MaskKeys:
    """All mask keys of one member of a team."""
    return MaskKeys(own=key("own", at), pairs=tuple(pair(at, other) for other in team if other != at))


def remaining(survivors: list[int], team: range | list[int]) -> list[tuple[int, bytes]]:
    """What the broker takes off the survivors' sum."""
    missing = [one for one in team if one not in survivors]
    return [
        *((1, key("own", one)) for one in survivors),
        *(pair(one, other) for one in survivors for other in missing),
    ]


class CountedEntropy:
    """Bytes that follow from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._draws = seed, 0

    def token_bytes(self, size: int) -> bytes:
        self._draws += 1
        return hashlib.shake_256(f"{self._seed}:{self._draws}".encode()).digest(size)
