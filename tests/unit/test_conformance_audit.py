# SPDX-License-Identifier: Apache-2.0
"""The conformance audit passes what is right, says so in a report that others can check, and is kept."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client import audits
from client.audits import in_child, keep, kept, mix_sentences, told
from client.audits.conforming import Conformance
from client.learning.canary_gradients import Port, Ported, Tap, canaries, others
from client.learning.conformance import Parts, Size, audit
from client.learning.engines import LoopEngine, OpacusHooksEngine, PackedEngine, UnitFrames, frame_loss
from client.learning.noise import SeededNoise
from client.learning.property_audit import Shadows, frame_count_skill, mix_skills, two_kinds
from client.learning.property_audit import audit_mix as mix_report
from client.learning.registry import build, flatten
from client.settings import Home
from policies.encoding import canonical
from policies.privacy.conformance import (
    CHECKS,
    ConformanceReport,
    check_report,
    figure,
    mu_expected,
    sentences,
)
from policies.privacy.errors import (
    AuditFailedError,
    EvalUnplannedError,
    PlanIncompleteError,
    RngRefusedError,
)
from policies.privacy.plan import DpPlan
from policies.privacy.property_skill import PropertyReport
from tests.auditparts import PLANS, PLANTED, audited
from tests.learnsim import SeededEntropy, StillClock, small_plain, small_recipe

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app


@pytest.fixture(scope="module")
def report() -> ConformanceReport:
    return audited({})


def _units(frames) -> list[UnitFrames]:
    return [UnitFrames(*map(torch.from_numpy, (one.inputs, one.targets, one.mask))) for one in frames]


# --- canaries ---


@pytest.mark.parametrize("kind", [LoopEngine, OpacusHooksEngine, PackedEngine])
def test_each_canary_is_one_direction_of_one_clip_norm_in_each_engine(kind):
    recipe, clip = small_recipe(), 0.1
    port = Port.of(inputs=recipe.input_size, outputs=4, directions=11)
    engine = kind(Ported(build(recipe), port), frame_loss)
    rows = np.stack(
        [flatten(engine([one], clip)) for one in _units(canaries(port, count=11, clip=clip, frames=4))]
    )
    assert rows @ rows.T == pytest.approx(clip**2 * np.eye(11), abs=clip**2 * 1e-3)
    assert np.abs(rows[:, : -port.size]).max() == 0
    assert (rows[:, -port.size :].argmax(1) == np.arange(11)).all()


def test_other_units_leave_the_port_alone_and_are_not_counted_as_canaries():
    recipe = small_recipe()
    port = Port.of(inputs=recipe.input_size, outputs=4, directions=11)
    tap = Tap(PackedEngine(Ported(build(recipe), port), frame_loss))
    units = _units(others(port, count=6, frames=4, rng=np.random.default_rng(0)))
    total = flatten(tap(units, 0.1))
    assert np.abs(total[-port.size :]).max() == 0 < np.abs(total[: -port.size]).max()
    assert list(tap.take(3)) == [0, 0, 0]
    tap(_units(canaries(port, count=5, clip=0.1, frames=4)), 0.2)
    assert list(tap.take(6)) == [1, 1, 1, 1, 1, 0]
    assert list(tap.take(2)) == [0, 0]
    assert (tap.longest, tap.clip) == (8, 0.2)


# --- right plans ---


@pytest.mark.parametrize("name", PLANS)
def test_ten_right_plans_pass(name: str):
    found = audited(PLANS[name])
    assert found.failures == ()
    assert float(found.figures["mu"]) == pytest.approx(float(found.figures["mu_expected"]), rel=0.25)
    assert float(found.figures["epsilon_sure"]) <= float(found.figures["epsilon_low"])


@pytest.mark.slow
def test_a_right_plan_passes_at_fifty_seeds_of_fifty():
    plan = PLANS["shares"] | {"frames_per_unit": 2}
    assert [one.failures for one in (audited(plan, seed=seed) for seed in range(50))] == [()] * 50


def test_a_claim_that_is_exact_is_not_refuted_by_luck():
    plan = PLANS["everybody"] | {"frames_per_unit": 1, "noise_multiplier": "3", "steps": 8}
    found = [audited(plan, seed=seed) for seed in range(12)]
    assert all(one.passed for one in found)
    claim = float(found[0].figures["epsilon_pld"])
    assert any(float(one.figures["epsilon_low"]) > 0.95 * claim for one in found)


def test_expected_figures_follow_from_the_plan(report):
    plan = small_recipe().plan.document
    assert mu_expected(plan) == pytest.approx(0.2 * math.sqrt(200) / float(plan["noise_multiplier"]))
    assert report.figures["mu_expected"] == figure(mu_expected(plan))
    assert float(report.figures["noise_std"]) == pytest.approx(small_recipe().plan.noise_std, rel=0.05)


def test_a_plan_of_shares_is_audited_for_the_share_and_claims_the_sum():
    found = audited(PLANS["shares"])
    planned = float(found.figures["noise_std_planned"])
    assert planned == pytest.approx(3.3 * 0.1 / math.sqrt(3), rel=1e-4)
    assert float(found.figures["mu_expected"]) == pytest.approx(0.2 * math.sqrt(600) / 3.3, rel=1e-4)


def test_seeded_noise_cannot_be_audited_under_a_real_plan():
    seeded = Parts(noise=lambda _entropy: SeededNoise(3))
    with pytest.raises(RngRefusedError):
        audited({}, seeded)
    assert audited({"test_only": True}, seeded).generator == "seeded"


def test_a_recipe_without_plan_has_nothing_to_audit():
    with pytest.raises(EvalUnplannedError):
        audit(small_plain(), entropy=SeededEntropy(), clock=StillClock())


@pytest.mark.parametrize("parameters", [8, 268, 1180, 100_000, 2_000_000])
@pytest.mark.parametrize("name", PLANS)
def test_an_audit_is_large_enough_to_know_mu_and_bounded(name: str, parameters: int):
    plan = DpPlan.load(small_recipe().plan.document | PLANS[name])
    size, q = Size.of(plan, parameters), float(plan.sampling_prob)
    assert 1 <= size.directions <= max(1, parameters // 4)
    assert size.canaries <= 1000
    assert 120 <= size.steps <= 2000
    seen = size.directions * (size.copies * q * (1 - q) + (size.copies * q) ** 2) * size.steps
    error = plan.added_std / float(plan.clip_norm) / math.sqrt(seen)
    assert error < 0.046 or size.steps == 2000


# --- the report ---


def test_a_report_reads_back_and_is_evidence_about_its_plan(report):
    again = ConformanceReport.load(json.loads(json.dumps(report.document)))
    assert again == report
    assert again.digest == report.digest
    check_report(again, small_recipe().plan.document)
    assert canonical(report.document)


def test_a_report_about_another_plan_or_of_a_failure_is_no_evidence(report):
    plan = small_recipe().plan.document
    with pytest.raises(AuditFailedError):
        check_report(report, plan | {"noise_multiplier": "3"})
    figures = dict(report.figures) | {"mu_expected": "1"}
    with pytest.raises(AuditFailedError):
        check_report(ConformanceReport.load(report.document | {"figures": figures}), plan)
    parts, changes, _ = PLANTED["no noise"]
    failed = audited(changes, parts)
    assert ConformanceReport.load(failed.document) == failed
    with pytest.raises(AuditFailedError, match=r"steps: as many noisy steps as planned.* and 5 more"):
        check_report(failed, plan)


def _without_check(document):
    return {"checks": document["checks"][1:]}


def _passed_over(document):
    rows = [{**document["checks"][0], "passed": False}, *document["checks"][1:]]
    return {"checks": rows}


def _other_figure(document):
    return {"figures": document["figures"] | {"mu": "1.50"}}


@pytest.mark.parametrize(
    "change",
    [
        _without_check,
        _passed_over,
        _other_figure,
        lambda d: {"figures": {}},
        lambda d: {"figures": d["figures"] | {"extra": "1"}},
        lambda d: {"verdict": "failed"},
        lambda d: {"canaries": -1},
        lambda d: {"canaries": True},
        lambda d: {"seconds": "fast"},
        lambda d: {"schema": "iriai-conformance/2"},
        lambda d: {"checks": [{**one, "passed": 1} for one in d["checks"]]},
        lambda d: {"unknown": 1},
    ],
)
def test_a_changed_report_is_refused(report, change):
    with pytest.raises(PlanIncompleteError):
        ConformanceReport.load(report.document | change(report.document))


@pytest.mark.parametrize("value", [None, [], "report", 3, {}])
def test_what_is_no_report_is_refused(value):
    with pytest.raises(PlanIncompleteError):
        ConformanceReport.load(value)


def test_the_report_says_each_claim_with_its_figure(report):
    text = "\n".join(sentences(report))
    assert all(words in text for words in CHECKS.values())
    assert report.figures["epsilon_pld"] in text
    assert text.splitlines()[-1].startswith("verdict     passed")


def test_a_failed_report_says_what_failed():
    parts, changes, _ = PLANTED["sigma halved"]
    text = "\n".join(sentences(audited(changes, parts)))
    assert "FAILED      the noise has the plan's variance" in text
    assert "verdict     FAILED: noise-strength" in text


def test_figures_are_plain_decimals():
    assert [figure(one) for one in (0.0, 1.0, 123456789.0, 1e-7, math.inf, math.nan)] == [
        "0", "1", "123457000", "0.0000001", "999999999999", "999999999999",
    ]  # fmt: skip


# --- on a node ---


def test_a_report_is_kept_by_recipe_and_a_damaged_one_is_told(report, tmp_path):
    home, recipe = Home(tmp_path), small_recipe()
    assert kept(home, recipe) is None
    path = keep(home, report)
    assert path == home.audits / f"{recipe.digest.removeprefix('sha256:')}.json"
    assert kept(home, recipe) == report
    for damaged in (b"{", b"{}", canonical(report.document)[:-2]):
        path.write_bytes(damaged)
        with pytest.raises(PlanIncompleteError):
            kept(home, recipe)


def test_a_process_audits_a_recipe_once_before_it_trains(tmp_path):
    entropy = SeededEntropy()
    node = Conformance(Home(tmp_path), entropy=entropy, clock=StillClock())
    node.need(small_recipe())
    drawn = entropy.drawn
    assert drawn > 0
    node.need(small_recipe())
    assert entropy.drawn == drawn
    assert kept(Home(tmp_path), small_recipe()).passed


def test_nothing_is_audited_where_nothing_is_claimed(tmp_path):
    entropy = SeededEntropy()
    node = Conformance(Home(tmp_path), entropy=entropy, clock=StillClock())
    node.need(small_plain())
    node.need(small_recipe(test_only=True))
    assert node.prepare(small_plain()) is None
    assert entropy.drawn == 0


def test_a_failed_audit_is_a_refusal_that_carries_its_report(report, tmp_path):
    assert told(report, tmp_path / "a.json").error is None
    failed = replace(report, checks=(replace(report.checks[0], passed=False), *report.checks[1:]))
    answer = told(failed, tmp_path / "a.json")
    assert answer.error is not None
    assert (answer.error.code, answer.error.exit_code) == ("privacy.audit-failed", 3)
    assert answer.data["report"]["verdict"] == "failed"
    assert any(line.startswith("FAILED") for line in answer.text)


@pytest.mark.parametrize(
    ("update", "summed", "strata", "words"),
    [
        ("0.3", "0.1", "20", "Equal weight per stratum (strata_target 20) hides it"),
        ("0.3", "0.1", None, "nothing claims that it stays so"),
        ("0.8", "0.1", None, "strata_target in the plan gives each stratum equal weight"),
        ("0.8", "0.1", None, "the sum gives little away"),
        ("0.8", "0.7", None, "gives it away too"),
        ("0.8", "0.7", "20", "although strata_target is 20"),
    ],
)
def test_what_is_said_of_a_mix_follows_from_the_skills_and_the_strata(update, summed, strata, words):
    skills = {
        view: {"value": high, "low": "0", "high": high}
        for view, high in (("update", update), ("sum", summed))
    }
    found = PropertyReport(
        recipe="sha256:" + "a" * 64, plan="sha256:" + "b" * 64, about="mix", units=40, silos=5, steps=2,
        shadows=30, skills=skills, seconds="1",
    )  # fmt: skip
    text = " ".join(mix_sentences(found, strata_target=strata))
    assert words in text
    assert ("Equal weight per stratum" in text) == (strata is not None and update == "0.3")


def test_without_a_node_the_report_is_shown_and_nothing_is_written(report, tmp_path, monkeypatch):
    recipe, folder = tmp_path / "recipe.json", tmp_path / "none"
    recipe.write_bytes(small_recipe().canonical)
    monkeypatch.setattr(audits, "in_child", lambda *_args: report.document)
    command = ["privacy", "audit", "--recipe", str(recipe), "--dir", str(folder), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    told_of = json.loads(done.stdout)["data"]
    assert (told_of["file"], told_of["digest"]) == (None, report.digest)
    assert "not kept: no node in the folder" in done.stderr
    assert not folder.exists()
    assert CliRunner().invoke(app, ["init", "--dir", str(folder)]).exit_code == 0
    kept_in = json.loads(CliRunner().invoke(app, command).stdout)["data"]["file"]
    assert Path(kept_in).parent == Home(folder).audits
    assert Path(kept_in).exists()


@pytest.mark.slow
def test_the_command_audits_in_a_process_of_its_own_and_keeps_the_report(tmp_path):
    home = Home(tmp_path / "node")
    assert CliRunner().invoke(app, ["init", "--dir", str(home.root)]).exit_code == 0
    recipe = small_recipe()
    path = tmp_path / "recipe.json"
    path.write_bytes(recipe.canonical)
    done = CliRunner().invoke(
        app, ["privacy", "audit", "--recipe", str(path), "--dir", str(home.root), "--json"]
    )
    assert done.exit_code == 0
    told = json.loads(done.stdout)["data"]
    assert told["report"]["verdict"] == "passed"
    assert kept(home, recipe).document == told["report"]


def test_the_command_tells_what_it_cannot_audit(tmp_path):
    home = Home(tmp_path / "node")
    CliRunner().invoke(app, ["init", "--dir", str(home.root)])
    for name, data, code in (
        ("gone.json", None, 3),
        ("plain.json", small_plain().canonical, 3),
        ("none.json", b"{}", None),
    ):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        done = CliRunner().invoke(
            app, ["privacy", "audit", "--recipe", str(path), "--dir", str(home.root), "--json"]
        )
        assert json.loads(done.stdout)["status"] == "error"
        assert done.exit_code == code or code is None


def test_a_process_that_ends_without_a_report_is_a_failed_audit(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))
    with pytest.raises(AuditFailedError, match="without one"):
        in_child(Home(tmp_path), small_recipe(), "conformance")
    assert not Home(tmp_path).audits.exists()


# --- what unit-level privacy does not hide ---


def test_one_update_gives_the_mix_away_and_a_sum_of_five_does_not():
    recipe, rng = small_recipe(normalizer="80", noise_multiplier="2.0134"), np.random.default_rng(0)
    skills = mix_skills(
        recipe, two_kinds(recipe, rng), entropy=SeededEntropy(1), rng=rng, shadows=Shadows(steps=2)
    )
    assert skills["update"].low > 0.6
    assert skills["sum"].high < 0.25


def test_equal_weight_per_stratum_hides_most_of_the_mix():
    # 400 units; 20 of each kind per step, whatever the mix
    plan = {"normalizer": "40", "sampling_prob": "0.5", "strata_target": "20"}
    recipe, rng = small_recipe(**plan), np.random.default_rng(0)
    skills = mix_skills(
        recipe, two_kinds(recipe, rng), entropy=SeededEntropy(1), rng=rng, shadows=Shadows(steps=2)
    )
    assert skills["update"].high < 0.35


def test_without_a_bound_on_frames_their_count_tells_the_cycle_time_and_with_it_not():
    rng = np.random.default_rng(0)
    cycles = rng.uniform(60, 200, 300)
    assert frame_count_skill(cycles=cycles, units=50, frames_per_unit=None, rng=rng).low > 0.9
    assert frame_count_skill(cycles=cycles, units=50, frames_per_unit=32, rng=rng).high < 0.1


def test_the_property_report_names_recipe_and_plan(tmp_path):
    recipe = small_recipe()
    found = mix_report(
        recipe, entropy=SeededEntropy(), clock=StillClock(), shadows=Shadows(count=30, units=40, steps=1)
    )
    assert (found.recipe, found.plan, found.about) == (recipe.digest, recipe.plan.digest, "mix")
    assert set(found.skills) == {"update", "sum"}
    with pytest.raises(PlanIncompleteError):
        mix_report(small_plain(), entropy=SeededEntropy(), clock=StillClock())
