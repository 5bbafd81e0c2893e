# SPDX-License-Identifier: Apache-2.0
"""The life of each contract as its notices make it: who halted or left, which keys are in force, what ended.

1. `read_lives` folds the notices of the bundle in the order of their entries, by the code that node and
   broker run (`policies.contract.lifecycle`): each is opened under the keys that are in force at that index.
   Attestations and admissions have no entry; they are taken when a later number of their party shows that
   they came before. A void notice has an entry and no effect. `History.life_before` then answers for every
   index.
2. `check_lives`, once it is known who signed which envelope: entries are by the party of their notice, an end
   is one that the life has come to, and nothing happens under a halt, after an end, or by who has left.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from policies.contract.entering import TIGHTEN, inherited
from policies.contract.lifecycle import absorb, begin, superseded, too_early
from policies.contract.notices import read_notice
from policies.encoding import digest
from policies.errors import EncodingError, IriaiError
from policies.identity import parse_key
from policies.log.entries import EntryType
from policies.signing import Envelope, parse_envelope_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.lifecycle import Life
    from policies.contract.notices import Notice
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_halts", "check_lives", "read_lives"]

_T = EntryType
_KINDS: Final[Mapping[EntryType, str]] = {
    _T.CONTRACT_HALTED: "halt",
    _T.CONTRACT_RESUMED: "resume",
    _T.CONTRACT_EXITED: "exit",
    _T.KEY_ROTATED: "rotate",
}
_FOLLOWED = (*_KINDS, _T.CONTRACT_FINALIZED, _T.CONTRACT_AMENDED)
_UNLOGGED = frozenset({"admit", "attest"})
_STOPPED_BY_HALT = (
    _T.RUN_OPENED,
    _T.ROUND_OPENED,
    _T.AGGREGATE_RELEASED,
    _T.MODEL_RELEASED,
    _T.MODEL_EXPORTED,
)
_STOPPED_BY_END = (_T.RUN_OPENED, _T.ROUND_OPENED, _T.AGGREGATE_RELEASED, _T.MODEL_RELEASED)


class _Reader:
    """Folds notices; one per bundle."""

    def __init__(self, history: History, report: Report) -> None:
        self._history = history
        self._report = report
        self._lives: dict[str, Life] = {}
        self._notices: dict[str, tuple[Notice, Envelope]] = {}
        self._unlogged: dict[tuple[str, str], dict[int, Envelope]] = defaultdict(dict)
        self._used: set[str] = set()
        self._taken: dict[str, list[Envelope]] = defaultdict(list)

    def read(self) -> None:
        """Every notice, then every entry that changes a life."""
        for named, data in self._history.notice_files():
            self._read_notice(named, data)
        for index, entry in self._history.of(*_FOLLOWED):
            self._follow(index, entry)
        if self._history.grade == "auditor":
            for named, (notice, _) in sorted(self._notices.items()):
                if notice.kind not in _UNLOGGED and named not in self._used:
                    self._report.add("AUD-067", f"a notice of {notice.party} that no entry names: {named}")

    def _read_notice(self, named: str, data: bytes) -> None:
        try:
            obj = parse_envelope_json(data)
            envelope = Envelope.from_json(obj)
            notice = read_notice(envelope.payload)
        except EncodingError as error:
            self._report.add("AUD-067", f"{named}: needs {error.need}; found {error.found}")
            return
        except IriaiError as error:
            self._report.add("AUD-067", f"{named}: {error.code}: needs {error.need}; found {error.found}")
            return
        if notice.digest != named or envelope.to_json() != obj:
            self._report.add("AUD-067", f"{named}: the bytes are those of {notice.digest}")
            return
        self._notices[named] = (notice, envelope)
        if notice.kind in _UNLOGGED:
            self._unlogged[(notice.contract, notice.party)][notice.seq] = envelope
            self._history.attested.setdefault(notice.contract, {})[named] = notice

    def _follow(self, index: int, entry: Entry) -> None:
        if entry.type is _T.CONTRACT_FINALIZED:
            self._finalize(index, entry)
        elif entry.type is _T.CONTRACT_AMENDED:
            self._amend(index, entry)
        elif entry.scope is not None:
            self._take(index, entry)

    def _amend(self, index: int, entry: Entry) -> None:
        """The old contract is superseded; one that only tightens it goes on with its life from here on.

        What was said about the successor while it waited comes after that.
        """
        before, new = self._lives.get(entry.pub["old"]), self._history.contracts.get(entry.pub["new"])
        if before is not None and not before.ended:
            self._set(entry.pub["old"], index, superseded(before, entry.pub["new"], entry.ts))
        known = None if new is None else self._lives.get(new.digest)
        if entry.pub["kind"] != TIGHTEN or new is None or known is None or before is None:
            return
        life = inherited(before, new, finalized_at=str(known.finalized_at))
        for envelope in self._taken[new.digest]:
            with contextlib.suppress(IriaiError):  # it held once, and there is a finding if it did not
                life, _, _ = absorb(new, life, envelope)
        self._set(new.digest, index, life)

    def _finalize(self, index: int, entry: Entry) -> None:
        contract = self._history.contracts.get(entry.pub["contract"])
        if contract is not None and contract.digest not in self._lives:
            self._set(contract.digest, index, begin(contract, finalized_at=entry.ts))

    def _take(self, index: int, entry: Entry) -> None:
        rule = "AUD-085" if entry.type is _T.KEY_ROTATED else "AUD-067"
        found = self._notice_of(entry)
        if found is None:
            if self._history.grade == "auditor":
                self._report.add(rule, f"{entry.type} without its notice in the bundle", index=index)
            else:
                self._report.not_checked("AUD-067, 085: notices of others (this is a member's bundle)")
            return
        notice, envelope = found
        wrong = _differs(entry, notice)
        if wrong:
            self._report.add(rule, "the notice differs: " + " ".join(wrong), index=index)
        self._history.notices_of[index] = notice
        self._used.add(notice.digest)
        contract, life = self._history.contracts.get(notice.contract), self._lives.get(notice.contract)
        if contract is None or life is None:
            self._report.add(rule, "a notice about a contract that is not final", index=index)
            return
        try:
            life = self._unlogged_before(notice, life)
            self._check_old(index, entry, notice, life)
            life, _, void = absorb(contract, life, envelope)  # a void one uses its number and nothing else
            self._taken[contract.digest].append(envelope)
        except IriaiError as error:
            self._report.add(rule, f"{error.code}: needs {error.need}; found {error.found}", index=index)
            return
        if too_early(life, notice):
            self._report.add(rule, f"a notice of {notice.at}, before the contract was final", index=index)
        if void is not None:
            self._history.void[index] = void.code
        self._set(contract.digest, index, life)

    def _check_old(self, index: int, entry: Entry, notice: Notice, life: Life) -> None:
        clause = self._history.contracts[notice.contract].party(notice.party)
        if entry.type is _T.KEY_ROTATED and clause is not None:
            held = life.rotated.get(notice.party, clause.key)
            if digest(parse_key(held)) != entry.pub["old"]:
                self._report.add("AUD-085", f"not the key of {notice.party} that it gives up", index=index)

    def _unlogged_before(self, notice: Notice, life: Life) -> Life:
        contract = self._history.contracts[notice.contract]
        waiting = self._unlogged[(notice.contract, notice.party)]
        while life.next_seq(notice.party) < notice.seq and life.next_seq(notice.party) in waiting:
            earlier = waiting[life.next_seq(notice.party)]
            life, _, _ = absorb(contract, life, earlier)
            self._taken[contract.digest].append(earlier)
        return life

    def _notice_of(self, entry: Entry) -> tuple[Notice, Envelope] | None:
        if entry.type is not _T.KEY_ROTATED:
            return self._notices.get(entry.pub["notice"])
        for notice, envelope in self._notices.values():
            if (notice.kind, notice.contract) == ("rotate", entry.scope) and _kid(notice) == entry.pub["new"]:
                return notice, envelope
        return None

    def _set(self, contract: str, index: int, life: Life) -> None:
        self._lives[contract] = life
        self._history.lives[contract].append((index, life))


def _kid(notice: Notice) -> str:
    try:
        return digest(parse_key(str(notice.subject)))
    except IriaiError:
        return ""


def _differs(entry: Entry, notice: Notice) -> list[str]:
    """Names of what an entry says otherwise than its notice."""
    said: dict[str, object] = {"kind": _KINDS[entry.type], "contract": entry.scope}
    if entry.type is not _T.KEY_ROTATED:
        said |= {"code": entry.pub["reason"], "clause": entry.pub["clause"]}
        if entry.pub["contract"] != entry.scope:
            said["contract"] = entry.pub["contract"]
    return sorted(name for name, value in said.items() if getattr(notice, name) != value)


def read_lives(history: History, report: Report) -> None:
    """AUD-067 and AUD-085 about notices; fills `History.lives`, `History.notices_of`, `History.attested`."""
    _Reader(history, report).read()


def check_lives(history: History, report: Report) -> None:
    """The senders' half of AUD-067 and AUD-085, and ends."""
    for index, notice in sorted(history.notices_of.items()):
        _check_maker(history, index, notice, report)
    for index, entry in history.of(_T.CONTRACT_TERMINATED, _T.CONTRACT_EXPIRED):
        _check_end(history, index, entry, report)
    _check_told(history, report)
    report.facts["halted"] = sorted(
        name for name, steps in history.lives.items() if steps and steps[-1][1].halts
    )


