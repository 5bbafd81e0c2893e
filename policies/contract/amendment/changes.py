# SPDX-License-Identifier: Apache-2.0
"""The semantic diff of two contracts: what is tighter, looser or another thing, by clause, in words.

- Fields are compared by the order table (`policies.contract.amendment.order_table`), never as text: the
  order of a list and the spelling of a number make no difference, because both sides are canonical.
- A clause that stands in a list is found again by its id; one that stands alone (``privacy``) by its place,
  so that a new id there is a change of the id and nothing else.
- `no_looser_by_order` is sound alone: it says yes only if *every* change is ``tighter``. What the table does
  not know is looser.
- Each change names whom it touches, so that a reader is shown first what is about its own party.

    for change in for_party(diff(old, new), "nord"):
        print(change.line)                       # dp-2 LOOSER epsilon_total 4 -> 6
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.amendment.order import Direction, Move, plain
from policies.contract.amendment.order_table import ADDED, OF_THE_DOCUMENT, ORDER, REMOVED
from policies.contract.clauses import (
    Contract,
    PartyClause,
    PrivacyCapClause,
    PurposeClause,
    RecipeClause,
    SecretClause,
    SeedClause,
    TierClause,
)
from policies.contract.grammar import Nullable, Rows, Rule, Struct, rules_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from policies.contract.clauses import Clause

__all__ = ["DOCUMENT", "Change", "diff", "for_party", "no_looser_by_order", "strays"]

Json = Any  # a JSON value

DOCUMENT: Final = "@document"  # the clause id of changes that belong to no clause
_WHOLE: Final = ""  # the field name of a clause that comes or goes
_RANK: Final[dict[Direction, int]] = {"looser": 0, "changed": 1, "tighter": 2, "text": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference.

    Attributes:
        clause: Id of the clause, of the old contract where it is in both; `DOCUMENT` outside all clauses.
        kind: Kind of the clause; ``contract`` outside all of them.
        field: Its field; empty where the whole clause comes or goes.
        direction: ``tighter``, ``looser``, ``changed`` (cannot be compared) or ``text`` (words for people).
        before: JSON of the old value, or of what is gone from a set; None for a new clause.
        after: JSON of the new value, or of what is new in a set; None for a clause that is gone.
        words: For people, without clause and direction.
        touches: Short names of the parties whom it is about, sorted.
    """

    clause: str
    kind: str
    field: str
    direction: Direction
    before: Json
    after: Json
    words: str
    touches: tuple[str, ...]

    @property
    def line(self) -> str:
        """The change in one line."""
        return f"{self.clause} {self.direction.upper()} {self.words}"

    @property
    def judged(self) -> bool:
        """Whether `evaluate` looks at what changed, so that a proof over requests covers it."""
        rows = ORDER.get(self.kind, {})
        if self.field == _WHOLE:  # all of it, apart from where it is judged
            return bool(rows) and all(row.judged for name, row in rows.items() if name != "enforced_by")
        return self.field in rows and rows[self.field].judged

    def to_json(self) -> dict[str, Json]:
        """The change as a verdict holds it."""
        return {
            "clause": self.clause,
            "kind": self.kind,
            "field": self.field,
            "direction": self.direction,
            "before": self.before,
            "after": self.after,
            "words": self.words,
            "touches": list(self.touches),
        }


