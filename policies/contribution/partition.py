# SPDX-License-Identifier: Apache-2.0
"""Teams of a round, from nonces that members committed to before: nobody chooses them or knows them ahead.

- Each member commits to the end of a chain of SHA-256 hashes at set-up (`chain`) and reveals one link per
  round, backwards; everybody checks it against the commitment (`link_holds`).
- The seed of a round hashes contract, run, round and, per member in order, its link or 32 zero bytes. A
  member that withholds its link decides between two draws, in public, and no more.
- A round is a probe if there are players for two teams, judgings are left, and a number drawn from the seed
  is below the contract's share. Otherwise everybody is one team.
- A player is a corporate group: parties under one owner are never in two teams. Players are sorted, shuffled
  (Fisher-Yates, integers without bias) and dealt out to ``min(4, floor(P / k_open))`` teams.

Standard library only: nodes, broker and verifier compute the same.

    seed = partition_seed(contract=digest, run=run, number=7, nonces=[link, None, link])
    draw(seed, groups={"kita": "kita", …}, k_open=3, share=Fraction(1, 2), judgings_left=24).teams
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.limits import TEAMS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from fractions import Fraction

__all__ = ["NONCE_BYTES", "TEAMS_MAX", "Draw", "chain", "draw", "link_holds", "partition_seed", "teams_of"]

NONCE_BYTES: Final = 32
_LENGTH = 8
_PROBE_BYTES = 8
_DIGEST_VALUES = 2**256


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a round is.

    Attributes:
        probe: Whether its teams are opened one by one and judged.
        teams: Parties of each team, sorted; one team of everybody in a plain round.
    """

    probe: bool
    teams: tuple[tuple[str, ...], ...]


def chain(secret: bytes, steps: int) -> tuple[bytes, ...]:
    """Links in the order in which they are revealed; the commitment is SHA-256 of the first.

    Args:
        secret: 32 random bytes, the last link.
        steps: Number of links.
    """
    links = [secret]
    for _ in range(steps - 1):
        links.append(hashlib.sha256(links[-1]).digest())
    return tuple(reversed(links))


def link_holds(link: bytes, commitment: bytes, position: int) -> bool:
    """Whether a link is the one at a position (0 is revealed first) of the chain behind a commitment."""
    value = link
    for _ in range(position + 1):
        value = hashlib.sha256(value).digest()
    return len(link) == NONCE_BYTES and value == commitment


def partition_seed(*, contract: str, run: str, number: int, nonces: Sequence[bytes | None]) -> bytes:
    """32 bytes that teams follow from.

    Args:
        contract: Digest.
        run: The run.
        number: Of the round.
        nonces: Per member in the order of the roster: its link, or None if it revealed none.
    """
    parts = [b"iriai/partition/1", contract.encode(), run.encode(), str(number).encode()]
    parts += [bytes(NONCE_BYTES) if one is None else one for one in nonces]
    return hashlib.sha256(b"".join(len(one).to_bytes(_LENGTH, "big") + one for one in parts)).digest()


def draw(seed: bytes, *, groups: Mapping[str, str], k_open: int, share: Fraction, judgings_left: int) -> Draw:
    """What a round is, and its teams.

    Args:
        seed: Of `partition_seed`.
        groups: Party → corporate group, of all members.
        k_open: Groups that must be left in an opened sum.
        share: Of rounds that are probes, 0 to 1.
        judgings_left: That the contract's number still allows.
    """
    players = len(set(groups.values()))
    number = int.from_bytes(hashlib.sha256(seed + b"probe").digest()[:_PROBE_BYTES], "big")
    drawn = number < share * 2 ** (8 * _PROBE_BYTES)
    if players < 2 * k_open or judgings_left < 1 or not drawn:
        return Draw(probe=False, teams=(tuple(sorted(groups)),))
    return Draw(probe=True, teams=teams_of(seed, groups=groups, k_open=k_open))


def teams_of(seed: bytes, *, groups: Mapping[str, str], k_open: int) -> tuple[tuple[str, ...], ...]:
    """The parties of each team, sorted; with players for fewer than two teams, everybody is one."""
    players = _shuffled(seed, sorted(set(groups.values())))
    count = max(1, min(TEAMS_MAX, len(players) // k_open))
    return tuple(_parties(groups, players[number::count]) for number in range(count))


def _parties(groups: Mapping[str, str], players: Iterable[str]) -> tuple[str, ...]:
    chosen = set(players)
    return tuple(sorted(party for party, group in groups.items() if group in chosen))


def _shuffled(seed: bytes, players: list[str]) -> list[str]:
    """Fisher-Yates from the end, with the seed's stream of integers."""
    counter = 0
    for last in range(len(players) - 1, 0, -1):
        chosen, counter = _below(seed, last + 1, counter)
        players[last], players[chosen] = players[chosen], players[last]
    return players


def _below(seed: bytes, bound: int, counter: int) -> tuple[int, int]:
    """A number below the bound without bias: hashes past the last whole multiple are thrown away."""
    limit = _DIGEST_VALUES - _DIGEST_VALUES % bound
    while True:
        value = int.from_bytes(hashlib.sha256(seed + counter.to_bytes(_LENGTH, "big")).digest(), "big")
        counter += 1
        if value < limit:
            return value % bound, counter
