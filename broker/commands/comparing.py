# SPDX-License-Identifier: Apache-2.0
"""Commands that compare terms: two contracts with each other, and a proposal with the past.

A contract is named by its file, or by its digest if this broker has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.answers import Result, plain
from broker.commands.contract_files import read_text
from broker.commands.contract_names import may_name, whole_digest
from broker.errors import UsageError
from policies.contract import load, parse
from policies.contract.amendment import diff, no_looser_by_order, prove, proves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.commands import Where
    from policies.contract import Contract
    from policies.contract.amendment import Change, Verdict

__all__ = ["contract_diff", "contract_dry_run", "contract_of", "contract_prove"]

_LOOSER: Final = 3
_PROVEN: Final = {
    "tighter": "proven: every request that the new text allows, the old one allows too",
    "looser": "the new text allows what the old one refuses, as in each case above",
    "unknown": "no such request was found, and that there is none could not be proven",
}


def contract_diff(where: Where, old: str, new: str) -> Result:
    """What changes between two contracts; ``NO LOOSER``, or what is looser with a request that shows it.

    The order table answers alone where it can. Where it cannot, z3 searches for a request that the new
    contract allows and the old one refuses; exit code 3 if it finds one, or if nobody could show that there
    is none.
    """
    before, after = contract_of(where, old), contract_of(where, new)
    changes = diff(before, after)
    verdict = None
    if not no_looser_by_order(before, after) and proves():
        verdict = prove(before, after)
    no_looser = verdict.no_looser if verdict is not None else no_looser_by_order(before, after)
    unproven = verdict is None and not no_looser
    data = {
        "old": before.digest,
        "new": after.digest,
        "no_looser": no_looser,
        "basis": "order" if verdict is None else verdict.basis,
        "changes": [one.to_json() for one in changes],
        "objections": [] if verdict is None else [one.to_json() for one in verdict.objections],
        "witnesses": [] if verdict is None else [one.to_json() for one in verdict.witnesses],
    }
    lines = [plain(line) for line in _lines(changes, verdict)]
    if unproven:
        lines.append("no prover here: install iriai[prove] for a request that shows what is looser")
    lines.append(_conclusion(changes) if no_looser else "LOOSER")
    return Result(data=data, text=tuple(lines), exit_code=0 if no_looser else _LOOSER)


def contract_prove(where: Where, old: str, new: str) -> Result:
    """What the prover finds: ``tighter``, ``looser`` with a request for each clause, or ``unknown``.

    - tighter: there is no request that only the new text allows, and nothing is left to people's judgement.
    - looser: a concrete request, which the evaluator decided both ways.
    - unknown: neither; each clause says why nobody could show it.

    Raises:
        ProofMissingError: The prover is not installed.
    """
    before, after = contract_of(where, old), contract_of(where, new)
    verdict = prove(before, after)
    answer = "tighter" if verdict.no_looser else "looser" if verdict.witnesses else "unknown"
    lines = [f"{one.clause}  {one.why}: {one.words}" for one in verdict.objections]
    lines.append(f"{answer.upper()}: {_PROVEN[answer]}")
    return Result(
        data={"old": before.digest, "new": after.digest, "answer": answer, "verdict": verdict.to_json()},
        text=tuple(plain(line) for line in lines),
        plain_output=answer,
        exit_code=0 if verdict.no_looser else _LOOSER,
    )


def contract_dry_run(where: Where, file: Path, *, against: str | None) -> Result:
    """Tries a proposal on the broker's own past decisions."""
    text = read_text(file)
    with where.client() as client:
        body = {"contract": text, "against": None if against is None else whole_digest(client, against)}
        found = client.post("/operator/contracts/dry-run", body)
    return Result(data=found, text=tuple(plain(line) for line in found["lines"]))


def _lines(changes: tuple[Change, ...], verdict: Verdict | None) -> Iterator[str]:
    """Each change, and below it what was found about its clause."""
    told: set[str] = set()
    objections = () if verdict is None else verdict.objections
    for change in changes:
        yield change.line
        if change.clause not in told:
            told.add(change.clause)
            yield from (
                f"  {one.words}"
                for one in objections
                if one.clause == change.clause and one.why in ("witness", "not-proven")
            )
    yield from (
        f"{one.clause} {one.words if one.words.startswith(one.why) else f'{one.why}: {one.words}'}"
        for one in objections
        if one.clause not in told and one.why in ("witness", "not-proven")
    )


def _conclusion(changes: tuple[Change, ...]) -> str:
    """``NO LOOSER``, and why that is no contradiction where a field taken alone is looser."""
    looser = [f"{one.clause} {one.field}".rstrip() for one in changes if one.direction == "looser"]
    if not looser:
        return "NO LOOSER"
    verb = "is" if len(looser) == 1 else "are"
    return (
        f"NO LOOSER: {', '.join(looser)} {verb} looser taken alone, but it is proven that there is no request"
        " that only the new text allows"
    )


def contract_of(where: Where, name: str) -> Contract:
    """The contract of a file or of a digest.

    Raises:
        UsageError: Neither, or a shortened digest with which no contract begins, or several.
        ContractError: It does not load.
    """
    if Path(name).is_file():
        return load(read_text(Path(name)))
    if not may_name(name):
        raise UsageError(need="a file, or the digest of a contract", found=name, remedy="check the name")
    with where.client() as client:
        digest = whole_digest(client, name)
        found = parse(client.get_bytes(f"/contracts/{digest}"))
    if found.digest != digest:
        raise UsageError(need=f"the contract {digest}", found=found.digest, remedy="look at the broker")
    return found
