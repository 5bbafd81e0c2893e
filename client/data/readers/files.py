# SPDX-License-Identifier: Apache-2.0
"""What all readers check of a file before they trust a byte of it. Sources are opened read-only."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from client.data.errors import FileInvalidError, PointerFileError, TooLargeError
from policies.limits import SOURCE_CHANNELS, SOURCE_FILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_channels", "check_file", "read_bounded", "sha256_file"]

_POINTER: Final = b"version https://git-lfs"
_POINTER_BYTES: Final = 1024


def check_channels(count: int, where: str) -> None:
    """Refuses a source that lists more channels than anybody records, before they are listed here.

    Raises:
        TooLargeError: More than `SOURCE_CHANNELS`.
    """
    if count > SOURCE_CHANNELS:
        raise TooLargeError(
            need=f"at most {SOURCE_CHANNELS} channels",
            found=f"{where}: more",
            remedy="record fewer, or check the file",
        )


def check_file(path: Path, *, limit: int = SOURCE_FILE_BYTES) -> int:
    """Size in bytes of a file that holds data.

    Raises:
        FileInvalidError: Not a readable file.
        PointerFileError: A Git LFS pointer.
        TooLargeError: Beyond the bound.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise FileInvalidError(need="a file", found=f"{path.name}: not one", remedy="check the path")
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise FileInvalidError(
            need="a readable file",
            found=f"{path.name}: {error.strerror}",
            remedy="check path and permissions",
        ) from error
    if size < _POINTER_BYTES and head == _POINTER:
        raise PointerFileError(
            need="the data itself",
            found=f"{path.name}: a Git LFS pointer",
            remedy="git lfs pull, then import again",
        )
    if size > limit:
        raise TooLargeError(
            need=f"files of at most {limit} bytes",
            found=f"{path.name}: {size}",
            remedy="split the file",
        )
    return size


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a small file.

    Raises:
        TooLargeError: More than ``limit``.
        FileInvalidError: See `check_file`.
        PointerFileError: See `check_file`.
    """
    if check_file(path) > limit:
        raise TooLargeError(
            need=f"at most {limit} bytes", found=f"{path.name}: more", remedy="check the file"
        )
    return path.read_bytes()


def sha256_file(path: Path) -> str:
    """64 hex digits of the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
