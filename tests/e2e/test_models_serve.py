# SPDX-License-Identifier: Apache-2.0
"""The loop with real processes: a package is served, a simulated cell acts by it, and what it did is data."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from client.data import Store, import_path
from client.data.fields import open_view
from client.identity import load_identity
from policies.encoding import canonical, digest
from policies.identity import key_text
from policies.recipe import load
from sandbox.errors import CommandError, StartError
from sandbox.loop import Door, run_cell, served
from tests.datasetsim import Site
from tests.datasim import RIGHTS, SimClock
from tests.packagesim import CONTRACT, NODE, RUN, material, sound_package

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]
needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="Meta-World is not installed: pip install 'iriai[sandbox]'",
)
ROOT = Path(__file__).parents[2]
ALLOW = frozenset({"tcp_pos", "gripper_width", "object_pos", "goal_pos", "tcp_pose_delta", "gripper_cmd"})
SIGNED = ("--key", key_text(NODE.public))
GUARDS = {"max_delta_per_tick": None, "watchdog_ms": 60_000, "fallback": "hold", "ood_share_max": "0.25"}
OBSERVATION = [0.0, 0.75, 0.175, 0.7, 0.0, 0.75, 0.16, 0.0, 0.85, 0.175]


def command(*line: str, folder: Path, code: int = 0) -> dict:
    """A command of the node with ``--json``; its data, or its error."""
    argv = [sys.executable, "-m", "client.cli", *line, "--dir", str(folder), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr
    envelope = json.loads(done.stdout)
    return envelope["data"] if code == 0 else envelope["error"]


def act(door: Door, ticks: int, **changes: object) -> dict:
    """So many control steps of an arm that stands in the middle of its cell."""
    told: dict = {}
    for _ in range(ticks):
        body = {"observation": OBSERVATION, "stamp_ns": door.tick * 12_500_000, "seq": door.tick}
        told = door.ask("POST", "/v1/infer", body | changes)
        door.tick += 1
    return told


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "pick.iriai"
    path.write_bytes(sound_package())
    return path


def recordings(folder: Path) -> list[Path]:
    return sorted((folder / "deployed").glob("*/*.parquet"))


def test_a_package_is_served_trips_is_looked_after_and_ends_with_its_episodes_whole(tmp_path, package):
    node, log = tmp_path / "node", tmp_path / "serve.log"
    with served(package, folder=node, log=log, options=SIGNED) as door:
        assert act(door, 5)["flags"] == []
        door.end(success=True)
        assert act(door, 3, observation=[9.0] * 10)["problem"]["code"] == "serve.fallback"
        shown = command("models", "status", folder=node)
        assert (shown["state"], shown["cause"], shown["recorder"]["episodes"]) == (
            "fallback",
            ["input-range"],
            1,
        )
        assert command("models", "resume", folder=node) == {"state": "ready"}
        assert act(door, 4)["state"] == "active"
        mode = (node / "serving" / "cell" / "cell.token").stat().st_mode & 0o777
        assert mode == 0o600
        second = [sys.executable, "-m", "client.cli", "models", "serve", str(package), *SIGNED]
        busy = subprocess.run([*second, "--dir", str(node)], capture_output=True, cwd=ROOT, check=False)
        assert (busy.returncode, busy.stderr.split()[0]) == (75, b"serve.busy")
    assert [len(pq.read_table(path)) for path in recordings(node)] == [5]
    assert "1 kept, 1 dropped" in log.read_text()
    assert not (node / "serving" / "cell" / "service.json").exists()
    assert command("models", "status", folder=node, code=5)["code"] == "serve.not-serving"


def test_a_service_that_is_killed_loses_the_open_episode_alone_and_says_so_when_it_is_back(tmp_path, package):
    node, log = tmp_path / "node", tmp_path / "serve.log"
    with served(package, folder=node, log=log, options=SIGNED) as door:
        for _ in range(2):
            act(door, 6)
            door.end(success=True)
        act(door, 6)
        pid = json.loads((node / "serving" / "cell" / "service.json").read_bytes())["pid"]
        os.kill(pid, signal.SIGKILL)
    assert [len(pq.read_table(path)) for path in recordings(node)] == [6, 6]
    with served(package, folder=node, log=log, options=SIGNED) as door:
        assert door.ask("GET", "/v1/status")["recorder"]["dropped"] == {"crashed": 1}
        with pytest.raises(CommandError, match=r"serve\.not-admitted"):
            door.ask("POST", "/v1/resume")


def test_a_package_of_a_stranger_is_never_served(tmp_path, package):
    strange = "ed25519:" + "A" * 43 + "="
    for keys in ((), ("--key", strange)):
        with pytest.raises(StartError), served(package, folder=tmp_path, log=tmp_path / "log", options=keys):
            pass
    assert not (tmp_path / "deployed").exists()


@needs_simulator
def test_a_cell_acts_by_a_served_model_and_the_next_run_learns_from_its_successes(tmp_path):
    """Demonstrations, a model, its package, ten attempts, the import: a new block beside the old one."""
    from client.deploy.package import build_package
    from client.deploy.recipe_facts import RecipeFacts
    from client.learning.export import export_graph
    from client.learning.tensors import EpisodeArrays
    from client.learning.train import local_baseline
    from sandbox.cells import record
    from sandbox.recipes import alone_recipe
    from tests.packagesim import latency_of, statement_of

    recipe = load(canonical(json.loads(alone_recipe(25)) | {"package": GUARDS}))
    record("C", tmp_path / "cell", train=25, held_out=2, seed=0)
    opened = {"contract_fields": ALLOW, "recipe_inputs": ALLOW, "local_allow": ALLOW, "imitates": True}
    node = Site(tmp_path / "node").home
    key = load_identity(node).unit_key
    told = {"dataset": "kita/pick", "allow": ALLOW, "rights": RIGHTS, "node_key": key, "clock": SimClock()}
    import_path(tmp_path / "data", tmp_path / "cell", **told)
    before = open_view(tmp_path / "data", "kita/pick", **opened)
    shown = [
        EpisodeArrays(observation=one.fields, action=one.actions, unit_id=one.unit_id)
        for one in before.episodes("train")
    ]
    weights = local_baseline(recipe, shown, steps=1000, seed=0)

    made = export_graph(recipe, weights, RecipeFacts(recipe).example)
    named = {"id": "pick-place", "digest": digest(weights.tobytes()), "parent": digest(b"the released one")}
    changes = {
        "recipe": recipe,
        "model": named | {"tier": "private", "individual": True},
        "graph": made.graph,
        "chunk": made.chunk,
        "opset": made.opset,
        "statement": statement_of(recipe, named["parent"]),
        "latency": latency_of(made.graph),
    }
    lineage = {"contract": CONTRACT, "recipe": recipe.digest, "run": RUN, "seed_set": None, "log": None}
    package = tmp_path / "own.iriai"
    package.write_bytes(build_package(material(individual=True, lineage=lineage, **changes), NODE))

    with served(package, folder=node.root, log=tmp_path / "serve.log", options=SIGNED) as door:
        attempts = run_cell(door, "C", placements=7, n=10)
        status = door.ask("GET", "/v1/status")
    successes = sum(one.success for one in attempts)
    assert successes >= 5, attempts
    assert status["recorder"]["episodes"] == 10

    files = recordings(node.root)
    added = import_path(
        tmp_path / "data", files[0].parent, signal_map=files[0].with_name("signalmap.toml"), **told
    )
    assert (added.episodes_added, added.excluded) == (10, 0)
    metas = [one.meta for one in Store(tmp_path / "data").episodes("kita/pick")]
    acted = [one for one in metas if one.source_kind == "deployed"]
    assert {one.model for one in acted} == {named["digest"]}
    assert not {one.block for one in acted} & {one.block for one in metas if one.source_kind == "recorded"}
    assert [one.length for one in acted] == [one.steps for one in attempts]
    after = open_view(tmp_path / "data", "kita/pick", **opened)
    gained = [after.count(split) - before.count(split) for split in ("train", "held-out")]
    assert sum(gained) == successes
    assert len(after.episodes("train")) == before.count("train") + gained[0]
