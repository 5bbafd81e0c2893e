# SPDX-License-Identifier: Apache-2.0
"""A published data set leaves the catalogue again: what is signed, what is said, what is remembered."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from client.datasets.published import read_published, standing, was_published
from client.datasets.removing import data_remove
from client.datasets.showing import data_show
from client.datasets.withdrawing import data_withdraw
from client.errors import NoSuchThingError
from policies.errors import SignatureInvalidError
from policies.identity import SigningKey
from policies.messages import open_descriptor, seal_descriptor
from policies.signing import Envelope
from policies.withdrawal import open_withdrawal
from tests.nodeworld import World
from tests.unit.test_datasets_contract import kinds, publish

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from client.answers import Answer

NAME = "kita/pick"


class CatalogueSim:
    """What a broker does with this node's descriptors and withdrawals."""

    def __init__(self, world: World) -> None:
        self.key = world.member.identity.key.public
        self.rows: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, int] = {}
        self.number = 0
        world.broker.routes |= {
            "/catalogue/descriptors": self._published,
            "/catalogue/withdrawals": self._withdrawn,
            "/catalogue": self._listed,  # by prefix: the other ones before it
        }

    def _published(self, _request: httpx.Request, body: Any) -> Any:
        found = open_descriptor(Envelope.from_json(body), self.key)
        self.number += 1
        self.rows[found.dataset] = {
            "org": "org_kita",
            "dataset": found.dataset,
            "digest": found.digest,
            "number": self.number,
            "view": {},
            "envelope": body,
        }
        self.ended.pop(found.dataset, None)
        return {"dataset": found.dataset, "digest": found.digest}

    def _withdrawn(self, _request: httpx.Request, body: Any) -> Any:
        found = open_withdrawal(Envelope.from_json(body), self.key)
        row = self.rows.pop(found.dataset)
        assert (found.number, found.descriptor) == (row["number"], row["digest"])
        self.ended[found.dataset] = found.number
        return {"dataset": found.dataset, "digest": found.descriptor, "number": found.number}

    def _listed(self, _request: httpx.Request, _body: Any) -> Any:
        others = {"org": "org_nord", "dataset": "nord/pick", "digest": None, "number": None}
        ended = [{"org": "org_kita", "dataset": one} for one in self.ended]
        return {"datasets": [others, *self.rows.values()], **({"withdrawn": ended} if ended else {})}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.sign()
    made.finalize()
    return made


def withdraw(world: World, dataset: str = NAME, *, dry_run: bool = False) -> Answer:
    outbox = world.outbox()
    try:
        return data_withdraw(world.member, world.shelf(), outbox, dataset=dataset, dry_run=dry_run)
    finally:
        outbox.close()


def digest_of(folder: Path) -> str:
    """Of every file that is no working file of SQLite, with its name."""
    found = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and not one.name.endswith("-shm")):
        found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def test_what_was_published_is_withdrawn_once_and_published_again(world: World) -> None:
    world.add_data(publish=False)
    shelf = CatalogueSim(world)
    with pytest.raises(NoSuchThingError, match="kita/none"):
        withdraw(world, "kita/none")
    assert withdraw(world).data["withdrawn"] is False  # it was never there
    assert "withdrawal" not in kinds(world)
    publish(world)
    before = kinds(world)

    first = withdraw(world)
    assert first.data["withdrawn"] is True
    assert first.data["contracts"] == [world.contract.digest]  # that are untouched, in words:
    assert any("untouched" in one for one in first.text)
    assert kinds(world) == [*before, "withdrawal"]
    assert (standing(world.home, NAME), was_published(world.home, NAME)) == ("withdrawn", False)
    assert data_show(world.home, world.member.identity, NAME).data["catalogue"] == "withdrawn"

    again = withdraw(world)  # nothing is sent twice
    assert (again.data["withdrawn"], again.data["descriptor"]) == (True, None)
    assert kinds(world) == [*before, "withdrawal"]

    world.clock.ms += 1000
    publish(world)
    assert (standing(world.home, NAME), shelf.number) == ("published", 2)
    assert withdraw(world).data["withdrawn"] is True
    assert shelf.ended == {NAME: 2}


def test_a_dry_run_says_what_would_leave_and_changes_nothing_anywhere(world: World) -> None:
    world.add_data(publish=False)
    shelf = CatalogueSim(world)
    publish(world)
    before, rows = digest_of(world.home.root), dict(shelf.rows)
    asked = [one for one in world.broker.seen_requests if one[0] != "GET"]
    told = withdraw(world, dry_run=True)
    assert told.data["dry_run"] is True
    assert told.data["contracts"] == [world.contract.digest]
    assert digest_of(world.home.root) == before
    assert [one for one in world.broker.seen_requests if one[0] != "GET"] == asked
    assert shelf.rows == rows


def test_a_lost_answer_and_a_note_that_cannot_be_read_hold_no_withdrawal_up(world: World) -> None:
    world.add_data(publish=False)
    shelf = CatalogueSim(world)
    publish(world)
    del shelf.rows[NAME]  # the broker took it; its answer was lost
    shelf.ended[NAME] = 1
    assert withdraw(world).data["withdrawn"] is True
    assert standing(world.home, NAME) == "withdrawn"
    world.clock.ms += 1000
    publish(world)
    note = world.home.published / "kita+pick.json"
    note.write_bytes(b"{")
    assert withdraw(world).data["withdrawn"] is True
    assert (note.read_bytes(), shelf.rows) == (b"{", {})


def test_files_that_are_gone_leave_a_descriptor_that_can_still_be_withdrawn(world: World) -> None:
    world.add_data(publish=False)
    CatalogueSim(world)
    publish(world)
    left = world.home.root / ".rehearsal-killed" / "data"
    left.mkdir(parents=True)
    gone = data_remove(world.home, NAME)
    assert not left.parent.exists()  # a dry run that was killed keeps nothing
    assert any("data withdraw kita/pick" in one for one in gone.text)
    assert withdraw(world).data["withdrawn"] is True
    assert read_published(world.home, NAME).withdrawn_ms > 0


@pytest.mark.parametrize("planted", ["another key", "another data set"])
def test_nothing_is_signed_about_what_this_node_never_published(world: World, planted: str) -> None:
    world.add_data(publish=False)
    shelf = CatalogueSim(world)
    publish(world)
    row = shelf.rows[NAME]
    found = open_descriptor(Envelope.from_json(row["envelope"]), shelf.key)
    if planted == "another key":
        row["envelope"] = seal_descriptor(found, SigningKey.from_seed(b"x" * 32)).to_json()
    else:
        other = found.model_copy(update={"dataset": "kita/other"})
        row["envelope"] = seal_descriptor(other, world.member.identity.key).to_json()
    sent = kinds(world)
    with pytest.raises(SignatureInvalidError, match="telephone"):
        withdraw(world)
    assert kinds(world) == sent
