# SPDX-License-Identifier: Apache-2.0
"""What the rooms of members and of the catalogue answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from broker.api.answers.values import (
    ABSENT,
    Base64,
    Digest,
    Dsse,
    KeyText,
    Millis,
    Name,
    NodeId,
    OrgId,
    Receipt,
    Time,
)
from broker.api.declared import Shown

__all__ = [
    "Approved",
    "CatalogueShown",
    "Dcat",
    "EnvelopesShown",
    "InviteMade",
    "Joined",
    "Logged",
    "Membership",
    "Organisation",
    "Organisations",
    "Published",
    "Suspended",
    "Withdrawn",
]


class Joined(Shown):
    """Where a node stands that used its invitation."""

    org: OrgId
    node: NodeId
    state: str
    since_ms: Millis


class Membership(Joined):
    """The caller's own membership; the alias key once it is active."""

    legal_name: str
    country: str
    group: str
    seen_ms: Millis | None
    alias_key: Base64 = ABSENT


class OwnEnvelope(Receipt):
    """An envelope of the caller's node, with the entry that it became."""

    index: int
    envelope: Dsse


class EnvelopesShown(Shown):
    """Envelopes of the caller's node, oldest first; ``next``: the index to go on after."""

    envelopes: list[OwnEnvelope]
    next: int = ABSENT


class Logged(Shown):
    """The entry that a change became."""

    index: int
    receipts: list[Receipt]


class InviteMade(Shown):
    """An invitation. Its text is told once: a repetition of the request gets the rest."""

    id: str
    invite: str = ABSENT
    expires: Time


class Organisation(Shown):
    """An organisation that joined, with what an approval would sign, and when its node was heard last."""

    org: OrgId
    node: NodeId
    state: str
    since_ms: Millis
    legal_name: str
    country: str
    group: str
    node_key: KeyText
    node_fingerprint: str
    fleet_key_pem: str
    subject_digest: Digest
    approved_by: list[Name]
    online: bool
    seen_ms: Millis | None


class Organisations(Shown):
    """Everybody who was ever enrolled."""

    organisations: list[Organisation]
    next: str = ABSENT


class Approved(Shown):
    """Who approved so far, and where the organisation stands."""

    org: OrgId
    state: str
    approved_by: list[Name]


class Suspended(Shown):
    """An organisation that is stopped for the time being."""

    org: OrgId
    state: str


class Published(Shown):
    """What of a data set was published."""

    dataset: str
    digest: Digest


class Withdrawn(Shown):
    """Which publication of a data set is withdrawn."""

    dataset: str
    digest: Digest
    number: int


class Fit(Shown):
    """Whether a data set has enough episodes for a recipe."""

    recipe: Digest
    minimum_met: bool


class DataSet(Shown):
    """A data set as the caller may see it; digest, number and envelope are its owner's and the operators'."""

    org: OrgId
    legal_name: str
    dataset: str
    digest: Digest | None
    number: int | None
    certified: bool
    fits: list[Fit]
    view: dict[str, Any]
    envelope: Dsse | None


class DataSetName(Shown):
    """A data set whose signature does not hold any more."""

    org: OrgId
    dataset: str


class CatalogueShown(Shown):
    """Data sets that have what is sought."""

    datasets: list[DataSet]
    unverified: list[DataSetName] = ABSENT
    withdrawn: list[DataSetName] = ABSENT
    next: str = ABSENT


class Dcat(BaseModel):
    """A DCAT catalogue (JSON-LD)."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[str, Field(alias="@id")]
    kind: Annotated[str, Field(alias="@type")]
