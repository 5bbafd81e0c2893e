# SPDX-License-Identifier: Apache-2.0
"""AUD-068: what donors of open episodes signed is what the seed clauses of the contracts say.

For each donation of each contract that is final, where its consent is in the bundle:

1. the document has the digest that the clause names (`policies.verify.reading`);
2. it is signed by the key that the contract pins for the donor, in the donor's own name;
3. it is about the party, the data set and the licence of the clause;
4. the fields that it shows are exactly those that the recipe reads, all of them allowed by the contract;
5. the recipe starts from the seed set that the clause names.

A consent that no contract of the bundle names is a finding too. Seed sets stay out of a bundle: that they
hold exactly the episodes which the consents name is listed as not checked, and so is a consent that is not
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.consents import check_agreed, open_consent
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import Contract, Donation, SeedClause
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_consents"]

Json = Any


def check_consents(history: History, report: Report) -> None:
    """AUD-068 for every contract that was finalized."""
    documents = dict(history.consent_files())
    known = {
        one.consent
        for contract in history.contracts.values()
        for clause in contract.seed_sets
        for one in clause.donations
    }
    for named in sorted(set(documents) - known):
        report.add("AUD-068", f"consents/{named}: no seed clause names it")
    for index, entry in history.of(EntryType.CONTRACT_FINALIZED):
        contract = history.contracts.get(entry.pub["contract"])
        if contract is None:
            continue
        for clause in contract.seed_sets:
            for wrong in _wrong(history, contract, clause, documents, report):
                report.add("AUD-068", f"{clause.clause}: {wrong}", index=index)


def _wrong(
    history: History, contract: Contract, clause: SeedClause, documents: Mapping[str, bytes], report: Report
) -> Iterator[str]:
    digest = next(one.recipe_digest for one in contract.recipes if one.id == clause.recipe)
    recipe = history.recipes.get(digest)
    start = recipe.get("start") if recipe is not None else None
    if recipe is not None and (not isinstance(start, dict) or start.get("seed_set") != clause.seed_set):  # 5.
        yield f"recipe {clause.recipe} does not start from {clause.seed_set}"
    for donation in clause.donations:
        data = documents.get(donation.consent)
        if data is None:
            report.not_checked(f"AUD-068: the consent {donation.consent}: it is not in the bundle")
            continue
        try:
            yield from _differences(contract, donation, data, recipe)
        except IriaiError as error:
            yield f"consent of {donation.party}: needs {error.need}; found {error.found}"
    report.not_checked(f"AUD-068: episodes of the seed set {clause.seed_set}: it is not in the bundle")


def _differences(
    contract: Contract, donation: Donation, data: bytes, recipe: Mapping[str, Json] | None
) -> Iterator[str]:
    party = contract.party(donation.party)
    consent = open_consent(data, parse_key(party.key if party is not None else ""))  # 2.
    check_agreed(consent, party=donation.party, dataset=donation.dataset, licence=donation.licence)  # 3.
    shown = {"inputs": list(consent.observation), "outputs": list(consent.action)}  # 4.
    read = None if recipe is None else {name: _fields(recipe.get(name)) for name in shown}
    if recipe is not None and (shown != read or list(consent.labels) != _labels(recipe.get("loss"))):
        yield f"consent of {donation.party}: it shows other fields than the recipe reads"
    if not {*consent.observation, *consent.action, *consent.labels} <= set(contract.fields.allow):
        yield f"consent of {donation.party}: it shows fields that the contract does not allow"


def _fields(rows: Json) -> list[str] | None:
    """Sorted names in the ``inputs`` or ``outputs`` of a recipe, or None for no such list."""
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        return None
    return sorted(str(one.get("field")) for one in rows)


def _labels(loss: Json) -> list[str]:
    """The label that a recipe detects, in a list; an empty one where it detects none."""
    return [str(loss["label"])] if isinstance(loss, dict) and "label" in loss else []
