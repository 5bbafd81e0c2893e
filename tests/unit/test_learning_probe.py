# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from torch import nn

from client.learning.engines import ENGINES, LoopEngine, UnitFrames, clip_factors, frame_loss
from client.learning.engines.protocol import zeros
from client.learning.probe import check_optimiser, check_structure, probe, probe_model
from policies.privacy.errors import ModelRefusedError
from sandbox.bench_models import TokenTransformer
from tests.learnsim import small_recipe


def units(columns: int = 12, outputs: int = 4) -> list[UnitFrames]:
    rng = np.random.default_rng(4)

    def draw(rows, size):
        return torch.from_numpy(rng.standard_normal((rows, size)).astype(np.float32))

    return [UnitFrames(draw(n, columns), draw(n, outputs), torch.ones(n, outputs)) for n in (1, 3, 8, 20)]


UNITS = units()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), *between, nn.Linear(8, 4))


def refused(model: nn.Module, **options: object) -> ModelRefusedError:
    with pytest.raises(ModelRefusedError, match=r"privacy\.model-refused") as caught:
        probe_model(model, UNITS, **options)
    assert caught.value.remedy
    return caught.value


def test_the_recipes_model_passes_under_both_ways_to_clip():
    probe(small_recipe())
    probe(small_recipe(clipping="normalised", frames_per_unit=128))


def test_good_models_pass_with_the_engine_that_will_run():
    assert probe_model(small(nn.LayerNorm(8), nn.Tanh()), UNITS) == "packed"
    attention = TokenTransformer(inputs=12, outputs=4, size=8, tokens=3, layers=1, heads=2)
    assert probe_model(attention, UNITS) == "packed"
    assert probe_model(attention, UNITS, engine="opacus-hooks") == "opacus-hooks"
    assert probe_model(small(nn.GroupNorm(2, 8)), UNITS) == "loop"
    assert probe_model(small(), UNITS, frames_per_unit=400) == "loop"
    assert probe_model(small(nn.Dropout(0.5)), UNITS) == "packed"


def test_the_probe_leaves_the_model_as_it_is():
    model = small(nn.Dropout(0.5))
    before = [p.clone() for p in model.parameters()]
    probe_model(model, UNITS, engine="opacus-hooks")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def frozen_norm():
    model = small(nn.BatchNorm1d(8))
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    return model


def tied():
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4))
    model[1].weight = model[0].weight
    return model


def frozen():
    model = small()
    model[1].bias.requires_grad_(False)
    return model


def with_buffer():
    model = small()
    model.register_buffer("mean", torch.zeros(8))
    return model


@pytest.mark.parametrize(
    ("model", "leaf", "found", "remedy"),
    [
        (small(nn.BatchNorm1d(8)), "1:", "BatchNorm1d", "LayerNorm or GroupNorm"),
        (frozen_norm(), "1:", "BatchNorm1d", "LayerNorm or GroupNorm"),
        (small(nn.BatchNorm1d(8, affine=False)), "1:", "BatchNorm1d", "LayerNorm or GroupNorm"),
        (
            small(nn.BatchNorm1d(8, affine=False, track_running_stats=False)),
            "1:",
            "BatchNorm1d",
            "LayerNorm or GroupNorm",
        ),
        (nn.Sequential(nn.LSTM(12, 4)), "0:", "LSTM", "Linear"),
        (nn.Sequential(nn.MultiheadAttention(12, 2)), "0:", "MultiheadAttention", "SelfAttention"),
        (tied(), "1.weight:", "another layer", "untied"),
        (frozen(), "1.bias:", "frozen", "inputs"),
        (with_buffer(), "mean:", "buffer", "constant"),
    ],
)
def test_structure_that_mixes_units_or_hides_parameters_is_refused(model, leaf, found, remedy):
    error = refused(model)
    assert error.need.startswith(leaf)
    assert found in error.found
    assert remedy in error.remedy


def test_a_layer_that_only_the_loop_knows_is_refused_for_the_packed_engine():
    check_structure(small(nn.GroupNorm(2, 8)), engine="loop")
    with pytest.raises(ModelRefusedError, match="GroupNorm"):
        check_structure(small(nn.GroupNorm(2, 8)), engine="packed")


class Centred(nn.Module):
    """Subtracts the mean over the first axis: a unit reads the others."""

    def __init__(self, *, before: bool) -> None:
        super().__init__()
        self.layer, self.head, self.before = nn.Linear(12, 8), nn.Linear(8, 4), before

    def forward(self, x):
        if self.before:
            return self.head(self.layer(x - x.mean(0, keepdim=True)))
        hidden = self.layer(x)
        return self.head(torch.tanh(hidden - hidden.mean(0, keepdim=True)))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("engine", ["packed", "opacus-hooks"])
def test_centring_by_hand_is_refused(before, engine):
    error = refused(Centred(before=before), engine=engine)
    assert "depends on another unit" in error.found
    assert "centring" in error.remedy


