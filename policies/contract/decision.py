# SPDX-License-Identifier: Apache-2.0
"""The evaluator: one pure function, the same for the node, the broker, the release gate and the auditor.

- **Deny by default, three-valued.** A decision allows only if it has findings and *all* of them are
  satisfied. What is not known refuses, is named, and is counted once more by the conflict clause.
- **No short circuit, no priorities.** Every applicable check runs; which apply follows from type, party and
  tier only.
- **Pure.** No clock, no I/O, no exception for a refusal. The same contract, state and request give the same
  bytes, in any process.
- **Replayable.** `decision_bytes` is ``iriai-decision/1`` under the semantics ``iriai-eval/1``. The request
  stands in it as a salted commitment; whoever is given salt, request and state gets the same bytes from
  `replay`. Changed semantics get a new id, and the old ones stay runnable.

    decision = evaluate(contract, state, request)
    record = decision_bytes(
        decision, contract_digest=contract.digest, point="node", request=request, state=state, salt16=salt
    )
    decision.require()          # REFUSED: raises contract.refused with clause, need, found and remedy
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from policies.contract.case import Case
from policies.contract.checks import CHECKS
from policies.contract.checks.document import about_the_document
from policies.contract.errors import (
    ExpiredError,
    HaltedError,
    NotBegunError,
    NotExecutedError,
    RefusedError,
    RequestMalformedError,
)
from policies.contract.findings import Finding, Outcome, holds
from policies.contract.registry import ASKED_AT
from policies.contract.requests import (
    Aggregate,
    ContractState,
    Deliver,
    EpsilonAfter,
    Exit,
    Join,
    PlanFacts,
    Query,
    Release,
    Request,
    TrainRound,
    request_from_json,
    request_to_json,
    state_from_json,
    state_to_json,
)
from policies.encoding import canonical, digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract

__all__ = [
    "SCHEMA",
    "SEMANTICS",
    "Aggregate",
    "ContractState",
    "Decision",
    "Deliver",
    "EpsilonAfter",
    "Exit",
    "Finding",
    "Join",
    "Outcome",
    "PlanFacts",
    "Query",
    "Release",
    "Request",
    "TrainRound",
    "commitment",
    "decision_bytes",
    "evaluate",
    "replay",
    "request_from_json",
    "request_to_json",
    "state_from_json",
    "state_to_json",
]

Json = Any  # a JSON value

SCHEMA: Final = "iriai-decision/1"
SEMANTICS: Final = "iriai-eval/1"
_SALT_BYTES = 16
_CONFLICT: Final = "conflict"  # judged last: it looks at the other findings
_ORDER: Final = attrgetter("clause", "check")
_REFUSALS: Final[Mapping[str, type[RefusedError]]] = {  # by the name of the check
    "not-halted": HaltedError,
    "signed": NotExecutedError,
}
_OUTSIDE: Final[Mapping[str, type[RefusedError]]] = {  # where the time is known
    "not-before": NotBegunError,
    "not-after": ExpiredError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The evaluator's answer.

    Attributes:
        request_type: Of the request.
        allow: True only if there are findings and all are satisfied.
        findings: One per check, sorted by clause and check.
    """

    request_type: str
    allow: bool
    findings: tuple[Finding, ...]

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Findings that are not satisfied: violated before unknown, the conflict clause last."""
        order = {Outcome.VIOLATED: 0, Outcome.UNKNOWN: 1, Outcome.SATISFIED: 2}
        against = [one for one in self.findings if one.outcome is not Outcome.SATISFIED]
        return tuple(sorted(against, key=lambda one: (one.check == "unknown", order[one.outcome])))

    @property
    def clauses(self) -> tuple[str, ...]:
        """Ids of the clauses that refused, sorted; empty if allowed."""
        return tuple(sorted({one.clause for one in self.refusals}))

    def require(self) -> None:
        """Returns if allowed.

        Raises:
            RefusedError: With the first refusing clause, its need, what was found and a remedy;
                `HaltedError`, `NotExecutedError`, `NotBegunError` or `ExpiredError` where that is the
                reason.
        """
        if self.allow:
            return
        if not self.findings:
            raise RefusedError(need="a finding", found="none", remedy="report this: nothing was judged")
        from policies.contract.render import remedy_text

        first = self.refusals[0]
        kind = _REFUSALS.get(first.check, RefusedError)
        if first.outcome is Outcome.VIOLATED:
            kind = _OUTSIDE.get(first.check, kind)
        raise kind(
            clause=first.clause,
            need=f"{first.check} {first.need}",
            found=first.found,
            remedy=remedy_text(first.remedy),
        )


def evaluate(contract: Contract, state: ContractState, request: Request) -> Decision:
    """Judges a request.

    Args:
        contract: Parsed from its canonical bytes.
        state: What is known about it now.
        request: The facts; None for what is not known.

    Returns:
        The decision. A refusal is an answer, not an exception.
    """
    case = Case(contract, state, request)
    findings = list(about_the_document(case))
    for clause in contract.index.judged[request.TYPE]:
        if clause.KIND != _CONFLICT:
            findings.extend(CHECKS[clause.KIND](case, clause))
    open_ends = sorted([f"{one.clause} {one.check}" for one in findings if one.outcome is Outcome.UNKNOWN])
    findings.append(
        holds(
            contract.conflict.clause,
            "unknown",
            ok=not open_ends,
            need="nothing unknown",
            found=", ".join(open_ends) or "nothing",
            remedy="state-the-fact",
        )
    )
    findings.sort(key=_ORDER)
    against = [one for one in findings if one.outcome is not Outcome.SATISFIED]
    return Decision(request_type=request.TYPE, allow=not against, findings=tuple(findings))


def commitment(request: Request, state: ContractState, salt16: bytes) -> str:
    """What a decision record holds of its request: SHA-256 over the salt and the canonical request and state.

    Raises:
        RequestMalformedError: The salt is not 16 bytes; a shorter one could be guessed together with small
            facts.
    """
    if len(salt16) != _SALT_BYTES:
        raise RequestMalformedError(
            need="a salt of 16 random bytes", found=f"{len(salt16)} bytes", remedy="draw it from Entropy"
        )
    return digest(salt16 + canonical({"request": request_to_json(request), "state": state_to_json(state)}))


def decision_bytes(
    decision: Decision,
    *,
    contract_digest: str,
    point: str,
    request: Request,
    state: ContractState,
    salt16: bytes,
) -> bytes:
    """The canonical record of a decision (``iriai-decision/1``); its digest goes into the log.

    Args:
        decision: Of `evaluate`.
        contract_digest: Of the contract that was evaluated.
        point: ``node``, ``broker`` or ``gate``: who decided.
        request: As it was evaluated.
        state: As it was evaluated.
        salt16: 16 fresh random bytes, kept with request and state by whoever decided.

    Raises:
        RequestMalformedError: This request is not asked at this point, or the salt is short.
    """
    if point == "auditor" or point not in ASKED_AT[request.TYPE]:
        asked = " ".join(sorted(ASKED_AT[request.TYPE] - {"auditor"}))
        raise RequestMalformedError(
            need=f"a point where {request.TYPE} is asked: {asked}",
            found=ascii(point),
            remedy="record where it was asked",
        )
    return canonical(
        {
            "schema": SCHEMA,
            "semantics": SEMANTICS,
            "contract": contract_digest,
            "point": point,
            "request_type": decision.request_type,
            "request": commitment(request, state, salt16),
            "allow": decision.allow,
            "findings": [one.to_json() for one in decision.findings],
        }
    )


def replay(contract: Contract, *, point: str, request: Json, state: Json, salt16: bytes) -> bytes:
    """The record that an honest evaluation of a recorded request gives: compare it byte for byte.

    Args:
        contract: Whose digest the record names.
        point: Of the record.
        request: JSON of `request_to_json`.
        state: JSON of `state_to_json`.
        salt16: Of the record.

    Raises:
        RequestMalformedError: Request or state have another shape.
    """
    asked, known = request_from_json(request), state_from_json(state)
    return decision_bytes(
        evaluate(contract, known, asked),
        contract_digest=contract.digest,
        point=point,
        request=asked,
        state=known,
        salt16=salt16,
    )
