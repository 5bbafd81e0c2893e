# SPDX-License-Identifier: Apache-2.0
"""How fast recordings become episodes, and how much memory that takes: one row per format.

Each format is written once (`sandbox.ingest_sets`) and imported by a process of its own, as ``data add``
would, quality checks of each episode included; the store is on the same disk.

- ``megabytes``: of the source. ``mb_per_s``, ``episodes_per_s``, ``frames_per_s``: over the whole import.
- ``cpu_s``: processor time of that process; where other programs run too, it says more than ``seconds``.
- ``peak_mb``: resident memory of that process at its highest, above what it had before (2^20 bytes). It does
  not grow with the source where a format can be read in parts.
- ``round_trip``: 250 episodes of 80 frames as a LeRobotDataset v3.0 folder; ``write_s`` is the export with
  its statistics, ``read_s`` opens every episode of it, ``import_s`` brings it into another store, and
  ``same`` says whether frames and stamps are the same bytes.

    iriai-sandbox bench ingest --mb 1000 --formats csv,parquet
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sandbox.ingest_sets import FIELDS, FORMATS, IngestSet, write_set
from sandbox.lerobot_writer import Feature, Frames, write_dataset
from sandbox.peak_memory import peak_mb

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["lines", "run"]

Json = dict[str, Any]
_KEY: Final = bytes(range(32))
_EPISODES, _FRAMES = 250, 80
_TIMEOUT_S: Final = 3_600


class _Clock:
    def now_ms(self) -> int:
        """A time of no meaning: the store's dates are not what is measured."""
        return 1_795_000_000_000


def run(megabytes: float, *, formats: Sequence[str] = FORMATS) -> Json:
    """Measures formats, then the round trip.

    Args:
        megabytes: Of each source, about.
        formats: Some of `FORMATS`.
    """
    with tempfile.TemporaryDirectory(prefix="iriai-ingest-") as folder:
        rows = [_measured(Path(folder) / kind, kind, megabytes) for kind in formats]
        trip = _round_trip(Path(folder) / "trip")
    return {"megabytes": megabytes, "formats": rows, "round_trip": trip}


def lines(found: Json) -> list[str]:
    """The table for a person."""
    heads = f"{'format':14} {'MB':>7} {'MB/s':>7} {'episodes/s':>11} {'frames/s':>10} {'cpu s':>7}"
    shown = [f"{heads} {'peak MB':>8}"]
    for row in found["formats"]:
        peak = "?" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        size = f"{row['format']:14} {row['megabytes']:7.0f} {row['mb_per_s']:7.1f}"
        shown.append(
            f"{size} {row['episodes_per_s']:11.1f} {row['frames_per_s']:10.0f} {row['cpu_s']:7.1f} {peak:>8}"
        )
    trip = found["round_trip"]
    return [
        *shown,
        f"LeRobot v3.0 round trip, {trip['episodes']} episodes, {trip['frames']} frames: "
        f"write {trip['write_s']:.2f} s, read {trip['read_s']:.2f} s, import {trip['import_s']:.2f} s, "
        + ("the same bytes" if trip["same"] else "OTHER BYTES"),
    ]


def _measured(folder: Path, kind: str, megabytes: float) -> Json:
    made = write_set(folder, kind, megabytes)
    told = {"source": str(made.source), "map": None if made.signal_map is None else str(made.signal_map)}
    command = [
        sys.executable,
        "-m",
        "sandbox.bench_ingest",
        json.dumps(told | {"root": str(folder / "store")}),
    ]
    child = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)  # noqa: S603  ours
    if child.returncode:
        raise RuntimeError(f"{kind}: {child.stderr.decode(errors='replace')[-2000:]}")
    said: Json = json.loads(child.stdout)
    return _row(kind, made, said)


def _row(kind: str, made: IngestSet, said: Json) -> Json:
    seconds = said["seconds"]
    facts = {key: value for key, value in asdict(made).items() if key not in ("source", "signal_map")}
    return facts | {
        "format": kind,
        "imported": said["episodes"],
        "seconds": seconds,
        "cpu_s": said["cpu_s"],
        "mb_per_s": made.megabytes / seconds,
        "episodes_per_s": said["episodes"] / seconds,
        "frames_per_s": said["frames"] / seconds,
        "peak_mb": said["peak_mb"],
    }


def _bring(told: Json) -> Json:
    """What the child does: one import, timed, with its memory."""
    from client.data import import_path

    reports = []

    def step() -> None:
        reports.append(
            import_path(
                Path(told["root"]),
                Path(told["source"]),
                dataset="bench/ingest",
                signal_map=Path(told["map"]) if told["map"] else None,
                allow=frozenset(FIELDS),
                rights="sha256:" + "0" * 64,
                node_key=_KEY,
                clock=_Clock(),
            )
        )

    began, worked = time.perf_counter(), time.process_time()
    peak = peak_mb(step)
    if peak is None:
        step()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - worked
    (report, *_) = reports
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_mb": peak,
        "episodes": report.episodes_added,
        "frames": report.frames_added,
    }


def _round_trip(folder: Path) -> Json:
    from client.data import export_lerobot, import_path, open_dataset

    rng = np.random.default_rng(0)
    features = {
        "observation.state": Feature(names=tuple(f"joint_pos_{i}" for i in range(6))),
        "action": Feature(names=tuple(f"joint_vel_{i}" for i in range(6))),
    }
    episodes = [
        Frames(
            task="move",
            columns={name: rng.standard_normal((_FRAMES, 6)).astype(np.float32) for name in features},
        )
        for _ in range(_EPISODES)
    ]
    write_dataset(
        folder / "source",
        rate_hz=50,
        robot_type="6r-arm",
        features=features,
        episodes=episodes,
        splits={"train": (0, _EPISODES)},
    )
    seconds: dict[str, float] = {}

    def bring(root: str, source: Path) -> None:
        import_path(
            folder / root,
            source,
            dataset="bench/trip",
            allow=frozenset(FIELDS),
            rights="sha256:" + "0" * 64,
            node_key=_KEY,
            clock=_Clock(),
        )

    bring("first", folder / "source")
    for name, step in (
        ("write_s", lambda: export_lerobot(folder / "first", "bench/trip", folder / "out")),
        ("read_s", lambda: list(open_dataset(folder / "out"))),
        ("import_s", lambda: bring("second", folder / "out")),
    ):
        began = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - began
    homes = [folder / name / "datasets/bench+trip" for name in ("first", "second")]
    same = all(
        one.stamps_ns.tobytes() == other.stamps_ns.tobytes()
        and all(one.columns[key].tobytes() == other.columns[key].tobytes() for key in one.columns)
        for one, other in zip(*(open_dataset(home) for home in homes), strict=True)
    )
    return {"episodes": _EPISODES, "frames": _EPISODES * _FRAMES, "same": same, **seconds}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_bring(json.loads(sys.argv[1]))))
