# SPDX-License-Identifier: Apache-2.0
"""What this node believes about the log: one history, with its own entries in it.

News of the log come with each request, and over HTTP: a signed checkpoint, a consistency proof from an older
one, and receipts. A receipt is ``{"entry": <text of the entry's bytes>, "proof": <tlog-proof text>}``; a bare
tlog-proof text is the broker's promise only: its checkpoint is checked, but it proves no entry to whoever
lacks the bytes.

`LogView.news`, in this order; nothing is stored before all of it holds:
1. the checkpoint is signed by a log key that is believed and is of the pinned origin;
2. it extends, or is, the last one that was verified here: same size, same root; larger, a consistency proof;
3. each entry is the one of an envelope of this node's, unchanged;
4. each entry's leaf is in the tree that its receipt's checkpoint signs;
5. that checkpoint belongs to the same history as all others.

Steps 2 and 5 fail only if the log shows two histories: then the evidence is stored and the node stops
(`EquivocationError`). A checkpoint that cannot be tied to the history yet is never taken over as seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.errors import PeerAnswerError, ReceiptError, RemoteRefusalError
from client.outbox.rows import Closing, Proven, Seen
from policies.encoding import unb64
from policies.errors import EncodingError
from policies.log.checkpoint import VerifierKey, open_checkpoint
from policies.log.entries import EntryType, check_entry
from policies.log.errors import LogError, ProofError
from policies.log.merkle import leaf_hash, verify_consistency
from policies.log.proofs import parse_receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.outbox import Outbox
    from client.transport import BrokerClient

__all__ = ["LogView", "Outcome", "collect", "fetch_consistency", "fetch_receipt", "run_is_over"]

_PROOF_HASHES = 128
_RECEIPTS = 256
_LINK_TRIES = 3
_OVER = frozenset({"completed", "stopped", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What news brought: the verified head, how many were receipted, checkpoints not tied to it yet."""

    head: Seen
    receipted: int
    unlinked: tuple[int, ...]


