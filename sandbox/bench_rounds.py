# SPDX-License-Identifier: Apache-2.0
"""How many secure rounds a federation does per second, and where their time goes.

Everything is real: a broker and its nodes as processes, enrolment, signed contract, TLS, masks, signatures,
log, receipts, databases and fsync, as `iriai-sandbox up` starts them. Only the learning is small: the model
has about 6 000 parameters, each round is one step on few units of short recordings.

- `WARM_UP` rounds are not counted: torch loads, connections open, the first setup is made.
- A round's time is that between the broker's own ``round.closed`` lines; its parts are in those lines.
- What a node does meanwhile is in its own lines: local training, masking (quantise, mask, sign), and sealing
  (envelopes, their durable copy).
- CPU seconds are those of the broker and of the nodes' processes over the counted rounds.
- ``requests`` is measured apart, by one exchange of a tensor as large as the model.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical
from policies.recipe import load as load_recipe
from policies.recipe import manifest
from sandbox.baselines import Workshop
from sandbox.bench_exchange import cpu_s, measure
from sandbox.clock import now_ms
from sandbox.contract_text import makers
from sandbox.errors import SandboxError
from sandbox.federation import Federation
from sandbox.processes import wait_for
from sandbox.progress import Progress
from sandbox.recipes import DELTA, private_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from policies.recipe import Recipe

__all__ = ["lines", "recipe_of", "run"]

Json = dict[str, Any]
WARM_UP: Final = 4
WIDTH: Final = 66  # 6 010 parameters
EPISODES: Final = 10
_EPSILON: Final = "8"
_ROUND_S: Final = 10.0  # a round that takes longer ends the measurement
_START_S: Final = 60.0
_PHASE: Final = re.compile(r"^phase run=\S+ round=(\d+) attempt=\d+ (\w+) ms=([\d.]+)$", re.MULTILINE)
_SPANS: Final = {"trained": "training", "masked": "masking", "sealed": "sealing"}  # by the line that ends one


def recipe_of(rounds: int, episodes: int = EPISODES) -> Recipe:
    """A private recipe with noise shares whose model has about 6 000 parameters; cheap to train."""
    wanted: Json = json.loads(private_recipe(_EPSILON, episodes, noise="shares"))
    sizes = {"input_size": 19, "output_size": 4, "width": WIDTH, "chunk": 1}
    wanted["architecture"]["args"]["width"] = WIDTH
    wanted["tensors"] = manifest(**sizes)
    wanted["rounds"] = wanted["server"]["steps"] = rounds
    wanted["plan"]["steps"] = 2 * rounds
    return load_recipe(canonical(wanted))


def run(*, nodes: int = 4, rounds: int = 100) -> Json:
    """Sets a federation up, lets it do rounds, and stops it.

    Returns:
        ``nodes``, ``rounds``, ``parameters``, ``rounds_per_s``; ``round_ms`` with median and 95th percentile;
        ``phases_ms``, the median of each part that the broker's lines name; ``nodes_ms``, those of the nodes'
        lines: ``training``, ``masking``, ``sealing``; ``cpu_ms`` per round of ``broker`` and ``nodes``;
        ``requests`` per exchange of the model, ``exchange_ms`` and ``exchange_cpu_ms``; ``load``, ``cpus``.

    Raises:
        SandboxError: A step failed, or fewer rounds than asked for were done in time; the folder is kept.
    """
    recipe = recipe_of(rounds + WARM_UP)
    load = [os.getloadavg()[0]]
    with _folder() as folder:
        federation = Federation(folder / "federation", makers=makers(nodes))
        try:
            _bring_up(federation, recipe)
            found = _measured(federation, rounds)
        finally:
            federation.stop()
    load.append(os.getloadavg()[0])
    exchange = measure(nodes=nodes, size_mb=4e-6 * recipe.parameters, exchanges=20)
    return {
        "nodes": nodes,
        "rounds": rounds,
        "parameters": recipe.parameters,
        "cpus": os.cpu_count(),
        "load": [round(one, 2) for one in load],
        **found,
        "requests": exchange["requests"],
        "exchange_ms": round(1000 * exchange["p50_s"], 1),
        "exchange_cpu_ms": round(1000 * exchange["cpu_s"], 1),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What `run` found, for a terminal."""
    yield (
        f"{found['rounds_per_s']:.2f} rounds per second: {found['nodes']} nodes, {found['parameters']} "
        f"parameters, {found['cpus']} CPUs, load {found['load'][0]} to {found['load'][1]}"
    )
    yield f"{'a round, median':34}{found['round_ms']['p50']:>10.1f} ms"
    yield f"{'a round, 95th percentile':34}{found['round_ms']['p95']:>10.1f} ms"
    for name, value in found["phases_ms"].items():
        yield f"  {name.removesuffix('_ms'):32}{value:>10.1f} ms"
    for name, value in found["nodes_ms"].items():
        yield f"  {'at a node: ' + name:32}{value:>10.1f} ms"
    yield f"{'CPU of the broker per round':34}{found['cpu_ms']['broker']:>10.1f} ms"
    yield f"{'CPU of all nodes per round':34}{found['cpu_ms']['nodes']:>10.1f} ms"
    yield f"{'an exchange of the model alone':34}{found['exchange_ms']:>10.1f} ms"
    yield f"{'  its CPU, all processes':34}{found['exchange_cpu_ms']:>10.1f} ms"
    yield f"{'  its requests':34}{found['requests']:>10.1f}"


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the federation, deleted at the end; kept and named where a step failed, for its logs."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-rounds-"))
    try:
        yield folder
    except SandboxError as error:
        logs = folder / "federation" / "logs"
        error.remedy = f"{error.remedy}; they are in {logs}, kept: delete {folder} when you are done"
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


