# SPDX-License-Identifier: Apache-2.0
"""Headers of every page, as data: nothing is loaded from another origin, no script or style stands inline."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CSP", "PAGE_HEADERS", "STATIC_HEADERS"]

CSP: Final[Mapping[str, str]] = MappingProxyType(
    {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "font-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
)
_COMMON: Final = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in CSP.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",  # the public URL is https, always
}
PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType({**_COMMON, "Cache-Control": "no-store"})
STATIC_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {**_COMMON, "Cache-Control": "public, max-age=31536000, immutable"}  # the name carries the hash
)
