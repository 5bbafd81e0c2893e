# SPDX-License-Identifier: Apache-2.0
"""The ledger as a machine: whatever is asked in whatever order, it never spends over a cap and never gives back."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from policies.errors import IriaiError
from policies.privacy import ledger
from policies.privacy.errors import BudgetDivergedError, BudgetError, BudgetUnknownError, PrivacyError
from tests.learnsim import cap, small_recipe

PLANS = [
    small_recipe(noise_multiplier=sigma, steps=steps, delta="0.00001").plan.document
    for sigma, steps in (("4", 200), ("6.2244", 200), ("12", 300), ("2.5", 190))
]
OWN = [None, *(cap("sha256:" + "a" * 64, total=total, release="2") for total in ("2", "5"))]
CONTRACTS = [cap("sha256:" + c * 64, total=total, release="2") for c, total in (("a", "8"), ("b", "4"))]
RUNS = st.integers(0, 11).map(lambda number: f"run_{number}")
TURNS = st.integers(0, 59)
BLOCKS = ["train-1", "train-3", "train-5"]
COVERED = st.sets(st.sampled_from(BLOCKS), min_size=1).map(sorted)
DONE: Counter[str] = Counter()


class BudgetMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.entries, self.state = [], ledger.LedgerState()
        self.step("genesis", ledger.genesis_body(cap(release="2"), unit="episode", adjacency="zero-out"))
        for block in (*BLOCKS[:2], "held-out-2"):
            self.step("block", ledger.block_body(block, [f"unit of {block}"]))
        self.trained: Counter[tuple[str, str]] = Counter()  # run, block
        self.spent_before: Counter[str] = Counter()
        self.tightened = False

    def running(self, turn: int) -> str:
        """A run with an open reservation, mostly; now and then any run."""
        held = [run for (run, _), one in self.state.holds.items() if one.open]
        return held[turn % len(held)] if held and turn % 6 else f"run_{turn % 12}"

    def step(self, kind, body) -> bool:
        DONE["steps"] += 1
        entry = ledger.seal(self.state, kind, body, at_ms=len(self.entries))
        try:
            self.state = ledger.apply(self.state, entry)
        except (BudgetError, PrivacyError):
            DONE["refused"] += 1
            return False
        self.entries.append(entry)
        return True

    @rule(
        run=RUNS,
        plan=st.sampled_from(PLANS),
        contract=st.sampled_from(CONTRACTS),
        own=st.sampled_from(OWN),
        blocks=COVERED,
    )
    def reserve(self, run, plan, contract, own, blocks):
        own = own if contract == CONTRACTS[0] else None
        known = set(blocks) <= set(self.state.blocks)
        body = ledger.reserve_body(
            contract, run=run, recipe="sha256:r", blocks=blocks, plan=plan, manifest="sha256:m", own=own
        )
        if self.step("reserve", body):
            assert known
            if own is not None:  # whatever was reserved before it, at whatever order the caps then had
                assert self.state.under(own, "train").both <= own.rho_max_nano
            for block in blocks:
                assert self.state.in_block(block).both <= self.state.lineage.rho_max_nano

    @rule(run=RUNS, blocks=st.lists(st.sampled_from([*BLOCKS, "held-out-2"]), max_size=3))
    def of_another_split(self, run, blocks):
        if blocks != sorted(set(blocks)) or not blocks or "held-out-2" in blocks:
            body = ledger.reserve_body(
                CONTRACTS[0], run=run, recipe="sha256:r", blocks=blocks, plan=PLANS[0], manifest="sha256:m"
            )
            assert not self.step("reserve", body)

    @rule(
        turn=TURNS,
        number=st.integers(0, 40),
        attempt=st.integers(1, 2),
        steps=st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2]),
    )
    def touch(self, turn, number, attempt, steps):
        run = self.running(turn)
        body = {"run": run, "split": "train", "round": number, "attempt": attempt, "steps": steps}
        again = (run, "train", number, attempt) in self.state.touched
        if self.step("touch", body):
            assert not again
            assert steps == 1
            for block in self.state.holds[(run, "train")].blocks:
                self.trained[(run, block)] += 1
                assert self.state.in_block(block).spent <= self.state.lineage.rho_max_nano

    @rule(turn=TURNS)
    def touch_again_and_again(self, turn):
        run = self.running(turn)
        for number in range(41, 45):
            self.touch_once(run, number)

    def touch_once(self, run, number):
        body = {"run": run, "split": "train", "round": number, "attempt": 1, "steps": 1}
        if self.step("touch", body):
            for block in self.state.holds[(run, "train")].blocks:
                self.trained[(run, block)] += 1

    @rule(turn=TURNS)
    def commit(self, turn):
        self.step("commit", {"run": self.running(turn), "split": "train"})

    @rule(turn=TURNS)
    def cancel(self, turn):
        run = self.running(turn)
        if self.step("cancel", {"run": run, "split": "train"}):
            assert not any(self.trained[(run, block)] for block in BLOCKS)

    @rule(block=st.sampled_from(BLOCKS), unit=st.sampled_from(["unit of train-1", "new", "newer"]))
    def new_units(self, block, unit):
        known, opened = unit in self.state.units, block in self.state.blocks
        assert self.step("block", ledger.block_body(block, [unit])) == (not known)
        if not known and not opened:
            assert self.state.in_block(block) == ledger.Total()

    @precondition(lambda self: len(self.entries) > 30)
    @rule(total=st.sampled_from(["7.9", "7.5", "6", "3.3", "8", "9", "0", "x"]))
    def tighten(self, total):
        before = self.state.lineage
        if self.step("tighten", {"epsilon_total": total}):
            assert self.state.lineage.rho_max_nano < before.rho_max_nano
            assert self.state.lineage.order == before.order
            self.tightened = True

    @rule(kind=st.sampled_from(["genesis", "block", "refund"]))
    def nonsense(self, kind):
        before = self.state
        assert not self.step(kind, ledger.block_body("train-1") if kind == "block" else {})
        assert self.state == before

    @invariant()
    def never_over_a_cap_and_never_back(self):
        for contract in CONTRACTS:
            total = self.state.under(contract, "train")
            assert min(total.spent, total.held) >= 0
            assert total.both <= contract.rho_max_nano
        for block in self.state.blocks:
            total = self.state.in_block(block)
            assert min(total.spent, total.held) >= 0
            assert total.both <= self.state.genesis.rho_max_nano
            assert total.spent >= self.spent_before[block]
            self.spent_before[block] = total.spent
            covering = [one for one in self.state.holds.values() if block in one.blocks]
            assert total.spent == sum(one.steps_spent * one.lineage_step for one in covering)
        for (run, _), hold in self.state.holds.items():
            assert all(hold.steps_spent == self.trained[(run, block)] for block in hold.blocks)

    def teardown(self):
        if getattr(self, "entries", None):
            assert ledger.replay(self.entries) == self.state


def test_no_history_spends_over_a_cap_or_gives_back():
    DONE.clear()
    run_state_machine_as_test(
        BudgetMachine, settings=settings(max_examples=200, stateful_step_count=100, deadline=None)
    )
    taken = DONE["steps"] - DONE["refused"]
    print(f"{DONE['steps']} steps, {taken} of them taken, {DONE['refused']} refused")
    assert taken >= 2_000


# --- two runs at once ---

INTERLEAVINGS = 20_000


def _bodies(
    run: str, plan: dict[str, Any], blocks: list[str], contract: Any
) -> list[tuple[str, dict[str, Any]]]:
    """A run's own entries, in its own order."""
    reserve = ledger.reserve_body(
        contract, run=run, recipe="sha256:r", blocks=blocks, plan=plan, manifest="sha256:m"
    )
    touches = [
        ("touch", {"run": run, "split": "train", "round": one, "attempt": 1, "steps": 1}) for one in (1, 2, 3)
    ]
    return [("reserve", reserve), *touches, ("commit", {"run": run, "split": "train"})]


