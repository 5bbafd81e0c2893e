# SPDX-License-Identifier: Apache-2.0
import pytest

from sandbox.errors import SandboxError
from sandbox.scores import COLUMNS, Rate, success_table


def rate(successes, rollouts=20):
    return Rate(successes=successes, rollouts=rollouts)


@pytest.mark.parametrize(
    ("successes", "low", "high"),
    [(0, 0.0, 0.1611), (10, 0.2993, 0.7007), (20, 0.8389, 1.0), (19, 0.7639, 0.9911)],
)
def test_wilson_intervals_match_published_values(successes, low, high):
    found = rate(successes).interval
    assert found == pytest.approx((low, high), abs=1e-4)


def test_own_and_others_are_kept_apart_and_pooled():
    cells = {"kita": "A", "nord": "B"}
    outcomes = {
        stage: {"kita": {"A": rate(20), "B": rate(0)}, "nord": {"A": rate(10), "B": rate(20)}}
        for stage in ("local", "common", "individual")
    }
    table = success_table(outcomes, cells)
    assert set(table) == set(COLUMNS)
    assert table["local_own"]["mean"] == 1.0
    assert table["local_others"]["mean"] == 0.25
    assert table["local_others"]["n_rollouts"] == 40
    assert table["local_others"]["per_party"]["nord"]["mean"] == 0.5


def test_a_table_without_a_column_is_refused():
    outcomes = {"local": {"kita": {"A": rate(1)}}, "common": {"kita": {"A": rate(1)}}}
    with pytest.raises(SandboxError):
        success_table(outcomes, {"kita": "A"})
