# SPDX-License-Identifier: Apache-2.0
"""Whose keys they are, by the log's own entries.

- A node's key, and the one of its way into the fleet, are of the organisation whose ``org.onboarded`` they
  stand directly behind, one of each; two people let that organisation in. Anywhere else no key of a member is
  added.
- The key that it rotates to is of the same organisation. A notice says so, and a rotation that is void
  changes nothing (`policies.verify.lives`).

    keys = MemberKeys(history)
    for index, entry in …:                    # org.onboarded, key.added and key.rotated, in order
        why = keys.hear(index, entry)         # what is wrong with it, or ""
    keys.owner(kid)                           # an alias; None: no member's key
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.log.entries import EntryType

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["MEMBERS_ROLES", "MemberKeys"]

MEMBERS_ROLES: Final = frozenset({"node", "fleet"})
"""Of keys that a member has."""
_NOBODY: Final = ""


class MemberKeys:
    """See the module."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._owners: dict[str, str] = {}
        self._door = (-1, _NOBODY, MEMBERS_ROLES)  # where the next key may stand, whose it is, of which roles

    def owner(self, kid: str) -> str | None:
        """Alias of the organisation whose key it is or was, empty if unknown; None: no member's key."""
        return self._owners.get(kid)

    def hear(self, index: int, entry: Entry) -> str:
        """One more entry; what is wrong with it."""
        if entry.type is EntryType.ORG_ONBOARDED:
            self._door = (index + 1, entry.pub["org"], MEMBERS_ROLES)
        elif entry.type is EntryType.KEY_ADDED and entry.pub["role"] in MEMBERS_ROLES:
            return self._added(index, entry.pub["kid"], entry.pub["role"])
        elif entry.type is EntryType.KEY_ROTATED and entry.pub["role"] == "node":
            return self._rotated(index, entry)
        return ""

    def _added(self, index: int, kid: str, role: str) -> str:
        place, org, roles = self._door
        fits = index == place and role in roles
        if fits:
            self._door = (index + 1, org, roles - {role})
        return self._keep(kid, org if fits else _NOBODY) or (
            "" if fits else f"a {role} key that no org.onboarded stands directly before"
        )

    def _rotated(self, index: int, entry: Entry) -> str:
        if entry.scope is None:
            return "a member's key is changed under no contract"
        if index in self._history.void:
            return ""
        before = self._owners.get(entry.pub["old"])
        return "" if before is None else self._keep(entry.pub["new"], before)

    def _keep(self, kid: str, org: str) -> str:
        return "" if self._owners.setdefault(kid, org) == org else "the key of another member"
