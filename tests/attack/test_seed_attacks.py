# SPDX-License-Identifier: Apache-2.0
"""Lies about open seed sets: forged consents, swapped episodes, another start model, open data that pass as private.

The broker offers no such text, the node signs none, and where both were deceived the round is refused, or the
run has no model to begin with.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.contract.starts import Start
from client.data import Store
from client.learner import episodes_of
from client.seeds.donating import donate
from client.settings import LocalRules
from policies.contract import from_tree
from policies.donations import join, read_donation, seal_consent
from policies.encoding import b64, canonical, digest
from policies.exchange import ExchangeType
from policies.identity import SigningKey
from policies.limits import BODY_BYTES_JSON, OFFER_BODY_BYTES
from policies.log.entries import EntryType
from policies.recipe import load
from policies.seeds import SeedSet, with_start
from tests.brokersim import House, NodeSim, draft, open_house, pool
from tests.nodeworld import YES, World
from tests.seedsim import Planted, consent_of, donation, planted_world, seed_episode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MALLORY = SigningKey.from_seed(b"m" * 32)


# --- the broker offers nothing that does not hold ---


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


class Stage:
    """Three members and the seed set that they gave; `offer` puts a text with what is sent along."""

    def __init__(self, house: House, nodes: list[NodeSim]) -> None:
        self.house, self.nodes = house, nodes
        self.planted = Planted({one.name: one.key for one in nodes})
        self.recipe = self.planted.started.canonical
        self.annexes = dict(self.planted.annexes)
        self.clause: dict[str, Any] = self.planted.clause()

    async def offer(self, **changes: Any) -> Any:
        tree = draft(self.house, self.nodes).document
        tree["recipes"][0]["recipe_digest"] = digest(self.recipe)
        tree["fields"]["allow"] = sorted(self.planted.recipe.fields)
        tree["seed_sets"] = [self.clause]
        body = {
            "contract": from_tree(tree | changes).canonical.decode(),
            "recipes": [b64(self.recipe)],
            "annexes": [b64(one) for one in self.annexes.values()],
        }
        return await self.house.alice.post("/operator/contracts", body)

    def restart_from(self, seeds: SeedSet, **clause: Any) -> None:
        """The same text about another seed set."""
        del self.annexes[self.planted.seeds.digest]
        self.annexes[seeds.digest] = seeds.canonical
        model = digest(self.planted.weights.tobytes())
        self.recipe = with_start(self.planted.recipe.canonical, seed_set=seeds.digest, model=model)
        self.clause |= {"seed_set": seeds.digest} | clause

    def resign(self, party: str, signer: SigningKey, numbers: tuple[int, ...], **words: Any) -> None:
        """Another donation in the place of one party's, signed by any key, under any words."""
        donations = [one for one in self.planted.donations if one.consent.party != party]
        bare = [seed_episode(number, party=party) for number in numbers]
        envelope = seal_consent(consent_of(signer, bare, **words), signer)
        rows = [replace(one, consent=digest(envelope)) for one in bare]
        old = next(one for one in self.planted.donations if one.consent.party == party)
        del self.annexes[digest(old.envelope)]
        self.annexes[digest(envelope)] = envelope
        seeds = SeedSet.of([*rows, *(one for kept in donations for one in kept.episodes)])
        listed = [
            one | ({"consent": digest(envelope)} if one["party"] == party else {})
            for one in self.clause["donations"]
        ]
        self.restart_from(seeds, donations=listed)


@pytest.fixture
async def stage(house: House) -> Stage:
    return Stage(house, await pool(house))


async def test_a_text_whose_seed_set_holds_is_offered_and_handed_on(stage: Stage):
    answer = await stage.offer()
    assert answer.status_code == 201, answer.text
    name = answer.json()["digest"]
    for wanted, data in stage.annexes.items():
        got = await stage.nodes[0].get(f"/contracts/{name}/annexes/{wanted}")
        assert (got.status_code, got.content) == (200, data)
    stranger = await stage.house.member("mallory")
    hidden = await stranger.get(f"/contracts/{name}/annexes/{stage.planted.seeds.digest}")
    assert hidden.status_code == 404


