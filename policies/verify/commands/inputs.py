# SPDX-License-Identifier: Apache-2.0
"""Files that the auditor names: read within bounds, written once.

Only regular files are opened: a pipe or a device in a folder that somebody sent has no end. What is wrong
with one is told before a byte of the log is looked at, with exit 2.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from itertools import islice
from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.errors import IdentityError
from policies.identity import SigningKey
from policies.limits import BUNDLE_BYTES, BUNDLE_FILES, MODEL_BYTES
from policies.log.checkpoint import NOTE_BYTES
from policies.log.errors import PolicyError
from policies.log.policy import POLICY_BYTES, parse_policy
from policies.verify.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from policies.log.policy import Policy
    from policies.ports import Entropy

__all__ = [
    "check_absent",
    "read_bounded",
    "read_bundle",
    "read_key",
    "read_models",
    "read_policy",
    "read_receipts",
    "read_text",
    "read_vectors",
    "sync_folder",
    "write_new",
]

_HEX = re.compile(r"[0-9a-f]{64}\Z")
_KEY_BYTES = 4_096
_ZIP = b"PK"
_SEED_BYTES = 32
_RECEIPT_BYTES = NOTE_BYTES + 8 * 1024
_RECEIPTS_BYTES = 1024**3  # of all together; they are held in memory


def read_bundle(path: Path) -> Path:
    """The path of a bundle, which is read piece by piece.

    Raises:
        InputError: It is larger than any bundle, no file, or no archive at all.
        OSError: There is no such file.
    """
    found = path.stat()
    size = found.st_size
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(path)
    if size > BUNDLE_BYTES:
        raise InputError(
            need=f"a bundle of at most {BUNDLE_BYTES} bytes", found=str(size), remedy="check the path"
        )
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            raise InputError(
                need="a bundle, which is a ZIP archive",
                found=f"another kind of file, {ascii(path.name)[1:-1][-200:]}",
                remedy="check the path; ask for the bundle again",
            )
    return path


def _no_file(path: Path) -> InputError:
    return InputError(
        need="a regular file", found=ascii(str(path))[1:-1][-200:], remedy="take links, pipes and devices out"
    )


def read_bounded(path: Path, most: int) -> bytes:
    """Bytes of a regular file; never more than the bound is read.

    Raises:
        InputError: It is larger, or no regular file.
        OSError: It cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe waits for its writer
        raise _no_file(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        found = f"more in {ascii(path.name)[1:-1][-200:]}"
        raise InputError(need=f"a file of at most {most} bytes", found=found, remedy="check the path")
    return data


def read_text(path: Path, *, most: int = NOTE_BYTES + 8 * 1024) -> str:
    """UTF-8 text of a small file.

    Raises:
        InputError: It is larger, holds other bytes, or is no regular file.
    """
    try:
        return read_bounded(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(need="UTF-8 text", found="other bytes", remedy="check the path") from error


def read_policy(path: Path) -> Policy:
    """The auditor's own policy.

    Raises:
        PolicyError: It cannot be trusted as written.
        InputError: It is larger than any policy, or no regular file.
    """
    try:
        text = read_bounded(path, POLICY_BYTES).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise PolicyError(need="UTF-8 text", found="other bytes", remedy="check the path") from error
    return parse_policy(text)


def read_receipts(folder: Path | None) -> dict[str, str]:
    """Texts of the ``.tlog-proof`` files below a folder, by their names.

    Raises:
        InputError: There are none, too many, or one is too large or no regular file.
    """
    if folder is None:
        return {}
    files = sorted(islice(folder.rglob("*.tlog-proof"), BUNDLE_FILES + 1))
    if not files or len(files) > BUNDLE_FILES:
        raise InputError(
            need="a folder with .tlog-proof files", found=f"{len(files)} of them", remedy="check the path"
        )
    texts, room = {}, _RECEIPTS_BYTES
    for path in files:
        data = read_bounded(path, min(_RECEIPT_BYTES, room))
        room -= len(data)
        texts[str(path.relative_to(folder))] = data.decode("utf-8", "replace")
    return texts


def read_models(paths: Sequence[Path]) -> dict[str, bytes]:
    """Bytes of models, by digest.

    Raises:
        InputError: One is larger than any model.
    """
    models = {}
    for path in paths:
        data = read_bounded(path, MODEL_BYTES)
        models[digest(data)] = data
    return models


def read_vectors(folder: Path | None) -> dict[str, memoryview]:
    """Vectors by the digest in their name, mapped and not read: a run of them is larger than memory.

    Raises:
        InputError: There are none, or too many.
    """
    if folder is None:
        return {}
    files = [path for path in sorted(folder.iterdir()) if _HEX.match(path.name) and _is_vector(path)]
    if not files or len(files) > BUNDLE_FILES:
        raise InputError(
            need="a folder of masked vectors, named by their SHA-256",
            found=f"{len(files)} of them",
            remedy="ask the broker's operators for `iriai-broker audit vectors`",
        )
    return {f"sha256:{path.name}": memoryview(_mapped(path)) for path in files}


def _is_vector(path: Path) -> bool:
    found = path.stat()
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_absent(*paths: Path | None) -> None:
    """Nothing is there yet.

    Raises:
        InputError: Something is.
    """
    for path in paths:
        if path is not None and os.path.lexists(path):
            raise InputError(
                need="a new file to write",
                found=f"{path} is there already",
                remedy="name another file; evidence is never overwritten",
            )


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes a file that was not there, whole and on disk before this returns.

    Raises:
        InputError: It is there already.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        check_absent(path)
        raise
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable; where the system has no such call, they are what it makes them."""
    if os.name != "posix":  # pragma: no cover  folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_key(path: Path, *, entropy: Entropy | None = None) -> SigningKey:
    """An Ed25519 key of the auditor (PKCS #8 PEM, mode 0600); with ``entropy`` made where there is none.

    Raises:
        InputError: Others may read the file, or it holds something else.
    """
    if entropy is not None and not path.exists():
        write_new(path, SigningKey.from_seed(entropy.token_bytes(_SEED_BYTES)).to_pem(), mode=0o600)
    found = path.stat()
    if os.name == "posix" and found.st_mode & 0o077:
        raise InputError(
            need="a key file that only its owner may read",
            found=f"mode {found.st_mode & 0o777:04o}",
            remedy=f"chmod 600 {path}",
        )
    try:
        return SigningKey.from_pem(read_bounded(path, _KEY_BYTES))
    except IdentityError as error:
        raise InputError(need=error.need, found=error.found, remedy=error.remedy) from error
