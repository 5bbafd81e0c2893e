# SPDX-License-Identifier: Apache-2.0
"""Step 6: whose envelopes they are, chains and aliases of members.

Whose envelope it is follows from the signature, never from a name in it: the organisation's alias key gives
the candidate, the contract pins the candidate's key or a notice rotated it, and the key must have been added
to the log before and not revoked or rotated away.

`policies.verify.scan` found which key signed each envelope; here it is seen whether that key was in force,
with the rows of all entries in one pass. Envelopes that no key of a contract or notice signed are tried
with the auditors' keys.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.encoding import digest
from policies.errors import EncodingError, IdentityError
from policies.identity import fingerprint, key_text, parse_key
from policies.log.bundle import TILE
from policies.log.entries import EntryType
from policies.log.envelope import ChainState, open_envelope
from policies.log.errors import ChainError, MemberEnvelopeError, SeenError, SeqGapError, SlotTakenError
from policies.verify.history import Maker
from policies.verify.ledger import AUDITOR, CLOSES, CODES, ENVELOPED, NOBODY, SIGNED, UNTRIED
from policies.verify.scan import agreement, envelope_row
from policies.verify.spill import Doubles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.log.entries import Entry
    from policies.signing import Envelope
    from policies.verify.history import History
    from policies.verify.keyring import Keyring
    from policies.verify.ledger import Row
    from policies.verify.report import Report

__all__ = ["check_aliases", "check_chains", "check_envelopes", "check_ids"]

Json = Any
_ENDLESS = 2**60
_ROTATED = CODES[EntryType.KEY_ROTATED]
_RELEASED = CODES[EntryType.MODEL_RELEASED]
_ACTION = CODES[EntryType.CONSOLE_ACTION]
_BEGINNERS = frozenset({CODES[EntryType.CHAIN_RESET], CODES[EntryType.AUDIT_CONCLUDED]})
"""What may stand first on a further chain of somebody."""


def check_envelopes(history: History, keyring: Keyring, report: Report) -> None:
    """AUD-041 and the sender's half of AUD-049; fills `History.senders`, `heard` and `actions`."""
    seen, ledger = _Senders(history, keyring, report), history.ledger
    for start in range(0, history.size, TILE):
        end = min(start + TILE, history.size)
        numbers = array("I", [0] * (end - start))
        for index, row in ledger.rows(start, end):
            number = seen.sender(index, row) if row.flags & ENVELOPED else 0
            seen.hear(index, row, number)
            numbers[index - start] = number
        ledger.set_senders(start, numbers)


class _Lifetime(NamedTuple):
    """Where a key of the log was added, and from where on it is not valid any more."""

    start: int
    end: int


