# SPDX-License-Identifier: Apache-2.0
"""Real node processes on loopback, over TLS: what they refuse, and what happens when one of them, or the
broker, dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.federation.engine import Reply, Request
from broker.federation.local import LocalGrid, LocalNode
from policies.exchange import tensor_spec
from policies.identity import SigningKey
from sandbox.bench_exchange import CONTRACT, RECIPE, LoopbackFleet, lines, run
from sandbox.processes import is_running, script, wait_for
from tests.fleetsim import CONTRACT as SIM_CONTRACT
from tests.fleetsim import RECIPE as SIM_RECIPE
from tests.fleetsim import (
    WallClock,
    collect,
    deadline,
    digests,
    events,
    make_desk,
    name_of,
    node_key,
    ran,
    request_of,
)

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]

COMMAND = (sys.executable, "-m", "tests.fleetsim")
SMALL = np.arange(250, dtype=np.float32)
MEGABYTE = np.arange(250_000, dtype=np.float32)
SUM = tensor_spec(SMALL + 1).digest


def _fleet(tmp_path: Path, nodes: int, **named: Any) -> LoopbackFleet:
    fleet = LoopbackFleet(folder=tmp_path / "fleet", nodes=nodes, command=COMMAND, **named)
    fleet.prepare()
    return fleet


def test_nodes_answer_refuse_and_fail_each_for_itself(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = _fleet(tmp_path, 4)
        try:
            async with fleet.serving() as engine:
                for index, behaviour in enumerate(("ok", "raise", "shape", "refuse")):
                    fleet.start(index, behaviour)
                await fleet.all_online()
                opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                good, raising, shaped, refusing = fleet.names

                # each outcome is its node's own, the exchange ends with the last of them
                requests = [fleet.request(opened, name, 1, SMALL) for name in fleet.names]
                found = await fleet.ask(opened, requests)
                assert digests(found) == {
                    good: SUM,
                    raising: "engine.handler-failed",
                    shaped: "engine.reply-malformed",
                    refusing: "contract.refused",
                }
                replies = {one.node: one for one in found if isinstance(one, Reply)}
                assert replies[refusing].header.body == {"decision": {"salt": "C5"}}
                assert b"SECRET" not in replies[raising].raw
                assert (
                    "SECRET" in (fleet.folder / "node1" / "log.txt").read_text()
                )  # but it is in the local log

                # a refusal comes before the tensor: a megabyte is not pulled
                await _not_pulled(fleet, opened, refusing, 2, "contract.refused")
                # neither is it under a header that another key signed
                await _not_pulled(
                    fleet, opened, good, 2, "engine.request-invalid", key=SigningKey.from_seed(b"x" * 32)
                )
                # a megabyte that may be pulled comes back
                found = await fleet.ask(opened, [fleet.request(opened, good, 3, MEGABYTE)])
                assert digests(found) == {good: tensor_spec(MEGABYTE + 1).digest}

                await _runs_with_code_or_other_keys(fleet, good)
                await engine.close_run(opened, ok=True)
                assert len(engine._store) == 0
        finally:
            fleet.stop()

    asyncio.run(body())


async def _not_pulled(
    fleet: LoopbackFleet, opened: Any, node: str, round_: int, code: str, **named: Any
) -> None:
    before = fleet.engine.traffic(node)["pulled_objects"]
    found = await fleet.ask(opened, [fleet.request(opened, node, round_, MEGABYTE, **named)])
    assert digests(found) == {node: code}
    assert fleet.engine.traffic(node)["pulled_objects"] - before < 4_000


async def _runs_with_code_or_other_keys(fleet: LoopbackFleet, node: str) -> None:
    """Runs as only a broken broker would open them."""
    engine, state = fleet.engine, fleet.engine._state
    good = {"iriai": 1, "run": "run_e2eaaaaaaaaaaaaa", "contract": CONTRACT, "recipe": RECIPE}
    for config, fab, code in (
        (good, "f" * 64, "engine.run-has-code"),
        (good | {"lr": 1}, None, "engine.run-refused"),
    ):
        opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
        record = state.run_ids[opened.handle].run
        record.override_config = dict(config)
        record.fab_hash = fab or ""
        await _not_pulled(fleet, opened, node, 9, code)
        await engine.close_run(opened, ok=False)


def test_a_killed_node_and_a_killed_broker_cost_one_round_at_most(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = _fleet(tmp_path, 4)
        homes = [fleet.folder / f"node{index}" for index in range(4)]
        try:
            async with fleet.serving() as engine:
                for index in range(4):
                    fleet.start(index, "sleep:20" if index == 3 else "ok")
                await fleet.all_online()
                opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                requests = [fleet.request(opened, name, 1, SMALL) for name in fleet.names]
                asked = asyncio.create_task(fleet.ask(opened, requests, deadline_s=15, need=3, grace_s=0.3))
                while not ran(homes[3]):  # noqa: ASYNC110  a file of another process
                    await asyncio.sleep(0.02)
                fleet.processes[3].kill()  # in its handler
                found = digests(await asyncio.wait_for(asked, 10))
                assert sorted(found.values()) == sorted([SUM] * 3 + ["engine.late"])

                # at once back, although Flower still thinks that it is online
                fleet.start(3, "ok")
                began = time.monotonic()
                requests = [fleet.request(opened, name, 2, SMALL) for name in fleet.names]
                assert set(digests(await fleet.ask(opened, requests)).values()) == {SUM}
                back_s = time.monotonic() - began
                assert [ran(home)[-1] for home in homes] == ["2.0"] * 4
                before = engine.online()

            # the broker is gone and comes back; the nodes' processes do not notice
            await asyncio.sleep(0.5)
            pids = [process.pid for process in fleet.processes.values()]
            async with fleet.serving() as engine:
                again_s = await fleet.all_online()
                assert engine.online() == before
                opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                requests = [
                    fleet.request(opened, name, 2, SMALL) for name in fleet.names
                ]  # the same, asked again
                assert set(digests(await fleet.ask(opened, requests)).values()) == {SUM}
                assert [ran(home).count("2.0") for home in homes] == [1] * 4
                assert [process.pid for process in fleet.processes.values() if process.poll() is None] == pids

                # SIGTERM ends a node within two seconds and it is offline at once
                began = time.monotonic()
                fleet.processes[0].terminate()
                await asyncio.to_thread(fleet.processes[0].wait, 5)
                stopped_s = time.monotonic() - began
                assert fleet.processes[0].returncode == 0
                assert fleet.names[0] not in engine.online()
        finally:
            fleet.stop()
        assert back_s < 10
        assert stopped_s < 2
        assert again_s < 8

    asyncio.run(body())


def test_work_that_died_is_asked_again_once_and_a_revoked_key_ends_the_worker(tmp_path: Path) -> None:
    async def body() -> None:
        fleet = _fleet(tmp_path, 2)
        home = fleet.folder / "node0"
        try:
            async with fleet.serving() as engine:
                fleet.start(0, "die")
                await fleet.all_online()
                opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                asked = asyncio.create_task(
                    fleet.ask(opened, [fleet.request(opened, fleet.names[0], 1, SMALL)])
                )
                assert await asyncio.to_thread(fleet.processes[0].wait, 10) == -signal.SIGKILL
                fleet.start(0, "ok")
                assert digests(await asyncio.wait_for(asked, 10)) == {fleet.names[0]: "engine.interrupted"}
                found = await fleet.ask(opened, [fleet.request(opened, fleet.names[0], 1, SMALL, attempt=1)])
                assert digests(found) == {fleet.names[0]: SUM}
                assert ran(home) == ["1.0", "1.1"]

                engine.revoke(fleet.names[0])
                assert await asyncio.to_thread(fleet.processes[0].wait, 10) == 6
                engine.revoke(fleet.names[1])
                fleet.start(1, "ok")
                assert await asyncio.to_thread(fleet.processes[1].wait, 10) == 6
                assert ("online", {"node": fleet.names[1]}) not in events(fleet.folder / "node1")
        finally:
            fleet.stop()

    asyncio.run(body())


def test_one_process_and_four_give_the_same_models(tmp_path: Path) -> None:
    """Five rounds of a mean, with one drop-out, over `LocalGrid` and over the wire."""

    async def rounds(engine: Any, opened: Any, request: Any, names: list[str], clock: Any) -> list[str]:
        model, seen = SMALL, []
        for round_ in range(1, 6):
            asked = names[:-1] if round_ == 3 else names
            found = await collect(
                engine.exchange(
                    opened, [request(name, round_, model) for name in asked], deadline=deadline(clock, 20)
                )
            )
            tensors = [one.tensor.array() for one in sorted(found, key=lambda one: one.node) if one.tensor]
            assert len(tensors) == len(asked)
            model = (np.mean(tensors, axis=0, dtype=np.float64) / 3).astype(np.float32)
            seen.append(tensor_spec(model).digest)
        return seen

    async def body() -> None:
        clock = WallClock()
        desks = {
            name_of(index): LocalNode(
                public_key=node_key(index).public, ask=make_desk(tmp_path, index=index, clock=clock).local
            )
            for index in range(2)
        }
        grid = LocalGrid(clock=clock, nodes=desks)
        opened = await grid.open_run(run="run_simaaaaaaaaaaaaa", contract=SIM_CONTRACT, recipe=SIM_RECIPE)

        def local(name: str, round_: int, model: np.ndarray) -> Request:
            return request_of(model, node=name, round_=round_, deadline_ms=clock.now_ms() + 20_000)

        here = await rounds(grid, opened, local, sorted(desks), clock)
        await grid.close_run(opened, ok=True)

        fleet = _fleet(tmp_path, 2)
        try:
            async with fleet.serving() as engine:
                for index in range(2):
                    fleet.start(index, "ok")
                await fleet.all_online()
                run_ = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                there = await rounds(
                    engine, run_, lambda name, r, m: fleet.request(run_, name, r, m), fleet.names, clock
                )
        finally:
            fleet.stop()
        assert here == there

    asyncio.run(body())


def test_the_bench_reports_its_figures() -> None:
    report = run(nodes=2, sizes_mb=[0.001], exchanges=3)
    assert report["nodes"] == 2
    (row,) = report["rows"]
    assert row["mb"] == 0.001
    assert 0 < row["min_s"] <= row["p50_s"] <= row["p95_s"] <= row["max_s"]
    assert row["requests"] < 6  # two a node, and a heartbeat at most
    assert row["cpu_s"] > 0
    assert row["bytes_ratio"] > 1
    assert row["broker_peak_mb"] >= row["broker_idle_mb"] > 0
    told = list(lines(report))
    assert len(told) == 14  # machine, heads, one row, an empty line, each column in words
    assert told[-1].endswith("of the largest node")


def _running(folder: Path) -> list[int]:
    """Processes that name this folder in their command line."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in one.read_bytes():
                found.append(int(one.parent.name))
    return found


def test_a_measurement_that_is_ended_takes_its_nodes_and_its_folder_with_it(tmp_path: Path) -> None:
    asked = [
        script("iriai-sandbox"),
        "bench",
        "exchange",
        "--nodes",
        "2",
        "--mb",
        "0.001",
        "--exchanges",
        "1000",
    ]
    with subprocess.Popen(asked, env=os.environ | {"TMPDIR": str(tmp_path)}) as command:
        wait_for("both nodes", lambda: len(_running(tmp_path)) == 2, timeout_s=60)
        nodes = _running(tmp_path)
        command.terminate()
        assert command.wait(60) == 143
    assert [pid for pid in nodes if is_running(pid)] == []
    assert list(tmp_path.iterdir()) == []
