# SPDX-License-Identifier: Apache-2.0
"""A member's secrets of a setup, and how they are shared out: each secret so that t members give it back.

- Per slot, 32 random bytes ``b`` (the own mask) and an X25519 key ``s`` (masks with each other member); per
  setup a transport key ``c`` for each other member, a part of the members' key and a chain of nonces.
- Per holder one ciphertext: ChaCha20-Poly1305 under ``HKDF(X25519(c_ij, C_ji), setup, "transport", i, j)``.
  A key per direction is used once, so its nonce is zero. The associated data binds dealer, holder, setup and
  every commitment of the dealer.
- Per (holder, slot, kind) a commitment, and in the advert one to the part, so that blame is exact: a share
  that is not the committed one is the holder's lie; shares that all are and give another secret are the
  dealer's.
- A holder proves what a dealer sealed for it by ``c_ji``: with it everybody opens that one ciphertext as the
  holder did. It opens nothing of any other dealer, so a dealer that lies to many holders, who all prove it,
  brings nobody nearer to an honest member's secrets.
- Private values are `Secret`s: no repr, no pickle.

    keys = OwnKeys.draw(frame, entropy, members=terms.n)
    dealt = deal(keys, setup=setup, dealer="kita", adverts=adverts, terms=terms, entropy=entropy)
    given = receive(keys.transport(position_of_dealer), header=header, ...)          # at a holder
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from policies.secagg.contexts import agreement, chained, public_of
from policies.secagg.documents import Advert, ShareHeader, SlotKeys
from policies.secagg.errors import ContextMismatchError, ShareBadError
from policies.secagg.labels import KEY_BYTES, derived, hashed
from policies.secagg.shamir import SHARE_BYTES, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.ports import Entropy
    from policies.secagg.contexts import Frame
    from policies.secagg.terms import Terms

__all__ = [
    "Dealt",
    "Given",
    "Kind",
    "OwnKeys",
    "Secret",
    "SharePair",
    "b_commitment",
    "check_keys",
    "deal",
    "part_commitment",
    "receive",
    "row_of",
    "rows_digest",
    "share_commitment",
]

_NONCE: Final = bytes(12)  # each key seals one message
_PROBE: Final = bytes(range(1, KEY_BYTES + 1))  # any scalar shows a point of low order
_PAIR_BYTES: Final = 2 * SHARE_BYTES


class Kind(StrEnum):
    """Which of a slot's two secrets a share belongs to."""

    OWN = "b"
    PAIR = "s"


class Secret:
    """Bytes that never show: not in a repr, not in a pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes; read them where they are used and keep no copy."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret stays in its process")


class SharePair(NamedTuple):
    """A holder's two shares of one slot of one dealer."""

    own: Secret
    pair: Secret

    def of(self, kind: Kind) -> bytes:
        """The share of one kind."""
        return (self.own if kind is Kind.OWN else self.pair).reveal()


@dataclass(frozen=True, slots=True)
class SlotSecrets:
    """``b`` and the private bytes of ``s`` of one slot."""

    own: Secret
    pair: Secret


