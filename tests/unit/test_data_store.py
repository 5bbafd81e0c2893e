# SPDX-License-Identifier: Apache-2.0
"""The store is as it was or as it should be, whatever happens in between; equal imports give equal bytes; budget follows the data."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from client.data.errors import (
    DatasetUnknownError,
    LineageMixedError,
    MapInvalidError,
    ShapeChangedError,
    StorageFullError,
    StoreDamagedError,
)
from client.data.store import Store
from tests.datasim import ALLOW, Recording, SimClock, both, bring, edit_info, tree, view, write_v3

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST, SECOND = Recording.random(7, 5, 9), Recording.random(4, 6, seed=1)
JOINED = Recording(
    FIRST.observations + SECOND.observations, FIRST.actions + SECOND.actions, FIRST.tasks + SECOND.tasks
)


def seen(root: Path) -> list[bytes]:
    """What a reader of the store gets."""
    return sorted(e.fields["tcp_pos"].tobytes() + e.fields["gripper_cmd"].tobytes() for e in both(root))


def test_a_second_import_of_the_same_bytes_writes_nothing(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", FIRST)
    bring(tmp_path / "s", source)
    before = tree(tmp_path / "s")
    again = bring(tmp_path / "s", source, clock=SimClock(1_900_000_000_000))
    assert (again.episodes_added, again.duplicates, again.generation) == (0, 3, 1)
    assert tree(tmp_path / "s") == before


def test_equal_imports_give_equal_bytes_and_leave_the_source_alone(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", FIRST)
    before = tree(source)
    for store in "st":
        bring(tmp_path / store, source)
    assert tree(tmp_path / "s") == tree(tmp_path / "t")
    assert tree(source) == before


def test_the_store_keeps_no_statistics(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST))
    for name, data in tree(tmp_path / "s").items():
        assert "stats" not in name
        assert b"stats/" not in data


def test_new_episodes_join_the_lineage_in_a_block_of_their_own(tmp_path: Path) -> None:
    first = bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST, splits={"train": "0:2", "held-out": "2:3"}))
    second = bring(tmp_path / "s", write_v3(tmp_path / "e", JOINED))
    assert (second.episodes_added, second.duplicates) == (2, 3)
    assert second.lineage == first.lineage
    blocks = Store(tmp_path / "s").catalogue().lineages[first.lineage]
    assert [b.block for b in blocks] == list(range(1, len(blocks) + 1))
    assert sum(len(b.episodes) for b in blocks) == 5
    assert {b.split for b in blocks[:2]} == {"train", "held-out"}
    stored = Store(tmp_path / "s").episodes("kita/pick")
    assert {e.meta.block for e in stored[:3]} == {1, 2}
    assert min(e.meta.block for e in stored[3:]) == 3
    assert len(seen(tmp_path / "s")) == 5


@pytest.mark.parametrize("removed", [False, True])
def test_a_copy_under_another_name_inherits_the_lineage(tmp_path: Path, removed: bool) -> None:
    root = tmp_path / "s"
    first = bring(root, write_v3(tmp_path / "d", FIRST))
    if removed:  # even when the whole store is lost
        shutil.rmtree(root)
    copy = write_v3(tmp_path / "copy", FIRST, files=[[0], [1], [2]])
    report = bring(root, copy, dataset="kita/renamed", rights="sha256:" + "d" * 64)
    assert report.lineage == first.lineage
    assert report.episodes_added == 3
    assert {e.meta.block for e in Store(root).episodes("kita/renamed")} <= {1, 2}


def test_a_copy_with_fewer_fields_inherits_lineage_and_split(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", FIRST, splits={"train": "0:2", "held-out": "2:3"})
    first = bring(tmp_path / "s", source)
    edit_info(source, splits={"train": "0:3"})
    fewer = bring(tmp_path / "s", source, dataset="kita/few", allow=frozenset({"tcp_pos"}))
    assert fewer.lineage == first.lineage
    assert fewer.held_out_added == 1


def test_episodes_of_two_lineages_do_not_mix(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST), dataset="kita/one")
    bring(tmp_path / "s", write_v3(tmp_path / "e", SECOND), dataset="kita/two")
    before = tree(tmp_path / "s")
    for dataset in ("kita/one", "kita/three"):
        with pytest.raises(LineageMixedError, match="lin_"):
            bring(tmp_path / "s", write_v3(tmp_path / dataset, JOINED), dataset=dataset)
    assert tree(tmp_path / "s") == before


def test_other_fields_need_a_data_set_of_their_own(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", FIRST)
    bring(tmp_path / "s", source)
    with pytest.raises(ShapeChangedError, match="another name"):
        bring(tmp_path / "s", source, allow=frozenset({"tcp_pos"}))


def test_a_second_contract_adds_its_right_and_no_episode(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", FIRST)
    bring(tmp_path / "s", source)
    report = bring(tmp_path / "s", source, rights="sha256:" + "d" * 64)
    assert (report.episodes_added, report.generation) == (0, 2)
    entry = Store(tmp_path / "s").catalogue().dataset("kita/pick")
    assert [r[-1] for r in entry.rights] == ["c", "d"]
    assert len(seen(tmp_path / "s")) == 3


def test_a_reader_keeps_its_generation_through_the_next_import(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST))
    opened = view(tmp_path / "s")
    bring(tmp_path / "s", write_v3(tmp_path / "e", SECOND))
    assert opened.count("train") + opened.count("held-out") == 3
    assert len(opened.episodes("train") + opened.episodes("held-out")) == 3


@pytest.mark.parametrize("name", ["", "Kita", "a/b/c", "../x", "a+b", "a/", "x" * 41])
def test_a_data_set_name_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(MapInvalidError, match="name"):
        bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST), dataset=name)


def test_an_unknown_data_set_and_a_damaged_store_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnknownError, match="data add"):
        view(tmp_path / "s")
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST))
    file = next((tmp_path / "s").glob("datasets/*/*/data/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StoreDamagedError, match="backup"):
        both(tmp_path / "s")
    (tmp_path / "s/catalogue.json").write_bytes(b"{}")
    with pytest.raises(StoreDamagedError, match=r"catalogue\.json"):
        view(tmp_path / "s")


CALLS = ("fsync", "replace", "link", "mkdir")


def failing(monkeypatch: pytest.MonkeyPatch, at: int, error: int) -> Callable[[], int]:
    """Lets the n-th call of the store's system calls fail; returns how many there were."""
    count = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise OSError(error, os.strerror(error))
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return lambda: count


