# SPDX-License-Identifier: Apache-2.0
"""Browsers in which somebody logged in before: a cookie that opens nothing, and a count of their own.

Whoever knows a name can keep its shared counter of wrong passwords high from many addresses (`broker.auth.
floods`). A browser with the cookie of a device is counted for itself, from whichever address, so that its
owner is not kept out with them.

- A mark is 16 random bytes, and an HMAC of them and one name: it tells nobody the name, fits no other person,
  and nobody can make one. The broker stores nothing of it.
- A browser has the marks of the last `DEVICE_PEOPLE` people who logged in there; a later login keeps a mark.
- The key comes from the broker's own, so that marks outlive a start, and end with that key.
- A stolen mark gives its thief `LOGIN_FREE_TRIES` at one person, with the pauses of everybody.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from policies.limits import DEVICE_PEOPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.identity import SigningKey
    from policies.ports import Entropy

__all__ = ["DEVICE", "Devices"]

DEVICE: Final = "__Host-iriai-device"
_PURPOSE: Final = b"iriai: marks of browsers in which somebody logged in"
_MARK: Final = 16
_TEXT: Final = 43  # characters of a mark and its code
_ODD: Final = "="


class Devices:
    """Makes marks and knows them again."""

    def __init__(self, key: SigningKey, entropy: Entropy) -> None:
        self._key = hashlib.sha256(key.sign(_PURPOSE)).digest()
        self._entropy = entropy

    def of(self, name: str, cookie: str) -> str | None:
        """The mark of a person in a browser's cookie, for its counter; None if there is none."""
        return next((text for text in _texts(cookie) if self._fits(name, text)), None)

    def cookie(self, name: str, before: str) -> str:
        """The cookie of a browser in which somebody has just logged in.

        Args:
            name: Who.
            before: The cookie that it had.
        """
        mine = self.of(name, before) or self._new(name)
        others = [text for text in _texts(before) if text != mine]
        return ".".join([mine, *others[: DEVICE_PEOPLE - 1]])

    def _new(self, name: str) -> str:
        return self._text(name, self._entropy.token_bytes(_MARK))

    def _fits(self, name: str, text: str) -> bool:
        mark = urlsafe_b64decode(text + _ODD)[:_MARK]
        return hmac.compare_digest(text, self._text(name, mark))  # one spelling

    def _text(self, name: str, mark: bytes) -> str:
        code = hmac.digest(self._key, mark + name.encode("utf-8", "replace"), "sha256")[:_MARK]
        return urlsafe_b64encode(mark + code).decode("ascii").rstrip(_ODD)


def _texts(cookie: str) -> Iterator[str]:
    """What has the form of a mark, the newest first; whatever else a browser sends is nothing."""
    for text in cookie.split(".")[:DEVICE_PEOPLE]:
        if len(text) == _TEXT and text.isascii() and text.replace("-", "").replace("_", "").isalnum():
            yield text
