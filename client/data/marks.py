# SPDX-License-Identifier: Apache-2.0
"""Marks of an episode by which its frames are known again in a copy that was saved or cut otherwise.

- A mark is a hash of `_RUN` frames in a row, over all mapped fields. An episode keeps its `KEPT`
  smallest: whatever is joined of whole episodes, or cut from one, shares the smallest with them.
- Frames that stand still say nothing: a run counts only if no two of its frames in a row are equal.
- Two shared marks (`SHARED`) are no accident. What is not known again: values of other fields, of another
  unit or rate, and episodes shorter than a run; there the owner's import history is all there is.
"""

from __future__ import annotations

import hashlib
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.data.series import Array32

__all__ = ["KEPT", "SHARED", "marks_of", "split_marks"]

KEPT: Final = 16
SHARED: Final = 2
_RUN: Final = 8
_BYTES: Final = 6


def marks_of(columns: Mapping[str, Array32]) -> str:
    """Up to `KEPT` marks in hex, one after the other; equal frames of equal fields give equal marks.

    Args:
        columns: All mapped fields, ``[T, k] float32``.
    """
    frames = np.ascontiguousarray(np.hstack([columns[key] for key in sorted(columns)]).astype("<f4") + 0.0)
    frames[np.isnan(frames)] = np.float32(np.nan)
    words = frames.view(np.uint32)
    moves = np.append(0, np.cumsum((words[1:] != words[:-1]).any(axis=1)))
    data, width = frames.tobytes(), frames[:1].nbytes
    runs = np.flatnonzero(moves[_RUN - 1 :] - moves[: max(0, len(moves) - _RUN + 1)] == _RUN - 1)
    named = {
        hashlib.blake2b(data[at * width : (at + _RUN) * width], digest_size=_BYTES).hexdigest()
        for at in runs.tolist()
    }
    return "".join(nsmallest(KEPT, named))


def split_marks(text: str) -> list[str]:
    """The single marks of `marks_of`."""
    return [text[at : at + 2 * _BYTES] for at in range(0, len(text), 2 * _BYTES)]