@pytest.mark.slow
def test_an_error_of_any_system_call_leaves_the_store_as_before_or_as_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    bring(base, write_v3(tmp_path / "d", FIRST))
    source = write_v3(tmp_path / "e", JOINED)
    shutil.copytree(base, tmp_path / "done")
    bring(tmp_path / "done", source)
    before, after, finished = seen(base), seen(tmp_path / "done"), tree(tmp_path / "done")
    outcomes: list[list[bytes]] = []
    refused: list[str] = []
    for at in range(1, 200):
        root = tmp_path / f"s{at}"
        shutil.copytree(base, root)
        with monkeypatch.context() as patch:
            calls = failing(patch, at, errno.ENOSPC if at % 2 else errno.EIO)
            try:
                bring(root, source)
            except (StorageFullError, OSError) as error:
                refused.append(type(error).__name__)
        outcomes.append(seen(root))
        assert outcomes[-1] in (before, after)
        if calls() < at:
            break
        if at % 4 == 0:  # what an interrupted import left aside does not disturb the next
            bring(root, source)
            assert tree(root) == finished
        shutil.rmtree(root)
    assert outcomes.count(before) > 10
    assert outcomes[-1] == after
    assert set(refused) == {"StorageFullError", "OSError"}


def die_at(root: Path, source: Path, at: int) -> int:
    """Imports in a child that dies at its n-th touch of the store; returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def touch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and len(args) > 2 and int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir") or writes:
            count += 1
            if count == at:
                os._exit(9)

    sys.addaudithook(touch)
    try:
        bring(root, source)
    finally:
        os._exit(0)


@pytest.mark.slow
def test_a_process_that_dies_anywhere_leaves_the_store_as_before_or_as_after(tmp_path: Path) -> None:
    base = tmp_path / "base"
    bring(base, write_v3(tmp_path / "d", FIRST))
    source = write_v3(tmp_path / "e", JOINED)
    shutil.copytree(base, tmp_path / "done")
    bring(tmp_path / "done", source)
    before, after, finished = seen(base), seen(tmp_path / "done"), tree(tmp_path / "done")
    died = 0
    for at in range(1, 200):
        root = tmp_path / f"s{at}"
        shutil.copytree(base, root)
        status = die_at(root, source, at)
        assert seen(root) in (before, after)
        if at % 4 == 0:  # what an interrupted import left aside does not disturb the next
            bring(root, source)
            assert tree(root) == finished
        shutil.rmtree(root)
        if status == 0:
            break
        died += 1
    assert died > 15


def test_allow_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST), allow=ALLOW, required=ALLOW)
    assert len(seen(tmp_path / "s")) == 3


def test_a_large_data_set_is_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.data.draft.STORE_FILE_BYTES", 1_000)
    monkeypatch.setattr("client.data.draft.CHUNKS_SIZE", 2)
    bring(tmp_path / "s", write_v3(tmp_path / "d", FIRST))
    bring(tmp_path / "s", write_v3(tmp_path / "e", JOINED))
    files = sorted(
        str(p.relative_to(tmp_path / "s")) for p in (tmp_path / "s").glob("datasets/*/000002/data/*/*")
    )
    assert [f.split("/data/")[1] for f in files] == [
        f"chunk-{i // 2:03d}/file-{i % 2:03d}.parquet" for i in range(len(files))
    ]
    assert len(files) >= 3
    monkeypatch.undo()
    bring(tmp_path / "t", write_v3(tmp_path / "f", JOINED))
    assert seen(tmp_path / "s") == seen(tmp_path / "t")


def test_two_imports_at_once_wait_for_each_other(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    sources = [write_v3(tmp_path / f"d{i}", Recording.random(4, 5, seed=i)) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda s: bring(tmp_path / "s", s), sources))
    assert sorted(r.generation for r in reports) == [1, 2, 3, 4]
    assert len(seen(tmp_path / "s")) == 8
