# SPDX-License-Identifier: Apache-2.0
"""``data export``: a data set in the form that the field's own tools read, for its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.answers import Answer
from client.datasets.outputs import check_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from client.settings import Home

__all__ = ["data_export"]


def data_export(home: Home, dataset: str, out: Path, *, private: bool = False) -> Answer:
    """Writes a LeRobotDataset v3.0 folder, statistics included.

    Raises:
        DatasetUnknownError: No such data set.
        NoSuchThingError: The folder for it is not there.
        FileInvalidError: Something is at ``out``, or every column is private.
    """
    from client.data import export_lerobot

    if not out.exists():  # what is there is refused below
        check_out(out)
    report = export_lerobot(home.data, dataset, out, private=private)
    return Answer(
        data={
            "dataset_id": dataset,
            "folder": str(out),
            "episodes": report.episodes,
            "frames": report.frames,
            "features": list(report.features),
            "left_out": list(report.left_out),
        },
        text=(
            f"{out}: {report.episodes} episodes, {report.frames} frames, LeRobotDataset v3.0",
            *_left(report.left_out),
            "it holds exact extremes of the process: not for passing on",
        ),
    )


def _left(columns: Sequence[str]) -> Iterator[str]:
    if columns:
        yield f"left out   {', '.join(columns)}: this site keeps them to itself; --private writes them too"
