# SPDX-License-Identifier: Apache-2.0
"""Every message of the protocol with a byte changed, cut or added: refused with a code, and what follows is as if it never came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policies.secagg.asks import ContributeAsk
from policies.secagg.collector import Setup
from policies.secagg.errors import SecaggError
from policies.secagg.record import Record
from tests.secaggsim import MODEL, Fleet, Outcome, terms_of_size

STEPS = ("advertise", "share", "open", "contribute", "confirm", "unmask")


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Something that happens to bytes: it always gives others."""
    way, place = (
        draw(st.sampled_from(["flip", "cut", "add", "empty", "swap"])),
        draw(st.floats(0, 1, exclude_max=True)),
    )
    bit = 1 << draw(st.integers(0, 7))

    def damage(data: bytes) -> bytes:
        at = int(place * len(data))
        if way == "flip":
            return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
        if way == "cut":
            return data[:at]
        if way == "add":
            return data[:at] + bytes([bit]) + data[at:]
        return b"" if way == "empty" else data[at:] + b"\x00" + data[:at]

    return damage


def is_of_another_server_state(step: str, ask: bytes, damaged: bytes) -> bool:
    """Whether it is an ask to contribute that differs in the digest of the server's state alone.

    The machine binds that digest into the attempt; whether it is right is for the node, which follows the
    model (``tests/unit/test_node_following.py``).
    """
    if step != "contribute":
        return False
    try:
        said = ContributeAsk.from_bytes(damaged, terms_of_size(4))
        meant = ContributeAsk.from_bytes(ask, terms_of_size(4))
    except SecaggError:
        return False
    return said != meant and replace(said, server=meant.server) == meant


def run(
    fleet: Fleet, *, asked: Callable[[str, str, bytes], bytes], said: Callable[[str, str, bytes], bytes]
) -> Outcome:
    setup = fleet.setup(rounds=1, shown=asked, said=said)
    return fleet.round(setup, 1, shown=asked, said=said)


@given(st.sampled_from(STEPS[1:]), damages())  # another ask to advertise is another setup
@settings(max_examples=60, deadline=None)
def test_a_damaged_ask_is_refused_and_the_right_one_is_answered_afterwards(
    step: str, damage: Callable[[bytes], bytes]
) -> None:
    fleet = Fleet(terms_of_size(4))
    tried: list[Exception | None] = []

    def asked(now: str, party: str, ask: bytes) -> bytes:
        if (now, party) == (step, "m02"):
            damaged, machine = damage(ask), fleet.machines[party]
            assume(not is_of_another_server_state(step, ask, damaged))
            at = {"round": 1, "attempt": 1}
            calls: dict[str, Callable[[bytes], object]] = {
                "contribute": lambda data: machine.admit(data, base_model=MODEL, **at),
                "confirm": lambda data: machine.confirm(data, **at),
                "unmask": lambda data: machine.unmask(data, **at),
            }
            call = calls.get(step) or getattr(machine, step)
            try:
                call(damaged)
                tried.append(None)
            except SecaggError as error:
                tried.append(error)
        return ask

    outcome = run(fleet, asked=asked, said=lambda _step, _party, answer: answer)
    assert tried != [None]
    assert not fleet.refused
    assert np.array_equal(outcome.z, fleet.plain_sum(fleet.terms.parties, 1))


@given(st.sampled_from([one for one in STEPS if one != "open"]), damages())
@settings(max_examples=60, deadline=None)
def test_a_damaged_answer_names_its_member_and_the_others_go_on(
    step: str, damage: Callable[[bytes], bytes]
) -> None:
    fleet = Fleet(terms_of_size(4))

    def said(now: str, party: str, answer: bytes) -> bytes:
        return damage(answer) if (now, party) == (step, "m02") else answer

    outcome = run(fleet, asked=lambda _step, _party, ask: ask, said=said)
    where = "vector" if step == "contribute" else step
    assert fleet.refused[where, "m02"].offender == "m02"
    assert np.array_equal(outcome.z, fleet.plain_sum(outcome.opened.parties, 1))
    assert ("m02" in outcome.opened.online) == (step in ("confirm", "unmask"))


@cache
def kept() -> tuple[bytes, bytes]:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(rounds=1)
    return fleet.round(setup, 1).opened.transcript, setup.to_bytes()


@given(damages())
@settings(max_examples=100, deadline=None)
def test_a_damaged_transcript_is_unreadable_or_says_something_else(damage: Callable[[bytes], bytes]) -> None:
    data = damage(kept()[0])
    try:
        assert Record.from_bytes(data).to_bytes() == data
    except SecaggError:
        return


@given(damages())
@settings(max_examples=40, deadline=None)
def test_a_damaged_setup_is_not_gone_on_with(damage: Callable[[bytes], bytes]) -> None:
    data = damage(kept()[1])
    try:
        found = Setup.from_bytes(data, terms_of_size(4))
    except SecaggError:
        return
    assert found.to_bytes() == data
