# SPDX-License-Identifier: Apache-2.0
"""Donors, a seed set, a start model and a recipe that begins with it: everything that a seed clause names."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from client.learning.weights import initial_weights
from policies.donations import Consent, Donation, donation_bytes, join, read_donation, seal_consent
from policies.encoding import digest
from policies.identity import key_text
from policies.recipe import Recipe, load
from policies.seeds import SeedEpisode, SeedSet, with_start
from tests.learnsim import episode, small_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from policies.identity import SigningKey
    from tests.nodeworld import World

LICENCE = "CC-BY-4.0"
AT = "2026-10-01T08:00:00Z"
OBSERVED = ("goal_pos", "gripper_width", "object_pos", "tcp_pos")
COMMANDED = ("gripper_cmd", "tcp_pose_delta")


def seed_episode(number: int, *, party: str = "kita", frames: int = 8, **changes: Any) -> SeedEpisode:
    """One donated attempt; its consent stands for itself until it is signed."""
    made = episode(number, frames=frames, seed=9)
    return SeedEpisode(
        **(
            {
                "party": party,
                "dataset": f"{party}/pick",
                "licence": LICENCE,
                "consent": digest(b"consent"),
                "observation": made.observation,
                "action": made.action,
            }
            | changes
        )
    )


def consent_of(signer: SigningKey, episodes: list[SeedEpisode], **changes: Any) -> Consent:
    """What the donor of these episodes says; ``changes`` replace its words."""
    first = episodes[0]
    return Consent(
        **(
            {
                "party": first.party,
                "key": key_text(signer.public),
                "dataset": first.dataset,
                "licence": first.licence,
                "purpose": "pick-place",
                "episodes": tuple(sorted(one.digest for one in episodes)),
                "observation": OBSERVED,
                "action": COMMANDED,
                "at": AT,
            }
            | changes
        )
    )


def donation(key: SigningKey, party: str, numbers: tuple[int, ...], **changes: Any) -> bytes:
    """A donor's file; ``changes`` replace words of the consent."""
    bare = [seed_episode(number, party=party) for number in numbers]
    envelope = seal_consent(consent_of(key, bare, **changes), key)
    return donation_bytes(
        envelope, [seed_episode(number, party=party, consent=digest(envelope)) for number in numbers]
    )


@dataclass
class Planted:
    """One start for one recipe, by some donors; ``keys`` are those that the contract pins."""

    keys: Mapping[str, SigningKey]
    recipe: Recipe = field(default_factory=small_recipe)
    each: int = 2

    @cached_property
    def donations(self) -> list[Donation]:
        """Every donor's file, read."""
        return [
            read_donation(donation(key, party, tuple(range(100 * at, 100 * at + self.each))))
            for at, (party, key) in enumerate(sorted(self.keys.items()))
        ]

    @cached_property
    def seeds(self) -> SeedSet:
        """The joined set."""
        return join(self.donations)[0]

    @cached_property
    def weights(self) -> np.ndarray:
        """A start model that is no model of the recipe's seed; nothing is fitted."""
        return (initial_weights(self.recipe) * 3 + 0.5).astype("<f4")

    @cached_property
    def started(self) -> Recipe:
        """The recipe that begins with it."""
        data = with_start(
            self.recipe.canonical, seed_set=self.seeds.digest, model=digest(self.weights.tobytes())
        )
        return load(data)

    @property
    def annexes(self) -> dict[str, bytes]:
        """What has to travel, by digest."""
        found = [self.seeds.canonical, self.weights.tobytes(), *(one.envelope for one in self.donations)]
        return {digest(data): data for data in found}

    def clause(self, recipe: str = "pick", **changes: Any) -> dict[str, Any]:
        """The seed clause."""
        rows = [
            {
                "party": one.consent.party,
                "dataset": one.consent.dataset,
                "licence": one.consent.licence,
                "consent": digest(one.envelope),
            }
            for one in self.donations
        ]
        return {
            "clause": "seed-1",
            "recipe": recipe,
            "seed_set": self.seeds.digest,
            "donations": rows,
        } | changes


def planted_world(folder: Path, **changes: Any) -> tuple[World, Planted]:
    """A node whose open offer begins with a seed set of its three parties; ``changes`` are the contract's."""
    from tests.nodeworld import World

    world = World(folder)
    keys = {"kita": world.member.identity.key, "nord": world.keys["nord"], "iber": world.keys["iber"]}
    planted = Planted(keys, recipe=world.recipe)
    world.recipe = planted.started
    world.broker.annexes |= {planted.started.digest: planted.started.canonical, **planted.annexes}
    world.changes |= {"seed_sets": [planted.clause()]} | changes
    world.offer()
    return world, planted