def diff(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Every difference of two contracts: looser first, text last, then by clause and field."""
    before, after = _by_place(old), _by_place(new)
    found: list[Change] = []
    for place in [*before, *(one for one in after if one not in before)]:
        found.extend(_of_one_place(old, new, before.get(place), after.get(place)))
    found.sort(key=lambda one: (_RANK[one.direction], one.clause, one.field, one.words))
    return tuple(found)


def no_looser_by_order(old: Contract, new: Contract) -> bool:
    """Whether the order table alone shows that the new contract allows nothing that the old one refuses."""
    return not strays(diff(old, new))


def strays(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes that are not tighter, without those that every successor has."""
    return tuple(
        one
        for one in changes
        if one.direction != "tighter" and not (one.clause == DOCUMENT and one.field in OF_THE_DOCUMENT)
    )


def for_party(changes: Iterable[Change], party: str) -> tuple[Change, ...]:
    """The changes in the order in which this party should read them.

    1. what is about few parties, this one among them;
    2. what is about all;
    3. what is about others;
    4. text, whomever it is about.
    Within each: looser, changed, tighter.
    """
    listed = tuple(changes)
    widest = max((len(one.touches) for one in listed), default=0)

    def place(one: Change) -> tuple[int, int, str, str]:
        near = 2 if party not in one.touches else 1 if len(one.touches) == widest else 0
        own = 3 if one.direction == "text" else near
        return (own, _RANK[one.direction], one.clause, one.field)

    return tuple(sorted(listed, key=place))


# --- the clauses of a document, each as a flat object, by where it stands ---

_Place = tuple[str, str]
_Found = tuple[str, "dict[str, Json]"]


def _by_place(contract: Contract) -> dict[_Place, _Found]:
    return dict(_walk(Contract, contract.document, alone=True))


def _walk(kind: type, tree: Mapping[str, Json], *, alone: bool) -> Iterator[tuple[_Place, _Found]]:
    """The object and every clause below it."""
    own: dict[str, Json] = {}
    below: list[tuple[type, Json, bool]] = []
    for key, rule in rules_of(kind).items():
        inner = _clause_of(rule)
        if inner is None:
            own.update(_flat(key, rule, tree[key]))
        elif tree[key] is not None:
            rows = tree[key] if isinstance(tree[key], list) else [tree[key]]
            below.extend((inner, row, not isinstance(tree[key], list)) for row in rows)
    name: str = kind.KIND  # type: ignore[attr-defined]
    yield (name, "" if alone else tree["clause"]), (name, own)
    for inner, row, single in below:
        yield from _walk(inner, row, alone=single)


def _clause_of(rule: Rule) -> type | None:
    """The clause class below a rule, if there is one; other objects are values of their field."""
    if isinstance(rule, Nullable):
        return _clause_of(rule.of)
    inner = rule.of if isinstance(rule, Struct | Rows) else None
    return inner if inner is not None and hasattr(inner, "KIND") else None


def _flat(key: str, rule: Rule, value: Json) -> dict[str, Json]:
    if isinstance(rule, Struct):
        return {f"{key}.{name}": value[name] for name in rules_of(rule.of)}
    return {key: value}


# --- the differences of one place ---


def _of_one_place(
    old: Contract, new: Contract, before: _Found | None, after: _Found | None
) -> Iterator[Change]:
    if before is None or after is None:
        yield _whole(old, new, before, after)
        return
    kind, was = before
    _, became = after
    clause = str(was.get("clause", DOCUMENT))
    for field in was:
        for move in _moves(kind, field, was[field], became[field]):
            yield Change(
                clause=clause,
                kind=kind,
                field=field,
                direction=move.direction,
                before=move.before,
                after=move.after,
                words=f"{field} {move.words}",
                touches=_touched(old, new, clause, str(became.get("clause", DOCUMENT)), field, move),
            )


def _moves(kind: str, field: str, before: Json, after: Json) -> Iterator[Move]:
    row = ORDER.get(kind, {}).get(field)
    if row is not None:
        yield from row.moves(before, after)
    elif before != after:  # a field without a direction
        words = f"{plain(before)} -> {plain(after)}"
        yield Move(direction="looser", before=before, after=after, words=words)


def _whole(old: Contract, new: Contract, before: _Found | None, after: _Found | None) -> Change:
    kind, tree = before or after or ("", {})
    table = REMOVED if after is None else ADDED
    clause = str(tree["clause"])
    words = "removed" if after is None else "added"
    move = Move(direction=table.get(kind, "looser"), before=None, after=None, words=words)
    return Change(
        clause=clause,
        kind=kind,
        field=_WHOLE,
        direction=move.direction,
        before=None if before is None else tree,
        after=None if after is None else tree,
        words=move.words,
        touches=_touched(old, new, clause, clause, _WHOLE, move),
    )


# --- whom a change is about ---


def _touched(  # noqa: PLR0917  two contracts, two ids
    old: Contract, new: Contract, old_id: str, new_id: str, field: str, move: Move
) -> tuple[str, ...]:
    """Parties of a clause's change, sorted: of its rows where rows came or went, else of the clause."""
    rows = [one for one in (*_listed(move.before), *_listed(move.after)) if isinstance(one, dict)]
    owners = {str(one["party"]) for one in rows if "party" in one}
    if field == "datasets" and owners:
        return tuple(sorted(owners))
    about: set[str] = set()
    for contract, clause_id in ((old, old_id), (new, new_id)):
        clause = contract.clause(clause_id)
        if clause is not None:
            about |= _about(contract, clause)
    if about:
        return tuple(sorted(about))
    return tuple(sorted({one.party for contract in (old, new) for one in contract.parties}))


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _about(contract: Contract, clause: Clause) -> set[str]:
    """Parties that a clause is about; empty for a clause that is about all."""
    if isinstance(clause, PartyClause | PrivacyCapClause | SecretClause):
        return {clause.party}
    if isinstance(clause, RecipeClause):
        return set(clause.participants)
    if isinstance(clause, PurposeClause):
        return {name for one in contract.recipes if one.purpose == clause.id for name in one.participants}
    if isinstance(clause, SeedClause):
        return {one.party for one in clause.donations} | _participants(contract, clause.recipe)
    if isinstance(clause, TierClause) and clause.tier in ("participant", "private"):
        return _participants(contract, clause.recipe)
    return set()


def _participants(contract: Contract, recipe: str) -> set[str]:
    return {name for one in contract.recipes if one.id == recipe for name in one.participants}
