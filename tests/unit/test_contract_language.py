# SPDX-License-Identifier: Apache-2.0
"""What a contract may say: contradictions are refused by clause, claims beyond the code too, and order never changes a digest."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from policies.contract import Contract, enforcement_map, evaluate, from_tree, json_schema, load, parse
from policies.contract.errors import (
    ColludersTooManyError,
    ContractInvalidError,
    EnforcementOverclaimedError,
    FormulaUnknownError,
    NotCanonicalError,
    UnknownSchemaError,
    YamlRefusedError,
)
from policies.contract.registry import FORBIDDEN_CHECKS, KINDS
from policies.contract.thresholds import drop_outs, least_online, most_colluders, threshold
from policies.encoding import canonical
from policies.errors import IriaiError, WeakKeyError
from policies.limits import CONTRACT_BYTES
from tests.contractsim import (
    CONTRIBUTORS,
    PICK,
    STATE,
    authored,
    contract,
    key,
    shared_noise,
    train_round,
    with_fifth_maker,
    without_privacy,
)

CONTRACT = contract()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The authored tree with one value set (or removed: ``...``); a path like ``recipes.0.max_rounds``."""
    tree = authored()
    *above, last = path.split(".")
    node: Any = tree
    for step in above:
        node = node[int(step)] if isinstance(node, list) else node[step]
    if value is ...:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return tree


