# SPDX-License-Identifier: Apache-2.0
"""Data sets under a contract: what enters, what is published, and what another member may compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client.contract.reading import fetch
from client.data.errors import CertificateVoidError, DatasetUnknownError, FingerprintsError
from client.data.fingerprints import compare_fingerprints, make_fingerprints
from client.datasets.adding import Source, add_alone, data_publish
from client.datasets.comparing import data_compare, data_fingerprints
from client.datasets.marking import data_mark
from client.datasets.published import Asked
from client.datasets.showing import data_show
from client.errors import FileTakenError, NoSuchThingError
from client.settings import LocalRules
from policies.errors import SignatureInvalidError
from policies.identity import SigningKey
from policies.recipe import FIELD_NAMES
from tests.datasim import Recording, bring, write_v3
from tests.nodesim import SeedEntropy
from tests.nodeworld import World, write_recording

if TYPE_CHECKING:
    pass


@pytest.fixture
def draft(tmp_path: Path) -> World:
    """A node with an offer that nobody signed."""
    return World(tmp_path)


@pytest.fixture
def world(draft: World) -> World:
    """A node with a contract that everybody signed."""
    draft.sign()
    draft.finalize()
    return draft


def publish(world: World, **changes: Any) -> Any:
    outbox = world.outbox()
    options = {"dataset": "kita/pick", "contract": world.contract.digest, "rules": LocalRules()}
    asked = Asked(**changes.pop("asked", {}))
    try:
        return data_publish(world.member, world.shelf(), outbox, **(options | changes), asked=asked)
    finally:
        outbox.close()


def kinds(world: World) -> list[str]:
    """What left so far, as the outbox notes it."""
    outbox = world.outbox()
    try:
        return [one.kind for one in reversed(outbox.left.sent())]
    finally:
        outbox.close()


def test_adding_under_a_contract_certifies_and_publishes_coarse_words(world: World) -> None:
    answer = world.add_data()
    data = answer.data
    assert (data["dataset_id"], data["episodes"], data["frames"]) == ("kita/pick", 6, 6 * 24)
    assert data["certificate"]["verdict"] == "admitted"
    assert {one["check"] for one in data["findings"] if "check" in one} >= {"time"}
    assert data["contract"] == world.contract.digest
    assert json.dumps(data)


def test_adding_again_publishes_the_same_certificate(world: World) -> None:
    first = world.add_data().data
    again = world.add_data().data
    assert (again["episodes_added"], again["duplicates"], again["episodes"]) == (0, 6, 6)
    assert again["certificate"] == first["certificate"]


def test_an_import_stands_and_says_so_where_only_its_description_is_refused(
    world: World, tmp_path: Path
) -> None:
    info = tmp_path / "d/meta/info.json"
    write_recording(tmp_path / "d")
    info.write_text(json.dumps(json.loads(info.read_text()) | {"robot_type": "a robot"}))
    answer = world.add_data(source=tmp_path / "d")
    assert (answer.exit_code > 0, answer.data["episodes_added"]) == (True, 6)
    assert (answer.data["published"], answer.data["not_published"]) == (None, "data.map-invalid")
    assert "NOTHING" in "\n".join(answer.text)
    world.add_data(source=tmp_path / "d")
    assert data_show(world.home, world.member.identity, "kita/pick").data["contracts"] == [
        world.contract.digest
    ]


def test_a_data_set_that_no_recipe_lists_is_refused_before_anything_is_stored(world: World) -> None:
    with pytest.raises(NoSuchThingError, match="kita/pick"):
        world.add_data(dataset="kita/other")
    assert not list(world.home.data.rglob("*.parquet"))


def test_data_that_were_stored_alone_come_under_a_contract_by_adding_them_again(world: World) -> None:
    source = write_recording(world.folder / "recording")
    alone = add_alone(
        world.home,
        world.member.identity,
        Source(path=source),
        dataset="kita/pick",
        clock=world.clock,
    )
    assert alone.data["contract"] is None
    with pytest.raises(NoSuchThingError):
        publish(world, dataset="kita/none")
    under = world.add_data().data
    assert (under["episodes_added"], under["duplicates"]) == (0, 6)
    shown = data_show(world.home, world.member.identity, "kita/pick").data
    assert shown["contracts"] == [world.contract.digest]
    assert shown["certificate"]["verdict"] == "admitted"
    assert [one["check"] for one in shown["findings"]]


def test_publishing_again_sends_certificate_and_descriptor_and_says_what_others_see(world: World) -> None:
    world.add_data(publish=False)
    before = kinds(world)
    open_ = publish(world)
    assert kinds(world) == [*before, "certificate", "descriptor"]  # the descriptor names the certificate
    fits = publish(world, asked={"shown": "fits"})
    assert open_.data["dataset_id"] == fits.data["dataset_id"] == "kita/pick"
    assert "coarse words" in open_.text[0]
    assert "only which recipes" in fits.text[0]
    with pytest.raises(DatasetUnknownError):
        data_show(world.home, world.member.identity, "kita/none")


def test_nothing_is_published_without_a_certificate_of_this_node(world: World) -> None:
    world.add_data(publish=False)
    next(world.home.data.glob("quality/*/certificate.dsse")).write_bytes(b"{}")
    with pytest.raises(CertificateVoidError):
        publish(world)


@pytest.fixture
def signed(world: World) -> World:
    longer = Source(path=write_v3(world.folder / "v3", recording(0)))
    add_alone(world.home, world.member.identity, longer, dataset="kita/pick", clock=world.clock)
    fetch(world.member, world.shelf(), world.contract.digest)
    return world


def recording(seed: int) -> Recording:
    """Six episodes that are long enough to be known again, and one that is not."""
    return Recording.random(60, 60, 60, 60, 60, 60, 12, seed=seed)


def theirs(folder: Path, world: World, seed: int = 0) -> Path:
    """The store of another member; seed 0 has the same episodes."""
    source = write_v3(folder.with_name(f"v3-{folder.name}"), recording(seed))
    bring(folder, source, dataset="nord/pick", rights=world.contract.digest)
    return folder


def test_a_member_finds_its_own_episodes_in_a_file_that_was_made_for_it(
    signed: World, tmp_path: Path
) -> None:
    world, nord, iber = signed, signed.keys["nord"], signed.keys["iber"]
    answer = data_fingerprints(
        world.member, world.shelf(), "nord", tmp_path / "for-nord", dataset=None, contract=None,
        entropy=SeedEntropy(b"nonce"),
    )  # fmt: skip
    assert (answer.data["for"], answer.data["dataset_id"]) == ("nord", "kita/pick")
    assert (answer.data["comparable"], answer.data["episodes"]) == (6, 7)
    assert "data compare for-nord --from kita" in answer.text[-1]
    data = (tmp_path / "for-nord").read_bytes()
    options: dict[str, Any] = {
        "contract": world.contract.digest, "peer": world.member.identity.key.public, "fields": FIELD_NAMES,
    }  # fmt: skip
    same = compare_fingerprints(data, theirs(tmp_path / "same", world), "nord/pick", key=nord, **options)
    assert len(same) == 6
    other = compare_fingerprints(data, theirs(tmp_path / "else", world, 7), "nord/pick", key=nord, **options)
    assert other == ()
    with pytest.raises(FingerprintsError):  # it was made for nord
        compare_fingerprints(data, tmp_path / "same", "nord/pick", key=iber, **options)


def test_what_another_member_sent_names_episodes_of_this_site(signed: World, tmp_path: Path) -> None:
    world, file = signed, tmp_path / "from-nord"

    def made(seed: int, key: SigningKey) -> bytes:
        root = theirs(tmp_path / f"store-{seed}", world, seed)
        return make_fingerprints(
            root, "nord/pick", contract=world.contract.digest, fields=FIELD_NAMES, key=key,
            peer=world.member.identity.key.public, entropy=SeedEntropy(b"n"),
        )  # fmt: skip

    file.write_bytes(made(0, world.keys["nord"]))
    answer = data_compare(world.member, world.shelf(), file, "nord", dataset=None, contract=None)
    assert (answer.data["count"], len(answer.data["shared"]["kita/pick"])) == (6, 6)
    assert all(one.startswith("ep_") for one in answer.data["shared"]["kita/pick"])
    with pytest.raises(SignatureInvalidError):
        data_compare(world.member, world.shelf(), file, "iber", dataset=None, contract=None)
    file.write_bytes(made(7, world.keys["nord"]))
    assert (
        data_compare(world.member, world.shelf(), file, "nord", dataset=None, contract=None).data["count"]
        == 0
    )
    file.write_bytes(b"nonsense")
    with pytest.raises(FingerprintsError):
        data_compare(world.member, world.shelf(), file, "nord", dataset=None, contract=None)
    with pytest.raises(NoSuchThingError):
        data_compare(world.member, world.shelf(), tmp_path / "none", "nord", dataset=None, contract=None)


def test_fingerprints_need_a_contract_in_force_another_member_and_a_new_file(
    draft: World, tmp_path: Path
) -> None:
    world = draft
    world.add_data()
    out = tmp_path / "out"
    options: dict[str, Any] = {
        "dataset": None,
        "contract": world.contract.digest,
        "entropy": SeedEntropy(b"n"),
    }
    with pytest.raises(FingerprintsError, match="signatures"):
        data_fingerprints(world.member, world.shelf(), "nord", out, **options)
    world.sign()
    world.finalize()
    for peer in ("kita", "broker", "nobody"):
        with pytest.raises(NoSuchThingError, match="nord"):
            data_fingerprints(world.member, world.shelf(), peer, out, **options)
    with pytest.raises(DatasetUnknownError):
        data_fingerprints(world.member, world.shelf(), "nord", out, **(options | {"dataset": "kita/none"}))
    assert not out.exists()
    org = world.contract.party("nord")
    assert org is not None
    data_fingerprints(world.member, world.shelf(), org.org, out, **options)
    with pytest.raises(FileTakenError):
        data_fingerprints(world.member, world.shelf(), "nord", out, **options)


def test_marking_keeps_the_certificate(world: World) -> None:
    first = world.add_data().data["certificate"]
    name = data_show(world.home, world.member.identity, "kita/pick").data["episode_rows"][0]["episode"]
    data_mark(world.home, "kita/pick", [name], outcome="success", by="A. Sato", clock=world.clock)
    assert world.add_data().data["certificate"] == first
    assert publish(world).data["published"]
