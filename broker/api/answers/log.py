# SPDX-License-Identifier: Apache-2.0
"""What the rooms of the log and of its witnesses answer."""

from __future__ import annotations

from typing import Literal

from broker.api.answers.proposals import ProposalShown  # noqa: TC001  pydantic reads the annotations
from broker.api.answers.values import (
    Base64,
    Digest,
    Dsse,
    KeyText,
    Millis,
    Receipt,
)
from broker.api.declared import Shown

__all__ = [
    "Checkpoint",
    "Complained",
    "Consistency",
    "Cosigned",
    "Entries",
    "EntryShown",
    "GradedReceipt",
    "HeadShown",
    "Inclusion",
    "KeyRegistered",
    "LogKeys",
    "Prefix",
    "Status",
    "WitnessKeys",
]


class Checkpoint(Shown):
    """The newest signed head, as a signed note."""

    note: str
    size: int
    root: Base64


class Consistency(Shown):
    """The newest signed head, and that an older tree is a prefix of its tree."""

    note: str
    size: int
    old_size: int
    proof: list[Base64]


class EntryShown(Receipt):
    """An entry and its proof at the newest signed head."""

    index: int


class EntryLine(Shown):
    """An entry as it was hashed."""

    index: int
    entry: str


class Entries(Shown):
    """Entries up to the newest signed head, in their order; ``next``: the index to go on after, or null."""

    size: int
    entries: list[EntryLine]
    next: int | None


class Rotation(Receipt):
    """A change of the log's key, proven under the key before it."""

    vkey: str


class LogKeys(Shown):
    """Every change of the log's key."""

    rotations: list[Rotation]


class Inclusion(Shown):
    """That a leaf is in a tree."""

    index: int
    size: int
    leaf_hash: Base64
    root: Base64
    proof: list[Base64]


class Prefix(Shown):
    """That one tree is a prefix of another."""

    old: int
    new: int
    old_root: Base64
    new_root: Base64
    proof: list[Base64]


class GradedReceipt(EntryShown):
    """A receipt, and whether a quorum of witnesses stands behind it."""

    grade: Literal["signed", "witnessed"]


class NodeLine(Shown):
    """A node, and whether it would answer now."""

    org: str
    node: str
    state: str


class LogLine(Shown):
    """The log's newest head; why it is frozen, or null."""

    size: int
    root: Base64
    frozen: str | None


class RunCounts(Shown):
    """How many runs there are."""

    open: int
    all: int


class WitnessLine(Shown):
    """A witness, and when it was heard."""

    name: str
    legal_name: str
    size: int | None
    age_s: int | None
    missing: bool


class WitnessesStatus(Shown):
    """The quorum and its age."""

    k: int
    n: int
    tolerates: int | None
    witnesses: list[WitnessLine]
    size: int | None
    voters: list[str]
    age_s: int | None
    alarm: bool
    contribution_to_quorum_ms: int | None


class BackupAges(Shown):
    """When the last backup was made, and when one was last restored on trial."""

    last_ms: Millis | None
    tested_ms: Millis | None


class Status(Shown):
    """How the broker is; ``proposals`` wait for a second person."""

    url: str
    origin: str
    broker_key: KeyText
    nodes: list[NodeLine]
    log: LogLine
    witnesses: WitnessesStatus
    members: dict[str, int]
    runs: RunCounts
    version: str
    backup: BackupAges
    proposals: int


class KeyRegistered(Shown):
    """Whose witness key it is, whether that was new, and whether it votes or waits for two people."""

    owner: str
    registered: Literal[True]
    news: bool
    votes: bool
    proposal: ProposalShown | None


class WitnessKey(Shown):
    """A witness's key with the statement of its owner."""

    owner: str
    vkey: str
    statement: Dsse


class WitnessKeys(Shown):
    """Every statement in force, and the policy text."""

    witnesses: list[WitnessKey]
    policy: str


class HeadShown(Shown):
    """The head to cosign, and the newest one with a quorum."""

    size: int
    note: str | None
    checkpoint: str | None


class Cosigned(Shown):
    """How many lines were new, and the size that a quorum has now."""

    stored: int
    witnessed: int


class Complained(Shown):
    """What a complaint proved."""

    kind: str
    evidence: Digest
    frozen: bool
