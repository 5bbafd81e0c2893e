# SPDX-License-Identifier: Apache-2.0
"""What each clause says, as sentences in no language yet: a key of the catalogue and the clause's own values.

- A sentence is a `Say`. Its words are in `policies.contract.words.english` and
  `policies.contract.words.japanese`, under
  the same keys; numbers and names come from the clause and from nowhere else.
- Values: text and integers as they are, a tuple as a list, `Term` a word of the language's own vocabulary
  (``episode``), `Count` a number with its noun, `Named` a name of the contract that may have a meaning.
- Every field of every clause is in some sentence of it, except its id and ``enforced_by``, which
  `policies.contract.render` adds to each.

    for say in sentences(contract, contract.term):
        words_en.say(say)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.contract.coherence import owner_of
from policies.contract.registry import CANARY_REPORT, PROTECTED_GROUPS
from policies.contract.thresholds import groups_to_open, least_online

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from policies.contract.clauses import (
        AggregationClause,
        AmendmentClause,
        AuditClause,
        Clause,
        ConflictClause,
        Contract,
        DerivativesClause,
        ExitClause,
        ExportClause,
        FeesClause,
        FieldsClause,
        ForbiddenClause,
        HaltClause,
        IncentivesClause,
        LawClause,
        LiabilityClause,
        PartyClause,
        PrivacyCapClause,
        PrivacyClause,
        ProseClause,
        PurposeClause,
        QueriesClause,
        RecipeClause,
        ReleaseClause,
        RetentionClause,
        SecretClause,
        SeedClause,
        TermClause,
        TierClause,
        ValidationClause,
    )

__all__ = ["Count", "Named", "Say", "Term", "about_the_contract", "sentences"]


@dataclass(frozen=True, slots=True)
class Term:
    """A word that the contract language offers, shown in the reader's language."""

    topic: str
    word: str


@dataclass(frozen=True, slots=True)
class Named:
    """A name that the parties chose; if it is a well-known one, its meaning is shown beside it."""

    topic: str
    word: str


@dataclass(frozen=True, slots=True)
class Count:
    """A number of something."""

    number: int
    noun: str


@dataclass(frozen=True, slots=True)
class Say:
    """A sentence: its key in the catalogues, and its values by name."""

    key: str
    values: Mapping[str, object]


def sentences(contract: Contract, clause: Clause) -> Iterator[Say]:
    """The sentences of one clause of the contract, in reading order."""
    return _BY_KIND[clause.KIND](contract, clause)


def about_the_contract(contract: Contract) -> Iterator[Say]:
    """The sentences about the document as a whole: what belongs to no clause."""
    yield _say("contract", contract_id=contract.contract_id, title=contract.title, schema=contract.schema)
    if contract.supersedes is None:
        yield _say("first-version", version=contract.version)
    else:
        yield _say("later-version", version=contract.version, supersedes=contract.supersedes)
    yield _say("sign-by", sign_by=contract.sign_by, language=contract.language)
    if contract.test_only:
        yield _say("test-only")


def _say(key: str, /, **values: object) -> Say:
    return Say(key, values)


def _terms(topic: str, words: tuple[str, ...]) -> tuple[Term, ...]:
    return tuple(Term(topic, one) for one in words)


# --- who, when, what for ---


def _prose(_contract: Contract, clause: ProseClause) -> Iterator[Say]:
    yield _say("prose", media_type=clause.media_type, sha256=clause.sha256)


def _party(_contract: Contract, clause: PartyClause) -> Iterator[Say]:
    yield _say(
        "party",
        name=clause.legal_name,
        party=clause.party,
        country=clause.country,
        org=clause.org,
        group=clause.group,
        role=Term("role", clause.role),
        key=clause.key,
    )


def _term(_contract: Contract, clause: TermClause) -> Iterator[Say]:
    yield _say("term", effective=clause.effective, expires=clause.expires)


def _purpose(contract: Contract, clause: PurposeClause) -> Iterator[Say]:
    yield _say("purpose", id=clause.id, text=clause.text)
    if clause.id not in {one.purpose for one in contract.recipes}:
        yield _say("purpose-unused", id=clause.id)