def check_halts(history: History, report: Report) -> None:
    """AUD-057: nothing happens under a halt, after an end, or by who has left."""
    over = {entry.scope: index for index, entry in history.of(_T.CONTRACT_EXPIRED)}
    for index, entry in history.of(*_STOPPED_BY_HALT):
        life = history.life_before(entry.scope, index)
        if life is not None:
            for why in _stopped(entry, life, expired=over.get(entry.scope, index) < index):
                report.add("AUD-057", f"{entry.type} {why}", index=index)
    for index, _ in history.of(_T.AGGREGATE_RELEASED):
        halts = [one for life in _lives(history, index)[1:] for one in life.halts]
        if halts:
            report.add("AUD-057", f"averaged while {halts[0].digest} halts the successor", index=index)
    _check_gone(history, report)


def _check_gone(history: History, report: Report) -> None:
    for index, entry in history.of(_T.CONTRIBUTION_ACCEPTED):
        gone = {name for life in _lives(history, index) for name in life.exited}
        sent = {history.sender_party(ref) or "" for ref in entry.refs}
        for name in sorted(sent & gone):
            report.add("AUD-057", f"an update of {name}, which has left", index=index)


def _lives(history: History, index: int) -> list[Life]:
    """Lives that bind what an entry says: its contract's, then those of the successors in effect by then."""
    chain = history.successors(history.entries[index].scope or "", before=index)
    return [life for one in chain if (life := history.life_before(one, index)) is not None]


