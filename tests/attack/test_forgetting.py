# SPDX-License-Identifier: Apache-2.0
"""Nothing binds before it could have been used, and everything does afterwards: what a removal forgets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.budgets import is_opened
from client.data.errors import NoEpisodesError
from client.data.forgetting import Forgetting
from client.data.store import Store
from client.seeds.donated import Given, place_of, remember
from policies.privacy.errors import LineageUnknownError
from tests.attack.test_data_rights import FIRST, log, put, walk
from tests.datasetsim import Site, write_map
from tests.datasetsim import log as site_log
from tests.datasetsim import rows as site_rows
from tests.datasim import KEY, tree
from tests.unit.test_data_resume import add, folder, stopped_after
from tests.unit.test_data_units import MAP, PIECE, keyed, metas, table

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.store import EpisodeMeta

COLUMN = '{by = "column", column = "cycle", min_frames = 10}'


def remove(tmp_path: Path, dataset: str = "kita/pick", **changes: Any) -> Forgetting:
    forgetting = Forgetting(**({"node_key": KEY, "is_sealed": lambda _: False} | changes))
    assert Store(tmp_path / "s").remove(dataset, forgetting=forgetting)
    return forgetting


def stored(tmp_path: Path, dataset: str = "kita/pick") -> list[EpisodeMeta]:
    return [one.meta for one in Store(tmp_path / "s").episodes(dataset)]


def grown(tmp_path: Path) -> Path:
    """The same log later: another file that begins with the same rows."""
    return log(tmp_path / "grown.csv", walk(400, 0))


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A log that was stored without a contract, while it was still written to."""
    put(tmp_path, log(tmp_path / "a.csv", walk(400, 0)[:200]), rights="")
    return tmp_path


def is_bound(tmp_path: Path, **changes: Any) -> bool:
    with pytest.raises(LineageUnknownError):
        put(tmp_path, grown(tmp_path), dataset="kita/new", **changes)
    return True


def test_a_log_that_grew_comes_in_once_the_shorter_one_is_removed(alone: Path) -> None:
    assert is_bound(alone, rights="")
    found = remove(alone)
    assert (found.forgotten, found.kept) == (1, {})
    assert tree(alone / "s").keys() == {"catalogue.json"}
    left = Store(alone / "s").catalogue()
    assert (left.lineages, left.marks, left.unbound) == ({}, (), {})
    assert put(alone, grown(alone), rights=FIRST).episodes_added == 1


def test_only_the_episodes_of_the_data_set_are_forgotten_and_marks_of_others_stay(alone: Path) -> None:
    other = log(alone / "b.csv", walk(200, 1))
    put(alone, other, rights="", dataset="kita/b")
    remove(alone)
    with pytest.raises(LineageUnknownError):
        put(alone, log(alone / "c.csv", walk(200, 1)[:150]), rights="")
    assert put(alone, grown(alone), rights="").episodes_added == 1


@pytest.mark.parametrize("again", ["same data set", "other data set", "fewer fields"])
@pytest.mark.parametrize("order", ["right last", "right first"])
def test_once_a_right_existed_nothing_is_forgotten(tmp_path: Path, again: str, order: str) -> None:
    source = log(tmp_path / "a.csv", walk(400, 0)[:200])
    name = "kita/pick" if again == "same data set" else "kita/two"
    changes = {"allow": frozenset({"joint_torque", "joint_pos"})} if again == "fewer fields" else {}
    first, second = ("", FIRST) if order == "right last" else (FIRST, "")
    put(tmp_path, source, rights=first)
    put(tmp_path, source, rights=second, dataset=name, **changes)
    for one in sorted({"kita/pick", name}):
        found = remove(tmp_path, one)
        assert (found.forgotten, found.kept) == (0, {"right": 1})
    assert is_bound(tmp_path)
    put(tmp_path, source, rights="")
    assert remove(tmp_path).forgotten == 0
    assert is_bound(tmp_path)


