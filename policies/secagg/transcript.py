# SPDX-License-Identifier: Apache-2.0
"""What the transcript of an opened sum proves to somebody who trusts neither broker nor members.

`check` needs the terms, which follow from contract and recipe, and redoes everything but the sum itself;
`recompute` redoes the sum from masked vectors. To show a masked vector opens nothing: the masks that two
survivors share were never revealed.

Checks, in this order; the first that does not hold raises:

1. the setup is one of this run: each advert signed by the key that the contract pins, about exactly this
   contract, recipe, run, roster and rounds;
2. each member's share header is signed for this setup;
3. nonce reveals are links of the members' chains; teams are the ones that follow from them, and each
   member is in one;
4. each online member signed its masked vector in exactly this context;
5. t online members signed this online set, these vectors and the teams to open;
6. members and independent groups behind each opened team are enough;
7. each revealed secret is the one that its owner advertised: b of who is in the sum, s of who is not;
8. the lane of counts opens to the number of survivors and the sum of their weights.

    checked = check(Record.from_bytes(data), terms)
    recompute(checked, {"kita": masked, …}, dimension=d)         # per opened team, "sha256:…"

Standard library and `cryptography` only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.encoding import parse
from policies.errors import EncodingError
from policies.secagg import recompute as plain_sum
from policies.secagg.contexts import (
    NO_NONCE,
    Context,
    Frame,
    Lane,
    chained,
    public_of,
    seal_digest,
    setup_digest,
)
from policies.secagg.dealing import b_commitment
from policies.secagg.documents import (
    Advert,
    Confirmation,
    ShareHeader,
    VectorHeader,
    is_signed,
    vectors_root,
)
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    PartitionBadError,
    ShareBadError,
    SumWrongError,
    ViewsDifferError,
)
from policies.secagg.keystream import sum_of_lanes, unmask_lane
from policies.secagg.labels import hashed
from policies.secagg.opening import removed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from policies.secagg.contexts import Teams
    from policies.secagg.keystream import Signed
    from policies.secagg.record import Record
    from policies.secagg.terms import Terms

    ExpectedTeams = Callable[[int, Mapping[str, bytes]], Iterable[Teams]]
    """Teams that a round may have, from each member's nonce reveal (`NO_NONCE` where it is owed)."""

