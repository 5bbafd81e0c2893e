# SPDX-License-Identifier: Apache-2.0
"""The closed list of entry types, who may make each, and its fields: one table that both ends check by.

- `by`: ``B`` the broker alone, ``M`` a member's envelope is required, ``MB`` either, ``A`` the auditor's
  envelope is required.
- `pub`: fields in clear, exactly these, each of its kind. `sd`: fields that stand as salted commitments,
  exactly these; every type has ``at`` (the exact time) besides. `sd_optional` may be absent.
- `key`: the fields that make a broker's event the event it is; its id is derived from them
  (`policies.log.entries.event_id`), so that a repeated call gives the same id. Names of entry fields
  (``run``, ``round``, ``ref`` = the first reference) or of ``pub`` fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from policies.limits import LEDGER_BLOCKS, TEAMS_MAX
from policies.log.kinds import (
    ALIAS,
    CLAUSE,
    DECIMAL,
    DIGEST,
    FIELD,
    ID,
    INTEGER,
    KEY_NAME,
    LABEL,
    MECHANISM,
    MINUTE,
    NAME,
    ORIGIN,
    REASON,
    TIME_MS,
    VALUE,
    VERSION,
    VKEY,
    WARNINGS,
    Kind,
    enum,
    many,
    nullable,
    per_alias,
    per_name,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUDIT_FIGURES", "CHECKED_SUM", "MEMBER_SET", "REFUSALS", "SCHEMA", "EntryType", "Schema"]

REFUSALS = frozenset(
    {
        "round-closed",  # it came after its attempt was settled
        "attempt-abandoned",  # too few groups answered: nobody's update is used
        "duplicate",  # a second submission of one party in one attempt
        "update.not-finite",
        "update.norm",
        "update.shape",
        "update.unfit",  # it does not fit the ring that sums are made on
        # what secure aggregation refuses: the codes of `policies.secagg.errors`
        "secagg.behind",
        "secagg.cohort-too-small",
        "secagg.context-mismatch",
        "secagg.key-not-pinned",
        "secagg.partition-bad",
        "secagg.refused",
        "secagg.round-burned",
        "secagg.setup-gone",
        "secagg.share-bad",
        "secagg.slot-used",
        "secagg.sum-wrong",
        "secagg.threshold",
        "secagg.vector-late",
        "secagg.views-differ",
        "envelope-malformed",
        "privacy.reply-field",  # it says more than its update: a count, a loss, a key that nobody knows
        "decision-missing",
        "decision-malformed",
        "decision-differs",
        "submission-missing",
        "submission-differs",  # another tensor, plan or number of steps
        "spend-missing",
        "spend-differs",
        "privacy.canary-missing",  # no commitment to canaries before it, where the contract asks for them
        "privacy.audit-failed",  # its step receipt is not what plan and log say
        "contract-refused",  # a clause of the contract; the entry names it
        "team-left-out",  # the sum of its team: too few in it, beyond the norm, or not chosen by the judges
    }
)
"""Why a submission may be refused: the closed list of ``contribution.refused``."""


class EntryType(StrEnum):
    """What can happen. The list is closed; an unknown type is a finding."""

    LOG_GENESIS = "log.genesis"
    LOG_FROZEN = "log.frozen"
    KEY_ADDED = "key.added"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    WITNESS_ADDED = "witness.added"
    WITNESS_REMOVED = "witness.removed"
    POLICY_ACTIVATED = "policy.activated"
    ORG_ONBOARDED = "org.onboarded"
    ORG_SUSPENDED = "org.suspended"
    ORG_REINSTATED = "org.reinstated"
    ORG_LEFT = "org.left"
    CONTRACT_PROPOSED = "contract.proposed"
    CONTRACT_SIGNED = "contract.signed"
    CONTRACT_FINALIZED = "contract.finalized"
    CONTRACT_AMENDED = "contract.amended"
    CONTRACT_HALTED = "contract.halted"
    CONTRACT_RESUMED = "contract.resumed"
    CONTRACT_EXITED = "contract.exited"
    CONTRACT_EXPIRED = "contract.expired"
    CONTRACT_TERMINATED = "contract.terminated"
    RUN_OPENED = "run.opened"
    RUN_CLOSED = "run.closed"
    ROUND_OPENED = "round.opened"
    ROUND_CLOSED = "round.closed"
    SUBMISSION_RECEIVED = "submission.received"
    CONTRIBUTION_ACCEPTED = "contribution.accepted"
    CONTRIBUTION_REFUSED = "contribution.refused"
    CONTRIBUTION_WITHDRAWN = "contribution.withdrawn"
    EVALUATION_RECEIVED = "evaluation.received"
    VOTE_CAST = "vote.cast"
    ROUND_ACK = "round.ack"
    ROUND_VOTED = "round.voted"
    ROUND_JUDGED = "round.judged"
    ROUND_SCORED = "round.scored"
    ROUND_CHOSEN = "round.chosen"
    SUM_WITHDRAWN = "sum.withdrawn"
    CHAIN_RESET = "chain.reset"
    BUDGET_OPENED = "budget.opened"
    EPSILON_SPENT = "epsilon.spent"
    CANARY_COMMITTED = "canary.committed"
    CANARY_REVEALED = "canary.revealed"
    AGGREGATE_RELEASED = "aggregate.released"
    DECISION_RECORDED = "decision.recorded"
    CANDIDATE_EVALUATED = "candidate.evaluated"
    MODEL_RELEASED = "model.released"
    MODEL_REFUSED = "model.refused"
    MODEL_EXPORTED = "model.exported"
    SETTLEMENT_STATED = "settlement.stated"
    ACCESS_GRANTED = "access.granted"
    ACCESS_REVOKED = "access.revoked"
    ACCESS_USED = "access.used"
    DISCLOSURE_MADE = "disclosure.made"
    CONSOLE_ACTION = "console.action"
    ERASURE_PERFORMED = "erasure.performed"
    EXPORT_AUDIT_BUNDLE = "export.audit_bundle"
    AUDIT_CONCLUDED = "audit.concluded"
    INCIDENT_DECLARED = "incident.declared"
    INCIDENT_CLOSED = "incident.closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Fields of one entry type; see the module docstring."""

    by: str
    pub: Mapping[str, Kind]
    sd: Mapping[str, Kind] = field(default_factory=dict)
    sd_optional: Mapping[str, Kind] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    member_only: frozenset[str] = frozenset()

    def sd_kind(self, name: str) -> Kind | None:
        """Kind of a confidential field, also of ``at``; None if the type has no such field."""
        if name == "at":
            return TIME_MS
        return self.sd.get(name) or self.sd_optional.get(name)

    @property
    def member_made(self) -> bool:
        """Whether a member's (or the auditor's) envelope may stand behind it."""
        return self.by != "B"