@dataclass(slots=True, kw_only=True)
class OwnKeys:
    """Everything private of one member in one setup; slots are taken out as they are used or burned."""

    transports: tuple[Secret, ...]
    part: Secret
    chain: Secret
    slots: dict[int, SlotSecrets] = field(repr=False)

    @classmethod
    def draw(cls, frame: Frame, entropy: Entropy, *, members: int) -> OwnKeys:
        """Fresh ones, of one member of so many."""

        def fresh() -> Secret:
            return Secret(entropy.token_bytes(KEY_BYTES))

        slots = {slot: SlotSecrets(fresh(), fresh()) for slot in range(frame.slots)}
        transports = tuple(fresh() for _ in range(members))
        return cls(transports=transports, part=fresh(), chain=fresh(), slots=slots)

    def transport(self, position: int) -> bytes:
        """The key of shares to and from the member at a place in the roster."""
        return self.transports[position - 1].reveal()

    def nonce(self, frame: Frame, round: int) -> bytes:  # noqa: A002
        """The link that is revealed for a round: hashing it leads to the one of the round before."""
        return chained(self.chain.reveal(), frame.last_round - round)

    def advert(self, frame: Frame, *, party: str, position: int, opened: int = 0) -> Advert:
        """What is advertised of them, beside the newest round that the member helped to open."""
        slots = (
            SlotKeys(
                public=public_of(one.pair.reveal()),
                commitment=b_commitment(frame, position=position, slot=slot, b=one.own.reveal()),
            )
            for slot, one in sorted(self.slots.items())
        )
        return Advert(
            frame=frame,
            party=party,
            transports=tuple(public_of(one.reveal()) for one in self.transports),
            part=part_commitment(frame, position=position, part=self.part.reveal()),
            chain_end=chained(self.chain.reveal(), frame.rounds),
            opened=min(opened, frame.first_round - 1),
            slots=tuple(slots),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """What a dealer sends, and the shares that it holds itself.

    Attributes:
        header: To be signed.
        commitments: Per holder in roster order, 64 bytes per slot: to the share of b, to that of s.
        ciphertexts: Per holder in roster order; empty for the dealer.
        kept: Per slot, the dealer's own shares of its secrets.
    """

    header: ShareHeader
    commitments: tuple[bytes, ...]
    ciphertexts: tuple[bytes, ...]
    kept: tuple[SharePair, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a holder has of one dealer: its part of the members' key, and a pair of shares per slot."""

    part: Secret
    shares: tuple[SharePair, ...] = field(repr=False)


def b_commitment(frame: Frame, *, position: int, slot: int, b: bytes) -> bytes:
    """What an advert says about the secret of an own mask."""
    return hashed("b", frame.number, position, slot, b)


def part_commitment(frame: Frame, *, position: int, part: bytes) -> bytes:
    """What an advert says about a member's part of the members' key: every holder gets the same."""
    return hashed("part", frame.number, position, part)


def share_commitment(setup: bytes, *, dealer: int, holder: int, slot: int, kind: Kind, share: bytes) -> bytes:
    """What a dealer says about one share; positions name dealer and holder."""
    return hashed("share", setup, dealer, holder, slot, kind.value, share)


def check_keys(advert: Advert) -> None:
    """Returns if an agreement is possible with every key of an advert.

    Raises:
        ContextMismatchError: A point of low order; the offender signed it.
    """
    for public in (*advert.transports, *(one.public for one in advert.slots)):
        try:
            agreement(_PROBE, public)
        except ContextMismatchError as error:
            error.offender = advert.party
            raise


def deal(
    keys: OwnKeys, *, setup: bytes, dealer: str, adverts: Mapping[str, Advert], terms: Terms, entropy: Entropy
) -> Dealt:
    """Shares of every secret of every slot, sealed for each advertiser.

    Args:
        keys: Of the dealer.
        setup: Digest of the setup.
        dealer: The own party.
        adverts: Of all that advertised, in roster order, checked.
        terms: Of the run.
        entropy: For the polynomials.
    """
    frame = adverts[dealer].frame
    shares = _split(keys, terms, entropy)
    holders = {party: terms.position(party) for party in adverts}
    given = {party: [shares[slot][at - 1] for slot in sorted(shares)] for party, at in holders.items()}
    own = holders[dealer]
    rows = [_commitments(setup, dealer=own, holder=at, shares=given[party]) for party, at in holders.items()]
    nonce = keys.nonce(frame, frame.first_round)
    sealed = []
    for party, at in holders.items():
        plain = keys.part.reveal() + b"".join(one.own.reveal() + one.pair.reveal() for one in given[party])
        between = _Between(setup=setup, dealer=own, holder=at, rows=rows_digest(rows), nonce=nonce)
        if party == dealer:
            sealed.append(b"")
            continue
        agreed = agreement(keys.transport(at), adverts[party].transports[own - 1])
        sealed.append(_sealer(agreed, between).encrypt(_NONCE, plain, between.bound))
    header = ShareHeader(
        setup=setup,
        party=dealer,
        nonce=nonce,
        commitments=rows_digest(rows),
        rows=tuple(map(row_of, rows, sealed)),
    )
    return Dealt(header=header, commitments=tuple(rows), ciphertexts=tuple(sealed), kept=tuple(given[dealer]))


def receive(
    transport: bytes,
    *,
    header: ShareHeader,
    dealer: Advert,
    holder: tuple[str, int],
    row: bytes,
    ciphertext: bytes,
    terms: Terms,
) -> Given:
    """What a dealer gave to a holder; the checks, in this order.

    1. commitments and ciphertext are the ones that the dealer signed for this holder (else it was the
       broker); 2. the ciphertext opens; 3. the dealer's first nonce is a link of its chain; 4. its part of
       the members' key is the one that it advertised; 5. each share is the committed one.

    Args:
        transport: Private key of the holder for shares of this dealer.
        header: Of the dealer, its signature checked.
        dealer: Its advert.
        holder: Its party, and its place among the advertisers, from 0.
        row: Commitments to its shares.
        ciphertext: For this holder.
        terms: Of the run.

    Raises:
        ContextMismatchError: 1.
        ShareBadError: 2 to 5; the offender is the dealer.
    """
    own, at = terms.position(holder[0]), terms.position(dealer.party)
    if header.rows[holder[1]] != row_of(row, ciphertext):
        raise ContextMismatchError(
            need=f"what {dealer.party} signed for this member",
            found="other commitments or another ciphertext",
            remedy="run a new setup; if it happens again, tell the other members",
        )
    between = _Between(setup=header.setup, dealer=at, holder=own, rows=header.commitments, nonce=header.nonce)
    agreed = agreement(transport, dealer.transports[own - 1])
    try:
        plain = _sealer(agreed, between).decrypt(_NONCE, ciphertext, between.bound)
    except InvalidTag as error:
        raise _dealer_lies(dealer.party, "shares that do not open") from error
    if len(plain) != KEY_BYTES + _PAIR_BYTES * len(dealer.slots):
        raise _dealer_lies(dealer.party, "shares of another number of slots")
    if chained(header.nonce, 1) != dealer.chain_end:
        raise _dealer_lies(dealer.party, "a nonce that is no link of its chain")
    part = plain[:KEY_BYTES]
    if part_commitment(dealer.frame, position=at, part=part) != dealer.part:
        raise _dealer_lies(dealer.party, "another part of the members' key than it advertised")
    shares = tuple(
        SharePair(
            Secret(plain[begin : begin + SHARE_BYTES]), Secret(plain[begin + SHARE_BYTES :][:SHARE_BYTES])
        )
        for begin in range(KEY_BYTES, len(plain), _PAIR_BYTES)
    )
    if _commitments(header.setup, dealer=at, holder=own, shares=shares) != row:
        raise _dealer_lies(dealer.party, "a share that is not the committed one")
    return Given(part=Secret(part), shares=shares)


class _Between(NamedTuple):
    """One direction between two members of a setup."""

    setup: bytes
    dealer: int
    holder: int
    rows: bytes
    nonce: bytes

    @property
    def bound(self) -> bytes:
        return hashed("sealed", self.setup, self.dealer, self.holder, self.rows, self.nonce)


def _sealer(agreed: bytes, between: _Between) -> ChaCha20Poly1305:
    key = derived(agreed, between.setup, "transport", between.dealer, between.holder)
    return ChaCha20Poly1305(key)


def _split(keys: OwnKeys, terms: Terms, entropy: Entropy) -> dict[int, list[SharePair]]:
    """Per slot, the pair of shares of each position."""

    def shares(secret: Secret) -> list[Secret]:
        return [Secret(one) for one in split(secret.reveal(), n=terms.n, t=terms.t, entropy=entropy)]

    return {
        slot: [SharePair(*both) for both in zip(shares(one.own), shares(one.pair), strict=True)]
        for slot, one in sorted(keys.slots.items())
    }


def _commitments(setup: bytes, *, dealer: int, holder: int, shares: Sequence[SharePair]) -> bytes:
    return b"".join(
        share_commitment(setup, dealer=dealer, holder=holder, slot=slot, kind=kind, share=pair.of(kind))
        for slot, pair in enumerate(shares)
        for kind in Kind
    )


def rows_digest(commitments: Sequence[bytes]) -> bytes:
    """Of a dealer's commitments to all holders' shares, in roster order."""
    return hashed("commitments", *commitments)


def row_of(commitments: bytes, ciphertext: bytes) -> bytes:
    """What a share header holds about one holder: two digests."""
    return _sha256(commitments) + _sha256(ciphertext)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _dealer_lies(dealer: str, found: str) -> ShareBadError:
    return ShareBadError(
        need="shares that are what their dealer signed",
        found=f"{found}, from {dealer}",
        remedy="run a new setup without it",
        offender=dealer,
    )
