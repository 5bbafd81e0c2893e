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

from policies.contract.errors import (
    ContractInvalidError,
    FormulaUnknownError,
    NotCanonicalError,
    UnknownSchemaError,
)
from policies.contract.grammar import (
    CLAUSE_ID,
    At,
    Choice,
    Decimals,
    Digest,
    Flag,
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
from policies.contract.index import Index
from policies.contract.registry import (
    EVIDENCE,
    FORBIDDEN_CHECKS,
    POINTS,
    RECIPIENTS,
    SCHEMA,
    VIEWS,
    most_claims,
)
from policies.encoding import digest
from policies.encoding import parse as parse_canonical
from policies.errors import EncodingError
from policies.limits import CLAUSES, CONTRACT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "AggregationClause",
    "AmendmentClause",
    "Approvals",
    "AuditClause",
    "Caps",
    "Clause",
    "ConflictClause",
    "Contract",
    "DatasetRef",
    "DerivativesClause",
    "Donation",
    "ExitClause",
    "ExportClause",
    "FeesClause",
    "FieldsClause",
    "FixedWeight",
    "ForbiddenClause",
    "HaltClause",
    "IncentivesClause",
    "LawClause",
    "LiabilityClause",
    "PartyClause",
    "PrivacyCapClause",
    "PrivacyClause",
    "ProseClause",
    "PurposeClause",
    "QueriesClause",
    "RecipeClause",
    "ReleaseClause",
    "RetentionClause",
    "SecretClause",
    "SeedClause",
    "TermClause",
    "TierClause",
    "ValidationClause",
    "parse",
]

Json = Any  # a JSON value

_ID = Word(CLAUSE_ID.pattern.strip("^$"))
_NAME = Word(r"[a-z][a-z0-9-]{0,31}")
_PARTY = Word(r"[a-z][a-z0-9-]{0,31}", reserved=("public",))
_FIELD = Word(r"[a-z][a-z0-9_]{0,63}")
_DATASET = Word(r"[a-z0-9][a-z0-9._/-]{0,127}")
_TITLE_CHARS = 200


