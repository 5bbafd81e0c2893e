# SPDX-License-Identifier: Apache-2.0
"""`Serving`: one model, its guards, where it stands, what it did. Both servers ask this and nothing else.

`Serving.infer`, in this order:
1. the service answers at all; if it was silent for longer than its watchdog, it is in the fallback;
2. the guards before the model (`client.deploy.guards`), on every question, also in the fallback;
3. unless one tripped: the model, then the guards after it, the age of the observation once more as the last
   of them; a model that raises is a guard that fired;
4. a trip, now or earlier: the fallback action, until the owner resumes;
5. the tick is counted and recorded; a question that does not come after the one before is not recorded.

What is answered is finite and within limits, or no action at all. The end of an episode disarms nothing:
silence before it counts, and the bound of the change goes on from the action sent last. Silence and durations
are told by a clock that nobody sets. Not thread-safe: one loop owns it.

    serving = Serving(model, clock_kind="host", recorder=NoRecorder(), clock=clock)
    answer = serving.infer(question)
    answer.rows, answer.flags, answer.standing.phase
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from client.deploy.guards import Flag, Guards
from client.deploy.references import References
from client.deploy.refusals import FallbackError, RequestError
from client.deploy.states import Phase, Standing

if TYPE_CHECKING:
    from concurrent.futures import Future

    from client.deploy.ports import Array64, Channel, Facts, Model, ServeClock
    from client.deploy.states import ClockKind, Question

__all__ = ["Answer", "NoRecorder", "Outcome", "Recorder", "Serving", "Tick", "Witness", "fallback_error"]

Outcome = Literal["success", "fail", "unknown"]
Witness = Literal["", "cell", "person"]
_SAMPLES: Final = 4_096  # latencies that the percentiles are of, the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One answered question. ``sent`` is the first row of the chunk, None if the answer was the fallback."""

    question: Question
    sent: Array64 | None
    flags: tuple[Flag, ...]
    served_ns: int


class Recorder(Protocol):
    """Where ticks go (`client.deploy.recorder`); it never raises into serving."""

    def tick(self, tick: Tick) -> None:
        """Takes a tick of the open episode."""
        ...

    def end(self, outcome: Outcome, by: Witness) -> Future[Any] | None:
        """Closes the episode; done once its file is durable. None if nothing is open."""
        ...

    def status(self) -> dict[str, Any]:
        """For ``GET /v1/status``."""
        ...

    def close(self) -> None:
        """Waits for what is being written; an open episode is dropped and counted."""
        ...


