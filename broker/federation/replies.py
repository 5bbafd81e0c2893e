# SPDX-License-Identifier: Apache-2.0
"""What a node's reply says besides its vector: its signed envelopes and the decision of its own guard.

`read_reply`, in this order; whatever fails refuses this one reply and nothing else:
0. nothing stands in it that is not of the closed list (`policies.reply_body`): a count, a loss, a duration;
1. every envelope is signed by the node's key, for this log, of a kind that replies carry, and fits its place:
   its contract, recipe and plan; older ones that wait for a receipt may stand before this slot's;
2. the guard's decision, made again from the request that the node discloses, has the digest that its
   envelope states, and is about this party, recipe and time;
3. the submission names the tensor, the plan and the steps of this slot; under secure aggregation also an
   earlier attempt of the round, where the update of that one is sent again, and the sum that the node was
   shown (which one that is, `broker.federation.secure.attempt` knows);
4. with a plan, the budget entry of the mechanism run names the same plan and steps: of this slot, or of the
   attempt that the submission names; that entry may be in the log already.

Whether the log takes the envelopes (their numbers, what they saw, what stands there already) is known when
they are added (`broker.federation.envelopes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from broker.federation.signed import Place, ReplyRefusedError, Signed, mechanism_run, refuse
from policies.contract import PlanFacts, TrainRound, replay, request_from_json, state_from_json
from policies.contract.findings import decimal_of
from policies.encoding import canonical, digest, parse
from policies.errors import IriaiError
from policies.exchange import ExchangeType
from policies.limits import DECISION_AHEAD_MS
from policies.log.entries import EntryType
from policies.ports import to_ms
from policies.privacy.accounting import epsilon_text
from policies.privacy.errors import ReplyFieldError
from policies.reply_body import check_reply_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker.federation.engine import Reply
    from broker.federation.participants import Participant
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.recipe import Recipe

__all__ = [
    "CONTRIBUTIONS",
    "GuardDecision",
    "NodeReply",
    "ReplyRefusedError",
    "Signed",
    "mechanism_run",
    "read_reply",
]

CONTRIBUTIONS = frozenset({ExchangeType.CONTRIBUTE, ExchangeType.SA_CONTRIBUTE})
"""What is answered with an update, plain or masked."""


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
        spend: Envelope of the budget entry behind the contribution, or None: it may be in the log already.
        trained: Earlier attempt of the round whose update is sent again; None where it is this attempt's own.
        raw: The whole header as the node signed it: evidence, should the log not be able to take it.
    """

    raw: bytes
    signed: tuple[Signed, ...]
    decision: GuardDecision | None
    submission: Signed | None
    spend: Signed | None
    trained: int | None = None


def read_reply(
    reply: Reply,
    *,
    sender: Participant,
    contract: Contract,
    recipe: Recipe,
    origin: str,
    now_ms: int,
    scopes: tuple[str, ...] = (),
    paid: Callable[[str], Mapping[str, Json] | None] = lambda _: None,
) -> NodeReply:
    """The checked content of a reply; see the module for the checks.

    Args:
        reply: As the engine verified it.
        sender: Whose it is.
        contract: Of the run.
        recipe: Of the run.
        origin: Of the log.
        now_ms: Time of the broker's clock.
        scopes: Contracts that the run has been under.
        paid: Mechanism run → the sender's budget entry about it in the log, or None.

    Raises:
        ReplyRefusedError: With a reason of the log's vocabulary.
    """
    body = reply.header.body
    try:
        check_reply_body(reply.type, body)  # 0.
    except ReplyFieldError as error:
        raise refuse(error.code, error.need, error.found) from error
    place = Place(reply=reply, sender=sender, contract=contract, recipe=recipe, origin=origin, scopes=scopes)
    signed = tuple(place.envelopes(body.get("envelopes", [])))  # 1.
    here = [one for one in signed if one.belongs_to(reply.header.run, reply.round)]
    mine = [one for one in here if one.payload["scope"] == contract.digest]
    contributes = reply.type in CONTRIBUTIONS
    submission = _submission(mine, reply) if contributes else None
    trained = None if submission is None else _trained(submission, reply)
    found = NodeReply(
        raw=reply.raw,
        signed=signed,
        decision=_decision(body.get("decision"), mine, place, now_ms),  # 2.
        submission=submission,
        spend=_spend(mine, reply, trained or reply.attempt) if contributes else None,
        trained=trained,
    )
    if reply.ok and contributes and reply.tensor is not None:
        _check_submission(found, reply, recipe, paid)  # 3. 4.
    elif found.submission is not None:
        raise refuse("submission-differs", "no submission in a reply without an update", "one")
    return found


