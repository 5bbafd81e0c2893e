# SPDX-License-Identifier: Apache-2.0
"""From an episode back to its file and rows, and what an import warns of; planted: a clock in the wrong unit, two maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.datasetsim import COLUMNS, NAME, CliRunner, Done, Site, app, log, rows, write_map
from tests.datasim import Recording, write_v3

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def codes(done: Done) -> list[str]:
    return [one["code"] for one in done.data["findings"]]


def frozen_at(first: int, last: int, *, seed: int = 0) -> np.ndarray:
    values = rows(seed=seed)
    values[first:last, 3] = np.nan
    return values


def test_an_episode_is_traced_to_its_file_its_rows_and_its_time(tmp_path: Path, site: Site) -> None:
    (tmp_path / "logs").mkdir()
    values = np.vstack([rows(60), rows(60, seed=1) + np.eye(1, 13)[0] * 100])  # a gap: two episodes
    log(tmp_path / "logs/shift2.csv", values)
    log(tmp_path / "logs/shift3.csv", rows(seed=2))
    site.add(tmp_path / "logs", "--map", write_map(tmp_path))
    shown = site.run("show", NAME)
    places = [(one["file"], one["first_row"], one["last_row"]) for one in shown.data["episode_rows"]]
    assert places == [("shift2.csv", 1, 60), ("shift2.csv", 61, 120), ("shift3.csv", 1, 120)]
    assert [one["start"] for one in shown.data["episode_rows"]] == ["10.000 s", "110.000 s", "10.000 s"]
    assert "shift2.csv" in shown.text
    assert "61-120" in shown.text
    assert sorted(one["file"] for one in shown.data["sources"]) == ["shift2.csv", "shift3.csv"]


def test_a_finding_names_the_rows_of_the_file(tmp_path: Path, site: Site) -> None:
    values = frozen_at(40, 60)
    done = site.add(log(tmp_path / "shift2.csv", values), "--map", write_map(tmp_path))
    (found,) = [one for one in done.data["findings"] if one["code"] == "schema.missing"]
    assert found["source"] == {"file": "shift2.csv", "first_row": 41, "last_row": 60}
    assert "shift2.csv rows 41 to 60" in done.text


def test_names_of_files_go_with_the_data_set(tmp_path: Path, site: Site) -> None:
    site.add(log(tmp_path / "Customer-4711.csv"), "--map", write_map(tmp_path))
    assert [one for one in site.stored().values() if b"Customer-4711" in one]
    site.run("remove", NAME)
    assert not [one for one in site.stored().values() if b"Customer-4711" in one]


def test_help_shows_brackets_as_they_are(site: Site) -> None:
    text = CliRunner().invoke(app, ["data", "exclude", "--help"]).stdout
    assert "[required]" in text
    assert "\\[" not in text


def test_without_a_name_the_digest_stands_and_a_folder_of_a_format_goes_by_its_own(
    tmp_path: Path, site: Site
) -> None:
    site.add(write_v3(tmp_path / "v3", Recording.random(30, 30)), name="kita/v3")
    assert {one["file"] for one in site.run("show", "kita/v3").data["episode_rows"]} == {"v3"}
    (site.home.data / "quality/kita+v3/sources.json").unlink()
    assert site.run("show", "kita/v3").data["episode_rows"][0]["file"].startswith("sha256:")


@pytest.mark.parametrize(("unit", "shown"), [("ms", True), ("s", False)])
def test_a_clock_in_the_wrong_unit_is_named_with_its_line(
    tmp_path: Path, site: Site, unit: str, shown: bool
) -> None:
    signal_map = write_map(tmp_path)
    signal_map.write_text(signal_map.read_text().replace('unit = "s", kind', f'unit = "{unit}", kind'))
    done = site.add(log(tmp_path / "a.csv"), "--map", signal_map)
    assert done.code == 0, done.text
    assert ("rate-implausible" in codes(done)) is shown
    assert ("50000 rows a second by the clock" in done.text) is shown
    assert ("map.toml line 3: clock " in done.text) is shown


def test_another_map_in_one_data_set_is_warned_of_and_listed(tmp_path: Path, site: Site) -> None:
    first = site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    assert "several-maps" not in codes(first)
    second = site.add(log(tmp_path / "b.csv", rows(seed=3)), "--map", write_map(tmp_path, unit="deg"))
    assert "several-maps" in codes(second)
    assert "do both say the same units" in second.text
    shown = site.run("show", NAME)
    assert sorted(shown.data["signal_maps"].values()) == [1, 1]
    assert "maps        2: " in shown.text


def test_an_import_that_leaves_nothing_to_train_on_warns(tmp_path: Path, site: Site) -> None:
    done = site.add(log(tmp_path / "a.csv", frozen_at(40, 60)), "--map", write_map(tmp_path))
    assert "no-training-episodes" in codes(done)
    assert "no episode to train on" in done.text


def test_a_field_of_another_size_is_named_with_both_sizes(tmp_path: Path, site: Site) -> None:
    site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    other = write_map(tmp_path)
    other.write_text(other.read_text().replace('"v{0..5}"', '"v{0..5}", "v6"'))
    wide = log(tmp_path / "b.csv", np.hstack([rows(seed=5), rows(seed=6)[:, :1]]), columns=(*COLUMNS, "v6"))
    done = site.add(wide, "--map", other)
    assert done.refused == "data.shape-changed"
    assert "observation.joint_vel as kita/log has it: 6 values a frame" in done.text
    assert "7 values a frame" in done.text


def test_who_accepted_is_said_and_accepting_again_says_who_did(tmp_path: Path, site: Site) -> None:
    (tmp_path / "logs").mkdir()
    for number in range(12):
        log(tmp_path / f"logs/{number:02d}.csv", rows(seed=number + 1))
    log(tmp_path / "logs/long.csv", rows(900, seed=99))
    done = site.add(tmp_path / "logs", "--map", write_map(tmp_path))
    assert f" {NAME} ep_" in done.text
    site.run("check", NAME, "--accept", "10", "--by", "A. Sato")
    assert "accepted   lengths by A. Sato on " in site.run("check", NAME).text
    again = site.run("check", NAME, "--accept", "lengths", "--by", "B. Mori")
    assert (again.code, "accepted before: by A. Sato" in again.text) == (0, True)
    found = [one for one in again.data["findings"] if one["code"] == "lengths.outside-fences"]
    assert [one["accepted_by"] for one in found] == ["A. Sato"]
    assert "by A. Sato" in site.run("show", NAME).text


def test_labels_survive_an_export_and_the_import_of_what_was_exported(tmp_path: Path, site: Site) -> None:
    signal_map = write_map(tmp_path)
    label = (
        'label = [{field = "grip_lost", column = "grip", values = {"1.000000" = true, "0.000000" = false}}]\n'
    )
    signal_map.write_text(label + signal_map.read_text())
    values = np.hstack([rows(), (np.arange(120) > 100)[:, None]])
    site.add(log(tmp_path / "a.csv", values, columns=(*COLUMNS, "grip")), "--map", signal_map)
    site.run("export", NAME, "--lerobot", tmp_path / "out")
    other = Site(tmp_path / "other")
    assert other.add(tmp_path / "out").code == 0
    assert other.run("show", NAME).data["labels"] == ["grip_lost"]


@pytest.mark.parametrize("words", [("check", NAME, "--page"), ("export", NAME, "--lerobot")])
def test_an_output_whose_folder_is_not_there_is_refused_by_name(
    tmp_path: Path, site: Site, words: tuple[str, ...]
) -> None:
    source = log(tmp_path / "a.csv")
    site.add(source, "--map", write_map(tmp_path))
    for line in (words, ("inspect", str(source), "--out")):
        done = site.run(*line, tmp_path / "none/there")
        assert (done.code, done.refused) == (3, "node.not-found")
        assert f"mkdir -p {tmp_path / 'none'}" in done.text
    page = site.run("check", NAME, "--page", tmp_path)
    assert (page.code, page.refused) == (3, "node.file-exists")


def test_inspecting_says_which_files_are_damaged_and_what_it_does_not_read(
    tmp_path: Path, site: Site
) -> None:
    folder = tmp_path / "shift"
    (folder / "old").mkdir(parents=True)
    whole = log(folder / "a.csv").read_text()
    (folder / "b.csv").write_text("")
    (folder / "c.csv").write_text(",".join(COLUMNS) + "\n")
    (folder / "d.csv").write_text(whole[: len(whole) // 2])
    lines = whole.splitlines()
    (folder / "e.csv").write_text(
        "\n".join([*lines[:10], lines[10].replace(",", ',"', 1), *lines[11:]]) + "\n"
    )
    (folder / "plan.xlsx").write_bytes(b"PK")
    done = site.run("inspect", folder)
    assert [one.split(":")[0] for one in done.data["troubles"]] == ["b.csv", "c.csv", "d.csv", "e.csv"]
    assert "d.csv: was cut" in done.text
    assert "e.csv: a quote in row 10" in done.text
    assert done.data["not_read"] == ["old/", "plan.xlsx"]
    assert "not read   old/, plan.xlsx" in done.text


def test_commands_that_come_next_can_be_pasted(tmp_path: Path, site: Site) -> None:
    source = log(tmp_path / "shift 2.csv")
    asked = site.run("inspect", source).text.splitlines()
    here = f"--dir {site.home.root}"
    assert f"next       iriai-node data inspect {here} '{source}' --out map.toml" in asked
    done = site.run("inspect", source, "--out", tmp_path / "my map.toml").text.splitlines()
    assert (
        f"           iriai-node data add {here} '{source}' --dataset NAME --map '{tmp_path / 'my map.toml'}'"
        in done
    )


def test_a_stopped_import_says_that_the_same_command_goes_on(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.data import importing

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importing.Intake, "take", stopped)
    done = site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    assert (done.code, "The same command goes on" in done.text) == (130, True)
    monkeypatch.undo()
    assert site.add(tmp_path / "a.csv", "--map", tmp_path / "map.toml").data["episodes_added"] == 1


def test_the_list_shows_the_word_of_the_certificate(tmp_path: Path, site: Site) -> None:
    site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    listed = site.run("list")
    assert listed.data["datasets"][0]["certificate"] == "admitted"
    assert "admitted" in listed.text
