# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json

import pytest

from policies.privacy.accounting import epsilon_text
from policies.privacy.errors import StatementError
from policies.privacy.statement import (
    Subject,
    Terms,
    build_statement,
    check_statement,
    claim,
    held_out,
    statement_bytes,
)
from policies.privacy.statement_words import Beside, page
from tests.learnsim import small_recipe

PLAN = small_recipe().plan.document
EVALUATION = small_recipe().evaluation.document
SHARES = small_recipe(noise="shares", honest_min=3).plan.document
LIFETIME = {
    "alpha_star": 4,
    "rho_spent_nano": 1,
    "rho_max_nano": 2,
    "epsilon_filter": "3.5",
    "ledger_head": "sha256:1",
}
AUDIT = {"mu": "0.45", "mu_expected": "0.454", "eps_low": "1.31", "verdict": "pass"}
SUBJECT = Subject(run="run_a", model="sha256:m", contract="sha256:c", recipe="sha256:r")


VOTES = EVALUATION | {"loss_bound": "0.05", "noise_multiplier": "11.2", "steps": 24}


def statement(*claims, votes=None, **terms):
    return build_statement(
        subject=SUBJECT, claims=claims, evaluation=EVALUATION, votes=votes, terms=Terms(**terms)
    )


GOOD = statement(claim("b2", PLAN, lifetime=LIFETIME, audit=AUDIT), claim("a1", PLAN, epsilon_pld="7.5"))
SHARED = statement(
    claim("a1", SHARES, summed=4), claim("b2", SHARES, summed=4), secure_aggregation="required"
)


def test_a_statement_has_a_claim_per_contributor_and_says_what_it_does_not_cover():
    check_statement(json.loads(statement_bytes(GOOD)))
    assert [row["party"] for row in GOOD["contributors"]] == ["a1", "b2"]
    assert GOOD["contributors"][0]["claim"]["epsilon_rdp"] == "7.999802"
    assert GOOD["verdict"] == "PRIVATE"
    assert {one["code"] for one in GOOD["not_protected"]} >= {"many-units", "single-updates", "reply-times"}


def test_without_a_plan_or_under_a_test_plan_it_says_not_private():
    for row in (claim("c3", None), claim("c3", {**PLAN, "test_only": True})):
        document = statement(claim("a1", PLAN), row)
        assert document["verdict"] == "NOT PRIVATE"
        check_statement(document)
    assert statement()["verdict"] == "NOT PRIVATE"


def test_an_engine_that_failed_its_audit_makes_the_model_not_private():
    document = statement(claim("a1", PLAN), claim("b2", PLAN, audit=AUDIT | {"verdict": "fail"}))
    assert document["verdict"] == "NOT PRIVATE"
    check_statement(document)


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "No audit of the training engine was told"), ("ja", "監査は伝えられていない")]
)
def test_a_claim_without_an_audit_stays_and_does_not_read_as_an_audit_that_passed(lang, words):
    assert statement(claim("a1", PLAN))["verdict"] == "PRIVATE"
    for audit, said in ((None, True), (AUDIT, False), (AUDIT | {"verdict": "fail"}, False)):
        lines = [
            line for _, part in page(statement(claim("a1", PLAN, audit=audit)), lang=lang) for line in part
        ]
        assert (words in "\n".join(lines)) == said


def test_noise_shares_give_both_figures_and_every_step_between():
    check_statement(json.loads(statement_bytes(SHARED)))
    told = SHARED["contributors"][0]["claim"]
    table = [float(one["epsilon_rdp"]) for one in told["epsilon_by_colluders"]]
    assert told["rests_on_honest_silos"] == 3
    assert table == sorted(table)
    assert len(table) == 4
    assert table[1] == float(told["epsilon_rdp"]) == 7.999802  # one of four colludes: three are honest
    assert table[0] < 7.9
    assert 8.1 < table[2] < table[3]
    assert SHARED["verdict"] == "PRIVATE"
    assert "colluding-silos" in {one["code"] for one in SHARED["not_protected"]}


def test_noise_shares_without_secure_aggregation_are_not_private():
    assert statement(claim("a1", SHARES, summed=4))["verdict"] == "NOT PRIVATE"


def test_noise_shares_of_too_few_silos_have_no_claim():
    with pytest.raises(StatementError, match="at least 3 silos"):
        claim("a1", SHARES, summed=2)


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize(
    "document", [GOOD, SHARED, statement(claim("c3", None))], ids=["full", "shares", "none"]
)
def test_the_page_has_every_figure_of_the_claims_and_what_is_open(document, lang):
    shown = dict(page(document, lang=lang))
    text = "\n".join(line for lines in shown.values() for line in lines)
    assert document["verdict"] in text
    assert len(shown) == len(document["contributors"]) + 6
    for row in document["contributors"]:
        if row["claim"] is not None:
            assert row["claim"]["epsilon_rdp"] in text
            assert all(one["epsilon_rdp"] in text for one in row["claim"]["epsilon_by_colluders"])
    assert "{" not in text


