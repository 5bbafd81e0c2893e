# SPDX-License-Identifier: Apache-2.0
"""Laws of cutting, converting and storing that hold for every input."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from client.data.segment import cut
from client.data.series import Series, SourceRef
from client.data.signalmap import parse_map
from client.data.units import quaternion_of, to_si
from tests.datasim import Recording, both, bring, write_v3

HEAD = 'signal = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"}]\n'


@given(
    steps=st.lists(st.integers(-3, 9), min_size=1, max_size=40),
    ids=st.lists(st.sampled_from(["1", "2", ""]), min_size=40, max_size=40),
    min_frames=st.integers(1, 4),
)
def test_pieces_are_disjoint_in_order_and_complete(steps: list[int], ids: list[str], min_frames: int) -> None:
    n = len(steps)
    series = Series(
        name="s",
        stamps_ns=np.cumsum(np.array(steps, dtype=np.int64)) * 10**9,
        clock="controller",
        columns={"v": np.zeros(n)},
        texts={"c": np.array(ids[:n], dtype=object)},
        source=SourceRef(reader="table", file_sha256="0" * 64, first=0, last=n),
    )
    for keep in (1, min_frames):
        signals = parse_map(
            f'{HEAD}segment = {{by = "column", column = "c", max_gap_s = 5.0, min_frames = {keep}}}\n'.encode()
        )
        found = cut(series, signals)
        assert all(b - a >= keep for a, b in found.pieces)
        assert all(found.pieces[i][1] <= found.pieces[i + 1][0] for i in range(len(found.pieces) - 1))
        for first, last in found.pieces:
            inner = np.diff(series.stamps_ns[first:last])
            assert (inner >= 0).all()
            assert (inner <= 5 * 10**9).all()
    assert (
        sum(b - a for a, b in cut(series, parse_map(f'{HEAD}segment = {{by = "file"}}\n'.encode())).pieces)
        == n
    )


@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(-6, 6)))
def test_a_rotation_vector_becomes_a_unit_quaternion_of_the_same_turn(rotation: np.ndarray) -> None:
    quaternion = quaternion_of(rotation)
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1, atol=1e-9)
    assert (quaternion[:, 0] >= 0).all()
    angle = np.linalg.norm(rotation, axis=1)
    np.testing.assert_allclose(np.abs(np.cos(angle / 2)), quaternion[:, 0], atol=1e-9)


@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32)))
def test_si_values_pass_unchanged(values: np.ndarray) -> None:
    assert to_si(values.astype(np.float64), "m").astype(np.float32).tobytes() == values.tobytes()


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_what_goes_into_the_store_comes_out(lengths: list[int], seed: int) -> None:
    record = Recording.random(*lengths, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        bring(Path(folder) / "s", write_v3(Path(folder) / "d", record))
        found = sorted(e.fields["tcp_pos"].tobytes() for e in both(Path(folder) / "s"))
    assert found == sorted(np.ascontiguousarray(o[:, :3]).tobytes() for o in record.observations)
