# SPDX-License-Identifier: Apache-2.0
"""The console's own files: style, script, icon, and what is vendored; each under the hash of its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from broker.console.compressing import compressed
from broker.console.headers import STATIC_HEADERS
from broker.console.rendering import STATIC, asset

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["static"]

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


async def static(request: Request) -> Response:
    """A static file, by its hash; any other path is nothing."""
    name = str(request.path_params["name"])
    path = (STATIC / name).resolve()
    inside = path.is_relative_to(STATIC.resolve()) and path.is_file() and path.suffix != ".toml"
    if not inside or request.url.path != asset(name):
        return Response(status_code=404, headers={**STATIC_HEADERS, "Cache-Control": "no-store"})
    media = _TYPES.get(path.suffix.lstrip("."), "application/octet-stream")
    return compressed(request, Response(path.read_bytes(), headers=dict(STATIC_HEADERS), media_type=media))
