# SPDX-License-Identifier: Apache-2.0
"""A transcript is checked by somebody who trusts neither broker nor members: each lie in it has its refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from policies.secagg import transcript
from policies.secagg.documents import sign
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    KeyNotPinnedError,
    PartitionBadError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    SumWrongError,
    ViewsDifferError,
)
from policies.secagg.record import Record
from policies.secagg.sums import RingSum
from policies.secagg.transcript import check, recompute
from tests.secaggsim import Fleet, Outcome, key_of, terms_of_size

Change = Callable[[Record], Record]


@cache
def story() -> tuple[Fleet, Outcome]:
    """Seven members, one of them gone; the second attempt of the second round."""
    fleet = Fleet(terms_of_size(7, weights=(1_000_000, 400_000, *(1_000_000,) * 5)))
    setup = fleet.setup()
    fleet.round(setup, 1)
    return fleet, fleet.round(setup, 2, 2, away={"contribute": {"m03"}, "confirm": {"m05"}})


def told() -> Record:
    return Record.from_bytes(story()[1].opened.transcript)


def vectors() -> dict[str, bytes]:
    return {party: one.tobytes() for party, one in story()[1].vectors.items()}


def test_a_transcript_proves_its_sum_which_its_vectors_give_again() -> None:
    fleet, outcome = story()
    checked = check(told(), fleet.terms)
    assert checked.survivors(0) == ("m01", "m02", "m04", "m05", "m06", "m07")
    assert len(checked.signers) == fleet.terms.t
    assert "m05" not in checked.signers
    total = RingSum(fleet.terms.dimension)
    total.values += outcome.z
    assert recompute(checked, vectors()) == total.digest() == outcome.opened.sums[0]


def test_no_secret_shows() -> None:
    record = told()
    shown = repr(check(record, story()[0].terms)) + repr(record)
    assert not any(one.hex() in shown or repr(one)[2:-1] in shown for one in record.secrets.values())


def _in(field: str, change: Callable[[dict[Any, Any]], dict[Any, Any]]) -> Change:
    return lambda record: replace(record, **{field: change(dict(getattr(record, field)))})


def _without(field: str, name: Any) -> Change:
    return _in(field, lambda found: {one: value for one, value in found.items() if one != name})


def _entry(party: str, **fields: Any) -> Change:
    return _in("online", lambda found: {**found, party: replace(found[party], **fields)})


def _foreign(field: str) -> Change:
    """A document that somebody else's key signed."""

    def change(found: dict[Any, Any]) -> dict[Any, Any]:
        return {**found, "m02": replace(found["m02"], signature=found["m01"].signature)}

    return _in(field, change)


def _flipped(field: str, party: str) -> Change:
    return _in(field, lambda found: {**found, party: bytes([found[party][0] ^ 8]) + found[party][1:]})


