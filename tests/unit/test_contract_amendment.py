# SPDX-License-Identifier: Apache-2.0
"""Amendments: the order table knows every field, entitlements stay, and a looser successor is shown by a request."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from policies.contract import Contract, evaluate, from_tree
from policies.contract.amendment import (
    diff,
    entitlements_kept,
    for_party,
    judge_amendment,
    no_looser_by_order,
    prove,
    recheck,
)
from policies.contract.amendment.changes import strays
from policies.contract.amendment.order_table import ADDED, ORDER, REMOVED
from policies.contract.amendment.succession import as_under
from policies.contract.amendment.vocabulary import vocabulary
from policies.contract.clauses import Contract as ContractClass
from policies.contract.errors import (
    NotASuccessorError,
    VerdictDisagreesError,
    VerdictMalformedError,
)
from policies.contract.grammar import Nullable, Rows, Struct, rules_of
from policies.contract.registry import KINDS
from policies.encoding import canonical
from tests.amendsim import (
    EDITS,
    LOOSENINGS,
    OTHER,
    TIGHTENINGS,
    Edit,
    edited,
    named,
    near,
    successor,
)
from tests.contractsim import authored, contract, join, shared_noise

OLD = contract()


def changed(apply: Any, *, follows: Contract = OLD) -> Contract:
    tree = authored()
    tree["version"], tree["supersedes"] = follows.version + 1, follows.digest
    apply(tree)
    return from_tree(tree)


def lines(new: Contract) -> list[str]:
    return [one.line for one in diff(OLD, new) if one.clause != "@document"]


# --- the order table ---


def _fields() -> dict[str, set[str]]:
    """Every ruled field of every clause, as the table names them."""
    found: dict[str, set[str]] = {}

    def visit(kind: Any) -> None:
        own = found.setdefault(kind.KIND, set())
        for key, rule in rules_of(kind).items():
            bare = rule.of if isinstance(rule, Nullable) else rule
            inner = bare.of if isinstance(bare, Struct | Rows) else None
            if inner is not None and hasattr(inner, "KIND"):
                visit(inner)
            elif isinstance(bare, Struct):
                own.update(f"{key}.{name}" for name in rules_of(bare.of))
            else:
                own.add(key)

    visit(ContractClass)
    return found


def test_every_field_of_every_clause_has_a_row_in_the_order_table() -> None:
    assert {kind: set(rows) for kind, rows in ORDER.items()} == _fields()


def test_every_kind_says_what_its_coming_and_going_means() -> None:
    alone = {"term", "fields", "privacy", "aggregation", "release", "exit", "amendment", "halt", "conflict"}
    assert set(ADDED) == set(REMOVED) == set(KINDS) - alone  # those are in every contract


def test_another_number_of_honest_silos_is_another_plan_and_no_tightening() -> None:
    tree = shared_noise().document
    tree["aggregation"]["max_colluders"] = 0
    old = from_tree(tree)
    tree["privacy"]["honest_min"] = 4
    new = from_tree(tree | {"version": old.version + 1, "supersedes": old.digest})
    assert strays(diff(old, new))
    assert not judge_amendment(old, new, kind="tighten", initiator="kita").no_looser


@pytest.mark.parametrize("edit", EDITS, ids=lambda one: one.name)
def test_an_edit_has_the_direction_that_people_expect(edit: Edit) -> None:
    moved = strays(diff(OLD, successor(edit)))
    if edit.way == "tighter":
        assert moved == ()
    elif edit.way == "looser":
        assert "looser" in {one.direction for one in moved}
    else:
        assert moved
        assert edit.way == OTHER


@pytest.mark.parametrize("name", ["another country", "another name", "all sign a new key", "fewer may halt"])
def test_what_the_table_calls_unjudged_changes_no_decision(name: str) -> None:
    new = successor(named(name))
    assert not any(one.judged for one in diff(OLD, new) if one.clause != "@document")
    for request, state in list(near(vocabulary(OLD, new)))[::11]:
        here = evaluate(OLD, state, request)
        there = evaluate(new, state, as_under(request, OLD, new))
        assert [one.outcome for one in here.findings] == [one.outcome for one in there.findings]


def test_a_field_without_a_row_is_looser(monkeypatch: pytest.MonkeyPatch) -> None:
    new = successor(named("nord's total cap is lowered"))
    assert no_looser_by_order(OLD, new)
    monkeypatch.delitem(ORDER["privacy-cap"], "epsilon_total")
    assert not no_looser_by_order(OLD, new)
    assert lines(new) == ["dp-2 LOOSER epsilon_total 4 -> 3"]


# --- the diff in words ---


def test_the_diff_speaks_in_short_lines() -> None:
    new = successor(
        named("nord's total cap is raised"),
        named("a field is added"),
        named("the term is longer"),
        named("more evidence"),
        named("another forbidden use"),
        named("the audit is gone"),
        named("another name"),
    )
    assert lines(new) == [
        "audit-1 LOOSER removed",
        "dp-2 LOOSER epsilon_total 4 -> 6",
        "fields-1 LOOSER allow + wire_speed",
        "term-1 LOOSER expires + 365 days",
        "forbid-7 TIGHTER added",
        "release-1 TIGHTER evidence + model-card",
        'party-kita TEXT legal_name "Kita Robot KK 北" -> "Kita Holding KK"',
    ]


def test_a_set_that_gains_and_loses_is_both_looser_and_tighter() -> None:
    new = changed(lambda tree: tree["fields"].update(allow=["tcp_pos", "gripper_width", "wire_speed"]))
    assert lines(new) == [
        "fields-1 LOOSER allow + wire_speed",
        "fields-1 TIGHTER allow - goal_pos object_pos",
    ]


def test_the_same_text_in_another_order_and_spelling_is_no_difference() -> None:
    tree = authored()
    tree["parties"].reverse()
    tree["fields"]["allow"].reverse()
    tree["privacy"]["epsilon_total"] = "8.000"
    assert diff(OLD, from_tree(tree)) == ()


def test_a_party_reads_first_what_touches_it() -> None:
    new = successor(
        named("nord's total cap is raised"),
        named("hanbit's release cap is gone"),
        named("fewer parties suffice"),
        named("another name"),
    )
    read = [one.line for one in for_party(diff(OLD, new), "nord") if one.clause != "@document"]
    assert read[0] == "dp-2 LOOSER epsilon_total 4 -> 6"
    assert read[1] == "k-1 LOOSER min_parties 3 -> 2"
    assert read[2] == "dp-3 LOOSER epsilon_per_release 1.5 -> none"
    assert read[3].startswith("party-kita TEXT")


def test_a_data_set_that_goes_touches_its_owner() -> None:
    struck = [one for one in diff(OLD, successor(named("a data set is struck"))) if one.clause == "recipe-1"]
    assert [(one.words, one.touches) for one in struck] == [("datasets - hanbit:hanbit/pick", ("hanbit",))]


# --- the proof ---

TEN_LOOSER = LOOSENINGS[:6] + tuple(
    named(name)
    for name in ("outputs are fresher", "more local steps", "the quorum is lower", "more rejected rounds")
)
TEN_TIGHTER = TIGHTENINGS[:10]


@pytest.mark.parametrize("edit", TEN_LOOSER, ids=lambda one: one.name)
def test_a_planted_loosening_is_found_with_a_request_that_replays(edit: Edit) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    new = successor(edit)
    verdict = prove(OLD, new)
    assert not verdict.no_looser
    assert verdict.basis == "proof"
    assert verdict.witnesses
    for one in verdict.witnesses:
        assert evaluate(new, one.state, one.request).allow
        assert one.clause in evaluate(OLD, one.state, as_under(one.request, new, OLD)).clauses
        assert "version 1 refuses, version 2 allows" in one.words(OLD, new)


@pytest.mark.parametrize("edit", TEN_TIGHTER, ids=lambda one: one.name)
def test_a_tightening_is_proven(edit: Edit) -> None:
    z3 = pytest.importorskip("z3", reason="the extra prove is not installed")
    verdict = prove(OLD, successor(edit))
    assert verdict.no_looser
    assert verdict.witnesses == verdict.objections == ()
    assert verdict.z3_version == z3.get_version_string()


@pytest.mark.parametrize(
    "names",
    [
        ("one group may dominate",),  # with three groups of equal weight, none has more than a third
        ("answers in slots",),  # nobody had to before
        ("the differencing guard is off",),  # numbers without noise are refused by forbid-4 anyway
    ],
)
def test_the_proof_sees_what_the_table_cannot(names: tuple[str, ...]) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    new = successor(*(named(name) for name in names))
    assert not no_looser_by_order(OLD, new)
    assert prove(OLD, new).no_looser
    assert judge_amendment(OLD, new, kind="tighten", initiator="kita").basis == "proof"


def test_the_cap_of_one_may_go_where_the_common_one_is_as_tight() -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")

    def merged(tree: Any) -> None:
        tree["privacy"]["epsilon_total"] = "4"
        tree["privacy"]["per_party"] = [{"clause": "dp-3", "party": "hanbit", "epsilon_per_release": "1.5"}]
        tree["release"]["approvals"]["veto"] = ["secret-1", "secret-2"]

    new = changed(merged)
    assert "dp-2 LOOSER removed" in lines(new)
    assert prove(OLD, new).no_looser


def test_every_kind_that_code_enforces_has_a_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    from policies.contract.amendment import formulas, refinement

    assert {name for name, kind in KINDS.items() if kind.points} <= formulas.FORMULA_KINDS
    monkeypatch.setattr(refinement, "FORMULA_KINDS", formulas.FORMULA_KINDS - {"audit"})
    verdict = prove(OLD, successor(named("nord's total cap is lowered")))
    assert [(one.clause, one.why) for one in verdict.objections] == [("audit-1", "not-proven")]
    assert not verdict.no_looser


def test_a_witness_that_does_not_replay_is_not_proven_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    from policies.contract.amendment import formulas
    from policies.contract.amendment.terms import FALSE, TRUE, holds

    def wrong(view: Any, clause: Any) -> Any:
        yield holds(clause.clause, "not-halted", TRUE if view.contract is view.meant else FALSE)

    monkeypatch.setitem(formulas.FORMULAS, "halt", wrong)
    verdict = prove(OLD, successor(named("nord's total cap is lowered")))
    assert not verdict.no_looser
    assert verdict.witnesses == ()
    assert [(one.clause, one.why) for one in verdict.objections] == [("halt-1", "not-proven")]
    assert "does not replay" in verdict.objections[0].words


def test_no_answer_in_time_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    z3 = pytest.importorskip("z3", reason="the extra prove is not installed")
    from policies.contract.amendment import formulas, refinement
    from policies.contract.amendment.terms import TRUE, holds

    def cubes(view: Any, clause: Any) -> Any:
        """42 as a sum of three cubes: nobody knew it until 2019."""
        if view.contract is view.meant:
            yield holds(clause.clause, "not-halted", TRUE)
            return
        x, y, z = z3.Ints("x y z")
        yield holds(clause.clause, "not-halted", x * x * x + y * y * y + z * z * z != 42)

    monkeypatch.setattr(refinement, "PROOF_S", 0.05)
    monkeypatch.setitem(formulas.FORMULAS, "halt", cubes)
    verdict = prove(OLD, successor(named("nord's total cap is lowered")))
    assert not verdict.no_looser
    assert {one.why for one in verdict.objections} == {"not-proven"}
    assert "no answer" in verdict.objections[0].words


# --- entitlements: what a tightening may not take ---


def taken(new: Contract, initiator: str | None = "kita") -> list[str]:
    return [one.clause for one in entitlements_kept(OLD, new, initiator)]


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("more contribution is needed", "tier-consortium"),  # a rival's share lies between the two
        ("the open tier is gone", "tier-open"),
        ("the embargo is longer", "tier-open"),
        ("more approvals", "release-1"),
        ("a view is struck", "query-1"),
        ("queries are gone", "query-1"),
        ("nord's total cap is lowered", "dp-2"),
        ("a cap for iber", "dp-4"),
        ("another secret", "secret-3"),
        ("more of nord is secret", "secret-1"),
        ("all sign a tightening", "amend-1"),
        ("all sign a new key", "amend-1"),
    ],
)
def test_a_tighter_term_that_takes_from_another_party_needs_a_change(name: str, clause: str) -> None:
    new = successor(named(name))
    assert no_looser_by_order(OLD, new)
    assert clause in taken(new)
    verdict = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    assert not verdict.no_looser
    assert (clause, "entitlement") in {(one.clause, one.why) for one in verdict.objections}


def test_a_rival_is_not_shut_out_by_an_embargo_on_its_country() -> None:
    new = changed(lambda tree: tree["export_control"]["embargoed"].append("KR"))
    assert no_looser_by_order(OLD, new)
    assert taken(new) == ["export-1"]
    assert taken(new, initiator="hanbit") == []


def test_a_rival_is_not_struck_from_a_recipe() -> None:
    new = changed(lambda tree: tree["recipes"][0]["datasets"].pop())  # nord
    assert no_looser_by_order(OLD, new)
    assert taken(new) == ["recipe-1"]
    assert taken(new, initiator="nord") == []


def test_weights_and_donations_of_others_stay() -> None:
    assert "k-1" in taken(successor(named("fixed weights")))
    assert "seed-1" in taken(changed(lambda tree: tree["seed_sets"][0]["donations"][0].update(licence="CC0")))


def test_nobody_leaves_by_a_tightening() -> None:
    def gone(tree: Any) -> None:
        tree["parties"] = [one for one in tree["parties"] if one["party"] != "kita"]
        picking = tree["recipes"][0]
        picking["datasets"] = [one for one in picking["datasets"] if one["party"] != "kita"]
        tree["recipes"] = [picking]
        tree["fields"]["trade_secret"].pop()
        tree["release"]["approvals"]["veto"].remove("secret-2")
        del tree["seed_sets"], tree["tiers"][2]

    assert "party-kita" in taken(changed(gone))


@pytest.mark.parametrize(
    "name",
    [
        "a field is struck",
        "the term is shorter",
        "fewer rounds",
        "outputs are older",
        "more witnesses",
        "another forbidden use",
        "the quorum is higher",
    ],
)
def test_common_terms_may_tighten(name: str) -> None:
    verdict = judge_amendment(OLD, successor(named(name)), kind="tighten", initiator="kita")
    assert verdict.no_looser
    assert verdict.basis == "order"
    assert verdict.z3_version is None


def test_an_own_cap_may_tighten() -> None:
    new = successor(named("nord's total cap is lowered"))
    assert judge_amendment(OLD, new, kind="tighten", initiator="nord").no_looser
    assert not judge_amendment(OLD, new, kind="tighten", initiator="kita").no_looser
    assert not judge_amendment(OLD, new, kind="tighten", initiator=None).no_looser


@pytest.mark.parametrize(
    ("apply", "clause"),
    [
        (
            lambda tree: tree["retention"].update(updates_hours=24),
            "retain-1",
        ),  # tighter, and still for people only
        (lambda tree: tree["liability"].update(cap_eur=1), "liab-1"),
        (lambda tree: tree["prose"].update(sha256="0" * 64), "prose-1"),
        (lambda tree: tree["purposes"].pop(), "purpose-3"),
        (lambda tree: tree.pop("law"), "law-1"),
        (lambda tree: tree.update(title="Another title"), "@document"),
        (lambda tree: tree.update(test_only=True), "@document"),
        (lambda tree: tree["parties"][0].update(legal_name="Kita"), "party-kita"),
        (lambda tree: tree["audit"].update(ml_dsa="off"), "audit-1"),
        (lambda tree: tree["halt"].update(who=["broker"]), "halt-1"),
        (lambda tree: tree["forbidden"].pop(), "forbid-6"),
    ],
)
def test_what_only_people_can_judge_needs_a_change(apply: Any, clause: str) -> None:
    verdict = judge_amendment(OLD, changed(apply), kind="tighten", initiator="kita")
    assert not verdict.no_looser
    assert clause in {one.clause for one in verdict.objections}
    assert {one.why for one in verdict.objections} <= {"law", "looser", "witness", "entitlement"}


# --- who follows whom ---


@pytest.mark.parametrize(
    "apply",
    [
        lambda tree: tree.update(version=3),
        lambda tree: tree.update(supersedes="sha256:" + "0" * 64),
        lambda tree: tree.update(contract_id="ctr_aaaaaaaaaaaaaaaa"),
    ],
)
@pytest.mark.parametrize("kind", ["tighten", "change"])
def test_only_the_next_version_is_a_successor(apply: Any, kind: str) -> None:
    with pytest.raises(NotASuccessorError) as caught:
        judge_amendment(OLD, changed(apply), kind=kind, initiator="kita")
    assert caught.value.code == "contract.not-a-successor"


def test_a_later_day_for_signing_stands_in_no_ones_way() -> None:
    new = changed(
        lambda tree: (tree.update(sign_by="2026-12-01T00:00:00Z"), tree["validation"].update(quorum="0.8"))
    )
    assert judge_amendment(OLD, new, kind="tighten", initiator="kita").no_looser


def test_a_point_less_is_looser_and_a_point_more_is_not() -> None:
    fewer = changed(lambda tree: tree["recipes"][0].update(enforced_by=["broker", "node"]))
    assert lines(fewer) == ["recipe-1 LOOSER enforced_by - auditor"]
    assert not judge_amendment(OLD, fewer, kind="tighten", initiator="kita").no_looser
    more = from_tree(authored() | {"version": 2, "supersedes": fewer.digest})
    assert no_looser_by_order(fewer, more)


def test_a_join_means_its_own_contract() -> None:
    new = successor(named("more witnesses"))
    asked = join(supersedes=new.digest, version=3)
    assert as_under(asked, new, OLD) == replace(asked, supersedes=OLD.digest, version=2)


# --- the verdict as a document ---


def test_a_verdict_is_canonical_and_names_both_contracts() -> None:
    new = successor(named("the quorum is higher"))
    verdict = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    tree = json.loads(verdict.to_bytes())
    assert verdict.to_bytes() == canonical(tree)
    assert (tree["old"], tree["new"], tree["kind"], tree["initiator"]) == (
        OLD.digest,
        new.digest,
        "tighten",
        "kita",
    )
    assert tree["no_looser"] is True
    assert [one["words"] for one in tree["changes"] if one["clause"] == "validate-1"] == [
        "quorum 0.67 -> 0.75"
    ]


def test_a_change_needs_no_proof_and_tells_what_is_looser() -> None:
    verdict = judge_amendment(OLD, successor(named("fewer parties suffice")), kind="change", initiator="kita")
    assert not verdict.no_looser
    assert verdict.basis == "order"
    assert [one.clause for one in verdict.objections] == ["k-1"]


def test_an_honest_verdict_is_confirmed() -> None:
    new = successor(named("the quorum is higher"))
    sent = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    assert recheck(OLD, new, sent.to_bytes()) == sent


def test_a_looser_successor_is_not_confirmed_as_a_tightening() -> None:
    new = successor(named("fewer parties suffice"))
    honest = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    sent = replace(honest, no_looser=True, objections=(), witnesses=())
    with pytest.raises(VerdictDisagreesError) as caught:
        recheck(OLD, new, sent.to_bytes())
    assert caught.value.clause == "k-1"


def test_a_verdict_that_says_looser_stays_so() -> None:
    new = successor(named("the quorum is higher"))
    sent = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    assert not recheck(OLD, new, replace(sent, no_looser=False).to_bytes()).no_looser


def test_a_verdict_about_others_or_with_another_diff_is_refused() -> None:
    new, other = successor(named("the quorum is higher")), successor(named("more witnesses"))
    sent = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    with pytest.raises(VerdictDisagreesError):
        recheck(OLD, other, sent.to_bytes())
    with pytest.raises(VerdictDisagreesError):
        recheck(OLD, new, replace(sent, changes=sent.changes[1:]).to_bytes())


def test_a_witness_that_does_not_replay_is_refused() -> None:
    pytest.importorskip("z3", reason="the extra prove is not installed")
    new = successor(named("fewer parties suffice"))
    sent = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    made_up = replace(sent.witnesses[0], state=replace(sent.witnesses[0].state, halted=True))
    with pytest.raises(VerdictDisagreesError) as caught:
        recheck(OLD, new, replace(sent, witnesses=(made_up,)).to_bytes())
    assert caught.value.clause == sent.witnesses[0].clause


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tree: b"{}",
        lambda tree: b"no json",
        lambda tree: json.dumps(tree, indent=1).encode(),
        lambda tree: canonical({**tree, "schema": "iriai-verdict/2"}),
        lambda tree: canonical({**tree, "more": 1}),
        lambda tree: canonical({**tree, "no_looser": 1}),
        lambda tree: canonical({**tree, "kind": "loosen"}),
        lambda tree: canonical({**tree, "initiator": 7}),
        lambda tree: canonical({**tree, "witnesses": {}}),
        lambda tree: canonical({**tree, "witnesses": [{}]}),
    ],
)
def test_other_bytes_are_no_verdict(spoil: Any) -> None:
    new = successor(named("the quorum is higher"))
    sent = judge_amendment(OLD, new, kind="tighten", initiator="kita")
    with pytest.raises(VerdictMalformedError):
        recheck(OLD, new, spoil(json.loads(sent.to_bytes())))


# --- without the prover ---

_WITHOUT = """
import sys
sys.modules["z3"] = None
from policies.contract.amendment import judge_amendment, prove
from policies.contract.errors import ProofMissingError
from tests.amendsim import named, successor
from tests.contractsim import contract
old = contract()
print(judge_amendment(old, successor(named("the quorum is higher")), kind="tighten", initiator="kita").no_looser)
print(judge_amendment(old, successor(named("the open tier is gone")), kind="tighten", initiator="kita").no_looser)
for call in (
    lambda: judge_amendment(old, successor(named("one group may dominate")), kind="tighten", initiator="kita"),
    lambda: prove(old, successor(named("the quorum is higher"))),
):
    try:
        call()
    except ProofMissingError as error:
        print(error.code, error.clause, error.exit_code)
"""


def test_without_the_prover_the_table_decides_and_the_rest_is_not_a_yes() -> None:
    told = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[:4] == [
        "True",
        "False",
        "contract.proof-missing k-1 3",
        "contract.proof-missing None 3",
    ]


def test_judging_by_the_table_does_not_load_the_prover() -> None:
    code = "import policies.contract.amendment, policies.contract.dryrun, sys; print('z3' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_edits_that_do_not_fit_together_make_no_contract() -> None:
    assert edited([named("the audit is gone"), named("fewer witnesses")]) is None
