# SPDX-License-Identifier: Apache-2.0
"""Quality for any data: one episode never decides about another, near pairs are all found, adapters undo themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.embodiment import Adapter
from client.data.frames import Frames
from client.data.quality import CHECKS, check_episode, failed_checks, spec_of
from client.data.quality.checks import EPISODE_CHECKS, EXCLUDING
from client.data.quality.sets import near_pairs
from client.data.quality.spec import DEFAULT
from tests.qualitysim import SPEC, arm, planted

KINDS = [*EPISODE_CHECKS, "clean"]


def episode(kind: str, seed: int) -> Frames:
    frames = arm(seed, frames=150)
    return frames if kind == "clean" else planted(kind, frames)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=4), st.integers(0, 1_000))
def test_the_verdict_of_an_episode_is_the_same_whatever_the_others_are(kinds: list[str], seed: int) -> None:
    episodes = [episode(kind, seed + at) for at, kind in enumerate(kinds)]
    alone = [failed_checks(one, SPEC) for one in episodes]
    together = [failed_checks(one, SPEC) for one in reversed(episodes)][::-1]
    assert alone == together
    assert alone == [(kind,) if kind in EXCLUDING else () for kind in kinds]


values = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.sampled_from(["host", "controller", "derived", "simulation"]),
    st.data(),
)
def test_no_recording_makes_a_check_crash_and_every_answer_is_one_of_four(
    length: int, clock: str, data: st.DataObject
) -> None:
    column = st.lists(st.lists(values, min_size=2, max_size=2), min_size=length, max_size=length)
    names = ("observation.joint_pos", "observation.joint_vel", "action.joint_pos", "observation.tcp_pos")
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    frames = Frames(
        columns={name: np.array(data.draw(column), dtype=np.float32) for name in chosen},
        labels={},
        stamps_ns=np.array(
            data.draw(st.lists(st.integers(0, 10**12), min_size=length, max_size=length)), np.int64
        ),
        clock=clock,  # type: ignore[arg-type]
        content="0" * 64,
        missing_rows=0,
    )
    for spec in (SPEC, spec_of(None)):
        with np.errstate(all="ignore"):
            found = check_episode(frames, spec)
        assert {one.check for one in found} < set(CHECKS)
        assert {one.state for one in found} <= {"PASS", "FAIL", "NOT_APPLICABLE", "UNDETERMINED"}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_all_near_pairs_are_found_and_no_other(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(3, 64, 2))
    paths = {
        f"ep_{i}": base[rng.integers(3)] + rng.choice([0, 1e-3, 3e-3, 1e-2]) * rng.normal(size=(64, 2))
        for i in range(count)
    }
    names, whole = sorted(paths), np.stack([paths[name] for name in sorted(paths)])
    width = np.maximum(np.ptp(whole, axis=(0, 1)), 0.01 * np.ptp(whole, axis=(0, 1)).max())
    expected = {
        (names[a], names[b])
        for a in range(count)
        for b in range(a + 1, count)
        if np.sqrt((((whole[a] - whole[b]) / width) ** 2).mean()) < DEFAULT.thresholds.path_distance
    }
    assert {(one.one, one.other) for one in near_pairs(paths)} == expected


@settings(max_examples=40, deadline=None)
@given(
    st.permutations(range(4)),
    st.lists(st.sampled_from([1, -1]), min_size=4, max_size=4),
    st.lists(st.integers(-300, 300), min_size=4, max_size=4),
    st.sampled_from(
        ["joint_pos", "joint_vel", "joint_torque", "joint_temp", "tcp_pose_delta", "gripper_cmd"]
    ),
    st.sampled_from(["observation", "action"]),
)
def test_an_adapter_and_its_way_back_undo_each_other(
    order: list[int], sign: list[int], offset: list[int], field: str, role: str
) -> None:
    adapter = Adapter.model_validate(
        {"gain": "0.7", "sign": sign, "offset": [one / 100 for one in offset], "order": list(order)}
    )
    values_of = np.random.default_rng(1).normal(size=(5, 4))
    np.testing.assert_allclose(
        adapter.to_controller(adapter.to_store(values_of, field, role), field, role), values_of, atol=1e-12
    )
