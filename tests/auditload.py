# SPDX-License-Identifier: Apache-2.0
"""A valid history of any size, written as a bundle of format 2 with memory that does not grow with it.

    made = write_load(path, entries=100_000)     # at least so many; the last round is whole
    verify(path, made.policy)

The story of `tests.auditsim` goes on: run after run of rounds of three makers. Of 22 entries of a round 12 come with a
member's envelope and 7 are decisions; a submission has its spend, step receipt, verdict and acknowledgement.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from policies.encoding import b64, canonical, digest
from policies.log.bundle import (
    TILE,
    BundleWriter,
    DecisionRecord,
    Disclosure,
    files_of,
    head_bytes,
    join_tile,
    tile_name,
)
from policies.log.checkpoint import Checkpoint, sign_checkpoint
from policies.log.entries import EntryType, Event, entry_body, from_envelope, private_values
from policies.log.envelope import Seen, seal_envelope
from policies.log.merkle import Frontier, leaf_hash
from policies.log.policy import Policy
from policies.log.tiles import entries_path, tile_root, tiles_of
from policies.verify.spill import SpillFile
from tests import auditsim
from tests.auditsim import EVALUATION, ORIGIN, PARTIES, MakerSim, PoolSim, digest_from, seeded

T = EntryType
ROUNDS = 40  # of one run
NOTES_EVERY = 16  # publications, of which one note is kept
# it costs next to nothing: caps hold for any number of rounds
PLAN = auditsim.PLAN | {"noise_multiplier": "9000"}
RECIPE = canonical({"schema": "iriai-recipe/1", "rounds": 2, "plan": PLAN, "evaluation": EVALUATION})


def run_name(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    return "run_" + "".join(letters[number >> 5 * at & 31] for at in range(16))


class Spool:
    """Files of one folder of the bundle, in order, in a temporary file."""

    def __init__(self) -> None:
        self._file = SpillFile()
        self._names: list[tuple[str, int]] = []
        self._size = 0

    def add(self, name: str, data: bytes) -> None:
        self._file.write(self._size, data)
        self._size += len(data)
        self._names.append((name, len(data)))

    def files(self) -> Iterator[tuple[str, bytes]]:
        at = 0
        for name, size in self._names:
            yield name, self._file.read(at, size)
            at += size


@dataclass
class Loaded(PoolSim):
    """`PoolSim` that keeps nothing but the open tile."""

    recipe: bytes = RECIPE
    number: int = 0
    before: int = 0
    frontier: Frontier = field(default_factory=Frontier)
    seen: Seen = field(default_factory=lambda: Seen(0, Frontier().root()))
    spools: dict[str, Spool] = field(default_factory=lambda: defaultdict(Spool))
    levels: list[list[bytes]] = field(default_factory=lambda: [[]])
    acks: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    published: int = 0
    last_note: str = ""
    newest: bytes = b""
    refused: ClassVar[tuple[int, str] | None] = None

    def _tree(self) -> dict[str, Any]:
        tree = super()._tree()
        tree["recipes"][0]["max_rounds"] = 10**9
        tree["term"]["expires"] = "2090-01-01T00:00:00Z"
        return tree

    @property
    def size(self) -> int:
        return self.frontier.size

    # --- the log ---

    def add(self, name: str, event: Event) -> int | None:
        self.append(event)
        return self.size - 1

    def append(self, event: Event, **changes: bytes) -> None:
        index = self.size
        values = private_values(event, self.now_ms)
        salts = {one: self.salt() for one in values}
        body = entry_body(event, log=ORIGIN, now_ms=self.now_ms, salts=salts)
        self.bodies.append(body)
        self.newest = leaf_hash(body)
        self.frontier = self.frontier.append(self.newest)
        self.disclosures += [
            Disclosure(index=index, field=one, salt=salts[one], value=value)
            for one, value in sorted(values.items())
        ]
        if event.envelope is not None:
            self.envelopes[index] = event.envelope
        if event.type is T.DECISION_RECORDED:
            request, state, salt = self.fit.pop(event.pub["decision"])
            self.decisions.append(
                DecisionRecord(
                    index=index, decision=event.pub["decision"], request=request, state=state, salt=salt
                )
            )
        if len(self.bodies) == TILE:
            self.flush()

    def flush(self) -> None:
        """Writes the open tile with its packs."""
        number, width = (self.size - 1) // TILE, len(self.bodies)
        self.spools["entries"].add(entries_path(number, width), join_tile(self.bodies))
        self._hashes(0, [leaf_hash(one) for one in self.bodies])
        packs = {
            "decisions": [one.to_json() for one in self.decisions],
            "disclosures": [one.to_json() for one in self.disclosures],
            "envelopes": [
                {"envelope": one.to_json(), "index": at} for at, one in sorted(self.envelopes.items())
            ],
        }
        for folder, lines in packs.items():
            if lines:
                data = b"".join(canonical(one) + b"\n" for one in lines)
                self.spools[folder].add(f"{folder}/{tile_name(number)}.jsonl", data)
        self.bodies, self.envelopes, self.decisions, self.disclosures = [], {}, [], []

    def _hashes(self, level: int, hashes: list[bytes]) -> None:
        if level == len(self.levels):
            self.levels.append([])
        held = self.levels[level]
        held += hashes
        if len(held) == TILE:
            data = b"".join(held)
            self.spools[f"tile/{level}"].add("", data)
            held.clear()
            self._hashes(level + 1, [tile_root(data)])

    def publish(self) -> str:
        self.now_ms += 20_000
        self.seen = Seen(self.size, self.frontier.root())
        self.published += 1
        if self.published % NOTES_EVERY == 0:
            self._note()
        return ""

    def _note(self) -> None:
        note = sign_checkpoint(self.log_key, Checkpoint(ORIGIN, self.size, self.frontier.root()))
        if note != self.last_note:
            self.spools["notes"].add("", canonical({"note": note}) + b"\n")
        self.last_note = note

    def said(self, maker: MakerSim, kind: EntryType, body: Mapping[str, Any], **place: Any) -> Event:
        ack = self.acks.get(maker.party)
        payload: dict[str, Any] = {
            "log": ORIGIN,
            "kind": kind,
            "chain": maker.state.chain,
            "seq": maker.state.next_seq,
            "prev": maker.state.prev,
            "seen": self.seen,
            "time_ms": self.now_ms,
            "nonce": seeded(f"nonce {maker.party} {maker.state.next_seq}", 16),
            "scope": self.contract.digest,
            "run": place.get("run"),
            "round": place.get("round"),
            "ack": None if ack is None else {"index": ack[0], "leaf_hash": b64(ack[1])},
            "body": body,
        }
        envelope = seal_envelope(maker.key, **payload)
        opened = json.loads(envelope.payload)
        maker.state = replace(
            maker.state,
            next_seq=maker.state.next_seq + 1,
            prev=digest(envelope.payload),
            seen_size=self.seen.size,
        )
        actor = maker.alias(self.contract.digest, place.get("run"), place.get("round"))
        return from_envelope(envelope, opened, actor=actor)

    # --- the story ---

    def _train(self, party: str, number: int) -> Any:
        return replace(super()._train(party, number), round=self.before + number)

    def _aggregate(self, number: int, survivors: list[str]) -> Any:
        return replace(super()._aggregate(number, survivors), round=self.before + number)

    def made(self, number: int) -> str:
        return digest_from(f"model {self.number} {number}")

    def averaged(self, number: int) -> str:
        return digest_from(f"aggregate {self.number} {number}")

    def sent(self, maker: MakerSim, number: int) -> str:
        return digest_from(f"{maker.party} {self.number} {number}")

    def acknowledge(self, number: int) -> None:
        """Every maker signs how the newest round was closed."""
        closed = self.size - 1
        body = {"closed": closed, "leaf": "sha256:" + self.newest.hex(), "count": 1}
        for maker in self.makers.values():
            self.add("ack", self.said(maker, T.ROUND_ACK, body, run=auditsim.RUN, round=number))

    def round(self, number: int, base: str, run_opened: int | None) -> str:
        model = super().round(number, base, run_opened)
        self.acknowledge(number)
        return model

    # --- what leaves ---

    def write(self, path: Path) -> None:
        if self.bodies:
            self.flush()
        self._note()
        self.notes = [self.last_note]
        small = files_of(self.contents(bodies=[], note=self.last_note, receipts={}, version=2))
        small = {name: data for name, data in small.items() if name not in ("BUNDLE", "MANIFEST")}
        small["BUNDLE"] = head_bytes(
            version=2, grade="auditor", origin=ORIGIN, size=self.size, software="0.1.0"
        )
        with path.open("w+b") as file, tempfile.TemporaryFile() as scratch:
            writer = BundleWriter(file, scratch=scratch)
            spooled = ["decisions/", "disclosures/", "envelopes/", "tile/0", "tile/entries"]
            for name in sorted([*small, *spooled]):
                if name in ("decisions/", "disclosures/", "envelopes/"):
                    self._spooled(writer, self.spools[name[:-1]])
                elif name == "tile/0":
                    self._tiles(writer)
                elif name == "tile/entries":
                    self._spooled(writer, self.spools["entries"])
                elif name == "checkpoints.log":
                    writer.add_pieces(name, (data for _, data in self.spools["notes"].files()))
                else:
                    writer.add(name, small[name])
            writer.finish()

    @staticmethod
    def _spooled(writer: BundleWriter, spool: Spool) -> None:
        for name, data in spool.files():
            writer.add(name, data)

    def _tiles(self, writer: BundleWriter) -> None:
        for level, held in enumerate(self.levels):
            if held:
                self.spools[f"tile/{level}"].add("", b"".join(held))
        sources: dict[int, Iterator[tuple[str, bytes]]] = {}
        for one in tiles_of(self.size):
            level = one.level or 0
            if level not in sources:
                sources[level] = self.spools[f"tile/{level}"].files()
            writer.add(one.path(), next(sources[level])[1])


@dataclass(frozen=True)
class Made:
    """A bundle that was written: its policy, and its size in entries."""

    policy: Policy
    size: int


def write_load(path: Path, *, entries: int, rounds: int = ROUNDS) -> Made:
    """See the module. The module `tests.auditsim` has other constants meanwhile."""
    kept = auditsim.PLAN, auditsim.RUN
    auditsim.PLAN = PLAN
    try:
        sim = Loaded(makers={name: MakerSim(name) for name in PARTIES})
        sim.begin()
        sim.found()
        sim.now_ms += 2 * 86_400_000
        while sim.size < entries:
            _run(sim, entries, rounds)
        sim.publish()
        sim.write(path)
        return Made(sim.policy, sim.size)
    finally:
        auditsim.PLAN, auditsim.RUN = kept


def _run(sim: Loaded, entries: int, rounds: int) -> None:
    sim.number += 1
    auditsim.RUN = run_name(sim.number)
    opened, base = sim.open_run(), sim.initial()
    done = 0
    while done < rounds and sim.size < entries:
        done += 1
        base = sim.round(done, base, opened)
    closed = {"final_round": done, "outcome": "completed"}
    sim.add("run closed", sim.by_broker(T.RUN_CLOSED, closed))
    sim.before += done
