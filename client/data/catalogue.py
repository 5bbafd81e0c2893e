# SPDX-License-Identifier: Apache-2.0
"""The store's one truth: its data sets, the files that are theirs, and the lineage of every episode.

- Budget belongs to data, not to the name of a data set. A lineage is opened by the first import of some
  episodes; a copy under another name, with other labels, stamps or fewer fields, or cut from a file that was
  imported before, inherits it.
- The same rows of a file are never episodes twice: cut otherwise, they are refused, and so are frames that
  another episode has (`client.data.marks`). One recording is one unit, whatever file or cut it comes in.
- New units open a new block of the lineage, one per split. Blocks are disjoint. A unit stays in its block:
  episodes that come later with its key join it, and its split, because what was spent on it was spent there.
- Lineages stay when a data set is removed. So does what is known of who acted (`Act`): episodes of a model
  do not become a person's because they are brought again by a file that does not say so.
- Until an episode was first brought under a contract or consent it is ``unbound``: nothing could be spent on
  it, so it may be forgotten (client.data.forgetting). With its first right it is bound for good.
- The lineage of given episodes is the same on every import with one node key, so that it survives the loss of
  the store.

`Catalogue` is a value: methods return changed copies; `client.data.store` writes them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from client.data.errors import DatasetUnknownError, LineageMixedError, MapInvalidError, StoreDamagedError
from client.data.marks import MarkIndex
from client.data.places import RowIndex, Rows
from policies.encoding import canonical, new_id, parse
from policies.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from client.data.episodes import EpisodeMeta
    from client.data.marks import Runs
    from client.data.series import Split

__all__ = ["Act", "Block", "Catalogue", "Dataset", "Index", "Known", "check_dataset_name", "lineage_id"]

_SCHEMA: Final = "iriai-store/1"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}(/[a-z0-9][a-z0-9_.-]{0,39})?")
# content digest, place in the source, unit if it has a key, marks in a store of an earlier version
EpisodeKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One data set: current generation of files, and what every episode of it has.

    ``rights`` are those of any of its episodes; which an episode has is in its own row (`EpisodeMeta`).
    """

    generation: int
    lineage: str
    rights: tuple[str, ...]
    columns: Mapping[str, int]
    labels: tuple[str, ...]
    rate_hz: str
    embodiment: Mapping[str, Any] | None
    unit: str = "episode"
    private: tuple[str, ...] = ()  # columns that only `personalise` opens

    def as_dict(self) -> dict[str, Any]:
        """JSON value; ``private`` is there where it says something, as in stores of earlier versions."""
        return {
            "generation": self.generation,
            "lineage": self.lineage,
            "rights": list(self.rights),
            "columns": dict(self.columns),
            "labels": list(self.labels),
            "rate_hz": self.rate_hz,
            "embodiment": None if self.embodiment is None else dict(self.embodiment),
            "unit": self.unit,
            **({"private": list(self.private)} if self.private else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Dataset:
        """The entry behind its JSON value."""
        private = tuple(value.get("private", ()))
        lists = {"rights": tuple(value["rights"]), "labels": tuple(value["labels"]), "private": private}
        return cls(**{**value, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Episodes of one split whose units came in together: content, file digest:rows, unit, marks of each."""

    block: int
    split: Split
    opened: str
    episodes: tuple[EpisodeKey, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON value."""
        rows = [list(key) for key in self.episodes]
        return {"block": self.block, "split": self.split, "opened": self.opened, "episodes": rows}


@dataclass(frozen=True, slots=True)
class Act:
    """That a model acted in an episode, which, and what a person of this site said of its end."""

    model: str
    outcome: str
    outcome_by: str


@dataclass(frozen=True, slots=True)
class Known:
    """Where an episode or unit was seen before; ``unit`` is empty where each episode is its own.

    ``content`` and ``place`` are those of its first import.
    """

    lineage: str
    block: int
    split: Split
    unit: str = ""
    content: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What was seen before: by content, place in a source, unit with a key; lineages by file; rows, marks."""

    by_content: dict[str, Known] = field(default_factory=dict)
    by_place: dict[str, Known] = field(default_factory=dict)
    by_unit: dict[str, Known] = field(default_factory=dict)
    by_file: dict[str, set[str]] = field(default_factory=dict)
    rows: RowIndex = field(default_factory=RowIndex)
    marks: MarkIndex = field(default_factory=MarkIndex)

    def take(self, place: str, marks: str) -> None:
        """Notes the rows and frames of an episode."""
        self.rows.add(Rows.read(place))
        self.marks.add(marks)

    def is_taken(self, place: str, runs: Runs) -> bool:
        """Whether rows or frames of an episode are in others, cut or saved otherwise."""
        return self.rows.overlaps(Rows.read(place)) or self.marks.knows(runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The whole catalogue."""

    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    lineages: Mapping[str, tuple[Block, ...]] = field(default_factory=dict)
    acts: Mapping[str, Act] = field(default_factory=dict)  # by content digest
    marks: tuple[str, ...] = ()  # files of client.data.markfiles
    unbound: Mapping[str, str] = field(default_factory=dict)  # content to seal: never had a right

    def dataset(self, name: str) -> Dataset:
        """The entry of a data set.

        Raises:
            DatasetUnknownError: There is none.
        """
        if name not in self.datasets:
            raise DatasetUnknownError(
                need=f"data set {ascii(name)[:90]}",
                found=", ".join(sorted(self.datasets)) or "an empty store",
                remedy="iriai-node data add PATH --dataset NAME",
            )
        return self.datasets[name]

    def index(self) -> Index:
        """What was seen before."""
        index = Index()
        for lineage, blocks in self.lineages.items():
            for block in blocks:
                for content, place, unit, marks in block.episodes:
                    known = Known(lineage, block.block, block.split, unit, content, place)
                    index.by_content[content] = known
                    index.by_place.setdefault(place, known)
                    index.take(place, marks)
                    index.by_file.setdefault(place.split(":", 1)[0], set()).add(lineage)
                    if unit:
                        index.by_unit[unit] = known
        return index

    def named(self, lineages: Iterable[str]) -> str:
        """The data sets of these lineages with their units, in words; a lineage's name where it has none."""
        found = []
        for lineage in sorted(lineages):
            mine = [
                f"{name} (unit {one.unit})" for name, one in self.datasets.items() if one.lineage == lineage
            ]
            found += sorted(mine) or [lineage]
        return ", ".join(found)

    def with_blocks(
        self,
        lineage: str,
        new: Mapping[Split, Iterable[EpisodeKey]],
        opened: str,
        *,
        joining: Mapping[int, Iterable[EpisodeKey]],
    ) -> Catalogue:
        """The catalogue with new episodes of known units, and one more block per split that has new units."""
        blocks = [
            replace(block, episodes=(*block.episodes, *joining.get(block.block, ())))
            for block in self.lineages.get(lineage, ())
        ]
        for split, episodes in sorted(new.items()):
            rows = tuple(episodes)
            if rows:
                blocks.append(Block(block=len(blocks) + 1, split=split, opened=opened, episodes=rows))
        return replace(self, lineages={**self.lineages, lineage: tuple(blocks)})

    def with_acts(self, metas: Iterable[EpisodeMeta]) -> Catalogue:
        """The catalogue that remembers in which of these episodes a model acted."""
        new = {
            one.content: Act(one.model, one.outcome, one.outcome_by)
            for one in metas
            if one.source_kind == "deployed"
        }
        return replace(self, acts={**self.acts, **new}) if new else self

    def with_unbound(self, seals: Mapping[str, str]) -> Catalogue:
        """The catalogue that remembers of new episodes that they have no right."""
        return replace(self, unbound={**self.unbound, **seals}) if seals else self

    def bound_to(self, metas: Iterable[EpisodeMeta]) -> Catalogue:
        """The catalogue in which those of these episodes that have a right are bound, for good."""
        if not self.unbound:
            return self
        mine = [one for one in metas if any(one.rights)]
        contents = {one.content for one in mine}
        places = {str(Rows(one.file_sha256, one.first_row, one.last_row)) for one in mine}
        bound = {content for _, (content, place, *_) in self.rows() if content in contents or place in places}
        return replace(self, unbound={one: seal for one, seal in self.unbound.items() if one not in bound})

    def rows(self) -> Iterator[tuple[str, EpisodeKey]]:
        """Every episode that was ever seen, with its lineage."""
        for lineage, blocks in self.lineages.items():
            for block in blocks:
                for key in block.episodes:
                    yield lineage, key

    def without_rows(self, contents: Collection[str]) -> Catalogue:
        """The catalogue without these episodes, and without lineages that have none left and no data set.

        Blocks that are left empty stay: numbers of blocks are never used again.
        """
        used = {one.lineage for one in self.datasets.values()}
        left = {
            name: tuple(
                replace(one, episodes=tuple(key for key in one.episodes if key[0] not in contents))
                for one in blocks
            )
            for name, blocks in self.lineages.items()
        }
        kept = {
            name: blocks
            for name, blocks in left.items()
            if name in used or any(one.episodes for one in blocks)
        }
        unbound = {one: seal for one, seal in self.unbound.items() if one not in contents}
        return replace(self, lineages=kept, unbound=unbound)

    def with_dataset(self, name: str, entry: Dataset) -> Catalogue:
        """The catalogue with a data set added or replaced."""
        return replace(self, datasets={**self.datasets, name: entry})

    def without_dataset(self, name: str) -> Catalogue:
        """The catalogue without a data set; its lineage stays."""
        return replace(self, datasets={key: value for key, value in self.datasets.items() if key != name})

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return canonical(
            {
                "schema": _SCHEMA,
                "datasets": {name: entry.as_dict() for name, entry in self.datasets.items()},
                "lineages": {
                    name: [block.as_dict() for block in blocks] for name, blocks in self.lineages.items()
                },
                **(
                    {"acts": {one: list(astuple(act)) for one, act in self.acts.items()}} if self.acts else {}
                ),
                **({"marks": list(self.marks)} if self.marks else {}),
                **({"unbound": dict(self.unbound)} if self.unbound else {}),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Catalogue:
        """The catalogue behind its bytes.

        Raises:
            StoreDamagedError: They are not what `to_bytes` writes.
        """
        try:
            document = parse(data)
            if document["schema"] != _SCHEMA:
                raise _damaged("another schema")
            datasets = {name: Dataset.from_dict(entry) for name, entry in document["datasets"].items()}
            lineages = {
                name: tuple(_block(row) for row in rows) for name, rows in document["lineages"].items()
            }
            acts = {str(one): Act(*map(str, row)) for one, row in document.get("acts", {}).items()}
            marks = tuple(map(str, document.get("marks", ())))
            unbound = {str(one): str(seal) for one, seal in document.get("unbound", {}).items()}
        except (EncodingError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(type(error).__name__) from error
        return cls(datasets=datasets, lineages=lineages, acts=acts, marks=marks, unbound=unbound)


def _block(row: Mapping[str, Any]) -> Block:
    # rows of stores of earlier versions are shorter: two without a unit's key, three without marks
    episodes = tuple(_episode_key(*one) for one in row["episodes"])
    split: Literal["train", "held-out"] = "train" if row["split"] == "train" else "held-out"
    return Block(block=row["block"], split=split, opened=row["opened"], episodes=episodes)


def _episode_key(content: str, place: str, unit: str = "", marks: str = "") -> EpisodeKey:
    return str(content), str(Rows.read(place)), str(unit), str(marks)


def _damaged(found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="the catalogue as it was written",
        found=found,
        remedy="restore catalogue.json of the store from a backup",
    )


def check_dataset_name(name: str) -> str:
    """The name, if a data set may have it: ``kita/pick``, lower case.

    Raises:
        MapInvalidError: It may not.
    """
    if not _NAME.fullmatch(name):
        raise MapInvalidError(
            need="a data set name of lower-case letters, digits, _ . - and at most one /",
            found=ascii(name)[:90],
            remedy="choose another --dataset",
        )
    return name


def lineage_id(node_key: bytes, contents: Iterable[str]) -> str:
    """Name of the lineage that these episodes open: ``lin_`` and base32 of 80 bits under the node's key."""
    return new_id("lin", keyed(node_key, "iriai-lineage/1", "\n".join(sorted(contents)).encode("ascii"))[:10])


def keyed(node_key: bytes, purpose: str, data: bytes) -> bytes:
    """HMAC-SHA256 under the node's key, for one purpose, 32 bytes."""
    return hmac.new(node_key, purpose.encode("ascii") + b"\0" + data, hashlib.sha256).digest()


def episode_id(node_key: bytes, digest: str) -> str:
    """Name of an episode, ``ep_`` and base32 of 80 bits. It never leaves the site."""
    return new_id("ep", keyed(node_key, "iriai-episode/1", bytes.fromhex(digest))[:10])


def one_lineage(touched: set[str], current: str | None) -> str | None:
    """The one lineage of an import, None if it opens a new one.

    Raises:
        LineageMixedError: More than one.
    """
    found = touched | ({current} if current else set())
    if len(found) > 1:
        raise LineageMixedError(
            need="episodes of one lineage in a data set",
            found="episodes that already belong to " + " and ".join(sorted(found)),
            remedy="import them into a data set of their own",
        )
    return next(iter(found), None)
