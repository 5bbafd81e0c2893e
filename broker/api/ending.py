# SPDX-License-Identifier: Apache-2.0
"""Routes that will end: announced in the answers themselves (RFC 9745 ``Deprecation``, RFC 8594 ``Sunset``).

    ENDINGS = {"/api/v1/old/{name}": Ending(since_ms=…, until_ms=…, instead="/api/v1/new/{name}")}

- Within ``v1`` a route is added, never taken away before its sunset.
- The OpenAPI document marks what stands here as deprecated. Nothing does now.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from starlette.routing import compile_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENDINGS", "Ending", "ending_of", "headers_of"]

_DOCS: Final = "https://iriai.example/api/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When a route's end was announced, when it comes, and what to call instead."""

    since_ms: int
    until_ms: int
    instead: str


ENDINGS: Final[Mapping[str, Ending]] = {}
"""Path, as routes spell it → its end."""


def ending_of(path: str, endings: Mapping[str, Ending] = ENDINGS) -> Ending | None:
    """The end of the route that serves a path; None for one that stays."""
    return next((one for name, one in endings.items() if compile_path(name)[0].match(path)), None)


def headers_of(path: str, endings: Mapping[str, Ending] = ENDINGS) -> tuple[tuple[bytes, bytes], ...]:
    """Headers of an answer under a path; none for one that stays."""
    one = ending_of(path, endings)
    if one is None:
        return ()
    until = format_datetime(dt.datetime.fromtimestamp(one.until_ms // 1000, tz=dt.UTC), usegmt=True)
    links = f'<{_DOCS}>; rel="deprecation", <{one.instead}>; rel="successor-version"'
    return (
        (b"deprecation", f"@{one.since_ms // 1000}".encode("ascii")),
        (b"sunset", until.encode("ascii")),
        (b"link", links.encode("ascii")),
    )
