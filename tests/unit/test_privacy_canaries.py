# SPDX-License-Identifier: Apache-2.0
"""Canaries: everything follows from the seed, nothing else passes as a reveal, and the report says what it should."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from client.learning.canary_units import canary_units
from client.learning.tensors import action_constants
from client.learning.weights import initial_weights
from policies.canary_units import canary, canary_scores
from policies.encoding import canonical, digest
from policies.leak_report import leak_figures, leak_report
from policies.limits import CANARIES_MIN, CANARY_FRAMES
from policies.log.kinds import ID
from policies.privacy.canaries import CanarySecret, check_reveal, per_party, units_needed
from policies.privacy.errors import AuditFailedError
from policies.privacy.leakage import (
    CANARIES,
    CODE_FAILED,
    CODE_MISSING,
    MEMBERSHIP,
    PROPERTY,
    audits_hold,
    leak_checks,
    leak_facts,
    verdicts,
)
from policies.privacy.receipts import MadeWith, check_receipt
from tests.learnsim import small_plain, small_recipe

RUN = "run_aaaaaaaaaaaaaaaa"
HEAD = "sha256:" + "a" * 64


def secret(name: str = "kita", *, count: int = 22) -> CanarySecret:
    seed, salt = hashlib.sha256(name.encode()).digest(), hashlib.sha256(f"salt {name}".encode()).digest()
    return CanarySecret(run=RUN, seed=seed, salt=salt[:16], count=count)


# --- the seed ---


def test_canaries_are_asked_for_by_either_report_and_hold_the_least_number_over_the_smallest_cohort():
    assert per_party(["federated-evaluation", "log-root"], 3) == 0
    for evidence in (["canary-report"], ["membership-inference-report"]):
        for parties in (2, 3, 4, 7, 64, 100):
            assert per_party(evidence, parties) * parties >= CANARIES_MIN
    assert (per_party(["canary-report"], 3), per_party(["canary-report"], 100)) == (22, 1)
    assert units_needed(22) == 1_100


def test_the_stream_is_hkdf_of_the_standard_library_and_of_another_implementation():
    info = b"iriai-canary/1\x00content 3\x000"
    other = HKDFExpand(algorithm=SHA256(), length=500, info=info).derive(secret().seed)
    assert secret().stream(3, 500) == other


def test_a_stream_longer_than_one_expansion_goes_on_and_begins_with_the_shorter_one():
    long = secret().stream(0, 20_000)
    assert long[:8160] == secret().stream(0, 8_160)
    assert len({long[i : i + 32] for i in range(0, 19_968, 32)}) == 624


def test_coins_are_fair_and_no_two_canaries_share_unit_or_content():
    many = secret(count=4_000)
    ones = many.flips.count("1")
    assert abs(ones - 2_000) < 5.2 * np.sqrt(1_000)  # one false alarm in ten million
    assert len({many.unit_id(n) for n in range(200)} | {many.stream(n, 32) for n in range(200)}) == 400
    assert many.flips[:22] == secret().flips  # fewer canaries are the first of them


def test_the_id_of_an_audit_is_one_of_the_log():
    assert ID.holds(secret().audit)


# --- the reveal ---


def body(**changes: Any) -> dict[str, Any]:
    return secret().revealed | changes


ALTERED: dict[str, dict[str, Any]] = {
    "another seed": {name: secret("nord").revealed[name] for name in ("seed", "canary_seed", "flips")},
    "a seed beside the digest of another": {"seed": digest(b"x")},
    "one coin": {"flips": ("0" if secret().flips[0] == "1" else "1") + secret().flips[1:]},
    "one coin less": {"flips": secret().flips[:-1]},
    "one coin more": {"flips": secret(count=23).flips},
    "no coins at all": {"flips": None},
    "another salt": {"canary_seed": f"{secret().seed.hex()}.{'00' * 16}"},
    "no salt": {"canary_seed": secret().seed.hex()},
    "no hex": {"canary_seed": "zz.zz"},
    "another audit": {"audit": secret("nord").audit},
}


@pytest.mark.parametrize("name", ALTERED)
def test_another_reveal_than_the_committed_one_is_refused(name: str):
    with pytest.raises(AuditFailedError) as refused:
        check_reveal(run=RUN, body=body(**ALTERED[name]), commitment=secret().commitment, count=22)
    assert refused.value.code == "privacy.audit-failed"
    assert refused.value.need


def test_the_committed_one_is_taken_in_its_own_run_only():
    commitment = secret().commitment
    assert check_reveal(run=RUN, body=body(), commitment=commitment, count=22) == secret()
    other = "run_bbbbbbbbbbbbbbbb"
    assert replace(secret(), run=other).commitment != commitment
    with pytest.raises(AuditFailedError):
        check_reveal(run=other, body=body(), commitment=commitment, count=22)


# --- content ---


def test_a_canary_stands_still_within_the_recipes_public_intervals_and_limits():
    recipe = small_recipe()
    rows = [canary(recipe, secret(count=200), number) for number in range(200)]
    inputs, targets = np.stack([one for one, _ in rows]), np.stack([one for _, one in rows])
    assert inputs.shape[1:] == (CANARY_FRAMES, recipe.input_size)
    assert (inputs == inputs[:, :1]).all()
    assert (targets == targets[:, :1]).all()
    assert np.abs(inputs).max() <= float(recipe.clip)
    _, scale, limit = action_constants(recipe)
    assert (np.abs(targets[:, 0]) <= np.tile(limit / scale, recipe.architecture.args.chunk) + 1e-6).all()
    assert np.abs(inputs[:, 0].mean(axis=0)).max() < 0.7  # spread over the interval, not in a corner
    assert len(np.unique(inputs[:, 0], axis=0)) == 200


def test_the_units_that_are_trained_on_are_those_whose_coin_shows_one():
    recipe, mine = small_recipe(), secret()
    units = canary_units(recipe, mine)
    assert len(units) == mine.flips.count("1")
    assert {one.unit_id for one in units} == {mine.unit_id(number) for number in mine.trained}
    assert canary_units(recipe, None) == []


def test_scores_are_the_same_bytes_again_and_rise_for_what_a_model_knows():
    recipe, mine = small_plain(width=32), secret(count=64)
    weights = initial_weights(recipe)
    first = canary_scores(recipe, weights, mine)
    assert first == canary_scores(recipe, weights.copy(), mine)
    assert all(abs(float(one)) < 0.5 for one in first)  # the first model answers with next to nothing
    knows = learned(recipe, mine)
    scores = np.array([float(one) for one in canary_scores(recipe, knows, mine)])
    included = np.array([one == "1" for one in mine.flips])
    assert scores[included].mean() > scores[~included].mean() + 0.3


def learned(recipe: Any, mine: CanarySecret) -> np.ndarray:
    """Weights whose head was fitted to the canaries that were trained on."""
    weights = initial_weights(recipe).copy()
    width, size = recipe.architecture.args.width, recipe.input_size
    stem = weights[: width * size].reshape(width, size)
    start = width * size + width
    trunk = weights[start : start + width * width].reshape(width, width)
    units = canary_units(recipe, mine)
    inputs = np.stack([one.inputs[0] for one in units]).astype(np.float64)
    targets = np.stack([one.targets[0] for one in units]).astype(np.float64)
    hidden = np.tanh(np.tanh(inputs @ stem.T) @ trunk.T)
    head = np.linalg.lstsq(hidden, targets, rcond=None)[0].T
    start += width * width + width
    weights[start : start + head.size] = head.ravel()
    return weights


# --- the report ---


def report(recipe: Any = None, *, parties: int = 3, missing: tuple[str, ...] = (), **changes: Any) -> Any:
    recipe = recipe or small_recipe()
    named: dict[str, Any] = {
        "candidate": HEAD,
        "recipe": recipe,
        "weights": initial_weights(recipe),
        "reveals": {f"{number:016x}": secret(f"party {number}") for number in range(parties)},
        "missing": missing,
        "auc_max": "0.65",
    }
    return leak_report(**(named | changes))


def test_a_model_that_knows_no_canary_passes_and_the_contract_is_told_the_lower_bound():
    found = report()
    assert found["passed"] == {CANARIES: True, MEMBERSHIP: True}
    assert (found["code"], found["canaries"]) == (None, 66)
    facts = leak_facts({"leaks": found}, fields=["tcp_pos"], secrets=["weld_current_norm"])
    assert facts.mia_auc == found["auc"]["low"]
    assert float(found["auc"]["low"]) < float(found["auc"]["value"])
    assert facts.canaries_fired == ()
    assert canonical(found) == canonical(report())
    assert "never a proof" in found["says"]


def test_a_model_that_learned_its_canaries_by_heart_fails_and_every_field_has_fired():
    recipe, mine = small_plain(width=64), secret(count=66)
    found = report(recipe, weights=learned(recipe, mine), reveals={"0" * 16: mine})
    assert found["passed"] == {CANARIES: False, MEMBERSHIP: False}
    assert found["code"] == CODE_FAILED
    assert float(found["auc"]["low"]) > 0.65
    facts = leak_facts({"leaks": found}, fields=["tcp_pos"], secrets=["weld_current_norm"])
    assert facts.canaries_fired == ("tcp_pos", "weld_current_norm")
    assert float(facts.mia_auc or 0) > 0.65


@pytest.mark.parametrize(
    "changes",
    [{"missing": ("f" * 16,)}, {"parties": 2}, {"parties": 0}],
    ids=["a reveal is missing", "too few", "none"],
)
def test_what_is_missing_is_named_and_nothing_is_known_then(changes: dict[str, Any]):
    found = report(**changes)
    assert (found["code"], set(found["passed"].values())) == (CODE_MISSING, {False})
    facts = leak_facts({"leaks": found}, fields=["tcp_pos"], secrets=[])
    assert (facts.mia_auc, facts.canaries_fired) == (None, None)
    assert set(leak_checks({"leaks": found}, [CANARIES, MEMBERSHIP]).values()) == {"fail"}


def test_an_epsilon_that_one_run_refutes_fails_the_canaries_alone():
    found = report()
    forged = found | {"epsilon_low": "9.000000", "claim": "8.000000"}
    assert verdicts(forged, auc_max="0.65")["passed"] == {CANARIES: False, MEMBERSHIP: True}
    assert verdicts(forged | {"claim": None}, auc_max="0.65")["passed"][CANARIES]


def test_figures_come_from_the_scores_as_they_are_written():
    scores = ["0.900000", "0.800000", "0.100000", "0.000000"]
    figures = leak_figures(scores, "1100", delta=0.0)
    assert figures is not None
    assert (figures.auc["value"], figures.tpr_at_fpr) == ("1.000000", "1.000000")
    assert leak_figures(scores, "1110", delta=0.0) is None


def test_a_contract_without_leak_reports_is_told_nothing():
    facts = leak_facts({}, fields=["tcp_pos"], secrets=[])
    assert (facts.mia_auc, facts.property_skill, facts.canaries_fired) == (None, None, None)
    assert leak_checks({}, ["federated-evaluation"]) == {}


# --- the silos' own audits ---


def audits(skill: str | None, *, verdict: str = "pass") -> dict[str, Any]:
    told = None if skill is None else {"report": HEAD, "skill": skill, "verdict": verdict}
    return {"conformance": None, "property": told}


def test_the_largest_skill_counts_once_everybody_has_sent_one():
    whole = {
        "audits": {"a": audits("0.1"), "b": audits("0.2")},
        "trained": ["a", "b"],
        "property_max": "0.25",
    }
    assert leak_facts(whole, fields=[], secrets=[]).property_skill == "0.2"
    assert leak_checks(whole, [PROPERTY]) == {PROPERTY: "pass"}
    assert leak_checks(whole | {"property_max": "0.15"}, [PROPERTY]) == {PROPERTY: "fail"}
    for lacking in ({"a": audits("0.1")}, {"a": audits("0.1"), "b": audits(None)}):
        some = whole | {"audits": lacking}
        assert leak_facts(some, fields=[], secrets=[]).property_skill is None
        assert leak_checks(some, [PROPERTY]) == {PROPERTY: "fail"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        audits("0.1") | {"loss": "0.1"},
        {"conformance": None, "property": {"skill": "0.1"}},
        audits("-1"),
    ],
)
def test_nothing_but_these_figures_travels(value: Any):
    assert audits_hold(audits("0.1"))
    assert not audits_hold(value)


# --- step receipts ---


def test_a_receipt_of_an_honest_node_passes():
    receipt = MadeWith(engine="packed").receipt(steps_total=7, ledger_head=HEAD)
    check_receipt(receipt, plan_steps=200, steps=7, heads=[])


@pytest.mark.parametrize(
    ("changes", "checked"),
    [
        ({"engine": "homemade"}, {}),
        ({"sampler": "shuffle"}, {}),
        ({"generator": "mt19937"}, {}),
        ({"steps_total": 8}, {}),
        ({"steps_total": 6}, {}),
        ({"steps_total": 201}, {"steps": 201}),
        ({}, {"heads": [HEAD]}),
    ],
)
def test_a_receipt_that_does_not_fit_is_refused(changes: dict[str, Any], checked: dict[str, Any]):
    receipt = MadeWith(engine="loop").receipt(steps_total=7, ledger_head=HEAD) | changes
    with pytest.raises(AuditFailedError):
        check_receipt(receipt, **({"plan_steps": 200, "steps": 7, "heads": []} | checked))
    with pytest.raises(AuditFailedError):
        check_receipt(None, plan_steps=200, steps=7, heads=[])
