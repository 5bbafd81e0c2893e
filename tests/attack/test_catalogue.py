# SPDX-License-Identifier: Apache-2.0
"""What others learn about data sets: not what an owner did not say, and not nothing because of one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import update

from broker.store.tables import descriptor as descriptor_row
from client.answers import Answer
from client.contract.reading import latest, latest_signed
from client.data import Store, describe, task_words
from client.data.errors import DescribedLatelyError, MapInvalidError, StoreDamagedError
from client.data.fingerprints import comparable, compare_fingerprints, make_fingerprints
from client.data.quality import read_certificate
from client.datasets.adding import data_publish
from client.datasets.published import Asked
from client.datasets.removing import data_remove
from client.errors import NoSuchThingError
from client.ledgers import outbox_list
from client.settings import LocalRules
from policies.contract.errors import NotExecutedError
from policies.encoding import canonical, digest
from policies.identity import SigningKey
from policies.messages import Descriptor as Described
from policies.messages import Fit, seal_descriptor
from policies.quality_certificate import CHECKS, QualityCertificate, seal_certificate
from policies.recipe import FIELD_NAMES
from policies.shown_data import open_view
from policies.signing import Envelope
from tests.brokersim import RECIPE, House, NodeSim, SeedEntropy, final_contract, open_house, pool
from tests.datasim import ALLOW, KEY, NODE, RIGHTS, Recording, SimClock, bring, write_v3
from tests.nodeworld import World
from tests.noticespeech import rotate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FRESH = SigningKey.from_seed(b"the new key of kita".ljust(32, b"-"))
DAY_MS = 86_400_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def described(sender: NodeSim, dataset: str = "", **changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "node": sender.node,
        "dataset": dataset or f"{sender.name}/pick",
        "embodiment_class": "6r-arm",
        "dof": 6,
        "action_space": "ee-delta",
        "rate_hz": "20-49",
        "episodes": "100-299",
        "tasks": ["pick-place"],
        "fields": ["tcp_pos"],
        "labels": [],
        "period": "2026-H2",
        "fits": [Fit(recipe=digest(RECIPE), minimum_met=True)],
    }
    return seal_descriptor(Described.build(**(fields | changes)), sender.key)


def certified(sender: NodeSim, verdict: str = "admitted", root: bytes = b"root") -> tuple[str, Envelope]:
    made = QualityCertificate.parse(
        {
            "schema": "iriai-quality-certificate/1",
            "node": sender.node,
            "dataset": f"{sender.name}/pick",
            "data_root": digest(root),
            "checks": "iriai-quality/1",
            "thresholds": digest(b"thresholds"),
            "signal_maps": [digest(b"map")],
            "states": dict.fromkeys(CHECKS, "PASS" if verdict == "admitted" else "FAIL"),
            "excluded": "none",
            "verdict": verdict,
            "tool": "iriai/0.1.0",
            "at": "2026-11-29",
        }
    )
    return made.digest, seal_certificate(made, sender.key)


async def listed(caller: Any, query: str = "") -> list[dict[str, Any]]:
    answer = await caller.get(f"/catalogue{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["datasets"]
    return found


# --- one member takes the catalogue from everybody ---


async def test_a_member_that_changes_its_key_keeps_its_data_sets_and_the_others_theirs(house: House) -> None:
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    kita, nord = nodes[:2]
    contract = await final_contract(house, nodes)
    name, sealed = certified(kita)
    await kita.post("/catalogue/certificates", sealed.to_json())
    await kita.post("/catalogue/descriptors", described(kita, quality=name).to_json())
    await nord.post("/catalogue/descriptors", described(nord).to_json())
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    for caller in (nord, kita, house.alice):
        assert [one["dataset"] for one in await listed(caller)] == ["kita/pick", "nord/pick"]
        assert (await caller.get("/catalogue/dcat")).status_code == 200
    assert [one["dataset"] for one in await listed(nord, "?certified=true")] == ["kita/pick"]
    await kita.post("/catalogue/descriptors", described(kita).to_json())  # by the new key
    assert len(await listed(nord)) == 2


@pytest.mark.parametrize("planted", ["another key", "no key", "other bytes", "no bytes"])
async def test_a_row_that_does_not_verify_is_left_out_and_named_to_operators_alone(
    house: House, planted: str
) -> None:
    kita, nord = await pool(house, "kita", "nord")
    for one in (kita, nord):
        await one.post("/catalogue/descriptors", described(one).to_json())
    forged = seal_descriptor(Described.parse(json.loads(described(kita).payload)), FRESH).to_bytes()
    values: dict[str, Any] = {
        "another key": {"bytes": forged, "signed_by": "ed25519:" + FRESH.public.hex()},
        "no key": {"signed_by": "kita"},
        "other bytes": {"bytes": forged},
        "no bytes": {"bytes": b"{}"},
    }[planted]
    with house.services.store.main.begin() as session:
        mine = descriptor_row.c.node_id == kita.node
        session.execute(update(descriptor_row).where(mine).values(**values))
    assert [one["dataset"] for one in await listed(nord)] == ["nord/pick"]
    assert "unverified" not in (await nord.get("/catalogue")).json()
    noted = (await house.alice.get("/catalogue")).json()["unverified"]
    assert noted == [{"org": kita.org, "dataset": "kita/pick"}]


# --- certificates that certify nothing ---


async def test_a_refused_or_replaced_certificate_certifies_nothing(house: House) -> None:
    kita, nord = await pool(house, "kita", "nord")
    bad, sealed = certified(kita, "refused")
    await kita.post("/catalogue/certificates", sealed.to_json())
    await kita.post("/catalogue/descriptors", described(kita, quality=bad).to_json())
    for caller in (nord, kita, house.alice):
        assert await listed(caller, "?certified=true") == []
    assert (await listed(nord))[0]["view"]["quality"] is None
    good, sealed = certified(kita)
    await kita.post("/catalogue/certificates", sealed.to_json())
    assert (await listed(nord))[0]["view"]["quality"] is None  # the descriptor still names the other one
    await kita.post("/catalogue/descriptors", described(kita, quality=good).to_json())
    assert [one["view"]["quality"] for one in await listed(nord, "?certified=true")] == [good]
    _, newer = certified(kita, root=b"other data")
    await kita.post("/catalogue/certificates", newer.to_json())
    assert await listed(nord, "?certified=true") == []
    assert (await listed(nord))[0]["view"]["quality"] is None
    dcat = (await house.alice.get("/catalogue/dcat")).json()
    assert "dct:conformsTo" not in dcat["dcat:dataset"][0]


# --- guesses that a digest confirms ---


async def test_nothing_that_others_get_confirms_a_guess_of_what_they_do_not_see(house: House) -> None:
    kita, nord = await pool(house, "kita", "nord")
    envelope = described(kita)
    await kita.post("/catalogue/descriptors", envelope.to_json())
    seen = json.dumps(await listed(nord)) + (await nord.get("/catalogue/dcat")).text
    assert digest(envelope.payload) not in seen
    assert digest(envelope.to_bytes()) not in seen
    for whole in (kita, house.alice):
        assert (await listed(whole))[0]["digest"] == digest(envelope.payload)


def test_the_maps_of_a_certificate_match_no_dictionary_and_no_other_data_set(tmp_path: Path) -> None:
    one = World(tmp_path)
    one.sign()
    one.finalize()
    one.add_data()
    key = one.member.identity.key.public
    certificate, _ = read_certificate(one.home.data, "kita/pick", [key])
    maps = {e.meta.signal_map for e in Store(one.home.data).episodes("kita/pick")}
    assert maps
    assert not {name.removeprefix("sha256:") for name in maps} & {
        name.removeprefix("sha256:") for name in certificate.signal_maps
    }


# --- drafts ---


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A contract that everybody signed, data under it, and then a stranger's draft."""
    one = World(tmp_path)
    one.sign()
    one.finalize()
    one.add_data(publish=False)
    return one


