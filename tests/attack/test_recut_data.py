# SPDX-License-Identifier: Apache-2.0
"""The same recording brought again, cut, mapped or saved otherwise: never a second unit, budget or split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data.marks import SHARED, marks_of, split_marks
from client.data.places import RowIndex, Rows
from client.data.store import Store
from client.seeds.donated import Given, Withheld, is_given, place_of, remember, withheld
from client.settings import Home
from policies.privacy.errors import LineageUnknownError
from tests.datasim import Recording, bring, tree, write_v3
from tests.unit.test_data_units import MAP, keyed, metas, table

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = MAP.replace('by = "column", column = "run", min_frames = 2', 'by = "file"')
RUNS = [(str(number), "p") for number in range(20)]


def refused(tmp_path: Path, source: Path, text: str, **changes: object) -> LineageUnknownError:
    before = tree(tmp_path / "s")
    with pytest.raises(LineageUnknownError, match="segment rule of its first import") as found:
        keyed(tmp_path, source, text, **changes)
    assert tree(tmp_path / "s") == before
    return found.value


@pytest.mark.parametrize("dataset", ["kita/pick", "kita/other"])
def test_a_file_that_is_cut_otherwise_opens_no_new_budget_and_takes_no_held_out_row(
    tmp_path: Path, dataset: str
) -> None:
    source = table(tmp_path, RUNS)
    keyed(tmp_path, source, MAP, held_out_percent=40)
    assert "held-out" in {one.split for one in metas(tmp_path)}
    assert refused(tmp_path, source, WHOLE, dataset=dataset, held_out_percent=0).found.startswith("a.csv")
    assert refused(tmp_path, source, MAP.replace("min_frames = 2", "max_gap_s = 0.05"), dataset=dataset)


def test_the_cut_may_not_be_finer_either(tmp_path: Path) -> None:
    source = table(tmp_path, RUNS)
    keyed(tmp_path, source, WHOLE)
    refused(tmp_path, source, MAP)


def test_rows_that_were_in_no_episode_may_come_later(tmp_path: Path) -> None:
    source = table(tmp_path, RUNS[:4], frames=3)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:7], *lines[8:9], *lines[10:]]) + "\n")  # run 2 has one row left
    assert keyed(tmp_path, source, MAP).episodes_added == 3
    found = keyed(tmp_path, source, MAP.replace("min_frames = 2", "min_frames = 1"))
    assert (found.episodes_added, found.duplicates) == (1, 3)


def test_the_same_rows_in_another_unit_of_measure_are_the_same_unit(tmp_path: Path) -> None:
    source = table(tmp_path, RUNS[:3])
    keyed(tmp_path, source, MAP)
    keyed(tmp_path, source, MAP.replace('"A"', '"mA"'))
    found = metas(tmp_path)
    assert len(found) == 6
    assert len({one.unit_id for one in found}) == 3


def test_a_row_keeps_its_number_where_padding_is_left_out(tmp_path: Path) -> None:
    source = table(tmp_path, RUNS[:2])
    lines = source.read_text().splitlines()
    source.write_text("\n".join([lines[0], ",,,", ",,,", *lines[1:5], ",,,", *lines[5:]]) + "\n")
    keyed(tmp_path, source, MAP)
    assert [(one.first_row, one.last_row) for one in metas(tmp_path)] == [(2, 6), (7, 11)]


@pytest.mark.parametrize(("first", "then"), [(MAP, WHOLE), (WHOLE, MAP)])
def test_a_copy_that_was_saved_and_cut_otherwise_is_known_by_its_frames(
    tmp_path: Path, first: str, then: str
) -> None:
    keyed(tmp_path, table(tmp_path, RUNS[:6], frames=30), first)
    copy = tmp_path / "b.csv"
    copy.write_text((tmp_path / "a.csv").read_text().replace("\n", "\r\n"))
    refused(tmp_path, copy, then, dataset="kita/renamed")


def test_a_copy_in_the_same_folder_is_no_second_unit(tmp_path: Path) -> None:
    recording = Recording.random(40, 40)
    joined = Recording(
        [np.vstack(recording.observations)], [np.vstack(recording.actions)], recording.tasks[:1]
    )
    bring(tmp_path / "s", write_v3(tmp_path / "d", recording))
    with pytest.raises(LineageUnknownError):
        bring(tmp_path / "s", write_v3(tmp_path / "e", joined), dataset="kita/e")


def test_frames_that_stand_still_and_one_shared_run_say_nothing() -> None:
    rng = np.random.default_rng(7)
    rest = np.zeros((200, 3), dtype=np.float32)
    one, other = rng.standard_normal((2, 60, 3)).astype(np.float32)
    assert marks_of({"observation.tcp_pos": rest}) == ""
    assert marks_of({"observation.tcp_pos": one[:7]}) == ""
    assert not set(split_marks(marks_of({"a": np.vstack([rest, one])}))) & set(
        split_marks(marks_of({"a": np.vstack([rest, other])}))
    )
    shared = set(split_marks(marks_of({"a": one}))) & set(
        split_marks(marks_of({"a": np.vstack([other, one])}))
    )
    assert len(shared) >= SHARED


def test_rows_overlap_in_their_own_file_only() -> None:
    taken = RowIndex([Rows("f", 10, 20), Rows("f", 0, 300), Rows("f", 400, 410)])
    asked = [(299, 301), (300, 400), (399, 401), (410, 500)]
    assert [taken.overlaps(Rows("f", *one)) for one in asked] == [True, False, True, False]
    assert not taken.overlaps(Rows("g", 0, 100))


def test_a_donated_episode_that_is_cut_again_does_not_become_private(tmp_path: Path) -> None:
    source = table(tmp_path, RUNS[:2])
    keyed(tmp_path, source, MAP)
    gift = metas(tmp_path)[0]
    home = Home(tmp_path / "node")
    home.root.mkdir()
    given = Given(content=gift.content, place=place_of(gift), published="p", dataset="kita/pick", consent="c")
    remember(home, [given])
    (again,) = _other_store(tmp_path, source)
    assert is_given(again, withheld(home))
    assert [is_given(one, withheld(home)) for one in metas(tmp_path)] == [True, False]
    assert not is_given(again, Withheld())


def _other_store(tmp_path: Path, source: Path) -> list:
    (tmp_path / "map.toml").write_text(WHOLE)
    bring(tmp_path / "t", source, signal_map=tmp_path / "map.toml", allow=frozenset({"tool_current"}))
    return [one.meta for one in Store(tmp_path / "t").episodes("kita/pick")]
