# SPDX-License-Identifier: Apache-2.0
"""The broker's side of one attempt: masked vectors, confirmations of one set, shares, and the opened sum.

    attempt = Attempt(setup, round=1, attempt=1, base_model=digest)
    ask = attempt.contribute_ask()                     # the same for all members
    attempt.vector(party, answer, digest)              # digest of the masked vector that came beside it
    ask = attempt.confirm_ask()                        # fixes the online set U3
    attempt.confirmed(party, answer)                   # until enough_confirmed
    ask = attempt.unmask_ask()                         # fixes which signatures are shown
    attempt.unmasked(party, answer)                    # until enough_unmasked
    masks.unmask(total, attempt.remove())              # total: sum of the online members' vectors
    opened = attempt.finish(digest_of_z)

- A wrong answer raises with ``offender=party`` and changes nothing: refuse that party, go on with the others.
- Blame is exact. A share that is not the committed one is its holder's lie, and is not used. Shares that all
  are, and a secret that is not the advertised one, are the dealer's: `Attempt.remove` names it.
- With several teams each opened one has its own sum: ``remove(number)`` and a digest each.
- After `unmask_ask` was sent the round is over, whatever comes of it: members burn it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from policies.secagg.asks import ConfirmAsk, ContributeAsk, Previous, vector_answer, write_unmask
from policies.secagg.contexts import NO_STATE, Context, Lane
from policies.secagg.documents import Confirmation, VectorHeader, check, is_signed, vectors_root
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    SecaggError,
    SlotUsedError,
    SumWrongError,
    ViewsDifferError,
)
from policies.secagg.keystream import sum_of_lanes, unmask_lane
from policies.secagg.opening import removed
from policies.secagg.record import Record, VectorEntry
from policies.secagg.revealing import Revealed
from policies.secagg.setups import blaming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.secagg.asks import Resume
    from policies.secagg.contexts import Teams
    from policies.secagg.keystream import Signed
    from policies.secagg.setups import Setup

__all__ = ["Attempt", "Opened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A sum that was opened.

    Attributes:
        setup: Number of its setup.
        context: Of the attempt.
        numbers: Of the opened teams, rising.
        online: U3; ``teams`` the online members of each opened team, in the order of ``sums``.
        sums: Digest of each opened sum.
        tags: Per opened team, the sum of its members' tags.
        transcript: Bytes of the `policies.secagg.record.Record`.
    """

    setup: int
    context: Context
    numbers: tuple[int, ...]
    online: tuple[str, ...]
    teams: Teams
    sums: tuple[str, ...]
    tags: tuple[int, ...]
    transcript: bytes = field(repr=False)

    @property
    def parties(self) -> tuple[str, ...]:
        """Members whose vectors are in an opened sum, in roster order."""
        return tuple(sorted(one for team in self.teams for one in team))

    def previous(self) -> Previous:
        """What the next attempts say of it."""
        now = self.context
        return Previous(
            setup=self.setup,
            round=now.round,
            attempt=now.attempt,
            base_model=now.base_model,
            server=now.server,
            teams=now.teams,
            nonces=now.nonces,
            opened=self.numbers,
            online=self.parties,
            tags=self.tags,
        )


class Before(Protocol):
    """A sum that was opened before: an `Opened`, or what a broker that starts again kept of one."""

    def previous(self) -> Previous:
        """What the next attempts say of it."""
        ...


