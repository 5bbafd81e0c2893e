# SPDX-License-Identifier: Apache-2.0
"""Small recipes, synthetic episodes and a budget on disk, for the tests of learning and privacy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from client.learning.tensors import EpisodeArrays
from client.privacy.store import BudgetStore
from client.privacy.units import Units
from policies.encoding import canonical
from policies.identity import SigningKey
from policies.privacy.ledger import Cap
from policies.recipe import Recipe, load, manifest
from sandbox.recipes import alone_recipe, private_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = SigningKey.from_seed(b"B" * 32)
DELTA = "0.00001"
START_MS = 1_790_000_000_000


class StillClock:
    """`policies.ports.Clock` that a test moves by hand."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms


class SeededEntropy:
    """`policies.ports.Entropy` from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.drawn = seed, 0

    def token_bytes(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed}/{self.drawn}".encode()).digest(size)


def document(data: bytes) -> dict[str, Any]:
    return json.loads(data)


def changed(data: bytes, path: str, value: object) -> bytes:
    """Canonical bytes with one value replaced; ``path`` like ``plan.steps`` or ``features.0.op``; DELETE removes it."""
    tree = document(data)
    at: Any = tree
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    key = int(last) if last.isdigit() else last
    if value is DELETE:
        del at[key]
    else:
        at[key] = value
    return canonical(tree)


DELETE = object()


def small_recipe(**plan: object) -> Recipe:
    """A private recipe of width 8, 16 units expected."""
    tree = document(private_recipe(episodes=80))
    tree["architecture"]["args"]["width"] = 8
    tree["tensors"] = manifest(input_size=19, output_size=4, width=8, chunk=1)
    tree["plan"] |= plan
    return load(canonical(tree))


def small_plain(*, width: int = 16, chunk: int = 1, execute: int = 1) -> Recipe:
    tree = document(alone_recipe())  # its narrow scales learn the synthetic task in few rounds
    tree["architecture"]["args"] |= {"width": width, "chunk": chunk, "execute": execute}
    tree["tensors"] = manifest(input_size=19, output_size=4, width=width, chunk=chunk)
    return load(canonical(tree))


def episode(number: int, *, frames: int = 30, scale: float = 1.0, seed: int = 0) -> EpisodeArrays:
    """A synthetic attempt: the tool approaches the part, the action is a tenth of the way."""
    rng = np.random.default_rng([seed, number])
    part = np.array([rng.uniform(-0.1, 0.1), rng.uniform(0.6, 0.7), 0.02])
    goal = np.array([rng.uniform(-0.1, 0.1), rng.uniform(0.8, 0.9), rng.uniform(0.05, 0.3)])
    hand, rows, actions = np.array([0.0, 0.6, 0.2]), [], []
    for _ in range(frames):
        step = np.clip((part - hand) * 0.1, -0.01, 0.01)
        rows.append(np.concatenate([hand, [1.0], part, goal]))
        actions.append(np.concatenate([step * scale, [-1.0 * scale]]))
        hand = hand + step
    raw, acted = np.array(rows, dtype=np.float32), np.array(actions, dtype=np.float32)
    return EpisodeArrays(
        observation={
            "tcp_pos": raw[:, 0:3],
            "gripper_width": raw[:, 3:4],
            "object_pos": raw[:, 4:7],
            "goal_pos": raw[:, 7:10],
        },
        action={"tcp_pose_delta": acted[:, :3], "gripper_cmd": acted[:, 3:]},
        unit_id=hashlib.sha256(f"{seed}/{number}".encode()).digest(),
    )


def episodes(count: int, *, seed: int = 0) -> list[EpisodeArrays]:
    rng = np.random.default_rng([seed, 99])
    return [episode(n, frames=int(rng.integers(5, 60)), seed=seed) for n in range(count)]


def cap(scope: str = "lin_parts", total: str = "8", release: str = "8") -> Cap:
    return Cap(scope=scope, epsilon_total=total, epsilon_per_release=release, delta=DELTA)


def made_units(
    split: str, count: int, *, block: int | None = None, seed: object = "", beside: Sequence[bytes] = ()
) -> Units:
    """Made-up units of one block: the first of its split, if none is named."""
    number = block or {"train": 1, "held-out": 2}[split]
    ids = (hashlib.sha256(f"{seed} {split} {number} {one}".encode()).digest() for one in range(count))
    return Units.of(split, [(number, one) for one in ids], beside=beside)


CONTRACT = cap("sha256:" + "c" * 64)


@dataclass
class Budget:
    """A ledger file in a folder."""

    path: Path
    recipe: Recipe

    def create(self, lineage: Cap | None = None) -> BudgetStore:
        return BudgetStore.create(self.path, clock=StillClock(), key=KEY, cap=lineage or cap())

    def open(self, at_least: tuple[int, str] | None = None) -> BudgetStore:
        return BudgetStore(self.path, clock=StillClock(), key=KEY, at_least=at_least)

    def reserve(
        self, store: BudgetStore, run: str = "run_a", contract: Cap = CONTRACT, *, block: int = 1
    ) -> None:
        plan = self.recipe.plan
        assert plan is not None
        units = made_units("train", 80, block=block)
        store.reserve(plan, contract, run=run, recipe=self.recipe.digest, units=units)
