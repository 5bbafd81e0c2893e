# SPDX-License-Identifier: Apache-2.0
"""A broker that dies at any statement of a negotiation: what lies on the disk is final for all, or for nobody.

What a kill leaves is what the files hold at that moment. So the files are copied before every statement of the broker's databases, and
each copy is looked at as a restart would find it; a few are real kills of a real process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.contract import executed
from policies.contract.negotiation.pool import Pool
from policies.encoding import canonical
from policies.log.entries import EntryType
from tests.brokersim import House, NodeSim, draft, open_house, pool, statements
from tests.lanesim import spoken

CHILD = Path(__file__).with_name("negotiation_kill_child.py")
DATABASES = ("broker.db", "private.db", "signer.db")
MANY = 20


def snapshot(folder: Path, to: Path) -> None:
    """The database files as a kill would leave them: the shared-memory index is made anew at the next start."""
    to.mkdir(exist_ok=True)
    for name in DATABASES:
        for suffix in ("", "-wal"):
            source, target = folder / (name + suffix), to / (name + suffix)
            target.unlink(missing_ok=True)
            (to / (name + "-shm")).unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)


@dataclass
class Found:
    """What a restart finds of one negotiation."""

    state: str
    lanes: Counter[str]
    document: str
    entries: int
    signatures: int
    log: str = field(default="")

    @property
    def final(self) -> bool:
        return self.state == "finalized"

    def check(self, contributors: int) -> None:
        """Final for all, or for nobody."""
        signs = {
            "negotiation": self.state == "finalized",
            "document": self.document == "finalized",
            "entry": self.entries == 1,
            "every lane": self.lanes["FINALIZED"] == contributors,
            "some lane": self.lanes["FINALIZED"] > 0,
        }
        assert len(set(signs.values())) == 1, signs
        assert sum(self.lanes.values()) == contributors
        if self.final:
            assert self.signatures == contributors + 1


def look(folder: Path) -> Found:
    with closing(sqlite3.connect(folder / "broker.db")) as database:
        state, stored = database.execute("SELECT state, pool FROM negotiation").fetchone()
        lanes = Counter(row[0] for row in database.execute("SELECT state FROM lane"))
        (document,) = database.execute("SELECT state FROM contract_document").fetchone()
        (entries,) = database.execute(
            "SELECT count(*) FROM log_entry WHERE type = 'contract.finalized'"
        ).fetchone()
        (signatures,) = database.execute("SELECT count(*) FROM contract_signature").fetchone()
        messages = database.execute("SELECT count(*) FROM lane_message").fetchone()[0]
    kept = Pool.from_bytes(stored)
    assert kept.state == state
    assert Counter(one.state.value for one in kept.lanes) == lanes
    assert sum(kept.counts.values()) == messages
    return Found(state=state, lanes=lanes, document=document, entries=entries, signatures=signatures)


async def verified_but_one(house: House, nodes: list[NodeSim]) -> tuple[Any, Any]:
    """A negotiation in which the last contributor's signature is missing; the contract, and the request with it."""
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    for node in nodes:
        assert (await node.accept(contract)).status_code == 200
    for node in nodes[:-1]:
        assert (await node.verify(contract)).status_code == 200
    last = nodes[-1]
    view = await last.view(contract)
    message = spoken(view, "verify", last.key, now_ms=house.clock.ms)
    body = canonical({"message": message.to_json(), **last.signature_body(contract)})
    return contract, (last, f"/negotiations/{view['id']}/messages", body)