def publish(world: World, contract: str | None = None, **asked: Any) -> Answer:
    outbox = world.outbox()
    try:
        return data_publish(
            world.member,
            world.shelf(),
            outbox,
            dataset="kita/pick",
            contract=contract,
            rules=LocalRules(),
            asked=Asked(**asked),
        )
    finally:
        outbox.close()


def posted(world: World) -> list[tuple[str, dict[str, Any]]]:
    """Notes from now on what is posted to the catalogue, with its payload."""
    seen: list[tuple[str, dict[str, Any]]] = []
    real = world.member.client.post

    def post(path: str, body: Any, **options: Any) -> Any:
        if path.startswith("/catalogue"):
            seen.append((path, json.loads(Envelope.from_json(body).payload)))
        return real(path, body, **options)

    object.__setattr__(world.member.client, "post", post)
    return seen


def test_a_draft_that_nobody_signed_neither_takes_nor_describes_data(world: World) -> None:
    signed = world.contract.digest
    world.offer(contract_id="ctr_bbbbbbbbbbbbbbbb", **{"fields.allow": [*world.contract.fields.allow]})
    draft = world.contract.digest
    assert latest(world.member, world.shelf()) == draft  # what `contract show` shows
    assert latest_signed(world.member, world.shelf()) == signed
    assert world.add_data(contract=None, publish=False).data["contract"] == signed
    seen = posted(world)
    publish(world)
    assert [path for path, _ in seen] == ["/catalogue/certificates", "/catalogue/descriptors?shown=open"]
    before = Store(world.home.data).catalogue().to_bytes()
    for refused in (lambda: publish(world, draft), lambda: world.add_data(contract=draft)):
        with pytest.raises(NotExecutedError, match="contract sign") as told:
            refused()
        assert "--no-contract" in told.value.remedy
    assert Store(world.home.data).catalogue().to_bytes() == before
    assert len(seen) == 2


