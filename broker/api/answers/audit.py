# SPDX-License-Identifier: Apache-2.0
"""What the rooms of audits, auditors and incidents answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from broker.api.answers.values import (
    ABSENT,
    Digest,
    KeyText,
    Millis,
    Name,
    RunId,
    Time,
)
from broker.api.declared import Shown

__all__ = [
    "AuditorEnded",
    "AuditorMade",
    "Auditors",
    "Disclosures",
    "Erased",
    "GrantEnded",
    "GrantMade",
    "Grants",
    "IncidentClosed",
    "Incidents",
    "PolicyText",
    "Stamped",
]


class PolicyText(Shown):
    """The text of a policy file as this broker sees itself."""

    policy: str


class Disclosure(Shown):
    """A confidential value with the salt of its commitment."""

    index: int
    field: str
    salt: str
    value: Any


class Disclosures(Shown):
    """What grants in force open of 256 entries; ``next``: where the next page begins, null at the end."""

    start: Annotated[int, Field(alias="from")]
    next: int | None
    size: int
    disclosures: list[Disclosure]


class AuditorMade(Shown):
    """An auditor who is enrolled now."""

    name: Name
    key: KeyText
    fingerprint: str


class AuditorLine(AuditorMade):
    """An auditor, and whether they still are one."""

    state: str
    since: Time


class Auditors(Shown):
    """Everybody who was enrolled as an auditor."""

    auditors: list[AuditorLine]


class AuditorEnded(Shown):
    """An auditor whose access is over; name of the witness that votes on until two people remove it."""

    name: Name
    grants_ended: int
    votes_on: str | None


class GrantMade(Shown):
    """What an auditor may be shown; null for every field, and for no end."""

    grant: str
    grantee: Name
    fields: list[str] | None
    from_index: int
    until: Time | None


class GrantLine(GrantMade):
    """A grant, and whether it is in force."""

    state: str


class Grants(Shown):
    """Every grant that there was."""

    grants: list[GrantLine]


class GrantEnded(Shown):
    """A grant that opens nothing any more."""

    grant: str
    grantee: Name


class Erased(Shown):
    """What was erased, and the entry that says so."""

    entry: int
    indexes: list[int]
    fields: list[str]


class Stamped(Shown):
    """A time stamp over a checkpoint, and whether it was kept."""

    size: int
    stamped_ms: Millis
    kept: bool


class Incident(Shown):
    """What the log declares; ``closed``: index of the entry that closed it."""

    index: int
    kind: str
    evidence: Digest
    contract: Digest | None
    run: RunId | None
    round: int | None
    at: Time
    closed: int | None


class Incidents(Shown):
    """Every incident, oldest first."""

    incidents: list[Incident]
    next: str = ABSENT


class IncidentClosed(Incident):
    """An incident that is dealt with."""

    reason: str
