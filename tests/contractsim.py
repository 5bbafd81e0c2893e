# SPDX-License-Identifier: Apache-2.0
"""A contract of four manufacturers and a broker that uses every kind of clause, and requests that it allows."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import fields, replace
from typing import Any

from policies.contract import (
    Aggregate,
    Contract,
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
    from_tree,
)
from policies.identity import SigningKey, key_text

CONTRIBUTORS = ("hanbit", "iber", "kita", "nord")
WELDERS = ("iber", "kita", "nord")
PICK = "sha256:" + hashlib.sha256(b"pick").hexdigest()
WELD = "sha256:" + hashlib.sha256(b"weld").hexdigest()
MODEL = "sha256:" + hashlib.sha256(b"model").hexdigest()
SEED = "sha256:" + hashlib.sha256(b"seed set").hexdigest()
CONSENT = "sha256:" + hashlib.sha256(b"consent of iber").hexdigest()
NOTICE = "sha256:" + hashlib.sha256(b"notice").hexdigest()
ORIGIN = "broker.example/weldpick"
EVIDENCE = (
    "canary-report",
    "federated-evaluation",
    "log-root",
    "membership-inference-report",
    "privacy-statement",
    "property-leak-report",
)
STATE = ContractState(
    now="2027-12-02T00:00:00Z",
    executed=True,
    halted=False,
    exited_parties=(),
    standing="in-force",
    rotated_keys={},
)


def key_of(party: str) -> SigningKey:
    """The party's key, from its name."""
    return SigningKey.from_seed(hashlib.sha256(f"key of {party}".encode()).digest())


def key(party: str) -> str:
    """The public key's text."""
    return key_text(key_of(party).public)


def _party(name: str, org: str, role: str, legal_name: str, country: str) -> dict[str, Any]:
    return {
        "clause": f"party-{name}",
        "party": name,
        "org": org,
        "role": role,
        "group": name,
        "legal_name": legal_name,
        "country": country,
        "key": key(name),
    }


def authored() -> dict[str, Any]:
    """What an author writes: everything that may be left out is left out."""
    return copy.deepcopy(_AUTHORED)


