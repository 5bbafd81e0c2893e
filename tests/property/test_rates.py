# SPDX-License-Identifier: Apache-2.0
"""Allowances, whatever is asked when: never more than the rate, never less than its share, never more memory."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.rates import Buckets, Rate
from tests.brokersim import START_MS, HandClock

RATES = st.builds(Rate, per_s=st.integers(1, 1_000), burst=st.integers(1, 50))
ASKS = st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from("ab")), max_size=60)


@settings(deadline=None, max_examples=40)
@given(rate=RATES, asks=ASKS)
def test_no_stretch_of_time_has_more_than_its_burst_and_its_rate(rate, asks):
    clock = HandClock()
    buckets = Buckets(rate, clock)
    taken: list[int] = []
    for pause_ms, name in asks:
        clock.ms += pause_ms
        if buckets.take(name) == 0 and name == "a":
            taken.append(clock.ms)
    for at, first in enumerate(taken):
        for upto, last in enumerate(taken[at:], start=1):
            assert upto * 1_000 <= rate.burst * 1_000 + rate.per_s * (last - first)


@settings(deadline=None, max_examples=40)
@given(rate=RATES, asks=ASKS)
def test_whoever_waits_as_long_as_told_is_served_and_one_moment_earlier_is_not(rate, asks):
    clock = HandClock()
    buckets = Buckets(rate, clock)
    for pause_ms, name in asks:
        clock.ms += pause_ms
        told = buckets.wait_ms(name)
        wait_ms = buckets.take(name)
        assert wait_ms == told
        if wait_ms:
            clock.ms += wait_ms - 1
            assert buckets.take(name) == 1
            clock.ms += 1
            assert buckets.take(name) == 0


@settings(deadline=None, max_examples=40)
@given(rate=RATES, asks=ASKS)
def test_what_others_take_changes_nothing_and_what_is_given_back_was_never_taken(rate, asks):
    alone, both, back = (Buckets(rate, clock := HandClock()) for _ in range(3))
    clocks = [one._clock for one in (alone, both, back)]
    for pause_ms, name in asks:
        for one in clocks:
            one.ms += pause_ms
        if name == "b":
            both.take("b")
            if back.take("a") == 0:
                back.give_back("a")
        else:
            assert alone.take("a") == both.take("a") == back.take("a")
    assert clock.ms >= START_MS


@settings(deadline=None, max_examples=40)
@given(names=st.lists(st.integers(0, 40).map(str), max_size=80), most=st.integers(1, 10))
def test_memory_is_bounded_and_who_asked_last_is_never_forgotten(names, most):
    buckets = Buckets(Rate(per_s=1, burst=1), HandClock(), most=most)
    for name in names:
        buckets.take(name)
        assert len(buckets) <= most
        assert buckets.take(name) > 0


@settings(deadline=None, max_examples=40)
@given(rate=RATES, asks=st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 10**9)), max_size=40))
def test_a_clock_that_is_set_back_gives_and_takes_nothing(rate, asks):
    clock, steady = HandClock(), HandClock()
    buckets, same = Buckets(rate, clock), Buckets(rate, steady)
    for pause_ms, back_ms in asks:
        clock.ms += pause_ms
        steady.ms += pause_ms
        assert buckets.take("a") == same.take("a")
        clock.ms -= back_ms
        assert buckets.take("b") == same.take("b")
