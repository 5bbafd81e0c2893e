# SPDX-License-Identifier: Apache-2.0
"""Which kinds of clause exist, where code can refuse by them, and which terms no code enforces yet.

- A row of `KINDS` is the largest set of points that a clause of the kind may claim in ``enforced_by``. A
  claim beyond it, or leaving out ``law`` where a part stays with people, is
  `contract.enforcement-overclaimed`.
- `Kind.requests` names the request types that evaluate the kind. A test shows for every point of every row a
  request, asked at that point, which a clause of the kind refuses.
- A new kind is a new row here, a dataclass in `policies.contract.clauses` and its checks in
  `policies.contract.checks`.
- `LATER_*` are terms of the full language that are refused by name, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ASKED_AT",
    "EVIDENCE",
    "KINDS",
    "LATER_CLAUSES",
    "LATER_EVIDENCE",
    "LATER_KEYS",
    "LAW",
    "POINTS",
    "RECIPIENTS",
    "SCHEMA",
    "Kind",
]

SCHEMA: Final = "iriai-contract/1"
LAW: Final = "law"
POINTS: Final = ("auditor", "broker", "gate", "law", "node")

# At which points each request is judged. The auditor judges all of them again, from the log.
ASKED_AT: Final[dict[str, frozenset[str]]] = {
    "TrainRound": frozenset({"node", "broker", "auditor"}),
    "Aggregate": frozenset({"broker", "auditor"}),
    "Release": frozenset({"gate", "auditor"}),
    "Deliver": frozenset({"gate", "node", "auditor"}),
}
_ALL: Final = frozenset({"TrainRound", "Aggregate", "Release", "Deliver"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One row of the registry.

    Attributes:
        name: Of the kind.
        points: Where code refuses.
        law: Whether a part of every such clause only people and courts can enforce.
        requests: Request types that evaluate it.
    """

    name: str
    points: frozenset[str]
    law: bool
    requests: frozenset[str]

    @property
    def claims(self) -> tuple[str, ...]:
        """The largest ``enforced_by``, sorted."""
        return tuple(sorted(self.points | ({LAW} if self.law else frozenset())))


def _kind(name: str, points: str, requests: frozenset[str], *, law: bool = False) -> Kind:
    return Kind(name=name, points=frozenset(points.split()), law=law, requests=requests)


KINDS: Final[dict[str, Kind]] = {
    row.name: row
    for row in (
        _kind("party", "node broker gate auditor", _ALL),
        _kind("term", "node broker gate auditor", _ALL - {"Deliver"}),
        _kind("purpose", "node broker", frozenset({"TrainRound", "Aggregate"}), law=True),
        _kind("recipe", "node broker auditor", frozenset({"TrainRound", "Aggregate"})),
        _kind("fields", "node broker", frozenset({"TrainRound"})),
        _kind("secret", "node broker", frozenset({"TrainRound"}), law=True),
        _kind("privacy", "node broker gate auditor", _ALL - {"Deliver"}),
        _kind("privacy-cap", "node broker gate auditor", frozenset({"TrainRound", "Release"})),
        _kind("aggregation", "node broker gate auditor", _ALL - {"Deliver"}),
        _kind("tier", "gate node", frozenset({"Release", "Deliver"}), law=True),
        _kind("release", "gate auditor", frozenset({"Release"})),
        _kind("conflict", "node broker gate auditor", _ALL),
    )
}

EVIDENCE: Final = ("federated-evaluation", "log-root", "privacy-statement")
LATER_EVIDENCE: Final = (
    "canary-report",
    "membership-inference-report",
    "model-card",
    "property-leak-report",
)
RECIPIENTS: Final[dict[str, str]] = {
    "open": "public",
    "consortium": "contributors",
    "participant": "recipe-participants",
    "private": "owner",
}

LATER_CLAUSES: Final = frozenset(
    [
        "prose",
        "forbidden",
        "seed_set",
        "validation",
        "queries",
        "derivatives",
        "retention",
        "exit",
        "incentives",
        "fees",
        "audit",
        "liability",
        "export_control",
        "law",
        "amendment",
        "halt",
        "test_only",
    ]
)
LATER_KEYS: Final[dict[str, frozenset[str]]] = {
    "privacy": frozenset({"honest_min", "protected_properties", "reply_slot_ms"}),
    "aggregation": frozenset({"group_mac"}),
    "tier": frozenset({"embargo_days", "min_contribution"}),
    "release": frozenset({"max_mia_auc", "max_property_skill"}),
}