class NoRecorder:
    """Records nothing."""

    def tick(self, tick: Tick) -> None:
        """Nothing."""

    def end(self, outcome: Outcome, by: Witness) -> None:
        """Nothing."""
        del outcome, by

    def status(self) -> dict[str, Any]:
        """Off."""
        return {"state": "off"}

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows to execute ``[m, a]``, or None: no action. ``flags`` are of this question."""

    rows: Array64 | None
    flags: tuple[Flag, ...]
    standing: Standing


class Serving:
    """See the module.

    Raises:
        FallbackUnfitError: The model's fallback cannot be said in its outputs.
    """

    def __init__(self, model: Model, *, clock_kind: ClockKind, recorder: Recorder, clock: ServeClock) -> None:
        self.facts: Facts = model.facts
        self.clock_kind: ClockKind = clock_kind
        self.recorder = recorder
        self._model = model
        self._clock = clock
        self._guards = Guards(model.facts)
        self._references = References(model.facts)
        self._standing = Standing().loaded()
        self._flags: Counter[Flag] = Counter()
        self._ended: Counter[str] = Counter()
        self._questions = self._fallbacks = 0
        self._took_ns = np.zeros(_SAMPLES, dtype=np.int64)
        self._timed = 0

    def standing(self) -> Standing:
        """Where it stands now; silence beyond the watchdog is the fallback, whoever looks first."""
        if self._standing.silent(steady_ns=self._clock.steady_ns(), watchdog_ns=self._guards.watchdog_ns):
            self._flags[Flag.WATCHDOG] += 1
            self._standing = self._standing.tripped((Flag.WATCHDOG,))
        return self._standing

    def trip(self, flag: Flag) -> None:
        """A door met something that no question should do to it: the fallback."""
        self._flags[flag] += 1
        self._standing = self.standing().tripped((flag,))

    def fallback_due(self) -> Answer | None:
        """The fallback, if it is answered now, for a door that speaks without being asked."""
        standing = self.standing()
        if standing.phase is not Phase.FALLBACK:
            return None
        last = standing.last_action()
        rows = self._guards.fallback(standing.last if last is None else last)
        return Answer(rows=rows, flags=(), standing=standing)

    def infer(self, question: Question, *, rows: int | None = None) -> Answer:
        """The answer to a question; see the module for the order.

        Args:
            question: Of a control tick.
            rows: How many rows of a chunk this door hands out; all that are executed, if left out. What it
                does not hand out was never sent.

        Raises:
            NotServingError: It is loading, or was stopped.
            RequestError: Another number of values than the model takes.
        """
        self._check_sizes(question)
        # 1.
        now_ns, steady_ns = self._clock.now_ms() * 1_000_000, self._clock.steady_ns()
        before = self.standing().serving()
        # 2.
        rises = before.rises(question)
        age_ns = before.age_ns(question.stamp_ns, clock=self.clock_kind, now_ns=now_ns, steady_ns=steady_ns)
        flags = self._guards.before(question.observation, rises=rises, age_ns=age_ns)
        standing = before.heard(question, steady_ns=steady_ns).tripped(flags)
        # 3.
        chunk = None
        if standing.phase is not Phase.FALLBACK:
            chunk, fired = self._acted(question, before)
            fired += self._guards.late(age_ns, self._clock.steady_ns() - steady_ns)
            flags += fired
            standing = standing.tripped(fired)
        # 4.
        fallen = standing.phase is Phase.FALLBACK
        sent = None if fallen or chunk is None else chunk[0]
        if fallen:
            last = before.last_action(question.seq)
            chunk = self._guards.fallback(before.last if last is None else last)
        # 5.
        chunk = None if chunk is None else chunk[:rows]
        self._standing = standing = standing.answered(chunk)
        self._questions += 1
        self._fallbacks += fallen
        self._flags.update(flags)
        if rises:
            self.recorder.tick(Tick(question=question, sent=sent, flags=flags, served_ns=now_ns))
        return Answer(rows=chunk, flags=flags, standing=standing)

    def _check_sizes(self, question: Question) -> None:
        sizes = (len(question.observation), self.facts.output_size)
        if question.measured is not None:
            sizes = (sizes[0], len(question.measured))
        wanted = (self.facts.input_size, self.facts.output_size)
        if sizes != wanted:
            raise RequestError(
                need=f"{wanted[0]} values observed, and {wanted[1]} measured or none",
                found=f"{sizes[0]} observed, and {_measured(question)} measured",
                remedy="ask GET /v1/schema for names, order and units",
            )

    def _acted(self, question: Question, before: Standing) -> tuple[Array64 | None, tuple[Flag, ...]]:
        observation = question.observation.astype(np.float32)
        try:
            chunk, clipped = self._model.infer_flagged(observation)
        except Exception:  # noqa: BLE001  whatever a graph's runtime raises: the robot gets its fallback
            return None, (Flag.MODEL,)
        strange = self._guards.known(clipped)
        rows, flags = self._guards.after(chunk, *self._references.of(question, before))
        return rows, (*strange, *flags)

    def end_episode(self, outcome: Outcome, *, by: Witness = "cell") -> Future[Any] | None:
        """The attempt is over; done once its recording is durable. None if nothing was recorded.

        Silence before it that was longer than the watchdog is the fallback all the same.

        Args:
            outcome: How it ended.
            by: Who says so: the cell's own signal, or a person who looked.

        Raises:
            NotServingError: It is loading, or was stopped.
        """
        self._standing = self.standing().serving().episode_ended()
        self._ended[outcome] += 1
        return self.recorder.end(outcome, "" if outcome == "unknown" else by)

    def resume(self) -> Standing:
        """The owner lets it act again.

        Raises:
            NotServingError: It is loading, or was stopped.
        """
        self._standing = self.standing().serving().resumed()
        return self._standing

    def stop(self) -> None:
        """The end: nothing is answered any more."""
        self._standing = self._standing.stopped()

    def took(self, nanoseconds: int) -> None:
        """How long a question took, from its body to its answer."""
        self._took_ns[self._timed % _SAMPLES] = nanoseconds
        self._timed += 1

    def status(self) -> dict[str, Any]:
        """For ``GET /v1/status``: no value of an observation is in it."""
        standing = self.standing()
        times = self._took_ns[: min(self._timed, _SAMPLES)] / 1000
        p50, p99 = (float(p) for p in np.percentile(times, [50, 99])) if len(times) else (None, None)
        return {
            "schema": "iriai-serve/1",
            "state": standing.phase.value,
            "cause": [one.value for one in standing.cause],
            "model": self.facts.model,
            "package": self.facts.package,
            "clock": self.clock_kind,
            "counts": {
                "questions": self._questions,
                "fallbacks": self._fallbacks,
                "flags": {one.value: count for one, count in sorted(self._flags.items())},
                "episodes": dict(sorted(self._ended.items())),
            },
            "latency_us": {"p50": p50, "p99": p99, "of": len(times)},
            "recorder": self.recorder.status(),
        }

    def schema(self) -> dict[str, Any]:
        """For ``GET /v1/schema``: names, order, units and limits of what goes in and out."""
        facts, safety = self.facts, self.facts.safety
        return {
            "schema": "iriai-serve/1",
            "model": facts.model,
            "package": facts.package,
            "title": facts.title,
            "task": facts.task,
            "embodiment_class": facts.embodiment_class,
            "action_space": facts.action_space,
            "rate_hz": facts.rate_hz,
            "observation": [_shown(one) for one in facts.inputs],
            "action": [_shown(one) for one in facts.outputs],
            "rows": facts.execute,
            "clock": self.clock_kind,
            "safety": {
                "max_delta_per_tick": list(safety.max_delta_per_tick),
                "watchdog_ms": safety.watchdog_ms,
                "fallback": safety.fallback,
                "ood_max": safety.ood_max,
            },
        }


def fallback_error(standing: Standing) -> FallbackError | None:
    """Why a service answers its fallback, for whoever asks; None if it does not."""
    if standing.phase is not Phase.FALLBACK:
        return None
    return FallbackError(
        need="questions that pass every guard",
        found=", ".join(one.value for one in standing.cause),
        remedy="look at the cell, then as its owner: iriai-node models resume",
    )


def _measured(question: Question) -> str:
    return "none" if question.measured is None else str(len(question.measured))


def _shown(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "field": channel.field,
        "size": channel.size,
        "unit": channel.unit,
        "low": list(channel.low),
        "high": list(channel.high),
    }
