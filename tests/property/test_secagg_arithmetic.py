# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.secagg.masks import mask, mask_lane, sum_of_lanes, unmask, unmask_lane
from policies.secagg.recompute import recompute
from policies.secagg.ring import quantise
from policies.secagg.shamir import combine, split
from policies.secagg.sums import RingSum
from policies.secagg.terms import threshold
from tests.ringterms import CountedEntropy, keys_of, remaining, ring_terms


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_t_of_n_shares_give_the_secret(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 50))
    t = data.draw(st.one_of(st.just(threshold(n)), st.integers(1, n))) if n > 2 else n
    secret = data.draw(st.binary(min_size=32, max_size=32))
    shares = split(secret, n=n, t=t, entropy=CountedEntropy(data.draw(st.integers(0, 9))))
    size = data.draw(st.integers(t, n))
    holders = data.draw(st.permutations(range(1, n + 1)))[:size]
    assert combine({one: shares[one - 1] for one in holders}) == secret


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_masks_of_whoever_survives_cancel_exactly(data: st.DataObject) -> None:
    """Teams, drop-outs, weights and lengths as they come; the opened sum is the plain sum, bit for bit."""
    n = data.draw(st.integers(3, 12))
    dimension = data.draw(st.one_of(st.integers(1, 40), st.sampled_from([65_535, 65_536, 65_537])))
    team = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    survivors = sorted(data.draw(st.sets(st.sampled_from(team), min_size=1)))
    weights = tuple(data.draw(st.integers(1, 1_000_000)) for _ in range(n))
    terms = ring_terms(n, dimension, norm_max="0.9", weights=weights)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    plain, total, kept, lanes = np.zeros(dimension, np.uint32), RingSum(dimension), [], []
    for at in survivors:
        update = generator.uniform(-1.1, 1.1, dimension).astype(np.float32)
        plain += quantise(update, weight=terms.weight(terms.parties[at]), terms=terms)
        keys = keys_of(at, team)
        kept.append(mask(update, keys, terms=terms, party=terms.parties[at]).vector.tobytes())
        cut = 4 * data.draw(st.integers(0, dimension))
        total.add([kept[-1][:cut], kept[-1][cut:]])
        lanes.append(mask_lane([1, weights[at], at], keys))
    remove = remaining(survivors, team)
    unmask(total.values, remove)
    assert np.array_equal(total.values, plain)
    assert recompute(kept, remove, dimension=dimension) == total.digest()
    lane = unmask_lane(sum_of_lanes(lanes), remove)
    assert lane == (len(survivors), sum(weights[at] for at in survivors), sum(survivors))
