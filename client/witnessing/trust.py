# SPDX-License-Identifier: Apache-2.0
"""Which witnesses this node believes, contract by contract.

A witness key is worth nothing by what the broker says of it. It counts for a contract if a statement names it
that is signed by the key of a contributor or of the auditor of that contract: the pinned key, or the one in
force since that party changed it. The contract's audit clause says how many of them must cosign; one
organisation has one vote. The broker never has one.

    trust.learn(answer["witnesses"])            keeps what verifies under some contract
    trust.policy_of(held)                       the policy of a contract; None where it has no quorum yet
    trust.demanded(held)                        k of its audit clause; 0: none is required

Statements lie in ``witnesses.json``, the newest of each key. They are verified whenever they are read, so
that the file decides nothing.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from client.settings import write_durably
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.log.errors import LogError
from policies.log.policy import pool_policy
from policies.log.witness_keys import open_statement
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.contract.notices import Notices
    from client.contract.shelf import ContractShelf, Held
    from client.settings import Home
    from policies.contract.clauses import PartyClause
    from policies.log.policy import Policy
    from policies.log.vkeys import VerifierKey
    from policies.log.witness_keys import WitnessStatement

__all__ = ["Trust"]

_MOST: Final = 128
_VOTERS: Final = frozenset({"contributor", "auditor"})


class Trust:
    """See the module."""

    def __init__(
        self,
        home: Home,
        shelf: ContractShelf,
        notices: Notices,
        *,
        log_key: VerifierKey,
        broker: bytes,
        log_keys: Callable[[], tuple[VerifierKey, ...]] | None = None,
    ) -> None:
        """Takes the pinned key of the log, and what gives every key that is believed by now."""
        self._path = home.root / "witnesses.json"
        self._shelf = shelf
        self._notices = notices
        self._log_key = log_key
        self._log_keys = log_keys or (lambda: (log_key,))
        self._broker = broker
        self._read: tuple[tuple[int, int], tuple[Envelope, ...]] = ((0, 0), ())

    # --- contracts ---

    def contracts(self) -> tuple[Held, ...]:
        """Executed contracts of this node."""
        found = []
        for contract in self._shelf.digests():
            try:
                held = self._shelf.get(contract)
            except IriaiError:
                continue
            if held.is_executed:
                found.append(held)
        return tuple(found)

    def demanded(self, held: Held) -> int:
        """How many witnesses the contract demands of this log; 0 for none."""
        clause = held.contract.audit
        return 0 if clause is None else clause.witness_quorum

    def voters(self, held: Held) -> tuple[PartyClause, ...]:
        """Parties of the contract that may witness."""
        return tuple(one for one in held.contract.parties if one.role in _VOTERS)

    def stated(self, held: Held) -> int:
        """How many of them stated a key that counts."""
        return len(self._keys_of(held))

    def policy_of(self, held: Held) -> Policy | None:
        """The policy of a contract; None where nobody is required and nobody known, or too few are.

        Where the contract requires nobody, what is known of its parties is asked for all the same: a receipt
        that they vouch for is worth more.
        """
        keys = self._keys_of(held)
        if not keys:
            return None
        try:
            return pool_policy(
                logs=self._log_keys(),
                broker=self._broker,
                witnesses={name: (key,) for name, key in keys.items()},
                k=self.demanded(held) or None,
            )
        except LogError:  # fewer keys than the contract demands, or one key in two statements
            return None

    def _keys_of(self, held: Held) -> dict[str, VerifierKey]:
        found: dict[str, VerifierKey] = {}
        for party, key in self._signers(held):
            said = [one for one in (self._opened(each, key) for each in self.statements()) if one is not None]
            mine = [one for one in said if one.org in {party.org, party.party}]
            if mine:
                found[party.party] = max(mine, key=lambda one: one.time_ms).key
        return found

    def _signers(self, held: Held) -> Iterator[tuple[PartyClause, bytes]]:
        """Parties that may witness, with their keys in force."""
        try:
            rotated = self._notices.life(held).rotated
        except IriaiError:
            rotated = {}
        for party in self.voters(held):
            yield party, parse_key(rotated.get(party.party, party.key))

    def _opened(self, envelope: Envelope, key: bytes) -> WitnessStatement | None:
        return _opened(envelope, key, self._log_key.name)

    # --- statements ---

    def statements(self) -> tuple[Envelope, ...]:
        """The statements that are kept."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if self._read[0] != stamp:
                self._read = (stamp, tuple(_envelopes(json.loads(self._path.read_bytes()))))
        except (OSError, ValueError):
            self._read = ((0, 0), ())
        return self._read[1]

    def known(self) -> frozenset[tuple[str, bytes]]:
        """Name and key hash of every witness key that counts for some contract."""
        found = [key for held in self.contracts() for key in self._keys_of(held).values()]
        return frozenset((key.name, key.hash4) for key in found)

    def learn(self, shown: object) -> None:
        """Keeps, of what is kept and what a broker shows, the newest that each key of a contract signed.

        What verifies under no contract is not kept: nothing unsigned takes the place of a statement. An older
        one never takes the place of a newer one: nobody brings back a key that its owner gave up.
        """
        every = (*self.statements(), *_envelopes(shown))
        newest: dict[tuple[str, bytes], tuple[int, Envelope]] = {}
        for key in {key for held in self.contracts() for _, key in self._signers(held)}:
            for envelope in every:
                said = self._opened(envelope, key)
                if said is None:
                    continue
                known = newest.get((said.org, key))
                if known is None or known[0] < said.time_ms:
                    newest[said.org, key] = (said.time_ms, envelope)
        kept = [newest[place][1].to_json() for place in sorted(newest)]
        data = json.dumps(kept, sort_keys=True).encode("utf-8")
        if kept and (not self._path.exists() or self._path.read_bytes() != data):
            write_durably(self._path, data)


@lru_cache(maxsize=1024)
def _opened(envelope: Envelope, key: bytes, log: str) -> WitnessStatement | None:
    """A statement, if this key signed it; asked for in every turn, so that the answer is kept."""
    try:
        return open_statement(envelope, key, log=log)
    except IriaiError:
        return None


def _envelopes(shown: object) -> list[Envelope]:
    found = []
    for one in shown[:_MOST] if isinstance(shown, list) else ():
        document = one.get("statement", one) if isinstance(one, dict) else one
        try:
            found.append(Envelope.from_json(document))
        except IriaiError:
            continue
    return found
