# SPDX-License-Identifier: Apache-2.0
"""What a node's reply says besides its vector: its signed envelopes and the decision of its own guard.

`read_reply`, in this order; whatever fails refuses this one reply and nothing else:
1. every envelope is signed by the node's key, for this log; older ones that wait for a receipt may stand
before this slot's;
2. the guard's decision, made again from the request that the node discloses, has the digest that its
envelope states;
3. the submission names the tensor, the plan and the steps of this slot;
4. with a plan, the budget entry of this slot's mechanism run names the same plan and steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.contract import replay
from policies.contract.errors import ContractError
from policies.encoding import canonical, digest
from policies.errors import EncodingError, IdentityError, IriaiError
from policies.log.entries import EntryType
from policies.log.envelope import open_envelope
from policies.log.errors import LogError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.federation.engine import Reply
    from broker.federation.participants import Participant
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["GuardDecision", "NodeReply", "ReplyRefusedError", "Signed", "mechanism_run", "read_reply"]

Json = Any
_SALT_BYTES = 16
_ENVELOPES = 64


class ReplyRefusedError(IriaiError):
    """One reply does not say what a reply of its slot must say; its sender is out of this attempt."""

    code = "update.refused"
    exit_code = 3

    def __init__(self, reason: str, *, need: str, found: str) -> None:
        self.reason = reason
        super().__init__(
            need=need, found=found, remedy="update the node; its operator finds the reason in its log"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One envelope of a node and its checked payload."""

    envelope: Envelope
    payload: Mapping[str, Json]

    @property
    def kind(self) -> EntryType:
        """Type of the entry that it becomes."""
        return EntryType(self.payload["kind"])

    def belongs_to(self, run: str, round: int) -> bool:  # noqa: A002  the payload's own word
        """Whether it is of this run and round."""
        return (self.payload["run"], self.payload["round"]) == (run, round)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardDecision:
    """The node's own decision, replayed: equal to what the node signed."""

    record: bytes
    request: bytes
    state: bytes
    salt: bytes
    allow: bool
    clauses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReply:
    """A reply whose envelopes hold.

    Attributes:
        signed: Every envelope, in the order of the node's chain.
        decision: Of the node's guard on this slot; None if none was sent.
        submission: Envelope of this slot's contribution, or None.
        spend: Envelope of this slot's budget entry, or None.
    """

    signed: tuple[Signed, ...]
    decision: GuardDecision | None
    submission: Signed | None
    spend: Signed | None

    def of_kind(self, kind: EntryType) -> Signed | None:
        """The newest envelope of a type."""
        return next((one for one in reversed(self.signed) if one.kind is kind), None)


def mechanism_run(run: str, round: int, attempt: int) -> str:  # noqa: A002  the entry's own word
    """Name of one noisy step in budget entries: unique over all runs."""
    return f"{run}/{round}/{attempt}"


def read_reply(
    reply: Reply, *, sender: Participant, contract: Contract, recipe: Recipe, origin: str
) -> NodeReply:
    """The checked content of a reply; see the module for the checks.

    Raises:
        ReplyRefusedError: With a reason of the log's vocabulary.
    """
    body = reply.header.body
    signed = tuple(_envelopes(body.get("envelopes", []), sender, origin))  # 1.
    mine = [one for one in signed if one.belongs_to(reply.header.run, reply.round)]
    decision = _decision(body.get("decision"), mine, contract)  # 2.
    found = NodeReply(
        signed=signed,
        decision=decision,
        submission=_submission(mine, reply),
        spend=_spend(mine, reply),
    )
    if reply.ok and reply.tensor is not None:
        _check_submission(found, reply, recipe)  # 3. 4.
    return found


def _refuse(reason: str, need: str, found: str) -> ReplyRefusedError:
    return ReplyRefusedError(reason, need=need, found=found)


def _envelopes(items: object, sender: Participant, origin: str) -> Iterable[Signed]:
    if not isinstance(items, list) or len(items) > _ENVELOPES:
        raise _refuse("envelope-malformed", f"a list of at most {_ENVELOPES} envelopes", "something else")
    for item in items:
        try:
            envelope = Envelope.from_json(item)
            payload = open_envelope(envelope, sender.node_key)
        except (EncodingError, IdentityError, LogError) as error:
            raise _refuse("envelope-malformed", error.need, error.found) from error
        if payload["log"] != origin:
            raise _refuse("envelope-malformed", f"an envelope for {origin}", "one for another log")
        yield Signed(envelope=envelope, payload=payload)


def _decision(disclosed: object, mine: Iterable[Signed], contract: Contract) -> GuardDecision | None:
    stated = [one for one in mine if one.kind is EntryType.DECISION_RECORDED]
    if disclosed is None:
        if stated:
            raise _refuse("decision-missing", "request, state and salt of the signed decision", "none")
        return None
    if not isinstance(disclosed, dict) or set(disclosed) != {"request", "state", "salt"}:
        raise _refuse("decision-malformed", "request, state and salt", "something else")
    try:
        salt = bytes.fromhex(disclosed["salt"])
        record = replay(
            contract, point="node", request=disclosed["request"], state=disclosed["state"], salt16=salt
        )
    except (ValueError, TypeError, KeyError, ContractError) as error:
        raise _refuse("decision-malformed", "request, state and salt", type(error).__name__) from error
    named = digest(record)
    for one in stated:
        body = one.payload["body"]
        if body["decision"] == named and body["point"] == "node":
            return GuardDecision(
                record=record,
                request=canonical(disclosed["request"]),
                state=canonical(disclosed["state"]),
                salt=salt,
                allow=body["outcome"] == "allow",
                clauses=tuple(body["clauses"]),
            )
    raise _refuse("decision-differs", f"the signed decision {named}", "another one")


def _submission(mine: Iterable[Signed], reply: Reply) -> Signed | None:
    for one in mine:
        if one.kind is EntryType.SUBMISSION_RECEIVED and one.payload["body"]["attempt"] == reply.attempt:
            return one
    return None


def _spend(mine: Iterable[Signed], reply: Reply) -> Signed | None:
    name = mechanism_run(reply.header.run, reply.round, reply.attempt)
    for one in mine:
        if one.kind is EntryType.EPSILON_SPENT and one.payload["body"]["mechanism"] == name:
            return one
    return None


def _check_submission(found: NodeReply, reply: Reply, recipe: Recipe) -> None:
    tensor = reply.header.tensor
    if found.submission is None or tensor is None:
        raise _refuse("submission-missing", "a signed submission of this slot", "none")
    plan = recipe.plan
    says = found.submission.payload["body"]
    needed = {
        "update": tensor.digest,
        "plan": plan.digest if plan else None,
        "steps": recipe.local_steps,
        "attempt": reply.attempt,
    }
    if says != needed:
        raise _refuse("submission-differs", "a submission of this tensor, plan and steps", "another")
    if found.decision is None or not found.decision.allow:
        raise _refuse("decision-missing", "the guard's decision that allowed it", "none")
    if plan is None:
        return
    if found.spend is None:
        raise _refuse("spend-missing", "the budget entry of this slot", "none")
    spent = found.spend.payload["body"]
    if (spent["plan"], spent["steps"]) != (plan.digest, plan.steps_per_round):
        raise _refuse("spend-differs", "a budget entry of this plan and its steps", "another")
