# SPDX-License-Identifier: Apache-2.0
"""A node's machine outside of attacks: the order of calls, the same bytes again, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from policies.limits import INTEGER_MAX, SECAGG_ROUNDS
from policies.secagg.asks import AdvertiseAsk
from policies.secagg.collector import Attempt, Setup
from policies.secagg.errors import (
    ContextMismatchError,
    RoundBurnedError,
    SecaggError,
    SetupGoneError,
    SlotUsedError,
    SumWrongError,
)
from tests.logsim import digest_from
from tests.secaggsim import MODEL, Fleet, terms_of_size, update_of

ONE = "m01"


def advertise(number: int, first_round: int = 1, rounds: int = 2) -> bytes:
    return AdvertiseAsk(number=number, first_round=first_round, rounds=rounds).to_bytes()


def test_each_step_of_a_setup_answers_the_same_bytes_the_same() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    machine = fleet.machines[ONE]
    asks = {"advertise": setup.advertise_ask(), "share": setup.share_ask(), "open": setup.open_ask(ONE)}
    answers = {step: getattr(machine, step)(ask) for step, ask in asks.items()}
    assert {step: getattr(machine, step)(ask) for step, ask in asks.items()} == answers
    assert Setup.from_bytes(setup.to_bytes(), fleet.terms).open_ask(ONE) == asks["open"]


def test_a_setup_has_a_number_above_all_before_it() -> None:
    machine = Fleet(terms_of_size(4)).machines[ONE]
    machine.advertise(advertise(3))
    for number in (1, 2, 3):
        with pytest.raises(ContextMismatchError):
            machine.advertise(advertise(number, first_round=5))
    machine.advertise(advertise(4))


@pytest.mark.parametrize(
    "asked",
    [
        (0, 1, 2),
        (1, 0, 2),
        (1, 1, 0),
        (1, 1, SECAGG_ROUNDS + 1),
        (1, INTEGER_MAX, 2),
        (-1, 1, 2),
        (INTEGER_MAX + 1, 1, 2),
    ],
)
def test_numbers_of_a_setup_have_bounds(asked: tuple[int, int, int]) -> None:
    machine = Fleet(terms_of_size(4)).machines[ONE]
    number, first, rounds = asked
    ask = f'{{"first_round":{first},"rounds":{rounds},"setup":{number}}}'.encode()
    with pytest.raises(ContextMismatchError):
        machine.advertise(ask)


def test_a_broker_that_asks_for_setups_without_end_is_given_room_for_one() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    machine = fleet.machines[ONE]
    for number in range(2, 30):
        machine.advertise(advertise(number))
    assert machine._pending.frame.number == 29
    assert machine._present.frame.number == 1
    assert len(fleet.round(setup, 1).opened.online) == 4  # the present one works on


def test_a_setup_that_is_replaced_is_gone() -> None:
    fleet = Fleet(terms_of_size(4))
    first = fleet.setup()
    old = fleet.attempt(first, 1)
    fleet.contribute(old)
    second = fleet.setup(2, first_round=1)
    with pytest.raises(SetupGoneError):
        fleet.machines[ONE].confirm(old.confirm_ask(), round=1, attempt=1)
    with pytest.raises(SetupGoneError):
        fleet.admit(old, ONE, old.contribute_ask())
    new = fleet.attempt(second, 1, 2)
    assert len(fleet.contribute(new)) == 4


def test_steps_out_of_order_are_refused() -> None:
    fleet = Fleet(terms_of_size(4))
    machine = fleet.machines[ONE]
    whole = Fleet(terms_of_size(4)).setup()
    with pytest.raises(SetupGoneError):
        machine.share(whole.share_ask())
    machine.advertise(whole.advertise_ask())
    with pytest.raises(SetupGoneError):
        machine.open(whole.open_ask(ONE))
    attempt = fleet.attempt(whole, 1)
    with pytest.raises(SetupGoneError):
        fleet.admit(attempt, ONE, attempt.contribute_ask())


def test_a_second_share_for_other_adverts_is_refused() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = Setup(fleet.terms, number=1, first_round=1, rounds=1)
    for one, machine in fleet.machines.items():
        setup.advert(one, machine.advertise(setup.advertise_ask()))
    fewer = Setup(fleet.terms, number=1, first_round=1, rounds=1)
    for one in ("m01", "m02", "m03"):
        fewer.advert(one, fleet.machines[one].advertise(setup.advertise_ask()))
    fleet.machines[ONE].share(setup.share_ask())
    with pytest.raises(SlotUsedError):
        fleet.machines[ONE].share(fewer.share_ask())


@pytest.mark.parametrize("said", [{"round": 2}, {"attempt": 2}, {"base_model": digest_from("another model")}])
def test_what_the_message_around_an_ask_says_is_what_the_ask_says(said: dict[str, object]) -> None:
    fleet = Fleet(terms_of_size(4))
    ask = fleet.attempt(fleet.setup(), 1).contribute_ask()
    around = {"round": 1, "attempt": 1, "base_model": MODEL} | said
    with pytest.raises(ContextMismatchError):
        fleet.machines[ONE].admit(ask, **around)
    assert fleet.machines[ONE]._attempt is None


def test_a_slot_of_no_round_of_the_setup_is_gone() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(rounds=1, first_round=3)
    assert (setup.covers(2), setup.covers(3), setup.covers(4), setup.last_round) == (False, True, False, 3)
    for at, attempt in ((2, 1), (4, 1), (3, 3), (3, 0)):
        with pytest.raises(SetupGoneError):
            Attempt(setup, round=at, attempt=attempt, base_model=MODEL)


def test_confirm_and_unmask_need_what_comes_before_them() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    machine = fleet.machines[ONE]
    with pytest.raises(SetupGoneError):
        machine.confirm(b"", round=1, attempt=1)
    attempt = fleet.attempt(setup, 1)
    slot = fleet.admit(attempt, ONE, attempt.contribute_ask())
    for call in (machine.confirm, machine.unmask):
        with pytest.raises(ContextMismatchError):
            call(b"", round=1, attempt=1)
    machine.mask(slot, update_of(ONE, 1, 5))
    with pytest.raises(ContextMismatchError):
        machine.unmask(b"", round=1, attempt=1)


def test_a_member_that_missed_the_confirmation_does_not_unmask_and_is_in_the_sum_all_the_same() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    outcome = fleet.round(setup, 1, away={"confirm": [ONE]})
    assert ONE in outcome.opened.parties
    with pytest.raises(ContextMismatchError):
        fleet.machines[ONE].unmask(outcome.attempt.unmask_ask(), round=1, attempt=1)
    assert len(fleet.contribute(fleet.attempt(setup, 2))) == 4  # and goes on with the next round


def test_attempt_two_opens_the_same_updates_after_one_that_failed() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    with pytest.raises(SecaggError):
        fleet.round(setup, 1, away={"confirm": ["m01", "m02"]})
    fleet.refused.clear()
    outcome = fleet.round(setup, 1, 2)
    assert not fleet.refused
    assert np.array_equal(outcome.z, fleet.plain_sum(fleet.terms.parties, 1))
    assert [(one.round, one.attempt) for one in fleet.machines[ONE].opened] == [(1, 2)]


def test_a_round_without_group_tags_carries_none() -> None:
    fleet = Fleet(terms_of_size(4, group_mac=False))
    setup = fleet.setup()
    assert fleet.round(setup, 1).opened.tags == (0,)
    fleet.z = fleet.z + np.uint32(1)
    assert len(fleet.contribute(fleet.attempt(setup, 2))) == 4


def test_a_member_that_missed_a_round_checks_its_sum() -> None:
    """The context of an attempt that it never saw follows from what the ask says of it."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    fleet.round(setup, 1, away={"contribute": ["m04"]})
    attempt = fleet.attempt(setup, 2)
    slot = fleet.admit(attempt, "m04", attempt.contribute_ask())
    assert fleet.machines["m04"].check_sums(slot, [fleet.z]) == (fleet.terms,)
    with pytest.raises(SumWrongError):
        fleet.machines["m04"].check_sums(slot, [fleet.z + np.uint32(1)])


