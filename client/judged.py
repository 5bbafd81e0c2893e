# SPDX-License-Identifier: Apache-2.0
"""What the guard decided about a round, with everything that somebody needs to decide it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.errors import LocalRefusedError
from client.outbox.rows import Decided
from policies.contract import request_to_json, state_to_json
from policies.contract.errors import RefusedError
from policies.encoding import b64, digest

if TYPE_CHECKING:
    from client.seat import Seat
    from policies.contract import ContractState, Decision, Finding, TrainRound
    from policies.exchange import RequestHeader

__all__ = ["Judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A decision with everything that somebody needs to make it again, and the local findings beside it."""

    seat: Seat
    decision: Decision
    local: tuple[Finding, ...]
    request: TrainRound
    state: ContractState
    salt: bytes
    record: bytes

    @property
    def allow(self) -> bool:
        """Whether the round may go on: the contract and every local rule say yes."""
        return self.decision.allow and not self.local

    @property
    def code(self) -> str:
        """Code of the refusal."""
        return _code(self.decision) if not self.decision.allow else LocalRefusedError.code

    @property
    def disclosed(self) -> dict[str, Any]:
        """What the broker needs to replay the decision."""
        return {
            "request": request_to_json(self.request),
            "salt": self.salt.hex(),
            "state": state_to_json(self.state),
        }

    @property
    def entry(self) -> dict[str, Any]:
        """Body of ``decision.recorded``: the contract's answer, which others can take again."""
        return {
            "point": "node",
            "outcome": "allow" if self.decision.allow else "refuse",
            "clauses": list(self.decision.clauses),
            "decision": digest(self.record),
        }

    def kept(self, header: RequestHeader, at_ms: int) -> Decided:
        """The decision as this node keeps it."""
        return Decided.of(
            header,
            at_ms,
            allow=self.allow,
            clauses=(*self.decision.clauses, *(one.clause for one in self.local)),
            document={
                "record": b64(self.record),
                "local": [one.to_json() for one in self.local],
                **self.disclosed,
            },
        )


def _code(decision: Decision) -> str:
    """Code of the error that `Decision.require` raises."""
    try:
        decision.require()
    except RefusedError as error:
        return error.code
    return RefusedError.code
