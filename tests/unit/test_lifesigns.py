# SPDX-License-Identifier: Apache-2.0
"""Signs of life to systemd: a hung loop, a hung writer and a hung thread stop them, and nothing else does."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import TimeoutError as NoConnectionError

import broker.lifesign
import client.lifesign
from broker.lifesign import answered
from client.federation.supervise import supervise
from client.lifesign import processor_ns
from tests.logsim import LogSim
from tests.systemdsim import systemd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALIVE = "WATCHDOG=1"
TURN_S = 0.2
PATIENCE_S = 20.0
SILENCE_S = 0.8
"""So many turns that somebody who still says something would have said it."""


@pytest.mark.parametrize("side", [broker.lifesign.Lifesign, client.lifesign.Lifesign])
@pytest.mark.parametrize("abstract", [False, True])
def test_both_sides_speak_the_protocol_of_sd_notify(side: Any, abstract: bool) -> None:
    with systemd(abstract=abstract) as listening:
        life = side.of(listening.environ())
        life.tell("READY=1", "STATUS=serves")
        assert listening.heard(PATIENCE_S) == "READY=1\nSTATUS=serves"
    life.tell("STOPPING=1")  # nobody listens any more, and that is no reason to end


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_where_nobody_listens_or_waits_for_us_nothing_is_done(said: dict[str, str]) -> None:
    ours, theirs = broker.lifesign.Lifesign.of(said, pid=7), client.lifesign.Lifesign.of(said, pids=(7, 6))
    for one in (ours, theirs):
        one.tell("READY=1")
    if said.get("WATCHDOG_PID") or said.get("WATCHDOG_USEC", "") in {"", "0", "soon"}:
        assert (ours.period_s, theirs.every_s) == (None, None)
    client.lifesign.Lifesign.of({}).begin()


def test_the_time_of_the_parent_is_also_the_workers() -> None:
    said = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "6"}
    assert client.lifesign.Lifesign.of(said, pids=(7, 6)).every_s == 1.0
    assert broker.lifesign.Lifesign.of(said, pid=7).period_s is None


class House:
    """What `answered` looks at, over a real log with a writer of its own thread."""

    def __init__(self, sim: LogSim) -> None:
        self.store, self.writer = sim.store, sim.writer


@pytest.fixture
def sim(tmp_path: Path) -> Any:
    with LogSim(tmp_path, threaded=True) as made:
        made.started()
        yield made


def in_a_loop(
    work: Callable[[asyncio.AbstractEventLoop], None], life: broker.lifesign.Lifesign, house: Any
) -> None:
    """Runs a loop that feeds in a thread of its own, and ``work`` beside it."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        life.begin(lambda: answered(house))
        await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        work(loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_a_broker_is_silent_while_its_loop_or_its_writer_hangs_and_speaks_again_after(sim: LogSim) -> None:
    size = sim.writer.head().size
    with systemd() as listening:
        life = broker.lifesign.Lifesign.of(listening.environ(watchdog_s=4 * TURN_S))

        def hang(loop: asyncio.AbstractEventLoop) -> None:
            listening.waits_for(ALIVE, PATIENCE_S)
            for where in ("loop", "writer"):
                inside, released = threading.Event(), threading.Event()

                def hold(*_: object, inside: Any = inside, released: Any = released) -> None:
                    inside.set()
                    released.wait(PATIENCE_S)

                if where == "loop":
                    loop.call_soon_threadsafe(hold)
                else:
                    sim.writer.submit(hold)
                assert inside.wait(PATIENCE_S)
                assert listening.falls_silent(SILENCE_S), where
                released.set()
                listening.waits_for(ALIVE, PATIENCE_S)

        in_a_loop(hang, life, House(sim))
    assert sim.writer.head().size == size


async def test_a_log_that_is_frozen_is_an_answer(sim: LogSim) -> None:
    assert sim.writer is not None
    sim.writer.freeze("by a test")
    await answered(House(sim))  # type: ignore[arg-type]


def failing(*errors: BaseException) -> Callable[[], int]:
    """A look that fails so often, and then finds more each time."""
    left, more = list(errors), itertools.count()

    def look() -> int:
        if left:
            raise left.pop(0)
        return next(more)

    return look


FAULTS = (NoConnectionError("pool"), TimeoutError(), OSError(), RuntimeError())


async def test_whatever_a_look_of_a_broker_fails_with_it_looks_again() -> None:
    look = failing(*FAULTS)

    async def looked() -> None:
        look()

    with systemd() as listening:
        life = broker.lifesign.Lifesign.of(listening.environ(watchdog_s=0.04))
        life.begin(looked)
        assert await asyncio.to_thread(listening.heard, PATIENCE_S) == ALIVE
        assert look() > 0
        assert life._feeding is not None
        assert not life._feeding.done()
        life._feeding.cancel()


def test_whatever_a_look_of_a_node_fails_with_it_looks_again() -> None:
    with systemd() as listening:
        life = client.lifesign.Lifesign.of(listening.environ(watchdog_s=0.03))
        life.begin(failing(*FAULTS))
        assert listening.heard(PATIENCE_S) == ALIVE
        life.close()


def test_a_node_is_silent_while_its_main_thread_uses_nothing() -> None:
    used = itertools.chain([5, 5, 6, 7, 7], itertools.repeat(7))
    seen: list[int] = []

    def look() -> int:
        seen.append(next(used))
        return seen[-1]

    with systemd() as listening:
        life = client.lifesign.Lifesign.of(listening.environ(watchdog_s=0.09))
        life.begin(look)
        said = [listening.heard(PATIENCE_S) for _ in range(3)]
        assert said == [ALIVE] * 3  # at 5, 6 and 7
        assert listening.heard(SILENCE_S) is None
        life.close()
    assert seen.count(7) > 2


def test_a_thread_that_waits_for_a_lock_uses_no_processor_and_one_that_polls_does() -> None:
    lock, polls, done = threading.Lock(), threading.Event(), threading.Event()

    def hang() -> None:
        with lock:
            pass

    def poll() -> None:
        while not done.wait(0.001):
            polls.set()

    lock.acquire()
    hung, polling = threading.Thread(target=hang), threading.Thread(target=poll)
    for one in (hung, polling):
        one.start()
    hung_ns, polling_ns = processor_ns(hung), processor_ns(polling)
    polling_before = polling_ns()
    assert threading.Event().wait(0.1) is False
    hung_before = hung_ns()
    polls.clear()
    assert polls.wait(PATIENCE_S)
    assert threading.Event().wait(0.1) is False
    assert hung_ns() == hung_before
    assert polling_ns() > polling_before
    lock.release()
    done.set()
    for one in (hung, polling):
        one.join()


def test_a_parent_says_that_it_lives_while_it_waits() -> None:
    with systemd() as listening:
        client.lifesign.Lifesign.of(listening.environ(watchdog_s=0.03)).wait(0.05)
        assert [listening.heard(PATIENCE_S) for _ in range(4)] == [ALIVE] * 4
    assert os.environ.get("NOTIFY_SOCKET") is None


def test_the_parent_of_a_node_says_that_it_is_there_that_it_lives_and_that_it_stops() -> None:
    unknown = [sys.executable, "-S", "-c", "raise SystemExit(6)"]  # the parent waits for long after that
    with systemd() as listening:
        life = client.lifesign.Lifesign.of(listening.environ(watchdog_s=0.09))
        waits = threading.Event()
        ends = threading.Thread(target=lambda: (waits.wait(), os.kill(os.getpid(), signal.SIGTERM)))
        ends.start()
        seen: list[str] = []

        def wait(seconds: float) -> None:
            seen.append("waits")
            threading.Timer(0.1, waits.set).start()
            client.lifesign.Lifesign.wait(life, seconds)

        held = client.lifesign.Lifesign.of({})
        held.tell, held.wait = life.tell, wait  # type: ignore[method-assign]
        assert supervise(unknown, life=held) == 0
        ends.join()
        assert seen == ["waits"]
        said = [listening.heard(PATIENCE_S) for _ in range(3)]
        assert said == [f"READY=1\n{ALIVE}", ALIVE, ALIVE]
        listening.waits_for("STOPPING=1", PATIENCE_S)
