# SPDX-License-Identifier: Apache-2.0
"""A broker shows members different things: models, teams, nonces, members, online sets, vectors.

Each attack is first made against members without the one check that stops it, and then succeeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.secagg import node, terms
from policies.secagg.asks import ConfirmAsk, write_unmask
from policies.secagg.collector import Attempt
from policies.secagg.contexts import NO_NONCE, Context
from policies.secagg.documents import VectorHeader, sign
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    PartitionBadError,
    SecaggError,
    ViewsDifferError,
)
from policies.secagg.rules import Rules
from policies.secagg.terms import Terms
from tests.logsim import digest_from
from tests.secaggsim import Fleet, as_it_is, changed, key_of, open_team, ring_of, terms_of_size

VICTIM = "m01"
OTHER_MODEL = digest_from("a model made for one")


def to_victim(fleet: Fleet, **changes: Any) -> Callable[[str, str, bytes], bytes]:
    def shown(step: str, party: str, ask: bytes) -> bytes:
        return changed(ask, fleet.terms, **changes) if (step, party) == ("contribute", VICTIM) else ask

    return shown


def blind_to(field: str, value: Any) -> Callable[[Context, Terms], bytes]:
    """`Context.digest` that leaves a field out."""
    whole = Context.digest

    def digest(self: Context, terms: Terms) -> bytes:
        return whole(replace(self, **{field: value}), terms)

    return digest


VIEWS = {"base_model": OTHER_MODEL, "nonces": (NO_NONCE,) * 4}


@pytest.mark.parametrize("field", VIEWS)
def test_two_views_of_an_attempt_give_no_sum(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change = {field: VIEWS[field]}
    with monkeypatch.context() as off:
        off.setattr(Context, "digest", blind_to(field, VIEWS[field]))
        fleet = Fleet(terms_of_size(4))
        outcome = fleet.round(fleet.setup(), 1, shown=to_victim(fleet, **change))
        assert not fleet.refused  # one trained on a model, or under nonces, that the others never saw
        assert np.array_equal(outcome.z, fleet.plain_sum(fleet.terms.parties, 1))
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, shown=to_victim(fleet, **change))
    assert isinstance(fleet.refused["vector", VICTIM], ContextMismatchError)
    assert VICTIM not in outcome.opened.online  # an honest broker goes on with the others


@pytest.mark.parametrize("field", VIEWS)
def test_members_do_not_confirm_what_was_masked_in_another_view(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that takes the victim's vector all the same: nobody signs, and the masks do not cancel."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    monkeypatch.setattr("policies.secagg.attempts.check", lambda *_, **__: None)
    vectors = fleet.contribute(attempt, shown=to_victim(fleet, **{field: VIEWS[field]}))
    fleet.gather("confirm", attempt)
    assert set(fleet.refused) == {("confirm", one) for one in fleet.terms.parties}
    assert not attempt.enough_confirmed
    for one, machine in fleet.machines.items():
        attempt._revealed.shares[one] = {  # every secret of the attempt, which the broker has not
            peer: machine._present.share(0, peer, node.Kind.OWN) for peer in attempt.context.members
        }
    z = open_team(attempt, vectors, 0).values
    differs = np.count_nonzero(z != fleet.plain_sum(fleet.terms.parties, 1))
    assert differs == fleet.terms.dimension


def test_teams_of_two_views_are_refused_by_who_was_shown_the_wrong_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = terms_of_size(6).parties
    teams = (names[:3], names[3:])
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_teams", lambda *_, **__: None)
        fleet = Fleet(terms_of_size(6))
        slot = admitted(fleet, teams=teams)
        assert slot.team == names[:3]
    fleet = Fleet(terms_of_size(6))
    with pytest.raises(PartitionBadError):
        admitted(fleet, teams=teams)


def admitted(fleet: Fleet, **changes: Any) -> Any:
    attempt = fleet.attempt(fleet.setup(), 1)
    return fleet.admit(attempt, VICTIM, changed(attempt.contribute_ask(), fleet.terms, **changes))


def test_two_views_of_who_the_members_are_give_two_seals() -> None:
    """One is shown that m04 shared, the others that it did not: another seal, so another context for all."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(away={"open": fleet.terms.parties})
    whole = {one: setup.open_ask(one) for one in fleet.terms.parties}
    setup.headers.pop("m04")
    fewer = {one: setup.open_ask(one) for one in ("m01", "m02", "m03")}
    seals = {one: fleet.machines[one].open(whole[one] if one == VICTIM else fewer[one]) for one in fewer}
    assert len(set(seals.values())) == 2
    attempt = fleet.attempt(setup, 1)
    fleet.contribute(attempt)
    assert len(attempt._vectors) < fleet.terms.t


def views(fleet: Fleet, attempt: Attempt) -> tuple[bytes, bytes]:
    """CONFIRM asks over all, and over all but the last."""
    whole = attempt.confirm_ask()
    found = ConfirmAsk.from_bytes(whole, fleet.terms)
    fewer = {one: entry for one, entry in found.online.items() if one != "m06"}
    return whole, ConfirmAsk(online=fewer, opened=(0,)).to_bytes(fleet.terms)


