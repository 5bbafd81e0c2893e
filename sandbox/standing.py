# SPDX-License-Identifier: Apache-2.0
"""A federation that stays: brought up once, ended by the process ids that it wrote down."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from policies.recipe import load as load_recipe
from sandbox.baselines import Workshop
from sandbox.clock import now_ms
from sandbox.errors import UsageError
from sandbox.federation import Federation
from sandbox.processes import is_running, stop_pid
from sandbox.progress import Progress
from sandbox.recipes import DELTA, plain_recipe, private_recipe

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bring_down", "bring_up"]

_FILE = "processes.json"


def bring_up(directory: Path, *, episodes: int, epsilon: str | None, seed: int) -> dict[str, Any]:
    """Sets everything up to a contract in force and four nodes online; the processes go on.

    Raises:
        UsageError: A federation is in the folder already.
    """
    progress, federation = Progress(), Federation(directory)
    made = plain_recipe(episodes) if epsilon is None else private_recipe(epsilon, episodes)
    recipe = load_recipe(made)
    try:
        with progress.phase("cells record demonstrations"), Workshop() as workshop:
            folders = {site.maker.cell: site.recordings for site in federation.sites}
            workshop.record(folders, train=episodes, seed=seed)
        with progress.phase("broker, invitations, approvals"):
            federation.start_broker()
            federation.enrol()
        start_ms = federation.start_ms()
        with progress.phase("contract, imports, signatures"):
            federation.agree(recipe, epsilon=epsilon, delta=DELTA, start_ms=start_ms)
        with progress.phase("nodes come online"):
            federation.start_nodes()
        with progress.phase("waiting for the contract to begin"):
            time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))
    except BaseException:
        federation.stop()
        raise
    return _written(federation)


def _written(federation: Federation) -> dict[str, Any]:
    folder, broker = federation.folder, federation.broker_dir
    pids = federation.pids()
    (folder / _FILE).write_text(json.dumps(pids, indent=2) + "\n", "utf-8")
    key = federation.operator_key()
    operator = f"--dir {broker} --key {key}"
    site = federation.sites[0]
    lines = [
        f"broker       {federation.url}  (process {pids['broker']})",
        *(f"node         {one.name} in {one.folder}  (process {pids[one.name]})" for one in federation.sites),
        f"contract     {federation.contract}",
        "next:",
        f"  iriai-broker run open --contract {federation.contract} --recipe pick-place {operator}",
        f"  iriai-broker run list {operator}",
        f"  iriai-node outbox list --dir {site.folder}",
        f"  iriai-sandbox down --dir {folder}",
    ]
    return {
        "url": federation.url,
        "contract": federation.contract,
        "processes": pids,
        "sites": {one.name: str(one.folder) for one in federation.sites},
        "operator_key": key,
        "next": lines,
    }


def bring_down(directory: Path) -> list[str]:
    """Ends the processes that `bring_up` wrote down; gives their names.

    Raises:
        UsageError: Nothing was brought up in this folder.
    """
    path = directory / _FILE
    if not path.exists():
        raise UsageError(
            need=f"{_FILE} in {directory}",
            found="none",
            remedy="name the folder given to iriai-sandbox up --dir",
        )
    pids: dict[str, int] = json.loads(path.read_text("utf-8"))
    nodes = [(name, pid) for name, pid in pids.items() if name != "broker"]
    stopped = []
    for name, pid in [*nodes, ("broker", pids["broker"])]:
        if is_running(pid) and stop_pid(pid):
            stopped.append(name)
    path.unlink()
    return stopped
