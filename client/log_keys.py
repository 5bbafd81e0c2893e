# SPDX-License-Identifier: Apache-2.0
"""The log's keys that this node believes: the pinned one, and those that are proven to follow it.

- ``join`` pins one key. When the operators change it, both sign for 30 days; a note then shows a key of the
  log's name that is not known here (`LogKeys.strange`), and the witness asks for the change (`take_up`).
- A key is taken up once three things hold: an entry ``key.rotated`` names it, a checkpoint that the key
  before it has signed covers that entry (`policies.log.log_keys`), and that checkpoint is of the history that
  this node has seen. The broker's word, its document and its list of keys count for nothing.
- They lie in ``log-keys.json`` with their proofs, which are checked whenever the file is read: it decides
  nothing. The pinned key stays the first one, and what it signed stays evidence.

    keys = member.log_keys
    keys.all()                    # the pinned key first
    take_up(member, outbox)       # what is new, once it is proven
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from client.errors import PeerAnswerError
from client.receipts import LogView, fetch_consistency
from client.settings import write_durably
from policies.limits import LOG_KEY_CHANGES
from policies.log.checkpoint import parse_note
from policies.log.errors import LogKeyUnprovenError
from policies.log.log_keys import proven_key
from policies.log.proofs import parse_receipt

if TYPE_CHECKING:
    from pathlib import Path

    from client.membership import Member
    from client.outbox import Outbox
    from policies.log.vkeys import VerifierKey

__all__ = ["LogKeys", "take_up"]

_FIELDS: Final = frozenset({"vkey", "entry", "proof"})
_Change = dict[str, str]


class LogKeys:
    """See the module. Reads its file again when it was replaced, so that every thread has the newest."""

    def __init__(self, path: Path, pinned: VerifierKey) -> None:
        self._path = path
        self._pinned = pinned
        self._stamp = (0, 0)
        self._changes: tuple[_Change, ...] = ()
        self._keys: tuple[VerifierKey, ...] = (pinned,)

    def all(self) -> tuple[VerifierKey, ...]:
        """The keys that are believed, the pinned one first."""
        self._read()
        return self._keys

    def strange(self, note: str) -> bool:
        """Whether a key of the log's name signed a note that is not known here."""
        known = {key.hash4 for key in self.all()}
        signed = {hash4 for name, hash4, _ in parse_note(note).signatures if name == self._pinned.name}
        return not signed <= known

    def keep(self, changes: list[_Change]) -> None:
        """Keeps changes whose proofs hold, behind those that are kept."""
        self._read()
        data = json.dumps([*self._changes, *changes], sort_keys=True, ensure_ascii=False)
        write_durably(self._path, data.encode("utf-8"))

    def _read(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp == self._stamp:
                return
            changes = _changes({"rotations": json.loads(self._path.read_bytes())})
        except (OSError, ValueError, PeerAnswerError):  # none was kept, or the file is damaged
            stamp, changes = (0, 0), []
        keys: tuple[VerifierKey, ...] = (self._pinned,)
        proven: list[_Change] = []
        for one in changes:
            try:
                keys = (*keys, proven_key(**one, believed=keys))
            except LogKeyUnprovenError:
                break
            proven.append(one)
        self._stamp, self._changes, self._keys = stamp, tuple(proven), keys


def take_up(member: Member, outbox: Outbox) -> tuple[VerifierKey, ...]:
    """Asks for changes of the log's key and keeps what is proven; gives the keys that are new.

    Raises:
        LogKeyUnprovenError: A change is shown that nothing under the key before it proves; nothing is kept.
        EquivocationError: The proof is of another history than this node has seen; the node is stopped.
        PeerAnswerError, PeerUnreachableError, RemoteRefusalError: No usable answer.
    """
    keys = member.log_keys
    believed = keys.all()
    known, fresh, found = {key.text() for key in believed}, list[_Change](), list["VerifierKey"]()
    for one in _changes(member.client.get("/log/keys")):
        if one["vkey"] in known:
            continue
        key = proven_key(**one, believed=believed)
        believed = (*believed, key)
        fresh.append(one)
        found.append(key)
    view = LogView(outbox, lambda: believed, fetch=fetch_consistency(member.client))
    for one in fresh:
        view.tie(parse_receipt(one["proof"]).note)
    if fresh:
        keys.keep(fresh)
    return tuple(found)


def _changes(shown: Any) -> list[_Change]:  # noqa: ANN401  what JSON gives
    rows = shown.get("rotations") if isinstance(shown, dict) else None
    good = isinstance(rows, list) and all(
        isinstance(one, dict) and set(one) == _FIELDS and all(isinstance(text, str) for text in one.values())
        for one in rows
    )
    if not isinstance(rows, list) or not good or len(rows) > LOG_KEY_CHANGES:
        raise PeerAnswerError(
            need=f"at most {LOG_KEY_CHANGES} changes of the log's key",
            found="another form",
            remedy="check both versions",
        )
    return rows
