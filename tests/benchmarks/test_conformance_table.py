# SPDX-License-Identifier: Apache-2.0
"""The conformance audit on the sandbox's recipe: verdict and time on wrong parts and on right plans.

Verdicts are asserted, the table is printed (-s); `tests/attack/test_dp_mutants.py` has more bugs. Times are of
the processor, one thread, without imports.
"""

from __future__ import annotations

import sys
import time

import pytest
import torch

from client.learning.conformance import Parts
from policies.privacy.conformance import ConformanceReport
from policies.recipe import load
from sandbox.recipes import private_recipe
from tests.auditparts import PLANS, PLANTED, audited

pytestmark = pytest.mark.slow
HEAD = f"{'what':<38}{'verdict':<9}{'cpu s':>6}{'mu':>10}{'planned':>9}{'eps low':>11}{'claim':>9}  failed checks"


def _row(name: str, plan: dict[str, object], parts: Parts | None) -> ConformanceReport:
    begun = time.process_time()
    report = audited(plan, parts, recipe=load(private_recipe()))
    took, figures = time.process_time() - begun, report.figures
    verdict = "passed" if report.passed else "FAILED"
    failed = ", ".join(one.name for one in report.failures)
    print(
        f"{name:<38}{verdict:<9}{took:>6.1f}{figures['mu']:>10}{figures['mu_expected']:>9}"
        f"{figures['epsilon_low']:>11}{figures['epsilon_pld']:>9}  {failed}",
        file=sys.stderr,
    )
    return report


def test_every_planted_bug_fails_and_every_right_plan_passes():
    torch.set_num_threads(1)
    audited({})  # imports
    print(f"\n{HEAD}", file=sys.stderr)
    wrong = [_row(name, plan, parts) for name, (parts, plan, _) in PLANTED.items()]
    right = [_row(name, plan, None) for name, plan in PLANS.items()]
    assert not any(one.passed for one in wrong)
    assert all(one.passed for one in right)