def _opened() -> ledger.LedgerState:
    state = ledger.LedgerState()
    bodies = [("genesis", ledger.genesis_body(cap(release="2"), unit="episode", adjacency="zero-out"))]
    bodies += [("block", ledger.block_body(block)) for block in BLOCKS]
    for kind, body in bodies:
        state = ledger.apply(state, ledger.seal(state, kind, body, at_ms=0))
    return state


def test_no_interleaving_of_two_runs_overspends():
    """Each order of five entries of one run and five of another, until there were enough of them."""
    rng, outcomes, seen = np.random.default_rng(7), Counter[str](), 0
    orders = [set(one) for one in itertools.combinations(range(10), 5)]
    start = _opened()
    room = start.lineage.rho_max_nano
    while seen < INTERLEAVINGS:
        # so dear that the lineage holds one whole plan beside what the other one really took
        plans = [PLANS[0] | {"noise_multiplier": f"{rng.uniform(1.75, 2.6):.3f}"} for _ in range(2)]
        covered = [
            sorted(rng.choice(BLOCKS, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(2)
        ]
        contracts = [CONTRACTS[0], cap("sha256:" + "9" * 64, release="2", total="8")]
        scripts = [_bodies(f"run_{i}", plans[i], covered[i], contracts[i]) for i in range(2)]
        for order in orders:
            state, places, refused = start, [iter(one) for one in scripts], [False, False]
            for at in range(10):
                turn = int(at in order)
                kind, body = next(places[turn])
                try:
                    state = ledger.apply(state, ledger.seal(state, kind, body, at_ms=at))
                except BudgetError:
                    refused[turn] = True
                assert all(state.in_block(block).both <= room for block in BLOCKS)
                assert all(state.under(one, "train").both <= one.rho_max_nano for one in contracts)
            outcomes[f"{sum(refused)} refused"] += 1
            seen += 1
    print(f"{seen} interleavings of two runs, {dict(outcomes)}; none over a cap")
    assert outcomes["1 refused"] > INTERLEAVINGS // 20
    assert outcomes["0 refused"] > INTERLEAVINGS // 20


def test_random_histories_of_concurrent_contracts_never_overspend():
    """Six runs under three contracts, of plans of all prices, in all orders; each history is replayed."""
    rng = np.random.default_rng(11)
    contracts = [
        cap("sha256:" + c * 64, total=total, release="2") for c, total in (("a", "8"), ("b", "4"), ("c", "3"))
    ]
    histories = entries = 0
    for _ in range(300):
        state, chain = ledger.LedgerState(), []
        genesis = ledger.genesis_body(cap(release="2"), unit="episode", adjacency="zero-out")
        queue = [("genesis", genesis), *(("block", ledger.block_body(block)) for block in BLOCKS)]
        scripts = []
        for number in range(6):
            plan = PLANS[int(rng.integers(len(PLANS)))]
            blocks = sorted(rng.choice(BLOCKS, size=rng.integers(1, 4), replace=False).tolist())
            scripts.append(_bodies(f"run_{number}", plan, blocks, contracts[int(rng.integers(3))]))
        places = [iter(one) for one in scripts]
        turns = rng.permutation(np.repeat(np.arange(6), 5))
        queue += [next(places[turn]) for turn in turns]
        for kind, body in queue:
            entry = ledger.seal(state, kind, body, at_ms=0)
            try:
                state = ledger.apply(state, entry)
            except BudgetError:
                continue
            chain.append(entry)
            assert all(state.in_block(one).both <= state.lineage.rho_max_nano for one in state.blocks)
            assert all(state.under(one, "train").both <= one.rho_max_nano for one in contracts)
        assert ledger.replay(chain) == state
        histories, entries = histories + 1, entries + len(chain)
    print(f"{histories} histories of 6 runs under 3 contracts, {entries} entries")


# --- what an older copy lacks ---


def _touched(count: int) -> list[dict[str, Any]]:
    """A chain with a reservation in two blocks and some touches."""
    state, chain = ledger.LedgerState(), []
    bodies = [("genesis", ledger.genesis_body(cap(release="2"), unit="episode", adjacency="zero-out"))]
    bodies += [("block", ledger.block_body(block)) for block in BLOCKS[:2]]
    bodies += _bodies("run_a", PLANS[1], BLOCKS[:2], CONTRACTS[0])[: 1 + count]
    for kind, body in bodies:
        chain.append(ledger.seal(state, kind, body, at_ms=0))
        state = ledger.apply(state, chain[-1])
    return chain


def _missing(number: int, **changes: Any) -> dict[str, Any]:
    facts = {
        "run": "run_a",
        "recipe": "sha256:r",
        "blocks": BLOCKS[:2],
        "plan": PLANS[1],
        "steps": 1,
    } | changes
    return ledger.missing_spend(CONTRACTS[0], place=(number, 1), **facts)


@pytest.mark.parametrize("kept", [3, 4, 5])
def test_an_incident_brings_an_older_copy_back_to_what_was_spent(kept):
    whole = ledger.replay(_touched(3))
    old = ledger.replay(_touched(3)[:kept])
    lacking = [_missing(one) for one in (1, 2, 3) if ("run_a", "train", one, 1) not in old.touched]
    again = ledger.apply(old, ledger.seal(old, "incident", ledger.incident_body(lacking), at_ms=0))
    for block in BLOCKS[:2]:
        assert again.in_block(block).spent == whole.in_block(block).spent
    assert again.under(CONTRACTS[0], "train").spent == whole.under(CONTRACTS[0], "train").spent
    assert again.touched == whole.touched
    assert again.incidents == 1
    if kept > 3:  # the reservation goes on with what it holds still
        assert again.in_block("train-1") == whole.in_block("train-1")


def test_the_truth_is_appended_over_every_cap_and_only_once():
    state = ledger.replay(_touched(1)[:3])
    dear = [
        _missing(one, plan=PLANS[3] | {"noise_multiplier": "0.7"}, blocks=["train-3"]) for one in range(40)
    ]
    after = ledger.apply(state, ledger.seal(state, "incident", ledger.incident_body(dear), at_ms=0))
    assert after.in_block("train-3").spent > after.lineage.rho_max_nano
    assert after.in_block("train-1").spent == 0
    for body in (dear[:1], [], [_missing(7, steps=0)]):
        with pytest.raises(BudgetError):
            ledger.apply(after, ledger.seal(after, "incident", ledger.incident_body(body), at_ms=0))
    entry = ledger.seal(after, *_bodies("run_b", PLANS[2], ["train-3"], CONTRACTS[0])[0], at_ms=0)
    with pytest.raises(BudgetError, match="0 left"):
        ledger.apply(after, entry)


@pytest.mark.parametrize("kind", ["block", "reserve", "touch", "commit", "incident", "tighten"])
def test_an_entry_of_another_shape_is_an_unknown_budget(kind):
    chain = _touched(1)
    state = ledger.replay(chain)
    for body in ({}, {"run": "run_a", "block": "train"}, {"block": "train", "run": []}, []):
        with pytest.raises((BudgetUnknownError, BudgetError)) as caught:
            ledger.apply(state, ledger.seal(state, kind, body, at_ms=0))
        assert not isinstance(caught.value, BudgetDivergedError)


def test_dropped_reordered_and_flipped_entries_break_the_chain():
    chain, found = _touched(3), 0
    for at in range(len(chain)):
        for broken in (
            [*chain[:at], *chain[at + 1 :]],
            [*chain[:at], *reversed(chain[at : at + 2]), *chain[at + 2 :]],
        ):
            if broken == chain or broken == chain[: len(broken)]:
                continue  # a shorter chain is found by its head (client/privacy/store.py)
            with pytest.raises(BudgetUnknownError):
                ledger.replay(broken)
            found += 1
    assert found > 10
    for at, entry in enumerate(chain):
        for name in ("at_ms", "prev", "seq", "kind", "body"):
            with pytest.raises(IriaiError):
                ledger.replay([*chain[:at], entry | {name: "x"}, *chain[at + 1 :]])
