# SPDX-License-Identifier: Apache-2.0
"""The history in a bundle, as far as it can be read; what every later rule works on."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.encoding import digest_of
from policies.log.entries import Entry, EntryType, alias
from policies.log.merkle import MemoryTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import Contract, PartyClause
    from policies.contract.lifecycle import Life
    from policies.contract.notices import Notice
    from policies.log.bundle import DecisionRecord
    from policies.log.checkpoint import Checkpoint, Policy
    from policies.signing import Envelope

__all__ = ["Attempt", "AttemptKey", "History", "Sender"]

Json = Any
AttemptKey = tuple[str | None, int | None, int]
"""Run, round, attempt."""


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
    """

    policy: Policy
    checkpoint: Checkpoint
    grade: str
    files: Mapping[str, bytes]
    tree: MemoryTree = field(default_factory=lambda: MemoryTree(()))
    entries: dict[int, Entry] = field(default_factory=dict)
    envelopes: dict[int, Envelope] = field(default_factory=dict)
    aliases: dict[str, bytes] = field(default_factory=dict)
    contracts: dict[str, Contract] = field(default_factory=dict)
    signatures: dict[str, Envelope] = field(default_factory=dict)
    recipes: dict[str, dict[str, Json]] = field(default_factory=dict)
    decisions: dict[int, DecisionRecord] = field(default_factory=dict)
    opened: dict[int, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    senders: dict[int, Sender] = field(default_factory=dict)
    receipted: set[int] = field(default_factory=set)
    lives: dict[str, list[tuple[int, Life]]] = field(default_factory=lambda: defaultdict(list))
    notices_of: dict[int, Notice] = field(default_factory=dict)
    void: dict[int, str] = field(default_factory=dict)
    attested: dict[str, dict[str, Notice]] = field(default_factory=dict)
    _by_alias: dict[tuple[str | None, str | None, int | None], dict[str, str]] = field(default_factory=dict)
    _attempts: dict[AttemptKey, Attempt] | None = None
    _runs: dict[str | None, Entry] | None = None
    _by_type: dict[EntryType, list[int]] | None = None

    @property
    def size(self) -> int:
        """Number of entries that the checkpoint signs."""
        return self.checkpoint.size

    def of(self, *kinds: EntryType) -> Iterator[tuple[int, Entry]]:
        """Entries of these types, in order. Call it once all entries were read."""
        if self._by_type is None:
            self._by_type = defaultdict(list)
            for index, entry in sorted(self.entries.items()):
                self._by_type[entry.type].append(index)
        indexes = heapq.merge(*(self._by_type.get(kind, []) for kind in set(kinds)))
        return ((index, self.entries[index]) for index in indexes)

    def org_of(self, shown: str, entry: Entry) -> str | None:
        """Organisation behind an alias in the scope, run and round of an entry, or None."""
        place = (entry.scope, entry.run, entry.round)
        if place not in self._by_alias:
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
        sender, entry = self.senders.get(index), self.entries.get(index)
        if sender is None or entry is None:
            return None
        clause = self.party(entry.scope, sender.org)
        return None if clause is None else clause.party

    def notice_files(self) -> Iterator[tuple[str, bytes]]:
        """Digest in the name, and bytes, of each file of ``notices/``."""
        for name, data in self.files.items():
            if name.startswith("notices/"):
                yield "sha256:" + name.removeprefix("notices/").removesuffix(".json"), data

    def consent_files(self) -> Iterator[tuple[str, bytes]]:
        """Digest in the name, and bytes, of each file of ``consents/``."""
        for name, data in self.files.items():
            if name.startswith("consents/"):
                yield "sha256:" + name.removeprefix("consents/").removesuffix(".json"), data

    def life_before(self, scope: str | None, index: int) -> Life | None:
        """The life of a contract before an entry; None before it is final, or without a contract."""
        found = None
        for at, life in self.lives.get(scope or "", ()):
            if at >= index:
                break
            found = life
        return found

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
        for index, entry in self.of(EntryType.CONTRACT_AMENDED):
            if index < before and entry.pub["old"] == chain[-1]:
                chain.append(entry.pub["new"])
        return tuple(chain)

    def scopes_of(self, run: str | None, number: int) -> set[str | None]:
        """Contracts that attempts of a round were opened under."""
        opened = [one.opened for key, one in self.attempts().items() if key[:2] == (run, number)]
        return {self.entries[index].scope for index in opened if index is not None}

    def stated(self, index: int) -> Mapping[str, Json]:
        """Body of the envelope that a member signed for an entry, confidential fields too; else empty."""
        sender, entry = self.senders.get(index), self.entries.get(index)
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
            for index, entry in sorted(self.entries.items()):
                if "attempt" in entry.pub:
                    self._place(self._attempts[(entry.run, entry.round, entry.pub["attempt"])], index, entry)
        return self._attempts

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
        used = {
            ref
            for index, entry in self.of(EntryType.AGGREGATE_RELEASED)
            if index < before and entry.run == run
            for ref in entry.refs
            if ref in self.entries and self.entries[ref].type is EntryType.SUBMISSION_RECEIVED
        }
        return {party for ref in used if (party := self.sender_party(ref)) is not None}

    def run_opened(self, run: str | None) -> Entry | None:
        """The entry that opened a run, or None."""
        if self._runs is None:
            self._runs = {entry.run: entry for _, entry in self.of(EntryType.RUN_OPENED)}
        return self._runs.get(run)

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
