# SPDX-License-Identifier: Apache-2.0
"""The one boundary around all readers: what a foreign file makes a reader or its library raise is a refusal.

- `Foreign` has the methods of a `Reader` and calls another's. A reader refuses what it knows by name
  (`DataError`, which passes); whatever else is raised while it looks at a path becomes ``data.file-invalid``
  with the name of the source and the kind of the error. What the caller does with a series, and what it does
  when it is told of a note, happens outside: errors of our own are not hidden here.
- A link inside a source that leads out of it is refused by its name before a byte is read: else a folder
  that somebody sent would name recordings of this machine. The path itself may be a link: its owner chose it.
- Errors of ours (`IriaiError`, also a broken invariant) and what is no `Exception` pass as they are.

    reader = Foreign(TableReader())
    with parsing(path): head = ...           # for code beside the readers that looks into a source
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.data.errors import DataError, FileInvalidError
from client.data.series import READ_ALL, Note, Probe, ReadOptions, Series
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.data.series import Reader
    from client.data.signalmap import SignalMap

__all__ = ["Foreign", "check_links", "parsing"]

_NAME: Final = 60


class Foreign:
    """A reader whose errors are refusals."""

    def __init__(self, inner: Reader) -> None:
        self.name, self.inner = inner.name, inner

    def claims(self, path: Path) -> bool:
        """Whether the path looks like this format."""
        with parsing(path):
            return self.inner.claims(path)

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """What the inner reader learns from headers.

        Raises:
            DataError: It claims the path but cannot read it; a link leads out of it.
        """
        with parsing(path):
            check_links(path)
            return self.inner.probe(path, signals)

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """The inner reader's series; notes are handed on between two steps of it.

        Raises:
            DataError: The source contradicts its format or the map.
        """
        notes: list[tuple[str, int]] = []
        with parsing(path):
            check_links(path)
            found = iter(self.inner.read(path, probe, signals, lambda *one: notes.append(one), options))
        while True:
            with parsing(path):
                series = next(found, None)
            for code, count in notes:
                note(code, count)
            notes.clear()
            if series is None:
                return
            yield series


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """What is raised while a foreign source is looked at, as a refusal that names source and kind.

    Raises:
        FileInvalidError: Instead of any error that no reader foresaw.
    """
    try:
        yield
    except IriaiError:
        raise
    except Exception as error:
        raise FileInvalidError(
            need="a recording that its format allows",
            found=f"{_shown(path)}: {type(error).__name__} while reading",
            remedy="copy the file again; if it stays so, convert it as the documentation says",
        ) from error


def check_links(path: Path) -> None:
    """Refuses a link below ``path`` that leads out of it.

    Raises:
        FileInvalidError: Names the link.
    """
    if not path.is_dir():
        return
    root = path.resolve()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            place = Path(folder, name)
            if place.is_symlink() and not place.resolve().is_relative_to(root):
                raise _leaves(str(place.relative_to(root)))


def _leaves(name: str) -> DataError:
    return FileInvalidError(
        need="a source without links to other places",
        found=f"{ascii(name)[1:-1][-_NAME:]}: a link that leads out of the folder",
        remedy="copy it with its links resolved (cp -rL), and import the copy",
    )


def _shown(path: Path) -> str:
    return ascii(path.name)[1:-1][:_NAME]
