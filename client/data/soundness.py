# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the files of a source, as far as their first and last bytes tell; for `data inspect`.

Said are empty files, tables of a header alone, a quote that no quote ends, containers and tables that
were cut, and what else lies in the folder that no import reads. An import looks at every byte and refuses by
itself; this says it before anybody writes a map. At most `_FILES` files are looked at.

    for trouble in troubles(path, "table"):
        print(trouble)                      # 07.csv: a header and no row
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from policies.limits import TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["left_lying", "troubles"]

_FILES: Final = 200
_TAIL: Final = 65_536
_SUFFIXES: Final = {
    "table": (".csv", ".parquet"),
    "rosbag": (".db3",),
    "mcap": (".mcap",),
    "mtconnect": (".xml",),
    "robomimic": (".hdf5", ".h5"),
}
_BESIDE: Final = {
    "rosbag": frozenset({"metadata.yaml"}),
    "mcap": frozenset({"metadata.yaml"}),
    "lerobot": frozenset({"meta", "data", "iriai"}),
}
_NESTED: Final = frozenset({"rosbag", "mcap"})  # a folder of bags, each a folder
_MCAP_END: Final = b"\x89MCAP0\r\n"
_SQLITE: Final = b"SQLite format 3\x00"
_PARQUET_END: Final = b"PAR1"
_CUT: Final = "was cut; data add --accept-truncated takes its complete messages"


def left_lying(source: Path, reader: str) -> tuple[str, ...]:
    """What lies in a folder beside the files that its reader reads; folders end with ``/``."""
    if not source.is_dir():
        return ()
    suffixes, beside = _SUFFIXES.get(reader, ()), _BESIDE.get(reader, frozenset())
    found = []
    for path in sorted(source.iterdir()):
        held = reader in _NESTED and path.is_dir() and any(_inside(path, suffixes))
        read = path.is_file() and path.suffix.lower() in suffixes and not path.name.startswith(".")
        if not (read or held or path.name in beside):
            found.append(path.name + ("/" if path.is_dir() else ""))
    return tuple(found)


def troubles(source: Path, reader: str) -> tuple[str, ...]:
    """One sentence for each file that something is wrong with."""
    suffixes = _SUFFIXES.get(reader, ())
    files = [source] if source.is_file() else sorted(_inside(source, suffixes))
    if reader in _NESTED and source.is_dir():
        files += [
            one for path in sorted(source.iterdir()) if path.is_dir() for one in _inside(path, suffixes)
        ]
    return tuple(f"{file.name}: {said}" for file in files[:_FILES] for said in _trouble(file))


def _inside(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_file() and path.suffix.lower() in suffixes and not path.name.startswith("."):
            yield path


def _trouble(file: Path) -> Iterator[str]:
    size = file.stat().st_size
    if not size:
        yield "empty"
        return
    with file.open("rb") as opened:
        head = opened.read(TEXT_ROW_BYTES)
        opened.seek(max(0, size - _TAIL))
        tail = opened.read(_TAIL)
    match file.suffix.lower():
        case ".csv":
            yield from _csv(head, tail, whole=size <= len(head))
        case ".parquet" if not tail.endswith(_PARQUET_END):
            yield "was cut; copy it again"
        case ".mcap" if not tail.endswith(_MCAP_END):
            yield _CUT
        case ".db3" if head.startswith(_SQLITE) and size < _sqlite_bytes(head):
            yield _CUT


def _sqlite_bytes(head: bytes) -> int:
    """Size of a database by its own header: bytes of a page times pages."""
    page, pages = struct.unpack(">H", head[16:18])[0], struct.unpack(">I", head[28:32])[0]
    return (65_536 if page == 1 else int(page)) * int(pages)


def _csv(head: bytes, tail: bytes, *, whole: bool) -> Iterator[str]:
    """Of a text table: rows, quotes in pairs, and a last row as wide as the others."""
    lines = [one for one in head.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n") if one.strip()]
    lines = lines if whole or len(lines) == 1 else lines[:-1]
    if len(lines) == 1 and whole:
        yield "a header and no row"
        return
    odd = next((number for number, line in enumerate(lines) if line.count(b'"') % 2), None)
    if odd is not None:
        where = f"row {odd}" if odd else "the header"
        yield f"a quote in {where} that no quote on the same line ends; the rest would be one cell"
        return
    ends = tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    last = ends.rsplit(b"\n", 2)
    delimiter = max((b";", b",", b"\t", b"|"), key=lines[0].count)
    if last[-1].strip() and last[-1].count(delimiter) < lines[0].count(delimiter):
        yield "was cut: its last row has fewer cells than the header"
