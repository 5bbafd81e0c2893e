# SPDX-License-Identifier: Apache-2.0
"""A whole secure aggregation in memory: members with machines of their own, a broker, and planted faults.

    fleet = Fleet(terms_of_size(4))
    setup = fleet.setup()
    outcome = fleet.round(setup, 1)              # outcome.z is the plain ring sum of outcome.opened.parties

- ``away`` names who does not answer a step: ``{"contribute": {"ada"}, "unmask": {"bix"}}``. Steps are advertise, share,
  open, contribute, confirm, unmask.
- ``shown(step, party, ask)`` is a broker that shows something else; ``said(step, party, answer)`` is a node that answers
  something else. What a node or the broker refuses is in ``Fleet.refused`` by (step, party); who refused is in its offender.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.identity import SigningKey
from policies.secagg import masks, ring
from policies.secagg.asks import ContributeAsk
from policies.secagg.collector import Attempt, Opened, Setup
from policies.secagg.contexts import Lane, pair_masks, self_key
from policies.secagg.dealing import Kind
from policies.secagg.errors import SecaggError
from policies.secagg.node import Masked, NodeMachine, Slot
from policies.secagg.shamir import SHARE_BYTES
from policies.secagg.sums import RingSum
from policies.secagg.terms import Member, Terms
from tests.logsim import SimEntropy, digest_from

Away = Mapping[str, Collection[str]]
Shown = Callable[[str, str, bytes], bytes]
MODEL = digest_from("model 0")


def as_it_is(step: str, party: str, data: bytes) -> bytes:
    return data


def key_of(party: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(f"key of {party}".encode()).digest())


def terms_of_size(
    n: int, *, dimension: int = 5, groups: Sequence[str] | None = None, run: str = "run_1", **changes: Any
) -> Terms:
    """Terms of n members, each in a group of its own unless ``groups`` says otherwise."""
    names = [f"m{at:02d}" for at in range(1, n + 1)]
    owners = groups or [f"group {one}" for one in names]
    roster = tuple(
        Member(party=name, group=group, key=key_of(name).public)
        for name, group in zip(names, owners, strict=True)
    )
    found: dict[str, Any] = {
        "contract": digest_from("contract"),
        "recipe": digest_from("recipe"),
        "manifest": digest_from("manifest"),
        "run": run,
        "roster": roster,
        "dimension": dimension,
        "norm_max": "2",
        "weights": (1_000_000,) * n,
        "max_share": "1",
        "min_parties": 3,
        "max_colluders": 1,
        "honest_min": None,
        "group_mac": True,
        "clause": "agg-1",
    }
    return Terms(**{**found, **changes})


def update_of(party: str, at: int, dimension: int) -> NDArray[np.float32]:
    """An update of norm up to about 1, the same in every process."""
    seed = int.from_bytes(hashlib.sha256(f"{party} {at}".encode()).digest()[:4], "big")
    values = np.random.default_rng(seed).normal(size=dimension)
    return (values / max(1.0, float(np.linalg.norm(values)))).astype(np.float32)


@dataclass(kw_only=True)
class Outcome:
    """What a round gave: ``z`` is the opened sum (of the first opened team), ``vectors`` what came masked."""

    attempt: Attempt
    opened: Opened
    z: NDArray[np.uint32]
    vectors: dict[str, NDArray[np.uint32]]


@dataclass
class Fleet:
    """Members and a broker."""

    terms: Terms
    machine: Callable[..., NodeMachine] = NodeMachine
    machines: dict[str, NodeMachine] = field(default_factory=dict)
    refused: dict[tuple[str, str], SecaggError] = field(default_factory=dict)
    previous: Opened | None = None
    z: NDArray[np.uint32] | None = None

    def __post_init__(self) -> None:
        for party in self.terms.parties:
            self.machines[party] = self.begin(party)

    def begin(self, party: str, *, life: int = 1, terms: Terms | None = None, **more: Any) -> NodeMachine:
        """A machine of a member; another life draws other secrets, as a process that begins anew."""
        entropy = SimEntropy(f"{party} {life}".encode())
        return self.machine(terms or self.terms, party, key=key_of(party), entropy=entropy, **more)

    # steps

    def ask(self, step: str, party: str, call: Callable[[], Any]) -> Any:
        """What a call gives, or None where it was refused."""
        try:
            return call()
        except SecaggError as error:
            self.refused[step, party] = error
            return None

    def setup(
        self,
        number: int = 1,
        *,
        first_round: int = 1,
        rounds: int = 2,
        away: Away | None = None,
        shown: Shown = as_it_is,
        said: Shown = as_it_is,
    ) -> Setup:
        """A setup of all that answer, as far as it comes."""
        setup = Setup(self.terms, number=number, first_round=first_round, rounds=rounds)
        steps: list[tuple[str, Callable[[str], bytes], Callable[[str, bytes], None]]] = [
            ("advertise", lambda _: setup.advertise_ask(), setup.advert),
            ("share", lambda _: setup.share_ask(), setup.shared),
            ("open", setup.open_ask, setup.opened),
        ]
        here = list(self.terms.parties)
        for step, ask, take in steps:
            calls = {
                one: getattr(self.machines[one], step)
                for one in here
                if one not in (away or {}).get(step, ())
            }
            here = list(self.exchange(step, calls, ask, take, shown=shown, said=said))
        return setup

    def exchange(
        self,
        step: str,
        calls: Mapping[str, Callable[[bytes], bytes]],
        ask: Callable[[str], bytes],
        take: Callable[[str, bytes], None],
        *,
        shown: Shown,
        said: Shown,
    ) -> dict[str, bytes]:
        """Answers that the broker took, by party: all are asked before the first answer is looked at."""
        answers = {}
        for party, call in calls.items():
            answers[party] = self.ask(step, party, partial(_answered, call, step, party, ask, shown))
        for party, answer in answers.items():
            if answer is not None:
                self.ask(step, party, partial(take, party, said(step, party, answer)))
        return {
            one: answer
            for one, answer in answers.items()
            if (step, one) not in self.refused and answer is not None
        }

    def admit(self, attempt: Attempt, party: str, ask: bytes) -> Slot:
        now = attempt.context
        return self.machines[party].admit(
            ask, round=now.round, attempt=now.attempt, base_model=_model_in(ask, self.terms)
        )

    def contribute(
        self,
        attempt: Attempt,
        *,
        away: Collection[str] = (),
        shown: Shown = as_it_is,
        said: Shown = as_it_is,
        updates: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[np.uint32]]:
        """Masked vectors by member; each checks the sum before, as a node does."""
        found: dict[str, NDArray[np.uint32]] = {}
        for party in attempt.context.members:
            if party in away:
                continue
            values = (updates or {}).get(party)
            if values is None:
                values = update_of(party, attempt.context.round, self.terms.dimension)
            masked = self.ask("contribute", party, partial(self._masked, attempt, party, values, shown))
            if masked is None:
                continue
            answer = said("contribute", party, masked.answer)
            vector = np.frombuffer(said("vector", party, masked.vector.tobytes()), "<u4")
            digest = "sha256:" + hashlib.sha256(vector.tobytes()).hexdigest()
            self.ask("vector", party, partial(_taken, attempt, party, answer, vector, digest))
            if ("vector", party) not in self.refused:
                found[party] = vector
        return found

    def _masked(self, attempt: Attempt, party: str, values: NDArray[Any], shown: Shown) -> Masked:
        slot = self.admit(attempt, party, shown("contribute", party, attempt.contribute_ask()))
        if self.z is not None:
            self.machines[party].check_sums(slot, [self.z])
        if values.dtype == np.float32:
            values = ring.check_update(values, self.terms)
        return self.machines[party].mask(slot, values)

    def gather(
        self,
        step: str,
        attempt: Attempt,
        *,
        away: Collection[str] = (),
        shown: Shown = as_it_is,
        said: Shown = as_it_is,
    ) -> dict[str, bytes]:
        """Answers to CONFIRM or UNMASK, which the broker has taken."""
        asked = attempt.confirm_ask() if step == "confirm" else attempt.unmask_ask()
        take = attempt.confirmed if step == "confirm" else attempt.unmasked
        at = {"round": attempt.context.round, "attempt": attempt.context.attempt}
        calls = {
            one: partial(getattr(self.machines[one], step), **at) for one in attempt.online if one not in away
        }
        return self.exchange(step, calls, lambda _: asked, take, shown=shown, said=said)

    def attempt(
        self, setup: Setup, at: int, attempt: int = 1, *, base_model: str = MODEL, **more: Any
    ) -> Attempt:
        return Attempt(
            setup, round=at, attempt=attempt, base_model=base_model, previous=self.previous, **more
        )

    def round(
        self,
        setup: Setup,
        at: int,
        attempt: int = 1,
        *,
        away: Away | None = None,
        shown: Shown = as_it_is,
        said: Shown = as_it_is,
        updates: Mapping[str, NDArray[Any]] | None = None,
        **more: Any,
    ) -> Outcome:
        """A whole attempt; raises what stops it."""
        gone = away or {}
        now = self.attempt(setup, at, attempt, **more)
        absent = set(gone.get("contribute", ())) | {
            one for one in setup.members if one not in setup.opened_by
        }
        vectors = self.contribute(now, away=absent, shown=shown, said=said, updates=updates)
        confirmed = self.gather("confirm", now, away=gone.get("confirm", ()), shown=shown, said=said)
        silent = {one for one in now.online if one not in confirmed} | set(gone.get("unmask", ()))
        self.gather("unmask", now, away=silent, shown=shown, said=said)
        sums = [open_team(now, vectors, number) for number in now.opened_teams]
        opened = now.finish(*(one.digest() for one in sums))
        self.previous = opened
        self.z = np.concatenate([one.values for one in sums])
        return Outcome(attempt=now, opened=opened, z=sums[0].values, vectors=vectors)

    def plain_sum(
        self, parties: Collection[str], at: int, updates: Mapping[str, NDArray[Any]] | None = None
    ) -> NDArray[np.uint32]:
        """What the opened sum must be, bit by bit."""
        total = np.zeros(self.terms.dimension, np.uint32)
        for party in parties:
            values = (updates or {}).get(party, update_of(party, at, self.terms.dimension))
            fit = ring.check_update(values, self.terms)
            total += ring.quantise(fit, weight=self.terms.weight(party), terms=self.terms)
        return total


def _answered(
    call: Callable[[bytes], bytes], step: str, party: str, ask: Callable[[str], bytes], shown: Shown
) -> bytes:
    return call(shown(step, party, ask(party)))


def _taken(attempt: Attempt, party: str, answer: bytes, vector: NDArray[np.uint32], digest: str) -> None:
    """A broker looks at length and signature of a vector before it is in any sum."""
    RingSum(attempt.terms.dimension).add([vector.tobytes()])
    attempt.vector(party, answer, digest)


def open_team(attempt: Attempt, vectors: Mapping[str, NDArray[np.uint32]], number: int) -> RingSum:
    """The opened sum of a team."""
    total = RingSum(attempt.terms.dimension)
    for party in attempt.context.teams[number]:
        if party in attempt.online:
            total.add([vectors[party].tobytes()])
    masks.unmask(total.values, attempt.remove(number))
    return total


def changed(ask: bytes, terms: Terms, **changes: Any) -> bytes:
    """A CONTRIBUTE ask with other values, as a broker that lies would write it."""
    return replace(ContributeAsk.from_bytes(ask, terms), **changes).to_bytes(terms)


def _model_in(ask: bytes, terms: Terms) -> str:
    """The base model as the message's body names it beside the ask: the broker writes both."""
    try:
        return ContributeAsk.from_bytes(ask, terms).base_model
    except SecaggError:
        return MODEL


