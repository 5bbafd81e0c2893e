# SPDX-License-Identifier: Apache-2.0
"""What left this site, and the numbered chain of this node's signed envelopes: one file, ``outbox.db``."""

from __future__ import annotations

from client.outbox.file import Outbox
from client.outbox.letters import Letters

__all__ = ["Letters", "Outbox"]
