# SPDX-License-Identifier: Apache-2.0
"""What the facade for connectors answers: the protocol's own documents; only their frame is said here.

Their full form is the profile in `policies.contract.odrl.dsp_messages`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from broker.api.answers.values import ABSENT, OrgId
from broker.api.declared import Shown

__all__ = ["Counterparties", "CounterpartyLine", "CounterpartyMade", "DspAnswer", "DspMessage", "DspVersions"]


class DspVersions(Shown):
    """Which version of the Dataspace Protocol is spoken."""

    protocolVersions: list[dict[str, Any]]  # noqa: N815  the protocol's own spelling


class DspAnswer(BaseModel):
    """A document of the protocol."""

    model_config = ConfigDict(extra="allow")

    context: Annotated[list[str], Field(alias="@context")]
    kind: Annotated[str, Field(alias="@type")]


class DspMessage(DspAnswer):
    """A message of the protocol, as a consumer sends it."""


class CounterpartyLine(Shown):
    """A registered connector."""

    name: str
    participant: str
    callback: str
    org: OrgId | None
    state: str


class CounterpartyMade(CounterpartyLine):
    """A connector. Its token is told once: a repetition of the request gets the rest."""

    token: str = ABSENT


class Counterparties(Shown):
    """Every connector that was registered."""

    counterparties: list[CounterpartyLine]