def _bring_up(federation: Federation, recipe: Recipe) -> None:
    progress = Progress()
    with progress.phase("recordings, broker, enrolment, contract, nodes"):
        with Workshop() as workshop:
            workshop.record(
                {one.maker.cell: one.recordings for one in federation.sites}, train=EPISODES, seed=0
            )
        federation.start_broker()
        federation.enrol()
        start_ms = federation.start_ms()
        federation.agree(recipe, epsilon=_EPSILON, delta=DELTA, start_ms=start_ms)
        federation.start_nodes()
        time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))


@dataclass(frozen=True, slots=True)
class _Usage:
    broker_s: float
    nodes_s: float


def _measured(federation: Federation, rounds: int) -> Json:
    run_id = federation.open_run()

    def closed() -> list[Json]:
        own = [one for one in federation.journal() if one.get("run") == run_id]
        ended = [one["event"] for one in own if one["event"] in {"run.closed", "run.broken", "run.refused"}]
        found = [one for one in own if one["event"] == "round.closed"]
        if ended and len(found) < WARM_UP + rounds:
            raise SandboxError(
                need="rounds that close",
                found=ended[-1],
                remedy="see the broker's log",
            )
        return found

    def reached(count: int, timeout_s: float) -> tuple[int, _Usage]:
        wait_for(f"{count} rounds", lambda: len(closed()) >= count, timeout_s=timeout_s)
        used = _used(federation)
        return len(closed()), used

    first, before = reached(WARM_UP, _START_S + _ROUND_S * WARM_UP)
    last, after = reached(WARM_UP + rounds, _ROUND_S * rounds)
    found = _figures(closed()[first - 1 : last], before, after)
    texts = [service.text() for name, service in federation.services.items() if name != "broker"]
    return found | {"nodes_ms": _at_nodes(texts)}


def _figures(rows: list[Json], before: _Usage, after: _Usage) -> Json:
    """Of rows whose first is where counting begins."""
    at = [datetime.fromisoformat(one["ts"]).timestamp() for one in rows]
    took = sorted(1000 * (later - earlier) for earlier, later in itertools.pairwise(at))
    counted = rows[1:]
    names = [name for name in counted[-1] if name.endswith("_ms")]
    medians = {name: statistics.median(float(one.get(name, 0)) for one in counted) for name in names}
    return {
        "rounds_per_s": round(len(took) / (at[-1] - at[0]), 3),
        "accepted": round(statistics.mean(int(one["accepted"]) for one in counted), 2),
        "round_ms": {
            "p50": round(statistics.median(took), 1),
            "p95": round(took[min(len(took) - 1, int(len(took) * 0.95))], 1),
        },
        "phases_ms": {name: round(value, 1) for name, value in medians.items()},
        "cpu_ms": {
            "broker": round(1000 * (after.broker_s - before.broker_s) / len(took), 1),
            "nodes": round(1000 * (after.nodes_s - before.nodes_s) / len(took), 1),
        },
    }


def _at_nodes(logs: Iterable[str]) -> dict[str, float]:
    """Medians of what lies between two lines of the same round and node."""
    spans: dict[str, list[float]] = {name: [] for name in _SPANS.values()}
    for text in logs:
        last: tuple[str, float] | None = None
        for number, name, at in _PHASE.findall(text):
            if last is not None and last[0] == number and int(number) > WARM_UP and name in _SPANS:
                spans[_SPANS[name]].append(float(at) - last[1])
            last = number, float(at)
    return {name: round(statistics.median(found), 1) for name, found in spans.items() if found}


def _used(federation: Federation) -> _Usage:
    pids = federation.pids()
    nodes = [pid for name, pid in pids.items() if name != "broker"]
    return _Usage(cpu_s(pids["broker"]), sum(cpu_s(one) for pid in nodes for one in (pid, *_children(pid))))


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # not Linux, or gone
        return []
