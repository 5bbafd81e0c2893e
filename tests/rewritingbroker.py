# SPDX-License-Identifier: Apache-2.0
"""A broker that rewrites its log: it holds its own keys, changes what it likes, and signs everything again.

    true = WatchedSim().build()                     # what happened; four witnesses cosigned it as it grew
    lie = Rewriter(true)
    lie.at("verdict hanbit 2").say(reason="update.shape")
    lie.drop("incident")
    shown = lie.told(collude=True)                  # entries, tiles, checkpoints, receipts: all made to fit
    shown.audit(receipts=kept(true))                # what an auditor finds, here with a member's receipt

What he cannot make again are signatures of members: envelopes stay as they are, and with them what each of
them had *seen*. Everything else of his follows the change: indexes in ``refs`` and in lists of entries,
commitments and what opens them, decisions, receipts, every checkpoint.

**Witnesses** are `policies.log.witness.consider` with the state that they really have: each cosigned every
checkpoint of the true history. Honest ones are offered the new head with the best proof there is, and what
they say is kept in `Shown.refusals`. With ``collude`` all of them cosign whatever they are shown, at
whatever time. Checkpoints that the change left true keep the cosignatures that they had.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from policies.encoding import canonical
from policies.log.bundle import DecisionRecord, Disclosure
from policies.log.checkpoint import Checkpoint, open_note, parse_checkpoint, parse_note, sign_checkpoint
from policies.log.cosignature import cosign, merge
from policies.log.entries import commitment
from policies.log.equivocation import Evidence, prove
from policies.log.errors import ProofError
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import Policy
from policies.log.proofs import receipt_text
from policies.log.witness import Cosign, Refuse, WitnessState, consider
from policies.ports import iso_minute, iso_ms, to_ms
from policies.signing import Envelope
from policies.verify import Report, verify
from tests.auditsim import ORIGIN
from tests.watchedsim import WatchedSim

VERSION = 2


@dataclass
class Watcher:
    """One voter's witness: the real machine with its state."""

    name: str
    sim: WatchedSim
    state: WitnessState | None = None

    def offered(self, note: str, tree: MemoryTree, at_s: int) -> Cosign | Refuse:
        """As the broker offers a head: from the size that the witness has, if there is a way."""
        head = parse_checkpoint(parse_note(note).text)
        old = min(self.state.size if self.state else 0, head.size)
        verdict = consider(
            self.state,
            note,
            old_size=old,
            proof=tree.consistency(old, head.size) if old else [],
            log_keys=self.sim.policy.logs,
            origin=ORIGIN,
            key=self.sim.witness_keys[self.name],
            name=self.sim.vkeys[self.name].name,
            now_s=at_s,
        )
        if isinstance(verdict, Cosign):
            self.state = verdict.state
        return verdict

    def colludes(self, note: str, at_s: int) -> str:
        """A cosignature of whatever it is."""
        key, name = self.sim.witness_keys[self.name], self.sim.vkeys[self.name].name
        return cosign(key, name=name, text=parse_note(note).text, time_s=at_s)


def watchers(sim: WatchedSim, notes: Iterable[str] = ()) -> dict[str, Watcher]:
    """The voters, after each cosigned these notes of the history one by one."""
    made = {name: Watcher(name, sim) for name in sim.owners}
    for note in notes:
        size = parse_checkpoint(parse_note(note).text).size
        tree, at_s = prefix(sim.tree, size), cosigned_at(sim, note)
        for one in made.values():
            assert isinstance(one.offered(note, tree, at_s), Cosign)
    return made


def prefix(tree: MemoryTree, size: int) -> MemoryTree:
    """The tree of the first entries."""
    return MemoryTree(tree.leaf(index) for index in range(size))


def cosigned_at(sim: WatchedSim, note: str) -> int:
    """When a note was cosigned, in seconds."""
    return max(open_note(note, list(sim.vkeys.values())).times.values())


