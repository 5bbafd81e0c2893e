# SPDX-License-Identifier: Apache-2.0
"""Log entries about a contract in force: what of a notice stands in clear, and how an end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract.lifecycle import key_of
from policies.encoding import digest
from policies.errors import invariant
from policies.identity import parse_key
from policies.log.entries import EntryType, Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract import Contract
    from policies.contract.lifecycle import Life
    from policies.contract.notices import Notice
    from policies.encoding import Json

__all__ = ["end_event", "entry_body"]

_LOG_ROLE: Final = "node"


def entry_body(contract: Contract, life: Life, said: Notice) -> Mapping[str, Json]:
    """Fields of the entry about a notice: no free text."""
    if said.kind != "rotate":
        return {
            "contract": contract.digest,
            "clause": said.clause,
            "reason": said.code,
            "notice": said.digest,
        }
    old, new = key_of(contract, life, said.party), said.subject
    invariant(old is not None and new is not None, "a rotation of a party names a key")
    return {
        "old": digest(parse_key(str(old))),
        "new": digest(parse_key(str(new))),
        "role": _LOG_ROLE,
        "vkey": str(new),
    }


def end_event(
    contract: Contract, kind: EntryType, code: str, clause: str, *, refs: tuple[int, ...] = ()
) -> Event:
    """The entry that a contract has ended: its term is over, or an exit left too few."""
    return Event(
        type=kind,
        scope=contract.digest,
        refs=refs,
        pub={"contract": contract.digest, "clause": clause, "reason": code},
    )
