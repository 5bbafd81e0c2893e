# SPDX-License-Identifier: Apache-2.0
"""An invitation: what its text says, and why it cannot be used."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from client.errors import (
    InviteError,
)
from policies.encoding import parse
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.ports import to_ms

__all__ = ["Invite", "parse_invite"]


_INVITE_CHARS = 4_000


_HEX64 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """An invitation as its receiver reads it. ``repr`` never shows the secret."""

    url: str
    broker_key: bytes
    tls_sha256: str
    id: str
    secret: str = field(repr=False)
    expires_ms: int


def parse_invite(token: str) -> Invite:
    """The invitation behind the text that an operator handed over.

    Raises:
        InviteError: Cut off, altered or of another version.
    """
    try:
        document = parse(base64.urlsafe_b64decode(token.strip()[:_INVITE_CHARS].encode("ascii")))
        invite = Invite(
            url=document["url"].rstrip("/"),
            broker_key=parse_key(document["broker_key"]),
            tls_sha256=document["tls_sha256"],
            id=document["id"],
            secret=document["secret"],
            expires_ms=to_ms(document["expires"]),
        )
        good = document["v"] == 1 and _HEX64.match(invite.tls_sha256) and isinstance(invite.secret, str)
    except (ValueError, KeyError, TypeError, AttributeError, IriaiError) as error:
        raise _no_invite() from error
    if not good:
        raise _no_invite()
    return invite


def _no_invite() -> InviteError:
    return InviteError(
        need="the whole text of an invitation of this version",
        found="a text that is none",
        remedy="copy it once more, or ask the operator for a new one",
    )
