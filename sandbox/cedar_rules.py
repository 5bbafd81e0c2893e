# SPDX-License-Identifier: Apache-2.0
"""What a contract says about training rounds, written in Cedar: the yardstick of `sandbox.bench_decide`.

One ``permit``, and one ``forbid ... unless`` for each check that `policies.contract.evaluate` runs for a
`TrainRound`, with the same clause and check in its ``@id``. Each guards every fact that it looks at by
``has``: without that, Cedar skips a policy whose fact is missing, and what is unknown is allowed.

What the language of Cedar cannot say is worked out before and handed over as a fact (`context`):
- how many independent groups a cohort has, and the largest share of one of them: Cedar does not count;
- epsilons, in millionths: its decimals have four fraction digits; deltas, as text;
- times, in seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from policies.contract.checks.document import IN_FORCE
from policies.contract.checks.parties import MAY_ASK
from policies.contract.checks.training import NO_SEED
from policies.contract.findings import decimal_of, moment_of
from policies.contract.registry import HIDING, PROTECTED_GROUPS
from policies.encoding import decimal_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from policies.contract.clauses import Contract, PrivacyClause, RecipeClause
    from policies.contract.requests import ContractState, TrainRound

__all__ = ["OUTSIDE", "Rule", "context", "policies", "rules"]

Json = Any  # a JSON value

OUTSIDE: Final = (
    "the number of groups in a cohort and the largest share of one (counted before)",
    "decimals with more than four fraction digits (handed over in millionths, or as text)",
    "times (handed over in seconds)",
    "what a finding says besides its clause and check: need, found, remedy",
)
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One check: the condition under which it does not forbid."""

    clause: str
    check: str
    unless: str

    @property
    def id(self) -> str:
        """Clause and check."""
        return f"{self.clause} {self.check}"


def policies(contract: Contract) -> str:
    """The Cedar text of a contract's rules about training rounds."""
    head = 'permit (principal, action == Action::"TrainRound", resource);'
    return "\n".join(
        [
            head,
            *(
                f"@id({_text(one.id)})\n"
                f'forbid (principal, action == Action::"TrainRound", resource) unless {{ {one.unless} }};'
                for one in rules(contract)
            ),
        ]
    )


def rules(contract: Contract) -> tuple[Rule, ...]:
    """One rule per check."""
    return (
        *_document(contract),
        *_parties(contract),
        *_recipes(contract),
        *_fields(contract),
        *_privacy(contract),
        *_pooling(contract),
    )


def _text(value: str) -> str:
    return json.dumps(value)


def _set(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(one) for one in sorted(values)) + "]"


def _has(*facts: str) -> str:
    return " && ".join(f"context has {one}" for one in facts)


def _is(fact: str, value: str) -> str:
    return f"{_has(fact)} && context.{fact} == {_text(value)}"


def _one_of(fact: str, values: Iterable[str]) -> str:
    return f"{_has(fact)} && {_set(values)}.contains(context.{fact})"


def _at_most(fact: str, most: int) -> str:
    return f"{_has(fact)} && context.{fact} <= {most}"


def _at_least(fact: str, least: int) -> str:
    return f"{_has(fact)} && context.{fact} >= {least}"


def _within(fact: str, most: int) -> str:
    return f"{_has(fact)} && context.{fact} >= 1 && context.{fact} <= {most}"


def _millionths(value: str) -> int:
    return int(Decimal(value) * _MILLION)


def _document(contract: Contract) -> Iterator[Rule]:
    yield Rule("@executed", "signed", f"{_has('executed')} && context.executed")
    yield Rule("@standing", "standing", _is("standing", IN_FORCE))
    yield Rule("@parties", "known", _one_of("party", (one.party for one in contract.parties)))
    listed = _one_of("recipe_digest", (one.recipe_digest for one in contract.recipes))
    uses = [one.clause for one in contract.forbidden if one.check == "recipe-digest"]
    for clause in uses or ["@recipes"]:
        yield Rule(clause, "listed", listed)
    halt, term = contract.halt.clause, contract.term
    yield Rule(halt, "not-halted", f"{_has('halted')} && !context.halted")
    yield Rule(term.clause, "not-before", _at_least("now_s", _seconds(term.effective)))
    yield Rule(term.clause, "not-after", f"{_has('now_s')} && context.now_s < {_seconds(term.expires)}")


