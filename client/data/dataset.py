# SPDX-License-Identifier: Apache-2.0
"""`open_dataset`: the owner's way to the episodes of a data set, every column of them, read-only.

It opens a data-set folder of the store (``<root>/datasets/kita+pick``, or one of its generations), or a
LeRobotDataset v3.0 folder that `client.data.exporting` wrote. Learning never gets this: it gets
`client.data.fields.EpisodeView`, which opens what contract, recipe and node allow, and nothing else.

    for episode in open_dataset(Path("data/datasets/kita+pick")):
        episode.columns["observation.tcp_pos"]     # [T, 3] float32, SI, NaN where nothing was measured
        episode.stamps_ns                          # [T] int64, as the source had them
        episode.meta                               # EpisodeMeta; None in an exported folder

Episodes come one at a time, so that a data set of any size takes the memory of one episode. An object keeps
to the generation that it opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.episodes import EPISODE_SCHEMA, EpisodeMeta, read_episodes
from client.data.errors import DatasetUnknownError, StoreDamagedError
from client.data.layout import EPISODES, METAS, STAMPS, data_file
from client.data.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from client.data.series import Array32, Int64

__all__ = ["EpisodeStore", "OwnEpisode", "open_dataset"]

_COMPONENT: Final = re.compile(r"^(?P<field>[a-z][a-z0-9_]*?)_(?P<index>\d+)$")
_LABEL: Final = "label."
_PROOF: Final = ("index", "episode_index")  # whose a row is


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEpisode:
    """One episode with everything that is stored of it.

    ``columns``: ``observation.tcp_pos`` and the like to ``[T, k] float32``; ``labels``: name to ``[T] int8``,
    1 true, 0 false, -1 unknown; ``said``: split, outcome, clock and who acted, in words.
    """

    number: int
    task: str
    length: int
    stamps_ns: Int64
    columns: Mapping[str, Array32]
    labels: Mapping[str, npt.NDArray[np.int8]]
    said: Mapping[str, str]
    meta: EpisodeMeta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    path: Path
    start: int
    length: int
    task: str


class EpisodeStore(Sequence[OwnEpisode]):
    """Episodes of one data set, in the order of import. Made by `open_dataset` only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: Mapping[str, Any] = _info(folder)
        self.rate_hz = float(self.info["fps"])
        self._groups = _groups(self.info["features"])
        self._labels = tuple(name for name in self.info["features"] if name.startswith(_LABEL))
        self._said = _said(folder)
        self._metas = _metas(folder)
        self._places = _places(folder)
        self._opened: tuple[Path, _DataFile] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every episode has."""
        return tuple(self._groups)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[OwnEpisode]:
        return (self._episode(number) for number in range(len(self)))

    def __getitem__(self, number: Any) -> Any:  # noqa: ANN401  an episode, or a list of them for a slice
        if isinstance(number, slice):
            return [self._episode(one) for one in range(*number.indices(len(self)))]
        at = range(len(self))[number]
        return self._episode(at)

    def _episode(self, number: int) -> OwnEpisode:
        place = self._places[number]
        features = {feature for feature, _ in self._groups.values()}
        table = self._file(place.path).rows(
            number, place.start, place.length, [*features, *self._labels, STAMPS]
        )
        matrices = {feature: _matrix(table[feature], place.length) for feature in features}
        return OwnEpisode(
            number=number,
            task=place.task,
            length=place.length,
            stamps_ns=table[STAMPS].to_numpy().astype(np.int64),
            columns={key: matrices[feature][:, at] for key, (feature, at) in self._groups.items()},
            labels={
                name.removeprefix(_LABEL): table[name].to_numpy().astype(np.int8) for name in self._labels
            },
            said=self._said[number],
            meta=self._metas[number] if self._metas else None,
        )

    def _file(self, path: Path) -> _DataFile:
        if self._opened is None or self._opened[0] != path:
            if self._opened is not None:
                self._opened[1].close()
            self._opened = (path, _DataFile(path))
        return self._opened[1]


def open_dataset(path: Path) -> EpisodeStore:
    """The episodes of a data-set folder.

    Args:
        path: ``datasets/kita+pick`` of a store, one of its generations, or an exported folder.

    Raises:
        DatasetUnknownError: The folder is neither.
        StoreDamagedError: Its tables contradict each other; also while it is read.
    """
    if (path / "meta/info.json").is_file():
        return EpisodeStore(path)
    store, name = Store(path.parent.parent), path.name.replace("+", "/")
    entry = store.catalogue().datasets.get(name)
    if entry is None:
        raise DatasetUnknownError(
            need="a data-set folder of the store, or one that data export wrote",
            found=f"{path.name}: neither",
            remedy="name datasets/MAKER+NAME of the data folder; iriai-node data list shows them",
        )
    return EpisodeStore(store.folder(name, entry))


class _DataFile:
    """A data file, of which only the row groups that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False)
            groups = self._file.metadata
            self._sizes = [groups.row_group(at).num_rows for at in range(groups.num_row_groups)]
            first = self._file.read_row_group(0, columns=["index"]) if self._sizes else None
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(f"{path.name}: {type(error).__name__}") from error
        self._first = 0 if first is None else int(first["index"][0].as_py())
        self._ends = np.cumsum(self._sizes)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def rows(self, episode: int, start: int, length: int, columns: list[str]) -> pa.Table:
        """Rows whose ``index`` is ``start`` and on, all of which bear the number of the episode."""
        at = start - self._first
        if at < 0 or length < 1 or not self._sizes or at + length > self._ends[-1]:
            raise _damaged(f"{self._path.name}: an episode that is not where the index says")
        group, last = (int(np.searchsorted(self._ends, row, side="right")) for row in (at, at + length - 1))
        try:
            table = self._file.read_row_groups(
                list(range(group, last + 1)), columns=[*columns, *_PROOF], use_threads=False
            )
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(f"{self._path.name}: {type(error).__name__}") from error
        found = table.slice(at - int(self._ends[group] - self._sizes[group]), length)
        if found["index"][0].as_py() != start or (found["episode_index"].to_numpy() != episode).any():
            raise _damaged(f"{self._path.name}: an episode that is not where the index says")
        return found


