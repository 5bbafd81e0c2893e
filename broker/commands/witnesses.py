# SPDX-License-Identifier: Apache-2.0
"""How a broker's witnesses are, in words: quorum, what it tolerates, and when each was heard last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import plain
from policies.limits import WITNESS_MAX_AGE_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.encoding import Json

__all__ = ["missing_of", "witness_lines"]


def witness_lines(found: Mapping[str, Json] | None) -> tuple[str, ...]:
    """Lines of ``iriai-broker status``; none for a broker that says nothing of witnesses."""
    if not found:
        return ()
    if not found["n"]:
        return ("witnesses    none; every node registers one when it runs",)
    newest = "no head has a quorum yet"
    if found["size"] is not None:
        newest = f"size {found['size']} cosigned by {len(found['voters'])}, {found['age_s']} s ago"
    first = f"witnesses    {found['k']} of {found['n']} needed, tolerates {found['tolerates']}; {newest}"
    rows = (f"  {_who(one)}  {_heard(one)}" for one in found["witnesses"])
    return (first, *_alarm(found), *rows)


def missing_of(found: Mapping[str, Json]) -> str:
    """Names of the witnesses that are not heard."""
    return ", ".join(_who(one) for one in found["witnesses"] if one.get("missing")) or "none by itself"


def _alarm(found: Mapping[str, Json]) -> tuple[str, ...]:
    """What is to be done where the newest quorum is too old, or there is none."""
    if not found.get("alarm"):
        return ()
    return (
        f"  ALARM      no quorum in the last {WITNESS_MAX_AGE_MIN} minutes; no round begins until then",
        f"  missing    {missing_of(found)}",
        "  remedy     ask them to look at their nodes: iriai-node witness status",
    )


def _who(one: Mapping[str, Json]) -> str:
    """The owner's name, then that of its key."""
    name, owner = plain(one["name"]), one.get("legal_name")
    return name if owner is None or name.startswith(f"{owner}/") else f"{plain(owner)} ({name})"


def _heard(one: Mapping[str, Json]) -> str:
    if one["age_s"] is None:
        return "never heard"
    told = f"heard {one['age_s']} s ago, on size {one['size']}"
    return f"{told}; MISSING" if one.get("missing") else told
