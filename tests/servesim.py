# SPDX-License-Identifier: Apache-2.0
"""Models behind the serving seam, for tests: one that says what it is told to, and one of a recipe's weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from client.deploy.ports import Channel, Facts, Safety
from client.deploy.serving import NoRecorder, Serving
from client.deploy.states import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.deploy.ports import Array32

MODEL = "sha256:" + "a1" * 32
START_MS = 1_795_000_000_000
START_NS = START_MS * 1_000_000
TICK_NS = 12_500_000


def facts(*, fallback: str = "hold", **changes: object) -> Facts:
    """Pick-place: ten values observed, four commanded, 80 ticks per second."""
    inputs = (
        ("tcp_pos", 3, -1.0, 2.0),
        ("gripper_width", 1, 0.0, 1.0),
        ("object_pos", 3, -1.0, 2.0),
        ("goal_pos", 3, -1.0, 2.0),
    )
    made = Facts(
        model=MODEL,
        package="sha256:" + "b2" * 32,
        title="pick-place",
        task="pick-place",
        embodiment_class="7r-arm+parallel-gripper",
        dof=7,
        action_space="ee-delta",
        rate_hz=80.0,
        inputs=tuple(_channel(*one) for one in inputs),
        outputs=(_channel("tcp_pose_delta", 3, -0.012, 0.012), _channel("gripper_cmd", 1, -1.0, 1.0)),
        horizon=1,
        execute=1,
        safety=Safety(
            max_delta_per_tick=(0.024, 0.024, 0.024, 2.0),
            watchdog_ms=200,
            fallback=fallback,  # type: ignore[arg-type]
            ood_max=0.2,
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def _channel(name: str, size: int, low: float, high: float) -> Channel:
    unit = "1" if name.startswith("gripper") else "m"
    return Channel(name=name, field=name, unit=unit, low=(low,) * size, high=(high,) * size)


@dataclass
class MovedClock:
    """`client.deploy.ports.ServeClock` that a test moves; the wall clock alone may be set too."""

    ns: int = START_NS
    set_back_ns: int = 0

    def now_ms(self) -> int:
        return (self.ns - self.set_back_ns) // 1_000_000

    def steady_ns(self) -> int:
        return self.ns

    @property
    def ms(self) -> int:
        return self.ns // 1_000_000

    @ms.setter
    def ms(self, value: int) -> None:
        self.ns = value * 1_000_000


class TimedServing(Serving):
    """A service whose clock a test moves with each call, by ``now_ns``."""

    def __init__(self, model, *, clock_kind="host", recorder=None, clock=None) -> None:
        self.time = clock or MovedClock()
        super().__init__(model, clock_kind=clock_kind, recorder=recorder or NoRecorder(), clock=self.time)

    def _at(self, now_ns: int | None) -> None:
        if now_ns is not None:
            self.time.ns = now_ns

    def standing(self, *, now_ns: int | None = None):
        self._at(now_ns)
        return super().standing()

    def infer(self, question, *, rows=None, now_ns: int | None = None):
        self._at(now_ns)
        return super().infer(question, rows=rows)

    def resume(self, *, now_ns: int | None = None):
        self._at(now_ns)
        return super().resume()

    def status(self, *, now_ns: int | None = None):
        self._at(now_ns)
        return super().status()


@dataclass
class SaidModel:
    """A model that answers what a test says; ``asked`` are the observations that reached it."""

    facts: Facts = field(default_factory=facts)
    say: Callable[[Array32], np.ndarray] = lambda _observation: np.full((1, 4), 0.01, dtype=np.float32)
    clipped: float = 0.0
    asked: list[Array32] = field(default_factory=list)

    def infer_flagged(self, observation: Array32) -> tuple[Array32, float]:
        self.asked.append(observation)
        return self.say(observation), self.clipped


def question(tick: int = 0, *, values: Sequence[float] | None = None, at_ns: int | None = None) -> Question:
    """The question of a control tick; an arm somewhere in its cell."""
    observation = np.full(10, 0.1 + tick * 1e-3) if values is None else np.asarray(values, dtype=np.float64)
    return Question(
        observation=observation, stamp_ns=START_NS + tick * TICK_NS if at_ns is None else at_ns, seq=tick
    )


def tick_ns(tick: int) -> int:
    """When the question of a tick arrives: a millisecond after its stamp."""
    return START_NS + tick * TICK_NS + 1_000_000