async def refused(stage: Stage, code: str, clause: str | None, **changes: Any) -> Any:
    answer = await stage.offer(**changes)
    problem = answer.json()
    assert (problem["code"], problem.get("clause")) == (code, clause), answer.text
    assert stage.house.entries(EntryType.CONTRACT_PROPOSED) == []
    return problem


async def test_a_consent_that_another_key_signed_is_not_offered(stage: Stage):
    stage.resign("nord", MALLORY, (200, 201))
    await refused(stage, "seed.consent-invalid", "seed-1")


async def test_a_consent_in_the_donors_name_under_the_brokers_own_key_is_not_offered(stage: Stage):
    stage.resign(
        "nord", stage.house.services.keys.broker, (200, 201), key=stage.planted.donations[2].consent.key
    )
    await refused(stage, "seed.consent-invalid", "seed-1")


async def test_episodes_that_the_donor_did_not_name_are_not_offered(stage: Stage):
    rows = [replace(one, observation=_moved(one.observation)) for one in stage.planted.seeds.episodes[:1]]
    stage.restart_from(SeedSet.of([*rows, *stage.planted.seeds.episodes[1:]]))
    problem = await refused(stage, "seed.consent-invalid", "seed-1")
    assert "exactly the 2 episodes" in problem["need"]


async def test_an_episode_less_than_the_donor_named_is_not_offered(stage: Stage):
    stage.restart_from(SeedSet.of(stage.planted.seeds.episodes[1:]))
    await refused(stage, "seed.consent-invalid", "seed-1")


async def test_an_episode_of_somebody_who_is_no_donor_is_not_offered(stage: Stage):
    extra = seed_episode(999, party="mallory")
    stage.restart_from(SeedSet.of([*stage.planted.seeds.episodes, extra]))
    problem = await refused(stage, "seed.set-invalid", "seed-1")
    assert "mallory" in problem["found"]


async def test_a_licence_that_the_donor_did_not_give_is_not_offered(stage: Stage):
    stage.clause["donations"] = [one | {"licence": "CC0-1.0"} for one in stage.clause["donations"]]
    await refused(stage, "seed.consent-invalid", "seed-1")


async def test_a_seed_set_with_a_field_that_the_contract_keeps_is_not_offered(stage: Stage):
    fields = sorted(set(stage.planted.recipe.fields) - {"object_pos"})
    allow = {"clause": "fields-1", "allow": fields, "personal_data": "none", "trade_secret": []}
    problem = await refused(stage, "seed.set-invalid", "seed-1", fields=allow)
    assert "object_pos" in problem["found"]


@pytest.mark.parametrize("what", ["the seed set", "the consent of kita", "the start model"])
async def test_what_the_text_names_and_nobody_sent_is_asked_for_by_name(stage: Stage, what: str):
    name = {
        "the seed set": stage.planted.seeds.digest,
        "the consent of kita": digest(stage.planted.donations[1].envelope),
        "the start model": digest(stage.planted.weights.tobytes()),
    }[what]
    del stage.annexes[name]
    clause = "recipe-1" if what == "the start model" else "seed-1"
    problem = await refused(stage, "contract.annex-missing", clause)
    assert what in problem["need"]


async def test_a_counter_offer_is_read_by_the_same_rules_and_need_not_send_twice(stage: Stage):
    answer = await stage.offer()
    first, member = answer.json()["digest"], stage.nodes[0]
    view = await member.view(answer.json()["negotiation"])
    tree = stage.house.services.contracts.get(first).document
    other = from_tree(tree | {"title": "The same start"})
    forged = from_tree(tree | {"seed_sets": [stage.clause | {"seed_set": digest(b"another")}]})
    lie = {"contract": forged.canonical.decode(), "recipes": []}
    told = await member.say(view, "request", body=lie, digest=forged.digest)
    assert (told.status_code, told.json()["clause"]) == (422, "seed-1"), told.text
    more = {"contract": other.canonical.decode(), "recipes": [], "annexes": [b64(b"more")]}
    told = await member.say(view, "request", body=more, digest=other.digest)
    assert told.json()["code"] == "contract.annex-mismatch"
    told = await member.counter(view, other)
    assert told.status_code == 200, told.text
    for wanted, data in stage.annexes.items():
        got = await stage.nodes[1].get(f"/contracts/{other.digest}/annexes/{wanted}")
        assert got.content == data


