# SPDX-License-Identifier: Apache-2.0
"""The signed contract as frozen objects, and the strict parser of its canonical bytes. Standard library only.

- `parse` takes the canonical bytes (RFC 8785) and nothing else: every key spelled out, sets sorted, decimals
  plain. Its answer is the only form in which the rest of iriai sees a contract; nobody reads the bytes twice.
- A clause is a dataclass; each field names the rule of its key (`policies.contract.grammar`). Contradictions
  between clauses are found by `policies.contract.coherence` before a `Contract` exists, so an object of this
  class is always one that could be signed.
- The digest of the canonical bytes names the contract everywhere.
- Ids that begin with ``@`` are no clauses; findings about the document itself use them
  (`policies.contract.checks`).
"""

# ruff: noqa: RUF009  `ruled` makes a fresh dataclass field on every call

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from policies.contract.errors import ContractInvalidError, NotCanonicalError, UnknownSchemaError
from policies.contract.grammar import (
    CLAUSE_ID,
    At,
    Choice,
    Decimals,
    Digest,
    Integer,
    Key,
    Nullable,
    Prose,
    Rows,
    Set,
    Struct,
    Time,
    Word,
    read_fields,
    ruled,
)
from policies.contract.registry import EVIDENCE, KINDS, LATER_EVIDENCE, POINTS, RECIPIENTS, SCHEMA
from policies.encoding import digest
from policies.encoding import parse as parse_canonical
from policies.errors import EncodingError
from policies.limits import CLAUSES, CONTRACT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "AggregationClause",
    "Approvals",
    "Caps",
    "Clause",
    "ConflictClause",
    "Contract",
    "DatasetRef",
    "FieldsClause",
    "FixedWeight",
    "PartyClause",
    "PrivacyCapClause",
    "PrivacyClause",
    "PurposeClause",
    "RecipeClause",
    "ReleaseClause",
    "SecretClause",
    "TermClause",
    "TierClause",
    "parse",
]

Json = Any  # a JSON value

_ID = Word(CLAUSE_ID.pattern.strip("^$"))
_NAME = Word(r"[a-z][a-z0-9-]{0,31}")
_PARTY = Word(r"[a-z][a-z0-9-]{0,31}", reserved=("public",))
_FIELD = Word(r"[a-z][a-z0-9_]{0,63}")
_DATASET = Word(r"[a-z0-9][a-z0-9._/-]{0,127}")
_TITLE_CHARS = 200


def _claims(document: Mapping[str, Json], own: Mapping[str, Json], kind: str) -> list[str]:
    """What ``enforced_by`` of a kind says if the author wrote nothing: all that the registry allows."""
    if kind == "purpose" and own.get("id") not in _used_purposes(document):
        return ["law"]  # no request can come under it, so no code can refuse by it
    return list(KINDS[kind].claims)


def _used_purposes(document: Mapping[str, Json]) -> list[Json]:
    return [one.get("purpose") for one in document.get("recipes", ())]


def _points(kind: str) -> Any:  # noqa: ANN401  a dataclass field
    return ruled(Set(Choice(POINTS), least=1), omitted=lambda document, own: _claims(document, own, kind))


def _requires(document: Mapping[str, Json], own: Mapping[str, Json]) -> list[str]:
    if own.get("tier") == "private":
        return []
    return sorted(document[name]["clause"] for name in ("privacy", "aggregation", "release"))


def _recipients(_document: Mapping[str, Json], own: Mapping[str, Json]) -> list[str]:
    return [RECIPIENTS[own["tier"]]] if own.get("tier") in RECIPIENTS else []


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyClause:
    """Who takes part, with the key that the signature and every request are checked against."""

    KIND: ClassVar[str] = "party"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("party")
    party: str = ruled(_PARTY)
    org: str = ruled(Word(r"org_[a-z2-7]{16}"))
    role: str = ruled(Choice(("broker", "contributor"), later=("auditor", "recipient")))
    group: str = ruled(_NAME)
    legal_name: str = ruled(Prose(_TITLE_CHARS))
    country: str = ruled(Word(r"[A-Z]{2}"))
    key: str = ruled(Key())


@dataclass(frozen=True, slots=True, kw_only=True)
class TermClause:
    """From when until when; the end is outside."""

    KIND: ClassVar[str] = "term"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("term")
    effective: str = ruled(Time())
    expires: str = ruled(Time())


