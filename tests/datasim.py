# SPDX-License-Identifier: Apache-2.0
"""Recordings that tests make: LeRobot folders of both versions, controller logs, and a store to import them into."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data import ImportReport, import_path
from client.data.fields import Episode, EpisodeView, open_view

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
RIGHTS = "sha256:" + "c" * 64
NODE = "node_" + "a" * 16
NAMES = ("tcp_pos_0", "tcp_pos_1", "tcp_pos_2", "gripper_width_0")
ACTIONS = ("tcp_pose_delta_0", "tcp_pose_delta_1", "tcp_pose_delta_2", "gripper_cmd_0")
ALLOW = frozenset({"tcp_pos", "gripper_width", "tcp_pose_delta", "gripper_cmd"})


class SimClock:
    """`policies.ports.Clock` that stands still."""

    def __init__(self, now_ms: int = 1_795_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Recording:
    """Episodes in memory, each with observations and actions ``[T, 4] float32``."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    tasks: list[str] = field(default_factory=list)

    @classmethod
    def random(cls, *lengths: int, seed: int = 0) -> Recording:
        rng = np.random.default_rng(seed)
        return cls(
            [rng.standard_normal((n, 4)).astype(np.float32) for n in lengths],
            [rng.standard_normal((n, 4)).astype(np.float32) for n in lengths],
            ["pick-place" if i % 2 == 0 else "stack" for i in range(len(lengths))],
        )


def _columns(record: Recording, numbers: list[int], starts: list[int], tasks: list[str]) -> pa.Table:
    lengths = [len(record.observations[i]) for i in numbers]
    frame = np.concatenate([np.arange(n) for n in lengths])
    vector = lambda arrays: pa.FixedSizeListArray.from_arrays(  # noqa: E731
        pa.array(np.concatenate([arrays[i] for i in numbers]).ravel()), 4
    )
    return pa.table(
        {
            "action": vector(record.actions),
            "observation.state": vector(record.observations),
            "timestamp": pa.array((frame / 50).astype(np.float32)),
            "frame_index": pa.array(frame),
            "episode_index": pa.array(np.repeat(numbers, lengths)),
            "index": pa.array(
                np.concatenate([starts[i] + np.arange(len(record.observations[i])) for i in numbers])
            ),
            "task_index": pa.array(np.repeat([tasks.index(record.tasks[i]) for i in numbers], lengths)),
        }
    )


def _info(record: Recording, version: str, data_path: str, splits: dict[str, str] | None) -> dict[str, Any]:
    count = len(record.observations)
    vector = lambda names: {"dtype": "float32", "shape": [4], "names": list(names)}  # noqa: E731
    return {
        "codebase_version": version,
        "robot_type": "7r-arm+parallel-gripper",
        "total_episodes": count,
        "total_frames": sum(len(o) for o in record.observations),
        "chunks_size": 2 if version == "v2.1" else 1000,
        "fps": 50,
        "splits": splits or {"train": f"0:{count}"},
        "data_path": data_path,
        "video_path": None,
        "features": {
            "action": vector(ACTIONS),
            "observation.state": vector(NAMES),
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **{
                n: {"dtype": "int64", "shape": [1], "names": None}
                for n in ("frame_index", "episode_index", "index", "task_index")
            },
        },
    }


def write_v3(
    root: Path,
    record: Recording,
    *,
    files: list[list[int]] | None = None,
    named_tasks: bool = True,
    splits: dict[str, str] | None = None,
    shift: dict[int, int] | None = None,
) -> Path:
    """A v3.0 folder. ``files``: episodes per data file; file i lies in chunk i // 2. ``shift`` plants wrong dataset_from_index."""
    files = files or [list(range(len(record.observations)))]
    tasks = sorted(set(record.tasks))
    starts = [0, *np.cumsum([len(o) for o in record.observations]).tolist()]
    template = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    rows = []
    for number, episodes in enumerate(files):
        path = root / template.format(chunk_index=number // 2, file_index=number % 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_columns(record, episodes, starts, tasks), path)
        for i in episodes:
            moved = (shift or {}).get(i, 0)
            rows.append(
                {
                    "episode_index": i,
                    "tasks": [record.tasks[i]],
                    "length": len(record.observations[i]),
                    "data/chunk_index": number // 2,
                    "data/file_index": number % 2,
                    "dataset_from_index": starts[i] + moved,
                    "dataset_to_index": starts[i + 1] + moved,
                    "stats/action/min": [0.0],
                }
            )
    meta = root / "meta/episodes/chunk-000"
    meta.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), meta / "file-000.parquet")
    index = {"task_index": list(range(len(tasks)))}
    pq.write_table(
        pa.table({**index, ("task" if named_tasks else "__index_level_0__"): tasks}),
        root / "meta/tasks.parquet",
    )
    (root / "meta/info.json").write_text(json.dumps(_info(record, "v3.0", template, splits)))
    return root


def write_v21(root: Path, record: Recording) -> Path:
    """A v2.1 folder: one file per episode, two per chunk."""
    tasks = sorted(set(record.tasks))
    starts = [0, *np.cumsum([len(o) for o in record.observations]).tolist()]
    template = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (root / "meta").mkdir(parents=True)
    lines = []
    for i, values in enumerate(record.observations):
        path = root / template.format(episode_chunk=i // 2, episode_index=i)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_columns(record, [i], starts, tasks), path)
        lines.append({"episode_index": i, "tasks": [record.tasks[i]], "length": len(values)})
    (root / "meta/episodes.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (root / "meta/tasks.jsonl").write_text(
        "\n".join(json.dumps({"task_index": i, "task": task}) for i, task in enumerate(tasks))
    )
    (root / "meta/info.json").write_text(json.dumps(_info(record, "v2.1", template, None)))
    return root


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def bring(root: Path, source: Path, **changes: Any) -> ImportReport:
    """`import_path` with the values that tests share."""
    options: dict[str, Any] = {
        "dataset": "kita/pick",
        "allow": ALLOW,
        "rights": RIGHTS,
        "node_key": KEY,
        "clock": SimClock(),
    }
    return import_path(root, source, **{**options, **changes})


def view(root: Path, fields: frozenset[str] = ALLOW, dataset: str = "kita/pick") -> EpisodeView:
    return open_view(root, dataset, contract_fields=fields, recipe_inputs=fields, local_allow=fields)


def both(root: Path, fields: frozenset[str] = ALLOW, dataset: str = "kita/pick") -> list[Episode]:
    opened = view(root, fields, dataset)
    return opened.episodes("train") + opened.episodes("held-out")


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a store with its bytes, but for lock and what an interrupted import left aside."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    }
