# SPDX-License-Identifier: Apache-2.0
"""Engines agree and the clip holds, for any ragged units and widths."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from client.learning.engines import LoopEngine, OpacusHooksEngine, UnitFrames
from client.learning.models import MlpChunkModel
from client.learning.registry import flatten


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    width=st.integers(1, 12),
    chunk=st.integers(1, 3),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
    clip=st.sampled_from([0.01, 0.2, 10.0]),
    seed=st.integers(0, 2**16),
)
def test_engines_agree_and_one_unit_moves_the_sum_by_at_most_the_clip(  # noqa: PLR0917
    lengths, width, chunk, scale, clip, seed
):
    rng = np.random.default_rng(seed)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = MlpChunkModel(input_size=5, output_size=2, width=width, chunk=chunk)
    loop, hooks = LoopEngine(copy.deepcopy(model)), OpacusHooksEngine(model)
    units = [
        UnitFrames(
            torch.from_numpy((scale * rng.standard_normal((n, 5))).astype(np.float32)),
            torch.from_numpy((scale * rng.standard_normal((n, 2 * chunk))).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 2, (n, 2 * chunk)).astype(np.float32)),
        )
        for n in lengths
    ]
    whole = flatten(hooks(units, clip))
    np.testing.assert_allclose(whole, flatten(loop(units, clip)), rtol=1e-4, atol=1e-5 * clip)
    assert np.linalg.norm(whole - flatten(hooks(units[1:], clip))) <= clip
