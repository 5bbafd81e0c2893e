# SPDX-License-Identifier: Apache-2.0
"""Contract and decisions in plain English. Each sentence has its clause id; what is for courts only says so.

Software never obeys these sentences: it obeys the canonical bytes. `plain_words` shows one party its own
duties first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.contract.clauses import (
    AggregationClause,
    Clause,
    ConflictClause,
    Contract,
    FieldsClause,
    PartyClause,
    PrivacyCapClause,
    PrivacyClause,
    PurposeClause,
    RecipeClause,
    ReleaseClause,
    SecretClause,
    TermClause,
    TierClause,
)
from policies.contract.coherence import owner_of
from policies.contract.registry import LAW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.decision import Decision
    from policies.contract.requests import Request

__all__ = ["Enforcement", "enforcement_map", "explain", "plain_words", "remedy_text"]

_REMEDIES = {
    "ask-by-pinned-key": "ask with the key that the contract pins; a new key needs an amendment",
    "ask-as-a-party": "ask as one of the contract's parties",
    "ask-for-another-tier": "ask for a model of a tier that you are entitled to",
    "ask-for-approval": "ask the contributors for their votes",
    "ask-participants": "ask only contributors that take part in the recipe",
    "cheaper-plan-or-amend": "choose a plan with a smaller epsilon, or amend the clause (all contributors)",
    "check-by-the-bound": "check norms by the contract's bound",
    "discard-or-amend": "discard the candidate, or amend the clause (all contributors)",
    "drop-the-fields": "use a recipe without the named fields",
    "drop-the-sender": "drop the sender of the bad update and close the round without it",
    "keep-it-at-home": "keep the model at its owner's node",
    "let-the-right-party-ask": "let a party of the right role ask",
    "name-the-model": "name the model by its digest",
    "new-candidate": "talk to the party that vetoed, then train another candidate",
    "produce-the-evidence": "produce the missing evidence and ask again",
    "release-first": "release the model in this tier first",
    "resume": "all contributors sign a resume that names the halt",
    "sign": "wait for the signatures that are missing",
    "state-the-fact": "update the program that asked: it must state the named fact",
    "stop-or-amend": "stop training under this contract, or amend the clause (all contributors)",
    "stop-or-new-contract": "stop; go on under a new contract",
    "use-a-listed-dataset": "use a data set that the recipe lists for this party",
    "use-a-listed-recipe": "use a recipe whose digest the contract lists",
    "use-a-listed-tier": "use a tier that the contract lists for the recipe",
    "use-the-plan": "use the privacy plan that the contract describes",
    "use-the-protocol": "aggregate as the contract says",
    "use-the-purpose": "open the run for the recipe's purpose",
    "use-the-weights": "weigh updates as the contract says",
    "wait-for-parties": "wait until enough independent groups take part",
    "wait-for-the-term": "wait until the term begins",
}
NOT_PRIVATE = "NOT PRIVATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """Where a clause is enforced.

    Attributes:
        clause: Its id.
        kind: Its kind.
        points: Points where code can refuse by it, sorted.
        label: ``enforced``, ``enforced in part`` or ``law only``.
    """

    clause: str
    kind: str
    points: tuple[str, ...]
    label: str


def remedy_text(key: str) -> str:
    """What a remedy key says in English."""
    return _REMEDIES[key]


def enforcement_map(contract: Contract) -> tuple[Enforcement, ...]:
    """For each clause, where code refuses by it and what is left to people, in document order."""
    return tuple(_enforcement(clause) for clause in contract.clauses())


def _enforcement(clause: Clause) -> Enforcement:
    points = tuple(one for one in clause.enforced_by if one != LAW)
    label = "law only" if not points else "enforced in part" if LAW in clause.enforced_by else "enforced"
    return Enforcement(clause=clause.clause, kind=clause.KIND, points=points, label=label)


def plain_words(contract: Contract, party: str | None = None) -> list[tuple[str, str]]:
    """The contract as sentences, each with its clause id.

    Args:
        contract: To describe.
        party: Short name; what belongs to this party comes first.

    Returns:
        Pairs of clause id and sentence. A sentence of which a part is for people and courts ends in ``[in
        part law only: ...]``, one of which all is, in ``[law only]``.
    """
    sentences = [
        (clause, sentence) for clause in contract.clauses() for sentence in _sentences(contract, clause)
    ]
    labelled = [(clause, f"{sentence}{_label(clause)}") for clause, sentence in sentences]
    if party is not None:
        labelled.sort(key=lambda pair: _distance(contract, pair[0], party))  # stable: order kept inside
    return [(clause.clause, sentence) for clause, sentence in labelled]


def _label(clause: Clause) -> str:
    label = _enforcement(clause).label
    if label == "law only":
        return " [law only]"
    return " [in part law only: what happens outside the software]" if label == "enforced in part" else ""


def _distance(contract: Contract, clause: Clause, party: str) -> int:
    """0 for a party's own clauses, 1 for those that govern its data, 2 for the rest."""
    if owner_of(contract, clause.clause) == party:
        return 0
    if isinstance(clause, RecipeClause):
        return 1 if party in clause.participants else 2
    return 1 if isinstance(clause, FieldsClause | PrivacyClause) else 2


