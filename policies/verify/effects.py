# SPDX-License-Identifier: Apache-2.0
"""Which entries say that something happened that takes two people, and what exactly they would have approved.

========================================  ==================  ==============================================
entry                                     action              what the two approved says the same
========================================  ==================  ==============================================
contract.finalized, but of a tightening   contract.activate   contract
org.left; org.suspended, if the           org.remove          organisation, reason, whether it asked for it
organisation's key is revoked with it
org.reinstated                            org.restore         organisation, reason
witness.added of nobody who is a member   witness.add         name and vkey of the witness
witness.removed of nobody who just left   witness.remove      name and vkey of the witness
key.rotated of no member                  key.rotate          both keys of the log
log.frozen with a successor               log.succeed         successor and cause
========================================  ==================  ==============================================

- What people approve is a document (`approvals/` of the bundle), and a ``console.action`` names its digest.
  Of ``key.rotate`` and ``log.succeed`` the document follows from the entry, and no file is needed.
- A witness whose owner states another key is ``witness.removed`` and ``witness.added`` of one name, one right
  behind the other, the first of the key that is in force; it takes nobody's word but the owner's
  (`policies.verify.statements`). No witness is removed that has no vote, none added beside one that has it.
- A tightening takes nobody of the broker: a contributor signs it, and its proof is looked at again
  (`policies.verify.successions`).
- A member's witness needs no word of its own: two people let the member in.
- A member's key is revoked with its own membership, and never else; whose key it is `policies.verify.owners`
  knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policies.encoding import canonical, digest
from policies.errors import EncodingError, IriaiError
from policies.log.checkpoint import KeyKind
from policies.log.entries import EntryType, alias
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import witness_name
from policies.verify.approved import approved_what
from policies.verify.contracts import is_tightening, kinds_of_amendments
from policies.verify.owners import MemberKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["ELSEWHERE", "FOLLOWED", "UNSAID", "Effects", "Need", "approved"]

Json = Any
_T = EntryType
_SAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "contract.activate": ("contract",),
    "org.remove": ("org", "reason", "left"),
    "org.restore": ("org", "reason"),
    "witness.add": ("witness", "vkey"),
    "witness.remove": ("witness", "vkey"),
}
"""Actions whose document is a file of the bundle, and the facts in it that an entry shows."""
_BY_ENTRY: Final = frozenset({"key.rotate", "log.succeed"})
"""Actions whose document follows from the entry."""
UNSAID: Final = b"?"
"""What an action allows whose document is not in the bundle."""
ELSEWHERE: Final = b"-"
"""What an action allows that ends in no entry, or whose document is about another action or log."""
_ENDS: Final = frozenset({_T.ORG_LEFT, _T.ORG_SUSPENDED})
_KEYS_OF_A_MEMBER: Final = 2


class Need(NamedTuple):
    """What an entry needs.

    Attributes:
        action: Of two operators.
        key: What they approved, as `approved` gives it; None where the bundle does not show that.
    """

    action: str
    key: bytes | None


def approved(history: History, action: str, subject: str | None) -> bytes:
    """What an action of two operators allows, to be compared with `Need.key`; or `UNSAID`, or `ELSEWHERE`."""
    if action in _BY_ENTRY:
        return canonical([subject])
    if action not in _SAYS:
        return ELSEWHERE
    what = approved_what(history, action, subject)
    if what is None:
        return UNSAID
    try:
        return canonical([what[name] for name in _SAYS[action]])
    except (EncodingError, KeyError):
        return ELSEWHERE


class Effects:
    """Looks at the entries of `FOLLOWED`, in order, and says what each needs."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._orgs = {alias(key, None, None, None): org for org, key in history.aliases.items()}
        self._members: set[str] = set()
        self._gone: set[str] = set()
        self._amended = kinds_of_amendments(history)
        self._keys = MemberKeys(history)
        self._voters: dict[str, str] = {}
        self._gave_way = -1
        self._log_keys: dict[str, str] = {}
        for key in history.policy.logs:
            if key.kind is KeyKind.LOG:
                self._keep(key.text())

    def needs(self, index: int, entry: Entry) -> Iterator[Need | str]:
        """What an entry needs, or what is wrong with it whoever approved it."""
        return _SEEN[entry.type](self, index, entry)

    # --- contracts ---

    def _finalized(self, _index: int, entry: Entry) -> Iterator[Need | str]:
        named = entry.pub["contract"]
        seen = self._history.grade == "auditor" or named in self._history.contracts
        if seen and not is_tightening(self._history, named, self._amended):
            yield Need("contract.activate", canonical([named]))

    # --- organisations ---

    def _onboarded(self, index: int, entry: Entry) -> Iterator[Need | str]:
        self._members.add(entry.pub["org"])
        yield from self._heard(index, entry)

    def _ended(self, index: int, entry: Entry) -> Iterator[Need | str]:
        left = entry.type is _T.ORG_LEFT
        org = entry.pub["org"]
        if not left and self._revoked_of(index + 1) != org:
            return  # a suspension, which takes one
        self._gone.add(org)
        yield Need("org.remove", self._about(org, entry.pub["reason"], left))

    def _reinstated(self, _index: int, entry: Entry) -> Iterator[Need | str]:
        yield Need("org.restore", self._about(entry.pub["org"], entry.pub["reason"]))

    def _about(self, shown: str, *facts: Json) -> bytes | None:
        org = self._orgs.get(shown)
        return None if org is None else canonical([org, *facts])

    # --- keys ---

    def _heard(self, index: int, entry: Entry) -> Iterator[Need | str]:
        why = self._keys.hear(index, entry)
        if why:
            yield why

    def _key_added(self, index: int, entry: Entry) -> Iterator[Need | str]:
        if entry.pub["role"] == "log" and entry.pub["vkey"] is not None:
            self._keep(entry.pub["vkey"])
        yield from self._heard(index, entry)

    def _revoked_of(self, index: int) -> str | None:
        """Whose key an entry revokes; None if it revokes no member's."""
        entry = self._history.entries.get(index)
        if entry is None or entry.type is not _T.KEY_REVOKED:
            return None
        return self._keys.owner(entry.pub["kid"])

    def _revoked(self, index: int, _entry: Entry) -> Iterator[Need | str]:
        owner = self._revoked_of(index)
        if owner is None:
            return
        back = 1 if self._revoked_of(index - 1) is None else _KEYS_OF_A_MEMBER
        end = self._history.entries.get(index - back)
        if end is None or end.type not in _ENDS:
            yield "a member's key is revoked, and no membership ends with it"
        elif end.pub["org"] != owner:
            yield "the key of another member than the one whose membership ends is revoked"

    def _rotated(self, index: int, entry: Entry) -> Iterator[Need | str]:
        if entry.pub["role"] == "node":  # by its old key or all the others: `policies.verify.lives`
            yield from self._heard(index, entry)
            return
        shown = self._history.opened.get(index, {}).get("vkey")
        if isinstance(shown, str):
            self._keep(shown)
        old, new = (self._log_keys.get(entry.pub[name]) for name in ("old", "new"))
        key = None
        if entry.pub["role"] == "log" and old is not None and new is not None:
            # as `iriai-broker key rotate` prints it
            asked = {"action": "log.rotate-key", "log": self._origin, "old": old, "new": new}
            key = canonical([digest(canonical(asked))])
        yield Need("key.rotate", key)

    def _keep(self, text: str) -> None:
        try:
            self._log_keys[digest(VerifierKey.parse(text).public_key)] = text
        except IriaiError:
            return  # no key of a log: what it is said to be rests on nothing here

    # --- witnesses ---

    def _witness_added(self, index: int, entry: Entry) -> Iterator[Need | str]:
        name, org = entry.pub["witness"], entry.pub["org"]
        owner = self._orgs.get(org)
        if owner is not None and name != witness_name(owner):
            yield f"witness {name} under the alias of {owner}"
        if name in self._voters:
            yield f"witness {name} is added, and its key before it was not removed"
        self._voters[name] = entry.pub["vkey"]
        is_member = org in self._members - self._gone
        if not is_member and not (self._gave_way == index - 1 and self._are_one(index - 1, index)):
            yield Need("witness.add", self._witness(entry))

    def _witness_removed(self, index: int, entry: Entry) -> Iterator[Need | str]:
        name = entry.pub["witness"]
        if self._voters.get(name) != entry.pub["vkey"]:
            yield f"witness {name} is removed, with a key that it does not have"
            return
        del self._voters[name]
        if self._are_one(index, index + 1):
            self._gave_way = index
        elif entry.pub["org"] not in self._gone:
            yield Need("witness.remove", self._witness(entry))

    def _are_one(self, removed: int, added: int) -> bool:
        """Whether two entries are one owner's change of its key."""
        old, new = (self._history.entries.get(one) for one in (removed, added))
        if old is None or new is None:
            return False
        kinds = (old.type, new.type) == (_T.WITNESS_REMOVED, _T.WITNESS_ADDED)
        return kinds and all(old.pub[name] == new.pub[name] for name in ("witness", "org", "policy"))

    @staticmethod
    def _witness(entry: Entry) -> bytes:
        return canonical([entry.pub["witness"], entry.pub["vkey"]])

    # --- the log ---

    @property
    def _origin(self) -> str:
        return self._history.checkpoint.origin

    def _frozen(self, _index: int, entry: Entry) -> Iterator[Need | str]:
        successor, cause = entry.pub["successor"], entry.pub["reason"]
        if successor is not None:
            # as `iriai-broker log succeed` prints it for a log that is open
            asked = {"v": 1, "action": "log.succeed", "log": self._origin}
            asked |= {"successor": successor, "cause": cause, "checkpoint": None}
            yield Need("log.succeed", canonical([digest(canonical(asked))]))


_SEEN: Final[Mapping[EntryType, Callable[[Effects, int, Entry], Iterator[Need | str]]]] = {
    _T.CONTRACT_FINALIZED: Effects._finalized,  # noqa: SLF001  the table of its own methods
    _T.ORG_ONBOARDED: Effects._onboarded,  # noqa: SLF001
    _T.ORG_LEFT: Effects._ended,  # noqa: SLF001
    _T.ORG_SUSPENDED: Effects._ended,  # noqa: SLF001
    _T.ORG_REINSTATED: Effects._reinstated,  # noqa: SLF001
    _T.KEY_ADDED: Effects._key_added,  # noqa: SLF001
    _T.KEY_REVOKED: Effects._revoked,  # noqa: SLF001
    _T.KEY_ROTATED: Effects._rotated,  # noqa: SLF001
    _T.WITNESS_ADDED: Effects._witness_added,  # noqa: SLF001
    _T.WITNESS_REMOVED: Effects._witness_removed,  # noqa: SLF001
    _T.LOG_FROZEN: Effects._frozen,  # noqa: SLF001
}
FOLLOWED: Final = tuple(_SEEN)
"""Types of entries that `Effects` looks at."""
