# SPDX-License-Identifier: Apache-2.0
"""A descriptor says what members agreed to know, in buckets; every other key or word is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from client.data import describe, seal, task_words
from client.data.errors import MapInvalidError
from policies.encoding import canonical
from policies.errors import SignatureInvalidError
from policies.identity import SigningKey
from policies.messages import (
    DESCRIPTOR_TYPE,
    Descriptor,
    DescriptorKeyError,
    episodes_bucket,
    open_descriptor,
    rate_bucket,
)
from policies.signing import Envelope
from tests.datasim import ALLOW, NODE, Recording, SimClock, bring, edit_info, write_v3

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = "sha256:" + "1" * 64
KEY, OTHER = SigningKey.from_seed(b"\x07" * 32), SigningKey.from_seed(b"\x08" * 32)


def described(tmp_path: Path, name: str, record: Recording, **changes: Any) -> Descriptor:
    bring(tmp_path / name, write_v3(tmp_path / f"{name}-source", record))
    options = {
        "node": NODE,
        "allow": ALLOW,
        "clock": SimClock(),
        "recipes": {RECIPE: 10},
        "tasks": ["stack", "pick-place"],
    }
    return describe(tmp_path / name, "kita/pick", **{**options, **changes})


def test_it_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    found = described(tmp_path, "s", Recording.random(*([5] * 40)))
    assert json.loads(found.canonical) == {
        "schema": "iriai-descriptor/1",
        "node": NODE,
        "dataset": "kita/pick",
        "embodiment_class": "7r-arm+parallel-gripper",
        "dof": 7,
        "action_space": "ee-delta",
        "rate_hz": "50-99",
        "episodes": "30-99",
        "tasks": ["pick-place", "stack"],
        "fields": sorted(ALLOW),
        "labels": [],
        "period": "2026-H2",
        "fits": [{"recipe": RECIPE, "minimum_met": True}],
        "quality": None,
        "seed_set": None,
        "judge_root": None,
    }


def test_data_sets_that_differ_a_little_have_equal_descriptors(tmp_path: Path) -> None:
    one = described(tmp_path, "s", Recording.random(*([5] * 40)))
    other = described(tmp_path, "t", Recording.random(*([6] * 41), seed=9))
    assert one.canonical == other.canonical


def test_fields_are_cut_to_the_allow_list_before_they_are_written(tmp_path: Path) -> None:
    found = described(tmp_path, "s", Recording.random(5), allow=frozenset({"tcp_pos"}))
    assert found.fields == ["tcp_pos"]


def test_no_word_of_a_recording_becomes_a_task_by_itself(tmp_path: Path) -> None:
    record = Recording.random(5, 6)
    record.tasks = ["Weld part 4711 for Nord", "pick-place"]
    assert described(tmp_path, "s", record, tasks=()).tasks == []
    assert task_words(tmp_path / "s", "kita/pick") == {"pick-place"}
    assert describe(
        tmp_path / "s", "kita/pick", node=NODE, allow=ALLOW, clock=SimClock(), tasks=["weld"]
    ).tasks == ["weld"]


def test_a_robot_of_no_known_class_must_be_declared(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(5))
    edit_info(source, robot_type="so100 serial 4711")
    bring(tmp_path / "s", source)
    with pytest.raises(MapInvalidError, match="embodiment"):
        describe(tmp_path / "s", "kita/pick", node=NODE, allow=ALLOW, clock=SimClock())
    robot = {"class": "6r-arm", "dof": 6, "action_space": "ee-delta"}
    found = describe(tmp_path / "s", "kita/pick", node=NODE, allow=ALLOW, clock=SimClock(), embodiment=robot)
    assert found.embodiment_class == "6r-arm"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("episode_count", 250),
        ("episodes", "251"),
        ("episodes", 250),
        ("rate_hz", "80"),
        ("embodiment_class", "serial-4711"),
        ("fields", ["part_number"]),
        ("fields", ["x_cycle"]),
        ("fields", ["tcp_pos", "gripper_width"]),
        ("tasks", ["Weld part 4711"]),
        ("period", "2026-11"),
        ("dof", "6"),
        ("dof", True),
        ("quality", "sha256:1"),
        ("fits", [{"recipe": RECIPE, "minimum_met": True, "have": 250}]),
        ("schema", "iriai-descriptor/2"),
    ],
)
def test_an_unknown_key_or_a_finer_word_is_refused(tmp_path: Path, change: str, value: Any) -> None:
    document = json.loads(described(tmp_path, "s", Recording.random(5)).canonical)
    with pytest.raises(DescriptorKeyError) as refusal:
        Descriptor.parse({**document, change: value})
    assert (refusal.value.code, refusal.value.exit_code) == ("data.descriptor-key", 4)
    del document["judge_root"]
    with pytest.raises(DescriptorKeyError, match="judge_root"):
        Descriptor.parse(document)


def test_it_travels_signed_by_its_node(tmp_path: Path) -> None:
    found = described(tmp_path, "s", Recording.random(5))
    envelope = seal(found, KEY)
    assert envelope.payload_type == DESCRIPTOR_TYPE
    assert open_descriptor(envelope, KEY.public) == found
    with pytest.raises(SignatureInvalidError):
        open_descriptor(envelope, OTHER.public)
    more = canonical({**json.loads(found.canonical), "episode_count": 250})
    with pytest.raises(DescriptorKeyError, match="episode_count"):
        open_descriptor(Envelope.seal(more, DESCRIPTOR_TYPE, KEY), KEY.public)


def test_bucket_edges() -> None:
    assert [episodes_bucket(n) for n in (0, 9, 10, 29, 30, 299, 300, 999, 1000)] == [
        *("<10", "<10", "10-29", "10-29", "30-99", "100-299", "300-999", "300-999", ">=1000"),
    ]
    assert [rate_bucket(r) for r in (1, 19.9, 20, 80, 125, 500)] == [
        "<20",
        "<20",
        "20-49",
        "50-99",
        "100-199",
        ">=500",
    ]
