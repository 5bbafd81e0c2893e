# SPDX-License-Identifier: Apache-2.0
"""What serving needs of a model, whatever holds it: facts that the manifest states, and one function.

- `Model` is the whole seam between a package and the service: guards, recorder and both servers know nothing
  else. `client.deploy.loader` gives one from a package; tests bring their own.
- Observations are raw fields in SI, side by side in the order of ``facts.inputs``; actions in SI, in the
  order of ``facts.outputs``. Normaliser, clamp and adapter are the model's own business.
- A model is a function of one observation and keeps no memory. What it answers is not trusted: the guards
  stand around it (`client.deploy.guards`).

::

    chunk, clipped = model.infer_flagged(observation)   # [n] float32 → [H, a] float32, and 0 … 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from policies.ports import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Array32", "Channel", "Facts", "Fallback", "Model", "Safety", "ServeClock", "limits_of"]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Fallback = Literal["hold", "zero-velocity", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One field of the observation or of the action: its name here, canonical field, SI unit, limits."""

    name: str
    field: str
    unit: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """What the guards hold a model to.

    Attributes:
        max_delta_per_tick: Most that each component of the action may change from one tick to the next.
        watchdog_ms: An observation older than this, or silence for as long, ends in the fallback.
        fallback: What is answered then (`client.deploy.guards`).
        ood_max: Share of clipped inputs, 0 to 1, above which the model is out of what it knows.
    """

    max_delta_per_tick: tuple[float, ...]
    watchdog_ms: int
    fallback: Fallback
    ood_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a model says of itself.

    Attributes:
        model: Digest of the weights, ``sha256:`` and 64 hex digits.
        package: Digest of the manifest that was signed.
        title: Id of the model, for people.
        task: As the catalogue names it.
        embodiment_class: Of the robot.
        dof: Its joints.
        action_space: As a signal map names it.
        rate_hz: Control ticks per second; None where nobody stated it.
        inputs: Fields of the observation, in order.
        outputs: Fields of the action, in order.
        horizon: Rows of a chunk that the model gives.
        execute: How many of them are executed before the next question.
        safety: Limits of the guards.
        adapter: The site's adapter inside the model, as a signal map says it: recordings are in the units of
            the controller then. None without one.
    """

    model: str
    package: str
    title: str
    task: str
    embodiment_class: str
    dof: int
    action_space: str
    rate_hz: float | None
    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    horizon: int
    execute: int
    safety: Safety
    adapter: Mapping[str, Any] | None = None

    @property
    def input_size(self) -> int:
        """Components of an observation."""
        return sum(one.size for one in self.inputs)

    @property
    def output_size(self) -> int:
        """Components of an action."""
        return sum(one.size for one in self.outputs)


class Model(Protocol):
    """Something that acts; see the module."""

    @property
    def facts(self) -> Facts:
        """What it says of itself."""
        ...

    def infer_flagged(self, observation: Array32) -> tuple[Array32, float]:
        """The next actions ``[H, a]`` of one observation ``[n]``, and how much of it is strange.

        The second value is the part of the network's inputs beyond the normaliser's clip, 0 to 1.
        """
        ...


class ServeClock(Clock, Protocol):
    """The wall clock tells the age of stamps; silence and durations are told by one that nobody sets."""

    def steady_ns(self) -> int:
        """Nanoseconds since some moment; it never goes back and never jumps."""
        ...


def limits_of(channels: Sequence[Channel]) -> tuple[Array64, Array64]:
    """Lower and upper limits of channels side by side, ``[n]`` each."""
    low = np.array([value for one in channels for value in one.low], dtype=np.float64)
    high = np.array([value for one in channels for value in one.high], dtype=np.float64)
    return low, high
