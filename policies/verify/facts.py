# SPDX-License-Identifier: Apache-2.0
"""What a decision was told, compared with what the log says at its index. Names of facts that differ.

- A fact that is None was not known: it refuses by itself and is never wrong.
- The broker and its gate decide in the transaction that logs the decision, so their state is exactly the life
  of the contract before that entry. A node decides from what it has heard, and hears late: its state must be
  one that the contract had at some moment before. That nothing went on under a halt, after an end or with who
  had left, `policies.verify.lives` says.
- Facts of what goes out are in `policies.verify.facts_outputs`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from policies.contract.checks.training import NO_SEED
from policies.contract.entering import who_signed
from policies.contract.lifecycle import begin, contract_state
from policies.contract.requests import (
    Aggregate,
    Deliver,
    Exit,
    Join,
    Query,
    Release,
    TrainRound,
)
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.privacy.accounting import epsilon_rdp, epsilon_text
from policies.privacy.ledger import plan_facts
from policies.verify.facts_outputs import (
    deliver_facts,
    ms_of,
    origin_facts,
    query_facts,
    recipe_facts,
    release_facts,
)
from policies.verify.judgements import rejections_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from policies.contract.clauses import Contract
    from policies.contract.lifecycle import Life
    from policies.contract.requests import ContractState, Request
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["request_facts", "state_facts"]

Json = Any
_T = EntryType
_AHEAD_MS = 5 * 60_000  # a node's clock may be this far ahead of the broker's
_STATE: Final = ("executed", "halted", "exited_parties", "standing", "rotated_keys")


# --- the state ---


def state_facts(
    history: History, index: int, entry: Entry, state: ContractState, *, whole: bool = True
) -> list[str]:
    """Names of facts about the contract that were not so when the decision was made.

    Args:
        history: Of the bundle.
        index: Of the decision.
        entry: The decision.
        state: As it was judged.
        whole: Everything; else only that it is not from the future, and whether the contract was final.
    """
    contract = history.contracts.get(entry.scope or "")
    if contract is None:
        return []
    wrong = ["now"] if state.now is not None and ms_of(state.now) > ms_of(entry.ts) + _AHEAD_MS else []
    moments = list(_moments(history, index, entry))
    for name in _STATE if whole else _STATE[:1]:
        said = getattr(state, name)
        if said is None:
            continue
        if _plain(said) not in [_plain(getattr(_state_of(contract, life), name)) for life in moments]:
            wrong.append(name)
    return wrong


def _moments(history: History, index: int, entry: Entry) -> Iterator[Life | None]:
    """Lives that the decision may have been made in."""
    yield history.life_before(entry.scope, index)
    if entry.env is not None:
        yield from (life for at, life in history.lives.get(entry.scope or "", ()) if at < index)


def _opened(history: History, index: int, entry: Entry) -> int:
    """Index of the last opening of a node's round before its decision; of the decision itself without one."""
    opened = history.openings().get((entry.run, entry.round), [])
    found = bisect_left(opened, index)
    return opened[found - 1] if found else index


def _state_of(contract: Contract, life: Life | None) -> ContractState:
    return contract_state(contract, begin(contract) if life is None else life, "")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return sorted(value)
    return dict(value) if isinstance(value, Mapping) else value


# --- the request ---


def request_facts(history: History, index: int, entry: Entry, request: Request, point: str) -> list[str]:
    """Names of facts that differ from the log, whatever the step that the decision permitted."""
    contract = history.contracts[entry.scope or ""]
    wrong = _asker(history, index, request, point, contract)
    return [*wrong, *_BY_TYPE[type(request)](history, index, entry, request)]


def _asker(history: History, index: int, request: Request, point: str, contract: Contract) -> list[str]:
    """Who asked is who signed; the broker asks as itself, or about the party that it schedules or serves."""
    clause = contract.party(request.party)
    wrong = []
    if clause is not None and request.key is not None:
        keys = {history.key_before(contract, clause, index)}
        if point == "node":
            keys |= {history.key_before(contract, clause, _opened(history, index, history.entries[index]))}
        wrong += [] if request.key in keys else ["key"]
    own = point == "node" and history.grade == "auditor"
    if own and history.sender_party(index) != request.party:
        wrong.append("party")
    return wrong


def _recipe(history: History, entry: Entry, request: TrainRound | Aggregate | Release) -> list[str]:
    wrong = recipe_facts(history, entry.run, request.recipe_digest)
    if request.privacy is None or request.recipe_digest not in history.recipes:
        return wrong
    plan, facts = history.plan_of(request.recipe_digest), request.privacy
    if plan is None:
        return wrong if facts.mode == "none" else [*wrong, "privacy.mode"]
    named = ("unit", "adjacency", "delta", "noise", "honest_min")
    wrong += [f"privacy.{name}" for name in named if getattr(facts, name) != plan.get(name)]
    return wrong if facts.mode == "dp" else [*wrong, "privacy.mode"]


def _train(history: History, _index: int, entry: Entry, request: TrainRound) -> list[str]:
    wrong = [*_recipe(history, entry, request), *_epsilon(history, request)]
    recipe = history.recipes.get(request.recipe_digest or "", {})
    said = {
        "fields": None if request.fields is None else sorted(request.fields),
        "local_steps": request.local_steps,
        "seed_set": request.seed_set,
    }
    told = {
        "fields": sorted(recipe["fields"]) if isinstance(recipe.get("fields"), list) else None,
        "local_steps": recipe.get("local_steps"),
        "seed_set": _seed_set(recipe) if recipe else None,
    }
    wrong += [name for name, value in told.items() if None not in (value, said[name]) and said[name] != value]
    contract = history.contracts[entry.scope or ""]
    wrong += _consents(contract, request)
    wrong += [] if request.reply_slot_ms in (None, contract.privacy.reply_slot_ms or 0) else ["reply_slot_ms"]
    return wrong + _as_pooled(contract, request, "secure_aggregation", "group_mac")


