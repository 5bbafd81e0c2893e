# SPDX-License-Identifier: Apache-2.0
"""How far a person's word reaches: one text in one round, until it is taken back; then nothing goes out by it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import httpx
import pytest

from client.contract.consent import consent_of
from client.contract.lane_book import LaneBook
from client.contract.negotiating import refuse
from client.contract.tending import tend
from client.errors import NotConfirmedError, NotSignedError, PeerUnreachableError
from policies.contract.negotiation.lanes import read_message
from policies.signing import Envelope
from tests.nodeworld import YES, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    one = World(tmp_path)
    one.broker.lanes.others_accept = False
    return one


def said(world: World) -> list[str]:
    """Types of what arrived at the broker, in order."""
    bodies = [json.loads(one) for one in world.broker.lanes.posted]
    return [read_message(Envelope.from_json(one["message"]).payload).type for one in bodies]


def worker(world: World) -> list[tuple[str, dict[str, str]]]:
    with contextlib.closing(world.outbox()) as outbox:
        return tend(world.member, world.shelf(), outbox)


def no(world: World):
    with contextlib.closing(world.outbox()) as outbox:
        return refuse(
            world.member, world.shelf(), outbox, world.contract.digest, code="changed.mind", confirm=YES
        )


def outgoing(world: World) -> str | None:
    body = LaneBook(world.home).page(world.negotiation).outgoing
    return None if body is None else read_message(Envelope.from_json(body["message"]).payload).type


def lose(world: World) -> str:
    """No message of the node arrives any more; gives the route."""

    def drop(_request, _body):
        raise httpx.ConnectError("lost")

    path = f"/negotiations/{world.negotiation}/messages"
    world.broker.routes[path] = drop
    return path


def verified_on_its_way(world: World) -> str:
    """Consent, ACCEPTED, AGREED; VERIFIED is written and does not arrive."""
    world.sign()
    world.broker.lanes.agree(world.talk)
    path = lose(world)
    assert worker(world)[0][1]["code"] == "peer.unreachable"
    assert outgoing(world) == "verify"
    return path


# --- a word that was taken back ---


def test_who_refuses_while_a_signature_is_on_its_way_does_not_sign(world: World):
    path = verified_on_its_way(world)
    world.broker.down = True
    with pytest.raises(PeerUnreachableError):
        no(world)
    assert (outgoing(world), consent_of(world.shelf(), world.contract)) == (None, None)
    world.broker.down = False
    del world.broker.routes[path]
    assert worker(world)[0][1]["said"] == "terminate"
    assert (said(world), world.broker.signatures) == (["accept", "terminate"], {})
    assert LaneBook(world.home).page(world.negotiation).refusal is None


def test_who_refuses_before_accepted_arrived_has_accepted_nothing(world: World):
    path = lose(world)
    with pytest.raises(PeerUnreachableError):
        world.sign()
    assert outgoing(world) == "accept"
    world.broker.down = True
    with pytest.raises(PeerUnreachableError):
        no(world)
    world.broker.down = False
    del world.broker.routes[path]
    assert worker(world)[0][1]["said"] == "terminate"
    assert said(world) == ["terminate"]


@pytest.mark.parametrize("nonsense", [b"x", b"[" * 900 + b"]" * 900, b"{}"])
def test_a_refusal_is_kept_whatever_the_broker_answers(world: World, nonsense: bytes):
    verified_on_its_way(world)
    world.broker.routes[f"/contracts/{world.contract.digest}/envelope"] = lambda *_: nonsense
    world.broker.routes["/contracts"] = lambda *_: nonsense
    with pytest.raises(Exception):  # noqa: B017  whatever it is, the no is kept
        no(world)
    page = LaneBook(world.home).page(world.negotiation)
    assert page.refusal is not None
    assert (page.outgoing, consent_of(world.shelf(), world.contract)) == (None, None)


def test_a_consent_that_is_gone_or_damaged_sends_nothing_again(world: World):
    for damage in (None, b"x"):
        path = verified_on_its_way(world) if damage is None else lose(world)
        file = world.shelf().folder(world.contract.digest) / "consent.json"
        kept = file.read_bytes()
        file.unlink() if damage is None else file.write_bytes(damage)
        del world.broker.routes[path]
        worker(world)
        assert (outgoing(world), world.broker.signatures) == (None, {})
        file.write_bytes(kept)
        lose(world)
        worker(world)
        assert outgoing(world) == "verify"


def test_what_may_not_be_signed_any_more_is_not_sent_again(world: World):
    path = verified_on_its_way(world)
    world.clock.ms += 200 * 86_400_000  # sign_by is over
    del world.broker.routes[path]
    assert worker(world)[0][1]["code"] == "contract.not-signed"
    assert (outgoing(world), world.broker.signatures) == (None, {})


def test_a_signed_lane_keeps_no_refusal(world: World):
    world.sign()
    world.broker.lanes.agree(world.talk)
    worker(world)
    with pytest.raises(NotSignedError, match="VERIFIED"):
        no(world)
    assert LaneBook(world.home).page(world.negotiation).refusal is None


# --- a word is about one text in one round ---


def again(world: World) -> None:
    """The broker opens another negotiation of the same text."""
    world.negotiation = world.broker.lanes.offer(world.contract.digest)


def test_a_word_ends_with_its_lane_and_says_nothing_in_another_negotiation(world: World):
    world.sign()
    world.broker.lanes.say(world.talk, "terminate", code="round-closed")
    assert worker(world) == []
    assert consent_of(world.shelf(), world.contract) is None
    again(world)
    assert worker(world) == []
    world.broker.lanes.agree(world.talk)  # out of turn: a lie as well
    worker(world)
    assert (said(world), world.broker.signatures) == (["accept"], {})


def test_a_word_that_nobody_could_void_says_nothing_in_another_negotiation_either(world: World):
    world.sign()
    world.broker.lanes.say(world.talk, "terminate", code="round-closed")  # the worker did not run
    again(world)
    assert worker(world) == []
    assert said(world) == ["accept"]
    asked: list[str] = []
    world.sign(confirm=lambda shown: bool(asked.append(shown)) or True)
    assert len(asked) == 1
    assert said(world) == ["accept", "accept"]


def test_a_word_does_not_come_back_with_its_text_in_a_later_round(world: World):
    world.sign()
    newer = world.hold(world.draft(title="A counter-offer of somebody else"))
    world.broker.lanes.counter(world.talk, newer.digest)
    world.broker.lanes.counter(world.talk, world.contract.digest)  # and back, before the worker looked
    assert worker(world) == []
    assert said(world) == ["accept"]
    assert consent_of(world.shelf(), world.contract) is None


def test_a_consent_that_was_damaged_is_asked_for_again(world: World):
    world.sign()
    (world.shelf().folder(world.contract.digest) / "consent.json").write_bytes(b"x")
    with pytest.raises(NotConfirmedError):
        world.sign(confirm=lambda _shown: False)
    world.sign()
    found = consent_of(world.shelf(), world.contract)
    assert found is not None
    assert (found.negotiation, found.round) == (world.negotiation, 1)
