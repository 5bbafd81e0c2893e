# SPDX-License-Identifier: Apache-2.0
"""One setup as a node holds it, in memory: own secrets, what others advertised, the shares it was given.

    setup = Holding.begin(frame, ...)           # ADVERTISE
    setup.take_adverts(adverts)                 # SHARE
    setup.take_shares(packages)                 # OPEN

A slot's secrets are taken out by `Holding.take_slot` when its vector is masked, its shares by `forget` when
the slot is over: there is no way back to either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.secagg.asks import Package, ShareAnswer, signed_bytes
from policies.secagg.contexts import (
    NO_NONCE,
    Lane,
    chained,
    members_key,
    pair_masks,
    seal_digest,
    self_key,
    setup_digest,
)
from policies.secagg.dealing import OwnKeys, Secret, SharePair, SlotSecrets, check_keys, deal, receive, row_of
from policies.secagg.documents import Advert, ShareHeader, SignedBytes, sign
from policies.secagg.errors import ContextMismatchError, RoundBurnedError, ShareBadError
from policies.secagg.keystream import MaskKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.identity import SigningKey
    from policies.ports import Entropy
    from policies.secagg.contexts import Context, Frame
    from policies.secagg.dealing import Kind
    from policies.secagg.terms import Terms

__all__ = ["Answers", "Holding"]


class Answers:
    """The last answer of each kind: the same bytes asked again get the same bytes, without any work."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, bytes]] = {}

    def again(self, kind: str, ask: bytes) -> bytes | None:
        """The answer that these bytes had, or None."""
        asked, answer = self._kept.get(kind, (b"", b""))
        return answer if asked == hashlib.sha256(ask).digest() else None

    def given(self, kind: str) -> bool:
        """Whether there was an answer to other or the same bytes."""
        return kind in self._kept

    def keep(self, kind: str, ask: bytes, answer: bytes) -> bytes:
        """The answer, kept."""
        self._kept[kind] = hashlib.sha256(ask).digest(), answer
        return answer


