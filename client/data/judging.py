# SPDX-License-Identifier: Apache-2.0
"""A person leaves out an episode, or takes it back: for itself, by name and time, before the data are used.

- The word ``person`` stands among the checks that exclude an episode (`EpisodeMeta.excluded`): training,
  judging, describing and planning leave it out as they leave out one that failed a check. Taking it back
  undoes the person's word and no check's.
- Before the first use of the lineage only. Afterwards which episodes there are would depend on what a person
  saw of the others and of the models: the privacy claim counts each unit by itself (``data.sealed``).
- What was said is kept beside the data set, ``<root>/quality/<data set>/left-out.json``, before the store
  changes. `renew` says it again of episodes that were removed and came back, and finishes what was killed.

    leave_out(root, "kita/pick", ["ep_4yktz2naddzown2k"], out=True, by="A. Sato", clock=clock, is_sealed=...)
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from client.data.durable import remove
from client.data.episodes import EpisodeMeta, StoredEpisode, read_episodes, write_episodes
from client.data.errors import DataError, EpisodeUnknownError, SealedError, StoreDamagedError
from client.data.generations import DATA, link_files, switch
from client.data.layout import EPISODES, METAS, PRIVATE
from client.data.quality.accepted import folder_of
from client.data.store import Store
from client.settings import write_durably
from policies.encoding import canonical
from policies.ports import Clock, iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = ["PERSON", "judgements", "leave_out", "named", "renew"]

PERSON: Final = "person"
_NAME_CHARS: Final = 100


def named(by: str) -> str:
    """The name of a person, as it is kept.

    Raises:
        DataError: None, or too long a one.
    """
    name = by.strip()
    if not name or len(name) > _NAME_CHARS:
        raise DataError(
            need="the name of who looked", found="none, or too long a one", remedy="name a person with --by"
        )
    return name


def leave_out(
    root: Path,
    dataset: str,
    episode_ids: Collection[str],
    *,
    out: bool,
    by: str,
    clock: Clock,
    is_sealed: Callable[[str], bool],
) -> tuple[EpisodeMeta, ...]:
    """Leaves episodes out, or takes them back; safe to repeat.

    Args:
        root: Folder of the store.
        dataset: Its name.
        episode_ids: Of the episodes.
        out: Whether they are left out.
        by: Who says so.
        clock: When.
        is_sealed: Whether a lineage was used already: a budget was opened, or a run was allowed.

    Returns:
        The episodes as they stand now.

    Raises:
        DatasetUnknownError: No such data set.
        EpisodeUnknownError: It has no such episode; then none is changed.
        SealedError: The data were used already.
        DataError: Nobody is named.
    """
    name, wanted, store = named(by), set(episode_ids), Store(root)
    with store.locked():
        entry = store.catalogue().dataset(dataset)
        before = read_episodes(store.folder(dataset, entry))
        unknown = sorted(wanted - {one.meta.episode_id for one in before})
        if unknown:
            raise EpisodeUnknownError(
                need=f"an episode of {dataset}",
                found=ascii(unknown[0])[:40],
                remedy=f"iriai-node data show {dataset}",
            )
        after = [_said(one, out=out) if one.meta.episode_id in wanted else one for one in before]
        if after != before:
            if is_sealed(entry.lineage):
                raise SealedError(
                    need="a choice of episodes before the first use of the data",
                    found="data that a run used, or whose budget is open",
                    remedy="go on with the episodes as they are; new recordings open a new block",
                )
            _note(root, dataset, wanted, {"out": out, "by": name, "at": iso_s(clock.now_ms())})
            _write(store, dataset, after)
    return tuple(one.meta for one in after if one.meta.episode_id in wanted)


def renew(root: Path, dataset: str) -> int:
    """Leaves out again what a person left out and an import brought back; gives how many those were.

    Raises:
        DatasetUnknownError: No such data set.
        StoreDamagedError: The note is not what `leave_out` writes.
    """
    said, store = judgements(root, dataset), Store(root)
    if not any(one["out"] for one in said.values()):
        return 0
    with store.locked():
        before = read_episodes(store.folder(dataset, store.catalogue().dataset(dataset)))
        after = [
            _said(one, out=bool(said[one.meta.episode_id]["out"])) if one.meta.episode_id in said else one
            for one in before
        ]
        if after != before:
            _write(store, dataset, after)
    return sum(old != new for old, new in zip(before, after, strict=True))


def judgements(root: Path, dataset: str) -> dict[str, dict[str, Any]]:
    """What was said last of each episode: ``out``, ``by``, ``at``.

    Raises:
        StoreDamagedError: The note is not what `leave_out` writes.
    """
    path = folder_of(root, dataset) / "left-out.json"
    try:
        return {str(row["episode"]): {key: row[key] for key in ("out", "by", "at")} for row in _rows(path)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreDamagedError(
            need="what was said of episodes, as it was written",
            found=f"{path.name}: {type(error).__name__}",
            remedy="restore the file from a backup, or remove it and say it again",
        ) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_bytes()) if path.exists() else []
    return found


def _note(root: Path, dataset: str, wanted: set[str], said: Mapping[str, Any]) -> None:
    judgements(root, dataset)  # a damaged note is never written over
    path = folder_of(root, dataset) / "left-out.json"
    new = [{"episode": one, **said} for one in sorted(wanted)]
    write_durably(path, canonical([*_rows(path), *new]))


def _said(episode: StoredEpisode, *, out: bool) -> StoredEpisode:
    words = [one for one in episode.meta.excluded.split(",") if one and one != PERSON]
    excluded = ",".join([*words, PERSON] if out else words)
    return replace(episode, meta=replace(episode.meta, excluded=excluded))


def _write(store: Store, dataset: str, episodes: list[StoredEpisode]) -> None:
    """One new generation; its frames are those of the one before. Call inside `Store.locked`."""
    catalogue = store.catalogue()
    entry = catalogue.dataset(dataset)
    folder = store.folder(dataset, entry)
    aside = folder.parent.with_name(f".new-{folder.parent.name}")
    remove(aside)
    linked = link_files(folder, aside, (*DATA, "meta/*.*", "iriai/embodiment.json", PRIVATE))
    for table in (EPISODES, METAS):
        (aside / table).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_episodes(aside, episodes)
    new = replace(entry, generation=entry.generation + 1)
    switch(store, dataset, aside=aside, entry=new, catalogue=catalogue, linked=linked)
