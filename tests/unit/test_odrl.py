# SPDX-License-Identifier: Apache-2.0
"""A contract as ODRL, and back: what is shown, what strangers see, what an import refuses, what a policy proves."""

from __future__ import annotations

import copy
import json
from collections import Counter
from decimal import Decimal

import pytest

from policies.contract import from_tree
from policies.contract.errors import DspMessageError, OdrlRefusedError, ViewDisagreesError
from policies.contract.odrl import agreement, export, pairs
from policies.contract.odrl.catenax import read_catenax
from policies.contract.odrl.dsp_messages import read_json, read_request
from policies.contract.odrl.reading import confirm, read_bundle, read_view
from policies.contract.registry import LAW
from policies.limits import DSP_MESSAGE_BYTES, ODRL_MESSAGES
from tests.contractsim import authored, contract
from tests.dspsim import CATENAX, contracts


def constraints(policy: dict) -> list[dict]:
    rules = policy["permission"] + policy.get("prohibition", [])
    return [one for rule in rules for one in rule["constraint"]]


def policy_of(message: dict) -> dict:
    return message.get("agreement") or message["offer"]


# --- export ---


def test_one_agreement_per_pair_and_one_offer_per_open_tier():
    found = export(contract())
    about = Counter((policy_of(one)["@type"], policy_of(one)["iriai:clause"]) for one in found)
    assert about == {
        ("Agreement", "recipe-1"): 4,
        ("Agreement", "recipe-2"): 3,
        ("Agreement", "tier-consortium"): 4,
        ("Agreement", "tier-participant"): 3,
        ("Offer", "tier-open"): 1,
    }


def test_the_same_contract_gives_the_same_messages_and_every_id_is_new():
    found = export(contract())
    assert found == export(contract())
    names = [policy_of(one)["@id"] for one in found] + [one["providerPid"] for one in found]
    assert len(set(names)) == len(names)


def test_every_policy_names_the_contract_and_every_constraint_its_clause():
    for shown in contracts().values():
        ids = {one.clause for one in shown.clauses()}
        for message in export(shown):
            assert policy_of(message)["iriai:contractDigest"] == shown.digest
            assert {one["iriai:clause"] for one in constraints(policy_of(message))} <= ids


def test_every_clause_that_code_can_refuse_by_is_in_the_bundle_and_no_other():
    shown = contract()
    told = {one["iriai:clause"] for message in export(shown) for one in constraints(policy_of(message))}
    enforced = {one.clause for one in shown.clauses() if set(one.enforced_by) != {LAW}}
    # the auditor is no side of a pair, and a private tier is given to nobody
    assert enforced - told == {"party-audit", "tier-private"}
    assert told <= enforced
    print(f"\nODRL: {len(told)} of {len(enforced)} enforceable clauses are constraints")


def test_a_pair_has_the_tightest_cap_that_binds_its_owner():
    for message in export(contract()):
        policy = policy_of(message)
        found = {one["leftOperand"]: one for one in constraints(policy)}
        if policy["iriai:clause"] == "recipe-1":
            owner = policy["target"].split(":")[-1].split("/")[0]
            cap = contract().caps(owner)
            for left, value, clause in (
                ("iriai:epsilonPerRelease", cap.epsilon_per_release, cap.release_clause),
                ("iriai:epsilonTotal", cap.epsilon_total, cap.total_clause),
            ):
                assert found[left]["iriai:clause"] == clause
                assert Decimal(found[left]["rightOperand"]["@value"]) == Decimal(value)
    assert contract().caps("nord").total_clause == "dp-2"


def test_rules_have_no_target_and_no_list_of_rules_is_empty():
    for shown in contracts().values():
        for message in export(shown):
            policy = policy_of(message)
            for rule in policy["permission"] + policy.get("prohibition", []):
                assert set(rule) == {"action", "constraint"}
            assert policy["permission"]
            assert policy.get("prohibition", [1])
            assert "obligation" not in policy


def test_secrets_are_prohibitions_of_their_owner_only():
    for message in export(contract()):
        policy = policy_of(message)
        secrets = [
            one
            for rule in policy.get("prohibition", [])
            for one in rule["constraint"]
            if one["iriai:clause"].startswith("secret-")
        ]
        owner = {"secret-1": "nord", "secret-2": "kita"}
        for one in secrets:
            assert f":{owner[one['iriai:clause']]}/" in policy["target"]


