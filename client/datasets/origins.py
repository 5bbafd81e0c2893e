# SPDX-License-Identifier: Apache-2.0
"""Where an episode came from, for its owner: file, rows, time. Noted at import; it never leaves.

``<root>/quality/<data set>/sources.json`` says under which name a file was read. A store has the digest of
each file and the rows of each episode; names of files may tell customers, so no descriptor and no
certificate has them. Without a note the digest's first digits stand for the name.

    keep_names(root, "kita/pick", {"5feceb66...": "cycle_07.csv"})
    origins(root, "kita/pick", metas)["ep_4yktz2naddzown2k"].words     # cycle_07.csv rows 813 to 1012
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from client.answers import plain
from client.data.quality.accepted import folder_of
from client.settings import write_durably
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from client.data.episodes import EpisodeMeta

__all__ = ["Origin", "keep_names", "names_of", "origin_of", "origins", "started"]

_NAME_CHARS: Final = 200
_DIGITS: Final = 12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """File and rows of an episode; rows count from 1 and ``last_row`` is one of them.

    ``length`` frames; where these are all rows from the first to the last, a frame has a row of its own.
    """

    file: str
    first_row: int
    last_row: int
    length: int

    @property
    def words(self) -> str:
        """For people."""
        return f"{plain(self.file)} rows {self.first_row} to {self.last_row}"

    def rows_of(self, first: int, last: int) -> tuple[int, int] | None:
        """Source rows of frames ``first`` to ``last`` (one past the end); None where nobody can tell."""
        if self.last_row - self.first_row + 1 != self.length or last <= first:
            return None
        return self.first_row + first, self.first_row + last - 1


def keep_names(root: Path, dataset: str, names: Mapping[str, str]) -> None:
    """Notes under which names files were read, SHA-256 to name; the first name of a file stands."""
    known = names_of(root, dataset)
    new = {one: name[:_NAME_CHARS] for one, name in names.items() if name and one not in known}
    if new:
        write_durably(folder_of(root, dataset) / "sources.json", canonical({**known, **new}))


def names_of(root: Path, dataset: str) -> dict[str, str]:
    """The names so far; none where the note is missing or cannot be read: it is a help, not a proof."""
    try:
        found: dict[str, Any] = json.loads((folder_of(root, dataset) / "sources.json").read_bytes())
        return {str(one): str(name) for one, name in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def origin_of(meta: EpisodeMeta, names: Mapping[str, str]) -> Origin:
    """Where one episode came from."""
    return Origin(
        file=names.get(meta.file_sha256) or f"sha256:{meta.file_sha256[:_DIGITS]}",
        first_row=meta.first_row + 1,
        last_row=meta.last_row,
        length=meta.length,
    )


def origins(root: Path, dataset: str, metas: Iterable[EpisodeMeta]) -> dict[str, Origin]:
    """Where the episodes of a data set came from, by their ids."""
    names = names_of(root, dataset)
    return {one.episode_id: origin_of(one, names) for one in metas}


def started(meta: EpisodeMeta) -> str:
    """When an episode began, in UTC to the second; empty where its stamps were made from a rate.

    Stamps of a controller may count from its start: those that lie near 1970 are no time of day.
    """
    if meta.start_ns is None or meta.start_ns < 0:
        return ""
    try:
        when = _EPOCH + timedelta(microseconds=meta.start_ns // 1000)
    except OverflowError:
        return ""
    return when.strftime("%Y-%m-%d %H:%M:%S") if when.year > _EPOCH.year else f"{meta.start_ns / 1e9:.3f} s"
