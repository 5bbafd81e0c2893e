# SPDX-License-Identifier: Apache-2.0
"""What a tightening may not touch: the entitlements of the other parties, byte for byte.

A rule can be tighter for all and still take from one: a higher ``min_contribution`` shuts out whoever lies
below it, a data set struck from a recipe takes its owner out of the participants, an embargo on a rival's
country ends its deliveries. None of that is a request that was refused before, so no search for looser terms
finds it. Therefore, in a ``tighten``:

1. the sections in `ENTITLED` are equal: tiers, release, queries, exit, incentives, fees, and how the
   contract is amended, because to tighten it alone and to rotate an own key are rights of each party;
2. so are the other parties' entries: their ``party-*`` clauses, their own caps and secrets;
3. and their rows in the clauses of all: data sets of recipes, donations, fixed weights;
4. no country of another party comes under an embargo.

Common terms may tighten: any contributor may halt the contract as a whole anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.contract.amendment.verdict import Objection
from policies.contract.clauses import PartyClause, PrivacyCapClause, SecretClause
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import Contract

__all__ = ["ENTITLED", "entitlements_kept"]

Json = Any  # a JSON value
ENTITLED: Final = ("tiers", "release", "queries", "exit", "incentives", "fees", "amendment")  # sections


def entitlements_kept(old: Contract, new: Contract, initiator: str | None) -> tuple[Objection, ...]:
    """What the successor takes from parties other than the initiator; empty if nothing.

    Args:
        old: The contract in force.
        new: Its successor.
        initiator: Short name of the party that starts the amendment; None spares nobody.
    """
    before, after = old.document, new.document
    found = [
        *_clauses(before, after),  # 1
        *_entries(old, new, initiator),  # 2
        *_rows(before, after, initiator),  # 3
        *_embargoes(old, new, initiator),  # 4
    ]
    return tuple(sorted(set(found), key=lambda one: (one.clause, one.words)))


def _taken(clause: str, words: str) -> Objection:
    return Objection(clause=clause, why="entitlement", words=words)


def _by_id(section: Json) -> dict[str, bytes]:
    rows = [] if section is None else section if isinstance(section, list) else [section]
    return {row["clause"]: canonical(row) for row in rows}


def _clauses(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Objection]:
    """1. Clauses that say what everybody receives."""
    for section in ENTITLED:
        was, becomes = _by_id(before[section]), _by_id(after[section])
        for clause in sorted(was.keys() | becomes.keys()):
            if was.get(clause) != becomes.get(clause):
                yield _taken(clause, "a tightening leaves this clause as it is")


def _own_clauses(contract: Contract, initiator: str | None) -> dict[str, tuple[str, object]]:
    """Clauses that belong to one party other than the initiator, by id."""
    return {
        one.clause: (one.party, one)
        for one in contract.clauses()
        if isinstance(one, PartyClause | PrivacyCapClause | SecretClause) and one.party != initiator
    }


def _entries(old: Contract, new: Contract, initiator: str | None) -> Iterator[Objection]:
    """2. Entries of the other parties."""
    was, becomes = _own_clauses(old, initiator), _own_clauses(new, initiator)
    for clause in sorted(was.keys() | becomes.keys()):
        if was.get(clause) != becomes.get(clause):
            owner = (was.get(clause) or becomes[clause])[0]
            yield _taken(clause, f"belongs to {owner}, who did not ask for this")
    if initiator is not None and new.party(initiator) is None:
        yield _taken(f"party-{initiator}", "who leaves gives notice of exit; a tightening removes nobody")


def _rows(
    before: Mapping[str, Json], after: Mapping[str, Json], initiator: str | None
) -> Iterator[Objection]:
    """3. Rows of the other parties in clauses of all."""
    for section, key in (("recipes", "datasets"), ("seed_sets", "donations")):
        was = {row["clause"]: _others(row[key], initiator) for row in before[section]}
        becomes = {row["clause"]: _others(row[key], initiator) for row in after[section]}
        for clause in sorted(was):
            if was[clause] != becomes.get(clause):
                yield _taken(clause, f"{key} of another party differ")
    common = "aggregation"
    if before[common]["fixed_weights"] != after[common]["fixed_weights"]:
        yield _taken(before[common]["clause"], "the weight of one is the weight of all")


def _others(rows: Json, initiator: str | None) -> list[Json]:
    return [row for row in rows if row["party"] != initiator]


def _embargoes(old: Contract, new: Contract, initiator: str | None) -> Iterator[Objection]:
    """4. Countries of the other parties."""
    if new.export_control is None:
        return
    was = set() if old.export_control is None else set(old.export_control.embargoed)
    fresh = set(new.export_control.embargoed) - was
    for party in old.parties:
        if party.country in fresh and party.party != initiator:
            yield _taken(new.export_control.clause, f"{party.country} is the country of {party.party}")