def test_an_offer_for_strangers_names_no_contributor_key_field_or_secret():
    shown = contract()
    (offer,) = [json.dumps(one) for one in export(shown) if one["@type"] == "ContractOfferMessage"]
    hidden = [one.key for one in shown.parties]
    hidden += [one.org for one in shown.parties]
    hidden += [one.party for one in shown.contributors]
    hidden += [one.legal_name for one in shown.parties]
    hidden += list(shown.fields.allow)
    hidden += [name for one in shown.fields.trade_secret for name in one.fields]
    hidden += [one.recipe_digest for one in shown.recipes]
    assert [one for one in hidden if one in offer] == []


def test_a_clause_that_only_law_enforces_gives_no_constraint():
    tree = authored()
    tree["export_control"]["enforced_by"] = [LAW]
    told = {
        one["iriai:clause"] for message in export(from_tree(tree)) for one in constraints(policy_of(message))
    }
    assert "export-1" not in told


# --- import ---


def test_what_is_exported_is_read_back_with_digest_clause_and_terms():
    for shown in contracts().values():
        messages = export(shown)
        views = read_bundle(json.loads(json.dumps(messages)))
        assert {one.digest for one in views} == {shown.digest}
        for message, view, pair in zip(messages, views, pairs(shown), strict=True):
            policy = policy_of(message)
            assert (view.clause, view.target) == (pair.clause, pair.target)
            assert sum(len(one.constraints) for one in view.rules) == len(constraints(policy))
            assert confirm(shown, view).target == pair.target


def test_the_order_of_rules_and_the_names_of_parties_mean_nothing():
    shown = contract()
    message = copy.deepcopy(export(shown)[0])
    message["agreement"]["prohibition"].reverse()
    message["agreement"]["permission"][0]["constraint"].reverse()
    message["agreement"] |= {"assigner": "did:web:hanbit.example", "assignee": "BPNL00000000BRKR"}
    assert confirm(shown, read_view(message)).party == "hanbit"


MUTANTS = {
    "agreement.profile: https://w3id.org/catenax/policy/profile2405: only the profile": lambda one: one[
        "agreement"
    ].update(profile="https://w3id.org/catenax/policy/profile2405"),
    "agreement.conflict: conflict: an unknown property": lambda one: one["agreement"].update(conflict="perm"),
    "agreement.obligation: obligation: an unknown property": lambda one: one["agreement"].update(
        obligation=[{"action": "use"}]
    ),
    "agreement.permission[0].duty: duty: a nested duty": lambda one: one["agreement"]["permission"][0].update(
        duty=[{"action": "compensate"}]
    ),
    "agreement.permission[0].target: target: an unknown property": lambda one: one["agreement"]["permission"][
        0
    ].update(target="iriai:x"),
    "agreement.permission[0].action: nuke: an unknown action": lambda one: one["agreement"]["permission"][
        0
    ].update(action="nuke"),
    "agreement.permission[0].action: ['use']: an unknown action": lambda one: one["agreement"]["permission"][
        0
    ].update(action=["use"]),
    "agreement.permission[0].constraint[0].leftOperand: iriai:madeUp": lambda one: one["agreement"][
        "permission"
    ][0]["constraint"][0].update(leftOperand="iriai:madeUp"),
    "agreement.permission[0].constraint[0].operator: neq: iriai:key has eq": lambda one: one["agreement"][
        "permission"
    ][0]["constraint"][0].update(operator="neq"),
    "agreement.permission[0].constraint[0].operator: ['eq']": lambda one: one["agreement"]["permission"][0][
        "constraint"
    ][0].update(operator=["eq"]),
    "agreement.permission[0].constraint[0].rightOperand: {'@value': '4'": lambda one: one["agreement"][
        "permission"
    ][0]["constraint"][0].update(rightOperand={"@value": "4", "@type": "xsd:decimal"}),
    "agreement.permission[0].constraint[0].unit: unit: an unknown property": lambda one: one["agreement"][
        "permission"
    ][0]["constraint"][0].update(unit="iriai:day"),
    "agreement.permission[0].constraint[0].iriai:clause: nothing": lambda one: one["agreement"]["permission"][
        0
    ]["constraint"][0].pop("iriai:clause"),
    "agreement.permission[0].constraint[0].and: and: a logical constraint": lambda one: one["agreement"][
        "permission"
    ][0]["constraint"].insert(0, {"and": []}),
    "agreement.permission[0].constraint: []: at least one": lambda one: one["agreement"]["permission"][
        0
    ].update(constraint=[]),
    "agreement.permission: nothing: a list of rules": lambda one: one["agreement"].pop("permission"),
    "agreement.prohibition: []: a list of rules": lambda one: one["agreement"].update(prohibition=[]),
    "agreement.prohibition[0]: x: a rule is an object": lambda one: one["agreement"].update(
        prohibition=["x"]
    ),
    "agreement.permission[0].constraint[0]: 1: a constraint is an object": lambda one: one["agreement"][
        "permission"
    ][0].update(constraint=[1]),
    "agreement.iriai:contractDigest: sha256:0: the digest": lambda one: one["agreement"].update(
        {"iriai:contractDigest": "sha256:0"}
    ),
    "agreement.target: nothing: text is needed": lambda one: one["agreement"].pop("target"),
    "agreement.@type: Set: Agreement is needed": lambda one: one["agreement"].update({"@type": "Set"}),
    "agreement: nothing: a policy is an object": lambda one: one.pop("agreement"),
    "@context: ['https://w3id.org/dspace/2025/1/context.jsonld', 'https://x.example/c']": lambda one: one[
        "@context"
    ].append("https://x.example/c"),
    "iriai:extra: iriai:extra: an unknown property": lambda one: one.update({"iriai:extra": 1}),
    "@type: ['ContractAgreementMessage']: no message that holds": lambda one: one.update(
        {"@type": ["ContractAgreementMessage"]}
    ),
}


