# SPDX-License-Identifier: Apache-2.0
"""Nonces of reads while the log is frozen: in this process only, because nothing can be written.

A frozen log must stay readable: whoever has to find out which history is true reads it. So a read's nonce is
kept here until no copy of its request could still be fresh, at most `FROZEN_NONCES` for each key. Those that
were stored before the log froze stay in the database and are looked up there (`broker.api.once`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from policies.errors import RequestReplayedError
from policies.limits import FROZEN_NONCES

if TYPE_CHECKING:
    from policies.signing import VerifiedRequest

__all__ = ["FrozenNonces"]


class FrozenNonces:
    """The nonces, by key. Not for several threads."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[str, int]] = defaultdict(dict)

    def claim(self, request: VerifiedRequest, now_ms: int) -> bool:
        """Keeps a nonce; False if the key has used up its room.

        Raises:
            RequestReplayedError: It was seen.
        """
        kept = self._kept[request.key_id]
        if request.nonce in kept:
            raise RequestReplayedError(
                need="a nonce that was not seen", found=request.nonce, remedy="sign each request afresh"
            )
        if len(kept) >= FROZEN_NONCES:
            for nonce in [one for one, expires_ms in kept.items() if expires_ms < now_ms]:
                del kept[nonce]
        if len(kept) >= FROZEN_NONCES:
            return False
        kept[request.nonce] = request.expires_ms
        return True
