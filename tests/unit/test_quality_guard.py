# SPDX-License-Identifier: Apache-2.0
"""A node contributes nothing under a recipe whose quality block its data set's certificate does not grant."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.data.errors import QualityRefusedError
from client.data.quality import certify, check_dataset, save_certificate
from client.guard import _never_certified
from policies.encoding import canonical
from policies.recipe import Recipe, load
from tests.learnsim import small_plain
from tests.nodeworld import World


def asking(*require: str, accept: tuple[str, ...] = ()) -> Recipe:
    tree = json.loads(small_plain().canonical)
    tree["quality"] = {"require": list(require), "accept_undetermined": list(accept)}
    return load(canonical(tree))


def world_of(folder: Path, recipe: Recipe) -> World:
    return World(folder, recipe=recipe).ready()


def certified(world: World) -> None:
    """The owner checks the data set and keeps its certificate."""
    member = world.member
    report = check_dataset(world.home.data, "kita/pick")
    envelope = certify(
        report,
        node=member.identity.node,
        node_key=member.identity.unit_key,
        key=member.identity.key,
        clock=world.clock,
    )
    save_certificate(world.home.data, "kita/pick", envelope)


def test_without_a_certificate_nothing_is_pulled_trained_or_spent(tmp_path: Path) -> None:
    world = world_of(tmp_path, asking("schema"))
    (world.home.data / "quality/kita+pick/certificate.dsse").unlink(missing_ok=True)
    _, reply = world.ask()
    assert (reply.code, world.pulled, world.learner.trained) == ("data.certificate-void", 0, [])
    certified(world)
    _, reply = world.ask()
    assert reply.status == "ok"


def test_undetermined_never_admits_unless_the_recipe_lists_it(tmp_path: Path) -> None:
    world = world_of(tmp_path, asking("schema", "time"))  # the format made its stamps: UNDETERMINED
    certified(world)
    _, reply = world.ask()
    assert (reply.code, world.pulled) == ("data.quality-refused", 0)


def test_what_the_recipe_lists_openly_is_enough(tmp_path: Path) -> None:
    world = world_of(tmp_path, asking("schema", "time", accept=("time",)))
    certified(world)
    _, reply = world.ask()
    assert reply.status == "ok"


def test_a_certificate_that_somebody_else_signed_admits_nothing(tmp_path: Path) -> None:
    from policies.identity import SigningKey

    world = world_of(tmp_path, asking("schema"))
    identity = world.member.identity
    envelope = certify(
        check_dataset(world.home.data, "kita/pick"),
        node=identity.node,
        node_key=identity.unit_key,
        key=SigningKey.from_seed(b"e" * 32),
        clock=world.clock,
    )
    save_certificate(world.home.data, "kita/pick", envelope)
    _, reply = world.ask()
    assert (reply.code, world.pulled) == ("data.certificate-void", 0)


def test_a_process_that_looks_at_no_certificate_refuses_where_one_is_required() -> None:
    clause = SimpleNamespace(clause="recipe-1")
    _never_certified(SimpleNamespace(recipe=small_plain(), clause=clause))
    with pytest.raises(QualityRefusedError) as caught:
        _never_certified(SimpleNamespace(recipe=asking("schema"), clause=clause))
    assert caught.value.clause == "recipe-1"
