# SPDX-License-Identifier: Apache-2.0
"""Shares that members give at UNMASK, and the secrets of one slot that they add up to.

1. A share counts if its dealer committed to it; else the holder lies, is named, and its answer is not used.
2. t shares give a secret. All are the dealer's own, so if the secret is not the advertised one the dealer
   lies, and is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.secagg.contexts import public_of
from policies.secagg.dealing import Kind, b_commitment
from policies.secagg.errors import CohortTooSmallError, ContextMismatchError, ShareBadError
from policies.secagg.labels import KEY_BYTES
from policies.secagg.record import cut
from policies.secagg.setups import blaming
from policies.secagg.shamir import SHARE_BYTES, combine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from policies.secagg.contexts import Context
    from policies.secagg.setups import Setup

__all__ = ["Revealed"]


class Revealed:
    """What was revealed for one attempt, once its online set is fixed.

    Args:
        setup: Of the attempt.
        context: Of the attempt.
        online: U3.
        opened: Numbers of the teams to open.
    """

    def __init__(
        self, setup: Setup, context: Context, *, online: Collection[str], opened: tuple[int, ...]
    ) -> None:
        self.setup, self.terms, self.context, self.online = setup, setup.terms, context, online
        self.peers = tuple(peer for number in opened for peer in context.teams[number])
        self.shares: dict[str, dict[str, bytes]] = {}
        self._slot = setup.frame.slot(context.round, context.attempt)
        self._secrets: dict[str, bytes] | None = None

    def take(self, party: str, answer: bytes) -> None:
        """Takes a member's answer: a share of each peer, in the order of teams, and its next nonce.

        Raises:
            ShareBadError: Rule 1; the offender is the holder.
            ContextMismatchError: Another length or nonce.
        """
        following = self.context.round + 1
        with blaming(party):
            if len(answer) < KEY_BYTES:
                raise ContextMismatchError(
                    need=f"{len(self.peers)} shares and a nonce",
                    found=f"{len(answer)} bytes",
                    remedy="leave the party out",
                )
            pieces = cut(answer[:-KEY_BYTES], SHARE_BYTES, len(self.peers))
            shares = dict(zip(self.peers, pieces, strict=True))
            for peer, share in shares.items():
                self._check_share(party, peer, share)
            self.setup.check_nonce(party, following, answer[-KEY_BYTES:])
        self.shares[party] = shares
        self.setup.keep_nonce(party, following, answer[-KEY_BYTES:])

    @property
    def enough(self) -> bool:
        """Whether t members gave shares."""
        return len(self.shares) >= self.terms.t

    def secrets(self) -> Mapping[str, bytes]:
        """The secret b of who is online and s of who is not, for each member of an opened team.

        Raises:
            CohortTooSmallError: Fewer than t gave shares.
            ShareBadError: Rule 2; the offender is the dealer.
        """
        if self._secrets is None:
            if not self.enough:
                raise CohortTooSmallError(
                    need=f"{self.terms.t} members that gave shares",
                    found=str(len(self.shares)),
                    remedy="the next round",
                    clause=self.terms.clause,
                )
            self._secrets = {one: self._secret(one) for one in self.peers}
        return self._secrets

    def _secret(self, dealer: str) -> bytes:
        holders = list(self.shares)[: self.terms.t]
        with blaming(dealer):
            secret = combine({self.terms.position(one): self.shares[one][dealer] for one in holders})
            if not self._is_advertised(dealer, secret):
                raise ShareBadError(
                    need="shares that give the advertised secret",
                    found=f"others, dealt by {dealer}",
                    remedy="the next round, under a new setup without it",
                )
        return secret

    def _is_advertised(self, dealer: str, secret: bytes) -> bool:
        keys = self.setup.adverts[dealer].slots[self._slot]
        if self._kind(dealer) is Kind.PAIR:
            return public_of(secret) == keys.public
        position = self.terms.position(dealer)
        return keys.commitment == b_commitment(self.setup.frame, position=position, slot=self._slot, b=secret)

    def _check_share(self, holder: str, dealer: str, share: bytes) -> None:
        if not self.setup.is_share(
            share, dealer=dealer, holder=holder, slot=self._slot, kind=self._kind(dealer)
        ):
            raise ShareBadError(
                need=f"the share that {dealer} committed to",
                found=f"another one, given by {holder}",
                remedy="go on with the shares of the others",
            )

    def _kind(self, peer: str) -> Kind:
        return Kind.OWN if peer in self.online else Kind.PAIR