def _decision(disclosed: object, mine: Iterable[Signed], place: Place, now_ms: int) -> GuardDecision | None:
    if disclosed is None:
        return None
    if not isinstance(disclosed, dict) or set(disclosed) != {"request", "state", "salt"}:
        raise refuse("decision-malformed", "request, state and salt", "something else")
    try:
        salt = bytes.fromhex(disclosed["salt"])
        record = replay(
            place.contract, point="node", request=disclosed["request"], state=disclosed["state"], salt16=salt
        )
        request = request_from_json(disclosed["request"])
        state = state_from_json(disclosed["state"])
        ahead = state.now is not None and to_ms(state.now) > now_ms + DECISION_AHEAD_MS
    except (ValueError, TypeError, KeyError, IriaiError) as error:
        raise refuse("decision-malformed", "request, state and salt", type(error).__name__) from error
    named = digest(record)
    stated = [one.payload["body"] for one in mine if one.kind is EntryType.DECISION_RECORDED]
    body = next((one for one in stated if one["decision"] == named and one["point"] == "node"), None)
    if body is None:
        raise refuse("decision-differs", f"the signed decision {named}", "another one")
    if ahead or state.executed is False:
        raise refuse("decision-differs", "a decision about the contract in force, now", "another state")
    outcome, clauses = _outcome(record)
    if (body["outcome"], body["clauses"]) != (outcome, clauses):
        raise refuse("decision-differs", f"{outcome} {' '.join(clauses)}", "another outcome")
    if not isinstance(request, TrainRound) or not _fits(request, place):
        raise refuse("decision-differs", "a decision about this party, recipe and plan", "another request")
    return GuardDecision(
        record=record,
        request=canonical(disclosed["request"]),
        state=canonical(disclosed["state"]),
        salt=salt,
        allow=outcome == "allow",
        clauses=tuple(clauses),
    )


def _outcome(record: bytes) -> tuple[str, list[str]]:
    """What a decision's record says: allow or refuse, and by which clauses, sorted."""
    document = parse(record)
    against = {one["clause"] for one in document["findings"] if one["outcome"] != "satisfied"}
    return ("allow" if document["allow"] else "refuse"), sorted(against)


def _fits(request: TrainRound, place: Place) -> bool:
    """Whether a node decided about what it was asked; its epsilon of one release is at least the plan's."""
    sender, plan = place.sender, place.recipe.plan
    said = (request.party, request.key, request.recipe_digest, request.privacy)
    if said != (sender.party, sender.key, place.recipe.digest, PlanFacts.of(place.recipe.plan_document)):
        return False
    claimed = decimal_of(request.epsilon_after_release)
    return plan is None or claimed is None or claimed >= Decimal(epsilon_text(plan.epsilon_rdp))


def _submission(mine: Iterable[Signed], reply: Reply) -> Signed | None:
    for one in mine:
        if one.kind is EntryType.SUBMISSION_RECEIVED and one.payload["body"]["attempt"] == reply.attempt:
            return one
    return None


def _trained(submission: Signed, reply: Reply) -> int | None:
    """The attempt whose update a submission sends again, if it names one."""
    named = submission.payload["body"].get("trained")
    if named is None:
        return None
    if reply.type is not ExchangeType.SA_CONTRIBUTE or not 1 <= named < reply.attempt:
        raise refuse("submission-differs", "an earlier attempt of this round", "another")
    return int(named)


def _spend(mine: Iterable[Signed], reply: Reply, attempt: int) -> Signed | None:
    name = mechanism_run(reply.header.run, reply.round, attempt)
    for one in mine:
        if one.kind is EntryType.EPSILON_SPENT and one.payload["body"]["mechanism"] == name:
            return one
    return None


def _check_submission(
    found: NodeReply, reply: Reply, recipe: Recipe, paid: Callable[[str], Mapping[str, Json] | None]
) -> None:
    tensor = reply.header.tensor
    if found.submission is None or tensor is None:
        raise refuse("submission-missing", "a signed submission of this slot", "none")
    plan = recipe.plan
    said = found.submission.payload["body"]
    says = {name: value for name, value in said.items() if name not in {"receipt", "trained", "checked"}}
    needed = {
        "update": tensor.digest,
        "plan": plan.digest if plan else None,
        "steps": recipe.local_steps,
        "attempt": reply.attempt,
    }
    if says != needed or ("checked" in said and reply.type is not ExchangeType.SA_CONTRIBUTE):
        raise refuse("submission-differs", "a submission of this tensor, plan and steps", "another")
    if found.decision is None or not found.decision.allow:
        raise refuse("decision-missing", "the guard's decision that allowed it", "none")
    if plan is None:
        if "receipt" in said:
            raise refuse("submission-differs", "no step receipt without a plan", "one")
        return
    mechanism = mechanism_run(reply.header.run, reply.round, found.trained or reply.attempt)
    spent = paid(mechanism) if found.spend is None else found.spend.payload["body"]
    if spent is None:
        raise refuse("spend-missing", f"the budget entry of {mechanism}", "none")
    if (spent["plan"], spent["steps"]) != (plan.digest, plan.steps_per_round):
        raise refuse("spend-differs", "a budget entry of this plan and its steps", "another")
