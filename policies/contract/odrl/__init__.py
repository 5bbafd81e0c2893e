# SPDX-License-Identifier: Apache-2.0
"""A contract as ODRL in messages of the Dataspace Protocol: a view, never the truth.

The protocol knows one target, one assigner and one assignee, so one contract becomes a bundle:

    per recipe and data set                            Agreement   owner  -> broker        action iriai:train
    per consortium or participant tier, per entitled   Agreement   broker -> contributor   action use
    per open tier                                      Offer       broker -> anybody       action use

- Every policy names the contract's digest (`odrl_profile.CONTRACT_DIGEST`). Whoever needs the truth fetches
  the contract by it; software of ours never obeys a policy.
- A constraint stands for one term of one clause and carries the clause's id. What only courts can enforce has
  no constraint; it is in the contract.
- Caps are the tightest that bind the owner, compared as decimals, with the clause that each comes from.
- Rules have no target of their own (it is the policy's), and a policy has no empty list of rules.
- An Offer is for strangers: it names no contributor, no key, no field and no secret.
- The same contract always gives the same messages; ids are digests of what they name.

    for message in export(contract):
        json.dumps(message)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.clauses import Contract, PurposeClause, RecipeClause, TierClause
from policies.contract.odrl.dsp_messages import agreement_message, offer_message
from policies.contract.odrl.profile import (
    CLAUSE,
    CONTRACT_DIGEST,
    DISCLOSE,
    PREFIX,
    PROFILE,
    RELEASED,
    TERMS,
    TRAIN,
    USE,
    WEIGHT,
    Term,
    ValueKind,
    constraint,
    kind_of,
    right_operand,
)
from policies.contract.registry import FORBIDDEN_CHECKS, LAW
from policies.encoding import digest_of
from policies.errors import invariant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from policies.contract.clauses import Clause, DatasetRef, PartyClause

__all__ = ["DATASET", "MODEL", "OPEN", "Pair", "agreement", "export", "offer", "pairs"]

Json = Any  # a JSON value
Rule = dict[str, Json]

DATASET: Final = "dataset"
MODEL: Final = "model"
OPEN: Final = "open"
_TIERS: Final = frozenset({"consortium", "participant"})
_AT_TRAINING: Final = frozenset({"TrainRound", "Query"})
_AT_RELEASE: Final = frozenset({"Release", "Deliver"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What one side of a contract lets one other side do.

    Attributes:
        kind: `DATASET`, `MODEL` or `OPEN`.
        digest: Of the contract.
        clause: Of the recipe or the tier.
        party: Short name of the contributor; None for `OPEN`.
        target: IRI of the data set or the model.
        assigner: IRI of who allows.
        assignee: IRI of who is allowed; None for `OPEN`.
        permission: Rules.
        prohibition: Rules, perhaps none.
    """

    kind: str
    digest: str
    clause: str
    party: str | None
    target: str
    assigner: str
    assignee: str | None
    permission: tuple[Rule, ...]
    prohibition: tuple[Rule, ...]

    @property
    def id(self) -> str:
        """64 hex digits that name the pair."""
        return digest_of([self.digest, self.clause, self.target, self.assigner, self.assignee]).removeprefix(
            "sha256:"
        )

    @property
    def offer_id(self) -> str:
        """IRI of the pair as an offer."""
        return f"{PREFIX}offer:{self.id}"


def export(contract: Contract) -> list[dict[str, Json]]:
    """The whole bundle: an agreement message per bilateral pair, an offer message per open tier."""
    return [_message(one) for one in pairs(contract)]


def _message(pair: Pair) -> dict[str, Json]:
    provider, consumer = f"{PREFIX}provider:{pair.id}", f"{PREFIX}consumer:{pair.id}"
    if pair.kind == OPEN:
        return offer_message(provider, consumer, offer(pair, target=True))
    return agreement_message(provider, consumer, agreement(pair))