def _forbidden(contract: Contract, clause: ForbiddenClause) -> Iterator[Say]:
    release = contract.release
    bounds = {"membership-inference": release.max_mia_auc, "property-leak": release.max_property_skill}
    yield _say("forbidden", use=Named("use", clause.use))
    yield _say(f"check-{clause.check}", bound=bounds.get(clause.check) or "0", release=release.clause)


# --- what runs on whose data ---


def _recipe(_contract: Contract, clause: RecipeClause) -> Iterator[Say]:
    yield _say(
        "recipe",
        id=clause.id,
        digest=clause.recipe_digest,
        purpose=clause.purpose,
        rounds=Count(clause.max_rounds, "round"),
        steps=Count(clause.max_local_steps_per_round, "local step"),
    )
    for party in clause.participants:
        yield _say("recipe-reads", id=clause.id, datasets=clause.datasets_of(party), party=party)


def _seed(_contract: Contract, clause: SeedClause) -> Iterator[Say]:
    yield _say("seed", recipe=clause.recipe, seed_set=clause.seed_set)
    for one in clause.donations:
        yield _say("donation", party=one.party, dataset=one.dataset, licence=one.licence, consent=one.consent)


def _fields(_contract: Contract, clause: FieldsClause) -> Iterator[Say]:
    yield _say("fields", allow=clause.allow)
    yield _say("personal-data", which=Term("personal-data", clause.personal_data))


def _secret(contract: Contract, clause: SecretClause) -> Iterator[Say]:
    yield _say("secret", party=clause.party, basis=clause.basis, fields=clause.fields)
    if CANARY_REPORT in contract.release.evidence:
        yield _say("secret-canary", party=clause.party)


# --- privacy ---


def _privacy(contract: Contract, clause: PrivacyClause) -> Iterator[Say]:
    if clause.mode == "none":
        yield _say("not-private")
    else:
        yield from _protection(clause)
    if clause.honest_min is not None:
        colluders = contract.aggregation.max_colluders
        yield _say("honest-min", honest=Count(clause.honest_min, "group"), colluders=colluders)
    if clause.protected_properties:
        yield _say("protected", names=clause.protected_properties, groups=Count(PROTECTED_GROUPS, "group"))
    if clause.reply_slot_ms is not None:
        yield _say("reply-slot", ms=clause.reply_slot_ms)


def _protection(clause: PrivacyClause) -> Iterator[Say]:
    yield _say(
        "privacy",
        unit=Term("unit", clause.unit or ""),
        adjacency=Term("adjacency", clause.adjacency or ""),
        delta=clause.delta,
    )
    yield _say("epsilon", release=clause.epsilon_per_release, total=clause.epsilon_total)
    yield _say("noise", how=Term("noise", clause.noise or ""), filter=Named("filter", clause.filter or ""))


def _cap(contract: Contract, clause: PrivacyCapClause) -> Iterator[Say]:
    caps = contract.caps(clause.party)
    if caps is None:  # a contract without privacy has no caps
        return
    yield _say("cap", party=clause.party, release=caps.epsilon_per_release, total=caps.epsilon_total)
    own = {"release": clause.epsilon_per_release, "total": clause.epsilon_total}
    named = tuple(Term("cap", name) for name, value in own.items() if value is not None)
    yield _say("cap-own", party=clause.party, which=named, common=contract.privacy.clause)


# --- averages, validation, views ---


def _aggregation(contract: Contract, clause: AggregationClause) -> Iterator[Say]:
    yield _say("groups", groups=Count(clause.min_parties, "independent group"), share=clause.max_share)
    key = "colluders" if clause.max_colluders else "no-colluders"
    yield _say(key, colluders=Count(clause.max_colluders, "group"))
    yield _say("weights", how=Term("weights", clause.weights))
    if clause.fixed_weights is not None:
        yield _say("weight-table", table=tuple(f"{one.party} {one.weight}" for one in clause.fixed_weights))
    yield _say("norm", norm=clause.update_norm_max)
    bare = clause.secure_aggregation == "off" and contract.privacy.mode == "none"
    yield _say("secure-off-not-private" if bare else f"secure-{clause.secure_aggregation}")
    if clause.secure_aggregation == "required":
        yield from _opened(contract, clause)
    yield _say("group-mac", which=Term("group-mac", clause.group_mac))
    yield _say("delay", delay=Count(clause.delay_hours, "hour")) if clause.delay_hours else _say("no-delay")
    guarded = Count(clause.min_parties, "group")
    yield _say(f"differencing-{clause.differencing_guard}", groups=guarded)


