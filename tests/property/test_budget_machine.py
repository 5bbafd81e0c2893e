# SPDX-License-Identifier: Apache-2.0
"""The ledger as a machine: whatever is asked in whatever order, it never spends over a cap and never gives back."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policies.privacy import ledger
from policies.privacy.errors import BudgetError, PrivacyError
from tests.learnsim import cap, small_recipe

PLANS = [
    small_recipe(noise_multiplier=sigma, steps=steps, delta="0.00001").plan.document
    for sigma, steps in (("4", 200), ("6.2244", 200), ("12", 300), ("2.5", 190))
]
OWN = [None, *(cap("sha256:" + "a" * 64, total=total, release="2") for total in ("2", "5"))]
CONTRACTS = [cap("sha256:" + c * 64, total=total, release="2") for c, total in (("a", "8"), ("b", "4"))]
RUNS = st.sampled_from(["run_a", "run_b", "run_c", "run_d"])


class BudgetMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.entries, self.state = [], ledger.LedgerState()
        self.step("genesis", ledger.genesis_body(cap(release="2"), unit="episode", adjacency="zero-out"))
        self.step("block", {"block": "train"})
        self.trained: dict[str, int] = {}
        self.spent_before = 0

    def step(self, kind, body) -> bool:
        entry = ledger.seal(self.state, kind, body, at_ms=len(self.entries))
        try:
            self.state = ledger.apply(self.state, entry)
        except (BudgetError, PrivacyError):
            return False
        self.entries.append(entry)
        return True

    @rule(
        run=RUNS,
        plan=st.sampled_from(PLANS),
        contract=st.sampled_from(CONTRACTS),
        own=st.sampled_from(OWN),
    )
    def reserve(self, run, plan, contract, own):
        own = own if contract == CONTRACTS[0] else None
        body = ledger.reserve_body(
            contract, run=run, recipe="sha256:r", block="train", plan=plan, manifest="sha256:m", own=own
        )
        if self.step("reserve", body):
            self.trained[run] = 0
            if own is not None:  # whatever was reserved before it, at whatever order the caps then had
                total = self.state.total(own, "train")
                assert total.spent + total.held <= own.rho_max_nano

    @rule(
        run=RUNS, number=st.integers(0, 40), attempt=st.integers(1, 2), steps=st.sampled_from([0, 1, 1, 1, 2])
    )
    def touch(self, run, number, attempt, steps):
        body = {"run": run, "block": "train", "round": number, "attempt": attempt, "steps": steps}
        again = (run, "train", number, attempt) in self.state.touched
        if self.step("touch", body):
            assert not again
            assert steps == 1
            self.trained[run] += 1

    @rule(run=RUNS)
    def commit(self, run):
        self.step("commit", {"run": run, "block": "train"})

    @rule(run=RUNS)
    def cancel(self, run):
        if self.step("cancel", {"run": run, "block": "train"}):
            assert self.trained[run] == 0

    @rule(kind=st.sampled_from(["genesis", "block", "refund"]))
    def nonsense(self, kind):
        before = self.state
        assert not self.step(kind, {"block": "train"} if kind == "block" else {})
        assert self.state == before

    @invariant()
    def never_over_a_cap_and_never_back(self):
        lineage = self.state.lineage
        for scope in (lineage, *CONTRACTS):
            total = self.state.total(scope, "train")
            assert total.spent >= 0
            assert total.held >= 0
            assert total.spent + total.held <= scope.rho_max_nano
        spent = self.state.total(lineage, "train").spent
        assert spent >= self.spent_before
        self.spent_before = spent
        owed = sum(hold.steps_spent * hold.lineage_step for hold in self.state.holds.values())
        assert spent == owed
        assert all(hold.steps_spent == self.trained[run] for (run, _), hold in self.state.holds.items())

    def teardown(self):
        if getattr(self, "entries", None):
            assert ledger.replay(self.entries) == self.state


BudgetMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)
TestBudgetMachine = BudgetMachine.TestCase
