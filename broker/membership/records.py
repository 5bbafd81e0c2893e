# SPDX-License-Identifier: Apache-2.0
"""Entries that several parts of the broker write: what an operator did, which key is trusted from here on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.log.actions import acted
from policies.encoding import digest
from policies.log.entries import EntryType, Event

if TYPE_CHECKING:
    from broker.membership.directory import Operator

__all__ = ["console_action", "key_added"]


def console_action(
    operator: Operator, action: str, *, subject: str | None, request: str, result: str = "done"
) -> Event:
    """The log entry of an operator's mutation, done or refused."""
    return acted(operator.name, action, subject=subject, request=request, result=result)


def key_added(role: str, algorithm: str, key: bytes, *, shown: str | None = None) -> Event:
    """The log entry of a key that is trusted from here on."""
    return Event(
        type=EntryType.KEY_ADDED,
        pub={"role": role, "alg": algorithm, "kid": digest(key), "vkey": None},
        private={} if shown is None else {"key": shown},
    )
