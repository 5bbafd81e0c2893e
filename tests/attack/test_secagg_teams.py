# SPDX-License-Identifier: Apache-2.0
"""A broker chooses who is summed with whom, or opens a team that is too small: to sum the victim with its own.

Each attack is first made against members without the one check that stops it, and then succeeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.secagg.asks import ConfirmAsk, ContributeAsk
from policies.secagg.collector import Attempt
from policies.secagg.contexts import NO_NONCE, Teams
from policies.secagg.errors import CohortTooSmallError, ContextMismatchError, PartitionBadError
from policies.secagg.rules import Rules
from policies.secagg.shamir import SHARE_BYTES
from tests.secaggsim import Fleet, changed, ring_of, terms_of_size

VICTIM = "m01"
NAMES = terms_of_size(6).parties


def drawn(_round: int, reveals: Mapping[str, bytes]) -> Teams:
    """Two teams by the nonces of all, as a partition that nobody chooses."""
    seed = hashlib.sha256(b"".join(reveals.values())).digest()
    order = sorted(reveals, key=lambda one: hashlib.sha256(seed + one.encode()).digest())
    half = len(order) // 2
    return tuple(tuple(sorted(team)) for team in (order[:half], order[half:]))


def probing(terms: Any = None) -> Fleet:
    fleet = Fleet(terms or terms_of_size(6))
    for one in fleet.terms.parties:
        fleet.machines[one] = fleet.begin(one, expected_teams=drawn)
    return fleet


def fair(fleet: Fleet, setup: Any, at: int = 1) -> Teams:
    return drawn(at, dict(zip(setup.members, setup.reveals(at), strict=True)))


def chosen(teams: Teams) -> Teams:
    """Teams in which the victim is with two that the broker likes."""
    other = next(one for one in (("m01", "m02", "m03"), ("m01", "m02", "m04")) if one not in teams)
    return other, tuple(one for one in NAMES if one not in other)


def test_teams_of_the_brokers_choice_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_teams", lambda *_, **__: None)
        fleet = probing()
        setup = fleet.setup()
        teams = chosen(fair(fleet, setup))
        outcome = fleet.round(setup, 1, teams=teams)
        friends = sum((ring_of(fleet, one, 1) for one in teams[0] if one != VICTIM), np.uint32(0))
        assert np.array_equal(
            outcome.z - friends, ring_of(fleet, VICTIM, 1)
        )  # three, two of them the broker's
    fleet = probing()
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1, teams=chosen(fair(fleet, setup)))
    fleet.contribute(attempt)
    assert {type(one) for one in fleet.refused.values()} == {PartitionBadError}
    assert not attempt._vectors
    right = fleet.round(setup, 1, 2, teams=fair(fleet, setup))  # the next attempt, with the teams that follow
    assert len(right.opened.teams) == 2


@pytest.mark.parametrize(
    "teams",
    [
        (NAMES[:3],),
        (NAMES[:3], NAMES[2:]),
        (NAMES, NAMES[:3]),
        (NAMES[3:], NAMES[:3]),
        (),
        ((), NAMES),
    ],
    ids=["one missing", "one twice", "all and some", "another order", "none", "an empty one"],
)
def test_a_plain_round_has_one_team_of_everybody(teams: Teams) -> None:
    fleet = Fleet(terms_of_size(6))
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    with pytest.raises(PartitionBadError):
        fleet.admit(attempt, VICTIM, changed(attempt.contribute_ask(), fleet.terms, teams=teams))


def test_a_nonce_that_was_told_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By leaving links out a broker could try sets of nonces until the teams please it."""

    def without_own(fleet: Fleet) -> Any:
        attempt = fleet.attempt(fleet.setup(), 1)
        wanted = ContributeAsk.from_bytes(attempt.contribute_ask(), fleet.terms)
        nonces = (NO_NONCE, *wanted.nonces[1:])
        teams = drawn(1, dict(zip(NAMES, nonces, strict=True)))
        return fleet.admit(attempt, VICTIM, replace(wanted, nonces=nonces, teams=teams).to_bytes(fleet.terms))

    with monkeypatch.context() as off:
        off.setattr("policies.secagg.rules.NO_NONCE", b"never")
        without_own(probing())
    with pytest.raises(PartitionBadError):
        without_own(probing())


