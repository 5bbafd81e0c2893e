# SPDX-License-Identifier: Apache-2.0
"""Who has rows or frames that an import brings again: data sets, file, rows, and what its owner can do.

- Rows are found by the catalogue, frames by the lists of marks; where neither tells (marks of a store of an
  earlier version), that is said.
- What a refusal tells are names of data sets and files, rows, and the map of the first import.

    holders = Holders(root, catalogue, node_key=key, is_sealed=..., names=...)
    found = holders.of(place, runs)
    words(found)                   # kita/pick (unit episode): a.csv rows 1 to 199
    remedy(found, "b.csv")
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from client.data.errors import StoreDamagedError
from client.data.forgetting import is_unbound
from client.data.markfiles import holders_of
from client.data.marks import packed, shared
from client.data.places import RowIndex, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from client.data.catalogue import Catalogue, EpisodeKey
    from client.data.episodes import EpisodeMeta
    from client.data.marks import Runs

__all__ = ["Holder", "Holders", "remedy", "words"]

_SHOWN: Final = 3
_DIGITS: Final = 12
_NAME_CHARS: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """An episode that has the rows or frames.

    Attributes:
        datasets: That hold it; none if these were removed, or if this import brings it.
        file: Name of its source file, or the first digits of that file's digest.
        rows: First and last, counted from 1.
        here: Whether this import brings it.
        unbound: Whether it may be forgotten with its data sets.
        maps: Files of the store with the map that it was imported by.
        unit: Unit of protection of these data sets.
    """

    datasets: tuple[str, ...]
    file: str
    rows: tuple[int, int]
    here: bool = False
    unbound: bool = False
    maps: tuple[str, ...] = ()
    unit: str = ""

    @property
    def source(self) -> str:
        """Where it came from, without its rows, for people."""
        if self.here:
            return f"this import: {self.file}"
        named = " and ".join(f"{one} (unit {self.unit})" for one in self.datasets)
        return f"{named or 'a data set that was removed'}: {self.file}"


class Holders:
    """Looks up who holds something; reads the store only when asked.

    Args:
        root: Folder of the store, locked.
        catalogue: Of it.
        node_key: Secret of this node.
        is_sealed: Whether the budget of a lineage was opened.
        names: Names of source files by data set, SHA-256 to name.
    """

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue,
        *,
        node_key: bytes,
        is_sealed: Callable[[str], bool],
        names: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._root, self._catalogue, self._key = root, catalogue, node_key
        self._is_sealed, self._names = is_sealed, names

    def of(self, place: str, runs: Runs, name: str) -> tuple[Holder, ...]:
        """Episodes of the store that have some of these rows, or of these frames.

        Args:
            place: Rows that come.
            runs: Their frames.
            name: Of their file.
        """
        wanted = Rows.read(place)
        index = RowIndex([wanted])
        contents = set(holders_of(self._root, self._catalogue, runs))
        return tuple(
            self._holder(lineage, key, {wanted.file: name})
            for lineage, key in self._catalogue.rows()
            if key[0] in contents or index.overlaps(Rows.read(key[1]))
        )

    @staticmethod
    def among(place: str, runs: Runs, fresh: Iterable[tuple[EpisodeMeta, str, str]]) -> tuple[Holder, ...]:
        """Episodes of the running import, each with its marks and the name of its file, that have some."""
        wanted = Rows.read(place)
        found = []
        for meta, marks, name in fresh:
            rows = Rows(meta.file_sha256, meta.first_row, meta.last_row)
            if RowIndex([rows]).overlaps(wanted) or (marks and shared(runs, packed([marks]))):
                found.append(Holder(datasets=(), file=_file(rows.file, name), rows=_span(rows), here=True))
        return tuple(found)

    def _holder(self, lineage: str, key: EpisodeKey, coming: Mapping[str, str]) -> Holder:
        content, place, *_ = key
        rows, names, datasets, maps = Rows.read(place), dict(coming), [], []
        for dataset, metas in self._stored.items():
            meta = next((one for one in metas if content == one.content or _place(one) == place), None)
            if meta is not None:
                datasets.append(dataset)
                names |= self._names(dataset)
                maps.append(self._map(dataset, meta))
        unbound = is_unbound(self._key, self._catalogue, lineage, key)
        return Holder(
            datasets=tuple(datasets),
            file=_file(rows.file, names.get(rows.file, "")),
            rows=_span(rows),
            unbound=unbound and content not in self._catalogue.acts and not self._is_sealed(lineage),
            maps=tuple(maps),
            unit=self._catalogue.dataset(datasets[0]).unit if datasets else "",
        )

    def _map(self, dataset: str, meta: EpisodeMeta) -> str:
        from client.data.store import Store

        folder = Store(self._root).folder(dataset, self._catalogue.dataset(dataset))
        return str(folder / f"iriai/signalmaps/{meta.signal_map.split(':')[-1][:_DIGITS]}.toml")

    @cached_property
    def _stored(self) -> dict[str, list[EpisodeMeta]]:
        from client.data.store import Store

        found = {}
        for dataset in sorted(self._catalogue.datasets):
            try:
                found[dataset] = [one.meta for one in Store(self._root).episodes(dataset)]
            except StoreDamagedError:  # a name less in a refusal
                continue
        return found


def words(found: Collection[Holder]) -> str:
    """Who they are, for people; the first few."""
    rows: dict[str, list[str]] = {}
    for one in found:
        rows.setdefault(one.source, []).append(f"{one.rows[0]} to {one.rows[1]}")
    told = [f"{source} rows {_some(spans)}" for source, spans in rows.items()]
    return _some(told) or "an episode that an earlier version imported"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def remedy(found: Collection[Holder]) -> str:
    """What the owner can do about it; each of these can be followed."""
    maps = sorted({one for holder in found for one in holder.maps})
    ways = []
    free = sorted({name for one in found for name in one.datasets})
    if free and all(one.unbound or one.here for one in found):
        gone = " && ".join(f"iriai-node data remove {name}" for name in free)
        ways.append(f"{gone}: nothing was ever trained on it, so its episodes are forgotten; then add this")
    ways.append("add it with --skip-known, which leaves out what is there in another cut or file")
    rule = f", --map {maps[0]}" if maps else ""
    ways.append(f"where only the cut differs, import it by the segment rule of its first import{rule}")
    return "; or ".join(ways)


def _place(meta: EpisodeMeta) -> str:
    return str(Rows(meta.file_sha256, meta.first_row, meta.last_row))


def _span(rows: Rows) -> tuple[int, int]:
    return rows.first + 1, rows.last


def _file(digest: str, name: str) -> str:
    return ascii(name)[1:-1][:_NAME_CHARS] if name else f"sha256:{digest[:_DIGITS]}"