@dataclass
class Record:
    """An entry with everything that belongs to it in a bundle; ``was`` is its place in the true history."""

    body: dict[str, Any]
    envelope: Envelope | None = None
    decision: DecisionRecord | None = None
    opened: dict[str, Disclosure] = field(default_factory=dict)
    was: int | None = None
    raw: Callable[[bytes], bytes] | None = None

    def say(self, **pub: Any) -> Record:
        """Changes fields in clear."""
        self.body["pub"] |= pub
        return self

    def hide(self, name: str, value: Any) -> Record:
        """Changes a confidential field: another commitment, and what opens it."""
        self.body["sd"][name] = commitment(self.opened[name].salt, name, value)
        self.opened[name] = replace(self.opened[name], value=value)
        return self

    def move(self, by_ms: int) -> Record:
        """Dates the entry otherwise, to the minute and to the millisecond."""
        at_ms = to_ms(self.opened["at"].value) + by_ms
        self.body["ts"] = iso_minute(at_ms)
        return self.hide("at", iso_ms(at_ms))

    def copy(self) -> Record:
        """Once more, as something new."""
        return replace(self, body=json.loads(json.dumps(self.body)), opened=dict(self.opened), was=None)

    def bytes(self) -> bytes:
        made = canonical(self.body)
        return made if self.raw is None else self.raw(made)


@dataclass
class Shown:
    """What an auditor is given, and how it came to that."""

    bundle: bytes
    policy: Policy
    sim: WatchedSim
    tree: MemoryTree
    notes: list[str]
    refusals: Counter[int] = field(default_factory=Counter)
    evidence: list[Evidence] = field(default_factory=list)

    def audit(self, policy: Policy | None = None, **options: Any) -> Report:
        return verify(self.bundle, policy or self.policy, **options)

    def proven(self) -> str:
        """What the evidence of honest witnesses proves to whoever has the log's key; empty if nothing."""
        for one in self.evidence:
            for made in (lambda it: it, self._with_tiles):
                with suppress(ProofError):
                    return made(one).check(self.policy.logs)
        return ""

    def _with_tiles(self, one: Evidence) -> Evidence:
        """With a proof from the tiles of the larger note, which the log serves to everybody."""
        larger = max(parse_checkpoint(parse_note(note).text).size for note in (one.first, one.second))
        return prove(one.first, one.second, self.tree if self.tree.size == larger else self.sim.tree)