def _seconds(time: str) -> int:
    return (moment_of(time) or 0) // 1000


def _parties(contract: Contract) -> Iterator[Rule]:
    for one in contract.parties:
        own = f"(!(context has party) || context.party != {_text(one.party)})"
        name, pinned = _text(one.party), _text(one.key)
        key = f"(if context.rotated_keys has {name} then context.rotated_keys[{name}] else {pinned})"
        in_force = f"{_has('rotated_keys', 'key')} && context.key == {key}"
        yield Rule(one.clause, "key", f"{own} || ({in_force})")
        yield Rule(one.clause, "role", own if one.role not in MAY_ASK["TrainRound"] else "true")
        stays = f"{_has('exited_parties')} && !context.exited_parties.contains({name})"
        yield Rule(one.clause, "not-exited", f"{own} || ({stays})")


def _under(digests: Iterable[str], condition: str) -> str:
    """The condition, if the request is under one of these recipes."""
    elsewhere = f"!{_set(digests)}.contains(context.recipe_digest)"
    return f"{_has('recipe_digest')} && ({elsewhere} || ({condition}))"


def _recipes(contract: Contract) -> Iterator[Rule]:
    for purpose in contract.purposes:
        own = [one.recipe_digest for one in contract.recipes if one.purpose == purpose.id]
        condition = _under(own, _is("purpose", purpose.id)) if own else _has("recipe_digest")
        yield Rule(purpose.clause, "purpose", condition)
    for recipe in contract.recipes:
        for check, condition in _of_recipe(contract, recipe):
            yield Rule(recipe.clause, check, _under([recipe.recipe_digest], condition))
    for seed in contract.seed_sets:
        under = [one.recipe_digest for one in contract.recipes if one.id == seed.recipe]
        consents = _set(one.consent for one in seed.donations)
        given = f"{_has('seed_consents')} && context.seed_consents.containsAll({consents})"
        yield Rule(seed.clause, "seed-set", _under(under, _is("seed_set", seed.seed_set)))
        yield Rule(seed.clause, "consents", _under(under, given))


def _of_recipe(contract: Contract, recipe: RecipeClause) -> Iterator[tuple[str, str]]:
    own = " || ".join(
        f"(context.party == {_text(one)} && {_set(recipe.datasets_of(one))}.contains(context.dataset))"
        for one in recipe.participants
    )
    yield "dataset", f"{_has('party', 'dataset')} && ({own})"
    yield "local-steps", _within("local_steps", recipe.max_local_steps_per_round)
    yield "rounds", _within("round", recipe.max_rounds)
    yield "participants", f"{_has('cohort')} && {_set(recipe.participants)}.containsAll(context.cohort)"
    if recipe.id not in contract.index.seeded:
        yield "seed-set", _is("seed_set", NO_SEED)


def _fields(contract: Contract) -> Iterator[Rule]:
    clause = contract.fields
    known = _set({*clause.allow, *contract.index.secrets})
    some = f"{_has('fields')} && !context.fields.isEmpty()"
    yield Rule(clause.clause, "allow", f"{some} && {known}.containsAll(context.fields)")
    for secret in clause.trade_secret:
        unread = f"!context.fields.containsAny({_set(secret.fields)})"
        yield Rule(secret.clause, "secret", f"{_has('fields')} && {unread}")


def _privacy(contract: Contract) -> Iterator[Rule]:
    clause = contract.privacy
    yield Rule(clause.clause, "mode", _of_plan("mode", clause.mode))
    if clause.mode == "none":
        return
    for term in ("unit", "adjacency", "filter", "noise", "delta"):
        yield Rule(clause.clause, term, _of_plan(term, str(getattr(clause, term))))
    yield from _promises(contract, clause)
    yield from _caps(clause.clause, clause.epsilon_per_release, clause.epsilon_total)
    for cap in clause.per_party:
        other = f"!(context has party) || context.party != {_text(cap.party)}"
        for rule in _caps(cap.clause, cap.epsilon_per_release, cap.epsilon_total):
            yield Rule(rule.clause, rule.check, f"{other} || ({rule.unless})")


def _of_plan(term: str, want: str) -> str:
    held = f"{_has('privacy')} && context.privacy has {term}"
    return f"{held} && context.privacy.{term} == {_text(want)}"


