# SPDX-License-Identifier: Apache-2.0
"""Guards around a model, in plain numpy and without memory: what may go in, what may come out, what else.

A clamp lets NaN through, so the graph's own clamp is no guard. Before the model (`Guards.before`), all of
them, in this order:
1. every value of the observation is finite;
2. every value lies within the input's limits;
3. sequence number and stamp are above those of the question before;
4. the stamp is at most ``watchdog_ms`` old, and not as far in the future;
5. at most ``ood_max`` of the network's inputs is cut off by the normaliser.

After it (`Guards.after`):
1. the chunk has its rows and columns, every value finite;
2. it is clamped to the outputs' limits; that alone is a flag, and no reason to stop;
3. no component changes by more than its limit from one tick to the next; where the first row's change is
   measured from says `client.deploy.references`, and a position without such a place is refused;
4. the observation is, now that the model has answered, at most ``watchdog_ms`` old (`Guards.late`).

Each guard that fires is a `Flag`. Every flag but ``clamped`` ends in the fallback action:

| fallback | the answer |
|---|---|
| hold | rates and increments 0; positions and the gripper as last sent |
| zero-velocity | rates and increments 0, the gripper as last sent; refused where a position is an output |
| stop | no action: the controller stops by its own means |

Where nothing was sent yet that could be held, the answer is no action as well. Forces, torques and currents
have no value that is safe for every robot: with such an output only ``stop`` is accepted. This is advice to a
controller that keeps its own safety functions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from client.deploy.ports import limits_of
from client.deploy.references import POSITIONS, RATES
from client.deploy.refusals import FallbackUnfitError

if TYPE_CHECKING:
    from client.deploy.ports import Array32, Array64, Facts

__all__ = ["RATES", "Flag", "Guards"]

_KEPT: Final = frozenset({"gripper_cmd", "gripper_width"})
_SLACK: Final = 1e-6  # relative; float32 and JSON round
_CHUNK_AXES: Final = 2


class Flag(StrEnum):
    """A guard that fired."""

    INPUT = "input-not-finite"
    RANGE = "input-range"
    SEQUENCE = "sequence"
    AGE = "age"
    OOD = "out-of-distribution"
    MODEL = "model-failed"
    OUTPUT = "output-not-finite"
    DELTA = "delta"
    WATCHDOG = "watchdog"
    CLAMPED = "clamped"

    @property
    def trips(self) -> bool:
        """Whether it ends in the fallback."""
        return self is not Flag.CLAMPED


class Guards:
    """The guards of one model's facts.

    Raises:
        FallbackUnfitError: The fallback cannot be said in the outputs that the model has.
    """

    def __init__(self, facts: Facts) -> None:
        self._safety = facts.safety
        self._rows, self._columns = facts.execute, facts.output_size
        self._in_low, self._in_high = limits_of(facts.inputs)
        self._low, self._high = limits_of(facts.outputs)
        self._delta = np.asarray(facts.safety.max_delta_per_tick, dtype=np.float64)
        fields = np.array([one.field for one in facts.outputs for _ in range(one.size)])
        self._still = np.isin(fields, sorted(RATES))
        self._placed = np.isin(fields, sorted(POSITIONS))
        self.watchdog_ns = facts.safety.watchdog_ms * 1_000_000
        self._check_fallback(set(fields.tolist()))

    def _check_fallback(self, fields: set[str]) -> None:
        kind = self._safety.fallback
        held = _KEPT if kind == "zero-velocity" else _KEPT | POSITIONS
        strange = sorted(fields - RATES - held)
        reaches = bool(np.all((self._low <= 0) & (self._high >= 0) | ~self._still))
        if kind != "stop" and (strange or not reaches):
            raise FallbackUnfitError(
                need=f"outputs that the fallback {kind} has a value for",
                found=", ".join(strange) or "a rate whose limits leave out 0",
                remedy="get a package whose fallback is stop",
            )

    def before(
        self,
        observation: Array64,
        *,
        rises: bool,
        age_ns: int | None,
    ) -> tuple[Flag, ...]:
        """Guards 1 to 4 of an observation ``[n]``.

        Args:
            observation: As it came, float64.
            rises: Whether sequence number and stamp are above those before.
            age_ns: Age of the stamp, negative in the future; None where its clock has no age.
        """
        found = []
        # 1.
        with np.errstate(over="ignore"):
            finite = bool(np.isfinite(observation.astype(np.float32)).all())
        if not finite:
            found.append(Flag.INPUT)
        # 2.
        elif bool(np.any((observation < self._in_low) | (observation > self._in_high))):
            found.append(Flag.RANGE)
        # 3.
        if not rises:
            found.append(Flag.SEQUENCE)
        # 4.
        if age_ns is not None and abs(age_ns) > self.watchdog_ns:
            found.append(Flag.AGE)
        return tuple(found)

    def known(self, clipped: float) -> tuple[Flag, ...]:
        """Guard 5: the share of inputs that the normaliser cuts off; a share that is no number fires too."""
        return () if clipped <= self._safety.ood_max else (Flag.OOD,)

    def late(self, age_ns: int | None, took_ns: int) -> tuple[Flag, ...]:
        """Guard 4 once more: an answer that took long is of an observation that became old meanwhile."""
        return (Flag.AGE,) if (age_ns or 0) + took_ns > self.watchdog_ns else ()

    def after(self, chunk: Array32, low: Array64, high: Array64) -> tuple[Array64 | None, tuple[Flag, ...]]:
        """The rows of a chunk that are executed, clamped, and what fired; no rows if a guard refuses them.

        Args:
            chunk: What the model answered.
            low: What the first row's change is measured from, ``[a]``; NaN where nothing is known.
            high: The same: anything between the two will do.
        """
        # 1.
        whole = np.asarray(chunk)
        shaped = whole.ndim == _CHUNK_AXES and len(whole) >= self._rows and whole.shape[1] == self._columns
        if not shaped or whole.dtype.kind != "f" or not np.isfinite(whole[: self._rows]).all():
            return None, (Flag.OUTPUT,)
        wanted = whole[: self._rows].astype(np.float64)
        # 2.
        rows = np.clip(wanted, self._low, self._high)
        slack = _SLACK * np.maximum(np.abs(self._low), np.abs(self._high))
        flags = (Flag.CLAMPED,) if bool((np.abs(rows - wanted) > slack).any()) else ()
        # 3.
        most = self._delta * (1 + _SLACK) + slack
        first = rows[0] - np.clip(rows[0], low, high)  # NaN stays NaN
        lost = bool((np.isnan(first) & self._placed).any())
        if (
            lost
            or bool((np.abs(np.nan_to_num(first)) > most).any())
            or bool((np.abs(np.diff(rows, axis=0)) > most).any())
        ):
            return None, (*flags, Flag.DELTA)
        return rows, flags

    def fallback(self, last: Array64 | None) -> Array64 | None:
        """The chunk that is answered instead, finite and within limits, or None for no action.

        Args:
            last: The action that was sent last, ``[a]``.
        """
        if self._safety.fallback == "stop":
            return None
        if last is None:
            if not self._still.all():
                return None
            last = np.zeros(self._columns)
        row = np.clip(np.where(self._still, 0.0, last), self._low, self._high)
        return np.tile(row, (self._rows, 1))
