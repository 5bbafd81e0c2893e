# SPDX-License-Identifier: Apache-2.0
"""What a contract may say: terms of later versions are refused by name, contradictions by clause, and order never changes a digest."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from policies.contract import Contract, enforcement_map, from_tree, json_schema, load, parse, plain_words
from policies.contract.errors import (
    ClauseUnsupportedError,
    ContractInvalidError,
    EnforcementOverclaimedError,
    NotCanonicalError,
    UnknownSchemaError,
    YamlRefusedError,
)
from policies.contract.registry import KINDS
from policies.encoding import canonical
from policies.errors import IriaiError, WeakKeyError
from policies.limits import CONTRACT_BYTES
from tests.contractsim import PICK, authored, contract, key, without_privacy

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


LATER = [
    ("aggregation.secure_aggregation", "required", "k-1"),
    ("aggregation.delay_hours", 24, "k-1"),
    ("aggregation.differencing_guard", "non-dp-outputs", "k-1"),
    ("aggregation.differencing_guard", "all", "k-1"),
    ("aggregation.max_colluders", 1, "k-1"),
    ("aggregation.group_mac", "on", "k-1"),
    ("privacy.noise", "shares", "dp-1"),
    ("privacy.honest_min", 3, "dp-1"),
    ("privacy.unit", "work-piece", "dp-1"),
    ("privacy.protected_properties", ["mix"], "dp-1"),
    ("release.evidence", ["canary-report"], "release-1"),
    ("release.evidence", ["membership-inference-report", "log-root"], "release-1"),
    ("release.evidence", ["model-card"], "release-1"),
    ("release.max_mia_auc", "0.65", "release-1"),
    ("release.max_property_skill", "0.25", "release-1"),
    ("tiers.0.embargo_days", 180, "tier-open"),
    ("tiers.1.min_contribution", "0.02", "tier-consortium"),
    ("parties.0.role", "auditor", "party-kita"),
    ("prose", {"clause": "prose-1"}, "prose"),
    ("forbidden", [{"clause": "forbid-1"}], "forbidden"),
    ("validation", {"clause": "validate-1"}, "validation"),
    ("queries", {"clause": "query-1"}, "queries"),
    ("derivatives", {"clause": "deriv-1"}, "derivatives"),
    ("retention", {"clause": "retain-1"}, "retention"),
    ("exit", {"clause": "exit-1"}, "exit"),
    ("incentives", {"clause": "pay-1"}, "incentives"),
    ("fees", {"clause": "fees-1"}, "fees"),
    ("audit", {"clause": "audit-1"}, "audit"),
    ("liability", {"clause": "liab-1"}, "liability"),
    ("export_control", {"clause": "export-1"}, "export_control"),
    ("law", {"clause": "law-1"}, "law"),
    ("amendment", {"clause": "amend-1"}, "amendment"),
    ("halt", {"clause": "halt-1"}, "halt"),
    ("test_only", True, "test_only"),
    ("frobnicate", {"clause": "nuke-1"}, "frobnicate"),
]


@pytest.mark.parametrize(("path", "value", "clause"), LATER, ids=[f"{one[0]}={one[1]}"[:50] for one in LATER])
def test_terms_of_later_versions_are_refused_by_name(path, value, clause):
    with pytest.raises(ClauseUnsupportedError) as refused:
        from_tree(changed(path, value))
    assert refused.value.clause == clause
    assert refused.value.code == "contract.clause-unsupported"
    assert path.split(".")[-1].rstrip("s") in refused.value.need


@pytest.mark.parametrize(("path", "value", "clause"), LATER, ids=[f"{one[0]}={one[1]}"[:50] for one in LATER])
def test_and_so_they_are_in_canonical_bytes(path, value, clause):
    tree = CONTRACT.document
    *above, last = path.split(".")
    node: Any = tree
    for step in above:
        # rows are sorted in the document: a row is found by its clause
        node = next(x for x in node if x["clause"] == clause) if isinstance(node, list) else node[step]
    node[last] = value
    with pytest.raises(ClauseUnsupportedError):
        parse(canonical(tree))


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
    ("a private tier with conditions", "tiers.3.requires", ["dp-1"], "tier-private"),
    ("more approvals than groups", "release.approvals.min", 5, "release-1"),
    ("no approval", "release.approvals.min", 0, "release-1"),
    ("a veto of nobody", "release.approvals.veto", ["term-1"], "release-1"),
    ("a veto of the broker", "release.approvals.veto", ["party-broker"], "release-1"),
    ("a veto by an unknown clause", "release.approvals.veto", ["nuke-1"], "release-1"),
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
    for clause in CONTRACT.clauses():
        expected = ("law",) if clause.clause == "purpose-3" else KINDS[clause.KIND].claims
        assert clause.enforced_by == expected


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


def test_fixed_weights_are_read_aloud():
    table = [{"party": name, "weight": "2"} for name in ("hanbit", "iber", "kita", "nord")]
    tree = changed("aggregation", A["aggregation"] | {"weights": "fixed", "fixed_weights": table})
    words = " ".join(sentence for _, sentence in plain_words(from_tree(tree)))
    assert "Weights: hanbit 2, iber 2, kita 2, nord 2." in words


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


def test_plain_words_name_every_clause_and_put_own_duties_first():
    sentences = plain_words(CONTRACT, "nord")
    assert {clause for clause, _ in sentences} == {one.clause for one in CONTRACT.clauses()}
    order = list(dict(sentences))
    assert set(order[:3]) == {"party-nord", "dp-2", "secret-1"}
    assert set(order[3:7]) == {"recipe-1", "recipe-2", "fields-1", "dp-1"}
    by_clause = dict(sentences)
    assert by_clause["purpose-3"].endswith("[law only]")
    assert "in part law only" in by_clause["tier-open"]
    assert "law only" not in by_clause["dp-1"]
    assert "epsilon is at most 2 per release and 4 in all" in by_clause["dp-2"]
    assert next(clause for clause, _ in plain_words(CONTRACT)) == "party-broker"


def test_plain_words_say_not_private_where_no_plan_protects():
    words = " ".join(sentence for _, sentence in plain_words(without_privacy()))
    assert "NOT PRIVATE" in words
    assert "own noise" not in words


def test_enforcement_map_has_three_labels():
    labels = {one.clause: one.label for one in enforcement_map(CONTRACT)}
    assert labels["dp-1"] == "enforced"
    assert labels["purpose-1"] == "enforced in part"
    assert labels["purpose-3"] == "law only"


def test_json_schema_refuses_what_is_not_there():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(CONTRACT.document)
    assert schema["$defs"]["AggregationClause"]["properties"]["secure_aggregation"]["enum"] == ["off"]
    assert all(one["additionalProperties"] is False for one in schema["$defs"].values())


def test_a_contract_is_frozen():
    assert isinstance(CONTRACT, Contract)
    with pytest.raises(AttributeError):
        CONTRACT.version = 2
