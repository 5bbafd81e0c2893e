# SPDX-License-Identifier: Apache-2.0
"""Keys that may have signed envelopes of members, and whose alias stands where.

Contracts pin keys, notices change them: both are in the bundle, so every key that may be in force anywhere
is known before an entry is read. Which was in force at an entry is decided later
(`policies.verify.members`); a signature holds or does not, whenever it is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.contract.notices import read_notice
from policies.encoding import parse
from policies.errors import IriaiError
from policies.identity import key_id, parse_key
from policies.log.entries import alias
from policies.log.envelope import PAYLOAD_TYPE, check_payload
from policies.log.errors import MemberEnvelopeError
from policies.signing import Envelope, pae
from policies.verify.ledger import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["Keyring", "keyring_of"]

Json = Any
_PLACES = 4_096  # whose aliases are kept at hand
_ALIASES_KEPT = 262_144  # places times organisations
_REMEDY = "send envelopes unchanged"


class Keyring:
    """Keys that may have signed envelopes, by organisation; which were in force where comes later.

    Args:
        aliases: Alias keys by organisation.
        keys: Public keys by organisation.
    """

    def __init__(self, aliases: Mapping[str, bytes], keys: Mapping[str, Iterable[bytes]]) -> None:
        self.orgs = sorted(aliases)
        self._aliases = [aliases[org] for org in self.orgs]
        self.keys = sorted({key for held in keys.values() for key in held})
        numbers = {key: number for number, key in enumerate(self.keys)}
        self._own = {org: [numbers[key] for key in held] for org, held in keys.items()}
        self._loaded = [Ed25519PublicKey.from_public_bytes(key) for key in self.keys]
        self._ids = [key_id(key) for key in self.keys]
        self._known: dict[tuple[str | None, str | None, int | None], dict[str, int]] = {}

    def org_at(self, entry: Entry) -> int:
        """Number of the organisation whose alias is the actor; `NOBODY`."""
        place = (entry.scope, entry.run, entry.round)
        if place not in self._known:
            if len(self._known) >= min(_PLACES, _ALIASES_KEPT // max(len(self.orgs), 1)):
                self._known.clear()
            self._known[place] = {alias(key, *place): at for at, key in enumerate(self._aliases)}
        return self._known[place].get(entry.actor, NOBODY)

    def signer(self, envelope: Envelope, org: int) -> int | None:
        """Number of the key that signed; those of the organisation are tried first."""
        message = pae(envelope.payload_type, envelope.payload)
        first = [] if org == NOBODY else self._own.get(self.orgs[org], [])
        for number in (*first, *(one for one in range(len(self.keys)) if one not in first)):
            for _, signature in envelope.signatures:
                try:
                    self._loaded[number].verify(signature, message)
                except (InvalidSignature, ValueError):
                    continue
                return number
        return None

    def open(self, envelope: Envelope, number: int) -> dict[str, Json]:
        """The payload of an envelope that this key signed.

        Raises:
            MemberEnvelopeError: Another payload type, other signatures beside it, or other fields.
            EncodingError: Not canonical.
        """
        if envelope.payload_type != PAYLOAD_TYPE:
            raise MemberEnvelopeError(
                need=f"payload type {PAYLOAD_TYPE}", found=ascii(envelope.payload_type)[:80], remedy=_REMEDY
            )
        if [hint for hint, _ in envelope.signatures] != [self._ids[number]]:
            raise MemberEnvelopeError(
                need="one signature with the key's own id", found="other signatures or ids", remedy=_REMEDY
            )
        return check_payload(parse(envelope.payload))


def keyring_of(history: History) -> Keyring:
    """The keys that contracts and notices of a bundle name; read before the entries are."""
    keys: dict[str, set[bytes]] = defaultdict(set)
    named = [(one.org, one.key) for contract in history.contracts.values() for one in contract.parties]
    for org, text in [*named, *_changed(history)]:
        try:
            keys[org].add(parse_key(text))
        except IriaiError:
            continue  # nobody can have signed with it
    return Keyring(history.aliases, keys)


def _changed(history: History) -> list[tuple[str, str]]:
    """Organisations, and keys that notices change to."""
    found = []
    for _, data in history.notice_files():
        try:
            notice = read_notice(Envelope.from_bytes(data).payload)
        except IriaiError:
            continue  # AUD-067 names it
        contract = history.contracts.get(notice.contract)
        clause = None if contract is None else contract.party(notice.party)
        if clause is not None and notice.kind == "rotate":
            found.append((clause.org, str(notice.subject)))
    return found
