# SPDX-License-Identifier: Apache-2.0
"""One openly donated episode, as everybody has it: its row in a seed set, and the digest that names it.

- Values are base64 of little-endian float32 ``[T, k]``, in SI, of fields of the closed list. ``action`` holds
  what is learned to be given: commands, or what was measured where dynamics are predicted.
- Where a recipe detects something, an episode shows its label in place of an action: int8 ``[T]``, 1 true,
  0 false or the number of a class, -1 unknown. Without labels a row has no key ``labels``, so that rows and
  digests of seed sets from before there were labels stay what they are.
- `published` is the one place that says which columns of an episode become public under a recipe; who gives
  and who recognises what was given both ask it.

    shown = published(recipe, episode.fields, episode.actions, episode.labels)
    shown.digest                                    # names what is published, whoever gave it
    one = read_episode(row, "episodes.0")           # SeedSetInvalidError

SeedError                (of `policies.consents`)
  SeedSetInvalidError    seed.set-invalid      no sound seed set in canonical bytes, or not the recipe's
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.consents import SeedError
from policies.encoding import b64, canonical, is_digest, sha256, unb64
from policies.errors import EncodingError
from policies.limits import EPISODE_FRAMES
from policies.recipe import FIELD_NAMES

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = [
    "SeedEpisode",
    "SeedSetInvalidError",
    "Shown",
    "is_licence",
    "published",
    "read_canonical",
    "read_episode",
]

Json = Any  # a JSON value
Array32 = npt.NDArray[np.float32]
Array8 = npt.NDArray[np.int8]
Columns = Mapping[str, Array32]
Labels = Mapping[str, Array8]

_FLOAT: Final = np.dtype("<f4")
_FIELD_SIZE: Final = 64
_LICENCE_CHARS: Final = 200
_LABELS: Final = 16
_CLASSES: Final = 32
_UNKNOWN: Final = -1
_PARTY: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DATASET: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ROW: Final = frozenset(
    {"party", "dataset", "licence", "consent", "digest", "frames", "observation", "action"}
)
_REMEDY: Final = "ask its author for the file that the digest names, or join the donations again"


class SeedSetInvalidError(SeedError):
    """Not the canonical bytes of a sound seed set, or one that lacks what the recipe reads."""

    code = "seed.set-invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedEpisode:
    """One donated episode; ``[T, k] float32`` per field, in SI.

    Attributes:
        party: Short name of the donor in the contract.
        dataset: The donor's data set, as the contract's donation names it.
        licence: Under which everybody may use it.
        consent: Digest of the donor's signed consent.
        observation: Observed fields.
        action: What the recipe's outputs are learned from; nothing where a label is detected.
        labels: What is detected; nothing for other kinds.
    """

    party: str
    dataset: str
    licence: str
    consent: str
    observation: Columns
    action: Columns
    labels: Labels = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(next(iter(self.observation.values())))

    @property
    def digest(self) -> str:
        """Names what is published, and nothing else: fields, sizes and values; see `_episode_digest`."""
        return _episode_digest(self.observation, self.action, self.labels)

    @property
    def fields(self) -> frozenset[str]:
        """Every field and label that it shows."""
        return frozenset({*self.observation, *self.action, *self.labels})

    def to_json(self) -> dict[str, Json]:
        """Its row in a seed set."""
        labels = {"labels": _labels_json(self.labels)} if self.labels else {}
        return {
            "party": self.party,
            "dataset": self.dataset,
            "licence": self.licence,
            "consent": self.consent,
            "digest": self.digest,
            "frames": self.frames,
            "observation": _columns_json(self.observation),
            "action": _columns_json(self.action),
            **labels,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Columns of an episode that become public under a recipe."""

    observation: Columns
    action: Columns
    labels: Labels

    @property
    def digest(self) -> str:
        """That of the `SeedEpisode` that shows them."""
        return _episode_digest(self.observation, self.action, self.labels)


def published(recipe: Recipe, fields: Columns, actions: Columns, labels: Labels) -> Shown:
    """What a recipe reads of an episode, and so what is shown of it.

    Args:
        recipe: Its inputs, outputs and label, and no other column.
        fields: What was observed.
        actions: What was commanded.
        labels: What somebody, or a station, said.
    """
    measured = fields if recipe.task.kind == "inverse-dynamics" else actions
    outputs = [one.field for one in recipe.outputs]
    return Shown(
        observation={one.field: fields[one.field] for one in recipe.inputs},
        action={name: (measured if name in measured else actions)[name] for name in outputs},
        labels={} if recipe.label is None else {recipe.label: labels[recipe.label]},
    )


