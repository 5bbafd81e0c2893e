# SPDX-License-Identifier: Apache-2.0
"""Receipts: C2SP ``tlog-proof`` files with an entry's index, its inclusion proof and a checkpoint.

Form::

    c2sp.org/tlog-proof@v1
    index 17
    <base64 hash>            from the leaf upwards, one per line
                             (empty line)
    <signed checkpoint note>

Two grades, one form: the note carries the log's signature (`Receipt.verify`), and with a quorum's
cosignatures beside it the receipt is *witnessed* (`Receipt.verify_witnessed`): nobody was shown another
history, unless more voters than the policy tolerates vouch for two.

The holder keeps the entry's bytes or its envelope; the receipt proves that a leaf hash is in the tree that
the checkpoint signs. An ``extra`` line, which the format allows, is refused: nobody here writes one, and it
would never be trusted.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.log.checkpoint import (
    NOTE_BYTES,
    Checkpoint,
    VerifierKey,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
)
from policies.log.errors import ProofError
from policies.log.merkle import HASH_BYTES, PROOF_HASHES_MAX, verify_inclusion
from policies.log.policy import open_witnessed
from policies.log.vkeys import strict_b64

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.log.checkpoint import Note
    from policies.log.policy import Policy

__all__ = ["Receipt", "parse_receipt", "receipt_text"]

_MAGIC = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})")


def _refuse(need: str, found: str) -> ProofError:
    return ProofError(
        need=need, found=ascii(found)[1:-1][:120], remedy="ask for the receipt again, unchanged"
    )


@dataclass(frozen=True, slots=True)
class Receipt:
    """A parsed receipt; `verify` decides what it proves."""

    index: int
    proof: tuple[bytes, ...]
    note: str

    @property
    def checkpoint(self) -> Checkpoint:
        """Checkpoint of the note, its signature not verified: use `verify`."""
        return parse_checkpoint(parse_note(self.note).text)

    def to_text(self) -> str:
        """The receipt as a file."""
        return receipt_text(index=self.index, proof=self.proof, note=self.note)

    def verify(self, leaf: bytes, keys: Iterable[VerifierKey]) -> Checkpoint:
        """The signed checkpoint in whose tree the leaf hash ``leaf`` stands at ``index``.

        1. a log key signed the note; 2. the inclusion proof fits its root.

        Raises:
            NoteError: Step 1, the note is malformed or a known key's signature fails.
            QuorumError: Step 1, no known key signed.
            ProofError: Step 2.
        """
        checkpoint = open_checkpoint(self.note, keys)
        self._check_included(leaf, checkpoint)
        return checkpoint

    def verify_witnessed(self, leaf: bytes, policy: Policy) -> tuple[Checkpoint, Note]:
        """As `verify`, and a quorum of the policy cosigned the checkpoint; also who did, and when.

        1. a log key and the quorum of the policy signed the note; 2. the inclusion proof fits its root.

        Raises:
            NoteError: Step 1, the note is malformed or a known key's signature fails.
            QuorumError: Step 1, the log did not sign, or too few witnesses did.
            ProofError: Step 2.
        """
        checkpoint, opened = open_witnessed(self.note, policy)
        self._check_included(leaf, checkpoint)
        return checkpoint, opened

    def _check_included(self, leaf: bytes, checkpoint: Checkpoint) -> None:
        verify_inclusion(leaf, self.index, checkpoint.size, self.proof, checkpoint.root)


def receipt_text(*, index: int, proof: Sequence[bytes], note: str) -> str:
    """A ``tlog-proof`` file."""
    hashes = [base64.b64encode(one).decode("ascii") for one in proof]
    return "\n".join([_MAGIC, f"index {index}", *hashes, "", note])


def parse_receipt(text: str) -> Receipt:
    """A receipt from its text; nothing is verified yet.

    Raises:
        ProofError: Another form, or another spelling of the same receipt.
    """
    if len(text) > NOTE_BYTES + 8 * 1024:
        raise _refuse("a small file", f"{len(text)} characters")
    head, found, note = text.partition("\n\n")
    lines = head.split("\n")
    if not found or len(lines) < 2 or lines[0] != _MAGIC:  # noqa: PLR2004  magic and index
        raise _refuse(_MAGIC, lines[0])
    index = _INDEX.fullmatch(lines[1])
    if index is None or len(lines) - 2 > PROOF_HASHES_MAX:
        raise _refuse(f"index <n> and at most {PROOF_HASHES_MAX} hashes", lines[1])
    proof = []
    for line in lines[2:]:
        one = strict_b64(line)
        if one is None or len(one) != HASH_BYTES:
            raise _refuse("base64 of 32 bytes", line)
        proof.append(one)
    receipt = Receipt(int(index.group(1)), tuple(proof), note)
    if receipt.to_text() != text:
        raise _refuse("the one spelling of a receipt", "another")
    return receipt