def mallory(name: str, **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(authored()["parties"][0]) | {
        "clause": f"party-{name}",
        "party": name,
        "org": "org_aaaaaaaaaaaaaaaa",
        "key": key(name),
        "group": name,
        **changes,
    }


A = authored()
OPTIONAL = (
    "prose",
    "validation",
    "queries",
    "derivatives",
    "retention",
    "incentives",
    "fees",
    "audit",
    "liability",
    "export_control",
    "law",
)
CONTRADICTIONS = [
    ("a clause id twice", "recipes.1.clause", "recipe-1", "recipe-1"),
    ("a clause id with a reserved sign", "term.clause", "@executed", None),
    ("two parties of one name", "parties.3", mallory("kita", clause="party-x"), None),
    ("two parties with one key", "parties.3", mallory("mallory", key=key("kita")), None),
    ("two parties of one organisation", "parties.3", mallory("mallory", org=A["parties"][0]["org"]), None),
    ("a party called public", "parties.3", mallory("public"), "party-public"),
    ("two brokers", "parties.3", mallory("mallory", role="broker"), "party-mallory"),
    ("no broker", "parties", A["parties"][:4], None),
    ("the broker's group contributes", "parties.3", mallory("mallory", group="broker"), "party-mallory"),
    ("an auditor of a contributor's group", "parties.5.group", "kita", "party-audit"),
    ("the term ends before it begins", "term.expires", "2026-12-01T00:00:00Z", "term-1"),
    ("signatures after the term began", "sign_by", "2026-12-01T00:00:01Z", "term-1"),
    ("version 2 of nothing", "version", 2, None),
    ("version 1 of something", "supersedes", PICK, None),
    ("a recipe for an unknown purpose", "recipes.0.purpose", "sell", "recipe-1"),
    ("a data set of nobody", "recipes.0.datasets.0.party", "mallory", "recipe-1"),
    ("a data set of the broker", "recipes.0.datasets.0.party", "broker", "recipe-1"),
    ("one recipe twice", "recipes.1.recipe_digest", PICK, "recipe-2"),
    ("one recipe id twice", "recipes.1.id", "pick", "recipe-2"),
    ("one purpose id twice", "purposes.1.id", "improve-common-model", "purpose-2"),
    ("one forbidden use twice", "forbidden.1.use", "reidentify-party-or-plant", "forbid-2"),
    ("a check that nobody has", "forbidden.0.check", "telepathy", "forbid-1"),
    ("a seed set for no recipe", "seed_sets.0.recipe", "paint", "seed-1"),
    (
        "two seed sets of one recipe",
        "seed_sets",
        [A["seed_sets"][0], A["seed_sets"][0] | {"clause": "seed-2"}],
        "seed-2",
    ),
    ("a donor who is nobody", "seed_sets.0.donations.0.party", "mallory", "seed-1"),
    ("a donor who is the broker", "seed_sets.0.donations.0.party", "broker", "seed-1"),
    ("no donation", "seed_sets.0.donations", [], "seed-1"),
    ("a secret that is allowed", "fields.trade_secret.0.fields", ["tcp_pos"], "secret-1"),
    ("a secret of nobody", "fields.trade_secret.0.party", "mallory", "secret-1"),
    ("release cap above the total", "privacy.epsilon_per_release", "8.1", "dp-1"),
    ("a party's cap above the common one", "privacy.per_party.0.epsilon_total", "8.1", "dp-2"),
    ("a party's release cap above the common one", "privacy.per_party.1.epsilon_per_release", "2.1", "dp-3"),
    ("caps of nobody", "privacy.per_party.0.party", "broker", "dp-2"),
    ("two caps of one party", "privacy.per_party.0.party", "hanbit", "dp-3"),
    ("no cap in caps", "privacy.per_party.0.epsilon_total", ..., "dp-2"),
    (
        "a party's release cap above its own total",
        "privacy.per_party.1",
        {"clause": "dp-3", "party": "hanbit", "epsilon_total": "1", "epsilon_per_release": "1.5"},
        "dp-3",
    ),
    ("more digits than a decimal has", "privacy.epsilon_total", "0.0000000000000000001", "dp-1"),
    ("dp without delta", "privacy.delta", ..., "dp-1"),
    ("dp without unit", "privacy.unit", None, "dp-1"),
    ("delta of one", "privacy.delta", "1", "dp-1"),
    ("epsilon of nought", "privacy.epsilon_total", "0", "dp-1"),
    ("epsilon without end", "privacy.epsilon_total", "inf", "dp-1"),
    ("mode none with a plan", "privacy.mode", "none", "dp-1"),
    ("noise shares without honest silos", "privacy.noise", "shares", "dp-1"),
    ("honest silos without noise shares", "privacy.honest_min", 3, "dp-1"),
    (
        "noise shares without secure aggregation",
        "privacy",
        A["privacy"] | {"noise": "shares", "honest_min": 3},
        "dp-1",
    ),
    ("protected properties in plain sums", "privacy.protected_properties", ["shift-pattern"], "dp-1"),
    ("k above the groups of a recipe", "aggregation.min_parties", 4, "k-1"),
    ("k of one", "aggregation.min_parties", 1, "k-1"),
    ("more than the whole", "aggregation.max_share", "1.01", "k-1"),
    ("fixed weights without a table", "aggregation.weights", "fixed", "k-1"),
    ("a table without fixed weights", "aggregation.fixed_weights", [{"party": "kita", "weight": "1"}], "k-1"),
    (
        "weights of some",
        "aggregation",
        A["aggregation"] | {"weights": "fixed", "fixed_weights": [{"party": "kita", "weight": "1"}]},
        "k-1",
    ),
    (
        "a weight of nought",
        "aggregation",
        A["aggregation"] | {"weights": "fixed", "fixed_weights": [{"party": "kita", "weight": "0"}]},
        "k-1",
    ),
    ("secure aggregation as it comes", "aggregation.secure_aggregation", "maybe", "k-1"),
    ("a delay without end", "aggregation.delay_hours", 8_785, "k-1"),
    ("queries over more groups than there are", "queries.min_groups", 5, "query-1"),
    ("queries over one group", "queries.min_groups", 1, "query-1"),
    ("a view that does not exist", "queries.allow", ["sales"], "query-1"),
    ("a quorum above the whole", "validation.quorum", "1.01", "validate-1"),
    ("weights by volume", "aggregation.weights", "volume", "k-1"),
    ("a tier of an unknown recipe", "tiers.0.recipe", "paint", "tier-open"),
    ("one tier twice", "tiers.1.tier", "open", "tier-open"),
    ("a wider recipient than the tier's", "tiers.1.recipients", ["public"], "tier-consortium"),
    ("a tier that requires less", "tiers.1.requires", ["dp-1", "k-1"], "tier-consortium"),
    (
        "a tier that requires the unknown",
        "tiers.1.requires",
        ["dp-1", "k-1", "nuke-1", "release-1"],
        "tier-consortium",
    ),
    (
        "requires what is not judged there",
        "tiers.1.requires",
        ["dp-1", "fields-1", "k-1", "release-1"],
        "tier-consortium",
    ),
    (
        "a tier that requires what only queries are judged by",
        "tiers.1.requires",
        ["query-1"],
        "tier-consortium",
    ),
    ("an embargo of no day", "tiers.0.embargo_days", 0, "tier-open"),
    ("everybody's share of the contributions", "tiers.0.min_contribution", "0.02", "tier-open"),
    ("a private tier with conditions", "tiers.3.requires", ["dp-1"], "tier-private"),
    ("more approvals than groups", "release.approvals.min", 5, "release-1"),
    ("no approval", "release.approvals.min", 0, "release-1"),
    ("a veto of nobody", "release.approvals.veto", ["term-1"], "release-1"),
    ("a veto of the broker", "release.approvals.veto", ["party-broker"], "release-1"),
    ("a veto by an unknown clause", "release.approvals.veto", ["nuke-1"], "release-1"),
    ("a bound without its report", "release.evidence", ["log-root"], "release-1"),
    ("a report without its bound", "release.max_mia_auc", None, "release-1"),
    ("a leak without a bound", "release.max_property_skill", None, "release-1"),
    (
        "a forbidden use whose report is not asked for",
        "release",
        A["release"] | {"evidence": [one for one in A["release"]["evidence"] if one != "canary-report"]},
        "forbid-3",
    ),
    ("a floor above the cap", "incentives.floor", "0.51", "pay-1"),
    (
        "a formula without a pool",
        "incentives",
        A["incentives"] | {"formula": "cost-share/1", "pool_eur_per_quarter": None},
        "pay-1",
    ),
    (
        "a formula for no method",
        "incentives",
        A["incentives"] | {"formula": "cost-share/1", "method": "none"},
        "pay-1",
    ),
    ("prose that does not prevail", "prose.prevails", False, "prose-1"),
    ("unlearning", "exit.influence", "erased", "exit-1"),
    ("a change by some", "amendment.change", "any-contributor", "amend-1"),
    ("a halt by nobody", "halt.who", [], "halt-1"),
    ("a resume by the broker", "halt.resume", "broker", "halt-1"),
    ("raw data for the auditor", "audit.raw_data", "always", "audit-1"),
    ("an embargo on a word", "export_control.embargoed", ["Russia"], "export-1"),
    ("no exit at all", "exit", ..., None),
    ("another way with the unknown", "conflict.unknown", "allow", "conflict-1"),
    ("personal data", "fields.personal_data", "faces", "fields-1"),
    ("a date that is none", "term.expires", "2027-02-29T00:00:00Z", "term-1"),
    ("a date without a zone", "term.expires", "2028-12-01T00:00:00", "term-1"),
    ("true as a number", "aggregation.delay_hours", False, "k-1"),
    ("a decimal as a number", "aggregation.max_share", 1, "k-1"),
    ("a bidi character", "parties.0.legal_name", "Kita\u202eKK", "party-kita"),
    ("a zero-width character", "parties.0.legal_name", "Ki\u200bta", "party-kita"),
    ("a combining form", "parties.0.legal_name", "Ibe\u0301rica", "party-kita"),
    ("a filler that shows nothing", "parties.0.legal_name", "Kita\u3164", "party-kita"),
    ("two lines", "purposes.0.text", "Train.\nSell.", "purpose-1"),
    ("country as a word", "parties.0.country", "Japan", "party-kita"),
    ("a digest of another kind", "recipes.0.recipe_digest", "md5:00", "recipe-1"),
    ("a trailing line feed", "recipes.0.recipe_digest", PICK + "\n", "recipe-1"),
]


@pytest.mark.parametrize(
    ("path", "value", "clause"), [one[1:] for one in CONTRADICTIONS], ids=[one[0] for one in CONTRADICTIONS]
)
def test_contradictions_are_refused_with_their_clause(path, value, clause):
    with pytest.raises(ContractInvalidError) as refused:
        from_tree(changed(path, value))
    if clause is not None:
        assert refused.value.clause == clause


@pytest.mark.parametrize(
    ("path", "claim"),
    [
        ("fields", ["gate"]),
        ("fields", ["broker", "law", "node"]),
        ("conflict", ["law"]),
        ("purposes.0", ["broker", "gate", "law", "node"]),
        ("purposes.0", ["broker", "node"]),  # a part is for courts: to leave `law` out claims too much
        ("purposes.2", ["law", "node"]),  # no recipe uses it, so no request can run into it
        ("tiers.0", ["gate", "node"]),
        ("forbidden.0", ["broker", "gate", "law"]),  # its check looks at releases only
        ("forbidden.1", ["gate", "law"]),
        ("queries", ["broker", "gate"]),
        ("retention", ["broker", "law"]),  # no code keeps it in this version
        ("prose", ["law", "node"]),
        ("export_control", ["gate"]),
    ],
)
def test_enforcement_that_no_code_serves_is_overclaimed(path, claim):
    with pytest.raises(EnforcementOverclaimedError) as refused:
        from_tree(changed(f"{path}.enforced_by", claim))
    assert refused.value.code == "contract.enforcement-overclaimed"
    assert refused.value.clause


def test_a_narrower_claim_is_honest():
    pool = from_tree(changed("tiers.3.enforced_by", ["gate", "law"]))
    assert next(one for one in enforcement_map(pool) if one.clause == "tier-private").points == ("gate",)


def test_omitted_enforcement_is_filled_in_from_the_registry():
    special = {"purpose-3": ("law",)} | {
        one.clause: tuple(sorted({*FORBIDDEN_CHECKS[one.check][0], "law"})) for one in CONTRACT.forbidden
    }
    for clause in CONTRACT.clauses():
        assert clause.enforced_by == special.get(clause.clause, KINDS[clause.KIND].claims)


def pool(**changes: dict[str, Any]) -> dict[str, Any]:
    """The authored tree with sections changed, not replaced."""
    tree = authored()
    for name, more in changes.items():
        tree[name] |= more
    return tree


SHARES = {"noise": "shares", "honest_min": 3}
REQUIRED = {"secure_aggregation": "required"}


def test_noise_shares_need_four_groups_in_each_recipe_and_enough_honest_ones():
    assert shared_noise().privacy.honest_min == 3
    with pytest.raises(ContractInvalidError, match="recipe-2 has at least 4 groups") as refused:
        from_tree(pool(privacy=SHARES, aggregation=REQUIRED))
    assert refused.value.clause == "dp-1"
    tree = with_fifth_maker(
        pool(privacy=SHARES | {"honest_min": 5}, aggregation=REQUIRED | {"max_colluders": 1})
    )
    with pytest.raises(ContractInvalidError, match="honest_min at most 4") as refused:
        from_tree(tree)
    assert refused.value.clause == "dp-1"
    tree["privacy"]["honest_min"] = 4
    assert from_tree(tree).privacy.honest_min == 4


@pytest.mark.parametrize(
    ("privacy", "pooling", "code", "found", "remedy"),
    [
        (
            {"noise": "shares", "honest_min": None},
            {},
            "contract.invalid",
            "none",
            "write honest_min: 3 or more with noise: shares, and none with local-full",
        ),
        ({"honest_min": 3}, {}, "contract.invalid", "noise local-full", "and none with local-full"),
        # of four, t is 3 and 2t - n is 2: no min_parties and no honest_min makes room for two colluders
        (
            SHARES,
            {"max_colluders": 2},
            "contract.colluders-too-many",
            "2",
            "lower max_colluders to 1, or win more",
        ),
        (SHARES | {"honest_min": 4}, {"max_colluders": 1}, "contract.invalid", "4", "honest_min: 3, a lower"),
    ],
)
def test_the_way_out_of_shares_that_do_not_fit_is_no_dead_end(privacy, pooling, code, found, remedy):
    tree = pool(privacy=privacy, aggregation=REQUIRED | pooling)
    tree["recipes"][1]["datasets"] = tree["recipes"][0]["datasets"]  # four makers in both
    with pytest.raises(ContractInvalidError) as refused:
        from_tree(tree)
    assert (refused.value.code, refused.value.found) == (code, found)
    assert remedy in refused.value.remedy
    assert "min_parties" not in refused.value.remedy


def test_protected_properties_need_five_groups_and_their_report():
    protected = {"protected_properties": ["shift-pattern", "product-mix"]}
    with pytest.raises(ContractInvalidError, match="at least 5 groups") as refused:
        from_tree(pool(privacy=protected, aggregation=REQUIRED))
    assert refused.value.clause == "dp-1"
    tree = with_fifth_maker(pool(privacy=protected, aggregation=REQUIRED))
    fine = from_tree(tree)
    four = train_round(secure_aggregation="required")
    assert [one.check for one in evaluate(fine, STATE, four).refusals] == ["protected-properties"]
    all_five = train_round(secure_aggregation="required", cohort=(*CONTRIBUTORS, "fanuc"))
    assert evaluate(fine, STATE, all_five).allow
    tree["release"] |= {"evidence": ["log-root"], "max_mia_auc": None, "max_property_skill": None}
    tree["forbidden"] = []
    with pytest.raises(ContractInvalidError, match="property-leak-report") as refused:
        from_tree(tree)
    assert refused.value.clause == "dp-1"


@pytest.mark.parametrize(
    ("mode", "parties", "k", "colluders", "fine"),
    [
        ("off", 4, 3, 1, True),
        ("off", 4, 3, 2, False),
        ("off", 4, 4, 2, False),
        ("off", 5, 5, 2, True),
        ("off", 5, 5, 3, False),
        ("off", 5, 2, 1, False),
        ("required", 4, 2, 1, True),  # three of four open a sum, so two honest ones are in it
        ("required", 4, 3, 2, False),
        ("required", 5, 2, 2, True),
        ("required", 5, 5, 3, False),
    ],
)
def test_more_colluders_than_a_sum_can_bear_are_refused(mode, parties, k, colluders, fine):
    tree = with_fifth_maker(authored())
    if parties == 4:
        tree["parties"].pop()
        for recipe in tree["recipes"]:
            recipe["datasets"].pop()
    tree["aggregation"] |= {"min_parties": k, "max_colluders": colluders}
    tree["aggregation"] |= {"secure_aggregation": mode, "group_mac": "off"}
    if fine:
        assert from_tree(tree).aggregation.max_colluders == colluders
        return
    with pytest.raises(ColludersTooManyError) as refused:
        from_tree(tree)
    assert refused.value.clause == "k-1"
    assert refused.value.code == "contract.colluders-too-many"
    advice = refused.value.remedy
    most = int(advice.removeprefix("lower max_colluders to ").partition(",")[0])
    tree["aggregation"]["max_colluders"] = most
    assert from_tree(tree).aggregation.max_colluders == most
    if "raise min_parties" in advice:
        tree["aggregation"] |= {"min_parties": parties, "max_colluders": most + 1}
        assert from_tree(tree).aggregation.max_colluders == most + 1


TABLE = (  # n, t, drop-outs survived, largest c where min_parties does not decide
    (3, 3, 0, 1),
    (4, 3, 1, 1),
    (5, 4, 1, 2),
    (6, 5, 1, 3),
    (7, 5, 2, 2),
    (8, 6, 2, 3),
    (9, 7, 2, 4),
    (10, 7, 3, 3),
    (12, 9, 3, 5),
    (15, 11, 4, 6),
    (20, 14, 6, 7),
    (30, 21, 9, 11),
)


@pytest.mark.parametrize(("n", "t", "away", "most"), TABLE)
def test_the_table_of_thresholds(n, t, away, most):
    found = threshold(n), drop_outs(n), most_colluders(n, least_online(n, 2))
    assert found == (t, away, most)
    for c in range(most + 1):  # two sums of one round, or two online sets, would take more honest helpers
        assert 2 * (t - c) > n - c


def test_secure_aggregation_needs_three_contributors_and_groups_that_a_sum_can_have():
    tree = pool(aggregation=REQUIRED | {"min_parties": 2})
    tree["recipes"][1]["datasets"].pop()
    with pytest.raises(ContractInvalidError, match="3 to 50 contributors in recipe-2") as refused:
        from_tree(tree)
    assert refused.value.clause == "k-1"
    tree = pool(aggregation=REQUIRED | {"min_parties": 2, "max_colluders": 1})
    tree["parties"][1]["group"] = tree["parties"][0]["group"]  # kita and nord are one
    with pytest.raises(ContractInvalidError, match="3 independent groups in recipe-2") as refused:
        from_tree(tree)
    assert refused.value.clause == "k-1"


def test_shares_that_are_scaled_down_hide_less_and_are_refused():
    tree = with_fifth_maker(pool(privacy=SHARES, aggregation=REQUIRED | {"weights": "fixed"}))
    names = sorted((*CONTRIBUTORS, "fanuc"))
    tree["aggregation"]["fixed_weights"] = [{"party": one, "weight": "2"} for one in names]
    assert from_tree(tree).privacy.noise == "shares"
    tree["aggregation"]["fixed_weights"][0]["weight"] = "1.9"
    with pytest.raises(ContractInvalidError, match="equal weights in recipe-1 with noise shares") as refused:
        from_tree(tree)
    assert refused.value.clause == "k-1"


def test_a_tag_needs_a_sum():
    with pytest.raises(ContractInvalidError, match="group_mac on only with secure_aggregation") as refused:
        from_tree(pool(aggregation={"group_mac": "on", "secure_aggregation": "off"}))
    assert refused.value.clause == "k-1"
    assert from_tree(pool(aggregation=REQUIRED | {"group_mac": "on"})).aggregation.group_mac == "on"


@pytest.mark.parametrize("term", [{"method": "lottery"}, {"formula": "cost-share/2"}])
def test_a_formula_that_we_do_not_have_is_refused_with_its_own_code(term):
    for door in (from_tree, lambda tree: parse(canonical(tree))):
        tree = pool(incentives=term) if door is from_tree else CONTRACT.document
        tree["incentives"] |= term
        with pytest.raises(FormulaUnknownError) as refused:
            door(tree)
        assert refused.value.code == "contract.formula-unknown"
        assert refused.value.clause == "pay-1"


@pytest.mark.parametrize("section", OPTIONAL)
def test_optional_sections_may_be_null_or_left_out_and_are_then_null(section):
    tree = authored()
    del tree[section]
    left_out = from_tree(tree)
    assert from_tree(authored() | {section: None}).digest == left_out.digest
    assert getattr(left_out, section) is None
    assert left_out.document[section] is None


def test_lists_may_be_empty_where_nothing_rests_on_them():
    assert contract(forbidden=[], seed_sets=[]).forbidden == ()


@pytest.mark.parametrize(
    "more", [{"reply_slot_ms": 9}, {"protected_properties": ["mix"]}, {"honest_min": 3}, {"delta": "1e-5"}]
)
def test_without_privacy_no_other_term_of_it_is_left(more):
    tree = authored() | {"privacy": {"clause": "dp-1", "mode": "none"} | more}
    tree["release"]["approvals"]["veto"] = []
    with pytest.raises(ContractInvalidError, match=next(iter(more))) as refused:
        from_tree(tree)
    assert refused.value.clause == "dp-1"


def test_a_test_contract_may_do_without_privacy():
    tree = authored() | {"privacy": {"clause": "dp-1", "mode": "none"}, "test_only": True}
    tree["release"]["approvals"]["veto"] = []
    assert from_tree(tree).test_only


def test_the_digest_does_not_depend_on_order_or_spelling():
    tree = authored()
    tree["parties"].reverse()
    tree["recipes"].reverse()
    tree["recipes"][0]["datasets"].reverse()
    tree["fields"]["allow"].reverse()
    tree["release"]["evidence"].reverse()
    tree["privacy"]["delta"] = "0.0000100"
    tree["privacy"]["epsilon_total"] = "08"
    tree = dict(reversed(tree.items()))
    assert from_tree(tree).digest == CONTRACT.digest


def test_canonical_bytes_round_trip_through_every_door():
    text = CONTRACT.canonical.decode()
    assert load(text) == parse(CONTRACT.canonical) == from_tree(CONTRACT.document) == CONTRACT
    assert from_tree(without_privacy().document) == without_privacy()
    assert canonical(CONTRACT.document) == CONTRACT.canonical


def test_json_text_is_taken_only_in_canonical_form():
    text = CONTRACT.canonical.decode()
    for other in (
        text + "\n",
        text.replace(":", ": ", 1),
        "{}",
        "{",
        text.replace('"version":1', '"version":1.0'),
    ):
        with pytest.raises(IriaiError):
            load(other)
    with pytest.raises(NotCanonicalError):
        load(text.replace('"version":1', '"version":1,"version":1'))


def test_size_and_schema_are_checked_first():
    with pytest.raises(NotCanonicalError):
        parse(b" " * (CONTRACT_BYTES + 1))
    with pytest.raises(UnknownSchemaError) as refused:
        from_tree(authored() | {"schema": "iriai-contract/2"})
    assert refused.value.code == "contract.unknown-schema"
    with pytest.raises(UnknownSchemaError):
        parse(b"[]")
    with pytest.raises(ContractInvalidError):
        from_tree(["schema"])
    with pytest.raises(YamlRefusedError):
        load("")


def test_sixty_five_parties_are_too_many():
    tree = authored()
    more = [mallory(f"m{n}", org="org_" + f"{n:016b}".translate({48: "a", 49: "b"})) for n in range(61)]
    tree["parties"] += more
    with pytest.raises(ContractInvalidError, match="at most 64 parties"):
        from_tree(tree)


def test_k_counts_the_groups_of_the_whole_pool_first():
    tree = authored()
    for party in tree["parties"][:4]:
        party["group"] = "one-owner"
    with pytest.raises(ContractInvalidError, match="the 1 independent groups"):
        from_tree(tree)


def test_a_lone_surrogate_is_no_text():
    with pytest.raises(NotCanonicalError):
        load('{"title":"\ud800"}')


def test_a_weak_key_is_refused_with_its_clause():
    with pytest.raises(WeakKeyError) as refused:
        from_tree(changed("parties.1.key", "ed25519:01" + "00" * 31))
    assert refused.value.clause == "party-nord"


def test_lookups():
    assert CONTRACT.party("kita").org == "org_5jxbgpbkezo7gbvl"
    assert CONTRACT.party("mallory") is None
    assert CONTRACT.party_of_key(key("nord")).party == "nord"
    assert CONTRACT.recipe(PICK).datasets_of("nord") == ("nord/pick",)
    assert CONTRACT.recipe("sha256:" + "0" * 64) is None
    assert CONTRACT.broker.party == "broker"
    assert [one.party for one in CONTRACT.contributors] == ["hanbit", "iber", "kita", "nord"]
    assert CONTRACT.clause("dp-3").party == "hanbit"
    with pytest.raises(ContractInvalidError):
        CONTRACT.weights(["kita", "broker"])


def test_the_tightest_cap_binds_and_names_its_clause():
    hanbit, kita, nord = (CONTRACT.caps(name) for name in ("hanbit", "kita", "nord"))
    assert (hanbit.epsilon_per_release, hanbit.epsilon_total) == ("1.5", "6")
    assert (kita.epsilon_total, kita.total_clause) == ("8", "dp-1")
    assert (nord.epsilon_per_release, nord.epsilon_total, nord.total_clause) == ("2", "4", "dp-2")
    assert without_privacy().caps("kita") is None


def test_enforcement_map_has_three_labels():
    labels = {one.clause: one.label for one in enforcement_map(CONTRACT)}
    assert labels["dp-1"] == "enforced"
    assert labels["purpose-1"] == "enforced in part"
    assert labels["purpose-3"] == "law only"


@pytest.mark.parametrize(
    ("path", "own", "places"),
    [
        ("forbidden.1", "forbid-1", "forbidden[0] and forbidden[1]"),
        ("privacy", "k-1", "privacy and aggregation"),
        ("release", "party-kita", "parties[{kita}] and release"),
    ],
)
def test_a_clause_id_that_stands_twice_is_named_with_both_places(path, own, places):
    """Before anything is filled in that refers to clauses by id: the id is at fault, not who refers to it."""
    tree = authored()
    for tier in tree["tiers"]:
        tier.pop("requires", None)
    kita = next(n for n, one in enumerate(tree["parties"]) if one["clause"] == "party-kita")
    node = tree
    for part in path.split("."):
        node = node[int(part)] if part.isdigit() else node[part]
    node["clause"] = own
    with pytest.raises(ContractInvalidError) as refused:
        from_tree(tree)
    assert (refused.value.clause, refused.value.need) == (own, "each clause id once")
    assert refused.value.found == f"clause id {own} twice: " + places.format(kita=kita)


def test_a_clause_id_that_stands_twice_in_signed_bytes_is_named_too():
    tree = contract().document
    tree["forbidden"][1] = {**tree["forbidden"][0], "use": "another-use"}
    with pytest.raises(ContractInvalidError) as refused:
        parse(canonical(tree))
    assert refused.value.clause == "forbid-1"
    assert refused.value.found == "'forbid-1 twice'"


def test_a_key_that_the_language_has_not_is_named_and_so_is_what_to_change():
    tree = authored()
    with pytest.raises(ContractInvalidError) as refused:
        from_tree(tree | {"titel": "x"})
    assert (refused.value.clause, refused.value.found) == (None, "'the key titel'")
    assert refused.value.remedy == "change the named key"
    tree["aggregation"]["max_sharee"] = "1"
    with pytest.raises(ContractInvalidError) as refused:
        from_tree(tree)
    assert (refused.value.clause, refused.value.found) == ("k-1", "'the key max_sharee'")
    assert refused.value.remedy == "change the named clause"


def test_json_schema_refuses_what_is_not_there():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(CONTRACT.document)
    modes = schema["$defs"]["AggregationClause"]["properties"]["secure_aggregation"]
    assert modes["enum"] == ["off", "required"]
    assert all(one["additionalProperties"] is False for one in schema["$defs"].values())


def test_a_contract_is_frozen():
    assert isinstance(CONTRACT, Contract)
    with pytest.raises(AttributeError):
        CONTRACT.version = 2