def test_without_a_signed_contract_nothing_is_taken_and_nothing_leaves(tmp_path: Path) -> None:
    world = World(tmp_path)
    seen = posted(world)
    with pytest.raises(NoSuchThingError, match="everybody signed"):
        world.add_data(contract=None)
    with pytest.raises(NotExecutedError):
        world.add_data(contract=world.contract.digest)
    assert not list(world.home.data.rglob("*.parquet"))
    assert seen == []


# --- counting by thresholds ---


def test_recipes_with_graded_thresholds_tell_no_more_than_the_bucket(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "lr", Recording.random(*([4] * 60))))
    counts = list(range(1, 129))
    told: dict[int, bool] = {}
    for part in (counts[:64], counts[64:]):
        recipes = {f"sha256:{one:064x}": one for one in part}
        found = describe(
            tmp_path / "s", "kita/pick", node=NODE, allow=ALLOW, clock=SimClock(), recipes=recipes
        )
        told |= {recipes[one["recipe"]]: one["minimum_met"] for one in open_view(found, shown="fits")["fits"]}
    steps = [one for one in counts[1:] if told[one] != told[one - 1]]
    assert steps == [100]  # a bucket's edge, wherever between 30 and 99 the count is


def test_another_descriptor_so_soon_needs_a_reason_that_the_outbox_keeps(world: World) -> None:
    publish(world)
    world.clock.ms += DAY_MS
    publish(world)  # the same words may always be sent
    with pytest.raises(DescribedLatelyError, match="--again"):
        publish(world, tasks=("stacking",))
    for empty in ("", "  "):
        with pytest.raises(DescribedLatelyError):
            publish(world, tasks=("stacking",), again=empty)
    seen = posted(world)
    publish(world, tasks=("stacking",), again="the line was\nrebuilt")
    assert seen[1][1]["tasks"] == ["pick-place", "stacking"]
    assert "rebuilt" not in json.dumps(seen)
    outbox = world.outbox()
    shown = outbox_list(outbox)
    outbox.close()
    assert len(shown.data["again"]) == 1
    assert "rebuilt" in shown.data["again"][0]
    assert "\n" not in shown.data["again"][0]
    world.clock.ms -= 2 * DAY_MS  # a clock that goes back opens nothing
    with pytest.raises(DescribedLatelyError):
        publish(world, tasks=())
    world.clock.ms += 33 * DAY_MS
    publish(world, tasks=())


def test_an_import_whose_description_comes_too_soon_is_stored_and_says_so(world: World) -> None:
    publish(world, tasks=("other",))
    record = world.home.published / "kita+pick.json"
    record.write_bytes(record.read_bytes().replace(b'"content":"sha256:', b'"content":"sha256:0'))
    answer = world.add_data()
    assert (answer.data["published"], answer.data["not_published"]) == (None, "data.described-lately")
    assert answer.data["episodes"] == 6
    assert any("--again" in line for line in answer.text)


