# SPDX-License-Identifier: Apache-2.0
"""Where a service stands, as a value: every change gives a new one, and nothing here looks at a clock.

    loading → ready → active → fallback → stopped
                ↑        │        │
                ├────────┘ episode ended
                └─────────────────┘ resumed by the owner, and by nothing else

- The first answer makes ``ready`` ``active``; the end of an episode makes it ``ready`` again, and the
  watchdog waits with it: a cell that stands still between two episodes is silent by right.
- ``fallback`` keeps the flags that led to it. More flags are added, none is taken away before `resumed`.
- ``stopped`` is the end.

::

    state = Standing().loaded()
    state = state.heard(question, steady_ns=steady_ns).answered(rows)
    state = state.tripped((Flag.AGE,))
    state.resumed()
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from client.deploy.refusals import NotServingError

if TYPE_CHECKING:
    from client.deploy.guards import Flag
    from client.deploy.ports import Array64

__all__ = ["ClockKind", "Phase", "Question", "Standing"]

ClockKind = Literal["host", "controller", "simulation"]


class Phase(StrEnum):
    """Of the service."""

    LOADING = "loading"
    READY = "ready"
    ACTIVE = "active"
    FALLBACK = "fallback"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One tick's observation ``[n] float64``, with the controller's stamp and number.

    ``seq`` counts control ticks: the difference to the number before says how many rows of the last chunk
    were executed. ``measured`` is the action that the controller carried out last, ``[a]``, if it tells.
    """

    observation: Array64
    stamp_ns: int
    seq: int
    measured: Array64 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """State of the service; see the module.

    Attributes:
        phase: Where it stands.
        cause: Flags that led to the fallback.
        seq: Of the newest question, None before the first since a start or the end of an episode.
        stamp_ns: Its stamp.
        heard_ns: When it came, by the clock that nobody sets.
        rows: The chunk that was answered last in this episode.
        last: The action that was sent last before this episode; it outlives the end of an episode.
        behind_ns: For a controller's clock: the least difference of both clocks so far.
    """

    phase: Phase = Phase.LOADING
    cause: tuple[Flag, ...] = ()
    seq: int | None = None
    stamp_ns: int | None = None
    heard_ns: int | None = None
    rows: Array64 | None = None
    last: Array64 | None = None
    behind_ns: int | None = None

    def loaded(self) -> Standing:
        """The model is there."""
        return replace(self, phase=Phase.READY) if self.phase is Phase.LOADING else self

    def serving(self) -> Standing:
        """Itself, if questions are answered.

        Raises:
            NotServingError: It is loading or stopped.
        """
        if self.phase in (Phase.LOADING, Phase.STOPPED):
            raise NotServingError(
                need="a service that answers",
                found=self.phase.value,
                remedy="wait, or start it again: iriai-node models serve PACKAGE",
            )
        return self

    def rises(self, question: Question) -> bool:
        """Whether a question comes after the one before it, by number and by stamp."""
        newer = self.seq is None or question.seq > self.seq
        return newer and (self.stamp_ns is None or question.stamp_ns > self.stamp_ns)

    def age_ns(self, stamp_ns: int, *, clock: ClockKind, now_ns: int, steady_ns: int) -> int | None:
        """How old a stamp is; a controller's clock is compared with its own start, a simulation's never."""
        if clock == "simulation":
            return None
        if clock == "host":
            return now_ns - stamp_ns
        return 0 if self.behind_ns is None else steady_ns - stamp_ns - self.behind_ns

    def last_action(self, seq: int | None = None) -> Array64 | None:
        """The action before tick ``seq``, ``[a]``: as far as the last chunk was executed; None if none was.

        Without a number all of it was.
        """
        if self.rows is None:
            return None
        gone = len(self.rows) if seq is None or self.seq is None else seq - self.seq
        row: Array64 = self.rows[min(max(gone, 1), len(self.rows)) - 1]
        return row

    def silent(self, *, steady_ns: int, watchdog_ns: int) -> bool:
        """Whether an active service has waited for longer than its watchdog."""
        waits = self.phase is Phase.ACTIVE and self.heard_ns is not None
        return waits and steady_ns - (self.heard_ns or 0) > watchdog_ns

    def heard(self, question: Question, *, steady_ns: int) -> Standing:
        """A question came; numbers never go back, whatever comes."""
        behind = steady_ns - question.stamp_ns
        return replace(
            self,
            seq=question.seq if self.seq is None else max(self.seq, question.seq),
            stamp_ns=question.stamp_ns if self.stamp_ns is None else max(self.stamp_ns, question.stamp_ns),
            heard_ns=steady_ns,
            behind_ns=behind if self.behind_ns is None else min(self.behind_ns, behind),
        )

    def answered(self, rows: Array64 | None) -> Standing:
        """A chunk was sent; the service is active, unless it is in the fallback."""
        phase = Phase.ACTIVE if self.phase is Phase.READY else self.phase
        return replace(self, phase=phase, rows=self.rows if rows is None else rows)

    def tripped(self, flags: tuple[Flag, ...]) -> Standing:
        """Flags that end in the fallback; others change nothing."""
        new = tuple(one for one in flags if one.trips and one not in self.cause)
        if not new or self.phase is Phase.STOPPED:
            return self
        return replace(self, phase=Phase.FALLBACK, cause=(*self.cause, *new))

    def episode_ended(self) -> Standing:
        """The robot stands: numbers are forgotten, what was sent last is not. A fallback stays one."""
        phase = Phase.READY if self.phase is Phase.ACTIVE else self.phase
        last = self.last if self.rows is None else self.last_action()
        return replace(self, phase=phase, seq=None, stamp_ns=None, heard_ns=None, rows=None, last=last)

    def resumed(self) -> Standing:
        """The owner looked, and lets it act again."""
        if self.phase is not Phase.FALLBACK:
            return self
        return replace(self.episode_ended(), phase=Phase.READY, cause=(), behind_ns=None)

    def stopped(self) -> Standing:
        """It is over."""
        return replace(self, phase=Phase.STOPPED)
