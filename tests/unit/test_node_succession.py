# SPDX-License-Identifier: Apache-2.0
"""Successors at a node: what it signs under the contract that rules, and what it uses though it did not sign."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from client.contract.reading import fetch, fetch_envelope
from client.contract.shelf import ContractShelf
from client.contract.tending import tend
from policies.contract import CONTRACT_TYPE
from policies.contract.errors import NotExecutedError, ProofMissingError, RefusedError
from policies.identity import SigningKey, key_text
from policies.signing import Envelope
from tests.nodeworld import IN_TERM_MS, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 rules, and is in term."""
    world = World(tmp_path)
    world.sign()
    world.finalize()
    world.sign()
    world.clock.ms = IN_TERM_MS
    return world


def signed(world: World, *keys: SigningKey) -> None:
    """The broker hands out the successor with these signatures."""
    envelope = Envelope.seal(world.contract.canonical, CONTRACT_TYPE, *keys)
    world.broker.envelopes[world.contract.digest] = envelope
    world.broker.partial.pop(world.contract.digest, None)


def by_nord(world: World, **changes: Any) -> None:
    """Nord tightens: it signs the successor, and so does the broker."""
    world.succeed(**changes)
    signed(world, world.keys["nord"], world.broker.key)


def worker(world: World) -> list[tuple[str, dict[str, str]]]:
    outbox = world.outbox()
    try:
        return tend(world.member, world.shelf(), outbox)
    finally:
        outbox.close()


def held(world: World) -> ContractShelf:
    """The shelf, once the successor is on it."""
    shelf = world.shelf()
    fetch(world.member, shelf, world.contract.digest)
    return shelf


def taken(world: World) -> bool:
    return world.shelf().get(world.contract.digest).is_executed


TIGHTER = {"privacy.epsilon_total": "15", "aggregation.update_norm_max": "5"}


def test_a_tightening_of_another_party_is_taken_over_once_it_is_proven_here(world: World):
    by_nord(world, **TIGHTER)
    assert worker(world) == [("contract-final", {"contract": world.contract.digest})]
    assert taken(world)
    assert world.broker.lanes.posted[-1:] == world.broker.lanes.posted[1:2]  # nothing was said about it


def test_what_the_order_table_shows_needs_no_prover(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "z3", None)
    by_nord(world, **TIGHTER)
    worker(world)
    assert taken(world)


def test_without_the_prover_the_rest_is_refused_by_its_code(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "z3", None)
    by_nord(world, **{"privacy.reply_slot_ms": 500})
    facts = {"contract": world.contract.digest, "code": "contract.proof-missing"}
    assert worker(world) == [("contract-waits", facts)]
    with pytest.raises(ProofMissingError):
        fetch_envelope(world.member, world.shelf(), world.contract.digest)
    assert not taken(world)


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"privacy.epsilon_total": "21"}, "dp-1"),
        ({"aggregation.update_norm_max": "11"}, "k-1"),
        ({"recipes.0.max_rounds": 501}, "recipe-1"),
        ({"law.governing": "FR"}, "law-1"),
    ],
)
def test_a_loosening_that_is_called_a_tightening_is_not_used(world: World, changes, clause):
    first = world.contract
    by_nord(world, **_into(world, changes))
    assert worker(world)[0][1]["code"] == "contract.refused"
    with pytest.raises(RefusedError) as raised:
        fetch_envelope(world.member, world.shelf(), world.contract.digest)
    assert raised.value.clause == clause
    assert not taken(world)
    assert world.shelf().in_force(first.contract_id).contract.digest == first.digest


def _into(world: World, changes: dict[str, Any]) -> dict[str, Any]:
    """Paths with a list index as whole lists, which `World.draft` takes."""
    found: dict[str, Any] = {}
    for path, value in changes.items():
        name, *rest = path.split(".")
        if len(rest) == 2 and rest[0].isdigit():
            rows = world.contract.document[name]
            rows[int(rest[0])][rest[1]] = value
            found[name] = rows
        else:
            found[path] = value
    return found


def test_a_tightening_that_shuts_another_party_out_is_not_used(world: World):
    recipes = world.contract.document["recipes"]
    recipes[0]["datasets"] = [one for one in recipes[0]["datasets"] if one["party"] != "kita"]
    recipes[0]["datasets"].append({"party": "kita", "dataset": "kita/none"})
    by_nord(world, recipes=recipes)
    with pytest.raises(RefusedError):
        fetch_envelope(world.member, held(world), world.contract.digest)
    assert not taken(world)


@pytest.mark.parametrize("who", ["broker", "nord", "stranger", "nobody"])
def test_too_few_signatures_make_no_successor(world: World, who: str):
    world.succeed(**TIGHTER)
    keys = {
        "broker": [world.broker.key],
        "nord": [world.keys["nord"]],
        "stranger": [SigningKey.from_seed(b"S" * 32), world.broker.key],
        "nobody": [],
    }
    signed(world, *keys[who])
    with pytest.raises(NotExecutedError):
        fetch_envelope(world.member, held(world), world.contract.digest)
    assert not taken(world)


def test_where_all_must_sign_a_tightening_one_is_too_few(world: World, tmp_path: Path):
    strict = World(tmp_path / "strict", changes={"amendment.tighten": "all-contributors"})
    strict.sign()
    strict.finalize()
    strict.sign()
    strict.clock.ms = IN_TERM_MS
    by_nord(strict, **TIGHTER)
    with pytest.raises(NotExecutedError):
        fetch_envelope(strict.member, held(strict), strict.contract.digest)


def test_what_is_on_the_disk_is_proven_again(world: World, monkeypatch: pytest.MonkeyPatch):
    by_nord(world, **TIGHTER)
    worker(world)
    path = world.shelf().folder(world.contract.digest) / "envelope.json"
    path.write_bytes(Envelope.seal(world.contract.canonical, CONTRACT_TYPE, world.broker.key).to_bytes())
    with pytest.raises(NotExecutedError):
        world.shelf().get(world.contract.digest)


def test_a_newcomer_for_whom_nobody_vouches_is_not_signed_in(world: World):
    parties = world.contract.document["parties"]
    newcomer = next(one for one in parties if one["party"] == "nord") | {
        "clause": "party-new",
        "party": "new",
        "org": "org_bbbbbbbbbbbbbbbb",
        "group": "new",
        "key": key_text(SigningKey.from_seed(b"N" * 32).public),
    }
    world.succeed(parties=[*parties, newcomer])
    with pytest.raises(RefusedError) as raised:
        world.sign()
    assert raised.value.clause == "amend-1"
    assert "admissions" in raised.value.need


def test_a_change_that_everybody_signed_takes_effect(world: World):
    world.succeed(title="Second", **{"privacy.epsilon_total": "30"})
    assert world.sign().data["lane"] == "VERIFIED"
    assert not taken(world)  # the broker and this node alone are too few for a change
    world.finalize()
    assert worker(world) == [("contract-final", {"contract": world.contract.digest})]
    assert taken(world)
