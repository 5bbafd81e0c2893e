# SPDX-License-Identifier: Apache-2.0
"""HDF5 that somebody else wrote, read with h5py: nothing outside the file, nothing larger than it says.

- `member` follows hard links only. A soft, external or user-defined link, a virtual data set and external
  storage are refused: they can name any other file of this machine.
- `numbers` reads whole arrays of at most two dimensions, and refuses a chunk or an array that would unpack to
  more than its bound, before a byte of it is read. `strings` reads words one by one, of a bounded length, and
  no more of them than the file can use; `attribute` reads single values.
- What the library cannot read becomes a refusal in `opened`. Call the others inside it.

    with opened(path) as file:
        data = group(file, "data")
        values = numbers(array(data, "x"), "data/x")       # [T, k] float64, finite
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.errors import (
    CellInvalidError,
    FileInvalidError,
    MissingColumnError,
    NotFiniteError,
    TooLargeError,
)
from client.data.readers.files import check_file
from policies.limits import HDF5_ARRAY_BYTES, HDF5_CHUNK_BYTES, SIGNALS, TEXT_CELL_BYTES, TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import h5py

    from client.data.series import Array64

__all__ = ["array", "attribute", "group", "member", "numbers", "opened", "strings", "whole", "width"]

REMEDY: Final = "write the data set again; h5repack copies linked parts into one file"


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file; whatever the library cannot read in it becomes a refusal."""
    import h5py

    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise FileInvalidError(
            need="an HDF5 file of robomimic's layout",
            found=f"{path.name}: {type(error).__name__} while reading",
            remedy="copy the file again",
        ) from error


def member(parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """A member that lies in this very file; None if there is none of that name."""
    import h5py

    where = f"{parent.name.rstrip('/')}/{name}"
    link = parent.get(name, getlink=True)  # asks for the link alone: `in` would follow it into another file
    if link is None:
        return None
    if type(link) is not h5py.HardLink:
        raise FileInvalidError(need="everything in this file", found=f"{where}: a link", remedy=REMEDY)
    found = parent[name]
    if not isinstance(found, h5py.Group | h5py.Dataset):
        raise FileInvalidError(need="groups and arrays", found=f"{where}: another thing", remedy=REMEDY)
    return found


def group(file: h5py.Group, path: str) -> h5py.Group:
    """The group at a path of names."""
    import h5py

    found: h5py.Group | h5py.Dataset | None = file
    for name in path.split("/"):
        found = member(found, name) if isinstance(found, h5py.Group) else None
    if not isinstance(found, h5py.Group):
        raise FileInvalidError(
            need=f"a group {path}", found="none", remedy="check that it is a robomimic data set"
        )
    return found


def array(parent: h5py.Group, name: str) -> h5py.Dataset:
    """An array whose numbers lie in this file."""
    import h5py

    where = f"{parent.name}/{name}"
    found = member(parent, name)
    if found is None:
        raise MissingColumnError(
            need=where, found="no such array", remedy="correct the recording or the signal map"
        )
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise FileInvalidError(need="an array in this file", found=f"{where}: another", remedy=REMEDY)
    return found


def strings(parent: h5py.Group, name: str, *, at_most: int) -> list[str]:
    """Words of a one-dimensional array, of which there are not more than ``at_most``.

    Each is read by itself: many of them may be one word of the file.
    """
    names = array(parent, name)
    text = names.dtype.kind == "S" or (names.dtype.kind == "O" and names.dtype.metadata is not None)
    if names.ndim != 1 or not text:
        raise FileInvalidError(need="a list of names", found=f"{name}: another array", remedy=REMEDY)
    rows = int(names.shape[0])
    if rows > at_most or names.dtype.itemsize > TEXT_CELL_BYTES or _chunk_bytes(names) > HDF5_CHUNK_BYTES:
        raise TooLargeError(
            need=f"at most {at_most} names of at most {TEXT_CELL_BYTES} bytes",
            found=f"{name}: {rows} of {names.dtype.itemsize}",
            remedy="write the data set again",
        )
    found = (names[at] for at in range(rows))
    return [one.decode("utf-8") if isinstance(one, bytes) else str(one) for one in found]


def attribute(parent: h5py.Group, name: str) -> Any:  # noqa: ANN401  whatever the file says
    """The single value of an attribute; None where there is none, or more than one."""
    if name not in parent.attrs:
        return None
    place = parent.attrs.get_id(name)
    if place.shape != () or place.dtype.itemsize > TEXT_ROW_BYTES:
        raise FileInvalidError(need="one value", found=f"attribute {name}: others", remedy=REMEDY)
    return parent.attrs[name]


def whole(value: Any, where: str) -> int:  # noqa: ANN401  whatever the file says
    """A count that an attribute holds."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise FileInvalidError(
            need="a whole number of samples", found=f"{where}: another value, or none", remedy=REMEDY
        )
    return int(value)


def width(found: h5py.Dataset) -> int | None:
    """Numbers per row, None for what is no row of numbers, or of more than `SIGNALS`."""
    if found.ndim not in (1, 2) or found.dtype.kind not in "biuf":
        return None
    columns = int(found.shape[1]) if found.ndim == 2 else 1  # noqa: PLR2004  rows and columns
    return columns if columns <= SIGNALS else None


def _chunk_bytes(found: h5py.Dataset) -> int:
    return math.prod(found.chunks) * int(found.dtype.itemsize) if found.chunks else 0


def numbers(found: h5py.Dataset, where: str) -> Array64:
    """The rows of an array, ``[T, k] float64``."""
    columns = width(found)
    if columns is None:
        raise CellInvalidError(
            need="rows of numbers", found=f"{where}: another kind of array", remedy="map another key"
        )
    if _chunk_bytes(found) > HDF5_CHUNK_BYTES or found.size * max(8, found.dtype.itemsize) > HDF5_ARRAY_BYTES:
        raise TooLargeError(
            need=f"chunks of at most {HDF5_CHUNK_BYTES} bytes, arrays of at most {HDF5_ARRAY_BYTES}",
            found=f"{where}: larger ones",
            remedy="h5repack with smaller chunks; cut the episode",
        )
    values: Array64 = found[()].astype(np.float64).reshape(found.shape[0], columns)
    if not np.isfinite(values).all():
        row, component = (int(at[0]) for at in np.nonzero(~np.isfinite(values)))
        raise NotFiniteError(
            need="finite numbers",
            found=f"{where}, row {row}, component {component}: NaN or infinity",
            remedy="repair the recording, or leave the episode out",
        )
    return values
