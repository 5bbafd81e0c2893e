# SPDX-License-Identifier: Apache-2.0
"""A federation of real processes on loopback, of which some are killed by pid in mid-round: no run is lost, no budget is."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.budgets import Budgets
from client.identity import load_identity
from client.settings import Home
from policies.log.entries import alias
from policies.privacy.ledger import TRAIN
from sandbox.clock import now_ms
from sandbox.federation import Federation, Site
from sandbox.processes import Service, start, wait_for
from sandbox.processes import script as command_path
from sandbox.recipes import DELTA
from tests.federationsim import tiny_recipe
from tests.fleetsim import WallClock
from tests.nodeworld import write_recording

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, pytest.mark.slow]
ROUNDS = 7
HOLD_MS = 200  # each phase of a round at each node, so that a test can act in it
RUN_S = 120.0

Slots = Counter[tuple[int, int]]


class Pool(Federation):
    """Four sites with synthetic recordings; their nodes print each phase and stay in it for a moment."""

    def start_node(self, site: Site) -> Service:
        service = start(
            site.name,
            [command_path("iriai-node"), "run", "--dir", str(site.folder)],
            log=self.folder / "logs" / f"{site.name}.log",
            env={"IRIAI_PHASES": str(HOLD_MS)},
        )
        self.services[site.name] = service
        return service

    def all_online(self) -> None:
        """Starts whoever does not run and waits until everybody is there."""
        for site in self.sites:
            if not self.services[site.name].running:
                self.start_node(site)
        nodes = len(self.sites)
        online = lambda: sum(one["state"] == "online" for one in self.broker("status")["nodes"])  # noqa: E731
        wait_for("all nodes to be online", lambda: online() == nodes, timeout_s=60)

    def wait_phase(self, site: Site, run: str, number: int, phase: str) -> None:
        line = f"phase run={run} round={number} attempt=1 {phase}"
        wait_for(f"{site.name}: {line}", lambda: line in self.services[site.name].text(), timeout_s=60)

    def closed(self, run: str) -> list[dict[str, Any]]:
        """The broker's own lines about settled attempts."""
        return [one for one in self.journal() if (one["event"], one.get("run")) == ("round.closed", run)]

    # --- the books, read from the files that the processes left ---

    def spends(self, site: Site, run: str) -> Slots:
        """Steps per round and attempt, as the node's own ledger counts them."""
        home = Home(site.folder)
        budgets = Budgets(home, key=load_identity(home).key, clock=WallClock())
        try:
            touched = [one for one in budgets.touches() if (one.run, one.split) == (run, TRAIN)]
        finally:
            budgets.close()
        counted: Slots = Counter()
        for one in touched:
            counted[(one.round, one.attempt)] += one.steps
        return counted

    def logged(self, site: Site, run: str) -> Slots:
        """Steps per round and attempt, as the log has them."""
        org = load_identity(Home(site.folder)).org
        (alias_key,) = self.rows("SELECT alias_key FROM organisation WHERE org_id = ?", org)[0]
        counted: Slots = Counter()
        for number, body in self.rows(
            "SELECT round, body FROM log_entry WHERE run = ? AND type = 'epsilon.spent' ORDER BY idx", run
        ):
            entry = json.loads(body)
            _, *slot = entry["pub"]["mechanism"].split("/")
            if slot[0] != "eval" and entry["actor"] == alias(alias_key, self.contract, run, number):
                counted[(int(slot[0]), int(slot[1]))] += entry["pub"]["steps"]
        return counted

    def rows(self, query: str, *values: Any) -> list[Any]:
        database = sqlite3.connect(f"file:{self.broker_dir / 'broker.db'}?mode=ro", uri=True)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()

    def check(self, run: str, bundle: Path, *, silent: tuple[Site, ...] = ()) -> None:
        """The run is complete under the same contract, every book agrees, and the auditor finds no error.

        That a site which was killed for good did not vote is for a person to look at, and nothing else is.
        """
        shown = self.broker("run", "show", run)
        assert (shown["state"], shown["contract"], shown["round"]) == ("completed", self.contract, ROUNDS)
        assert self.wait_event("candidate.decided", run=run, timeout_s=60)["state"] == "released"
        opened = self.rows("SELECT scope FROM log_entry WHERE run = ? AND type = 'run.opened'", run)
        assert opened == [(self.contract,)]
        settled = self.rows("SELECT round, attempt, verdicts FROM round WHERE run_id = ?", run)
        for site in self.sites:
            own, logged = self.spends(site, run), self.logged(site, run)
            assert set(own.values()) == {1}, (site.name, own)
            assert all(own[slot] >= steps for slot, steps in logged.items()), (site.name, own, logged)
            accepted = {
                number for number, _, verdicts in settled if json.loads(verdicts).get(site.name) == "accepted"
            }
            paid = {number for number, _ in logged}  # a later attempt sends the update of the one that paid
            assert accepted <= paid, site.name
        self.bundle(bundle)
        argv = [
            command_path("iriai-verify"),
            str(bundle),
            "--policy",
            str(bundle.with_name("policy.txt")),
            "--json",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        found = json.loads(done.stdout)["data"]["findings"]
        assert {(one["id"], one["evidence"]) for one in found} <= {
            ("AUD-076", f"no vote of {one.name}") for one in silent
        }, done.stderr
        assert done.returncode == (7 if found else 0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    federation = Pool(tmp_path_factory.mktemp("killed"))
    for number, site in enumerate(federation.sites):
        write_recording(site.recordings, train=6, held_out=3, seed=number)
    recipe = tiny_recipe(
        rounds=ROUNDS,
        steps=3 * ROUNDS,
        deadline_s=12,
        evaluation={"normalizer": "64"},  # every silo approves
    )
    try:
        federation.start_broker()
        federation.enrol()
        start_ms = now_ms() + int(
            (10 + 2 * federation.enrol_s) * 1000
        )  # imports and signatures fit in before
        federation.agree(recipe, epsilon="8", delta=DELTA, start_ms=start_ms)
        federation.start_nodes()
        time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))
        yield federation
    finally:
        federation.stop()


