# SPDX-License-Identifier: Apache-2.0
"""`EpisodeView`: the only object that learning gets, and the only way to a column.

- A field can be opened if the contract's ``fields`` clause, the recipe and this node's own allow-list all
  name it. Any other name raises `FieldNotAllowedError` with the clause, also on an episode's mapping.
- A column that the site keeps to itself (``x_...``, or a secret one that the map keeps) is refused also
  where contract and recipe name its field; `personalise` alone names it as ``private``.
- Excluded episodes are not there, nor are those that the owner gave away (``withheld``). Where actions are
  opened, nor are those in which a model acted, unless a person said that they ended well: a model does not
  teach itself. Where contracts are named, an episode is there if it was imported under one of them: rights
  are of an episode, not of the data set that it lies in.
- A frame in which an opened field is missing is left out of all opened fields.
- What is read is proven first: all stored values of an episode against its digest.
- Episodes come in the order of their unit ids, which says nothing about when they were recorded.
- With a time base (``rate_hz``) each episode is brought to it by its own stamps (client.data.timebase).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.errors import FieldNotAllowedError, MissingColumnError, NoRightsError, StoreDamagedError
from client.data.frames import values_digest
from client.data.layout import STAMPS, data_file
from client.data.series import Array32, Split
from client.data.store import EpisodeMeta, Store, StoredEpisode
from client.data.timebase import resampled

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Episode", "EpisodeView", "FieldMap", "open_view"]

_LABEL: Final = "label."


class FieldMap(Mapping[str, Array32]):
    """Opened fields of an episode; asking for another is a refusal, not a missing key."""

    def __init__(self, values: Mapping[str, Array32], clause: str) -> None:
        self._values, self._clause = dict(values), clause

    def __getitem__(self, name: str) -> Array32:
        if name not in self._values:
            raise _refused(name, self._clause, "this view did not open it")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode: ``[T, k] float32`` per field in SI; ``unit_id`` is 32 bytes that never leave the site.

    Where a field is both observed and commanded, ``fields`` holds the observation and ``actions`` the
    command. Episodes of one unit have one ``unit_id`` and one ``block``; ``stratum`` is the task. Opened
    labels are ``[T]``, 1 true, 0 false, -1 unknown.
    """

    unit_id: bytes
    block: int
    stratum: str
    fields: FieldMap
    actions: FieldMap
    length: int
    labels: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeView:
    """Opened columns of a data set. Made by `open_view` only."""

    dataset: str
    lineage: str
    unit: str
    clause: str
    rate_hz: float | None
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    folder: Path
    stored: tuple[StoredEpisode, ...]
    imitates: bool = True
    proven: tuple[str, ...] = ()  # all columns of values, over which an episode's digest is

    def count(self, split: Split) -> int:
        """Episodes of a split that `episodes` would give."""
        return len(self._opened(split))

    def _opened(self, split: Split) -> list[StoredEpisode]:
        acts = self.imitates and any(column.startswith("action.") for column in self.columns)
        return [
            e
            for e in self.stored
            if e.meta.split == split and not e.meta.excluded and (e.meta.may_be_cloned or not acts)
        ]

    def episodes(self, split: Split) -> list[Episode]:
        """The episodes of a split.

        Raises:
            StoreDamagedError: The store's files contradict their index.
            UnitRefusedError: An episode has several owners.
        """
        wanted = self._opened(split)
        tables: dict[tuple[int, int], pa.Table] = {}
        found = []
        for episode in sorted(wanted, key=lambda e: (e.meta.unit_id, e.meta.digest)):
            place = (episode.chunk, episode.file)
            if place not in tables:
                tables[place] = self._table(*place)
            opened = self._episode(tables[place], episode)
            if opened.length:
                found.append(opened)
        return found

    def _table(self, chunk: int, file: int) -> pa.Table:
        path = self.folder / data_file(chunk, file)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as opened:
                wanted = dict.fromkeys((*self.proven, *self.columns, "index", STAMPS))
                return opened.read(columns=list(wanted), use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(f"{path.name}: {type(error).__name__}") from error

    def _episode(self, table: pa.Table, episode: StoredEpisode) -> Episode:
        length = episode.meta.length
        first = episode.start - table["index"][0].as_py()
        rows = table.slice(first, length) if first >= 0 else table.slice(0, 0)
        if len(rows) != length or rows["index"][0].as_py() != episode.start:
            raise _damaged("an episode that is not where the index says")
        stored = {column: _matrix(rows[column]) for column in self.proven}
        if self.proven and values_digest(stored, length) != episode.meta.digest:
            raise _damaged("an episode with other values than were imported")
        values = {c: stored[c] if c in stored else _matrix(rows[c]) for c in self.columns}
        whole = np.all([np.isfinite(v).all(axis=1) for v in values.values()], axis=0)
        values = {column: np.ascontiguousarray(v[whole]) for column, v in values.items()}
        if self.rate_hz is not None:
            values = resampled(values, rows[STAMPS].to_numpy()[whole], self.rate_hz)
        seen = {c.split(".", 1)[1]: v for c, v in values.items() if c.startswith("observation.")}
        done = {c.split(".", 1)[1]: v for c, v in values.items() if c.startswith("action.")}
        return Episode(
            unit_id=episode.meta.unit_id,
            block=episode.meta.block,
            stratum=episode.meta.task,
            fields=FieldMap({**done, **seen}, self.clause),
            actions=FieldMap(done, self.clause),
            length=len(next(iter(values.values()))),
            labels={
                c.removeprefix(_LABEL): v[:, 0].astype(np.int8)
                for c, v in values.items()
                if c.startswith(_LABEL)
            },
        )


def _matrix(column: pa.ChunkedArray) -> Array32:
    flat = column.combine_chunks()
    flat = flat.flatten() if pa.types.is_nested(flat.type) else flat
    found: Array32 = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)
    return found