_AUTHORED: dict[str, Any] = {
    "schema": "iriai-contract/1",
    "contract_id": "ctr_lkihp6tr36wod3m4",
    "version": 1,
    "title": "Weld & Pick common-model pool",
    "language": "en",
    "sign_by": "2026-11-30T00:00:00Z",
    "prose": {
        "clause": "prose-1",
        "media_type": "application/pdf",
        "prevails": True,
        "sha256": "9d1f4e6a3c5b7081920a1b2c3d4e5f60718293a4b5c6d7e8f9010203040506aa",
    },
    "parties": [
        _party("kita", "org_5jxbgpbkezo7gbvl", "contributor", "Kita Robot KK 北", "JP"),
        _party("nord", "org_l3gczmbbbhpqwvaz", "contributor", "Nordschweiss GmbH", "NO"),
        _party("iber", "org_zfs2jviegx7243dt", "contributor", "Iberpick SA", "ES"),
        _party("hanbit", "org_vayvp5am2zr3icv6", "contributor", "Hanbit Automation", "KR"),
        _party("broker", "org_d5oiwqd642vtg5nv", "broker", "Neutral Broker eG", "DE"),
        _party("audit", "org_vluil5rr7kxzbrz5", "auditor", "AuditCo LLP", "NL"),
    ],
    "term": {"clause": "term-1", "effective": "2026-12-01T00:00:00Z", "expires": "2028-12-01T00:00:00Z"},
    "purposes": [
        {"clause": "purpose-1", "id": "improve-common-model", "text": "Train the models named in recipes."},
        {"clause": "purpose-2", "id": "reduce-weld-failures", "text": "Find failed welds early."},
        {"clause": "purpose-3", "id": "safety-monitoring", "text": "Detect collisions in own plants."},
    ],
    "forbidden": [
        {"clause": "forbid-1", "use": "reidentify-party-or-plant", "check": "membership-inference"},
        {"clause": "forbid-2", "use": "benchmark-competitors", "check": "query-allow-list"},
        {"clause": "forbid-3", "use": "reverse-engineer-process", "check": "canary"},
        {"clause": "forbid-4", "use": "infer-capacity-or-mix", "check": "property-leak"},
        {"clause": "forbid-5", "use": "train-outside-recipes", "check": "recipe-digest"},
        {"clause": "forbid-6", "use": "military-end-use", "check": "attestation"},
    ],
    "recipes": [
        {
            "clause": "recipe-1",
            "id": "pick",
            "purpose": "improve-common-model",
            "recipe_digest": PICK,
            "max_rounds": 200,
            "max_local_steps_per_round": 1,
            "datasets": [{"party": name, "dataset": f"{name}/pick"} for name in CONTRIBUTORS],
        },
        {
            "clause": "recipe-2",
            "id": "weld",
            "purpose": "reduce-weld-failures",
            "recipe_digest": WELD,
            "max_rounds": 100,
            "max_local_steps_per_round": 20,
            "datasets": [{"party": name, "dataset": f"{name}/weld"} for name in WELDERS],
        },
    ],
    "seed_sets": [
        {
            "clause": "seed-1",
            "recipe": "weld",
            "seed_set": SEED,
            "donations": [
                {"party": "iber", "dataset": "iber/open", "consent": CONSENT, "licence": "CC-BY-4.0"}
            ],
        }
    ],
    "fields": {
        "clause": "fields-1",
        "allow": ["tcp_pos", "gripper_width", "object_pos", "goal_pos"],
        "trade_secret": [
            {"clause": "secret-1", "party": "nord", "fields": ["x_seam_program"], "basis": "Data Act 4(6)"},
            {"clause": "secret-2", "party": "kita", "fields": ["x_shift_id"], "basis": "UCPA 2(6)"},
        ],
        "personal_data": "none",
    },
    "privacy": {
        "clause": "dp-1",
        "mode": "dp",
        "unit": "episode",
        "adjacency": "zero-out",
        "delta": "1e-5",
        "epsilon_per_release": "2.0",
        "epsilon_total": "8.0",
        "filter": "rdp-fixed-order",
        "noise": "local-full",
        "per_party": [
            {"clause": "dp-2", "party": "nord", "epsilon_total": "4.0"},
            {"clause": "dp-3", "party": "hanbit", "epsilon_total": "6.0", "epsilon_per_release": "1.5"},
        ],
    },
    "aggregation": {
        "clause": "k-1",
        "min_parties": 3,
        "max_share": "0.60",
        "weights": "equal",
        "secure_aggregation": "required",
        "update_norm_max": "10.0",
        "delay_hours": 24,
        "differencing_guard": "non-dp-outputs",
        "group_mac": "on",
    },
    "validation": {"clause": "validate-1", "quorum": "0.67", "max_rejected_rounds": 3},
    "queries": {
        "clause": "query-1",
        "allow": ["run-status", "own-share", "own-budget", "own-receipts", "released-model-metrics"],
        "min_groups": 3,
    },
    "tiers": [
        {
            "clause": "tier-open",
            "tier": "open",
            "recipe": "pick",
            "model": "pick-lite",
            "licence": "Apache-2.0",
            "embargo_days": 180,
        },
        {
            "clause": "tier-consortium",
            "tier": "consortium",
            "recipe": "pick",
            "model": "pick",
            "licence": "pool-1",
            "min_contribution": "0.02",
        },
        {
            "clause": "tier-participant",
            "tier": "participant",
            "recipe": "weld",
            "model": "weld",
            "licence": "pool-1",
        },
        {
            "clause": "tier-private",
            "tier": "private",
            "recipe": "pick",
            "model": "local-head",
            "licence": "owner",
        },
    ],
    "release": {
        "clause": "release-1",
        "approvals": {"of": "contributors", "min": 3, "veto": ["dp-2", "secret-1", "secret-2"]},
        "evidence": list(EVIDENCE),
        "max_mia_auc": "0.65",
        "max_property_skill": "0.25",
    },
    "derivatives": {
        "clause": "deriv-1",
        "fine_tune": "internal",
        "distil": "internal",
        "sublicense": "affiliates",
        "grant_back": "bugfixes",
    },
    "retention": {
        "clause": "retain-1",
        "updates_hours": 72,
        "aggregates_days": 365,
        "logs_years": 10,
        "evidence": "signed-statement",
    },
    "exit": {
        "clause": "exit-1",
        "notice_days": 30,
        "released_models": "keep",
        "unreleased_models": "retrain",
        "influence": "bounded-not-erased",
    },
    "incentives": {
        "clause": "pay-1",
        "method": "group-probe-shapley",
        "pool_eur_per_quarter": 40_000,
        "floor": "0.05",
        "cap": "0.50",
        "disclose": "own-share-only",
    },
    "fees": {
        "clause": "fees-1",
        "eur_per_quarter": 3_000,
        "basis": "equal-per-group",
        "tied_services": "none",
    },
    "audit": {
        "clause": "audit-1",
        "who": ["auditor", "contributors"],
        "access": "log-proofs",
        "log_origin": ORIGIN,
        "witness_quorum": 3,
        "ml_dsa": "accept",
        "notice_days": 10,
        "raw_data": "never",
    },
    "liability": {
        "clause": "liab-1",
        "cap_eur": 2_000_000,
        "uncapped": ["wilful", "trade-secret-misuse"],
    },
    "export_control": {
        "clause": "export-1",
        "classification": "none",
        "embargoed": ["BY", "IR", "KP", "RU", "SY"],
        "check": "recipient-country",
    },
    "law": {"clause": "law-1", "governing": "DE", "forum": "DIS arbitration, Zurich", "language": "en"},
    "amendment": {
        "clause": "amend-1",
        "change": "all-contributors",
        "tighten": "any-contributor",
        "key_rotation": "by-old-key-or-all",
    },
    "halt": {
        "clause": "halt-1",
        "who": ["any-contributor", "broker", "auditor"],
        "effect": "no-new-round-no-release",
        "resume": "all-contributors",
    },
    "conflict": {"clause": "conflict-1", "rule": "prohibit-wins", "unknown": "refuse"},
}