def test_a_nonce_that_is_no_link_of_its_chain_is_refused() -> None:
    fleet = probing()
    attempt = fleet.attempt(fleet.setup(), 1)
    wanted = ContributeAsk.from_bytes(attempt.contribute_ask(), fleet.terms)
    for nonces in (
        (*wanted.nonces[:5], b"x" * 32),
        wanted.nonces[:5],
        (*wanted.nonces[1:], wanted.nonces[0]),
    ):
        with pytest.raises(ContextMismatchError):
            fleet.admit(attempt, VICTIM, replace(wanted, nonces=nonces).to_bytes(fleet.terms))


def test_who_missed_an_unmask_owes_its_link_and_goes_on_later() -> None:
    fleet = probing(terms_of_size(7))
    setup = fleet.setup(rounds=4)
    fleet.round(setup, 1, teams=fair(fleet, setup), away={"unmask": ["m07"]})
    assert setup.reveals(2)[-1] == NO_NONCE
    outcome = fleet.round(setup, 2, teams=fair(fleet, setup, 2))
    assert "m07" in outcome.opened.online
    assert NO_NONCE not in setup.reveals(3)


def small(fleet: Fleet) -> Attempt:
    """A probe round in which a member of the second team is away; the broker wants that team opened all the same."""
    setup = fleet.setup()
    teams = fair(fleet, setup)
    gone = teams[1][0]

    def shown(step: str, party: str, ask: bytes) -> bytes:
        if step != "confirm":
            return ask
        found = ConfirmAsk.from_bytes(ask, fleet.terms)
        return ConfirmAsk(online=found.online, opened=(0, 1)).to_bytes(fleet.terms)

    attempt = fleet.attempt(setup, 1, teams=teams)
    fleet.contribute(attempt, away=[gone])
    attempt.confirm_ask()
    attempt.confirmed = lambda party, answer: attempt._confirmed.update({party: answer})  # takes what it gets
    fleet.gather("confirm", attempt, shown=shown)
    return attempt


def test_a_team_below_its_groups_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_crowds", lambda *_: None)
        fleet = probing()
        attempt = small(fleet)
        answer = fleet.machines[attempt.online[0]].unmask(attempt.unmask_ask(), round=1, attempt=1)
        assert len(answer) == 6 * SHARE_BYTES + 32  # shares of the small team too
    fleet = probing()
    attempt = small(fleet)
    assert {type(fleet.refused["confirm", one]) for one in attempt.online} == {CohortTooSmallError}


def test_nothing_is_revealed_of_a_team_that_stays_closed() -> None:
    fleet = probing()
    setup = fleet.setup()
    teams = fair(fleet, setup)
    outcome = fleet.round(setup, 1, teams=teams, away={"contribute": [teams[1][0]]})
    assert outcome.opened.teams == (teams[0],)
    assert np.array_equal(outcome.z, fleet.plain_sum(teams[0], 1))
    for one in outcome.opened.online:
        shares = outcome.attempt._revealed.shares[one]
        assert set(shares) == set(teams[0])
        answer = fleet.machines[one].unmask(outcome.attempt.unmask_ask(), round=1, attempt=1)
        assert len(answer) == 3 * SHARE_BYTES + 32


def test_the_release_guard_is_asked_before_anything_is_revealed() -> None:
    class SecondSumError(Exception):
        pass

    def guard(opened: Any, candidate: Any) -> None:
        if opened:
            raise SecondSumError

    fleet = Fleet(terms_of_size(4))
    for one in fleet.terms.parties:
        fleet.machines[one] = fleet.begin(one, guard=guard)
    setup = fleet.setup()
    fleet.round(setup, 1)
    attempt = fleet.attempt(setup, 2)
    fleet.contribute(attempt)
    fleet.gather("confirm", attempt)
    machine = fleet.machines[VICTIM]
    with pytest.raises(SecondSumError):
        machine.unmask(attempt.unmask_ask(), round=2, attempt=1)
    assert machine.opened[-1].round == 1
    assert machine.opened[-1].supports == (fleet.terms.parties,)