def open_view(
    root: Path,
    dataset: str,
    *,
    contract_fields: Collection[str],
    fields_clause: str = "fields-1",
    recipe_inputs: Collection[str],
    local_allow: Collection[str],
    contracts: Collection[str] | None = None,
    rate_hz: str | None = None,
    withheld: Callable[[EpisodeMeta], bool] | None = None,
    imitates: bool = True,
    private: Collection[str] = (),
) -> EpisodeView:
    """Opens the fields that a recipe needs.

    Args:
        root: Folder of the store.
        dataset: Its name.
        contract_fields: Fields of the contract's clause.
        fields_clause: Id of that clause.
        recipe_inputs: Fields that the recipe reads, inputs and outputs alike.
        local_allow: This node's own list.
        contracts: Digests of the contract and of the versions that it superseded; if given, episodes that
            were imported under none of them are not there.
        rate_hz: Time base of the recipe; None opens episodes as they were recorded.
        withheld: Whether an episode is left out (`client.seeds.donated`).
        imitates: Whether opened actions are imitated (behaviour cloning); then episodes in which a model
            acted are left out. Detection and dynamics may say no.
        private: Fields that stay on the site, named by the owner; for `personalise` only.

    Raises:
        DatasetUnknownError: No such data set.
        FieldNotAllowedError: The recipe asks for a field that the contract or this node does not name.
        MissingColumnError: The data set has no such field.
        NoRightsError: None of its episodes was imported under these contracts.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    kept = {column.split(".", 1)[1] for column in entry.private}
    for name in sorted(set(recipe_inputs) - set(private)):
        if name not in contract_fields:
            raise _refused(name, fields_clause, "the contract does not name it")
        if name not in local_allow:
            raise _refused(name, "local", "this node's allow-list does not name it")
        if name in kept or name.startswith("x_"):
            raise _refused(name, "local", "this site keeps it to itself")
    stored = store.episodes(dataset)
    if contracts is not None:
        stored = [one for one in stored if one.meta.has_right(contracts)]
    if contracts is not None and not stored:
        present = next(iter(contracts), "DIGEST")
        raise NoRightsError(
            need="an import under this contract",
            found="one under other rights",
            remedy=f"iriai-node data add PATH --dataset {dataset} --contract {present}",
        )
    columns = tuple(c for c in entry.columns if c.split(".", 1)[1] in set(recipe_inputs))
    columns += tuple(_LABEL + name for name in entry.labels if name in set(recipe_inputs))
    lacking = sorted(set(recipe_inputs) - {c.split(".", 1)[1] for c in columns})
    if lacking:
        raise MissingColumnError(
            need="fields " + ", ".join(lacking),
            found=f"{dataset} without them",
            remedy="import a recording that has them",
        )
    return EpisodeView(
        dataset=dataset,
        lineage=entry.lineage,
        unit=entry.unit,
        clause=fields_clause,
        rate_hz=None if rate_hz is None else float(rate_hz),
        fields=tuple(sorted(set(recipe_inputs))),
        columns=columns,
        folder=store.folder(dataset, entry),
        stored=tuple(one for one in stored if withheld is None or not withheld(one.meta)),
        imitates=imitates,
        proven=tuple(entry.columns),
    )


def _refused(name: str, clause: str, found: str) -> FieldNotAllowedError:
    return FieldNotAllowedError(
        need=f"field {ascii(name)[:60]}",
        found=found,
        remedy="amend the contract or this node's list, or use another recipe",
        clause=clause,
    )


def _damaged(found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="the rows that the index names",
        found=found,
        remedy="restore the store from a backup, or import again",
    )
