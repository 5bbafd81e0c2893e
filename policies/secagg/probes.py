# SPDX-License-Identifier: Apache-2.0
"""Which rounds of a run are probes, who is summed with whom in them, and which sums may be open together.

A probe opens the sums of teams instead of one of everybody, so that a team whose sum spoils the model can be
left out. Whether a round is one follows from what nobody chooses:

1. the contract's validation clause asks for votes on rounds (`policies.robustness.plan`), and the recipe's
   contributors are players, independent groups, for two teams of ``k_open``, whatever teams of that size
   chance makes keep ``max_share``;
2. the round is one of those that are judged anyway (`policies.robustness.votes.judged_rounds`): a probe
   is one of the judgings that the clause pays for, in place of the vote on that round;
3. t members revealed the nonce that they are bound to: one of them at least is not the broker's;
4. the seed of the nonces draws it (`policies.contribution.partition`): with the share ``probe_share`` of an
   incentives clause that measures by probes, else with `SHARE`.

Teams follow from the same seed; nodes, broker and verifier compute them. Both attempts of a round under one
setup have the same. In every other round all members are one team, whatever their nonces.

`release_guard` is the rank rule over the sums of one round: {all} and {all but one} give away one.

    probes = probes_of(contract, recipe.canonical, terms)       # None: no round of this run is a probe
    probes.teams(7, {"kita": nonce, …})                         # None: round 7 is none, whatever the nonces
    release_guard(terms)(opened_before, candidate)              # raises CohortTooSmallError

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from policies.contribution.partition import draw, partition_seed
from policies.contribution.rank_rule import check
from policies.encoding import parse
from policies.robustness.plan import votes_plan
from policies.robustness.votes import judged_rounds
from policies.secagg.contexts import NO_NONCE
from policies.secagg.errors import CohortTooSmallError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.contract.clauses import Contract
    from policies.secagg.contexts import Teams
    from policies.secagg.opening import OpenedSum
    from policies.secagg.terms import Terms

__all__ = ["SHARE", "Probes", "probes_of", "release_guard"]

SHARE: Final = Fraction(1, 2)
"""Of the judged rounds, where no clause says another: teams shrink the crowd that a member hides in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The probes of a run.

    Attributes:
        terms: Of the run.
        rounds: Numbers of the rounds that may be one.
        share: Of them that are, on average.
    """

    terms: Terms
    rounds: frozenset[int]
    share: Fraction

    def teams(self, number: int, reveals: Mapping[str, bytes]) -> Teams | None:
        """Teams of a round; None where it cannot be a probe.

        Args:
            number: Of the round.
            reveals: Per member of the setup, in roster order, its nonce or `NO_NONCE`.
        """
        if number not in self.rounds:
            return None
        everybody = (tuple(reveals),)
        if sum(one != NO_NONCE for one in reveals.values()) < self.terms.t:
            return everybody
        seed = partition_seed(
            contract=self.terms.contract,
            run=self.terms.run,
            number=number,
            nonces=list(reveals.values()),
        )
        groups = {one.party: one.group for one in self.terms.roster if one.party in reveals}
        return draw(seed, groups=groups, k_open=self.terms.k_open, share=self.share, judgings_left=1).teams


def probes_of(contract: Contract, recipe: bytes, terms: Terms) -> Probes | None:
    """The probes of a run, by the bytes that everybody signed; None where no round can be one.

    Args:
        contract: Of the run.
        recipe: Its canonical bytes.
        terms: Of the run.
    """
    tree, clause = parse(recipe), contract.validation
    if len(terms.groups(terms.parties)) < 2 * terms.k_open or not terms.any_team_fits:
        return None
    if clause is None or clause.max_judgings is None or votes_plan(clause, tree["evaluation"]) is None:
        return None
    share, incentives = SHARE, contract.incentives
    if incentives is not None and incentives.method == "group-probe-shapley":
        share = SHARE if incentives.probe_share is None else Fraction(incentives.probe_share)
    rounds = judged_rounds(terms.run, tree["rounds"], clause.max_judgings)
    return Probes(terms=terms, rounds=rounds, share=share)


def release_guard(terms: Terms) -> Callable[[Sequence[OpenedSum], OpenedSum], None]:
    """The rank rule of a run: whether the sums of an attempt may be open beside those of the same round."""
    groups = {one.party: one.group for one in terms.roster}

    def guard(opened: Sequence[OpenedSum], candidate: OpenedSum) -> None:
        rows = [one for sums in opened if sums.round == candidate.round for one in sums.supports]
        for support in candidate.supports:
            found = check(rows, support, groups=groups, k=terms.k_open)
            if not found.allowed:
                raise CohortTooSmallError(
                    need=f"{terms.k_open} independent groups behind whatever can be computed from open sums",
                    found="a sum that lays open " + ", ".join(found.groups),
                    remedy="an incident: stop, and tell the other members",
                    clause=terms.clause,
                )
            rows.append(support)

    return guard
