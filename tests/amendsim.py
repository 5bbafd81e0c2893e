# SPDX-License-Identifier: Apache-2.0
"""Successors of the contract of `tests.contractsim`: single edits with their direction, and random requests about them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from hypothesis import strategies as st

from policies.contract import Contract, ContractState, EpsilonAfter, PlanFacts, Request, from_tree
from policies.contract.amendment.vocabulary import vocabulary
from policies.contract.errors import ContractInvalidError
from tests.contractsim import CONSENT, SEED, STATE, allowed, authored, contract, key

Tree = dict[str, Any]
LOOSER, TIGHTER, OTHER = "looser", "tighter", "other"
DIGEST = "sha256:" + "7" * 64


@dataclass(frozen=True)
class Edit:
    """One change of the authored tree. `way` is what the order table must say about it, taken alone."""

    name: str
    way: str
    apply: Callable[[Tree], None]


def _set(path: str, value: Any) -> Callable[[Tree], None]:
    *above, last = path.split(".")

    def apply(tree: Tree) -> None:
        here: Any = tree
        for step in above:
            here = here[int(step)] if step.isdigit() else here[step]
        if isinstance(here, list):
            here[int(last)] = copy.deepcopy(value)
        else:
            here[last] = copy.deepcopy(value)

    return apply


def _drop(path: str) -> Callable[[Tree], None]:
    *above, last = path.split(".")

    def apply(tree: Tree) -> None:
        here: Any = tree
        for step in above:
            here = here[int(step)] if step.isdigit() else here[step]
        if isinstance(here, list):
            del here[int(last)]
        else:
            here.pop(last)

    return apply


def _add(path: str, value: Any) -> Callable[[Tree], None]:
    def apply(tree: Tree) -> None:
        here: Any = tree
        for step in path.split("."):
            here = here[int(step)] if step.isdigit() else here.setdefault(step, [])
        here.append(copy.deepcopy(value))

    return apply


def _both(*parts: Callable[[Tree], None]) -> Callable[[Tree], None]:
    def apply(tree: Tree) -> None:
        for one in parts:
            one(tree)

    return apply


# Indices are those of the authored tree: parties kita nord iber hanbit broker audit; recipes pick weld;
# per_party nord hanbit; tiers open consortium participant private.
LOOSENINGS = (
    Edit("nord's total cap is raised", LOOSER, _set("privacy.per_party.0.epsilon_total", "6")),
    Edit("hanbit's release cap is gone", LOOSER, _drop("privacy.per_party.1.epsilon_per_release")),
    Edit("the common caps are raised", LOOSER, _set("privacy.epsilon_total", "9")),
    Edit("a field is added", LOOSER, _add("fields.allow", "wire_speed")),
    Edit("the term is longer", LOOSER, _set("term.expires", "2029-12-01T00:00:00Z")),
    Edit("fewer parties suffice", LOOSER, _set("aggregation.min_parties", 2)),
    Edit("one group may dominate", LOOSER, _set("aggregation.max_share", "0.61")),
    Edit("updates may be larger", LOOSER, _set("aggregation.update_norm_max", "11")),
    Edit("outputs are fresher", LOOSER, _set("aggregation.delay_hours", 1)),
    Edit("the differencing guard is off", LOOSER, _set("aggregation.differencing_guard", "off")),
    Edit("more rounds", LOOSER, _set("recipes.0.max_rounds", 201)),
    Edit("more local steps", LOOSER, _set("recipes.1.max_local_steps_per_round", 21)),
    Edit(
        "a data set is added",
        LOOSER,
        _add("recipes.1.datasets", {"party": "hanbit", "dataset": "hanbit/weld"}),
    ),
    Edit("the quorum is lower", LOOSER, _set("validation.quorum", "0.5")),
    Edit("more rejected rounds", LOOSER, _set("validation.max_rejected_rounds", 4)),
    Edit("validation is gone", LOOSER, _drop("validation")),
    Edit("fewer groups behind a number", LOOSER, _set("queries.min_groups", 2)),
    Edit("fewer approvals", LOOSER, _set("release.approvals.min", 2)),
    Edit("a veto is gone", LOOSER, _set("release.approvals.veto", ["secret-1", "secret-2"])),
    Edit(
        "evidence is gone",
        LOOSER,
        _set("release.evidence", ["canary-report", "membership-inference-report", "property-leak-report"]),
    ),
    Edit("a worse report passes", LOOSER, _set("release.max_mia_auc", "0.7")),
    Edit("the embargo is shorter", LOOSER, _set("tiers.0.embargo_days", 90)),
    Edit("the embargo is gone", LOOSER, _drop("tiers.0.embargo_days")),
    Edit("less contribution is enough", LOOSER, _set("tiers.1.min_contribution", "0.01")),
    Edit("fewer witnesses", LOOSER, _set("audit.witness_quorum", 2)),
    Edit("the audit is gone", LOOSER, _drop("audit")),
    Edit("a country is free", LOOSER, _set("export_control.embargoed", ["BY", "IR", "KP", "RU"])),
    Edit("the export clause is gone", LOOSER, _drop("export_control")),
    Edit(
        "nord's secret is gone",
        LOOSER,
        _both(_drop("fields.trade_secret.0"), _set("release.approvals.veto", ["dp-2", "secret-2"])),
    ),
    Edit("a use is free", LOOSER, _drop("forbidden.1")),
    Edit("training outside recipes is free", LOOSER, _drop("forbidden.4")),
    Edit("military use is free", LOOSER, _drop("forbidden.5")),
    Edit("property leaks are free", LOOSER, _drop("forbidden.3")),
    Edit(
        "nord's caps are gone",
        LOOSER,
        _both(_drop("privacy.per_party.0"), _set("release.approvals.veto", ["secret-1"])),
    ),
    Edit("fewer may halt", LOOSER, _set("halt.who", ["any-contributor"])),
)
TIGHTENINGS = (
    Edit("nord's total cap is lowered", TIGHTER, _set("privacy.per_party.0.epsilon_total", "3")),
    Edit(
        "a cap for iber",
        TIGHTER,
        _add("privacy.per_party", {"clause": "dp-4", "party": "iber", "epsilon_total": "5"}),
    ),
    Edit("the common total cap is lowered", TIGHTER, _set("privacy.epsilon_total", "7")),
    Edit("a field is struck", TIGHTER, _set("fields.allow", ["tcp_pos", "gripper_width", "object_pos"])),
    Edit("the term is shorter", TIGHTER, _set("term.expires", "2028-06-01T00:00:00Z")),
    Edit("the term begins later", TIGHTER, _set("term.effective", "2027-01-01T00:00:00Z")),
    Edit("no group dominates", TIGHTER, _set("aggregation.max_share", "0.40")),
    Edit("updates are smaller", TIGHTER, _set("aggregation.update_norm_max", "5")),
    Edit("outputs are older", TIGHTER, _set("aggregation.delay_hours", 48)),
    Edit("the differencing guard binds all", TIGHTER, _set("aggregation.differencing_guard", "all")),
    Edit("one may collude", TIGHTER, _set("aggregation.max_colluders", 1)),
    Edit("fewer rounds", TIGHTER, _set("recipes.0.max_rounds", 199)),
    Edit("fewer local steps", TIGHTER, _set("recipes.1.max_local_steps_per_round", 19)),
    Edit("a data set is struck", TIGHTER, _drop("recipes.0.datasets.0")),
    Edit("the quorum is higher", TIGHTER, _set("validation.quorum", "0.75")),
    Edit("fewer rejected rounds", TIGHTER, _set("validation.max_rejected_rounds", 2)),
    Edit("more groups behind a number", TIGHTER, _set("queries.min_groups", 4)),
    Edit(
        "a view is struck",
        TIGHTER,
        _set("queries.allow", ["own-budget", "own-receipts", "own-share", "run-status"]),
    ),
    Edit("queries are gone", TIGHTER, _drop("queries")),
    Edit("more approvals", TIGHTER, _set("release.approvals.min", 4)),
    Edit("another veto", TIGHTER, _set("release.approvals.veto", ["dp-2", "dp-3", "secret-1", "secret-2"])),
    Edit("more evidence", TIGHTER, _add("release.evidence", "model-card")),
    Edit("better reports only", TIGHTER, _set("release.max_property_skill", "0.2")),
    Edit("the embargo is longer", TIGHTER, _set("tiers.0.embargo_days", 365)),
    Edit("another embargo", TIGHTER, _set("tiers.1.embargo_days", 30)),
    Edit("more contribution is needed", TIGHTER, _set("tiers.1.min_contribution", "0.03")),
    Edit("more witnesses", TIGHTER, _set("audit.witness_quorum", 4)),
    Edit("a country is closed", TIGHTER, _add("export_control.embargoed", "JP")),
    Edit(
        "another secret",
        TIGHTER,
        _add(
            "fields.trade_secret",
            {"clause": "secret-3", "party": "iber", "fields": ["x_part"], "basis": "LSE 1"},
        ),
    ),
    Edit(
        "more of nord is secret", TIGHTER, _set("fields.trade_secret.0.fields", ["x_seam_program", "x_wire"])
    ),
    Edit(
        "another forbidden use",
        TIGHTER,
        _add("forbidden", {"clause": "forbid-7", "use": "train-others", "check": "recipe-digest"}),
    ),
    Edit("the open tier is gone", TIGHTER, _drop("tiers.0")),
    Edit("all sign a tightening", TIGHTER, _set("amendment.tighten", "all-contributors")),
    Edit("all sign a new key", TIGHTER, _set("amendment.key_rotation", "all-contributors")),
)
OTHERS = (
    Edit("another unit", OTHER, _set("privacy.unit", "work-piece")),
    Edit("another adjacency", OTHER, _set("privacy.adjacency", "add-remove")),
    Edit("another delta", OTHER, _set("privacy.delta", "1e-6")),
    Edit("answers in slots", OTHER, _set("privacy.reply_slot_ms", 500)),
    Edit("no group MAC", OTHER, _set("aggregation.group_mac", "off")),
    Edit(
        "no secure aggregation",
        OTHER,
        _both(_set("aggregation.secure_aggregation", "off"), _set("aggregation.group_mac", "off")),
    ),
    Edit(
        "fixed weights",
        OTHER,
        _both(
            _set("aggregation.weights", "fixed"),
            _set(
                "aggregation.fixed_weights",
                [
                    {"party": name, "weight": weight}
                    for name, weight in (("hanbit", "1"), ("iber", "2"), ("kita", "1.5"), ("nord", "0.7"))
                ],
            ),
        ),
    ),
    Edit("another recipe", OTHER, _set("recipes.0.recipe_digest", DIGEST)),
    Edit("another purpose", OTHER, _set("recipes.0.purpose", "safety-monitoring")),
    Edit("another key", OTHER, _set("parties.0.key", key("somebody else"))),
    Edit("another group", OTHER, _set("parties.3.group", "nord")),
    Edit("a recipe is gone", OTHER, _both(_drop("recipes.1"), _drop("seed_sets"), _drop("tiers.2"))),
    Edit("a new id", OTHER, _set("halt.clause", "halt-9")),
    Edit("another country", OTHER, _set("parties.0.country", "US")),
    Edit("another name", OTHER, _set("parties.0.legal_name", "Kita Holding KK")),
    Edit("another log", OTHER, _set("audit.log_origin", "elsewhere.example/log")),
    Edit("another seed set", OTHER, _set("seed_sets.0.seed_set", DIGEST)),
    Edit("no seed set", OTHER, _drop("seed_sets")),
    Edit(
        "a seed set for picking",
        OTHER,
        _add(
            "seed_sets",
            {
                "clause": "seed-2",
                "recipe": "pick",
                "seed_set": SEED,
                "donations": [
                    {"party": "kita", "dataset": "kita/open", "consent": CONSENT, "licence": "CC0"}
                ],
            },
        ),
    ),
    Edit("another choice at exit", OTHER, _set("exit.unreleased_models", "leaver-chooses")),
    Edit("another forbidden check", OTHER, _set("forbidden.5.check", "canary")),
    Edit(
        "no privacy",
        OTHER,
        _both(
            _set("privacy", {"clause": "dp-1", "mode": "none"}), _set("release.approvals.veto", ["secret-1"])
        ),
    ),
)
EDITS = (*LOOSENINGS, *TIGHTENINGS, *OTHERS)


def edited(edits: Iterable[Edit], *, follows: Contract | None = None) -> Contract | None:
    """The contract with these edits, as the successor of another one; None where they do not fit together."""
    tree = authored()
    if follows is not None:
        tree["version"], tree["supersedes"] = follows.version + 1, follows.digest
    try:
        for one in edits:
            one.apply(tree)
        return from_tree(tree)
    except (ContractInvalidError, KeyError, IndexError):
        return None


def successor(*edits: Edit) -> Contract:
    """The successor of the contract with these edits."""
    made = edited(edits, follows=contract())
    assert made is not None, [one.name for one in edits]
    return made


def named(name: str) -> Edit:
    """The edit of a name."""
    return next(one for one in EDITS if one.name == name)


# --- requests around the border between allowed and refused ---

TIMES = (
    "2026-12-01T00:00:00Z", "2026-12-30T00:00:00Z", "2027-01-10T00:00:00Z", "2027-12-01T00:00:00Z", "2027-12-01T12:00:00Z",
    "2027-12-02T00:00:00Z", "2028-06-15T00:00:00Z", "2028-12-01T00:00:00Z", "2029-01-01T00:00:00Z", "no time", None,
)  # fmt: skip
DECIMALS = (
    "0", "0.00001", "1e-5", "0.01", "0.015", "0.02", "0.2", "0.25", "0.5", "0.65", "0.68", "1", "1.5", "2", "3.5", "4", "5", "6",
    "7.5", "8", "8.5", "10", "10.5", "12", "nonsense", None,
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 4, 7, 19, 20, 21, 199, 200, 201, 500, None)
_DECIMAL_FACTS = {
    "contribution_share",
    "delta",
    "epsilon_after_release",
    "epsilon_after_total",
    "mia_auc",
    "norm_bound",
    "property_skill",
}
_TIME_FACTS = {"made_at", "notice_at", "now", "released_at"}


def facts_of(kind: type, words: Mapping[str, tuple[str, ...]]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for each fact of a request type or of the state."""
    return {one.name: _values(one.name, str(one.type), words) for one in fields(kind)}


