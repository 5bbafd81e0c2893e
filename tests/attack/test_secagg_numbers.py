# SPDX-License-Identifier: Apache-2.0
"""A broker names the numbers of the contract itself, or counts members that are one: a sum of few opens the rest.

Each attack is first made against members that believe the broker, and then against ones that do not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.encoding import canonical, parse
from policies.secagg import terms as terms_module
from policies.secagg.asks import AdvertiseAsk, write_unmask
from policies.secagg.collector import Setup
from policies.secagg.errors import CohortTooSmallError, ContextMismatchError, KeyNotPinnedError
from policies.secagg.node import NodeMachine
from policies.secagg.packing import pack, unpack
from policies.secagg.rules import Rules
from policies.secagg.shamir import combine
from policies.secagg.terms import Terms
from tests.logsim import SimEntropy
from tests.secaggsim import Fleet, Outcome, key_of, ring_of, shares_in, stripped, terms_of_size

VICTIM = "m01"


def split_online(fleet: Fleet) -> bool:
    """Shows half of the members that the victim is online and the other half that it is not; reads it if both answer."""
    setup = fleet.setup(rounds=1)
    attempt = fleet.attempt(setup, 1)
    vectors = fleet.contribute(attempt)
    alive, missing = {}, {}
    without = fleet.attempt(setup, 1)
    for one, (header, signature) in attempt._vectors.items():
        if one != VICTIM:
            without.vector(one, header.lane + signature, header.digest)
    for view, helpers, answers in ((attempt, ("m01", "m02"), alive), (without, ("m03", "m04"), missing)):
        ask = view.confirm_ask()
        for one in helpers:
            view.confirmed(one, fleet.machines[one].confirm(ask, round=1, attempt=1))
        for one in helpers:
            shown = write_unmask(view._confirmed, fleet.terms)  # as many as it has
            answers[one] = fleet.machines[one].unmask(shown, round=1, attempt=1)
    b, s = combine(shares_in(attempt, alive, VICTIM)), combine(shares_in(attempt, missing, VICTIM))
    return bool(
        np.array_equal(stripped(attempt, VICTIM, vectors[VICTIM], b=b, s=s), ring_of(fleet, VICTIM, 1))
    )


def test_a_threshold_that_the_broker_lowers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(terms_module, "threshold", lambda _: 2)
        assert split_online(Fleet(terms_of_size(4)))
    fleet = Fleet(terms_of_size(4))
    with pytest.raises(CohortTooSmallError):
        split_online(fleet)
    ask = AdvertiseAsk(number=2, first_round=2, rounds=2).to_bytes()
    with pytest.raises(ContextMismatchError):
        fleet.machines[VICTIM].advertise(canonical(parse(ask) | {"t": 2}))


@pytest.mark.parametrize(
    ("field", "value"),
    [("t", 2), ("norm_max", "2"), ("bits", 31), ("weights", [1, 1, 1, 1]), ("min_parties", 1), ("k_open", 1)],
)
def test_what_the_contract_fixes_is_in_no_message(field: str, value: Any) -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    machine, attempt = fleet.machines[VICTIM], fleet.attempt(setup, 1)
    head, *rest = unpack(attempt.contribute_ask())
    with pytest.raises(ContextMismatchError):
        fleet.admit(attempt, VICTIM, pack([canonical(parse(head) | {field: value}), *rest]))
    fleet.contribute(attempt)
    head, *rest = unpack(attempt.confirm_ask())
    with pytest.raises(ContextMismatchError):
        machine.confirm(pack([canonical(parse(head) | {field: value}), *rest]), round=1, attempt=1)


@pytest.mark.parametrize(
    "other",
    [
        {"norm_max": "4"},
        {"weights": (1_000_000, 1_000_000, 1_000_000, 1)},
        {"dimension": 6},
        {"manifest": "sha256:" + "0" * 64},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_member_with_other_numbers_is_in_another_context(other: dict[str, Any]) -> None:
    """What a member computes from another contract never meets the rest: its signature is over other bytes."""
    fleet = Fleet(terms_of_size(4))
    fleet.machines["m04"] = fleet.begin("m04", terms=replace(fleet.terms, **other))
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    values = np.zeros(other.get("dimension", 5), np.float32)
    fleet.contribute(attempt, updates={"m04": values})
    assert ("vector", "m04") in fleet.refused or ("contribute", "m04") in fleet.refused
    assert "m04" not in attempt._vectors


def weak(terms: Terms) -> Terms:
    """What a broker that counts badly works by; digests are the same, since thresholds are in none."""
    return replace(terms, min_parties=1, max_colluders=-1)


class Lying(Fleet):
    """A fleet whose broker works by `weak` terms."""

    def open_of(self, here: Collection[str]) -> Outcome:
        setup = self.setup(rounds=1)
        setup.terms = weak(self.terms)
        return self.round(
            setup, 1, away={"contribute": [one for one in self.terms.parties if one not in here]}
        )


def one_owner() -> Lying:
    return Lying(terms_of_size(4, groups=["a", "a", "b", "c"]))


def test_two_parties_of_one_group_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They know their two updates, so a sum of three is the third's."""
    with monkeypatch.context() as off:
        off.setattr(Rules, "check_crowd", lambda *_: None)
        off.setattr(Rules, "check_crowds", lambda *_: None)
        fleet = one_owner()
        z = fleet.open_of(["m01", "m02", "m03"]).z
        assert np.array_equal(
            z - ring_of(fleet, "m01", 1) - ring_of(fleet, "m02", 1), ring_of(fleet, "m03", 1)
        )
    fleet = one_owner()
    with pytest.raises(CohortTooSmallError):
        fleet.open_of(["m01", "m02", "m03"])
    refused = {step: error for (step, _), error in fleet.refused.items()}
    assert isinstance(refused["confirm"], CohortTooSmallError)
    assert "groups" in refused["confirm"].need


@pytest.mark.parametrize("here", [["m01"], ["m01", "m02"]], ids=len)
def test_members_are_shown_that_too_few_take_part(here: list[str]) -> None:
    terms = terms_of_size(4)
    fleet = Fleet(terms)
    setup = Setup(weak(terms), number=1, first_round=1, rounds=1)
    setup.terms = replace(weak(terms))
    for one in here:
        setup.advert(one, fleet.machines[one].advertise(setup.advertise_ask()))
    object.__setattr__(setup.terms, "check_open", lambda _: None)
    for one in here:
        with pytest.raises(CohortTooSmallError):
            fleet.machines[one].share(setup.share_ask())


def test_too_few_members_at_any_later_step_open_nothing() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(rounds=2)
    attempt = fleet.attempt(setup, 1)
    fleet.contribute(attempt)
    object.__setattr__(
        attempt.terms, "check_open", lambda _: None
    )  # the broker's eyes closed, and the members' too
    for one in ("m03", "m04"):
        attempt._vectors.pop(one)
    attempt.opened_teams, attempt.online = (0,), ("m01", "m02")
    for one in attempt.online:
        with pytest.raises(CohortTooSmallError):
            fleet.machines[one].confirm(attempt.confirm_ask(), round=1, attempt=1)


def test_a_machine_with_another_key_than_the_contract_pins_does_not_begin() -> None:
    fleet = Fleet(terms_of_size(3))

    with pytest.raises(KeyNotPinnedError):
        NodeMachine(fleet.terms, VICTIM, key=key_of("somebody else"), entropy=SimEntropy())
