# SPDX-License-Identifier: Apache-2.0
"""What a decision was told, compared with what the log says at its index. Names of facts that differ.

- A fact that is None was not known: it refuses by itself and is never wrong.
- The broker and its gate decide in the transaction that logs the decision, so their state is exactly the life
  of the contract before that entry. A node decides from what it has heard, and hears late: its state must be
  one that the contract had at some moment before. That nothing went on under a halt, after an end or with who
  had left, `policies.verify.lives` says.
- Times are compared to the second where the exact time is disclosed, else to the minute that stands in clear.
- What only other members' entries could show is left alone in a member's bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from policies.contract.lifecycle import begin, contract_state
from policies.contract.requests import (
    PUBLIC,
    Aggregate,
    Deliver,
    Exit,
    Join,
    Query,
    Release,
    TrainRound,
)
from policies.contract.signatures import signers
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.ports import iso_s, to_ms
from policies.privacy.accounting import epsilon_rdp, epsilon_text
from policies.privacy.ledger import plan_facts

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
# Figures of a report that only its evidence can give.
_REPORTED: Final[Mapping[str, str]] = {
    "mia_auc": "membership-inference-report",
    "property_skill": "property-leak-report",
    "canaries_fired": "canary-report",
}
_ALWAYS: Final = frozenset(
    {"privacy-statement", "log-root"}
)  # the release names one, the checkpoint is the other


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
        whole: Everything; else only that it is not from the future.
    """
    contract = history.contracts.get(entry.scope or "")
    if contract is None:
        return []
    wrong = ["now"] if state.now is not None and _ms(state.now) > _ms(entry.ts) + _AHEAD_MS else []
    if not whole:
        return wrong
    moments = list(_moments(history, index, entry))
    for name in _STATE:
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
    rounds = (
        at
        for at, one in history.of(_T.ROUND_OPENED)
        if at < index and (one.run, one.round) == (entry.run, entry.round)
    )
    return max(rounds, default=index)


def _state_of(contract: Contract, life: Life | None) -> ContractState:
    return contract_state(contract, begin(contract) if life is None else life, "")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return sorted(value)
    return dict(value) if isinstance(value, Mapping) else value


def _ms(text: str) -> int:
    try:
        return to_ms(text)
    except ValueError:
        return 2**60  # a time that is none is from the future


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
    wrong = _recipe_digest(history, entry.run, request.recipe_digest)
    if request.privacy is None or request.recipe_digest not in history.recipes:
        return wrong
    plan, facts = history.plan_of(request.recipe_digest), request.privacy
    if plan is None:
        return wrong if facts.mode == "none" else [*wrong, "privacy.mode"]
    named = ("unit", "adjacency", "delta", "noise")
    wrong += [f"privacy.{name}" for name in named if getattr(facts, name) != plan.get(name)]
    return wrong if facts.mode == "dp" else [*wrong, "privacy.mode"]


def _recipe_digest(history: History, run: str | None, said: str | None) -> list[str]:
    recipe = history.recipe_of(run)
    return [] if recipe is None or said is None or said == recipe else ["recipe_digest"]


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
        "seed_set": recipe.get("seed_set", "none") if recipe else None,
    }
    wrong += [name for name, value in told.items() if None not in (value, said[name]) and said[name] != value]
    kept = {"secure_aggregation": request.secure_aggregation, "group_mac": request.group_mac}
    return wrong + [name for name, value in kept.items() if value not in (None, "off")]


def _epsilon(history: History, request: TrainRound) -> list[str]:
    """The claimed epsilon of one release is at least the one recomputed from the plan."""
    plan = history.plan_of(request.recipe_digest)
    if plan is None or request.epsilon_after_release is None:
        return []
    try:
        q, sigma, steps, _ = plan_facts(plan)
        own = epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=float(plan["delta"])))
        return [] if float(request.epsilon_after_release) >= float(own) else ["epsilon_after_release"]
    except (IriaiError, KeyError, ValueError, TypeError, OverflowError):
        return ["epsilon_after_release"]


def _aggregate(history: History, _index: int, entry: Entry, request: Aggregate) -> list[str]:
    wrong = [*_recipe(history, entry, request), *_origin(history, request.log_origin)]
    wrong += [] if request.secure_aggregation in (None, "off") else ["secure_aggregation"]
    # no silo votes on the model of a round in this version: a figure would be made up
    return wrong + [name for name in ("validation", "rejected_rounds") if getattr(request, name) is not None]


def _origin(history: History, said: str | None) -> list[str]:
    return [] if said in (None, history.checkpoint.origin) else ["log_origin"]


def _release(history: History, index: int, entry: Entry, request: Release) -> list[str]:
    wrong = [*_recipe(history, entry, request), *_origin(history, request.log_origin)]
    wrong += [] if _made(history, index, entry.run, request.made_at) else ["made_at"]
    wrong += (
        ["witnesses"] if request.witnesses not in (None, 0) else []
    )  # no cosignature is read by this version
    passed = _passed(history, index, entry, request.model)
    if request.evidence is not None and set(request.evidence) - passed - _ALWAYS:
        wrong.append("evidence")
    for name, report in _REPORTED.items():
        wrong += [name] if getattr(request, name) is not None and report not in passed else []
    if history.grade != "auditor":
        return wrong
    if request.validation is not None and dict(request.validation) != _accepted(
        history, index, entry, request.model
    ):
        wrong.append("validation")
    said = request.earlier_cohorts
    if said is not None and {frozenset(one) for one in said} != _earlier(history, index, entry, request):
        wrong.append("earlier_cohorts")
    return wrong


