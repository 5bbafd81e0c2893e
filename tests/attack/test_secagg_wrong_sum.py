# SPDX-License-Identifier: Apache-2.0
"""A broker publishes another sum than the members' vectors give.

Members find it in the next round by their tag; if the broker has their key, whoever redoes the sum finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.encoding import digest
from policies.secagg import group_mac, node, sum_keys, transcript
from policies.secagg.contexts import mac_key, mac_offset
from policies.secagg.errors import SecaggError, SumWrongError
from policies.secagg.record import Record
from tests.secaggsim import Fleet, Outcome, terms_of_size

Z = NDArray[np.uint32]


def one_step_more(z: Z) -> Z:
    other = z.copy()
    other[0] += 1
    return other


LIES: dict[str, Callable[[Z], Z]] = {
    "one step in one place": one_step_more,
    "nothing": np.zeros_like,
    "the other way": lambda z: -z,
    "another order": lambda z: z[::-1].copy(),
}


def applied(fleet: Fleet, lie: Callable[[Z], Z]) -> list[str]:
    """Members that take part in the next round, beside the sum that they are shown."""
    setup = fleet.setup()
    fleet.round(setup, 1)
    fleet.z = lie(fleet.z)
    return list(fleet.contribute(fleet.attempt(setup, 2)))


@pytest.mark.parametrize("lie", LIES)
def test_every_member_finds_a_wrong_sum(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        off.setattr(group_mac, "check", lambda *_: None)
        assert len(applied(Fleet(terms_of_size(4)), LIES[lie])) == 4
    fleet = Fleet(terms_of_size(4))
    assert not applied(fleet, LIES[lie])
    assert {type(one) for one in fleet.refused.values()} == {SumWrongError}


def doubled(fleet: Fleet) -> int:
    """Sum and tags twice, as a multiple of something right; members that find nothing."""
    setup = fleet.setup()
    outcome = fleet.round(setup, 1)
    fleet.z = fleet.z * np.uint32(2)
    fleet.previous = replace(outcome.opened, tags=(2 * outcome.opened.tags[0] % 2**64,))
    return len(fleet.contribute(fleet.attempt(setup, 2)))


def test_a_multiple_of_a_right_sum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as off:
        for side in (node, sum_keys):
            off.setattr(side, "mac_offset", lambda *_, **__: 0)
        assert doubled(Fleet(terms_of_size(4))) == 4
    assert doubled(Fleet(terms_of_size(4))) == 0


def test_the_sum_of_another_round_does_not_pass_for_this_one() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup(rounds=3)
    fleet.round(setup, 1)
    older, tags = fleet.z, fleet.previous.tags
    fleet.round(setup, 2)
    fleet.z, fleet.previous = older, replace(fleet.previous, tags=tags)
    assert not fleet.contribute(fleet.attempt(setup, 3))


def leaked(fleet: Fleet, outcome: Outcome, z: Z) -> int:
    """Tags that fit another sum, by a broker that has one member's key."""
    held, ctx = fleet.machines["m01"]._present, outcome.attempt.context.digest(fleet.terms)
    offset = mac_offset(held.group, seal=held.seal, ctx=ctx) * len(outcome.opened.parties)
    return (group_mac.tag(mac_key(held.group, seal=held.seal, ctx=ctx), [z]) + offset) % 2**64


def test_with_a_members_key_the_tag_is_forged_and_the_transcript_tells() -> None:
    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    outcome = fleet.round(setup, 1)
    wrong = one_step_more(outcome.z)
    fleet.z = wrong
    fleet.previous = replace(outcome.opened, tags=(leaked(fleet, outcome, wrong),))
    assert len(fleet.contribute(fleet.attempt(setup, 2))) == 4  # nobody notices
    published = replace(Record.from_bytes(outcome.opened.transcript), sums=(digest(wrong.tobytes()),))
    checked = transcript.check(Record.from_bytes(published.to_bytes()), fleet.terms)
    vectors = {one: outcome.vectors[one].tobytes() for one in outcome.opened.online}
    assert transcript.recompute(checked, vectors) == outcome.opened.sums[0] != published.sums[0]


def test_an_altered_transcript_is_refused_wherever_it_is_altered() -> None:
    """One bit in each part: signatures, sets, lanes and secrets all hang together. (The sum is redone, not signed.)"""
    fleet = Fleet(terms_of_size(4))
    outcome = fleet.round(fleet.setup(rounds=1), 1, away={"contribute": ["m04"]})
    data = outcome.opened.transcript
    vectors = {one: outcome.vectors[one].tobytes() for one in outcome.opened.online}
    for at in range(0, len(data), 37):
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            checked = transcript.check(Record.from_bytes(altered), fleet.terms)
            found = transcript.recompute(checked, vectors)
        except SecaggError:
            continue
        assert found != Record.from_bytes(altered).sums[0], at