def test_the_sum_of_an_older_setup_is_checked_with_that_setups_key() -> None:
    fleet = Fleet(terms_of_size(4))
    fleet.round(fleet.setup(rounds=1), 1)
    attempt = fleet.attempt(fleet.setup(2, first_round=2), 2)
    slot = fleet.admit(attempt, ONE, attempt.contribute_ask())
    assert [one.setup for one in slot.shown] == [1]
    assert fleet.machines[ONE].check_sums(slot, [fleet.z]) == (fleet.terms,)
    with pytest.raises(SumWrongError):
        fleet.machines[ONE].check_sums(slot, [fleet.z + np.uint32(1)])
    fleet.machines[ONE].sum_keys.forget(before=2)
    assert fleet.machines[ONE].check_sums(slot, [fleet.z + np.uint32(1)]) == (None,)  # it cannot tell


def test_members_sign_which_round_they_helped_to_open_before_a_setup() -> None:
    """Of so many as may collude, and one: an honest one is among them."""
    fleet = Fleet(terms_of_size(5, max_colluders=2))
    fleet.round(fleet.setup(rounds=3), 1)
    fleet.round(fleet.setup(2, first_round=2), 2, away={"unmask": ["m05"]})
    fleet.setup(3, first_round=3)
    assert fleet.machines[ONE].witnessed == 2
    for name in ("m01", "m02"):
        fleet.machines[name] = fleet.begin(name, life=2)
    fleet.setup(4, first_round=4)
    assert fleet.machines["m05"].witnessed == 1  # two who say 2, and itself who says 1


def test_grid_values_are_masked_as_they_are() -> None:
    fleet = Fleet(terms_of_size(4))
    grids = {one: np.arange(5, dtype=np.int64) * at - 7 for at, one in enumerate(fleet.terms.parties)}
    z = fleet.round(fleet.setup(), 1, updates=grids).z
    assert np.array_equal(z.view(np.int32), sum(grids.values()))


def test_what_was_helped_to_open_before_this_process_is_told_to_it() -> None:
    fleet = Fleet(terms_of_size(4))
    for one in fleet.terms.parties:
        fleet.machines[one] = fleet.begin(one, opened_round=1)
    setup = fleet.setup()
    attempt = fleet.attempt(setup, 1)
    with pytest.raises(RoundBurnedError):
        fleet.admit(attempt, ONE, attempt.contribute_ask())
    assert len(fleet.contribute(fleet.attempt(setup, 2))) == 4


def test_the_list_of_opened_sums_has_a_bound() -> None:
    fleet = Fleet(terms_of_size(3))
    setup = fleet.setup(rounds=3)
    for at in (1, 2, 3):
        fleet.round(setup, at)
    opened = fleet.machines[ONE].opened
    assert [one.round for one in opened] == [1, 2, 3]
    assert fleet.machines[ONE]._opened.maxlen == SECAGG_ROUNDS
