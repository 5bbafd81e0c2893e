# SPDX-License-Identifier: Apache-2.0
"""A federation that stays: brought up once, ended by the process ids that it wrote down.

`sandbox.federation` writes each process down as it starts it, so that `bring_down` also ends what a failed
`bring_up` left. The file stays when all are ended: it says that the folder is a sandbox's
and may be deleted. `sandbox.json` says who takes part, so that `open_again` and `status` find them; no login
and no code is in it.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from policies.recipe import load as load_recipe
from sandbox import doors
from sandbox.asked import check_donated, votes_drown
from sandbox.baselines import Workshop
from sandbox.clock import now_ms
from sandbox.contract_text import Maker, makers
from sandbox.errors import UsageError
from sandbox.federation import PROCESSES, Federation
from sandbox.people import CONSOLE
from sandbox.processes import is_running, stop_pid
from sandbox.progress import Progress
from sandbox.recipes import DELTA, NOISE, asked_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from policies.recipe import Recipe
    from sandbox.recipes import Noise

__all__ = [
    "bring_down",
    "bring_up",
    "checked",
    "delete_folder",
    "open_again",
    "open_to",
    "status",
    "still_running",
    "would_stop",
]

FACTS: Final = "sandbox.json"
NODES_LEAST: Final = 3  # the contract's `min_parties`
NODES_MOST: Final = 8
_SHARES_LEAST: Final = 4


def bring_up(
    directory: Path,
    *,
    episodes: int,
    epsilon: str | None,
    seed: int,
    noise: Noise = NOISE,
    seed_episodes: int = 0,
    nodes: int = 4,
) -> dict[str, Any]:
    """Sets everything up to a contract in force, nodes online and pages open; the processes go on.

    Args:
        directory: A folder that is empty, or not there.
        episodes: Training episodes per cell.
        epsilon: Per release; None runs without privacy.
        seed: Of recordings.
        noise: Kind of noise; without privacy there is none.
        seed_episodes: How many episodes each maker openly gives, for a model that training starts from.
        nodes: Makers, from 3 to 8; the fifth and later ones have the recordings of the first cells again.

    Raises:
        UsageError: The folder is in use, and the command that frees it is named; or nobody would keep an
            episode; or noise shares are asked of three makers.
    """
    recipe = checked(
        directory, episodes=episodes, epsilon=epsilon, noise=noise, seed_episodes=seed_episodes, nodes=nodes
    )
    progress, federation = Progress(), Federation(directory, makers=makers(nodes), console=CONSOLE)
    if (warning := votes_drown(recipe, episodes=episodes)) is not None:
        progress.say(warning)
    federation.write_down()
    try:
        with progress.phase("cells record demonstrations"), Workshop() as workshop:
            folders = {site.maker.cell: site.recordings for site in federation.sites}
            workshop.record(folders, train=episodes, seed=seed)
        with progress.phase("broker, invitations, approvals"):
            federation.start_broker()
            federation.enrol()
        if seed_episodes:
            with progress.phase("episodes openly donated, a start model fitted to them"):
                recipe = federation.seed(recipe, seed_episodes)
        start_ms = federation.start_ms()
        with progress.phase("contract, imports, signatures"):
            federation.agree(recipe, epsilon=epsilon, delta=DELTA, start_ms=start_ms)
        with progress.phase("nodes come online"):
            federation.start_nodes()
        with progress.phase("waiting for the contract to begin"):
            time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))
        _write_facts(federation)
        with progress.phase("console and node pages"):
            found = doors.doors(federation, first=True)
    except BaseException:
        federation.stop()
        progress.say(
            f"up did not succeed; see {federation.folder / 'logs'}; to repeat it, first: {_free(directory)}"
        )
        raise
    return _written(federation, found)


def checked(
    directory: Path, *, episodes: int, epsilon: str | None, noise: Noise, seed_episodes: int, nodes: int
) -> Recipe:
    """The recipe of a federation that can be brought up; nothing is made yet.

    Raises:
        UsageError: As from `bring_up`.
    """
    _check_free(directory)
    _check_nodes(nodes, shares=epsilon is not None and noise == "shares")
    check_donated(episodes=episodes, seed_episodes=seed_episodes)
    return load_recipe(asked_recipe(epsilon, episodes, noise=noise))


def _free(directory: Path) -> str:
    return f"iriai-sandbox down --dir {directory} --delete"


def _check_free(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if (directory / PROCESSES).is_file():
        runs = sorted(still_running(directory))
        raise UsageError(
            need="a folder without a federation",
            found=f"one in {directory}, " + (f"running: {', '.join(runs)}" if runs else "ended"),
            remedy=f"`{_free(directory)}`, then repeat, or another --dir",
        )
    raise UsageError(
        need="an empty folder, or none", found=f"other files in {directory}", remedy="choose another --dir"
    )


def _pids(directory: Path) -> dict[str, int]:
    pids: dict[str, int] = json.loads((directory / PROCESSES).read_text("utf-8"))
    return pids


def _check_nodes(nodes: int, *, shares: bool) -> None:
    if shares and nodes < _SHARES_LEAST:
        raise UsageError(
            need=f"at least {_SHARES_LEAST} nodes for noise shares",
            found=str(nodes),
            remedy="--nodes 4, or --noise local-full, or --epsilon inf",
        )


def _write_facts(federation: Federation) -> None:
    facts = {
        "url": federation.url,
        "contract": federation.contract,
        "makers": [asdict(one.maker) for one in federation.sites],
    }
    (federation.folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _standing(directory: Path) -> Federation:
    """The federation of a folder, whose processes somebody else started.

    Raises:
        UsageError: None was brought up there, or not to the end.
    """
    _check_ours(directory)
    try:
        facts = json.loads((directory / FACTS).read_text("utf-8"))
        federation = Federation(directory, makers=tuple(Maker(**one) for one in facts["makers"]))
        federation.url, federation.contract = str(facts["url"]), str(facts["contract"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            need=f"a federation in {directory} that came up",
            found="one that did not",
            remedy=_free(directory),
        ) from error
    return federation


def open_again(directory: Path) -> dict[str, Any]:
    """Fresh one-time logins and codes of a federation that runs; a node page that ended is started anew.

    Raises:
        UsageError: None was brought up there, or its broker does not run.
    """
    federation, before = open_to(directory)
    federation.known = before
    found = doors.doors(federation, first=False, pids=before)
    lines = [*doors.lines(found), doors.ENDED]
    return {**found, "url": federation.url, "contract": federation.contract, "next": lines}


def open_to(directory: Path) -> tuple[Federation, dict[str, int]]:
    """A federation whose broker runs, and its processes.

    Raises:
        UsageError: None was brought up there, or its broker does not run.
    """
    federation, before = _standing(directory), _pids(directory)
    if "broker" not in before or not is_running(before["broker"]):
        raise UsageError(
            need="a broker that runs",
            found=f"none in {directory}: it ended, its folder is whole",
            remedy=f"start it again: `iriai-broker serve --dir {federation.broker_dir} &`, "
            "then a login: `iriai-broker operator reset-login alice "
            f"--dir {federation.broker_dir} --key {federation.operator_key()}`; "
            f"see {federation.folder / 'logs'} for why it ended",
        )
    return federation, before


def status(directory: Path) -> dict[str, Any]:
    """Which processes run, which ended, and what the broker says of nodes and runs.

    Raises:
        UsageError: None was brought up there.
    """
    federation, known = _standing(directory), _pids(directory)
    running = still_running(directory)
    facts: dict[str, Any] = {
        "url": federation.url,
        "contract": federation.contract,
        "running": running,
        "ended": [name for name in known if name not in running],
        "nodes": [],
        "runs": [],
    }
    if "broker" in running:
        online = {one["org"]: one["state"] for one in federation.broker("status")["nodes"]}
        members = federation.broker("members")["organisations"]
        names = {site.maker.legal_name: site.name for site in federation.sites}
        facts["nodes"] = [
            {"name": names[one["legal_name"]], "state": online.get(one["org"], "unknown")}
            for one in members
            if one["legal_name"] in names
        ]
        facts["runs"] = federation.broker("run", "list")["runs"]
    return facts


def _written(federation: Federation, found: dict[str, Any]) -> dict[str, Any]:
    folder, broker = federation.folder, federation.broker_dir
    pids = federation.pids()
    key = federation.operator_key()
    operator = f"--dir {broker} --key {key}"
    site = federation.sites[0]
    lines = [
        f"broker       {federation.url}  (process {pids['broker']})",
        *(f"node         {one.name} in {one.folder}  (process {pids[one.name]})" for one in federation.sites),
        f"contract     {federation.contract}",
        *doors.lines(found),
        "next:",
        f"  iriai-broker run open --contract {federation.contract} --recipe pick-place {operator}",
        f"  iriai-broker run list {operator}",
        f"  iriai-node outbox list --dir {site.folder}",
        f"  iriai-sandbox down --dir {folder}",
    ]
    return {
        **found,
        "url": federation.url,
        "contract": federation.contract,
        "processes": pids,
        "sites": {one.name: str(one.folder) for one in federation.sites},
        "operator_key": key,
        "next": lines,
    }


def bring_down(directory: Path) -> list[str]:
    """Ends the processes that were written down in a folder; gives the names of those that ended.

    Safe to repeat; what did not end, `still_running` names.

    Raises:
        UsageError: Nothing was brought up in this folder.
    """
    _check_ours(directory)
    pids = _pids(directory)
    # pages first; the broker last, so that nodes can say goodbye
    order = sorted(pids, key=lambda name: (name == "broker", not name.endswith(doors.PAGE)))
    stopped = [name for name in order if is_running(pids[name]) and stop_pid(pids[name])]
    left = still_running(directory)
    (directory / PROCESSES).write_text(json.dumps(left, indent=2) + "\n", "utf-8")
    return stopped


def would_stop(directory: Path) -> dict[str, int]:
    """Processes that `bring_down` would end, by name.

    Raises:
        UsageError: Nothing was brought up in this folder.
    """
    _check_ours(directory)
    return still_running(directory)


def still_running(directory: Path) -> dict[str, int]:
    """Processes of a folder that run, by name."""
    return {name: pid for name, pid in _pids(directory).items() if is_running(pid)}


def delete_folder(directory: Path) -> None:
    """Deletes a sandbox's folder once none of its processes runs.

    Raises:
        UsageError: It is no sandbox's, or something still runs.
    """
    _check_ours(directory)
    runs = [f"{name} ({pid})" for name, pid in still_running(directory).items()]
    if runs:
        raise UsageError(
            need="no process of the folder that runs", found=", ".join(runs), remedy="end them, then repeat"
        )
    shutil.rmtree(directory)


def _check_ours(directory: Path) -> None:
    if not (directory / PROCESSES).is_file():
        raise UsageError(
            need=f"{PROCESSES} in {directory}",
            found="none",
            remedy="name the folder given to iriai-sandbox up --dir",
        )
