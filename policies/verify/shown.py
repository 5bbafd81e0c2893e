# SPDX-License-Identifier: Apache-2.0
"""Values of a bundle as people may see them: nothing in them can move a cursor, turn a line or end a tag.

A bundle's text is written by the one who is audited. `visible` keeps letters of every language and writes
out what cannot be seen (control characters, bidirectional marks, unassigned code points);
`policies.verify.report.plain` is stricter and gives ASCII for a terminal of unknown abilities.
"""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from policies.log.kinds import ALIAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["actor_of", "brief", "member", "value_text", "visible"]

Json = Any
TEXT_CHARS = 4_000
_BRIEF_HEX = 12
_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def visible(value: object, limit: int = TEXT_CHARS) -> str:
    """Text of anything, every character of it one that can be seen; long text is cut."""
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(
        one if one == " " or one.isprintable() else one.encode("unicode_escape").decode() for one in cut
    )


def brief(text: str) -> str:
    """A text with each digest in it by its first digits."""
    return _HEX.sub(lambda found: found[0][:_BRIEF_HEX] + "…", text)


def member(history: History, org: str | None, scope: str | None) -> str | None:
    """Short name of an organisation in a contract; else its id; None for nobody."""
    clause = history.party(scope, org)
    return _trusted(history, org) if clause is None else clause.party


def _trusted(history: History, org: str | None) -> str | None:
    """Short name that the auditor's own policy has for the witness of an organisation; else its id."""
    mine = history.policy.witnesses.items()
    return next((name for name, key in mine if key.organisation == org), org)


def actor_of(history: History | None, entry: Entry) -> str:
    """Who made an entry: a party's short name where its alias key is at hand, else what stands there."""
    if history is None:
        return entry.actor
    return member(history, history.org_of(entry.actor, entry), entry.scope) or entry.actor


def value_text(
    value: Json,
    entry: Entry,
    history: History | None,
    nothing: str,
    *,
    names: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A field's value in one line.

    Args:
        value: Of the field.
        entry: That has it.
        history: For names of aliases; without it they stay aliases.
        nothing: What is said for null and for empty lists.
        names: Words for the values of an enum, by ``value_<value>``.
    """
    if value is None or value in ([], {}):
        return nothing
    if isinstance(value, str):
        if history is not None and ALIAS.holds(value):
            return visible(member(history, history.org_of(value, entry), entry.scope) or value)
        mine = {} if history is None else history.policy.witnesses
        name = next((one for one, key in mine.items() if key.name == value), None)
        return names.get(f"value_{value}") or visible(brief(value) if name is None else f"{value} ({name})")

    def inside(one: Json) -> str:
        return value_text(one, entry, history, nothing, names=names)

    if isinstance(value, list):
        return ", ".join(map(inside, value))
    if isinstance(value, dict):
        return "; ".join(sorted(f"{inside(name)}: {inside(one)}" for name, one in value.items()))
    return visible(json.dumps(value))