def _values(name: str, kind: str, words: Mapping[str, tuple[str, ...]]) -> st.SearchStrategy[Any]:
    plain = {
        "int | None": NUMBERS,
        "bool | None": (True, False, None),
        "str | None": DECIMALS
        if name in _DECIMAL_FACTS
        else TIMES
        if name in _TIME_FACTS
        else (*words.get(name, ()), None),
    }
    if kind in plain:
        return st.sampled_from(plain[kind])
    if kind == "PlanFacts | None":
        parts = {part.name: _values(part.name, str(part.type), words) for part in fields(PlanFacts)}
        return st.none() | st.builds(PlanFacts, **parts)
    found = st.sampled_from(words["party"] if name == "weights" else words[name])
    sets = st.lists(found, max_size=6, unique=True).map(tuple)
    if kind == "tuple[str, ...] | None":
        return st.none() | sets
    if kind == "tuple[tuple[str, ...], ...] | None":
        return st.none() | st.lists(sets, max_size=1).map(tuple)
    return st.none() | st.dictionaries(
        st.sampled_from(words["party"]), _entries(name, kind, found), max_size=6
    )


def _entries(name: str, kind: str, found: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    if name == "weights":
        return st.sampled_from(["0", "0.25", "0.7", "1", "1.5", "2", "9"])
    if kind == "Mapping[str, bool] | None":
        return st.booleans()
    if kind == "Mapping[str, EpsilonAfter] | None":
        return st.builds(EpsilonAfter, release=st.sampled_from(DECIMALS), total=st.sampled_from(DECIMALS))
    return found


def near(words: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[Request, ContractState]]:
    """Every request of the sim with one fact of it, or of the state, changed to each of its other values."""
    for request in allowed().values():
        yield request, STATE
        for name, kind in _facts(type(request)):
            for value in _others(name, kind, getattr(request, name), words):
                yield replace(request, **{name: value}), STATE
        for name, kind in _facts(ContractState):
            for value in _others(name, kind, getattr(STATE, name), words):
                yield request, replace(STATE, **{name: value})


def _facts(kind: type) -> list[tuple[str, str]]:
    return [(one.name, str(one.type)) for one in fields(kind)]


def _others(name: str, kind: str, value: Any, words: Mapping[str, tuple[str, ...]]) -> Iterator[Any]:
    yield None
    if kind == "PlanFacts | None":
        for part, of in _facts(PlanFacts):
            yield from (
                replace(value, **{part: other}) for other in _others(part, of, getattr(value, part), words)
            )
    elif name in _DECIMAL_FACTS or name in _TIME_FACTS or kind in ("int | None", "bool | None"):
        listed = (
            DECIMALS
            if name in _DECIMAL_FACTS
            else TIMES
            if name in _TIME_FACTS
            else NUMBERS
            if kind == "int | None"
            else (True, False)
        )
        yield from listed
    elif kind == "str | None":
        yield from words[name]
    elif kind == "tuple[str, ...] | None":
        yield from (tuple(one for one in value if one != gone) for gone in value)
        yield from ((*value, new) for new in words[name] if new not in value)
        yield from itertools.combinations(value, 2)
    elif kind == "tuple[tuple[str, ...], ...] | None":
        cohort = words["party"][:4]
        yield from ((some,) for size in range(1, 5) for some in itertools.combinations(cohort, size))
    else:
        yield from _other_maps(name, kind, value, words)


def _other_maps(
    name: str, kind: str, value: Mapping[str, Any], words: Mapping[str, tuple[str, ...]]
) -> Iterator[dict[str, Any]]:
    yield {}
    yield from ({who: one for who, one in value.items() if who != gone} for gone in value)
    yield from ({who: value[who] for who in some} for some in itertools.combinations(value, 2))
    for who in words["party"]:
        if kind == "Mapping[str, EpsilonAfter] | None":
            yield from ({**value, who: EpsilonAfter(release=one, total="3")} for one in DECIMALS)
            yield from ({**value, who: EpsilonAfter(release="1", total=one)} for one in DECIMALS)
        elif kind == "Mapping[str, bool] | None":
            yield {**value, who: False}
            yield {**value, who: False, "nord": False}
        elif name == "weights":
            yield from ({**value, who: one} for one in ("0", "0.3", "2", "x"))
        else:
            yield from ({**value, who: one} for one in words[name])


@st.composite
def asked(draw: st.DrawFn, *contracts: Contract, most: int = 3) -> tuple[Request, ContractState]:
    """A request of the sim with up to `most` facts changed, or one whose facts are all drawn."""
    words = vocabulary(*contracts)
    request: Request = draw(st.sampled_from(list(allowed().values())))
    state = STATE
    if request.TYPE == "Join":
        own = contracts[-1]
        request = replace(request, supersedes=own.digest, version=own.version + 1)
    if draw(st.integers(0, 9)) == 0:
        kind = draw(st.sampled_from(get_args(Request)))
        request = kind(**{name: draw(how) for name, how in facts_of(kind, words).items()})
    about = facts_of(type(request), words)
    for name in draw(st.lists(st.sampled_from(sorted(about)), max_size=most, unique=True)):
        request = replace(request, **{name: draw(about[name])})
    known = facts_of(ContractState, words)
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=1)):
        state = replace(state, **{name: draw(known[name])})
    return request, state
