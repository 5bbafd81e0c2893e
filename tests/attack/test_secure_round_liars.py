# SPDX-License-Identifier: Apache-2.0
"""Members that answer the protocol of secure aggregation wrongly: named, left out, and the others' sum is exact."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from broker.federation.replies import CONTRIBUTIONS
from broker.federation.secure.rounds import SecureRounds
from client.secagg import masking
from policies.encoding import b64, unb64
from policies.exchange import ExchangeType as T
from policies.log.entries import EntryType
from policies.secagg import node
from policies.secagg.errors import SumWrongError
from tests.federationsim import NAMES, SECURE, Lie, Pool, Said, running

ROUNDS = 4
OPTIONS = {"private": False, "recipe": {"rounds": ROUNDS}, **SECURE}
EVERYBODY = dict.fromkeys(NAMES, "accepted")
Change = Callable[[bytes], bytes]


def altered(kind: T, change: Change, *, number: int | None = None) -> Lie:
    """Another answer to one type of message, signed by the node all the same; in one round only, or always."""

    def lie(said: Said) -> Said:
        header = said.header
        if header.type is not kind or not header.ok or number not in (None, header.round):
            return said
        if kind in (T.SA_ADVERTISE, T.SA_SHARE):
            return said.sealed(tensor=change(said.tensor or b""))
        return said.sealed(body={**header.body, "answer": b64(change(unb64(header.body["answer"])))})

    return lie


def flipped(data: bytes) -> bytes:
    """One bit in the middle is another."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def replayed(kind: T) -> Lie:
    """The answer of round 1 again, in round 2."""
    kept: list[bytes] = []

    def lie(said: Said) -> Said:
        header = said.header
        if header.type is not kind or not header.ok:
            return said
        kept.append(unb64(header.body["answer"]))
        return altered(kind, lambda _: kept[0], number=2)(said)

    return lie


def named(pool: Pool) -> set[tuple[object, object, object]]:
    """Party, message and code of everybody who was refused in the protocol's own exchanges."""
    return {(one["party"], one["type"], one["code"]) for one in pool.journal.of("secagg.refused")}


@pytest.mark.parametrize(
    ("change", "code"), [(flipped, "secagg.key-not-pinned"), (lambda _: b"no", "secagg.context-mismatch")]
)
@pytest.mark.parametrize("kind", [T.SA_ADVERTISE, T.SA_SHARE])
def test_wrong_keys_and_shares_are_refused_and_the_setup_goes_on_without_their_sender(
    kind: T, change: Change, code: str
):
    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(altered(kind, change))
        run = go(pool.run())
        assert {(who, what) for who, what, _ in named(pool)} == {("kita", kind.value)}
        assert {one for *_, one in named(pool)} <= {code, "secagg.context-mismatch"}
        assert pool.verdicts(run) == [EVERYBODY | {"kita": "refused"}] * ROUNDS
        assert pool.check_sums(run) == ROUNDS
        pool.check_audit()


def test_another_seal_is_refused_and_a_setup_without_its_sender_is_made():
    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(altered(T.SA_OPEN, flipped))
        run = go(pool.run())
        assert named(pool) == {("kita", T.SA_OPEN.value, "secagg.views-differ")}
        assert pool.verdicts(run) == [EVERYBODY | {"kita": "refused"}] * ROUNDS
        assert pool.check_sums(run) == ROUNDS


@pytest.mark.parametrize("length", [1, 32])
def test_a_complaint_that_proves_nothing_leaves_its_sender_out_and_not_the_dealer(length: int):
    with running(**OPTIONS) as (pool, go):
        complaint = bytes([1, 4]) + bytes(range(1, length + 1))  # of nord
        pool.nodes["kita"].lies.append(altered(T.SA_OPEN, lambda _: complaint))
        run = go(pool.run())
        assert named(pool) == {("kita", T.SA_OPEN.value, "secagg.context-mismatch")}
        assert pool.verdicts(run) == [EVERYBODY | {"kita": "refused"}] * ROUNDS
        assert pool.check_sums(run) == ROUNDS


