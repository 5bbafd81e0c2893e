# SPDX-License-Identifier: Apache-2.0
"""``latency.json``: how long one inference takes on the machine that will run the model.

    document = measure(graph, example)           # canonical bytes: p50, p90, p99 at batch 1, one thread
    kept = read_kept(path, graph)                # those of an earlier measurement of the same graph, or None

**Measured once.** A time is never twice the same, and two packages of the same model must be. So the
measurement is kept beside the model (`client.deploy.site`), and every later package takes it over;
``--measure`` makes a new one, and with it another package. A figure of another graph or program is never
taken over.

Load of the machine stands beside the figures: a figure without it says nothing. No name of the machine or of
its owner is in it.

**A common package goes to others**, so it does not tell what machine a site has and how busy that is:
`shared` leaves out machine, load, number of runs and the runtime's patch level, and rounds the figures up to
1, 2 or 5 times a power of ten. They are an order of magnitude then; the reader measures on the own machine.
"""

from __future__ import annotations

import math
import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, StringConstraints

from client.deploy.blocks import Block, Digest, Line
from client.deploy.graphs import INPUT, OUTPUTS
from client.deploy.sbom import minor
from policies.encoding import canonical, digest, parse
from policies.errors import EncodingError

if TYPE_CHECKING:
    from policies.encoding import Json

__all__ = ["SCHEMA", "Latency", "measure", "read_kept", "shared"]

SCHEMA: Final = "iriai-latency/1"
_WARM: Final = 200
_LEAST, _MOST = 500, 10_000  # inferences
_BUDGET_NS: Final = 2_000_000_000  # of time, once `_LEAST` are done
_CPU: Final = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


Figure = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?$")]


class Machine(Block):
    """What the figures were measured on."""

    architecture: Line
    cpu: Line
    cores: Annotated[int, Field(strict=True, ge=1, le=100_000)]


class Latency(Block):
    """``latency.json``; ``runs``, ``load`` and ``machine`` are null in a common package."""

    schema_: Literal["iriai-latency/1"] = Field(alias="schema")
    graph: Digest
    runtime: Annotated[str, StringConstraints(pattern=r"^onnxruntime [0-9A-Za-z.+-]{1,40}$")]
    batch: Annotated[int, Field(strict=True, ge=1, le=1)]
    threads: Annotated[int, Field(strict=True, ge=1, le=1)]
    runs: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None
    p50_us: Figure
    p90_us: Figure
    p99_us: Figure
    load: Figure | None
    machine: Machine | None


def shared(latency: bytes) -> bytes:
    """A measurement as a common package tells it; one that is so already stays as it is."""
    document: dict[str, Any] = parse(latency)
    coarse = {name: _up(document[name]) for name in ("p50_us", "p90_us", "p99_us")}
    hidden = dict.fromkeys(("runs", "load", "machine"))
    return canonical(document | coarse | hidden | {"runtime": minor(document["runtime"])})


def _up(figure: str) -> str:
    """The next of …, 1, 2, 5, 10, 20, … above a figure."""
    value = max(float(figure), 1.0)
    power = 10 ** math.floor(math.log10(value))
    return str(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def measure(graph: bytes, example: np.ndarray, *, session: Any) -> bytes:  # noqa: ANN401  the library's own
    """Canonical bytes of a measurement.

    Args:
        graph: Bytes of ``model.onnx``: what the figures are about.
        example: A raw observation ``[n]``.
        session: Of ONNX Runtime on this graph, one thread.
    """
    asked = {INPUT: np.asarray(example, dtype=np.float32).reshape(1, -1)}
    for _ in range(_WARM):
        session.run(OUTPUTS, asked)
    load = os.getloadavg()[0]
    taken: list[int] = []
    begun = time.perf_counter_ns()
    while len(taken) < _MOST and (len(taken) < _LEAST or time.perf_counter_ns() - begun < _BUDGET_NS):
        start = time.perf_counter_ns()
        session.run(OUTPUTS, asked)
        taken.append(time.perf_counter_ns() - start)
    p50, p90, p99 = (f"{one / 1000:.1f}" for one in np.percentile(taken, [50, 90, 99]))
    return canonical(
        {
            "schema": SCHEMA,
            "graph": digest(graph),
            "runtime": f"onnxruntime {version('onnxruntime')}",
            "batch": 1,
            "threads": 1,
            "runs": len(taken),
            "p50_us": p50,
            "p90_us": p90,
            "p99_us": p99,
            "load": f"{load:.2f}",
            "machine": {"architecture": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count() or 1},
        }
    )


def _cpu() -> str:
    """Model of the processor; ``unknown`` where the system does not say."""
    try:
        found = _CPU.search(Path("/proc/cpuinfo").read_text("utf-8", errors="replace"))
    except OSError:
        found = None
    return found[1].strip()[:80] if found else "unknown"


def read_kept(path: Path, graph: bytes) -> bytes | None:
    """The kept measurement, if it is one of this graph and this runtime."""
    try:
        data = path.read_bytes()
        document: Json = parse(data)
    except (OSError, EncodingError):
        return None
    told = document if isinstance(document, dict) else {}
    same = told.get("graph") == digest(graph) and told.get("schema") == SCHEMA
    return data if same and told.get("runtime") == f"onnxruntime {version('onnxruntime')}" else None