def runnable(log_origin: str | None = None) -> dict[str, Any]:
    """What an author writes who asks for nothing that this version cannot make: runs under it end in deliveries.

    Two recipes, no delay, no embargo, single updates; the audit clause binds the log of ``log_origin``, or is
    left out.
    """
    tree = authored()
    for name in ("prose", "validation", "queries"):
        tree[name] = None
    tree["seed_sets"] = []
    tree["parties"] = [one for one in tree["parties"] if one["role"] != "auditor"]
    tree["forbidden"] = [
        one for one in tree["forbidden"] if one["check"] in {"query-allow-list", "recipe-digest"}
    ]
    tree["aggregation"] |= {"delay_hours": 0, "secure_aggregation": "off", "group_mac": "off"}
    for tier in tree["tiers"]:
        tier |= {"embargo_days": None, "min_contribution": None}
    made = ["federated-evaluation", "log-root", "privacy-statement"]
    tree["release"] |= {"evidence": made, "max_mia_auc": None, "max_property_skill": None}
    tree["audit"] |= {"log_origin": log_origin or ORIGIN, "witness_quorum": 0}
    if log_origin is None:
        tree["audit"] = None
    return tree


def contract(**changes: Any) -> Contract:
    """The contract, with whole sections replaced."""
    return from_tree(authored() | changes)


