# SPDX-License-Identifier: Apache-2.0
"""`EpisodeMeta`: what the store knows of an episode beside its frames, and the tables that hold it.

- Columns are only ever added. A store of an earlier version opens with the default of what it lacks: its
  episodes were recorded, not made by a model, one ``unit_id`` became the list ``unit_ids``, and one right the
  list of those that an episode was imported under: ``rights``, empty where it was none.
- Columns that a later version added are left alone.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from client.data.errors import StoreDamagedError
from client.data.layout import EPISODES, METAS
from policies.privacy.errors import UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

__all__ = ["EPISODE_SCHEMA", "EpisodeMeta", "StoredEpisode", "read_episodes", "write_episodes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """What the store knows of an episode beside its frames. Nothing of it leaves the site."""

    episode_id: str
    digest: str
    content: str
    lineage: str
    block: int
    unit_ids: tuple[bytes, ...]  # owners; this version has exactly one
    split: str
    task: str
    outcome: str
    reader: str
    file_sha256: str
    first_row: int
    last_row: int
    signal_map: str
    clock: str
    start_ns: int | None
    length: int
    rights: tuple[str, ...]  # contracts and consents that it was imported under
    excluded: str  # names of failed checks, separated by commas; empty if none
    unit_weak: bool = False  # a window: one attempt may lie in two of them
    source_kind: str = "recorded"  # or "deployed": a model acted
    model: str = ""  # digest of that model
    outcome_by: str = ""  # "person" where somebody said how it ended

    def has_right(self, contracts: Collection[str]) -> bool:
        """Whether it was imported under one of these contracts."""
        return not set(contracts).isdisjoint(self.rights)

    def as_dict(self) -> dict[str, Any]:
        """Row of ``iriai/episodes.parquet``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def unit_id(self) -> bytes:
        """The one unit that the episode belongs to.

        Raises:
            UnitRefusedError: It has several owners: a later version may bound that, this one cannot.
        """
        if len(self.unit_ids) != 1:
            raise UnitRefusedError(
                need="one owner for each episode",
                found=f"{len(self.unit_ids)}",
                remedy="update the node, or import the episode with another key",
            )
        return self.unit_ids[0]

    @property
    def may_be_cloned(self) -> bool:
        """Whether its actions may be imitated.

        A model does not teach itself, unless a person said that it succeeded. What a person said failed is no
        example, whoever acted.
        """
        if self.outcome_by == "person":
            return self.outcome == "success" or (self.outcome != "fail" and self.source_kind != "deployed")
        return self.source_kind != "deployed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEpisode:
    """Where an episode lies: file and rows, and its meta row."""

    chunk: int
    file: int
    start: int
    meta: EpisodeMeta


_META_TYPES: Final = {
    "unit_ids": pa.list_(pa.binary()),
    "rights": pa.list_(pa.string()),
    "unit_weak": pa.bool_(),
    **dict.fromkeys(("block", "first_row", "last_row", "start_ns", "length"), pa.int64()),
}
_META_SCHEMA: Final = pa.schema(
    [
        ("episode_index", pa.int64()),
        *((name, _META_TYPES.get(name, pa.string())) for name in EpisodeMeta.__slots__),
    ]
)
_DEFAULTS: Final = {f.name: f.default for f in fields(EpisodeMeta) if f.default is not MISSING}
EPISODE_SCHEMA: Final = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        *((name, pa.int64()) for name in ("length", "data/chunk_index", "data/file_index")),
        *((name, pa.int64()) for name in ("dataset_from_index", "dataset_to_index")),
        *((name, pa.int64()) for name in ("meta/episodes/chunk_index", "meta/episodes/file_index")),
    ]
)


def write_episodes(folder: Path, episodes: Sequence[StoredEpisode]) -> None:
    """Writes both tables of a generation; their folders exist."""
    places = [
        {
            "episode_index": number,
            "tasks": [e.meta.task],
            "length": e.meta.length,
            "data/chunk_index": e.chunk,
            "data/file_index": e.file,
            "dataset_from_index": e.start,
            "dataset_to_index": e.start + e.meta.length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for number, e in enumerate(episodes)
    ]
    metas = [{"episode_index": number, **e.meta.as_dict()} for number, e in enumerate(episodes)]
    pq.write_table(pa.Table.from_pylist(places, schema=EPISODE_SCHEMA), folder / EPISODES)
    pq.write_table(pa.Table.from_pylist(metas, schema=_META_SCHEMA), folder / METAS)


def read_episodes(folder: Path) -> list[StoredEpisode]:
    """All episodes of a generation, in the order of import.

    Raises:
        StoreDamagedError: Its tables are missing, damaged, or contradict each other.
    """
    try:
        metas = _read_metas(folder / METAS)
        places = pq.read_table(folder / EPISODES, schema=EPISODE_SCHEMA).to_pylist()
        return [
            StoredEpisode(
                chunk=place["data/chunk_index"],
                file=place["data/file_index"],
                start=place["dataset_from_index"],
                meta=meta,
            )
            for meta, place in zip(metas, places, strict=True)
        ]
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError, KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(
            need="the files that the catalogue names",
            found=f"{folder.parent.name}/{folder.name}: {type(error).__name__}",
            remedy="restore the store from a backup, or import again into a fresh one",
        ) from error


def _read_metas(path: Path) -> list[EpisodeMeta]:
    there = set(pq.read_schema(path).names)
    wanted = [name for name in EpisodeMeta.__slots__ if name in there]
    single = "unit_id" in there and "unit_ids" not in there  # the version before units had keys
    rows = pq.read_table(path, columns=[*wanted, *(["unit_id"] if single else [])]).to_pylist()
    found = []
    for row in rows:
        owners = [row.pop("unit_id")] if single else row["unit_ids"]
        row["unit_ids"] = tuple(owners)
        rights = row["rights"] or ()  # one word in the version before episodes had several
        row["rights"] = (rights,) if isinstance(rights, str) else tuple(rights)
        found.append(EpisodeMeta(**{**_DEFAULTS, **row}))
    return found
