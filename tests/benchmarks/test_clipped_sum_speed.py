# SPDX-License-Identifier: Apache-2.0
"""What privacy costs in time: ratios of CPU time in one run, in which the ways take turns. Printed with -s."""

from __future__ import annotations

import pytest

from sandbox.bench_dp import run
from sandbox.bench_models import CASES


@pytest.mark.slow
def test_the_packed_sum_costs_at_most_two_plain_gradients_and_less_than_opacus():
    wide, transformer = run(repeats=3, cases=(CASES[1], CASES[3]), memory=False)["rows"]
    for row in (wide, transformer):
        print(row["model"], row["ratios"])
        assert row["ratios"]["packed_to_sgd"] <= 2.0
        assert row["ratios"]["packed_to_opacus_ghost"] < 1.0
    assert wide["ratios"]["packed_to_opacus_hooks"] < 1.0