@dataclass(slots=True, kw_only=True, eq=False)
class Holding:
    """A setup at a node.

    Attributes:
        frame: What it is for.
        answers: To what was asked about it.
        adverts: Of all that advertised, once shown.
        setup, seal: Digests, once known.
        members: M, once opened.
        failed: A dealer lied: nothing goes on from here.
    """

    terms: Terms
    party: str
    frame: Frame
    advert: Advert
    keys: OwnKeys = field(repr=False)
    answers: Answers = field(default_factory=Answers, repr=False)
    adverts: Mapping[str, Advert] = field(default_factory=dict, repr=False)
    setup: bytes = b""
    seal: bytes = b""
    members: tuple[str, ...] = ()
    failed: bool = False
    _header: ShareHeader | None = field(default=None, repr=False)
    _group: Secret = field(default_factory=lambda: Secret(b""), repr=False)
    _shares: dict[int, dict[str, SharePair]] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, frame: Frame, *, terms: Terms, party: str, entropy: Entropy, opened: int = 0) -> Holding:
        """Fresh keys for a setup, of a member that helped to open so many rounds before."""
        keys = OwnKeys.draw(frame, entropy, members=terms.n)
        advert = keys.advert(frame, party=party, position=terms.position(party), opened=opened)
        return cls(terms=terms, party=party, frame=frame, advert=advert, keys=keys)

    @property
    def position(self) -> int:
        """The own place in the roster."""
        return self.terms.position(self.party)

    @property
    def group(self) -> bytes:
        """G, the members' key."""
        return self._group.reveal()

    def signed_advert(self, key: SigningKey) -> bytes:
        """The answer to ADVERTISE."""
        signed = SignedBytes(
            payload=self.advert.payload(), signature=sign(self.advert, key), blob=self.advert.blob()
        )
        return signed_bytes(signed)

    def take_adverts(
        self, shown: Mapping[str, SignedBytes], *, check_crowd: Callable[[Sequence[str]], None]
    ) -> None:
        """Reads what all advertised; the checks, in this order.

        1. signature by the contract's key and every field as expected; 2. the own advert is unchanged;
        3. an agreement is possible with every key; 4. enough members and groups.

        Raises:
            KeyNotPinnedError: 1.
            ContextMismatchError: 1 to 3.
            CohortTooSmallError: 4.
        """
        adverts = {
            party: Advert.open(one, frame=self.frame, party=party, terms=self.terms)
            for party, one in shown.items()
        }
        self._check_own(adverts.get(self.party) == self.advert, "advert")
        for advert in adverts.values():
            check_keys(advert)
        check_crowd(tuple(adverts))
        self.adverts = adverts
        self.setup = setup_digest(self.frame, {party: one.digest() for party, one in adverts.items()})

    def deal(self, key: SigningKey, entropy: Entropy) -> bytes:
        """The answer to SHARE: shares of every slot, sealed for each holder."""
        dealt = deal(
            self.keys,
            setup=self.setup,
            dealer=self.party,
            adverts=self.adverts,
            terms=self.terms,
            entropy=entropy,
        )
        self._header = dealt.header
        for slot, pair in enumerate(dealt.kept):
            self._shares.setdefault(slot, {})[self.party] = pair
        signed = SignedBytes(
            payload=dealt.header.payload(), signature=sign(dealt.header, key), blob=dealt.header.blob()
        )
        answer = ShareAnswer(header=signed, commitments=dealt.commitments, ciphertexts=dealt.ciphertexts)
        return answer.to_bytes()

    def take_shares(
        self, packages: Mapping[str, Package], *, check_crowd: Callable[[Sequence[str]], None]
    ) -> None:
        """Reads what all dealt; the checks, in this order.

        1. members are advertisers, enough of them; 2. each header is signed by its dealer and about this
        setup; 3. the own one is unchanged; 4. shares, as `policies.secagg.dealing.receive`.

        Raises:
            CohortTooSmallError: 1.
            KeyNotPinnedError: 2.
            ContextMismatchError: 1 to 4.
            ShareBadError: 4; the offender is the dealer.
        """
        if not set(packages) <= set(self.adverts):
            raise self._mismatch("shares of advertisers", "of others too")
        check_crowd(tuple(packages))
        headers = {party: self._open_header(party, one) for party, one in packages.items()}
        self._check_own(headers.get(self.party) == self._header, "share header")
        parts = [self._take(headers[party], packages[party]) for party in packages]
        self.members = tuple(packages)
        self.seal = seal_digest(self.setup, {party: one.digest() for party, one in headers.items()})
        self._group = Secret(members_key([one.reveal() for one in parts], self.seal))
        self._drop_sealing()

    def _open_header(self, party: str, package: Package) -> ShareHeader:
        return ShareHeader.open(
            package.header, setup=self.setup, party=party, holders=len(self.adverts), terms=self.terms
        )

    def _take(self, header: ShareHeader, package: Package) -> Secret:
        """Keeps a dealer's shares; returns its part of the members' key."""
        at = list(self.adverts).index(self.party)
        if header.party == self.party:
            self._check_own(header.rows[at] == row_of(package.commitments, package.ciphertext), "commitments")
            return self.keys.part
        given = receive(
            self.keys.transport(self.terms.position(header.party)),
            header=header,
            dealer=self.adverts[header.party],
            holder=(self.party, at),
            row=package.commitments,
            ciphertext=package.ciphertext,
            terms=self.terms,
        )
        for slot, pair in enumerate(given.shares):
            self._shares.setdefault(slot, {})[header.party] = pair
        return given.part

    def fail(self, error: ShareBadError) -> tuple[str, bytes]:
        """Ends this setup because of a dealer.

        Returns:
            Who it is, and what proves it: the key of what it sealed for this node.
        """
        dealer = error.offender or self.party
        proof = self.keys.transport(self.terms.position(dealer))
        self.failed, self._shares = True, {}
        self.keys.slots.clear()
        self._drop_sealing()
        return dealer, proof

    def _drop_sealing(self) -> None:
        """Else recorded ciphertexts could be opened later."""
        self.keys.transports, self.keys.part = (), Secret(b"")

    def check_nonces(self, nonces: tuple[bytes, ...], round: int) -> None:  # noqa: A002
        """Returns if each reveal for a round is a link of its member's chain, or owed.

        Raises:
            ContextMismatchError: One is not.
        """
        if len(nonces) != len(self.members):
            raise self._mismatch(f"{len(self.members)} nonces", f"{len(nonces)}")
        steps = round - self.frame.first_round + 1
        for party, nonce in zip(self.members, nonces, strict=True):
            if nonce != NO_NONCE and chained(nonce, steps) != self.adverts[party].chain_end:
                raise self._mismatch(f"the nonce of {party} for this round, or none", "another one")

    def take_slot(self, slot: int) -> SlotSecrets:
        """The own secrets of a slot, which are then no longer here.

        Raises:
            RoundBurnedError: They were taken before.
        """
        if slot not in self.keys.slots:
            raise RoundBurnedError(need="a slot with keys", found="a burned one", remedy="next attempt")
        return self.keys.slots.pop(slot)

    def mask_keys(self, secrets: SlotSecrets, context: Context, lane: Lane) -> MaskKeys:
        """Keys of the masks of one vector or lane."""
        ctx, slot = context.digest(self.terms), self.frame.slot(context.round, context.attempt)
        others = [
            (self.terms.position(one), self.adverts[one].slots[slot].public)
            for one in context.team_of(self.party)
            if one != self.party
        ]
        return MaskKeys(
            own=self_key(secrets.own.reveal(), seal=self.seal, lane=lane, ctx=ctx, position=self.position),
            pairs=pair_masks(
                secrets.pair.reveal(), own=self.position, others=others, seal=self.seal, ctx=ctx, lane=lane
            ),
        )

    def share(self, slot: int, dealer: str, kind: Kind) -> bytes:
        """A share that this node holds.

        Raises:
            RoundBurnedError: It was deleted.
        """
        held = self._shares.get(slot, {}).get(dealer)
        if held is None:
            raise RoundBurnedError(need="a slot with shares", found="a burned one", remedy="next attempt")
        return held.of(kind)

    def forget(self, slot: int) -> None:
        """Deletes secrets and shares of a slot and of all before it."""
        for one in range(slot + 1):
            self.keys.slots.pop(one, None)
            self._shares.pop(one, None)

    def _check_own(self, same: bool, what: str) -> None:  # noqa: FBT001
        if not same:
            raise self._mismatch(f"the own {what} among the others, unchanged", "another one, or none")

    def _mismatch(self, need: str, found: str) -> ContextMismatchError:
        return ContextMismatchError(
            need=need,
            found=found,
            remedy="run a new setup; if it happens again, tell the other members",
            clause=self.terms.clause,
        )
