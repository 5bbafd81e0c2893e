# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.learning.attention import SelfAttention
from client.learning.engines import (
    GAMMA,
    LoopEngine,
    OpacusHooksEngine,
    PackedEngine,
    UnitFrames,
    choose_engine,
    clip_factors,
    frame_loss,
)
from client.learning.models import MlpChunkModel
from client.learning.noise import SecureNoise, SeededNoise
from client.learning.registry import build as build_model
from client.learning.registry import flatten
from client.learning.tensors import EpisodeArrays, unit_frames
from policies.privacy.errors import ModelRefusedError, PrecisionRefusedError, RngRefusedError
from policies.recipe import load
from sandbox.bench_models import TokenTransformer
from tests.learnsim import SeededEntropy

CLIP = 0.2


def mlp():
    return MlpChunkModel(input_size=19, output_size=4, width=24, chunk=1)


def transformer():
    return TokenTransformer(inputs=19, outputs=4, size=8, tokens=3, layers=1, heads=2)


def wide():
    """Wide enough that short units are measured by Gram matrices, long ones by their products."""
    return nn.Sequential(
        nn.Linear(19, 150), nn.Tanh(), nn.Linear(150, 150, bias=False), nn.ReLU(), nn.Linear(150, 4)
    )


def edge():
    """So wide that units of some frames are measured by Gram matrices, and of one frame more by products."""
    return MlpChunkModel(input_size=19, output_size=4, width=64, chunk=1)


MODELS = {"mlp": mlp, "transformer": transformer, "wide": wide, "edge": edge}


def unit(frames: int, *, seed: int = 0, scale: float = 1.0) -> UnitFrames:
    rng = np.random.default_rng([seed, frames])

    def draw(columns):
        return torch.from_numpy((scale * rng.standard_normal((frames, columns))).astype(np.float32))

    return UnitFrames(draw(19), draw(4), torch.ones(frames, 4))


UNITS = [unit(count, seed=number) for number, count in enumerate([1, 3, 32, 7, 90, 400])]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=[LoopEngine, OpacusHooksEngine, PackedEngine])
def kind(request):
    return request.param


@pytest.fixture(params=MODELS)
def build(request):
    return MODELS[request.param]


@pytest.fixture(params=["flat", "normalised"])
def clipping(request):
    return request.param


def engine(kind, build=mlp, *, clipping="flat", loss=frame_loss):
    torch.manual_seed(0)
    return kind(build(), loss, clipping=clipping)


def total(kind, units, clip=CLIP, *, build=mlp, clipping="flat"):
    return flatten(engine(kind, build, clipping=clipping)(units, clip))


def test_the_engines_agree(kind, build, clipping):
    oracle = total(LoopEngine, UNITS, build=build, clipping=clipping)
    found = total(kind, UNITS, build=build, clipping=clipping)
    np.testing.assert_allclose(found, oracle, rtol=0, atol=1e-5 * np.linalg.norm(oracle))
    assert np.linalg.norm(oracle) > CLIP / 2


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_one_unit_moves_the_sum_by_at_most_the_clip_norm(kind, build, clipping, scale):
    whole = [UnitFrames(u.inputs * scale, u.targets * scale, u.mask) for u in UNITS]
    sums = engine(kind, build, clipping=clipping)
    for out in range(len(UNITS)):
        moved = flatten(sums(whole, CLIP)) - flatten(sums(whole[:out] + whole[out + 1 :], CLIP))
        assert np.linalg.norm(moved) <= CLIP


def test_a_loud_unit_is_clipped_to_the_norm_and_a_quiet_one_is_not_scaled_up(kind):
    loud = total(kind, [unit(20, scale=100)])
    assert np.linalg.norm(loud) == pytest.approx(CLIP, rel=2e-4)
    assert np.linalg.norm(loud) <= CLIP
    quiet = total(kind, [unit(20)], clip=1e6)
    assert np.linalg.norm(quiet) < 100


