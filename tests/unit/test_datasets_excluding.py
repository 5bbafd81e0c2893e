# SPDX-License-Identifier: Apache-2.0
"""A person leaves out single episodes before the data are used; planted: afterwards, of nobody, of no episode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from client.clock import SystemClock
from client.data.errors import SealedError, StoreDamagedError
from client.data.fields import open_view
from client.data.judging import leave_out, renew
from client.data.store import Store
from client.datasets.excluding import data_exclude
from client.datasets.removing import allowed_runs
from tests.datasetsim import NAME, Site, log, rows, write_map
from tests.nodeworld import RUN, plain_world

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    (tmp_path / "logs").mkdir()
    for number in range(6):
        log(tmp_path / f"logs/{number}.csv", rows(seed=number + 1))
    assert found.add(tmp_path / "logs", "--map", write_map(tmp_path)).code == 0
    return found


def ids(site: Site) -> list[str]:
    return [one.meta.episode_id for one in Store(site.home.data).episodes(NAME)]


def opened(site: Site) -> int:
    """Episodes that learning would get."""
    view = open_view(
        site.home.data,
        NAME,
        contract_fields={"joint_pos"},
        recipe_inputs={"joint_pos"},
        local_allow={"joint_pos"},
    )
    return view.count("train") + view.count("held-out")


def test_an_episode_that_a_person_left_out_is_not_opened_and_the_certificate_follows(site: Site) -> None:
    first = ids(site)[0]
    before = site.run("show", NAME).data["certificate"]["digest"]
    done = site.run("exclude", NAME, first, "--by", "A. Sato")
    assert (done.code, done.data["usable"], done.data["episodes"]) == (0, 5, [first])
    assert done.data["certificate"]["digest"] != before
    assert opened(site) == 5
    shown = site.run("show", NAME)
    assert shown.data["excluded"] == 1
    assert shown.data["left_out"][first]["by"] == "A. Sato"
    assert "person" in shown.text
    again = site.stored()
    assert site.run("exclude", NAME, first, "--by", "A. Sato").code == 0
    assert site.stored() == again


def test_it_is_taken_back_by_name(site: Site) -> None:
    first = ids(site)[0]
    site.run("exclude", NAME, first, "--by", "A. Sato")
    done = site.run("exclude", NAME, first, "--include", "--by", "B. Mori")
    assert (done.code, done.data["usable"], opened(site)) == (0, 6, 6)
    said = json.loads((site.home.data / "quality/kita+log/left-out.json").read_bytes())
    assert [(one["out"], one["by"]) for one in said] == [(True, "A. Sato"), (False, "B. Mori")]


def test_what_a_check_excludes_no_person_takes_back(tmp_path: Path) -> None:
    site = Site(tmp_path / "other")
    values = rows()
    values[40:60, 3] = float("nan")
    site.add(log(tmp_path / "bad.csv", values), "--map", write_map(tmp_path))
    (name,) = ids(site)
    done = site.run("exclude", NAME, name, "--include", "--by", "A. Sato")
    assert (done.data["usable"], done.data["still_excluded"]) == (0, [name])
    assert "nobody overrules" in done.text


@pytest.mark.parametrize(
    ("words", "code"),
    [(("ep_none", "--by", "A. Sato"), "data.episode-unknown"), (("", "--by", " "), "data.refused")],
)
def test_an_unknown_episode_or_nobody_changes_nothing(site: Site, words: tuple[str, ...], code: str) -> None:
    before = site.stored()
    done = site.run("exclude", NAME, words[0] or ids(site)[0], *words[1:])
    assert (done.code, done.refused) == (3, code)
    assert site.stored() == before


def test_after_the_first_use_nobody_is_left_out_or_taken_back(site: Site) -> None:
    root, (one, other, *_), clock = site.home.data, ids(site), SystemClock()
    leave_out(root, NAME, [one], out=True, by="A. Sato", clock=clock, is_sealed=lambda _: False)
    before = site.stored()
    for name, out in ((other, True), (one, False)):
        with pytest.raises(SealedError, match="before the first use"):
            leave_out(root, NAME, [name], out=out, by="A. Sato", clock=clock, is_sealed=lambda _: True)
    leave_out(root, NAME, [one], out=True, by="A. Sato", clock=clock, is_sealed=lambda _: True)  # as it is
    assert site.stored() == before


def test_a_run_without_privacy_is_a_use_too(tmp_path: Path) -> None:
    world = plain_world(tmp_path).ready()
    name = world.worker.guard.seat(world.contract.digest, world.recipe.digest).dataset
    one, other = [row.meta.episode_id for row in Store(world.home.data).episodes(name)][:2]

    def say(episode: str) -> None:
        data_exclude(
            world.home,
            world.member.identity,
            name,
            [episode],
            include=False,
            by="A. Sato",
            clock=world.clock,
        )

    assert allowed_runs(world.home, name, world.clock) == ()
    say(one)
    world.ask()
    assert allowed_runs(world.home, name, world.clock) == (RUN,)
    assert allowed_runs(world.home, "kita/other", world.clock) == ()
    with pytest.raises(SealedError, match="that a run used"):
        say(other)


def test_what_was_left_out_stays_out_when_the_recording_is_removed_and_comes_back(
    tmp_path: Path, site: Site
) -> None:
    site.run("exclude", NAME, ids(site)[0], "--by", "A. Sato")
    assert site.run("remove", NAME).code == 0
    done = site.add(tmp_path / "logs", "--map", tmp_path / "map.toml")
    assert (done.code, opened(site)) == (0, 5)


def test_a_damaged_note_is_named_and_never_written_over(site: Site) -> None:
    name = ids(site)[0]
    site.run("exclude", NAME, name, "--by", "A. Sato")
    note = site.home.data / "quality/kita+log/left-out.json"
    note.write_text("[{}")
    with pytest.raises(StoreDamagedError, match=r"left-out.json"):
        renew(site.home.data, NAME)
    done = site.run("exclude", NAME, ids(site)[1], "--by", "A. Sato")
    assert done.refused == "data.store-damaged"
    assert note.read_text() == "[{}"


def test_an_attempt_that_a_person_calls_failed_is_no_example_whoever_acted(site: Site) -> None:
    metas = [one.meta for one in Store(site.home.data).episodes(NAME)]
    train = next(one.episode_id for one in metas if one.split == "train")
    held = [one.episode_id for one in metas if one.split == "held-out"]
    done = site.run("mark", NAME, train, "--outcome", "fail", "--by", "A. Sato")
    assert (done.data["imitated"], "0 of them may be imitated" in done.text) == (0, True)
    assert "data publish" not in done.text
    assert [one.meta.may_be_cloned for one in Store(site.home.data).episodes(NAME)].count(False) == 1
    site.run("exclude", NAME, train, "--by", "A. Sato")
    good = site.run("mark", NAME, train, *held, "--outcome", "success", "--by", "A. Sato")
    assert good.data["imitated"] == 0
    assert "1 of them are excluded" in good.text
