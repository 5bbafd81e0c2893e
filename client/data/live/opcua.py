# SPDX-License-Identifier: Apache-2.0
"""Records the nodes that a signal map names at an OPC UA server, until it is told to stop.

Order:
1. the way in is safe (client.data.live.opcua_access); ``insecure=True`` alone allows less, and is noted;
2. the file is new; connect; find the nodes, compare units (client.data.live.opcua_nodes); nothing is written
   before;
3. subscribe; reports become rows (client.data.live.rows), rows a file (client.data.live.recording);
4. a lost connection makes every value missing and is tried again, ever more slowly, until it is back; nodes
   and units are checked again, because the server may be another one;
5. on `stop`, after ``for_s``, or at the bound of one recording the table is made.

- ``SourceTimestamp`` is the stamp. A value without one is left out and counted: nothing invents a time.
- A value whose status is not Good is missing; so is NaN, which a source says where it has none.
- A first connection that fails is a refusal; only a later one is tried again.

    done = record(
        "opc.tcp://10.0.0.5:4840", signals, Path("shift.parquet"), access=access, stop=stop, clock=clock
    )
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from client.data.errors import DataError, LiveSourceError
from client.data.live.opcua_access import Access, broken, check_access, closed, connected, unreachable
from client.data.live.opcua_nodes import Bound, bind, value_of
from client.data.live.recording import Recording, check_target, map_of
from client.data.live.rows import RowJoiner, Value
from policies.limits import LIVE_FLUSH_S, LIVE_QUEUE, LIVE_RETRY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from client.data.signalmap import SignalMap
    from policies.ports import Clock

__all__ = ["Access", "Recorded", "Stop", "record"]

_WAIT_S: Final = 0.2  # how soon a stop is heard
_PUBLISH_MS: Final = 100.0  # how often the server sends what it sampled
_SAMPLES_KEPT: Final = 4  # times what one publish needs, so that a late one loses nothing
_HOLD_NS: Final = 1_000_000_000  # how late a report may come and still find its row
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Stop(Protocol):
    """Tells a recording to end; `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether it should end now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A finished recording: the table, its map, its rows, and what a person should know."""

    table: Path
    signal_map: Path
    rows: int
    findings: Mapping[str, int]


def record(
    endpoint: str,
    signals: SignalMap,
    out: Path,
    *,
    access: Access,
    stop: Stop,
    clock: Clock,
    for_s: float | None = None,
    base: str = "",
    sampling_ms: float = 10.0,
) -> Recorded:
    """Records until it is told to stop.

    Args:
        endpoint: ``opc.tcp://host:port/path``.
        signals: Columns are node ids or paths; its clock column takes the stamps.
        out: ``*.parquet``, a new file; the map is written beside it.
        access: The way in.
        stop: Asked several times a second.
        clock: Ends the recording after ``for_s`` and flushes it in time; stamps come from the source.
        for_s: How long; without it until `stop`.
        base: Node id or path below Objects where the map's paths begin.
        sampling_ms: How often the server shall look at its values.

    Raises:
        LiveInsecureError: Step 1.
        LiveSourceError: Step 2: no connection, no entry, or no library.
        DataError: A node, a unit or a value does not fit the map; the file is there already; no row came.
    """
    check_access(endpoint, access)
    check_target(out, signals)
    recorder = _Recorder(endpoint, signals, access=access, base=base, sampling_ms=sampling_ms)
    until = None if for_s is None else clock.now_ms() + round(for_s * 1000)

    def ends() -> bool:
        return stop.is_set() or (until is not None and clock.now_ms() >= until)

    return asyncio.run(recorder.run(out, ends, clock))


class _LostError(Exception):
    """The connection broke, or the server ended the subscription."""


class _Recorder:
    """Steps 2 to 5 of one recording."""

    def __init__(
        self, endpoint: str, signals: SignalMap, *, access: Access, base: str, sampling_ms: float
    ) -> None:
        self._endpoint, self._signals, self._access, self._base = endpoint, signals, access, base
        self._sampling_ms = sampling_ms
        self._notes: Counter[str] = Counter()

    async def run(self, out: Path, ends: Callable[[], bool], clock: Clock) -> Recorded:
        """The whole recording."""
        client = await connected(self._endpoint, self._access)
        try:
            bound = await self._bound(client, self._signals)
            with Recording(out, bound.signals) as recording:
                client = await self._recorded(client, bound, recording, ends, clock)
                table = recording.close()
        finally:
            await closed(client)
        self._notes["insecure"] += self._access.insecure
        findings = {code: count for code, count in sorted(self._notes.items()) if count}
        return Recorded(table=table, signal_map=map_of(out), rows=recording.rows, findings=findings)

    async def _bound(self, client: Any, signals: SignalMap) -> Bound:  # noqa: ANN401  of asyncua, untyped
        try:
            bound = await bind(client, signals, self._base)
        except broken() as error:
            raise unreachable(error) from error
        self._notes["unit-not-said"] = bound.unsaid
        return bound

    async def _recorded(
        self,
        client: Any,  # noqa: ANN401  of asyncua, untyped
        bound: Bound,
        recording: Recording,
        ends: Callable[[], bool],
        clock: Clock,
    ) -> Any:  # noqa: ANN401  the client that is connected at the end
        """Steps 3 and 4; everything that was reported is in the recording afterwards."""
        joiner = RowJoiner(
            columns=len(bound.columns), join_ns=int(self._sampling_ms * 500_000), hold_ns=_HOLD_NS
        )
        pump = _Pump(bound, joiner, recording, self._notes, sampling_ms=self._sampling_ms)
        while True:
            differs = False
            try:
                await pump.run(client, ends, clock)
            except _LostError:
                self._notes["connection-lost"] += 1
            except DataError:  # a value of another kind; before the first row it refuses the recording
                pump.end_of_connection()
                if not recording.rows:
                    raise
                differs = True
            pump.end_of_connection()
            self._notes["server-differs"] += differs
            if differs or ends() or recording.full:
                break
            await closed(client)
            client = await self._reconnected(ends)
            if client is None:
                break
            try:
                pump.bound = await self._bound(client, bound.signals)
            except LiveSourceError:
                continue
            except DataError:  # another server, or another robot: it does not belong into this table
                self._notes["server-differs"] = 1
                break
        self._notes["late-reports"] = joiner.late
        return client

    async def _reconnected(self, ends: Callable[[], bool]) -> Any:  # noqa: ANN401  a client, or None at the end
        pause_s = _WAIT_S
        while not ends():
            with contextlib.suppress(LiveSourceError):
                return await connected(self._endpoint, self._access)
            for _ in range(math.ceil(pause_s / _WAIT_S)):
                if ends():
                    return None
                await asyncio.sleep(_WAIT_S)
            pause_s = min(2 * pause_s, LIVE_RETRY_S)
        return None


class _Pump:
    """Step 3: one subscription, from its reports to rows of the recording."""

    def __init__(
        self,
        bound: Bound,
        joiner: RowJoiner,
        recording: Recording,
        notes: Counter[str],
        *,
        sampling_ms: float,
    ) -> None:
        self.bound = bound
        self._joiner, self._recording, self._notes = joiner, recording, notes
        self._sampling_ms = sampling_ms
        self._words = frozenset(bound.signals.text_columns) - frozenset(bound.signals.number_columns)

    async def run(self, client: Any, ends: Callable[[], bool], clock: Clock) -> None:  # noqa: ANN401
        """Takes reports until it ends.

        Raises:
            _LostError: The connection is gone.
        """
        try:
            subscription = await self._subscribed(client)
            flushed_ms = clock.now_ms()
            while not (ends() or self._recording.full):
                self._take(await subscription.next_event(timeout=_WAIT_S))
                for row in self._joiner.finished():
                    self._recording.add(row)
                if clock.now_ms() - flushed_ms >= LIVE_FLUSH_S * 1000:
                    self._recording.flush()
                    flushed_ms = clock.now_ms()
                if client.state.value != "connected":
                    raise _LostError
        except broken() as error:
            raise _LostError from error

    async def _subscribed(self, client: Any) -> Any:  # noqa: ANN401  of asyncua, untyped
        from asyncua.common.subscription import OverflowPolicy

        subscription = await client.create_subscription(
            max(self._sampling_ms, _PUBLISH_MS), queue_maxsize=LIVE_QUEUE, overflow=OverflowPolicy.DISCONNECT
        )
        aiter(subscription)  # it keeps reports from here on
        per_publish = math.ceil(_SAMPLES_KEPT * max(1.0, _PUBLISH_MS / self._sampling_ms))
        nodes = list(dict.fromkeys(self.bound.nodes))
        answers = await subscription.subscribe_data_change(
            nodes, queuesize=per_publish, sampling_interval=self._sampling_ms
        )
        if any(not isinstance(one, int) for one in answers):
            raise LiveSourceError(
                need="leave to subscribe to every node of the map",
                found=f"refused for {sum(not isinstance(one, int) for one in answers)}",
                remedy="ask the server's owner for read access",
            )
        return subscription

    def _take(self, event: Any) -> None:  # noqa: ANN401  of asyncua, untyped
        """A report, the end of the subscription, or None where nothing came in time."""
        if event is None:
            return
        item = getattr(getattr(event, "data", None), "monitored_item", None)
        if item is None:
            raise _LostError
        found = item.Value
        good = found.StatusCode is None or found.StatusCode.is_good()
        self._notes["quality-not-good"] += not good
        for at, node in enumerate(self.bound.nodes):
            if node == event.node:
                column = self.bound.columns[at]
                value = value_of(event.value, column, word=column in self._words) if good else None
                missing = isinstance(value, float) and not math.isfinite(value)
                self._report(at, found.SourceTimestamp, None if missing else value)

    def _report(self, at: int, stamp: dt.datetime | None, value: Value) -> None:
        if stamp is None:
            self._notes["no-source-timestamp"] += 1
        else:
            self._joiner.report(at, _ns(stamp), value)

    def end_of_connection(self) -> None:
        """Everything that came is a row now, on the disk; all values are missing."""
        for row in self._joiner.lost():
            self._recording.add(row)
        self._recording.flush()


def _ns(stamp: dt.datetime) -> int:
    """Nanoseconds since 1970 of a stamp, which is in UTC."""
    aware = stamp if stamp.tzinfo else stamp.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1) * 1000
