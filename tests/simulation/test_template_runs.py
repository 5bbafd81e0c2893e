# SPDX-License-Identifier: Apache-2.0
"""A pool under the terms of a template, as it is handed out: rounds, the delay, the embargo, releases, the audit."""

from __future__ import annotations

from typing import Any

import pytest

from policies.contract.source import read_yaml
from policies.contract.templates import TEMPLATES, RecipeFacts, fill, read_parties
from policies.log.entries import EntryType
from tests.contractsim import authored
from tests.federationsim import ORIGIN, running

DAY_MS = 86_400_000
# Terms of the pool that the simulation itself makes: who takes part, which recipe, from when.
OWN = {"schema", "contract_id", "version", "supersedes", "title", "language", "sign_by", "term"}
OWN |= {"parties", "purposes", "recipes", "fields"}


def terms(name: str) -> dict[str, Any]:
    """The template's terms, about the simulation's one recipe."""
    template = TEMPLATES[name]
    rows = [{k: v for k, v in one.items() if k != "clause"} for one in authored()["parties"]]
    facts = RecipeFacts(
        digest="sha256:" + "1" * 64,
        fields=("tcp_pos",),
        rounds=10,
        local_steps=1,
        unit="episode",
        adjacency="zero-out",
        delta="0.00001",
        noise="local-full",
        epsilon="1",
    )
    answers = {
        "sign_by": "2026-11-30",
        "effective": "2026-12-01",
        "expires": "2028-12-01",
        "governing": "CH",
        "forum": "Zurich",
        "liability_cap_eur": 1,
        "log_origin": ORIGIN,
        "epsilon_per_release": "2",  # what the simulation's recipe spends
        "epsilon_total": "8",
        "min_parties": 3,
        "approvals": 3,
    }
    recipes = dict.fromkeys(template.slots, facts)
    filled = fill(
        template,
        contract_id="ctr_aaaaaaaaaaaaaaaa",
        answers=answers,
        parties=read_parties(rows),
        recipes=recipes,
    )
    tree: dict[str, Any] = read_yaml(filled.text)
    for tier in tree["tiers"]:
        tier["recipe"] = "pick"
    tree["audit"]["witness_quorum"] = 0  # this pool has no witnesses; test_witness_pool.py has
    return {key: value for key, value in tree.items() if key not in OWN}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anomaly", "open-research"])
def test_a_pool_under_a_template_trains_releases_and_audits(name):
    with running(**terms(name)) as (pool, go):
        assert pool.contract.aggregation.delay_hours == 24
        before = pool.clock.ms
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert len(pool.entries(EntryType.AGGREGATE_RELEASED)) == pool.recipe.rounds
        ((_, state),) = pool.candidates().items()
        assert state == "released"
        released = {one.pub["tier"] for one in pool.entries(EntryType.MODEL_RELEASED)}
        assert released == {one.tier for one in pool.contract.tiers}
        assert pool.clock.ms - before >= DAY_MS * max(one.embargo_days or 0 for one in pool.contract.tiers)
        pool.check_audit()
