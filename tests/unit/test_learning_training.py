# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from client.learning import (
    EpisodeArrays,
    Policy,
    Trainer,
    fine_tune,
    initial_weights,
    judge,
    local_baseline,
    mean_loss,
)
from client.learning.engines import frame_loss
from client.learning.errors import AttemptRepeatedError, EpisodeUnfitError, WeightsUnfitError
from client.learning.evaluate import unit_losses
from client.learning.local import LocalAdam, Pool
from client.learning.registry import build, read_weights
from client.learning.tensors import Features, action_constants, frames_of, unit_frames
from client.learning.train import _seeded
from policies.encoding import digest
from policies.privacy.errors import (
    BudgetExhaustedError,
    DeltaTooLargeError,
    EvalUnplannedError,
    SharesUnfitError,
    UnitRefusedError,
)
from policies.recipe import load
from policies.server_step import initial_state, released_weights, server_step
from sandbox.recipes import private_recipe
from tests.learnsim import SeededEntropy, changed, episode, episodes, small_plain, small_recipe

RECIPE, PLAIN = small_recipe(), small_plain()
EPISODES = episodes(80)
WEIGHTS = initial_weights(RECIPE)


def columns(part: EpisodeArrays) -> np.ndarray:
    return np.concatenate([part.observation[f.field] for f in RECIPE.inputs], axis=1)