def _promises(contract: Contract, clause: PrivacyClause) -> Iterator[Rule]:
    if clause.honest_min is not None:
        share = f"{_has('privacy')} && context.privacy has honest_min"
        yield Rule(clause.clause, "share", f"{share} && context.privacy.honest_min == {clause.honest_min}")
        least = clause.honest_min + contract.aggregation.max_colluders
        yield Rule(clause.clause, "honest-min", _at_least("groups", least))
    if clause.protected_properties:
        yield Rule(clause.clause, "protected-properties", _at_least("groups", PROTECTED_GROUPS))
    if clause.reply_slot_ms is not None:
        same = f"{_has('reply_slot_ms')} && context.reply_slot_ms == {clause.reply_slot_ms}"
        yield Rule(clause.clause, "reply-slot", same)


def _caps(clause: str, release: str | None, total: str | None) -> Iterator[Rule]:
    for part, cap in (("release", release), ("total", total)):
        if cap is not None:
            yield Rule(clause, f"epsilon-{part}", _at_most(f"epsilon_after_{part}", _millionths(cap)))


def _pooling(contract: Contract) -> Iterator[Rule]:
    clause, name = contract.aggregation, contract.aggregation.clause
    stayed = "!context.exited_parties.containsAny(context.cohort)"
    own = f"{_set(one.party for one in contract.contributors)}.containsAll(context.cohort)"
    yield Rule(name, "members", f"{_has('cohort', 'exited_parties')} && {own} && {stayed}")
    yield Rule(name, "min-parties", _at_least("groups", clause.min_parties))
    yield Rule(name, "colluders", _at_least("groups", clause.max_colluders + HIDING))
    yield Rule(name, "max-share", _at_most("share", _millionths(clause.max_share)))
    yield Rule(name, "secure-aggregation", _is("secure_aggregation", clause.secure_aggregation))
    yield Rule(name, "group-mac", _is("group_mac", clause.group_mac))


# --- facts ---


def context(contract: Contract, state: ContractState, request: TrainRound) -> dict[str, Json]:
    """The facts of a request and its state as Cedar is given them; what is not known is left out."""
    facts: dict[str, Json] = {
        "executed": state.executed,
        "standing": state.standing,
        "halted": state.halted,
        "exited_parties": state.exited_parties,
        "rotated_keys": state.rotated_keys,
        "now_s": _whole_seconds(state.now),
        "party": request.party,
        "key": request.key,
        "recipe_digest": request.recipe_digest,
        "purpose": request.purpose,
        "dataset": request.dataset,
        "fields": request.fields,
        "round": request.round,
        "local_steps": request.local_steps,
        "cohort": request.cohort,
        "privacy": _plan(request),
        "epsilon_after_release": _up(request.epsilon_after_release),
        "epsilon_after_total": _up(request.epsilon_after_total),
        "secure_aggregation": request.secure_aggregation,
        "group_mac": request.group_mac,
        "reply_slot_ms": request.reply_slot_ms,
        "seed_set": request.seed_set,
        "seed_consents": request.seed_consents,
    }
    if request.cohort is not None:
        facts["groups"], facts["share"] = _counted(contract, request.cohort)
    return {name: value for name, value in facts.items() if value is not None}


def _whole_seconds(time: str | None) -> int | None:
    found = moment_of(time)
    return None if found is None else found // 1000


def _up(value: str | None) -> int | None:
    number = decimal_of(value)
    return None if number is None else ceil(number * _MILLION)


def _plan(request: TrainRound) -> dict[str, Json] | None:
    plan = request.privacy
    if plan is None:
        return None
    delta = None if decimal_of(plan.delta) is None else decimal_text(str(plan.delta))
    facts = {
        "mode": plan.mode,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "filter": plan.filter,
        "noise": plan.noise,
        "honest_min": plan.honest_min,
        "delta": delta,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _counted(contract: Contract, cohort: tuple[str, ...]) -> tuple[int, int]:
    index = contract.index
    by_group: dict[str, int] = {}
    for name in set(cohort) & index.weights.keys():
        by_group[index.group_of[name]] = by_group.get(index.group_of[name], 0) + index.weights[name]
    if not by_group:
        return 0, 2 * _MILLION  # nobody has more than everything
    share = Fraction(max(by_group.values()), sum(by_group.values()))
    return len(by_group), ceil(share * _MILLION)
