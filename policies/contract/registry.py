# SPDX-License-Identifier: Apache-2.0
"""Which kinds of clause exist, where code can refuse by them, and at which requests.

- A row of `KINDS` is the largest set of points that a clause of the kind may claim in ``enforced_by``. A
  claim beyond it, or leaving out ``law`` where a part stays with people, is
  `contract.enforcement-overclaimed`.
- `Kind.requests` names the request types that evaluate the kind. A test shows for every point of every row a
  request, asked at that point, which a clause of the kind refuses.
- A new kind is a new row here, a dataclass in `policies.contract.clauses` and its checks in
  `policies.contract.checks`.
- A kind without points is law only: it is signed and shown, and no screen calls it enforced.
- Some clauses have fewer points than their kind, because of what else the contract says: `most_claims`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ASKED_AT",
    "CANARY_REPORT",
    "EVIDENCE",
    "EVIDENCE_MADE",
    "FORBIDDEN_CHECKS",
    "HIDING",
    "KINDS",
    "LAW",
    "MEMBERSHIP_REPORT",
    "METRICS",
    "OWN_VIEWS",
    "POINTS",
    "PROPERTY_REPORT",
    "PROTECTED_GROUPS",
    "RECIPIENTS",
    "SCHEMA",
    "VIEWS",
    "Kind",
    "most_claims",
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
    "Query": frozenset({"broker", "auditor"}),
    "Join": frozenset({"node", "broker", "auditor"}),
    "Exit": frozenset({"node", "broker", "auditor"}),
}
_ALL: Final = frozenset(ASKED_AT)
_WORK: Final = frozenset({"TrainRound", "Aggregate", "Release", "Deliver"})


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
        _kind("term", "node broker gate auditor", _ALL - {"Exit"}),
        _kind("purpose", "node broker", frozenset({"TrainRound", "Aggregate"}), law=True),
        _kind(
            "forbidden",
            "node broker gate",
            frozenset({"TrainRound", "Release", "Deliver", "Query"}),
            law=True,
        ),
        _kind("recipe", "node broker auditor", frozenset({"TrainRound", "Aggregate"})),
        _kind("seed", "node broker", frozenset({"TrainRound"}), law=True),
        _kind("fields", "node broker", frozenset({"TrainRound"})),
        _kind("secret", "node broker gate", frozenset({"TrainRound", "Release"}), law=True),
        _kind(
            "privacy", "node broker gate auditor", frozenset({"TrainRound", "Aggregate", "Release", "Query"})
        ),
        _kind("privacy-cap", "node broker gate auditor", frozenset({"TrainRound", "Release"})),
        _kind(
            "aggregation",
            "node broker gate auditor",
            frozenset({"TrainRound", "Aggregate", "Release", "Deliver", "Query"}),
        ),
        _kind("validation", "broker gate", frozenset({"Aggregate", "Release"})),
        _kind("queries", "broker", frozenset({"Query"})),
        _kind("tier", "gate node", frozenset({"Release", "Deliver"}), law=True),
        _kind("release", "gate auditor", frozenset({"Release"})),
        _kind("exit", "node broker", frozenset({"Exit"}), law=True),
        _kind("audit", "broker gate auditor", frozenset({"Aggregate", "Release"})),
        _kind("export", "gate", frozenset({"Deliver"}), law=True),
        _kind("amendment", "node broker auditor", frozenset({"Join"})),
        _kind("halt", "node broker gate", _WORK),
        _kind("conflict", "node broker gate auditor", _ALL),
        # what only people and courts keep, in this version
        _kind("prose", "", frozenset(), law=True),
        _kind("derivatives", "", frozenset(), law=True),
        _kind("retention", "", frozenset(), law=True),
        _kind("incentives", "", frozenset(), law=True),
        _kind("fees", "", frozenset(), law=True),
        _kind("liability", "", frozenset(), law=True),
        _kind("law", "", frozenset(), law=True),
    )
}

# Which points serve each machine check of a `forbidden` clause, and at which requests.
FORBIDDEN_CHECKS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "membership-inference": (frozenset({"gate"}), frozenset({"Release"})),
    "canary": (frozenset({"gate"}), frozenset({"Release"})),
    "property-leak": (frozenset({"broker", "gate"}), frozenset({"Query", "Release"})),
    "query-allow-list": (frozenset({"broker"}), frozenset({"Query"})),
    "recipe-digest": (frozenset({"node", "broker"}), frozenset({"TrainRound"})),
    "attestation": (frozenset({"gate"}), frozenset({"Deliver"})),
}
CANARY_REPORT: Final = "canary-report"
MEMBERSHIP_REPORT: Final = "membership-inference-report"
PROPERTY_REPORT: Final = "property-leak-report"
EVIDENCE: Final = (
    CANARY_REPORT,
    "federated-evaluation",
    "log-root",
    MEMBERSHIP_REPORT,
    "model-card",
    "privacy-statement",
    PROPERTY_REPORT,
)
# What a release gate of this version can put beside a candidate. The rest may be asked for, and is missing.
EVIDENCE_MADE: Final = frozenset(EVIDENCE) - {"model-card"}
# Views that a query may ask for. Nothing else exists.
METRICS: Final = "released-model-metrics"
VIEWS: Final = ("own-budget", "own-receipts", "own-share", METRICS, "run-status")
# Fewest honest groups that hide each other: one alone is the sum less what the others know.
HIDING: Final = 2
# A protected property hides among so many groups, never among four.
PROTECTED_GROUPS: Final = 5
OWN_VIEWS: Final = frozenset({"own-budget", "own-receipts", "own-share"})
RECIPIENTS: Final[dict[str, str]] = {
    "open": "public",
    "consortium": "contributors",
    "participant": "recipe-participants",
    "private": "owner",
}


def most_claims(kind: str, own: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    """The largest ``enforced_by`` that a clause may claim in this document, sorted.

    Args:
        kind: Of the clause.
        own: The clause as JSON.
        document: The whole contract as JSON: a purpose that no recipe uses, or a secret without canaries in
            the evidence, has fewer points than its kind.
    """
    row = KINDS[kind]
    points = set(row.points)
    if kind == "purpose" and own.get("id") not in {one.get("purpose") for one in document.get("recipes", ())}:
        points = set()  # no request can come under it, so no code can refuse by it
    if kind == "secret" and CANARY_REPORT not in document.get("release", {}).get("evidence", ()):
        points -= {"gate"}
    if kind == "forbidden":
        points = set(FORBIDDEN_CHECKS[own["check"]][0]) if own.get("check") in FORBIDDEN_CHECKS else set()
    return tuple(sorted(points | ({LAW} if row.law else set())))
