# SPDX-License-Identifier: Apache-2.0
r"""A witness of one log (C2SP tlog-witness): whether it cosigns a head, given what it cosigned before.

`consider` is the whole machine and keeps nothing. **Check and persist are one step of the caller's**: under
one lock, or as one conditional update, it reads the state, calls `consider`, stores `Cosign.state` durably,
and only then lets `Cosign.line` out. A caller who answers first can cosign two histories after a crash.

The same machine decides in both directions:

- *push*: the log calls; `parse_request` reads its body (``old <size>``, hashes, an empty line, the note).
- *pull*: the witness asks the log for its head, makes the proof itself from tiles, and calls with its own
  size as ``old_size``.

Invariants:

1. Nothing is cosigned that is not proven to begin with what was cosigned before.
2. A time is never earlier than the last one signed; a clock that went back stops the witness, not the log.
3. A refusal changes no state.
4. What a refusal shows (`Refuse.evidence`) are notes that the log itself signed; `Evidence.check` says
   whether they prove anything.

Example::

    verdict = consider(state, note, old_size=state.size, proof=proof, log_keys=[vkey], origin=origin,
                       key=key, name="org_kita/witness", now_s=now_ms // 1000)
    match verdict:
        case Cosign(state=state, line=line): store(state); send(line)
        case Refuse(evidence=evidence): keep(evidence); complain()
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from policies.limits import INTEGER_MAX
from policies.log.checkpoint import (
    NOTE_BYTES,
    TIME_MAX_S,
    checkpoint_text,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
)
from policies.log.cosignature import CosigningKey, cosign
from policies.log.equivocation import Evidence
from policies.log.errors import NoteError, ProofError, QuorumError
from policies.log.merkle import EMPTY_ROOT, HASH_BYTES, PROOF_HASHES_MAX, folded_roots, verify_consistency
from policies.log.vkeys import note_error, strict_b64

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.log.checkpoint import Checkpoint, VerifierKey

__all__ = [
    "Cosign",
    "Refuse",
    "WitnessRequest",
    "WitnessState",
    "checkpoint_path",
    "consider",
    "parse_request",
    "request_text",
]

_INCONSISTENT = 422
SIZE_TYPE = "text/x.tlog.size"  # media type of the answer 409
REQUEST_BYTES = NOTE_BYTES + 8 * 1024
_OLD = re.compile(r"old (0|[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessState:
    """What a witness cosigned last.

    Attributes:
        size: Of the tree.
        root: Of the tree, 32 bytes.
        time_s: When, seconds since 1970.
        note: The log's own signed note; it is what contradicts a later one.
    """

    size: int
    root: bytes
    time_s: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRequest:
    """The body of ``POST add-checkpoint``."""

    old_size: int
    proof: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosign:
    """The head is good: store ``state``, then send ``line``, a signature line with its newline."""

    state: WitnessState
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Nothing is signed and nothing changes.

    Attributes:
        status: 400 malformed · 403 not signed by the log · 404 another log · 409 ``old_size`` is not what
            was cosigned last · 422 not consistent with it · 503 the witness's own clock went back.
        reason: For people.
        known_size: What was cosigned last, 0 for nothing; the body of a 409.
        evidence: Two notes of the log, where it shows less than before or something else than before.
            `Evidence.check` says whether they prove it. If not, and the new note is the larger one, a
            witness that has the tiles behind it calls `policies.log.equivocation.prove`. One that was
            called (push) keeps only what proves something: anybody can send an old note or a bad proof.
    """

    status: int
    reason: str
    known_size: int
    evidence: Evidence | None = None


def consider(
    state: WitnessState | None,
    note: str,
    *,
    old_size: int,
    proof: Sequence[bytes],
    log_keys: Iterable[VerifierKey],
    origin: str,
    key: CosigningKey,
    name: str,
    now_s: int,
) -> Cosign | Refuse:
    """Whether a witness cosigns a head.

    1. the note parses and its text is a checkpoint (400); 2. of this log (404); 3. the log signed it and no
    known signature fails (403); 4. ``old_size`` is at most its size (400); 5. and is what was cosigned last
    (409); 6. an empty tree has the empty root, the proof leads from the one to the other, and is empty where
    nothing is to prove (422); 7. the clock is not behind the last time signed (503).

    Args:
        state: What was cosigned last; None for nothing, for which ``old_size`` is 0.
        note: The log's signed note.
        old_size: Where the proof starts.
        proof: Consistency proof from there.
        log_keys: Keys of the log; the origin is their name.
        origin: Of the log that is witnessed.
        key: Of the witness.
        name: Name of that key.
        now_s: Seconds since 1970.
    """
    known_size = state.size if state else 0
    try:
        head = parse_checkpoint(parse_note(note).text)
    except NoteError as error:
        return Refuse(status=400, reason=str(error), known_size=known_size)
    if head.origin != origin:
        return Refuse(status=404, reason=f"this witness is of {origin}", known_size=known_size)
    try:
        open_checkpoint(note, log_keys)
    except (NoteError, QuorumError) as error:
        return Refuse(status=403, reason=str(error), known_size=known_size)
    refused = _refused(known_size, state, head, old_size, proof)
    if refused is not None:
        return replace(refused, evidence=_evidence(state, note, head, proof, refused.status))
    last_s = state.time_s if state else 1
    if not last_s <= now_s <= TIME_MAX_S:
        reason = f"a clock that says {last_s} or later is needed, the witness's own says {now_s}: set it"
        return Refuse(status=503, reason=reason, known_size=known_size)
    line = cosign(key, name=name, text=checkpoint_text(head), time_s=now_s)
    return Cosign(state=WitnessState(size=head.size, root=head.root, time_s=now_s, note=note), line=line)


