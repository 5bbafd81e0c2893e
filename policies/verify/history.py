# SPDX-License-Identifier: Apache-2.0
"""The history in a bundle, as far as it can be read; what every later rule works on.

Entries, envelopes, decisions and disclosures stay in the bundle and are read when a rule asks for them
(`policies.verify.store`). What is held in memory belongs to contracts, runs and releases, not to entries.

A rule about what happens in runs is given one run after the other: `History.view` is the same history, of
which `History.of` and `History.attempts` show one run. Everything else is whole in a view too, so a rule
finds any entry that is referred to, wherever it is. What belongs to no run, contracts and keys for
example, is in every view.
"""

from __future__ import annotations

import copy
import heapq
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.encoding import digest, digest_of
from policies.log.entries import Entry, EntryType, alias
from policies.log.schema import SCHEMA
from policies.verify.ledger import CODES
from policies.verify.store import Decisions, Entries, Envelopes, Opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.contract.clauses import Contract, PartyClause
    from policies.contract.lifecycle import Life
    from policies.contract.notices import Notice
    from policies.log.checkpoint import Checkpoint
    from policies.log.policy import Policy
    from policies.signing import Envelope
    from policies.verify.ledger import Ledger
    from policies.verify.source import Files
    from policies.verify.spill import SpillTree
    from policies.verify.store import Store

__all__ = ["RUN_KINDS", "Attempt", "AttemptKey", "History", "Maker", "Sender", "Senders"]

Json = Any
AttemptKey = tuple[str | None, int | None, int]
"""Run, round, attempt."""
RESUME = "run.resume"
"""Action of an operator that lets a paused run go on."""
_PLACES = 4_096  # whose aliases are kept at hand
_ALIASES_KEPT = 262_144  # places times organisations
_ATTEMPTED = tuple(kind for kind, schema in SCHEMA.items() if "attempt" in schema.pub)


_T = EntryType
RUN_KINDS = frozenset(
    {
        *(_T.RUN_OPENED, _T.RUN_CLOSED, _T.ROUND_OPENED, _T.ROUND_CLOSED, _T.ROUND_ACK),
        *(_T.SUBMISSION_RECEIVED, _T.CONTRIBUTION_ACCEPTED, _T.CONTRIBUTION_REFUSED),
        *(_T.CONTRIBUTION_WITHDRAWN, _T.EVALUATION_RECEIVED, _T.VOTE_CAST, _T.BUDGET_OPENED),
        *(_T.EPSILON_SPENT, _T.CANARY_COMMITTED, _T.CANARY_REVEALED, _T.AGGREGATE_RELEASED),
        *(_T.SUM_WITHDRAWN, _T.ROUND_VOTED, _T.ROUND_JUDGED, _T.ROUND_SCORED, _T.ROUND_CHOSEN),
        *(_T.DECISION_RECORDED, _T.CANDIDATE_EVALUATED),
        *(_T.MODEL_RELEASED, _T.MODEL_REFUSED, _T.MODEL_EXPORTED),
    }
)
"""Types of what happens in a run; entries of all others belong to no run, whatever they say."""


