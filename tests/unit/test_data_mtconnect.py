# SPDX-License-Identifier: Apache-2.0
"""Saved answers of an MTConnect agent: what is missing stays missing, a lost sequence cuts, and names of parts stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data.errors import (
    CellInvalidError,
    DataError,
    FileInvalidError,
    MapInvalidError,
    MissingColumnError,
    NotFiniteError,
    PointerFileError,
    TooLargeError,
)
from client.data.readers import claimed
from client.data.readers import mtconnect as reading
from client.data.readers import mtconnect_xml as parsing
from client.data.signalmap import parse_map
from client.data.store import Store
from tests.datasim import bring, tree

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.series import Series

MAP = """
segment = {by = "file", max_gap_s = 5.0, min_frames = 2}
signal  = [{field = "joint_pos", columns = ["J1.Angle", "j2a"], unit = "deg", role = "observation"},
           {field = "tcp_pos", columns = ["PathPosition_{0..2}"], unit = "mm", role = "observation"}]
label   = [{field = "running", column = "Execution", values = {"ACTIVE" = true, "READY" = false}}]
"""
ALLOW = frozenset({"joint_pos", "tcp_pos", "running"})
Item = tuple[str, str, str, str, str]  # component, element, id, category, more attributes
J1: Item = ("J1", "Angle", "j1a", "Samples", ' subType="ACTUAL"')
J2: Item = ("J2", "Angle", "j2a", "Samples", ' name="second"')
PATH: Item = ("path", "PathPosition", "p1p", "Samples", "")
RUN: Item = ("path", "Execution", "p1e", "Events", "")
PART: Item = ("path", "PartCount", "p1n", "Events", "")
PROGRAM: Item = ("path", "Program", "p1g", "Events", "")
Seen = tuple[Item, float, str]  # item, second, value


def stamp(second: float) -> str:
    return f"2026-11-24T10:{int(second) // 60:02d}:{second % 60:06.3f}Z"


def answer(
    path: Path,
    seen: list[Seen],
    *,
    first: int = 1,
    oldest: int = 1,
    instance: str = "77",
    created: float = 600,
    skip: frozenset[int] = frozenset(),
) -> int:
    """Writes one answer; gives its nextSequence. Sequences of ``skip`` belong to items that were not asked for."""
    number, numbered = first, []
    for one in seen:
        while number in skip:
            number += 1
        numbered.append((number, one))
        number += 1
    lines = [
        '<?xml version="1.0"?><MTConnectStreams xmlns="urn:mtconnect.org:MTConnectStreams:1.8">',
        f'<Header creationTime="{stamp(created)}" instanceId="{instance}" firstSequence="{oldest}"',
        f' lastSequence="{number - 1}" nextSequence="{number}"/><Streams><DeviceStream name="r">',
    ]
    # as an agent does: grouped by component and category, not in the order of sequences
    for item in sorted({item for _, (item, _, _) in numbered}):
        component, element, ident, category, more = item
        lines.append(f'<ComponentStream component="X" name="{component}"><{category}>')
        lines += [
            f'<{element} dataItemId="{ident}" sequence="{n}" timestamp="{stamp(second)}"{more}>{value}</{element}>'
            for n, (one, second, value) in numbered
            if one == item
        ]
        lines.append(f"</{category}></ComponentStream>")
    path.write_text("".join([*lines, "</DeviceStream></Streams></MTConnectStreams>"]))
    return number


def moves(start: float, count: int) -> list[Seen]:
    """Both joints and the path every second."""
    found: list[Seen] = []
    for i in range(count):
        second = float(start + i)
        found += [
            (J1, second, str(second)),
            (J2, second, str(-second)),
            (PATH, second, f"{second} 0.0 100.0"),
        ]
    return found


BEGIN: list[Seen] = [(RUN, 0, "ACTIVE"), (PART, 0, "ZX-4711"), (PROGRAM, 0, "WELD-ZX")]


def read(path: Path, text: str = MAP) -> tuple[list[Series], dict[str, int]]:
    signals = parse_map(text.encode())
    reader = claimed(path)
    notes: dict[str, int] = {}

    def note(what: str, count: int) -> None:
        notes[what] = notes.get(what, 0) + count

    return list(reader.read(path, reader.probe(path, signals), signals, note)), notes


def test_rows_are_stamps_and_a_value_holds_until_the_next_report(tmp_path: Path) -> None:
    seen: list[Seen] = [
        *BEGIN,
        (J1, 0, "10"),
        (J2, 0.5, "20"),
        (PATH, 1, "1 2 3"),
        (J2, 2, "UNAVAILABLE"),
        (RUN, 3, "UNAVAILABLE"),
        (J1, 3, "11"),
    ]
    answer(tmp_path / "a.xml", seen)
    ((series,), notes) = read(tmp_path / "a.xml")
    assert (series.clock, series.length) == ("host", 5)
    assert np.diff(series.stamps_ns).tolist() == [500_000_000, 500_000_000, 1_000_000_000, 1_000_000_000]
    none = np.nan
    np.testing.assert_array_equal(series.columns["J1.Angle"], [10, 10, 10, 10, 11])
    np.testing.assert_array_equal(series.columns["j2a"], [none, 20, 20, none, none])
    np.testing.assert_array_equal(series.columns["PathPosition_1"], [none, none, 2, 2, 2])
    assert series.texts["Execution"].tolist() == ["ACTIVE"] * 4 + [""]
    assert notes["secret-columns"] == 2


def test_answers_follow_each_other_by_their_time_not_by_their_name(tmp_path: Path) -> None:
    following = answer(tmp_path / "z.xml", [*BEGIN, *moves(0, 4)], created=10)
    answer(tmp_path / "a.xml", moves(4, 3), first=following, created=20)
    (parts, notes) = read(tmp_path)
    assert [(p.name, p.more, p.length) for p in parts] == [
        (f"{tmp_path.name}, run 1", True, 4),
        (f"{tmp_path.name}, run 1", False, 3),
    ]
    assert parts[0].source.last == parts[1].source.first or parts[0].source.last < parts[1].source.first
    assert parts[1].texts["Execution"].tolist() == ["ACTIVE"] * 3
    assert "sequence-gaps" not in notes


def test_a_jump_in_the_sequence_cuts_and_forgets_what_was_held(tmp_path: Path) -> None:
    following = answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)], created=10)
    answer(tmp_path / "b.xml", moves(4, 3), first=following + 1, created=20)
    (parts, notes) = read(tmp_path)
    assert [p.name.rsplit(" ", 1)[1] for p in parts] == ["1", "2"]
    assert [p.more for p in parts] == [False, False]
    assert parts[1].texts["Execution"].tolist() == [""] * 3
    assert notes["sequence-gaps"] == 1


def test_a_new_run_of_the_agent_is_a_new_series_though_its_numbers_fit(tmp_path: Path) -> None:
    following = answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)], created=10)
    answer(tmp_path / "b.xml", moves(4, 3), first=following, created=20, instance="78")
    (parts, _) = read(tmp_path)
    assert [p.name.rsplit(" ", 1)[1] for p in parts] == ["1", "2"]
    report = bring(tmp_path / "s", tmp_path, signal_map=written(tmp_path), allow=ALLOW)
    assert (report.episodes_added, report.frames_added) == (2, 7)


def test_what_a_request_leaves_out_is_no_jump_but_an_overrun_buffer_is(tmp_path: Path) -> None:
    following = answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)], created=10, skip=frozenset({2, 5, 9}))
    following = answer(tmp_path / "b.xml", moves(4, 3), first=following + 2, created=20)
    (parts, notes) = read(tmp_path)
    assert {p.name for p in parts} == {f"{tmp_path.name}, run 1"}
    assert notes["sequence-unproven"] == 1
    answer(tmp_path / "c.xml", moves(7, 3), first=following + 9, oldest=following + 5, created=30)
    (parts, notes) = read(tmp_path)
    assert [p.name.rsplit(" ", 1)[1] for p in parts] == ["1", "1", "2"]
    assert notes["sequence-gaps"] == 1


def test_answers_that_overlap_give_each_observation_once(tmp_path: Path) -> None:
    seen = [*BEGIN, *moves(0, 8)]
    answer(tmp_path / "a.xml", seen[:15], created=10)
    answer(tmp_path / "b.xml", seen[9:], first=10, created=20)
    answer(tmp_path / "c.xml", seen[:12], created=30)
    (parts, notes) = read(tmp_path)
    assert sum(p.length for p in parts) == 8
    assert np.concatenate([p.columns["J1.Angle"] for p in parts]).tolist() == list(range(8))
    assert (notes["repeated-answers"], notes["repeated-observations"]) == (1, 6)


def test_parts_of_any_size_give_the_same_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 40)])
    whole = bring(tmp_path / "s", tmp_path / "a.xml", signal_map=written(tmp_path), allow=ALLOW)
    monkeypatch.setattr(reading, "SERIES_ROWS", 7)
    assert [p.length for p in read(tmp_path / "a.xml")[0]] == [7] * 5 + [5]
    bring(tmp_path / "t", tmp_path / "a.xml", signal_map=written(tmp_path), allow=ALLOW)
    assert whole.episodes_added == 1
    digests = [[e.meta.digest for e in Store(tmp_path / s).episodes("kita/pick")] for s in "st"]
    assert digests[0] == digests[1]


def written(tmp_path: Path, text: str = MAP) -> Path:
    path = tmp_path / "map.toml"
    path.write_text(text)
    return path


def test_importing_twice_adds_nothing_and_no_part_or_program_is_in_the_store(tmp_path: Path) -> None:
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 12)])
    for added in (1, 0):
        report = bring(tmp_path / "s", tmp_path / "a.xml", signal_map=written(tmp_path), allow=ALLOW)
        assert report.episodes_added == added
    assert not [name for name, data in tree(tmp_path / "s").items() if b"ZX-4711" in data or b"WELD" in data]
    assert not {"p1n", "p1g"} & set(report.dropped_columns)


SECRET_LABEL = MAP.replace('column = "Execution", values = {"ACTIVE"', 'column = "PartCount", values = {"1"')
SECRET_BOTH = SECRET_LABEL.replace('{by = "file",', '{by = "column", column = "PartCount",')


@pytest.mark.parametrize("text", [SECRET_LABEL, SECRET_BOTH], ids=["label", "label and segment"])
def test_a_secret_item_as_label_is_refused(tmp_path: Path, text: str) -> None:
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)])
    with pytest.raises(MapInvalidError, match="programs, parts and persons"):
        read(tmp_path / "a.xml", text)


def test_a_secret_item_may_cut_episodes_and_own_them(tmp_path: Path) -> None:
    text = MAP.replace('{by = "file",', '{by = "column", column = "PartCount",')
    text += 'unit = {kind = "work-piece", column = "PartCount"}\n'
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4), (PART, 4, "ZX-4712"), *moves(4, 4)])
    report = bring(tmp_path / "s", tmp_path / "a.xml", signal_map=written(tmp_path, text), allow=ALLOW)
    assert report.episodes_added == 2
    assert not [name for name, data in tree(tmp_path / "s").items() if b"ZX-47" in data]


def test_one_name_for_two_items_is_refused_and_the_id_decides(tmp_path: Path) -> None:
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)])
    with pytest.raises(MapInvalidError, match="two of that name or type"):
        read(tmp_path / "a.xml", MAP.replace('"J1.Angle"', '"Angle"'))
    for name in ("j1a", "J1.Angle.ACTUAL", "Angle.ACTUAL"):
        ((series,), _) = read(tmp_path / "a.xml", MAP.replace("J1.Angle", name).replace("j2a", "second"))
        assert series.columns["second"].tolist() == [0, -1, -2, -3]


def test_probe_lists_items_by_the_shortest_name_that_is_theirs_alone(tmp_path: Path) -> None:
    answer(tmp_path / "a.xml", [*BEGIN, *moves(0, 4)])
    probe = claimed(tmp_path / "a.xml").probe(tmp_path / "a.xml", None)
    path = [f"PathPosition_{i}" for i in range(3)]
    assert set(probe.channels) == {"J1.Angle", "second", *path, "Execution"}
    assert probe.units == {"J1.Angle": "deg", "second": "deg", **dict.fromkeys(path, "mm")}
    assert probe.texts == {"Execution"}
    assert probe.bytes == (tmp_path / "a.xml").stat().st_size
    text = MAP.replace('"j2a"', '"second"')
    assert len(read(tmp_path / "a.xml", text)[0]) == 1


GOOD = [*BEGIN, *moves(0, 4)]
BILLION = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><MTConnectStreams>&b;</MTConnectStreams>'
OUTSIDE = '<!DOCTYPE x SYSTEM "file:///etc/passwd"><MTConnectStreams/>'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
TEXT_DAMAGES: list[tuple[str, str, str, type[DataError]]] = [
    ("dtd", "all", BILLION, FileInvalidError),
    ("external", "all", OUTSIDE, FileInvalidError),
    ("pointer", "all", POINTER, PointerFileError),
    ("empty", "all", "", FileInvalidError),
    ("error answer", "all", "<MTConnectError><Header/></MTConnectError>", FileInvalidError),
    ("devices", "all", "<MTConnectDevices/>", FileInvalidError),
    ("no header", "all", "<MTConnectStreams><Streams/></MTConnectStreams>", FileInvalidError),
    (
        "other encoding",
        "all",
        '<?xml version="1.0" encoding="none-such"?><MTConnectStreams/>',
        FileInvalidError,
    ),
    ("no instance", 'instanceId="77"', "", FileInvalidError),
    ("no creation", 'creationTime="2026', 'created="2026', FileInvalidError),
    ("bad creation", 'creationTime="2026', 'creationTime="yesterday 2026', CellInvalidError),
    ("next sequence", 'nextSequence="16"', 'nextSequence="many"', FileInvalidError),
    ("no sequence", 'sequence="4"', "", FileInvalidError),
    ("a huge sequence", 'sequence="4"', 'sequence="4' + "0" * 30 + '"', FileInvalidError),
    ("no id", 'dataItemId="j1a"', "", FileInvalidError),
    ("no zone", '000Z" name="second"', '000" name="second"', CellInvalidError),
    ("no stamp", 'timestamp="2026-11-24T10:00:01.000Z" name="second"', 'name="second"', CellInvalidError),
    ("word", ">-1.0<", ">fast<", CellInvalidError),
    ("nan", ">-1.0<", ">NaN<", NotFiniteError),
    ("two numbers", ">1.0 0.0 100.0<", ">1.0 0.0<", CellInvalidError),
    ("a table", ">-1.0<", '><Entry key="a">1</Entry><', FileInvalidError),
    ("a time series", 'name="second"', 'name="second" sampleCount="3"', CellInvalidError),
    ("item gone", 'dataItemId="j2a"', 'dataItemId="j3a"', MissingColumnError),
]


@pytest.mark.parametrize(
    ("old", "new", "error"), [d[1:] for d in TEXT_DAMAGES], ids=[d[0] for d in TEXT_DAMAGES]
)
def test_damage_is_refused_with_its_code_and_nothing_is_stored(
    tmp_path: Path, old: str, new: str, error: type[DataError]
) -> None:
    path = tmp_path / "a.xml"
    answer(path, moves(0, 5))
    text = path.read_text()
    assert old == "all" or old in text
    path.write_text(new if old == "all" else text.replace(old, new))
    with pytest.raises(error) as refusal:
        bring(
            tmp_path / "s", path, signal_map=written(tmp_path, MAP.split("label", maxsplit=1)[0]), allow=ALLOW
        )
    assert refusal.value.remedy
    assert tree(tmp_path / "s") == {}


def test_an_answer_cut_anywhere_is_refused_and_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    answer(path, GOOD)
    data = path.read_bytes()
    for share in range(0, 100, 3):
        path.write_bytes(data[: len(data) * share // 100])
        with pytest.raises(FileInvalidError):
            read(path)


def test_an_answer_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(tmp_path / "a.xml", GOOD)
    monkeypatch.setattr(parsing, "MTCONNECT_OBSERVATIONS", 10)
    with pytest.raises(TooLargeError, match="mapped observations"):
        read(tmp_path / "a.xml")
