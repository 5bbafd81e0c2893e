# SPDX-License-Identifier: Apache-2.0
"""The log entry of what a person did with the broker, by whichever way they did it."""

from __future__ import annotations

from policies.log.entries import EntryType, Event

__all__ = ["acted"]


def acted(name: str, action: str, *, subject: str | None, request: str, result: str = "done") -> Event:
    """The entry ``console.action``: somebody's mutation or confidential read, done or refused.

    Args:
        name: Of the person; an operator's, if they are one.
        action: What it was, as ``org.approve``.
        subject: Digest of what it was done to.
        request: Digest that is the same for the same act, so that repeating it adds nothing.
        result: ``done`` or ``refused``.
    """
    return Event(
        type=EntryType.CONSOLE_ACTION,
        pub={"operator": name, "action": action, "subject": subject, "result": result, "request": request},
    )
