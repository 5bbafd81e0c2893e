# SPDX-License-Identifier: Apache-2.0
"""Each check fails on its planted defect, passes on the clean twin, and never calls what it cannot know a pass."""

from __future__ import annotations

import numpy as np
import pytest

from client.data.frames import Frames
from client.data.quality import check_schema, check_time, failed_checks


def frames(
    stamps_ns: np.ndarray, clock: str = "host", missing: int = 0, key: str = "observation.joint_pos"
) -> Frames:
    values = np.zeros((len(stamps_ns), 2), dtype=np.float32)
    values[:missing, 1] = np.nan
    return Frames(
        columns={key: values},
        labels={},
        stamps_ns=stamps_ns.astype(np.int64),
        clock=clock,
        content="0" * 64,
        missing_rows=0,
    )


def ticks(count: int = 200, jitter_ns: float = 1e5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.arange(count) * 1e7 + rng.uniform(-jitter_ns, jitter_ns, count)


@pytest.mark.parametrize(
    ("missing", "key", "state"),
    [
        (9, "observation.joint_pos", "PASS"),
        (10, "observation.joint_pos", "FAIL"),
        (10, "observation.tool_current", "PASS"),
        (40, "observation.tool_current", "FAIL"),
    ],
)
def test_missing_values_weigh_more_in_core_fields(missing: int, key: str, state: str) -> None:
    assert check_schema(frames(ticks(), missing=missing, key=key)).state == state


def planted(kind: str) -> np.ndarray:
    stamps = ticks()
    if kind == "order":
        stamps[50] = stamps[49]
    elif kind == "gaps":
        for at in (40, 80, 120):
            stamps[at:] += 2e7
    elif kind == "one gap":
        stamps[40:] += 2e7
    elif kind == "jitter":
        stamps = ticks(jitter_ns=2e6)
    elif kind == "even":
        stamps = np.arange(200) * 1e7
    return stamps


@pytest.mark.parametrize(
    ("kind", "clock", "state", "why"),
    [
        ("clean", "host", "PASS", ""),
        ("one gap", "host", "PASS", ""),
        ("order", "host", "FAIL", "order"),
        ("gaps", "host", "FAIL", "gaps"),
        ("jitter", "host", "FAIL", "jitter"),
        ("even", "host", "UNDETERMINED", "looks-derived"),
        ("jitter", "controller", "PASS", ""),
        ("gaps", "controller", "FAIL", "gaps"),
        ("gaps", "derived", "UNDETERMINED", "derived"),
        ("gaps", "simulation", "NOT_APPLICABLE", "simulation"),
    ],
)
def test_time_is_judged_by_the_kind_of_clock(kind: str, clock: str, state: str, why: str) -> None:
    verdict = check_time(frames(planted(kind), clock))
    assert (verdict.state, verdict.why) == (state, why)


def test_only_a_failure_excludes() -> None:
    assert failed_checks(frames(planted("even"))) == ()
    assert failed_checks(frames(planted("gaps"), missing=50)) == ("schema", "time")
