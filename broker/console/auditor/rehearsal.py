# SPDX-License-Identifier: Apache-2.0
"""What the screens say of the last rehearsal: when, up to where, its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.console.screens import OPERATORS, Fact
from broker.console.values import Code, Count, Duration, Foreign, Link, Nothing, State, T, Value

if TYPE_CHECKING:
    from broker.auditing.checks import Check
    from broker.console.viewing import View

__all__ = ["kept_back", "may_read", "no_rehearsal", "rehearsal_facts"]

_HOLDS, _FINDINGS = 0, 3


def may_read(view: View) -> bool:
    """Whether the reader may see what the check opened: an operator, or an auditor with a grant for all."""
    if view.role in OPERATORS:
        return True
    grants = view.services.grants.of(view.session, view.signed_in.person.name)
    return any(one.fields is None and not one.from_index for one in grants)


def kept_back() -> Value:
    """What stands instead of a value that the reader's grants do not open."""
    return Nothing(T("only with a grant for every confidential field"))


def no_rehearsal(*, here: bool = False) -> T:
    """What is shown where no check was made yet; ``here``: where one is begun."""
    if here:
        return T(
            "No check of the whole log was made here yet. "
            "Start one below, or take the bundle and run {command}.",
            command=Code("iriai-verify"),
        )
    return T(
        "No check of the whole log was made here yet. "
        "Start one on {verdict}, or take the bundle and run {command}.",
        verdict=Link(T("Verdict"), "/audit"),
        command=Code("iriai-verify"),
    )


def rehearsal_facts(last: Check) -> tuple[Fact, ...]:
    """The newest check in facts."""
    data = last.data
    return (
        Fact("verdict", T("Verdict"), _verdict(last), as_of_ms=last.at_ms, fresh_s=86_400),
        Fact("said", T("In the program's words"), Foreign(str(data.get("verdict", "")))),
        Fact("checked-to", T("Checked up to entry"), _size(data.get("size"))),
        Fact("findings", T("Findings"), Count(len(data.get("findings", [])))),
        Fact("took", T("It took"), Duration(last.took_ms)),
    )


def _verdict(last: Check) -> Value:
    if last.exit_code == _HOLDS:
        return State("ok")
    return State("failed" if last.exit_code == _FINDINGS else "warning")


def _size(value: object) -> Value:
    return Count(value) if isinstance(value, int) else Nothing()
