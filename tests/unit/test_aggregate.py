# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from broker.federation.aggregate import Fold, inspect
from broker.federation.engine import FilePart, TensorHandle
from policies.errors import InvariantError
from policies.exchange import tensor_spec


def handle(values, parts=1):
    array = np.asarray(values, dtype=np.float32)
    data = array.tobytes()
    cut = -(-len(array) // parts) * 4
    views = [memoryview(data)[at : at + cut] for at in range(0, len(data), cut)]
    return TensorHandle(spec=tensor_spec(array), parts=views)


def test_an_update_is_measured_over_all_its_parts():
    found = inspect(handle([3.0, 0.0, 4.0], parts=3))
    assert found.finite
    assert found.norm == pytest.approx(5.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_condemns_the_update(bad):
    found = inspect(handle([1.0, 2.0, bad, 3.0], parts=2))
    assert not found.finite
    assert found.norm == math.inf


def test_the_largest_float32_does_not_overflow_the_norm():
    huge = float(np.finfo(np.float32).max)
    assert math.isfinite(inspect(handle([huge, huge])).norm)


def test_the_mean_uses_the_weights_of_the_contract_only():
    fold = Fold(4)
    fold.add(handle([1, 2, 3, 4], parts=2), weight=3.0)
    fold.add(handle([5, 6, 7, 8]), weight=1.0)
    assert fold.mean() == pytest.approx([2, 3, 4, 5])


def test_a_part_on_disk_is_read_behind_its_frame(tmp_path):
    array = np.array([1.0, 2.0], dtype=np.float32)
    path = tmp_path / "part"
    path.write_bytes(b"frame" + array.tobytes())
    fold = Fold(2)
    fold.add(TensorHandle(spec=tensor_spec(array), parts=[FilePart(path, 5)]), weight=1.0)
    assert fold.mean().tolist() == [1.0, 2.0]


def test_an_update_of_another_length_never_enters():
    fold = Fold(3)
    with pytest.raises(InvariantError):
        fold.add(handle([1, 2]), weight=1.0)
