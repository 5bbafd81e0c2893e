# SPDX-License-Identifier: Apache-2.0
"""Values and small objects that many answers hold: digests, ids, times, receipts, signed documents, refusals.

- Times are RFC 3339 in UTC, or milliseconds since 1970 where the name ends in ``_ms``.
- ``ABSENT`` marks a name that an answer may leave out; null is always said by the type.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from broker.api.declared import Shown

__all__ = [
    "ABSENT",
    "ORG",
    "SHA256",
    "Base64",
    "Change",
    "Digest",
    "Dsse",
    "DsseSignature",
    "Finding",
    "KeyText",
    "Millis",
    "Name",
    "NodeId",
    "OrgId",
    "Problem",
    "Receipt",
    "RunId",
    "Time",
]

SHA256: Final = r"^sha256:[0-9a-f]{64}$"
ORG: Final = r"^org_[a-z2-7]{16}$"
Digest = Annotated[str, StringConstraints(pattern=SHA256)]
OrgId = Annotated[str, StringConstraints(pattern=ORG)]
NodeId = Annotated[str, StringConstraints(pattern=r"^node_[a-z2-7]{16}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^run_[a-z2-7]{16}$")]
KeyText = Annotated[str, StringConstraints(pattern=r"^ed25519:[0-9a-f]{64}$")]
Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Millis = Annotated[int, Field(description="Milliseconds since 1970-01-01T00:00:00Z.")]
Name = Annotated[str, Field(description="A party's or person's short name.")]
ABSENT: Final[Any] = Field(default_factory=lambda: None)
"""A name that may be left out."""


class DsseSignature(Shown):
    """One signature of an envelope; the key id is a hint."""

    keyid: str
    sig: Base64


class Dsse(Shown):
    """A signed document (DSSE v1.0.2)."""

    payload: Base64
    payloadType: str  # noqa: N815  the standard's own spelling
    signatures: list[DsseSignature]


class Receipt(Shown):
    """An entry of the log as it was hashed, and its proof (C2SP tlog-proof)."""

    entry: str
    proof: str


class Finding(Shown):
    """What one check of one clause found."""

    clause: str
    check: str
    need: str
    found: str
    outcome: str
    remedy: str


class Change(Shown):
    """One difference between two contracts; values are those of the contract language."""

    clause: str
    kind: str
    field: str
    before: Any
    after: Any
    direction: str
    touches: list[Name]
    words: str


EXAMPLE: Final[dict[str, Any]] = {
    "type": "https://iriai.example/errors/membership.not-active",
    "title": "membership.not-active",
    "status": 403,
    "detail": (
        "membership.not-active: needs an organisation that two operators approved; found one that waits."
        " Remedy: ask the operators to compare fingerprints and approve"
    ),
    "code": "membership.not-active",
    "clause": None,
    "need": "an organisation that two operators approved",
    "found": "one that waits",
    "remedy": "ask the operators to compare fingerprints and approve",
    "exit_code": 6,
}


class Problem(BaseModel):
    """A refusal (RFC 9457): what was needed, what was found, what to do.

    A refusal that is itself on record has receipts. One by a counter-offer names the open text and the way
    to it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [EXAMPLE]})

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")]
    clause: str | None
    need: str
    found: str
    remedy: str
    exit_code: Annotated[int, Field(description="With which a command line shall end.")]
    request_id: str = ABSENT
    receipts: list[Receipt] = ABSENT
    digest: Digest = ABSENT
    round: int = ABSENT
    diff: list[Change] = ABSENT
