# SPDX-License-Identifier: Apache-2.0
"""Files that hold the broker's secrets, and how any of its files is replaced.

- A secret file has mode 0600 before its first byte is written; it is read only if it is a regular file that
  nobody else may open.
- A file is replaced by writing a new one beside it, fsync, rename, fsync of the folder: after a crash there
  is the old or the new one, never half of it.
- A key file is never overwritten.

    KeyFileError            identity.key-file            unreadable, not a regular file
      KeyFileModeError      identity.key-file-mode       somebody else may read it
      KeyFileExistsError    identity.key-file-exists     a key is already there
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from policies.errors import IdentityError
from policies.identity import SigningKey

if TYPE_CHECKING:
    from pathlib import Path

    from policies.ports import Entropy

__all__ = [
    "KeyFileError",
    "KeyFileExistsError",
    "KeyFileModeError",
    "load_key",
    "make_key",
    "read_private",
    "replace_file",
    "write_private",
]

PRIVATE = 0o600
_OTHERS = 0o077
_SEED_BYTES = 32


class KeyFileError(IdentityError):
    """A key file is missing, unreadable or no regular file."""

    code = "identity.key-file"
    http_status = 500


class KeyFileModeError(KeyFileError):
    """A key file that group or others may read: the key counts as known to them."""

    code = "identity.key-file-mode"


class KeyFileExistsError(KeyFileError):
    """A key would have been overwritten."""

    code = "identity.key-file-exists"


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file whole or not at all; an existing one is replaced.

    Raises:
        OSError: The disk or the folder does not allow it; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # before the first byte, whatever the umask or a left-over file said
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_private(path: Path, data: bytes) -> None:
    """Writes a secret to a new file of mode 0600; makes its folder (mode 0700) if there is none.

    Raises:
        KeyFileExistsError: There is a file already.
        OSError: The disk or the folder does not allow it.
    """
    if path.exists() or path.is_symlink():
        raise KeyFileExistsError(
            need=f"no file at {path}", found="one", remedy="move it away if nobody needs its key any more"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, data, mode=PRIVATE)


def read_private(path: Path) -> bytes:
    """The bytes of a secret file.

    Raises:
        KeyFileModeError: Group or others may read or write it.
        KeyFileError: Missing, unreadable, a link or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(
            need=f"the key file {path}",
            found=error.strerror or "unreadable",
            remedy="run init, or restore the key",
        ) from error
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise KeyFileError(
            need=f"a regular file at {path}", found="another kind", remedy="put the key file there"
        )
    if mode & _OTHERS:
        raise KeyFileModeError(
            need=f"mode 0600 on {path}",
            found=f"{stat.S_IMODE(mode):04o}",
            remedy="chmod 600 it; if others had access, make a new key and revoke this one",
        )


def make_key(path: Path, entropy: Entropy) -> SigningKey:
    """A fresh Ed25519 key, already safe on disk.

    Raises:
        KeyFileExistsError: There is a file already.
    """
    key = SigningKey.from_seed(entropy.token_bytes(_SEED_BYTES))
    write_private(path, key.to_pem())
    return key


def load_key(path: Path) -> SigningKey:
    """The Ed25519 key in a file.

    Raises:
        KeyFileModeError: Group or others may read it.
        KeyFileError: Missing or unreadable.
        WeakKeyError: The file holds something else.
    """
    return SigningKey.from_pem(read_private(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