def test_a_right_that_an_interrupted_import_gives_binds_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "d")
    add(tmp_path, tmp_path / "s", source, rights="")
    late = source / "9.csv"
    late.write_text((source / "0.csv").read_text().replace("0.", "7."))
    monkeypatch.setattr("client.data.draft.RESUME_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, rights=FIRST, progress=stopped_after(4))
    assert Store(tmp_path / "s").catalogue().unbound
    add(tmp_path, tmp_path / "s", source, rights=FIRST)
    assert not Store(tmp_path / "s").catalogue().unbound
    assert remove(tmp_path).forgotten == 0


def test_what_was_forgotten_of_an_import_that_was_interrupted_is_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "d")
    monkeypatch.setattr("client.data.draft.RESUME_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, rights="", progress=stopped_after(4))
    count = add(tmp_path, tmp_path / "s", source, rights="").episodes_added
    assert remove(tmp_path).forgotten == count
    assert tree(tmp_path / "s").keys() == {"catalogue.json"}


@pytest.mark.parametrize("edit", ["forged seal", "another's seal", "lineage renamed", "other key"])
def test_an_edited_catalogue_forgets_nothing(tmp_path: Path, edit: str) -> None:
    source = log(tmp_path / "a.csv", walk(400, 0)[:200])
    report = put(tmp_path, source, rights=FIRST)
    put(tmp_path, log(tmp_path / "b.csv", walk(200, 1)), rights="", dataset="kita/b")
    (content,) = [one.content for one in stored(tmp_path)]
    Store(tmp_path / "s").remove("kita/pick")
    put(tmp_path, source, rights="")  # the stored row says of no right now
    path = tmp_path / "s/catalogue.json"
    said = json.loads(path.read_bytes())
    seals = said["unbound"]
    seals[content] = {"another's seal": next(iter(seals.values()))}.get(edit, "f" * 64)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    if edit == "lineage renamed":
        text = text.replace(report.lineage, "lin_" + "a" * 16)
    path.write_text(text)
    found = remove(tmp_path, **({"node_key": KEY[::-1]} if edit == "other key" else {}))
    assert (found.forgotten, found.kept) == (0, {"right": 1})
    assert is_bound(tmp_path)


def test_a_seal_that_is_put_back_loses_to_the_right_of_a_stored_row_and_to_the_ledger(alone: Path) -> None:
    path = alone / "s/catalogue.json"
    (seal,) = Store(alone / "s").catalogue().unbound.items()
    put(alone, alone / "a.csv", rights=FIRST, dataset="kita/two")
    (unit,) = stored(alone)[0].unit_ids
    said = json.loads(path.read_bytes())
    said["unbound"] = dict([seal])
    path.write_text(json.dumps(said, sort_keys=True, separators=(",", ":")))
    assert remove(alone).kept == {"right": 1}
    assert remove(alone, "kita/two", is_charged=lambda one: one == unit).kept == {"right": 1}
    put(alone, alone / "a.csv", rights="")
    assert remove(alone, is_charged=lambda one: one == unit).kept == {"budget": 1}
    assert is_bound(alone)


@pytest.mark.parametrize("why", ["budget", "charged", "donated", "deployed", "elsewhere", "unreadable"])
def test_each_other_reason_keeps_it_too_and_is_named(alone: Path, why: str) -> None:
    yes = lambda *_: True  # noqa: E731
    changes = {"budget": {"is_sealed": yes}, "charged": {"is_charged": yes}, "donated": {"is_donated": yes}}
    if why == "deployed":
        put(alone, alone / "a.csv", rights="", dataset="kita/b", model="sha256:" + "7" * 64)
    if why == "unreadable":
        put(alone, log(alone / "b.csv", walk(200, 1)), rights="", dataset="kita/b")
        next((alone / "s/datasets/kita+b").glob("*/iriai/episodes.parquet")).write_bytes(b"")
    if why == "elsewhere":
        put(alone, alone / "a.csv", rights="", dataset="kita/b")
    found = remove(alone, **changes.get(why, {}))
    assert found.forgotten == 0
    assert found.kept.keys() == {"budget" if why == "charged" else why}
    assert is_bound(alone)
    if why == "elsewhere":
        assert remove(alone, "kita/b").forgotten == 1
        assert put(alone, grown(alone), rights="").episodes_added == 1


def test_nothing_is_forgotten_without_the_nodes_key_or_by_an_earlier_version(alone: Path) -> None:
    assert Store(alone / "s").remove("kita/pick")
    assert is_bound(alone)
    put(alone, alone / "a.csv", rights="")
    path = alone / "s/catalogue.json"
    said = json.loads(path.read_bytes())
    del said["unbound"]
    path.write_text(json.dumps(said, sort_keys=True, separators=(",", ":")))
    assert remove(alone).kept == {"right": 1}


@pytest.mark.parametrize("unit", ["", PIECE])
def test_held_out_units_are_held_out_when_they_come_back(tmp_path: Path, unit: str) -> None:
    runs = [(str(number), f"p{number // 2}") for number in range(40)]
    source = table(tmp_path, runs)
    keyed(tmp_path, source, MAP + unit, rights="", held_out_percent=40)
    before = {one.content: (one.unit_id, one.split, one.lineage) for one in metas(tmp_path)}
    assert {split for _, split, _ in before.values()} == {"train", "held-out"}
    assert remove(tmp_path).forgotten == 40
    more = table(tmp_path, [*runs[20:], ("90", "q")], name="b")  # another file, another order of first sight
    keyed(tmp_path, more, MAP + unit, rights=FIRST, held_out_percent=40)
    keyed(tmp_path, source, MAP + unit, rights=FIRST, held_out_percent=40, dataset="kita/pick")
    after = {one.content: (one.unit_id, one.split) for one in metas(tmp_path)}
    assert all(after[content] == said[:2] for content, said in before.items())


def test_a_data_set_that_goes_on_in_the_lineage_uses_no_number_of_a_block_again(tmp_path: Path) -> None:
    first = log(tmp_path / "a.csv", walk(200, 0))
    lineage = put(tmp_path, first, rights="").lineage
    put(tmp_path, log(tmp_path / "b.csv", walk(200, 1)), rights=FIRST)
    found = remove(tmp_path)
    assert (found.forgotten, found.kept) == (1, {"right": 1})
    put(tmp_path, tmp_path / "b.csv", rights=FIRST)
    put(tmp_path, first, rights=FIRST)
    assert sorted((one.block, one.lineage) for one in stored(tmp_path)) == [(2, lineage), (3, lineage)]


def test_a_folder_with_one_known_episode_comes_in_without_it_on_demand(alone: Path) -> None:
    for name, values in (("x", walk(400, 0)[100:300]), ("y", walk(200, 5)), ("z", walk(200, 6))):
        (alone / "d").mkdir(exist_ok=True)
        log(alone / f"d/{name}.csv", values)
    log(alone / "d/zz.csv", walk(200, 6)[:150])
    before = tree(alone / "s")
    named = {"dataset": "kita/d", "rights": FIRST, "names": lambda _: {}}
    with pytest.raises(LineageUnknownError, match=r"x\.csv.*kita/pick \(unit episode\)"):
        put(alone, alone / "d", **named)
    assert tree(alone / "s") == before
    report = put(alone, alone / "d", skip_known=True, **named)
    (note,) = [one for one in report.findings if one.code == "known-elsewhere"]
    assert (report.episodes_added, note.count) == (2, 2)
    assert note.named[0].startswith("x.csv rows 1 to 200, in kita/pick (unit episode): sha256:")
    assert note.named[1] == "zz.csv rows 1 to 150, in this import: z.csv rows 1 to 200"
    again = put(alone, alone / "d", skip_known=True, **named)
    assert (again.episodes_added, again.duplicates, again.generation) == (0, 2, report.generation)
    kept = {one.content for one in stored(alone, "kita/d")}
    assert not kept & {one.content for one in stored(alone)}


def test_skipping_takes_no_row_of_a_held_out_episode_and_gives_no_right(tmp_path: Path) -> None:
    number = np.arange(400) // 50
    source = log(tmp_path / "a.csv", walk(400, 0), cycle=number)
    put(tmp_path, source, rights=FIRST, held_out_percent=100)
    before = tree(tmp_path / "s")
    with pytest.raises(NoEpisodesError, match="others have them all"):
        put(tmp_path, source, segment=COLUMN, dataset="kita/x", skip_known=True, rights="other")
    assert tree(tmp_path / "s") == before
    put(tmp_path, source, segment=COLUMN, skip_known=True, rights=FIRST)
    assert tree(tmp_path / "s") == before


def test_the_owner_is_told_where_it_is_and_each_remedy_can_be_followed(tmp_path: Path) -> None:
    site, signal_map = Site(tmp_path), write_map(tmp_path)
    site.add(site_log(tmp_path / "day1.csv", site_rows(400)[:199]), "--map", signal_map)
    whole = site_log(tmp_path / "day2.csv", site_rows(400))
    done = site.add(whole, "--map", signal_map)
    error = done.envelope["error"]
    assert (done.refused, "kita/log (unit episode): day1.csv rows 1 to 199" in error["found"]) == (
        "budget.lineage-unknown",
        True,
    )
    assert "iriai-node data remove " in error["remedy"]
    assert " kita/log" in error["remedy"]
    assert "--skip-known" in error["remedy"]
    skipped = site.add(whole, "--map", signal_map, "--skip-known")
    named = [one["named"] for one in skipped.data["findings"] if one["code"] == "known-elsewhere"]
    assert (skipped.data["episodes_added"], len(named)) == (0, 1)
    assert "day2.csv rows 1 to 400, in kita/log" in skipped.text
    gone = site.run("remove", "kita/log")
    assert (gone.data["forgotten"], gone.data["kept"]) == (1, {})
    assert "may come anew" in gone.text
    assert site.add(whole, "--map", signal_map).data["episodes_added"] == 1


def test_the_owner_is_told_what_stays_known_and_why(tmp_path: Path) -> None:
    site, signal_map = Site(tmp_path), write_map(tmp_path)
    site.add(site_log(tmp_path / "a.csv"), "--map", signal_map)
    (meta,) = [one.meta for one in Store(site.home.data).episodes("kita/log")]
    gift = Given(content="0" * 64, place=place_of(meta), published="p", dataset="kita/log", consent="c")
    remember(site.home, [gift])
    gone = site.run("remove", "kita/log")
    assert (gone.data["forgotten"], gone.data["kept"]) == (0, {"donated": 1})
    assert "they were donated" in gone.text
    lineage = site.add(tmp_path / "a.csv", "--map", signal_map).data["lineage"]
    assert not is_opened(site.home, lineage)
    site.home.budget.mkdir(exist_ok=True)
    (site.home.budget / f"{'0' * 32}.db").write_bytes(b"no ledger")
    assert site.run("remove", "kita/log").data["kept"] == {"budget": 1}


@pytest.mark.parametrize("rights", ["", FIRST])
def test_the_same_rows_in_another_unit_of_measure_are_bound_and_forgotten_with_the_first(
    tmp_path: Path, rights: str
) -> None:
    source = table(tmp_path, [("1", "p")], frames=40)
    keyed(tmp_path, source, MAP, rights="")
    keyed(tmp_path, source, MAP.replace('"A"', '"mA"'), rights=rights, dataset="kita/milli")
    assert remove(tmp_path, "kita/milli").kept == ({"right": 1} if rights else {"elsewhere": 1})
    found = remove(tmp_path)
    assert (found.forgotten, found.kept) == ((0, {"right": 1}) if rights else (1, {}))
    assert bool(Store(tmp_path / "s").catalogue().marks) == bool(rights)
