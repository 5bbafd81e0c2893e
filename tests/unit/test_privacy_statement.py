# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json

import pytest

from policies.privacy.errors import StatementError
from policies.privacy.statement import build_statement, check_statement, claim, statement_bytes
from tests.learnsim import small_recipe

PLAN = small_recipe().plan.document
LIFETIME = {
    "alpha_star": 4,
    "rho_spent_nano": 1,
    "rho_max_nano": 2,
    "epsilon_filter": "3.5",
    "ledger_head": "sha256:1",
}


def statement(*claims):
    return build_statement(
        run="run_a",
        model="sha256:m",
        contract="sha256:c",
        recipe="sha256:r",
        claims=claims,
        evaluation="sha256:e",
    )


GOOD = statement(claim("b2", PLAN, lifetime=LIFETIME), claim("a1", PLAN, epsilon_pld="7.5"))


def test_a_statement_has_a_claim_per_contributor_and_says_what_it_does_not_cover():
    check_statement(json.loads(statement_bytes(GOOD)))
    assert [row["party"] for row in GOOD["contributors"]] == ["a1", "b2"]
    assert GOOD["contributors"][0]["claim"]["epsilon_rdp"] == "7.999802"
    assert GOOD["verdict"] == "PRIVATE"
    assert GOOD["not_protected"]


def test_without_a_plan_or_under_a_test_plan_it_says_not_private():
    for row in (claim("c3", None), claim("c3", {**PLAN, "test_only": True})):
        document = statement(claim("a1", PLAN), row)
        assert document["verdict"] == "NOT PRIVATE"
        check_statement(document)
    assert statement()["verdict"] == "NOT PRIVATE"


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
GIVEN = {"subject", "evaluation", "party", "lifetime"}


@pytest.mark.parametrize("path", [p for p in leaves(GOOD) if not GIVEN & set(p) and p[-1] != "epsilon_pld"])
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
