# SPDX-License-Identifier: Apache-2.0
"""A witness before a log that grows, forks, repeats itself and lies: it never cosigns two histories.

Each offer is made twice, as the log calls (push: the body of a request, proofs from all leaves) and as the
witness asks (pull: proofs that it makes from tiles). Both must give the same verdict.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.equivocation import Evidence, prove
from policies.log.errors import ProofError
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.tiles import TileTree
from policies.log.witness import Cosign, Refuse, WitnessState, consider, parse_request, request_text

ORIGIN = "pool.example/log/2026a"
LOG, KITA = SigningKey.from_seed(b"L" * 32), SigningKey.from_seed(b"K" * 32)
VKEY = VerifierKey(ORIGIN, LOG.public)


def convicts(evidence: Evidence) -> bool:
    try:
        return bool(evidence.check([VKEY]))
    except ProofError:
        return False


class Branch:
    """One of the histories that the log tells."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.tree = MemoryTree(leaves)
        self.leaves = leaves

    def note(self, size: int) -> str:
        return sign_checkpoint(LOG, Checkpoint(ORIGIN, size, self.tree.root(size)))

    def tiles(self, size: int) -> TileTree:
        def fetch(level: int, n: int, width: int) -> bytes:
            assert (level, n) == (0, 0)  # the logs of this test fit into one tile
            return b"".join(self.leaves[:width])

        return TileTree(size, fetch)


class WitnessMachine(RuleBasedStateMachine):
    """The log on one side, one witness on the other."""

    @initialize()
    def begin(self) -> None:
        self.branches = [Branch([leaf_hash(b"genesis")])]
        self.state: WitnessState | None = None
        self.cosigned: list[tuple[Branch, int]] = []
        self.now_s = 1_790_000_000
        self.made = 0

    def fresh(self, count: int) -> list[bytes]:
        self.made += count
        return [leaf_hash(str(self.made - at).encode()) for at in range(count)]

    @rule(which=st.integers(0, 9), count=st.integers(1, 9))
    def grow(self, which: int, count: int) -> None:
        at = which % len(self.branches)
        self.branches[at] = Branch(self.branches[at].leaves[:200] + self.fresh(count))

    @rule(which=st.integers(0, 9), share=st.floats(0, 1), count=st.integers(1, 9))
    def fork(self, which: int, share: float, count: int) -> None:
        leaves = self.branches[which % len(self.branches)].leaves
        self.branches.append(Branch(leaves[: int(share * len(leaves))] + self.fresh(count)))

    @rule(step=st.sampled_from([-3_600, -1, 1, 60, 4_000]))
    def clock(self, step: int) -> None:
        self.now_s += step

    @rule(which=st.integers(0, 9))
    def offer_the_newest(self, which: int) -> None:
        branch = self.branches[which % len(self.branches)]
        self.offer(branch, branch.tree.size, self.known_size, branch)

    @rule(count=st.integers(0, 9))
    def go_on_honestly(self, count: int) -> None:
        branch = self.cosigned[-1][0] if self.cosigned else self.branches[0]
        self.branches.append(Branch(branch.leaves[:200] + self.fresh(count)))
        self.offer(self.branches[-1], self.branches[-1].tree.size, self.known_size, self.branches[-1])

    @rule(
        which=st.integers(0, 9), back=st.integers(0, 9), stale=st.integers(0, 9), proof_from=st.integers(0, 9)
    )
    def offer_anything(self, which: int, back: int, stale: int, proof_from: int) -> None:
        branch, other = (self.branches[at % len(self.branches)] for at in (which, proof_from))
        size = max(0, branch.tree.size - back)
        self.offer(branch, size, max(0, self.known_size - stale), other)

    @property
    def known_size(self) -> int:
        return self.state.size if self.state else 0

    def offer(self, branch: Branch, size: int, old_size: int, other: Branch) -> None:
        push = self.asked_by_log(branch, size, old_size, other)
        if other is branch:
            assert self.asked_by_witness(branch, size, old_size) == push
        self.note_verdict(branch, size, push, own_proof=other is branch)

    def asked_by_log(self, branch: Branch, size: int, old_size: int, other: Branch) -> Cosign | Refuse:
        fits = 0 < old_size <= size <= other.tree.size
        proof = other.tree.consistency(old_size, size) if fits else []
        body = request_text(old_size=old_size, proof=proof, note=branch.note(size))
        request = parse_request(body.encode())
        return self.ask(request.note, request.old_size, list(request.proof))

    def asked_by_witness(self, branch: Branch, size: int, old_size: int) -> Cosign | Refuse:
        proof = branch.tiles(size).consistency(old_size) if 0 < old_size <= size else []
        return self.ask(branch.note(size), old_size, proof)

    def ask(self, note: str, old_size: int, proof: list[bytes]) -> Cosign | Refuse:
        return consider(
            self.state,
            note,
            old_size=old_size,
            proof=proof,
            log_keys=[VKEY],
            origin=ORIGIN,
            key=KITA,
            name="kita/witness",
            now_s=self.now_s,
        )

    def note_verdict(self, branch: Branch, size: int, verdict: Cosign | Refuse, *, own_proof: bool) -> None:
        before = self.state
        if isinstance(verdict, Cosign):
            assert before is None or (before.size <= size and before.time_s <= verdict.state.time_s)
            assert (verdict.state.size, verdict.state.root) == (size, branch.tree.root(size))
            self.state = verdict.state
            self.cosigned.append((branch, size))
            return
        assert verdict.known_size == (before.size if before else 0)
        if before is not None and before.size:
            self.judge(branch, size, verdict, own_proof=own_proof)

    def judge(self, branch: Branch, size: int, refusal: Refuse, *, own_proof: bool) -> None:
        """Evidence is there where the log shows less or something else, and convicts only a log that lied."""
        last, last_size = self.cosigned[-1]
        common = min(size, last_size)
        told_two = last.tree.root(common) != branch.tree.root(common)
        if size < last_size or (told_two and (size == last_size or refusal.status == 422)):
            assert refusal.evidence is not None
        if refusal.evidence is None:
            return
        evidence = refusal.evidence
        larger = branch if size >= last_size else last
        assert convicts(prove(evidence.first, evidence.second, larger.tree)) == (told_two and common > 0)
        if evidence.proof is not None:
            assert convicts(evidence)
        elif refusal.status == 422 and size > last_size and own_proof and told_two:
            assert last_size.bit_count() == 1  # only there the proof leaves out what convicts

    @invariant()
    def all_that_was_cosigned_is_one_history(self) -> None:
        if len(self.cosigned) < 2:
            return
        last, last_size = self.cosigned[-1]
        for branch, size in self.cosigned[:-1]:
            assert size <= last_size
            assert branch.tree.root(size) == last.tree.root(size)


WitnessMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestWitness = WitnessMachine.TestCase
