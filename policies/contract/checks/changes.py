# SPDX-License-Identifier: Apache-2.0
"""Checks of how the contract changes and how somebody leaves: amendments and exits.

- A successor names this contract and the next version. ``tighten`` needs the proof that it allows nothing
  new; ``change`` needs every contributor that has not left. Signatures count before it takes *effect*, not
  before it is *opened*.
- Who is new comes in by ``change`` only, and somebody has vouched for its admission. No contributor belongs
  to the broker's group, and no key stands for two parties.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from policies.contract.case import Case, only_if
from policies.contract.findings import (
    Finding,
    digest_of,
    equal,
    flag,
    holds,
    inside,
    listed,
    moment_of,
    only,
    unknown,
)
from policies.contract.requests import Exit, Join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import AmendmentClause, ExitClause

__all__ = ["CHANGE", "CHOICES", "EFFECT", "OPEN", "TIGHTEN", "check_amendment", "check_exit"]

TIGHTEN: Final = "tighten"
CHANGE: Final = "change"
OPEN: Final = "open"
EFFECT: Final = "effect"
CHOICES: Final = {
    "retrain": ("retrain",),
    "discard": ("discard",),
    "leaver-chooses": ("discard", "retrain"),
}


def check_amendment(case: Case, clause: AmendmentClause) -> Iterator[Finding]:
    """Whether this successor may be opened, or take effect."""
    request, name = case.request, clause.clause
    if not isinstance(request, Join):
        return
    yield inside(name, "kind", "kind", request.kind, (CHANGE, TIGHTEN), remedy="name-the-kind")
    yield inside(name, "stage", "stage", request.stage, (EFFECT, OPEN), remedy="name-the-stage")
    own = case.contract.digest
    yield equal(name, "supersedes", "supersedes", request.supersedes, own, remedy="amend-this-contract")
    yield _version(case, request, name)
    proof = flag(name, "no-looser", "no_looser", request.no_looser, want=True, remedy="prove-or-change")
    yield from _only_by(TIGHTEN, request, proof)
    yield from _signatures(case, request, clause)
    nobody = only(name, "newcomers", "newcomers", request.newcomers, (), remedy="prove-or-change")
    yield from _only_by(TIGHTEN, request, nobody)
    yield _attested(request, name)
    yield _groups(case, request, name)
    yield _keys(request, name)


def _only_by(kind: str, request: Join, finding: Finding) -> Iterator[Finding]:
    applies = None if request.kind is None else request.kind == kind
    return only_if([finding], applies=applies, fact="kind", otherwise="another kind")


def _version(case: Case, request: Join, clause: str) -> Finding:
    want = case.contract.version + 1
    if request.version is None:
        return unknown(clause, "version", "version", need=f"= {want}")
    ok, found = request.version == want, str(request.version)
    return holds(clause, "version", ok=ok, need=f"= {want}", found=found, remedy="amend-this-contract")


def _signatures(case: Case, request: Join, clause: AmendmentClause) -> Iterator[Finding]:
    by_one = request.kind == TIGHTEN and clause.tighten == "any-contributor"
    facts = {"kind": request.kind, "signers": request.signers, "party": request.party}
    facts |= {} if by_one else {"exited_parties": case.state.exited_parties}
    need = "signed by the broker and " + ("who asks, a contributor" if by_one else "every contributor")
    missing = [name for name, value in facts.items() if value is None]
    short = _unsigned(case, request, by_one=by_one)
    if missing:
        found = unknown(clause.clause, "signatures", *missing, need=need)
    else:
        told = "not signed by " + listed(short) if short else "all"
        found = holds(clause.clause, "signatures", ok=not short, need=need, found=told, remedy="sign")
    applies = None if request.stage is None else request.stage != OPEN
    yield from only_if([found], applies=applies, fact="stage", otherwise="not yet")


def _unsigned(case: Case, request: Join, *, by_one: bool) -> set[str]:
    """Whose signature is missing; the broker never amends alone."""
    contributors = {one.party for one in case.contract.contributors}
    signers = set(request.signers or ())
    everybody = contributors.difference(case.state.exited_parties or ())
    wanted = {case.contract.broker.party, *([str(request.party)] if by_one else everybody)}
    return wanted - signers | (set() if contributors & signers else {"a contributor"})


def _attested(request: Join, clause: str) -> Finding:
    need = "an admission of each newcomer"
    if request.newcomers is None or request.attestations is None:
        missing = [name for name in ("attestations", "newcomers") if getattr(request, name) is None]
        return unknown(clause, "admissions", *missing, need=need)
    short = set(request.newcomers).difference(request.attestations)
    found = "none of " + listed(short) if short else "all"
    return holds(clause, "admissions", ok=not short, need=need, found=found, remedy="vouch-for-the-newcomer")


def _groups(case: Case, request: Join, clause: str) -> Finding:
    own = case.contract.broker.group
    need = f"no contributor of group {own}"
    if request.groups is None:
        return unknown(clause, "groups", "groups", need=need)
    inside_it = [name for name, group in request.groups.items() if group == own]
    found = listed(inside_it) or "none"
    return holds(clause, "groups", ok=not inside_it, need=need, found=found, remedy="keep-the-broker-apart")


def _keys(request: Join, clause: str) -> Finding:
    need = "a key of its own for each party"
    if request.keys is None:
        return unknown(clause, "keys", "keys", need=need)
    holders = Counter(request.keys.values())
    shared = [name for name, key in request.keys.items() if holders[key] > 1]
    found = listed(shared) or "all differ"
    return holds(clause, "keys", ok=not shared, need=need, found=found, remedy="make-another-key")


def check_exit(case: Case, clause: ExitClause) -> Iterator[Finding]:
    """The notice is there, is not from the future, and makes a choice that the contract offers."""
    request, name = case.request, clause.clause
    if not isinstance(request, Exit):
        return
    yield digest_of(name, "notice", "notice", request.notice, remedy="sign-a-notice")
    yield _noticed(case, request, name)
    yield inside(
        name,
        "choice",
        "unreleased_models",
        request.unreleased_models,
        CHOICES[clause.unreleased_models],
        remedy="choose-as-agreed",
    )


def _noticed(case: Case, request: Exit, clause: str) -> Finding:
    at, now, need = request.notice_at, case.state.now, "not after now"
    if at is None or now is None or moment_of(at) is None or moment_of(now) is None:
        missing = [name for name, value in (("notice_at", at), ("now", now)) if moment_of(value) is None]
        return unknown(clause, "notice-time", *missing, need=need)
    found = f"{at}, now {now}"
    return holds(clause, "notice-time", ok=at <= now, need=need, found=found, remedy="wait-for-the-time")
