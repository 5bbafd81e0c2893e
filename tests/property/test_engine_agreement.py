# SPDX-License-Identifier: Apache-2.0
"""Engines agree and the clip holds, for any ragged units, widths, models and both ways to clip."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings
from torch import nn

from client.learning.engines import LoopEngine, OpacusHooksEngine, PackedEngine, UnitFrames, frame_loss
from client.learning.models import MlpChunkModel
from client.learning.registry import flatten
from sandbox.bench_models import TokenTransformer

INPUTS, OUTPUTS = 5, 4


class Words(nn.Module):
    """Reads the sign of two inputs as a word, and the rest as numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words, self.numbers = nn.Embedding(4, width), nn.Linear(INPUTS, width, bias=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, OUTPUTS)

    def forward(self, inputs):
        word = (inputs[..., 0] > 0).long() * 2 + (inputs[..., 1] > 0).long()
        return self.head(self.norm(torch.tanh(self.numbers(inputs)) + self.words(word)))


MODELS = {
    "mlp": lambda width: MlpChunkModel(input_size=INPUTS, output_size=2, width=width, chunk=2),
    "words": Words,
    "transformer": lambda width: TokenTransformer(
        inputs=INPUTS, outputs=OUTPUTS, size=2 * width, tokens=1 + width % 3, layers=1, heads=2
    ),
}


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    width=st.sampled_from([1, 2, 3, 8, 12, 70]),
    model=st.sampled_from(sorted(MODELS)),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
    clip=st.sampled_from([0.01, 0.2, 10.0]),
    clipping=st.sampled_from(["flat", "normalised"]),
    seed=st.integers(0, 2**16),
)
def test_engines_agree_and_one_unit_moves_the_sum_by_at_most_the_clip(  # noqa: PLR0917
    lengths, width, model, scale, clip, clipping, seed
):
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    built = MODELS[model](width)
    loop, hooks, packed = (
        kind(copy.deepcopy(built), frame_loss, clipping=clipping)
        for kind in (LoopEngine, OpacusHooksEngine, PackedEngine)
    )
    units = [
        UnitFrames(
            torch.from_numpy((scale * rng.standard_normal((n, INPUTS))).astype(np.float32)),
            torch.from_numpy((scale * rng.standard_normal((n, OUTPUTS))).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 2, (n, OUTPUTS)).astype(np.float32)),
        )
        for n in lengths
    ]
    oracle = flatten(loop(units, clip))
    near = clip * (1e-4 if scale > 1 else 1e-5)  # at a hundred times the scale more of float32 cancels
    for engine in (hooks, packed):
        whole = flatten(engine(units, clip))
        np.testing.assert_allclose(whole, oracle, rtol=1e-4, atol=near)
        assert np.linalg.norm(whole - flatten(engine(units[1:], clip))) <= clip
        parts = flatten(engine(units[:2], clip)) + flatten(engine(units[2:], clip))
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=near)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    crowd=st.integers(1, 20),
    odd=st.integers(1, 60),
    width=st.sampled_from([1, 3, 8, 70]),
    model=st.sampled_from(sorted(MODELS)),
    size=st.floats(2, 12).map(lambda power: 10.0**power),
    clipping=st.sampled_from(["flat", "normalised"]),
    seed=st.integers(0, 2**16),
)
def test_units_whose_huge_frames_cancel_add_the_same_in_any_company(  # noqa: PLR0917
    lengths, crowd, odd, width, model, size, clipping, seed
):
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    built = MODELS[model](width)

    def opposed(frames):
        inputs, targets = (rng.standard_normal((frames, n)).astype(np.float32) for n in (INPUTS, OUTPUTS))
        targets = np.concatenate([targets, -targets]) * np.float32(size)
        return UnitFrames(
            torch.from_numpy(np.concatenate([inputs, inputs])),
            torch.from_numpy(targets),
            torch.ones(2 * frames, OUTPUTS),
        )

    units = [opposed(n) for n in lengths]
    units += [units[0]] * crowd
    neighbour = opposed(odd)
    for kind in (LoopEngine, OpacusHooksEngine, PackedEngine):
        engine = kind(copy.deepcopy(built), frame_loss, clipping=clipping)
        whole = flatten(engine(units, 1.0))
        assert np.linalg.norm(flatten(engine([neighbour, *units], 1.0)) - whole) <= 1
        alone = np.sum([flatten(engine([one], 1.0)) for one in units], axis=0)
        assert np.linalg.norm(whole - alone) <= 1e-5 * len(units)
