# SPDX-License-Identifier: Apache-2.0
"""Labels reach training as the store has them: opened by name, and unknown where nobody said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data.errors import FieldNotAllowedError
from client.data.fields import open_view
from client.learning.tensors import EpisodeArrays, frames_of
from tests.datasim import bring
from tests.recipesim import detecting, made

if TYPE_CHECKING:
    from pathlib import Path

ALLOW = frozenset({"joint_current", "grip_lost"})
MAP = """
table   = {delimiter = ",", decimal = "."}
clock   = {column = "t", unit = "s", kind = "controller"}
segment = {by = "column", column = "cycle", max_gap_s = 1.0, min_frames = 2}
signal  = [{field = "joint_current", columns = ["I{0..1}"], unit = "A", role = "observation"}]
label   = [{field = "grip_lost", column = "lost", values = {"True" = true, "False" = false}}]
embodiment = {class = "6r-arm", dof = 2, action_space = "none"}
"""
WORDS = ["False", "True", "", "True", "perhaps", "False"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    rows = [
        f"{0.1 * n:.1f},{0.1 * n + cycle:.2f},{0.5 - 0.03 * n * n:.3f},{cycle},{word}"
        for cycle in (1, 2)
        for n, word in enumerate(WORDS, start=6 * (cycle - 1))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["t,I0,I1,cycle,lost", *rows]) + "\n")
    (tmp_path / "m.toml").write_text(MAP)
    bring(tmp_path / "s", tmp_path / "a.csv", signal_map=tmp_path / "m.toml", allow=ALLOW)
    return tmp_path / "s"


def opened(store: Path, fields: frozenset[str], *, rate_hz: str | None = None) -> list[object]:
    view = open_view(
        store,
        "kita/pick",
        contract_fields=ALLOW,
        recipe_inputs=fields,
        local_allow=ALLOW,
        imitates=False,
        rate_hz=rate_hz,
    )
    return [*view.episodes("train"), *view.episodes("held-out")]


def test_a_label_is_opened_like_a_field_and_unknown_stays_unknown(store: Path) -> None:
    for one in opened(store, ALLOW):
        assert one.labels["grip_lost"].tolist() == [0, 1, -1, 1, -1, 0]
        assert set(one.fields) == {"joint_current"}
    for one in opened(store, frozenset({"joint_current"})):
        assert one.labels == {}
    with pytest.raises(FieldNotAllowedError):
        opened(store, ALLOW | {"outcome"})


def test_a_label_keeps_its_last_value_at_another_time_base(store: Path) -> None:
    for one in opened(store, ALLOW, rate_hz="20"):
        assert one.labels["grip_lost"].tolist() == [0, 0, 1, 1, -1, -1, 1, 1, -1, -1, 0]


def test_a_recipe_of_detection_trains_on_the_frames_whose_label_is_known(store: Path) -> None:
    recipe = made(detecting())
    for one in opened(store, frozenset(recipe.fields)):
        episode = EpisodeArrays(observation=one.fields, action=one.actions, labels=one.labels, unit_id=b"u")
        frames = frames_of(recipe, episode)
        assert frames.inputs.shape == (4, recipe.input_size)
        assert frames.targets[:, 0].tolist() == [0, 1, 1, 0]
        assert np.isfinite(frames.inputs).all()
