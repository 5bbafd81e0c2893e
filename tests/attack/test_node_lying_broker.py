# SPDX-License-Identifier: Apache-2.0
"""A broker that lies in a negotiation: whatever it shows, the node signs nothing that its owner did not agree to."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.contract.consent import consent_of
from client.contract.lane_book import LaneBook
from client.contract.reading import fetch
from client.contract.tending import tend
from client.errors import (
    DigestMismatchError,
    NoSuchThingError,
    PeerAnswerError,
    RemoteRefusalError,
    StaleOfferError,
)
from policies.contract.errors import (
    BadTransitionError,
    LaneMessageError,
    MessageConflictError,
    OvertakenError,
)
from policies.contract.errors import DigestMismatchError as TextMismatchError
from policies.contract.negotiation.lanes import read_message
from policies.errors import IriaiError, SignatureInvalidError
from policies.identity import SigningKey, key_text
from policies.signing import Envelope
from tests.nodelanes import reseal
from tests.nodeworld import IN_TERM_MS, YES, World

LATER = {"term.effective": "2026-12-21T00:00:00Z"}
STRANGER = SigningKey.from_seed(b"S" * 32)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def agreed(world: World) -> World:
    """A node whose owner accepted, and a broker that has agreed; nothing is verified yet."""
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    return world


def worker(world: World) -> list[tuple[str, dict[str, str]]]:
    outbox = world.outbox()
    try:
        return tend(world.member, world.shelf(), outbox)
    finally:
        outbox.close()


def nothing_was_signed(world: World) -> bool:
    """Neither to the broker, nor in the outbox, nor in a message that could go out later."""
    waiting = [LaneBook(world.home).page(name).outgoing for name in world.broker.lanes.talks]
    bodies = [json.loads(one) for one in world.broker.lanes.posted] + [one for one in waiting if one]
    kinds = [read_message(Envelope.from_json(one["message"]).payload).type for one in bodies]
    return world.broker.signatures == {} and "verify" not in kinds and not world.outbox().envelopes()


def lie(world: World, change: Callable[[dict[str, Any]], Any]) -> None:
    """The broker shows a changed view from now on: what ``change`` returns, or what it changed in place."""

    def told(view: dict[str, Any]) -> dict[str, Any]:
        shown = copy.deepcopy(view)
        found = change(shown)
        return shown if found is None else found

    world.broker.lanes.lies.append(told)


def key(world: World) -> SigningKey:
    return world.broker.key


# --- other bytes ---


def test_other_bytes_than_the_offered_digest_are_not_kept_and_not_signed(world: World):
    name = world.contract.digest
    other = world.draft(title="Another text").canonical
    world.broker.contracts[name] = other
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert nothing_was_signed(world)
    assert not world.home.contracts.exists()


def test_a_recipe_other_than_the_one_that_the_text_names_is_not_signed(world: World):
    world.broker.annexes[world.recipe.digest] = world.recipe.canonical + b" "
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert nothing_was_signed(world)


def test_a_text_in_which_this_node_is_no_party_is_not_kept(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["key"] = key_text(STRANGER.public)
    world.offer(parties=parties)
    with pytest.raises(NoSuchThingError, match="pins this node's key"):
        fetch(world.member, world.shelf(), world.contract.digest)
    with pytest.raises(NoSuchThingError):
        world.sign()
    facts = {"contract": world.contract.digest, "code": "node.not-found"}
    assert worker(world) == [("contract-waits", facts)]
    assert nothing_was_signed(world)
    assert world.contract.digest not in world.shelf().digests()


# --- messages that nobody said ---


def _forged(view: dict[str, Any]) -> None:
    view["messages"][-1]["message"] = reseal(view["messages"][-1]["message"], STRANGER)


def _flipped(view: dict[str, Any]) -> None:
    one = view["messages"][-1]["message"]["signatures"][0]
    one["sig"] = ("A" if one["sig"][0] != "A" else "B") + one["sig"][1:]


def _unsigned(view: dict[str, Any]) -> None:
    view["messages"][-1]["message"]["signatures"] = []


@pytest.mark.parametrize("change", [_forged, _flipped, _unsigned])
def test_a_message_that_the_pinned_key_did_not_sign_counts_for_nothing(agreed: World, change):
    lie(agreed, change)
    with pytest.raises(SignatureInvalidError):
        agreed.sign()
    assert worker(agreed)[0][1]["code"] == "identity.signature-invalid"
    assert nothing_was_signed(agreed)


def test_the_broker_cannot_speak_for_the_node(agreed: World):
    def accepted_for_us(view: dict[str, Any]) -> None:
        one = view["messages"][1]
        one["message"] = reseal(one["message"], key(agreed))

    lie(agreed, accepted_for_us)
    with pytest.raises(SignatureInvalidError):
        agreed.sign()
    assert nothing_was_signed(agreed)


def test_a_node_does_not_take_its_own_message_for_the_brokers(agreed: World):
    lie(agreed, lambda view: view["messages"][2].update(message=view["messages"][1]["message"]))
    with pytest.raises((MessageConflictError, BadTransitionError)):
        agreed.sign()
    assert nothing_was_signed(agreed)


# --- another order ---


@pytest.mark.parametrize("kind", ["agree", "finalize"])
def test_a_state_that_is_skipped_is_refused(world: World, kind: str):
    if kind == "agree":
        world.broker.lanes.agree(world.talk)  # nobody here accepted
    else:
        world.broker.lanes.say(world.talk, "finalize")
    with pytest.raises(BadTransitionError, match="OFFERED"):
        world.sign()
    assert worker(world)[0][1]["code"] == "negotiation.bad-transition" if kind == "agree" else True
    assert nothing_was_signed(world)


def test_agreed_without_an_accepted_after_a_counter_offer_is_refused(world: World):
    from client.contract.countering import counter

    world.broker.lanes.others_accept = False
    mine = world.draft(title="Ours")
    counter(world.member, world.shelf(), world.outbox(), mine.canonical.decode(), confirm=YES)
    world.broker.lanes.agree(world.talk)
    world.contract = mine
    with pytest.raises(BadTransitionError):
        world.sign()
    assert nothing_was_signed(world)


def test_agreed_on_another_text_than_was_accepted_is_refused(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    other = world.hold(world.draft(title="Another text"))
    world.broker.lanes.say(world.talk, "agree", digest=other.digest)
    with pytest.raises((TextMismatchError, OvertakenError)):
        world.sign()
    codes = [facts["code"] for event, facts in worker(world) if event == "contract-waits"]
    assert codes == ["negotiation.digest-mismatch"]
    assert nothing_was_signed(world)


@pytest.mark.parametrize("prev", ["sha256:" + "0" * 64, None])
def test_a_message_that_does_not_follow_the_one_before_is_refused(world: World, prev):
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.say(world.talk, "agree", prev=prev)
    with pytest.raises(MessageConflictError, match="hash"):
        world.sign()
    assert nothing_was_signed(world)


def test_a_lane_of_somebody_else_is_refused(world: World):
    world.broker.lanes.others_accept = False
    world.sign()
    for changes in (
        {"pid": "lane_aaaaaaaaaaaaaaaa"},
        {"party": "nord"},
        {"negotiation": "neg_aaaaaaaaaaaaaaaa"},
    ):
        talk = copy.deepcopy(world.talk)
        world.broker.lanes.talks[world.negotiation].lines.append(
            world.broker.lanes.sealed(world.talk, "agree", **changes)
        )
        with pytest.raises(BadTransitionError):
            world.sign()
        world.broker.lanes.talks[world.negotiation] = talk
    assert nothing_was_signed(world)


# --- the past, shown again or taken back ---


def test_an_offer_that_is_shown_again_is_refused(agreed: World):
    lie(agreed, lambda view: view["messages"].append({"seq": 4, "message": view["messages"][0]["message"]}))
    with pytest.raises(MessageConflictError, match="once"):
        agreed.sign()
    assert nothing_was_signed(agreed)


def test_a_lane_that_goes_back_to_its_offer_is_refused(agreed: World):
    def back(view: dict[str, Any]) -> None:
        first = read_message(Envelope.from_json(view["messages"][0]["message"]).payload)
        view["messages"] = view["messages"][:1]
        view["lane"] |= {"state": "OFFERED", "last_hash": first.hash}

    lie(agreed, back)
    with pytest.raises(MessageConflictError, match="as it was shown before"):
        agreed.sign()
    assert nothing_was_signed(agreed)


def test_a_message_that_is_replaced_after_it_was_seen_is_refused(world: World):
    talk = world.talk
    world.broker.lanes.others_accept = False
    world.sign(confirm=lambda _shown: True)
    again = world.hold(world.draft(title="What was offered all along"))
    talk.lines.clear()
    talk.last = None
    world.broker.lanes.say(talk, "offer", digest=again.digest)
    world.contract = again
    with pytest.raises(MessageConflictError):
        world.sign()
    assert nothing_was_signed(world)


def test_an_ended_lane_is_not_opened_again(world: World):
    newer = world.hold(world.draft(title="A counter-offer"))
    old = world.talk.pid
    world.broker.lanes.counter(world.talk, newer.digest)
    world.contract = newer
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.say(world.talk, "terminate", code="superseded-by-round-3")
    world.talk.last = None
    world.talk.state = "open"
    world.broker.lanes.say(world.talk, "offer", pid=old, round=3)
    with pytest.raises(BadTransitionError, match="again"):
        world.sign()
    assert nothing_was_signed(world)


def test_a_round_does_not_go_back(world: World):
    newer = world.hold(world.draft(title="A counter-offer"))
    world.broker.lanes.counter(world.talk, newer.digest)
    world.contract = newer
    world.broker.lanes.others_accept = False
    world.broker.lanes.say(world.talk, "terminate", code="superseded-by-round-3")
    world.talk.last = None
    world.talk.state = "open"
    world.broker.lanes.say(world.talk, "offer", pid="lane_bbbbbbbbbbbbbbbb", round=1)
    with pytest.raises(BadTransitionError, match="round from 2"):
        world.sign()
    assert nothing_was_signed(world)


def test_an_old_version_that_is_offered_as_new_is_refused(world: World):
    world.sign()
    world.finalize()
    world.sign()
    before, world.clock.ms = len(world.broker.lanes.posted), IN_TERM_MS
    world.succeed(title="Second")
    world.sign()
    world.finalize()
    world.sign()
    second = len(world.broker.lanes.posted)
    assert second > before
    world.offer(sign_by="2026-12-20T00:00:00Z", title="The first again, with other words", **LATER)
    with pytest.raises(StaleOfferError) as raised:
        world.sign()
    assert (raised.value.code, raised.value.exit_code) == ("contract.superseded", 4)
    assert "report" in raised.value.remedy
    assert len(world.broker.lanes.posted) == second


# --- what the broker says about the lane ---


@pytest.mark.parametrize(
    "change",
    [
        {"state": "AGREED"},
        {"round": 2},
        {"digest": "sha256:" + "1" * 64},
        {"last_hash": "sha256:" + "1" * 64},
        {"pid": "lane_aaaaaaaaaaaaaaaa"},
        {"party": "nord"},
    ],
)
def test_a_lane_that_its_messages_do_not_show_is_refused(world: World, change: dict[str, Any]):
    lie(world, lambda view: view["lane"].update(change))
    with pytest.raises(BadTransitionError, match="messages show"):
        world.sign()
    assert nothing_was_signed(world)


@pytest.mark.parametrize(
    "change",
    [
        lambda view: [],
        lambda view: {"id": view["id"]},
        lambda view: view.update(messages=[5]),
        lambda view: view.update(messages=[{"seq": "1", "message": view["messages"][0]["message"]}]),
        lambda view: view.update(messages=[{"seq": True, "message": view["messages"][0]["message"]}]),
        lambda view: view.update(lanes=[]),
        lambda view: view["lane"].update(state="SIGNED"),
        lambda view: view.update(digest="../x"),
        lambda view: view.update(waiting_for=None),
        lambda view: view.update(lane=None),
    ],
)
def test_an_answer_of_another_form_is_refused_and_nothing_is_kept(world: World, change):
    lie(world, change)
    with pytest.raises((PeerAnswerError, LaneMessageError, BadTransitionError)):
        world.sign()
    assert nothing_was_signed(world)
    assert LaneBook(world.home).page(world.negotiation).lines == ()


def test_a_payload_that_is_no_message_is_refused(world: World):
    def other(view: dict[str, Any]) -> None:
        view["messages"][0]["message"] = Envelope.seal(
            b'{"schema":"iriai-lane/1"}', "application/vnd.iriai.lane.v1+json", key(world)
        ).to_json()

    lie(world, other)
    with pytest.raises(LaneMessageError):
        world.sign()


def test_another_negotiation_than_was_asked_for_is_refused(world: World):
    lie(world, lambda view: view.update(id="neg_aaaaaaaaaaaaaaaa"))
    with pytest.raises(BadTransitionError, match="negotiation"):
        world.sign()


def test_a_negotiation_id_that_is_a_path_is_refused(world: World):
    world.broker.routes["/contracts"] = lambda request, _body: (
        {
            "contracts": [
                {"digest": world.contract.digest, "negotiation": "../../node.key", "state": "offered"}
            ]
        }
        if request.url.path.endswith("/contracts")
        else world.broker.contracts[world.contract.digest]
    )
    fetch_first = world.shelf()
    with pytest.raises(IriaiError):
        world.sign()
    assert fetch_first.digests() == () or nothing_was_signed(world)
    assert not (world.home.root / "node.key.json").exists()


# --- one lie does not stop the others ---


def test_what_fails_in_one_negotiation_does_not_keep_another_waiting(world: World):
    first = world.contract
    world.broker.lanes.others_accept = False
    world.sign()
    world.broker.lanes.agree(world.talk)
    world.offer(contract_id="ctr_bbbbbbbbbbbbbbbb", title="Another pool")
    world.sign()
    world.broker.lanes.agree(world.talk)
    good = world.talk.id

    def wrong(view: dict[str, Any]) -> None:
        if view["id"] != good:
            _forged(view)

    lie(world, wrong)
    told = dict(worker(world))
    assert told["contract-waits"] == {"contract": first.digest, "code": "identity.signature-invalid"}
    assert told["contract-said"]["contract"] == world.contract.digest


def test_a_lane_book_that_was_changed_stops_its_negotiation(agreed: World):
    path = agreed.home.contracts / "lanes" / f"{agreed.negotiation}.json"
    for data in (b"", b"{}", b'{"schema":"iriai-lanes/1","negotiation":"neg_aaaaaaaaaaaaaaaa"}'):
        path.write_bytes(data)
        with pytest.raises(IriaiError) as raised:
            agreed.sign()
        assert (raised.value.code, raised.value.exit_code) == ("node.lane-book", 7)
    assert agreed.broker.signatures == {}


def test_a_non_party_learns_nothing_about_a_contract(world: World):
    with pytest.raises(RemoteRefusalError):
        fetch(world.member, world.shelf(), "sha256:" + "7" * 64)
    assert consent_of(world.shelf(), world.contract) is None
