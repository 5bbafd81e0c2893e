# SPDX-License-Identifier: Apache-2.0
"""Two embodiments share a trunk in a whole federation; what is private of their models is in no message.

Everything that a node says is overheard, byte by byte, and so is everything that it and the broker keep of it.
What is looked for: stretches of every private part that ever existed here (planted, after each round, and what
each round changed of it), as the float32 that a message would hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.learner import episodes_of
from client.learning.evaluate import mean_loss
from client.private_parts import PrivateParts, own_model
from client.settings import LocalRules
from policies.encoding import digest
from policies.recipe import Recipe, RecipePrivateUnplannedError
from tests.federationsim import Pool, Said, new_pool, simulate
from tests.recipesim import made, planned, two_embodiments

BARE = ["iber", "nord"]
FIELDS = ["goal_pos", "gripper_cmd", "gripper_width", "joint_pos", "joint_torque", "joint_vel", "object_pos"]
WINDOW = 4  # float32 in a row: sixteen bytes that chance does not repeat
ROUNDS = 6


def document() -> dict[str, Any]:
    tree = two_embodiments()
    tree["variants"][0]["embodiment_class"] = "6r-arm+parallel-gripper"  # as the recordings say
    return tree | {"rounds": ROUNDS}


@dataclass
class Overheard:
    """What left the sites, and the private parts that must not be in it."""

    said: list[bytes] = field(default_factory=list)
    parts: list[tuple[str, np.ndarray]] = field(default_factory=list)

    def listen(self, said: Said) -> Said:
        self.said += [bytes(said.raw), bytes(said.tensor or b"")]
        return said

    def found(self, beside: bytes = b"") -> set[str]:
        """Names of the private parts that are somewhere in what was overheard."""
        everything = b"\0".join([*self.said, beside])
        return {name for name, values in self.parts if any(one in everything for one in windows(values))}


def windows(values: np.ndarray) -> Iterator[bytes]:
    data = np.ascontiguousarray(values, dtype="<f4")
    for at in range(len(data) - WINDOW + 1):
        stretch = data[at : at + WINDOW]
        if len(set(stretch.tolist())) == WINDOW:  # zeros are everywhere
            yield stretch.tobytes()


def constants(size: int, number: int) -> np.ndarray:
    """Values that nothing else in a federation has."""
    return (0.1 + np.sqrt(np.arange(2, size + 2) + 1000 * number) % 1 / 7).astype(np.float32)


def recipe_of(pool: Pool, name: str) -> Recipe:
    return pool.recipe.as_variant("bare" if name in BARE else "gripper")


@contextmanager
def two_kinds(**changes: Any) -> Iterator[Pool]:
    fields = {"fields.allow": [*FIELDS, "tcp_pos", "tcp_pose_delta"]}
    with new_pool(private=False, torch=True, document=document(), bare=BARE, **fields, **changes) as pool:
        yield pool


def run_overheard(
    pool: Pool, heard: Overheard, monkeypatch: pytest.MonkeyPatch, *, plant: bool = True
) -> str:
    keep = PrivateParts.keep

    def kept(self: PrivateParts, run: str, recipe: Recipe, values: np.ndarray) -> None:
        before = self.read(run, recipe)
        heard.parts.append((f"{recipe.variant} after a round", values.copy()))
        if before is not None:
            heard.parts.append((f"{recipe.variant} what a round changed", values - before))
        keep(self, run, recipe, values)

    with simulate(pool.clock) as go:
        go(pool.open())
        name = go(pool.open_run())
        for number, (site, node) in enumerate(pool.nodes.items()):
            recipe = recipe_of(pool, site)
            node.lies.append(heard.listen)
            if plant:
                planted = constants(recipe.own_parameters - recipe.parameters, number)
                keep(PrivateParts(node.home), name, recipe, planted)
                heard.parts.append((f"{site} planted", planted))
        monkeypatch.setattr(PrivateParts, "keep", kept)
        go(pool.idle())
        assert pool.row(name).state == "completed", pool.journal.__dict__
        go(pool.close())
    return str(name)


def weights_of(folder: Path, model: str) -> np.ndarray:
    """A model of the broker, by its digest."""
    files = (one.read_bytes() for one in folder.rglob("*") if one.is_file())
    return np.frombuffer(next(one for one in files if digest(one) == model), dtype="<f4")


def disk(folder: Path) -> bytes:
    return b"\0".join(one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file())


def test_a_private_tensor_is_in_no_message_and_in_nothing_that_the_broker_keeps(monkeypatch):
    heard = Overheard()
    with two_kinds() as pool:
        name = run_overheard(pool, heard, monkeypatch)
        outboxes = b"\0".join(
            one.read_bytes() for node in pool.nodes.values() for one in node.home.root.glob("outbox.db*")
        )
        assert heard.found(disk(pool.folder / "broker") + outboxes) == set()
        assert {len(one) for one in heard.said[1::2]} == {0, 4 * pool.recipe.parameters}
        rounds = [one for one, _ in heard.parts if one.endswith("after a round")]
        assert len(rounds) == ROUNDS * len(pool.nodes)
        # the ear hears: a part that somebody lets slip is found, wherever it stands
        assert heard.found(b"x" * 7 + heard.parts[0][1].tobytes()[8:40]) == {heard.parts[0][0]}
        for site, node in pool.nodes.items():  # what was planted was trained on, and is another now
            recipe = recipe_of(pool, site)
            last = PrivateParts(node.home).read(name, recipe)
            assert last is not None
            assert len(last) == recipe.own_parameters - recipe.parameters


def test_both_embodiments_gain_by_the_trunk_that_they_share(monkeypatch):
    heard = Overheard()
    with two_kinds() as pool:
        name = run_overheard(pool, heard, monkeypatch, plant=False)
        (model,) = pool.candidates()
        weights = weights_of(pool.folder / "broker", model)
        for site, node in pool.nodes.items():
            recipe = recipe_of(pool, site)
            seat = node.worker.guard.seat(pool.contract.digest, pool.recipe.digest, name)
            assert seat.recipe.variant == recipe.variant
            episodes = episodes_of(node.home, seat, "held-out", LocalRules())
            first = own_model(node.home, "run_none", recipe, pool.first)
            own = own_model(node.home, name, recipe, weights)
            assert mean_loss(recipe, own, episodes) < mean_loss(recipe, first, episodes)


def test_a_plan_over_private_tensors_is_refused_before_anybody_signs():
    with pytest.raises(RecipePrivateUnplannedError):
        made(planned(document()))
