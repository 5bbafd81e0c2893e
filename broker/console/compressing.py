# SPDX-License-Identifier: Apache-2.0
"""Answers of the console, compressed where the browser takes it. Streams and downloads go as they are."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["compressed"]

_LEAST: Final = 1_000
_LEVEL: Final = 5


def compressed(request: Request, response: Response) -> Response:
    """The same answer, compressed if it is whole, long enough and wanted so."""
    body = response.body if type(response) is Response else b""
    if len(body) < _LEAST or "content-encoding" in response.headers:
        return response
    response.headers.append("vary", "accept-encoding")
    if "gzip" in request.headers.get("accept-encoding", ""):
        response.body = gzip.compress(bytes(body), _LEVEL, mtime=0)
        response.headers["content-encoding"] = "gzip"
        response.headers["content-length"] = str(len(response.body))
    return response
