# SPDX-License-Identifier: Apache-2.0
"""What a node holds the messages of a round against: teams, crowds, views. Each check returns, or refuses.

What they are for is listed in `policies.secagg.node`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.secagg.contexts import NO_NONCE
from policies.secagg.documents import is_signed
from policies.secagg.errors import (
    CohortTooSmallError,
    ContextMismatchError,
    PartitionBadError,
    ViewsDifferError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.secagg.asks import Previous
    from policies.secagg.contexts import Context, Teams
    from policies.secagg.documents import Confirmation, VectorHeader
    from policies.secagg.slots import SlotState
    from policies.secagg.sum_keys import SumKeys
    from policies.secagg.terms import Terms

    ExpectedTeams = Callable[[int, Mapping[str, bytes]], Teams | None]
    """Teams of a round, from each member's nonce reveal (`NO_NONCE` where it is owed), in roster order.

    None: the round has one team, whatever the nonces.
    """

__all__ = ["Rules"]


class Rules:
    """The checks of one node.

    Args:
        terms: Of the run.
        party: The own name.
        expected_teams: Computes the teams of a round; None: one team, everybody.
    """

    def __init__(self, terms: Terms, party: str, *, expected_teams: ExpectedTeams | None) -> None:
        self._terms, self._party, self._expected_teams = terms, party, expected_teams

    def check_crowd(self, parties: Sequence[str]) -> None:
        """Enough members and independent groups, none of too large a share.

        Raises:
            CohortTooSmallError: Not enough.
        """
        self._terms.check_open(parties)

    def check_teams(self, context: Context, *, told_for: int) -> None:
        """Nobody chooses the teams, and nobody hides a nonce that this node has told.

        Args:
            context: As asked.
            told_for: The newest round that this node told its nonce for.

        Raises:
            PartitionBadError: Teams or reveals are others.
        """
        reveals = dict(zip(context.members, context.nonces, strict=True))
        expected = None if self._expected_teams is None else self._expected_teams(context.round, reveals)
        if expected is not None and reveals[self._party] == NO_NONCE and context.round <= told_for:
            raise _bad_partition("the own nonce, which was revealed", "none")
        if context.teams != (expected or (context.members,)):
            raise _bad_partition("the teams that the nonces give", "others")

    def check_crowds(self, online: Sequence[str], teams: Teams) -> None:
        """Enough members, and in each of these teams enough independent groups, none of too large a share.

        Raises:
            CohortTooSmallError: Not enough.
        """
        self.check_crowd(online)
        for team in teams:
            self._terms.check_team(set(team) & set(online))

    def check_shown(
        self,
        shown: Sequence[Previous],
        round: int,  # noqa: A002
        keys: SumKeys,
        newest: SlotState | None,
    ) -> None:
        """The sums that an ask speaks of are of earlier rounds, oldest first, and as this node saw them.

        Args:
            shown: As asked.
            round: That is asked for.
            keys: Of the run.
            newest: This node's own newest slot.

        Raises:
            ContextMismatchError: They are no sums of these members, or of this round.
            ViewsDifferError: This node saw another context, or confirmed another online set.
        """
        slots = [one.at for one in shown]
        if slots != sorted(set(slots)) or (slots and slots[-1][0] >= round):
            raise _mismatch("sums that were opened in earlier rounds, oldest first", "others")
        for one in shown:
            self._check_seen(one, keys, newest)

    def _check_seen(self, said: Previous, keys: SumKeys, newest: SlotState | None) -> None:
        context = keys.context(said)
        if context is None or newest is None or newest.confirmation is None or newest.at != said.at:
            return
        supports = [tuple(sorted(one)) for one in newest.opened().supports]
        own = (newest.context, newest.confirmation.opened, supports)
        if own != (context, said.opened, [tuple(sorted(one)) for one in said.supports]):
            raise ViewsDifferError(
                need="the last attempt as this node saw it",
                found="another context, or another online set",
                remedy="stop, and tell the other members: the broker shows two views",
            )

    def check_online(self, online: tuple[str, ...], opened: tuple[int, ...], context: Context) -> None:
        """An online set, and the teams to open of it.

        Raises:
            ContextMismatchError: Others than members and teams of this attempt.
            CohortTooSmallError: As `check_crowds`.
        """
        if not set(online) <= set(context.members):
            raise _mismatch("members of this setup", "others")
        if not opened or opened[-1] >= len(context.teams):
            raise _mismatch("teams of this attempt", "others, or none")
        self.check_crowds(online, tuple(context.teams[one] for one in opened))

    def check_own_vector(self, headers: Sequence[VectorHeader], own: VectorHeader | None) -> None:
        """The own vector is in the list as it was sent.

        Raises:
            ViewsDifferError: It is not.
        """
        if own not in headers:
            raise ViewsDifferError(
                need="the own vector as it was sent",
                found="another one, or none",
                remedy="stop, and tell the other members: the broker changes what members send",
            )

    def check_confirmed(self, signatures: Mapping[str, bytes], confirmation: Confirmation) -> None:
        """T members of the online set signed what this node signed.

        Raises:
            ContextMismatchError: Signatures of others.
            ViewsDifferError: One is over other bytes: an incident.
            CohortTooSmallError: Fewer than t.
        """
        if not set(signatures) <= set(confirmation.online):
            raise _mismatch("signatures of online members", "others")
        others = [
            party
            for party, signature in signatures.items()
            if not is_signed(confirmation, signature, self._terms.member(party).key)
        ]
        if others:
            raise ViewsDifferError(
                need="confirmations of the bytes that this node confirmed",
                found="others by " + ", ".join(others),
                remedy="keep this request, it is the evidence; tell the other members",
            )
        if len(signatures) < self._terms.t:
            raise CohortTooSmallError(
                need=f"{self._terms.t} confirmations",
                found=str(len(signatures)),
                remedy="the next attempt",
                clause=self._terms.clause,
            )


def _mismatch(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need, found=found, remedy="compare the digests of both sides; usually an old message"
    )


def _bad_partition(need: str, found: str) -> PartitionBadError:
    return PartitionBadError(
        need=need, found=found, remedy="tell the other members: the broker chooses teams"
    )