def split(fleet: Fleet) -> list[SecaggError | bytes]:
    """Half of six members confirm one set, half another; all are then shown the six signatures."""
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt)
    whole, fewer = views(fleet, attempt)
    helpers = fleet.terms.parties[:5]
    asks = {one: whole if at < 2 else fewer for at, one in enumerate(helpers)}
    signed = {one: fleet.machines[one].confirm(ask, round=1, attempt=1) for one, ask in asks.items()}
    found: list[SecaggError | bytes] = []
    for one in helpers:
        try:
            found.append(fleet.machines[one].unmask(write_unmask(signed, fleet.terms), round=1, attempt=1))
        except SecaggError as error:
            found.append(error)
    return found


def test_an_online_set_split_in_two_views_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_confirmed", lambda *_: None)
        answers = split(Fleet(terms_of_size(6)))
        assert all(isinstance(one, bytes) for one in answers)  # m06 is alive to two and missing to three
    answers = split(Fleet(terms_of_size(6)))
    assert all(isinstance(one, ViewsDifferError) for one in answers)
    assert "m03, m04, m05" in str(answers[0])  # who signed other bytes than this member


def test_fewer_equal_confirmations_than_the_threshold_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unmasked(fleet: Fleet) -> bytes:
        attempt = fleet.attempt(fleet.setup(), 1)
        fleet.contribute(attempt)
        whole = attempt.confirm_ask()
        signed = {one: fleet.machines[one].confirm(whole, round=1, attempt=1) for one in ("m01", "m02")}
        return fleet.machines[VICTIM].unmask(write_unmask(signed, fleet.terms), round=1, attempt=1)

    with monkeypatch.context() as off:
        off.setattr(terms, "threshold", lambda _: 2)
        assert unmasked(Fleet(terms_of_size(4)))
    with pytest.raises(CohortTooSmallError):
        unmasked(Fleet(terms_of_size(4)))


def test_one_signature_many_times_counts_once() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt)
    signature = fleet.machines[VICTIM].confirm(attempt.confirm_ask(), round=1, attempt=1)
    shown = write_unmask({VICTIM: signature}, fleet.terms) * 3
    with pytest.raises(ContextMismatchError):
        fleet.machines[VICTIM].unmask(shown, round=1, attempt=1)
    stolen = write_unmask(dict.fromkeys(("m01", "m02", "m03"), signature), fleet.terms)
    with pytest.raises(ViewsDifferError):
        fleet.machines[VICTIM].unmask(stolen, round=1, attempt=1)


def swapped(fleet: Fleet, attempt: Attempt, *, key_from: str) -> Callable[[str, str, bytes], bytes]:
    """The victim's vector in the CONFIRM list is one of the broker's."""

    def shown(step: str, party: str, ask: bytes) -> bytes:
        if step != "confirm":
            return ask
        found = ConfirmAsk.from_bytes(ask, fleet.terms)
        entry = replace(found.online[VICTIM], digest=digest_from("a vector of the broker"))
        header = VectorHeader(
            ctx=attempt.context.digest(fleet.terms), party=VICTIM, digest=entry.digest, lane=entry.lane
        )
        entry = replace(entry, signature=sign(header, key_of(key_from)))
        return ConfirmAsk(online={**found.online, VICTIM: entry}, opened=found.opened).to_bytes(fleet.terms)

    return shown


def confirmed(key_from: str) -> tuple[Fleet, dict[str, bytes]]:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt)
    object.__setattr__(attempt, "confirmed", lambda *_: None)
    return fleet, fleet.gather("confirm", attempt, shown=swapped(fleet, attempt, key_from=key_from))


def test_a_vector_that_is_swapped_in_the_list_is_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_own_vector", lambda *_: None)
        _, answers = confirmed(VICTIM)  # even where the victim's key signed it
        assert len(answers) == 4
    fleet, answers = confirmed(VICTIM)
    assert VICTIM not in answers
    assert isinstance(fleet.refused["confirm", VICTIM], ViewsDifferError)
    with monkeypatch.context() as off:
        off.setattr(node, "check", lambda *_, **__: None)
        off.setattr(Rules, "check_own_vector", lambda *_: None)
        assert len(confirmed("the broker")[1]) == 4
    fleet, answers = confirmed("the broker")
    assert not answers
    assert isinstance(fleet.refused["confirm", "m02"], ContextMismatchError)


def test_members_see_another_sum_than_they_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the next round the broker tells of the last one with another online set."""

    def told(fleet: Fleet) -> None:
        setup = fleet.setup()
        fleet.round(setup, 1)
        attempt = fleet.attempt(setup, 2)
        before = replace(fleet.previous.previous(), online=("m01", "m02", "m03"))
        fleet.admit(attempt, VICTIM, changed(attempt.contribute_ask(), fleet.terms, shown=(before,)))

    with monkeypatch.context() as off:
        off.setattr(Rules, "check_shown", lambda *_: None)
        told(Fleet(terms_of_size(4)))
    with pytest.raises(ViewsDifferError):
        told(Fleet(terms_of_size(4)))


def test_who_confirms_other_bytes_is_named_and_left_out() -> None:
    def said(step: str, party: str, answer: bytes) -> bytes:
        forged = hashlib.sha512(b"another set").digest()
        return forged if (step, party) == ("confirm", "m02") else as_it_is(step, party, answer)

    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(), 1, said=said)
    assert fleet.refused["confirm", "m02"].offender == "m02"
    assert np.array_equal(
        outcome.z, sum((ring_of(fleet, one, 1) for one in fleet.terms.parties), np.uint32(0))
    )
