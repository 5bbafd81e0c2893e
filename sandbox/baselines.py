# SPDX-License-Identifier: Apache-2.0
"""What only a sandbox can do: train each maker alone, and let models act in simulated cells.

All of it is outside the federation.

Local baselines are not private and use the larger model of the recipe without privacy: what a maker would
really do alone.
Work is spread over worker processes, because the simulator and the models use one thread each.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sandbox.scores import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from sandbox.cells import RecordReport, Simulator

__all__ = ["Workshop"]

Array32 = npt.NDArray[np.float32]
_WORKERS = 2
_simulators: dict[str, Simulator] = {}  # of one worker process; making one costs about 0.4 s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Act:
    """One policy in one cell."""

    recipe: bytes
    weights: Array32
    cell: str
    placements: int
    rollouts: int


def _record(cell: str, folder: Path, train: int, seed: int) -> RecordReport:
    from sandbox.cells import record

    return record(cell, folder, train=train, seed=seed)


def _act(job: _Act) -> Rate:
    from client.learning.policy import Policy
    from policies.recipe import load
    from sandbox.cells import Simulator, rollout

    if job.cell not in _simulators:
        _simulators[job.cell] = Simulator(job.cell)
    policy = Policy(load(job.recipe), job.weights)
    return Rate.of(
        rollout(
            _simulators[job.cell], policy.act, placements=job.placements, n=job.rollouts, begin=policy.begin
        )
    )


def _train_alone(store: Path, dataset: str, recipe: bytes, seed: int) -> Array32:
    import torch

    from client.data import open_view
    from client.learning.tensors import EpisodeArrays
    from client.learning.train import local_baseline
    from policies.recipe import load

    torch.set_num_threads(1)
    plan = load(recipe)
    view = open_view(
        store,
        dataset,
        contract_fields=plan.fields,
        recipe_inputs=plan.fields,
        local_allow=plan.fields,
    )
    episodes = [
        EpisodeArrays(observation=one.fields, action=one.actions, unit_id=one.unit_id)
        for one in view.episodes("train")
    ]
    return local_baseline(plan, episodes, seed=seed)


class Workshop:
    """Worker processes for recordings, local training and rollouts; use it as a context manager."""

    def __init__(self, *, workers: int = _WORKERS) -> None:
        os.environ.setdefault("MUJOCO_GL", "disable")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def record(self, folders: Mapping[str, Path], *, train: int, seed: int) -> list[RecordReport]:
        """Lets the scripted expert of each cell demonstrate; cell → folder to make."""
        jobs = [self._pool.submit(_record, cell, folder, train, seed) for cell, folder in folders.items()]
        return [job.result() for job in jobs]

    def train_alone(
        self, sites: Mapping[str, tuple[Path, str]], recipe: bytes, *, seed: int
    ) -> dict[str, Array32]:
        """Each maker's model from its own data alone; party → (store, data set)."""
        jobs = {
            party: self._pool.submit(_train_alone, store, dataset, recipe, seed)
            for party, (store, dataset) in sites.items()
        }
        return {party: job.result() for party, job in jobs.items()}

    def rollouts(
        self,
        models: Mapping[str, Array32],
        cells: Iterable[str],
        *,
        recipe: bytes,
        placements: int,
        n: int,
        tell: Callable[[int, int], Any] | None = None,
    ) -> dict[str, dict[str, Rate]]:
        """Lets each model act in each cell; equal models are run once.

        Returns:
            Name of the model → cell → rate.
        """
        jobs: dict[tuple[bytes, str], Future[Rate]] = {}
        wanted = [(name, cell) for name in models for cell in cells]
        for name, cell in wanted:
            key = (models[name].tobytes(), cell)
            if key not in jobs:
                act = _Act(recipe=recipe, weights=models[name], cell=cell, placements=placements, rollouts=n)
                jobs[key] = self._pool.submit(_act, act)
        for done, job in enumerate(jobs.values(), start=1):
            job.result()
            if tell is not None:
                tell(done, len(jobs))
        found: dict[str, dict[str, Rate]] = {name: {} for name in models}
        for name, cell in wanted:
            found[name][cell] = jobs[models[name].tobytes(), cell].result()
        return found
