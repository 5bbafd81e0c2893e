# SPDX-License-Identifier: Apache-2.0
"""Names and places of a LeRobotDataset v3.0 folder, as the store and the export write it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHUNKS_SIZE", "DATA_PATH", "EPISODES", "INDEX", "METAS", "PRIVATE", "STAMPS", "data_file", "info"]

CHUNKS_SIZE: Final = 1000
DATA_PATH: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES: Final = "meta/episodes/chunk-000/file-000.parquet"
METAS: Final = "iriai/episodes.parquet"
PRIVATE: Final = "iriai/private.json"  # columns that stay on the site, where there are some
INDEX: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STAMPS: Final = "observation.stamp_ns"


def data_file(chunk: int, file: int) -> PurePosixPath:
    """Place of a data file in its folder."""
    return PurePosixPath(DATA_PATH.format(chunk_index=chunk, file_index=file))


def info(
    *,
    features: Mapping[str, Mapping[str, Any]],
    robot_type: str,
    rate_hz: str,
    episodes: int,
    frames: int,
    tasks: int,
    file_mb: int,
) -> dict[str, Any]:
    """``meta/info.json``. ``features`` are those of the fields; stamps and index columns are added."""
    rate = float(rate_hz)
    listed = {key: dict(value) for key, value in features.items()}
    listed |= {
        name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        for name in INDEX
    }
    return {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": file_mb,
        "fps": int(rate) if rate.is_integer() else rate,
        "splits": {"all": f"0:{episodes}"},  # the split of an episode is in iriai/episodes.parquet
        "data_path": DATA_PATH,
        "video_path": None,
        "features": listed,
    }