class LogView:
    """The log as this node saw it; `news` and `check` raise or advance it."""

    def __init__(
        self,
        outbox: Outbox,
        log_keys: str | Callable[[], Sequence[VerifierKey]],
        *,
        fetch: Callable[[int], Mapping[str, Any]] | None = None,
    ) -> None:
        """Watches one log.

        Args:
            outbox: Stores checkpoints, receipts and evidence.
            log_keys: Pinned verifier key of the log; or gives the keys that are believed now, the pinned one
                first (`client.log_keys`).
            fetch: Gives ``{"note", "proof", "old_size"}`` from an older size to the current head, over HTTP.
        """
        self._outbox = outbox
        pinned = (VerifierKey.parse(log_keys),) if isinstance(log_keys, str) else ()
        self._keys = (lambda: pinned) if isinstance(log_keys, str) else log_keys
        self._name = self._keys()[0].name
        self._fetch = fetch

    def news(self, log: object, receipts: object, *, later: bool = False) -> Outcome:
        """Takes what came with a request; see the module for the order of checks.

        Args:
            log: ``{"note": text, "proof": [base64], "old_size": n}``, or None.
            receipts: List of receipts, or None.
            later: Store it with the outbox's next transaction.

        Raises:
            EquivocationError: The log shows two histories; the node is stopped.
            ReceiptError: A receipt does not prove what it should; nothing was stored.
            NoteError, QuorumError: The checkpoint is not signed by a key that is believed.
            PeerAnswerError: Another form.
        """
        self._outbox.check_open()
        learned: dict[int, Seen] = {}
        loose: dict[int, Seen] = {}
        if log is not None:
            note, proof, old_size = _log_news(log)
            head = self._open(note)  # 1.
            if not self._extends(head, proof, old_size, learned):  # 2.
                loose[head.size] = head
        proven: dict[str, Proven] = {}
        for item in _receipt_list(receipts):
            checkpoint = self._receipt(item, proven)  # 3. 4.
            if not self._linked(checkpoint, learned):  # 5.
                self._linked(checkpoint, loose)
                loose[checkpoint.size] = checkpoint
        if self._fetch is not None:
            for size in sorted(loose, reverse=True):
                self._link(loose.pop(size), learned)
        self._outbox.shown.learn(tuple(learned.values()), proven, later=later)
        return Outcome(head=self._outbox.shown.seen(), receipted=len(proven), unlinked=tuple(sorted(loose)))

    def closings(self, items: object) -> tuple[Closing, ...]:
        """Entries ``round.closed`` with their proofs that came with a request, of the history that was seen.

        One whose checkpoint is not tied to that history yet is left out: it comes again.

        Raises:
            EquivocationError: The log shows two histories; the node is stopped.
            ReceiptError: One proves nothing, or is another entry.
            PeerAnswerError: Another form.
        """
        found = []
        for item in _receipt_list(items):
            text, body = _receipt_parts(item)
            try:
                receipt = parse_receipt(text)
                checkpoint = self._open(receipt.note)
                entry = check_entry((body or "").encode("utf-8"))
                leaf = leaf_hash(entry.body)
                receipt.verify(leaf, self._keys())
            except (LogError, EncodingError) as error:
                raise _no_receipt("the proof of a closed round", error.found) from error
            if (entry.type, entry.log) != (EntryType.ROUND_CLOSED, self._name):
                raise _no_receipt("the entry of a closed round", entry.type.value)
            if self._linked(checkpoint, {}):
                found.append(
                    Closing(
                        index=receipt.index,
                        leaf=leaf,
                        scope=entry.scope,
                        run=entry.run,
                        round=entry.round,
                        attempt=entry.pub["attempt"],
                    )
                )
        return tuple(found)

    def advance(self) -> Seen:
        """Asks for the current head and takes it over once it extends what was seen."""
        if self._fetch is None:
            return self._outbox.shown.seen()
        return self.news(self._fetch(self._outbox.shown.seen().size), None).head

    def tie(self, note: str) -> None:
        """Returns once a checkpoint, however old, is tied to the history that was seen.

        Raises:
            EquivocationError: It is of another one; the node is stopped.
            PeerAnswerError: Nothing ties it.
        """
        self._outbox.check_open()
        learned: dict[int, Seen] = {}
        checkpoint = self._open(note)
        if not self._linked(checkpoint, learned):
            self._link(checkpoint, learned)
        self._outbox.shown.learn(tuple(learned.values()), {})

    def _open(self, note: str) -> Seen:
        checkpoint = open_checkpoint(note, self._keys())
        if checkpoint.origin != self._name:
            raise PeerAnswerError(
                need=f"the log {self._name}",
                found=checkpoint.origin,
                remedy="ask the operator which log it is",
            )
        return Seen(size=checkpoint.size, root=checkpoint.root, note=note)

    def _extends(self, head: Seen, proof: Sequence[bytes], old_size: int, learned: dict[int, Seen]) -> bool:
        """Whether the head is tied to what was seen; then it is in ``learned``."""
        top = max(learned.values(), key=lambda one: one.size, default=self._outbox.shown.seen())
        if head.size <= top.size:
            return self._linked(head, learned)
        if top.size and old_size != top.size:
            return False
        if top.size:
            self._consistent(top, head, proof)
        learned[head.size] = head
        return True

    def _consistent(self, old: Seen, new: Seen, proof: Sequence[bytes]) -> None:
        try:
            verify_consistency(size1=old.size, size2=new.size, root1=old.root, root2=new.root, proof=proof)
        except ProofError as error:
            raise self._stop(f"no consistency from size {old.size} to size {new.size}", old, new) from error

    def _linked(self, checkpoint: Seen, learned: Mapping[int, Seen]) -> bool:
        """Whether a checkpoint is a known one; another root of the same size stops the node."""
        known = learned.get(checkpoint.size) or self._outbox.shown.seen_at(checkpoint.size)
        if known is None:
            return False
        if known.root != checkpoint.root:
            raise self._stop(f"two roots at size {checkpoint.size}", known, checkpoint)
        return True

    def _link(self, loose: Seen, learned: dict[int, Seen]) -> None:
        """Ties a checkpoint to the history over HTTP: it and what was seen must lead to the same head."""
        for _ in range(_LINK_TRIES):
            top = max(learned.values(), key=lambda one: one.size, default=self._outbox.shown.seen())
            note, proof, _size = _log_news(self._fetched(top.size))
            head = self._open(note)
            self._extends(head, proof, top.size, learned)
            if self._linked(loose, learned):
                return
            if loose.size > head.size:
                continue  # an answer from before the receipt
            note, proof, _size = _log_news(self._fetched(loose.size))
            again = self._open(note)
            if again.size != head.size:
                continue  # the log grew in between
            self._linked(again, learned)
            self._consistent(loose, again, proof)
            learned[loose.size] = loose
            return
        raise PeerAnswerError(
            need=f"a consistency proof for size {loose.size}",
            found="none that fits",
            remedy="try again later",
        )

    def _fetched(self, size: int) -> Mapping[str, Any]:
        return self._fetch(size) if self._fetch is not None else {}

    def _stop(self, reason: str, first: Seen, second: Seen) -> Exception:
        evidence = json.dumps({"reason": reason, "notes": [first.note, second.note]}, ensure_ascii=False)
        return self._outbox.stop(reason, evidence)

    def _receipt(self, item: object, proven: dict[str, Proven]) -> Seen:
        """The checkpoint of one receipt, once it proves an own entry; that goes into ``proven``."""
        text, body = _receipt_parts(item)
        try:
            receipt = parse_receipt(text)
            checkpoint = self._open(receipt.note)
            if body is None:
                return checkpoint
            entry = check_entry(body.encode("utf-8"))
            leaf = leaf_hash(entry.body)
            receipt.verify(leaf, self._keys())
        except (LogError, EncodingError) as error:
            raise _no_receipt("the proof of an entry in the log", error.found) from error
        stored = self._outbox.by_env(entry.env or "")
        if stored is None:
            raise _no_receipt("the entry of an envelope of this node", "another entry")
        same = (entry.log, entry.type.value, entry.scope, entry.run, entry.round)
        if same != (self._name, stored.kind, stored.scope, stored.run, stored.round):
            raise _no_receipt(
                "an entry that says what the envelope says", "another type, scope, run or round"
            )
        kept = json.dumps({"entry": body, "proof": text}, ensure_ascii=False)
        proven[stored.env] = Proven(index=receipt.index, leaf=leaf, text=kept)
        return checkpoint


