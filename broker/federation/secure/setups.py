# SPDX-License-Identifier: Apache-2.0
"""The setup whose keys a round is masked with: kept as long as it serves, made anew where it does not.

A new one is made where

1. none covers the round, or the one that does is of other terms: the contract was superseded;
2. a member of it answered ``secagg.setup-gone``: its process, and with it its keys, have ended;
3. a member of it lied (it is left out), or was away for `SECAGG_ABSENT_ROUNDS` rounds (it is left out
   until it is asked again by 4), or a sum of it failed: by its counter, its norm or its tags;
4. somebody who takes part has no keys in it, and it serves for `SECAGG_REJOIN_ROUNDS` rounds already;
5. too few of its members are there, and others are.

Three exchanges: advertise, share, open. Whoever gives no answer is not in it, and whoever gave none when it
was asked last is waited for only a few seconds (`SECAGG_RETURN_S`); whoever is to blame for a
wrong one is named and left out of the run, and the setup is tried again without it, at most once for each
member. What was made is on the disk before it is used: a broker that starts again goes on with it.

Nobody can be named for a sum that failed: what is wrong is as hidden as the vectors. Each time the next setup
leaves out one of those that were in every sum that failed, where enough are left without it. If a sum
without it holds, it is named in the journal (``secagg.suspect``), and no more: it may be what somebody else
wanted to be thought. It comes back by 4, and is left out first if sums fail again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.exchange import ExchangeType
from policies.limits import SECAGG_ABSENT_ROUNDS, SECAGG_REJOIN_ROUNDS
from policies.rounds import Need
from policies.secagg.collector import Setup
from policies.secagg.contexts import NO_NONCE
from policies.secagg.errors import SecaggError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.secure.files import Files
    from broker.federation.secure.talk import Heard, Talk
    from broker.federation.tools import Journal
    from policies.secagg.terms import Terms

__all__ = ["Ready", "Setups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Whether an attempt can be masked.

    Attributes:
        setup: That covers it; None: too few take part in one.
        declined: Party → code, of those that took no part in making it, by their own word.
    """

    setup: Setup | None
    declined: Mapping[str, str] = field(default_factory=dict)


