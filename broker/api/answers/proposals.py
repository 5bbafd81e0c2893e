# SPDX-License-Identifier: Apache-2.0
"""What the room of proposals answers."""

from __future__ import annotations

from typing import Any

from broker.api.answers.values import ABSENT, Base64, Digest, Millis, Name
from broker.api.declared import Shown

__all__ = ["ProposalDone", "ProposalMade", "ProposalShown", "Proposals"]


class PersonBehind(Shown):
    """Somebody who stands behind a proposal: by a request, a key file, a passkey or a password."""

    name: Name
    how: str
    at_ms: Millis


class ProposalShown(Shown):
    """What takes two people: what would happen, who wants it, where it stands."""

    id: str
    kind: str
    state: str
    digest: Digest
    subject: Base64
    what: dict[str, Any]
    proposer: str
    behind: list[PersonBehind]
    needs: int
    created_ms: Millis
    expires_ms: Millis
    decided_by: Name | None
    decided_ms: Millis | None
    why: str | None


class Proposals(Shown):
    """Proposals, the oldest of the page first."""

    proposals: list[ProposalShown]
    next: str = ABSENT


class ProposalMade(Shown):
    """A proposal that waits for a second person."""

    proposal: ProposalShown


class ProposalDone(Shown):
    """A proposal after somebody's word, and what happened by it."""

    proposal: ProposalShown
    result: dict[str, Any] | None