@dataclass(frozen=True, slots=True, kw_only=True)
class PurposeClause:
    """One of the purposes; anything else is refused."""

    KIND: ClassVar[str] = "purpose"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("purpose")
    id: str = ruled(_NAME)
    text: str = ruled(Prose())


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """One data set that a recipe may read."""

    party: str = ruled(_PARTY)
    dataset: str = ruled(_DATASET)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeClause:
    """What may run, by its digest, on whose data, how often (``max_rounds``: all runs together)."""

    KIND: ClassVar[str] = "recipe"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("recipe")
    id: str = ruled(_NAME)
    purpose: str = ruled(_NAME)
    recipe_digest: str = ruled(Digest())
    max_rounds: int = ruled(Integer(1))
    max_local_steps_per_round: int = ruled(Integer(1))
    datasets: tuple[DatasetRef, ...] = ruled(Rows(DatasetRef, by=("party", "dataset"), least=1))

    def datasets_of(self, party: str) -> tuple[str, ...]:
        """Names of this party's data sets."""
        return tuple(one.dataset for one in self.datasets if one.party == party)

    @property
    def participants(self) -> tuple[str, ...]:
        """Parties with a data set in the recipe, sorted."""
        return tuple(sorted({one.party for one in self.datasets}))


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretClause:
    """Fields of one party that no recipe reads."""

    KIND: ClassVar[str] = "secret"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("secret")
    party: str = ruled(_PARTY)
    fields: tuple[str, ...] = ruled(Set(_FIELD, least=1))
    basis: str = ruled(Prose(_TITLE_CHARS))


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldsClause:
    """The only fields that may enter a training tensor."""

    KIND: ClassVar[str] = "fields"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("fields")
    allow: tuple[str, ...] = ruled(Set(_FIELD, least=1))
    trade_secret: tuple[SecretClause, ...] = ruled(Rows(SecretClause), omitted=[])
    personal_data: str = ruled(Choice(("none",)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyCapClause:
    """Tighter caps of one party; null leaves the common one."""

    KIND: ClassVar[str] = "privacy-cap"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("privacy-cap")
    party: str = ruled(_PARTY)
    epsilon_per_release: str | None = ruled(Nullable(Decimals()), omitted=None)
    epsilon_total: str | None = ruled(Nullable(Decimals()), omitted=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyClause:
    """Differential privacy and its caps; ``mode: none`` is NOT PRIVATE and has null everywhere else."""

    KIND: ClassVar[str] = "privacy"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("privacy")
    mode: str = ruled(Choice(("dp", "none")))
    unit: str | None = ruled(Nullable(Choice(("episode",), later=("work-piece", "order"))), omitted=None)
    adjacency: str | None = ruled(Nullable(Choice(("zero-out", "add-remove"))), omitted=None)
    delta: str | None = ruled(Nullable(Decimals(below="1")), omitted=None)
    epsilon_per_release: str | None = ruled(Nullable(Decimals()), omitted=None)
    epsilon_total: str | None = ruled(Nullable(Decimals()), omitted=None)
    filter: str | None = ruled(Nullable(Choice(("rdp-fixed-order",))), omitted=None)
    noise: str | None = ruled(Nullable(Choice(("local-full",), later=("shares",))), omitted=None)
    per_party: tuple[PrivacyCapClause, ...] = ruled(Rows(PrivacyCapClause), omitted=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedWeight:
    """Weight of one contributor's update; only ratios count."""

    party: str = ruled(_PARTY)
    weight: str = ruled(Decimals())


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationClause:
    """When updates are averaged; ``min_parties`` counts independent groups after drop-outs."""

    KIND: ClassVar[str] = "aggregation"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("aggregation")
    min_parties: int = ruled(Integer(2, 64))
    max_colluders: int = ruled(Integer(0, 0, later=64), omitted=0)
    max_share: str = ruled(Decimals(most="1"))
    weights: str = ruled(Choice(("equal", "fixed")))
    fixed_weights: tuple[FixedWeight, ...] | None = ruled(
        Nullable(Rows(FixedWeight, by=("party",), least=1)), omitted=None
    )
    secure_aggregation: str = ruled(Choice(("off",), later=("required",)))
    update_norm_max: str = ruled(Decimals())
    delay_hours: int = ruled(Integer(0, 0, later=8_784))
    differencing_guard: str = ruled(Choice(("off",), later=("non-dp-outputs", "all")))


@dataclass(frozen=True, slots=True, kw_only=True)
class TierClause:
    """Who receives the model of a recipe, under which licence, once which clauses are satisfied."""

    KIND: ClassVar[str] = "tier"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("tier")
    tier: str = ruled(Choice(tuple(RECIPIENTS)))
    recipe: str = ruled(_NAME)
    model: str = ruled(_NAME)
    recipients: tuple[str, ...] = ruled(Set(Choice(tuple(RECIPIENTS.values())), least=1), omitted=_recipients)
    licence: str = ruled(Prose(_TITLE_CHARS))
    requires: tuple[str, ...] = ruled(Set(_ID), omitted=_requires)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """How many groups of contributors must approve, and which clauses' owners may veto alone."""

    of: str = ruled(Choice(("contributors",)))
    min: int = ruled(Integer(1, 64))
    veto: tuple[str, ...] = ruled(Set(_ID))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseClause:
    """What must lie with a candidate before it becomes a release."""

    KIND: ClassVar[str] = "release"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("release")
    approvals: Approvals = ruled(Struct(Approvals))
    evidence: tuple[str, ...] = ruled(Set(Choice(EVIDENCE, later=LATER_EVIDENCE)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictClause:
    """Prohibitions win, and what is not known refuses."""

    KIND: ClassVar[str] = "conflict"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("conflict")
    rule: str = ruled(Choice(("prohibit-wins",)))
    unknown: str = ruled(Choice(("refuse",)))


Clause = (
    PartyClause
    | TermClause
    | PurposeClause
    | RecipeClause
    | FieldsClause
    | SecretClause
    | PrivacyClause
    | PrivacyCapClause
    | AggregationClause
    | TierClause
    | ReleaseClause
    | ConflictClause
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The tightest epsilon caps that bind one party, with the clause that each comes from."""

    epsilon_per_release: str
    epsilon_total: str
    release_clause: str
    total_clause: str
    delta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A contract whose bytes were canonical and whose clauses agree. Compare by `digest` only."""

    KIND: ClassVar[str] = "contract"
    schema: str = ruled(Choice((SCHEMA,)))
    contract_id: str = ruled(Word(r"ctr_[a-z2-7]{16}"))
    version: int = ruled(Integer(1))
    supersedes: str | None = ruled(Nullable(Digest()), omitted=None)
    title: str = ruled(Prose(_TITLE_CHARS))
    language: str = ruled(Word(r"[a-z]{2}"))
    sign_by: str = ruled(Time())
    parties: tuple[PartyClause, ...] = ruled(Rows(PartyClause, least=1))
    term: TermClause = ruled(Struct(TermClause))
    purposes: tuple[PurposeClause, ...] = ruled(Rows(PurposeClause, least=1))
    recipes: tuple[RecipeClause, ...] = ruled(Rows(RecipeClause, least=1))
    fields: FieldsClause = ruled(Struct(FieldsClause))
    privacy: PrivacyClause = ruled(Struct(PrivacyClause))
    aggregation: AggregationClause = ruled(Struct(AggregationClause))
    tiers: tuple[TierClause, ...] = ruled(Rows(TierClause, least=1))
    release: ReleaseClause = ruled(Struct(ReleaseClause))
    conflict: ConflictClause = ruled(Struct(ConflictClause))
    canonical: bytes = field(repr=False)
    digest: str

    @property
    def document(self) -> dict[str, Json]:
        """A fresh JSON object of the canonical bytes."""
        tree: dict[str, Json] = json.loads(self.canonical)
        return tree

    def clauses(self) -> Iterator[Clause]:
        """Every clause, nested ones too, in document order."""
        yield from self.parties
        yield self.term
        yield from self.purposes
        yield from self.recipes
        yield self.fields
        yield from self.fields.trade_secret
        yield self.privacy
        yield from self.privacy.per_party
        yield self.aggregation
        yield from self.tiers
        yield self.release
        yield self.conflict

    def clause(self, clause_id: str) -> Clause | None:
        """The clause of an id, or None."""
        return next((one for one in self.clauses() if one.clause == clause_id), None)

    def party(self, name: str | None) -> PartyClause | None:
        """The party of a short name, or None."""
        return next((one for one in self.parties if one.party == name), None)

    def party_of_key(self, key: str) -> PartyClause | None:
        """The party whose pinned key this is (``ed25519:...``), or None."""
        return next((one for one in self.parties if one.key == key), None)

    def recipe(self, recipe_digest: str | None) -> RecipeClause | None:
        """The recipe clause of a recipe's digest, or None."""
        return next((one for one in self.recipes if one.recipe_digest == recipe_digest), None)

    @property
    def contributors(self) -> tuple[PartyClause, ...]:
        """Parties that contribute, by clause id."""
        return tuple(one for one in self.parties if one.role == "contributor")

    @property
    def broker(self) -> PartyClause:
        """The one broker."""
        return next(one for one in self.parties if one.role == "broker")

    def groups(self, parties: Iterable[str]) -> frozenset[str]:
        """Independent groups of those names that are contributors; other names count for nothing."""
        named = set(parties)
        return frozenset(one.group for one in self.contributors if one.party in named)

    def weights(self, parties: Iterable[str]) -> dict[str, str]:
        """The weight of each party's update as the contract sets it, decimals; only their ratio counts.

        Raises:
            ContractInvalidError: A name that is no contributor.
        """
        table = {one.party: "1" for one in self.contributors}
        if self.aggregation.fixed_weights is not None:
            table = {one.party: one.weight for one in self.aggregation.fixed_weights}
        names = sorted(set(parties))
        strangers = [name for name in names if name not in table]
        if strangers:
            raise At(self.aggregation.clause, "aggregation").invalid("contributors", strangers)
        return {name: table[name] for name in names}

    def share(self, weights: Mapping[str, Fraction]) -> Fraction | None:
        """The largest share that one group has of these weights, or None if they sum to nothing."""
        total = sum(weights.values(), Fraction(0))
        if total <= 0:
            return None
        by_group: dict[str, Fraction] = {}
        for name, weight in weights.items():
            owner = self.party(name)
            group = owner.group if owner else name
            by_group[group] = by_group.get(group, Fraction(0)) + weight
        return max(by_group.values()) / total

    def caps(self, party: str) -> Caps | None:
        """The tightest caps for a party (None under ``mode: none``)."""
        common = self.privacy
        if common.epsilon_per_release is None or common.epsilon_total is None or common.delta is None:
            return None
        release = (Decimal(common.epsilon_per_release), common.epsilon_per_release, common.clause)
        total = (Decimal(common.epsilon_total), common.epsilon_total, common.clause)
        for cap in common.per_party:
            if cap.party != party:
                continue
            if cap.epsilon_per_release is not None:
                release = min(
                    release, (Decimal(cap.epsilon_per_release), cap.epsilon_per_release, cap.clause)
                )
            if cap.epsilon_total is not None:
                total = min(total, (Decimal(cap.epsilon_total), cap.epsilon_total, cap.clause))
        return Caps(
            epsilon_per_release=release[1],
            epsilon_total=total[1],
            release_clause=release[2],
            total_clause=total[2],
            delta=common.delta,
        )


def parse(data: bytes) -> Contract:
    """The contract behind canonical bytes.

    1. size and canonical form (RFC 8785)
    2. the schema
    3. every key of every clause, by its rule
    4. no contradiction

    Raises:
        NotCanonicalError: Step 1.
        UnknownSchemaError: Step 2.
        ContractInvalidError: Steps 3, 4; the clause is named. Its subclasses `ClauseUnsupportedError` (a term
            that only a later version enforces) and `EnforcementOverclaimedError`.
        WeakKeyError: A pinned key proves nothing.
    """
    from policies.contract.coherence import check

    # 1. canonical
    if len(data) > CONTRACT_BYTES:
        raise NotCanonicalError(
            need=f"at most {CONTRACT_BYTES} bytes", found=f"{len(data)} bytes", remedy="shorten the contract"
        )
    try:
        tree = parse_canonical(data)
    except EncodingError as error:
        raise NotCanonicalError(
            need=error.need,
            found=error.found,
            remedy="fetch the contract again by its digest; if it repeats, report the sender",
        ) from error
    # 2. the schema
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
        found = tree.get("schema") if isinstance(tree, dict) else type(tree).__name__
        raise UnknownSchemaError(
            need=f"schema {SCHEMA}", found=ascii(found)[:80], remedy="update iriai for a newer schema"
        )
    # 3. every key
    terms = read_fields(Contract, tree, At(None, ""))
    contract = Contract(**terms, canonical=data, digest=digest(data))
    count = sum(1 for _ in contract.clauses())
    if count > CLAUSES:
        raise ContractInvalidError(
            need=f"at most {CLAUSES} clauses", found=str(count), remedy="split the contract"
        )
    # 4. no contradiction
    check(contract)
    return contract