# --- a choice that is undone by a repetition ---


def test_what_others_see_stays_as_narrow_as_its_owner_chose(world: World) -> None:
    seen = posted(world)
    publish(world, shown="fits")
    publish(world)
    world.add_data()
    assert {path for path, _ in seen if "descriptors" in path} == {"/catalogue/descriptors?shown=fits"}
    publish(world, shown="open")
    publish(world)
    assert [path for path, _ in seen if "descriptors" in path][-2:] == [
        "/catalogue/descriptors?shown=open"
    ] * 2


def change_content(world: World) -> None:
    """As if the data said other things than the last descriptor."""
    record = world.home.published / "kita+pick.json"
    told = json.loads(record.read_bytes())
    other = digest(told["content"].encode())
    record.write_bytes(canonical(told | {"content": other, "seen": told["seen"] and other}))


def test_to_show_less_never_waits_and_to_show_more_again_does(world: World) -> None:
    publish(world)
    change_content(world)
    seen = posted(world)
    with pytest.raises(DescribedLatelyError) as refused:
        publish(world, shown="open", tasks=("stacking",))
    assert "data publish kita/pick --open --task stacking --again" in refused.value.remedy
    publish(world, shown="fits")
    assert [path for path, _ in seen][-1] == "/catalogue/descriptors?shown=fits"
    publish(world)  # the same again
    with pytest.raises(DescribedLatelyError, match="--open --again"):
        publish(world, shown="open")
    with pytest.raises(DescribedLatelyError, match="--fits-only --task other --again"):
        publish(world, shown="fits", tasks=("other",))
    publish(world)
    assert {path for path, _ in seen if "descriptors" in path} == {"/catalogue/descriptors?shown=fits"}


def test_an_import_that_shows_less_is_published_at_once(world: World) -> None:
    publish(world)
    change_content(world)
    seen = posted(world)
    assert world.add_data(shown="fits").data["shown"] == "fits"
    assert [path for path, _ in seen][-1] == "/catalogue/descriptors?shown=fits"


def test_what_is_kept_here_or_removed_says_that_others_still_see_the_last_descriptor(world: World) -> None:
    first = world.add_data(publish=False, shown="fits")
    assert "published  nothing yet: iriai-node data publish kita/pick --fits-only" in first.text
    assert not json.loads((world.home.published / "kita+pick.json").read_bytes())["wide"]
    publish(world)
    assert any("still see what was published before" in one for one in world.add_data(publish=False).text)
    assert any("still see its last descriptor" in one for one in data_remove(world.home, "kita/pick").text)


def test_the_choice_to_show_less_outlives_a_sending_that_failed(world: World) -> None:
    publish(world)
    change_content(world)
    real = world.member.client.post

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("offline")

    object.__setattr__(world.member.client, "post", fail)
    with pytest.raises(OSError, match="offline"):
        publish(world, shown="fits")
    object.__setattr__(world.member.client, "post", real)
    change_content(world)  # others see words still: it waits for nothing
    seen = posted(world)
    publish(world)
    assert [path for path, _ in seen][-1] == "/catalogue/descriptors?shown=fits"


def test_a_note_of_what_was_published_that_was_changed_opens_nothing(world: World) -> None:
    publish(world, shown="fits")
    (world.home.published / "kita+pick.json").write_bytes(b'{"shown":')
    seen = posted(world)
    with pytest.raises(StoreDamagedError):
        publish(world)
    assert seen == []


# --- words of a recording ---


def test_a_word_of_a_recording_leaves_only_if_its_owner_or_a_signed_recipe_has_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.sign()
    world.finalize()
    world.add_data(publish=False)
    words = ["pick-place", "order-84713-kobayashi", "smith-john-line-4"]
    store = Store(world.home.data)
    rename(store, words)
    assert task_words(world.home.data, "kita/pick") == set(words)
    seen = posted(world)
    answer = publish(world)
    assert seen[1][1]["tasks"] == ["pick-place"]  # the signed recipe's own task
    assert answer.data["tasks_left_out"] == sorted(words[1:])
    assert any("--task WORD" in line for line in answer.text)
    publish(world, tasks=("smith-john-line-4",), again="declared")
    publish(world)
    assert [one["tasks"] for path, one in seen if "descriptors" in path][1:] == [
        ["pick-place", "smith-john-line-4"]
    ] * 2
    assert "kobayashi" not in json.dumps(seen)


