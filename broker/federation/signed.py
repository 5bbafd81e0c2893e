# SPDX-License-Identifier: Apache-2.0
"""What nodes sign beside a vector: envelopes of the kinds that replies carry, each in its place.

An envelope says by itself to which contract, run and round it belongs. What is about the run of the exchange
is checked against its contract and recipe here; older ones, of other runs, when they are logged
(`broker.federation.envelopes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.encoding import digest_of
from policies.errors import EncodingError, IdentityError, IriaiError
from policies.limits import REPLY_ENVELOPES
from policies.log.entries import EntryType
from policies.log.envelope import open_envelope
from policies.log.errors import LogError
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.federation.engine import Reply
    from broker.federation.participants import Participant
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = [
    "ABOUT_CONTRACTS",
    "CARRIED",
    "Place",
    "ReplyRefusedError",
    "Signed",
    "mechanism_run",
    "refuse",
    "slot_of_mechanism",
]

Json = Any
ABOUT_CONTRACTS = frozenset(
    {
        EntryType.CONTRACT_HALTED,
        EntryType.CONTRACT_RESUMED,
        EntryType.CONTRACT_EXITED,
        EntryType.KEY_ROTATED,
    }
)
"""Entries of notices: they come in with their notice. In a reply, which repeats what has no receipt yet, they
are in the log already, or refused."""
CARRIED = frozenset(
    {
        EntryType.CONTRACT_SIGNED,
        EntryType.DECISION_RECORDED,
        EntryType.BUDGET_OPENED,
        EntryType.EPSILON_SPENT,
        EntryType.SUBMISSION_RECEIVED,
        EntryType.EVALUATION_RECEIVED,
        EntryType.VOTE_CAST,
        EntryType.ROUND_VOTED,
        EntryType.ROUND_SCORED,
        EntryType.ROUND_ACK,
        EntryType.CANARY_COMMITTED,
        EntryType.CANARY_REVEALED,
    }
)
"""What a reply may carry; a key's revocation or a contract's end comes in by another door, or not at all."""
_OF_ROUNDS = frozenset(
    {
        EntryType.DECISION_RECORDED,
        EntryType.SUBMISSION_RECEIVED,
        EntryType.ROUND_VOTED,
        EntryType.ROUND_SCORED,
        EntryType.ROUND_ACK,
    }
)
_PLANNED = frozenset({EntryType.BUDGET_OPENED, EntryType.EPSILON_SPENT, EntryType.SUBMISSION_RECEIVED})


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


def mechanism_run(run: str, round: int, attempt: int) -> str:  # noqa: A002  the entry's own word
    """Name of one noisy step in budget entries: unique over all runs."""
    return f"{run}/{round}/{attempt}"


def slot_of_mechanism(mechanism: str) -> tuple[str, int, int] | None:
    """Run, round and attempt behind `mechanism_run`; None for another kind of mechanism."""
    run, *rest = mechanism.split("/")
    if len(rest) != 2 or not all(one.isdecimal() for one in rest):  # noqa: PLR2004  round and attempt
        return None
    return run, int(rest[0]), int(rest[1])


def refuse(reason: str, need: str, found: str) -> ReplyRefusedError:
    """The refusal of a reply, to raise."""
    return ReplyRefusedError(reason, need=need, found=found)


def _malformed(need: str, found: str) -> ReplyRefusedError:
    return refuse("envelope-malformed", need, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the envelopes of one reply belong.

    ``scopes``: contracts that the run has been under. What waits for a receipt may be of an earlier one.
    """

    reply: Reply
    sender: Participant
    contract: Contract
    recipe: Recipe
    origin: str
    scopes: tuple[str, ...] = ()

    def envelopes(self, items: object) -> Iterable[Signed]:
        """Envelopes of the reply, each checked.

        Raises:
            ReplyRefusedError: One is not what a reply may carry.
        """
        if not isinstance(items, list) or len(items) > REPLY_ENVELOPES:
            raise _malformed(f"a list of at most {REPLY_ENVELOPES} envelopes", "something else")
        for item in items:
            try:
                envelope = Envelope.from_json(item)
                payload = open_envelope(envelope, self.sender.node_key)
            except (EncodingError, IdentityError, LogError) as error:
                raise _malformed(error.need, error.found) from error
            one = Signed(envelope=envelope, payload=payload)
            self._check(one)
            yield one

    def _check(self, one: Signed) -> None:
        payload = one.payload
        if payload["log"] != self.origin:
            raise _malformed(f"an envelope for {self.origin}", "one for another log")
        if one.kind not in CARRIED | ABOUT_CONTRACTS:
            raise _malformed("a kind of envelope that replies carry", one.kind.value)
        if payload["scope"] is None:
            raise _malformed("the contract that an envelope belongs to", "none")
        if one.kind is EntryType.DECISION_RECORDED and payload["body"]["point"] != "node":
            raise _malformed("a decision at point node", payload["body"]["point"])
        if one.kind in ABOUT_CONTRACTS:
            return
        if one.kind is EntryType.CONTRACT_SIGNED:
            self._check_signed(one)
        elif payload["run"] == self.reply.header.run:
            self._check_own_run(one)
        elif payload["run"] is None:
            raise _malformed("the run that an envelope belongs to", "none")

    def _check_signed(self, one: Signed) -> None:
        payload, scope = one.payload, one.payload["scope"]
        own = {"contract": scope, "party": self.sender.alias(scope, None, None)}
        said = {name: value for name, value in payload["body"].items() if name != "acknowledged"}
        if (payload["run"], payload["round"], said) != (None, None, own):
            raise _malformed("contract.signed by its own alias", "another")

    def _check_own_run(self, one: Signed) -> None:
        payload, body = one.payload, one.payload["body"]
        if payload["scope"] not in {self.contract.digest, *self.scopes}:
            raise _malformed("the contract of the run", "another")
        if one.kind in _OF_ROUNDS and payload["round"] is None:
            raise _malformed("the round that an envelope belongs to", "none")
        plan = None if self.recipe.plan is None else self.recipe.plan.digest
        plans = {plan}
        if one.kind is EntryType.EPSILON_SPENT:
            of = slot_of_mechanism(body["mechanism"])
            evaluates = body["mechanism"].startswith(f"{payload['run']}/eval/")
            if not evaluates and (of is None or of[:2] != (payload["run"], payload["round"])):
                raise _malformed("a mechanism run of this run and round", "another")
            plans = self._judging() if evaluates else {plan}
        if one.kind is EntryType.BUDGET_OPENED:
            plans |= self._judging()
        if payload["scope"] != self.contract.digest and self._judging() <= plans:
            return  # of an earlier version, which may have had other votes: its books know the plan
        if one.kind in _PLANNED and body["plan"] not in plans:
            reason = "submission-differs" if one.kind is EntryType.SUBMISSION_RECEIVED else "spend-differs"
            raise refuse(reason, "the plan of the recipe", "another")

    def _judging(self) -> set[str | None]:
        """Plans of queries on held-out units: about a candidate, and about a round's model."""
        votes = votes_plan(self.contract.validation, self.recipe.evaluation.document)
        found: set[str | None] = {self.recipe.evaluation.digest}
        return found if votes is None else found | {digest_of(votes)}
