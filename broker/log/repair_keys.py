# SPDX-License-Identifier: Apache-2.0
"""Under whose key a restored envelope was signed: what a bundle says about that is looked at here.

    keys = EnvelopeKeys(texts)                            every text that may name a public key
    keys.saw(index, entry)                                each entry of the log, in order
    payload = keys.open(index, entry, envelope)           raises `LogRepairError`

A public key is found by its text, in the bundle or in the databases, and believed by its digest alone: an
entry ``key.added`` or ``key.rotated`` of the history, which the log's own key signed, must name it. So it
does not matter who wrote the text.

`open` in this order:
1. the envelope's payload is the one that the entry names;
2. it has exactly one signature, by a member's or an auditor's key that was in force at the entry;
3. the envelope is one (`policies.log.envelope.open_envelope`);
4. all envelopes of a chain are of one line of keys.

A key that nobody has the text of can check nothing: that is refused too, and said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from broker.log.errors import LogRepairError
from broker.log.rotations import Rotations, signer_of
from policies.encoding import digest
from policies.errors import IriaiError
from policies.identity import key_id, parse_key
from policies.log.entries import EntryType
from policies.log.envelope import open_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.log.entries import Entry
    from policies.signing import Envelope

__all__ = ["EnvelopeKeys"]

_KEY_TEXT: Final = re.compile(r"ed25519:[0-9a-f]{64}")
_ROLES: Final = frozenset({"node", "auditor"})


class EnvelopeKeys:
    """See the module."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._public: dict[str, bytes] = {}
        for text in texts:
            for found in _KEY_TEXT.findall(text):
                try:
                    key = parse_key(found)
                except IriaiError:
                    continue  # nobody can have signed with it
                self._public[key_id(key)] = key
        self._since: dict[str, int] = {}
        self._until: dict[str, int] = {}
        self._pairs: list[tuple[str, str]] = []
        self._lines = Rotations()
        self._chains: dict[str, str] = {}

    def saw(self, index: int, entry: Entry) -> None:
        """Takes what an entry says about keys."""
        pub = entry.pub
        if entry.type is EntryType.KEY_ADDED and pub["role"] in _ROLES:
            self._since.setdefault(pub["kid"], index)
        elif entry.type is EntryType.KEY_ROTATED and pub["role"] in _ROLES:
            self._since.setdefault(pub["new"], index)
            self._until[pub["old"]] = index + 1  # it may be said once for each contract, by the old key
            self._pairs.append((signer_of(pub["old"]), signer_of(pub["new"])))
            self._lines = Rotations(self._pairs)
        elif entry.type is EntryType.KEY_REVOKED:
            self._until[pub["kid"]] = min(index, pub["valid_until"])

    def stored(self, chain: str, signer: str) -> None:
        """Takes who signed an envelope that is stored already."""
        self._chains.setdefault(chain, signer)

    def open(self, index: int, entry: Entry, envelope: Envelope) -> dict[str, Any]:
        """The payload of the envelope of an entry; see the module.

        Raises:
            LogRepairError: It cannot be believed.
        """
        if digest(envelope.payload) != entry.env:  # 1.
            raise _refuse(f"the envelope of entry {index}", "another")
        if len(envelope.signatures) != 1:  # 2.
            raise _refuse(f"one signature of the envelope of entry {index}", f"{len(envelope.signatures)}")
        kid = envelope.signatures[0][0]
        key = self._public.get(kid)
        if key is None:
            need = f"the public key that signed the envelope of entry {index}, in the bundle or the databases"
            raise _refuse(need, f"none with the id {ascii(kid)[1:-1][:32]}")
        name = digest(key)
        if not self._since.get(name, index + 1) <= index < self._until.get(name, index + 1):
            raise _refuse(f"a key in force at entry {index}", kid)
        try:
            payload = open_envelope(envelope, key)  # 3.
        except IriaiError as error:
            raise _refuse(f"a member's envelope of entry {index}", str(error)) from error
        first = self._chains.setdefault(payload["chain"], kid)
        if self._lines.first(first) != self._lines.first(kid):  # 4.
            raise _refuse(f"a signature of whoever began the chain of entry {index}", f"one by {kid}")
        return payload


def _refuse(need: str, found: str) -> LogRepairError:
    return LogRepairError(
        need=need,
        found=ascii(found)[1:-1][:200],
        remedy="take another bundle, which others keep; nothing was changed",
    )
