# SPDX-License-Identifier: Apache-2.0
"""A broker asks twice: for a second vector, a second set, a second sum of a round, or after a restart.

Each attack is first made against members without the one check that stops it, and then reads the victim's update.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from policies.secagg import node
from policies.secagg.asks import ConfirmAsk, write_unmask
from policies.secagg.collector import Attempt, Setup
from policies.secagg.contexts import public_of
from policies.secagg.dealing import Kind, OwnKeys, Secret, receive
from policies.secagg.errors import (
    ContextMismatchError,
    RoundBurnedError,
    SecaggError,
    SetupGoneError,
    SlotUsedError,
)
from policies.secagg.holding import Answers, Holding
from policies.secagg.node import NodeMachine
from policies.secagg.packing import pack, unpack
from policies.secagg.shamir import combine
from policies.secagg.slots import Stage
from tests.secaggsim import Fleet, ring_of, shares_in, stripped, terms_of_size

VICTIM = "m01"


class Forgetful(NodeMachine):
    """Confirms and unmasks as often as it is asked: no slot is ever over."""

    def confirm(self, ask: bytes, **at: int) -> bytes:
        self._attempt.stage, self._attempt.answers = Stage.MASKED, Answers()
        return super().confirm(ask, **at)

    def unmask(self, ask: bytes, **at: int) -> bytes:
        self._attempt.stage, self._attempt.answers = Stage.CONFIRMED, Answers()
        return super().unmask(ask, **at)


def second_set(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The victim is alive in one set and missing in another; all shares of both are asked for."""
    if fleet.machine is Forgetful:
        monkeypatch.setattr(Holding, "forget", lambda *_: None)
    attempt = fleet.attempt(fleet.setup(), 1)
    vectors = fleet.contribute(attempt)
    whole = attempt.confirm_ask()
    found = ConfirmAsk.from_bytes(whole, fleet.terms)
    fewer = {one: entry for one, entry in found.online.items() if one != VICTIM}
    second = ConfirmAsk(online=fewer, opened=(0,)).to_bytes(fleet.terms)
    secrets = []
    for ask, members in ((whole, fleet.terms.parties), (second, tuple(fewer))):
        signed = {one: fleet.machines[one].confirm(ask, round=1, attempt=1) for one in members}
        shown = write_unmask(signed, fleet.terms)
        answers = {one: fleet.machines[one].unmask(shown, round=1, attempt=1) for one in members}
        secrets.append(combine(shares_in(attempt, answers, VICTIM)))
    bare = stripped(attempt, VICTIM, vectors[VICTIM], b=secrets[0], s=secrets[1])
    return bool(np.array_equal(bare, ring_of(fleet, VICTIM, 1)))


def test_nobody_is_alive_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        assert second_set(Fleet(terms_of_size(4), machine=Forgetful), off)
    with pytest.raises(SlotUsedError):
        second_set(Fleet(terms_of_size(4)), monkeypatch)


def after_round(fleet: Fleet) -> tuple[Setup, Attempt]:
    setup = fleet.setup()
    return setup, fleet.round(setup, 1).attempt


def test_the_same_bytes_have_the_same_answer_and_others_none() -> None:
    fleet = Fleet(terms_of_size(4))
    _, attempt = after_round(fleet)
    machine = fleet.machines[VICTIM]
    confirm, unmask = attempt.confirm_ask(), attempt.unmask_ask()
    assert machine.confirm(confirm, round=1, attempt=1) == attempt._confirmed[VICTIM]
    again = machine.unmask(unmask, round=1, attempt=1)
    assert shares_in(attempt, {VICTIM: again}, "m02")[1] == attempt._revealed.shares[VICTIM]["m02"]
    signers = {one: attempt._confirmed[one] for one in ("m02", "m03", "m04")}
    with pytest.raises(RoundBurnedError):  # as good, but another ask
        machine.unmask(write_unmask(signers, fleet.terms), round=1, attempt=1)
    found = ConfirmAsk.from_bytes(confirm, fleet.terms)
    fewer = {one: entry for one, entry in found.online.items() if one != "m04"}
    with pytest.raises(SlotUsedError):
        machine.confirm(ConfirmAsk(online=fewer, opened=(0,)).to_bytes(fleet.terms), round=1, attempt=1)