def offer(pair: Pair, *, target: bool) -> dict[str, Json]:
    """The pair as an Offer: with its target inside a message, without it inside a catalogue."""
    head: dict[str, Json] = {"@id": pair.offer_id, "@type": "Offer", "profile": PROFILE}
    return head | ({"target": pair.target} if target else {}) | _terms(pair)


def agreement(
    pair: Pair,
    *,
    name: str | None = None,
    assigner: str | None = None,
    assignee: str | None = None,
    timestamp: str | None = None,
) -> dict[str, Json]:
    """The pair as an Agreement.

    Args:
        pair: Of a contract.
        name: IRI of the agreement; by default made from the pair.
        assigner: How the receiver knows the one who allows; by default its organisation in the contract.
        assignee: Likewise for who is allowed; needed for `OPEN`.
        timestamp: When it was concluded (RFC 3339), if it was.
    """
    receiver = assignee or pair.assignee
    invariant(receiver is not None, "an agreement has somebody whom it allows something")
    said: dict[str, Json] = {
        "@id": name or f"{PREFIX}agreement:{pair.id}",
        "@type": "Agreement",
        "profile": PROFILE,
        "target": pair.target,
        "assigner": assigner or pair.assigner,
        "assignee": receiver,
    }
    return said | ({} if timestamp is None else {"timestamp": timestamp}) | _terms(pair)


def _terms(pair: Pair) -> dict[str, Json]:
    terms: dict[str, Json] = {
        CONTRACT_DIGEST: pair.digest,
        CLAUSE: pair.clause,
        "permission": list(pair.permission),
    }
    return terms | ({"prohibition": list(pair.prohibition)} if pair.prohibition else {})


def pairs(contract: Contract) -> tuple[Pair, ...]:
    """Every pair of the contract, in the order of recipes, data sets, tiers and parties."""
    return (*_dataset_pairs(contract), *_model_pairs(contract), *_open_pairs(contract))


def _dataset_pairs(contract: Contract) -> Iterator[Pair]:
    for recipe in contract.recipes:
        for ref in recipe.datasets:
            owner = contract.index.parties[ref.party]
            yield Pair(
                kind=DATASET,
                digest=contract.digest,
                clause=recipe.clause,
                party=owner.party,
                target=f"{PREFIX}dataset:{owner.org}:{ref.dataset}",
                assigner=_org(owner),
                assignee=_org(contract.broker),
                permission=(_rule(TRAIN, _training(contract, recipe, owner)),),
                prohibition=tuple(_training_prohibitions(contract, ref)),
            )


def _model_pairs(contract: Contract) -> Iterator[Pair]:
    for tier in contract.tiers:
        if tier.tier not in _TIERS:
            continue
        for party in _entitled(contract, tier):
            yield Pair(
                kind=MODEL,
                digest=contract.digest,
                clause=tier.clause,
                party=party.party,
                target=_model(contract, tier),
                assigner=_org(contract.broker),
                assignee=_org(party),
                permission=(_rule(USE, _delivery(contract, tier, party)),),
                prohibition=tuple(_use_prohibitions(contract)),
            )


def _open_pairs(contract: Contract) -> Iterator[Pair]:
    for tier in contract.tiers:
        if tier.tier == OPEN:
            yield Pair(
                kind=OPEN,
                digest=contract.digest,
                clause=tier.clause,
                party=None,
                target=_model(contract, tier),
                assigner=_org(contract.broker),
                assignee=None,
                permission=(_rule(USE, [*_of(tier), *_released(contract), *_of(contract.conflict)]),),
                prohibition=tuple(_use_prohibitions(contract)),
            )


def _org(party: PartyClause) -> str:
    return f"{PREFIX}org:{party.org}"


def _model(contract: Contract, tier: TierClause) -> str:
    return f"{PREFIX}model:{contract.digest.removeprefix('sha256:')}:{tier.clause}"


def _entitled(contract: Contract, tier: TierClause) -> Iterator[PartyClause]:
    recipe = next(one for one in contract.recipes if one.id == tier.recipe)
    everybody = tier.tier == "consortium"
    yield from (one for one in contract.contributors if everybody or one.party in recipe.participants)


