# SPDX-License-Identifier: Apache-2.0
"""Which program made a report: its version, and one digest over the files that it consists of.

The digest is SHA-256 over ``<path> NUL <SHA-256 of the file, 32 bytes>`` of every ``.py`` and ``.json``
file of the package `policies`, in the order of the paths: the same for a checkout, an installed package
and the zipapp.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

__all__ = ["tool_digest", "tool_version", "walk"]

_KINDS = (".py", ".json", ".css", ".html")


def tool_version() -> str:
    """Version of the installed package; in the zipapp that of the package it was made from."""
    stamp = files("policies").joinpath("VERSION")
    if stamp.is_file():
        return stamp.read_text("utf-8").strip()
    try:
        return version("iriai")
    except PackageNotFoundError:
        return "0"


@functools.cache
def tool_digest() -> str:
    """Digest of the program; see the module docstring."""
    total = hashlib.sha256()
    for path, data in sorted(walk(files("policies"), "policies")):
        total.update(path.encode("utf-8") + b"\0" + hashlib.sha256(data).digest())
    return "sha256:" + total.hexdigest()


def walk(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    """Files of the program below a folder, by their paths."""
    for one in folder.iterdir():
        if one.is_dir():
            if one.name != "__pycache__":
                yield from walk(one, f"{path}/{one.name}")
        elif one.name.endswith(_KINDS):
            yield f"{path}/{one.name}", one.read_bytes()