def test_a_member_named_twice_or_in_another_order_is_no_set() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    fleet.contribute(attempt)
    _, entries = unpack(attempt.confirm_ask(), 2)
    for places in ([1, 1, 2, 3], [2, 1, 3, 4], [0, 1, 2, 3], [1, 2, 3, 5], [True, 2, 3, 4]):
        head = f'{{"online":{str(places).lower()},"opened":[0]}}'.replace(" ", "").encode()
        with pytest.raises(ContextMismatchError):
            fleet.machines[VICTIM].confirm(pack([head, entries]), round=1, attempt=1)


class Padless(NodeMachine):
    """Masks as often as it is asked under the keys of a slot."""

    def mask(self, slot: node.Slot, values: np.ndarray) -> node.Masked:
        kept = copy.copy(self._present.keys.slots)
        try:
            self._attempt.stage = Stage.ADMITTED
            return super().mask(slot, values)
        finally:
            self._present.keys.slots = kept


def two_vectors(fleet: Fleet) -> np.ndarray:
    """What two vectors under one keystream tell: the difference of two updates."""
    attempt = fleet.attempt(fleet.setup(), 1)
    slot = fleet.admit(attempt, VICTIM, attempt.contribute_ask())
    first, second = (np.full(5, value, np.float32) for value in (0.5, 0.25))
    one = fleet.machines[VICTIM].mask(slot, first).vector
    other = fleet.machines[VICTIM].mask(slot, second).vector
    return one - other


def test_a_slot_masks_one_vector() -> None:
    told = two_vectors(Fleet(terms_of_size(4), machine=Padless))
    assert np.array_equal(told, np.full(5, 0.25 * Fleet(terms_of_size(4)).terms.scale, np.uint32))
    with pytest.raises(SlotUsedError):
        two_vectors(Fleet(terms_of_size(4)))


def test_a_slot_is_not_admitted_again_once_it_masked() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    ask = attempt.contribute_ask()
    slot = fleet.admit(attempt, VICTIM, ask)
    assert fleet.admit(attempt, VICTIM, ask) is slot  # asked again while it trains
    fleet.machines[VICTIM].mask(slot, np.zeros(5, np.float32))
    with pytest.raises(SlotUsedError):
        fleet.admit(attempt, VICTIM, ask)


def test_a_slot_counts_as_used_when_masking_fails() -> None:
    fleet = Fleet(terms_of_size(4))
    attempt = fleet.attempt(fleet.setup(), 1)
    slot = fleet.admit(attempt, VICTIM, attempt.contribute_ask())
    with pytest.raises(SecaggError):
        fleet.machines[VICTIM].mask(slot, np.full(5, np.inf, np.float32))
    with pytest.raises(SlotUsedError):
        fleet.machines[VICTIM].mask(slot, np.zeros(5, np.float32))


def repeated(fleet: Fleet) -> np.ndarray:
    """The sum of attempt 1, opened, minus that of attempt 2 without the victim, of the same updates."""
    setup = fleet.setup()
    first = fleet.round(setup, 1).z
    fleet.previous = fleet.z = None
    return first - fleet.round(setup, 1, 2, away={"contribute": [VICTIM]}).z


def test_a_round_that_was_opened_takes_no_other_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(terms_of_size(4))
    with monkeypatch.context() as off:
        off.setattr(NodeMachine, "_check_order", lambda *_, **__: None)
        assert np.array_equal(repeated(fleet), ring_of(fleet, VICTIM, 1))
    fleet = Fleet(terms_of_size(4))
    with pytest.raises(SecaggError):
        repeated(fleet)
    burned = [one for (step, one), error in fleet.refused.items() if isinstance(error, RoundBurnedError)]
    assert burned == ["m02", "m03", "m04"]


