# SPDX-License-Identifier: Apache-2.0
"""Reports of audits are files: what is signed of them is about this recipe, this software, and was not edited."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from client.audits import keep, kept, kept_mix
from client.audits.conforming import Conformance
from client.audits.figures import AuditShelf
from client.learning.canary_gradients import crowd
from client.settings import Home
from client.software import software
from policies.encoding import canonical, is_digest
from policies.privacy.conformance import ConformanceReport, check_report
from policies.privacy.errors import AuditFailedError, PlanIncompleteError
from policies.privacy.property_skill import PropertyReport
from tests.auditparts import PLANTED, audited
from tests.learnsim import SeededEntropy, StillClock, small_plain, small_recipe

NONE = "sha256:" + "0" * 64
ODD_FILES = [b"[" * 200_000, b"[" * 20_000, b" " * 70_000, b"\xff", b"1.5", b'{"a":1,"a":2}', b"null"]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def mix_found() -> PropertyReport:
    row = {"value": "0.3", "low": "0", "high": "0.5"}
    about = {"recipe": "sha256:" + "a" * 64, "plan": "sha256:" + "b" * 64, "about": "mix", "seconds": "1"}
    counts = {"units": 40, "silos": 5, "steps": 2, "shadows": 30}
    return PropertyReport(**about, **counts, skills={"update": row, "sum": row})


@pytest.fixture(scope="module")
def report() -> ConformanceReport:
    return audited({})


@pytest.fixture(scope="module")
def wrong() -> ConformanceReport:
    return audited({}, PLANTED["no noise"][0])


def changed(report: ConformanceReport, **figures: str) -> dict[str, Any]:
    return report.document | {"figures": report.document["figures"] | figures}


def seat(recipe) -> Any:
    contract = SimpleNamespace(
        aggregation=SimpleNamespace(secure_aggregation="off"),
        release=SimpleNamespace(max_property_skill=None),
    )
    return SimpleNamespace(recipe=recipe, held=SimpleNamespace(contract=contract))


# --- documents ---

ODD = [None, [], "report", 3, {}, 2.5, nested(13), nested(100_000), {"figures": nested(100_000)}, {1: 2}]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("kind", [ConformanceReport, PropertyReport])
def test_what_is_no_report_is_refused_however_deep(kind, value):
    with pytest.raises(PlanIncompleteError):
        kind.load(value)


@pytest.mark.parametrize("odd", [nested(100_000), nested(11), {"a": {}}, 1.5, None], ids=range(5))
def test_an_odd_value_anywhere_in_a_report_is_refused(report, odd):
    for kind, whole in ((ConformanceReport, report.document), (PropertyReport, mix_found().document)):
        assert kind.load(whole).document == whole
        for name in whole:
            with pytest.raises(PlanIncompleteError):
                kind.load(whole | {name: odd})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("remove_one", "1.2"),
        ("noise_chance", "0"),
        ("shape_chance", "0"),
        ("fresh_chance", "0"),
        ("epsilon_sure", "99"),
        ("weight", "0"),
    ],
)
def test_a_check_that_passed_against_its_own_figure_is_refused(report, name, text):
    with pytest.raises(PlanIncompleteError):
        ConformanceReport.load(changed(report, **{name: text}))


def test_a_report_about_another_recipe_is_no_evidence(report):
    plan = small_recipe().plan.document
    check_report(report, plan, recipe=small_recipe().digest)
    with pytest.raises(AuditFailedError, match="recipe"):
        check_report(report, plan, recipe=NONE)


# --- files ---


def test_a_file_that_is_no_report_is_told_with_the_command_that_makes_one(report, tmp_path):
    path = keep(Home(tmp_path), report)
    for data in ODD_FILES:
        path.write_bytes(data)
        with pytest.raises(PlanIncompleteError) as refused:
            kept(Home(tmp_path), small_recipe())
        assert "iriai-node privacy audit" in refused.value.remedy


def test_a_file_that_is_no_audit_of_a_mix_is_told(tmp_path):
    home, found = Home(tmp_path), mix_found()
    path = home.audits / f"{found.recipe.removeprefix('sha256:')}.mix.json"
    path.parent.mkdir()
    path.write_bytes(canonical(found.document))
    assert kept_mix(home, found.recipe) == found
    for data in ODD_FILES:
        path.write_bytes(data)
        with pytest.raises(PlanIncompleteError) as refused:
            kept_mix(home, found.recipe)
        assert "--mix" in refused.value.remedy
    path.write_bytes(canonical(replace(found, recipe=NONE).document))
    with pytest.raises(AuditFailedError):
        kept_mix(home, found.recipe)


def test_a_report_by_other_software_says_nothing_and_one_about_something_else_is_refused(report, tmp_path):
    home, recipe = Home(tmp_path), small_recipe()
    keep(home, replace(report, software=NONE))
    assert kept(home, recipe) is None
    path = keep(home, report)
    assert kept(home, recipe) == report
    for foreign in (replace(report, recipe=NONE), replace(report, plan=NONE)):
        path.write_bytes(canonical(foreign.document))
        with pytest.raises(AuditFailedError):
            kept(home, recipe)


def test_the_software_is_one_digest_of_sources_and_packages(report):
    assert is_digest(software())
    assert report.software == software()


# --- what is signed ---


def test_what_this_process_found_is_told_and_not_what_a_file_says(report, wrong, tmp_path):
    home, recipe = Home(tmp_path), small_recipe()
    keep(home, report)
    assert AuditShelf(home).figures(seat(recipe))["conformance"]["verdict"] == "pass"
    own = Conformance(home, entropy=SeededEntropy(), clock=StillClock(), audit=lambda _: wrong)
    shelf = AuditShelf(home, own=own.made)
    assert shelf.figures(seat(recipe))["conformance"]["report"] == report.digest
    own.prepare(recipe)
    keep(home, report)  # the file says that it passed
    told = shelf.figures(seat(recipe))["conformance"]
    assert (told["verdict"], told["report"]) == ("fail", wrong.digest)
    assert shelf.figures(seat(small_plain())) is None


def test_an_edited_or_foreign_report_is_refused_before_it_is_signed(report, tmp_path):
    home, recipe = Home(tmp_path), small_recipe()
    path = keep(home, report)
    for name, text in (("mu_expected", "1"), ("epsilon_sure", "99"), ("noise_chance", "0")):
        path.write_bytes(canonical(changed(report, **{name: text})))
        with pytest.raises((PlanIncompleteError, AuditFailedError)):
            AuditShelf(home).figures(seat(recipe))
    with pytest.raises(AuditFailedError):
        AuditShelf(home, own=lambda _: replace(report, plan=NONE)).figures(seat(recipe))
    keep(home, replace(report, software=NONE))
    assert AuditShelf(home, own=lambda _: None).figures(seat(recipe)) is None


# --- units that are only drawn ---


def test_a_crowd_has_strata_of_many_sizes_and_one_beyond_the_target():
    plain, capped = crowd(sampling_prob=0.2, strata_target=None), crowd(sampling_prob=0.2, strata_target=8.0)
    assert set(plain.sizes.tolist()) == {1, 2, 3, 5, 10, 20, 50}
    assert (plain.q == 0.2).all()
    assert capped.sizes.max() == 80
    assert {round(one, 6) for one in capped.q.tolist()} == {0.2, 0.16, 0.1}
    for one in (plain, capped):
        counted = Counter(unit.stratum for unit in one.units)
        assert [counted[unit.stratum] for unit in one.units] == one.sizes.tolist()
        assert len({unit.unit_id for unit in one.units}) == len(one.units)
    assert crowd(sampling_prob=0.001, strata_target=900.0).sizes.max() == 4_000
