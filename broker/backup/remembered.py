# SPDX-License-Identifier: Apache-2.0
"""What a broker remembers of its backups: ``backups.json`` in its folder, written whole.

    record(settings)               Facts: each backup that was made, and the last one that was tested
    add(settings, kept)            one was made
    tested(settings, passed)       one was restored on trial, and everything held

The file is a note for people and proves nothing: a backup proves itself by its manifest. A file that cannot
be read is told as such, and the next backup begins a new one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.keyfiles import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from broker.settings import Settings

__all__ = ["Facts", "Kept", "Passed", "add", "record", "tested"]

FILE_NAME: Final = "backups.json"
REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A backup that was made.

    Attributes:
        path: Its folder, as it was named.
        at_ms: When it was made.
        manifest: Digest of its manifest.
        size: Entries of the log in it.
        bytes: Of all its files.
        private_until_ms: When its confidential values have to be gone; None if it has none.
    """

    path: str
    at_ms: int
    manifest: str
    size: int
    bytes: int
    private_until_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A backup that was restored on trial; everything held."""

    path: str
    at_ms: int
    manifest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is remembered.

    Attributes:
        backups: Oldest first.
        tested: The last test of a restore; None if there was none.
        problem: Why nothing is remembered, if the file is damaged.
    """

    backups: tuple[Kept, ...] = ()
    tested: Passed | None = None
    problem: str | None = None

    @property
    def last(self) -> Kept | None:
        """The newest backup; None if there is none."""
        return self.backups[-1] if self.backups else None


def record(settings: Settings) -> Facts:
    """What the broker of these settings remembers; never raises for what the file holds."""
    try:
        said = json.loads(_file(settings).read_bytes())
        backups = tuple(Kept(**one) for one in said["backups"])
        return Facts(backups=backups, tested=None if said["tested"] is None else Passed(**said["tested"]))
    except FileNotFoundError:
        return Facts()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Facts(problem=f"{_file(settings)}: {type(error).__name__}")


def add(settings: Settings, kept: Kept) -> None:
    """Remembers a backup; of very many, the newest."""
    facts = record(settings)
    _write(settings, (*facts.backups, kept)[-REMEMBERED:], facts.tested)


def tested(settings: Settings, passed: Passed) -> None:
    """Remembers a test."""
    _write(settings, record(settings).backups, passed)


def _write(settings: Settings, backups: tuple[Kept, ...], passed: Passed | None) -> None:
    said: dict[str, Any] = {
        "v": 1,
        "backups": [asdict(one) for one in backups],
        "tested": None if passed is None else asdict(passed),
    }
    replace_file(_file(settings), json.dumps(said, indent=1, sort_keys=True).encode("utf-8") + b"\n")


def _file(settings: Settings) -> Path:
    return settings.dir / FILE_NAME
