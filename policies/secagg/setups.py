# SPDX-License-Identifier: Apache-2.0
"""The broker's side of a setup: keys advertised, shares dealt and opened; it holds public data only.

    setup = Setup(terms, number=1, first_round=1)
    ask = setup.advertise_ask()                  # to whoever is there
    setup.advert(party, answer)                  # for each answer
    ask = setup.share_ask()                      # fixes the advertisers
    setup.shared(party, answer)
    ask = setup.open_ask(party)                  # fixes the members M; another ask for each
    setup.opened(party, answer)

- An answer is looked at as it comes. A wrong one raises with ``offender=party`` and changes nothing: the
  caller refuses that party and goes on with the others.
- A complaint about a dealer comes with the key of what it sealed. The sealed shares are opened with it and
  compared with what was signed: the dealer lied, and the setup is over (`Setup.failed`, run another without
  it), or the member that complains did. The key opens nothing else, and who complains uses no slot of it.
- A member that does not open stays a member: it counts as a drop-out of every round.
- `Setup.to_bytes` is for a broker that restarts.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

from policies.encoding import canonical, parse
from policies.errors import EncodingError
from policies.limits import SECAGG_ROUNDS
from policies.secagg.asks import (
    AdvertiseAsk,
    OpenAnswer,
    OpenAsk,
    Package,
    ShareAnswer,
    signed_bytes,
    signed_from,
    write_adverts,
)
from policies.secagg.contexts import NO_NONCE, Frame, chained, public_of, seal_digest, setup_digest
from policies.secagg.dealing import Kind, check_keys, receive, row_of, rows_digest, share_commitment
from policies.secagg.documents import Advert, ShareHeader
from policies.secagg.errors import (
    ContextMismatchError,
    SecaggError,
    SetupGoneError,
    ShareBadError,
    ViewsDifferError,
)
from policies.secagg.labels import KEY_BYTES
from policies.secagg.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from policies.encoding import Json
    from policies.secagg.documents import SignedBytes
    from policies.secagg.terms import Terms

__all__ = ["Setup", "blaming"]

_Value = TypeVar("_Value")


@contextmanager
def blaming(party: str) -> Iterator[None]:
    """Names the party whose answer was looked at in whatever is refused, unless somebody is named already."""
    try:
        yield
    except SecaggError as error:
        error.offender = error.offender or party
        raise
    except EncodingError as error:
        raise ContextMismatchError(
            need="an answer of this protocol", found="other bytes", remedy="update the node", offender=party
        ) from error


class Setup:
    """Key material of so many rounds, as the broker sees it.

    Args:
        terms: Of the run.
        number: On from 1 in the run, higher with each setup.
        first_round: The first that it has slots for.
        rounds: How many.

    Attributes:
        frame: What the setup is for.
        adverts, headers: What was checked, by party in roster order.
        failed: A dealer lied.
    """

    def __init__(self, terms: Terms, *, number: int, first_round: int, rounds: int = SECAGG_ROUNDS) -> None:
        self.terms = terms
        self.frame = Frame.of(terms, number=number, first_round=first_round, rounds=rounds)
        self.adverts: dict[str, Advert] = {}
        self.headers: dict[str, ShareHeader] = {}
        self.failed = False
        self._signed_adverts: dict[str, SignedBytes] = {}
        self._answers: dict[str, ShareAnswer] = {}
        self._setup: bytes | None = None
        self._seal: bytes | None = None
        self._opened: set[str] = set()
        self._nonces: dict[tuple[str, int], bytes] = {}

    # what it is

    @property
    def number(self) -> int:
        """Its number in the run."""
        return self.frame.number

    @property
    def last_round(self) -> int:
        """The last round that it has slots for."""
        return self.frame.last_round

    def covers(self, round: int) -> bool:  # noqa: A002  the word of the protocol
        """Whether a round has slots here."""
        return self.frame.covers(round)

    @property
    def setup(self) -> bytes:
        """Digest of frame and adverts, once they are fixed."""
        return self._fixed(self._setup)

    @property
    def seal(self) -> bytes:
        """Digest of the members' share headers, once they are fixed."""
        return self._fixed(self._seal)

    @property
    def advertisers(self) -> tuple[str, ...]:
        """Who advertised, in roster order."""
        return tuple(self.adverts)

    @property
    def members(self) -> tuple[str, ...]:
        """M: who shared, in roster order."""
        return tuple(self.headers)

    @property
    def opened_by(self) -> tuple[str, ...]:
        """Members that hold their shares and can contribute, in roster order."""
        return tuple(one for one in self.members if one in self._opened)

    @property
    def ready(self) -> bool:
        """Whether enough members opened their shares for a round."""
        try:
            self.terms.check_open(self._opened)
        except SecaggError:
            return False
        return not self.failed

    # ADVERTISE

    def advertise_ask(self) -> bytes:
        """The same for everybody."""
        frame = self.frame
        return AdvertiseAsk(
            number=frame.number, first_round=frame.first_round, rounds=frame.rounds
        ).to_bytes()

    def advert(self, party: str, answer: bytes) -> None:
        """Takes a party's advert.

        Raises:
            KeyNotPinnedError, ContextMismatchError: It is not this party's, or not for this setup.
        """
        if self._setup is not None:
            raise _late(party)
        with blaming(party):
            signed = signed_from(answer)
            advert = Advert.open(signed, frame=self.frame, party=party, terms=self.terms)
            check_keys(advert)
        self.adverts = self._sorted({**self.adverts, party: advert})
        self._signed_adverts[party] = signed

    # SHARE

    def share_ask(self) -> bytes:
        """The same for all advertisers, which are fixed by it.

        Raises:
            CohortTooSmallError: Too few, or too few groups.
        """
        if self._setup is None:
            self.terms.check_open(self.adverts)
            self._setup = setup_digest(
                self.frame, {party: one.digest() for party, one in self.adverts.items()}
            )
        return write_adverts({one: self._signed_adverts[one] for one in self.adverts}, self.terms)

    def shared(self, party: str, answer: bytes) -> None:
        """Takes a party's shares.

        Raises:
            KeyNotPinnedError, ContextMismatchError: Not this party's, not for this setup, or not whole.
            ShareBadError: The nonce is no link of the party's chain.
        """
        if self._seal is not None or party not in self.adverts:
            raise _late(party)
        with blaming(party):
            given = ShareAnswer.from_bytes(answer, holders=len(self.adverts))
            header = ShareHeader.open(
                given.header, setup=self.setup, party=party, holders=len(self.adverts), terms=self.terms
            )
            self._check_shares(header, given)
        self.headers = self._sorted({**self.headers, party: header})
        self._answers[party] = given
        self._nonces[party, self.frame.first_round] = header.nonce

    def _check_shares(self, header: ShareHeader, given: ShareAnswer) -> None:
        """Commitments and ciphertexts are the signed ones, and the nonce begins the chain."""
        rows = tuple(map(row_of, given.commitments, given.ciphertexts))
        size = 2 * KEY_BYTES * self.frame.slots
        if rows != header.rows or rows_digest(given.commitments) != header.commitments:
            raise _bad_answer("the commitments and ciphertexts that were signed", "others")
        if any(len(one) != size for one in given.commitments):
            raise _bad_answer(f"{size} bytes of commitments per holder", "others")
        if chained(header.nonce, 1) != self.adverts[header.party].chain_end:
            raise ShareBadError(
                need="a first nonce that the advert commits to", found="another", remedy="leave the party out"
            )

    # OPEN

    def open_ask(self, party: str) -> bytes:
        """What one member gets of all members, which are fixed by the first call.

        Raises:
            CohortTooSmallError: Too few members, or too few groups.
        """
        if self._seal is None:
            self.terms.check_open(self.headers)
            self._seal = seal_digest(
                self.setup, {dealer: one.digest() for dealer, one in self.headers.items()}
            )
        at = self.advertisers.index(party)
        packages = {
            dealer: Package(
                header=self._answers[dealer].header,
                commitments=self._answers[dealer].commitments[at],
                ciphertext=self._answers[dealer].ciphertexts[at],
            )
            for dealer in self.members
        }
        return OpenAsk(packages=packages).to_bytes(self.terms)

    def opened(self, party: str, answer: bytes) -> None:
        """Takes a member's word that its shares are what their dealers signed.

        Raises:
            ShareBadError: It complains of a dealer. The offender is whoever of the two lies.
            ViewsDifferError: It computed another seal.
            ContextMismatchError: No such answer, or no member.
        """
        if party not in self.headers:
            raise _late(party)
        with blaming(party):
            found = OpenAnswer.from_bytes(answer, self.terms)
            if found.liar is not None:
                self._complain(party, found.liar, found.proof)
            if found.seal != self.seal:
                raise ViewsDifferError(
                    need="the seal of this setup", found="another", remedy="run a new setup without the party"
                )
        self._opened.add(party)

    def _complain(self, party: str, dealer: str, proof: bytes) -> NoReturn:
        """Judges a complaint; the checks, in this order.

        1. it is about another member; 2. its key is the one that this member advertised for that dealer;
        3. what the dealer sealed for it is not as the dealer signed (`policies.secagg.dealing.receive`).

        Raises:
            ContextMismatchError: 1, 2; the offender complains.
            ShareBadError: 3; the offender is the dealer where it does not hold, else who complains.
        """
        if dealer not in self.headers or dealer == party:
            raise _bad_answer("a complaint about another member", dealer)
        if public_of(proof) != self.adverts[party].transports[self.terms.position(dealer) - 1]:
            raise _bad_answer("the key that was advertised for shares of that dealer", "another")
        at = self.advertisers.index(party)
        try:
            receive(
                proof,
                header=self.headers[dealer],
                dealer=self.adverts[dealer],
                holder=(party, at),
                row=self._answers[dealer].commitments[at],
                ciphertext=self._answers[dealer].ciphertexts[at],
                terms=self.terms,
            )
        except ShareBadError:
            self.failed = True
            raise
        raise ShareBadError(
            need="a complaint about shares that are not what their dealer signed",
            found=f"one of {party} about {dealer}, whose shares for it are",
            remedy=f"leave {party} out",
            offender=party,
        )

    # for its attempts

    def reveals(self, round: int) -> tuple[bytes, ...]:  # noqa: A002
        """Nonce of each member for a round, `NO_NONCE` where it is owed."""
        return tuple(self._nonces.get((one, round), NO_NONCE) for one in self.members)

    def check_nonce(self, party: str, round: int, nonce: bytes) -> None:  # noqa: A002
        """Returns if it is a member's nonce for a round, or if it may owe one: no slots are left.

        Raises:
            ContextMismatchError: It is not.
        """
        steps = round - self.frame.first_round + 1
        expected = NO_NONCE if not self.covers(round) else None
        if nonce == expected:
            return
        if expected is not None or chained(nonce, steps) != self.adverts[party].chain_end:
            raise _bad_answer("the next link of the nonce chain", "another")

    def keep_nonce(self, party: str, round: int, nonce: bytes) -> None:  # noqa: A002
        """Keeps a checked nonce."""
        if self.covers(round):
            self._nonces[party, round] = nonce

    def is_share(self, share: bytes, *, dealer: str, holder: str, slot: int, kind: Kind) -> bool:
        """Whether a dealer committed to a holder's share."""
        at = 2 * slot + (kind is Kind.PAIR)
        row = self._answers[dealer].commitments[self.advertisers.index(holder)]
        return row[KEY_BYTES * at : KEY_BYTES * (at + 1)] == share_commitment(
            self.setup,
            dealer=self.terms.position(dealer),
            holder=self.terms.position(holder),
            slot=slot,
            kind=kind,
            share=share,
        )

    def signed_documents(self) -> tuple[dict[str, SignedBytes], dict[str, SignedBytes]]:
        """Adverts, and members' share headers, as they were signed."""
        adverts = {one: self._signed_adverts[one] for one in self.adverts}
        return adverts, {one: self._answers[one].header for one in self.members}

    # across a restart

    def to_bytes(self) -> bytes:
        """Everything that was taken, public as it is."""
        head = {
            "setup": self.frame.number,
            "first_round": self.frame.first_round,
            "rounds": self.frame.rounds,
            "advertisers": list(self.adverts),
            "members": list(self.headers),
            "fixed": [self._setup is not None, self._seal is not None, self.failed],
            "opened": sorted(self._opened),
            "nonces": [[party, at, nonce.hex()] for (party, at), nonce in sorted(self._nonces.items())],
        }
        adverts = pack([signed_bytes(self._signed_adverts[one]) for one in self.adverts])
        return pack([canonical(head), adverts, pack([self._answers[one].to_bytes() for one in self.headers])])

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Setup:
        """What `to_bytes` wrote, checked as it was at first.

        Raises:
            SecaggError: It was not written under these terms.
        """
        facts, adverts, answers = unpack(data, 3)
        try:
            return cls._read(parse(facts), unpack(adverts), unpack(answers), terms)
        except (EncodingError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContextMismatchError(
                need="a setup as it was written", found=type(error).__name__, remedy="run a new setup"
            ) from error

    @classmethod
    def _read(cls, head: Json, adverts: Sequence[bytes], answers: Sequence[bytes], terms: Terms) -> Setup:
        found = cls(terms, number=head["setup"], first_round=head["first_round"], rounds=head["rounds"])
        for party, answer in zip(head["advertisers"], adverts, strict=True):
            found.advert(party, answer)
        fixed, sealed, found.failed = head["fixed"]
        if fixed:
            found.share_ask()
        for party, answer in zip(head["members"], answers, strict=True):
            found.shared(party, answer)
        if sealed:
            found.open_ask(found.members[0])
        found._opened = set(head["opened"])
        found._nonces = {(party, at): bytes.fromhex(nonce) for party, at, nonce in head["nonces"]}
        return found

    def _sorted(self, found: Mapping[str, _Value]) -> dict[str, _Value]:
        return {one: found[one] for one in self.terms.parties if one in found}

    def _fixed(self, digest: bytes | None) -> bytes:
        if digest is None:
            raise SetupGoneError(
                need="a setup that came so far", found="an earlier step", remedy="go on with it"
            )
        return digest


def _late(party: str) -> ContextMismatchError:
    return ContextMismatchError(
        need="an answer while it is waited for",
        found=f"one of {party}, afterwards or unasked",
        remedy="drop it",
        offender=party,
    )


def _bad_answer(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(need=need, found=found, remedy="leave the party out")
