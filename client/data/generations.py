# SPDX-License-Identifier: Apache-2.0
"""From one generation of a data set to the next: files are linked, then one rename and one replace.

    linked = link_files(old, aside, DATA)     # of the generation before; never changed again
    ...                                       # what is new is written into aside
    switch(store, name, aside=aside, entry=entry, catalogue=catalogue, linked=linked)

A process that dies before `switch` has replaced the catalogue leaves the generation before in force.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from client.data.durable import FULL, remove, replace_file, sync, sync_tree
from client.data.markfiles import remove_unnamed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from client.data.catalogue import Catalogue, Dataset
    from client.data.store import Store

__all__ = ["DATA", "link_files", "switch"]

DATA: Final = ("data/*/*.parquet", "iriai/signalmaps/*.toml")


def link_files(folder: Path, aside: Path, patterns: Sequence[str]) -> set[Path]:
    """Brings files of a generation over; returns those that are durable already.

    Raises:
        OSError: The disk is full.
    """
    linked: set[Path] = set()
    for source in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        target = aside / source.relative_to(folder)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
            linked.add(target)
        except OSError as error:
            if error.errno in FULL:
                raise
            shutil.copyfile(source, target)  # a file system without links
    return linked


def switch(
    store: Store, name: str, *, aside: Path, entry: Dataset, catalogue: Catalogue, linked: Collection[Path]
) -> None:
    """Makes a generation durable and lets the catalogue name it; the one before the last goes.

    Args:
        store: Locked.
        name: Data set.
        aside: Folder of the new generation, whole.
        entry: What the catalogue says of it.
        catalogue: With its new blocks, if any.
        linked: Files that are durable already.
    """
    sync_tree(aside, linked)
    target = store.folder(name, entry)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)  # left by a process that died between the two renames
    aside.replace(target)
    sync(target.parent)
    sync(target.parent.parent)
    replace_file(store.root / "catalogue.json", catalogue.with_dataset(name, entry).to_bytes())
    remove_unnamed(store.root, catalogue)
    for old in sorted(target.parent.iterdir()):
        if old.name < f"{entry.generation - 1:06d}":
            remove(old)