class _Senders:
    """Who sent each entry, in log order."""

    def __init__(self, history: History, keyring: Keyring, report: Report) -> None:
        self._history, self._keyring, self._report = history, keyring, report
        self._texts = [key_text(key) for key in keyring.keys]
        self._lifetimes = _lifetimes(history, report)
        self._changes = sorted(index for steps in history.lives.values() for index, _ in steps)
        self._pairs: dict[tuple[str | None, int], dict[str, list[str]]] = {}
        self._numbers: dict[Maker, int] = {}
        self._spans: dict[str, _Lifetime] = {}
        self._last: dict[tuple[bytes, int], int] = {}

    def sender(self, index: int, row: Row) -> int:
        """Number of who sent an entry; 0 after a finding."""
        if row.flags & UNTRIED:
            maker = self._tried(index, row)
        elif row.flags & SIGNED:
            maker = self._in_force(index, row)
        else:
            return 0
        if maker is None:
            return 0
        self._check_lifetime(maker, index)
        if maker not in self._numbers:
            self._history.makers.append(maker)
            self._numbers[maker] = len(self._history.makers)
        return self._numbers[maker]

    def hear(self, index: int, row: Row, number: int) -> None:
        """Keeps actions, the last entry of each sender in a contract, and what that was at each release."""
        if row.code == _ACTION and 0 < row.request < CLOSES:
            self._history.actions.append(index)
        if row.code == _RELEASED:
            last: dict[str, int] = {}
            for (scope, sender), at in self._last.items():
                if scope == row.scope:
                    org = self._history.makers[sender - 1].org
                    last[org] = max(at, last.get(org, -1))
            self._history.heard[index] = last
        if number:
            self._last[row.scope, number] = index

    def _in_force(self, index: int, row: Row) -> Maker | None:
        text = self._texts[row.key]
        orgs = self._holders(index, row).get(text, [])
        if not orgs:
            self._report.add("AUD-041", "no key in force of a contract's party has signed it", index=index)
            return None
        wanted = None if row.wanted == NOBODY else self._keyring.orgs[row.wanted]
        org = wanted if wanted in orgs else orgs[0]
        if org != wanted and org in self._history.aliases:
            actor = row.actor.hex()
            self._report.add("AUD-049", f"actor {actor} is not the alias of the signer", index=index)
        elif org != wanted:
            self._report.not_checked(f"AUD-049: aliases of {org}: its alias key is not in the bundle")
        return Maker(str(org), text)

    def _holders(self, index: int, row: Row) -> dict[str, list[str]]:
        """Organisations, sorted, by each of their keys that is in force at an entry."""
        scope, rotates = row.scope_digest, row.code == _ROTATED
        place = (scope, bisect_left(self._changes, index))
        if not rotates and place in self._pairs:
            return self._pairs[place]
        found: dict[str, list[str]] = {}
        for org, key in sorted(_pairs_at(self._history, scope, index, rotates=rotates)):
            found.setdefault(key, []).append(org)
        if not rotates:
            if len(self._pairs) > _KEPT:
                self._pairs.clear()
            self._pairs[place] = found
        return found

    def _tried(self, index: int, row: Row) -> Maker | None:
        """The short way: no key of a contract has signed it, so only an auditor's can have."""
        entry, envelope = self._history.entries[index], self._history.envelopes.get(index)
        for key in _auditor_keys(self._history, index) if row.flags & AUDITOR and envelope else ():
            public = parse_key(key)
            if envelope is None or not envelope.signed_by(public):
                continue
            return self._auditors(index, row, entry, envelope, key)
        if row.flags & AUDITOR and _has_closed_key(self._history, index):
            self._report.not_checked("AUD-041: conclusions of auditors whose keys are not disclosed")
            return None
        self._report.add("AUD-041", "no key in force of a contract's party has signed it", index=index)
        return None

    def _auditors(self, index: int, row: Row, entry: Entry, envelope: Envelope, key: str) -> Maker | None:
        public = parse_key(key)
        try:
            payload = open_envelope(envelope, public)
        except (MemberEnvelopeError, EncodingError, IdentityError) as error:
            self._report.add("AUD-041", f"needs {error.need}; found {error.found}", index=index)
            return None
        different = agreement(entry, payload, self._history.opened.get(index, {}))
        if different:
            self._report.add("AUD-042", " ".join(different), index=index)
        self._history.ledger.write(index, [envelope_row(row, entry, payload)])
        return Maker(f"auditor {fingerprint(public)}", key)

    def _check_lifetime(self, maker: Maker, index: int) -> None:
        if maker.key not in self._spans:
            unknown = _Lifetime(_ENDLESS, 0)
            self._spans[maker.key] = self._lifetimes.get(digest(parse_key(maker.key)), unknown)
        span = self._spans[maker.key]
        if not span.start < index:
            self._report.add("AUD-041", "the key was not added to the log before", index=index)
        elif index >= span.end:
            self._report.add("AUD-041", f"the key was revoked from index {span.end} on", index=index)


_KEPT = 1_024


def _pairs_at(history: History, scope: str | None, index: int, *, rotates: bool) -> set[tuple[str, str]]:
    """Organisations with a key in force: (org, key text)."""
    scoped = history.contracts.get(scope or "")
    before = None if scoped is None else history.contracts.get(scoped.supersedes or "")
    contracts = list(history.contracts.values())
    if scoped is not None:  # who signs a successor may have changed its key under the contract that rules
        contracts = [one for one in (scoped, before) if one is not None]
    moments = (index, index + 1) if rotates else (index,)  # by the old key or the new
    return {
        (one.org, history.key_before(contract, one, at))
        for contract in contracts
        for one in contract.parties
        for at in moments
    }


def _auditor_keys(history: History, index: int) -> Iterator[str]:
    """Keys of auditors that were enrolled before an entry; those that are not opened cannot be tried."""
    for at, entry in history.of(EntryType.KEY_ADDED):
        if at < index and entry.pub["role"] == "auditor":
            told = history.opened.get(at, {}).get("key")
            if isinstance(told, str) and _names(told, entry.pub["kid"]):
                yield told


def _has_closed_key(history: History, index: int) -> bool:
    """Whether the key of some auditor who was enrolled before an entry is not disclosed."""
    return any(
        at < index and entry.pub["role"] == "auditor" and "key" not in history.opened.get(at, {})
        for at, entry in history.of(EntryType.KEY_ADDED)
    )


def _names(text: str, kid: str) -> bool:
    try:
        return digest(parse_key(text)) == kid
    except IdentityError:
        return False


