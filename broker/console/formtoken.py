# SPDX-License-Identifier: Apache-2.0
"""The token of a login's forms, written differently on each page.

Pages are compressed, and parts of an address come back in them. Whoever sees lengths and chooses addresses
could guess a constant text in the page letter by letter (BREACH); so the token is masked by random bytes that
stand beside it.
"""

from __future__ import annotations

import base64
import binascii
import hmac

__all__ = ["fits", "masked"]


def masked(token: str, mask: bytes) -> str:
    """``mask.xored``, both base64url; the mask is random, of any length and used for one page."""
    return f"{_text(mask)}.{_text(_xor(token.encode(), mask))}"


def fits(given: str, token: str) -> bool:
    """Whether a form carries the token, masked or as it is."""
    head, dot, tail = given.partition(".")
    found = given.encode(errors="replace")
    if dot:
        try:
            found = _xor(_bytes(tail), _bytes(head))
        except (binascii.Error, ValueError):
            return False
    return hmac.compare_digest(found, token.encode())


def _xor(data: bytes, mask: bytes) -> bytes:
    if not mask:
        raise ValueError("no mask")
    return bytes(one ^ mask[place % len(mask)] for place, one in enumerate(data))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
