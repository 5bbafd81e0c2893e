# SPDX-License-Identifier: Apache-2.0
"""The auditor's bundle from the databases: complete up to the signed head, the same bytes each time."""

from __future__ import annotations

import errno
import json
import os
import stat
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, insert

from broker.log import Head, LogUnavailableError, export
from broker.store import tables
from policies.encoding import canonical, digest
from policies.identity import SigningKey
from policies.log.bundle import split_tile, tile_names, unpack
from policies.log.checkpoint import open_checkpoint, open_note, parse_note
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.entries import EntryType, Event, check_entry, commitment
from policies.log.envelope import open_envelope
from policies.log.merkle import leaf_hash, root_from_leaves
from policies.log.proofs import parse_receipt
from policies.log.tiles import TileTree, tile_path, tiles_of
from policies.log.witness_keys import seal_statement
from policies.signing import Envelope
from tests.logsim import LogSim, console, digest_from
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.log import LogTx
    from broker.store import Session

RUN = "run_aaaaaaaaaaaaaaaa"
STATEMENT = canonical({"statement": 1})
DECISION = digest_from("decision")
CONSENT = canonical({"consent": 1})
SEEDS = {"seed_set": digest_from("seed set"), "donations": [{"consent": digest(CONSENT)}]}
CONTRACT = canonical({"contract": 1, "seed_sets": [SEEDS]})


def decided(number: int) -> Event:
    return Event(
        type=EntryType.DECISION_RECORDED,
        scope=digest_from("contract"),
        run=RUN,
        round=number,
        pub={"point": "broker", "outcome": "allow", "clauses": [], "decision": DECISION},
    )


def fill(session: Session, log: LogTx) -> int:
    """Business documents that entries name, and some that none does."""
    for data in (STATEMENT, canonical({"statement": "nobody names this"})):
        session.execute(insert(tables.statement).values(digest=digest(data), bytes=data))
    session.execute(
        insert(tables.decision),
        [
            {
                "digest": name,
                "contract": digest_from("contract"),
                "point": "broker",
                "bytes": b"{}",
                "request": canonical({"round": 1}),
                "salt": b"s" * 16,
                "state": canonical({"halted": False}),
            }
            for name in (DECISION, digest_from("not logged"))
        ],
    )
    for org, key in (("org_a", b"k" * 32), ("org_b", b"")):
        row = {"legal_name": org, "country": "JP", "state": "active", "node_id": org, "node_key": "k"}
        session.execute(
            insert(tables.organisation).values(org_id=org, alias_key=key, fleet_key="k", created_ms=1, **row)
        )
    log.add(decided(1))
    row = {"contract_id": "ctr_a", "version": 1, "supersedes": None, "state": "offered", "at_ms": 1}
    session.execute(insert(tables.contract_document).values(digest=digest(CONTRACT), bytes=CONTRACT, **row))
    for name, data in (
        (digest(CONSENT), CONSENT),
        (SEEDS["seed_set"], b"seed set"),
        (digest_from("model"), b"weights"),
    ):
        annex = {"contract": digest(CONTRACT), "sha256": f"open:{name}", "bytes": data}
        session.execute(insert(tables.contract_annex).values(annex))
    proposed = {"contract": digest(CONTRACT), "version": 1, "supersedes": None}
    log.add(Event(type=EntryType.CONTRACT_PROPOSED, pub=proposed))
    released = {"model": digest_from("m"), "tier": "open", "clause": "tiers", "statement": digest(STATEMENT)}
    return log.add(Event(type=EntryType.MODEL_RELEASED, pub=released))


@pytest.fixture
def sim(tmp_path: Path, database: str) -> Iterator[LogSim]:
    (tmp_path / "broker").mkdir()
    with LogSim(tmp_path / "broker", **log_urls(database)) as made:
        made.started(entries=3)
        made.writer.submit(fill).result()  # type: ignore[union-attr]
        for name in ("kita", "nord"):
            member = made.member(name)
            for _ in range(2):
                event = member.submission()
                made.add(event)
                member.advance(event)
        yield made


