# SPDX-License-Identifier: Apache-2.0
"""The text that an operator hands over: where the broker is, which keys to expect, a secret that works once.

base64url of the RFC 8785 bytes of ``{"v":1,"url","broker_key","tls_sha256","id","secret","expires"}``.

The broker keeps the SHA-256 of the secret only. Legal name, country and group are bound to the invitation
on the broker's side.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from policies.encoding import canonical

__all__ = ["Invite", "secret_digest"]


def secret_digest(secret: str) -> str:
    """What the broker stores of an invitation's secret: SHA-256 of its text, 64 hex digits."""
    return hashlib.sha256(secret.encode("ascii", errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """An invitation as its receiver reads it.

    Attributes:
        url: Of the broker.
        broker_key: ``ed25519:`` and hex.
        tls_sha256: Of the server's certificate, 64 hex digits.
        id: ``inv_…``, for the operators' lists.
        secret: 64 hex digits.
        expires: RFC 3339, whole seconds.
    """

    url: str
    broker_key: str
    tls_sha256: str
    id: str
    secret: str
    expires: str

    @property
    def token(self) -> str:
        """The text to hand over."""
        document = {
            "v": 1,
            "url": self.url,
            "broker_key": self.broker_key,
            "tls_sha256": self.tls_sha256,
            "id": self.id,
            "secret": self.secret,
            "expires": self.expires,
        }
        return base64.urlsafe_b64encode(canonical(document)).decode("ascii")