LIES: dict[str, tuple[Change, type[SecaggError]]] = {
    "an advert under a foreign key": (_foreign("adverts"), KeyNotPinnedError),
    "an advert left out": (_without("adverts", "m07"), ContextMismatchError),
    "adverts in another order": (
        _in("adverts", lambda one: dict(reversed(one.items()))),
        ContextMismatchError,
    ),
    "no advert": (lambda one: replace(one, adverts={}), ContextMismatchError),
    "a member of no contract": (_in("adverts", lambda one: {**one, "zoe": one["m01"]}), CohortTooSmallError),
    "a share header under a foreign key": (_foreign("shares"), KeyNotPinnedError),
    "a share header of another member": (
        _in("shares", lambda one: {**one, "m02": one["m01"]}),
        KeyNotPinnedError,
    ),
    "another number of the setup": (lambda one: replace(one, number=2), ContextMismatchError),
    "a slot that the setup has not": (lambda one: replace(one, attempt=3), SetupGoneError),
    "another attempt": (lambda one: replace(one, attempt=1), ContextMismatchError),
    "another base model": (lambda one: replace(one, base_model="sha256:" + "0" * 64), ContextMismatchError),
    "a nonce that is no link": (
        lambda one: replace(one, nonces=(b"\1" * 32, *one.nonces[1:])),
        ContextMismatchError,
    ),
    "a nonce kept back": (
        lambda one: replace(one, nonces=(bytes(32), *one.nonces[1:])),
        ContextMismatchError,
    ),
    "teams that nobody drew": (
        lambda one: replace(one, teams=(tuple(one.shares)[:4], tuple(one.shares)[4:])),
        PartitionBadError,
    ),
    "a vector of another digest": (_entry("m01", digest="sha256:" + "0" * 64), ContextMismatchError),
    "another lane": (_entry("m01", lane=bytes(24)), ContextMismatchError),
    "another member's signature over a vector": (_entry("m01", signature=bytes(64)), ContextMismatchError),
    "a member less online": (_without("online", "m05"), ViewsDifferError),
    "too few confirmations": (_without("confirmations", 1), CohortTooSmallError),
    "a confirmation of somebody else": (
        _in("confirmations", lambda one: {**one, 5: one[1]}),
        ViewsDifferError,
    ),
    "a confirmation of who is not online": (
        _in("confirmations", lambda one: {**one, 3: one[1]}),
        ViewsDifferError,
    ),
    "a confirmation of nobody": (_in("confirmations", lambda one: {**one, 9: one[1]}), ContextMismatchError),
    "another team opened": (lambda one: replace(one, opened=(1,)), ContextMismatchError),
    "the same team opened twice": (lambda one: replace(one, opened=(0, 0)), ContextMismatchError),
    "nothing opened": (lambda one: replace(one, opened=()), ViewsDifferError),
    "another own secret": (_flipped("secrets", "m01"), ShareBadError),
    "another pair secret": (_flipped("secrets", "m03"), ShareBadError),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_refused(lie: str) -> None:
    change, error = LIES[lie]
    with pytest.raises(error):
        check(change(told()), story()[0].terms)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"contract": "sha256:" + "0" * 64}, ContextMismatchError),
        ({"recipe": "sha256:" + "0" * 64}, ContextMismatchError),
        ({"run": "run_2"}, ContextMismatchError),
        ({"norm_max": "3"}, ContextMismatchError),
        ({"weights": (1_000_000,) * 7}, ContextMismatchError),
        ({"dimension": 6}, ContextMismatchError),
        ({"min_parties": 7}, CohortTooSmallError),
        ({"max_colluders": 5}, CohortTooSmallError),
        ({"honest_min": 6}, CohortTooSmallError),
    ],
)
def test_a_sum_under_other_terms_is_refused(change: dict[str, Any], error: type[SecaggError]) -> None:
    with pytest.raises(error):
        check(told(), replace(story()[0].terms, **change))


def test_teams_are_compared_with_those_that_the_nonces_give() -> None:
    terms, record = story()[0].terms, told()
    seen = []

    def drawn(number: int, nonces: Any) -> list[Any]:
        seen.append((number, dict(nonces)))
        return [record.teams]

    check(record, terms, expected_teams=drawn)
    assert seen == [(2, dict(zip(record.shares, record.nonces, strict=True)))]
    with pytest.raises(PartitionBadError):
        check(record, terms, expected_teams=lambda *_: [])


def test_a_member_that_counts_as_seven_is_found_by_the_lane() -> None:
    """It signs what it sends, so broker and auditor see it only once the lane is open."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    fleet.contribute(attempt)
    header, _ = attempt._vectors["m02"]
    seven = (int.from_bytes(header.lane[:8], "little") + 6) % 2**64
    lied = replace(header, lane=seven.to_bytes(8, "little") + header.lane[8:])
    attempt._vectors["m02"] = lied, sign(lied, key_of("m02"))
    own = fleet.machines["m02"]._attempt
    assert own is not None
    own.header = lied
    fleet.gather("confirm", attempt)
    fleet.gather("unmask", attempt)
    with pytest.raises(SumWrongError):
        attempt.finish("sha256:" + "0" * 64)
    record = attempt._record(("sha256:" + "0" * 64,))
    with pytest.raises(SumWrongError, match="4 vectors"):
        check(record, fleet.terms)


@pytest.mark.parametrize("wrong", [None, b"", bytes(20)])
def test_a_sum_is_redone_from_the_vectors_that_were_signed_and_no_others(wrong: bytes | None) -> None:
    checked, found = check(told(), story()[0].terms), vectors()
    if wrong is None:
        del found["m04"]
    else:
        found["m04"] = wrong
    with pytest.raises(SumWrongError, match="m04"):
        transcript.recompute(checked, found)


def test_no_changed_byte_of_a_transcript_passes_or_breaks_the_reader() -> None:
    """But for digests of sums, which the log names, and bits that X25519 does not read."""
    data, terms = story()[1].opened.transcript, story()[0].terms
    start, end = data.index(b'"z":['), len(data) - 32 * len(told().secrets)
    for at in range(0, end, 23):
        if start <= at < start + 90:
            continue
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(SecaggError):
            check(Record.from_bytes(changed), terms)