@pytest.mark.parametrize("said", MUTANTS)
def test_what_the_profile_does_not_have_is_refused_by_name_and_path(said):
    message = copy.deepcopy(export(contract())[0])
    MUTANTS[said](message)
    with pytest.raises(OdrlRefusedError) as refused:
        read_view(message)
    assert said in refused.value.found


@pytest.mark.parametrize("right", ["04", "4.0", "-1", "1e3", " 4", "", 4, None])
def test_a_number_has_one_spelling(right):
    message = copy.deepcopy(export(contract())[0])
    found = message["agreement"]["permission"][0]["constraint"]
    place = next(i for i, one in enumerate(found) if one["leftOperand"] == "iriai:epsilonTotal")
    found[place]["rightOperand"]["@value"] = right
    with pytest.raises(OdrlRefusedError) as refused:
        read_view(message)
    assert f"constraint[{place}].rightOperand" in refused.value.found


def test_every_fault_of_a_message_is_named_at_once():
    message = copy.deepcopy(export(contract())[0])
    message["agreement"]["permission"][0]["action"] = "nuke"
    message["agreement"]["profile"] = "x"
    with pytest.raises(OdrlRefusedError) as refused:
        read_view(message)
    assert "profile" in refused.value.found
    assert "nuke" in refused.value.found


def test_a_bundle_is_about_one_contract_and_its_faults_say_which_message():
    first, second = export(contract()), export(contract(title="Another pool"))
    with pytest.raises(OdrlRefusedError, match="one bundle is about one contract"):
        read_bundle([first[0], second[0]])
    broken = copy.deepcopy(first[:2])
    broken[1]["agreement"]["permission"][0]["action"] = "nuke"
    with pytest.raises(OdrlRefusedError, match=r"\[1\]\.agreement\.permission\[0\]\.action"):
        read_bundle(broken)
    for size in (0, ODRL_MESSAGES + 1):
        with pytest.raises(OdrlRefusedError, match="a bundle has"):
            read_bundle([first[0]] * size)


# --- what a policy proves: nothing, until the contract agrees ---


def test_a_policy_that_says_more_than_its_contract_disagrees_with_it():
    shown = contract()
    message = copy.deepcopy(export(shown)[0])
    found = message["agreement"]["permission"][0]["constraint"]
    one = next(one for one in found if one["leftOperand"] == "iriai:epsilonTotal")
    one["rightOperand"]["@value"] = "80"
    with pytest.raises(ViewDisagreesError) as refused:
        confirm(shown, read_view(message))
    assert refused.value.clause == one["iriai:clause"]
    assert "iriai:epsilonTotal lteq 80" in refused.value.found


def test_a_policy_that_leaves_a_term_out_disagrees():
    message = copy.deepcopy(export(contract())[0])
    message["agreement"]["permission"][0]["constraint"].pop()
    with pytest.raises(ViewDisagreesError, match="other rules"):
        confirm(contract(), read_view(message))
    message = copy.deepcopy(export(contract())[0])
    message["agreement"].pop("prohibition")
    with pytest.raises(ViewDisagreesError, match="other rules"):
        confirm(contract(), read_view(message))


def test_a_policy_of_another_contract_or_target_disagrees():
    view = read_view(export(contract())[0])
    with pytest.raises(ViewDisagreesError, match="a view of"):
        confirm(contract(title="Another pool"), view)
    message = copy.deepcopy(export(contract())[0])
    message["agreement"]["target"] = "iriai:dataset:org_vayvp5am2zr3icv6:hanbit/everything"
    with pytest.raises(ViewDisagreesError, match="a clause and a target"):
        confirm(contract(), read_view(message))