def without_privacy() -> Contract:
    """The same contract under ``mode: none``."""
    tree = authored()
    tree["privacy"] = {"clause": "dp-1", "mode": "none"}
    tree["release"]["approvals"]["veto"] = ["secret-1"]
    return from_tree(tree)


def shared_noise() -> Contract:
    """The same pool with noise shares: one may collude, so every sum needs all four, in both recipes."""
    tree = authored()
    tree["privacy"] |= {"noise": "shares", "honest_min": 3}
    tree["aggregation"]["max_colluders"] = 1
    tree["recipes"][1]["datasets"] = [{"party": name, "dataset": f"{name}/weld"} for name in CONTRIBUTORS]
    return from_tree(tree)


def with_fifth_maker(tree: dict[str, Any]) -> dict[str, Any]:
    """The authored tree with a fifth maker, and all five in both recipes."""
    tree["parties"].append(_party("fanuc", "org_aaaaaaaaaaaaaaaa", "contributor", "Fifth Maker", "JP"))
    for recipe, name in zip(tree["recipes"], ("pick", "weld"), strict=True):
        recipe["datasets"] = [{"party": one, "dataset": f"{one}/{name}"} for one in (*CONTRIBUTORS, "fanuc")]
    return tree


PLAN = PlanFacts(
    mode="dp",
    unit="episode",
    adjacency="zero-out",
    delta="0.00001",
    noise="local-full",
    honest_min=None,
    filter="rdp-fixed-order",
)


def train_round(party: str = "kita", *, recipe: str = PICK, **changes: Any) -> TrainRound:
    """One round of one contributor that the contract allows."""
    weld = recipe == WELD
    good = TrainRound(
        party=party,
        key=key(party),
        recipe_digest=recipe,
        purpose="reduce-weld-failures" if weld else "improve-common-model",
        dataset=f"{party}/weld" if weld else f"{party}/pick",
        fields=("tcp_pos", "gripper_width"),
        round=7,
        local_steps=1,
        cohort=WELDERS if weld else CONTRIBUTORS,
        privacy=PLAN,
        epsilon_after_release="1.499999",
        epsilon_after_total="3.21",
        secure_aggregation="required",
        group_mac="on",
        reply_slot_ms=0,
        seed_set=SEED if weld else "none",
        seed_consents=(CONSENT,),
    )
    return replace(good, **changes)


def aggregate(**changes: Any) -> Aggregate:
    """The averaging of three survivors that the contract allows."""
    good = Aggregate(
        party="broker",
        key=key("broker"),
        recipe_digest=PICK,
        purpose="improve-common-model",
        round=7,
        survivors=("kita", "iber", "nord"),
        weights={"kita": "1", "iber": "1", "nord": "1"},
        norm_bound="10",
        norms_within=True,
        finite=True,
        privacy=PLAN,
        secure_aggregation="required",
        validation=dict.fromkeys(CONTRIBUTORS, True),
        rejected_rounds=0,
        log_origin=ORIGIN,
    )
    return replace(good, **changes)


def release(**changes: Any) -> Release:
    """A release in the consortium tier that the contract allows."""
    good = Release(
        party="broker",
        key=key("broker"),
        model=MODEL,
        recipe_digest=PICK,
        tier="consortium",
        cohort=CONTRIBUTORS,
        weights=dict.fromkeys(CONTRIBUTORS, "0.25"),
        epsilon_after={name: EpsilonAfter(release="1.4", total="3.9") for name in CONTRIBUTORS},
        evidence=EVIDENCE,
        approvals=("kita", "iber", "nord"),
        vetoes=(),
        privacy=PLAN,
        made_at="2026-12-30T00:00:00Z",
        validation=dict.fromkeys(CONTRIBUTORS, True),
        mia_auc="0.53",
        property_skill="0.1",
        canaries_fired=(),
        earlier_cohorts=(),
        log_origin=ORIGIN,
        witnesses=3,
    )
    return replace(good, **changes)


