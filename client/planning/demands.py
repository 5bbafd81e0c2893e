# SPDX-License-Identifier: Apache-2.0
"""What a contract asks of a recipe's privacy plan and of this site, as the planner shows it.

It is this node's forecast of what its gate will say, from the contract's own words: unit, adjacency, noise,
delta, the caps of this party, the least number of parties; and how many units canaries need. The gate itself
(`client.guard`) decides when a round is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.errors import RefusedError
from policies.privacy.accounting import epsilon_text
from policies.privacy.canaries import per_party, units_needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import Held
    from policies.contract import Contract
    from policies.contract.clauses import Caps
    from policies.privacy.plan import DpPlan

__all__ = ["canaries", "check_terms", "findings", "terms"]

Json = dict[str, Any]


def terms(held: Held) -> Json:
    """The numbers of a contract that a plan is measured by, for this party; caps are null without privacy."""
    contract, caps = held.contract, held.contract.caps(held.party.party)
    return {
        "digest": contract.digest,
        "party": held.party.party,
        "epsilon_per_release": None if caps is None else caps.epsilon_per_release,
        "epsilon_total": None if caps is None else caps.epsilon_total,
        "delta": None if caps is None else caps.delta,
        "min_parties": contract.aggregation.min_parties,
        "max_colluders": contract.aggregation.max_colluders,
    }


def canaries(contract: Contract, units: int) -> Json | None:
    """How many canaries a node trains beside, and the own units that it needs for it; None without any."""
    count = per_party(contract.release.evidence, contract.aggregation.min_parties)
    if count == 0:
        return None
    return {
        "count": count,
        "units_needed": units_needed(count),
        "units": units,
        "clause": contract.release.clause,
    }


def findings(held: Held, asked: DpPlan, *, silos: int) -> list[Json]:
    """Every term that a plan was measured by: ``clause, about, need, found, holds``."""
    contract, caps = held.contract, held.contract.caps(held.party.party)
    found = [_least_parties(contract, silos)]
    if caps is not None:
        found += [*_equal(contract, asked), _release(caps, asked)]
    return found


def check_terms(found: list[Json]) -> None:
    """Returns if every term holds.

    Raises:
        RefusedError: With the first that does not.
    """
    for one in found:
        if not one["holds"]:
            raise RefusedError(
                need=f"{one['about']} {one['need']}",
                found=one["found"],
                remedy="a plan that fits the contract, or a contract that fits the plan: iriai-node contract "
                "counter",
                clause=one["clause"],
            )


def _least_parties(contract: Contract, silos: int) -> Json:
    least, clause = contract.aggregation.min_parties, contract.aggregation.clause
    return _finding(clause, "silos", f"at least {least}", str(silos), holds=silos >= least)


def _equal(contract: Contract, asked: DpPlan) -> Iterator[Json]:
    clause = contract.privacy
    for name in ("unit", "adjacency", "noise", "delta"):
        need, found = getattr(clause, name), getattr(asked, name)
        holds = float(need) == float(found) if name == "delta" else need == found
        yield _finding(clause.clause, name, str(need), str(found), holds=holds)
    if clause.honest_min is not None:
        holds = asked.honest_min == clause.honest_min
        found = str(asked.honest_min)
        yield _finding(clause.clause, "honest_min", str(clause.honest_min), found, holds=holds)


def _release(caps: Caps, asked: DpPlan) -> Json:
    found, most = epsilon_text(asked.epsilon_rdp), caps.epsilon_per_release
    holds = float(found) <= float(most)
    return _finding(caps.release_clause, "epsilon of one run", f"at most {most}", found, holds=holds)


def _finding(clause: str, about: str, need: str, found: str, *, holds: bool) -> Json:
    return {"clause": clause, "about": about, "need": need, "found": found, "holds": holds}
