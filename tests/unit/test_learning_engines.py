# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.learning.engines import LoopEngine, OpacusHooksEngine, UnitFrames
from client.learning.noise import SecureNoise
from client.learning.probe import check_independence, check_structure, probe
from client.learning.registry import build, flatten
from policies.privacy.errors import ModelRefusedError, RngRefusedError
from tests.learnsim import SeededEntropy, small_recipe

RECIPE = small_recipe()


def unit(frames: int, *, seed: int = 0, scale: float = 1.0) -> UnitFrames:
    rng = np.random.default_rng([seed, frames])

    def draw(columns):
        return torch.from_numpy((scale * rng.standard_normal((frames, columns))).astype(np.float32))

    return UnitFrames(draw(19), draw(4), torch.ones(frames, 4))


UNITS = [unit(count, seed=number) for number, count in enumerate([1, 3, 32, 7, 90, 400])]


def engine(kind):
    return kind(copy.deepcopy(build(RECIPE)))


def total(kind, units, clip=0.2):
    return flatten(engine(kind)(units, clip))


@pytest.fixture(params=[LoopEngine, OpacusHooksEngine])
def kind(request):
    return request.param


def test_the_two_engines_agree():
    np.testing.assert_allclose(total(LoopEngine, UNITS), total(OpacusHooksEngine, UNITS), atol=1e-5)
    assert np.abs(total(LoopEngine, UNITS)).max() > 0.01


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_one_unit_moves_the_sum_by_at_most_the_clip_norm(kind, scale):
    for out in range(len(UNITS)):
        units = [
            UnitFrames(u.inputs * scale, u.targets * scale, u.mask) if i == out else u
            for i, u in enumerate(UNITS)
        ]
        moved = total(kind, units) - total(kind, units[:out] + units[out + 1 :])
        assert np.linalg.norm(moved) <= 0.2


def test_a_loud_unit_is_clipped_to_the_norm_and_a_quiet_one_is_not_scaled_up(kind):
    loud = total(kind, [unit(20, scale=100)])
    assert np.linalg.norm(loud) == pytest.approx(0.2, rel=2e-4)
    assert np.linalg.norm(loud) <= 0.2
    quiet = total(kind, [unit(20)], clip=1e6)
    assert np.linalg.norm(quiet) < 100


def test_frames_seven_times_over_change_nothing(kind):
    repeated = [UnitFrames(*(t.repeat(7, 1) for t in (u.inputs, u.targets, u.mask))) for u in UNITS[:4]]
    np.testing.assert_allclose(total(kind, repeated), total(kind, UNITS[:4]), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_a_unit_that_is_not_finite_contributes_zero(kind, part, value):
    bad = UnitFrames(*(t.clone() for t in (UNITS[3].inputs, UNITS[3].targets, UNITS[3].mask)))
    getattr(bad, part)[2, 1] = value
    huge = unit(9, scale=1e12)
    assert np.isfinite(total(kind, [bad])).all()
    with_bad, without = total(kind, [UNITS[0], bad, huge, UNITS[2]]), total(kind, [UNITS[0], huge, UNITS[2]])
    if part == "inputs" and not np.isnan(value):  # tanh makes an infinite input finite again
        assert np.linalg.norm(with_bad - without) <= 0.2
    else:
        np.testing.assert_allclose(with_bad, without, atol=1e-6)


def test_a_unit_alone_has_the_gradient_that_it_has_in_a_batch(kind):
    alone = sum(total(kind, [u]) for u in UNITS)
    np.testing.assert_allclose(alone, total(kind, UNITS), atol=1e-5)


def test_no_unit_gives_zeros(kind):
    assert not total(kind, []).any()


def test_engine_leaves_nothing_behind_between_calls():
    used = engine(OpacusHooksEngine)
    first = flatten(used(UNITS, 0.2))
    used(UNITS[:2], 0.2)
    assert (flatten(used(UNITS, 0.2)) == first).all()


def test_frames_beyond_the_end_do_not_count(kind):
    half = unit(10)
    half.mask[5:] = 0
    changed = UnitFrames(half.inputs, half.targets.clone(), half.mask)
    changed.targets[5:] = 1e6
    np.testing.assert_allclose(total(kind, [half]), total(kind, [changed]), atol=1e-7)


class Centred(nn.Module):
    """Subtracts the mean of the batch: one unit reads the others."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(19, 4)

    def forward(self, x):
        out = self.layer(x)
        return out - out.mean(0, keepdim=True) if x.dim() == 3 and len(x) > 1 else out


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def frozen():
    model = nn.Sequential(nn.Linear(19, 4))
    model[0].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("model", "leaf"),
    [
        (nn.Sequential(nn.Linear(19, 8), nn.BatchNorm1d(8)), "1.running_mean"),
        (nn.Sequential(nn.BatchNorm1d(19, affine=False)), "0.running_mean"),
        (nn.Sequential(nn.BatchNorm1d(19, track_running_stats=False)), "0"),
        (nn.LSTM(19, 4), "LSTM"),
        (nn.MultiheadAttention(4, 1), "MultiheadAttention"),
        (tied(), "1.weight"),
        (frozen(), "0.bias"),
    ],
)
def test_models_whose_units_are_not_independent_are_refused_by_structure(model, leaf):
    with pytest.raises(ModelRefusedError, match=r"privacy\.model-refused") as refused:
        check_structure(model)
    assert leaf in refused.value.need


def test_centring_by_hand_is_refused_by_the_probe():
    model = Centred()
    check_structure(model)
    with pytest.raises(ModelRefusedError, match="depends on another"):
        check_independence(model, UNITS[:4])


def test_the_recipes_model_passes_the_probe():
    probe(RECIPE)


def test_noise_has_the_planned_variance_and_shape():
    noise = SecureNoise(SeededEntropy(1)).gaussian(0.5, 200_000) / 0.5
    n = len(noise)
    assert stats.chi2.cdf((noise**2).sum(), n) == pytest.approx(0.5, abs=0.5 - 1e-6)
    assert stats.kstest(noise, "norm").pvalue > 1e-6


def test_noise_of_two_steps_and_of_the_choice_are_unrelated():
    noise = SecureNoise(SeededEntropy(2))
    first, second = noise.gaussian(1, 100_000), noise.gaussian(1, 100_000)
    other = noise.choice.normal(0, 1, 100_000)
    for a, b in ((first, second), (first, other), (second, other)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 6 / 100_000**0.5


def test_two_runs_never_share_a_key():
    entropy = SeededEntropy(3)
    assert (SecureNoise(entropy).gaussian(1, 10) != SecureNoise(entropy).gaussian(1, 10)).all()
    assert entropy.drawn == 4


def test_a_forked_child_refuses(monkeypatch):
    noise = SecureNoise(SeededEntropy(4))
    monkeypatch.setattr("client.learning.noise.os.getpid", lambda: -1)
    with pytest.raises(RngRefusedError, match=r"privacy\.rng-refused"):
        noise.gaussian(1, 1)
    with pytest.raises(RngRefusedError):
        _ = noise.choice