def _matrix(column: pa.ChunkedArray, length: int) -> Array32:
    flat = column.combine_chunks()
    if pa.types.is_nested(flat.type):
        flat = flat.flatten()
    values: Array32 = flat.to_numpy(zero_copy_only=False).reshape(length, -1).astype(np.float32)
    return values


def _groups(features: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """Column (``action.tcp_pos``) to the feature that holds it, and where: by the names of components."""
    found: dict[str, tuple[str, list[int]]] = {}
    for feature, spec in features.items():
        role = feature.split(".", 1)[0]
        if role not in ("observation", "action") or not spec.get("names"):
            continue
        for at, name in enumerate(spec["names"]):
            match = _COMPONENT.match(str(name))
            if match is not None:
                found.setdefault(f"{role}.{match['field']}", (feature, []))[1].append(at)
    return found


def _info(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "meta/info.json").read_bytes())
        sound = isinstance(found["features"], dict) and STAMPS in found["features"] and found["fps"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"meta/info.json: {type(error).__name__}") from error
    if not sound:
        raise DatasetUnknownError(
            need="a data set of the store, or one that data export wrote",
            found=f"{folder.name}: features without {STAMPS}",
            remedy="iriai-node data add imports what another program wrote",
        )
    return dict(found)


def _places(folder: Path) -> list[_Place]:
    rows = _table(folder / EPISODES, EPISODE_SCHEMA.names)
    return [
        _Place(
            path=folder / data_file(row["data/chunk_index"], row["data/file_index"]),
            start=row["dataset_from_index"],
            length=row["length"],
            task=row["tasks"][0],
        )
        for row in rows
    ]


def _said(folder: Path) -> list[dict[str, str]]:
    names = ("split", "outcome", "clock", "excluded", "source_kind", "model", "outcome_by")
    there = [name for name in names if name in pq.read_schema(folder / METAS).names]
    return [{name: str(row[name]) for name in there} for row in _table(folder / METAS, there)]


def _metas(folder: Path) -> list[EpisodeMeta]:
    """What the store knows of each episode; empty for an exported folder, which does not carry it."""
    if "episode_id" not in pq.read_schema(folder / METAS).names:
        return []
    return [stored.meta for stored in read_episodes(folder)]


def _table(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise _damaged(f"{path.name}: {type(error).__name__}") from error
    return rows


def _damaged(found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="a data set as it was written",
        found=found,
        remedy="restore it from a backup, or export it again",
    )