def test_normalised_clipping_gives_loud_and_quiet_units_nearly_the_same_norm(kind):
    for scale in (0.3, 1.0, 100.0):
        norm = np.linalg.norm(total(kind, [unit(20, scale=scale)], clip=1e9))
        found = np.linalg.norm(total(kind, [unit(20, scale=scale)], clipping="normalised"))
        assert found == pytest.approx(CLIP * norm / (norm + GAMMA), rel=2e-4)
        assert found <= CLIP
    still = unit(20)
    still.mask[:] = 0
    assert not total(kind, [still], clipping="normalised").any()


def test_factors_bound_every_norm_and_drop_what_is_not_finite(clipping):
    norms = torch.tensor([0.0, 1e-30, CLIP, 1e3, 1e38, 1e39, float("inf"), float("nan")], dtype=torch.float64)
    factors = clip_factors(norms, CLIP, clipping)
    assert ((factors * norms)[:5] <= CLIP).all()
    assert factors[5:].tolist() == [0, 0, 0]
    assert (factors[:5] > 0).all()


def test_frames_seven_times_over_change_nothing(kind, build, clipping):
    repeated = [UnitFrames(*(t.repeat(7, 1) for t in (u.inputs, u.targets, u.mask))) for u in UNITS[:4]]
    np.testing.assert_allclose(
        total(kind, repeated, build=build, clipping=clipping),
        total(kind, UNITS[:4], build=build, clipping=clipping),
        atol=1e-5,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_a_unit_that_is_not_finite_contributes_zero(kind, build, part, value):
    bad = UnitFrames(*(t.clone() for t in (UNITS[3].inputs, UNITS[3].targets, UNITS[3].mask)))
    getattr(bad, part)[2, 1] = value
    huge = unit(9, scale=1e12)
    assert np.isfinite(total(kind, [bad], build=build)).all()
    with_bad = total(kind, [UNITS[0], bad, huge, UNITS[2]], build=build)
    without = total(kind, [UNITS[0], huge, UNITS[2]], build=build)
    if part == "inputs" and not np.isnan(value):  # tanh can make an infinite input finite again
        assert np.linalg.norm(with_bad - without) <= CLIP
    else:
        np.testing.assert_allclose(with_bad, without, atol=1e-6)


def test_a_bad_long_unit_leaves_the_others_of_its_band_alone(kind):
    units = [unit(200, seed=n) for n in range(3)]
    bad = UnitFrames(units[1].inputs, units[1].targets * float("nan"), units[1].mask)
    np.testing.assert_allclose(
        total(kind, [units[0], bad, units[2]], build=wide),
        total(kind, [units[0], units[2]], build=wide),
        atol=1e-6,
    )


def cancelling(seed: int, *, loud: float) -> UnitFrames:
    """Five frames and their mirrors: each gradient up to a million times as large as the mean of all."""
    one, rng = unit(5, seed=seed, scale=10.0), np.random.default_rng(seed)
    with torch.no_grad():
        outputs = engine(PackedEngine, wide)._model(one.inputs)
    away = torch.from_numpy((loud * rng.standard_normal((5, 4))).astype(np.float32))
    order = torch.from_numpy(rng.permutation(10))
    targets = torch.cat([outputs + away, outputs - away])
    return UnitFrames(one.inputs.repeat(2, 1)[order], targets[order], one.mask.repeat(2, 1))


@pytest.mark.parametrize("loud", [1e2, 1e4, 1e6])
def test_frames_that_cancel_are_still_bounded(clipping, loud):
    """What float32 leaves of such a sum is larger than the clip norm."""
    units = [cancelling(seed, loud=loud) for seed in range(6)]
    for some in (units, units[:1]):
        whole = total(PackedEngine, some, build=wide, clipping=clipping)
        assert np.linalg.norm(whole - total(PackedEngine, some[1:], build=wide, clipping=clipping)) <= CLIP


# --- what rounding leaves of frames that cancel is the same in any company ---


def opposed(frames: int, size: float, *, seed: int = 0) -> UnitFrames:
    """Equal inputs, targets plus and minus in turn: all but nothing of each frame's gradient is left."""
    rng = np.random.default_rng(seed)
    one, target = (torch.from_numpy(rng.standard_normal((1, n)).astype(np.float32)) for n in (19, 4))
    signs = torch.where(torch.arange(frames) % 2 == 0, 1.0, -1.0)[:, None]
    return UnitFrames(one.repeat(frames, 1), target * size * signs, torch.ones(frames, 4))


def moved(sums, whole, out, clip=CLIP):
    rest = [u for place, u in enumerate(whole) if place != out]
    return np.linalg.norm(flatten(sums(whole, clip)) - flatten(sums(rest, clip))) / clip


SIZES = [1e4, 1e10]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("build", [edge, transformer])
def test_a_neighbour_of_another_length_moves_the_sum_by_its_own_part_only(kind, build, clipping, size):
    """A batch that is padded to its longest, or measured by its longest, moves by tens of clip norms here."""
    sums = engine(kind, build, clipping=clipping)
    for frames, neighbour in ((16, 17), (16, 3), (16, 200), (4, 5)):
        many = [opposed(frames, size)] * 20
        crowd = flatten(sums(many, CLIP))
        for odd in (unit(neighbour), opposed(neighbour, size, seed=1)):
            assert np.linalg.norm(flatten(sums([odd, *many], CLIP)) - crowd) <= CLIP


@pytest.mark.parametrize("size", SIZES)
def test_a_unit_adds_the_same_alone_and_in_company(kind, build, clipping, size):
    sums = engine(kind, build, clipping=clipping)
    whole = [opposed(n, size, seed=n) for n in (1, 2, 2, 7, 16, 17, 33, 90)] + UNITS[:4]
    alone = [flatten(sums([one], CLIP)) for one in whole]
    for company in (whole, whole[::-1], whole[3:], whole[::2]):
        expected = sum(own for own, one in zip(alone, whole, strict=True) if any(one is u for u in company))
        assert np.linalg.norm(flatten(sums(company, CLIP)) - expected) <= 1e-9 * CLIP
    assert max(np.linalg.norm(own) for own in alone) <= CLIP


def test_a_unit_adds_the_same_wherever_its_frames_lie_in_memory(kind, build):
    """Kernels may round otherwise where rows do not begin a line of the cache."""
    one = opposed(17, 1e8)
    expected = total(kind, [one], build=build)
    for shift in (1, 3, 4):
        moved_parts = []
        for part in (one.inputs, one.targets, one.mask):
            room = torch.empty(part.numel() + shift)[shift:].view(part.shape)
            moved_parts.append(room.copy_(part))
        assert (total(kind, [UnitFrames(*moved_parts)], build=build) == expected).all()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_a_unit_at_the_border_of_two_parts_of_a_batch_moves_no_other(clipping, size):
    sums = engine(PackedEngine, clipping=clipping)

    def in_parts(units):
        return sum(flatten(sums(units[n : n + 128], CLIP)) for n in range(0, len(units), 128))

    lengths = [2 + number % 5 for number in range(260)]
    units = [opposed(length, size, seed=length) for length in lengths]
    for out in (0, 127, 128):
        gone = in_parts(units) - in_parts(units[:out] + units[out + 1 :])
        assert np.linalg.norm(gone) <= CLIP


@pytest.mark.parametrize("louder", [1.0, np.float32(1e6)], ids=["within limits", "beyond any limit"])
@pytest.mark.parametrize("command", [1.0, 1e4, 1e8])
def test_removing_one_episode_of_the_example_recipe_moves_the_sum_by_at_most_the_clip(command, louder):
    """From fields to sum: a gripper that is told to open and to shut, a hundred times over."""
    recipe = load((Path(__file__).parents[2] / "docs/how-to/example/recipe.json").read_bytes())
    here = {"tcp_pos": [0.02, 0.7, 0.2], "gripper_width": [1.0], "object_pos": [0.01, 0.7, 0.05]}
    here["goal_pos"] = [0.0, 0.85, 0.1]

    def episode(number, frames, size):
        turns = (np.where(np.arange(frames) % 2, -1, 1)[:, None] * size).astype(np.float32)
        return EpisodeArrays(
            observation={name: np.tile(np.array(at, np.float32), (frames, 1)) for name, at in here.items()},
            action={"tcp_pose_delta": np.repeat(turns * 0.01, 3, 1), "gripper_cmd": turns},
            unit_id=bytes([number]) * 32,
        )

    episodes = [*(episode(number, 6, command) for number in range(100)), episode(200, 7, 0.0)]
    units = [
        UnitFrames(*(torch.from_numpy(part) for part in (one.inputs, one.targets * louder, one.mask)))
        for one in unit_frames(recipe, episodes)
    ]
    plan = recipe.plan
    chosen = choose_engine(build_model(recipe), frame_loss, plan.frames_per_unit, clipping=plan.clipping)
    assert chosen.name == "packed"
    assert moved(chosen.engine, units, len(units) - 1, float(plan.clip_norm)) <= 1


def test_a_unit_alone_has_the_gradient_that_it_has_in_a_batch(kind, build):
    alone = sum(total(kind, [u], build=build) for u in UNITS)
    np.testing.assert_allclose(alone, total(kind, UNITS, build=build), atol=1e-5)


def test_a_batch_in_parts_has_the_same_sum(kind, build):
    parts = sum(total(kind, UNITS[n : n + 2], build=build) for n in (0, 2, 4))
    np.testing.assert_allclose(parts, total(kind, UNITS, build=build), atol=1e-6)


def test_what_the_packed_engine_keeps_stays_small_whatever_the_batch(monkeypatch):
    expected = total(PackedEngine, UNITS, build=wide)
    monkeypatch.setattr("client.learning.engines.packed._KEPT", 15_000)  # one long unit at a time
    parts = engine(PackedEngine, wide)
    parts(UNITS, CLIP)
    assert len(parts._parts(UNITS)) > 2
    np.testing.assert_allclose(total(PackedEngine, UNITS, build=wide), expected, atol=1e-6)


def test_no_unit_gives_zeros(kind):
    found = engine(kind)([], CLIP)
    assert [t.shape for t in found] == [p.shape for p in mlp().parameters()]
    assert not flatten(found).any()


def test_engine_leaves_nothing_behind_between_calls(kind):
    used = engine(kind)
    first = flatten(used(UNITS, CLIP))
    used(UNITS[:2], CLIP)
    assert (flatten(used(UNITS, CLIP)) == first).all()


def test_new_weights_are_seen(kind):
    used = engine(kind)
    before = flatten(used(UNITS, CLIP))
    with torch.no_grad():
        for parameter in used._model.parameters():
            parameter.mul_(2)
    assert np.abs(flatten(used(UNITS, CLIP)) - before).max() > 1e-3


def test_frames_beyond_the_end_do_not_count(kind):
    half = unit(10)
    half.mask[5:] = 0
    changed = UnitFrames(half.inputs, half.targets.clone(), half.mask)
    changed.targets[5:] = 1e6
    np.testing.assert_allclose(total(kind, [half]), total(kind, [changed]), atol=1e-7)


class Places(nn.Module):
    """An embedding of what stands in the inputs, with one index that is never trained."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 6, padding_idx=2)
        self.norm = nn.RMSNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, indices):
        return self.head(torch.relu(self.norm(self.words(indices)))).mean(-2)


def test_embeddings_of_indices_agree(kind):
    rng = np.random.default_rng(3)
    units = [
        UnitFrames(torch.from_numpy(rng.integers(0, 5, (n, 3))), torch.randn(n, 4), torch.ones(n, 4))
        for n in (1, 4, 4, 30)
    ]
    np.testing.assert_allclose(
        total(kind, units, build=Places), total(LoopEngine, units, build=Places), atol=1e-6
    )


def test_an_activation_in_place_changes_nothing():
    def build():
        return nn.Sequential(
            nn.Linear(19, 30), nn.LayerNorm(30, bias=False), nn.ReLU(inplace=True), nn.Linear(30, 4)
        )

    np.testing.assert_allclose(
        total(PackedEngine, UNITS, build=build), total(LoopEngine, UNITS, build=build), atol=1e-6
    )


def test_tokens_attend_within_their_frame_only():
    torch.manual_seed(0)
    attention = SelfAttention(8, 2)
    tokens = torch.randn(2, 5, 3, 8)
    whole = attention(tokens)
    assert whole.shape == tokens.shape
    torch.testing.assert_close(whole[1, 2], attention(tokens[1, 2]))
    attention.span = 3
    torch.testing.assert_close(attention(tokens.flatten(1, 2)), whole.flatten(1, 2))


# --- refusals in a call ---


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, targets, mask: frame_loss(outputs, targets, mask).mean(),
        lambda outputs, targets, mask: (outputs - targets).square(),
    ],
)
def test_a_loss_that_is_not_one_per_frame_is_refused(kind, loss):
    with pytest.raises(ModelRefusedError, match="the loss"):
        engine(kind, loss=loss)(UNITS[:2], CLIP)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(19, 4), nn.Linear(19, 4)

    def forward(self, x):
        return self.used(x)


class ByHand(Unused):
    """Takes a layer's weight without calling the layer."""

    def forward(self, x):
        return nn.functional.linear(self.used(x), self.spare.weight[:, :4], self.spare.bias)


@pytest.mark.parametrize("build", [Unused, ByHand])
def test_a_layer_without_part_in_the_loss_is_refused_by_name(kind, build):
    if build is ByHand and kind is LoopEngine:
        pytest.skip("the loop takes any use of a weight")
    with pytest.raises(ModelRefusedError, match=r"spare"):
        engine(kind, build)(UNITS[:2], CLIP)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(19, 19), nn.Linear(19, 4)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)))


