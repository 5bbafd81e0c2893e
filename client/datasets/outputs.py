# SPDX-License-Identifier: Apache-2.0
"""Where a command writes what it was asked for: looked at before any work is done, refused by name.

check_out(page)                        # before
with writing(page):                    # while
    page.write_text(text)
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from client.data.errors import FileInvalidError
from client.errors import FileTakenError, NoSuchThingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_out", "writing"]


def check_out(path: Path, *, new: bool = False) -> None:
    """Refuses a file, or a new folder, that cannot be made at this path.

    Args:
        path: What will be written.
        new: Whether nothing may be there yet.

    Raises:
        NoSuchThingError: The folder that it lies in is not there.
        FileTakenError: Something is there that would be written over.
    """
    if not path.parent.is_dir():
        raise NoSuchThingError(
            need=f"the folder of {path.name}",
            found=f"{path.parent}: nothing",
            remedy=f"mkdir -p {path.parent}",
        )
    if path.is_dir() or (new and path.exists()):
        raise FileTakenError(
            need="a file that is not there yet" if new else "a file",
            found=f"{path}: {'a folder' if path.is_dir() else 'something'}",
            remedy="choose another name: nothing is written over",
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a refusal.

    Raises:
        FileInvalidError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise FileInvalidError(
            need="a file that can be written",
            found=f"{path}: {error.strerror}",
            remedy="choose another folder",
        ) from error
