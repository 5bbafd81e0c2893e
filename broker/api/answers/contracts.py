# SPDX-License-Identifier: Apache-2.0
"""What the rooms of contracts, negotiations, decisions and notices answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from broker.api.answers.values import (
    ABSENT,
    Change,
    Digest,
    Dsse,
    Finding,
    KeyText,
    Millis,
    Name,
    Receipt,
    RunId,
    Time,
)
from broker.api.declared import Shown

__all__ = [
    "ContractDocument",
    "ContractRow",
    "ContractRowTaken",
    "Contracts",
    "DecisionLine",
    "DecisionShown",
    "Decisions",
    "DryRunShown",
    "Enforcement",
    "Evaluated",
    "Lifecycle",
    "Negotiation",
    "NegotiationTaken",
    "NoticeTaken",
    "Notices",
    "Verdict",
]


class ContractDocument(BaseModel):
    """A contract in its canonical bytes; its language is documented by itself."""

    model_config = ConfigDict(extra="allow")

    schema_: Annotated[str, Field(alias="schema")]


class LaneShort(Shown):
    """Where one contributor's lane stands."""

    pid: str
    round: int
    state: str
    deadline_ms: Millis | None


class LaneOfAll(LaneShort):
    """A lane as operators see it."""

    party: Name
    digest: Digest


class RecipeNamed(Shown):
    """A recipe of a contract."""

    id: str
    digest: Digest


class ContractRow(Shown):
    """One line about a contract: what it is, who signed, where it stands."""

    digest: Digest
    contract_id: str
    version: int
    supersedes: Digest | None
    title: str
    state: str
    standing: str
    sign_by: Time
    party: Name | None
    signed: list[Name]
    waiting_for: list[Name]
    approved: bool | None = ABSENT
    proposal: str | None = ABSENT
    negotiation: str | None
    lane: LaneShort | None
    lanes: dict[str, str]
    round: int | None
    every_lane: list[LaneOfAll]
    recipes: list[RecipeNamed]


class ContractRowTaken(ContractRow):
    """A contract that a request made, with the receipts of its entries."""

    receipts: list[Receipt] = ABSENT


class Contracts(Shown):
    """The caller's contracts, the newest last."""

    contracts: list[ContractRow]
    next: str = ABSENT


class OwnLane(Shown):
    """The caller's lane of a negotiation."""

    pid: str
    party: Name
    state: str
    digest: Digest
    deadline_ms: Millis | None
    last_hash: Digest
    round: int


class Closed(Shown):
    """Why a round ended."""

    code: str
    clause: str | None
    text: str | None
    party: Name | None


class LaneMessage(Shown):
    """A message of the caller's lane, and its number."""

    seq: int
    message: Dsse


class LintWarning(Shown):
    """A warning of the contract linter."""

    id: str
    rule: str
    severity: str
    clause: str
    need: str
    found: str
    remedy: str


class Negotiation(Shown):
    """A negotiation as the caller sees it."""

    id: str
    contract_id: str
    version: int
    round: int
    state: str
    digest: Digest
    sign_by: Time | None
    lanes: dict[str, str]
    waiting_for: list[Name]
    approved: bool | None = ABSENT
    lane: OwnLane | None
    closed: Closed | None
    messages: list[LaneMessage]
    diff: list[Change]
    lint: list[LintWarning]


class NegotiationTaken(Negotiation):
    """The negotiation after a message, with the receipts of its entries."""

    receipts: list[Receipt] = ABSENT


class Verdict(Shown):
    """The verdict about a successor that only tightens."""

    schema_: Annotated[str, Field(alias="schema")]
    kind: str
    old: Digest
    new: Digest
    initiator: Name
    no_looser: bool
    basis: str
    changes: list[Change]
    objections: list[Any]
    witnesses: list[Any]
    z3: Any


class State(Shown):
    """The contract's state that a decision was made in."""

    executed: bool
    exited_parties: list[Name]
    halted: bool
    now: Time
    rotated_keys: dict[str, KeyText]
    standing: str


class Evaluated(Shown):
    """What a contract says about a hypothetical request."""

    allow: bool
    clauses: list[str]
    findings: list[Finding]
    state: State


class DecisionLine(Shown):
    """A decision on record. Type and party are null where nobody disclosed what it was about."""

    index: int
    decision: Digest
    point: str
    type: str | None
    party: Name | None
    outcome: str
    clauses: list[str]
    run: RunId | None
    round: int | None
    at: Time


class Decisions(Shown):
    """Decisions, oldest first; ``next``: the index to go on after, null at the end of the log."""

    decisions: list[DecisionLine]
    next: int | None


class DecisionShown(DecisionLine):
    """A decision with everything that it takes to make it again."""

    record: dict[str, Any]
    request: dict[str, Any]
    state: dict[str, Any]
    salt: str


class Enforced(Shown):
    """Where code can refuse by a clause."""

    clause: str
    kind: str
    label: str
    points: list[str]


class Enforcement(Shown):
    """Every clause of a contract, with where code can refuse by it."""

    contract: Digest
    clauses: list[Enforced]


class Mark(Shown):
    """A past request."""

    type: str
    run: str | None
    round: int | None
    party: Name | None


class ClauseTried(Shown):
    """What one clause of a proposal would have done."""

    clause: str
    refused: list[Mark]
    allowed: list[Mark]
    cannot_tell: list[Mark]


class DryRunShown(Shown):
    """What a proposal would have done on past decisions."""

    proposal: Digest
    records: int
    unchanged: int
    by_clause: list[ClauseTried]
    lines: list[str]


class Exit(Shown):
    """When a party left, and what becomes of its updates."""

    at: Time
    choice: str


class Terminated(Shown):
    """By what a contract ended."""

    clause: str | None
    code: str


class NeverSigned(Shown):
    """Why a text never became a contract."""

    negotiation: str
    round: int
    party: Name
    code: str
    clause: str | None


class AskedOut(Shown):
    """Who asks for a party to leave, and what shall become of its updates."""

    party: Name
    choice: str
    by: list[Name]


class Life(Shown):
    """Where a contract stands."""

    digest: Digest
    standing: str
    since: Time | None
    halts: list[Digest]
    resumed_by: dict[str, list[Name]]
    exited: dict[str, Exit]
    asked_out: list[AskedOut]
    rotated: dict[str, KeyText]
    terminated: Terminated | None
    superseded_by: Digest | None


class Notice(Shown):
    """What a notice says."""

    contract: Digest
    kind: str
    party: Name
    seq: int
    at: Time
    digest: Digest
    code: str
    clause: str | None
    text: str | None
    refers: Digest | None
    subject: str | None
    choice: str | None


class Lifecycle(Life):
    """Where a contract stands, and every notice about it."""

    closed: NeverSigned | None
    notices: list[Notice]


class Notices(Shown):
    """Notices about a contract, oldest first."""

    notices: list[Notice]
    next: str = ABSENT


class NoticeTaken(Life):
    """Where a contract stands after a notice."""

    notice: Digest
    receipts: list[Receipt] = ABSENT
