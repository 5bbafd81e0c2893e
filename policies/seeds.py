# SPDX-License-Identifier: Apache-2.0
"""An open seed set: episodes that their owners gave away, and the model that training begins with.

- ``iriai-seed-set/1`` is canonical JSON; its digest stands in the contract's seed clause and in
  `policies.recipe.Start`. Its rows are episodes (`policies.seed_episodes`).
- An episode is named by the digest of what is published of it, whoever gave it: the same episode twice is
  refused.
- **What is here is public.** It is part of no private unit any more and costs no budget; nothing is claimed
  about it (privacy.md, section 8).
- The start model is one flat float32 vector in the order of the recipe's tensors. Every party begins with
  exactly these bytes, so that nobody has to fit the same model bit by bit.

    seeds = read_seed_set(data)                       # strict; SeedSetInvalidError
    check_fits(seeds, recipe)                         # it shows exactly the recipe's fields, at their sizes
    started = with_start(recipe_bytes, seed_set=seeds.digest, model=digest(weights))
    begun = with_base(recipe_bytes, base=digest(weights), licence="CC-BY-4.0")      # or a public checkpoint
    first = start_weights(recipe, weights)            # [P] float32; StartModelUnfitError

What a donor says about its episodes is in `policies.consents`.

SeedError                (of `policies.consents`)
  SeedSetInvalidError    seed.set-invalid      (of `policies.seed_episodes`)
  StartModelUnfitError   seed.model-unfit      weights of another length, not finite, or another model
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.consents import ConsentInvalidError, SeedError
from policies.encoding import canonical, digest
from policies.limits import SEED_EPISODES, SEED_SET_BYTES
from policies.recipe import load
from policies.seed_episodes import (
    SeedEpisode,
    SeedSetInvalidError,
    is_licence,
    read_canonical,
    read_episode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.recipe import Recipe

__all__ = [
    "ConsentInvalidError",
    "SeedEpisode",
    "SeedError",
    "SeedSet",
    "SeedSetInvalidError",
    "StartModelUnfitError",
    "check_fits",
    "is_licence",
    "read_seed_set",
    "start_weights",
    "with_base",
    "with_start",
]

Json = Any  # a JSON value
Array32 = npt.NDArray[np.float32]

SCHEMA: Final = "iriai-seed-set/1"
_FLOAT: Final = np.dtype("<f4")
_REMEDY: Final = "ask its author for the file that the digest names, or join the donations again"


class StartModelUnfitError(SeedError):
    """Start weights of another length, with values that are not finite, or of another model."""

    code = "seed.model-unfit"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSet:
    """Donated episodes in one order: by party, data set, digest. Make it with `read_seed_set` or `of`."""

    episodes: tuple[SeedEpisode, ...]
    canonical: bytes

    @classmethod
    def of(cls, episodes: Iterable[SeedEpisode]) -> SeedSet:
        """The set of these episodes.

        Raises:
            SeedSetInvalidError: None, too many, too large, or one twice.
        """
        ordered = sorted(episodes, key=lambda one: (one.party, one.dataset, one.digest))
        return read_seed_set(canonical({"schema": SCHEMA, "episodes": [one.to_json() for one in ordered]}))

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes."""
        return digest(self.canonical)

    @property
    def digests(self) -> frozenset[str]:
        """Names of its episodes."""
        return frozenset(one.digest for one in self.episodes)

    def of_donation(self, party: str, dataset: str) -> tuple[SeedEpisode, ...]:
        """What one party gave from one data set."""
        return tuple(one for one in self.episodes if (one.party, one.dataset) == (party, dataset))