__all__ = ["Checked", "check", "recompute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A transcript that holds.

    Attributes:
        record: What was checked.
        terms: By which.
        context: Of the attempt.
        adverts: By party.
        signers: Who confirmed.
    """

    record: Record
    terms: Terms
    context: Context
    adverts: Mapping[str, Advert] = field(repr=False)
    signers: tuple[str, ...]

    def survivors(self, team: int) -> tuple[str, ...]:
        """Members whose vectors are in the sum of a team, in roster order."""
        return tuple(one for one in self.context.teams[team] if one in self.record.online)

    def removed(self, team: int, lane: Lane) -> tuple[Signed, ...]:
        """Masks that were taken off the sum of a team."""
        slot = self.slot
        publics = {party: one.slots[slot].public for party, one in self.adverts.items()}
        return removed(
            self.context,
            self.terms,
            team=self.context.teams[team],
            online=self.survivors(team),
            secrets=self.record.secrets,
            publics=publics,
            lane=lane,
        )

    @property
    def slot(self) -> int:
        """Number of the slot in its setup."""
        return next(iter(self.adverts.values())).frame.slot(self.record.round, self.record.attempt)


def check(record: Record, terms: Terms, *, expected_teams: ExpectedTeams | None = None) -> Checked:
    """The checks of the module docstring.

    Args:
        record: As read.
        terms: Of the run.
        expected_teams: Gives the teams that a round may have; None: one team, everybody.

    Raises:
        KeyNotPinnedError, ContextMismatchError: 1 to 4; `SetupGoneError`: a slot that the setup has not.
        PartitionBadError: 3.
        ViewsDifferError: 5.
        CohortTooSmallError: 5, 6.
        ShareBadError: 7.
        SumWrongError: 8.
    """
    adverts = _adverts(record, terms)  # 1.
    frame = next(iter(adverts.values())).frame
    frame.slot(record.round, record.attempt)
    setup = setup_digest(frame, {party: one.digest() for party, one in adverts.items()})
    seal = seal_digest(setup, _headers(record, terms, setup, adverts))  # 2.
    context = Context(
        setup=setup,
        seal=seal,
        round=record.round,
        attempt=record.attempt,
        base_model=record.base_model,
        server=record.server,
        members=tuple(record.shares),
        teams=record.teams,
        nonces=record.nonces,
    )
    _check_nonces(context, adverts, frame)  # 3.
    _check_teams(context, expected_teams)
    headers = _vectors(record, terms, context)  # 4.
    signers = _confirmed(record, terms, headers, context)  # 5.
    checked = Checked(record=record, terms=terms, context=context, adverts=adverts, signers=signers)
    _check_crowds(checked)  # 6.
    _check_secrets(checked, frame)  # 7.
    for team in record.opened:
        _check_counts(checked, team)  # 8.
    return checked


def recompute(
    checked: Checked,
    vectors: Mapping[str, bytes | memoryview],
    teams: tuple[int, ...] | None = None,
    *,
    seen: Callable[[bytes], None] = lambda _: None,
) -> str:
    """Digest (``sha256:…``) of the sum over opened teams, from masked vectors.

    Args:
        checked: From `check`.
        vectors: By party; each must be the one that its member signed.
        teams: Numbers of opened teams; None: all of them.
        seen: Is shown the sum's bytes, piece by piece.

    Raises:
        SumWrongError: A vector is missing, or is not the one that was signed.
    """
    chosen = checked.record.opened if teams is None else teams
    survivors = [party for team in chosen for party in checked.survivors(team)]
    for party in survivors:
        found = vectors.get(party)
        if found is None or _digest(found) != checked.record.online[party].digest:
            raise _wrong(f"the masked vector that {party} signed", "none" if found is None else "another one")
    remove = [one for team in chosen for one in checked.removed(team, Lane.VECTOR)]
    return plain_sum.recompute(
        [vectors[party] for party in survivors], remove, dimension=checked.terms.dimension, seen=seen
    )


def _adverts(record: Record, terms: Terms) -> dict[str, Advert]:
    _check_order("adverts", record.adverts, terms)
    frame = Frame.of(terms, number=record.number, first_round=record.first_round, rounds=record.rounds)
    return {
        party: Advert.open(one, frame=frame, party=party, terms=terms)
        for party, one in record.adverts.items()
    }


def _headers(record: Record, terms: Terms, setup: bytes, adverts: Mapping[str, Advert]) -> dict[str, bytes]:
    """Digest of each member's share header; its rows are not kept, only their digest, which it signed."""
    _check_order("share headers", record.shares, terms)
    if not record.shares.keys() <= adverts.keys():
        raise _differs("members that advertised", "others")
    found = {}
    for party, one in record.shares.items():
        one.check_key(ShareHeader.payload_type, party=party, terms=terms)
        facts = _parsed(one.payload)
        said = (facts.get("kind"), facts.get("party"), facts.get("setup"))
        if said != (ShareHeader.payload_type, party, setup.hex()):
            raise _differs(f"the share header of {party} for this setup", "another one")
        found[party] = hashed("shares", one.payload)  # as `ShareHeader.digest`
    return found


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        found = parse(payload)
    except EncodingError as error:
        raise _differs("canonical JSON", "other bytes") from error
    return found if isinstance(found, dict) else {}


def _check_order(what: str, parties: Iterable[str], terms: Terms) -> None:
    places = [terms.position(one) for one in parties]
    if not places or sorted(set(places)) != places:
        raise _differs(f"{what} in the order of the roster", "none, or in another order")


def _check_nonces(context: Context, adverts: Mapping[str, Advert], frame: Frame) -> None:
    steps = context.round - frame.first_round + 1
    for party, nonce in zip(context.members, context.nonces, strict=True):
        if nonce != NO_NONCE and chained(nonce, steps) != adverts[party].chain_end:
            raise _differs(f"the nonce of {party} for this round, or none", "another one")


def _check_teams(context: Context, expected_teams: ExpectedTeams | None) -> None:
    allowed: Iterable[Teams] = [(context.members,)]
    if expected_teams is not None:
        nonces = dict(zip(context.members, context.nonces, strict=True))
        allowed = expected_teams(context.round, nonces)
    if context.teams not in list(allowed):
        raise PartitionBadError(
            need="the teams that the nonces give",
            found="others",
            remedy="an incident: the broker chose who is summed with whom",
        )


def _vectors(record: Record, terms: Terms, context: Context) -> list[VectorHeader]:
    _check_order("masked vectors", record.online, terms)
    if not record.online.keys() <= record.shares.keys():
        raise _differs("vectors of members", "others")
    ctx = context.digest(terms)
    headers = [
        VectorHeader(ctx=ctx, party=party, digest=one.digest, lane=one.lane)
        for party, one in record.online.items()
    ]
    for header in headers:
        _check_signed(header, record, terms)
    return headers


def _check_signed(header: VectorHeader, record: Record, terms: Terms) -> None:
    party = header.party
    if not is_signed(header, record.online[party].signature, terms.member(party).key):
        raise _differs(f"{party}'s signature over its masked vector in this context", "another signature")


def _confirmed(
    record: Record, terms: Terms, headers: list[VectorHeader], context: Context
) -> tuple[str, ...]:
    if list(record.opened) != sorted(set(record.opened)) or not all(
        0 <= one < len(context.teams) for one in record.opened
    ):
        raise _differs("teams of this attempt, each once", "others")
    confirmation = Confirmation(
        ctx=headers[0].ctx, online=tuple(record.online), opened=record.opened, root=vectors_root(headers)
    )
    if not all(1 <= at <= terms.n for at in record.confirmations):
        raise _differs(f"positions from 1 to {terms.n}", "others")
    signers = tuple(terms.parties[at - 1] for at in record.confirmations)
    for party, signature in zip(signers, record.confirmations.values(), strict=True):
        if party not in record.online or not is_signed(confirmation, signature, terms.member(party).key):
            raise ViewsDifferError(
                need=f"{party}'s signature over this online set and these vectors",
                found="another signature",
                remedy="an incident: the broker opened another set than members confirmed",
            )
    if len(signers) < terms.t:
        raise _small(f"{terms.t} confirmations", str(len(signers)), terms)
    return signers


def _check_crowds(checked: Checked) -> None:
    record, terms = checked.record, checked.terms
    terms.check_open(record.online)
    for team in record.opened:
        terms.check_team(checked.survivors(team))
    if not record.opened:
        raise _small("an opened team", "none", terms)


def _check_secrets(checked: Checked, frame: Frame) -> None:
    for party, secret in checked.record.secrets.items():
        said = checked.adverts[party].slots[checked.slot]
        position = checked.terms.position(party)
        if party in checked.record.online:
            fits = b_commitment(frame, position=position, slot=checked.slot, b=secret) == said.commitment
        else:
            fits = public_of(secret) == said.public
        if not fits:
            raise ShareBadError(
                need=f"the secret that {party} advertised for this slot",
                found="another one",
                remedy="the sum was not opened with it: ask for the members' shares",
            )


def _check_counts(checked: Checked, team: int) -> None:
    """The tag is not looked at: its key is the members' alone."""
    survivors = checked.survivors(team)
    total = sum_of_lanes(checked.record.online[one].lane for one in survivors)
    counted, weighed, _ = unmask_lane(total, checked.removed(team, Lane.COUNTS))
    weights = sum(checked.terms.weights[checked.terms.position(one) - 1] for one in survivors)
    if (counted, weighed) != (len(survivors), weights):
        raise _wrong(f"{len(survivors)} vectors of weight {weights}", "other counts")


def _digest(data: bytes | memoryview) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _differs(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need, found=found, remedy="fetch the transcript again, and compare it with another member's"
    )


def _small(need: str, found: str, terms: Terms) -> CohortTooSmallError:
    return CohortTooSmallError(
        need=need, found=found, remedy="an incident: a sum was opened over too few", clause=terms.clause
    )


def _wrong(need: str, found: str) -> SumWrongError:
    return SumWrongError(need=need, found=found, remedy="ask the broker for the vectors that it kept")
