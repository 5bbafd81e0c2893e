# SPDX-License-Identifier: Apache-2.0
"""What an attack is: in words, and as a function that does it and says what it found.

A `Finding` is a check. Three kinds make an attack worth its name, and each must be there (`shown`):

- a *control*: the same thing without the lie is accepted, so the attack's precondition was real;
- a *defence*: the lie was refused, with the code or rule as it was heard (``by``, ``code``, ``clause``);
- whatever else must hold, such as that nothing changed.

Any check that does not hold means that the defence did not hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.staging import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.attacks.ground import Ground

__all__ = ["Attack", "Finding", "control", "defence", "shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Attributes:
        threat: Its row in the threat model.
        words: One line.
        tried: What the attacker does.
        gain: What would be gained if nobody refused it.
        left: What the defence does not cover.
        act: Does it.
    """

    threat: str
    words: str
    tried: str
    gain: str
    left: str
    act: Callable[[Ground], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Check):
    """A check of an attack.

    Attributes:
        control: Whether it shows that the attack's precondition was real.
        by: Who noticed.
        code: With which the attack was refused, or the rule that found it.
        clause: Of the contract, if one refused.
    """

    control: bool = False
    by: str = ""
    code: str = ""
    clause: str = ""


def control(what: str, *, held: bool, found: object) -> Finding:
    """The same without the lie: it has to be accepted."""
    return Finding(what=what, held=held, found=str(found), control=True)


def defence(what: str, *, by: str, code: str, wanted: Sequence[str], found: str, clause: str = "") -> Finding:
    """A refusal, whose code has to be one of those that are wanted; no code: nothing refused."""
    return Finding(
        what=what,
        held=code in wanted,
        found=found or "it was allowed",
        by=by,
        code=code,
        clause=clause,
    )


def shown(findings: Sequence[Finding]) -> bool:
    """Whether a defence was seen to hold: all checks did, against an attack whose precondition was real."""
    whole = any(one.control for one in findings) and any(one.code for one in findings)
    return whole and all(one.held for one in findings)
