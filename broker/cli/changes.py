# SPDX-License-Identifier: Apache-2.0
"""What a command would change: told before it is done, or instead (``--dry-run``)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.answers import Result

__all__ = ["Change", "confirm", "undone", "unless_dry"]


class Change:
    """What a command changes; nothing, without an effect."""

    def __init__(self, effect: str | None, asks: bool) -> None:  # noqa: FBT001
        self.effect = effect
        self.asks = asks

    def told(self, given: dict[str, Any]) -> str:
        """The effect, with what the line says in it."""
        from broker.answers import plain

        shown = {name: plain(value) for name, value in given.items()}
        return (self.effect or "").format_map(shown)


def unless_dry(work: Callable[[], Result], told: str) -> Result:
    """Runs a command whose changes are not sent, and says which one was to come."""
    from broker.remote import NotSentError

    try:
        return work()
    except NotSentError as unsent:
        return undone(told, unsent.shown())


def undone(told: str, request: dict[str, Any] | None) -> Result:
    """What ``--dry-run`` says."""
    import json

    from broker.answers import Result, plain

    lines = [f"would do     {told}"]
    if request is not None:
        lines.append(f"would send   {plain(request['method'])} {plain(request['path'])}")
        if request["body"] is not None:  # else a question that the log tells of
            body = json.dumps(request["body"], ensure_ascii=False, sort_keys=True)
            lines.append(f"             {plain(body)}")
    return Result(
        data={"dry_run": True, "effect": told, "request": request},
        text=(*lines, "nothing was changed; repeat the command without --dry-run"),
    )


def confirm(told: str) -> None:
    """Asks the person at the terminal; without one nobody is asked.

    Raises:
        NotConfirmedError: The answer was no.
    """
    if not sys.stdin.isatty() or typer.confirm(f"{told}; go on?", err=True):
        return
    from broker.errors import NotConfirmedError

    raise NotConfirmedError(
        need=f"a yes to: {told}", found="no", remedy="nothing was done; --yes does not ask"
    )
