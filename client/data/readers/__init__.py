# SPDX-License-Identifier: Apache-2.0
"""Readers, one per format. `claimed` finds the one that reads a path; exactly one must claim it.

What `all_readers` gives stands behind the boundary of `client.data.readers.foreign`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.data.errors import FileInvalidError, FormatAmbiguousError, FormatUnknownError
from client.data.readers.foreign import Foreign, parsing
from client.data.readers.lerobot import LeRobotReader
from client.data.readers.mcap import McapReader
from client.data.readers.mtconnect import MtconnectReader
from client.data.readers.robomimic import RobomimicReader
from client.data.readers.rosbag import RosbagReader
from client.data.readers.table import TableReader

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.series import Reader

__all__ = [
    "LeRobotReader",
    "McapReader",
    "MtconnectReader",
    "RobomimicReader",
    "RosbagReader",
    "TableReader",
    "all_readers",
    "claimed",
]


def all_readers() -> tuple[Reader, ...]:
    """Every reader of this version."""
    formats = (
        LeRobotReader(),
        RosbagReader(),
        McapReader(),
        RobomimicReader(),
        TableReader(),
        MtconnectReader(),
    )
    return tuple(Foreign(one) for one in formats)


def claimed(path: Path, *, chosen: str | None = None) -> Reader:
    """The reader of a path; ``chosen`` names one where two claim it.

    Raises:
        FileInvalidError: The path does not exist.
        FormatUnknownError: None claims it.
        FormatAmbiguousError: Two claim it and none was chosen.
    """
    with parsing(path):
        there = path.exists()
    if not there:
        raise FileInvalidError(need="a file or folder", found=f"nothing at {path}", remedy="check the path")
    names = " ".join(reader.name for reader in all_readers())
    found = [reader for reader in all_readers() if reader.claims(path) and chosen in (None, reader.name)]
    if not found:
        raise FormatUnknownError(
            need=f"one of the formats {names}",
            found=f"{path.name}: another" + (f", or not {ascii(chosen)[:20]}" if chosen else ""),
            remedy="convert it as the documentation says",
        )
    if len(found) > 1:
        raise FormatAmbiguousError(
            need="one format",
            found=" and ".join(reader.name for reader in found),
            remedy="choose with --format, or import the inner path",
        )
    return found[0]
