# SPDX-License-Identifier: Apache-2.0
"""Recordings as they come, damaged: each is refused by name, or its certificate says what and where; nothing is half there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.data.store import Store
from tests.bagsim import Arm, write_db3, write_mcap
from tests.datasetsim import COLUMNS, NAME, Done, Site, log, rows, write_map
from tests.datasim import Recording, edit_info, write_v3

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def findings(done: Done) -> list[tuple[str, str, str]]:
    return [(one["check"], one["state"], one["why"]) for one in done.data["findings"] if "check" in one]


def finding(done: Done, check: str) -> dict[str, Any]:
    return next(one for one in done.data["findings"] if one.get("check") == check)


def refused(site: Site, code: str, *words: object, name: str = NAME) -> Done:
    """The import is refused by this name, tells the next step, and the store is as it was."""
    before = site.stored()
    done = site.add(*words, name=name)  # type: ignore[arg-type]
    assert (done.code != 0, done.refused) == (True, code), done.text
    assert done.envelope["error"]["remedy"] in done.text
    assert site.stored() == before
    return done


@pytest.mark.parametrize("format_name", ["db3", "mcap"])
def test_a_bag_that_was_cut(tmp_path: Path, site: Site, format_name: str) -> None:
    said = Arm.moving(300).said()
    if format_name == "mcap":
        bag = tmp_path / "run.mcap"
        write_mcap(bag, said)
    else:
        write_db3(tmp_path / "bag", said)
        bag = next((tmp_path / "bag").glob("*.db3"))
    whole = bag.read_bytes()
    bag.write_bytes(whole[: len(whole) // 2])
    done = refused(site, "data.truncated", bag)
    assert "--accept-truncated" in done.text
    assert "complete messages" in done.text
    taken = site.add(bag, "--accept-truncated")
    assert (taken.code, taken.data["episodes"]) == (0, 1)
    assert 0 < taken.data["frames"] < 300
    assert ("truncated", 1) in [(one["code"], one["count"]) for one in taken.data["findings"]]
    assert site.add(bag, "--accept-truncated").data["duplicates"] == 1
    bag.write_bytes(whole)
    known = site.add(bag)
    assert (known.code, known.refused) == (4, "budget.lineage-unknown")
    assert (
        f"{NAME} (unit episode): {bag.name} rows 1 to {taken.data['frames']}"
        in known.envelope["error"]["found"]
    )
    assert f"iriai-node data remove --dir {site.home.root} {NAME}" in known.envelope["error"]["remedy"]
    assert site.run("remove", NAME).data["forgotten"] == 1
    assert site.add(bag).data["frames"] == 300


def test_a_log_with_bare_carriage_returns_is_read(tmp_path: Path, site: Site) -> None:
    plain, bare = log(tmp_path / "a.csv"), log(tmp_path / "cr.csv", end="\r")
    signal_map = write_map(tmp_path)
    assert site.add(plain, "--map", signal_map).data["frames"] == 120
    same = site.add(bare, "--map", signal_map)
    assert (same.data["episodes_added"], same.data["duplicates"]) == (0, 1)


def test_decimal_commas_are_said_in_the_map_and_never_guessed(tmp_path: Path, site: Site) -> None:
    source = log(tmp_path / "a.csv", delimiter=";", decimal=",")
    done = refused(site, "data.decimal-mismatch", source, "--map", write_map(tmp_path, delimiter=";"))
    assert "a.csv, column q0, row 1" in done.text
    done = site.add(source, "--map", write_map(tmp_path, delimiter=";", decimal=","))
    assert (done.code, done.data["frames"]) == (0, 120)


def test_a_column_that_the_map_names_is_missing(tmp_path: Path, site: Site) -> None:
    source = log(tmp_path / "a.csv", rows()[:, :-1], columns=COLUMNS[:-1])
    assert "v5" in refused(site, "data.missing-column", source, "--map", write_map(tmp_path)).text


def test_values_that_are_missing_often_exclude_the_episode_with_the_place(tmp_path: Path, site: Site) -> None:
    values = rows()
    values[40:60, 3] = np.nan
    done = site.add(log(tmp_path / "a.csv", values), "--map", write_map(tmp_path))
    assert (done.code, done.data["certificate"]["verdict"]) == (0, "refused")
    assert ("schema", "FAIL", "missing") in findings(done)
    place = finding(done, "schema")["place"]
    assert (place["column"], place["part"], place["first"], place["last"]) == (
        "observation.joint_pos",
        2,
        40,
        60,
    )
    assert "observation.joint_pos[2], frames 40 to 59" in done.text


@pytest.mark.parametrize(("change", "why"), [(100, "rates"), (40, "rates"), (160, "gaps")])
def test_two_rates_in_one_log_fail_the_check_of_time_with_the_place(
    tmp_path: Path, site: Site, change: int, why: str
) -> None:
    values = rows(200)
    values[change:, 0] = values[change - 1, 0] + 0.05 * np.arange(1, 201 - change)
    done = site.add(log(tmp_path / "a.csv", values), "--map", write_map(tmp_path))
    assert ("time", "FAIL", why) in findings(done)
    assert done.data["certificate"]["verdict"] == "refused"
    assert finding(done, "time")["place"]["first"] == change - 1


def test_a_row_that_comes_late_once_is_no_second_rate(tmp_path: Path, site: Site) -> None:
    values = rows(200)
    values[80, 0] += 0.015  # one long step, one short
    done = site.add(log(tmp_path / "a.csv", values), "--map", write_map(tmp_path))
    assert (done.code, done.data["certificate"]["states"]["time"]) == (0, "PASS")


def test_a_clock_that_jumps_back_cuts_and_one_that_jumps_ahead_is_found(tmp_path: Path, site: Site) -> None:
    back = rows(200)
    back[100:, 0] -= 3.0
    signal_map = write_map(tmp_path)
    done = site.add(log(tmp_path / "back.csv", back), "--map", signal_map, name="kita/back")
    assert done.data["episodes"] == 2
    assert [one.meta.length for one in Store(site.home.data).episodes("kita/back")] == [100, 100]
    ahead = rows(200, seed=1)
    for row in (50, 90, 130):
        ahead[row:, 0] += 0.2  # less than max_gap_s: no cut
    done = site.add(log(tmp_path / "ahead.csv", ahead), "--map", signal_map, name="kita/ahead")
    found = finding(done, "time")
    assert (found["state"], found["why"], found["figures"]["gaps"]) == ("FAIL", "gaps", "3")
    assert done.data["certificate"]["verdict"] == "refused"
    far = rows(200, seed=2)
    far[120:, 0] += 60.0
    done = site.add(log(tmp_path / "far.csv", far), "--map", signal_map, name="kita/far")
    assert [one.meta.length for one in Store(site.home.data).episodes("kita/far")] == [120, 80]


@pytest.mark.parametrize("word", ["NaN", "inf", "-inf"])
def test_a_number_that_is_none_refuses_with_its_row(tmp_path: Path, site: Site, word: str) -> None:
    source = log(tmp_path / "a.csv")
    lines = source.read_text().splitlines()
    cells = lines[50].split(",")
    cells[3] = word
    lines[50] = ",".join(cells)
    source.write_text("\n".join(lines) + "\n")
    assert "column q2, row 50" in refused(site, "data.not-finite", source, "--map", write_map(tmp_path)).text


def test_a_pointer_instead_of_the_file(tmp_path: Path, site: Site) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123456\n"
    for name in ("a.csv", "a.db3", "a.mcap", "a.hdf5", "a.parquet"):
        (tmp_path / name).write_bytes(pointer)
        done = refused(site, "data.pointer-file", tmp_path / name, "--map", write_map(tmp_path))
        assert "git lfs pull" in done.text
        assert site.run("inspect", tmp_path / name).refused == "data.pointer-file"


def test_one_episode_is_stored_and_what_needs_several_is_undetermined(tmp_path: Path, site: Site) -> None:
    done = site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    states = done.data["certificate"]["states"]
    assert (done.data["episodes"], states["duplicates"], states["lengths"]) == (
        1,
        "UNDETERMINED",
        "UNDETERMINED",
    )
    assert "one-episode" in [why for _, _, why in findings(done)]


def test_another_robot_is_refused(tmp_path: Path, site: Site) -> None:
    site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    other = log(tmp_path / "b.csv", rows(seed=5))
    torch = write_map(tmp_path, robot="6r-arm+welding-torch")
    refused(site, "data.shape-changed", other, "--map", torch)
    seven = write_v3(tmp_path / "v3", Recording.random(20, 20))
    refused(site, "data.shape-changed", seven)


def test_video_without_a_consent_is_refused_and_never_stored(tmp_path: Path, site: Site) -> None:
    folder = write_v3(tmp_path / "v3", Recording.random(30, 30))
    info = json.loads((folder / "meta/info.json").read_text())
    video = {"dtype": "video", "shape": [480, 640, 3], "names": None}
    path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    edit_info(folder, video_path=path, features={**info["features"], "observation.images.top": video})
    done = refused(site, "data.personal", folder)
    assert (done.code, "--consent ID" in done.text) == (4, True)
    taken = site.add(folder, "--consent", "works-council-12")
    assert (taken.code, taken.data["episodes"]) == (0, 2)
    assert not [name for name in site.stored() if "video" in name or name.endswith(".mp4")]


def test_degrees_that_are_declared_as_radians_are_found_by_the_limits(tmp_path: Path, site: Site) -> None:
    values = rows()
    values[:, 1:7] *= 57.3
    done = site.add(log(tmp_path / "a.csv", values), "--map", write_map(tmp_path))
    assert ("limits", "FAIL", "beyond-limit") in findings(done)
    assert "wrong unit" in done.text
    right = site.add(tmp_path / "a.csv", "--map", write_map(tmp_path, unit="deg"))
    assert (right.code, right.data["certificate"]["verdict"]) == (0, "admitted")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def header_alone(path: Path) -> None:
    path.write_text(",".join(COLUMNS) + "\n")


def ragged(path: Path) -> None:
    log(path)
    path.write_text(path.read_text() + "1,2,3\n")


def words(path: Path) -> None:
    log(path)
    path.write_text(path.read_text().replace("10.020000", "ten"))


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


@pytest.mark.parametrize("damage", [empty, header_alone, ragged, words, binary], ids=lambda one: one.__name__)
def test_other_damage_of_a_log_is_refused_by_name(
    tmp_path: Path, site: Site, damage: Callable[[Path], None]
) -> None:
    site.add(log(tmp_path / "good.csv", rows(seed=8)), "--map", write_map(tmp_path))
    before = site.stored()
    damage(tmp_path / "a.csv")
    done = site.add(tmp_path / "a.csv", "--map", write_map(tmp_path))
    assert done.code == 3, done.text
    assert done.refused.startswith("data.")
    assert done.envelope["error"]["found"]
    assert site.stored() == before


ONE = 'signal = [{field = "joint_pos", columns = ["q0"], unit = "rad", role = "observation"}]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('signal = [{field = "joint_pos",\n  columns = ["q0"]}]\n', "stays on one line"),
        ("clock = {rate_hz = 20}\n", "every map needs"),
        ("clock = {rate_hz = 20}\nsignal = []\n", "at least one entry"),
        ("signals = []\n" + ONE, "keys that a signal map knows"),
        ('clock = {rate_hz = "?"}\nsignal = []\n', "line 1"),
    ],
)
def test_a_wrong_map_is_refused_in_words_that_say_what_to_write(
    tmp_path: Path, site: Site, text: str, said: str
) -> None:
    (tmp_path / "map.toml").write_text(text)
    done = refused(site, "data.map-invalid", log(tmp_path / "a.csv"), "--map", tmp_path / "map.toml")
    assert said in done.text
    assert "Input should" not in done.text