def exported(sim: LogSim, name: str = "bundle.zip") -> dict[str, bytes]:
    path = sim.folder.parent / name
    other = canonical({"contract": "nobody names this"})
    contracts = [(data, Envelope.seal(data, "text/plain", sim.key)) for data in (CONTRACT, other)]
    assert sim.writer is not None
    done = export(sim.store, sim.writer, path, policy="log x\n", software="0.1.0", contracts=contracts)
    data = path.read_bytes()
    assert (done.size_bytes, done.digest) == (len(data), digest(data))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return unpack(data)


def lines(files: dict[str, bytes], name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in files.get(name, b"").splitlines()]


def test_entries_lead_to_the_signed_root_and_receipts_hold(sim: LogSim) -> None:
    files = exported(sim)
    checkpoint = open_checkpoint(files["checkpoint"].decode(), [sim.vkey])
    (name, (_, end)), *_ = tile_names(checkpoint.size).items()
    bodies = split_tile(files[name], end)
    assert root_from_leaves(leaf_hash(body) for body in bodies) == checkpoint.root
    receipts = {one: data for one, data in files.items() if one.startswith("receipts/")}
    wanted = [i for i, body in enumerate(bodies) if check_entry(body).type == "submission.received"]
    assert sorted(receipts) == [f"receipts/{index}.tlog-proof" for index in wanted]
    for data in receipts.values():
        receipt = parse_receipt(data.decode())
        receipt.verify(leaf_hash(bodies[receipt.index]), [sim.vkey])
    notes = [line["note"] for line in lines(files, "checkpoints.log")]
    assert [open_checkpoint(str(note), [sim.vkey]).size for note in notes] == [3, 6, 7, 8, 9, 10]
    for line in lines(files, "envelopes/000.jsonl"):
        payload = Envelope.from_json(line["envelope"]).payload
        assert digest(payload) == check_entry(bodies[int(str(line["index"]))]).env


def test_envelopes_open_under_the_members_keys(sim: LogSim) -> None:
    stored = [Envelope.from_json(line["envelope"]) for line in lines(exported(sim), "envelopes/000.jsonl")]
    keys = [sim.member(name).key.public for name in ("kita", "kita", "nord", "nord")]
    assert [open_envelope(one, key)["seq"] for one, key in zip(stored, keys, strict=True)] == [0, 1, 0, 1]


def test_consents_are_there_and_neither_seed_sets_nor_start_models(sim: LogSim) -> None:
    files = exported(sim)
    assert {name: data for name, data in files.items() if name.startswith(("consents/", "annexes/"))} == {
        f"consents/{digest(CONSENT)[7:]}.json": CONSENT
    }


def test_documents_are_there_if_an_entry_names_them(sim: LogSim) -> None:
    files = exported(sim)
    hexes = {name for name in files if name.startswith(("statements/", "contracts/"))}
    statement, contract = digest(STATEMENT)[7:], digest(CONTRACT)[7:]
    assert hexes == {
        f"statements/{statement}.json",
        f"contracts/{contract}.json",
        f"contracts/{contract}.dsse",
    }
    (decision,) = lines(files, "decisions/000.jsonl")
    assert decision == {
        "decision": DECISION,
        "index": 3,
        "request": {"round": 1},
        "salt": (b"s" * 16).hex(),
        "state": {"halted": False},
    }
    assert list(json.loads(files["keys/aliases.json"])) == ["org_a"]


def test_disclosures_open_every_commitment_unless_erased(sim: LogSim) -> None:
    assert sim.writer is not None
    entries = {index: check_entry(sim.writer.receipts.body(index)) for index in range(10)}
    disclosed = lines(exported(sim), "disclosures/000.jsonl")
    for one in disclosed:
        name = str(one["field"])
        opened = commitment(bytes.fromhex(str(one["salt"])), name, one["value"])
        assert opened == entries[int(str(one["index"]))].sd[name]
    assert len(disclosed) == sum(len(entry.sd) for entry in entries.values())
    with sim.store.private.begin() as session:
        session.execute(delete(tables.log_private).where(tables.log_private.c.event_id == entries[7].id))
    left = lines(exported(sim), "disclosures/000.jsonl")
    assert {one["index"] for one in left} == set(range(10)) - {7}


