# SPDX-License-Identifier: Apache-2.0
"""Does anybody vouch for the log just now? What guard, ``status`` and ``doctor`` ask of the kept checkpoints.

A checkpoint with cosignatures counts for a contract if the contract's own quorum is in it
(`client.witnessing.trust`). It is as old as the k-th newest cosignature in it: k witnesses say that they saw
this history at that time or later. A witness whose clock runs ahead gets no more credit than the moment at
which the checkpoint was seen here.

    vouching.standing(held)       how it stands for a contract: size, voters, age, and whether that is enough
    vouching.require(held)        returns if a new round may begin under it
    vouching.late(held)           envelopes of the contract that nobody vouched for in time
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from client.errors import UnwitnessedError
from policies.limits import WITNESS_MAX_AGE_MIN, WITNESS_PATIENCE_S
from policies.log.errors import LogError
from policies.log.policy import open_witnessed

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.contract.shelf import Held
    from client.outbox import Outbox
    from client.outbox.rows import WitnessedNote
    from client.witnessing.trust import Trust
    from policies.log.policy import Policy
    from policies.ports import Clock

__all__ = ["Standing", "Vouched", "Vouching", "vouched"]

_MAX_AGE_MS: Final = WITNESS_MAX_AGE_MIN * 60_000
_PATIENCE_MS: Final = WITNESS_PATIENCE_S * 1000
_LOOK_MS: Final = 250
_LOOKED_AT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the log stands for one contract.

    Attributes:
        contract: Its digest.
        k: How many witnesses it demands; 0 for none.
        n: How many of its parties may witness.
        known: How many of them stated a key.
        size: Of the newest checkpoint with the quorum, or None.
        voters: Parties that cosigned it.
        age_ms: Of the k-th newest cosignature in it.
        missing: Parties that may witness, and did not cosign it.
        late: Envelopes without a witnessed receipt after `WITNESS_MAX_AGE_MIN`.
    """

    contract: str
    k: int
    n: int
    known: int
    size: int | None = None
    voters: tuple[str, ...] = ()
    age_ms: int | None = None
    missing: tuple[str, ...] = ()
    late: int = 0

    @property
    def tolerates(self) -> int:
        """How many may sign two histories before both can reach the quorum; below 1 it is unsafe."""
        return 2 * self.k - self.n - 1

    @property
    def fresh(self) -> bool:
        """Whether enough witnesses vouch for the log just now."""
        return not self.k or (self.age_ms is not None and self.age_ms <= _MAX_AGE_MS)

    @property
    def words(self) -> str:
        """For people."""
        if not self.k:
            return "no witness is required"
        need = f"{self.k} of {self.n} needed, tolerates {max(0, self.tolerates)}"
        if self.size is None or self.age_ms is None:
            return f"{need}; nobody vouched yet, {self.known} stated a key"
        return f"{need}; size {self.size} by {' '.join(self.voters)}, {self.age_ms // 1000} s ago"


class Vouched(NamedTuple):
    """Until when a quorum vouches for a checkpoint, its size, and who they are."""

    until_ms: int
    size: int
    voters: tuple[str, ...]


class Vouching:
    """See the module."""

    def __init__(self, outbox: Outbox, trust: Trust, clock: Clock) -> None:
        self._outbox = outbox
        self._trust = trust
        self._clock = clock

    def standing(self, held: Held) -> Standing:
        """How the log stands for a contract."""
        policy, k = self._trust.policy_of(held), self._trust.demanded(held)
        found = Standing(
            contract=held.contract.digest,
            k=k,
            n=len(self._trust.voters(held)),
            known=self._trust.stated(held),
            late=self.late(held),
        )
        best = self._best(policy) if policy is not None and k else None
        there = () if best is None else best.voters
        missing = tuple(one.party for one in self._trust.voters(held) if one.party not in there)
        if best is None:
            return replace(found, missing=missing)
        age_ms = max(0, self._clock.now_ms() - best.until_ms)
        return replace(found, size=best.size, voters=best.voters, age_ms=age_ms, missing=missing)

    def _best(self, policy: Policy) -> Vouched | None:
        """The checkpoint that is vouched for up to the latest time: one of the largest."""
        found = (vouched(one, policy) for one in self._outbox.cosigning.witnessed())
        return max(islice((one for one in found if one is not None), _LOOKED_AT), default=None)

    def require(self, held: Held, pause_ms: Callable[[int], None] | None = None) -> None:
        """Returns if a new round may begin under a contract.

        Args:
            held: The contract.
            pause_ms: Waits; where nobody vouched yet, as right after a start, a quorum is waited for, at most
                `WITNESS_PATIENCE_S`. One that became too old is not.

        Raises:
            UnwitnessedError: It demands witnesses, and too few vouch for the log just now.
        """
        if not self._trust.demanded(held):
            return
        one, audit = self.standing(held), held.contract.audit
        for _ in range(_PATIENCE_MS // _LOOK_MS):
            if one.fresh or one.age_ms is not None or pause_ms is None:
                break
            pause_ms(_LOOK_MS)
            one = self.standing(held)
        if one.fresh:
            return
        raise UnwitnessedError(
            need=f"{one.k} witnesses that vouched for the log in the last {WITNESS_MAX_AGE_MIN} minutes",
            found=one.words,
            remedy="bring the witnesses back: their nodes must run; iriai-node witness status names them",
            clause=None if audit is None else audit.clause,
        )

    def late(self, held: Held) -> int:
        """Envelopes of a contract that demands witnesses, for which nobody vouched in time."""
        if not self._trust.demanded(held):
            return 0
        before_ms = self._clock.now_ms() - _MAX_AGE_MS
        waiting = self._outbox.unwitnessed([held.contract.digest])
        return sum(1 for one in waiting if one.at_ms < before_ms)


def vouched(kept: WitnessedNote, policy: Policy) -> Vouched | None:
    """Until when a quorum vouches for a kept checkpoint; None if it has none by this policy."""
    try:
        checkpoint, note = open_witnessed(kept.note, policy)
    except LogError:
        return None
    voters = policy.voters_of(note.verified)
    times = sorted(
        max(note.times[key.name] for key in policy.keys_of(voter) if key.name in note.times)
        for voter in voters
    )
    return Vouched(min(times[-policy.k] * 1000, kept.at_ms), checkpoint.size, voters)