def shares_of(fleet: Fleet, holders: Collection[str], dealer: str, slot: int, kind: Kind) -> dict[int, bytes]:
    """What some members hold of a dealer's secret, by position: they pool it with the broker."""
    found = {}
    for one in holders:
        held = fleet.machines[one]._present
        assert held is not None
        found[fleet.terms.position(one)] = held.share(slot, dealer, kind)
    return found


def shares_in(attempt: Attempt, answers: Mapping[str, bytes], dealer: str) -> dict[int, bytes]:
    """A dealer's shares in answers to UNMASK of a plain round, by position: the broker reads them there."""
    at = attempt.context.members.index(dealer) * SHARE_BYTES
    return {attempt.terms.position(one): answer[at : at + SHARE_BYTES] for one, answer in answers.items()}


def stripped(
    attempt: Attempt, party: str, vector: NDArray[np.uint32], *, b: bytes, s: bytes
) -> NDArray[np.uint32]:
    """A vector without its masks, by both secrets of its slot: what no broker must ever be able to do."""
    now, terms, setup = attempt.context, attempt.terms, attempt.setup
    ctx, position = now.digest(terms), terms.position(party)
    slot = setup.frame.slot(now.round, now.attempt)
    own = self_key(b, seal=setup.seal, lane=Lane.VECTOR, ctx=ctx, position=position)
    others = [
        (terms.position(one), setup.adverts[one].slots[slot].public)
        for one in now.team_of(party)
        if one != party
    ]
    pairs = pair_masks(s, own=position, others=others, seal=setup.seal, ctx=ctx, lane=Lane.VECTOR)
    bare = vector.copy()
    masks.unmask(bare, [(1, own), *pairs])
    return bare


def ring_of(fleet: Fleet, party: str, at: int) -> NDArray[np.uint32]:
    """A member's update on the ring: what the broker is after."""
    return fleet.plain_sum([party], at)
