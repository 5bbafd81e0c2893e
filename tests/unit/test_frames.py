# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from policies.errors import EncodingError
from policies.frames import (
    array_frame,
    chunk_id,
    chunk_order,
    fits_inline,
    frame,
    object_id,
    split,
    unframe,
)
from policies.limits import FLEET_CHUNK_BYTES, FLEET_INLINE_BYTES


def test_a_frame_says_its_kind_its_children_and_where_its_body_begins() -> None:
    data = frame("Array", ("a" * 64, "b" * 64), b"body")
    head = unframe(data)
    assert (head.kind, head.children) == ("Array", ("a" * 64, "b" * 64))
    assert data[head.offset :] == b"body"


@pytest.mark.parametrize(
    "data", [b"", b"Array", b"Array  4\0bod", b"Array 4\0body", b"Array  x\0body", b"\xff  4\0body"]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        unframe(data)


def test_equal_chunks_are_named_once_and_keep_their_order() -> None:
    names = ["0" * 64, "1" * 64, "0" * 64]
    array = array_frame("float32", (6,), names)
    assert unframe(array).children == ("0" * 64, "1" * 64)
    assert chunk_order(array) == names


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b'{"stype": "numpy.ndarray", "arraychunk_ids": [0]}',
        b'{"stype": "iriai.le", "arraychunk_ids": [7]}',
        b'{"stype": "iriai.le", "arraychunk_ids": [-1]}',
        b'{"stype": "iriai.le", "arraychunk_ids": ["0"]}',
        b'{"stype": "iriai.le"}',
    ],
)
def test_an_array_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(EncodingError):
        chunk_order(frame("Array", ("0" * 64,), body))


def test_chunks_are_full_but_the_last() -> None:
    data = memoryview(bytes(FLEET_CHUNK_BYTES + 8))
    parts = list(split(data))
    assert [len(part) for part in parts] == [FLEET_CHUNK_BYTES, 8]
    chunks = [frame("ArrayChunk", (), part) for part in parts]
    assert b"".join(one[unframe(one).offset :] for one in chunks) == bytes(data)
    assert [object_id(one) for one in chunks] == [chunk_id(part) for part in parts]


def test_small_tensors_ride_beside_the_header() -> None:
    assert fits_inline(b"h" * 1000, FLEET_INLINE_BYTES - 1000)
    assert not fits_inline(b"h" * 1000, FLEET_INLINE_BYTES - 999)
