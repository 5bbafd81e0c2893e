# SPDX-License-Identifier: Apache-2.0
"""One suite over Flower's object store and ours, and what only ours does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.federation.engine import FilePart
from broker.federation.errors import StoreFullError
from broker.federation.flower.names import InMemoryObjectStore, NoObjectInStoreError, ObjectTree
from broker.federation.flower.objects import FileObjectStore, carriers
from policies.frames import frame, object_id
from policies.limits import FLEET_FILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

SMALL = frame("ArrayChunk", (), b"small")
LARGE = frame("ArrayChunk", (), bytes(FLEET_FILE_BYTES))
CONFIG = frame("ConfigRecord", (), b"")


def _tree(*chunks: bytes) -> tuple[ObjectTree, dict[str, bytes]]:
    """A message over a record and, if there are chunks, one array."""
    objects: dict[str, bytes] = {object_id(CONFIG): CONFIG}
    leaves = [ObjectTree(object_id=object_id(CONFIG))]
    if chunks:
        names = [object_id(chunk) for chunk in chunks]
        array = frame("Array", names, b"{}")
        record = frame("ArrayRecord", (object_id(array),), b"{}")
        objects |= dict(zip(names, chunks, strict=True)) | {
            object_id(array): array,
            object_id(record): record,
        }
        inner = ObjectTree(
            object_id=object_id(array), children=[ObjectTree(object_id=name) for name in names]
        )
        leaves.append(ObjectTree(object_id=object_id(record), children=[inner]))
    records = frame("RecordDict", [leaf.object_id for leaf in leaves], b"{}")
    message = frame("Message", (object_id(records),), b"x" * len(chunks))
    objects |= {object_id(records): records, object_id(message): message}
    tree = ObjectTree(
        object_id=object_id(message), children=[ObjectTree(object_id=object_id(records), children=leaves)]
    )
    return tree, objects


@pytest.fixture(params=["flower", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return InMemoryObjectStore() if request.param == "flower" else FileObjectStore(tmp_path / "objects")


def test_what_was_announced_can_be_put_read_and_deleted(store: Any) -> None:
    tree, objects = _tree(SMALL, LARGE)
    store.preregister(1, tree)
    assert len(store) == len(objects)
    assert store.get(object_id(LARGE)) == b""
    for name, data in objects.items():
        store.put(name, data)
        assert store.get(name) == data
    assert store.get_object_tree(tree.object_id) == tree
    store.delete(tree.object_id)
    assert len(store) == 0
    assert store.get(object_id(LARGE)) is None


def test_what_was_not_announced_or_has_another_id_is_refused(store: Any) -> None:
    with pytest.raises(NoObjectInStoreError):
        store.put(object_id(SMALL), SMALL)
    tree, _ = _tree(SMALL)
    store.preregister(1, tree)
    with pytest.raises(ValueError):
        store.put(object_id(SMALL), LARGE)


def test_shared_objects_live_as_long_as_the_last_message(store: Any) -> None:
    first, objects = _tree(LARGE)
    store.preregister(1, first)
    for name, data in objects.items():
        store.put(name, data)
    second = ObjectTree(
        object_id="f" * 64, children=[ObjectTree(object_id="e" * 64, children=first.children[0].children)]
    )
    store.preregister(1, second)
    store.delete(first.object_id)
    assert store.get(object_id(LARGE)) == LARGE
    store.delete(second.object_id)
    assert len(store) == 0


def test_the_objects_of_a_run_go_with_it(store: Any) -> None:
    tree, objects = _tree(LARGE)
    store.preregister(1, tree)
    for name, data in objects.items():
        store.put(name, data)
    store.delete_objects_in_run(1)
    assert len(store) == 0
    store.clear()


def test_the_answer_does_not_tell_what_is_here(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects")
    tree, objects = _tree(SMALL)
    first = store.preregister(1, tree)
    for name, data in objects.items():
        store.put(name, data)
    assert store.preregister(1, tree) == first == carriers(tree)
    assert tree.object_id not in first
    assert len(first) == 3


def test_large_objects_lie_in_files_that_a_start_wipes(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    store = FileObjectStore(folder)
    tree, objects = _tree(SMALL, LARGE)
    store.preregister(1, tree)
    for name, data in objects.items():
        store.put(name, data)
    assert len(list(folder.iterdir())) == 1
    assert store.size_of(object_id(LARGE)) == len(LARGE)
    assert store.total_bytes == sum(map(len, objects.values()))
    FileObjectStore(folder)
    assert list(folder.iterdir()) == []
    assert store.get(object_id(LARGE)) is None


def test_a_taken_object_outlives_its_message(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    store = FileObjectStore(folder)
    tree, objects = _tree(SMALL, LARGE)
    assert store.take(object_id(SMALL)) is None
    store.preregister(1, tree)
    assert store.take(object_id(SMALL)) is None
    for name, data in objects.items():
        store.put(name, data)
    small, large = store.take(object_id(SMALL)), store.take(object_id(LARGE))
    store.delete(tree.object_id)
    assert store.total_bytes == 0
    assert small == b"small"
    assert isinstance(large, FilePart)
    assert large.path.read_bytes()[large.offset :] == bytes(FLEET_FILE_BYTES)


def test_a_full_store_refuses_and_stays_as_it_was(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects", bytes_max=len(LARGE))
    tree, _ = _tree(SMALL, LARGE)
    store.preregister(1, tree)
    store.put(object_id(SMALL), SMALL)
    with pytest.raises(StoreFullError):
        store.put(object_id(LARGE), LARGE)
    assert store.total_bytes == len(SMALL)
    assert store.get(object_id(LARGE)) == b""
    store.clear()
    assert store.total_bytes == 0
