# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import frames
from policies.frames import array_frame, chunk_order, frame, object_id, split, unframe

CHUNK = 64


@given(
    count=st.one_of(
        st.integers(0, 200), st.sampled_from([CHUNK // 4, CHUNK // 4 - 1, CHUNK // 4 + 1, CHUNK])
    ),
    dtype=st.sampled_from(["float32", "uint32"]),
    zeros=st.booleans(),
)
def test_a_tensor_is_the_same_after_its_frames(count: int, dtype: str, zeros: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "FLEET_CHUNK_BYTES", CHUNK)
        vector = np.zeros(count, dtype) if zeros else np.arange(count).astype(dtype)
        chunks = [frame("ArrayChunk", (), part) for part in split(memoryview(vector.tobytes()))]
        stored = {object_id(chunk): chunk for chunk in chunks}
        array = array_frame(dtype, vector.shape, [object_id(chunk) for chunk in chunks])
    back = b"".join(stored[name][unframe(stored[name]).offset :] for name in chunk_order(array))
    assert np.array_equal(np.frombuffer(back, dtype), vector)
    if zeros and count > 2 * CHUNK // 4:
        assert len(stored) < len(chunks)