def _refused(
    known_size: int, state: WitnessState | None, head: Checkpoint, old_size: int, proof: Sequence[bytes]
) -> Refuse | None:
    """Steps 4 to 6."""
    if not 0 <= old_size <= head.size:
        reason = f"an old size from 0 to {head.size} is needed, found {old_size}"
        return Refuse(status=400, reason=reason, known_size=known_size)
    if old_size != known_size:
        reason = f"old size {known_size} is needed, which was cosigned last; found {old_size}"
        return Refuse(status=409, reason=reason, known_size=known_size)
    try:
        _check_consistent(state, head, proof)
    except ProofError as error:
        return Refuse(status=_INCONSISTENT, reason=str(error), known_size=known_size)
    return None


def _evidence(
    state: WitnessState | None, note: str, head: Checkpoint, proof: Sequence[bytes], status: int
) -> Evidence | None:
    """The two notes, where the new one is not a later one; the proof too, where it convicts."""
    if state is None or not state.size or (head.size, head.root) == (state.size, state.root):
        return None
    if head.size <= state.size:
        return Evidence(state.note, note)
    if status != _INCONSISTENT:
        return None
    try:
        older, newer = folded_roots(state.size, head.size, proof)
    except ProofError:
        return Evidence(state.note, note)
    convicts = newer == head.root and older != state.root
    return Evidence(state.note, note, tuple(proof) if convicts else None)


def _check_consistent(state: WitnessState | None, head: Checkpoint, proof: Sequence[bytes]) -> None:
    if not head.size and head.root != EMPTY_ROOT:
        raise ProofError(
            need=f"the root of the empty tree, {EMPTY_ROOT.hex()}",
            found=head.root.hex(),
            remedy="sign the empty tree with its own root",
        )
    if state is not None and state.size:
        verify_consistency(state.size, head.size, state.root, head.root, proof)
    elif proof:
        raise ProofError(
            need="no hashes: from nothing there is nothing to prove",
            found=f"{len(proof)}",
            remedy="send an empty proof for old size 0",
        )


def request_text(*, old_size: int, proof: Sequence[bytes], note: str) -> str:
    """The body of ``POST add-checkpoint``."""
    hashes = [base64.b64encode(one).decode("ascii") for one in proof]
    return "\n".join([f"old {old_size}", *hashes, "", note])


def parse_request(body: bytes) -> WitnessRequest:
    """The parts of a body of ``POST add-checkpoint``; nothing is verified yet.

    Raises:
        NoteError: Another form (status 400).
    """
    try:
        text = body.decode("utf-8") if len(body) <= REQUEST_BYTES else ""
    except UnicodeDecodeError as error:
        raise note_error("UTF-8", "other bytes") from error
    head, found, note = text.partition("\n\n")
    old, *lines = head.split("\n")
    size = _OLD.fullmatch(old)
    if not found or size is None or int(size[1]) > INTEGER_MAX or len(lines) > PROOF_HASHES_MAX:
        raise note_error(
            f"`old <size>`, at most {PROOF_HASHES_MAX} hashes, an empty line, a note; {REQUEST_BYTES} bytes",
            f"{len(body)} bytes that begin {old[:40]}",
        )
    proof = [strict_b64(line) for line in lines]
    if any(one is None or len(one) != HASH_BYTES for one in proof):
        raise note_error("base64 of 32 bytes in each line of the proof", "something else")
    return WitnessRequest(old_size=int(size[1]), proof=tuple(one or b"" for one in proof), note=note)


def checkpoint_path(origin: str) -> str:
    """Where a witness shows the last note that it cosigned, under its prefix for readers."""
    return f"{hashlib.sha256(origin.encode('utf-8')).hexdigest()}/checkpoint"