class Attempt:
    """One attempt of a round.

    Args:
        setup: Opened by enough members.
        round: Of the run.
        attempt: From 1.
        base_model: Digest (``sha256:…``) of the model that members train on.
        teams: Of a probe round, each in roster order; None: one team, everybody.
        server: Digest of the server's state before the round.
        previous: The newest sum that was opened in an earlier round: what is shown to whom nothing else is.

    Attributes:
        context: As all members must see it.
        online: U3, once it is fixed.
        opened_teams: Numbers of the teams that are opened, once it is fixed.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        round: int,  # noqa: A002  the word of the protocol
        attempt: int,
        base_model: str,
        server: str = NO_STATE,
        teams: Teams | None = None,
        previous: Before | None = None,
    ) -> None:
        self.setup, self.terms = setup, setup.terms
        self.context = Context(
            setup=setup.setup,
            seal=setup.seal,
            round=round,
            attempt=attempt,
            base_model=base_model,
            server=server,
            members=setup.members,
            teams=teams or (setup.members,),
            nonces=setup.reveals(round),
        )
        self.online: tuple[str, ...] = ()
        self.opened_teams: tuple[int, ...] = ()
        self._slot = setup.frame.slot(round, attempt)
        self._ctx = self.context.digest(self.terms)
        self._sums_shown = (previous.previous(),) if previous is not None and self.terms.group_mac else ()
        self._vectors: dict[str, tuple[VectorHeader, bytes]] = {}
        self._confirmation: Confirmation | None = None
        self._confirmed: dict[str, bytes] = {}
        self._shown: dict[str, bytes] | None = None
        self._revealed = Revealed(setup, self.context, online=(), opened=())

    def __repr__(self) -> str:
        return f"<attempt {self.context.attempt} of round {self.context.round}>"

    # CONTRIBUTE

    def contribute_ask(self, shown: Sequence[Previous] | None = None, resume: Resume | None = None) -> bytes:
        """The same for all members, but for what is shown to each: no signature and no mask is bound to it.

        Args:
            shown: Opened sums of earlier rounds, oldest first; None: the newest.
            resume: The model that is sent along to a member which lost the thread.
        """
        now = self.context
        ask = ContributeAsk(
            number=self.setup.number,
            round=now.round,
            attempt=now.attempt,
            base_model=now.base_model,
            teams=now.teams,
            server=now.server,
            nonces=now.nonces,
            shown=self._sums_shown if shown is None else tuple(shown),
            resume=resume,
        )
        return ask.to_bytes(self.terms)

    def vector(self, party: str, answer: bytes, digest: str) -> None:
        """Takes a member's signature over its masked vector.

        Args:
            party: Whose answer it is.
            answer: Beside the vector.
            digest: ``sha256:…`` of the vector's bytes as they came.

        Raises:
            ContextMismatchError: Signed in another context, for another vector, or by another key.
            SlotUsedError: A second one, or after the online set was fixed.
        """
        if self.online or party in self._vectors or party not in self.context.members:
            raise SlotUsedError(
                need="one vector of each member, before the online set is fixed",
                found=f"another one of {party}",
                remedy="drop it; it stays hidden behind a mask that is never revealed",
                offender=party,
            )
        with blaming(party):
            lane, signature = vector_answer(answer)
            header = VectorHeader(ctx=self._ctx, party=party, digest=digest, lane=lane)
            check(header, signature, party=party, terms=self.terms)
        self._vectors[party] = header, signature

    # CONFIRM

    def confirm_ask(self) -> bytes:
        """U3 and the teams to open, the same for all online members; fixed by the first call.

        Raises:
            CohortTooSmallError: Too few members, or no team keeps enough groups.
        """
        if not self.online:
            online = tuple(one for one in self.context.members if one in self._vectors)
            self.terms.check_open(online)
            self.opened_teams = self._large_enough(online)
            self.online = online
            self._revealed = Revealed(self.setup, self.context, online=online, opened=self.opened_teams)
            headers = [self._vectors[one][0] for one in online]
            self._confirmation = Confirmation(
                ctx=self._ctx, online=online, opened=self.opened_teams, root=vectors_root(headers)
            )
        return ConfirmAsk(online=self._entries(), opened=self.opened_teams).to_bytes(self.terms)

    def confirmed(self, party: str, answer: bytes) -> None:
        """Takes a member's signature over the online set.

        Raises:
            ViewsDifferError: It signed something else; its signed reply is the evidence.
            ContextMismatchError: Not a member of the online set.
        """
        confirmation = self._need_online(party)
        if not is_signed(confirmation, answer, self.terms.member(party).key):
            raise ViewsDifferError(
                need="a confirmation of the set that was shown",
                found=f"one of other bytes, by {party}",
                remedy="keep the party's signed reply, it is the evidence; go on with the others",
                offender=party,
            )
        self._confirmed[party] = answer

    @property
    def enough_confirmed(self) -> bool:
        """Whether t members confirmed."""
        return len(self._confirmed) >= self.terms.t

    # UNMASK

    def unmask_ask(self) -> bytes:
        """T confirmations, the same for all that confirmed; fixed by the first call.

        Raises:
            CohortTooSmallError: Fewer confirmed.
        """
        if self._shown is None:
            if not self.enough_confirmed:
                raise self._too_few("confirmations", len(self._confirmed))
            signers = [one for one in self.online if one in self._confirmed][: self.terms.t]
            self._shown = {one: self._confirmed[one] for one in signers}
        return write_unmask(self._shown, self.terms)

    def unmasked(self, party: str, answer: bytes) -> None:
        """Takes a member's shares, each looked up in its dealer's commitments, and its next nonce.

        Raises:
            ShareBadError: One is not the committed share: this holder lies.
            ContextMismatchError: Another length or nonce, or not of the online set.
        """
        self._need_online(party)
        self._revealed.take(party, answer)

    @property
    def enough_unmasked(self) -> bool:
        """Whether t members gave shares."""
        return self._revealed.enough

    # the sum

    def remove(self, team: int | None = None) -> tuple[Signed, ...]:
        """Keys of the masks that are in the sum of an opened team's online vectors, with their signs.

        Args:
            team: Number of an opened team; None where only one was opened.

        Raises:
            CohortTooSmallError: Fewer than t gave shares.
            ShareBadError: The offender dealt shares that do not give what it advertised.
        """
        number = self.opened_teams[0] if team is None else team
        return self._masks(number, Lane.VECTOR)

    def finish(self, *sums: str) -> Opened:
        """The opened sums, once the counts beside them are right.

        Args:
            sums: Digest (``sha256:…``) of each opened team's sum as little-endian bytes, in the order of
                ``opened_teams``.

        Raises:
            SumWrongError: Counter or weights are not those of the online members. Nobody can be named: each
                count is under the same masks as its vector.
        """
        teams = tuple(self._survivors(one) for one in self.opened_teams)
        if len(sums) != len(teams):
            raise _other(f"{len(teams)} sums", str(len(sums)))
        tags = [
            self._check_counts(number, team) for number, team in zip(self.opened_teams, teams, strict=True)
        ]
        return Opened(
            setup=self.setup.number,
            context=self.context,
            numbers=self.opened_teams,
            online=self.online,
            teams=teams,
            sums=sums,
            tags=tuple(tags),
            transcript=self._record(sums).to_bytes(),
        )

    def _check_counts(self, number: int, team: Sequence[str]) -> int:
        """The sum of tags, once counter and weights of a team are right."""
        lanes = sum_of_lanes(self._vectors[one][0].lane for one in team)
        count, weight, tags = unmask_lane(lanes, self._masks(number, Lane.COUNTS))
        expected = sum(self.terms.weights[self.terms.position(one) - 1] for one in team)
        if (count, weight) != (len(team), expected):
            raise SumWrongError(
                need=f"{len(team)} vectors of weight {expected}",
                found=f"{count} of weight {weight}",
                remedy="do not apply the sum; the next round",
            )
        return tags

    def _masks(self, number: int, lane: Lane) -> tuple[Signed, ...]:
        publics = {party: one.slots[self._slot].public for party, one in self.setup.adverts.items()}
        return removed(
            self.context,
            self.terms,
            team=self.context.teams[number],
            online=self.online,
            secrets=self._revealed.secrets(),
            publics=publics,
            lane=lane,
        )

    def _record(self, sums: tuple[str, ...]) -> Record:
        adverts, shares = self.setup.signed_documents()
        frame, now, shown = self.setup.frame, self.context, self._shown or {}
        return Record(
            number=frame.number,
            first_round=frame.first_round,
            rounds=frame.rounds,
            round=now.round,
            attempt=now.attempt,
            base_model=now.base_model,
            server=now.server,
            adverts=adverts,
            shares=shares,
            nonces=now.nonces,
            teams=now.teams,
            online=self._entries(),
            opened=self.opened_teams,
            confirmations={self.terms.position(one): signature for one, signature in shown.items()},
            secrets=self._revealed.secrets(),
            sums=sums,
        )

    # parts

    def _large_enough(self, online: Sequence[str]) -> tuple[int, ...]:
        """Teams whose sums may be opened; the others stay closed."""
        found = tuple(
            number for number, team in enumerate(self.context.teams) if self._opens(set(team) & set(online))
        )
        if not found:
            raise CohortTooSmallError(
                need=f"a team with {self.terms.k_open} independent groups, none above max_share",
                found="none",
                remedy="wait for more members, or amend the contract",
                clause=self.terms.clause,
            )
        return found

    def _opens(self, survivors: set[str]) -> bool:
        try:
            self.terms.check_team(survivors)
        except CohortTooSmallError:
            return False
        return True

    def _survivors(self, number: int) -> tuple[str, ...]:
        return tuple(one for one in self.context.teams[number] if one in self.online)

    def _entries(self) -> dict[str, VectorEntry]:
        found = {one: self._vectors[one] for one in self.online}
        return {
            one: VectorEntry(digest=header.digest, lane=header.lane, signature=signature)
            for one, (header, signature) in found.items()
        }

    def _need_online(self, party: str) -> Confirmation:
        if self._confirmation is None or party not in self.online:
            raise ContextMismatchError(
                need="an answer of a member of the online set",
                found=f"one of {party}",
                remedy="drop it",
                offender=party,
            )
        return self._confirmation

    def _too_few(self, what: str, found: int) -> SecaggError:
        return CohortTooSmallError(
            need=f"{self.terms.t} {what}",
            found=str(found),
            remedy="the next attempt",
            clause=self.terms.clause,
        )


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(need=need, found=found, remedy="leave the party out")
