# SPDX-License-Identifier: Apache-2.0
"""A package is written over another file only where its owner says so, and is told what would be lost.

    check_free(Path("pick.iriai"), force=False)      # FileTakenError: an individual package of sha256:…

Two packages of one model have the same names and nearly the same size, and the individual one holds what
only this site's data could teach: a common one over it would be a loss that nobody sees.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from client.answers import short
from client.deploy.archive import read_archive
from client.deploy.errors import PackageError
from client.deploy.manifest import Manifest
from client.deploy.signed_members import MANIFEST
from client.errors import FileTakenError
from policies.limits import PACKAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_free"]


def check_free(path: Path, *, force: bool) -> None:
    """Refuses a path where something is, unless a file may be written over.

    Raises:
        FileTakenError: A file without ``force``; anything else in any case.
    """
    if not os.path.lexists(path) or (force and path.is_file()):
        return
    raise FileTakenError(
        need="a new file for the package",
        found=f"{path}: {_what(path)}",
        remedy="name another --out; --force writes over a file",
    )


def _what(path: Path) -> str:
    """What is there, as its own manifest says it; no word of it was checked."""
    try:
        if not path.is_file() or path.stat().st_size > PACKAGE_BYTES:
            return "something else"
        manifest = Manifest.read(bytes(read_archive(path.read_bytes())[MANIFEST].data))
    except (OSError, KeyError, PackageError):
        return "another file"
    kind = "an individual package" if manifest.model.individual else "a common package"
    return f"{kind} of model {short(manifest.model.digest)}"