def _points(kind: str) -> Any:  # noqa: ANN401  a dataclass field
    """``enforced_by``; what the author leaves out is filled in with all that the registry allows."""
    return ruled(
        Set(Choice(POINTS), least=1), omitted=lambda document, own: list(most_claims(kind, own, document))
    )


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
    role: str = ruled(Choice(("auditor", "broker", "contributor")))
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
    """Differential privacy and its caps; ``mode: none`` is NOT PRIVATE and has null everywhere else.

    ``honest_min`` belongs to ``noise: shares``: the least number of honest groups whose noise protects a sum.
    ``protected_properties`` names properties of a site that no model may betray (``shift-pattern``).
    ``reply_slot_ms`` makes nodes answer only at whole multiples of that time.
    """

    KIND: ClassVar[str] = "privacy"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("privacy")
    mode: str = ruled(Choice(("dp", "none")))
    unit: str | None = ruled(Nullable(Choice(("episode", "work-piece", "order"))), omitted=None)
    adjacency: str | None = ruled(Nullable(Choice(("zero-out", "add-remove"))), omitted=None)
    delta: str | None = ruled(Nullable(Decimals(below="1")), omitted=None)
    epsilon_per_release: str | None = ruled(Nullable(Decimals()), omitted=None)
    epsilon_total: str | None = ruled(Nullable(Decimals()), omitted=None)
    filter: str | None = ruled(Nullable(Choice(("rdp-fixed-order",))), omitted=None)
    noise: str | None = ruled(Nullable(Choice(("local-full", "shares"))), omitted=None)
    honest_min: int | None = ruled(Nullable(Integer(3, 64)), omitted=None)
    protected_properties: tuple[str, ...] = ruled(Set(_NAME), omitted=[])
    reply_slot_ms: int | None = ruled(Nullable(Integer(1, 600_000)), omitted=None)
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
    max_colluders: int = ruled(Integer(0, 62), omitted=0)
    max_share: str = ruled(Decimals(most="1"))
    weights: str = ruled(Choice(("equal", "fixed")))
    fixed_weights: tuple[FixedWeight, ...] | None = ruled(
        Nullable(Rows(FixedWeight, by=("party",), least=1)), omitted=None
    )
    secure_aggregation: str = ruled(Choice(("off", "required")))
    update_norm_max: str = ruled(Decimals())
    delay_hours: int = ruled(Integer(0, 8_784))
    differencing_guard: str = ruled(Choice(("off", "non-dp-outputs", "all")))
    group_mac: str = ruled(Choice(("off", "on")), omitted="off")


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
    embargo_days: int | None = ruled(Nullable(Integer(1, 3_660)), omitted=None)
    min_contribution: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)


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
    evidence: tuple[str, ...] = ruled(Set(Choice(EVIDENCE)))
    max_mia_auc: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    max_property_skill: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProseClause:
    """The text for people and courts, bound by its hash; it prevails over the code."""

    KIND: ClassVar[str] = "prose"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("prose")
    media_type: str = ruled(Choice(("application/pdf", "text/plain")))
    prevails: bool = ruled(Flag(only=True))
    sha256: str = ruled(Word(r"[0-9a-f]{64}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForbiddenClause:
    """A use that nobody may make; ``check`` names what code looks at, the rest is for courts."""

    KIND: ClassVar[str] = "forbidden"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("forbidden")
    use: str = ruled(_NAME)
    check: str = ruled(Choice(tuple(FORBIDDEN_CHECKS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Donation:
    """Episodes that one party openly gave for the seed set of a recipe."""

    party: str = ruled(_PARTY)
    dataset: str = ruled(_DATASET)
    consent: str = ruled(Digest())
    licence: str = ruled(Prose(_TITLE_CHARS))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedClause:
    """The openly donated episodes that a recipe may start from (``seed_set``: digest of their list)."""

    KIND: ClassVar[str] = "seed"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("seed")
    recipe: str = ruled(_NAME)
    seed_set: str = ruled(Digest())
    donations: tuple[Donation, ...] = ruled(Rows(Donation, by=("party", "dataset"), least=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationClause:
    """How many groups must accept a model on their own held-out episodes, and when rejections stop a run."""

    KIND: ClassVar[str] = "validation"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("validation")
    quorum: str = ruled(Decimals(most="1"))
    max_rejected_rounds: int = ruled(Integer(1, 1_000))
    judge_episodes: int | None = ruled(Nullable(Integer(1, 100_000)), omitted=None)
    gain_clip: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    max_judgings: int | None = ruled(Nullable(Integer(1, 10_000)), omitted=None)
    epsilon: str | None = ruled(Nullable(Decimals()), omitted=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriesClause:
    """The only views that may be asked for, and how many groups stand behind a shared number."""

    KIND: ClassVar[str] = "queries"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("queries")
    allow: tuple[str, ...] = ruled(Set(Choice(VIEWS)))
    min_groups: int = ruled(Integer(2, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivativesClause:
    """What may be made of a released model."""

    KIND: ClassVar[str] = "derivatives"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("derivatives")
    fine_tune: str = ruled(Choice(("forbidden", "internal", "any")))
    distil: str = ruled(Choice(("forbidden", "internal", "any")))
    sublicense: str = ruled(Choice(("none", "affiliates", "any")))
    grant_back: str = ruled(Choice(("none", "bugfixes", "all")))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionClause:
    """How long the broker keeps what; deletion is stated under its signature."""

    KIND: ClassVar[str] = "retention"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("retention")
    updates_hours: int = ruled(Integer(0, 8_784))
    aggregates_days: int = ruled(Integer(0, 36_600))
    logs_years: int = ruled(Integer(1, 100))
    evidence: str = ruled(Choice(("signed-statement",)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitClause:
    """How a contributor leaves: its influence ends at once, released models stay, nothing is unlearned."""

    KIND: ClassVar[str] = "exit"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("exit")
    notice_days: int = ruled(Integer(0, 366))
    released_models: str = ruled(Choice(("keep",)))
    unreleased_models: str = ruled(Choice(("retrain", "discard", "leaver-chooses")))
    influence: str = ruled(Choice(("bounded-not-erased",)))


@dataclass(frozen=True, slots=True, kw_only=True)
class IncentivesClause:
    """How what the pool earns is shared out. Shares are told to their owner only."""

    KIND: ClassVar[str] = "incentives"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("incentives")
    method: str = ruled(Choice(("group-probe-shapley", "flat", "none"), error=FormulaUnknownError))
    formula: str | None = ruled(Nullable(Choice(("cost-share/1",), error=FormulaUnknownError)), omitted=None)
    pool_eur_per_quarter: int | None = ruled(Nullable(Integer(0)), omitted=None)
    floor: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    cap: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    disclose: str = ruled(Choice(("own-share-only",)))
    min_participation: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    probe_share: str | None = ruled(Nullable(Decimals(most="1")), omitted=None)
    probe_window: int | None = ruled(Nullable(Integer(1, 1_000)), omitted=None)
    fingerprints: str | None = ruled(Nullable(Choice(("off", "on"))), omitted=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeesClause:
    """What the broker's service costs; equal for each group, tied to nothing else."""

    KIND: ClassVar[str] = "fees"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("fees")
    eur_per_quarter: int = ruled(Integer(0))
    basis: str = ruled(Choice(("equal-per-group", "by-size", "none")))
    tied_services: str = ruled(Choice(("none", "some")))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditClause:
    """Which log the contract lives in, who may read its proofs, how many witnesses must have cosigned."""

    KIND: ClassVar[str] = "audit"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("audit")
    who: tuple[str, ...] = ruled(Set(Choice(("auditor", "contributors")), least=1))
    access: str = ruled(Choice(("log-proofs",)))
    log_origin: str = ruled(Word(r"[A-Za-z0-9._:\[\]-]{1,128}(/[A-Za-z0-9._-]{1,64}){0,8}"))
    witness_quorum: int = ruled(Integer(0, 64))
    ml_dsa: str = ruled(Choice(("off", "accept", "require")))
    notice_days: int = ruled(Integer(0, 366))
    raw_data: str = ruled(Choice(("never",)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiabilityClause:
    """Up to which sum each party answers, and for what without bound (null: no cap)."""

    KIND: ClassVar[str] = "liability"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("liability")
    cap_eur: int | None = ruled(Nullable(Integer(0)))
    uncapped: tuple[str, ...] = ruled(Set(_NAME), omitted=[])
    bears: str = ruled(Choice(("each-party", "contributors", "broker")), omitted="each-party")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportClause:
    """To which countries no model is delivered."""

    KIND: ClassVar[str] = "export"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("export")
    classification: str = ruled(Choice(("none", "dual-use")))
    embargoed: tuple[str, ...] = ruled(Set(Word(r"[A-Z]{2}")))
    check: str = ruled(Choice(("recipient-country",)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LawClause:
    """Governing law, forum and the language of disputes."""

    KIND: ClassVar[str] = "law"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("law")
    governing: str = ruled(Word(r"[A-Z]{2}"))
    forum: str = ruled(Prose(_TITLE_CHARS))
    language: str = ruled(Word(r"[a-z]{2}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendmentClause:
    """Who must sign a successor of this contract."""

    KIND: ClassVar[str] = "amendment"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("amendment")
    change: str = ruled(Choice(("all-contributors",)))
    tighten: str = ruled(Choice(("any-contributor", "all-contributors")))
    key_rotation: str = ruled(Choice(("by-old-key-or-all", "all-contributors")))


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltClause:
    """Who may stop everything at once, and who must agree that it goes on."""

    KIND: ClassVar[str] = "halt"
    clause: str = ruled(_ID)
    enforced_by: tuple[str, ...] = _points("halt")
    who: tuple[str, ...] = ruled(Set(Choice(("any-contributor", "auditor", "broker")), least=1))
    effect: str = ruled(Choice(("no-new-round-no-release",)))
    resume: str = ruled(Choice(("all-contributors",)))


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
    | ProseClause
    | ForbiddenClause
    | SeedClause
    | ValidationClause
    | QueriesClause
    | DerivativesClause
    | RetentionClause
    | ExitClause
    | IncentivesClause
    | FeesClause
    | AuditClause
    | LiabilityClause
    | ExportClause
    | LawClause
    | AmendmentClause
    | HaltClause
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
    test_only: bool = ruled(Flag(), omitted=False)
    prose: ProseClause | None = ruled(Nullable(Struct(ProseClause)), omitted=None)
    parties: tuple[PartyClause, ...] = ruled(Rows(PartyClause, least=1))
    term: TermClause = ruled(Struct(TermClause))
    purposes: tuple[PurposeClause, ...] = ruled(Rows(PurposeClause, least=1))
    forbidden: tuple[ForbiddenClause, ...] = ruled(Rows(ForbiddenClause), omitted=[])
    recipes: tuple[RecipeClause, ...] = ruled(Rows(RecipeClause, least=1))
    seed_sets: tuple[SeedClause, ...] = ruled(Rows(SeedClause), omitted=[])
    fields: FieldsClause = ruled(Struct(FieldsClause))
    privacy: PrivacyClause = ruled(Struct(PrivacyClause))
    aggregation: AggregationClause = ruled(Struct(AggregationClause))
    validation: ValidationClause | None = ruled(Nullable(Struct(ValidationClause)), omitted=None)
    queries: QueriesClause | None = ruled(Nullable(Struct(QueriesClause)), omitted=None)
    tiers: tuple[TierClause, ...] = ruled(Rows(TierClause, least=1))
    release: ReleaseClause = ruled(Struct(ReleaseClause))
    derivatives: DerivativesClause | None = ruled(Nullable(Struct(DerivativesClause)), omitted=None)
    retention: RetentionClause | None = ruled(Nullable(Struct(RetentionClause)), omitted=None)
    exit: ExitClause = ruled(Struct(ExitClause))
    incentives: IncentivesClause | None = ruled(Nullable(Struct(IncentivesClause)), omitted=None)
    fees: FeesClause | None = ruled(Nullable(Struct(FeesClause)), omitted=None)
    audit: AuditClause | None = ruled(Nullable(Struct(AuditClause)), omitted=None)
    liability: LiabilityClause | None = ruled(Nullable(Struct(LiabilityClause)), omitted=None)
    export_control: ExportClause | None = ruled(Nullable(Struct(ExportClause)), omitted=None)
    law: LawClause | None = ruled(Nullable(Struct(LawClause)), omitted=None)
    amendment: AmendmentClause = ruled(Struct(AmendmentClause))
    halt: HaltClause = ruled(Struct(HaltClause))
    conflict: ConflictClause = ruled(Struct(ConflictClause))
    canonical: bytes = field(repr=False)
    digest: str
    index: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", Index.of(self, self._listed()))

    @property
    def document(self) -> dict[str, Json]:
        """A fresh JSON object of the canonical bytes."""
        tree: dict[str, Json] = json.loads(self.canonical)
        return tree

    def clauses(self) -> Iterator[Clause]:
        """Every clause, nested ones too, in document order."""
        return iter(self.index.clauses)

    def _listed(self) -> Iterator[Clause]:
        listed: tuple[Clause | None, ...] = (
            self.prose,
            *self.parties,
            self.term,
            *self.purposes,
            *self.forbidden,
            *self.recipes,
            *self.seed_sets,
            self.fields,
            *self.fields.trade_secret,
            self.privacy,
            *self.privacy.per_party,
            self.aggregation,
            self.validation,
            self.queries,
            *self.tiers,
            self.release,
            self.derivatives,
            self.retention,
            self.exit,
            self.incentives,
            self.fees,
            self.audit,
            self.liability,
            self.export_control,
            self.law,
            self.amendment,
            self.halt,
            self.conflict,
        )
        yield from (one for one in listed if one is not None)

    def clause(self, clause_id: str) -> Clause | None:
        """The clause of an id, or None."""
        return self.index.by_id.get(clause_id)

    def party(self, name: str | None) -> PartyClause | None:
        """The party of a short name, or None."""
        return None if name is None else self.index.parties.get(name)

    def party_of_key(self, key: str) -> PartyClause | None:
        """The party whose pinned key this is (``ed25519:...``), or None."""
        return next((one for one in self.parties if one.key == key), None)

    def recipe(self, recipe_digest: str | None) -> RecipeClause | None:
        """The recipe clause of a recipe's digest, or None."""
        return None if recipe_digest is None else self.index.recipes.get(recipe_digest)

    @property
    def contributors(self) -> tuple[PartyClause, ...]:
        """Parties that contribute, by clause id."""
        return self.index.contributors

    @property
    def broker(self) -> PartyClause:
        """The one broker."""
        return next(one for one in self.parties if one.role == "broker")

    def forbids(self, check: str) -> bool:
        """Whether a forbidden use is judged by this check."""
        return check in self.index.forbidden

    def groups(self, parties: Iterable[str]) -> frozenset[str]:
        """Independent groups of those names that are contributors; other names count for nothing."""
        group_of = self.index.group_of
        return frozenset([group_of[name] for name in parties if name in group_of])

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
            owner = self.index.parties.get(name)
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
        ContractInvalidError: Steps 3, 4; the clause is named. Its subclass is `EnforcementOverclaimedError`.
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