def _receipt_parts(item: object) -> tuple[str, str | None]:
    """Proof and entry of a receipt; no entry for a bare proof."""
    if isinstance(item, str):
        return item, None
    if isinstance(item, Mapping) and set(item) == {"entry", "proof"}:
        body, text = item["entry"], item["proof"]
        if isinstance(body, str) and isinstance(text, str):
            return text, body
    raise _no_receipt("texts of entry and proof", "another form")


def _no_receipt(need: str, found: str) -> ReceiptError:
    return ReceiptError(need=need, found=found, remedy="ask for the receipt again: iriai-node receipt fetch")


def _log_news(log: object) -> tuple[str, tuple[bytes, ...], int]:
    """Note, proof and old size of ``{"note", "proof", "old_size"}``.

    Raises:
        PeerAnswerError: Another form.
    """
    wrong = PeerAnswerError(
        need="note, proof and old_size of the log", found="another form", remedy="check both versions"
    )
    if not isinstance(log, Mapping):
        raise wrong
    note, hashes, old_size = log.get("note"), log.get("proof"), log.get("old_size", 0)
    if not isinstance(note, str) or not isinstance(hashes, list) or not isinstance(old_size, int):
        raise wrong
    if len(hashes) > _PROOF_HASHES:
        raise wrong
    try:
        return note, tuple(unb64(one) for one in hashes), old_size
    except EncodingError as error:
        raise wrong from error


def _receipt_list(receipts: object) -> Sequence[object]:
    if receipts is None:
        return ()
    if not isinstance(receipts, list) or len(receipts) > _RECEIPTS:
        raise PeerAnswerError(
            need=f"at most {_RECEIPTS} receipts", found="another form", remedy="check both versions"
        )
    return receipts


def fetch_consistency(client: BrokerClient) -> Callable[[int], Mapping[str, Any]]:
    """A ``fetch`` for `LogView` over HTTP."""

    def fetch(old: int) -> Mapping[str, Any]:
        answer = client.get(f"/log/consistency?old={old}")
        if not isinstance(answer, dict):
            raise PeerAnswerError(
                need="a consistency proof", found="another form", remedy="check both versions"
            )
        return answer

    return fetch


def fetch_receipt(client: BrokerClient, event_id: str) -> dict[str, str]:
    """Receipt of an own entry over HTTP, unverified.

    Raises:
        RemoteRefusalError: The broker has no such entry of this organisation.
        PeerAnswerError: Another form.
    """
    answer = client.get(f"/receipts/{event_id}")
    if not isinstance(answer, dict) or not {"entry", "proof"} <= set(answer):
        raise PeerAnswerError(need="entry and proof", found="another form", remedy="check both versions")
    return {"entry": answer["entry"], "proof": answer["proof"]}


def collect(client: BrokerClient, outbox: Outbox, view: LogView, *, older_than_ms: int) -> int:
    """Fetches and checks receipts of envelopes that have none; gives how many were found.

    Raises:
        EquivocationError: The log shows two histories.
        PeerUnreachableError: Nothing answered.
    """
    found = []
    for one in outbox.pending():
        if one.at_ms > older_than_ms:
            continue
        try:
            found.append(fetch_receipt(client, one.event_id))
        except RemoteRefusalError:  # it has not arrived; it goes out again with the next reply
            continue
    return view.news(None, found).receipted if found else 0


def run_is_over(client: BrokerClient, run: str) -> bool:
    """Whether the broker says that a run asks for nothing more; an unknown run is not over."""
    try:
        answer = client.get(f"/runs/{run}")
    except RemoteRefusalError:
        return False
    return isinstance(answer, dict) and answer.get("state") in _OVER
