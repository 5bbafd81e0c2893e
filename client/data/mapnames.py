# SPDX-License-Identifier: Apache-2.0
"""Names of a recording on their way into a signal map: as a plain TOML string, or not at all.

A name is whatever somebody wrote into a file. One that could end its string, begin a line, or mean several
columns (``q{0..5}``) is refused, so that a recording never writes a key of the map that it is read by.

    quoted("observation.state.tcp_pos_0")      # '"observation.state.tcp_pos_0"'
    quoted("q{0..5}")                          # MapInvalidError
"""

from __future__ import annotations

import re
from typing import Final

from client.data.errors import MapInvalidError

__all__ = ["COLUMN_CHARS", "is_plain", "quoted", "shown"]

COLUMN_CHARS: Final = 200
_NOT_PLAIN: Final = re.compile(r"[\"'\\]|\{\d+\.\.\d+\}")


def is_plain(name: str) -> bool:
    """Whether a map can name a column by its name, and mean that column alone."""
    return 0 < len(name) <= COLUMN_CHARS and name.isprintable() and _NOT_PLAIN.search(name) is None


def quoted(name: str) -> str:
    """A name as a TOML string.

    Raises:
        MapInvalidError: It is not plain.
    """
    if not is_plain(name):
        raise MapInvalidError(
            need=f"names of at most {COLUMN_CHARS} characters without quotes, control characters and ranges",
            found=f"the channel {ascii(name)[1:61]}",
            remedy="rename it in the recording",
        )
    return f'"{name}"'


def shown(name: str) -> str:
    """A name for a comment of a map, which ends with its line."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
    return plain[:COLUMN_CHARS]
