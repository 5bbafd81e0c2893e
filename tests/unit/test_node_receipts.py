# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.errors import EquivocationError, PeerAnswerError, ReceiptError
from client.outbox import Outbox
from client.receipts import LogView
from policies.identity import SigningKey
from policies.log.entries import alias, entry_body, from_envelope, private_values
from policies.log.envelope import open_envelope
from policies.log.errors import NoteError, QuorumError
from tests.nodesim import ORIGIN, BrokerSim, HandClock, SeedEntropy

KEY = SigningKey.from_seed(b"n" * 32)


@pytest.fixture
def broker() -> BrokerSim:
    sim = BrokerSim()
    for number in range(6):
        sim.log.noise(number)
    return sim


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "o.db", key=KEY, origin=ORIGIN, clock=HandClock(), entropy=SeedEntropy(b"o"))


def _vote(outbox: Outbox, number: int = 1):
    body = {"subject": f"sha256:{number:064x}", "vote": "approve", "clause": None}
    with outbox.writing() as letters:
        return letters.seal("vote.cast", body=body)


def _view(outbox: Outbox, broker: BrokerSim, *, fetch: bool = False) -> LogView:
    return LogView(outbox, broker.log.vkey, fetch=broker.log.news if fetch else None)


def test_the_head_is_taken_over_step_by_step(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    for old, new in ((0, 3), (3, 4), (4, 7)):
        assert view.news(broker.log.news(old, new), None).head.size == new
    assert view.news(broker.log.news(7), None).head.size == 7


def test_a_receipt_proves_the_own_entry_and_frees_the_envelope(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    view.news(broker.log.news(0), None)
    index = broker.take(_vote(outbox), key=KEY.public)
    outcome = view.news(broker.log.news(7), [broker.log.receipt(index)])
    assert (outcome.receipted, outcome.unlinked, outbox.pending()) == (1, (), ())
    stored = outbox.envelopes()[0]
    assert stored.log_index == index
    assert stored.receipt is not None


def test_the_next_envelope_says_what_was_seen_and_acknowledged(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    index = broker.take(_vote(outbox), key=KEY.public)
    view.news(broker.log.news(0), [broker.log.receipt(index)])
    broker.take(_vote(outbox, 2), key=KEY.public)  # the simulated log checks chain, seen and root
    payload = json.loads(outbox.envelopes()[1].envelope.payload)
    assert payload["seen"]["size"] == 8
    assert payload["ack"]["index"] == index


def test_two_roots_of_one_size_stop_the_node(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    view.news(broker.log.news(0), None)
    fork = broker.log.fork(5)
    fork.noise(100)
    fork.noise(101)
    assert fork.size == broker.log.size
    with pytest.raises(EquivocationError):
        view.news(fork.news(0), None)
    ((_at_ms, reason, evidence),) = outbox.evidence()
    assert "two roots at size 7" in reason
    assert fork.note().splitlines()[2] in evidence
    assert broker.log.note().splitlines()[2] in evidence
    with pytest.raises(EquivocationError):
        view.news(broker.log.news(7), None)


def test_a_larger_head_that_is_no_extension_stops_the_node(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    view.news(broker.log.news(0), None)
    fork = broker.log.fork(5)
    for number in range(100, 106):
        fork.noise(number)
    with pytest.raises(EquivocationError, match="no consistency"):
        view.news(fork.news(7), None)
    assert outbox.shown.seen().size == 7


def test_a_head_without_its_proof_is_not_taken_over(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    view.news(broker.log.news(0, 4), None)
    outcome = view.news({**broker.log.news(0), "proof": []}, None)
    assert (outcome.head.size, outcome.unlinked) == (4, (7,))


def test_a_head_without_its_proof_is_tied_by_asking(outbox: Outbox, broker: BrokerSim):
    _view(outbox, broker).news(broker.log.news(0, 4), None)
    outcome = _view(outbox, broker, fetch=True).news({**broker.log.news(0), "proof": []}, None)
    assert (outcome.head.size, outcome.unlinked) == (7, ())


def test_a_fork_is_found_by_asking(outbox: Outbox, broker: BrokerSim):
    _view(outbox, broker).news(broker.log.news(0, 6), None)
    fork = broker.log.fork(4)
    for number in range(100, 104):
        fork.noise(number)
    view = LogView(outbox, broker.log.vkey, fetch=fork.news)
    with pytest.raises(EquivocationError):
        view.advance()


def test_a_receipt_at_an_older_head_is_tied_by_asking(outbox: Outbox, broker: BrokerSim):
    index = broker.take(_vote(outbox), key=KEY.public)
    old = broker.log.receipt(index)
    for number in range(50, 53):
        broker.log.noise(number)
    view = _view(outbox, broker, fetch=True)
    assert view.news(broker.log.news(0), [old]).unlinked == ()
    assert outbox.shown.seen_at(8) is not None


def test_a_receipt_of_a_forked_head_stops_the_node(outbox: Outbox, broker: BrokerSim):
    _view(outbox, broker).news(broker.log.news(0), None)
    sim = BrokerSim()
    sim.log = broker.log.fork(3)
    for number in range(100, 104):
        sim.log.noise(number)
    index = len(sim.log.bodies)
    payload = open_envelope(_vote(outbox), KEY.public)
    event = from_envelope(outbox.pending()[0].envelope, payload, actor=alias(b"a" * 32, None, None, None))
    salts = dict.fromkeys(private_values(event, 1), b"s" * 16)
    sim.log.bodies.append(entry_body(event, log=ORIGIN, now_ms=1, salts=salts))
    for number in range(300, 304):
        broker.log.noise(number)
    with pytest.raises(EquivocationError):
        _view(outbox, broker, fetch=True).news(None, [sim.log.receipt(index)])
    assert outbox.pending()  # nothing was receipted


@pytest.mark.parametrize("what", ["entry", "index", "hash", "note", "form", "other"])
def test_a_receipt_that_proves_nothing_is_refused(outbox: Outbox, broker: BrokerSim, what: str):
    view = _view(outbox, broker)
    view.news(broker.log.news(0), None)
    index = broker.take(_vote(outbox), key=KEY.public)
    good = broker.log.receipt(index)
    lines = good["proof"].split("\n")
    bad = {
        "entry": {**good, "entry": good["entry"].replace('"round":null', '"round":1')},
        "index": {**good, "proof": good["proof"].replace(f"index {index}", f"index {index - 1}")},
        "hash": {**good, "proof": "\n".join([*lines[:2], lines[3], lines[2], *lines[4:]])},
        "note": {**good, "proof": good["proof"][:-20]},
        "form": {"proof": good["proof"]},
        "other": broker.log.receipt(1),
    }[what]
    with pytest.raises((ReceiptError, NoteError)):
        view.news(broker.log.news(7), [bad])
    assert len(outbox.pending()) == 1
    assert outbox.shown.seen().size == 7


def test_a_note_of_another_log_key_is_refused(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    broker.log.key = SigningKey.from_seed(b"X" * 32)
    with pytest.raises((QuorumError, NoteError)):
        view.news(broker.log.news(0), None)
    assert outbox.shown.seen().size == 0


@pytest.mark.parametrize(
    "log", [[], {"note": 1}, {"note": "x", "proof": "y"}, {"note": "x", "proof": ["!"]}, 7]
)
def test_news_of_another_form_are_refused(outbox: Outbox, broker: BrokerSim, log: object):
    with pytest.raises(PeerAnswerError):
        _view(outbox, broker).news(log, None)


def test_a_stored_receipt_is_never_replaced(outbox: Outbox, broker: BrokerSim):
    view = _view(outbox, broker)
    index = broker.take(_vote(outbox), key=KEY.public)
    view.news(broker.log.news(0), [broker.log.receipt(index)])
    first = outbox.envelopes()[0].receipt
    broker.log.noise(77)
    view.news(broker.log.news(8), [broker.log.receipt(index)])
    assert outbox.envelopes()[0].receipt == first