def _opened(contract: Contract, clause: AggregationClause) -> Iterator[Say]:
    groups = groups_to_open(clause.min_parties, clause.max_colluders, contract.privacy.honest_min)
    for recipe in contract.recipes:
        n = len(recipe.participants)
        least = Count(least_online(n, clause.min_parties), "contributor")
        yield _say(
            "secure-opened",
            recipe=recipe.id,
            least=least,
            all=Count(n, "contributor"),
            groups=Count(groups, "independent group"),
        )
    yield _say("secure-last")


def _validation(_contract: Contract, clause: ValidationClause) -> Iterator[Say]:
    yield _say("quorum", quorum=clause.quorum)
    yield _say("rejected", rounds=clause.max_rejected_rounds)
    if clause.judge_episodes is not None:
        yield _say("judge-episodes", episodes=Count(clause.judge_episodes, "held-out episode"))
    if clause.gain_clip is not None:
        yield _say("gain-clip", clip=clause.gain_clip)
    if clause.max_judgings is not None:
        yield _say("max-judgings", judgings=Count(clause.max_judgings, "judging"))
    if clause.epsilon is not None:
        yield _say("judging-epsilon", epsilon=clause.epsilon)


def _queries(_contract: Contract, clause: QueriesClause) -> Iterator[Say]:
    yield _say("views", allow=_terms("view", clause.allow)) if clause.allow else _say("no-views")
    yield _say("view-groups", groups=Count(clause.min_groups, "group"))


# --- models: who receives them, what must lie with them, what may be made of them ---


def _tier(_contract: Contract, clause: TierClause) -> Iterator[Say]:
    values = {
        "model": clause.model,
        "recipe": clause.recipe,
        "recipients": _terms("recipients", clause.recipients),
        "tier": Term("tier", clause.tier),
        "licence": clause.licence,
        "requires": clause.requires,
    }
    yield _say("tier-private" if clause.tier == "private" else "tier", **values)
    if clause.embargo_days is not None:
        yield _say("embargo", days=Count(clause.embargo_days, "day"))
    if clause.min_contribution is not None:
        yield _say("min-contribution", share=clause.min_contribution)


def _release(contract: Contract, clause: ReleaseClause) -> Iterator[Say]:
    approvals = clause.approvals
    yield _say("approvals", groups=Count(approvals.min, "group"), of=Term("approvals", approvals.of))
    owners = tuple(sorted({owner_of(contract, one) or "" for one in approvals.veto}))
    yield _say("veto", owners=owners, clauses=approvals.veto) if owners else _say("no-veto")
    evidence = _terms("evidence", clause.evidence)
    yield _say("evidence", evidence=evidence) if evidence else _say("no-evidence")
    if clause.max_mia_auc is not None:
        yield _say("max-mia-auc", bound=clause.max_mia_auc)
    if clause.max_property_skill is not None:
        yield _say("max-property-skill", bound=clause.max_property_skill)


def _derivatives(_contract: Contract, clause: DerivativesClause) -> Iterator[Say]:
    yield _say("fine-tune", how=Term("derive", clause.fine_tune))
    yield _say("distil", how=Term("derive", clause.distil))
    yield _say("sublicense", to=Term("sublicense", clause.sublicense))
    yield _say("grant-back", what=Term("grant-back", clause.grant_back))


def _export(_contract: Contract, clause: ExportClause) -> Iterator[Say]:
    yield _say("classification", which=Term("classification", clause.classification))
    key = "embargoed" if clause.embargoed else "not-embargoed"
    yield _say(key, countries=clause.embargoed, check=Term("export-check", clause.check))


# --- keeping, paying, auditing, answering for it ---


def _retention(_contract: Contract, clause: RetentionClause) -> Iterator[Say]:
    yield _say(
        "retention",
        updates=Count(clause.updates_hours, "hour"),
        aggregates=Count(clause.aggregates_days, "day"),
        logs=Count(clause.logs_years, "year"),
        evidence=Term("retention-evidence", clause.evidence),
    )