class Folded(nn.Module):
    """Folds tokens into the axis of frames."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(19, 4)

    def forward(self, x):
        return self.layer(torch.stack([x, x], dim=-2).reshape(-1, 19)).reshape(*x.shape[:-1], 2, 4).mean(-2)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(19, 19)
        self.head = nn.Linear(19, 4)

    def forward(self, x):
        hidden = x.clone()
        out = self.layer(hidden)
        hidden.zero_()
        return self.head(out)


@pytest.mark.parametrize(
    ("build", "found"), [(Twice, "called twice"), (Folded, "frames as first axis"), (InPlace, "in place")]
)
def test_the_packed_engine_refuses_a_layer_that_it_cannot_follow(build, found):
    with pytest.raises(ModelRefusedError, match="layer") as refused:
        engine(PackedEngine, build)(UNITS[:2], CLIP)
    assert found in refused.value.found


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        (nn.MultiheadAttention(4, 1), "SelfAttention"),
        (nn.Embedding(4, 2, max_norm=1.0), "plain"),
        (nn.Embedding(4, 2, scale_grad_by_freq=True), "plain"),
        (nn.LSTM(4, 2), "Linear"),
        (nn.Conv1d(1, 1, 1), "loop"),
    ],
)
def test_a_layer_without_a_packed_rule_is_refused_with_a_replacement(layer, advice):
    model = nn.Sequential(nn.Linear(4, 4), layer)
    with pytest.raises(ModelRefusedError, match=r"privacy\.model-refused") as refused:
        PackedEngine(model, frame_loss)
    assert refused.value.need.startswith("1:") or refused.value.need.startswith("1.")
    assert type(layer).__name__ in refused.value.found
    assert advice in refused.value.remedy


def test_frozen_and_shared_parameters_are_refused(kind):
    frozen = mlp()
    frozen.head.bias.requires_grad_(False)
    with pytest.raises(ModelRefusedError, match=r"head\.bias"):
        kind(frozen, frame_loss)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ModelRefusedError, match=r"1\.weight"):
        PackedEngine(tied, frame_loss)


def test_arithmetic_in_which_a_norm_is_no_bound_is_refused(kind):
    used = engine(kind)
    with torch.autocast("cpu"), pytest.raises(PrecisionRefusedError, match=r"privacy\.precision-refused"):
        used(UNITS[:1], CLIP)
    for setting in ("high", "medium"):
        torch.set_float32_matmul_precision(setting)
        try:
            with pytest.raises(PrecisionRefusedError, match="fewer bits"):
                used(UNITS[:1], CLIP)
        finally:
            torch.set_float32_matmul_precision("highest")
    compiled = mlp()
    compiled._compiled_call_impl = compiled._call_impl  # what Module.compile leaves
    with pytest.raises(PrecisionRefusedError, match="compiled"):
        kind(compiled, frame_loss)(UNITS[:1], CLIP)
    with pytest.raises(PrecisionRefusedError, match="narrower"):
        kind(mlp().bfloat16(), frame_loss)(UNITS[:1], CLIP)
    assert flatten(used(UNITS[:1], CLIP)).any()


def test_gradients_are_formed_also_where_the_caller_has_switched_them_off(kind):
    with torch.no_grad():
        assert total(kind, UNITS[:2]).any()


# --- the choice ---


def test_packed_is_chosen_unless_units_are_long_or_a_layer_has_no_rule():
    assert choose_engine(mlp(), frame_loss, 32).name == "packed"
    assert choose_engine(transformer(), frame_loss, 128).name == "packed"
    assert choose_engine(mlp(), frame_loss, 129).name == "loop"
    conv = nn.Sequential(nn.Unflatten(-1, (1, 19)), nn.Conv1d(1, 4, 19), nn.Flatten())
    chosen = choose_engine(conv, frame_loss, 32, clipping="normalised")
    assert (chosen.name, type(chosen.engine)) == ("loop", LoopEngine)
    assert flatten(chosen.engine(UNITS[:3], CLIP)).any()


# --- what a gradient gives away ---


def test_a_raw_gradient_of_one_frame_gives_the_frame_back_and_the_released_update_does_not():
    """dW = g x^T and db = g: their ratio is the input. The update has noise in both."""
    sigma, seen = 6.2244, unit(1)
    for kind in (LoopEngine, PackedEngine):
        raw = engine(kind)([seen], 1e9)
        weight, bias = raw[0], raw[1]
        strongest = int(bias.abs().argmax())
        recovered = weight[strongest] / bias[strongest]
        torch.testing.assert_close(recovered.float(), seen.inputs[0], rtol=1e-4, atol=1e-4)
        sums = engine(kind)([seen], CLIP)
        noise = SecureNoise(SeededEntropy(9))
        weight = sums[0] + torch.from_numpy(noise.gaussian(sigma * CLIP, sums[0].numel())).reshape(
            sums[0].shape
        )
        bias = sums[1] + torch.from_numpy(noise.gaussian(sigma * CLIP, sums[1].numel()))
        guesses = (weight / bias[:, None]).numpy()
        likeness = [abs(np.corrcoef(guess, seen.inputs[0].numpy())[0, 1]) for guess in guesses]
        assert np.mean(likeness) < 0.5


# --- noise ---


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


def test_a_seeded_source_repeats_itself_and_says_so():
    first, second = SeededNoise(5), SeededNoise(5)
    assert (first.gaussian(1, 9) == second.gaussian(1, 9)).all()
    assert (first.choice.random(9) == second.choice.random(9)).all()
    assert (first.gaussian(1, 9) != SeededNoise(6).gaussian(1, 9)).all()
    assert abs(np.corrcoef(first.gaussian(1, 10_000), first.choice.normal(0, 1, 10_000))[0, 1]) < 0.06
    assert SeededNoise.predictable
    assert not SecureNoise.predictable


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
