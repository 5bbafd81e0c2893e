# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox bench console``: the log that it fills is a valid one, and its figures are what they say."""

from __future__ import annotations

import itertools
import os

import httpx
import pytest

from broker.boot import initialise, open_services
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.fleet import NoFleet
from policies.identity import SigningKey
from policies.log.entries import check_entry
from sandbox import bench_console
from sandbox.bench_console import lines, screens
from sandbox.bench_console_log import fill
from sandbox.errors import SandboxError
from sandbox.progress import Progress


def test_the_log_that_is_filled_is_valid_and_exactly_as_long(tmp_path):
    keys = {name: SigningKey.from_seed(name.encode().ljust(32, b"-")).public for name in ("alice", "bob")}
    clock, entropy = SystemClock(), SystemEntropy()
    initialise(tmp_path, url="https://127.0.0.1:4711", operators=keys, clock=clock, entropy=entropy)
    for size in (600, 2_100):  # several whole runs, and a part at each end
        fill(tmp_path, size)
        services = open_services(tmp_path, clock=clock, entropy=entropy, engine=NoFleet())
        try:
            assert services.writer.head().size == size
            body = services.writer.receipts.body(size - 1)
            assert check_entry(body).type == "console.action"
        finally:
            services.close()


def test_a_screen_of_one_thing_is_reached_by_a_link_to_one():
    links = {"/console/runs", "/console/runs/run_b?lang=en", "/console/runs/run_a", "/console/runs/run_a/2"}
    assert bench_console._address("/console/runs", links) == "/console/runs"
    assert bench_console._address("/console/runs/{run}", links) == "/console/runs/run_a"
    assert bench_console._address("/console/runs/{run}/{number}", links) == "/console/runs/run_a/2"
    assert bench_console._address("/console/orgs/{org}", links) is None


def pages(request: httpx.Request) -> httpx.Response:
    """Two screens, of which one leads to a third."""
    known = {
        "/console/a": '<link href="/console/static/x/a.css"><a href="/console/b/7?x=1&amp;y=2">',
        "/console/b/7": "b" * 5_000,
        "/console/static/x/a.css": "".join(chr(33 + n % 90) for n in range(9_000)),
    }
    text = known.get(request.url.path)
    return httpx.Response(404 if text is None else 200, text=text or "")


def test_every_screen_is_measured_once_and_those_without_a_way_are_named(monkeypatch):
    routes = (("a", "/console/a"), ("b", "/console/b/{number}"), ("c", "/console/c/{number}"))
    monkeypatch.setattr(bench_console, "screens", lambda role="": routes)
    spent = itertools.count(1.0, 0.05)
    with httpx.Client(transport=httpx.MockTransport(pages), base_url="https://localhost") as client:
        found = bench_console._all_screens(client, 3, Progress(), dict(routes), cpu_s=lambda: next(spent))
    assert list(found) == ["a", "b"]
    assert found["b"]["path"] == "/console/b/7?x=1&y=2"
    assert found["a"]["with_assets_kb"] > found["a"]["page_kb"]
    assert found["b"]["with_assets_kb"] == found["b"]["page_kb"]
    assert found["a"]["cpu_ms"] == found["b"]["cpu_ms"] == 10.0  # 50 ms for five fetches
    one = {"floor_ms": 1.0, "screens": found}
    slower = {name: figures | {"p50_ms": 2 * figures["p50_ms"] + 1} for name, figures in found.items()}
    report = bench_console._report(one, {"floor_ms": 1.0, "screens": slower})
    assert report["not_reached"] == ["c"]
    assert report["ratio"] > 2
    assert report["cpu_ratio"] == 1
    said = list(lines({"rows": 2, "small": 1, "database": "sqlite", **report}))
    assert said[-1] == "not reached by a link: c"


def test_a_screen_that_answers_with_an_error_ends_the_measurement():
    with (
        httpx.Client(transport=httpx.MockTransport(pages), base_url="https://localhost") as client,
        pytest.raises(SandboxError, match="status 404"),
    ):
        bench_console._all_screens(client, 1, Progress(), {"gone": "/console/gone"})


def test_the_screens_are_those_of_the_console_itself():
    for role, some in (("operator", {"verdict", "account"}), ("auditor", {"bundle", "entry"})):
        names = [name for name, _ in screens(role)]
        assert len(set(names)) == len(names)
        assert some <= set(names)


def test_what_a_process_worked_is_known_and_of_one_that_is_gone_it_is_not():
    before = bench_console._cpu_s(os.getpid())
    assert before is None or bench_console._cpu_s(os.getpid()) >= before > 0
    assert bench_console._cpu_s(2**30) is None