def deliver(party: str = "kita", **changes: Any) -> Deliver:
    """A delivery to a contributor that the contract allows."""
    good = Deliver(
        party=party,
        key=key(party),
        model=MODEL,
        recipe_digest=PICK,
        tier="consortium",
        released=True,
        released_at="2027-01-10T00:00:00Z",
        made_at="2026-12-30T00:00:00Z",
        country="JP",
        attestation=NOTICE,
        contribution_share="0.2",
    )
    return replace(good, **changes)


def query(party: str = "kita", **changes: Any) -> Query:
    """A view of the pool that the contract allows."""
    good = Query(
        party=party,
        key=key(party),
        view="released-model-metrics",
        subject="all",
        cohort=CONTRIBUTORS,
        earlier_cohorts=(),
        made_at="2026-12-30T00:00:00Z",
        dp_noised=True,
    )
    return replace(good, **changes)


def join(party: str = "kita", **changes: Any) -> Join:
    """A change that everybody signed and that takes effect."""
    names = (*CONTRIBUTORS, "broker")
    good = Join(
        party=party,
        key=key(party),
        stage="effect",
        kind="change",
        supersedes=contract().digest,
        version=2,
        no_looser=False,
        signers=names,
        newcomers=(),
        attestations=(),
        groups={name: name for name in CONTRIBUTORS},
        keys={name: key(name) for name in names},
    )
    return replace(good, **changes)


def leave(party: str = "kita", **changes: Any) -> Exit:
    """A notice of exit that the contract allows."""
    good = Exit(
        party=party,
        key=key(party),
        notice=NOTICE,
        notice_at="2027-12-01T00:00:00Z",
        unreleased_models="retrain",
    )
    return replace(good, **changes)


def allowed() -> dict[str, Request]:
    """Requests that the contract allows, by a name for people."""
    return {
        **{f"TrainRound pick {name}": train_round(name) for name in CONTRIBUTORS},
        **{f"TrainRound weld {name}": train_round(name, recipe=WELD) for name in WELDERS},
        "Aggregate": aggregate(),
        "Release consortium": release(),
        "Release open": release(tier="open"),
        "Release participant": release(
            tier="participant", recipe_digest=WELD, cohort=WELDERS, weights=dict.fromkeys(WELDERS, "1")
        ),
        "Deliver consortium": deliver("hanbit"),
        "Deliver participant": deliver("nord", tier="participant", recipe_digest=WELD),
        "Deliver open to a party": deliver("broker", tier="open"),
        "Deliver open": deliver("public", tier="open", key=None),
        "Query of the pool": query(),
        "Query of its own": query("nord", view="own-budget", subject="nord", cohort=("nord",)),
        "Join by all": join(),
        "Join opened": join(stage="open", signers=()),
        "Join proven": join(kind="tighten", no_looser=True, signers=("broker", "kita")),
        "Exit": leave(),
    }


def shared_noise_allowed() -> dict[str, Request]:
    """The same requests as `shared_noise` allows them: everybody takes part, and each adds a share."""
    pool = shared_noise()
    everybody = {"cohort": CONTRIBUTORS, "survivors": CONTRIBUTORS, "supersedes": pool.digest}
    everybody |= {
        "privacy": replace(PLAN, noise="shares", honest_min=3),
        "weights": dict.fromkeys(CONTRIBUTORS, "1"),
        "secure_aggregation": "required",
    }
    adapted: dict[str, Request] = {}
    for name, request in allowed().items():
        own = everybody if name != "Query of its own" else {}
        facts = set(fact_names(request))
        adapted[name] = replace(request, **{fact: one for fact, one in own.items() if fact in facts})
    return adapted


def fact_names(value: Any) -> list[str]:
    """Names of the facts of a request or state."""
    return [one.name for one in fields(value)]
