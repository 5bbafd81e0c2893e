# SPDX-License-Identifier: Apache-2.0
"""`EpisodeView`: the only object that learning gets, and the only way to a column.

- A field can be opened if the contract's ``fields`` clause, the recipe and this node's own allow-list all
  name it. Any other name raises `FieldNotAllowedError` with the clause, also on an episode's mapping.
- Excluded episodes are not there, nor are those that the owner gave away (``withheld``). A frame in which
  an opened field is missing is left out of all opened fields.
- Episodes come in the order of their unit ids, which says nothing about when they were recorded.
- With a time base (``rate_hz``) each episode is brought to it by its own stamps (client.data.timebase).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.errors import FieldNotAllowedError, MissingColumnError, NoRightsError, StoreDamagedError
from client.data.series import Array32, Split
from client.data.store import STAMPS, EpisodeMeta, Store, StoredEpisode
from client.data.timebase import resampled

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Episode", "EpisodeView", "FieldMap", "open_view"]

_DATA_PATH: Final = "data/chunk-{:03d}/file-{:03d}.parquet"


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
    command. Episodes of one unit have one ``unit_id`` and one ``block``; ``stratum`` is the task.
    """

    unit_id: bytes
    block: int
    stratum: str
    fields: FieldMap
    actions: FieldMap
    length: int


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

    def count(self, split: Split) -> int:
        """Episodes of a split that `episodes` would give."""
        return sum(e.meta.split == split and not e.meta.excluded for e in self.stored)

    def episodes(self, split: Split) -> list[Episode]:
        """The episodes of a split.

        Raises:
            StoreDamagedError: The store's files contradict their index.
            UnitRefusedError: An episode has several owners.
        """
        wanted = [e for e in self.stored if e.meta.split == split and not e.meta.excluded]
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
        path = self.folder / _DATA_PATH.format(chunk, file)
        try:
            with pq.ParquetFile(path) as opened:
                return opened.read(columns=[*self.columns, "index", STAMPS], use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(f"{path.name}: {type(error).__name__}") from error

    def _episode(self, table: pa.Table, episode: StoredEpisode) -> Episode:
        length = episode.meta.length
        first = episode.start - table["index"][0].as_py()
        rows = table.slice(first, length) if first >= 0 else table.slice(0, 0)
        if len(rows) != length or rows["index"][0].as_py() != episode.start:
            raise _damaged("an episode that is not where the index says")
        values: dict[str, Array32] = {}
        for column in self.columns:
            flat = rows[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            values[column] = flat.reshape(length, -1).astype(np.float32)
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
        )


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
) -> EpisodeView:
    """Opens the fields that a recipe needs.

    Args:
        root: Folder of the store.
        dataset: Its name.
        contract_fields: Fields of the contract's clause.
        fields_clause: Id of that clause.
        recipe_inputs: Fields that the recipe reads, inputs and outputs alike.
        local_allow: This node's own list.
        contracts: Digests of the contract and of the versions that it superseded; if given, the data set must
            have been imported under one of them.
        rate_hz: Time base of the recipe; None opens episodes as they were recorded.
        withheld: Whether an episode is left out (`client.seeds.donated`).

    Raises:
        DatasetUnknownError: No such data set.
        FieldNotAllowedError: The recipe asks for a field that the contract or this node does not name.
        MissingColumnError: The data set has no such field.
        NoRightsError: It was imported under other rights.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    for name in sorted(set(recipe_inputs)):
        if name not in contract_fields:
            raise _refused(name, fields_clause, "the contract does not name it")
        if name not in local_allow:
            raise _refused(name, "local", "this node's allow-list does not name it")
    if contracts is not None and not set(contracts) & set(entry.rights):
        present = next(iter(contracts), "DIGEST")
        raise NoRightsError(
            need="an import under this contract",
            found="one under other rights",
            remedy=f"iriai-node data add PATH --dataset {dataset} --contract {present}",
        )
    columns = tuple(c for c in entry.columns if c.split(".", 1)[1] in set(recipe_inputs))
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
        stored=tuple(one for one in store.episodes(dataset) if withheld is None or not withheld(one.meta)),
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
