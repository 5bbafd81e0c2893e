# SPDX-License-Identifier: Apache-2.0
"""The canonical episode store: LeRobotDataset v3.0 folders without statistics, switched over by one rename.

    <root>/catalogue.json                       the one truth (client.data.catalogue)
    <root>/marks/<SHA-256>.episodes.bin         by which recordings are known again (client.data.markfiles)
    <root>/datasets/kita+pick/000003/           generation 3 of data set kita/pick
        meta/info.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
        data/chunk-000/file-000.parquet         a column per field, stamps, labels; a row group per episode
        iriai/episodes.parquet                  EpisodeMeta, one row per episode
        iriai/embodiment.json  iriai/signalmaps/<12 hex>.toml  iriai/private.json where columns stay here
    <root>/datasets/.new-kita+pick[~journal]    an import that is under way, or was killed

- A generation is written aside, made durable (fsync), renamed into its place, and only then named by
  ``catalogue.json``, which is replaced in one step. A process that dies anywhere before leaves the store as
  it was; anywhere after, as it should be.
- The next import of the same source by the same rules goes on where a killed one was (client.data.draft);
  any other removes what that left lying about. A refusal leaves nothing.
- Files of an older generation are never changed; a new one links them.
- A reader that opened a generation keeps it through the next import: the one before the current is kept.
- A data set that is removed is out of the catalogue first; its lineage, blocks and budget stay, but for
  episodes that nobody could have used (client.data.forgetting).
- Equal imports give equal bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from client.data.catalogue import Catalogue, Dataset, check_dataset_name
from client.data.draft import Draft
from client.data.durable import FULL, open_own, remove, replace_file, sync
from client.data.episodes import EpisodeMeta, StoredEpisode, read_episodes, write_episodes
from client.data.errors import DatasetInUseError, EpisodeUnknownError, StorageFullError, StoreDamagedError
from client.data.generations import DATA, link_files, switch
from client.data.journal import Journal
from client.data.layout import EPISODES, METAS, PRIVATE, STAMPS
from client.data.markfiles import remove_unnamed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from client.data.forgetting import Forgetting
    from client.data.signalmap import SignalMap

__all__ = ["STAMPS", "Draft", "EpisodeMeta", "Outcome", "Store", "StoredEpisode"]

Outcome = Literal["success", "fail", "unknown"]


class Store:
    """The store in a folder. Reading needs no lock; `locked` is for imports and removals."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def catalogue(self) -> Catalogue:
        """The catalogue as of now; empty if nothing was ever imported.

        Raises:
            StoreDamagedError: It is not what was written.
        """
        path = self.root / "catalogue.json"
        return Catalogue.from_bytes(path.read_bytes()) if path.exists() else Catalogue()

    def folder(self, name: str, entry: Dataset) -> Path:
        """The folder of a data set's current generation."""
        return self._home(name) / f"{entry.generation:06d}"

    def episodes(self, name: str) -> list[StoredEpisode]:
        """All episodes of a data set, excluded ones too, in the order of import.

        Raises:
            DatasetUnknownError: No such data set.
            StoreDamagedError: Files that the catalogue names are missing or damaged.
        """
        return read_episodes(self.folder(name, self.catalogue().dataset(name)))

    def remove(
        self, name: str, *, used_by: Collection[str] = (), forgetting: Forgetting | None = None
    ) -> bool:
        """Removes a data set with all its files; a second call finishes one that was killed.

        Its lineage stays, with the blocks of its episodes and what was spent on them: brought again, they
        are the same units.

        Args:
            name: Data set.
            used_by: Runs that train on it now, as far as the caller knows.
            forgetting: What may be forgotten; nothing is without it.

        Returns:
            Whether there was such a data set, or files of one.

        Raises:
            DatasetInUseError: A run uses it.
            StoreDamagedError: Something is to be forgotten, and a file of marks is missing or changed.
            MapInvalidError: The name is none.
        """
        home, aside = self._home(check_dataset_name(name)), self._aside(name)
        if used_by:
            raise DatasetInUseError(
                need=f"data set {name} used by no run",
                found="used by " + ", ".join(sorted(used_by)),
                remedy="wait until the run is over, or stop it: iriai-node runs stop RUN; then remove it",
            )
        with self.locked():
            catalogue = self.catalogue()
            there = name in catalogue.datasets or home.exists()
            if name in catalogue.datasets:
                left = catalogue.with_acts(self._metas(name, catalogue))
                if forgetting is not None:
                    left = forgetting.apply(self, name, left)
                left = left.without_dataset(name).without_rows(())
                replace_file(self.root / "catalogue.json", left.to_bytes())
                remove_unnamed(self.root, left)
            for path in (home, aside, _journal(aside)):
                remove(path)
            if there and home.parent.is_dir():
                sync(home.parent)
        return there

    def mark(self, name: str, outcome: Outcome, episode_ids: Collection[str]) -> tuple[EpisodeMeta, ...]:
        """What a person says of how episodes ended; their frames stay, in one new generation.

        Args:
            name: Data set.
            outcome: ``success`` makes actions of a model an example for others.
            episode_ids: Of the episodes, as `EpisodeMeta` has them.

        Returns:
            The episodes as they stand now. Saying the same again writes nothing.

        Raises:
            DatasetUnknownError: No such data set.
            EpisodeUnknownError: It has no such episode; then none is marked.
        """
        wanted = set(episode_ids)
        with self.locked():
            catalogue = self.catalogue()
            entry = catalogue.dataset(name)
            folder, aside = self.folder(name, entry), self._aside(name)
            episodes = read_episodes(folder)
            unknown = sorted(wanted - {one.meta.episode_id for one in episodes})
            if unknown:
                raise EpisodeUnknownError(
                    need=f"an episode of {name}", found=ascii(unknown[0])[:40], remedy="iriai-node data show"
                )
            marked = [
                replace(one, meta=replace(one.meta, outcome=outcome, outcome_by="person"))
                if one.meta.episode_id in wanted
                else one
                for one in episodes
            ]
            if marked != episodes:
                remove(aside)
                linked = link_files(folder, aside, (*DATA, "meta/*.*", "iriai/embodiment.json", PRIVATE))
                for table in (EPISODES, METAS):
                    (aside / table).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_episodes(aside, marked)
                new = replace(entry, generation=entry.generation + 1)
                told = catalogue.with_acts(one.meta for one in marked)
                switch(self, name, aside=aside, entry=new, catalogue=told, linked=linked)
        return tuple(one.meta for one in marked if one.meta.episode_id in wanted)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other imports out; turns a full disk into its own error.

        Raises:
            StorageFullError: The disk filled up inside.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_own(self.root / ".lock", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            if error.errno in FULL:
                raise StorageFullError(
                    need="space for the import",
                    found="a full disk",
                    remedy="free some space; nothing was changed",
                ) from error
            raise

    @contextmanager
    def draft(self, name: str, signals: SignalMap, *, rate_hz: str, key: str = "") -> Iterator[Draft]:
        """A new generation, thrown away unless `Draft.commit` is called. Call inside `locked`.

        Args:
            name: Data set.
            signals: The map.
            rate_hz: Of the data set, if this is its first import.
            key: Keyed digest of everything else that decides what is written, known to this node alone; an
                interrupted import with the same key, map and store is gone on with. Empty: none is, and none
                can be.
        """
        aside = self._aside(check_dataset_name(name))
        journal = Journal(_journal(aside), self._keyed(key), key.encode("ascii"))
        draft = Draft(self, name, aside, signals, rate_hz=rate_hz, journal=journal)
        kept = False
        try:
            yield draft
        except OSError as error:  # a disk or share that went away may come back; a full one needs the space
            kept = error.errno not in FULL
            raise
        except (KeyboardInterrupt, SystemExit):
            kept = True
            raise
        finally:
            draft.close()
            if not kept:
                draft.discard()

    def _metas(self, name: str, catalogue: Catalogue) -> list[EpisodeMeta]:
        """What is known of the episodes of a data set; nothing where its files are damaged."""
        try:
            return [one.meta for one in read_episodes(self.folder(name, catalogue.dataset(name)))]
        except StoreDamagedError:
            return []

    def _keyed(self, key: str) -> str:
        """The key together with the catalogue, on which splits, blocks and duplicates hang."""
        path = self.root / "catalogue.json"
        before = path.read_bytes() if path.exists() else b""
        return hashlib.sha256(key.encode("ascii") + b"\0" + before).hexdigest() if key else ""

    def _home(self, name: str) -> Path:
        return self.root / "datasets" / name.replace("/", "+")

    def _aside(self, name: str) -> Path:
        return self.root / "datasets" / f".new-{name.replace('/', '+')}"


def _journal(aside: Path) -> Path:
    return aside.with_name(aside.name + "~journal")  # no data set's name has such a sign
