# SPDX-License-Identifier: Apache-2.0
"""Receipts of grade witnessed, made here: the entry's own proof at a checkpoint that enough others cosigned.

The receipt of grade signed names index and leaf of the entry; the tiles of a witnessed checkpoint give the
proof at that checkpoint. Nobody is asked for it, and nobody hears that this node looked. It has the same form
(tlog-proof, the entry's bytes beside it), and both grades are kept.

A receipt counts as witnessed for the contract of its envelope, by that contract's quorum.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from client.outbox.rows import Seen
from client.witnessing.vouching import vouched
from policies.log.merkle import leaf_hash
from policies.log.policy import open_witnessed
from policies.log.proofs import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.outbox import Outbox
    from client.outbox.rows import Stored, WitnessedNote
    from client.witnessing.tiles import Tiles
    from policies.log.policy import Policy
    from policies.log.tiles import TileTree
    from policies.log.vkeys import VerifierKey

__all__ = ["upgrade"]


def upgrade(
    outbox: Outbox, tiles: Tiles, policies: Mapping[str, Policy], log_keys: Sequence[VerifierKey]
) -> int:
    """Keeps a witnessed receipt for every envelope that the newest witnessed checkpoint covers.

    Args:
        outbox: Envelopes, receipts and witnessed checkpoints.
        tiles: The log's tree.
        policies: By contract; envelopes of others are left as they are.
        log_keys: Of the log.

    Returns:
        How many receipts are new.

    Raises:
        PeerAnswerError, PeerUnreachableError: Tiles do not come, or prove nothing.
    """
    made: dict[str, tuple[int, str]] = {}
    for contract, policy in policies.items():
        waiting = [one for one in outbox.unwitnessed([contract]) if one.receipt is not None]
        note = _newest(outbox, policy)
        if not waiting or note is None:
            continue
        covered = [one for one in waiting if one.log_index is not None and one.log_index < note.size]
        if covered:
            checkpoint, _ = open_witnessed(note.note, policy)
            tree = tiles.tree(Seen(size=checkpoint.size, root=checkpoint.root, note=note.note))
            made |= {one.env: (note.size, _receipt(one, note, tree, log_keys)) for one in covered}
    if made:
        outbox.cosigning.upgrade(made)
    return len(made)


def _newest(outbox: Outbox, policy: Policy) -> WitnessedNote | None:
    """The largest kept checkpoint with this quorum."""
    return next((one for one in outbox.cosigning.witnessed() if vouched(one, policy) is not None), None)


def _receipt(one: Stored, note: WitnessedNote, tree: TileTree, log_keys: Sequence[VerifierKey]) -> str:
    """Text of the receipt at the checkpoint, as it is kept; proven before it is."""
    kept = json.loads(one.receipt or "{}")
    index = one.log_index or 0
    receipt = Receipt(index, tuple(tree.inclusion(index, note.size)), note.note)
    receipt.verify(leaf_hash(kept["entry"].encode("utf-8")), log_keys)
    return json.dumps({"entry": kept["entry"], "proof": receipt.to_text()}, ensure_ascii=False)
