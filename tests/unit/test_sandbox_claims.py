# SPDX-License-Identifier: Apache-2.0
"""The sandbox's contract carries what its recipes ask, and the report claims what they give, on its condition."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from policies.contract import Contract, plain_words
from policies.contract import load as load_contract
from policies.encoding import new_id
from policies.identity import SigningKey, key_text
from policies.privacy.shares import check_conditions
from policies.recipe import Recipe
from policies.recipe import load as load_recipe
from policies.secagg.agreed import agreed_terms
from sandbox.claims import privacy_claim, rests_on, sums_claim
from sandbox.contract_text import PARTIES, UPDATE_NORM_MAX, Signer, contract_text
from sandbox.recipes import DELTA, NOISE, asked_recipe
from sandbox.report import write_report
from sandbox.scores import Rate, success_table
from sandbox.summary import summary

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.recipes import Noise

CASES = [("8", "shares"), ("8", "local-full"), (None, "shares")]


def _key(number: int) -> str:
    return key_text(SigningKey.from_seed(bytes([number]) * 32).public)


@cache
def agreed(epsilon: str | None, noise: Noise) -> tuple[Contract, Recipe]:
    recipe = load_recipe(asked_recipe(epsilon, 250, noise=noise))
    text = contract_text(
        contract_id=new_id("ctr", bytes(10)),
        start_ms=1_790_000_000_000,
        signers=[
            Signer(maker=maker, org=new_id("org", bytes([number]) * 10), key=_key(number))
            for number, maker in enumerate(PARTIES, 1)
        ],
        broker_org=new_id("org", bytes([9]) * 10),
        broker_key=_key(9),
        recipe_digest=recipe.digest,
        rounds=recipe.rounds,
        local_steps=recipe.local_steps,
        epsilon=epsilon,
        delta=DELTA,
        honest_min=recipe.plan.honest_min if recipe.plan else None,
    )
    return load_contract(text), recipe


def report(epsilon: str | None, noise: Noise) -> dict[str, Any]:
    contract, recipe = agreed(epsilon, noise)
    names, cells = [one.party for one in PARTIES], {one.party: one.cell for one in PARTIES}
    rates = {name: {cell: Rate(successes=9, rollouts=10) for cell in "ABCD"} for name in names}
    spent = {name: {"spent": "7.9", "steps": 380} for name in names}
    return {
        "command": "iriai-sandbox demo",
        "seed": 0,
        "parties": names,
        "cells": cells,
        "success": success_table(dict.fromkeys(("local", "common", "individual"), rates), cells),
        "privacy": privacy_claim(recipe, contract, spent, fewest=4),
        "sums": sums_claim(contract, {"opened": 379, "redone": 377}, {"fewest": 4, "most": 4}),
        "contract_digest": contract.digest,
        "contract_words": [list(one) for one in plain_words(contract)],
        "log": {
            "origin": "o",
            "size": 7,
            "root": "r",
            "summary": "s",
            "verified": True,
            "not_checked": [],
            "page": "audit.en.html",
            "witnesses": {"k": 3, "n": 4, "contribution_to_quorum_ms": 120},
        },
        "timings": {"total": 1.0},
        "loop": {
            "party": "iber",
            "cell": "C",
            "attempts": 10,
            "successes": 9,
            "flags": ["ood"],
            "episodes_added": 8,
        },
        "round_ms": {},
        "phases": [["rounds", 0.0, 1.0]],
        "processes": {"broker": 1},
        "bytes_left_site": dict.fromkeys(names, 1),
        "messages_left_site": dict.fromkeys(names, 1),
    }


@pytest.mark.parametrize(("epsilon", "noise"), CASES)
def test_every_contract_of_the_sandbox_has_sums_that_open_with_one_maker_missing(
    epsilon: str | None, noise: Noise
) -> None:
    contract, recipe = agreed(epsilon, noise)
    clause = contract.aggregation
    assert (clause.secure_aggregation, clause.group_mac, clause.max_colluders) == ("required", "on", 0)
    terms = agreed_terms(contract, recipe.canonical, run="run_1")
    assert terms.norm_max == UPDATE_NORM_MAX
    assert (terms.n, terms.t, terms.k_open, terms.least_online) == (4, 3, 3, 3)
    terms.check_open(terms.parties[1:])


def test_shares_are_the_default_and_their_contract_fulfils_their_conditions() -> None:
    contract, recipe = agreed("8", NOISE)
    assert (contract.privacy.noise, contract.privacy.honest_min) == ("shares", 3)
    assert recipe.plan is not None
    assert recipe.plan.steps == 400
    check_conditions(recipe.plan, groups=4, max_colluders=0, secure_aggregation=True)
    full, _ = agreed("8", "local-full")
    assert (full.privacy.noise, full.privacy.honest_min) == ("local-full", None)
    none, _ = agreed(None, "shares")
    assert (none.privacy.mode, none.privacy.noise) == ("none", None)


def test_with_shares_the_claim_names_its_condition_and_the_figure_without_it() -> None:
    claim = report("8", "shares")["privacy"]
    rows = [float(one) for one in claim["epsilon_by_colluders"]]
    assert len(rows) == 3  # the smallest sum is over three
    assert rows[0] <= 8 < rows[1] < rows[2]
    assert f"{claim['epsilon_by_colluders'][2]}" in rests_on(claim)
    assert "3 honest makers in each sum" in rests_on(claim)
    assert f"with one of them on the broker's side epsilon {rows[1]:g}" in rests_on(claim)
    opened = [float(one) for one in claim["epsilon_by_colluders_opened"]]
    assert len(opened) == 4  # nobody was missing
    assert opened[0] < rows[0]
    assert opened[1:] == rows
    full = report("8", "local-full")["privacy"]
    assert (full["epsilon_by_colluders"], rests_on(full)) == (None, "")


@pytest.mark.parametrize(("epsilon", "noise"), CASES)
def test_table_and_page_say_what_was_used(epsilon: str | None, noise: Noise, tmp_path: Path) -> None:
    found = report(epsilon, noise)
    lines = list(summary(found))
    assert "loop       9 of 10 attempts of iber's model in its cell succeeded; 8 came back as data" in lines
    assert "sums       379 opened by secure aggregation, each over 4 makers, and no maker's update" in lines
    assert "           377 of them redone by the auditor from the masked vectors" in lines
    private = [line for line in lines if line.startswith("privacy")]
    assert private == [
        "privacy    NOT PRIVATE"
        if epsilon is None
        else f"privacy    epsilon {found['privacy']['epsilon']}, delta {DELTA}, per episode; noise {noise}"
    ]
    assert ("honest makers" in "\n".join(lines)) == (epsilon is not None and noise == "shares")
    as_json, as_html = write_report(found, tmp_path)
    assert json.loads(as_json.read_text("utf-8"))["sums"]["opened"] == 379
    page = as_html.read_text("utf-8")
    assert "Over 379 rounds the broker opened the sum" in page
    assert "The auditor redid 377 of these sums" in page
    assert "Each sum is over 4 makers." in page
    assert "masked vectors: to whoever lacks the masks, uniform noise" in page
    assert ("Whether any one episode of a maker was there" in page) == (epsilon is not None)
    assert ("Budget spent is" in page) == (epsilon is not None)
    shared = epsilon is not None and noise == "shares"
    assert ("share of the noise" in page) == shared
    assert ("in the smallest sum that was opened (4 makers)" in page) == shared
    assert (
        "in the smallest sum that the contract lets open (3 makers, had others been absent)" in page
    ) == shared
    assert ("NOT PRIVATE" in page) == (epsilon is None)
