# SPDX-License-Identifier: Apache-2.0
"""One history: heads that this node holds, compared with each other by the log's own tiles.

`Comparer.same` returns if the smaller of two signed heads is a prefix of the larger one, by a proof that is
made here. If it is not, the proof convicts the log: `Contradiction` carries the evidence, checked. Tiles that
prove neither are the broker's fault and prove nothing (`PeerAnswerError`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.errors import PeerAnswerError
from policies.log.equivocation import Evidence, prove
from policies.log.errors import LogError, ProofError
from policies.log.merkle import verify_consistency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.outbox.rows import Seen
    from client.witnessing.tiles import Tiles
    from policies.log.vkeys import VerifierKey

__all__ = ["Comparer", "Contradiction"]


class Contradiction(Exception):  # noqa: N818  control flow: the loop turns it into the node's own error
    """Two notes of the log that cannot both be true; the evidence holds."""

    def __init__(self, evidence: Evidence, words: str) -> None:
        super().__init__(words)
        self.evidence = evidence
        self.words = words


class Comparer:
    """Compares heads of one log."""

    def __init__(self, tiles: Tiles, log_keys: Callable[[], Sequence[VerifierKey]]) -> None:
        self._tiles = tiles
        self._log_keys = log_keys

    def same(self, one: Seen, other: Seen) -> None:
        """Returns if both are of one history.

        Raises:
            Contradiction: They are not; the evidence was checked.
            PeerAnswerError: The broker's tiles prove nothing.
        """
        small, large = sorted((one, other), key=lambda head: head.size)
        if not small.size or (small.size, small.root) == (large.size, large.root):
            return
        if small.size == large.size:
            raise self.convict(Evidence(small.note, large.note))
        self.proof(small, large)

    def proof(self, small: Seen, large: Seen) -> list[bytes]:
        """The consistency proof from the one to the other, which holds.

        Raises:
            Contradiction, PeerAnswerError: As for `same`.
        """
        tree = self._tiles.tree(large)
        try:
            proof = tree.consistency(small.size, large.size)
            verify_consistency(small.size, large.size, small.root, large.root, proof)
        except ProofError as error:
            try:
                evidence = prove(small.note, large.note, tree)
            except LogError:
                raise _proves_nothing(error) from error
            raise self.convict(evidence) from error
        return proof

    def convict(self, evidence: Evidence) -> Contradiction:
        """The contradiction that evidence proves.

        Raises:
            PeerAnswerError: It proves none.
        """
        try:
            words = evidence.check(self._log_keys())
        except LogError as error:
            raise _proves_nothing(error) from error
        return Contradiction(evidence, words)


def _proves_nothing(error: LogError) -> PeerAnswerError:
    return PeerAnswerError(
        need="tiles that prove that the log grew, or that it did not",
        found=error.found,
        remedy="it is tried again; if it stays so, tell the other members",
    )