class Rewriter:
    """See the module."""

    def __init__(self, true: WatchedSim) -> None:
        self.true = true
        opened: dict[int, dict[str, Disclosure]] = {}
        for one in true.disclosures:
            opened.setdefault(one.index, {})[one.field] = one
        decisions = {one.index: one for one in true.decisions}
        self.records = [
            Record(
                body=json.loads(body),
                envelope=true.envelopes.get(index),
                decision=decisions.get(index),
                opened=opened.get(index, {}),
                was=index,
            )
            for index, body in enumerate(true.bodies)
        ]

    def at(self, name: str) -> Record:
        """The record of an event of the story."""
        return self.records[self.place(name)]

    def place(self, name: str) -> int:
        wanted = self.true.names[name]
        return next(at for at, one in enumerate(self.records) if one.was == wanted)

    def drop(self, *names: str) -> Rewriter:
        gone = {self.true.names[name] for name in names}
        self.records = [one for one in self.records if one.was not in gone]
        return self

    def cut(self, size: int) -> Rewriter:
        """Forgets everything from a size on."""
        self.records = self.records[:size]
        return self

    def insert(self, at: int, *records: Record) -> Rewriter:
        self.records[at:at] = records
        return self

    def swap(self, one: str, other: str) -> Rewriter:
        first, second = self.place(one), self.place(other)
        self.records[first], self.records[second] = self.records[second], self.records[first]
        return self

    # --- everything made to fit ---

    def _renumbered(self) -> list[bytes]:
        places = {one.was: at for at, one in enumerate(self.records) if one.was is not None}
        bodies = []
        for one in self.records:
            told = json.loads(json.dumps(one.body))
            told["refs"] = [places[ref] for ref in told["refs"] if ref in places]
            if one.envelope is None and "indexes" in told["pub"]:
                told["pub"]["indexes"] = [places[ref] for ref in told["pub"]["indexes"] if ref in places]
            bodies.append(replace(one, body=told).bytes())
        return bodies

    def _erased(self) -> set[tuple[int | None, str]]:
        """What the log says is erased, by place in the true history."""
        orders = [one.body["pub"] for one in self.records if one.body["type"] == "erasure.performed"]
        return {(at, name) for one in orders for at in one.get("indexes", ()) for name in one["fields"]}

    def _sizes(self) -> dict[int, int]:
        """Published sizes of the rewritten log, each with the true size that it stands for."""
        sizes = {}
        for note in self.true.notes:
            true_size = parse_checkpoint(parse_note(note).text).size
            kept = [at for at, one in enumerate(self.records) if one.was is not None and one.was < true_size]
            if kept:
                sizes[kept[-1] + 1] = true_size
        sizes[len(self.records)] = max(sizes.values())
        return sizes

    def signed(self, tree: MemoryTree, size: int) -> str:
        return sign_checkpoint(self.true.log_key, Checkpoint(ORIGIN, size, tree.root(size)))

    def told(
        self,
        *,
        collude: bool,
        resign: bool = True,
        ask: bool = True,
        late_s: int = 0,
        version: int = VERSION,
    ) -> Shown:
        """The rewritten history.

        Args:
            collude: All witnesses cosign what they are shown; else they are asked.
            resign: Without it only the entries change, and every checkpoint stays.
            ask: Without it no witness is there.
            late_s: By how much those who collude say another time; then they cosign the last head again too.
            version: Of the bundle.
        """
        bodies = self._renumbered()
        tree = MemoryTree(leaf_hash(body) for body in bodies)
        voters = watchers(self.true, () if collude else self.true.notes) if ask else {}
        shown = Shown(b"", self.true.policy, self.true, tree, [])
        true_notes = {parse_checkpoint(parse_note(note).text).size: note for note in self.true.notes}
        for size, true_size in sorted(self._sizes().items()) if resign else ():
            fresh = collude and size == len(self.records) and late_s
            if ask and not fresh and size in true_notes and tree.root(size) == self.true.tree.root(size):
                shown.notes.append(true_notes[size])
                continue
            at_s = cosigned_at(self.true, true_notes[true_size]) + late_s
            shown.notes.append(_ask(voters, self.signed(tree, size), tree, at_s, shown, collude=collude))
        if not resign:
            shown.notes = list(self.true.notes)
        return replace(shown, bundle=self._bundle(bodies, tree, shown.notes, version))

    def _bundle(self, bodies: list[bytes], tree: MemoryTree, notes: Sequence[str], version: int) -> bytes:
        at = dict(enumerate(self.records))
        given = self.true.contents().receipts
        receipted = [place for place, one in at.items() if one.was in given]
        size = parse_checkpoint(parse_note(notes[-1]).text).size
        whole, erased = size == len(bodies), self._erased()
        return self.true.bundle(
            version=version,
            bodies=bodies,
            note=notes[-1],
            notes=notes,
            envelopes={place: one.envelope for place, one in at.items() if one.envelope is not None},
            decisions=[replace(one.decision, index=place) for place, one in at.items() if one.decision],
            disclosures=[
                replace(told, index=place)
                for place, one in at.items()
                for told in one.opened.values()
                if (one.was, told.field) not in erased
            ],
            receipts={
                place: receipt_text(index=place, proof=tree.inclusion(place), note=self.signed(tree, size))
                for place in receipted
                if whole
            },
        )


def _ask(
    voters: Mapping[str, Watcher], note: str, tree: MemoryTree, at_s: int, shown: Shown, *, collude: bool
) -> str:
    """The note with the lines of those who cosign it; what the others say is kept."""
    if collude:
        return merge(note, [one.colludes(note, at_s) for one in voters.values()])
    lines = []
    size = parse_checkpoint(parse_note(note).text).size
    for one in voters.values():
        verdict = one.offered(note, prefix(tree, size), at_s)
        if isinstance(verdict, Cosign):
            lines.append(verdict.line)
            continue
        shown.refusals[verdict.status] += 1
        if verdict.evidence is not None:
            shown.evidence.append(verdict.evidence)
    return merge(note, lines)


def kept(true: WatchedSim, *names: str, grade: str = "witnessed") -> dict[str, str]:
    """Receipts that members kept of the true history; without names those of every last word and verdict."""
    chosen = names or ("vote kita", "vote nord", "vote hanbit", "verdict hanbit 2")
    made = true.witnessed_receipt if grade == "witnessed" else true.receipt
    return {f"{name.replace(' ', '-')}.tlog-proof": made(true.names[name]) for name in chosen}