async def test_killed_at_any_statement_of_the_last_signature_it_is_final_for_all_or_for_nobody(tmp_path):
    folder, copies, at = tmp_path / "broker", [], []
    async with open_house(folder) as house:
        nodes = await pool(house)
        contract, (last, path, body) = await verified_but_one(house, nodes)
        shutil.copytree(folder, tmp_path / "keys")
        request = last.signed("POST", path, body)

        def kill(sql: str) -> None:
            copies.append(tmp_path / f"copy{len(copies):03}")
            at.append(sql)
            snapshot(folder, copies[-1])

        with statements(house, kill):
            answer = await house.http.send(request)
        assert answer.json()["state"] == "finalized"
        clock_ms = house.clock.ms
    ends = [look(one) for one in copies]
    for one in ends:
        one.check(3)
    turns = [number for number, one in enumerate(ends) if one.final]
    assert turns
    first = turns[0]
    assert turns == list(range(first, len(ends)))  # once final, always final
    assert at[first - 1] == "COMMIT"
    print(f"\n{len(copies)} statements, final from statement {first} on")
    for number in sorted({0, 1, first // 2, first - 1, first, first + 1, len(copies) - 1}):
        await _goes_on(tmp_path, copies[number], contract, (last, path, body), clock_ms)


async def _goes_on(
    tmp_path: Path, copy: Path, contract: Any, sent: tuple[NodeSim, str, bytes], now_ms: int
) -> None:
    """A restart on what a kill left: the node sends the same again, and everything is final, once."""
    last, path, body = sent
    folder = tmp_path / f"again-{copy.name}"
    shutil.copytree(tmp_path / "keys", folder)
    snapshot(copy, folder)
    async with open_house(folder) as house:
        house.clock.ms = now_ms
        assert house.services.writer.frozen is None
        before, last.house = last.house, house
        answer = await house.http.send(last.signed("POST", path, body))
        last.house = before
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "finalized"
        assert len(house.entries(EntryType.CONTRACT_FINALIZED)) == 1
        assert len(house.entries(EntryType.CONTRACT_SIGNED)) == 3
        with house.services.store.read() as session:
            executed(contract, house.services.contracts.envelope(session, contract))
    look(folder).check(3)


@pytest.mark.slow
async def test_twenty_lanes_are_never_half_final_over_a_thousand_kills(tmp_path):
    names = [f"maker{chr(ord('a') + number)}" for number in range(MANY)]
    folder, copy, kills = tmp_path / "broker", tmp_path / "copy", Counter()

    def kill(_sql: str) -> None:
        snapshot(folder, copy)
        found = look(copy)
        found.check(MANY)
        kills["final" if found.final else "open"] += 1

    async with open_house(folder) as house:
        nodes = await pool(house, *names)
        contract = draft(house, nodes)
        assert (await house.alice.offer(contract)).status_code == 201
        await _said_under(house, nodes, contract, "accept", kill)
        await _said_under(house, nodes, contract, "verify", kill)
        assert house.services.contracts.is_final(contract.digest)
    print(f"\n{sum(kills.values())} kills over {MANY} lanes, 0 half-final: {dict(kills)}")
    assert kills["open"] + kills["final"] >= 1_000
    assert kills["final"] > 0


async def _said_under(
    house: House, nodes: list[NodeSim], contract: Any, kind: str, kill: Callable[[str], None]
) -> None:
    """Every node says this; the broker is killed at each statement of taking it."""
    for node in nodes:
        view = await node.view(contract)
        message = spoken(view, kind, node.key, now_ms=house.clock.ms)
        brought = node.signature_body(contract) if kind == "verify" else {}
        body = canonical({"message": message.to_json(), **brought})
        request = node.signed("POST", f"/negotiations/{view['id']}/messages", body)
        with statements(house, kill):
            answer = await house.http.send(request)
        assert answer.status_code == 200, answer.text


@pytest.mark.slow
async def test_a_process_that_is_killed_in_the_last_transaction_leaves_all_or_nothing(tmp_path):
    folder, counted = tmp_path / "broker", []
    async with open_house(folder) as house:
        nodes = await pool(house)
        _, (last, path, body) = await verified_but_one(house, nodes)
        request = last.signed("POST", path, body)
        now_ms = house.clock.ms
    facts = {
        "url": str(request.url),
        "body": body.decode(),
        "headers": dict(request.headers),
        "now_ms": now_ms,
    }
    (tmp_path / "request.json").write_text(json.dumps(facts))
    shutil.copytree(folder, tmp_path / "whole")
    async with open_house(tmp_path / "whole") as house:
        house.clock.ms = now_ms
        with statements(house, counted.append):
            await house.http.send(last.signed("POST", path, body))
    commits = [number for number, sql in enumerate(counted, 1) if sql == "COMMIT"]
    assert commits
    outcomes = Counter()
    for at in sorted({1, len(counted) // 2, *commits, *(one + 1 for one in commits), len(counted) + 1}):
        victim = tmp_path / f"victim{at}"
        shutil.copytree(folder, victim)
        done = _child(victim, tmp_path / "request.json", at)
        assert done.returncode == (0 if at > len(counted) else -signal.SIGKILL), done.stderr.decode()
        found = look(victim)
        found.check(3)
        outcomes["final" if found.final else "open"] += 1
    print(f"\n{dict(outcomes)} after SIGKILL at {len(counted)} statements' commits and their neighbours")
    assert outcomes["final"] > 0
    assert outcomes["open"] > 0


def _child(folder: Path, request: Path, at: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(CHILD), str(folder), str(request), str(at)],
        capture_output=True,
        cwd=CHILD.parents[2],
        env={**os.environ, "PYTHONPATH": str(CHILD.parents[2])},
        check=False,
        timeout=60,
    )
