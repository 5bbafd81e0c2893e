# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on after a crash: model and optimiser state after each closed round.

- A checkpoint is on the disk, whole, before the transaction that closes its round; the database names the
  round that counts.
  A file that no closed round names is left over from a crash and is replaced.
- The two newest checkpoints of a run are kept, and the one that votes may go back to. Models that are judged
  or released have files of their own, named by digest.
- Arrays are stored in NumPy's own container without pickle; what is read must have exactly the shapes that
  were asked for.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from broker.federation.errors import CheckpointError
from broker.keyfiles import replace_file
from policies.encoding import digest

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from policies.server_step import State

__all__ = ["Checkpoint", "Checkpoints", "ModelFiles", "model_bytes", "model_digest"]

_NAME = re.compile(r"^round-(\d{6})\.npz$")
_KEPT = 2
_WEIGHTS = "weights"
_STATE = "state."


def model_bytes(weights: npt.NDArray[np.floating]) -> bytes:
    """The bytes of a model that travel and are hashed: little-endian float32."""
    return np.ascontiguousarray(weights, dtype="<f4").tobytes()


def model_digest(weights: npt.NDArray[np.floating]) -> str:
    """``sha256:…`` of `model_bytes`."""
    return digest(model_bytes(weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights ``[P] float64`` (float32 values) after ``round``, and the optimiser's state."""

    round: int
    weights: npt.NDArray[np.float64]
    state: State


class Checkpoints:
    """The checkpoints of one run, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes one whole or not at all.

        Raises:
            OSError: The disk does not allow it; older checkpoints are untouched.
        """
        buffer = io.BytesIO()
        arrays = {_STATE + name: array for name, array in checkpoint.state.items()}
        np.savez(buffer, allow_pickle=False, **{_WEIGHTS: checkpoint.weights}, **arrays)
        replace_file(self._path(checkpoint.round), buffer.getvalue(), mode=0o600)

    def load(self, number: int, *, size: int) -> Checkpoint:
        """The checkpoint of a round.

        Raises:
            CheckpointError: Missing, damaged, or of another model.
        """
        path = self._path(number)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                found = {name: np.asarray(arrays[name], dtype=np.float64) for name in arrays.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(number, type(error).__name__) from error
        if _WEIGHTS not in found or any(array.shape != (size,) for array in found.values()):
            raise _damaged(number, "arrays of another model")
        state = {name.removeprefix(_STATE): array for name, array in found.items() if name != _WEIGHTS}
        return Checkpoint(round=number, weights=found[_WEIGHTS], state=state)

    def named(self, model: str, *, size: int) -> Checkpoint | None:
        """The newest checkpoint whose weights have this digest; None where there is none any more."""
        rounds = [int(found.group(1)) for path in self._folder.iterdir() if (found := _NAME.match(path.name))]
        for number in sorted(rounds, reverse=True):
            checkpoint = self.load(number, size=size)
            if model_digest(checkpoint.weights) == model:
                return checkpoint
        return None

    def prune(self, newest: int, *, keep: Collection[int] = ()) -> None:
        """Deletes what no restart can need once ``newest`` is closed.

        Args:
            newest: Round of the newest model.
            keep: Rounds whose models the run may go back to.
        """
        for path in self._folder.iterdir():
            found = _NAME.match(path.name)
            if found and int(found.group(1)) <= newest - _KEPT and int(found.group(1)) not in keep:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:06d}.npz"


class ModelFiles:
    """Models by digest, in one folder; the file name is the promise and is checked at every read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, data: bytes) -> str:
        """Writes a model and gives its digest."""
        name = digest(data)
        replace_file(self.path(name), data, mode=0o600)
        return name

    def read(self, name: str) -> bytes:
        """The bytes of a model.

        Raises:
            CheckpointError: Missing, or other bytes than its name says.
        """
        try:
            data = self.path(name).read_bytes()
        except OSError as error:
            raise _damaged(name, error.strerror or "unreadable") from error
        if digest(data) != name:
            raise _damaged(name, "other bytes")
        return data

    def path(self, name: str) -> Path:
        """Where the model of a digest lies."""
        return self._folder / f"{name.removeprefix('sha256:')}.f32"


def _damaged(what: object, found: str) -> CheckpointError:
    return CheckpointError(
        need=f"the stored model {what}", found=found, remedy="restore the broker's folder from a backup"
    )
