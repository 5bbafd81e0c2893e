# SPDX-License-Identifier: Apache-2.0
"""A recipe that starts from open episodes, on a node: signed with everything it names, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.contract.countering import counter
from client.contract.reading import fetch
from client.contract.starts import first_weights, start_of
from client.errors import DigestMismatchError, NoSuchThingError, NotConfirmedError
from client.secagg.agreed import check_noise
from client.seeds import check_files, donating, fit_seed, join_donations
from client.seeds.donated import given, withheld
from client.seeds.donating import Recording, donate
from client.settings import LocalRules
from policies.contract.errors import ContractInvalidError
from policies.donations import read_donation
from policies.encoding import canonical, digest, unb64
from policies.exchange import ExchangeType
from policies.privacy.errors import SharesUnfitError
from policies.recipe import load
from policies.seeds import StartModelUnfitError, read_seed_set
from policies.signing import Envelope
from tests.learnsim import small_recipe
from tests.nodeworld import YES, World
from tests.seedsim import Planted, planted_world

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def planted(tmp_path: Path) -> tuple[World, Planted]:
    return planted_world(tmp_path)


# --- signing ---


def test_a_round_starts_from_the_named_model_with_every_consent_on_record(planted: tuple[World, Planted]):
    world, seeds = planted
    world.ready()
    answer, reply = world.ask(ExchangeType.PING)
    assert reply.tensor.digest == digest(seeds.weights.tobytes())
    assert answer.tensor == seeds.weights.tobytes()
    _, reply = world.ask()
    assert reply.status == "ok"
    asked = reply.body["decision"]["request"]
    assert asked["seed_set"] == seeds.seeds.digest
    assert asked["seed_consents"] == sorted(digest(one.envelope) for one in seeds.donations)


def test_what_the_contract_names_is_kept_beside_it(planted: tuple[World, Planted]):
    world, seeds = planted
    world.sign()
    assert world.shelf().annexes(world.contract.digest) == seeds.annexes


@pytest.mark.parametrize("what", ["the seed set", "the consent of nord", "the start model"])
def test_nothing_is_signed_while_a_named_annex_is_missing(planted: tuple[World, Planted], what: str):
    world, seeds = planted
    name = {
        "the seed set": seeds.seeds.digest,
        "the consent of nord": digest(seeds.donations[2].envelope),
        "the start model": digest(seeds.weights.tobytes()),
    }[what]
    held_back = world.broker.annexes.pop(name)
    with pytest.raises(ContractInvalidError, match=what) as refused:
        world.sign()
    assert refused.value.clause == ("recipe-1" if what == "the start model" else "seed-1")
    world.broker.annexes[name] = held_back
    world.sign()  # what came later is fetched


def test_other_bytes_than_the_named_ones_are_not_even_kept(planted: tuple[World, Planted]):
    world, seeds = planted
    world.broker.annexes[seeds.seeds.digest] = b"{}"
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert seeds.seeds.digest not in world.shelf().annex_names(world.contract.digest)


def test_a_seed_clause_for_a_recipe_that_starts_from_nothing_is_not_signed(tmp_path: Path):
    world, seeds = planted_world(tmp_path)
    world.recipe = seeds.recipe
    world.offer()
    with pytest.raises(ContractInvalidError, match="starts from none") as refused:
        world.sign()
    assert refused.value.clause == "seed-1"


def test_a_recipe_that_starts_from_episodes_nobody_agreed_on_is_not_signed(tmp_path: Path):
    world, _ = planted_world(tmp_path, seed_sets=[])
    with pytest.raises(ContractInvalidError, match="a seed clause for recipe pick") as refused:
        world.sign()
    assert refused.value.clause == "recipe-1"


def test_a_recipe_that_starts_from_another_seed_set_is_not_signed(tmp_path: Path):
    world, seeds = planted_world(tmp_path)
    world.changes["seed_sets"] = [seeds.clause(seed_set=digest(b"another"))]
    world.offer()
    with pytest.raises(ContractInvalidError, match="a recipe that starts from") as refused:
        world.sign()
    assert refused.value.clause == "seed-1"


def test_a_counter_offer_brings_what_its_recipe_starts_from(tmp_path: Path):
    world, seeds = planted_world(tmp_path)
    seeded, started = world.contract, seeds.started
    world.recipe, world.changes = seeds.recipe, {}
    for name in (started.digest, *seeds.annexes):
        del world.broker.annexes[name]
    world.broker.contracts.pop(seeded.digest)
    world.offer()

    def put(**options: Any) -> Any:
        outbox = world.outbox()
        text, given = seeded.canonical.decode(), {"recipes": [started.canonical], "confirm": YES}
        try:
            return counter(world.member, world.shelf(), outbox, text, **(given | options))
        finally:
            outbox.close()

    with pytest.raises(NoSuchThingError, match="the seed set") as missing:
        put()
    assert missing.value.clause == "seed-1"
    with pytest.raises(NoSuchThingError, match="name the digest"):
        put(annexes=[*seeds.annexes.values(), b"more"])
    put(annexes=list(seeds.annexes.values()))
    posted = json.loads(world.broker.lanes.posted[0])
    assert {digest(unb64(one)) for one in posted["annexes"]} == set(seeds.annexes)
    assert world.shelf().annexes(seeded.digest) == seeds.annexes


# --- the round ---


def test_a_consent_that_is_lost_stops_the_next_round_by_its_clause(planted: tuple[World, Planted]):
    world, seeds = planted
    world.ready()
    world.broker.annexes.pop(name := digest(seeds.donations[1].envelope))
    (world.shelf().folder(world.contract.digest) / f"annex-{name[7:]}").unlink()
    world.restart()
    _, reply = world.ask()
    assert (reply.status, world.pulled, world.learner.trained) == ("refused", 0, [])
    body = json.loads(Envelope.from_json(reply.body["envelopes"][0]).payload)["body"]
    assert body["clauses"] == ["seed-1"]


def test_a_changed_start_model_is_none(planted: tuple[World, Planted]):
    world, seeds = planted
    world.ready()
    name = digest(seeds.weights.tobytes())
    (world.shelf().folder(world.contract.digest) / f"annex-{name[7:]}").write_bytes(b"\0" * 8)
    world.restart()
    held = world.shelf().get(world.contract.digest)
    start = start_of(world.shelf(), held, world.recipe)
    assert start.weights is None
    with pytest.raises(NoSuchThingError, match="start model"):
        first_weights(world.recipe, start, np.zeros(3))


def test_a_contract_without_seed_sets_reads_no_annex(tmp_path: Path):
    world = World(tmp_path)
    world.sign()
    found = start_of(world.shelf(), world.shelf().get(world.contract.digest), world.recipe)
    assert (found.seed_set, found.consents, found.weights, found.donated) == ("none", (), None, frozenset())


# --- noise shares ---


def test_no_share_of_noise_leaves_without_secure_aggregation():
    shares = small_recipe(noise="shares", honest_min=3).plan
    with pytest.raises(SharesUnfitError) as refused:
        check_noise(shares, "off", "dp-1")
    assert refused.value.clause == "dp-1"
    check_noise(shares, "required", "dp-1")
    check_noise(small_recipe().plan, "off", "dp-1")
    check_noise(None, "off", "dp-1")


# --- donating ---


def give(world: World, out: Path, **changes: Any) -> Any:
    recipe = changes.pop("recipe", small_recipe().canonical)
    return donate(
        world.member,
        world.shelf(),
        **(
            {
                "dataset": "kita/pick",
                "party": "kita",
                "recipe": recipe,
                "licence": "CC-BY-4.0",
                "out": out,
                "rules": LocalRules(),
                "confirm": YES,
                "count": 2,
            }
            | changes
        ),
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.add_data()
    fetch(world.member, world.shelf(), world.contract.digest)
    return world


def test_a_donation_holds_the_episodes_and_the_donors_signed_consent(world: World, tmp_path: Path):
    answer = give(world, tmp_path / "kita.json")
    found = read_donation((tmp_path / "kita.json").read_bytes())
    assert (found.consent.party, found.consent.dataset, found.consent.purpose) == (
        "kita",
        "kita/pick",
        "pick-place",
    )
    assert answer.data["consent"] == digest(found.envelope)
    assert [one.frames for one in found.episodes] == [24, 24]
    assert found.episodes[0].fields == set(small_recipe().fields)


def test_a_donation_of_a_recording_that_is_not_in_the_store_gives_the_same_episodes(
    world: World, tmp_path: Path
):
    stored = give(world, tmp_path / "a.json", count=4).data["episodes"]
    aside = give(world, tmp_path / "b.json", count=4, recording=Recording(path=tmp_path / "recording")).data[
        "episodes"
    ]
    assert {one["digest"] for one in stored} == {one["digest"] for one in aside}
    assert len(given(world.home)) == 4  # said at the same second, it is the same consent
    assert not list(world.home.root.glob(".donation-*"))


def test_nothing_is_given_without_a_persons_word(world: World, tmp_path: Path):
    with pytest.raises(NotConfirmedError):
        give(world, tmp_path / "kita.json", confirm=lambda _shown: False)
    assert (given(world.home), (tmp_path / "kita.json").exists()) == ((), False)


def test_an_episode_is_remembered_before_its_file_is_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_parts: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(donating, "donation_bytes", full)  # the process ends here
    with pytest.raises(OSError, match="No space"):
        give(world, tmp_path / "kita.json")
    assert (len(given(world.home)), (tmp_path / "kita.json").exists()) == (2, False)


def test_a_folder_that_is_not_there_is_refused_before_anything_is_given(world: World, tmp_path: Path):
    with pytest.raises(NoSuchThingError, match="a folder that is there"):
        give(world, tmp_path / "no" / "kita.json")
    assert given(world.home) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 50}, "50 different episodes"),
        ({"count": None}, "neither"),
        ({"count": None, "episodes": ("ep_nobody",)}, "ep_nobody"),
        ({"licence": "two\nlines"}, "licence"),
        ({"rules": LocalRules(fields=("tcp_pos",))}, "own list"),
        ({"party": None}, "short name"),
    ],
)
def test_a_donation_that_cannot_be_made_says_why(world: World, tmp_path: Path, changes: Any, words: str):
    if changes.get("party", "") is None:
        for one in world.home.contracts.iterdir():
            one.rename(tmp_path / one.name)
    with pytest.raises(NoSuchThingError, match=words):
        give(world, tmp_path / "kita.json", **changes)
    assert given(world.home) == ()


def test_an_existing_file_is_never_overwritten(world: World, tmp_path: Path):
    give(world, tmp_path / "kita.json")
    with pytest.raises(NoSuchThingError, match="a new file"):
        give(world, tmp_path / "kita.json")


def test_named_episodes_are_given_and_no_others(world: World, tmp_path: Path):
    from client.data import Store

    metas = [one.meta for one in Store(world.home.data).episodes("kita/pick")]
    give(world, tmp_path / "kita.json", count=None, episodes=(metas[3].episode_id,))
    assert [one.content for one in given(world.home)] == [metas[3].content]


# --- joining, fitting, checking ---


def test_donations_join_to_a_seed_set_and_the_clause_that_names_it(tmp_path: Path):
    from tests.nodeworld import SigningKey
    from tests.seedsim import donation

    files = []
    for number, name in enumerate(("nord", "kita")):
        path = tmp_path / f"{name}.json"
        path.write_bytes(
            donation(
                SigningKey.from_seed(name.encode().ljust(32, b"-")), name, (10 * number, 10 * number + 1)
            )
        )
        files.append(path)
    answer = join_donations(files, out=tmp_path / "out" / "seed-set.json")
    data = (tmp_path / "out" / "seed-set.json").read_bytes()
    assert answer.data["seed_set"] == digest(data) == read_seed_set(data).digest
    assert [one["party"] for one in answer.data["donations"]] == ["kita", "nord"]
    consents = {digest(path.read_bytes()) for path in (tmp_path / "out").glob("consent-*.json")}
    assert consents == {one["consent"] for one in answer.data["donations"]}
    assert len(answer.data["annexes"]) == 3
    assert "seed_sets:" in answer.text


@pytest.mark.parametrize("there", ["start.f32", "started.json", "no/folder", "twice"])
def test_a_fit_replaces_no_file_and_begins_no_work_in_vain(tmp_path: Path, there: str):
    out, recipe_out = tmp_path / "start.f32", tmp_path / "started.json"
    if there == "no/folder":
        recipe_out = tmp_path / there / "started.json"
    elif there == "twice":
        recipe_out = out
    else:
        (tmp_path / there).write_bytes(b"what somebody signed for")
    with pytest.raises(NoSuchThingError, match=r"a new file|two files"):
        fit_seed(
            tmp_path / "recipe.json",
            tmp_path / "seeds.json",
            out=out,
            recipe_out=recipe_out,
            steps=1,
            folder=tmp_path,
        )
    assert {path.read_bytes() for path in tmp_path.iterdir()} <= {b"what somebody signed for"}


@pytest.mark.slow
def test_a_fit_is_written_named_and_found_again(tmp_path: Path):
    planted = Planted({"kita": World(tmp_path / "w").member.identity.key}, each=3)
    paths = {name: tmp_path / name for name in ("recipe.json", "seeds.json", "start.f32", "started.json")}
    paths["recipe.json"].write_bytes(planted.recipe.canonical)
    paths["seeds.json"].write_bytes(planted.seeds.canonical)
    answer = fit_seed(
        paths["recipe.json"],
        paths["seeds.json"],
        out=paths["start.f32"],
        recipe_out=paths["started.json"],
        steps=300,
        folder=tmp_path,
    )
    assert answer.data["loss"] < answer.data["loss_first"] / 4
    started = load(paths["started.json"].read_bytes())
    assert (started.digest, started.start.model) == (
        answer.data["recipe"],
        digest(paths["start.f32"].read_bytes()),
    )
    files = check_args(started.canonical, planted, paths["start.f32"].read_bytes())
    assert check_files(files, steps=300, folder=tmp_path).data["holds"] is True
    noise = np.random.default_rng(1).normal(size=started.parameters).astype("<f4").tobytes()
    tree = json.loads(started.canonical)
    tree["start"]["model"] = digest(noise)
    with pytest.raises(StartModelUnfitError, match="loss"):
        check_files(check_args(canonical(tree), planted, noise), steps=300, folder=tmp_path)


def check_args(recipe: bytes, planted: Planted, model: bytes) -> Any:
    from client.seeds import Files

    return Files(recipe=recipe, seed_set=planted.seeds.canonical, model=model)


def test_a_seed_set_that_the_recipe_does_not_name_is_not_checked(tmp_path: Path):
    planted = Planted({"kita": World(tmp_path).member.identity.key})
    with pytest.raises(StartModelUnfitError, match="a recipe that starts from"):
        check_files(
            check_args(planted.recipe.canonical, planted, planted.weights.tobytes()),
            steps=10,
            folder=tmp_path,
        )


def test_a_damaged_memory_of_donations_stops_what_needs_it(world: World, tmp_path: Path):
    give(world, tmp_path / "kita.json")
    assert len(withheld(world.home).contents) == 2
    world.home.donations.write_bytes(b"{}")
    from client.data.errors import StoreDamagedError

    with pytest.raises(StoreDamagedError):
        withheld(world.home)
    with pytest.raises(StoreDamagedError):
        give(world, tmp_path / "again.json")
