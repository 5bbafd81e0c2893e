# SPDX-License-Identifier: Apache-2.0
"""Streams a data set from the store: one episode in memory at a time, in the order in which files lie.

What is read is compared with the digest of the episode's own row, so that a bit that changed on the disk is
found here and not in a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.errors import StoreDamagedError
from client.data.frames import Frames
from client.data.store import STAMPS, EpisodeMeta, StoredEpisode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from client.data.series import ClockKind

__all__ = ["stored_frames"]

_DATA_PATH: Final = "data/chunk-{:03d}/file-{:03d}.parquet"
_LABEL: Final = "label."
_VALUES: Final = ("observation.", "action.")


def stored_frames(folder: Path, episodes: Iterable[StoredEpisode]) -> Iterator[tuple[EpisodeMeta, Frames]]:
    """Every episode with its frames.

    Args:
        folder: Of the data set's generation.
        episodes: Its rows; they may come in any order.

    Raises:
        StoreDamagedError: Rows that are not where the index says, or not what was imported.
    """
    files: dict[tuple[int, int], list[StoredEpisode]] = {}
    for episode in episodes:
        files.setdefault((episode.chunk, episode.file), []).append(episode)
    for (chunk, file), rows in sorted(files.items()):
        path = folder / _DATA_PATH.format(chunk, file)
        try:
            with pq.ParquetFile(path) as opened:
                yield from _file(opened, sorted(rows, key=lambda one: one.start))
        except (OSError, pa.ArrowException) as error:
            raise _damaged(f"{path.name}: {type(error).__name__}") from error


def _file(opened: pq.ParquetFile, episodes: list[StoredEpisode]) -> Iterator[tuple[EpisodeMeta, Frames]]:
    sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
    ends = np.cumsum(sizes)
    first = _first_row(opened) if sizes else 0
    for episode in episodes:
        at = episode.start - first
        group, last = (
            int(np.searchsorted(ends, row, side="right")) for row in (at, at + episode.meta.length - 1)
        )
        if at < 0 or last >= len(sizes):
            raise _damaged("an episode that is not where the index says")
        table = opened.read_row_groups(list(range(group, last + 1)), use_threads=False)
        rows = table.slice(at - int(ends[group] - sizes[group]), episode.meta.length)
        if rows["index"][0].as_py() != episode.start:
            raise _damaged("an episode that is not where the index says")
        frames = _frames(rows, episode.meta)
        if frames.digest != episode.meta.digest:
            raise _damaged("an episode with other values than were imported")
        yield episode.meta, frames


def _first_row(opened: pq.ParquetFile) -> int:
    first = opened.read_row_group(0, columns=["index"], use_threads=False)["index"][0].as_py()
    return int(first)


def _frames(rows: pa.Table, meta: EpisodeMeta) -> Frames:
    columns, labels = {}, {}
    for name in rows.column_names:
        if name.startswith(_LABEL):
            labels[name.removeprefix(_LABEL)] = rows[name].to_numpy().astype(np.int8)
        elif name.startswith(_VALUES) and name != STAMPS:
            flat = rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            columns[name] = flat.reshape(meta.length, -1).astype(np.float32)
    missing = np.all([np.isnan(values).all(axis=1) for values in columns.values()], axis=0)
    return Frames(
        columns=columns,
        labels=labels,
        stamps_ns=rows[STAMPS].to_numpy(),
        clock=cast("ClockKind", meta.clock),
        content=meta.content,
        missing_rows=int(missing.sum()),
    )


def _damaged(found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="the episodes as they were imported",
        found=found,
        remedy="restore the store from a backup, or import again into a fresh one",
    )
