# SPDX-License-Identifier: Apache-2.0
"""A node whose private training is wrong in one way: the conformance audit fails it, and it trains nothing."""

from __future__ import annotations

import pytest

from client.conforming import Conformance
from client.learning import conformance as conformance_module
from client.learning.conformance import Parts
from client.settings import Home
from policies.privacy.errors import AuditFailedError
from tests.auditparts import MORE, PLANTED, NoNoise, OwnSteps, audited
from tests.learnsim import SeededEntropy, StillClock, small_recipe


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


def test_a_node_with_wrong_noise_refuses_before_it_trains(tmp_path, monkeypatch):
    recipe = small_recipe()
    real = conformance_module.audit
    monkeypatch.setattr(
        conformance_module, "audit", lambda *a, **k: real(*a, **k, parts=Parts(noise=NoNoise))
    )
    node = Conformance(Home(tmp_path), entropy=SeededEntropy(), clock=StillClock())
    for _ in range(2):
        with pytest.raises(AuditFailedError) as refused:
            node.need(recipe)
    assert refused.value.code == "privacy.audit-failed"
    assert refused.value.exit_code == 3
