# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat

import numpy as np
import pytest

from client.learning.errors import (
    AttemptRepeatedError,
    PrivatePartError,
    TrainingStoppedError,
    WeightsUnfitError,
)
from client.learning.train import Trainer
from client.learning.weights import check_weights, initial_weights
from client.private_parts import PrivateParts, own_model
from client.settings import Home
from policies.forward import joined, private_of, shared_of, with_shared
from tests.learnsim import SeededEntropy, small_plain, small_recipe
from tests.recipesim import made, recording, two_embodiments

RECIPE = made(two_embodiments())
TWIN, BARE = RECIPE.as_variant("gripper"), RECIPE.as_variant("bare")
RUN = "run_aaaaaaaaaaaaaaaa"


def trainer(recipe=BARE, **more) -> Trainer:
    return Trainer(recipe, [recording(recipe, number) for number in range(4)], SeededEntropy(1), **more)


def test_the_update_is_the_shared_part_alone_and_the_private_part_is_trained_too():
    one, trunk = trainer(), initial_weights(RECIPE)
    before = one.private.copy()
    update = one.update(trunk, 1, 1)
    assert update.shape == (RECIPE.parameters,)
    assert np.abs(update).max() > 0
    assert one.private.shape == before.shape == (BARE.own_parameters - BARE.parameters,)
    assert (one.private != before).mean() > 0.5


def test_training_goes_on_from_the_private_part_that_was_kept():
    trunk, kept = initial_weights(RECIPE), np.full(44, 0.25, dtype=np.float32)
    assert trainer(private=kept).private.tolist() == kept.tolist()
    fresh, again = trainer(), trainer(private=kept)
    assert not np.array_equal(fresh.update(trunk, 1, 1), again.update(trunk, 1, 1))
    for wrong in (kept[:-1], np.full(44, np.nan, dtype=np.float32)):
        with pytest.raises(WeightsUnfitError):
            trainer(private=wrong)
    with pytest.raises(WeightsUnfitError):
        fresh.update(initial_weights(BARE), 2, 1)  # a whole vector is no base of a round


def test_two_embodiments_train_one_trunk():
    trunk = initial_weights(RECIPE)
    makers = [trainer(TWIN), trainer(BARE)]
    from client.learning.evaluate import mean_loss

    def losses() -> list[float]:
        pairs = zip((TWIN, BARE), makers, strict=True)
        parts = [(recipe, joined(recipe, trunk, one.private)) for recipe, one in pairs]
        return [mean_loss(recipe, own, [recording(recipe, n) for n in range(4)]) for recipe, own in parts]

    before = losses()
    for number in range(1, 6):
        updates = [one.update(trunk, number, 1) for one in makers]
        trunk = (trunk + np.mean(updates, axis=0)).astype(np.float32)
    assert all(after < 0.8 * first for after, first in zip(losses(), before, strict=True))


def test_the_file_of_a_private_part_is_bound_and_closed_to_others(tmp_path):
    home = Home(tmp_path)
    parts, values = PrivateParts(home), np.linspace(-1, 1, 44).astype(np.float32)
    assert parts.read(RUN, BARE) is None
    parts.keep(RUN, BARE, values)
    path = parts.path(RUN, BARE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert PrivateParts(home).read(RUN, BARE).tolist() == values.tolist()  # another process
    with pytest.raises(PrivatePartError):
        parts.read(RUN, TWIN)  # the other variant
    other = "run_bbbbbbbbbbbbbbbb"
    parts.path(other, BARE).write_bytes(path.read_bytes())
    with pytest.raises(PrivatePartError):
        parts.read(other, BARE)  # another run's
    with pytest.raises(PrivatePartError):
        parts.path("../../etc/passwd", BARE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: b"",
        lambda d: b"{}\n" + d[200:],
        lambda d: d[:-4] + b"\1\2\3\4",
    ],
)
def test_a_damaged_private_part_is_refused_and_never_trained_on(tmp_path, damage):
    parts = PrivateParts(Home(tmp_path))
    parts.keep(RUN, BARE, np.ones(44, dtype=np.float32))
    path = parts.path(RUN, BARE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PrivatePartError):
        parts.read(RUN, BARE)


def test_the_model_of_a_site_is_the_common_trunk_with_its_own_part(tmp_path):
    home, trunk = Home(tmp_path), initial_weights(RECIPE) + 1
    first = own_model(home, RUN, BARE, trunk)
    assert np.array_equal(first, with_shared(BARE, initial_weights(BARE), trunk))
    values = np.linspace(2, 3, 44).astype(np.float32)
    PrivateParts(home).keep(RUN, BARE, values)
    own = check_weights(BARE, own_model(home, RUN, BARE, trunk))
    assert np.array_equal(shared_of(BARE, own), trunk)
    assert np.array_equal(private_of(BARE, own), values)
    plain = small_plain()
    same = initial_weights(plain)
    assert own_model(home, RUN, plain, same) is same


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_owner_stops_training_between_two_steps_and_no_update_is_made(after):
    one, trunk, told = trainer(), initial_weights(RECIPE), []
    before = one.private.copy()
    with pytest.raises(TrainingStoppedError):
        one.update(
            trunk, 1, 1, stop=lambda: len(told) >= after, progress=lambda step, of: told.append((step, of))
        )
    assert told == [(number + 1, 20) for number in range(after)]
    assert np.array_equal(one.private, before)
    with pytest.raises(AttemptRepeatedError):
        one.update(trunk, 1, 1)
    assert one.update(trunk, 1, 2).shape == trunk.shape


def test_a_private_step_is_not_begun_for_a_stopped_run():
    recipe, spent = small_recipe(), []
    from tests.learnsim import episodes

    one = Trainer(recipe, episodes(16), SeededEntropy(1), spend=lambda *slot: spent.append(slot))
    with pytest.raises(TrainingStoppedError):
        one.update(initial_weights(recipe), 1, 1, stop=lambda: True)
    assert spent == [(1, 1)]  # what was spent is spent
