# SPDX-License-Identifier: Apache-2.0
"""The node's own side of witnesses: the guard, the key file, what commands show, outbox files of before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.doctor import doctor
from client.errors import KeyFileError, NoSuchThingError
from client.identity import load_identity
from client.releases import receipts_export, receipts_list, receipts_verify
from client.settings import Home
from client.witnessing.key import own_statement, witness_key
from client.witnessing.running import trust_of
from client.witnessing.showing import standings, witness_evidence, witness_status
from client.witnessing.trust import Trust
from policies.exchange import ExchangeType
from policies.identity import SigningKey, key_text
from policies.log.cosignature import cosigner_vkey
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import seal_statement, witness_name
from tests.nodesim import ORIGIN, HandClock, SeedEntropy
from tests.nodeworld import World
from tests.witnessim import WitnessPool, witness_pool

AUDIT = {
    "clause": "audit-1",
    "who": ["contributors"],
    "access": "log-proofs",
    "log_origin": ORIGIN,
    "witness_quorum": 2,
    "ml_dsa": "accept",
    "notice_days": 10,
    "raw_data": "never",
    "enforced_by": ["gate"],
}


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WitnessPool]:
    with witness_pool(tmp_path) as made:
        yield made


def test_no_round_begins_while_nobody_vouches_and_the_clause_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, changes={"audit": AUDIT}).ready()
    answer, reply = world.ask()
    assert (answer.status, answer.code) == ("refused", "log.unwitnessed")
    assert reply.status == "refused"
    assert world.learner.trained == []
    kept = world.worker.outbox.left.decisions()[0]
    assert kept.clauses == ("audit-1",)
    assert world.ask(ExchangeType.PING)[0].status == "ok"


def test_the_key_is_made_once_for_this_account_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    key = witness_key(home, SeedEntropy(b"one"))
    assert witness_key(home, SeedEntropy(b"two")).public == key.public
    path = home.keys / "witness.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(KeyFileError):
        witness_key(home, SeedEntropy())
    path.chmod(0o600)
    path.write_bytes(b"junk")
    with pytest.raises(KeyFileError):
        witness_key(home, SeedEntropy())


def test_the_statement_stays_the_same_until_a_key_changes(pool: WitnessPool) -> None:
    home = pool.nodes["kita"].home
    identity, key, clock = load_identity(home), witness_key(home, SeedEntropy()), HandClock()
    made = own_statement(home, identity, key, origin=ORIGIN, clock=clock)
    clock.ms += 1
    assert own_statement(home, identity, key, origin=ORIGIN, clock=clock) == made
    (home.root / "witness.json").write_bytes(b"junk")
    assert own_statement(home, identity, key, origin=ORIGIN, clock=clock) != made


def test_commands_show_who_vouches_and_both_grades_of_receipts(pool: WitnessPool, tmp_path: Path) -> None:
    kita = pool.nodes["kita"]
    alarm = witness_status(kita.member, kita.trust._shelf, kita.outbox)
    assert alarm.exit_code == 75
    assert any("ALARM" in line for line in alarm.text)
    assert any(line.startswith("missing") and "nord" in line for line in alarm.text)
    assert any(line.startswith("remedy") for line in alarm.text)
    assert any("nothing is cosigned until iriai-node run" in line for line in alarm.text)
    pool.settle()
    index = pool.envelope_of("kita")
    out = tmp_path / "receipts"
    assert receipts_list(kita.outbox).data["receipts"][0]["grade"] == "signed"
    assert receipts_export(kita.outbox, out).data["witnessed"] == 0
    signed = (out / f"{index}.tlog-proof").read_bytes()
    pool.clock.ms += 2_000
    pool.settle()
    assert receipts_list(kita.outbox).data["receipts"][0]["grade"] == "witnessed"
    assert receipts_list(kita.outbox).data["total"] == len(kita.outbox.envelopes())
    assert receipts_list(kita.outbox, every=True).text[-1].split()[-2] == "witnessed"
    assert receipts_export(kita.outbox, out).data["witnessed"] == 1
    assert (out / f"{index}.tlog-proof").read_bytes() != signed
    shown = receipts_verify(kita.member, kita.outbox, kita.member.broker.log_vkey)
    assert (shown.data["receipts"], shown.data["witnessed"]) == (1, 1)
    status = witness_status(kita.member, kita.trust._shelf, kita.outbox)
    assert status.exit_code == 0
    assert status.data["contracts"][0]["fresh"]
    assert standings(kita.member, kita.trust._shelf, kita.outbox)[0].late == 0
    with pytest.raises(NoSuchThingError):
        witness_evidence(kita.member, kita.outbox, None)


def test_the_doctor_finds_that_nobody_vouches(pool: WitnessPool) -> None:
    kita = pool.nodes["kita"]
    kita.way.before = lambda _request: None

    def found() -> dict[str, object]:
        answer = doctor(kita.home, clock=pool.clock, entropy=SeedEntropy(b"doctor"), transport=kita.way)
        return next(one for one in answer.data["checks"] if one["code"] == "witnesses")

    assert not found()["ok"]
    pool.settle()
    assert found()["ok"]


def test_an_outbox_of_a_version_before_goes_on(pool: WitnessPool) -> None:
    kita = pool.nodes["kita"]
    index = pool.envelope_of("kita")
    kita.close()
    with sqlite3.connect(kita.home.outbox) as file:
        for table in ("cosigned", "witnessed", "witnessed_receipt"):
            file.execute(f"DROP TABLE {table}")
    file.close()
    kita.start()
    pool.settle()
    (stored,) = [one for one in kita.outbox.envelopes() if one.log_index == index]
    assert stored.witnessed is not None


def test_a_contract_that_demands_more_than_stated_keys_has_no_quorum(pool: WitnessPool) -> None:
    kita = pool.nodes["kita"]
    trust = trust_of(kita.member, kita.trust._shelf)
    pool.turn("kita", "nord")
    kita.turn()
    assert trust.stated(kita.held) <= 2
    assert trust.policy_of(kita.held) is None
    assert not kita.standing.fresh
    assert "stated a key" in kita.standing.words


class Changed:
    """`client.contract.notices.Notices` of a contract in which one party changed its key."""

    def __init__(self, **keys: str) -> None:
        self.rotated = keys

    def life(self, _held: object) -> Changed:
        return self


def test_after_a_change_of_key_only_a_statement_under_the_new_one_counts(pool: WitnessPool) -> None:
    pool.settle()
    kita, nord = pool.nodes["kita"], pool.nodes["nord"]
    new = SigningKey.from_seed(b"N" * 32)
    log_key = VerifierKey.parse(nord.member.broker.log_vkey)
    notices: Any = Changed(kita=key_text(new.public))
    trust = Trust(nord.home, nord.trust._shelf, notices, log_key=log_key, broker=nord.member.broker.key)
    assert trust.stated(nord.held) == 3
    identity = load_identity(kita.home)
    own = witness_key(kita.home, SeedEntropy())
    vkey = cosigner_vkey(own, witness_name(identity.org)).text()
    said = seal_statement(new, witness=own, log=ORIGIN, org=identity.org, vkey=vkey, time_ms=pool.clock.ms)
    trust.learn([said.to_json()])
    assert trust.stated(nord.held) == 4
