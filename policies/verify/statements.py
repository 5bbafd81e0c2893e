# SPDX-License-Identifier: Apache-2.0
"""AUD-013, whose witness keys they are: each statement in ``witnesses/`` is by a key of whom it names.

1. It has two signatures at most, and the first one names the key that made it, one of
   - those that contracts in force or once in force name for their parties, and rotations of these: a party's
     witness is stated by them alone;
   - a member's node key, behind its ``org.onboarded``, and what it rotated to: for that member, and where the
     bundle does not tell which one it is, for no organisation that it does tell;
   - an auditor's: for the name under which a vote of two people names this key as the owner's. One person
     enrols an auditor; that must not give the name of another one.
2. It opens under that key, for this log (`policies.log.witness_keys`); its payload is what its name says.

Where the log opened not every key to the reader, a statement by an unknown one is told and no finding. The
work grows with the files: the key is found by its hint, and no other one is tried.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.errors import EncodingError, IriaiError
from policies.identity import key_id, parse_key
from policies.log.entries import EntryType, alias
from policies.log.witness_keys import SIGNATURES, open_statement, witness_name
from policies.signing import Envelope
from policies.verify.approved import approved_what
from policies.verify.owners import MemberKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_statements"]

Json = Any
_UNKNOWN = "signed by no key that a contract or the log names"
_STATE = ("node", "auditor")
_T = EntryType


def check_statements(history: History, report: Report) -> None:
    """AUD-013 about every file in ``witnesses/``."""
    known: _Known | None = None
    unread = 0
    for name, data in history.files.under("witnesses/"):
        known = _Known.read(history) if known is None else known
        try:
            why = _not_stated(history, name, Envelope.from_bytes(data), known)
        except EncodingError as error:
            why = f"needs {error.need}; found {error.found}"
        if why == _UNKNOWN and not known.whole:
            unread += 1
        elif why:
            report.add("AUD-013", f"{name}: {why}")
    if unread:
        report.not_checked(
            f"AUD-013: whose {unread} of the log's witness keys are: who signed for them is not opened to"
            " you. Normal in a member's view, or under a grant without the field key; witnesses of your own"
            " policy count all the same"
        )


def _not_stated(history: History, name: str, envelope: Envelope, known: _Known) -> str:
    """Why nobody of this log stands behind a statement; empty if somebody does."""
    if not 0 < len(envelope.signatures) <= SIGNATURES:  # 1.
        return f"{len(envelope.signatures)} signatures"
    hint = envelope.signatures[0][0]
    key = known.keys.get(hint)
    if key is None:
        return _UNKNOWN
    try:  # 2.
        said = open_statement(envelope, key, log=history.checkpoint.origin)
    except IriaiError as error:
        return f"{error.code}: needs {error.need}; found {error.found}"
    if not known.may_state(key, said.org):
        return f"signed by {' '.join(sorted(known.owners[key])) or 'another'} about {said.org}"
    named = said.digest.removeprefix("sha256:")
    return "" if name == f"witnesses/{named}.json" else f"its payload has digest {named}"


@dataclass
class _Known:
    """Keys that may sign statements.

    Attributes:
        keys: By their hints, raw.
        parties: Organisations of contracts, with the keys that these name.
        owners: For whom a key may speak.
        free: Members' keys of which the bundle does not say whose they are.
        shown: Members that it does tell.
        whole: Whether the log opened every key of a node or an auditor.
        strict: Whether every contract is there to be read.
    """

    strict: bool
    keys: dict[str, bytes] = field(default_factory=dict)
    parties: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    owners: dict[bytes, set[str]] = field(default_factory=lambda: defaultdict(set))
    free: set[bytes] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    whole: bool = True

    @classmethod
    def read(cls, history: History) -> _Known:
        """Of a bundle."""
        known = cls(strict=history.grade == "auditor")
        for org, text in _parties(history):
            known._party(org, text)
        known._hear(history)
        for name, text in _voted(history):
            raw = _raw(text)
            if raw is not None:
                known.owners[raw].add(name)
        return known

    def may_state(self, key: bytes, org: str) -> bool:
        """Whether a key may state the witness of an organisation or auditor."""
        if org in self.parties and (self.strict or key in self.parties[org]):
            return key in self.parties[org]
        return org in self.owners[key] or (key in self.free and org not in self.shown)

    def _party(self, org: str, text: str) -> None:
        raw = _raw(text)
        if raw is not None:
            self.keys.setdefault(key_id(raw), raw)
            self.parties[org].add(raw)
            self.owners[raw].add(org)

    def _hear(self, history: History) -> None:
        """Keys of nodes and auditors, as far as the log opened them."""
        members = MemberKeys(history)
        orgs = {alias(key, None, None, None): org for org, key in history.aliases.items()}
        for index, entry in history.of(_T.ORG_ONBOARDED, _T.KEY_ADDED, _T.KEY_ROTATED):
            members.hear(index, entry)
            told = history.opened.get(index, {})
            if entry.type is _T.ORG_ONBOARDED:
                orgs.setdefault(entry.pub["org"], str(told.get("org", "")))
                self.shown.add(orgs[entry.pub["org"]])
            elif entry.pub["role"] in _STATE:
                name, field_name = ("kid", "key") if entry.type is _T.KEY_ADDED else ("new", "vkey")
                owner = members.owner(entry.pub[name])
                self._opened(told.get(field_name), entry.pub[name], owner, orgs.get(owner or ""))

    def _opened(self, text: Json, kid: str, owner: str | None, org: str | None) -> None:
        raw = _raw(text)
        if raw is None or digest(raw) != kid:
            self.whole = False
            return
        self.keys.setdefault(key_id(raw), raw)
        if org:
            self.owners[raw].add(org)
        elif owner:
            self.free.add(raw)


def _parties(history: History) -> Iterator[tuple[str, str]]:
    """Organisations and keys, of contracts that were final; rotations count."""
    for named, steps in history.lives.items():
        contract = history.contracts.get(named)
        if contract is None or not steps:
            continue
        for party in contract.parties:
            later = {life.rotated.get(party.party, party.key) for _, life in steps}
            yield from ((party.org, key) for key in (party.key, *sorted(later)))


def _voted(history: History) -> Iterator[tuple[str, str]]:
    """Names and keys of auditors, as the documents say that gave them a vote."""
    for index in history.actions:
        entry = history.entries[index]
        if (entry.pub["action"], entry.pub["result"]) != ("witness.add", "done"):
            continue
        what = approved_what(history, "witness.add", entry.pub["subject"]) or {}
        owner, key = what.get("owner"), what.get("owner_key")
        if isinstance(owner, str) and what.get("witness") == witness_name(owner):
            yield owner, str(key)


def _raw(text: object) -> bytes | None:
    try:
        return parse_key(text) if isinstance(text, str) else None
    except IriaiError:
        return None