class AcrossFrames(nn.Module):
    """Attention over all rows: frames of other units too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        hidden = self.layer(x)
        return self.head(torch.softmax(hidden @ hidden.mT, dim=-1) @ hidden)


def test_attention_across_frames_is_refused():
    assert "depends on another unit" in refused(AcrossFrames()).found
    within = refused(AcrossFrames(), engine="opacus-hooks").found  # padded units: other frames of the unit
    assert "disagree" in within or "depends" in within


class FoldedConv(nn.Module):
    """A picture per frame; frames and units on one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.head = nn.Conv2d(1, 2, 2), nn.Linear(12, 4)

    def forward(self, x):
        seen = self.eye(x.reshape(-1, 1, 3, 4))
        return self.head(seen.reshape(*x.shape[:-1], 12))


def test_a_folded_convolution_is_refused_where_the_frame_would_become_the_unit():
    hooks = refused(FoldedConv(), engine="opacus-hooks")
    assert hooks.need.startswith("eye.weight:")
    assert "folded" in hooks.found
    assert "loop engine" in hooks.remedy
    packed = refused(FoldedConv(), engine="packed")
    assert packed.need.startswith("eye:")
    assert "Conv2d" in packed.found
    assert probe_model(FoldedConv(), UNITS) == "loop"  # a call holds one unit there: nothing to fold into


def test_losses_that_look_beyond_their_frame_are_refused():
    def scalar(outputs, targets, mask):
        return frame_loss(outputs, targets, mask).mean()

    def averaged(outputs, targets, mask):
        return frame_loss(outputs, targets, mask) / len(outputs)

    def relative(outputs, targets, mask):
        losses = frame_loss(outputs, targets, mask)
        return losses * mask.mean() / (1 + targets.std())

    assert "scalar" in refused(small(), loss=scalar).found
    for loss in (averaged, relative):
        error = refused(small(), loss=loss)
        assert error.need.startswith("the loss")
        assert "other frames" in error.found


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("engine", ["packed", "loop", "opacus-hooks"])
def test_an_unused_layer_is_refused_by_name(engine):
    assert "spare" in refused(Unused(), engine=engine).need


class Counting(Unused):
    """Gives another answer each time."""

    def __init__(self) -> None:
        super().__init__()
        del self.spare
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (1 + self.calls)


class Drifting(Counting):
    """Moves a weight as it is called."""

    def forward(self, x):
        with torch.no_grad():
            self.layer.weight.mul_(0.5)
        return self.layer(x)


class LateBuffer(Counting):
    def forward(self, x):
        self.register_buffer("last", x.detach().mean())
        return self.layer(x)


def test_a_forward_pass_that_changes_the_model_is_refused():
    assert "state or chance" in refused(Counting()).found
    assert refused(Drifting()).need.startswith("layer.weight:")
    assert refused(LateBuffer()).need.startswith("last:")


class Sneaking(Unused):
    """Uses a weight outside the layer's own call too."""

    def __init__(self) -> None:
        super().__init__()
        del self.spare

    def forward(self, x):
        return self.layer(x) + nn.functional.linear(torch.tanh(x), self.layer.weight)


def test_a_weight_that_is_used_behind_the_layers_back_is_refused():
    assert "bypasses" in refused(Sneaking()).found


class OwnMean(nn.Module):
    """Takes the frame's number in the unit for an input: repeated frames are other frames."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x):
        return self.layer(x * torch.arange(1, len(x) + 1)[:, None])


def test_a_model_that_counts_frames_is_refused():
    assert "repeated frames" in refused(OwnMean(), engine="loop").found


class Accumulating(LoopEngine):
    """Adds a unit's frames up in float32, in an order that the size of the batch decides."""

    def __call__(self, units, clip):
        total = zeros(self._model)
        for one in units:
            frames = [
                torch.cat(
                    self._gradients(
                        UnitFrames(*(part[n : n + 1] for part in (one.inputs, one.targets, one.mask)))
                    )
                )
                for n in range(len(one.inputs))
            ]
            rows = torch.stack(frames).float().roll(len(units), 0)
            mean = reduce(torch.add, rows).double() / len(frames)
            mean *= clip_factors(mean.norm(), clip, "flat")
            for into, own in zip(total, mean.split([t.numel() for t in total]), strict=True):
                into.add_(own.view(into.shape))
        return total


def test_an_engine_whose_rounding_depends_on_the_batch_is_refused(monkeypatch):
    monkeypatch.setitem(ENGINES, "packed", Accumulating)
    error = refused(small(nn.Tanh()), engine="packed")
    assert error.need.startswith("the engine")
    assert "Accumulating" in error.found


def test_an_optimiser_holds_exactly_the_trainable_parameters():
    model = small()
    check_optimiser(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ModelRefusedError, match=r"1\.weight"):
        check_optimiser(model, torch.optim.SGD(model[0].parameters(), lr=0.1))
    foreign = [*model.parameters(), nn.Parameter(torch.zeros(3))]
    with pytest.raises(ModelRefusedError, match="does not train"):
        check_optimiser(model, torch.optim.SGD(foreign, lr=0.1))
    model[1].bias.requires_grad_(False)
    with pytest.raises(ModelRefusedError, match="does not train"):
        check_optimiser(model, torch.optim.SGD(model.parameters(), lr=0.1))
