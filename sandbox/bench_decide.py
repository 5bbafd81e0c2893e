# SPDX-License-Identifier: Apache-2.0
"""How fast the evaluator decides, beside Cedar with the same contract's rules, in one run.

`run` takes a contract with a clause of every kind and asks both about the same training rounds, one that is
allowed and one that is refused, in alternating blocks. Before that it asks both about every request that
differs from the good one in one fact, missing facts among them, and counts where they name other clauses: a
figure for rules that are not the same would be worth nothing.

Three ways to call Cedar, all measured:
- ``cedar_per_s``: policies and entities are parsed once, each request starts from the same Python object as
  ours. It is the one that ``ratio`` compares with.
- ``cedar_prepared_per_s``: also the request's facts lie ready as Cedar's JSON.
- ``cedar_text_per_s``: the policies are handed over as text each time.

Seconds are CPU seconds of this process, in which Cedar's library runs as well: what else the machine does
does not count.

What Cedar's answer lacks is listed in ``cedar.outside``: it names the policies that forbid, and nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from policies.contract import ContractState, PlanFacts, TrainRound, evaluate, load, parse
from policies.contract.decision import decision_bytes
from sandbox.cedar_rules import OUTSIDE, context, policies, rules
from sandbox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from policies.contract.clauses import Contract

__all__ = ["run"]

Json = Any  # a JSON value

_STATE: Final = ContractState(
    now="2027-12-02T00:00:00Z",
    executed=True,
    halted=False,
    exited_parties=(),
    standing="in-force",
    rotated_keys={},
)
_SALT: Final = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Functions that decide one request and say whether it is allowed."""

    ours: Callable[[TrainRound], bool]
    cedar: Callable[[TrainRound], bool]
    prepared: Callable[[TrainRound], bool]
    text: Callable[[TrainRound], bool]


class Cedar:
    """Cedar with a contract's rules about training rounds.

    Raises:
        UsageError: cedarpy is not installed.
    """

    def __init__(self, contract: Contract) -> None:
        try:
            import cedarpy
        except ImportError as error:
            raise UsageError(
                need="cedarpy, for the comparison",
                found="it is not installed",
                remedy='pip install -c constraints.txt -e ".[dev]"',
            ) from error
        self._library = cedarpy
        self._contract = contract
        self.text = policies(contract)
        self._parsed = cedarpy.PolicySet.from_str(self.text)
        self._entities = cedarpy.Entities.from_json_str("[]")

    def judges(
        self, state: ContractState, request: TrainRound, *, facts: str | None = None, text: bool = False
    ) -> Any:  # noqa: ANN401  cedarpy's answer
        """Cedar's answer.

        Args:
            state: Of the contract.
            request: The question.
            facts: Its context as JSON, if it lies ready.
            text: Whether the policies are handed over as text.
        """
        question = {
            "principal": 'Node::"asking"',
            "action": 'Action::"TrainRound"',
            "resource": 'Contract::"signed"',
            "context": facts if facts is not None else context(self._contract, state, request),
        }
        return self._library.is_authorized(question, self.text if text else self._parsed, self._entities)

    def refusals(self, state: ContractState, request: TrainRound) -> set[str]:
        """Clause and check of every policy that forbids; empty if Cedar allows."""
        answer = self.judges(state, request)
        if answer.allowed:
            return set()
        return set(answer.diagnostics.id_annotations_by_reason.values())

    def version(self) -> str:
        """Of the Python package."""
        from importlib.metadata import version

        return version(self._library.__name__)


