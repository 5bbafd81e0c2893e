# SPDX-License-Identifier: Apache-2.0
"""Differential privacy: the frozen plan and everything that follows from it.

Names resolve on first use, because the auditor's verifier loads `accounting` and `ledger` from here with the
standard library only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.privacy.accounting import (
        calibrate,
        choose_order,
        epsilon_filter,
        epsilon_rdp,
        epsilon_text,
        filter_order,
        rho_max_nano,
        rho_step_nano,
    )
    from policies.privacy.feasibility import feasibility
    from policies.privacy.ledger import Cap, LedgerState, replay
    from policies.privacy.plan import DpPlan, EvalPlan, noise_std
    from policies.privacy.sampling import PoissonUnitSampler, sampler, unit_manifest
    from policies.privacy.shares import delta_grid, epsilon_by_colluders, share_std
    from policies.privacy.silo import silo_claim
    from policies.privacy.statement import build_statement, check_statement
    from policies.privacy.tight import dp_event, epsilon_pld

__all__ = [
    "Cap",
    "DpPlan",
    "EvalPlan",
    "LedgerState",
    "PoissonUnitSampler",
    "build_statement",
    "calibrate",
    "check_statement",
    "choose_order",
    "delta_grid",
    "dp_event",
    "epsilon_by_colluders",
    "epsilon_filter",
    "epsilon_pld",
    "epsilon_rdp",
    "epsilon_text",
    "feasibility",
    "filter_order",
    "noise_std",
    "replay",
    "rho_max_nano",
    "rho_step_nano",
    "sampler",
    "share_std",
    "silo_claim",
    "unit_manifest",
]

_HOME = {
    "accounting": (
        "calibrate",
        "choose_order",
        "epsilon_filter",
        "epsilon_rdp",
        "epsilon_text",
        "filter_order",
        "rho_max_nano",
        "rho_step_nano",
    ),
    "feasibility": ("feasibility",),
    "ledger": ("Cap", "LedgerState", "replay"),
    "plan": ("DpPlan", "EvalPlan", "noise_std"),
    "sampling": ("PoissonUnitSampler", "sampler", "unit_manifest"),
    "shares": ("delta_grid", "epsilon_by_colluders", "share_std"),
    "silo": ("silo_claim",),
    "statement": ("build_statement", "check_statement"),
    "tight": ("dp_event", "epsilon_pld"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        return getattr(import_module(f"policies.privacy.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'policies.privacy' has no attribute {name!r}")
