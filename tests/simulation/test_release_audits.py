# SPDX-License-Identifier: Apache-2.0
"""A contract that asks for a property report: each site's own audits, carried with its evaluation, at the gate."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from broker.store.tables import statement
from client.settings import write_durably
from policies.encoding import canonical, parse
from policies.log.entries import EntryType
from policies.privacy.property_skill import PropertyReport
from tests.federationsim import NAMES, Pool, running

EVIDENCE = ["federated-evaluation", "log-root", "privacy-statement", "property-leak-report"]
ASKED: dict[str, Any] = {"release.evidence": EVIDENCE, "release.max_property_skill": "0.25"}


def audited_mix(pool: Pool, name: str, skill: str) -> None:
    """The site made its audit of product mixes, which found this skill in single updates."""
    plan = pool.recipe.plan
    assert plan is not None
    row = {"value": skill, "low": "0", "high": "1"}
    report = PropertyReport(
        recipe=pool.recipe.digest,
        plan=plan.digest,
        about="mix",
        units=400,
        silos=5,
        steps=4,
        shadows=240,
        skills={"update": row, "sum": row | {"value": "0.01"}},
        seconds="3.5",
    )
    home = pool.nodes[name].home
    home.audits.mkdir(mode=0o700, exist_ok=True)
    path = home.audits / f"{pool.recipe.digest.removeprefix('sha256:')}.mix.json"
    write_durably(path, canonical(report.document))


def report_of(pool: Pool) -> dict[str, Any]:
    named = pool.entries(EntryType.CANDIDATE_EVALUATED)[-1].pub["report"]
    with pool.services.store.read() as session:
        return parse(session.scalar(select(statement.c.bytes).where(statement.c.digest == named)))


def outcome(pool: Pool) -> tuple[str, str]:
    ((_, state),) = pool.candidates().items()
    (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED)
    return state, evaluated.pub["checks"]["property-leak-report"]


@pytest.mark.parametrize(("skill", "expected"), [("0.2", ("released", "pass")), ("0.3", ("refused", "fail"))])
def test_the_largest_skill_of_the_cohort_decides(skill: str, expected: tuple[str, str]):
    with running(**ASKED) as (pool, go):
        for name in NAMES:
            audited_mix(pool, name, skill if name == "nord" else "0.05")
        go(pool.run())
        assert outcome(pool) == expected
        told = {one["property"]["skill"] for one in report_of(pool)["audits"].values()}
        assert told == {skill, "0.05"}
        assert pool.audit().findings == []


def test_a_site_without_its_audit_trains_nothing_and_says_which_command_makes_it():
    with running(**ASKED) as (pool, go):
        for name in NAMES[:3]:
            audited_mix(pool, name, "0.05")
        run_id = go(pool.run())
        assert pool.nodes[NAMES[3]].learner.trained == []
        kept = [one.document for one in pool.nodes[NAMES[3]].worker.outbox.left.decisions(run=run_id)]
        (finding, *_) = next(one["local"] for one in kept if one.get("local"))
        assert "iriai-node privacy audit --mix" in finding["remedy"]
        assert outcome(pool) == ("released", "pass")  # the others are enough
        assert [one for one in pool.audit().findings if one.severity == "error"] == []
