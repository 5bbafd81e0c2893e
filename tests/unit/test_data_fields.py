# SPDX-License-Identifier: Apache-2.0
"""The view opens what contract, recipe and node all name, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data.errors import FieldNotAllowedError, MissingColumnError, NoRightsError
from client.data.fields import open_view
from tests.datasim import ALLOW, RIGHTS, Recording, both, bring, tree, view, write_v3

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    bring(
        tmp_path / "s",
        write_v3(tmp_path / "d", Recording.random(7, 5, 9, 3), splits={"train": "0:3", "held-out": "3:4"}),
    )
    return tmp_path / "s"


def opened(root: Path, wanted: set[str], **changes: object) -> object:
    options = {
        "contract_fields": ALLOW,
        "local_allow": ALLOW,
        "recipe_inputs": wanted,
        "fields_clause": "fields-1",
    }
    return open_view(root, "kita/pick", **{**options, **changes})


@pytest.mark.parametrize(
    "name", ["joint_pos", "x_cycle_time", "stamp_ns", "observation.tcp_pos", "part_number"]
)
def test_a_field_outside_the_contract_is_refused_with_its_clause(root: Path, name: str) -> None:
    with pytest.raises(FieldNotAllowedError) as refusal:
        opened(root, {"tcp_pos", name})
    assert refusal.value.clause == "fields-1"
    assert (refusal.value.code, refusal.value.exit_code) == ("data.field-not-allowed", 4)


def test_a_field_outside_the_nodes_own_list_is_refused(root: Path) -> None:
    with pytest.raises(FieldNotAllowedError) as refusal:
        opened(root, {"tcp_pos", "gripper_cmd"}, local_allow=ALLOW - {"gripper_cmd"})
    assert refusal.value.clause == "local"


def test_an_allowed_field_that_was_not_recorded_is_a_missing_column(root: Path) -> None:
    with pytest.raises(MissingColumnError, match="object_pos"):
        opened(
            root, {"object_pos"}, contract_fields=ALLOW | {"object_pos"}, local_allow=ALLOW | {"object_pos"}
        )


def test_a_field_that_the_view_did_not_open_is_refused_on_the_episode(root: Path) -> None:
    episode = view(root, frozenset({"tcp_pos"})).episodes("train")[0]
    assert set(episode.fields) == {"tcp_pos"}
    assert "gripper_width" not in episode.fields
    with pytest.raises(FieldNotAllowedError, match="gripper_width"):
        _ = episode.fields["gripper_width"]
    with pytest.raises(FieldNotAllowedError, match="tcp_pose_delta"):
        _ = episode.actions["tcp_pose_delta"]


def test_another_contract_has_no_right_to_the_data(root: Path) -> None:
    assert opened(root, {"tcp_pos"}, contracts=(RIGHTS,))
    with pytest.raises(NoRightsError) as refusal:
        opened(root, {"tcp_pos"}, contracts=("sha256:" + "d" * 64,))
    assert refusal.value.exit_code == 4


def test_nothing_is_imported_without_an_allowed_field(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(5))
    with pytest.raises(FieldNotAllowedError) as refusal:
        bring(tmp_path / "s", source, allow=frozenset({"joint_pos"}))
    assert refusal.value.clause == "fields-1"
    with pytest.raises(FieldNotAllowedError, match="gripper_cmd"):
        bring(
            tmp_path / "s",
            source,
            allow=frozenset({"tcp_pos"}),
            required=frozenset({"tcp_pos", "gripper_cmd"}),
        )
    assert tree(tmp_path / "s") == {}


def test_arrays_are_float32_frames_by_values_and_episodes_have_no_order_of_time(
    root: Path, tmp_path: Path
) -> None:
    train = view(root).episodes("train")
    assert len(train) == 3
    for episode in train:
        assert len(episode.unit_id) == 32
        assert episode.fields["tcp_pos"].shape == (episode.length, 3)
        assert episode.fields["gripper_cmd"].shape == (episode.length, 1)
        assert episode.fields["tcp_pos"].dtype == np.float32
        assert episode.fields["tcp_pos"].flags.c_contiguous
    units = [e.unit_id for e in train]
    assert units == sorted(units)
    # the same episodes in another order of import
    record = Recording.random(7, 5, 9, 3)
    turned = Recording(record.observations[::-1], record.actions[::-1], record.tasks[::-1])
    bring(tmp_path / "t", write_v3(tmp_path / "e", turned))
    assert sorted(e.unit_id for e in both(tmp_path / "t")) == sorted(e.unit_id for e in both(root))


def test_an_action_that_is_also_observed_is_under_actions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,q,goal\n0,1,2\n1,3,4\n2,5,6\n")
    (tmp_path / "m.toml").write_text(
        'clock = {column = "t", unit = "s", kind = "controller"}\n'
        'signal = [{field = "joint_pos", columns = ["q"], unit = "rad", role = "observation"},\n'
        '  {field = "joint_pos", columns = ["goal"], unit = "rad", role = "action"}]\n'
    )
    fields = frozenset({"joint_pos"})
    bring(tmp_path / "s", tmp_path / "a.csv", signal_map=tmp_path / "m.toml", allow=fields)
    (episode,) = both(tmp_path / "s", fields)
    assert episode.fields["joint_pos"].tolist() == [[1], [3], [5]]
    assert episode.actions["joint_pos"].tolist() == [[2], [4], [6]]


def test_a_frame_with_a_missing_value_is_left_out(tmp_path: Path) -> None:
    rows = [f"{i},{'' if i == 7 else i}" for i in range(40)]
    (tmp_path / "a.csv").write_text("t,v\n" + "\n".join(rows) + "\n")
    (tmp_path / "m.toml").write_text(
        'clock = {column = "t", unit = "s", kind = "controller"}\n'
        'signal = [{field = "tool_current", columns = ["v"], unit = "A", role = "observation"}]\n'
    )
    fields = frozenset({"tool_current"})
    bring(tmp_path / "s", tmp_path / "a.csv", signal_map=tmp_path / "m.toml", allow=fields)
    (episode,) = both(tmp_path / "s", fields)
    assert episode.length == 39
    assert np.isfinite(episode.fields["tool_current"]).all()