async def test_bytes_that_nothing_names_are_not_taken(stage: Stage):
    stage.annexes[digest(b"more")] = b"more"
    await refused(stage, "contract.annex-mismatch", None)


async def test_a_seed_clause_beside_a_recipe_that_starts_from_nothing_is_not_offered(stage: Stage):
    stage.recipe = stage.planted.recipe.canonical
    stage.annexes = {
        name: data for name, data in stage.annexes.items() if data != stage.planted.weights.tobytes()
    }
    await refused(stage, "contract.invalid", "seed-1")


async def test_a_recipe_that_starts_without_a_clause_is_not_offered(stage: Stage):
    keep = digest(stage.planted.weights.tobytes())
    stage.annexes = {keep: stage.annexes[keep]}
    await refused(stage, "contract.invalid", "recipe-1", seed_sets=[])


async def test_start_weights_that_are_not_finite_are_not_offered(stage: Stage):
    bad = (
        np.where(np.arange(len(stage.planted.weights)) == 5, np.inf, stage.planted.weights)
        .astype("<f4")
        .tobytes()
    )
    del stage.annexes[digest(stage.planted.weights.tobytes())]
    stage.annexes[digest(bad)] = bad
    seeds = stage.planted.seeds
    stage.recipe = with_start(stage.planted.recipe.canonical, seed_set=seeds.digest, model=digest(bad))
    await refused(stage, "seed.model-unfit", "recipe-1")


async def test_a_large_body_is_read_where_texts_are_offered_and_from_nobody_unknown(stage: Stage):
    body = canonical({"contract": "x" * (BODY_BYTES_JSON + 10), "recipes": []})
    for path, who, status in (
        ("/operator/contracts", stage.house.alice, 422),
        ("/operator/invites", stage.house.alice, 413),
    ):
        answer = await stage.house.http.send(who.signed("POST", path, body))
        assert answer.status_code == status, answer.text
    unknown = type(stage.house.alice)(stage.house, "nobody")
    answer = await stage.house.http.send(unknown.signed("POST", "/operator/contracts", body))
    assert answer.status_code == 401
    announced = stage.house.alice.signed("POST", "/operator/contracts", b"{}")
    announced.headers["content-length"] = str(OFFER_BODY_BYTES + 1)
    assert (await stage.house.http.send(announced)).status_code == 413


def _moved(columns: Any) -> Any:
    return columns | {"tcp_pos": columns["tcp_pos"] + np.float32(0.01)}


# --- the node believes nobody ---


def forged(world: World, planted: Planted) -> Planted:
    """The same pool, but nord's episodes come with mallory's consent."""
    keys = {**planted.keys, "nord": MALLORY}
    other = Planted(keys, recipe=planted.recipe)
    world.recipe = other.started
    world.broker.annexes |= {other.started.digest: other.started.canonical, **other.annexes}
    world.changes |= {"seed_sets": [other.clause()]}
    world.offer()
    return other


def test_a_broker_that_offers_a_forged_consent_gets_no_signature(tmp_path: Path):
    world, planted = planted_world(tmp_path)
    forged(world, planted)
    with pytest.raises(Exception, match="signed by ed25519") as refused_by:
        world.sign()
    assert (refused_by.value.code, refused_by.value.clause) == ("seed.consent-invalid", "seed-1")


def test_a_broker_that_swaps_an_episode_gets_no_signature(tmp_path: Path):
    world, planted = planted_world(tmp_path)
    rows = [replace(one, observation=_moved(one.observation)) for one in planted.seeds.episodes[:1]]
    seeds = SeedSet.of([*rows, *planted.seeds.episodes[1:]])
    model = digest(planted.weights.tobytes())
    started = load(with_start(planted.recipe.canonical, seed_set=seeds.digest, model=model))
    world.recipe = started
    world.broker.annexes |= {started.digest: started.canonical, seeds.digest: seeds.canonical}
    world.changes |= {"seed_sets": [planted.clause(seed_set=seeds.digest)]}
    world.offer()
    with pytest.raises(Exception, match="exactly the 2 episodes") as refused_by:
        world.sign()
    assert refused_by.value.clause == "seed-1"