def test_the_same_state_gives_the_same_bytes_also_after_a_restart(sim: LogSim) -> None:
    first = exported(sim, "a.zip")
    sim.close()
    sim.open()
    assert exported(sim, "b.zip") == first
    folder = sim.folder.parent
    assert (folder / "a.zip").read_bytes() == (folder / "b.zip").read_bytes()


def test_entries_that_come_while_it_is_written_are_left_out_with_their_checkpoint(
    sim: LogSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sim.writer is not None
    true_head = sim.writer.head

    def head_and_then_one_more() -> object:
        taken = true_head()
        sim.add(console(80))
        return taken

    monkeypatch.setattr(sim.writer, "head", head_and_then_one_more)
    files = exported(sim)
    size = open_checkpoint(files["checkpoint"].decode(), [sim.vkey]).size
    sizes = {
        parse_receipt(data.decode()).checkpoint.size
        for name, data in files.items()
        if name.startswith("receipts/")
    }
    assert (sizes, sim.writer.receipts.head().size) == ({size}, size + 1)
    assert open_checkpoint(str(lines(files, "checkpoints.log")[-1]["note"]), [sim.vkey]).size == size


def test_what_is_not_signed_is_not_in_it(sim: LogSim) -> None:
    before = exported(sim)
    connection = sim.store.signer.raw_connection()
    connection.driver_connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    connection.close()
    assert sim.writer is not None
    failed = sim.writer.submit(lambda _session, log: log.add(console(70))).exception()
    assert isinstance(failed, LogUnavailableError)
    assert exported(sim) == before


# --- format 2 ---


WITNESS = SigningKey.from_seed(b"w" * 32)


def cosigned(sim: LogSim, size: int, note: str, time_s: int = 1_790_000_000) -> str:
    line = cosign(WITNESS, name="org_b/witness", text=parse_note(note).text, time_s=time_s)
    with sim.store.main.begin() as session:
        session.execute(
            insert(tables.log_cosignature).values(
                size=size, witness="org_b/witness", line=line, received_ms=1
            )
        )
    return line


def test_unzipped_it_is_a_static_log(sim: LogSim) -> None:
    files = exported(sim)
    size = open_checkpoint(files["checkpoint"].decode(), [sim.vkey]).size
    assert {name for name in files if name.startswith("tile/")} == {
        *tile_names(size),
        *(one.path() for one in tiles_of(size)),
    }
    tree = TileTree(size, lambda level, n, width: files[tile_path(level, n, width)])
    assert tree.root(size) == sim.writer.head().root
    assert json.loads(files["BUNDLE"])["v"] == 2
    assert list(files)[-1] == "MANIFEST"
    listed = json.loads(files["MANIFEST"])["files"]
    assert listed == {name: digest(data) for name, data in files.items() if name != "MANIFEST"}


def test_cosignatures_are_in_the_notes_that_they_are_on(sim: LogSim) -> None:
    notes = {
        open_checkpoint(str(one["note"]), [sim.vkey]).size: str(one["note"])
        for one in lines(exported(sim), "checkpoints.log")
    }
    kept = {size: cosigned(sim, size, notes[size]) for size in (6, 10)}
    told = {
        open_checkpoint(str(one["note"]), [sim.vkey]).size: str(one["note"])
        for one in lines(exported(sim), "checkpoints.log")
    }
    assert told == {size: merge(note, [kept[size]] if size in kept else []) for size, note in notes.items()}
    voter = cosigner_vkey(WITNESS, "org_b/witness")
    assert open_note(told[6], [sim.vkey, voter]).verified == (sim.vkey, voter)


def test_the_head_may_be_an_older_one_with_its_quorum(sim: LogSim) -> None:
    notes = [str(one["note"]) for one in lines(exported(sim), "checkpoints.log")]
    old = open_checkpoint(notes[1], [sim.vkey])
    head = Head(old.size, old.root, merge(notes[1], [cosigned(sim, old.size, notes[1])]))
    path = sim.folder.parent / "old.zip"
    done = export(sim.store, sim.writer, path, policy="log x\n", software="0.1.0", head=head)
    files = unpack(path.read_bytes())
    assert (done.entries, files["checkpoint"].decode()) == (old.size, head.note)
    assert lines(files, "checkpoints.log")[-1]["note"] == head.note
    assert set(tile_names(old.size)) == {one for one in files if one.startswith("tile/entries/")}
    tree = TileTree(old.size, lambda level, n, width: files[tile_path(level, n, width)])
    assert tree.root(old.size) == old.root
    assert max(int(str(one["index"])) for one in lines(files, "disclosures/000.jsonl")) == old.size - 1


def test_witness_statements_and_time_stamps_are_in_it(sim: LogSim) -> None:
    vkey = cosigner_vkey(WITNESS, "org_b/witness").text()
    statement = seal_statement(
        sim.key, witness=WITNESS, log="pool.example/log/test", org="org_b", vkey=vkey, time_ms=1
    )
    with sim.store.main.begin() as session:
        row = {"name": "org_b/witness", "org": "org_b", "vkey": vkey, "state": "active", "at_ms": 1}
        session.execute(insert(tables.witness).values(**row, statement=statement.to_bytes()))
        for size in (3, 10, 99):
            session.execute(insert(tables.log_timestamp).values(size=size, token=b"t%d" % size, at_ms=1))
    files = exported(sim)
    name = digest(statement.payload).removeprefix("sha256:")
    assert files[f"witnesses/{name}.json"] == statement.to_bytes()
    assert {one: files[one] for one in files if one.startswith("timestamps/")} == {
        "timestamps/3.tsr": b"t3",
        "timestamps/10.tsr": b"t10",
    }


def test_the_policy_is_one_that_an_entry_names(sim: LogSim) -> None:
    first, later = "log x\nquorum none\n", "log x\nwitness …\n"
    sim.add(
        Event(
            type=EntryType.POLICY_ACTIVATED,
            pub={"kind": "trust", "digest": digest(first.encode()), "previous": None},
        )
    )
    path = sim.folder.parent / "policy.zip"
    arguments = {"software": "0.1.0", "policy": later, "first_policy": first}
    export(sim.store, sim.writer, path, **arguments)
    assert unpack(path.read_bytes())["policy"].decode() == first
    sim.add(
        Event(
            type=EntryType.POLICY_ACTIVATED,
            pub={"kind": "trust", "digest": digest(later.encode()), "previous": digest(first.encode())},
        )
    )
    export(sim.store, sim.writer, path, **arguments)
    assert unpack(path.read_bytes())["policy"].decode() == later


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    peaks = []
    with LogSim(tmp_path) as sim:
        sim.started()
        for size in (1_500, 6_000):
            while sim.writer.head().size < size:
                start = sim.writer.head().size
                sim.add(*(console(number) for number in range(start, start + 500)))
            tracemalloc.start()
            export(sim.store, sim.writer, tmp_path / "b.zip", policy="log x\n", software="0.1.0")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0] + 100_000, peaks  # 4,500 more entries have 3 MB


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_half_way_leaves_the_old_file_and_no_half_of_a_new_one(
    sim: LogSim, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    exported(sim)
    path = sim.folder.parent / "bundle.zip"
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=r"space|error"):
        exported(sim)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.glob("bundle.zip*")] == ["bundle.zip"]


def test_a_value_is_left_out_once_the_log_says_that_it_is_erased(sim: LogSim) -> None:
    index = 4
    told = lines(exported(sim), "disclosures/000.jsonl")
    assert any((one["index"], one["field"]) == (index, "at") for one in told)
    pub = {"indexes": [index], "fields": ["at"], "reason": "request", "request": digest_from("erase")}
    sim.add(Event(type=EntryType.ERASURE_PERFORMED, pub=pub))  # and its row is still there
    left = lines(exported(sim), "disclosures/000.jsonl")
    assert not any((one["index"], one["field"]) == (index, "at") for one in left)