def _passed(history: History, index: int, entry: Entry, model: str | None) -> set[str]:
    """Names of evidence that the last evaluation of a candidate passed."""
    checks: Mapping[str, Json] = {}
    for at, one in history.of(_T.CANDIDATE_EVALUATED):
        if at < index and (one.run, one.pub["candidate"]) == (entry.run, model):
            checks = one.pub["checks"]
    return {name for name, outcome in checks.items() if outcome == "pass"}


def _accepted(history: History, index: int, entry: Entry, model: str | None) -> dict[str, bool]:
    """Who judged a candidate on its own held-out episodes, and whether its last vote approves."""
    heard = {
        history.sender_party(at)
        for at, one in history.of(_T.EVALUATION_RECEIVED)
        if at < index and (one.run, one.pub["candidate"]) == (entry.run, model)
    }
    votes: dict[str, bool] = {}
    for at, one in history.of(_T.VOTE_CAST):
        party = history.sender_party(at)
        if at < index and (one.run, one.pub["subject"]) == (entry.run, model) and party in heard and party:
            votes[party] = one.pub["vote"] == "approve"
    return votes


def _earlier(history: History, index: int, entry: Entry, request: Release) -> set[frozenset[str]]:
    """Cohorts of what was released before under this recipe, in all versions of the contract."""
    scopes = history.versions(entry.scope)
    return {
        frozenset(history.trained(one.run, before=at))
        for at, one in history.of(_T.MODEL_RELEASED)
        if at < index
        and one.scope in scopes
        and one.pub["model"] != request.model
        and history.recipe_of(one.run) == request.recipe_digest
    }


def _made(history: History, index: int, run: str | None, said: str | None) -> bool:
    """Whether a run's last aggregate was made at this time."""
    if said is None:
        return True
    last = max(
        (at for at, one in history.of(_T.AGGREGATE_RELEASED) if at < index and one.run == run), default=None
    )
    return last is not None and _at(history, last, said)


def _at(history: History, index: int, said: str) -> bool:
    """Whether an entry is of this time."""
    exact = history.opened.get(index, {}).get("at")
    if isinstance(exact, str):
        return iso_s(_ms(exact)) == said
    return history.entries[index].ts[:16] == said[:16]


def _deliver(history: History, index: int, entry: Entry, request: Deliver) -> list[str]:
    scopes = history.versions(entry.scope)
    releases = [
        (at, one)
        for at, one in history.of(_T.MODEL_RELEASED)
        if at < index and one.scope in scopes and one.pub["model"] == request.model
    ]
    tier = [at for at, one in releases if one.pub["tier"] == request.tier]
    wrong = []
    if request.released is not None and request.released != bool(tier):
        wrong.append("released")
    if request.released_at is not None and not (tier and _at(history, tier[0], request.released_at)):
        wrong.append("released_at")
    run = releases[0][1].run if releases else None
    if request.made_at is not None and releases and not _made(history, index, run, request.made_at):
        wrong.append("made_at")
    if releases:
        wrong += _recipe_digest(history, run, request.recipe_digest)
    wrong += _recipient(history, entry, request)
    # nothing in the log of this version says what a share is
    return wrong + (["contribution_share"] if request.contribution_share is not None else [])


def _recipient(history: History, entry: Entry, request: Deliver) -> list[str]:
    contract = history.contracts[entry.scope or ""]
    clause, wrong = contract.party(request.party), []
    if request.party == PUBLIC and request.country is not None:
        wrong.append("country")
    if clause is not None and request.country not in (None, clause.country):
        wrong.append("country")
    if request.attestation not in (None, "none"):
        notice = history.attested.get(contract.digest, {}).get(str(request.attestation))
        if notice is None or (notice.kind, notice.party) != ("attest", request.party):
            wrong.append("attestation")
    return wrong


def _query(history: History, index: int, entry: Entry, request: Query) -> list[str]:
    wrong = []
    if request.subject not in (None, "all", request.party):
        wrong.append("subject")
    if entry.run is None or history.grade != "auditor":
        return wrong
    if request.made_at is not None and not _closed_at(history, index, entry.run, request.made_at):
        wrong.append("made_at")
    return wrong


def _closed_at(history: History, index: int, run: str, said: str) -> bool:
    """Whether a round of a run was closed, or the run opened, at this time."""
    kinds = (_T.RUN_OPENED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED, _T.CANDIDATE_EVALUATED)
    return any(at < index and one.run == run and _at(history, at, said) for at, one in history.of(*kinds))


def _exit(history: History, _index: int, _entry: Entry, request: Exit) -> list[str]:
    """An exit is decided about a notice, whose entry may follow the decision."""
    known = [one for one in history.notices_of.values() if one.digest == request.notice]
    if not known:
        return []
    said = (request.party, request.notice_at, request.unreleased_models)
    return [] if said == (known[0].party, known[0].at, known[0].choice) else ["notice"]


def _join(history: History, _index: int, entry: Entry, request: Join) -> list[str]:
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
    envelope = history.signatures.get(new.digest)
    signed = set() if envelope is None else set(signers(new, envelope))
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
    Release: _release,
    Deliver: _deliver,
    Query: _query,
    Join: _join,
    Exit: _exit,
}
