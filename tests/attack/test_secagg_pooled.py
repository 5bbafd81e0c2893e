# SPDX-License-Identifier: Apache-2.0
"""The broker and as many members as the contract fears pool all they hold: of the others they learn the sum, and no more.

They take every mask that they know off each honest vector. What is left is uniform: the masks that two honest members share.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from policies.secagg import holding, masks
from policies.secagg.contexts import Lane, agreement, pair_key, self_key
from policies.secagg.dealing import Kind
from policies.secagg.errors import ShareBadError
from policies.secagg.shamir import combine
from tests.secaggsim import Fleet, Outcome, ring_of, shares_of, terms_of_size

SIZE = 10
COLLUDERS = ("m02", "m05", "m09")
MISSING = "m07"
DIMENSION = 20_000
FALSE_ALARM = 1e-7  # of one test; eight are made


def fleet_of_ten() -> Fleet:
    return Fleet(terms_of_size(SIZE, dimension=DIMENSION, max_colluders=len(COLLUDERS)))


def known_masks(
    fleet: Fleet, outcome: Outcome, party: str, private: dict[str, bytes]
) -> list[tuple[int, bytes]]:
    """Masks of an honest vector that they know: its own one, and those with whom they hold the secret of."""
    attempt, terms = outcome.attempt, fleet.terms
    ctx, seal, here = attempt.context.digest(terms), attempt.setup.seal, terms.position(party)
    public = attempt.setup.adverts[party].slots[0].public
    found = [
        (1, self_key(attempt._revealed.secrets()[party], seal=seal, lane=Lane.VECTOR, ctx=ctx, position=here))
    ]
    for one, secret in private.items():
        there = terms.position(one)
        key = pair_key(agreement(secret, public), seal=seal, lane=Lane.VECTOR, ctx=ctx, between=(here, there))
        found.append((1 if there > here else -1, key))
    return found


def pooled(fleet: Fleet) -> tuple[Outcome, dict[str, NDArray[np.uint32]]]:
    """A round with a drop-out, and what is left of each honest vector."""
    setup = fleet.setup(rounds=1)
    private = {one: fleet.machines[one]._present.keys.slots[0].pair.reveal() for one in COLLUDERS}
    outcome = fleet.round(setup, 1, away={"contribute": [MISSING]})
    private[MISSING] = outcome.attempt._revealed.secrets()[MISSING]  # opened by the members themselves
    left = {}
    for one in outcome.opened.online:
        if one not in COLLUDERS:
            bare = outcome.vectors[one].copy()
            masks.unmask(bare, known_masks(fleet, outcome, one, private))
            left[one] = bare
    return outcome, left


def is_uniform(values: NDArray[np.uint32]) -> bool:
    counts = np.bincount(np.frombuffer(values.tobytes(), np.uint8), minlength=256)
    expected = 4 * values.size / 256
    return float(((counts - expected) ** 2 / expected).sum()) < stats.chi2.isf(FALSE_ALARM, 255)


def test_without_masks_between_honest_members_each_update_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault, which the test of uniformity finds too."""

    def only_some(private: bytes, *, others: list[tuple[int, bytes]], own: int, **more: object) -> object:
        small = len(COLLUDERS) + 1
        bad = {int(one[1:]) for one in (*COLLUDERS, MISSING)}
        kept = [one for one in others if one[0] in bad or own in bad]
        assert len(kept) in (small, SIZE - 1)
        return true_masks(private, others=kept, own=own, **more)

    true_masks = holding.pair_masks
    monkeypatch.setattr(holding, "pair_masks", only_some)
    fleet = fleet_of_ten()
    _, left = pooled(fleet)
    for one, values in left.items():
        assert np.array_equal(values, ring_of(fleet, one, 1))
        assert not is_uniform(values)


def test_with_them_what_is_left_of_each_is_uniform_and_their_sum_is_right() -> None:
    fleet = fleet_of_ten()
    outcome, left = pooled(fleet)
    honest = [one for one in fleet.terms.parties if one not in (*COLLUDERS, MISSING)]
    assert list(left) == honest
    assert all(is_uniform(values) for values in left.values())
    total = np.sum(list(left.values()), axis=0, dtype=np.uint32)
    assert np.array_equal(total, fleet.plain_sum(honest, 1))
    known = [ring_of(fleet, one, 1) for one in COLLUDERS]
    assert np.array_equal(total, outcome.z - np.sum(known, axis=0, dtype=np.uint32))
    without_one = np.sum([left[one] for one in honest[1:]], axis=0, dtype=np.uint32)
    assert is_uniform(without_one)


def test_fewer_shares_than_the_threshold_give_another_secret() -> None:
    """Who pools t - 1 of the key that opens the masks between members has nothing; with one more it would be the key."""
    fleet = fleet_of_ten()
    fleet.setup(rounds=1)
    held = fleet.machines["m01"]._present.keys.slots[0].pair.reveal()
    shares = shares_of(fleet, fleet.terms.parties, "m01", 0, Kind.PAIR)
    few = dict(list(shares.items())[: fleet.terms.t - 1])
    with pytest.raises(ShareBadError):
        combine(few)
    assert combine(dict(list(shares.items())[: fleet.terms.t])) == held
