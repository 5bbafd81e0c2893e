# SPDX-License-Identifier: Apache-2.0
"""The budget ledger as a pure machine: ``apply(state, entry) -> state``, or a refusal. Standard library only.

- An entry is a JSON object with ``seq, kind, prev, at_ms, body, digest``; ``digest`` is SHA-256 over the
  canonical bytes of the rest, ``prev`` the digest before. A hash chain; the node signs each digest.
- Order per lineage: ``genesis``, ``block``…, then per run ``reserve``, ``touch``…, ``commit`` (or ``cancel``
  before the first touch).
- ``reserve`` holds all steps of a plan in one block if spent + held + cost fits under each of its filters:
  the lineage's cap over all contracts, the contract's cap over its own entries, and, where the owner set one,
  the owner's cap over the same entries. Held counts as spent for everybody else.
- What is kept is steps per (q, sigma), not a sum of costs: a cap is always compared with what all steps cost
  at its own order, also where it was tightened after they were taken.
- ``touch`` moves the steps of one round and attempt from held to spent, before the data are read. Each (run,
  purpose, round, attempt) is touched at most once; nothing is ever refunded after the first touch.
- ``commit`` closes a run and releases the steps that never ran.
- Costs are recomputed from the plan on every entry; a cheaper one is refused. Amounts are integers, so replay
  is exact.

Builders (`genesis_body`, `reserve_body`, …) make a body; `seal` makes the entry; `apply` checks and moves the
state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import digest_of
from policies.limits import LEDGER_ENTRIES
from policies.privacy.accounting import epsilon_filter, filter_order, rho_max_nano, rho_step_nano
from policies.privacy.errors import (
    BudgetError,
    BudgetExhaustedError,
    BudgetUnknownError,
    CancelAfterTouchError,
    OrderUnfitError,
    PlanMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "HELD_OUT",
    "TRAIN",
    "Cap",
    "Hold",
    "LedgerState",
    "Total",
    "apply",
    "plan_facts",
    "replay",
    "seal",
]

Json = dict[str, Any]
TRAIN: Final = "train"  # the block of training units; a plan of training charges it
HELD_OUT: Final = "held-out"  # the block of held-out units; a plan of evaluation charges it
START: Final = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A cap on epsilon at delta, with its filter order fixed; decimal strings, as in contracts.

    Attributes:
        scope: Digest of the contract, or the lineage.
        epsilon_total: The cap.
        epsilon_per_release: Largest epsilon of one plan.
        delta: Delta of both.
        before: Digests of the versions that the contract superseded: what was spent under them counts under
            this cap too, or an amendment would begin the budget anew.
    """

    scope: str
    epsilon_total: str
    epsilon_per_release: str
    delta: str
    before: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """Everything whose spends this cap is about."""
        return (self.scope, *self.before)

    @property
    def order(self) -> int:
        """Filter order that follows from the caps."""
        return filter_order(
            epsilon_total=self.epsilon_total,
            epsilon_per_release=self.epsilon_per_release,
            delta=self.delta,
        )

    @property
    def rho_max_nano(self) -> int:
        """What the cap holds at its order, in billionths."""
        return rho_max_nano(epsilon=float(self.epsilon_total), delta=float(self.delta), order=self.order)

    def as_dict(self) -> Json:
        """JSON value that a ledger entry carries."""
        earlier = {"before": list(self.before)} if self.before else {}
        return earlier | {
            "scope": self.scope,
            "epsilon_total": self.epsilon_total,
            "epsilon_per_release": self.epsilon_per_release,
            "delta": self.delta,
            "order": self.order,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Cap:
        """The cap that an entry carries.

        Raises:
            OrderUnfitError: The order written beside it is not the one that follows from it.
        """
        cap = cls(
            scope=value["scope"],
            epsilon_total=value["epsilon_total"],
            epsilon_per_release=value["epsilon_per_release"],
            delta=value["delta"],
            before=tuple(value.get("before", ())),
        )
        if value["order"] != cap.order:
            raise OrderUnfitError(
                need=f"order {cap.order}", found=str(value["order"]), remedy="the order follows from the caps"
            )
        return cap


@dataclass(frozen=True, slots=True)
class Total:
    """Spent and held: steps of one mechanism, or billionths of rho at one cap's order."""

    spent: int = 0
    held: int = 0

    def add(self, *, spent: int = 0, held: int = 0) -> Total:
        """The totals after a movement."""
        return Total(self.spent + spent, self.held + held)


Mechanism = tuple[float, float]  # sampling probability, noise multiplier


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A reservation: the steps that a run may still take in one block."""

    contract: Cap
    block: str
    plan_digest: str
    manifest: str
    mechanism: Mechanism
    steps_left: int
    steps_spent: int = 0
    steps_per_touch: int
    lineage_step: int
    open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """Everything that follows from a chain of entries. ``genesis`` is None before the first."""

    seq: int = 0
    head: str = START
    at_ms: int = 0
    genesis: Cap | None = None
    unit: str = ""
    adjacency: str = ""
    steps: Mapping[tuple[str, str], Mapping[Mechanism, Total]] = field(default_factory=dict)  # scope, block
    holds: Mapping[tuple[str, str], Hold] = field(default_factory=dict)  # (run, block)
    touched: frozenset[tuple[str, str, int, int]] = frozenset()  # run, block, round, attempt

    def total(self, cap: Cap, block: str) -> Total:
        """What a cap's scopes spent and hold in a block, in billionths of rho at this cap's order."""
        spent = held = 0
        for scope in cap.scopes:
            for (q, sigma), steps in self.steps.get((scope, block), {}).items():
                cost = rho_step_nano(q=q, sigma=sigma, order=cap.order)
                spent, held = spent + steps.spent * cost, held + steps.held * cost
        return Total(spent, held)

    @property
    def lineage(self) -> Cap:
        """The lineage's cap.

        Raises:
            BudgetUnknownError: The ledger is empty.
        """
        if self.genesis is None:
            raise _unknown("a genesis entry", "an empty ledger")
        return self.genesis

    @property
    def blocks(self) -> frozenset[str]:
        """Blocks that were opened."""
        lineage = self.lineage.scope
        return frozenset(block for scope, block in self.steps if scope == lineage)


def _unknown(need: str, found: str) -> BudgetUnknownError:
    return BudgetUnknownError(
        need=need,
        found=found,
        remedy="restore the ledger file of the latest moment; never start a new one for the same data",
    )


def plan_facts(document: Mapping[str, Any]) -> tuple[float, float, int, int]:
    """Sampling probability, noise multiplier, steps and steps per touch of a plan's document.

    Raises:
        BudgetError: An unknown kind of plan.
    """
    schema = document.get("schema")
    if schema == "iriai-dp-plan/1":
        q, per_touch = float(document["sampling_prob"]), int(document["steps_per_round"])
    elif schema == "iriai-eval-plan/1":
        q, per_touch = 1.0, 1
    else:
        raise BudgetError(
            need="a known plan", found=str(schema)[:60], remedy="update the verifier or the node"
        )
    return q, float(document["noise_multiplier"]), int(document["steps"]), per_touch


def seal(state: LedgerState, kind: str, body: Json, *, at_ms: int) -> Json:
    """The next entry after ``state``; `apply` decides whether it may be."""
    entry = {"seq": state.seq, "kind": kind, "prev": state.head, "at_ms": at_ms, "body": body}
    return entry | {"digest": digest_of(entry)}


def apply(state: LedgerState, entry: Json) -> LedgerState:
    """State after an entry.

    Raises:
        BudgetUnknownError: The chain is broken.
        BudgetExhaustedError: A cap or a plan does not hold it.
        CancelAfterTouchError: A refund after data were read.
        PlanMismatchError: Another plan than the one reserved.
        BudgetError: Any other entry that may not follow.
    """
    bare = {key: value for key, value in entry.items() if key != "digest"}
    if bare.keys() != {"seq", "kind", "prev", "at_ms", "body"} or entry.get("digest") != digest_of(bare):
        raise _unknown("entries with their own digest", f"another at {state.seq}")
    if entry["seq"] != state.seq or entry["prev"] != state.head:
        raise _unknown(f"entry {state.seq} after {state.head[:19]}", f"entry {entry['seq']}")
    move = _MOVES.get(entry["kind"])
    if move is None or state.seq >= LEDGER_ENTRIES or (state.genesis is None) != (entry["kind"] == "genesis"):
        raise _unknown("genesis first, and once, then known kinds", str(entry["kind"])[:40])
    moved = move(state, entry["body"])
    return replace(moved, seq=state.seq + 1, head=entry["digest"], at_ms=entry["at_ms"])


def replay(entries: Iterable[Json]) -> LedgerState:
    """State of a whole chain.

    Raises:
        BudgetUnknownError: No entry, or a broken chain.
        BudgetError: An entry that the rules refuse.
    """
    state = LedgerState()
    for entry in entries:
        state = apply(state, entry)
    if state.genesis is None:
        raise _unknown("a genesis entry", "an empty ledger")
    return state


def genesis_body(cap: Cap, *, unit: str, adjacency: str) -> Json:
    """Body of the first entry: the owner's cap over the data's life, immutable."""
    return {"cap": cap.as_dict(), "unit": unit, "adjacency": adjacency}


def reserve_body(
    cap: Cap,
    *,
    run: str,
    recipe: str,
    block: str,
    plan: Mapping[str, Any],
    manifest: str,
    own: Cap | None = None,
) -> Json:
    """Body of a reservation of all steps of a plan, for one run in one block; ``own`` is the owner's cap."""
    tighter = {} if own is None else {"own": own.as_dict()}
    return tighter | {
        "contract": cap.as_dict(),
        "run": run,
        "recipe": recipe,
        "block": block,
        "plan": dict(plan),
        "plan_digest": digest_of(dict(plan)),
        "manifest": manifest,
    }


def _genesis(state: LedgerState, body: Json) -> LedgerState:
    cap = Cap.from_dict(body["cap"])
    return replace(state, genesis=cap, unit=body["unit"], adjacency=body["adjacency"])


def _block(state: LedgerState, body: Json) -> LedgerState:
    name = body["block"]
    if name in state.blocks:
        raise BudgetError(need="a new block", found=name, remedy="a block is opened once")
    return replace(state, steps={**state.steps, (state.lineage.scope, name): {}})


def _reserve(state: LedgerState, body: Json) -> LedgerState:
    cap, run, block, plan = Cap.from_dict(body["contract"]), body["run"], body["block"], body["plan"]
    if block not in state.blocks:
        raise BudgetError(need=f"block {block}", found="none of that name", remedy="import the data first")
    if (run, block) in state.holds:
        raise BudgetError(need="one reservation per run and block", found=run, remedy="go on with it")
    if body["plan_digest"] != digest_of(plan):
        raise PlanMismatchError(need=body["plan_digest"], found=digest_of(plan), remedy="sync the recipe")
    if plan.get("unit") != state.unit or plan.get("adjacency") != state.adjacency:
        raise PlanMismatchError(
            need=f"unit {state.unit}, adjacency {state.adjacency}",
            found=f"unit {plan.get('unit')}, adjacency {plan.get('adjacency')}",
            remedy="a plan for the lineage's own unit",
        )
    q, sigma, steps, per_touch = plan_facts(plan)
    own = Cap.from_dict(body["own"]) if "own" in body else None
    if own is not None and own.scope != cap.scope:
        raise BudgetError(need=cap.scope, found=own.scope, remedy="an owner's cap is one of the contract's")
    for filtered in (state.lineage, cap) if own is None else (state.lineage, cap, own):
        step = rho_step_nano(q=q, sigma=sigma, order=filtered.order)
        _check_fits(filtered, state.total(filtered, block), steps * step)
    hold = Hold(
        contract=cap,
        block=block,
        plan_digest=body["plan_digest"],
        manifest=body["manifest"],
        mechanism=(q, sigma),
        steps_left=steps,
        steps_per_touch=per_touch,
        lineage_step=rho_step_nano(q=q, sigma=sigma, order=state.lineage.order),
    )
    return replace(state, steps=_moved(state, hold, held=steps), holds={**state.holds, (run, block): hold})


def _check_fits(cap: Cap, before: Total, cost: int) -> None:
    after = before.spent + before.held + cost
    if after > cap.rho_max_nano:
        left = cap.rho_max_nano - before.spent - before.held
        raise BudgetExhaustedError(
            need=f"{cost} of {cap.rho_max_nano} nano-rho at order {cap.order} under {cap.scope[:19]}",
            found=f"{max(0, left)} left: this plan fits {max(0, left) // cost} times",
            remedy="more noise or fewer steps, or new data; a budget does not come back",
        )


def _open_hold(state: LedgerState, run: str, block: str) -> Hold:
    hold = state.holds.get((run, block))
    if hold is None or not hold.open:
        raise BudgetExhaustedError(
            need=f"an open reservation of {run} in block {block}",
            found="none" if hold is None else "a closed one",
            remedy="reserve before training",
        )
    return hold


def _touch(state: LedgerState, body: Json) -> LedgerState:
    run, block = body["run"], body["block"]
    mechanism = (run, block, body["round"], body["attempt"])
    hold = _open_hold(state, run, block)
    if mechanism in state.touched:
        raise BudgetExhaustedError(
            need="each round and attempt once",
            found=f"round {body['round']}, attempt {body['attempt']} again",
            remedy="resend the reply in the outbox, or train under a new attempt",
        )
    if body["steps"] != hold.steps_per_touch or hold.steps_left < hold.steps_per_touch:
        raise BudgetExhaustedError(
            need=f"{hold.steps_per_touch} steps of the plan",
            found=f"{hold.steps_left} left",
            remedy="the plan's steps are used up, retries included: commit and plan anew",
        )
    return replace(
        state,
        steps=_moved(state, hold, spent=hold.steps_per_touch, held=-hold.steps_per_touch),
        holds={
            **state.holds,
            (run, block): replace(
                hold,
                steps_left=hold.steps_left - hold.steps_per_touch,
                steps_spent=hold.steps_spent + hold.steps_per_touch,
            ),
        },
        touched=state.touched | {mechanism},
    )


def _moved(
    state: LedgerState, hold: Hold, *, spent: int = 0, held: int
) -> dict[tuple[str, str], Mapping[Mechanism, Total]]:
    """Steps per scope and block after a movement of a hold's own."""
    steps = dict(state.steps)
    for scope in (state.lineage.scope, hold.contract.scope):
        known = steps.get((scope, hold.block), {})
        moved = known.get(hold.mechanism, Total()).add(spent=spent, held=held)
        steps[(scope, hold.block)] = {**known, hold.mechanism: moved}
    return steps


def _close(state: LedgerState, body: Json) -> LedgerState:
    hold = _open_hold(state, body["run"], body["block"])
    closed = replace(hold, steps_left=0, open=False)
    return replace(
        state,
        steps=_moved(state, hold, held=-hold.steps_left),
        holds={**state.holds, (body["run"], body["block"]): closed},
    )


def _cancel(state: LedgerState, body: Json) -> LedgerState:
    if _open_hold(state, body["run"], body["block"]).steps_spent:
        raise CancelAfterTouchError(
            need="a reservation whose data were never read",
            found="a touched one",
            remedy="commit it: what was spent stays spent, the rest is released",
        )
    return _close(state, body)


_MOVES: Final = {
    "genesis": _genesis,
    "block": _block,
    "reserve": _reserve,
    "touch": _touch,
    "commit": _close,
    "cancel": _cancel,
}


def epsilon_after(
    state: LedgerState, cap: Cap, *, block: str, plan: Mapping[str, Any] | None = None
) -> float:
    """Epsilon that a cap's filter stands at, spent and held; with ``plan``: as if that were reserved, too.

    It may be above the cap: then `apply` would refuse the reservation.
    """
    now = state.total(cap, block)
    rho = now.spent + now.held
    if plan is not None:
        q, sigma, steps, _ = plan_facts(plan)
        rho += steps * rho_step_nano(q=q, sigma=sigma, order=cap.order)
    return epsilon_filter(rho_nano=rho, delta=float(cap.delta), order=cap.order)


def epsilon_of(cap: Cap, rho_nano: int) -> float:
    """Epsilon that an amount of a cap's budget stands for; 0 for nothing."""
    return epsilon_filter(rho_nano=rho_nano, delta=float(cap.delta), order=cap.order) if rho_nano else 0.0


def exhausted_total(cap: Cap, epsilon: str) -> BudgetExhaustedError:
    """Refusal where what is spent and held already is over a cap that was tightened afterwards."""
    return BudgetExhaustedError(
        need=f"at most epsilon {cap.epsilon_total} in all",
        found=epsilon,
        remedy="nothing more is trained under this cap; what was spent does not come back",
    )


def exhausted_release(cap: Cap, epsilon: str) -> BudgetExhaustedError:
    """Refusal of a plan whose own epsilon is over the cap per release."""
    return BudgetExhaustedError(
        need=f"at most epsilon {cap.epsilon_per_release} per release",
        found=epsilon,
        remedy="more noise or fewer steps; see the planner",
    )
