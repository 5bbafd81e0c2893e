# SPDX-License-Identifier: Apache-2.0
"""The setup whose keys a round is masked with: kept as long as it serves, made anew where it does not.

A new one is made where

1. none covers the round, or the one that does is of other terms: the contract was superseded;
2. a member of it answered ``secagg.setup-gone``: its process, and with it its keys, have ended;
3. a member of it lied (it is left out), or was away for `SECAGG_ABSENT_ROUNDS` rounds (it is left out until it is
   asked again by 4);
4. somebody who takes part is no member of it, and it serves for `SECAGG_REJOIN_ROUNDS` rounds already;
5. too few of its members are there, and others are.

Three exchanges: advertise, share, open. Whoever gives no answer is not in it; whoever is to blame for a wrong one
is named and left out, and the setup is tried again without it, at most once for each member. What was made is on
the disk before it is used: a broker that starts again goes on with it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from policies.exchange import ExchangeType
from policies.limits import SECAGG_ABSENT_ROUNDS, SECAGG_REJOIN_ROUNDS
from policies.rounds import Need
from policies.secagg.collector import Setup
from policies.secagg.errors import SecaggError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.secure.files import Files
    from broker.federation.secure.talk import Heard, Talk
    from broker.federation.tools import Journal
    from policies.secagg.terms import Terms

__all__ = ["Setups"]


class Setups:
    """The setups of one run.

    Attributes:
        liars: Party → code, of members that are left out because of what they answered.
    """

    def __init__(self, run: str, terms: Terms, *, talk: Talk, files: Files, journal: Journal) -> None:
        self._run = run
        self._terms = terms
        self._talk = talk
        self._files = files
        self._journal = journal
        self._need = Need(terms.k_open, terms.least_online)
        self._gone: set[str] = set()
        self._missed: dict[str, set[int]] = defaultdict(set)
        self.liars: dict[str, str] = {}
        self._setup = _kept(files, terms)

    def kept(self, number: int) -> Setup | None:
        """The present setup, if it has this number."""
        return self._setup if self._setup is not None and self._setup.number == number else None

    async def ready(
        self, engine_run: EngineRun, round: int, asked: Sequence[Participant]  # noqa: A002  the header's word
    ) -> Setup | None:
        """A setup that covers a round, made now where it must be; None if too few take part in one.

        Args:
            engine_run: Of the engine.
            round: That is to be asked.
            asked: Who would be asked.
        """
        if self._serves(round, {one.party: one.group for one in asked}):
            return self._setup
        self._setup = None
        left_out = self._away()
        for _ in self._terms.parties:
            out = self.liars.keys() | left_out
            invited = tuple(one for one in asked if one.party not in out)
            if not self._need.met_by([one.group for one in invited]):
                break
            known = len(self.liars)
            setup = await self._made(engine_run, round, invited)
            if setup is not None:
                return self._keep(setup, left_out)
            if len(self.liars) == known:
                break
        return None

    def save(self) -> None:
        """Keeps what the present setup learned in a round, durably."""
        if self._setup is not None:
            self._files.save_setup(self._setup.to_bytes())

    def heard(self, round: int, *, there: Collection[str], gone: Iterable[str]) -> None:  # noqa: A002
        """What an attempt showed about members of the present setup.

        Args:
            round: Of the attempt.
            there: Whose vector came.
            gone: Who have no keys any more.
        """
        self._gone |= set(gone)
        for party in () if self._setup is None else self._setup.members:
            if party in there:
                self._missed.pop(party, None)
            else:
                self._missed[party].add(round)

    def blame(self, offenders: Mapping[str, str]) -> None:
        """Leaves members out of the next setup, which is made before the next attempt."""
        self.liars |= dict(offenders)

    def _serves(self, round: int, asked: Mapping[str, str]) -> bool:  # noqa: A002
        setup = self._setup
        if setup is None or not setup.covers(round):  # 1.
            return False
        members = set(setup.members)
        if members & (self._gone | self.liars.keys() | self._away()):  # 2. 3.
            return False
        strangers = asked.keys() - members - self.liars.keys()
        if strangers and round >= setup.first_round + SECAGG_REJOIN_ROUNDS:  # 4.
            return False
        there = [group for party, group in asked.items() if party in members]
        return not strangers or self._need.met_by(there)  # 5.

    def _away(self) -> set[str]:
        return {party for party, rounds in self._missed.items() if len(rounds) >= SECAGG_ABSENT_ROUNDS}

    def _keep(self, setup: Setup, left_out: Iterable[str]) -> Setup:
        self._setup = setup
        self._gone.clear()
        for party in left_out:
            self._missed.pop(party, None)
        self.save()
        self._journal.note(
            "secagg.setup", run=self._run, number=setup.number, round=setup.first_round, members=len(setup.members)
        )
        return setup

    async def _made(
        self, engine_run: EngineRun, round: int, invited: Sequence[Participant]  # noqa: A002
    ) -> Setup | None:
        """One try; None if it came to nothing. Liars are noted."""
        setup = Setup(self._terms, number=self._files.next_number(), first_round=round)
        slot, talk = (round, setup.number), self._talk
        try:
            ask = setup.advertise_ask()
            heard = await talk.exchange(
                engine_run, ExchangeType.SA_ADVERTISE, slot, dict.fromkeys(invited, ask), setup.advert
            )
            there = self._good(invited, heard)
            ask = setup.share_ask()
            heard = await talk.exchange(
                engine_run, ExchangeType.SA_SHARE, slot, dict.fromkeys(there, ask), setup.shared
            )
            there = self._good(there, heard)
            asks = {one: setup.open_ask(one.party) for one in there}
            heard = await talk.exchange(engine_run, ExchangeType.SA_OPEN, slot, asks, setup.opened)
            self._good(there, heard)
        except SecaggError as error:  # too few are left
            if error.offender is not None:
                self.blame({error.offender: error.code})
            self._journal.note("secagg.setup-failed", run=self._run, code=error.code)
            return None
        members = set(setup.members)
        if members & self.liars.keys() or not self._need.met_by(
            [one.group for one in invited if one.party in members]
        ):
            return None
        return setup

    def _good(self, asked: Sequence[Participant], heard: Heard) -> tuple[Participant, ...]:
        self.blame(heard.offenders)
        return tuple(one for one in asked if one.party in heard.good)


def _kept(files: Files, terms: Terms) -> Setup | None:
    """The setup on the disk, if it is of these terms; whatever else it is, another one is made."""
    data = files.setup()
    if data is None:
        return None
    try:
        return Setup.from_bytes(data, terms)
    except SecaggError:
        return None
