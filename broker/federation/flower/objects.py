# SPDX-License-Identifier: Apache-2.0
"""Where the objects of messages lie: small ones in memory, large ones in files that are wiped at every start.

- The answer to an announced tree is always "send all that carries anything", whatever is here already.
  Flower's own answer tells a
  node which content exists, so that a member could test whether a rival sent the same bytes.
- Frames that only name others (Message, RecordDict, ArrayRecord) are not asked for: everything in them is
  checked elsewhere.
- The sum of all objects stays below `FLEET_STORE_BYTES`; an object beyond it is refused.
- `take` gives an object's bytes a life of their own, so that a message can be deleted while its tensor is
  still read.
"""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

from broker.federation.engine import FilePart
from broker.federation.errors import StoreFullError
from broker.federation.flower.names import (
    InMemoryObjectStore,
    NoObjectInStoreError,
    ObjectTree,
    validate_object_content,
)
from policies.frames import object_id as id_of
from policies.frames import unframe
from policies.limits import FLEET_FILE_BYTES, FLEET_STORE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileObjectStore", "carriers"]

_IN_FILE = b"in a file"  # stands where Flower keeps content: known and available


def carriers(tree: ObjectTree) -> list[str]:
    """Ids of the objects under a message that carry something: ConfigRecord, Array and its chunks.

    Under a message whose small parts ride in it there are chunks only.
    """
    found: dict[str, None] = {}
    for records in tree.children:
        if not records.children:
            found[records.object_id] = None
        for record in records.children:
            if not record.children:
                found[record.object_id] = None
            for array in record.children:
                found[array.object_id] = None
                found.update((chunk.object_id, None) for chunk in array.children)
    return list(found)


class FileObjectStore(InMemoryObjectStore):
    """Flower's in-memory store with large contents in files."""

    def __init__(self, folder: Path, *, bytes_max: int = FLEET_STORE_BYTES) -> None:
        """Empties the folder: nothing of an earlier process is ever read."""
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._bytes_max = bytes_max
        self._sizes: dict[str, int] = {}
        self._files: dict[str, Path] = {}
        self._counter = itertools.count()
        self.total_bytes = 0

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Notes a tree; the answer does not depend on what is here already."""
        super().preregister(run_id, object_tree)
        return carriers(object_tree)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Stores an announced object whose bytes have this id.

        Raises:
            ValueError: Other bytes, or no object of the fleet protocol.
            NoObjectInStoreError: Nobody announced it.
            StoreFullError: The sum of all objects reached its bound.
        """
        if id_of(object_content) != object_id:
            raise ValueError(object_id)
        validate_object_content(content=object_content)
        self.keep(object_id, object_content)

    def keep(self, object_id: str, object_content: bytes) -> None:
        """Stores an announced object that this process made itself: it is what its id says.

        Raises:
            NoObjectInStoreError: Nobody announced it.
            StoreFullError: The sum of all objects reached its bound.
        """
        size = len(object_content)
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None:
                raise NoObjectInStoreError(object_id)
            if entry.is_available:
                return
            if self.total_bytes + size > self._bytes_max:
                raise StoreFullError(
                    need=f"at most {self._bytes_max} bytes of objects",
                    found="more",
                    remedy="free disk space; run fewer runs at a time",
                )
            self.total_bytes += size
            self._sizes[object_id] = size
            entry.content, entry.is_available = object_content, True
        if size >= FLEET_FILE_BYTES:
            self._move_to_file(object_id, object_content)

    def get(self, object_id: str) -> bytes | None:
        """The object's bytes, empty if it was announced only, None if it is unknown."""
        with self.lock_store:
            path = self._files.get(object_id)
            if path is None:
                return super().get(object_id)
        try:
            return path.read_bytes()
        except FileNotFoundError:  # deleted since
            return None

    def delete(self, object_id: str) -> None:
        """Deletes an object that nothing refers to, and what only it referred to."""
        with self.lock_store:
            super().delete(object_id)
            if object_id not in self.store:
                self._forget(object_id)

    def clear(self) -> None:
        """Deletes everything."""
        with self.lock_store:
            super().clear()
            for object_id in list(self._sizes):
                self._forget(object_id)

    def size_of(self, object_id: str) -> int:
        """Length of a stored object; 0 if it is not here."""
        return self._sizes.get(object_id, 0)

    def take(self, object_id: str) -> memoryview | FilePart | None:
        """The body of an object, independent of the store from now on; None if the object is not here."""
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None or not entry.is_available:
                return None
            path = self._files.get(object_id)
            if path is None:
                return memoryview(entry.content)[unframe(entry.content).offset :]
            kept = self._folder / f"kept-{next(self._counter)}"
            kept.hardlink_to(path)
        with kept.open("rb") as file:
            offset = file.read(256).index(b"\0") + 1  # a chunk's head is short: no children
        return FilePart(kept, offset)

    def _move_to_file(self, object_id: str, content: bytes) -> None:
        path = self._folder / f"object-{next(self._counter)}"
        path.write_bytes(content)
        with self.lock_store:
            entry = self.store.get(object_id)
            if entry is None:
                path.unlink()
                return
            entry.content = _IN_FILE
            self._files[object_id] = path

    def _forget(self, object_id: str) -> None:
        self.total_bytes -= self._sizes.pop(object_id, 0)
        path = self._files.pop(object_id, None)
        if path is not None:
            path.unlink(missing_ok=True)