def test_a_start_model_under_a_name_that_is_not_its_own_is_never_begun_with(tmp_path: Path):
    world, planted = planted_world(tmp_path)
    world.ready()
    name = digest(planted.weights.tobytes())
    path = world.shelf().folder(world.contract.digest) / f"annex-{name[7:]}"
    path.write_bytes((planted.weights + np.float32(1)).tobytes())
    del world.broker.annexes[name]
    world.restart()
    _, reply = world.ask(ExchangeType.PING)
    assert (reply.status, reply.code, reply.tensor) == ("refused", "node.not-found", None)


# --- open data never pass as private ---


@pytest.fixture
def donor(tmp_path: Path) -> tuple[World, Any]:
    """A donor of two of its four training episodes, under a contract that starts from them."""
    world = World(tmp_path)
    world.add_data()
    out = tmp_path / "kita.json"
    donate(
        world.member,
        world.shelf(),
        dataset="kita/pick",
        party="kita",
        recipe=world.recipe.canonical,
        licence="CC-BY-4.0",
        out=out,
        rules=LocalRules(),
        confirm=YES,
        count=2,
    )
    return world, read_donation(out.read_bytes())


def seat_of(world: World, start: Start) -> Any:
    world.sign()
    world.finalize()
    world.add_data(publish=False)  # the same episodes, now under the contract
    world.start()
    world.worker.admit(_config(world))
    return replace(world.worker.guard.seat(world.contract.digest, world.recipe.digest), start=start)


def _config(world: World) -> Any:
    from client.federation.handlers import RunConfig
    from tests.nodeworld import RUN

    return RunConfig(run=RUN, contract=world.contract.digest, recipe=world.recipe.digest)


def units_of(world: World, seat: Any) -> int:
    return len(
        episodes_of(world.home, seat, "train", LocalRules())
        + episodes_of(world.home, seat, "held-out", LocalRules())
    )


def test_what_was_given_away_is_in_no_private_unit(donor: tuple[World, Any]):
    world, given = donor
    seat = seat_of(world, Start())
    assert len(Store(world.home.data).episodes("kita/pick")) == 6
    assert units_of(world, seat) == 6 - len(given.episodes)


def test_a_donor_that_forgot_its_gift_still_trains_on_none_of_the_seed_set(donor: tuple[World, Any]):
    world, given = donor
    world.home.donations.unlink()
    seeds, _ = join([given])
    assert units_of(world, seat_of(world, Start())) == 6
    seat = replace(seat_of_again(world), start=Start(donated=seeds.digests))
    assert units_of(world, seat) == 4


def seat_of_again(world: World) -> Any:
    return world.worker.guard.seat(world.contract.digest, world.recipe.digest)


def test_a_gift_that_comes_back_under_another_name_is_left_out_too(donor: tuple[World, Any], tmp_path: Path):
    world, _ = donor
    seat = seat_of(world, Start())
    other = replace(seat, dataset="kita/copy")
    from client.data import import_path

    import_path(
        world.home.data,
        tmp_path / "recording",
        dataset="kita/copy",
        allow=frozenset(world.recipe.fields),
        rights=world.contract.digest,
        node_key=world.member.identity.unit_key,
        clock=world.clock,
    )
    assert units_of(world, other) == 4


def test_the_auditor_names_a_consent_that_no_clause_has():
    from policies.verify.facts import _consents
    from tests.contractsim import CONSENT, WELD, contract, train_round

    pool_contract = contract()
    honest = train_round(recipe=WELD)
    assert _consents(pool_contract, honest) == []
    assert _consents(pool_contract, replace(honest, seed_consents=(CONSENT, digest(b"made up")))) == [
        "seed_consents"
    ]


def test_a_donation_file_of_another_key_is_seen_when_it_is_read():
    good = donation(MALLORY, "kita", (1,))
    swapped = json.loads(good)
    swapped["consent"] = json.loads(donation(SigningKey.from_seed(b"o" * 32), "kita", (1,)))["consent"]
    with pytest.raises(Exception, match="another consent"):
        read_donation(canonical(swapped))
