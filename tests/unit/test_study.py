# SPDX-License-Identifier: Apache-2.0
"""The study of what privacy costs: its sums are those of the ring, and its figures say what they are not."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from client.learning import initial_weights
from client.learning.evaluate import mean_loss
from client.learning.train import Trainer
from policies.encoding import canonical
from policies.recipe import Recipe, load
from sandbox import study
from sandbox.bench_tables import pooling_before, pooling_lines
from sandbox.cli import app
from sandbox.errors import UsageError
from sandbox.recipes import private_recipe
from sandbox.scores import Rate
from sandbox.study import NO_MASKS, StudyOptions, marking, run, study_recipe
from sandbox.study_federation import Sums, federate, fitted, mean_update
from sandbox.study_recordings import episodes_of, recorded, share
from tests.learnsim import SeededEntropy, episode, episodes, small_plain

if TYPE_CHECKING:
    from pathlib import Path

needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="Meta-World is not installed: pip install 'iriai[sandbox]'",
)


def rounds(count: int, *, noise: str = "shares", **plan: object) -> Recipe:
    tree = json.loads(private_recipe(episodes=20, noise=noise))
    tree["rounds"] = tree["server"]["steps"] = count
    tree["plan"] |= plan
    return load(canonical(tree))


def demonstrations(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    fields = ("tcp_pos", "gripper_width", "object_pos", "goal_pos")
    return [
        (
            np.concatenate([one.observation[name] for name in fields], axis=1),
            np.concatenate([one.action["tcp_pose_delta"], one.action["gripper_cmd"]], axis=1),
        )
        for one in episodes(count)
    ]


def test_a_recording_that_lies_in_the_folder_is_taken_and_no_episode_is_private_and_donated(tmp_path: Path):
    made = demonstrations(7)
    np.savez(
        tmp_path / "cell-A-seed-3-episodes-7.npz",
        observations=np.concatenate([one[0] for one in made]),
        actions=np.concatenate([one[1] for one in made]),
        lengths=np.array([len(one[1]) for one in made]),
    )
    read = recorded("A", seed=3, episodes=7, folder=tmp_path)
    recipe = rounds(1)
    found = share(recipe, read, private=5)
    assert [len(found.private), len(found.donated)] == [5, 2]
    ids = {one.unit_id for one in found.private} | {one.unit_id for one in found.donated}
    assert len(ids) == 7
    for got, planted in zip(episodes_of(recipe, read), episodes(7), strict=True):
        for name, values in (planted.observation | planted.action).items():
            source = got.observation if name in got.observation else got.action
            np.testing.assert_array_equal(source[name], values)


@pytest.mark.parametrize(("noise", "variances"), [("shares", 4 / 3), ("local-full", 4)])
def test_the_opened_mean_of_four_silos_carries_the_noise_that_the_plan_promises(noise: str, variances: float):
    """Four shares sized for three honest silos add up to 4/3 of the variance that protects."""
    recipe = rounds(40, noise=noise, sampling_prob="0.000001", noise_multiplier="2")
    plan, start = recipe.plan, initial_weights(recipe)
    assert plan is not None
    trainers = [Trainer(recipe, [episode(n)], SeededEntropy(n)) for n in range(4)]
    sums = Sums.of(recipe, 4)
    seen = np.concatenate([mean_update(trainers, start, number, sums) for number in range(1, 41)])
    planned = plan.noise_std * np.sqrt(variances) / 4 / float(plan.normalizer)
    assert seen.std() == pytest.approx(planned, rel=0.03)


class Fixed:
    """A trainer whose update is known."""

    def __init__(self, update: np.ndarray) -> None:
        self.update_, self.grids = update, []

    def update(self, _base: object, _round: int, _attempt: int, *, grid_step: float | None) -> np.ndarray:
        self.grids.append(grid_step)
        return self.update_


def test_a_mean_is_opened_from_the_ring_within_half_a_step_and_shares_are_on_its_grid():
    shares, full = rounds(1), rounds(1, noise="local-full")
    values = np.random.default_rng(4).normal(0, 0.01, (4, full.parameters)).astype(np.float32)
    sums = Sums.of(full, 4)
    trainers = [Fixed(one) for one in values]
    off = mean_update(trainers, values[0], 1, sums) - values.astype(np.float64).mean(0)
    assert 0 < np.abs(off).max() <= 0.5 / sums.terms.scale
    assert trainers[0].grids == [None]

    sums, plan = Sums.of(shares, 4), shares.plan
    assert plan is not None
    assert sums.grid_step is not None
    whole = np.rint(values / sums.grid_step).astype(np.int64)
    trainers = [Fixed(one) for one in whole]
    mean = mean_update(trainers, values[0], 1, sums)
    np.testing.assert_allclose(mean, whole.mean(0) * sums.grid_step / float(plan.normalizer), rtol=1e-12)
    assert trainers[0].grids == [sums.grid_step]


def test_a_federation_learns_and_a_start_from_donated_episodes_is_ahead():
    recipe = rounds(60, noise_multiplier="0.1", delta="0.001", sampling_prob="1")
    start = initial_weights(recipe)
    silos, judged = [episodes(20, seed=n) for n in range(2)], episodes(10, seed=9)
    before, ahead = mean_loss(recipe, start, judged), fitted(recipe, episodes(2, seed=5), seed=0)
    assert mean_loss(recipe, ahead, judged) < before
    trained = federate(recipe, silos, start, entropy=SeededEntropy(1))
    assert mean_loss(recipe, trained, judged) < 0.5 * before
    assert (fitted(recipe, [], seed=0) == start).all()


@pytest.mark.parametrize(
    "server",
    [
        {"kind": "mean"},
        {"kind": "momentum", "decay": "0.9", "rate": "0.3"},
        {
            "kind": "adam",
            "update": "difference",
            "rate": "0.02",
            "decay": "0",
            "beta1": "0.9",
            "beta2": "0.99",
            "epsilon": "0.001",
            "average": "0",
            "steps": 12,
        },
    ],
    ids=["FedAvg", "FedAvgM", "FedAdam"],
)
def test_every_optimiser_learns_from_sums_of_differences_with_a_proximal_term(server: dict[str, object]):
    tree = json.loads(small_plain(width=8).canonical)
    tree |= {"rounds": 12, "server": server}
    tree["train"] |= {"proximal": "0.01", "local_steps": 10, "rate_first": "0.01", "rate_last": "0.001"}
    recipe = load(canonical(tree))
    start, silos = initial_weights(recipe), [episodes(6, seed=n) for n in range(3)]
    trained = federate(recipe, silos, start, entropy=SeededEntropy(2))
    judged = episodes(8, seed=9)
    assert mean_loss(recipe, trained, judged) < 0.5 * mean_loss(recipe, start, judged)


def test_sums_without_masks_and_a_run_without_privacy_are_marked(tmp_path: Path):
    options = StudyOptions(folder=tmp_path, noise="shares")
    recipe = load(study_recipe(options))
    assert recipe.plan is not None
    assert recipe.plan.honest_min == 3
    assert NO_MASKS in marking(recipe)
    assert NO_MASKS in marking(load(study_recipe(replace(options, noise="local-full"))))
    assert "NOT PRIVATE" in marking(load(study_recipe(replace(options, epsilon=None))))
    assert "NOT PRIVATE" in marking(small_plain())
    with pytest.raises(UsageError, match="at least one seed"):
        run(replace(options, seeds=()))


def test_means_are_over_seeds_and_cells(tmp_path: Path):
    options = StudyOptions(folder=tmp_path, seeds=(0, 1), seed_episodes=1)
    acts = [{c: Rate(successes=s, rollouts=10) for c, s in zip("ABCD", row, strict=True)} for row in _COUNTS]
    rows = [study._Row(seed=n, common=one, start=acts[0]) for n, one in enumerate(acts)]
    found = study._report(options, load(study_recipe(options)), rows)
    assert found["common"]["mean"] == 0.75
    assert found["common"]["lowest_seed"] == 0.5
    assert found["common"]["per_cell"]["A"]["mean"] == 0.5
    assert found["start"]["mean"] == 0.5
    party = found["rows"][0]["common"]["per_party"]["A"]
    assert (party["own"]["mean"], party["others"]["n_rollouts"]) == (0.0, 30)


def test_a_study_is_a_table_for_people_and_a_person_is_told_how_long_it_takes(tmp_path: Path):
    options = StudyOptions(folder=tmp_path, seeds=(3, 4), seed_episodes=1, noise="shares")
    acts = [{c: Rate(successes=s, rollouts=10) for c, s in zip("ABCD", row, strict=True)} for row in _COUNTS]
    rows = [study._Row(seed=n, common=one, start=acts[0]) for n, one in zip((3, 4), acts, strict=True)]
    lines = list(pooling_lines(study._report(options, load(study_recipe(options)), rows)))
    assert NO_MASKS in lines
    assert any(line.startswith("epsilon 7.99") and "noise shares" in line for line in lines)
    (third,) = [line for line in lines if line.startswith("3  ")]
    assert third.split()[1::3] == ["0.50", "0.50"]
    assert any(line.startswith("cell A") for line in lines)
    assert any("deviation of the common model over seeds: 0.354" in line for line in lines)
    plain = replace(options, epsilon=None, seed_episodes=0, seeds=(3,))
    rows = [study._Row(seed=3, common=acts[1], start=None)]
    lines = list(pooling_lines(study._report(plain, load(study_recipe(plain)), rows)))
    assert "NOT PRIVATE" in lines
    assert not any("deviation" in line or "start" in line for line in lines)
    assert "seeds 2, 2 at a time; takes about 1 minute on" in pooling_before(options)


_COUNTS = ((0, 5, 5, 10), (10, 10, 10, 10))


@pytest.mark.parametrize("asked", [("--seeds", "0,0"), ("--seeds", "a"), ("--noise", "none")])
def test_options_that_do_not_fit_are_refused_before_anything_is_recorded(
    asked: tuple[str, str], tmp_path: Path
):
    result = CliRunner().invoke(app, ["bench", "pooling", "--dir", str(tmp_path), *asked])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


@needs_simulator
@pytest.mark.mujoco
def test_the_command_runs_the_whole_path(tmp_path: Path):
    asked = (
        "--episodes",
        "2",
        "--rollouts",
        "1",
        "--seeds",
        "0",
        "--seed-episodes",
        "1",
        "--noise",
        "shares",
    )
    result = CliRunner().invoke(app, ["bench", "pooling", "--json", "--dir", str(tmp_path), *asked])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["data"]
    assert NO_MASKS in found["marking"]
    assert float(found["plan"]["epsilon_rdp"]) <= 8
    assert found["rows"][0]["start"]["n_rollouts"] == found["rows"][0]["common"]["n_rollouts"] == 4
    assert len(list(tmp_path.glob("*.npz"))) == 4