class Maker(NamedTuple):
    """Whose key it is."""

    org: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Whose key signed an envelope, and the checked payload."""

    org: str
    key: str
    payload: Mapping[str, Json]


@dataclass(slots=True, kw_only=True)
class Attempt:
    """Indexes of the entries of one attempt of one round."""

    opened: int | None = None
    closed: int | None = None
    aggregate: int | None = None
    submissions: list[int] = field(default_factory=list)


class Senders(Mapping[int, Sender]):
    """Who sent entries, by index in order, once `policies.verify.members` has seen them."""

    def __init__(self, store: Store, makers: list[Maker]) -> None:
        self._store = store
        self._makers = makers

    def maker(self, index: int) -> Maker | None:
        """Whose key signed the envelope of an entry; None if nobody's did."""
        number = self._store.ledger.sender(index) if 0 <= index < self._store.size else 0
        return self._makers[number - 1] if number else None

    def __getitem__(self, index: int) -> Sender:
        maker = self.maker(index)
        if maker is None:
            raise KeyError(index)
        return Sender(org=maker.org, key=maker.key, payload=self._store.payload(index))

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self.maker(index) is not None

    def __iter__(self) -> Iterator[int]:
        return (index for index, _ in self._store.ledger.senders())

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(slots=True, kw_only=True)
class History:
    """A bundle that was read. Entries that could not be read are absent, and there is a finding for each.

    Attributes:
        policy: The auditor's own.
        checkpoint: Signed by a log key of the policy.
        grade: ``auditor`` or ``member``: what was asked for, not what the bundle says.
        files: Of the bundle.
        tree: Over the bytes of all entries.
        entries: By index.
        envelopes: By index, as found in the bundle.
        aliases: Alias keys by organisation.
        contracts: By digest, parsed strictly.
        signatures: Of contracts, by digest.
        recipes: Parsed annexes by digest.
        decisions: Records by index.
        opened: Disclosed values that open their commitment, by index and field.
        senders: By index, once members were checked.
        receipted: Indexes of entries with a receipt that the auditor brought and that holds.
        lives: Per contract: the index of each entry that changed its life, and the life after it.
        notices_of: By index, the notice behind an entry.
        void: Indexes of entries whose notice changed nothing, with the code of why.
        attested: Per contract: attestations and admissions in the bundle, by digest.
        cosigned: Sizes from which on more voters of the policy had cosigned, or as many earlier; the time in
            seconds; how many.
        makers: Organisations with keys, by the number of a sender less 1.
        heard: At each release: the last entry before it of each organisation in its contract.
        actions: Console actions that rules look at (`policies.verify.ledger.LOOKED_AT`).
        run: Of a view.
    """

    policy: Policy
    checkpoint: Checkpoint
    grade: str
    files: Files
    tree: SpillTree
    store: Store
    aliases: dict[str, bytes] = field(default_factory=dict)
    contracts: dict[str, Contract] = field(default_factory=dict)
    signatures: dict[str, Envelope] = field(default_factory=dict)
    recipes: dict[str, dict[str, Json]] = field(default_factory=dict)
    receipted: set[int] = field(default_factory=set)
    lives: dict[str, list[tuple[int, Life]]] = field(default_factory=lambda: defaultdict(list))
    notices_of: dict[int, Notice] = field(default_factory=dict)
    void: dict[int, str] = field(default_factory=dict)
    attested: dict[str, dict[str, Notice]] = field(default_factory=dict)
    cosigned: list[tuple[int, int, int]] = field(default_factory=list)
    makers: list[Maker] = field(default_factory=list)
    heard: dict[int, dict[str, int]] = field(default_factory=dict)
    actions: list[int] = field(default_factory=list)
    run: str | None = None
    entries: Entries = field(init=False)
    envelopes: Envelopes = field(init=False)
    decisions: Decisions = field(init=False)
    opened: Opened = field(init=False)
    senders: Senders = field(init=False)
    _own: array[int] | None = None
    _by_alias: dict[tuple[str | None, str | None, int | None], dict[str, str]] = field(default_factory=dict)
    _attempts: dict[AttemptKey, Attempt] | None = None
    _openings: dict[tuple[str | None, int | None], list[int]] | None = None
    _scopes: dict[tuple[str | None, int], set[str | None]] = field(default_factory=dict)
    _runs: dict[str | None, int] | None = None
    _amended: list[tuple[int, str, str]] | None = None
    _resumed: dict[str, list[int]] | None = None
    _released: dict[tuple[str | None, str, str], int] | None = None
    _trained: dict[tuple[str | None, int], set[str]] = field(default_factory=dict)
    _by_kind: dict[EntryType, list[int]] | None = None

    def __post_init__(self) -> None:
        self.entries, self.envelopes = Entries(self.store), Envelopes(self.store)
        self.decisions, self.opened = Decisions(self.store), Opened(self.store)
        self.senders = Senders(self.store, self.makers)

    @property
    def size(self) -> int:
        """Number of entries that the checkpoint signs."""
        return self.checkpoint.size

    @property
    def ledger(self) -> Ledger:
        """One row for every entry."""
        return self.store.ledger

    @property
    def is_whole(self) -> bool:
        """Whether this shows all runs at once."""
        return self._own is None

    def shown(self, run: str | None) -> History:
        """This history if it shows this run, else the view of it."""
        return self if self.is_whole or self.run == run else self.view(run)

    def owns(self, kind: EntryType) -> bool:
        """Whether a rule that goes through all views looks at entries of this type in this one."""
        return self.is_whole or kind in RUN_KINDS or self.run is None

    def view(self, run: str | None) -> History:
        """This history with the entries of one run; with None those that belong to none."""
        made = copy.copy(self)
        made.run, made._own = run, self.ledger.of_run(run)  # noqa: SLF001  of a copy
        made._attempts, made._openings, made._by_kind, made._scopes = None, None, None, {}  # noqa: SLF001
        return made

    @property
    def own(self) -> array[int]:
        """Indexes of the entries of a view's run, ascending."""
        return array("Q") if self._own is None else self._own

    def indexes(self, kind: EntryType) -> Iterator[int]:
        """Indexes of the entries of a type, as `of` has them."""
        return self._indexes(kind)

    def of(self, *kinds: EntryType) -> Iterator[tuple[int, Entry]]:
        """Entries of these types, in order; of a view those of its run, and what belongs to no run.

        Of console actions a view has those that resume its run.
        """
        found = heapq.merge(*(self._indexes(kind) for kind in set(kinds)))
        return ((index, self.entries[index]) for index in found)

    def _indexes(self, kind: EntryType) -> Iterator[int]:
        if self._own is not None and kind in RUN_KINDS:
            return iter(self._own_of(kind))
        if self._own is not None and kind is EntryType.CONSOLE_ACTION:
            return iter(self._resumes().get(digest((self.run or "").encode()), ()))
        return self._all_of(CODES[kind])

    def _all_of(self, code: int) -> Iterator[int]:
        codes, at = self.ledger.codes, -1
        while (at := codes.find(code, at + 1)) >= 0:
            yield at

    def _own_of(self, kind: EntryType) -> list[int]:
        if self._by_kind is None:
            self._by_kind = defaultdict(list)
            for index in self._own or ():
                self._by_kind[self.store.kind(index)].append(index)
        return self._by_kind.get(kind, [])

    def _resumes(self) -> dict[str, list[int]]:
        """Console actions that resume a run, by the digest of its id."""
        if self._resumed is None:
            self._resumed = defaultdict(list)
            for index in self.actions:
                entry = self.entries[index]
                if entry.pub["action"] == RESUME:
                    self._resumed[str(entry.pub["subject"])].append(index)
        return self._resumed

    def prepare(self) -> None:
        """Makes the tables that all views share, before the first one."""
        self._resumes()
        self.run_opened(None)
        self.amendments()
        self.released()

    def released(self) -> dict[tuple[str | None, str, str], int]:
        """The first release of each model, by contract, model and tier, in the whole history."""
        if self._released is None:
            self._released = {}
            for index in self._all_of(CODES[EntryType.MODEL_RELEASED]):
                entry = self.entries[index]
                subject = (entry.scope, entry.pub["model"], entry.pub["tier"])
                self._released.setdefault(subject, index)
        return self._released

    def releases(self) -> Iterator[tuple[int, Entry]]:
        """Every release of the whole history, in order."""
        return ((index, self.entries[index]) for index in self._all_of(CODES[EntryType.MODEL_RELEASED]))

    def org_of(self, shown: str, entry: Entry) -> str | None:
        """Organisation behind an alias in the scope, run and round of an entry, or None."""
        place = (entry.scope, entry.run, entry.round)
        if place not in self._by_alias:
            if len(self._by_alias) >= min(_PLACES, _ALIASES_KEPT // max(len(self.aliases), 1)):
                self._by_alias.clear()
            self._by_alias[place] = {alias(key, *place): org for org, key in self.aliases.items()}
        return self._by_alias[place].get(shown)

    def party(self, scope: str | None, org: str | None) -> PartyClause | None:
        """Party clause of an organisation in the contract of a scope, or None."""
        contract = self.contracts.get(scope or "")
        if contract is None or org is None:
            return None
        return next((one for one in contract.parties if one.org == org), None)

    def sender_party(self, index: int) -> str | None:
        """Short name of the party that signed the envelope of an entry, in the entry's contract, or None."""
        maker, entry = self.senders.maker(index), self.entries.get(index)
        if maker is None or entry is None:
            return None
        clause = self.party(entry.scope, maker.org)
        return None if clause is None else clause.party

    def notice_files(self) -> Iterator[tuple[str, bytes]]:
        """Digest in the name, and bytes, of each file of ``notices/``."""
        for name, data in self.files.under("notices/"):
            yield "sha256:" + name.removeprefix("notices/").removesuffix(".json"), data

    def consent_files(self) -> Iterator[tuple[str, bytes]]:
        """Digest in the name, and bytes, of each file of ``consents/``."""
        for name, data in self.files.under("consents/"):
            yield "sha256:" + name.removeprefix("consents/").removesuffix(".json"), data

    def life_before(self, scope: str | None, index: int) -> Life | None:
        """The life of a contract before an entry; None before it is final, or without a contract."""
        steps = self.lives.get(scope or "", [])
        found = bisect_left(steps, index, key=lambda one: one[0])
        return steps[found - 1][1] if found else None

    def key_before(self, contract: Contract, party: PartyClause, index: int) -> str:
        """The key in force of a party before an entry: the pinned one, or the one that it rotated to."""
        life = self.life_before(contract.digest, index)
        return party.key if life is None else life.rotated.get(party.party, party.key)

    def versions(self, scope: str | None) -> tuple[str, ...]:
        """A contract and the versions that it superseded, as far as they are in the bundle, newest first."""
        found: list[str] = []
        while scope is not None and scope not in found:
            found.append(scope)
            contract = self.contracts.get(scope)
            scope = None if contract is None else contract.supersedes
        return tuple(found)

    def successors(self, contract: str, *, before: int) -> tuple[str, ...]:
        """The contract and those that took effect after it, in order, in entries below an index."""
        chain = [contract]
        for index, old, new in self.amendments():
            if index < before and old == chain[-1]:
                chain.append(new)
        return tuple(chain)

    def amendments(self) -> list[tuple[int, str, str]]:
        """Index, old and new contract of each amendment, in order."""
        if self._amended is None:
            found = self.of(EntryType.CONTRACT_AMENDED)
            self._amended = [(index, entry.pub["old"], entry.pub["new"]) for index, entry in found]
        return self._amended

    def scopes_of(self, run: str | None, number: int) -> set[str | None]:
        """Contracts that attempts of a round were opened under."""
        if not self._scopes:
            for (of, at, _), one in self.attempts().items():
                if one.opened is not None and at is not None:
                    self._scopes.setdefault((of, at), set()).add(self.entries[one.opened].scope)
        return self._scopes.get((run, number), set())

    def stated(self, index: int) -> Mapping[str, Json]:
        """Body of the envelope that a member signed for an entry, confidential fields too; else empty."""
        entry = self.entries.get(index)
        sender = None if entry is None or entry.env is None else self.senders.get(index)
        if sender is None or entry is None or sender.payload["kind"] != entry.type.value:
            return {}
        body: Mapping[str, Json] = sender.payload["body"]
        return body

    def votes(self, release: Entry, *, before: int) -> dict[str, str]:
        """Contributors' votes on a release's model, in its contract and run, in entries below an index.

        The last vote of each counts, also one from before a successor took effect.
        """
        votes = {}
        contract, scopes = self.contracts.get(release.scope or ""), self.versions(release.scope)
        for index, entry in self.of(EntryType.VOTE_CAST):
            party, fits = self.sender_party(index), entry.scope in scopes and entry.run == release.run
            if index < before and fits and entry.pub["subject"] == release.pub["model"] and contract:
                clause = contract.party(party)
                if clause is not None and clause.role == "contributor":
                    votes[clause.party] = str(entry.pub["vote"])
        return votes

    def attempts(self) -> dict[AttemptKey, Attempt]:
        """Every attempt of every round that some entry mentions."""
        if self._attempts is None:
            self._attempts = defaultdict(Attempt)
            for index, entry in self.of(*_ATTEMPTED):
                self._place(self._attempts[(entry.run, entry.round, entry.pub["attempt"])], index, entry)
        return self._attempts

    def openings(self) -> Mapping[tuple[str | None, int | None], Sequence[int]]:
        """Run and round: indexes of its openings, ascending."""
        if self._openings is None:
            self._openings = defaultdict(list)
            for index, entry in self.of(EntryType.ROUND_OPENED):
                self._openings[(entry.run, entry.round)].append(index)
        return self._openings

    @staticmethod
    def _place(attempt: Attempt, index: int, entry: Entry) -> None:
        if entry.type is EntryType.SUBMISSION_RECEIVED:
            attempt.submissions.append(index)
        elif entry.type is EntryType.ROUND_OPENED:
            attempt.opened = index
        elif entry.type is EntryType.ROUND_CLOSED:
            attempt.closed = index
        elif entry.type is EntryType.AGGREGATE_RELEASED:
            attempt.aggregate = index

    def trained(self, run: str | None, *, before: int) -> set[str]:
        """Parties whose update is in an aggregate of a run, in entries below an index."""
        if (run, before) not in self._trained:
            used = {
                ref
                for index, entry in self.shown(run).of(EntryType.AGGREGATE_RELEASED)
                if index < before and entry.run == run
                for ref in entry.refs
                if ref in self.entries and self.entries[ref].type is EntryType.SUBMISSION_RECEIVED
            }
            parties = {party for ref in used if (party := self.sender_party(ref)) is not None}
            self._trained[run, before] = parties
        return self._trained[run, before]

    def run_opened(self, run: str | None) -> Entry | None:
        """The entry that opened a run, or None."""
        if self._runs is None:
            opened = self._all_of(CODES[EntryType.RUN_OPENED])
            self._runs = {self.entries[index].run: index for index in opened}
        index = self._runs.get(run)
        return None if index is None else self.entries[index]

    def recipe_of(self, run: str | None) -> str | None:
        """Digest of the recipe that a run was opened under, or None."""
        opened = self.run_opened(run)
        return None if opened is None else str(opened.pub["recipe"])

    def plan_of(self, recipe: str | None) -> dict[str, Json] | None:
        """The plan's document in a recipe of the bundle, or None."""
        plan = self.recipes.get(recipe or "", {}).get("plan")
        return plan if isinstance(plan, dict) else None

    def evaluation_of(self, recipe: str | None) -> str | None:
        """Digest of the evaluation plan in a recipe of the bundle, or None."""
        plan = self.recipes.get(recipe or "", {}).get("evaluation")
        return digest_of(plan) if isinstance(plan, dict) else None
