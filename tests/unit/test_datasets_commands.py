# SPDX-License-Identifier: Apache-2.0
"""``iriai-node data`` at a node that joined nobody: what a person types, sees and gets back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from client.answers import plain
from client.data.store import Store
from client.datasets.published import Published, save_published
from tests.datasetsim import COLUMNS, NAME, Site, log, rows, write_map
from tests.datasim import Recording, write_v3
from tests.servesim import MODEL

if TYPE_CHECKING:
    from pathlib import Path

SCREEN = (40, 200)  # lines, and characters of the longest that is no list


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def logs(folder: Path, count: int = 12) -> Path:
    """A folder of logs, one attempt each."""
    folder.mkdir()
    for number in range(count):
        log(folder / f"{number:02d}.csv", rows(seed=number + 1))
    return folder


def test_adding_says_in_fixed_names_what_a_program_needs(tmp_path: Path, site: Site) -> None:
    done = site.add(logs(tmp_path / "logs"), "--map", write_map(tmp_path))
    assert done.code == 0, done.text
    assert (done.data["dataset_id"], done.data["episodes"], done.data["frames"]) == (NAME, 12, 12 * 120)
    assert done.data["certificate"]["verdict"] == "admitted"
    assert done.data["findings"] == []
    assert (done.data["contract"], done.data["published"]) == (None, None)
    assert "add it again under a contract" in done.text


def test_adding_again_changes_nothing_and_says_so(tmp_path: Path, site: Site) -> None:
    source, signal_map = logs(tmp_path / "logs"), write_map(tmp_path)
    first = site.add(source, "--map", signal_map)
    before = site.stored()
    again = site.add(source, "--map", signal_map)
    assert (again.code, again.data["episodes_added"], again.data["duplicates"]) == (0, 0, 12)
    assert "12 were there" in again.text
    assert again.data["certificate"] == first.data["certificate"]
    assert site.stored() == before


def test_what_is_refused_leaves_nothing(tmp_path: Path, site: Site) -> None:
    signal_map = write_map(tmp_path)
    bad = log(tmp_path / "bad.csv", rows()[:, :-1], columns=COLUMNS[:-1])
    done = site.add(bad, "--map", signal_map)
    assert (done.code, done.refused) == (3, "data.missing-column")
    assert site.stored() == {}
    site.add(log(tmp_path / "good.csv"), "--map", signal_map)
    before = site.stored()
    assert site.add(bad, "--map", signal_map).refused == "data.missing-column"
    assert site.stored() == before


def test_limits_that_are_given_later_count_and_another_robot_does_not_come_in(
    tmp_path: Path, site: Site
) -> None:
    source = log(tmp_path / "a.csv")
    assert site.add(source, "--map", write_map(tmp_path)).data["certificate"]["states"]["limits"] == "PASS"
    tight = write_map(tmp_path, limits=", ".join(['["-0.1", "0.1"]'] * 6))
    done = site.add(source, "--map", tight)
    assert done.data["episodes_added"] == 0
    assert done.data["certificate"]["verdict"] == "refused"
    assert ("limits", "FAIL") in [(one["check"], one["state"]) for one in done.data["findings"]]
    before = site.stored()
    other = site.add(source, "--map", write_map(tmp_path, robot="6r-arm+welding-torch"))
    assert (other.code, other.refused) == (3, "data.shape-changed")
    assert "6r-arm+welding-torch" in other.text
    assert site.stored() == before


def test_list_and_show_tell_what_is_here_and_remove_takes_it_away(tmp_path: Path, site: Site) -> None:
    empty = site.run("list")
    assert (empty.code, empty.data["datasets"]) == (0, [])
    assert "data add" in empty.text
    site.add(logs(tmp_path / "logs"), "--map", write_map(tmp_path))
    (row,) = site.run("list").data["datasets"]
    assert (row["dataset_id"], row["episodes"], row["frames"], row["excluded"]) == (NAME, 12, 1440, 0)
    shown = site.run("show", NAME)
    assert shown.data["embodiment"]["class"] == "6r-arm"
    assert (shown.data["episodes"], shown.data["frames"], shown.data["findings"]) == (12, 1440, [])
    assert len(shown.data["episode_rows"]) == 12
    assert shown.data["certificate"]["verdict"] == "admitted"
    gone = {"dataset_id": NAME, "removed": True, "forgotten": 12, "kept": {}}
    assert site.run("remove", NAME).data == gone
    assert site.run("list").data["datasets"] == []
    for words in (("show", NAME), ("check", NAME), ("remove", NAME)):
        gone = site.run(*words)
        assert (gone.code, gone.refused) == (3, "data.dataset-unknown")


def test_a_check_that_asks_a_person_ends_with_3_until_the_person_answers(tmp_path: Path, site: Site) -> None:
    folder = logs(tmp_path / "logs")
    log(folder / "long.csv", rows(900, seed=99))
    done = site.add(folder, "--map", write_map(tmp_path))
    assert (done.code, done.data["certificate"]["verdict"]) == (0, "refused")
    assert f" {NAME} --accept 10" in done.text
    refused = site.run("check", NAME, "--page", tmp_path / "page.html")
    assert (refused.code, refused.data["certificate"]["states"]["lengths"]) == (3, "FAIL")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    nobody = site.run("check", NAME, "--accept", "10")
    assert (nobody.code, nobody.refused) == (3, "data.refused")
    save_published(site.home, NAME, Published(content=refused.data["certificate"]["digest"]))  # others saw it
    wrong = site.run("check", NAME, "--accept", "9", "--by", "A. Sato")
    assert (wrong.code, wrong.refused) == (3, "data.refused")
    accepted = site.run("check", NAME, "--accept", "10", "--by", "A. Sato")
    assert (accepted.code, accepted.data["certificate"]["verdict"]) == (0, "admitted")
    again = f'iriai-node data publish --dir {site.home.root} {NAME} --again "REASON"'
    assert again in accepted.text
    once_more = site.run("check", NAME)
    assert once_more.data["certificate"] == accepted.data["certificate"]
    assert again not in once_more.text  # nothing new was signed


def test_no_command_is_longer_than_a_screen_and_all_name_the_next_step(tmp_path: Path, site: Site) -> None:
    folder, signal_map = (
        logs(tmp_path / "logs", 45),
        write_map(tmp_path, limits=", ".join(['["-0.5", "0.5"]'] * 6)),
    )
    texts = [
        site.run("inspect", folder).text,
        site.add(folder, "--map", signal_map).text,
        site.run("show", NAME).text,
        site.run("check", NAME).text,
        site.run("list").text,
    ]
    for text in (one.replace(str(tmp_path), "tmp") for one in texts):  # a path is as long as it is
        lines = text.splitlines()
        assert len(lines) <= SCREEN[0], text
        assert all(len(line) <= SCREEN[1] or "[" in line for line in lines), text
        assert plain(text.replace("\n", "")) == text.replace("\n", "")
    assert "iriai-node data inspect" in texts[0]
    assert "mend recording or signal map" in texts[1]


def test_an_exported_data_set_has_statistics_and_comes_back_the_same(tmp_path: Path, site: Site) -> None:
    site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    done = site.run("export", NAME, "--lerobot", tmp_path / "out")
    assert (done.code, done.data["episodes"], done.data["frames"]) == (0, 1, 120)
    assert (tmp_path / "out/meta/stats.json").exists()
    assert "not for passing on" in done.text
    taken = site.run("export", NAME, "--lerobot", tmp_path / "out")
    assert (taken.code, taken.refused) == (3, "data.file-invalid")
    other = Site(tmp_path / "other")
    assert other.add(tmp_path / "out").data["frames"] == 120


def test_a_person_says_how_attempts_of_a_model_ended_and_they_may_be_imitated(
    tmp_path: Path, site: Site
) -> None:
    signal_map = write_map(tmp_path)
    signal_map.write_text(f'source = {{kind = "deployed", model = "{MODEL}"}}\n' + signal_map.read_text())
    site.add(logs(tmp_path / "logs", 3), "--map", signal_map)
    shown = site.run("show", NAME)
    assert "3 attempts of a model" in shown.text
    ids = [one.meta.episode_id for one in Store(site.home.data).episodes(NAME)]
    before = site.stored()
    for words, code in (((ids[0], "ep_none"), "data.episode-unknown"), ((ids[0],), "data.refused")):
        by = " " if code == "data.refused" else "A. Sato"
        refused = site.run("mark", NAME, *words, "--outcome", "success", "--by", by)
        assert (refused.code, refused.refused) == (3, code)
        assert site.stored() == before
    done = site.run("mark", NAME, *ids[:2], "--outcome", "success", "--by", "A. Sato")
    assert (done.code, done.data["imitated"], sorted(done.data["episodes"])) == (0, 2, sorted(ids[:2]))
    assert [one.meta.may_be_cloned for one in Store(site.home.data).episodes(NAME)].count(True) == 2
    failed = site.run("mark", NAME, ids[0], "--outcome", "fail", "--by", "A. Sato")
    assert failed.data["imitated"] == 0
    said = json.loads((site.home.data / "quality/kita+log/marked.json").read_bytes())
    assert [(one["episode"], one["outcome"], one["by"]) for one in said][-1] == (ids[0], "fail", "A. Sato")
    assert "1 attempts of a model" in site.run("show", NAME).text


def test_a_progress_bar_says_nothing_where_there_is_no_terminal(
    tmp_path: Path, site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    from client.cli.progress import progress_bar
    from client.data.progress import Progress

    with progress_bar("log") as told:
        told(Progress(bytes_done=5, bytes_total=10, files=1, episodes=1))
    assert capfd.readouterr() == ("", "")
    done = site.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
    assert not set(done.text) & {"\r", "\x1b"}


def test_a_folder_with_canonical_names_needs_no_map(tmp_path: Path, site: Site) -> None:
    folder = write_v3(tmp_path / "v3", Recording.random(30, 30, 30))
    looked = site.run("inspect", folder)
    assert (looked.code, looked.data["map_needed"], looked.data["rate_hz"]) == (0, False, 50.0)
    assert looked.data["rows"] == 90
    assert site.add(folder, name="kita/v3").data["episodes"] == 3
    assert not site.home.root.joinpath("map.toml").exists()


def test_a_proposed_map_goes_into_a_new_file_only(tmp_path: Path, site: Site) -> None:
    source, out = log(tmp_path / "a.csv"), tmp_path / "kita.toml"
    assert site.run("inspect", source, "--out", out).code == 0
    before = out.read_bytes()
    again = site.run("inspect", source, "--out", out)
    assert (again.code, again.refused) == (3, "node.file-exists")
    assert out.read_bytes() == before


def test_secrets_of_a_log_are_not_in_the_store(tmp_path: Path, site: Site) -> None:
    values = rows()
    source = log(tmp_path / "a.csv", values)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0] + ",Program", *(one + ",ZX-4711" for one in lines[1:])]) + "\n")
    done = site.add(source, "--map", write_map(tmp_path))
    assert done.code == 0
    assert "Program" in done.data["dropped_columns"]
    assert not [name for name, data in site.stored().items() if b"ZX-4711" in data]
    table = next(site.home.data.glob("datasets/*/*/data/*/*.parquet"))
    assert not [one for one in pq.read_schema(table).names if "rogram" in one]


def test_showing_less_and_showing_more_at_once_is_a_usage_error(tmp_path: Path, site: Site) -> None:
    source, both = log(tmp_path / "a.csv"), ("--fits-only", "--open")
    assert site.add(source, "--map", write_map(tmp_path), *both).code == 2
    assert not list(site.home.data.rglob("*.parquet"))