def test_all_nodes_derive_the_same_initial_weights():
    first = initial_weights(load(private_recipe()))
    code = (
        "from client.learning import initial_weights; from policies.recipe import load;"
        "from sandbox.recipes import private_recipe; from policies.encoding import digest; import sys;"
        "print(digest(initial_weights(load(private_recipe())).tobytes()), 'torch' in sys.modules)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert other == [digest(first.tobytes()), "False"]
    assert digest(initial_weights(load(private_recipe(seed=7))).tobytes()) != other[0]
    assert (read_weights(build(RECIPE)) == WEIGHTS).all()


def test_features_are_the_recipes_and_use_public_constants_only():
    part = EPISODES[0]
    raw = columns(part).astype(np.float64)
    z = Features(RECIPE)(raw)
    hand, thing, goal = raw[:, :3], raw[:, 4:7], raw[:, 7:]
    expected = []
    sources = {"tcp_pos": hand, "gripper_width": raw[:, 3:4], "object_pos": thing, "goal_pos": goal}
    for feature in RECIPE.features:
        values = (
            sources[feature.field]
            if feature.op == "raw"
            else float(feature.gain) * (sources[feature.a] - sources[feature.b])
        )
        norm = feature.normaliser
        expected.append((values - np.array(norm.centre, float)) / np.array(norm.scale, float))
    np.testing.assert_allclose(z, np.clip(np.concatenate(expected, axis=1), -5, 5), atol=1e-9)


def test_targets_are_the_next_actions_with_a_mask_beyond_the_end():
    recipe = small_plain(chunk=3, execute=2)
    frames = frames_of(recipe, episode(0, frames=5))
    acted = frames.targets.reshape(5, 3, 4)
    assert (acted[1, 1] == acted[2, 0]).all()
    assert frames.mask.reshape(5, 3, 4)[:, :, 0].tolist() == [[1, 1, 1]] * 3 + [[1, 1, 0], [1, 0, 0]]
    assert not acted[4, 1:].any()


def test_targets_beyond_the_recipes_limits_are_those_limits():
    recipe, part = small_plain(chunk=1, execute=1), episode(0, frames=4)
    signs = np.where(np.arange(4)[:, None] % 2, -1e8, 1e8)
    wild = {name: signs * np.ones_like(values) for name, values in part.action.items()}
    frames = frames_of(recipe, replace(part, action=wild))
    centre, scale, limit = action_constants(recipe)
    np.testing.assert_allclose(frames.targets[0] * scale + centre, centre + limit, rtol=1e-6)
    np.testing.assert_allclose(frames.targets[1] * scale + centre, centre - limit, rtol=1e-6)
    wild["gripper_cmd"] = wild["gripper_cmd"] * np.nan
    assert np.isnan(frames_of(recipe, replace(part, action=wild)).targets).any()  # the engine drops the unit


@pytest.mark.parametrize("fault", ["missing", "shape", "length", "empty"])
def test_an_episode_that_lacks_a_field_is_refused_by_name(fault):
    part = episode(0)
    observation = dict(part.observation)
    if fault == "missing":
        del observation["object_pos"]
    elif fault == "shape":
        observation["object_pos"] = observation["object_pos"][:, :2]
    elif fault == "length":
        observation["object_pos"] = observation["object_pos"][:-1]
    else:
        observation["object_pos"] = observation["object_pos"][:0]
    broken = EpisodeArrays(observation=observation, action=part.action, unit_id=b"u")
    with pytest.raises(EpisodeUnfitError, match="object_pos"):
        frames_of(RECIPE, broken)


def test_a_private_update_is_the_clipped_sum_plus_the_planned_noise():
    quiet = small_recipe(noise_multiplier="0.0001", sampling_prob="1", delta="0.001")
    trainer = Trainer(quiet, EPISODES, SeededEntropy(1))
    update = trainer.update(WEIGHTS, 1, 1)
    bound = len(EPISODES) * float(quiet.plan.clip_norm) / float(quiet.plan.normalizer)
    assert update.dtype == np.float32
    assert 0.05 * bound < np.linalg.norm(update) <= bound * 1.001
    loud = Trainer(RECIPE, [episode(0)], SeededEntropy(1))
    noise = np.concatenate([loud.update(WEIGHTS, n, 1) for n in range(60)])
    planned = RECIPE.plan.noise_std / float(RECIPE.plan.normalizer)
    assert noise.std() == pytest.approx(planned, rel=0.05)


def test_an_empty_draw_is_a_noisy_counted_step():
    recipe = small_recipe(sampling_prob="0.000001", steps=200)
    trainer = Trainer(recipe, EPISODES, SeededEntropy(1))
    update = trainer.update(WEIGHTS, 1, 1)
    assert update.std() == pytest.approx(recipe.plan.noise_std / float(recipe.plan.normalizer), rel=0.2)


def test_the_plan_ends_and_no_attempt_is_trained_twice():
    recipe = small_recipe()
    trainer = Trainer(recipe, EPISODES[:3], SeededEntropy(1))
    trainer.update(WEIGHTS, 1, 1)
    with pytest.raises(AttemptRepeatedError, match=r"learning\.attempt-repeated"):
        trainer.update(WEIGHTS, 1, 1)
    for number in range(recipe.plan.steps - 1):
        trainer.update(WEIGHTS, 2 + number, 1)
    with pytest.raises(BudgetExhaustedError):
        trainer.update(WEIGHTS, 1, 2)


def test_the_spend_comes_before_the_first_gradient():
    seen: list[tuple[int, int]] = []

    def refuse(round_number, attempt):
        seen.append((round_number, attempt))
        raise BudgetExhaustedError(need="budget", found="none", remedy="stop")

    trainer = Trainer(RECIPE, EPISODES[:3], SeededEntropy(1), spend=refuse)
    with pytest.raises(BudgetExhaustedError):
        trainer.update(WEIGHTS, 1, 1)
    assert seen == [(1, 1)]


def test_the_update_tells_nothing_of_the_number_of_episodes_but_its_values():
    sizes = {len(Trainer(RECIPE, EPISODES[:n], SeededEntropy(1)).update(WEIGHTS, 1, 1)) for n in (1, 79, 80)}
    assert sizes == {RECIPE.parameters}


def test_no_unit_one_without_a_name_and_too_many_units_are_refused():
    with pytest.raises(UnitRefusedError):
        Trainer(RECIPE, [replace(EPISODES[0], unit_id=b"")], SeededEntropy(1))
    with pytest.raises(EpisodeUnfitError):
        Trainer(RECIPE, [], SeededEntropy(1))
    with pytest.raises(DeltaTooLargeError):
        Trainer(small_recipe(delta="0.01"), EPISODES, SeededEntropy(1))


@pytest.mark.parametrize("weights", [WEIGHTS[:-1], np.full(RECIPE.parameters, np.nan, np.float32)])
def test_weights_that_do_not_fit_are_refused(weights):
    trainer = Trainer(RECIPE, EPISODES[:2], SeededEntropy(1))
    with pytest.raises(WeightsUnfitError, match=r"learning\.weights-unfit"):
        trainer.update(weights, 1, 1)
    with pytest.raises(WeightsUnfitError):
        Policy(RECIPE, weights)


def test_federated_plain_training_learns_and_needs_no_plan():
    parts = [EPISODES[:10], EPISODES[10:20]]
    trainers = [Trainer(PLAIN, part, SeededEntropy(n)) for n, part in enumerate(parts)]
    weights = initial_weights(PLAIN).astype(np.float64)
    state = initial_state(weights, PLAIN.server)
    before = mean_loss(PLAIN, weights, EPISODES[20:])
    for step in range(12):
        mean = np.mean([t.update(weights.astype(np.float32), step + 1, 1) for t in trainers], axis=0)
        weights, state = server_step(weights, mean, state, PLAIN.server, step)
    assert mean_loss(PLAIN, weights, EPISODES[20:]) < 0.2 * before


def test_federated_private_training_learns_where_noise_is_small():
    recipe = small_recipe(noise_multiplier="0.1", delta="0.001")
    trainers = [Trainer(recipe, EPISODES[n::2], SeededEntropy(n)) for n in range(2)]
    weights = initial_weights(recipe).astype(np.float64)
    state = initial_state(weights, recipe.server)
    before = mean_loss(recipe, weights, EPISODES)
    for step in range(100):
        mean = np.mean([t.update(weights.astype(np.float32), step + 1, 1) for t in trainers], axis=0)
        weights, state = server_step(weights, mean, state, recipe.server, step)
    assert mean_loss(recipe, released_weights(weights, state, recipe.server), EPISODES) < 0.5 * before


def test_noise_shares_leave_on_a_grid_and_no_other_update_does():
    recipe = small_recipe(noise="shares", honest_min=3)
    spent: list[tuple[int, int]] = []
    trainer = Trainer(recipe, EPISODES, SeededEntropy(1), spend=lambda *slot: spent.append(slot))
    with pytest.raises(SharesUnfitError, match="no grid"):
        trainer.update(WEIGHTS, 1, 1)
    assert spent == []
    assert trainer.update(WEIGHTS, 1, 1, grid_step=1e-6).dtype == np.int64
    assert spent == [(1, 1)]
    for other, weights in ((RECIPE, WEIGHTS), (PLAIN, initial_weights(PLAIN))):
        with pytest.raises(SharesUnfitError, match="a grid"):
            Trainer(other, EPISODES, SeededEntropy(1)).update(weights, 1, 1, grid_step=1e-6)


def test_the_proximal_term_pulls_each_step_back_to_the_rounds_model():
    """The gradient of mu / 2 * norm(w - w_round)^2 and nothing else; the rate is 0, so that no weight moves."""
    found = []
    for mu in (0.0, 0.7):
        model = build(PLAIN)
        local = LocalAdam(
            model, Pool.of(unit_frames(PLAIN, EPISODES[:5])), _seeded(3), loss=frame_loss, proximal=mu
        )
        start = [one.detach().clone() for one in model.parameters()]
        with torch.no_grad():
            for one in model.parameters():
                one.add_(torch.linspace(-1, 1, one.numel()).reshape(one.shape))
        moved = [one.detach() - at for one, at in zip(model.parameters(), start, strict=True)]
        local.step(0.0)
        found.append([one.grad.clone() for one in model.parameters()])
    for free, held, by in zip(*found, moved, strict=True):
        assert torch.allclose(held - free, 0.7 * by, atol=1e-6)


def test_a_round_with_a_proximal_term_moves_less():
    def moved(mu: str | None) -> float:
        recipe = load(changed(PLAIN.canonical, "train.proximal", mu))
        update = Trainer(recipe, EPISODES[:10], SeededEntropy(1)).update(initial_weights(recipe), 1, 1)
        return float(np.linalg.norm(update))

    assert moved("10") < 0.5 * moved("0.1") < 0.5 * moved(None)
    assert moved("0") == moved(None)


def test_local_baseline_and_fine_tuning_help_at_home():
    alone = local_baseline(PLAIN, EPISODES[:10], steps=150)
    assert mean_loss(PLAIN, alone, EPISODES[10:20]) < mean_loss(
        PLAIN, initial_weights(PLAIN), EPISODES[10:20]
    )
    tuned = fine_tune(PLAIN, alone, EPISODES[:10], EPISODES[10:14], steps=50)
    assert mean_loss(PLAIN, tuned, EPISODES[10:14]) <= mean_loss(PLAIN, alone, EPISODES[10:14])
    best = local_baseline(PLAIN, EPISODES[10:14], steps=600)
    kept = fine_tune(PLAIN, best, [episode(0, scale=-1.0)], EPISODES[10:14], steps=20)
    assert (kept == best).all()


def test_an_individual_model_is_the_same_bytes_again_and_another_with_another_seed():
    common = initial_weights(PLAIN)

    def tuned(seed: int, mode: Literal["full", "head"] = "full") -> bytes:
        return fine_tune(
            PLAIN, common, EPISODES[:5], EPISODES[10:14], mode=mode, steps=20, seed=seed
        ).tobytes()

    assert tuned(1) == tuned(1) != tuned(2)
    assert tuned(1, "head") == tuned(1, "head") != tuned(1)


@pytest.mark.parametrize("amount", [0.0, 0.05, 0.1])
def test_the_held_out_units_choose_how_much_noise_and_no_other_candidate_is_better(
    amount: float, monkeypatch: pytest.MonkeyPatch
):
    """Each amount alone, against what all of them and the common model give: the choice is never worse."""
    train, held_out = EPISODES[:5], EPISODES[10:14]
    common = local_baseline(PLAIN, train, steps=100)
    chosen = mean_loss(PLAIN, fine_tune(PLAIN, common, train, held_out, steps=40), held_out)
    monkeypatch.setattr("client.learning.train._FINE_TUNE_BLURS", (amount,))
    one = mean_loss(PLAIN, fine_tune(PLAIN, common, train, held_out, steps=40), held_out)
    assert chosen <= one <= mean_loss(PLAIN, common, held_out)


def test_without_a_unit_that_chooses_and_with_losses_that_are_no_numbers_the_common_model_stays():
    common = initial_weights(PLAIN)
    assert (fine_tune(PLAIN, common, EPISODES[:5], [], steps=2) == common).all()
    broken = replace(
        EPISODES[10], action={name: np.full_like(one, np.nan) for name, one in EPISODES[10].action.items()}
    )
    assert (fine_tune(PLAIN, common, EPISODES[:5], [broken], steps=2) == common).all()


def test_blurred_steps_move_inputs_by_that_deviation_and_leave_targets_and_pool_alone():
    pool = Pool.of(unit_frames(PLAIN, EPISODES[:5]))
    before = pool.inputs.clone()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def drawn(blur: float) -> None:
        model = build(PLAIN)
        model.register_forward_pre_hook(lambda _model, given: inputs.append(given[0].clone()))
        inputs: list[torch.Tensor] = []

        def loss(outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            seen.append((inputs[-1], targets.clone()))
            return frame_loss(outputs, targets, mask)

        LocalAdam(model, pool, _seeded(3), loss=loss, blur=blur).step(0.0)

    drawn(0.0)
    drawn(0.1)
    (plain, targets), (blurred, same) = seen
    assert torch.equal(targets, same)
    assert torch.equal(pool.inputs, before)
    assert not torch.equal(plain, blurred)
    assert float((blurred - plain).std()) == pytest.approx(0.1, rel=0.1)


def test_policy_acts_in_si_within_limits_and_runs_its_chunk():
    recipe = small_plain(chunk=4, execute=3)
    weights = initial_weights(recipe)
    policy, calls = Policy(recipe, weights), []
    policy._forward, forward = lambda z: calls.append(1) or forward(z), policy._forward
    observation = np.zeros(19, np.float32)
    observation[:10] = columns(EPISODES[0])[0]
    actions = [policy.act(observation) for _ in range(7)]
    assert len(calls) == 3
    policy.begin()
    assert (policy.act(observation) == actions[0]).all()
    big = Policy(recipe, weights * 1000)
    assert (np.abs(big.act(observation)) <= np.array([0.012, 0.012, 0.012, 1.0])).all()


def test_policy_and_torch_give_the_same_values():
    import torch

    frames = frames_of(RECIPE, EPISODES[0])
    outputs = build(RECIPE)(torch.from_numpy(frames.inputs)).detach().numpy()
    loss = (((outputs - frames.targets) ** 2) * frames.mask).sum(1).mean() / 4
    assert unit_losses(RECIPE, WEIGHTS, EPISODES[:1])[0] == pytest.approx(loss, rel=1e-5)


def test_the_vote_is_a_threshold_of_the_noised_figure():
    held_out = EPISODES[:50]
    plan = RECIPE.evaluation
    figures = [judge(RECIPE, WEIGHTS, held_out, plan, SeededEntropy(n), trained=()) for n in range(60)]
    assert all(v.accept == (v.noised_loss <= float(plan.threshold)) for v in figures)
    spread = np.std([v.noised_loss for v in figures])
    assert spread == pytest.approx(plan.noise_std / float(plan.normalizer), rel=0.5)
    clipped = np.clip(unit_losses(RECIPE, WEIGHTS, held_out), 0, float(plan.loss_bound)).sum() / float(
        plan.normalizer
    )
    assert np.mean([v.noised_loss for v in figures]) == pytest.approx(clipped, abs=6 * spread / 60**0.5)


def test_one_wild_unit_moves_the_judged_sum_by_at_most_the_bound():
    plan = RECIPE.evaluation
    wild = episode(1, scale=1e6)
    with_it = judge(RECIPE, WEIGHTS, [EPISODES[0], wild], plan, SeededEntropy(5), trained=()).noised_loss
    without = judge(RECIPE, WEIGHTS, [EPISODES[0]], plan, SeededEntropy(5), trained=()).noised_loss
    assert abs(with_it - without) <= float(plan.loss_bound) / float(plan.normalizer) + 1e-12


def test_judging_on_a_unit_that_was_trained_on_is_refused():
    held_out, trained = EPISODES[:3], {EPISODES[2].unit_id, EPISODES[7].unit_id}
    with pytest.raises(EvalUnplannedError, match=r"privacy\.eval-unplanned.*trained"):
        judge(RECIPE, WEIGHTS, held_out, RECIPE.evaluation, SeededEntropy(1), trained=trained)
    others = {one.unit_id for one in EPISODES[3:]}
    assert judge(RECIPE, WEIGHTS, held_out, RECIPE.evaluation, SeededEntropy(1), trained=others)


def _of(number: int, *parts: EpisodeArrays, stratum: str = "") -> list[EpisodeArrays]:
    return [replace(one, unit_id=bytes([number]) * 32, stratum=stratum) for one in parts]


def test_episodes_of_one_unit_are_pooled_and_count_once():
    quiet = small_recipe(noise_multiplier="0.0001", sampling_prob="1", delta="0.001", frames_per_unit=128)
    work_piece = _of(1, *EPISODES[:3])
    (pooled,) = unit_frames(quiet, work_piece)
    parts = [frames_of(quiet, one) for one in EPISODES[:3]]
    assert (pooled.inputs == np.concatenate([one.inputs for one in parts])).all()
    lengths = [len(one.inputs) for one in parts]
    assert sum(lengths) <= 128
    loss = sum(n * unit_losses(quiet, WEIGHTS, [e])[0] for n, e in zip(lengths, EPISODES, strict=False))
    assert unit_losses(quiet, WEIGHTS, work_piece)[0] == pytest.approx(loss / sum(lengths), rel=1e-9)
    update = Trainer(quiet, [*work_piece, *_of(2, EPISODES[3])], SeededEntropy(1)).update(WEIGHTS, 1, 1)
    bound = 2 * float(quiet.plan.clip_norm) / float(quiet.plan.normalizer)
    assert np.linalg.norm(update) <= bound * 1.01  # two units, and not four episodes


def test_a_unit_of_two_tasks_has_a_stratum_of_its_own():
    both = _of(1, EPISODES[0], stratum="pick") + _of(1, EPISODES[1], stratum="stack")
    frames = unit_frames(RECIPE, [*both, *_of(2, EPISODES[2], stratum="pick")])
    assert [one.stratum for one in frames] == ["pick + stack", "pick"]
    assert [one.stratum for one in unit_frames(RECIPE, both[::-1])] == ["pick + stack"]


def test_the_trainer_hands_the_strata_to_the_plans_sampler():
    recipe = small_recipe(strata_target="2", sampling_prob="0.5")
    tasks = [replace(one, stratum="pick" if n < 36 else "stack") for n, one in enumerate(EPISODES[:40])]
    trainer = Trainer(recipe, tasks, SeededEntropy(1))
    drawn = trainer._steps._sampler._q
    assert drawn.tolist() == pytest.approx([2 / 36] * 36 + [0.5] * 4)  # two of each a step on average


def test_judging_under_another_plan_is_refused():
    other = small_recipe().evaluation.model_copy(update={"threshold": "0.9"})
    with pytest.raises(EvalUnplannedError, match=r"privacy\.eval-unplanned"):
        judge(RECIPE, WEIGHTS, EPISODES[:3], other, SeededEntropy(1), trained=())