def _sentences(contract: Contract, clause: Clause) -> Iterator[str]:  # noqa: C901  one arm per kind
    match clause:
        case PartyClause():
            yield (
                f"{clause.legal_name} ({clause.party}, {clause.country}, group {clause.group}) takes part"
                f" as {clause.role} and signs with {clause.key}."
            )
        case TermClause():
            yield f"The contract holds from {clause.effective} until just before {clause.expires}."
        case PurposeClause():
            yield f"Purpose {clause.id}: {clause.text}"
        case RecipeClause():
            yield from _recipe(clause)
        case FieldsClause():
            yield f"Only these fields may enter training: {', '.join(clause.allow)}."
            yield f"Personal data: {clause.personal_data}."
        case SecretClause():
            yield f"Trade secrets of {clause.party} ({clause.basis}), never read: {', '.join(clause.fields)}."
        case PrivacyClause():
            yield _privacy(clause)
        case PrivacyCapClause():
            yield _cap(contract, clause)
        case AggregationClause():
            yield from _aggregation(clause, private=contract.privacy.mode == "dp")
        case TierClause():
            yield _tier(clause)
        case ReleaseClause():
            yield from _release(contract, clause)
        case ConflictClause():
            yield "A prohibition wins over a permission, and what is not known is refused."


def _recipe(clause: RecipeClause) -> Iterator[str]:
    yield (
        f"Recipe {clause.id} ({clause.recipe_digest}) may run for {clause.purpose},"
        f" at most {clause.max_rounds} rounds in all runs together"
        f" and {clause.max_local_steps_per_round} local steps in a round."
    )
    for party in clause.participants:
        yield f"Recipe {clause.id} reads {', '.join(clause.datasets_of(party))} of {party}."


def _privacy(clause: PrivacyClause) -> str:
    if clause.mode == "none":
        return f"{NOT_PRIVATE}: models are trained without differential privacy; they may reveal episodes."
    return (
        f"Every {clause.unit} is protected by differential privacy ({clause.adjacency},"
        f" delta {clause.delta}): epsilon at most {clause.epsilon_per_release} per release and"
        f" {clause.epsilon_total} in all for each contributor;"
        f" each node adds the full noise itself ({clause.noise}) and stops by {clause.filter}."
    )


def _cap(contract: Contract, clause: PrivacyCapClause) -> str:
    caps = contract.caps(clause.party)
    if caps is None:
        return f"No caps for {clause.party}."
    release, total = caps.epsilon_per_release, caps.epsilon_total
    return f"For {clause.party} epsilon is at most {release} per release and {total} in all."


def _aggregation(clause: AggregationClause, *, private: bool) -> Iterator[str]:
    yield (
        f"Updates are averaged only if at least {clause.min_parties} independent groups are left, none with"
        f" more than {clause.max_share} of the weight; weights are {clause.weights}, never sample counts."
    )
    yield f"An update that is not finite or has a norm above {clause.update_norm_max} is dropped."
    guarded = (
        "protected by that party's own noise only" if private else f"and nothing protects it ({NOT_PRIVATE})"
    )
    mode = clause.secure_aggregation
    yield f"Secure aggregation is {mode}: the broker sees each party's update, {guarded}."
    if clause.fixed_weights is not None:
        yield "Weights: " + ", ".join(f"{one.party} {one.weight}" for one in clause.fixed_weights) + "."


def _tier(clause: TierClause) -> str:
    what = f"Model {clause.model} of recipe {clause.recipe}"
    if clause.tier == "private":
        return f"{what} stays with its owner; it is never released or delivered."
    return (
        f"{what} goes to {', '.join(clause.recipients)} (tier {clause.tier})"
        f" under {clause.licence}, once {', '.join(clause.requires)} are satisfied."
    )


def _release(contract: Contract, clause: ReleaseClause) -> Iterator[str]:
    approvals = clause.approvals
    yield (
        f"A release needs votes of at least {approvals.min} groups of contributors and this evidence:"
        f" {', '.join(clause.evidence) or 'none'}."
    )
    owners = sorted({owner_of(contract, one) or "" for one in approvals.veto})
    if owners:
        yield f"May veto a release alone: {', '.join(owners)} (owners of {', '.join(approvals.veto)})."


def explain(decision: Decision, request: Request) -> list[str]:
    """A decision for people: one line if allowed, one line per refusing finding if not."""
    who = request.party or "nobody"
    if decision.allow:
        return [f"ALLOWED {decision.request_type} {who}: {len(decision.findings)} findings, all satisfied."]
    return [
        f"REFUSED {decision.request_type} {who}: {one.clause} {one.check}: needs {one.need}, found"
        f" {one.found}. Remedy: {remedy_text(one.remedy)}."
        for one in decision.refusals
    ]