@pytest.mark.parametrize("helpers", range(3, 5))
def test_whoever_helped_once_is_missing_in_a_second_sum(helpers: int) -> None:
    """At least t helped, so fewer than t are left; n - t + 1 refuse."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    fleet.round(setup, 1, away={"unmask": fleet.terms.parties[helpers:]})
    fleet.previous = fleet.z = None
    attempt = fleet.attempt(setup, 1, 2)
    fleet.contribute(attempt)
    assert len(fleet.refused) == helpers >= fleet.terms.n - fleet.terms.t + 1
    with pytest.raises(SecaggError):
        attempt.confirm_ask()


def test_rounds_and_attempts_go_forward_only() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(rounds=3)
    machine = fleet.machines[VICTIM]
    second = fleet.attempt(setup, 2, 2)
    slot = fleet.admit(second, VICTIM, second.contribute_ask())
    for at, attempt, refused in ((1, 1, RoundBurnedError), (2, 1, SlotUsedError)):
        older = fleet.attempt(setup, at, attempt)
        with pytest.raises(refused):
            fleet.admit(older, VICTIM, older.contribute_ask())
    third = fleet.attempt(setup, 3)
    fleet.admit(third, VICTIM, third.contribute_ask())
    with pytest.raises(RoundBurnedError):
        machine.mask(slot, np.zeros(5, np.float32))
    with pytest.raises(RoundBurnedError):
        machine.confirm(b"", round=2, attempt=2)


def test_an_attempt_that_went_on_burns_the_one_before_it() -> None:
    """Attempt 1 has all its vectors and confirmations; members that took up attempt 2 do not open it any more."""
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    first = fleet.attempt(setup, 1)
    fleet.contribute(first)
    fleet.gather("confirm", first)
    second = fleet.attempt(setup, 1, 2)
    fleet.contribute(second)
    fleet.gather("unmask", first)
    assert {type(fleet.refused["unmask", one]) for one in fleet.terms.parties} == {RoundBurnedError}
    for machine in fleet.machines.values():
        assert 0 not in machine._present._shares


def test_a_new_setup_gives_no_second_try_at_an_old_round() -> None:
    fleet = Fleet(terms_of_size(4))
    after_round(fleet)
    again = fleet.setup(2, first_round=1)
    for attempt in (1, 2):
        repeat = fleet.attempt(again, 1, attempt)
        with pytest.raises(RoundBurnedError):
            fleet.admit(repeat, VICTIM, repeat.contribute_ask())


def test_a_node_that_begins_anew_has_no_keys_and_uses_none_twice() -> None:
    def begun_again(life: int) -> np.ndarray:
        """The difference of two vectors of one slot, of a process before and one after a restart."""
        fleet = Fleet(terms_of_size(4))
        setup = fleet.setup()
        attempt = fleet.attempt(setup, 1)
        ask = attempt.contribute_ask()
        slot = fleet.admit(attempt, VICTIM, ask)
        one = fleet.machines[VICTIM].mask(slot, np.full(5, 0.5, np.float32)).vector
        fleet.machines[VICTIM] = fleet.begin(VICTIM, life=life)
        fleet.machines[VICTIM].advertise(setup.advertise_ask())
        fleet.machines[VICTIM].share(setup.share_ask())
        fleet.machines[VICTIM].open(setup.open_ask(VICTIM))
        slot = fleet.admit(attempt, VICTIM, ask)
        return one - fleet.machines[VICTIM].mask(slot, np.full(5, 0.25, np.float32)).vector

    told = begun_again(1)  # as if the old secrets had come back from a disk
    assert np.array_equal(told, np.full(5, 0.25 * Fleet(terms_of_size(4)).terms.scale, np.uint32))
    with pytest.raises(ContextMismatchError, match="own advert"):
        begun_again(2)


def test_a_node_that_begins_anew_answers_nothing_of_before() -> None:
    fleet = Fleet(terms_of_size(4))
    setup, attempt = after_round(fleet)
    fleet.machines[VICTIM] = machine = fleet.begin(VICTIM, life=2, opened_round=1)
    for call in (
        lambda: machine.share(setup.share_ask()),
        lambda: machine.open(setup.open_ask(VICTIM)),
        lambda: fleet.admit(attempt, VICTIM, attempt.contribute_ask()),
        lambda: machine.confirm(attempt.confirm_ask(), round=1, attempt=1),
        lambda: machine.unmask(attempt.unmask_ask(), round=1, attempt=1),
    ):
        with pytest.raises(SetupGoneError):
            call()
    again = fleet.attempt(fleet.setup(2), 1, 2)
    with pytest.raises(RoundBurnedError):  # what it may have opened before, it was told
        fleet.admit(again, VICTIM, again.contribute_ask())


def test_secrets_are_in_no_copy_and_in_no_text() -> None:
    fleet = Fleet(terms_of_size(3))
    setup = fleet.setup(away={"open": fleet.terms.parties})
    held = fleet.machines[VICTIM]._pending
    keys = held.keys
    private = [one.reveal() for one in (*keys.transports, keys.part, keys.chain)]
    private += [one.reveal() for slot in keys.slots.values() for one in (slot.own, slot.pair)]
    for one, machine in fleet.machines.items():
        setup.opened(one, machine.open(setup.open_ask(one)))
    private += [held.group, *(each.reveal() for pair in held._shares[0].values() for each in pair)]
    slot = fleet.admit(fleet.attempt(setup, 1), VICTIM, fleet.attempt(setup, 1).contribute_ask())
    shown = "".join(map(repr, (fleet.machines[VICTIM], held, keys, keys.slots, held._shares, slot)))
    assert len(min(private, key=len)) == 32
    assert not any(one.hex() in shown or repr(one) in shown for one in private)
    for way in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            way(keys.chain)


def recorded(fleet: Fleet) -> dict[int, bytes]:
    """Shares of a slot that is over, from what the broker recorded and what a thief finds on three nodes today."""
    setup, _ = after_round(fleet)
    pooled = {}
    for at, one in enumerate(("m02", "m03", "m04"), start=1):
        held = fleet.machines[one]._present
        sealed = setup._answers[VICTIM]
        given = receive(
            held.keys.transport(1),
            header=setup.headers[VICTIM],
            dealer=setup.adverts[VICTIM],
            holder=(one, at),
            row=sealed.commitments[at],
            ciphertext=sealed.ciphertexts[at],
            terms=fleet.terms,
        )
        pooled[at + 1] = given.shares[0].of(Kind.PAIR)
    return pooled


def test_who_breaks_in_later_opens_no_round_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        kept: dict[int, Secret] = {}
        whole = OwnKeys.__setattr__

        def keep(self: OwnKeys, name: str, value: object) -> None:
            whole(self, name, kept.setdefault(id(self), value) if name == "transports" else value)

        off.setattr(OwnKeys, "__setattr__", keep)
        fleet = Fleet(terms_of_size(4))
        public = public_of(combine(recorded(fleet)))
        assert public == fleet.machines[VICTIM]._present.advert.slots[0].public
    with pytest.raises(IndexError):  # no key is left to agree with
        recorded(Fleet(terms_of_size(4)))


def test_what_a_round_leaves_on_a_node_opens_nothing() -> None:
    fleet = Fleet(terms_of_size(4))
    after_round(fleet)
    for machine in fleet.machines.values():
        held = machine._present
        assert 0 not in held.keys.slots
        assert 0 not in held._shares
        assert set(held.keys.slots) == set(held._shares) == {1, 2, 3}