def run(*, decisions: int = 2_000, blocks: int = 10) -> dict[str, Json]:
    """Figures of both engines.

    Args:
        decisions: Per block and request; a tenth of it where Cedar parses its text each time.
        blocks: How often the engines take turns.

    Returns:
        ``decisions_per_s``, ``cedar_per_s``, ``ratio`` and the other figures of the module docstring, each
        the median over the blocks; ``by_request`` splits them; ``agreement`` counts compared requests.

    Raises:
        UsageError: cedarpy is not installed, or the two disagree about a request.
    """
    contract = load((files("sandbox") / "bench_contract.yaml").read_text(encoding="utf-8"))
    cedar = Cedar(contract)
    agreement = _agree(contract, cedar)
    good = _good(contract)
    asked = {"allow": good, "refuse": replace(good, epsilon_after_total="4.1")}
    rates = {
        name: _measure(_ways(contract, cedar, request), request, decisions=decisions, blocks=blocks)
        for name, request in asked.items()
    }
    figures = {way: _harmonic([one[way] for one in rates.values()]) for way in rates["allow"]}
    return {
        "decisions_per_s": round(figures["ours"]),
        "cedar_per_s": round(figures["cedar"]),
        "cedar_prepared_per_s": round(figures["prepared"]),
        "cedar_text_per_s": round(figures["text"]),
        "ratio": round(figures["ours"] / figures["cedar"], 2),
        "ratio_prepared": round(figures["ours"] / figures["prepared"], 2),
        "ratio_text": round(figures["ours"] / figures["text"], 2),
        "by_request": {name: {way: round(rate) for way, rate in one.items()} for name, one in rates.items()},
        "records_per_s": round(_rate(lambda: _record(contract, good), decisions)),
        "parsed_each_time_per_s": round(_rate(lambda: _uncached(contract, good), max(10, decisions // 50))),
        "contract": contract.digest,
        "clauses": len(contract.index.clauses),
        "findings": len(evaluate(contract, _STATE, good).findings),
        "cpus": os.cpu_count(),
        "seconds": "CPU seconds of the process",
        "decisions": decisions * blocks,
        "agreement": agreement,
        "cedar": {
            "cedarpy": cedar.version(),
            "policies": len(rules(contract)) + 1,
            "request_type": TrainRound.TYPE,
            "covers": "every check of this request type; the same clauses refuse (agreement)",
            "parsed_once": "policies and entities; the context cannot be: it differs in every request",
            "call": "one request a call, as a guard asks",
            "outside": list(OUTSIDE),
        },
    }


def _good(contract: Contract) -> TrainRound:
    """A round of one contributor that the contract allows."""
    recipe, party = contract.recipes[0], contract.contributors[-1]
    plan = contract.privacy
    return TrainRound(
        party=party.party,
        key=party.key,
        recipe_digest=recipe.recipe_digest,
        purpose=recipe.purpose,
        dataset=recipe.datasets_of(party.party)[0],
        fields=contract.fields.allow[:2],
        round=7,
        local_steps=1,
        cohort=recipe.participants,
        privacy=PlanFacts(
            mode=plan.mode,
            unit=plan.unit,
            adjacency=plan.adjacency,
            delta=plan.delta,
            noise=plan.noise,
            honest_min=plan.honest_min,
            filter=plan.filter,
        ),
        epsilon_after_release="1.499999",
        epsilon_after_total="3.21",
        secure_aggregation=contract.aggregation.secure_aggregation,
        group_mac=contract.aggregation.group_mac,
        reply_slot_ms=0,
        seed_set="none",
        seed_consents=(),
    )


# --- do both say the same? ---


def _agree(contract: Contract, cedar: Cedar) -> dict[str, int]:
    """Compares the refusing clauses and checks of both engines over one-fact changes.

    Raises:
        UsageError: They differ; the rules in Cedar are not the contract's.
    """
    conflict, count, refused = contract.conflict.clause, 0, 0
    for state, request in _variants(_good(contract)):
        decision = evaluate(contract, state, request)
        ours = {f"{one.clause} {one.check}" for one in decision.refusals if one.clause != conflict}
        theirs = cedar.refusals(state, request)
        if ours != theirs:
            raise UsageError(
                need="the same clauses from both engines",
                found=f"only here {sorted(ours - theirs)}, only in Cedar {sorted(theirs - ours)}"[:300],
                remedy="report this: the rules in Cedar are not those of the contract",
            )
        count, refused = count + 1, refused + (not decision.allow)
    return {"requests": count, "refused_by_the_same_clauses": refused}


def _variants(good: TrainRound) -> Iterator[tuple[ContractState, TrainRound]]:
    """The good request, and every one that differs in one fact of it or of the state."""
    yield _STATE, good
    for one in fields(good):
        for value in _others(getattr(good, one.name)):
            yield _STATE, replace(good, **{one.name: value})
    for one in fields(_STATE):
        for value in _others(getattr(_STATE, one.name)):
            yield replace(_STATE, **{one.name: value}), good
    for name in (item.name for item in fields(PlanFacts)):
        others: tuple[Any, ...] = (None, 4) if name == "honest_min" else (None, "other")
        for value in others:
            yield _STATE, replace(good, privacy=replace(good.privacy or PlanFacts.none(), **{name: value}))


def _others(value: Json) -> tuple[Json, ...]:
    if isinstance(value, bool):
        return (None, not value)
    if isinstance(value, int):
        return (None, 0, 10_000)
    if isinstance(value, str):
        return (None, "other", "9", "2029-01-01T00:00:00Z")
    if isinstance(value, tuple):
        return (None, (), (*value, "other"), value[:1])
    if isinstance(value, dict):
        return (None, {"nord": "ed25519:" + "0" * 64})
    return (None,)


# --- how fast? ---


def _ways(contract: Contract, cedar: Cedar, request: TrainRound) -> Ways:
    ready = json.dumps(context(contract, _STATE, request))
    return Ways(
        ours=lambda one: evaluate(contract, _STATE, one).allow,
        cedar=lambda one: bool(cedar.judges(_STATE, one).allowed),
        prepared=lambda one: bool(cedar.judges(_STATE, one, facts=ready).allowed),
        text=lambda one: bool(cedar.judges(_STATE, one, text=True).allowed),
    )


def _measure(ways: Ways, request: TrainRound, *, decisions: int, blocks: int) -> dict[str, float]:
    """Decisions per second of each way: the median over blocks in which they take turns."""
    counts = {one.name: decisions for one in fields(ways)} | {"text": max(1, decisions // 10)}
    found: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(blocks):
        for name, count in counts.items():
            decide: Callable[[TrainRound], bool] = getattr(ways, name)
            found[name].append(_rate(partial(decide, request), count))
    return {name: statistics.median(rates) for name, rates in found.items()}


def _rate(once: Callable[[], object], count: int) -> float:
    began_s = time.process_time()
    for _ in range(count):
        once()
    return count / (time.process_time() - began_s)


def _harmonic(rates: list[float]) -> float:
    """The rate of a mix of equally many requests of each kind."""
    return statistics.harmonic_mean(rates)


def _record(contract: Contract, request: TrainRound) -> bytes:
    decision = evaluate(contract, _STATE, request)
    return decision_bytes(
        decision, contract_digest=contract.digest, point="node", request=request, state=_STATE, salt16=_SALT
    )


def _uncached(contract: Contract, request: TrainRound) -> bool:
    return evaluate(parse(contract.canonical), _STATE, request).allow
