# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from broker.federation.checkpoints import Checkpoint, Checkpoints, ModelFiles, model_bytes, model_digest
from broker.federation.errors import CheckpointError


def checkpoint(number, size=5):
    weights = np.arange(size, dtype=np.float64) + number
    return Checkpoint(round=number, weights=weights, state={"first": weights * 2, "second": weights * 3})


def test_a_run_goes_on_with_exactly_what_was_saved(tmp_path):
    store = Checkpoints(tmp_path / "run")
    store.save(checkpoint(3))
    found = store.load(3, size=5)
    assert found.weights.tolist() == checkpoint(3).weights.tolist()
    assert {name: array.tolist() for name, array in found.state.items()} == {
        name: array.tolist() for name, array in checkpoint(3).state.items()
    }


def test_a_checkpoint_of_another_model_or_cut_short_is_refused(tmp_path):
    store = Checkpoints(tmp_path)
    store.save(checkpoint(1))
    with pytest.raises(CheckpointError):
        store.load(1, size=6)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError):
        store.load(1, size=5)
    with pytest.raises(CheckpointError):
        store.load(2, size=5)


def test_only_what_a_restart_can_need_is_kept(tmp_path):
    store = Checkpoints(tmp_path)
    for number in range(1, 5):
        store.save(checkpoint(number))
        store.prune(number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-000003.npz", "round-000004.npz"]


def test_a_model_file_that_was_changed_is_not_handed_out(tmp_path):
    files = ModelFiles(tmp_path)
    weights = np.array([1.0, 2.0])
    name = files.save(model_bytes(weights))
    assert name == model_digest(weights)
    assert files.read(name) == model_bytes(weights)
    files.path(name).write_bytes(b"other")
    with pytest.raises(CheckpointError):
        files.read(name)
