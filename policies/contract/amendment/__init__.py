# SPDX-License-Identifier: Apache-2.0
"""May a successor enter as a tightening? Everybody answers for himself, from the two documents alone.

A ``change`` enters by the signatures of all contributors; nothing has to be proven for it. A ``tighten`` is
signed by its initiator and the broker only, so every node judges it before it uses it:

1. it follows the contract that is in force (`policies.contract.amendment.succession`);
2. it takes no entitlement from another party (`policies.contract.amendment.entitlements`);
3. it leaves alone what only people can judge: law-only clauses, words, and every field that no check looks
   at, unless the order table says ``tighter``;
4. it allows no request that its predecessor refuses. The order table shows that alone
   (`policies.contract.amendment.order`); where it does not, z3 searches for such a request
   (`policies.contract.amendment.refinement`). Without z3 the answer is `ProofMissingError`, never a yes.

The order of calls:

    verdict = judge_amendment(old, new, kind="tighten", initiator="kita")
    verdict.no_looser                      # what the evaluator's Join asks for
    verdict.digest                         # what the log names
    recheck(old, new, verdict.to_bytes())  # what every node does with the broker's verdict
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.amendment.changes import Change, diff, for_party, no_looser_by_order, strays
from policies.contract.amendment.entitlements import entitlements_kept
from policies.contract.amendment.succession import check_succession
from policies.contract.amendment.verdict import Objection, Verdict, Witness, read_verdict, read_witness
from policies.contract.errors import ProofMissingError, VerdictDisagreesError
from policies.contract.registry import KINDS, LAW

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.contract.amendment.refinement import Search
    from policies.contract.clauses import Contract

__all__ = [
    "Change",
    "Objection",
    "Verdict",
    "Witness",
    "diff",
    "entitlements_kept",
    "for_party",
    "judge_amendment",
    "no_looser_by_order",
    "prove",
    "proves",
    "recheck",
]

Json = Any  # a JSON value


def proves() -> bool:
    """Whether the prover is installed here (extra ``prove``)."""
    try:
        import z3  # noqa: F401  only whether it loads
    except ImportError:
        return False
    return True


def prove(old: Contract, new: Contract) -> Verdict:
    """Whether the new contract allows anything that the old one refuses, by search; entitlements aside.

    Args:
        old: Any contract.
        new: Any other; it need not be a successor.

    Raises:
        ProofMissingError: z3 is not installed.
    """
    changes = diff(old, new)
    objections = _beyond_proof(old, new, changes)
    return _searched(old, new, changes, objections, kind="change", initiator=None)


def judge_amendment(old: Contract, new: Contract, *, kind: str, initiator: str | None) -> Verdict:
    """The verdict about a successor, by the steps of the module's docstring.

    Args:
        old: The contract in force.
        new: Its successor.
        kind: ``tighten`` or ``change``. Of a change only the differences are told.
        initiator: Short name of the party that starts it.

    Raises:
        NotASuccessorError: Step 1.
        ProofMissingError: Step 4 needs z3, which is not installed. A refusal by an earlier step needs none.
    """
    # 1. it follows
    check_succession(old, new)
    changes = diff(old, new)
    if kind == "change":
        found = tuple(Objection(clause=one.clause, why="looser", words=one.words) for one in strays(changes))
        return _verdict(old, new, changes, found, kind=kind, initiator=initiator)
    # 2. entitlements, 3. what only people can judge
    objections = [*entitlements_kept(old, new, initiator), *_beyond_proof(old, new, changes)]
    # 4. no request more
    if not strays(changes) or (objections and not proves()):
        return _verdict(old, new, changes, objections, kind=kind, initiator=initiator)
    return _searched(old, new, changes, objections, kind=kind, initiator=initiator)


def recheck(old: Contract, new: Contract, data: bytes) -> Verdict:
    """Judges an amendment again and compares with somebody's verdict about it.

    1. the bytes are a verdict about these two contracts
    2. its witnesses replay
    3. the differences are the ones found here
    4. what it calls no looser is no looser here

    Args:
        old: The contract in force.
        new: Its successor.
        data: Canonical bytes of the verdict.

    Returns:
        The verdict of this site, with ``no_looser`` only if both say so. Two versions of z3 may find
        different witnesses, so bytes are not compared.

    Raises:
        VerdictMalformedError: Step 1.
        VerdictDisagreesError: About other contracts, or it does not hold here.
        NotASuccessorError: The new contract does not follow the old one.
        ProofMissingError: It rests on a proof, and z3 is not installed here.
    """
    # 1. a verdict about these
    tree = read_verdict(data)
    for key, contract in (("old", old), ("new", new)):
        if tree[key] != contract.digest:
            raise _disagrees(f"a verdict about {contract.digest}", str(tree[key]))
    # 2. witnesses
    for one in tree["witnesses"]:
        witness = read_witness(one)
        if not witness.replays(old, new):
            raise _disagrees("a witness that replays", f"{witness.request.TYPE}", clause=witness.clause)
    # 3. the same differences
    own = judge_amendment(old, new, kind=tree["kind"], initiator=tree["initiator"])
    if tree["changes"] != [one.to_json() for one in own.changes]:
        raise _disagrees(f"{len(own.changes)} differences as found here", f"{len(tree['changes'])} others")
    # 4. the same answer, or a more careful one
    if tree["no_looser"] and not own.no_looser:
        first = own.objections[0]
        raise _disagrees("no looser here as well", first.words, clause=first.clause)
    if own.no_looser and not tree["no_looser"]:
        told = Objection(clause="@document", why="not-proven", words="the verdict that was sent says looser")
        return _verdict(old, new, own.changes, [told], kind=own.kind, initiator=own.initiator)
    return own


def _beyond_proof(old: Contract, new: Contract, changes: Iterable[Change]) -> list[Objection]:
    """Changes that no proof over requests can excuse."""
    found = [
        Objection(clause=one.clause, why="law", words=f"{one.words}: only people enforce it")
        for one in changes
        if _only_law(old, one) or _only_law(new, one)
    ]
    for one in strays(changes):
        row = KINDS.get(one.kind)
        if row is None or row.law or not one.judged:
            found.append(Objection(clause=one.clause, why="looser", words=one.words))
    return found


def _only_law(contract: Contract, change: Change) -> bool:
    clause = contract.clause(change.clause)
    return clause is not None and clause.enforced_by == (LAW,)


def _searched(
    old: Contract,
    new: Contract,
    changes: tuple[Change, ...],
    objections: Iterable[Objection],
    *,
    kind: str,
    initiator: str | None,
) -> Verdict:
    if not proves():
        first = strays(changes)
        raise ProofMissingError(
            clause=first[0].clause if first else None,
            need="the prover z3, to show that nothing more is allowed",
            found="not installed",
            remedy="install iriai[prove], or negotiate the amendment as a change",
        )
    from policies.contract.amendment.refinement import search, version

    found: Search = search(old, new)
    shown = [
        Objection(clause=one.clause, why="witness", words=one.words(old, new)) for one in found.witnesses
    ]
    unproven = [
        Objection(clause=clause, why="not-proven", words=words)
        for clause, words in sorted(found.open.items())
    ]
    return _verdict(
        old,
        new,
        changes,
        [*objections, *shown, *unproven],
        kind=kind,
        initiator=initiator,
        z3_version=version(),
        witnesses=tuple(found.witnesses),
    )


def _verdict(
    old: Contract,
    new: Contract,
    changes: tuple[Change, ...],
    objections: Iterable[Objection],
    *,
    kind: str,
    initiator: str | None,
    z3_version: str | None = None,
    witnesses: tuple[Witness, ...] = (),
) -> Verdict:
    listed = tuple(dict.fromkeys(objections))
    return Verdict(
        old=old.digest,
        new=new.digest,
        kind=kind,
        initiator=initiator,
        no_looser=not listed,
        basis="order" if z3_version is None else "proof",
        z3_version=z3_version,
        changes=changes,
        objections=listed,
        witnesses=witnesses,
    )


def _disagrees(need: str, found: str, *, clause: str | None = None) -> VerdictDisagreesError:
    return VerdictDisagreesError(
        clause=clause,
        need=need,
        found=found,
        remedy="do not use the amendment; negotiate it as a change, or report who sent the verdict",
    )
