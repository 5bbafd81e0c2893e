# SPDX-License-Identifier: Apache-2.0
"""A file for the auditor that is no bundle: a bomb, a name that leads out of the folder, a link."""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING, Final
from zipfile import ZIP_DEFLATED, ZipFile

from sandbox.attacks import auditor
from sandbox.attacks.attack import Attack, Finding, control, defence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.attacks.ground import Ground

__all__ = ["BOMB"]

_BLOWN_UP: Final = 384 * 1024 * 1024
_PIECE: Final = bytes(1024 * 1024)
_MEMORY_MB: Final = 256
_RULE: Final = ("AUD-001",)
_ESCAPED: Final = "escaped.txt"
_INSIDE: Final = b"keys/aliases.json"
_OUTSIDE: Final = b"../../" + _ESCAPED.encode("ascii")
_ATTRIBUTES: Final = 38  # of a record in the directory of a zip


def _bomb(ground: Ground) -> Iterator[Finding]:
    policy, folder = ground.policy(), ground.folder / "hostile" / "files"
    true = ground.bundle("hostile-before")
    honest = auditor.verify(true, policy)
    yield control("the true bundle is read to its end", held=honest.exit_code == 0, found=honest.words)
    folder.mkdir(parents=True)
    bomb = _blown_up(folder / "bomb.zip")
    judged = auditor.verify(bomb, policy)
    size = bomb.stat().st_size // 1024
    yield defence(
        f"a file of {size} KiB that unpacks to {_BLOWN_UP // 1024**2} MiB is refused",
        by=auditor.BY,
        code=judged.rule,
        wanted=_RULE,
        found=judged.words,
    )
    yield Finding(
        what="and is never blown up",
        held=0 < judged.memory_mb < _MEMORY_MB,
        found=f"{judged.memory_mb} MiB of memory at most",
    )
    for words, path in (
        ("a name that leads out of the folder is refused", _outside(true, folder / "outside.zip")),
        ("a link to another file is refused", _link(true, folder / "link.zip")),
    ):
        judged = auditor.verify(path, policy)
        yield defence(words, by=auditor.BY, code=judged.rule, wanted=_RULE, found=judged.words)
    made = [*folder.rglob(_ESCAPED), *folder.parent.glob(_ESCAPED), *ground.folder.glob(_ESCAPED)]
    yield Finding(what="and nothing was written anywhere", held=not made, found=f"{len(made)} files")


def _blown_up(path: Path) -> Path:
    with ZipFile(path, "w", ZIP_DEFLATED) as archive, archive.open("policy", "w", force_zip64=True) as member:
        for _ in range(_BLOWN_UP // len(_PIECE)):
            member.write(_PIECE)
    return path


def _outside(true: Path, path: Path) -> Path:
    """The true bundle, in which one file has a name of the same length that leads out of the folder."""
    path.write_bytes(true.read_bytes().replace(_INSIDE, _OUTSIDE))
    return path


def _link(true: Path, path: Path) -> Path:
    """The true bundle, whose directory says that one file is a symbolic link."""
    data = bytearray(true.read_bytes())
    record = data.rindex(b"PK\x01\x02", 0, data.rindex(_INSIDE))
    struct.pack_into("<I", data, record + _ATTRIBUTES, (stat.S_IFLNK | 0o777) << 16)
    path.write_bytes(data)
    return path


BOMB: Final = Attack(
    threat="D6",
    words="a hostile file is given to the auditor as a bundle",
    tried="The auditor is sent a zip that blows up, and true bundles in which one file has a name that leads "
    "out of the folder, or is a link.",
    gain="The auditor's machine is filled, hangs, or gets a file written where the attacker likes.",
    left="A true bundle of a long log is large: reading it takes its time.",
    act=_bomb,
)