def _incentives(_contract: Contract, clause: IncentivesClause) -> Iterator[Say]:
    yield _say("incentives", method=Term("method", clause.method))
    if clause.formula is not None:
        yield _say("formula", formula=Named("formula", clause.formula))
    if clause.pool_eur_per_quarter is not None:
        yield _say("pool", eur=clause.pool_eur_per_quarter)
    for key in ("floor", "cap", "min_participation", "probe_share", "probe_window"):
        value = getattr(clause, key)
        if value is not None:
            yield _say("pay-" + key.replace("_", "-"), value=value)
    if clause.fingerprints is not None:
        yield _say("fingerprints", which=Term("fingerprints", clause.fingerprints))
    yield _say("disclose", what=Term("disclose", clause.disclose))


def _fees(_contract: Contract, clause: FeesClause) -> Iterator[Say]:
    yield _say("fees", eur=clause.eur_per_quarter, basis=Term("fee-basis", clause.basis))
    yield _say("tied", which=Term("tied", clause.tied_services))


def _audit(_contract: Contract, clause: AuditClause) -> Iterator[Say]:
    yield _say("log", origin=clause.log_origin)
    yield _say(
        "audit",
        who=_terms("audit-who", clause.who),
        access=Term("access", clause.access),
        days=Count(clause.notice_days, "day"),
    )
    key = "witnesses" if clause.witness_quorum else "no-witnesses"
    yield _say(key, witnesses=Count(clause.witness_quorum, "witness"))
    yield _say("ml-dsa", how=Term("ml-dsa", clause.ml_dsa))
    yield _say("raw-data", when=Term("raw-data", clause.raw_data))


def _liability(_contract: Contract, clause: LiabilityClause) -> Iterator[Say]:
    bears = Term("bears", clause.bears)
    if clause.cap_eur is None:
        yield _say("liability-uncapped", bears=bears)
    else:
        yield _say("liability", bears=bears, eur=clause.cap_eur)
    if clause.uncapped:
        yield _say("uncapped", causes=tuple(Named("cause", one) for one in clause.uncapped))


def _law(_contract: Contract, clause: LawClause) -> Iterator[Say]:
    yield _say("law", governing=clause.governing, forum=clause.forum, language=clause.language)


# --- how it changes, stops and ends ---


def _exit(_contract: Contract, clause: ExitClause) -> Iterator[Say]:
    yield _say(
        "exit",
        days=Count(clause.notice_days, "day"),
        released=Term("released", clause.released_models),
        influence=Term("influence", clause.influence),
    )
    yield _say("exit-unreleased", how=Term("unreleased", clause.unreleased_models))


def _amendment(_contract: Contract, clause: AmendmentClause) -> Iterator[Say]:
    yield _say("change", who=Term("change", clause.change))
    yield _say("tighten", who=Term("tighten", clause.tighten))
    yield _say("rotation", who=Term("rotation", clause.key_rotation))


def _halt(_contract: Contract, clause: HaltClause) -> Iterator[Say]:
    yield _say("halt", who=_terms("halt-who", clause.who), effect=Term("halt-effect", clause.effect))
    yield _say("resume", who=Term("resume", clause.resume))


def _conflict(_contract: Contract, clause: ConflictClause) -> Iterator[Say]:
    yield _say("conflict", rule=Term("conflict", clause.rule), unknown=Term("unknown", clause.unknown))


_BY_KIND: Final[Mapping[str, Callable[..., Iterator[Say]]]] = {
    "prose": _prose,
    "party": _party,
    "term": _term,
    "purpose": _purpose,
    "forbidden": _forbidden,
    "recipe": _recipe,
    "seed": _seed,
    "fields": _fields,
    "secret": _secret,
    "privacy": _privacy,
    "privacy-cap": _cap,
    "aggregation": _aggregation,
    "validation": _validation,
    "queries": _queries,
    "tier": _tier,
    "release": _release,
    "derivatives": _derivatives,
    "retention": _retention,
    "exit": _exit,
    "incentives": _incentives,
    "fees": _fees,
    "audit": _audit,
    "liability": _liability,
    "export": _export,
    "law": _law,
    "amendment": _amendment,
    "halt": _halt,
    "conflict": _conflict,
}