def test_a_node_killed_in_mid_round_costs_itself_and_the_run_completes_by_quorum(pool: Pool, tmp_path: Path):
    pool.all_online()
    worker_of, gone = pool.sites[0], pool.sites[1]
    run = pool.open_run()
    pool.wait_phase(worker_of, run, 2, "training")
    worker = json.loads((worker_of.folder / "run.json").read_text())["pid"]
    os.kill(
        worker, signal.SIGKILL
    )  # its parent starts another, which says that it was interrupted, and takes part again
    pool.wait_phase(gone, run, 4, "training")
    pool.services[gone.name].kill()  # with its parent: it does not come back
    pool.wait_run(run, timeout_s=RUN_S)
    pool.check(run, tmp_path / "bundle.zip", silent=(gone,))
    verdicts = [json.loads(one) for (one,) in pool.rows("SELECT verdicts FROM round WHERE run_id = ?", run)]
    assert {one.get(gone.name, "silent") for one in verdicts[-3:]} == {"silent"}
    assert any(one[worker_of.name] in {"declined", "silent"} for one in verdicts)
    assert verdicts[-1][worker_of.name] == "accepted"
    interrupted = pool.spends(worker_of, run)
    assert interrupted[(2, 1)] == 1  # the step whose reply was lost is spent, once, and told to the log
    assert pool.logged(worker_of, run) == interrupted


def test_a_broker_killed_in_mid_run_goes_on_and_finishes_under_the_same_contract(pool: Pool, tmp_path: Path):
    pool.all_online()
    run = pool.open_run()
    processes = {site.name: pool.services[site.name].pid for site in pool.sites}
    pool.wait_phase(pool.sites[2], run, 3, "training")
    before = len(pool.closed(run))
    pool.services["broker"].kill()
    time.sleep(2.0)
    pool.serve()
    pool.wait_phase(pool.sites[3], run, 6, "trained")
    pool.services["broker"].kill()
    pool.serve()
    pool.wait_run(run, timeout_s=RUN_S)
    assert before >= 2
    pool.check(run, tmp_path / "bundle.zip", silent=pool.sites)
    settled = pool.rows("SELECT round, attempt FROM round WHERE run_id = ? ORDER BY round, attempt", run)
    assert [number for number, _ in settled][-1] == ROUNDS
    assert len(set(settled)) == len(settled)
    assert {
        site.name: pool.services[site.name].pid for site in pool.sites
    } == processes  # nobody else restarted
    assert len(settled) <= ROUNDS + 2  # at most the attempt that each kill met
    for site in pool.sites:
        assert set(pool.spends(site, run)) <= set(settled), site.name
