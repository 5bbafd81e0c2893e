# SPDX-License-Identifier: Apache-2.0
"""A broker that shows its witnesses two histories, an older one, or witnesses of its own making."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.errors import EquivocationError, PeerAnswerError
from client.receipts import LogView, fetch_consistency
from client.witnessing.loop import EVIDENCE
from client.witnessing.running import watch_for_ever
from policies.identity import SigningKey
from policies.log.checkpoint import parse_note
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.equivocation import parse_evidence
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import seal_statement, witness_name
from tests.brokersim import ORIGIN, SeedEntropy
from tests.witnessim import WitnessNode, WitnessPool, witness_pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WitnessPool]:
    with witness_pool(tmp_path) as made:
        made.settle()
        yield made


def forked(pool: WitnessPool, first: int, second: int, away: tuple[str, ...] = ("iber", "hanbit")) -> Any:
    """Two brokers on one key from here on; some of the members see the second one."""
    other = pool.split()
    pool.grow(first)
    pool.grow(second, street=other)
    for name in away:
        pool.nodes[name].way.street = other
    pool.clock.ms += 2_000
    other.house.clock.ms = pool.clock.ms
    return other


def check_stopped(pool: WitnessPool, node: WitnessNode) -> None:
    """The evidence holds by itself, and nothing is signed any more, in this process or the next."""
    key = VerifierKey.parse(node.member.broker.log_vkey)
    text = (node.home.root / EVIDENCE).read_text("utf-8")
    assert "signed" in parse_evidence(text).check([key])
    for _ in range(2):
        with pytest.raises(EquivocationError):
            node.turn()
        with pytest.raises(EquivocationError), node.outbox.writing():
            pass
        node.restart()
    assert pool.house.services.writer.frozen is not None


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 3), (4, 2)])
def test_of_two_views_none_reaches_the_quorum_and_who_compares_has_evidence(
    pool: WitnessPool, first: int, second: int
) -> None:
    before = pool.nodes["kita"].standing.size
    other = forked(pool, first, second)
    pool.settle()
    for node in pool.nodes.values():
        assert node.standing.size == before
    for street in (pool.street, other):
        assert street.house.services.witnessing.newest.head.size <= before
    iber = pool.nodes["iber"]
    iber.way.street = pool.street  # the operator shows it the first view after all
    if first < second:  # a smaller log refutes nothing by itself: it is a complaint, and grows until it does
        with pytest.raises(PeerAnswerError):
            iber.turn()
        assert "amnesia" in str(pool.house.services.writer.frozen)
        return
    with pytest.raises(EquivocationError):
        iber.turn()
    check_stopped(pool, iber)


def test_one_who_signs_everything_gives_the_quorum_to_one_view_only(pool: WitnessPool) -> None:
    """Four voters, three needed: one of them may collude with the broker (2k - n - 1 = 1)."""
    before = pool.nodes["nord"].standing.size
    other = forked(pool, 2, 2)
    pool.settle()
    kita = pool.nodes["kita"]
    key = SigningKey.from_pem((kita.home.keys / "witness.key").read_bytes())
    head = other.house.services.witnessing.candidates.offered()
    line = cosign(
        key,
        name=witness_name(kita.member.identity.org),
        text=parse_note(head.note).text,
        time_s=pool.clock.ms // 1000,
    )
    other.run(other.house.services.witnessing.take(head.size, [line]))
    pool.settle("iber", "hanbit")
    assert pool.nodes["iber"].standing.size == head.size
    pool.clock.ms += 2_000
    pool.settle("nord")
    assert pool.nodes["nord"].standing.size == before


def test_requests_that_come_from_another_history_than_the_one_that_is_cosigned(pool: WitnessPool) -> None:
    other = forked(pool, 2, 1, away=())
    kita = pool.nodes["kita"]
    kita.way.street = other
    LogView(kita.outbox, kita.member.broker.log_vkey, fetch=fetch_consistency(kita.member.client)).advance()
    kita.way.street = pool.street
    with pytest.raises(EquivocationError):
        kita.turn()
    check_stopped(pool, kita)


def test_a_stop_that_came_with_a_request_gets_its_evidence_from_tiles(pool: WitnessPool) -> None:
    other = forked(pool, 1, 1, away=())
    kita = pool.nodes["kita"]
    for street in (pool.street, other):
        kita.way.street = street
        view = LogView(kita.outbox, kita.member.broker.log_vkey, fetch=fetch_consistency(kita.member.client))
        if street is other:
            with pytest.raises(EquivocationError):
                view.advance()
        else:
            view.advance()
    assert kita.watch.evidence()
    key = VerifierKey.parse(kita.member.broker.log_vkey)
    parse_evidence((kita.home.root / EVIDENCE).read_text("utf-8")).check([key])


def test_a_log_restored_from_a_copy_with_its_signer_is_found_by_any_witness(pool: WitnessPool) -> None:
    older = pool.split()
    pool.grow(3)
    pool.clock.ms += 2_000
    pool.settle()
    kita = pool.nodes["kita"]
    before = kita.outbox.cosigning.cosigned()
    kita.way.street = older
    older.house.clock.ms = pool.clock.ms
    with pytest.raises(PeerAnswerError):
        kita.turn()
    assert "amnesia" in str(older.house.services.writer.frozen)
    assert kita.outbox.cosigning.cosigned() == before


def test_witnesses_of_the_brokers_own_making_are_not_believed(pool: WitnessPool) -> None:
    kita = pool.nodes["kita"]
    known = kita.trust.known()
    broker = pool.house.services.keys.broker
    made, lines = [], []
    pool.grow()
    note = pool.house.services.writer.head().note
    for node in pool.nodes.values():
        own = SigningKey.from_seed(node.name.encode().ljust(32, b"!"))
        org = node.member.identity.org
        vkey = cosigner_vkey(own, witness_name(org)).text()
        later = pool.clock.ms + 1_000_000
        made += [
            seal_statement(key, witness=own, log=ORIGIN, org=org, vkey=vkey, time_ms=later).to_json()
            for key in (broker, SigningKey.from_seed(b"X" * 32))
        ]
        lines.append(
            cosign(own, name=witness_name(org), text=parse_note(note).text, time_s=pool.clock.ms // 1000)
        )
    kita.trust.learn([{"statement": one} for one in made])
    assert kita.trust.known() == known
    size = kita.standing.size
    kita.watch._keep(merge(note, lines))
    assert kita.standing.size == size


def test_a_key_that_its_owner_gave_up_is_not_brought_back(pool: WitnessPool) -> None:
    kita, nord = pool.nodes["kita"], pool.nodes["nord"]
    old = nord.trust.statements()
    pool.clock.ms += 2_000
    (kita.home.keys / "witness.key").rename(kita.home.root / "old.key")
    kita.restart()
    pool.settle()
    known = nord.trust.known()
    nord.trust.learn([one.to_json() for one in old])
    assert nord.trust.known() == known


def test_tiles_that_prove_nothing_are_no_evidence_and_no_cosignature(pool: WitnessPool) -> None:
    kita = pool.nodes["kita"]
    before = kita.outbox.cosigning.cosigned()
    pool.grow(2)
    pool.clock.ms += 2_000
    static = pool.house.services.static
    read = static.read
    static.read = lambda path: bytes(len(read(path) or b""))
    for _ in range(2):
        with pytest.raises(PeerAnswerError):
            kita.turn()
    assert not (kita.home.root / EVIDENCE).exists()
    assert kita.outbox.cosigning.cosigned() == before
    static.read = read
    assert kita.turn()


def test_the_thread_of_the_witness_ends_the_worker_once_it_has_evidence(pool: WitnessPool) -> None:
    other = forked(pool, 2, 1, away=())
    kita = pool.nodes["kita"]
    kita.way.street = other
    LogView(kita.outbox, kita.member.broker.log_vkey, fetch=fetch_consistency(kita.member.client)).advance()
    kita.way.street = pool.street
    said: list[str] = []
    ended: list[bool] = []
    watch_for_ever(
        kita.home,
        clock=pool.clock,
        entropy=SeedEntropy(b"thread"),
        say=lambda event, _facts: said.append(event),
        stopped=lambda: ended.append(True),
        transport=kita.way,
    )
    assert (said, ended) == (["log-equivocation"], [True])
    check_stopped(pool, kita)
