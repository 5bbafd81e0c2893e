# SPDX-License-Identifier: Apache-2.0
"""The lower bound refuses no figure that an accountant gave, and most that none can give."""

from __future__ import annotations

import pytest

from policies.verify.tight import is_too_small

# sampling probability, noise multiplier, steps, delta, and what dp-accounting 0.6 gives for them
KNOWN = [
    (0.2, 6.2244, 200, 1e-5, 1.8341),
    (0.2, 1.9, 200, 1e-5, 7.9108),
    (0.2, 2.0, 190, 1e-5, 7.1612),
    (0.05, 1.0, 200, 1e-5, 4.7659),
    (0.01, 0.7, 2000, 1e-6, 7.1611),
    (1.0, 5.0, 1, 1e-5, 0.7255),
    (1.0, 5.0, 50, 1e-5, 6.5730),
    (0.5, 0.6, 10, 1e-5, 23.2279),
    (0.3, 20.0, 200, 1e-5, 0.7778),
    (0.001, 0.5, 100, 1e-5, 2.1086),
]


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "tight"), KNOWN)
def test_a_figure_of_an_accountant_is_never_refused(q, sigma, steps, delta, tight) -> None:
    assert not is_too_small(tight - 0.0001, q=q, sigma=sigma, steps=steps, delta=delta)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "tight"), KNOWN)
def test_a_figure_far_below_is_refused(q, sigma, steps, delta, tight) -> None:
    assert is_too_small(0.0, q=q, sigma=sigma, steps=steps, delta=delta)
    if q >= 0.2:
        assert is_too_small(0.9 * tight, q=q, sigma=sigma, steps=steps, delta=delta)


def test_one_gaussian_is_bounded_almost_exactly() -> None:
    assert is_too_small(0.72, q=1.0, sigma=5.0, steps=1, delta=1e-5)


def test_a_plan_of_absurdly_many_steps_comes_to_an_end() -> None:
    assert not is_too_small(1e9, q=0.5, sigma=1e6, steps=2**53, delta=1e-5)


def test_a_claim_that_is_huge_is_not_refused() -> None:
    assert not is_too_small(1e9, q=0.2, sigma=0.1, steps=200, delta=1e-5)
