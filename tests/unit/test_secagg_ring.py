# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from policies.limits import SECAGG_CHUNK, SECAGG_PARTIES
from policies.secagg import masks
from policies.secagg.errors import UpdateUnfitError
from policies.secagg.masks import mask
from policies.secagg.ring import check_update, mean, quantise, ring_of_grid, signed
from tests.ringterms import keys_of, remaining, ring_terms

HALF = Fraction(1, 2)


@pytest.mark.parametrize("norm_max", ["1", "0.37", "1.3", "10", "0.000001", "123456.789"])
def test_n_members_at_the_limit_do_not_wrap(norm_max: str) -> None:
    """Also where float32 rounds the scale up: the clip comes after the product."""
    limit = np.float32(float(norm_max))
    beyond = [limit, np.nextafter(limit, np.float32(np.inf)), np.float32(1e30)]
    for n in range(2, SECAGG_PARTIES + 1):
        terms = ring_terms(n, 6, norm_max=norm_max)
        update = np.array([*beyond, *(-one for one in beyond)], np.float32)
        one = quantise(update, weight=Fraction(1), terms=terms)
        total = np.zeros(6, np.uint32)
        for _ in range(n):
            total += one
        assert (signed(total)[:3] > 0).all()
        assert (signed(total)[3:] < 0).all()
        assert np.array_equal(signed(total).astype(np.int64), n * signed(one).astype(np.int64))
        assert np.abs(mean(total, terms, terms.parties)[0] / float(limit) - 1) < 2.0**-20


def test_the_ring_leaves_room_for_everybody_and_no_bit_is_wasted() -> None:
    for n in range(2, SECAGG_PARTIES + 1):
        bits = ring_terms(n).bits
        assert n * 2**bits <= 2**31 - 1 < n * 2 ** (bits + 1)


@pytest.mark.parametrize("norm_max", ["1", "0.37", "7.1"])
@pytest.mark.parametrize("weight", [Fraction(1), Fraction(333_333, 1_000_000)])
def test_no_value_is_further_than_half_a_step_from_where_it_belongs(norm_max: str, weight: Fraction) -> None:
    terms = ring_terms(10, 2_000, norm_max=norm_max)
    generator = np.random.default_rng(7)
    update = (generator.uniform(-1, 1, 2_000) ** 5 * float(norm_max)).astype(np.float32)
    steps = signed(quantise(update, weight=weight, terms=terms))
    slack = HALF * (1 + Fraction(1, 2**20))  # the product is rounded once where the weight is not 1
    for value, step in zip(update.tolist(), steps.tolist(), strict=True):
        exact = Fraction(value) * weight * Fraction(terms.scale)
        assert abs(step - exact) <= (HALF if weight == 1 else slack)


def test_the_weighted_mean_comes_back_to_within_a_step() -> None:
    terms = ring_terms(3, 500, norm_max="2", weights=(1_000_000, 500_000, 250_000))
    generator = np.random.default_rng(3)
    updates = generator.uniform(-0.05, 0.05, (3, 500)).astype(np.float32)
    for online in (terms.parties, terms.parties[:2]):
        total = np.zeros(500, np.uint32)
        shares = [float(terms.weight(party)) for party in online]
        for party, update in zip(online, updates, strict=False):
            total += quantise(update, weight=terms.weight(party), terms=terms)
        plain = sum(w * u.astype(np.float64) for w, u in zip(shares, updates, strict=False)) / sum(shares)
        found = mean(total, terms, online)
        assert found.dtype == np.float64
        assert np.abs(found - plain).max() <= 0.51 * len(online) * terms.kappa(online)


def test_an_update_beyond_the_norm_is_scaled_as_a_whole_and_one_within_is_not_touched() -> None:
    terms = ring_terms(4, SECAGG_CHUNK + 3, norm_max="0.7")
    update = np.random.default_rng(1).standard_normal(terms.dimension).astype(np.float32)
    clipped = check_update(update, terms)
    norm = np.linalg.norm(clipped.astype(np.float64))
    assert clipped.dtype == np.float32
    assert 0.7 * (1 - 2.0**-18) < norm <= 0.7
    assert np.allclose(clipped / update, clipped[0] / update[0], rtol=1e-5)
    assert check_update(clipped, terms) is clipped


def test_the_clip_of_single_values_never_bites_an_update_of_the_allowed_norm() -> None:
    terms = ring_terms(4, 3, norm_max="0.7")
    alone = check_update(np.array([0, -5, 0], np.float32), terms)
    step = signed(quantise(alone, weight=Fraction(1), terms=terms))
    assert abs(step[1] - float(alone[1]) * terms.scale) <= 0.5


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(3, np.float64),
        np.zeros(4, np.float32),
        np.zeros((3, 1), np.float32),
        np.array([0, np.nan, 0], np.float32),
        np.array([0, np.inf, 0], np.float32),
        np.array([-np.inf, np.inf, 0], np.float32),
    ],
)
def test_an_update_that_is_not_finite_or_of_another_form_is_refused(update: np.ndarray) -> None:
    terms = ring_terms(3, 3)
    with pytest.raises(UpdateUnfitError):
        check_update(update, terms)
    with pytest.raises(UpdateUnfitError):
        mask(update, keys_of(0, range(3)), terms=terms, party="m00")


def test_the_largest_float32_values_have_a_norm_and_are_clipped() -> None:
    terms = ring_terms(3, 3)
    clipped = check_update(np.full(3, np.finfo(np.float32).max), terms)
    assert np.linalg.norm(clipped) <= 1


def test_grid_values_go_as_they_are_up_to_the_limit_and_none_beyond() -> None:
    terms = ring_terms(3, 3)
    limit = 2**terms.bits
    values = np.array([limit, -limit, -1], np.int64)
    assert signed(ring_of_grid(values, terms)).tolist() == values.tolist()
    for wrong in (values + 1, values - 1, values.astype(np.int32), values[:2], values + 2**32):
        with pytest.raises(UpdateUnfitError):
            ring_of_grid(wrong, terms)
        with pytest.raises(UpdateUnfitError):
            mask(wrong, keys_of(0, range(3)), terms=terms, party="m00")


def test_noise_shares_on_the_grid_are_summed_to_the_bit() -> None:
    terms = ring_terms(4, SECAGG_CHUNK + 1)
    generator = np.random.default_rng(9)
    grids = generator.integers(-(2**20), 2**20, (4, terms.dimension))
    total = np.zeros(terms.dimension, np.uint32)
    for at, party in enumerate(terms.parties):
        total += mask(grids[at], keys_of(at, range(4)), terms=terms, party=party).vector
    masks.unmask(total, remaining([0, 1, 2, 3], range(4)))
    assert np.array_equal(signed(total), grids.sum(axis=0))