class Setups:
    """The setups of one run.

    Attributes:
        liars: Party → code, of members that are left out because of what they answered.
        left_out: Whom the present setup does without, to see whether its sums hold; None: nobody.
    """

    def __init__(self, run: str, terms: Terms, *, talk: Talk, files: Files, journal: Journal) -> None:
        self._run = run
        self._terms = terms
        self._talk = talk
        self._files = files
        self._journal = journal
        self._need = Need(terms.k_open, terms.least_online)
        self._gone: set[str] = set()
        self._silent: set[str] = set()  # gave no answer when they were asked last
        self._missed: dict[str, set[int]] = defaultdict(set)
        self._declined: dict[str, str] = {}
        self._doubts = files.doubts()
        self._named: str | None = None
        self.left_out: str | None = None
        self.liars = files.liars()
        self._setup = _kept(files, terms)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Parties that were in every sum that failed."""
        return tuple(sorted(frozenset.intersection(*self._doubts))) if self._doubts else ()

    def kept(self, number: int) -> Ready:
        """The present setup, if it has this number."""
        same = self._setup is not None and self._setup.number == number
        return Ready(setup=self._setup if same else None)

    async def ready(self, engine_run: EngineRun, number: int, asked: Sequence[Participant]) -> Ready:
        """A setup that covers a round, made now where it must be.

        Args:
            engine_run: Of the engine.
            number: Of the round that is to be asked.
            asked: Who would be asked.
        """
        if self._serves(number, {one.party: one.group for one in asked}):
            return Ready(setup=self._setup)
        self._setup, left_out = None, self._away()
        self.left_out = self._tried(asked, left_out)
        left_out |= set() if self.left_out is None else {self.left_out}
        self._declined = {}
        for _ in self._terms.parties:
            out = self.liars.keys() | left_out
            invited = tuple(one for one in asked if one.party not in out)
            if not self._need.met_by([one.group for one in invited]):
                break
            known = dict(self.liars)
            setup = await self._made(engine_run, number, invited)
            if setup is not None:
                self._keep(setup, left_out)
                break
            if self.liars == known:
                break
        return Ready(setup=self._setup, declined=dict(self._declined))

    def heard(self, number: int, *, there: Collection[str], gone: Iterable[str]) -> None:
        """What an attempt showed about members of the present setup.

        Args:
            number: Of its round.
            there: Whose vector came.
            gone: Who have no keys any more.
        """
        self._gone |= (answered := set(gone))
        self._silent -= {*there, *answered}
        for party in () if self._setup is None else self._setup.opened_by:
            if party in there:
                self._missed.pop(party, None)
            else:
                self._missed[party].add(number)
                self._silent |= {party} - answered

    def blame(self, offenders: Mapping[str, str]) -> None:
        """Leaves members out of the next setup, which is made before the next attempt, and out of the run."""
        if offenders.items() - self.liars.items():
            self.liars |= offenders
            self._files.save_liars(self.liars)

    def failed(self, parties: Collection[str]) -> None:
        """Ends the setup because of a sum that failed, and doubts whose vectors are in it."""
        doubted = frozenset(parties)
        alone = not self._doubts or not frozenset.intersection(*self._doubts) & doubted
        self._doubts = [doubted] if alone else [*self._doubts, doubted]
        self._files.save_doubts(self._doubts)
        self._files.end_setup()
        self._setup = None
        self._journal.note(
            "secagg.sum-failed", run=self._run, parties=sorted(parties), suspects=self.suspects
        )

    def held(self) -> None:
        """A sum of the present setup holds: whoever was left out for that is named."""
        if self.left_out not in (None, self._named):
            self._named = self.left_out
            self._journal.note("secagg.suspect", run=self._run, party=self._named)

    def _tried(self, asked: Sequence[Participant], away: Collection[str]) -> str | None:
        """Who is left out of the next setup to see whether its sums hold; first who was named before."""
        there = {one.party: one.group for one in asked if one.party not in self.liars.keys() | set(away)}
        for party in sorted(self.suspects, key=lambda one: one != self._named):
            if party in there and self._need.met_by([there[one] for one in there if one != party]):
                return party
        return None

    def keep_nonces(self, number: int) -> None:
        """Keeps what members revealed for a round: after a restart it is asked in the same bytes."""
        if self._setup is not None:
            told = zip(self._setup.members, self._setup.reveals(number), strict=True)
            self._files.save_nonces(
                self._setup.number, number, {one: nonce for one, nonce in told if nonce != NO_NONCE}
            )

    def _serves(self, number: int, asked: Mapping[str, str]) -> bool:
        setup = self._setup
        if setup is None or not setup.covers(number):  # 1.
            return False
        if set(setup.members) & (self._gone | self.liars.keys() | self._away()):  # 2. 3.
            return False
        strangers = asked.keys() - set(setup.opened_by) - self.liars.keys()
        if strangers and number >= setup.frame.first_round + SECAGG_REJOIN_ROUNDS:  # 4.
            return False
        there = [group for party, group in asked.items() if party in setup.opened_by]
        return not strangers or self._need.met_by(there)  # 5.

    def _away(self) -> set[str]:
        return {party for party, rounds in self._missed.items() if len(rounds) >= SECAGG_ABSENT_ROUNDS}

    def _keep(self, setup: Setup, left_out: Iterable[str]) -> None:
        self._setup = setup
        self._gone.clear()
        for party in left_out:
            self._missed.pop(party, None)
        self._files.save_setup(setup.to_bytes())
        self._journal.note(
            "secagg.setup",
            run=self._run,
            number=setup.number,
            round=setup.frame.first_round,
            members=len(setup.opened_by),
        )

    async def _made(self, engine_run: EngineRun, number: int, invited: Sequence[Participant]) -> Setup | None:
        """One try; None if it came to nothing. Liars are noted."""
        setup = Setup(self._terms, number=self._files.next_number(), first_round=number)
        slot, talk = (number, setup.number), self._talk
        try:
            asks = dict.fromkeys(invited, setup.advertise_ask())
            heard = await talk.exchange(
                engine_run, ExchangeType.SA_ADVERTISE, slot, asks, setup.advert, brief=self._silent
            )
            self._silent = self._silent - {one.party for one in asks} | heard.absent
            asks = dict.fromkeys(self._good(asks, heard), setup.share_ask())
            heard = await talk.exchange(engine_run, ExchangeType.SA_SHARE, slot, asks, setup.shared)
            asks = {one: setup.open_ask(one.party) for one in self._good(asks, heard)}
            heard = await talk.exchange(engine_run, ExchangeType.SA_OPEN, slot, asks, setup.opened)
            self._good(asks, heard)
        except SecaggError as error:  # too few are left
            self._journal.note("secagg.setup-failed", run=self._run, code=error.code, found=error.found)
            return None
        return setup if setup.ready and not set(setup.members) & self.liars.keys() else None

    def _good(self, asked: Iterable[Participant], heard: Heard) -> tuple[Participant, ...]:
        """Who answered as it must; the others' reasons are kept."""
        self._declined |= heard.refused
        self.blame(heard.offenders)
        return tuple(one for one in asked if one.party in heard.good)


def _kept(files: Files, terms: Terms) -> Setup | None:
    """The setup on the disk, if it is of these terms; whatever else it is, another one is made."""
    data = files.setup()
    if data is None:
        return None
    try:
        setup = Setup.from_bytes(data, terms)
    except SecaggError:
        return None
    for number, nonces in files.nonces(setup.number).items():
        for party, nonce in nonces.items():
            setup.keep_nonce(party, number, nonce)
    return setup