def _episode_digest(observation: Columns, action: Columns, labels: Labels) -> str:
    """Digest of published values: a canonical header, then fields and labels in the order of their names."""
    header: dict[str, Json] = {
        "schema": "iriai-seed-episode/1",
        "frames": len(next(iter(observation.values()))),
        "observation": [[name, observation[name].shape[1]] for name in sorted(observation)],
        "action": [[name, action[name].shape[1]] for name in sorted(action)],
    }
    if labels:
        header["labels"] = sorted(labels)
    values = [_bytes(part[name]) for part in (observation, action) for name in sorted(part)]
    values += [_label_bytes(labels[name]) for name in sorted(labels)]
    return "sha256:" + sha256(b"".join([canonical(header), *values])).hex()


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
    if not isinstance(row, dict) or set(row) - {"labels"} != _ROW:
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
    labels = _read_labels(row["labels"], frames, f"{where}.labels") if "labels" in row else {}
    found = SeedEpisode(
        party=row["party"],
        dataset=row["dataset"],
        licence=row["licence"],
        consent=row["consent"],
        observation=_read_columns(row["observation"], frames, f"{where}.observation"),
        action=_read_columns(row["action"], frames, f"{where}.action", least=0 if labels else 1),
        labels=labels,
    )
    if found.digest != row["digest"]:
        raise _invalid(f"{where}: the episode {ascii(row['digest'])[:80]}", found.digest)
    return found


def is_licence(text: str) -> bool:
    """Whether a licence is one line that shows, without outer blanks."""
    return 0 < len(text) <= _LICENCE_CHARS and text.isprintable() and text == text.strip()


def _read_columns(rows: Json, frames: int, where: str, *, least: int = 1) -> dict[str, Array32]:
    if not isinstance(rows, list) or not least <= len(rows) <= len(FIELD_NAMES):
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


def _read_labels(rows: Json, frames: int, where: str) -> dict[str, Array8]:
    if not isinstance(rows, list) or not 0 < len(rows) <= _LABELS:
        raise _invalid(f"{where}: 1 to {_LABELS} labels, or no such key", "another value")
    found: dict[str, Array8] = {}
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"label", "values"}:
            raise _invalid(f"{where}: label and values", "other keys")
        name = row["label"]
        if not isinstance(name, str) or not _LABEL.fullmatch(name) or name <= max(found, default=""):
            raise _invalid(f"{where}: names of labels, each once, by name", ascii(name)[:60])
        values = np.frombuffer(_read_bytes(row["values"], frames, f"{where}.{name}"), dtype=np.int8)
        if values.min() < _UNKNOWN or values.max() >= _CLASSES:
            raise _invalid(f"{where}.{name}: -1 for unknown, or a class from 0 to {_CLASSES - 1}", "others")
        found[name] = values
    return found


def _read_values(text: Json, frames: int, size: int, where: str) -> Array32:
    data = _read_bytes(text, frames * size * _FLOAT.itemsize, where)
    values = np.frombuffer(data, dtype=_FLOAT).reshape(frames, size)
    if not np.isfinite(values).all():
        raise _invalid(f"{where}: finite values", "others")
    return values


def _read_bytes(text: Json, size: int, where: str) -> bytes:
    try:
        data = unb64(text)
    except EncodingError as error:
        raise _invalid(f"{where}: base64", "other characters") from error
    if len(data) != size or b64(data) != text:
        raise _invalid(f"{where}: {size} bytes in standard base64", f"{len(data)} bytes")
    return data


def _columns_json(columns: Columns) -> list[Json]:
    return [
        {"field": name, "size": columns[name].shape[1], "values": b64(_bytes(columns[name]))}
        for name in sorted(columns)
    ]


def _labels_json(labels: Labels) -> list[Json]:
    return [{"label": name, "values": b64(_label_bytes(labels[name]))} for name in sorted(labels)]


def _label_bytes(values: Array8) -> bytes:
    return np.ascontiguousarray(values, dtype=np.int8).tobytes()


def _bytes(values: Array32) -> bytes:
    return np.ascontiguousarray(values, dtype=_FLOAT).tobytes()


def _invalid(need: str, found: str) -> SeedSetInvalidError:
    return SeedSetInvalidError(need=need, found=found, remedy=_REMEDY)
