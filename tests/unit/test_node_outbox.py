# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from client import ledgers
from client.errors import EquivocationError, OutboxError
from client.outbox import Outbox
from client.outbox.rows import Decided
from policies.identity import SigningKey
from policies.log.envelope import ChainState, open_envelope
from tests.nodesim import ORIGIN, HandClock, SeedEntropy

KEY = SigningKey.from_seed(b"n" * 32)


def _open(path: Path, *, key: SigningKey = KEY, origin: str = ORIGIN, seed: bytes = b"o") -> Outbox:
    return Outbox(path / "outbox.db", key=key, origin=origin, clock=HandClock(), entropy=SeedEntropy(seed))


def _seal(outbox: Outbox, number: int, slot: str | None = None):
    body = {"subject": f"sha256:{number:064x}", "vote": "approve", "clause": None}
    with outbox.writing() as letters:
        return letters.seal("vote.cast", body=body, slot=slot)


def test_envelopes_follow_each_other_without_gap_over_restarts(tmp_path: Path):
    state = None
    for start in range(3):
        outbox = _open(tmp_path, seed=str(start).encode())
        for number in range(4):
            payload = open_envelope(_seal(outbox, start * 4 + number), KEY.public)
            state = (state or ChainState(chain=payload["chain"])).accept(payload)
        outbox.close()
    assert state is not None
    assert state.next_seq == 12


def test_a_block_that_raises_leaves_nothing_and_uses_no_number(tmp_path: Path):
    outbox = _open(tmp_path)
    _seal(outbox, 0)

    def broken() -> None:
        with outbox.writing() as letters:
            letters.seal("vote.cast", body={"subject": "sha256:" + "1" * 64, "vote": "veto", "clause": None})
            letters.note(kind="vote.cast", size_bytes=1, digest="sha256:" + "1" * 64)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [one.seq for one in outbox.pending()] == [0]
    assert outbox.left.sent() == ()
    assert open_envelope(_seal(outbox, 1), KEY.public)["seq"] == 1


def test_a_slot_has_one_envelope_for_ever(tmp_path: Path):
    outbox = _open(tmp_path)
    first = _seal(outbox, 1, slot="vote.cast x")
    outbox.close()
    again = _open(tmp_path, seed=b"other")
    assert _seal(again, 2, slot="vote.cast x").to_bytes() == first.to_bytes()
    assert len(again.envelopes()) == 1


def test_what_waits_is_the_same_bytes_after_a_restart(tmp_path: Path):
    outbox = _open(tmp_path)
    sealed = [_seal(outbox, number).to_bytes() for number in range(3)]
    outbox.close()
    assert [one.envelope.to_bytes() for one in _open(tmp_path, seed=b"x").pending()] == sealed


def test_two_processes_number_one_chain(tmp_path: Path):
    one, two = _open(tmp_path, seed=b"1"), _open(tmp_path, seed=b"2")
    numbers = [open_envelope(_seal(box, n), KEY.public)["seq"] for n, box in enumerate([one, two, two, one])]
    assert numbers == [0, 1, 2, 3]
    assert one.chain == two.chain


def test_an_outbox_of_another_key_or_log_is_refused(tmp_path: Path):
    _open(tmp_path).close()
    with pytest.raises(OutboxError):
        _open(tmp_path, key=SigningKey.from_seed(b"m" * 32))
    with pytest.raises(OutboxError):
        _open(tmp_path, origin="other.example/log")


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "outbox.db").write_bytes(b"not a database" * 100)
    with pytest.raises(OutboxError):
        _open(tmp_path)


def test_a_stopped_node_seals_nothing_in_any_process(tmp_path: Path):
    one, two = _open(tmp_path, seed=b"1"), _open(tmp_path, seed=b"2")
    error = one.stop("two roots at size 7", '{"notes":[]}')
    assert (error.code, error.exit_code) == ("log.equivocation", 7)
    for box in (one, two, _open(tmp_path, seed=b"3")):
        with pytest.raises(EquivocationError, match="two roots"):
            _seal(box, 1)
    two.resume()
    assert open_envelope(_seal(one, 1), KEY.public)["seq"] == 0


def test_what_left_is_listed_with_its_receipts(tmp_path: Path):
    outbox = _open(tmp_path)
    with outbox.writing() as letters:
        letters.seal("vote.cast", body={"subject": "sha256:" + "1" * 64, "vote": "veto", "clause": "k-1"})
        letters.note(kind="vote.cast", size_bytes=700, digest="sha256:" + "1" * 64, clause="k-1", run="run_x")
    with outbox.writing() as letters:
        letters.note(kind="descriptor", size_bytes=300, digest="sha256:" + "2" * 64)
    newest, oldest = outbox.left.sent()
    assert (newest.kind, newest.receipts) == ("descriptor", "-")
    assert (oldest.clause, oldest.size_bytes, oldest.receipts) == ("k-1", 700, "0 of 1")
    assert outbox.left.sent_bytes() == 1000


def test_what_left_cannot_be_deleted_by_accident(tmp_path: Path):
    outbox = _open(tmp_path)
    _seal(outbox, 1)
    for statement in (
        "DELETE FROM envelope",
        "UPDATE envelope SET dsse = x'00'",
        "UPDATE envelope SET seq = 9",
    ):
        with pytest.raises(Exception, match=r"kept|fixed"):
            outbox._db.execute(statement)


def _leave(outbox: Outbox, many: int, *, run: str) -> None:
    for number in range(1, many + 1):
        with outbox.noting() as letters:
            letters.note(
                kind="query.sa_confirm", size_bytes=10, digest=f"sha256:{number:064x}", run=run, round=number
            )


def test_what_left_is_counted_whole_and_a_cut_list_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledgers, "ROWS", 5)
    outbox = _open(tmp_path)
    _leave(outbox, 6, run="run_a")
    _leave(outbox, 2, run="run_b")
    cut = ledgers.outbox_list(outbox)
    assert (len(cut.data["sent"]), cut.data["total"], cut.data["total_bytes"]) == (5, 8, 80)
    assert cut.text[-2:] == ("5 of 8 shown; --all or --run for the rest", "sum  80 bytes in 8 messages")
    for whole, total in (
        (ledgers.outbox_list(outbox, every=True), 8),
        (ledgers.outbox_list(outbox, run="run_a"), 6),
    ):
        assert len(whole.data["sent"]) == whole.data["total"] == total
        assert not any("shown" in line for line in whole.text)


def test_messages_that_differ_only_in_round_are_one_line(tmp_path: Path):
    outbox = _open(tmp_path)
    _leave(outbox, 7, run="run_a")
    _, line, _ = ledgers.outbox_list(outbox).text
    assert line.split()[1:] == ["7", "70", "query.sa_confirm", "run_a", "1-7", "-", "-", "-"]


def test_a_cut_list_of_decisions_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledgers, "ROWS", 2)
    outbox = _open(tmp_path)
    with outbox.writing() as letters:
        for number in range(3):
            letters.decided(
                Decided(
                    at_ms=1, contract="c", recipe="r", run="run_a", round=number, attempt=1,
                    kind="train.contribute", allow=True, clauses=(), document={},
                )
            )  # fmt: skip
    cut = ledgers.guard_log(outbox, None)
    assert (len(cut.data["decisions"]), cut.data["total"]) == (2, 3)
    assert cut.text[-1] == "2 of 3 shown; --all or --run for the rest"
    for whole in (ledgers.guard_log(outbox, None, every=True), ledgers.guard_log(outbox, "run_a")):
        assert len(whole.data["decisions"]) == 3
