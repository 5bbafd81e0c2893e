# SPDX-License-Identifier: Apache-2.0
"""What the privacy statement of a release says; it is kept as the envelope that was signed.

told(session, digest)["verdict"]            "PRIVATE" or "NOT PRIVATE"
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.store.tables import statement
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["told"]


def told(session: Session, digest: str) -> dict[str, Any]:
    """The document in a kept statement, whose signature was checked when it came; empty if it is not kept."""
    data = session.scalar(select(statement.c.bytes).where(statement.c.digest == digest))
    found: dict[str, Any] = {} if data is None else json.loads(Envelope.from_bytes(data).payload)
    return found