@pytest.mark.parametrize("lie", ["flipped", "empty", "replayed"])
def test_a_vector_that_its_member_did_not_sign_is_refused_in_the_log_and_the_round_goes_on(lie: str):
    lies = {
        "flipped": altered(T.SA_CONTRIBUTE, flipped, number=2),
        "empty": altered(T.SA_CONTRIBUTE, lambda _: b"", number=2),
        "replayed": replayed(T.SA_CONTRIBUTE),
    }
    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(lies[lie])
        run = go(pool.run())
        assert pool.refusals(run) == [("kita", 2, "secagg.context-mismatch")]
        assert [one["kita"] for one in pool.verdicts(run)] == ["accepted", "refused", "accepted", "accepted"]
        assert pool.check_sums(run) == ROUNDS
        pool.check_audit()


@pytest.mark.parametrize("how", ["key", "none"])
def test_a_reply_that_says_more_or_less_than_its_kind_is_refused(how: str):
    def lie(said: Said) -> Said:
        if said.header.type is not T.SA_CONFIRM or not said.header.ok:
            return said
        return said.sealed(body={**said.header.body, "loss": 1} if how == "key" else {})

    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(lie)
        run = go(pool.run())
        code = {"key": "privacy.reply-field", "none": "secagg.context-mismatch"}[how]
        assert named(pool) == {("kita", T.SA_CONFIRM.value, code)}
        assert pool.check_sums(run) == ROUNDS


@pytest.mark.parametrize(
    ("kind", "code"), [(T.SA_CONFIRM, "secagg.views-differ"), (T.SA_UNMASK, "secagg.share-bad")]
)
@pytest.mark.parametrize("lie", ["flipped", "replayed"])
def test_a_wrong_confirmation_or_share_is_not_used_and_its_sender_is_left_out_from_then_on(
    kind: T, code: str, lie: str
):
    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(
            altered(kind, flipped, number=2) if lie == "flipped" else replayed(kind)
        )
        run = go(pool.run())
        assert named(pool) == {("kita", kind.value, code)}
        there = [one["kita"] for one in pool.verdicts(run)]
        assert there == ["accepted", "accepted", "refused", "refused"]
        assert pool.check_sums(run) == ROUNDS
        assert [one["members"] for one in pool.journal.of("secagg.setup")] == [4, 3]
        pool.check_audit()


def test_two_holders_of_forged_shares_lose_their_round_and_are_named_in_the_log():
    with running(**OPTIONS) as (pool, go):
        for name in ("iber", "kita"):
            pool.nodes[name].lies.append(altered(T.SA_UNMASK, flipped, number=2))
        run = go(pool.run())
        assert {who for who, *_ in named(pool)} == {"iber", "kita"}
        assert sorted(pool.refusals(run))[:4] == [
            ("hanbit", 2, "attempt-abandoned"),
            ("iber", 2, "secagg.share-bad"),
            ("kita", 2, "secagg.share-bad"),
            ("nord", 2, "attempt-abandoned"),
        ]
        assert pool.check_sums(run) == 1  # two honest members are too few for another
        pool.check_audit()


def test_a_masked_vector_of_another_length_costs_its_sender_that_attempt_only():
    def lie(said: Said) -> Said:
        if said.header.type in CONTRIBUTIONS and said.header.round == 2 and said.tensor is not None:
            return said.sealed(tensor=said.tensor[:-4])
        return said

    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].lies.append(lie)
        run = go(pool.run())
        assert [one["kita"] for one in pool.verdicts(run)] == ["accepted", "refused", "accepted", "accepted"]
        assert pool.check_sums(run) == ROUNDS


def test_a_member_that_does_not_clip_is_stopped_by_the_norm_of_the_mean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(masking, "check_update", lambda update, _terms: update)  # others are within C anyway
    with running(**OPTIONS) as (pool, go):
        pool.nodes["kita"].learner.spoil = lambda update: update * np.float32(1e6)
        run = go(pool.run())
        assert [one["code"] for one in pool.journal.of("secagg.not-opened")] == ["secagg.sum-wrong"] * 3
        rows = [(row.round, row.attempt, row.model, row.unmasked) for row in pool.rounds(run)]
        assert rows == [(number, 1, None, 1) for number in (1, 2, 3)]
        assert pool.row(run).state == "stopped"
        pool.check_audit()


