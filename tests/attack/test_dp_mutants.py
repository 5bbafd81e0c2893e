# SPDX-License-Identifier: Apache-2.0
"""A node whose private training is wrong in one way: the conformance audit fails it, and it trains nothing."""

from __future__ import annotations

import pytest

from client.audits import kept
from client.audits.conforming import Conformance
from client.learning.conformance import Parts, audit
from client.settings import Home
from policies.privacy.conformance import ConformanceReport
from policies.privacy.errors import AuditFailedError
from tests.auditparts import MORE, PLANTED, NoNoise, OwnSteps, audited
from tests.learnsim import SeededEntropy, StillClock, small_recipe
from tests.nodeworld import ready_world


def _failures(report) -> list[str]:
    return [one.name for one in report.failures]


def test_the_variant_that_all_wrong_steps_are_made_from_is_right():
    assert _failures(audited({}, Parts(steps=OwnSteps))) == []


@pytest.mark.parametrize("bug", PLANTED)
def test_each_bug_of_the_design_fails_the_audit(bug: str):
    parts, plan, seen_by = PLANTED[bug]
    report = audited(plan, parts)
    assert not report.passed
    assert seen_by in _failures(report)


@pytest.mark.parametrize(
    "bug", ["no noise", "noise over root of batch", "frame-level clipping", "sigma halved"]
)
def test_a_bug_that_gives_more_away_refutes_the_claim(bug: str):
    parts, plan, _ = PLANTED[bug]
    report = audited(plan, parts)
    assert "epsilon-low" in _failures(report)
    assert float(report.figures["epsilon_low"]) > 1.5 * float(report.figures["epsilon_pld"])


@pytest.mark.parametrize("bug", MORE)
def test_other_ways_to_be_wrong_fail_the_audit_too(bug: str):
    parts, plan, seen_by = MORE[bug]
    assert seen_by in _failures(audited(plan, parts))


def test_what_shows_only_sometimes_is_found_at_every_seed():
    parts, plan, seen_by = PLANTED["noise once per round"]
    assert all(seen_by in _failures(audited(plan, parts, seed=seed)) for seed in range(5))


def _wrong_noise(recipe) -> ConformanceReport:
    return audit(recipe, entropy=SeededEntropy(), clock=StillClock(), parts=Parts(noise=NoNoise))


def test_a_process_with_wrong_noise_may_not_train(tmp_path):
    node = Conformance(Home(tmp_path), entropy=SeededEntropy(), clock=StillClock(), audit=_wrong_noise)
    for _ in range(2):
        with pytest.raises(AuditFailedError) as refused:
            node.need(small_recipe())
    assert refused.value.code == "privacy.audit-failed"
    assert refused.value.exit_code == 3


@pytest.mark.slow
def test_a_node_with_wrong_noise_trains_nothing_and_spends_nothing(tmp_path):
    world = ready_world(tmp_path)
    world.worker.close()
    world.learner = None  # the site's own
    learner = world.start().home_learner
    learner._conformance = Conformance(
        world.home, entropy=SeededEntropy(), clock=StillClock(), audit=_wrong_noise
    )
    assert world.worker.prepare() is False
    _, reply = world.ask(weights=learner.initial(world.recipe))
    assert (reply.status, reply.code) == ("refused", "privacy.audit-failed")
    assert list(world.worker.budgets.touches()) == []
    report = kept(world.home, world.recipe)
    assert report is not None
    assert not report.passed