def _as_pooled(contract: Contract, request: TrainRound | Aggregate, *names: str) -> list[str]:
    """Facts about the way of updates: it is the contract's, for node and broker know no other under it."""
    pooling = contract.aggregation
    return [name for name in names if getattr(request, name) not in (None, getattr(pooling, name))]


def _seed_set(recipe: Mapping[str, Json]) -> str:
    """What a recipe starts from: open episodes, or none."""
    start = recipe.get("start")
    named = start.get("seed_set") if isinstance(start, Mapping) else None
    return NO_SEED if named is None else str(named)  # a base checkpoint has no episodes behind it


def _consents(contract: Contract | None, request: TrainRound) -> list[str]:
    """A consent on record is one that the contract names for the recipe; any other was made up."""
    recipe = None if contract is None else contract.recipe(request.recipe_digest)
    if contract is None or recipe is None or request.seed_consents is None:
        return []
    named = {one.consent for seed in contract.seed_sets if seed.recipe == recipe.id for one in seed.donations}
    return [] if set(request.seed_consents) <= named else ["seed_consents"]


@lru_cache(maxsize=256)
def _epsilon_of(q: float, sigma: float, steps: int, delta: float) -> str:
    return epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=delta))


def _epsilon(history: History, request: TrainRound) -> list[str]:
    """The claimed epsilon of one release is at least the one recomputed from the plan."""
    plan = history.plan_of(request.recipe_digest)
    if plan is None or request.epsilon_after_release is None:
        return []
    try:
        q, sigma, steps, _ = plan_facts(plan)
        own = _epsilon_of(q, sigma, steps, float(plan["delta"]))
        return [] if float(request.epsilon_after_release) >= float(own) else ["epsilon_after_release"]
    except (IriaiError, KeyError, ValueError, TypeError, OverflowError):
        return ["epsilon_after_release"]


def _aggregate(history: History, index: int, entry: Entry, request: Aggregate) -> list[str]:
    wrong = [*_recipe(history, entry, request), *origin_facts(history, request.log_origin)]
    contract = history.contracts[entry.scope or ""]
    wrong += _as_pooled(contract, request, "secure_aggregation")
    wrong += _set_by_contract(contract, request)
    count = request.rejected_rounds
    if count is not None and count != rejections_before(history, entry.run, index):
        wrong.append("rejected_rounds")
    # whether each party accepted the newest model is in the log's votes; as a fact it would be made up
    return wrong if request.validation is None else [*wrong, "validation"]


def _set_by_contract(contract: Contract, request: Aggregate) -> list[str]:
    """Weights and bound are the contract's: nothing else is ever averaged by."""
    wrong = [] if request.norm_bound in (None, contract.aggregation.update_norm_max) else ["norm_bound"]
    if request.weights is None or request.survivors is None:
        return wrong
    try:
        same = dict(request.weights) == contract.weights(request.survivors)
    except IriaiError:
        same = False
    return wrong if same else [*wrong, "weights"]


def _released(history: History, index: int, entry: Entry, request: Release) -> list[str]:
    return [*_recipe(history, entry, request), *release_facts(history, index, entry, request)]


def _exit(history: History, _index: int, _entry: Entry, request: Exit) -> list[str]:
    """An exit is decided about a notice, whose entry may follow the decision."""
    known = [one for one in history.notices_of.values() if one.digest == request.notice]
    if not known:
        return []
    said = (request.party, request.notice_at, request.unreleased_models)
    leaver = known[0].subject or known[0].party
    return [] if said == (leaver, known[0].at, known[0].choice) else ["notice"]


def _join(history: History, index: int, entry: Entry, request: Join) -> list[str]:
    """An amendment is about a successor in the bundle; one that came to nothing is not there."""
    found = [
        one
        for one in history.contracts.values()
        if one.supersedes == entry.scope and dict(request.keys or {}) == _keys(one)
    ]
    if len(found) != 1:
        return []
    new = found[0]
    wrong = ["version"] if request.version not in (None, new.version) else []
    groups = {one.party: one.group for one in new.contributors}
    wrong += ["groups"] if request.groups is not None and dict(request.groups) != groups else []
    known = {one.party for one in history.contracts[entry.scope or ""].parties}
    newcomers = {one.party for one in new.parties} - known
    wrong += ["newcomers"] if request.newcomers is not None and set(request.newcomers) != newcomers else []
    envelope, old = history.signatures.get(new.digest), history.contracts[entry.scope or ""]
    life = history.life_before(entry.scope, index)
    rotated = {} if life is None else life.rotated
    signed = set() if envelope is None else set(who_signed(old, new, envelope, rotated))
    wrong += ["signers"] if not set(request.signers or ()) <= signed else []
    orgs = {one.party: one.org for one in new.parties}
    vouched = {
        one.subject for one in history.attested.get(entry.scope or "", {}).values() if one.kind == "admit"
    }
    unfounded = [name for name in request.attestations or () if orgs.get(name) not in vouched]
    return wrong + (["attestations"] if unfounded else [])


def _keys(contract: Contract) -> dict[str, str]:
    return {one.party: one.key for one in contract.parties}


_BY_TYPE: Final[Mapping[type, Callable[[History, int, Entry, Any], list[str]]]] = {
    TrainRound: _train,
    Aggregate: _aggregate,
    Release: _released,
    Deliver: deliver_facts,
    Query: query_facts,
    Join: _join,
    Exit: _exit,
}
