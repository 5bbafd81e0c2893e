# SPDX-License-Identifier: Apache-2.0
"""The witness: asks for the newest head, checks it against all that it saw, cosigns it, watches the quorum.

One `turn`, in this order:
1. the statement about the witness key is registered, once in this process and after each change of a key;
2. a question for a head that is larger than what was cosigned last, held by the broker; after
   `WITNESS_REPEAT_S` without one the same head again, so that age says whether somebody watches;
3. the head is signed by a log key that is believed (`client.log_keys`), and is of one history with what this
   witness cosigned and with what came with requests (`LogView`'s ``seen``), by proofs made here from tiles;
4. `policies.log.witness.consider`, and its new state on the disk, in one transaction; only then
5. the line leaves. A crash between 4 and 5 loses a line, never a memory: the next turn cosigns again;
6. the newest note with a quorum is kept, if a contract of this node accepts it;
7. receipts of what it covers are made again at that note, from tiles.

A head that is smaller than what was cosigned refutes nothing by itself: it is a complaint to the broker, and
a line in the journal. Two notes that cannot both be true are written to ``equivocation.proof``, the
broker hears of them, and the node is stopped for good (`EquivocationError`): no round, no signature, in any
process, until a person acts.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from client.errors import PeerAnswerError
from client.log_keys import take_up
from client.outbox.rows import Seen, WitnessedNote
from client.settings import write_durably
from client.witnessing.comparing import Comparer, Contradiction
from client.witnessing.key import own_statement, witness_key
from client.witnessing.tiles import Tiles
from client.witnessing.upgrading import upgrade
from client.witnessing.vouching import vouched
from policies.encoding import b64
from policies.errors import IriaiError
from policies.limits import WITNESS_POLL_S, WITNESS_REPEAT_S
from policies.log.checkpoint import open_checkpoint, parse_note
from policies.log.witness import Cosign, Refuse, consider
from policies.log.witness_keys import witness_name

if TYPE_CHECKING:
    from client.membership import Member
    from client.outbox import Outbox
    from client.witnessing.trust import Trust
    from policies.log.policy import Policy
    from policies.log.witness import WitnessState

__all__ = ["EVIDENCE", "Watch"]

EVIDENCE: Final = "equivocation.proof"
_ASK_AGAIN_MS: Final = 60_000


class Watch:
    """See the module. One per process, in a thread of its own, with an outbox and a client of its own."""

    def __init__(self, member: Member, outbox: Outbox, trust: Trust) -> None:
        self._member = member
        self._outbox = outbox
        self._trust = trust
        self._clock = member.clock
        self._log_name = member.log_keys.all()[0].name
        self._key = witness_key(member.home, member.entropy)
        self._name = witness_name(member.identity.org)
        self.tiles = Tiles(member.client.get_static)
        self._comparer = Comparer(self.tiles, member.log_keys.all)
        self._registered = False
        self._posted = 0
        self._posted_ms = 0
        self._compared = 0
        self._shown = 0
        self._heeded_ms: int | None = None
        self._asked: tuple[frozenset[tuple[str, bytes]], int, tuple[str, ...]] | None = None

    def turn(self, *, wait_s: int = WITNESS_POLL_S) -> bool:
        """One turn; gives whether it had anything to do.

        Raises:
            EquivocationError: The log told two histories; the node is stopped.
            IriaiError: Something that passes; turn again later.
        """
        self._outbox.check_open()
        self._register()  # 1.
        shown = self._ask(wait_s)  # 2.
        note, checkpoint = shown.get("note"), shown.get("checkpoint")
        if isinstance(note, str):
            self._heed(note)
        try:
            done = isinstance(note, str) and self._witness(note)  # 3. to 5.
            if isinstance(checkpoint, str):
                done |= self._keep(checkpoint)  # 6.
        except Contradiction as found:
            raise self._stop(found) from found
        return done

    # --- 1. and 2. ---

    def _register(self) -> None:
        if self._registered:
            return
        member = self._member
        made = own_statement(
            member.home, member.identity, self._key, origin=self._log_name, clock=self._clock
        )
        member.client.post("/witness/keys", {"statement": made.to_json()})
        self._registered = True

    def _ask(self, wait_s: int) -> dict[str, Any]:
        after = self._posted - 1 if self._posted and self._is_due() else self._posted
        held_s = min(wait_s, WITNESS_POLL_S, int(self._member.client.timeout_s / 2))
        shown = self._member.client.get(f"/log/head?after={after}&witnessed={self._shown}&wait={held_s}")
        if not isinstance(shown, dict):
            raise PeerAnswerError(
                need="the head of the log", found="another form", remedy="check both versions"
            )
        return shown

    def _is_due(self) -> bool:
        """Whether the same head is to be cosigned again; also after the clock was set back."""
        return not 0 <= self._clock.now_ms() - self._posted_ms < WITNESS_REPEAT_S * 1000

    def _heed(self, note: str) -> None:
        """Takes up the log's next key once one signs that is not known, and asks for it once a minute."""
        now_ms = self._clock.now_ms()
        asked = self._heeded_ms is not None and 0 <= now_ms - self._heeded_ms < _ASK_AGAIN_MS
        if not asked and self._member.log_keys.strange(note):
            self._heeded_ms = now_ms
            take_up(self._member, self._outbox)

    # --- 3. to 5. ---

    def _witness(self, note: str) -> bool:
        head = self._open(note)
        state = self._outbox.cosigning.cosigned()
        known = state is not None and (head.size, head.root) == (state.size, state.root)
        if known and head.size == self._posted and not self._is_due():
            return False
        if state is not None and head.size < state.size:
            self._complain([state.note])
            raise PeerAnswerError(
                need=f"a log of at least {state.size} entries, which it signed",
                found=f"one of {head.size}",
                remedy="tell the operator and the other members: it lost entries, or shows an old head",
            )
        proof = self._compare(head, state)  # 3.
        line = self._cosign(head, state, proof)  # 4.
        self._member.client.post("/witness/cosignatures", {"size": head.size, "lines": [line]})  # 5.
        self._posted, self._posted_ms = head.size, self._clock.now_ms()
        return True

    def _open(self, note: str) -> Seen:
        checkpoint = open_checkpoint(note, self._member.log_keys.all())
        return Seen(size=checkpoint.size, root=checkpoint.root, note=note)

    def _compare(self, head: Seen, state: WitnessState | None) -> list[bytes]:
        """The proof from what was cosigned last, once the head was compared with what is new in ``seen``."""
        proof: list[bytes] = []
        if state is not None:
            old = Seen(size=state.size, root=state.root, note=state.note)
            if 0 < old.size < head.size:
                proof = self._comparer.proof(old, head)
            self._comparer.same(old, head)
        newer = self._outbox.shown.seen_since(self._compared)
        for one in newer:
            self._comparer.same(one, head)
        self._compared = max((one.size for one in newer), default=self._compared)
        return proof

    def _cosign(self, head: Seen, state: WitnessState | None, proof: list[bytes]) -> str:
        def decide(found: WitnessState | None) -> tuple[WitnessState | None, Cosign | Refuse]:
            verdict = consider(
                found,
                head.note,
                old_size=state.size if state is not None else 0,
                proof=proof,
                log_keys=self._member.log_keys.all(),
                origin=self._log_name,
                key=self._key,
                name=self._name,
                now_s=self._clock.now_ms() // 1000,
            )
            return (verdict.state if isinstance(verdict, Cosign) else None), verdict

        verdict = self._outbox.cosigning.cosign(decide)
        if isinstance(verdict, Cosign):
            return verdict.line
        if verdict.evidence is not None:
            raise self._comparer.convict(verdict.evidence)
        raise PeerAnswerError(
            need="a head that this witness may cosign",
            found=f"{verdict.status}: {verdict.reason}",
            remedy="it is tried again; set this machine's clock if it names a time",
        )

    # --- 6. and 7. ---

    def _keep(self, note: str) -> bool:
        """Keeps a note that some contract's quorum accepts; receipts follow."""
        head = self._open(note)
        self._shown = head.size
        self._ask_for_keys(note)
        policies = self._policies()
        row = WitnessedNote(size=head.size, note=note, at_ms=self._clock.now_ms())
        known = next((one for one in self._outbox.cosigning.witnessed() if one.size == head.size), None)
        better = any(_is_better(row, known, policy) for policy in policies.values())
        if better:
            self._same_as_cosigned(head)
            self._outbox.cosigning.keep_witnessed(head.size, note)
        return upgrade(self._outbox, self.tiles, policies, self._member.log_keys.all()) > 0 or better

    def _same_as_cosigned(self, head: Seen) -> None:
        """What others vouch for must be what this node cosigned, too."""
        state = self._outbox.cosigning.cosigned()
        if state is not None:
            self._comparer.same(Seen(size=state.size, root=state.root, note=state.note), head)

    def _policies(self) -> dict[str, Policy]:
        """Policies of this node's contracts, by digest."""
        found = ((one.contract.digest, self._trust.policy_of(one)) for one in self._trust.contracts())
        return {contract: policy for contract, policy in found if policy is not None}

    def _ask_for_keys(self, note: str) -> None:
        """Fetches statements, where somebody cosigned whose key is not known, or a contract is new."""
        log = {(key.name, key.hash4) for key in self._member.log_keys.all()}
        named = {(name, hash4) for name, hash4, _ in parse_note(note).signatures} - log
        unknown = frozenset(named - self._trust.known())
        contracts = tuple(one.contract.digest for one in self._trust.contracts())
        now_ms, before = self._clock.now_ms(), self._asked
        same = before is not None and (unknown, contracts) == (before[0], before[2])
        if before is not None and same and (not unknown or 0 <= now_ms - before[1] < _ASK_AGAIN_MS):
            return
        shown = self._member.client.get("/witness/keys")
        self._trust.learn(shown.get("witnesses") if isinstance(shown, dict) else None)
        still = frozenset(named - self._trust.known())
        self._asked = (still, now_ms, contracts)

    # --- what is not to be ---

    def _stop(self, found: Contradiction) -> IriaiError:
        """Evidence first, then the node's own stop, then everybody else."""
        evidence = found.evidence
        text = evidence.to_text()
        write_durably(self._member.home.root / EVIDENCE, text.encode("utf-8"))
        proof = [b64(one) for one in evidence.proof or ()]
        kept = {"reason": found.words, "notes": [evidence.first, evidence.second], "proof": proof}
        error = self._outbox.stop(found.words, json.dumps(kept, ensure_ascii=False))
        self._complain([evidence.first, evidence.second], proof=proof)
        return error

    def _complain(self, notes: list[str], *, proof: list[str] | None = None) -> None:
        """Tells the broker; what it answers changes nothing here."""
        with contextlib.suppress(IriaiError):
            self._member.client.post("/witness/complaints", {"notes": notes, "proof": proof})

    def evidence(self) -> bool:
        """Writes the evidence of a stop that another part of this node found, if tiles prove it."""
        path = self._member.home.root / EVIDENCE
        if path.exists():
            return True
        for _, _, text in self._outbox.evidence():
            notes = json.loads(text).get("notes", [])
            with contextlib.suppress(IriaiError, Contradiction, ValueError):
                try:
                    self._comparer.same(self._open(notes[0]), self._open(notes[1]))
                except Contradiction as found:
                    write_durably(path, found.evidence.to_text().encode("utf-8"))
                    self._complain(notes)
                    return True
        return False


def _is_better(row: WitnessedNote, known: WitnessedNote | None, policy: Policy) -> bool:
    """Whether a note has the policy's quorum, for a new size or up to a later time than the kept one."""
    now = vouched(row, policy)
    before = None if known is None else vouched(known, policy)
    return now is not None and (before is None or now.until_ms > before.until_ms)