MEMBER_SET: Mapping[str, Kind] = MappingProxyType({"chain": Kind("chain", ALIAS.holds), "seq": INTEGER})
"""Confidential fields that the broker takes from the envelope's own header, not from its body."""

_STATE_CHANGE: dict[str, Kind] = {"contract": DIGEST, "clause": nullable(CLAUSE), "reason": REASON}
_PEOPLE_CHANGE: dict[str, Kind] = {"org": ALIAS, "reason": REASON}
_WITNESS: Mapping[str, Kind] = {"witness": KEY_NAME, "vkey": VKEY, "org": ALIAS, "policy": DIGEST}
_RELEASE: Mapping[str, Kind] = {
    "model": DIGEST,
    "tier": NAME,
    "clause": CLAUSE,
    "statement": nullable(DIGEST),
}
_ROUND_VERDICT = enum("accepted", "refused", "withdrawn", "declined", "silent")
_PREDECESSOR = record({"origin": ORIGIN, "size": INTEGER, "root": DIGEST, "note": DIGEST, "cause": REASON})
_ROLE = enum("log", "broker", "operator", "node", "fleet", "auditor", "witness")
_ALGORITHM = enum("ed25519", "ecdsa-p256", "ml-dsa-44")
_GRADE = enum("auditor", "member")
_OUTCOME = enum("pass", "fail")
AUDIT_FIGURES = record(
    {
        "conformance": nullable(
            record(
                {
                    "report": DIGEST,
                    "mu": DECIMAL,
                    "mu_expected": DECIMAL,
                    "eps_low": DECIMAL,
                    "verdict": _OUTCOME,
                }
            )
        ),
        "property": nullable(record({"report": DIGEST, "skill": DECIMAL, "verdict": _OUTCOME})),
    }
)
"""What a node says of its own audits on made-up units, beside its evaluation of a candidate."""
_RECEIPT = record(
    {"steps_total": INTEGER, "ledger_head": DIGEST, "sampler": NAME, "engine": NAME, "generator": NAME}
)
CHECKED_SUM = record({"round": INTEGER, "attempt": INTEGER, "sums": many(DIGEST, TEAMS_MAX)})
"""What a member says of the newest opened sum that it was shown, of each opened team, once its tag held."""

_T = EntryType