def test_an_agreement_of_the_open_tier_confirms_with_its_own_parties():
    shown = contract()
    pair = next(one for one in pairs(shown) if one.kind == "open")
    own = agreement(pair, assignee="BPNL000000000042", timestamp="2027-01-01T00:00:00Z", name="iriai:a:1")
    message = export(shown)[0] | {"agreement": own}
    assert confirm(shown, read_view(message)) == pair


# --- the protocol's messages ---


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff", "UTF-8 JSON"),
        (b"{", "UTF-8 JSON"),
        (b'{"a":1,"a":2}', "each key once"),
        (b'{"a":1.5}', "decimals as objects"),
        (b'{"a":NaN}', "decimals as objects"),
        (b"[" * 100_000, "UTF-8 JSON"),
        (b"[" * 20 + b"]" * 20, "nesting"),
        (b'"' + b"x" * DSP_MESSAGE_BYTES + b'"', "at most"),
        ('"e\u0301"'.encode(), "normalisation form C"),
    ],
)
def test_bytes_of_others_are_read_strictly(data, said):
    with pytest.raises(DspMessageError, match=said):
        read_json(data)


def request(**changes) -> dict:
    return {
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "ContractRequestMessage",
        "consumerPid": "urn:uuid:1",
        "callbackAddress": "https://connector.example/dsp",
        "offer": {"@type": "Offer", "@id": "iriai:offer:1", "permission": [{"action": "use"}]},
    } | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"@type": "ContractOfferMessage"}, "@type ContractRequestMessage"),
        ({"@context": "https://w3id.org/dspace/2025/1/context.jsonld"}, "@context"),
        ({"@context": []}, "@context"),
        ({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld", {"use": "urn:x"}]}, "@context"),
        ({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"] * 9}, "@context"),
        ({"providerPid": "iriai:neg:1"}, "one of callbackAddress and providerPid"),
        ({"callbackAddress": None}, "one of callbackAddress and providerPid"),
        ({"consumerPid": ".."}, "consumerPid"),
        ({"consumerPid": "a b"}, "consumerPid"),
        ({"consumerPid": "x" * 301}, "consumerPid"),
        ({"consumerPid": {"@id": "x"}}, "consumerPid"),
        ({"offer": None}, "offer"),
        ({"offer": {"@type": "Offer", "@id": "x"}}, "a permission or a prohibition"),
        ({"offer": {"@type": "Offer", "@id": "x", "permission": []}}, "offer.permission"),
        ({"offer": {"@type": "Offer", "@id": "x", "permission": [{}]}}, "offer.permission"),
        ({"offer": {"@type": "Offer", "permission": [{"action": "use"}]}}, "offer.@id"),
    ],
)
def test_a_request_of_another_shape_is_refused_by_its_place(changes, said):
    with pytest.raises(DspMessageError) as refused:
        read_request(request(**changes))
    assert said in refused.value.need
    assert read_request(request()).offer_id == "iriai:offer:1"


# --- Catena-X, read only ---


def test_a_catenax_policy_is_listed_by_what_maps_and_what_does_not():
    found = {one.path: (one.left, one.kind, one.enforced) for one in read_catenax(CATENAX)}
    assert found == {
        "permission[0].constraint[0].and[0]": ("Membership", None, False),
        "permission[0].constraint[0].and[1]": ("UsagePurpose", "purpose", True),
        "permission[0].constraint[0].and[2]": ("DataUsageEndDate", "term", True),
        "permission[0].constraint[0].and[3].or[0]": ("Liability", None, False),
        "permission[0].constraint[0].and[3].or[1]": ("Warranty", None, False),
        "prohibition[0].constraint": ("madeUp", None, False),
        "obligation[0].constraint[0]": ("Precedence", "prose", False),
    }
    for one in read_catenax(CATENAX):
        assert one.words


def test_a_catenax_policy_is_found_in_a_message_and_nonsense_is_refused():
    assert read_catenax({"agreement": CATENAX})[0].path.startswith("agreement.permission[0]")
    for wrong in ([], {"@type": "Set"}, "x"):
        with pytest.raises(OdrlRefusedError):
            read_catenax(wrong)
    deep: dict = {"leftOperand": "Membership"}
    for _ in range(20):
        deep = {"and": [deep]}
    with pytest.raises(OdrlRefusedError, match="nesting"):
        read_catenax({"permission": [{"action": "use", "constraint": [deep]}]})
    many = [{"leftOperand": "Membership"}] * 501
    with pytest.raises(OdrlRefusedError, match="constraints"):
        read_catenax({"permission": [{"action": "use", "constraint": many}]})


def test_a_catenax_policy_is_refused_by_the_import():
    with pytest.raises(OdrlRefusedError):
        read_view(CATENAX)
