# SPDX-License-Identifier: Apache-2.0
"""Which software trains here: what an audit of it is about, and nothing else.

`software` is a digest over the versions of the packages that training computes with, and over the source of
training itself. An audit that was made with other software says nothing about this one.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from policies.encoding import digest, digest_of

__all__ = ["software"]

_PACKAGES: Final = ("numpy", "opacus", "randomgen", "torch")
_SOURCES: Final = ("client.learning", "policies.privacy")


@cache
def software() -> str:
    """Digest of packages and sources, as they were when this process first asked."""
    return digest_of({"packages": {name: _version(name) for name in _PACKAGES}, "sources": _sources()})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _sources() -> dict[str, str]:
    """Digest of each file of the packages that training is made of."""
    found = {}
    for package in _SOURCES:
        spec = find_spec(package)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            for file in sorted(Path(folder).rglob("*.py")):
                found[f"{package}/{file.relative_to(folder).as_posix()}"] = digest(file.read_bytes())
    return found