SCHEMA: Mapping[EntryType, Schema] = MappingProxyType(
    {
        _T.LOG_GENESIS: Schema(
            by="B",
            pub={"software": VERSION, "policy": DIGEST, "predecessor": nullable(_PREDECESSOR)},
            key=(),
        ),
        _T.LOG_FROZEN: Schema(by="B", pub={"reason": REASON, "successor": nullable(ORIGIN)}, key=()),
        _T.KEY_ADDED: Schema(
            by="B",
            pub={"role": _ROLE, "alg": _ALGORITHM, "kid": DIGEST, "vkey": nullable(VKEY)},
            sd_optional={"key": LABEL, "chain": MEMBER_SET["chain"]},
            key=("role", "kid"),
        ),
        _T.KEY_ROTATED: Schema(
            by="MB",
            pub={"old": DIGEST, "new": DIGEST, "role": _ROLE},
            sd={"vkey": LABEL},
            key=("old", "new"),
        ),
        _T.KEY_REVOKED: Schema(
            by="MB", pub={"kid": DIGEST, "reason": REASON, "valid_until": INTEGER}, key=("kid",)
        ),
        _T.WITNESS_ADDED: Schema(by="B", pub=_WITNESS, key=("witness", "vkey", "policy")),
        _T.WITNESS_REMOVED: Schema(by="B", pub=_WITNESS, key=("witness", "vkey", "policy")),
        _T.POLICY_ACTIVATED: Schema(
            by="B",
            pub={"kind": enum("trust", "broker"), "digest": DIGEST, "previous": nullable(DIGEST)},
            key=("kind", "digest", "previous"),
        ),
        _T.ORG_ONBOARDED: Schema(
            by="B",
            pub={"org": ALIAS, "evidence": DIGEST, "approvers": many(NAME, 8)},
            sd={"org": ID},
            key=("org", "evidence"),
        ),
        _T.ORG_SUSPENDED: Schema(by="B", pub=_PEOPLE_CHANGE | {"request": DIGEST}, key=("org", "request")),
        _T.ORG_REINSTATED: Schema(by="B", pub=_PEOPLE_CHANGE | {"request": DIGEST}, key=("org", "request")),
        _T.ORG_LEFT: Schema(by="B", pub=_PEOPLE_CHANGE | {"request": DIGEST}, key=("org", "request")),
        _T.CONTRACT_PROPOSED: Schema(
            by="MB",
            pub={"contract": DIGEST, "version": INTEGER, "supersedes": nullable(DIGEST)},
            key=("contract",),
        ),
        _T.CONTRACT_SIGNED: Schema(
            by="M",
            pub={"contract": DIGEST, "party": ALIAS},
            sd_optional={"acknowledged": WARNINGS},  # absent where the linter warned of nothing
        ),
        _T.CONTRACT_FINALIZED: Schema(
            by="B",
            pub={"contract": DIGEST, "signatures": DIGEST, "prose": nullable(DIGEST)},
            key=("contract",),
        ),
        _T.CONTRACT_AMENDED: Schema(
            by="B",
            pub={
                "old": DIGEST,
                "new": DIGEST,
                "kind": enum("tighten", "change"),
                "proof": nullable(DIGEST),
            },
            key=("old", "new"),
        ),
        _T.CONTRACT_HALTED: Schema(by="MB", pub=_STATE_CHANGE | {"notice": DIGEST}, key=("notice",)),
        _T.CONTRACT_RESUMED: Schema(by="MB", pub=_STATE_CHANGE | {"notice": DIGEST}, key=("notice",)),
        _T.CONTRACT_EXITED: Schema(by="MB", pub=_STATE_CHANGE | {"notice": DIGEST}, key=("notice",)),
        _T.CONTRACT_EXPIRED: Schema(by="MB", pub=_STATE_CHANGE, key=("contract",)),
        _T.CONTRACT_TERMINATED: Schema(by="MB", pub=_STATE_CHANGE, key=("contract",)),
        _T.RUN_OPENED: Schema(by="B", pub={"recipe": DIGEST, "contract": DIGEST}, key=("run",)),
        _T.RUN_CLOSED: Schema(
            by="B",
            pub={"final_round": INTEGER, "outcome": enum("completed", "stopped", "failed")},
            key=("run",),
        ),
        _T.ROUND_OPENED: Schema(
            by="B",
            pub={
                "recipe": DIGEST,
                "plan": nullable(DIGEST),
                "base_model": DIGEST,
                "deadline": MINUTE,
                "cohort": INTEGER,
                "attempt": INTEGER,
            },
            key=("run", "round", "attempt"),
        ),
        _T.ROUND_CLOSED: Schema(
            by="B",
            pub={
                "attempt": INTEGER,
                "received": INTEGER,
                "accepted": INTEGER,
                "refused": INTEGER,
                "withdrawn": INTEGER,
                "parties": per_alias(record({"received": INTEGER, "verdict": _ROUND_VERDICT})),
                "outcome": enum("aggregated", "abandoned"),
            },
            key=("run", "round", "attempt"),
        ),
        _T.SUBMISSION_RECEIVED: Schema(
            by="M",
            pub={"update": DIGEST, "plan": nullable(DIGEST), "steps": INTEGER, "attempt": INTEGER},
            sd=MEMBER_SET,
            # absent: `receipt` without plan; `trained` where the spend is this attempt's own; `checked` where
            # the node was shown no sum
            sd_optional={"receipt": _RECEIPT, "trained": INTEGER, "checked": CHECKED_SUM},
        ),
        _T.CONTRIBUTION_ACCEPTED: Schema(by="B", pub={}, key=("ref",)),
        _T.CONTRIBUTION_REFUSED: Schema(
            by="B",
            pub={"reason": REASON, "clause": nullable(CLAUSE)},
            sd={"need": VALUE, "got": VALUE},
            key=("ref",),
        ),
        _T.CONTRIBUTION_WITHDRAWN: Schema(by="M", pub={"reason": REASON}, sd=MEMBER_SET),
        _T.EVALUATION_RECEIVED: Schema(
            by="M",
            pub={"candidate": DIGEST, "evaluation": DIGEST},
            sd=MEMBER_SET,
            sd_optional={"figures": AUDIT_FIGURES},  # absent: the node has no audits of its own
        ),
        _T.VOTE_CAST: Schema(
            by="M",
            pub={"subject": DIGEST, "vote": enum("approve", "veto"), "clause": nullable(CLAUSE)},
            sd=MEMBER_SET,
        ),
        _T.ROUND_ACK: Schema(
            by="M", pub={"closed": INTEGER, "leaf": DIGEST, "count": INTEGER}, sd=MEMBER_SET
        ),
        _T.ROUND_VOTED: Schema(
            by="M",
            pub={
                "model": DIGEST,
                "against": DIGEST,
                "vote": enum("accept", "reject"),
                "evaluation": DIGEST,
            },
            sd=MEMBER_SET,
        ),
        _T.ROUND_JUDGED: Schema(
            by="B",
            pub={
                "model": DIGEST,
                "against": DIGEST,
                "accepting": INTEGER,
                "voting": INTEGER,
                "verdict": enum("accepted", "rejected"),
                "rejected_rounds": INTEGER,
            },
            key=("run", "round"),
        ),
        _T.ROUND_SCORED: Schema(
            by="M",
            pub={
                "base": DIGEST,
                "against": DIGEST,
                "sums": many(DIGEST, TEAMS_MAX),
                "evaluation": DIGEST,
            },
            sd={**MEMBER_SET, "gains": VALUE},
        ),
        _T.ROUND_CHOSEN: Schema(
            by="B",
            pub={
                "attempt": INTEGER,
                "base": DIGEST,
                "against": DIGEST,
                "transcript": DIGEST,
                "opened": many(INTEGER, TEAMS_MAX),
                "failed": many(INTEGER, TEAMS_MAX),
                "chosen": many(INTEGER, TEAMS_MAX),
                "judges": INTEGER,
                "rejected_rounds": INTEGER,
            },
            key=("run", "round"),
        ),
        _T.SUM_WITHDRAWN: Schema(
            by="B",
            pub={"attempt": INTEGER, "model": DIGEST, "against": DIGEST, "saying": INTEGER},
            key=("run", "round"),
        ),
        _T.CHAIN_RESET: Schema(
            by="M",
            pub={"reason": enum("disk-loss", "restore")},
            sd={"old_chain": MEMBER_SET["chain"], "last_seq": nullable(INTEGER)},
        ),
        _T.BUDGET_OPENED: Schema(
            by="M",
            pub={
                "unit": enum("episode", "work-piece", "order"),
                "adjacency": enum("zero-out", "add-remove"),
                "delta": DECIMAL,
                "alpha_star": INTEGER,
                "plan": DIGEST,
            },
            sd={"lineage": LABEL, "epsilon_max": DECIMAL},
        ),
        _T.EPSILON_SPENT: Schema(
            by="M",
            pub={"mechanism": MECHANISM, "plan": DIGEST, "steps": INTEGER},
            sd={"lineage": LABEL, "rho_nano": INTEGER, "epsilon_after": DECIMAL},
            sd_optional={"blocks": many(INTEGER, LEDGER_BLOCKS)},  # absent: a lineage of one block
        ),
        _T.CANARY_COMMITTED: Schema(by="M", pub={"commitment": DIGEST, "audit": ID}),
        _T.CANARY_REVEALED: Schema(
            by="M", pub={"seed": DIGEST, "audit": ID}, sd={"canary_seed": LABEL, "flips": VALUE}
        ),
        _T.AGGREGATE_RELEASED: Schema(
            by="B",
            pub={
                "aggregate": DIGEST,
                "model": DIGEST,
                "attempt": INTEGER,
                "count": INTEGER,
                "transcript": nullable(DIGEST),
            },
            key=("run", "round", "attempt"),
        ),
        _T.DECISION_RECORDED: Schema(
            by="MB",
            pub={
                "point": enum("node", "broker", "gate", "auditor"),
                "outcome": enum("allow", "refuse"),
                "clauses": many(CLAUSE),
                "decision": DIGEST,
            },
            key=("point", "decision"),
        ),
        _T.CANDIDATE_EVALUATED: Schema(
            by="B",
            pub={"candidate": DIGEST, "checks": per_name(enum("pass", "fail")), "report": DIGEST},
            sd_optional={"figures": VALUE},
            key=("candidate", "report"),
        ),
        _T.MODEL_RELEASED: Schema(by="B", pub=_RELEASE, key=("model", "tier")),
        _T.MODEL_REFUSED: Schema(by="B", pub=_RELEASE, key=("model", "tier", "ref")),
        _T.MODEL_EXPORTED: Schema(
            by="B",
            pub={
                "model": DIGEST,
                "recipient": ALIAS,
                "tier": NAME,
                "attestation": nullable(DIGEST),
                "request": DIGEST,
            },
            key=("model", "recipient", "request"),
        ),
        _T.SETTLEMENT_STATED: Schema(
            by="B",
            pub={"period": NAME, "method": NAME, "statement": DIGEST},
            sd={"shares": VALUE},
            key=("period", "statement"),
        ),
        _T.ACCESS_GRANTED: Schema(
            by="B",
            pub={
                "grantee": NAME,
                "resource": NAME,
                "grant": ID,
                "fields": nullable(many(FIELD, 64)),  # null: every confidential field
                "from_index": INTEGER,  # entries before it stay closed
                "until": nullable(MINUTE),
                "request": DIGEST,
            },
            key=("grant", "request"),
        ),
        _T.ACCESS_REVOKED: Schema(
            by="B",
            pub={"grantee": NAME, "resource": NAME, "grant": ID, "request": DIGEST},
            key=("grant", "request"),
        ),
        _T.ACCESS_USED: Schema(
            by="B",
            pub={"grantee": NAME, "resource": NAME, "grant": ID, "request": DIGEST},
            key=("grant", "request"),
        ),
        _T.DISCLOSURE_MADE: Schema(
            by="B",
            pub={"indexes": many(INTEGER), "fields": many(FIELD), "grantee": NAME, "grant": ID},
            key=("grant", "grantee", "indexes", "fields"),
        ),
        _T.CONSOLE_ACTION: Schema(
            by="B",
            pub={
                "operator": NAME,
                "action": REASON,
                "subject": nullable(DIGEST),
                "result": enum("done", "refused"),
                "request": DIGEST,
            },
            key=("operator", "request"),
        ),
        _T.ERASURE_PERFORMED: Schema(
            by="B",
            pub={"indexes": many(INTEGER), "fields": many(FIELD), "reason": REASON, "request": DIGEST},
            key=("request",),
        ),
        _T.EXPORT_AUDIT_BUNDLE: Schema(
            by="B",
            pub={"from_size": INTEGER, "to_size": INTEGER, "grade": _GRADE, "bundle": DIGEST},
            key=("bundle",),
        ),
        _T.AUDIT_CONCLUDED: Schema(
            by="A",
            pub={
                "report": DIGEST,
                "checkpoint": DIGEST,
                "conclusion": enum("clean", "reservations", "adverse"),
            },
        ),
        _T.INCIDENT_DECLARED: Schema(
            by="MB", pub={"kind": REASON, "evidence": DIGEST}, key=("kind", "evidence")
        ),
        _T.INCIDENT_CLOSED: Schema(
            by="MB", pub={"kind": REASON, "evidence": DIGEST}, key=("kind", "evidence")
        ),
    }
)