def _lifetimes(history: History, report: Report) -> dict[str, _Lifetime]:
    """Per key digest: the index that added it, and the index from which it is not valid any more.

    A revocation counts from its own entry at the latest, and no later one takes it back.
    """
    lifetimes: dict[str, _Lifetime] = {}
    for index, entry in history.of(EntryType.KEY_ADDED):
        lifetimes.setdefault(entry.pub["kid"], _Lifetime(index, _ENDLESS))
    for index, entry in history.of(EntryType.KEY_ROTATED):
        # it may sign the rotation itself
        lifetimes.setdefault(entry.pub["new"], _Lifetime(index - 1, _ENDLESS))
    for index, entry in history.of(EntryType.KEY_REVOKED):
        kid, until = entry.pub["kid"], entry.pub["valid_until"]
        if until > index:
            report.add("AUD-085", f"a revocation that leaves the key valid until {until}", index=index)
        if kid in lifetimes:
            start, end = lifetimes[kid]
            lifetimes[kid] = _Lifetime(start, min(end, until, index))
    return lifetimes


def check_chains(history: History, report: Report) -> None:
    """AUD-043 to AUD-046 along every chain, in log order; AUD-047 where one begins beside another."""
    states: dict[bytes, ChainState] = {}
    owners: dict[bytes, str] = {}
    for index, number, row in history.ledger.sent():
        org = history.makers[number - 1].org
        if row.chain not in owners and row.code not in _BEGINNERS and org in owners.values():
            report.add("AUD-047", f"{org} begins chain {row.chain.hex()} without a chain.reset", index=index)
        if owners.setdefault(row.chain, org) != org:
            report.add("AUD-041", f"chain {row.chain.hex()} belongs to another organisation", index=index)
            continue
        state = states.get(row.chain) or ChainState(chain=row.chain.hex())
        states[row.chain] = _step(state, row, index, report)
        _check_seen(history, row, index, report)
    report.facts["chains"] = len(states)


def _step(state: ChainState, row: Row, index: int, report: Report) -> ChainState:
    """The state after a payload; after a finding the chain goes on from that payload."""
    prev = f"sha256:{row.prev.hex()}" if row.seq else None
    own = f"sha256:{row.env.hex()}"
    try:
        return state.after(seq=row.seq, prev=prev, seen_size=row.seen_size, digest=own)
    except SeqGapError as error:
        report.add("AUD-043", f"needs {error.need}; found seq {error.found}", index=index)
    except SlotTakenError as error:
        report.add("AUD-044", f"needs {error.need}; found seq {error.found} again", index=index)
    except SeenError as error:
        report.add("AUD-046", f"needs {error.need}; found {error.found}", index=index)
    except ChainError as error:
        report.add("AUD-043", f"needs {error.need}; found {error.found}", index=index)
    return ChainState(
        chain=state.chain,
        next_seq=max(state.next_seq, row.seq + 1),
        prev=own,
        seen_size=max(state.seen_size, row.seen_size),
    )


def _check_seen(history: History, row: Row, index: int, report: Report) -> None:
    if row.seen_size > index:
        report.add("AUD-045", f"saw size {row.seen_size} before it was in the log", index=index)
    elif history.tree.root(row.seen_size) != row.seen_root:
        report.add("AUD-045", f"saw another root at size {row.seen_size}", index=index)


def check_ids(history: History, report: Report) -> None:
    """AUD-035 for events, and AUD-048 for envelopes, that stand twice."""
    doubles = Doubles()
    doubles.add((name[:8], index) for index, (name,) in history.ledger.columns("id"))
    for group in doubles.groups():
        first: dict[bytes, int] = {}
        for index in group:
            row = history.ledger.row(index)
            if first.setdefault(row.id, index) == index:
                continue
            before = first[row.id]
            report.add("AUD-035", f"the same event as entry {before}", index=index)
            env = history.entries[index].env
            if env is not None and env == history.entries[before].env:
                report.add("AUD-048", f"the envelope of entry {before} again", index=index)


def check_aliases(history: History, report: Report) -> None:
    """AUD-049 for aliases in clear fields."""
    for index, entry in history.of(EntryType.CONTRACT_SIGNED, EntryType.ORG_ONBOARDED):
        if entry.type is EntryType.CONTRACT_SIGNED and entry.pub["party"] != entry.actor:
            report.add("AUD-049", "signed for another party", index=index)
        if entry.type is EntryType.ORG_ONBOARDED:
            _check_onboarded(history, index, report)


def _check_onboarded(history: History, index: int, report: Report) -> None:
    entry = history.entries[index]
    org = history.org_of(entry.pub["org"], entry)
    told = history.opened.get(index, {}).get("org")
    if org is None:
        report.not_checked("AUD-049: an organisation whose alias key is not in the bundle")
    if told is not None and org != told:
        report.add("AUD-049", "the alias is not that of the organisation it names", index=index)
