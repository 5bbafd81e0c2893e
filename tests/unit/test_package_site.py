# SPDX-License-Identifier: Apache-2.0
"""Packages of a node's own models, by the worker's program and by its functions."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.deploy.commands import check, package, pinned_keys
from client.deploy.errors import PackageFileError, PackageSignerError, PackageStatementError, PackagingError
from client.deploy.loader import load_package
from client.deploy.site import Wish, package_model
from client.errors import DigestMismatchError, FileTakenError, NoSuchThingError
from client.learning.export import export_graph
from client.models import Tuning, keep_individual, model_folder, model_here, models_list, pull, read_model
from client.releases import vote
from client.settings import Home
from policies.encoding import canonical, digest
from policies.exchange import ExchangeType
from policies.identity import key_text
from policies.log.proofs import parse_receipt
from policies.privacy.statement import PAYLOAD_TYPE, Subject, Terms, build_statement, claim
from policies.signing import Envelope
from tests.nodeworld import IN_TERM_MS, RUN, World, ready_world
from tests.packagesim import STRANGER


def _release(world: World) -> str:
    """A released model at the simulated broker, pulled."""
    world.ask(ExchangeType.PING)  # the signatures are here now
    data = (np.linspace(-1, 1, world.recipe.parameters) / 4).astype("<f4").tobytes()
    model = digest(data)
    plan = world.recipe.plan.document
    document = build_statement(
        subject=Subject(run=RUN, model=model, contract=world.contract.digest, recipe=world.recipe.digest),
        claims=[claim("A1b2", plan), claim("C3d4", plan)],
        evaluation=world.recipe.evaluation.document,
        terms=Terms(),
    )
    statement = Envelope.seal(canonical(document), PAYLOAD_TYPE, world.broker.key).to_bytes()
    row = {
        "model": model,
        "tier": "consortium",
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "recipe_id": "pick",
        "run": RUN,
        "statement": digest(statement),
        "at_ms": IN_TERM_MS - 60_000,
        "made_ms": IN_TERM_MS - 120_000,
    }
    world.broker.routes["/releases"] = lambda _request, _body: {"releases": [row]}
    world.broker.routes["/statements/"] = lambda _request, _body: statement
    world.broker.routes["/models/"] = lambda _request, _body: data
    pull(world.member, world.worker.shelf, model)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[World, str]:
    """A node with a pulled model and an individual one; no test changes it."""
    world = ready_world(tmp_path_factory.mktemp("site"))
    model = _release(world)
    facts, weights = read_model(world.home, model)
    tuning = Tuning(
        mode="full",
        improved=True,
        selection_units=2,
        selection=(0.2, 0.1),
        report_units=3,
        report=(0.21, 0.11),
    )
    keep_individual(world.home, facts, weights * np.float32(1.1), tuning)
    return world, model


def _package(world: World, model: str, out: Path, **wish: Any) -> dict[str, Any]:
    asked = Wish(model=model, out=out, **({"aasx": False} | wish))
    return package_model(world.home, asked, export=_export_once)


_EXPORTED: dict[bytes, Any] = {}


def _export_once(recipe: Any, weights: Any, example: Any, *, ends: Any) -> Any:
    """The real export, once for each model: another test holds that two are byte-equal."""
    found = _EXPORTED.get(weights.tobytes())
    if found is None:
        found = _EXPORTED[weights.tobytes()] = export_graph(recipe, weights, example, ends=ends)
    return found


def test_a_common_model_is_packaged_by_the_workers_program_and_checked(made, tmp_path):
    world, model = made
    out = tmp_path / "deep" / "pick.iriai"
    told = package(world.home, model.removeprefix("sha256:")[:12], out, aasx=False)
    assert told.data["size_bytes"] == out.stat().st_size
    shown = check(world.home, out)
    assert shown.data["manifest"]["model"]["digest"] == model
    assert shown.data["manifest"]["lineage"]["contract"] == world.contract.digest
    assert shown.data["statement_signed"] is True
    assert shown.data["signer"] == key_text(world.member.identity.key.public)
    assert any("holds" in line for line in shown.text)


def test_two_packages_of_one_model_are_byte_identical_because_latency_is_kept(made, tmp_path):
    world, model = made
    _package(world, model, tmp_path / "a.iriai")
    kept = (model_folder(world.home, model) / "latency.json").read_bytes()
    _package(world, model, tmp_path / "b.iriai")
    assert (tmp_path / "a.iriai").read_bytes() == (tmp_path / "b.iriai").read_bytes()
    assert (model_folder(world.home, model) / "latency.json").read_bytes() == kept


def test_an_individual_package_has_parent_figures_and_the_broker_statement_of_the_parent(made, tmp_path):
    world, model = made
    _package(world, model, tmp_path / "own.iriai", individual=True)
    loaded = load_package(tmp_path / "own.iriai", pinned_keys(world.home))
    named = loaded.manifest.model
    assert (named.parent, named.tier, named.individual) == (model, "private", True)
    assert named.digest != model
    assert loaded.statement["subject"]["model"] == model
    rows = {one.model: one.own.value for one in loaded.manifest.evaluation.rows}
    assert rows == {"common": "0.210000", "individual": "0.110000"}
    assert loaded.manifest.inputs[0].rate_hz == "20"  # of the own recordings
    assert loaded.manifest.licence.uses


def test_an_individual_manifest_names_the_nodes_own_vote_in_the_log_and_a_common_one_none(made, tmp_path):
    world, model = made
    own = {"individual": True}
    assert _package(world, model, tmp_path / "before.iriai", **own)["log"] is None  # no receipt, no claim
    row = {
        "candidate": model,
        "run": RUN,
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "state": "waiting",
    }
    world.broker.routes["/candidates/"] = partial(_take, world)
    world.broker.routes["/candidates"] = lambda _request, _body: {"candidates": [row]}
    vote(world.member, world.shelf(), world.worker.outbox, model, verdict="approve")
    assert _package(world, model, tmp_path / "common.iriai")["log"] is None  # it would tell whose vote it was
    _package(world, model, tmp_path / "after.iriai", **own)
    place = load_package(tmp_path / "after.iriai", pinned_keys(world.home)).manifest.lineage.log
    receipt = parse_receipt(
        json.loads(world.worker.outbox.envelopes(kind="vote.cast")[0].receipt)["proof"]
    ).checkpoint
    assert (place.kind, place.size, place.root) == ("vote.cast", receipt.size, receipt.root.hex())


def _take(world: World, _request: Any, body: dict[str, Any]) -> dict[str, Any]:
    world.broker.take(Envelope.from_json(body["envelope"]))
    return {}


def test_a_changed_model_file_or_statement_is_packaged_never(tmp_path):
    world = ready_world(tmp_path)
    model = _release(world)
    folder = model_folder(world.home, model)
    statement = (folder / "statement.dsse").read_bytes()
    (folder / "statement.dsse").write_bytes(b"{}")
    with pytest.raises(PackageStatementError):
        _package(world, model, tmp_path / "x.iriai")
    (folder / "statement.dsse").write_bytes(statement)
    data = (folder / "weights.f32").read_bytes()
    (folder / "weights.f32").write_bytes(data[:-4] + b"\0\0\0\0")
    with pytest.raises(DigestMismatchError):
        _package(world, model, tmp_path / "x.iriai")
    assert not (tmp_path / "x.iriai").exists()
    (folder / "weights.f32").write_bytes(data)
    with pytest.raises(NoSuchThingError, match="personalise"):
        package(world.home, model, tmp_path / "x.iriai", individual=True)


def test_a_common_model_that_was_not_beaten_is_never_packaged_as_an_individual_one(tmp_path):
    world = ready_world(tmp_path)
    model = _release(world)
    facts, weights = read_model(world.home, model)
    tuning = Tuning(
        mode="head", improved=False, selection_units=1, selection=(1.0, 1.0), report_units=0, report=None
    )
    keep_individual(world.home, facts, weights, tuning)
    for ask in (_package, package):  # the worker's function, and the command before any worker starts
        with pytest.raises(NoSuchThingError, match="without --individual"):
            ask(world if ask is _package else world.home, model, tmp_path / "x.iriai", individual=True)
    assert models_list(world.member).data["models"][0]["individual"] is False
    keep_individual(world.home, facts, weights * np.float32(2), tuning)
    assert models_list(world.member).data["models"][0]["individual"] is True
    world.worker.close()


def test_the_workers_refusal_is_told_under_its_own_code(made, tmp_path):
    world, model = made
    copy = Home(tmp_path / "node")
    # not the databases: reading an open one here would give up this process's locks on it
    shutil.copytree(world.home.root, copy.root, ignore=shutil.ignore_patterns("*.db*"))
    (model_folder(copy, model) / "statement.dsse").write_bytes(b"{}")
    with pytest.raises(PackagingError) as caught:
        package(copy, model, tmp_path / "x.iriai", aasx=False)
    assert caught.value.code == "package.statement"
    assert caught.value.exit_code == 3
    assert not (tmp_path / "x.iriai").exists()


def test_a_file_that_cannot_be_written_is_named(made, tmp_path):
    world, model = made
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PackageFileError, match="--out"):
        _package(world, model, tmp_path / "file" / "x.iriai")


def test_no_package_is_written_over_another_file_unless_that_is_asked_for(made, tmp_path):
    world, model = made
    out = tmp_path / "pick.iriai"
    _package(world, model, out, individual=True)
    own = out.read_bytes()
    for ask in (_package, package):  # the worker's function, and the command before any worker starts
        with pytest.raises(FileTakenError, match="an individual package of model"):
            ask(world.home, model, out) if ask is package else ask(world, model, out)
    assert out.read_bytes() == own
    _package(world, model, out, force=True)
    assert load_package(out, pinned_keys(world.home)).manifest.model.individual is False
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "text").write_text("notes")
    for taken in (tmp_path, tmp_path / "link", tmp_path / "text"):
        with pytest.raises(FileTakenError, match="--force"):
            _package(world, model, taken)
    with pytest.raises(FileTakenError):
        _package(world, model, tmp_path, force=True)  # a folder is never written over


def test_a_model_is_named_by_the_first_twelve_digits_of_its_digest(made):
    world, model = made
    digits = model.removeprefix("sha256:")
    for name in (model, digits, digits[:12], "sha256:" + digits[:20]):
        assert model_here(world.home, name) == model
    assert pull(world.member, world.worker.shelf, digits[:12]).data["model"] == model
    for name in (digits[:11], "0" * 12, "", "individual-" + digits[:12], "../" + digits):
        with pytest.raises(NoSuchThingError, match="12 hex digits"):
            model_here(world.home, name)
    with pytest.raises(NoSuchThingError, match="12 hex digits"):
        pull(world.member, world.worker.shelf, "0" * 12)


def test_whoever_has_no_node_names_the_key(made, tmp_path):
    world, model = made
    out = tmp_path / "x.iriai"
    _package(world, model, out)
    nowhere = Home(tmp_path / "nowhere")
    with pytest.raises(PackageSignerError, match="no node"):
        check(nowhere, out)
    with pytest.raises(PackageSignerError):
        check(nowhere, out, keys=[key_text(STRANGER.public)])
    shown = check(nowhere, out, keys=[key_text(world.member.identity.key.public)])
    assert shown.data["statement_signed"] is False
    assert json.dumps(shown.data)