def _rule(action: str, constraints: Iterable[Json]) -> Rule:
    return {"action": action, "constraint": list(constraints)}


def _training(contract: Contract, recipe: RecipeClause, owner: PartyClause) -> Iterator[Json]:
    purpose = next(one for one in contract.purposes if one.id == recipe.purpose)
    seeds = (one for one in contract.seed_sets if one.recipe == recipe.id)
    yield from _of(owner, contract.broker, contract.term, purpose, recipe, *seeds, contract.fields)
    yield from _of(contract.privacy)
    yield from _caps(contract, owner.party)
    yield from _of(contract.aggregation)
    yield from _own_weight(contract, owner.party)
    yield from _of(contract.validation, contract.audit, contract.exit)
    yield from _of(contract.amendment, contract.halt, contract.conflict)


def _delivery(contract: Contract, tier: TierClause, party: PartyClause) -> Iterator[Json]:
    yield from _of(party, contract.broker, tier)
    yield from _released(contract)
    yield from _of(contract.release, contract.aggregation)
    yield from _of(contract.audit, contract.halt, contract.conflict)


def _released(contract: Contract) -> Iterator[Json]:
    yield from _rows(contract.term, RELEASED)


def _caps(contract: Contract, party: str) -> Iterator[Json]:
    caps = contract.caps(party)
    if caps is None:
        return
    of = {term.field: term for term in TERMS["privacy-cap"]}
    for field, clause in (
        ("epsilon_per_release", caps.release_clause),
        ("epsilon_total", caps.total_clause),
    ):
        value = right_operand(ValueKind.DECIMAL, getattr(caps, field))
        yield constraint(clause, of[field].left, of[field].operator, value)


def _own_weight(contract: Contract, party: str) -> Iterator[Json]:
    fixed = contract.aggregation.fixed_weights or ()
    for one in fixed:
        if one.party == party:
            value = right_operand(ValueKind.DECIMAL, one.weight)
            yield constraint(contract.aggregation.clause, WEIGHT.left, WEIGHT.operator, value)


def _training_prohibitions(contract: Contract, ref: DatasetRef) -> Iterator[Rule]:
    for secret in contract.fields.trade_secret:
        if secret.party == ref.party:
            yield _rule(TRAIN, _of(secret))
    if contract.queries is not None and _enforced(contract.queries):
        yield from (_rule(DISCLOSE, [one]) for one in _of(contract.queries))
    yield from _forbidden(contract, _AT_TRAINING, TRAIN)


def _use_prohibitions(contract: Contract) -> Iterator[Rule]:
    yield from _forbidden(contract, _AT_RELEASE, USE)
    if contract.export_control is not None:
        yield from (_rule(USE, [one]) for one in _of(contract.export_control))


def _forbidden(contract: Contract, requests: frozenset[str], action: str) -> Iterator[Rule]:
    for clause in contract.forbidden:
        if FORBIDDEN_CHECKS[clause.check][1] & requests and _enforced(clause):
            yield _rule(action, _of(clause))


def _enforced(clause: Clause) -> bool:
    return set(clause.enforced_by) != {LAW}


def _of(*clauses: Clause | None) -> Iterator[Json]:
    """The constraints of these clauses, where code can refuse by them and a term is set."""
    for clause in clauses:
        if clause is not None and _told(clause):
            yield from _rows(clause, TERMS[clause.KIND])


def _rows(clause: Clause, terms: Iterable[Term]) -> Iterator[Json]:
    for term in terms:
        value = _value(clause, term)
        if value not in (None, ()):
            operand = right_operand(kind_of(clause.KIND, term), value)
            yield constraint(clause.clause, term.left, term.operator, operand)


def _told(clause: Clause) -> bool:
    """A recipe and a tier are what the policy is about; of the rest, what code can refuse by."""
    return _enforced(clause) or isinstance(clause, RecipeClause | TierClause | PurposeClause)


def _value(clause: Clause, term: Term) -> object:
    value: object = clause
    for name in term.field.split("."):
        value = getattr(value, name)
    return value
