# SPDX-License-Identifier: Apache-2.0
"""Our figures beside two further accountants (prv-accountant, Opacus), closed forms, and dp_accounting's own tests.

``pytest -s`` prints the table.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import warnings

import dp_accounting as dpa
import pytest
from scipy.stats import norm

from policies.privacy import accounting as acc
from policies.privacy import tight
from tests.learnsim import small_recipe

# q, sigma, T, delta, epsilon as published
REFERENCE = [
    (0.01, 4.0, 10_000, 1e-5, 0.9470),
    (0.1, 1.0, 200, 1e-4, 8.607),
    (0.05, 0.8, 1000, 1e-4, 15.482),
    (1.0, 20.0, 300, 1e-4, 3.2098),
    (0.02, 0.5, 500, 1e-5, 17.57),
    (256 / 60_000, 1.1, 60 * 60_000 // 256, 1e-5, 2.3817),
    (0.04, 1.5, 2250, 1e-5, 6.777395712150674),
]
OPACUS = (0.04, 1.5, 2250, 1e-5)  # of its accountants_test.py
OPACUS_RDP, OPACUS_PRV = 7.32911117143, 6.777395712150674
PRV_ERROR = 0.01


def pld(q: float, sigma: float, steps: int, delta: float) -> float:
    plan = small_recipe().plan
    assert plan is not None
    numbers = {"sampling_prob": repr(q), "noise_multiplier": repr(sigma), "delta": f"{delta:f}"}
    return tight.epsilon_pld(plan.model_copy(update={**numbers, "steps": steps}))


def prv_band(q: float, sigma: float, steps: int, delta: float) -> tuple[float, float]:
    """Lower and upper end of epsilon by prv-accountant, which takes no path through our code or dp_accounting's."""
    from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

    accountant = PRVAccountant(
        prvs=[PoissonSubsampledGaussianMechanism(sampling_probability=q, noise_multiplier=sigma)],
        max_self_compositions=[steps],
        eps_error=PRV_ERROR,
        delta_error=delta / 1000,
    )
    low, _, high = accountant.compute_epsilon(delta, [steps])
    return float(low), float(high)


def gdp_clt(q: float, sigma: float, steps: int, delta: float) -> float:
    """Epsilon by the central limit theorem of Gaussian privacy (arXiv 1911.11607): not an upper bound."""
    mu = q * math.sqrt(steps * math.expm1(1 / sigma**2))
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        there = norm.cdf(mu / 2 - middle / mu) - math.exp(middle) * norm.cdf(-mu / 2 - middle / mu)
        low, high = (middle, high) if there > delta else (low, middle)
    return high


@pytest.mark.slow
def test_accounting_table_pld_lies_in_the_band_of_prv_and_below_rdp_in_every_reference_case():
    print(
        f"\n{'q':>8} {'sigma':>6} {'T':>6} {'delta':>6}  {'PRV band':>20}  {'PLD':>8}  {'RDP':>8}  published"
    )
    for q, sigma, steps, delta, published in REFERENCE:
        (low, high), found = prv_band(q, sigma, steps, delta), pld(q, sigma, steps, delta)
        own = acc.epsilon_rdp(q, sigma, steps, delta)
        print(
            f"{q:8.6f} {sigma:6g} {steps:6d} {delta:6g}  [{low:8.4f}, {high:8.4f}]  {found:8.4f}  {own:8.4f}  {published}"
        )
        assert low <= found <= high
        assert low <= published <= high
        assert high - low < 3 * PRV_ERROR
        assert found <= own + 0.01


@pytest.mark.slow
def test_opacus_gives_the_figures_of_its_vectors_and_its_central_limit_figure_is_too_small():
    from opacus.accountants import GaussianAccountant, PRVAccountant, RDPAccountant

    q, sigma, steps, delta = OPACUS
    found = {}
    with warnings.catch_warnings():  # GaussianAccountant warns that it is no bound, which is our point
        warnings.simplefilter("ignore", UserWarning)
        for one in (RDPAccountant(), PRVAccountant(), GaussianAccountant()):
            one.history = [(sigma, q, steps)]
            found[type(one).__name__] = float(one.get_epsilon(delta=delta))
    ours, own = pld(*OPACUS), acc.epsilon_rdp(*OPACUS)
    print(f"\nOpacus {found}; PLD {ours:.6f}, RDP {own:.6f}")
    assert found["RDPAccountant"] == pytest.approx(OPACUS_RDP, abs=1e-9)
    assert OPACUS_RDP <= own <= OPACUS_RDP + 0.01  # theirs has fractional orders
    assert found["PRVAccountant"] == pytest.approx(OPACUS_PRV, abs=0.01)
    assert ours == pytest.approx(OPACUS_PRV, abs=0.01)
    # why GDP-CLT is refused: it is below what is true
    low, _ = prv_band(*OPACUS)
    assert found["GaussianAccountant"] < low < ours


def test_the_central_limit_figure_is_below_the_tight_value_so_it_is_refused():
    figure, true = gdp_clt(*OPACUS), pld(*OPACUS)
    print(f"\nGDP-CLT {figure:.3f}, tight {true:.3f}")
    assert figure == pytest.approx(6.6, abs=0.02)
    assert true == pytest.approx(6.77, abs=0.01)
    assert figure < true - 0.1


@pytest.mark.parametrize(
    ("sigma", "steps", "delta"), [(20.0, 300, 1e-4), (6.0, 1, 1e-5), (2.0, 4, 1e-6), (50.0, 200, 1e-5)]
)
def test_full_batches_equal_the_closed_form(sigma, steps, delta):
    exact = dpa.get_epsilon_gaussian(sigma / math.sqrt(steps), delta)
    assert pld(1.0, sigma, steps, delta) == pytest.approx(exact, abs=1e-3)
    assert acc.epsilon_rdp(1.0, sigma, steps, delta) >= exact


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "only"),
    [
        ("rdp.rdp_privacy_accountant_test", None),
        ("pld.pld_pmf_test", None),
        ("pld.common_test", None),
        ("pld.privacy_loss_mechanism_test", "*.GaussianPrivacyLossTest.*"),
        ("pld.pld_privacy_accountant_test", "*.test_poisson_subsampled_gaussian*"),
        ("pld.pld_privacy_accountant_test", "*.test_self_composed_subsampled_gaussian*"),
    ],
)
def test_dp_accountings_own_tests_pass_here(module, only):
    # the rest of them is about mechanisms that no plan has; those of Gaussian mixtures fail with numpy 2.4
    name = f"dp_accounting.{module}"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not in this wheel")
    chosen = ["-k", only] if only else []
    done = subprocess.run(
        [sys.executable, "-m", "unittest", name, *chosen], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Ran 0 tests" not in done.stderr