def lying_counts(monkeypatch: pytest.MonkeyPatch, name: str, *, tag: int = 0, one: int = 1) -> None:
    """A member masks other counts beside its vector: what is under a mask nobody sees, so nobody is named."""
    whole = node.NodeMachine._counts

    def counts(self: node.NodeMachine, *more: object) -> list[int]:
        _, weight, true = whole(self, *more)
        return [one, weight, (true + tag) % 2**64] if self._party == name else [1, weight, true]

    monkeypatch.setattr(node.NodeMachine, "_counts", counts)


def shape(pool: Pool, run: str) -> list[tuple[int, int, bool]]:
    return [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]


def test_a_wrong_tag_costs_its_rounds_until_the_member_is_left_out_and_named_as_a_suspect(
    monkeypatch: pytest.MonkeyPatch,
):
    lying_counts(monkeypatch, "iber", tag=1)
    with running(**OPTIONS, **{"aggregation.group_mac": "on"}) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        again = [(2, 1, False), (2, 2, True), (3, 1, False), (3, 2, True)]
        assert shape(pool, run) == [(1, 1, True), *again, (4, 1, True), (5, 1, True), (6, 1, True)]
        withdrawn = pool.entries(EntryType.SUM_WITHDRAWN, run)
        assert [one.round for one in withdrawn] == [1, 2]
        assert [one.pub["saying"] for one in withdrawn] == [4, 3]
        suspects = [one["suspects"] for one in pool.journal.of("secagg.sum-failed")]
        assert suspects == [NAMES, ("iber", "kita", "nord")]
        assert [one["party"] for one in pool.journal.of("secagg.suspect")] == ["iber"]
        assert [one["members"] for one in pool.journal.of("secagg.setup")] == [4, 3, 3]
        assert pool.check_sums(run) == 6
        pool.check_audit()


def test_tags_that_stay_wrong_end_the_run_and_say_who_could_be_meant(monkeypatch: pytest.MonkeyPatch):
    lying_counts(monkeypatch, "kita", tag=1)
    with monkeypatch.context() as off:
        off.setattr(SecureRounds, "wrong_sum", lambda *_: None)
        with running(**OPTIONS, **{"aggregation.group_mac": "on"}) as (pool, go):
            run = go(pool.run())
            assert [one[2] for one in shape(pool, run)] == [True] + [
                False
            ] * 6  # nobody goes on, nobody knows why
            assert pool.row(run).model_digest is not None  # of the wrong sum
    with running(**OPTIONS, **{"aggregation.group_mac": "on"}) as (pool, go):
        run = go(pool.run())
        row = pool.row(run)
        assert (row.state, row.model_digest) == ("failed", None)
        error = json.loads(row.error)
        assert error["code"] == "secagg.sum-wrong"
        assert "rounds 1, 2, 3" in error["found"]
        assert error["found"].endswith("in all of them: kita, nord")
        assert len(pool.entries(EntryType.SUM_WITHDRAWN, run)) == 3
        pool.check_audit()


def test_one_member_that_calls_a_right_sum_wrong_takes_nothing_back(monkeypatch: pytest.MonkeyPatch):
    whole = node.NodeMachine.check_sums

    def check(self: node.NodeMachine, *more: object) -> object:
        if self._party == "kita":
            raise SumWrongError(need="a right sum", found="this one", remedy="none")
        return whole(self, *more)

    monkeypatch.setattr(node.NodeMachine, "check_sums", check)
    with running(**OPTIONS, **{"aggregation.group_mac": "on"}) as (pool, go):
        run = go(pool.run())
        without = {name: one for name, one in EVERYBODY.items() if name != "kita"}
        assert all(without.items() <= one.items() for one in pool.verdicts(run))
        assert pool.entries(EntryType.SUM_WITHDRAWN, run) == []
        assert pool.check_sums(run) == ROUNDS


def test_a_wrong_counter_costs_a_round_each_time_until_its_member_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
):
    lying_counts(monkeypatch, "iber", one=7)
    with running(**OPTIONS) as (pool, go):
        run = go(pool.run())
        lost = [(1, 1, False), (2, 1, False)]
        assert shape(pool, run) == [*lost, *((number, 1, True) for number in (3, 4, 5, 6))]
        assert [one["party"] for one in pool.journal.of("secagg.suspect")] == ["iber"]
        assert pool.verdicts(run)[2:] == [EVERYBODY | {"iber": "silent"}] * ROUNDS
        assert pool.check_sums(run) == ROUNDS
        pool.check_audit()
