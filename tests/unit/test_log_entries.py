# SPDX-License-Identifier: Apache-2.0
"""Entries: bytes, ids, commitments, and the closed schema."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies.encoding import canonical
from policies.errors import EncodingError
from policies.limits import LOG_BODY_MAX
from policies.log.entries import (
    EntryType,
    Event,
    alias,
    check_entry,
    commitment,
    entry_body,
    event_id,
    private_values,
    request_digest,
)
from policies.log.errors import BodyTooLargeError, EntryError
from policies.log.kinds import DECIMAL
from policies.log.schema import REFUSALS, SCHEMA
from policies.secagg.errors import SecaggError, UpdateUnfitError
from tests.auditsim import ORIGIN, PARTIES, START_MS, PoolSim, digest_from, seeded

ALIAS = "0123456789abcdef"
REFUSED = Event(
    type=EntryType.CONTRIBUTION_REFUSED,
    scope=digest_from("contract"),
    run="run_aaaaaaaaaaaaaaaa",
    round=3,
    refs=(5,),
    pub={"reason": "norm-exceeded", "clause": None},
    private={"need": "at most 10", "got": 11},
)


def body(event: Event, **changes: object) -> bytes:
    salts = {name: seeded(name, 16) for name in private_values(event, START_MS)}
    return entry_body(event, **({"log": ORIGIN, "now_ms": START_MS + 61_234, "salts": salts} | changes))


def spoiled(**changes: object) -> bytes:
    """The entry with values at dotted paths replaced; a value of ``...`` removes it."""
    tree = json.loads(body(REFUSED))
    for path, value in changes.items():
        at = tree
        *parents, last = path.split("__")
        for one in parents:
            at = at[one]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return canonical(tree)


def test_an_entry_reads_back_as_it_was_written() -> None:
    data = body(REFUSED)
    entry = check_entry(data)
    assert (entry.body, entry.type, entry.refs, entry.run, entry.round) == (
        data,
        REFUSED.type,
        (5,),
        REFUSED.run,
        3,
    )
    assert entry.pub == REFUSED.pub
    assert set(entry.sd) == {"at", "need", "got"}
    assert entry.ts.endswith(":00Z")
    assert entry.id == event_id(REFUSED)


def test_nothing_confidential_stands_in_clear() -> None:
    data = body(REFUSED)
    assert b"at most 10" not in data
    assert b"234Z" not in data


def test_a_commitment_opens_only_with_salt_field_and_value() -> None:
    salt = seeded("got", 16)
    shown = check_entry(body(REFUSED)).sd["got"]
    assert commitment(salt, "got", 11) == shown
    assert commitment(salt, "got", 12) != shown
    assert commitment(salt, "need", 11) != shown
    assert commitment(bytes(16), "got", 11) != shown


def test_small_values_cannot_be_guessed_without_the_salt() -> None:
    shown = check_entry(body(REFUSED)).sd["got"]
    assert all(commitment(b"", "got", guess) != shown for guess in range(1000))


def test_the_same_event_has_the_same_id_whenever_it_is_logged() -> None:
    later = replace(REFUSED, private={"need": "something else", "got": 0})
    assert event_id(later) == event_id(REFUSED)
    assert check_entry(body(later, now_ms=START_MS + 10**9)).id == event_id(REFUSED)
    assert event_id(replace(REFUSED, refs=(6,))) != event_id(REFUSED)


def test_another_content_under_the_same_id_has_another_request_digest() -> None:
    other = replace(REFUSED, pub={"reason": "not-finite", "clause": None})
    assert event_id(other) == event_id(REFUSED)
    assert request_digest(other) != request_digest(REFUSED)
    assert request_digest(replace(REFUSED, private={"need": 1, "got": 2})) == request_digest(REFUSED)


def test_an_alias_does_not_follow_its_owner_from_round_to_round() -> None:
    key, other = seeded("kita"), seeded("nord")
    places = [(None, None, None), ("c", None, None), ("c", "r", None), ("c", "r", 1), ("c", "r", 2)]
    names = {alias(one, *place) for one in (key, other) for place in places}
    assert len(names) == 2 * len(places)
    assert all(len(name) == 16 for name in names)


@pytest.mark.parametrize(
    "event",
    [
        replace(REFUSED, pub={"reason": "norm-exceeded"}),
        replace(REFUSED, pub={"reason": "free text, with spaces", "clause": None}),
        replace(REFUSED, pub=REFUSED.pub | {"note": "x"}),
        replace(REFUSED, private={"need": "x"}),
        replace(REFUSED, private=REFUSED.private | {"more": 1}),
        replace(REFUSED, private=REFUSED.private | {"got": "x" * 5000}),
        replace(REFUSED, actor=ALIAS),
        replace(REFUSED, actor="auditor"),
        replace(REFUSED, actor="somebody"),
        replace(REFUSED, scope="not a digest"),
        replace(REFUSED, run="run_1"),
        replace(REFUSED, round=-1),
        replace(REFUSED, refs=(1, 1)),
        replace(REFUSED, refs=tuple(range(300))),
    ],
)
def test_an_event_outside_the_schema_gets_no_bytes(event: Event) -> None:
    with pytest.raises(EntryError):
        body(event)


def test_every_salt_is_needed_and_has_sixteen_bytes() -> None:
    names = private_values(REFUSED, START_MS)
    for salts in ({}, dict.fromkeys(names, b"short"), {name: bytes(16) for name in [*names, "more"]}):
        with pytest.raises(EntryError):
            body(REFUSED, salts=salts)


def test_an_error_never_shows_a_confidential_value() -> None:
    secret = replace(REFUSED, private=REFUSED.private | {"got": "secret-figure" * 500})
    with pytest.raises(EntryError) as refused:
        body(secret)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        spoiled(v=2),
        spoiled(v=True),
        spoiled(type="contribution.imagined"),
        spoiled(ts="2026-12-05T10:04:05Z"),
        spoiled(ts="2026-13-05T10:04:00Z"),
        spoiled(actor="someone"),
        spoiled(actor=ALIAS),
        spoiled(refs="5"),
        spoiled(refs=[5, 5]),
        spoiled(env="sha256:" + "0" * 64),
        spoiled(env="x"),
        spoiled(log="a b"),
        spoiled(scope="x"),
        spoiled(pub={}),
        spoiled(pub=[]),
        spoiled(pub__reason="Refused because I say so"),
        spoiled(pub__reason=7),
        spoiled(sd=None),
        spoiled(sd__at=...),
        spoiled(sd__at="0" * 63),
        spoiled(sd__at="G" * 64),
        spoiled(sd__extra="0" * 64),
        spoiled(more=1),
        spoiled(round=...),
        canonical([1]),
    ],
)
def test_bytes_outside_the_schema_are_refused(data: bytes) -> None:
    with pytest.raises(EntryError):
        check_entry(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}x",
        b'{"v":1,"v":1}',
        b'{"v":NaN}',
        b'{"v":1.0}',
        b'{"v":9007199254740992}',
        b'{"v": 1}',
        b'{"b":1,"a":1}',
        '{"v":"e\u0301"}'.encode(),
        b'{"v":"\\ud800"}',
        b"\xff",
        b"[" * 50 + b"]" * 50,
    ],
)
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        check_entry(data)


def test_a_body_above_the_bound_is_refused_at_both_ends() -> None:
    many = Event(
        type=EntryType.DECISION_RECORDED,
        pub={
            "point": "broker",
            "outcome": "refuse",
            "clauses": [f"clause-{number:034d}" for number in range(200)],
            "decision": digest_from("decision"),
        },
    )
    with pytest.raises(BodyTooLargeError):
        body(many)
    with pytest.raises(BodyTooLargeError):
        check_entry(b"x" * (LOG_BODY_MAX + 1))


def test_the_schema_knows_every_type_and_no_type_holds_free_text() -> None:
    assert set(SCHEMA) == set(EntryType)
    for kind, schema in SCHEMA.items():
        assert set(schema.by) <= set("BMA"), kind
        assert not set(schema.sd) & set(schema.sd_optional), kind
        for name, one in schema.pub.items():
            assert not one.holds("free text with spaces"), f"{kind} {name}"
            assert not one.holds("<b>\x1b[2J"), f"{kind} {name}"
        if "B" in schema.by:
            known = {*schema.pub, "run", "round", "ref", "scope"}
            assert set(schema.key) <= known, kind


def test_a_whole_story_produces_most_types() -> None:
    kinds = {check_entry(one).type for one in PoolSim().build().bodies}
    assert len(kinds) >= 20
    assert len(PARTIES) == 3


@pytest.mark.parametrize("text", ["0", "1.5", "3.110430", "0.00001", "123456789012.123456789012345678"])
def test_a_decimal_is_plain(text: str) -> None:
    assert DECIMAL.holds(text)


@pytest.mark.parametrize(
    "text", ["", "1e-5", "-1", "01", ".5", "1.", "1,5", "NaN", "1\u0661", "1\n", 1.5, 1, None]
)
def test_anything_else_is_no_decimal(text: object) -> None:
    assert not DECIMAL.holds(text)


def test_whatever_secure_aggregation_refuses_is_a_listed_reason():
    kinds = {SecaggError, UpdateUnfitError, *SecaggError.__subclasses__()}
    assert {one.code for one in kinds} <= REFUSALS
    for reason in REFUSALS:
        event = replace(REFUSED, pub={"reason": reason, "clause": None})
        assert (
            EntryType.CONTRIBUTION_REFUSED.value
            in entry_body(
                event, log=ORIGIN, now_ms=START_MS, salts={name: bytes(16) for name in ("at", "need", "got")}
            ).decode()
        )


def test_a_submission_may_name_the_attempt_that_was_paid():
    schema = SCHEMA[EntryType.SUBMISSION_RECEIVED]
    kind = schema.sd_kind("trained")
    assert kind is not None
    assert kind.holds(1)
    assert not kind.holds("1")
