# SPDX-License-Identifier: Apache-2.0
"""Plays attacks in one federation, each after the other, and tells what became of them.

    found = play("all", Path("build/attacks"))
    found["held"]        whether every defence held
    found["attacks"]     [{"attack", "threat", "words", "tried", "gain", "refused", "left", "checks", "held"}]

The order is one in which an attack leaves what the next one needs: what spends the budget comes late, and the
one after which the log takes nothing more comes last. An attack that could not be carried out shows nothing,
and counts as a defence that did not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.errors import IriaiError
from sandbox.attacks import brokers, bundles, history, members, people, requests
from sandbox.attacks.attack import Finding, shown
from sandbox.attacks.ground import standing
from sandbox.progress import Progress
from sandbox.staging import check_free, check_known, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.attacks.attack import Attack
    from sandbox.attacks.ground import Ground

__all__ = ["ALL", "ATTACKS", "lines", "play"]

ALL: Final = "all"
ATTACKS: Final[dict[str, Attack]] = {
    "replay": requests.REPLAY,
    "swap": requests.SWAP,
    "foreign-id": requests.FOREIGN,
    "alone": people.ALONE,
    "bomb": bundles.BOMB,
    "fork": history.FORK,
    "overgrown": members.OVERGROWN,
    "cohort": brokers.COHORTS,
    "budget": brokers.BUDGETS,
    "rewrite": history.REWRITE,
}


def play(name: str, folder: Path) -> dict[str, Any]:
    """Plays one attack, or all of them.

    Args:
        name: One of `ATTACKS`, or `ALL`.
        folder: Of the federation: empty, or not there.

    Raises:
        UsageError: No such attack, or the folder is in use.
    """
    check_known("attack", name, (*ATTACKS, ALL))
    check_free(folder)
    progress, found = Progress(), []
    with standing(folder, progress) as ground:
        for one in ATTACKS if name == ALL else (name,):
            with progress.phase(one):
                found.append(_played(one, ATTACKS[one], ground))
    return {
        "dir": str(folder),
        "seconds": round(progress.seconds, 1),
        "attacks": found,
        "held": all(one["held"] for one in found),
    }


def _played(name: str, attack: Attack, ground: Ground) -> dict[str, Any]:
    findings: list[Finding] = []
    try:
        findings.extend(attack.act(ground))
    except IriaiError as error:
        words = f"{error.code}: needs {error.need}; found {error.found}"
        findings.append(Finding(what="the attack could be carried out", held=False, found=words))
    return {
        "attack": name,
        "threat": attack.threat,
        "words": attack.words,
        "tried": attack.tried,
        "gain": attack.gain,
        "refused": [
            {"by": by, "code": code, "clause": clause or None}
            for by, code, clause in dict.fromkeys(
                (one.by, one.code, one.clause) for one in findings if one.code and one.held
            )
        ],
        "left": attack.left,
        "checks": told(findings),
        "held": shown(findings),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    for one in found["attacks"]:
        yield ""
        yield f"{'HELD  ' if one['held'] else 'FAILED'}  {one['attack']} ({one['threat']}): {one['words']}"
        yield f"  tried    {one['tried']}"
        yield f"  gain     {one['gain']}"
        for check in one["checks"]:
            kind = "control" if check["control"] else "check"
            yield f"  {kind:<8} {'ok    ' if check['held'] else 'FAILED'}  {check['what']}: {check['found']}"
        for what in one["refused"]:
            clause = f", clause {what['clause']}" if what["clause"] else ""
            yield f"  refused  {what['code']}{clause}, by {what['by']}"
        yield f"  left     {one['left']}"
    held = sum(1 for one in found["attacks"] if one["held"])
    yield ""
    yield f"{held} of {len(found['attacks'])} defences held ({found['seconds']} s); files: {found['dir']}"
