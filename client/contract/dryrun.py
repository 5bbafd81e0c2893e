# SPDX-License-Identifier: Apache-2.0
"""Dry run at home: what a proposal would have said about the training rounds that this node was asked for.

The decisions of this node's own gate stay here; nobody else can try a proposal on them. Compared is what the
*contract* said: a round that only a rule of this site refused was allowed by it. Nothing is written, and no
broker is asked.

    dry_run_at_home(outbox, shelf, text)         dp-2: would have refused rounds 12, 40 · 3 cannot tell
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer
from client.errors import NoSuchThingError
from policies.contract import load
from policies.contract.dryrun import RecordedRequest, dry_run
from policies.encoding import parse, unb64
from policies.limits import DRY_RUN_RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import ContractShelf
    from client.outbox import Outbox
    from client.outbox.rows import Decided
    from policies.contract import Contract

__all__ = ["dry_run_at_home"]


def dry_run_at_home(outbox: Outbox, shelf: ContractShelf, text: str, *, against: str | None = None) -> Answer:
    """Tries a proposal on the decisions that this node's gate made.

    Args:
        outbox: Keeps the decisions.
        shelf: Keeps the contracts.
        text: The proposal, YAML or canonical JSON.
        against: Digest of the contract whose records are meant; every version of the proposal's contract id
            if None.

    Raises:
        ContractError: The proposal does not load.
    """
    proposal = load(text)
    rows = [one for one in outbox.left.decisions(limit=DRY_RUN_RECORDS) if "request" in one.document]
    known = dict(_contracts(shelf, {one.contract for one in rows}))
    meant = [one for one in rows if _is_meant(one, known.get(one.contract), proposal, against)]
    found = dry_run(proposal, (_record(one) for one in meant), contracts=known)
    return Answer(data=found.to_json(), text=found.lines)


def _contracts(shelf: ContractShelf, digests: set[str]) -> Iterator[tuple[str, Contract]]:
    for name in sorted(digests):
        try:
            yield name, shelf.get(name).contract
        except NoSuchThingError:
            continue  # the record is judged as it stands


def _is_meant(one: Decided, earlier: Contract | None, proposal: Contract, against: str | None) -> bool:
    if against is not None:
        return one.contract == against
    return earlier is not None and earlier.contract_id == proposal.contract_id


def _record(one: Decided) -> RecordedRequest:
    """What the contract said, without the rules of this site."""
    record: dict[str, Any] = parse(unb64(one.document["record"]))
    refused = {two["clause"] for two in record["findings"] if two["outcome"] != "satisfied"}
    return RecordedRequest(
        contract=one.contract,
        request=one.document["request"],
        state=one.document["state"],
        allowed=record["allow"],
        clauses=tuple(sorted(refused)),
        run=one.run,
        round=one.round,
    )
