# SPDX-License-Identifier: Apache-2.0
"""An import that was killed goes on where it was, to the same bytes; one that was refused leaves nothing."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.data.errors import CellInvalidError, StorageFullError
from client.data.importing import Progress
from client.data.store import Store
from tests.datasim import Recording, bring, tree, write_v3
from tests.unit.test_data_store import failing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIELDS = frozenset({"joint_vel"})
MAP = """
clock   = {column = "t", unit = "s", kind = "host"}
segment = {by = "column", column = "run", min_frames = 2}
signal  = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"}]
"""
FILES = 6


@pytest.fixture(autouse=True)
def _checkpoint_after_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.data.draft.RESUME_BYTES", 1)


def folder(path: Path, files: int = FILES) -> Path:
    """Logs, each of three runs; one run of the second is too short, and one row has no value."""
    path.mkdir()
    for number in range(files):
        rng = np.random.default_rng(number)
        lines = ["t,run,v,note"]
        for row in range(12):
            run = "short" if number == 1 and row == 11 else row // 4
            value = "" if row == 5 else f"{rng.standard_normal():.5f}"
            lines.append(f"{row / 10 + number * 100},{run},{value},")
        (path / f"{number}.csv").write_text("\n".join(lines) + "\n")
    return path


def add(tmp_path: Path, root: Path, source: Path, text: str = MAP, **changes: Any) -> Any:
    (tmp_path / "map.toml").write_text(text)
    return bring(root, source, **({"signal_map": tmp_path / "map.toml", "allow": FIELDS} | changes))


def stopped_after(files: int) -> Callable[[Progress], None]:
    """A person who presses Ctrl-C when the n-th file was seen."""

    def look(progress: Progress) -> None:
        if progress.files > files:
            raise KeyboardInterrupt

    return look


def left_aside(root: Path) -> set[str]:
    return {p.name for p in (root / "datasets").glob(".new-*")}


@pytest.mark.parametrize("files", range(1, FILES))
def test_an_import_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, files: int) -> None:
    source = folder(tmp_path / "d")
    whole = add(tmp_path, tmp_path / "whole", source)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, progress=stopped_after(files))
    assert tree(tmp_path / "s") == {}
    assert left_aside(tmp_path / "s") == {".new-kita+pick", ".new-kita+pick~journal"}
    told: list[Progress] = []
    again = add(tmp_path, tmp_path / "s", source, progress=told.append)
    assert again == whole
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")
    assert left_aside(tmp_path / "s") == set()
    assert told[-1].resumed == files
    assert told[-1].bytes_done == told[-1].bytes_total
    assert [one.bytes_done for one in told] == sorted(one.bytes_done for one in told)


def test_it_goes_on_as_often_as_it_is_stopped(tmp_path: Path) -> None:
    source = folder(tmp_path / "d")
    add(tmp_path, tmp_path / "whole", source)
    for files in range(1, FILES):
        with pytest.raises(KeyboardInterrupt):
            add(tmp_path, tmp_path / "s", source, progress=stopped_after(files))
    add(tmp_path, tmp_path / "s", source)
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_a_refusal_throws_away_what_was_done_before_it(tmp_path: Path) -> None:
    source = folder(tmp_path / "d")
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, progress=stopped_after(3))
    text = (source / "5.csv").read_text()
    (source / "5.csv").write_text(text.replace(",,", ",none,"))
    with pytest.raises(CellInvalidError, match=r"5\.csv.*row 6"):
        add(tmp_path, tmp_path / "s", source)
    assert tree(tmp_path / "s") == {}
    assert left_aside(tmp_path / "s") == set()


@pytest.mark.parametrize("what", ["map", "allow", "rights", "percent", "dataset", "store"])
def test_another_import_begins_anew(tmp_path: Path, what: str) -> None:
    source, text = folder(tmp_path / "d"), MAP
    changes: dict[str, Any] = {
        "allow": {"allow": FIELDS | {"tcp_pos"}},
        "rights": {"rights": "sha256:" + "d" * 64},
        "percent": {"held_out_percent": 50},
        "dataset": {"dataset": "kita/other"},
    }.get(what, {})
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, progress=stopped_after(3))
    roots = [tmp_path / "s", tmp_path / "fresh"]
    if what == "map":
        text = MAP.replace("rad/s", "deg/s")
    if what == "store":  # what was settled hangs on the catalogue as it was
        for root in roots:
            bring(root, write_v3(tmp_path / f"e-{root.name}", Recording.random(5)), dataset="kita/first")
    told: list[Progress] = []
    for root in roots:
        add(tmp_path, root, source, text, progress=told.append, **changes)
    assert tree(roots[0]) == tree(roots[1])
    assert {one.resumed for one in told} == {0}


@pytest.mark.parametrize("what", ["gone", "changed", "first", "torn", "cut", "part"])
def test_what_is_no_longer_true_is_not_gone_on_with(tmp_path: Path, what: str) -> None:
    source = folder(tmp_path / "d")
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, progress=stopped_after(3))
    aside = tmp_path / "s/datasets/.new-kita+pick"
    journal = aside.with_name(aside.name + "~journal")
    if what == "gone":
        (source / "1.csv").unlink()
    if what == "changed":
        (source / "1.csv").write_text((source / "1.csv").read_text().replace("0.1,", "0.12,"))
    if what == "first":
        (source / "00.csv").write_text((source / "5.csv").read_text().replace("50", "70"))
    if what == "torn":
        journal.write_bytes(journal.read_bytes()[:-9])
    if what == "cut":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([lines[0], lines[1], b"x" + lines[2][1:], lines[3]]))
    if what == "part":
        next(aside.rglob("file-001.parquet")).write_bytes(b"")
    add(tmp_path, tmp_path / "s", source)
    add(tmp_path, tmp_path / "fresh", source)
    assert tree(tmp_path / "s") == tree(tmp_path / "fresh")


def test_a_source_that_comes_back_to_a_file_loses_no_episode(tmp_path: Path) -> None:
    source = folder(tmp_path / "d", 3)
    shutil.copyfile(source / "0.csv", source / "9.csv")  # the same bytes, later
    whole = add(tmp_path, tmp_path / "whole", source)
    for files in range(1, 4):
        root = tmp_path / f"s{files}"
        with pytest.raises(KeyboardInterrupt):
            add(tmp_path, root, source, progress=stopped_after(files))
        assert add(tmp_path, root, source) == whole
        assert tree(root) == tree(tmp_path / "whole")


def die_at(tmp_path: Path, root: Path, source: Path, at: int) -> int:
    """Imports in a child that dies at its n-th touch of the store; returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def touch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and len(args) > 2 and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.truncate") or writes:
            count += 1
            if count == at:
                os._exit(9)

    sys.addaudithook(touch)
    try:
        add(tmp_path, root, source)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_killed_anywhere_the_store_is_as_before_or_after_and_the_next_import_is_the_whole_one(
    tmp_path: Path,
) -> None:
    base, source = tmp_path / "base", folder(tmp_path / "d", 3)
    add(tmp_path, base, folder(tmp_path / "first", 1), dataset="kita/pick")
    shutil.copytree(base, tmp_path / "done")
    add(tmp_path, tmp_path / "done", source)
    before, after = tree(base), tree(tmp_path / "done")
    died, resumed = 0, set()
    for at in range(1, 200):
        root = tmp_path / f"s{at}"
        shutil.copytree(base, root)
        status = die_at(tmp_path, root, source, at)
        assert Store(root).episodes("kita/pick")  # it opens
        told: list[Progress] = []
        again = add(tmp_path, root, source, progress=told.append)
        assert tree(root) == after
        assert again.generation == 2
        assert left_aside(root) == set()
        resumed.add(told[-1].resumed)
        shutil.rmtree(root)
        if status == 0:
            break
        died += 1
    assert died > 20
    assert resumed == {0, 2}  # the first file was known, so there was nothing to keep behind it
    assert before != after


@pytest.mark.slow
def test_an_error_of_any_system_call_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "d", 3)
    add(tmp_path, tmp_path / "done", source)
    after, kept = tree(tmp_path / "done"), 0
    for at in range(1, 200, 3):
        root = tmp_path / f"s{at}"
        with monkeypatch.context() as patch:
            calls = failing(patch, at, errno.ENOSPC if at % 2 else errno.EIO)
            try:
                add(tmp_path, root, source)
            except StorageFullError:
                assert left_aside(root) == set()  # a full disk needs the space
            except OSError:
                kept += bool(left_aside(root))
        add(tmp_path, root, source)
        assert tree(root) == after
        shutil.rmtree(root)
        if calls() < at:
            break
    assert kept > 2
