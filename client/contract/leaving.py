# SPDX-License-Identifier: Apache-2.0
"""What follows if this party leaves a contract, in sentences that each name their clause; and what it gets.

Only what the contract and its life say is promised. Models keep what they learned: privacy bounds the
leaver's influence, and nothing takes it out again.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from policies.contract.lifecycle import remaining
from policies.ports import from_ms, to_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.contract.shelf import Held
    from client.settings import Home
    from policies.contract import Contract
    from policies.contract.lifecycle import Life

__all__ = ["consequences", "consequences_for", "gets"]

_UNRELEASED = {
    "retrain": "they are refused at the release gate; the others may train anew without your data",
    "discard": "they are discarded and never released",
}


def consequences(
    contract: Contract, life: Life, party: str, choice: str, now: str
) -> Iterator[tuple[str, str]]:
    """Clause and sentence of everything that follows.

    Args:
        contract: That is left.
        life: Its life now.
        party: Who leaves.
        choice: ``retrain`` or ``discard``.
        now: Time of the notice.
    """
    own, leaves = contract.party(party), contract.exit
    yield (
        leaves.clause,
        "no round after this notice asks for your data, and your word on votes and resumes ends",
    )
    until = from_ms(to_ms(now)) + dt.timedelta(days=leaves.notice_days)
    yield leaves.clause, f"your duties run on until {until:%Y-%m-%dT%H:%M:%SZ} ({leaves.notice_days} days)"
    yield leaves.clause, "models that are released stay with those who have them, with you as well"
    yield leaves.clause, f"models that are not released and hold your updates: {_UNRELEASED[choice]}"
    yield (
        leaves.clause,
        "models keep what they learned from your data, within the privacy bounds; that is not undone",
    )
    own_caps = [one.clause for one in contract.privacy.per_party if one.party == party]
    for clause in (contract.privacy.clause, *own_caps):
        yield clause, "privacy budget that was spent or reserved stays spent"
    others = [name for name in remaining(contract, life) if name != party]
    groups, needed = len(contract.groups(others)), contract.aggregation.min_parties
    if groups < needed:
        yield (
            contract.aggregation.clause,
            f"the contract ends for everybody: {groups} groups remain, {needed} are needed",
        )
    else:
        yield contract.aggregation.clause, f"the contract goes on with {groups} groups; {needed} are needed"
    if own is not None:
        yield (
            own.clause,
            "you remain a party for what was agreed beyond the term, and may read the contract's log",
        )


def consequences_for(contract: Contract, life: Life, absent: str, choice: str) -> Iterator[tuple[str, str]]:
    """Clause and sentence of what follows if an absent contributor is asked out by all the others."""
    leaves, others = contract.exit, [name for name in remaining(contract, life) if name != absent]
    yield leaves.clause, f"{absent} leaves once each of {', '.join(others)} said so; nobody takes it back"
    yield leaves.clause, "its halts stay in force until those who remain resume; its word is not waited for"
    yield leaves.clause, f"models that are not released and hold its updates: {_UNRELEASED[choice]}"
    groups, needed = len(contract.groups(others)), contract.aggregation.min_parties
    if groups < needed:
        yield (
            contract.aggregation.clause,
            f"the contract ends for everybody: {groups} groups remain, {needed} are needed",
        )


def gets(home: Home, held: Held) -> tuple[str, ...]:
    """What the leaver keeps or fetches, as lines with the command of each."""
    folder, digest = home.contracts / held.contract.digest.removeprefix("sha256:"), held.contract.digest
    return (
        f"  the contract, its signatures and all notices: {folder}",
        f"  what left this site: iriai-node outbox list --dir {home.root}",
        f"  proofs that the log holds it: iriai-node receipt export --out FOLDER --dir {home.root}",
        f"  what was spent: iriai-node budget show --dir {home.root}",
        f"  models that were released to you: iriai-node models list --dir {home.root}",
        f"  the contract in words: iriai-node contract show {digest} --dir {home.root}",
        "  the whole log for an auditor: ask the operators for iriai-broker audit bundle",
    )