def read_seed_set(data: bytes) -> SeedSet:
    """The seed set behind canonical bytes.

    1. size and canonical form
    2. the schema, and from 1 to `SEED_EPISODES` episodes
    3. every episode: exactly the keys, words, fields of the closed list, finite values of one length
    4. its digest is the one that it is named by, and no episode is there twice
    5. one order: by party, data set, digest

    Raises:
        SeedSetInvalidError: With what was found.
    """
    # 1.
    tree = read_canonical(data, most=SEED_SET_BYTES)
    # 2.
    rows = tree.get("episodes") if isinstance(tree, dict) else None
    whole = isinstance(tree, dict) and set(tree) == {"schema", "episodes"} and tree["schema"] == SCHEMA
    if not whole or not isinstance(rows, list) or not 0 < len(rows) <= SEED_EPISODES:
        raise _invalid(f"{SCHEMA} with 1 to {SEED_EPISODES} episodes", "another document")
    # 3. and 4.
    episodes = tuple(read_episode(row, f"episodes.{number}") for number, row in enumerate(rows))
    names = [one.digest for one in episodes]
    if len(set(names)) != len(names):
        raise _invalid("each episode once", "one twice")
    # 5.
    keys = [(one.party, one.dataset, one.digest) for one in episodes]
    if keys != sorted(keys):
        raise _invalid("episodes by party, data set and digest", "another order")
    return SeedSet(episodes=episodes, canonical=data)


def _invalid(need: str, found: str) -> SeedSetInvalidError:
    return SeedSetInvalidError(need=need, found=found, remedy=_REMEDY)


# --- with a recipe ---


def check_fits(seeds: SeedSet, recipe: Recipe) -> None:
    """Refuses a seed set whose episodes show anything else than what the recipe reads, at its sizes.

    Raises:
        SeedSetInvalidError: With the fields.
    """
    wanted = (
        {one.field: one.size for one in recipe.inputs},
        {one.field: one.size for one in recipe.outputs},
        {} if recipe.label is None else {recipe.label: 1},
    )
    for number, one in enumerate(seeds.episodes):
        shown = (_widths(one.observation), _widths(one.action), dict.fromkeys(one.labels, 1))
        for part, sizes, found in zip(("observation", "action", "labels"), wanted, shown, strict=True):
            if found != sizes:
                raise SeedSetInvalidError(
                    need=f"episodes.{number}.{part}: {_sizes(sizes)}, as the recipe reads it",
                    found=_sizes(found),
                    remedy="donate under this recipe, or start a recipe with these fields from it",
                )


def _widths(columns: Mapping[str, Array32]) -> dict[str, int]:
    return {name: values.shape[1] for name, values in columns.items()}


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} [{size}]" for name, size in sorted(sizes.items())) or "nothing"


def with_start(recipe: bytes, *, seed_set: str, model: str) -> bytes:
    """Canonical bytes of the same recipe that starts from a model.

    Raises:
        RecipeError: The bytes are no sound recipe, before or after.
    """
    return _started(recipe, {"seed_set": seed_set, "model": model})


def with_base(recipe: bytes, *, base: str, licence: str) -> bytes:
    """Canonical bytes of the same recipe that starts from a public checkpoint, of this digest and licence.

    Raises:
        RecipeError: The bytes are no sound recipe, before or after.
    """
    return _started(recipe, {"base": base, "licence": licence})


def _started(recipe: bytes, start: Mapping[str, str]) -> bytes:
    load(recipe)
    started = canonical({**json.loads(recipe), "start": dict(start)})
    load(started)
    return started


def start_weights(recipe: Recipe, data: bytes) -> Array32:
    """The weights that training begins with, ``[P] float32``, once they are the recipe's.

    Raises:
        StartModelUnfitError: The recipe starts from none, or from another; another length; not finite.
    """
    start = recipe.start
    wanted, size = "none" if start is None else start.model, recipe.parameters * _FLOAT.itemsize
    seeded = start is None or start.seed_set is not None
    if start is None or digest(data) != wanted:
        raise _unfit(f"the start model {wanted}", digest(data), seeded=seeded)
    if len(data) != size:
        raise _unfit(f"{recipe.parameters} float32 values", f"{len(data)} bytes", seeded=seeded)
    weights = np.frombuffer(data, dtype=_FLOAT)
    if not np.isfinite(weights).all():
        raise _unfit("finite weights", "others", seeded=seeded)
    return weights


def _unfit(need: str, found: str, *, seeded: bool) -> StartModelUnfitError:
    begin = "fit it anew: iriai-node seed fit" if seeded else "take the checkpoint: iriai-node recipe base"
    return StartModelUnfitError(need=need, found=found, remedy=f"{begin}; the recipe names its digest")
