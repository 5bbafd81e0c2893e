# SPDX-License-Identifier: Apache-2.0
"""What the rooms of runs, candidates and releases answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from broker.api.answers.values import (
    ABSENT,
    Digest,
    Millis,
    Name,
    NodeId,
    Receipt,
    RunId,
)
from broker.api.declared import Shown

__all__ = [
    "Candidates",
    "Releases",
    "Report",
    "RunMoved",
    "RunOpened",
    "RunShown",
    "Runs",
    "Statement",
    "VoteTaken",
]


class RunOpened(Shown):
    """A run that begins."""

    run: RunId
    contract: Digest
    recipe: Digest
    state: str
    rounds_left: int | None


class RunMoved(Shown):
    """A run that an operator stopped, paused, or let go on."""

    run: RunId
    contract: Digest
    state: str
    stopping: bool = ABSENT
    resumed: bool = ABSENT
    paused: bool = ABSENT


class Waiting(Shown):
    """Why a run asks nobody just now; who said what, for operators."""

    until_ms: Millis
    ends_ms: Millis | None
    reason: str
    parties: list[Name] = ABSENT
    codes: dict[str, str] = ABSENT
    remedy: str = ABSENT


class Rejected(Shown):
    """That silos rejected the run's models, and it waits for an operator's word."""

    rounds: Any
    stands: Any
    remedy: str = ABSENT


class Away(Shown):
    """A member that a run misses."""

    party: Name
    name: str
    online: bool
    since_ms: Millis | None


class Short(Shown):
    """What a run is short of."""

    groups: int
    groups_needed: int
    members: int
    members_needed: int
    names: list[str]
    remedy: str


class RunLine(Shown):
    """A run. Where a contract opens the budget alone, ``budget_only`` is true and the rest is left out."""

    run: RunId
    contract: Digest
    recipe: Digest
    recipe_id: str
    state: str
    outcome: str | None
    round: int = ABSENT
    steps: int = ABSENT
    model: Digest | None = ABSENT
    opened_ms: Millis = ABSENT
    stopping: bool = ABSENT
    paused_ms: Millis | None = ABSENT
    waiting: Waiting | None = ABSENT
    rejected: Rejected | None = ABSENT
    away: list[Away] = ABSENT
    short: Short | None = ABSENT
    budget_only: bool = ABSENT


class RunRefused(Shown):
    """A run that a contract does not let the caller see now."""

    run: RunId | None
    contract: Digest
    code: str
    clause: str | None


class Runs(Shown):
    """The newest runs of the caller's contracts, oldest first; ``next`` leads to older ones."""

    runs: list[RunLine]
    refused: list[RunRefused] = ABSENT
    next: str = ABSENT


class Refusal(Shown):
    """What a check found that ended a run."""

    clause: str
    check: str
    need: str
    found: str
    remedy: str


class Ended(Shown):
    """Why a run ended before its last round."""

    reason: str
    code: str | None
    remedy: str | None
    round: int | None
    clauses: list[str]
    findings: list[Refusal]


class RoundLine(Shown):
    """One attempt of one round: how many replies it took, and what came of it."""

    round: int
    attempt: int
    at_ms: Millis
    model: Digest | None
    accepted: int
    refused: int
    silent: int
    unasked: int
    unused: int


class Out(Shown):
    """A member that is asked for no further round."""

    party: Name | None
    node: NodeId
    kind: str
    round: int | None
    evidence: Digest


class RunShown(RunLine):
    """A run and its rounds."""

    plan: Digest | None = ABSENT
    ended: Ended | None = ABSENT
    rounds: list[RoundLine] = ABSENT
    out: list[Out] = ABSENT
    suspects: list[str] = ABSENT


class Need(Shown):
    """What an open tier of a candidate waits for."""

    tier: str
    clause: str
    check: str
    need: str
    found: str


class Candidate(Shown):
    """A model at the release gate; the votes of all are for operators."""

    candidate: Digest
    run: RunId
    contract: Digest
    recipe: Digest
    state: str
    own_vote: str | None
    votes: dict[str, str] | None
    voted: int
    report: Digest | None
    refused_by: list[str]
    waits_for: list[Need]
    opens_ms: Millis | None


class Candidates(Shown):
    """The newest candidates of the caller's contracts, oldest first; ``next`` leads to older ones."""

    candidates: list[Candidate]
    next: str = ABSENT


class VoteTaken(Shown):
    """A vote that counts."""

    candidate: Digest
    party: Name
    vote: str
    receipts: list[Receipt]


class Release(Shown):
    """A released model in one tier."""

    model: Digest
    tier: str
    contract: Digest
    recipe: Digest
    recipe_id: str
    run: RunId
    statement: Digest
    at_ms: Millis
    made_ms: Millis


class Releases(Shown):
    """The newest releases of the caller's contracts, oldest first; ``next`` leads to older ones."""

    releases: list[Release]
    next: str = ABSENT


class Statement(BaseModel):
    """The privacy statement of a release, in the bytes that were signed."""

    model_config = ConfigDict(extra="allow")


class Report(BaseModel):
    """The evaluation report of a candidate, in the bytes that its digest names."""

    model_config = ConfigDict(extra="allow")