def _stopped(entry: Entry, life: Life, *, expired: bool) -> Iterator[str]:
    """Why this should not have happened in this life."""
    if life.halts:
        yield f"while {life.halts[0].digest} halts"
    if expired and entry.type in _STOPPED_BY_END:
        yield "after the end of the term"
    if life.terminated is not None and entry.type in _STOPPED_BY_END:
        yield f"after the end by {life.terminated.clause}"
    if life.superseded_by is not None and entry.type in (_T.RUN_OPENED, _T.ROUND_OPENED):
        yield "under a superseded contract"


def _check_maker(history: History, index: int, notice: Notice, report: Report) -> None:
    """A contributor's notice comes with its own envelope; the broker logs for itself and for the auditor.

    A rotation may be brought by others, where the old key is lost: it carries the signatures that it needs.
    """
    entry, contract = history.entries[index], history.contracts.get(notice.contract)
    clause = None if contract is None else contract.party(notice.party)
    brought = notice.kind == "rotate" and entry.env is None
    if clause is None or brought or (entry.env is not None and history.grade != "auditor"):
        return
    rule = "AUD-085" if notice.kind == "rotate" else "AUD-067"
    if clause.role == "contributor":
        if history.sender_party(index) != notice.party:
            report.add(rule, f"a notice of {notice.party} under the envelope of somebody else", index=index)
    elif entry.env is not None:
        report.add(rule, f"a notice of {notice.party} under the envelope of a member", index=index)


def _check_end(history: History, index: int, entry: Entry, report: Report) -> None:
    contract, life = history.contracts.get(entry.pub["contract"]), history.life_before(entry.scope, index)
    if contract is not None and life is None and entry.type is _T.CONTRACT_TERMINATED:
        later = [
            at for at, one in history.of(_T.CONTRACT_FINALIZED) if one.pub["contract"] == contract.digest
        ]
        if later:  # else: a negotiation that ended without a contract
            report.add("AUD-067", "final after its negotiation had ended without a contract", index=later[0])
        return
    if contract is None or life is None:
        report.add("AUD-067", f"{entry.type} of a contract that is not final", index=index)
    elif entry.type is _T.CONTRACT_EXPIRED:
        if entry.ts[:16] < contract.term.expires[:16]:
            report.add(
                "AUD-067", f"expired at {entry.ts}, the term ends {contract.term.expires}", index=index
            )
    elif life.terminated is None:
        report.add("AUD-067", "terminated, and no notice has ended it", index=index)
    elif (entry.pub["reason"], entry.pub["clause"]) != life.terminated:
        report.add(
            "AUD-067", f"terminated by {entry.pub['clause']}, not {life.terminated.clause}", index=index
        )


def _check_told(history: History, report: Report) -> None:
    """A life that came to an end by a notice has its `contract.terminated`."""
    told = {entry.pub["contract"] for _, entry in history.of(_T.CONTRACT_TERMINATED)}
    for name, steps in history.lives.items():
        ended = next((index for index, life in steps if life.terminated is not None), None)
        if ended is not None and name not in told:
            report.add("AUD-067", "it ended the contract, and no entry says so", index=ended)
