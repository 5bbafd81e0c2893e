# SPDX-License-Identifier: Apache-2.0
"""An open seed set: episodes that their owners gave away, and the model that training begins with.

- ``iriai-seed-set/1`` is canonical JSON; its digest stands in the contract's seed clause and in
  `policies.recipe.Start`. Values are base64 of little-endian float32 ``[T, k]``, in SI, of fields of the
  closed list.
- An episode is named by the digest of what is published of it, whoever gave it: the same episode twice is
  refused.
- **What is here is public.** It is part of no private unit any more and costs no budget; nothing is claimed
  about it (privacy.md, section 8).
- The start model is one flat float32 vector in the order of the recipe's tensors. Every party begins with
  exactly these bytes, so that nobody has to fit the same model bit by bit.

    seeds = read_seed_set(data)                       # strict; SeedSetInvalidError
    check_fits(seeds, recipe)                         # it shows exactly the recipe's fields, at their sizes
    started = with_start(recipe_bytes, seed_set=seeds.digest, model=digest(weights))
    first = start_weights(recipe, weights)            # [P] float32; StartModelUnfitError

What a donor says about its episodes is in `policies.consents`.

SeedError                (of `policies.consents`)
  SeedSetInvalidError    seed.set-invalid      no sound seed set in canonical bytes, or not the recipe's
  StartModelUnfitError   seed.model-unfit      weights of another length, not finite, or another model
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.consents import ConsentInvalidError, SeedError
from policies.encoding import b64, canonical, digest, is_digest, sha256, unb64
from policies.errors import EncodingError
from policies.limits import EPISODE_FRAMES, SEED_EPISODES, SEED_SET_BYTES
from policies.recipe import FIELD_NAMES, load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.recipe import Recipe

__all__ = [
    "ConsentInvalidError",
    "SeedEpisode",
    "SeedError",
    "SeedSet",
    "SeedSetInvalidError",
    "StartModelUnfitError",
    "check_fits",
    "read_seed_set",
    "start_weights",
    "with_start",
]

Json = Any  # a JSON value
Array32 = npt.NDArray[np.float32]
Columns = Mapping[str, Array32]

SCHEMA: Final = "iriai-seed-set/1"
_FLOAT: Final = np.dtype("<f4")
_FIELD_SIZE: Final = 64
_LICENCE_CHARS: Final = 200
_PARTY: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DATASET: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}")
_ROW: Final = frozenset(
    {"party", "dataset", "licence", "consent", "digest", "frames", "observation", "action"}
)
_REMEDY: Final = "ask its author for the file that the digest names, or join the donations again"


class SeedSetInvalidError(SeedError):
    """Not the canonical bytes of a sound seed set, or one that lacks what the recipe reads."""

    code = "seed.set-invalid"


class StartModelUnfitError(SeedError):
    """Start weights of another length, with values that are not finite, or of another model."""

    code = "seed.model-unfit"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEpisode:
    """One donated episode; ``[T, k] float32`` per field, in SI.

    Attributes:
        party: Short name of the donor in the contract.
        dataset: The donor's data set, as the contract's donation names it.
        licence: Under which everybody may use it.
        consent: Digest of the donor's signed consent.
        observation: Observed fields.
        action: Commanded fields.
    """

    party: str
    dataset: str
    licence: str
    consent: str
    observation: Columns
    action: Columns

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(next(iter(self.observation.values())))

    @property
    def digest(self) -> str:
        """Names what is published, and nothing else: fields, sizes and values."""
        return episode_digest(self.observation, self.action)

    @property
    def fields(self) -> frozenset[str]:
        """Every field that it shows."""
        return frozenset(self.observation) | frozenset(self.action)

    def to_json(self) -> dict[str, Json]:
        """Its row in a seed set."""
        return {
            "party": self.party,
            "dataset": self.dataset,
            "licence": self.licence,
            "consent": self.consent,
            "digest": self.digest,
            "frames": self.frames,
            "observation": _columns_json(self.observation),
            "action": _columns_json(self.action),
        }


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


def episode_digest(observation: Columns, action: Columns) -> str:
    """Digest of published values: a canonical header, then the fields in the order of their names."""
    header = {
        "schema": "iriai-seed-episode/1",
        "frames": len(next(iter(observation.values()))),
        "observation": [[name, observation[name].shape[1]] for name in sorted(observation)],
        "action": [[name, action[name].shape[1]] for name in sorted(action)],
    }
    values = [_bytes(part[name]) for part in (observation, action) for name in sorted(part)]
    return "sha256:" + sha256(b"".join([canonical(header), *values])).hex()


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


def read_canonical(data: bytes, *, most: int) -> Json:
    """The JSON value behind canonical bytes with long strings.

    Raises:
        SeedSetInvalidError: Too many bytes, no JSON, or another spelling (a duplicate key is one).
    """
    if len(data) > most:
        raise _invalid(f"at most {most} bytes", f"{len(data)} bytes")
    try:
        tree = json.loads(data)
        same = canonical(tree) == data
    except (ValueError, RecursionError, EncodingError) as error:
        raise _invalid("canonical JSON", "other bytes") from error
    if not same:
        raise _invalid("canonical JSON", "another spelling")
    return tree


def read_episode(row: Json, where: str) -> SeedEpisode:
    """One row of a seed set or a donation.

    Raises:
        SeedSetInvalidError: With the place; a value of an episode is never shown.
    """
    if not isinstance(row, dict) or set(row) != _ROW:
        raise _invalid(f"{where}: the keys {', '.join(sorted(_ROW))}", "others")
    words = (
        ("party", _PARTY.fullmatch),
        ("dataset", _DATASET.fullmatch),
        ("licence", is_licence),
        ("consent", is_digest),
    )
    for name, holds in words:
        if not isinstance(row[name], str) or not holds(row[name]):
            raise _invalid(f"{where}.{name} as the contract writes it", ascii(row[name])[:60])
    frames = row["frames"]
    if type(frames) is not int or not 0 < frames <= EPISODE_FRAMES:
        raise _invalid(f"{where}.frames from 1 to {EPISODE_FRAMES}", ascii(frames)[:60])
    found = SeedEpisode(
        party=row["party"],
        dataset=row["dataset"],
        licence=row["licence"],
        consent=row["consent"],
        observation=_read_columns(row["observation"], frames, f"{where}.observation"),
        action=_read_columns(row["action"], frames, f"{where}.action"),
    )
    if found.digest != row["digest"]:
        raise _invalid(f"{where}: the episode {ascii(row['digest'])[:80]}", found.digest)
    return found


def is_licence(text: str) -> bool:
    """Whether a licence is one line that shows, without outer blanks."""
    return 0 < len(text) <= _LICENCE_CHARS and text.isprintable() and text == text.strip()


def _read_columns(rows: Json, frames: int, where: str) -> dict[str, Array32]:
    if not isinstance(rows, list) or not 0 < len(rows) <= len(FIELD_NAMES):
        raise _invalid(f"{where}: a list of fields", "another value")
    found: dict[str, Array32] = {}
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"field", "size", "values"}:
            raise _invalid(f"{where}: field, size and values", "other keys")
        name, size = row["field"], row["size"]
        if not isinstance(name, str) or name not in FIELD_NAMES or name <= max(found, default=""):
            raise _invalid(f"{where}: fields of the closed list, each once, by name", ascii(name)[:60])
        if type(size) is not int or not 0 < size <= _FIELD_SIZE:
            raise _invalid(f"{where}.{name}: a size from 1 to {_FIELD_SIZE}", ascii(size)[:60])
        found[name] = _read_values(row["values"], frames, size, f"{where}.{name}")
    return found


def _read_values(text: Json, frames: int, size: int, where: str) -> Array32:
    try:
        data = unb64(text)
    except EncodingError as error:
        raise _invalid(f"{where}: base64", "other characters") from error
    if len(data) != frames * size * _FLOAT.itemsize or b64(data) != text:
        raise _invalid(f"{where}: {frames} x {size} float32 in standard base64", f"{len(data)} bytes")
    values = np.frombuffer(data, dtype=_FLOAT).reshape(frames, size)
    if not np.isfinite(values).all():
        raise _invalid(f"{where}: finite values", "others")
    return values


def _columns_json(columns: Columns) -> list[Json]:
    return [
        {"field": name, "size": columns[name].shape[1], "values": b64(_bytes(columns[name]))}
        for name in sorted(columns)
    ]


def _bytes(values: Array32) -> bytes:
    return np.ascontiguousarray(values, dtype=_FLOAT).tobytes()


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
    )
    for number, one in enumerate(seeds.episodes):
        for part, sizes, columns in zip(
            ("observation", "action"), wanted, (one.observation, one.action), strict=True
        ):
            found = {name: values.shape[1] for name, values in columns.items()}
            if found != sizes:
                raise SeedSetInvalidError(
                    need=f"episodes.{number}.{part}: {_sizes(sizes)}, as the recipe reads it",
                    found=_sizes(found),
                    remedy="donate under this recipe, or start a recipe with these fields from it",
                )


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} [{size}]" for name, size in sorted(sizes.items()))


def with_start(recipe: bytes, *, seed_set: str, model: str) -> bytes:
    """Canonical bytes of the same recipe that starts from a model.

    Raises:
        RecipeError: The bytes are no sound recipe, before or after.
    """
    load(recipe)
    tree = json.loads(recipe)
    started = canonical({**tree, "start": {"seed_set": seed_set, "model": model}})
    load(started)
    return started


def start_weights(recipe: Recipe, data: bytes) -> Array32:
    """The weights that training begins with, ``[P] float32``, once they are the recipe's.

    Raises:
        StartModelUnfitError: The recipe starts from none, or from another; another length; not finite.
    """
    start = recipe.start
    wanted, size = "none" if start is None else start.model, recipe.parameters * _FLOAT.itemsize
    if start is None or digest(data) != wanted:
        raise _unfit(f"the start model {wanted}", digest(data))
    if len(data) != size:
        raise _unfit(f"{recipe.parameters} float32 values", f"{len(data)} bytes")
    weights = np.frombuffer(data, dtype=_FLOAT)
    if not np.isfinite(weights).all():
        raise _unfit("finite weights", "others")
    return weights


def _unfit(need: str, found: str) -> StartModelUnfitError:
    return StartModelUnfitError(
        need=need,
        found=found,
        remedy="fit it anew: iriai-node seed fit; the recipe names its digest",
    )