def rename(store: Store, words: list[str]) -> None:
    """Gives the stored episodes these tasks, one after the other."""
    from dataclasses import replace

    from client.data.episodes import write_episodes

    folder = store.folder("kita/pick", store.catalogue().dataset("kita/pick"))
    rows = store.episodes("kita/pick")
    named = [
        replace(row, meta=replace(row.meta, task=words[number % len(words)]))
        for number, row in enumerate(rows)
    ]
    write_episodes(folder, named)


# --- columns that a site keeps to itself ---

MAP = """clock = {rate_hz = 50}
secret = [%s]
keep_private = %s
signal = [
  {field = "joint_pos", columns = ["q{0..5}"], unit = "rad", role = "observation"},
  {field = "joint_torque", columns = ["t{0..5}"], unit = "Nm", role = "observation"},
]
embodiment = {class = "6r-arm", dof = 6, action_space = "none"}
"""


def arm(folder: Path, secret: str, keep: str = "true", **changes: Any) -> Any:
    folder.mkdir()
    rows = np.cumsum(np.random.default_rng(3).standard_normal((200, 12)) * 0.01, axis=0)
    head = ",".join([f"q{i}" for i in range(6)] + [f"t{i}" for i in range(6)])
    lines = [head, *(",".join(f"{value:.6f}" for value in row) for row in rows)]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    (folder / "m.toml").write_text(MAP % (secret, keep))
    return bring(
        folder / "s", folder / "a.csv", signal_map=folder / "m.toml",
        **({"allow": frozenset({"joint_pos", "joint_torque"}), "rights": RIGHTS, "node_key": KEY} | changes),
    )  # fmt: skip


def test_fingerprints_have_no_mark_of_a_secret_column_or_of_one_outside_the_contract(tmp_path: Path) -> None:
    a, b = SigningKey.from_seed(b"a" * 32), SigningKey.from_seed(b"b" * 32)
    arm(tmp_path / "mine", '"t?"')
    arm(tmp_path / "open", "")
    mine, theirs = tmp_path / "mine/s", tmp_path / "open/s"

    def shared(root: Path, sent: frozenset[str], asked: frozenset[str]) -> int:
        data = make_fingerprints(
            root, "kita/pick", contract=RIGHTS, fields=sent, key=a, peer=b.public, entropy=SeedEntropy(b"x")
        )
        found = compare_fingerprints(
            data, theirs, "kita/pick", contract=RIGHTS, fields=asked, key=b, peer=a.public
        )
        return len(found)

    torque, position = frozenset({"joint_torque"}), frozenset({"joint_pos"})
    assert shared(theirs, FIELD_NAMES, torque) == 1  # the planted copy is found where it may be
    assert shared(mine, FIELD_NAMES, position) == 1
    assert shared(mine, FIELD_NAMES, torque) == 0  # kept private
    assert shared(theirs, position, torque) == 0  # outside the contract
    assert comparable(mine, "kita/pick", torque) == (0, 1)


@pytest.mark.parametrize("word", ['"t{0..5}"', '"T?"', '" t{0..5} "', '"T{0..5}"'])
def test_a_secret_pattern_hides_what_it_looks_like(tmp_path: Path, word: str) -> None:
    with pytest.raises(MapInvalidError, match="secret"):
        arm(tmp_path / "mapped", word, keep="false")
    arm(tmp_path / "kept", word)
    entry = Store(tmp_path / "kept/s").catalogue().dataset("kita/pick")
    assert entry.private == ("observation.joint_torque",)


def test_a_secret_pattern_that_names_no_column_is_told(tmp_path: Path) -> None:
    report = arm(tmp_path / "d", '"torque_*", "t{0..5}"')
    assert {one.code: one.count for one in report.findings}["secret-matched-nothing"] == 1
    again = arm(tmp_path / "e", '"t?"')
    assert "secret-matched-nothing" not in {one.code for one in again.findings}
    with pytest.raises(MapInvalidError, match="rising"):
        arm(tmp_path / "f", '"t{5..0}"')