def test_the_page_says_in_both_languages_what_was_signed_as_open():
    english, japanese = ([lines for _, lines in page(GOOD, lang=lang)] for lang in ("en", "ja"))
    assert [one["text"] for one in GOOD["not_protected"]] in english
    assert [len(lines) for lines in english] == [len(lines) for lines in japanese]


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_a_page_says_how_often_held_out_units_are_asked_and_what_they_pay_in_all(lang):
    for votes in (None, VOTES):
        document = statement(claim("a1", PLAN), votes=votes)
        check_statement(document)
        text = "\n".join(line for _, lines in page(document, lang=lang) for line in lines)
        assert document["evaluation"]["epsilon_rdp"] in text
        assert ("11.2" in text) == (votes is not None)


def test_candidates_and_votes_together_cost_more_than_either_and_less_than_their_sum():
    alone = float(held_out(EVALUATION, None)["epsilon_rdp"])
    votes = float(held_out(VOTES, None)["epsilon_rdp"])
    both = float(held_out(EVALUATION, VOTES)["epsilon_rdp"])
    assert max(alone, votes) < both < alone + votes
    assert alone == float(epsilon_text(small_recipe().evaluation.epsilon_rdp))


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(epsilon_rdp="0.5"),
        lambda told: told.update(votes=None),
        lambda told: told["votes"]["document"].update(steps=1),
        lambda told: told["plan"].update(digest="sha256:e"),
        lambda told: told["votes"]["document"].update(schema="iriai-eval-plan/9"),
    ],
)
def test_what_held_out_units_pay_follows_from_the_two_plans_or_the_statement_is_wrong(change):
    document = copy.deepcopy(statement(claim("a1", PLAN), votes=VOTES))
    change(document["evaluation"])
    with pytest.raises(StatementError):
        check_statement(document)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_an_own_part_speaks_of_nobody_else(lang):
    for plan, word in ((PLAN, "PRIVATE"), (None, "NOT PRIVATE")):
        document = statement(claim("kita", plan))
        (first, *_) = page(document, lang=lang, beside=Beside(own=True))
        assert first[1][0].startswith(word)
        assert "kita" in first[1][0]
        assert first[1][0] != next(iter(page(document, lang=lang)))[1][0]


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path


# what a statement takes from elsewhere and a verifier compares with the log
GIVEN = {"subject", "party", "lifetime", "audit", "leak_report", "mia_auc"}


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in leaves(GOOD)
        if not GIVEN & set(p) and p[-1] != "epsilon_pld" and p[-2:] != ("terms", "reply_slot_ms")
    ],
)
def test_any_figure_or_text_that_is_changed_is_found(path):
    document = copy.deepcopy(GOOD)
    at = document
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = "0.5" if at[path[-1]] != "0.5" else "0.25"
    with pytest.raises(StatementError, match=r"privacy\.statement-invalid"):
        check_statement(document)


def test_a_tight_figure_above_the_recomputed_one_is_found():
    with pytest.raises(StatementError, match="epsilon_pld"):
        check_statement(statement(claim("a1", PLAN, epsilon_pld="8.2")))


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_statement_that_lacks_a_block_is_found(key):
    with pytest.raises(StatementError):
        check_statement({k: v for k, v in GOOD.items() if k != key})


def deep():
    found = []
    for _ in range(200_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value", [deep(), float("nan"), 2**60, "\ud800"], ids=["deep", "nan", "huge", "half"]
)
@pytest.mark.parametrize("path", [(), *leaves(GOOD)])
def test_a_statement_that_has_no_bytes_is_refused_wherever_that_lies(path, value):
    document = copy.deepcopy(GOOD)
    at = {"": document}
    for part in ("", *path)[:-1]:
        at = at[part]
    at[("", *path)[-1]] = value
    with pytest.raises(StatementError):
        check_statement(document if path else {"contributors": value})


@pytest.mark.parametrize("wrong", [1, True, ["x"], {"x": "y"}])
@pytest.mark.parametrize("name", ["seed_set", "leak_report", "mia_auc", "secure_aggregation"])
def test_a_term_that_is_no_text_is_refused(name, wrong):
    document = copy.deepcopy(GOOD)
    document["terms"][name] = wrong
    with pytest.raises(StatementError):
        check_statement(document)


@pytest.mark.parametrize("wrong", [True, 1.0, "1", None, -1])
def test_a_slot_that_is_no_number_is_refused(wrong):
    document = copy.deepcopy(GOOD)
    document["terms"]["reply_slot_ms"] = wrong
    with pytest.raises(StatementError):
        check_statement(document)


def codes(document):
    return {one["code"] for one in document["not_protected"]}


def test_sums_hide_whose_a_fact_is_and_leave_open_what_no_protocol_closes():
    singly, summed = statement(claim("a1", PLAN)), statement(claim("a1", PLAN), secure_aggregation="required")
    assert codes(singly) - codes(summed) == {"many-units", "single-updates"}
    assert codes(summed) - codes(singly) == {"sums", "last-update"}
    assert codes(SHARED) >= {"sums", "last-update", "colluding-silos"}
    check_statement(summed)


@pytest.mark.parametrize(("lang", "words"), [("en", "The broker read sums only"), ("ja", "合計のみである")])
def test_the_page_says_that_only_sums_were_read_where_it_was_so(lang, words):
    for document, said in ((GOOD, False), (SHARED, True)):
        text = "\n".join(line for _, lines in page(document, lang=lang) for line in lines)
        assert (words in text) == said
