# SPDX-License-Identifier: Apache-2.0
"""Is there a request that the successor allows and the predecessor refuses? z3 searches, `evaluate` confirms.

For each request type:
1. every fact becomes a typed variable, known or not (`policies.contract.amendment.symbols`);
2. *allowed by the successor* is the conjunction of all its checks (`policies.contract.amendment.formulas`);
3. a check of the predecessor that is one of those, as an expression, is implied and needs no question;
4. for each clause of the predecessor that has others, one question: can the successor allow a request in
   which one of them is not satisfied? ``unsat`` for all of them is the proof;
5. a model is read back into a request, one in which every fact is known if there is one, and **replayed**:
   only if `evaluate` allows it under the successor and refuses it by that clause under the predecessor is it
   a witness. What does not replay is *not proven*.

The conflict clause is not asked about: it refuses what another clause leaves open, and whatever is open is
not satisfied there. No answer within `PROOF_S` seconds is no proof either, and after `PROOF_TIMEOUTS` of them
nothing more is asked. A clause of a kind that code enforces and that has no formula is not proven.

This module needs z3 (extra ``prove``) and is imported by `policies.contract.amendment` only.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

import z3

from policies.contract.amendment.formulas import FORMULA_KINDS, terms_of
from policies.contract.amendment.symbols import Symbols
from policies.contract.amendment.terms import View
from policies.contract.amendment.verdict import Witness
from policies.contract.amendment.vocabulary import vocabulary
from policies.contract.registry import KINDS
from policies.contract.requests import Request
from policies.limits import PROOF_S, PROOF_TIMEOUTS

if TYPE_CHECKING:
    from policies.contract.clauses import Contract

__all__ = ["REQUEST_TYPES", "Search", "search", "version"]

REQUEST_TYPES: Final[tuple[type[Request], ...]] = get_args(Request)
_ONE_PROOF = threading.Lock()  # z3's expressions live in one context of the process, which takes one thread


def version() -> str:
    """Of the prover."""
    return str(z3.get_version_string())


@dataclass(slots=True)
class Search:
    """What was found.

    Attributes:
        witnesses: Replayed requests, one for each clause and request type that is looser.
        open: Clauses of the predecessor about which nothing could be shown, with the reason.
        timeouts: Questions without an answer.
    """

    witnesses: list[Witness] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)
    timeouts: int = 0


def search(old: Contract, new: Contract) -> Search:
    """Looks for requests that the new contract allows and the old one refuses."""
    found = Search()
    for clause in old.clauses():
        if KINDS[clause.KIND].points and clause.KIND not in FORMULA_KINDS:
            found.open[clause.clause] = f"no formula for clauses of kind {clause.KIND}"
    words = vocabulary(old, new)
    with _ONE_PROOF:
        for kind in REQUEST_TYPES:
            _search_type(old, new, Symbols(kind, words), found)
    return found


def _search_type(old: Contract, new: Contract, symbols: Symbols, found: Search) -> None:
    # 1. and 2. any request that the successor allows
    allowed = [one.ok for one in terms_of(View(new, symbols, meant=new))]
    # 3. what is left of the predecessor's checks
    implied = {one.get_id() for one in allowed}
    against: dict[str, list[z3.BoolRef]] = defaultdict(list)
    for one in terms_of(View(old, symbols, meant=new)):
        if one.clause != old.conflict.clause and one.ok.get_id() not in implied:
            against[one.clause].append(z3.Not(one.ok))
    if not against:
        return
    # 4. one question per clause
    solver = z3.Solver()
    solver.set("timeout", int(PROOF_S * 1000))
    solver.set("random_seed", 0)
    solver.add(symbols.bounds())
    solver.add(allowed)
    for clause in sorted(against):
        _search_clause(old, new, clause, against[clause], _Place(solver, symbols), found)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a question is asked."""

    solver: z3.Solver
    symbols: Symbols


def _search_clause(  # noqa: PLR0917  two contracts, one of their clauses
    old: Contract, new: Contract, clause: str, refused: list[z3.BoolRef], place: _Place, found: Search
) -> None:
    """Asks about one clause, unless one request has told enough about it."""
    name = place.symbols.kind.TYPE
    if any(one.clause == clause for one in found.witnesses):
        return
    if found.timeouts >= PROOF_TIMEOUTS:
        found.open.setdefault(
            clause, f"{name}: not asked, after {found.timeouts} questions without an answer"
        )
        return
    answer, model = _ask(place, refused)
    if answer == z3.unknown:
        found.timeouts += 1
        found.open.setdefault(clause, f"{name}: no answer within {PROOF_S} s")
    if model is None:
        return
    # 5. replay
    request, state = place.symbols.read(model)
    witness = Witness(clause=clause, request=request, state=state)
    if witness.replays(old, new):
        found.witnesses.append(witness)
        found.open.pop(clause, None)
    else:
        found.open.setdefault(clause, f"{name}: a request was found that does not replay")


def _ask(place: _Place, refused: list[z3.BoolRef]) -> tuple[z3.CheckSatResult, z3.ModelRef | None]:
    """Whether one of these can hold, and where; where every fact is known, if that can be."""
    solver = place.solver
    solver.push()
    try:
        solver.add(z3.Or(refused))
        answer = solver.check()
        model = solver.model() if answer == z3.sat else None
        known = [one.known for one in place.symbols.facts().values()]
        if model is not None and solver.check(*known) == z3.sat:
            model = solver.model()
        return answer, model
    finally:
        solver.pop()
