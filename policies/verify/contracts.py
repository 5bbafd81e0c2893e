# SPDX-License-Identifier: Apache-2.0
"""Step 5: contracts are signed by everybody and in force; runs and rounds keep to them.

A successor that only tightens is signed by its initiator and the broker (`policies.verify.successions`).
Until a successor takes effect, nothing happens under it but what its parties say about it. A run goes on
under the successor of its contract from the next round on; a round keeps the digest that it opened with, and
so do its entries.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from policies.contract.entering import TIGHTEN, is_executed, who_signed
from policies.contract.signatures import executed
from policies.encoding import digest
from policies.errors import IriaiError
from policies.identity import key_id, key_text, parse_key
from policies.log.entries import EntryType
from policies.verify.ledger import CODES, KINDS, SCOPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_contracts", "check_runs", "is_tightening", "kinds_of_amendments"]

_IN_RUN = frozenset(
    {
        EntryType.RUN_CLOSED,
        EntryType.ROUND_OPENED,
        EntryType.ROUND_CLOSED,
        EntryType.SUBMISSION_RECEIVED,
        EntryType.CONTRIBUTION_ACCEPTED,
        EntryType.CONTRIBUTION_REFUSED,
        EntryType.AGGREGATE_RELEASED,
    }
)


def check_contracts(history: History, report: Report) -> None:
    """AUD-050 for every contract that was finalized, and for every contract that something happened under."""
    if not history.policy.contracts:
        report.remarks.append("contract keys were taken from the bundle, not from your policy")
    finalized = {entry.pub["contract"]: index for index, entry in history.of(EntryType.CONTRACT_FINALIZED)}
    amended = kinds_of_amendments(history)
    for named, index in finalized.items():
        waits = named not in amended and _waits(history, named)
        if waits:
            report.not_checked(f"AUD-058: the tightening {named}: it has not taken effect")
        alone = waits or TIGHTEN in amended.get(named, ())
        _check_finalized(history, named, index, report, alone=alone)
    for pinned in history.policy.contracts:
        if pinned not in finalized:
            report.not_checked(f"contract {pinned} of your policy: it is not finalized in this log")
    ruling = _ruling_from(history, finalized)
    for index, entry in history.of(EntryType.RUN_OPENED):
        if ruling.get(entry.pub["contract"], index) >= index:
            report.add("AUD-050", "the run's contract was not finalized before", index=index)
    for named in sorted(set(history.signatures) - set(history.contracts)):
        report.add("AUD-050", f"signatures without a contract: {named}")
    _check_scopes(history, finalized, ruling, report)
    report.facts["contracts"] = sorted(finalized)


def _ruling_from(history: History, finalized: Mapping[str, int]) -> dict[str, int]:
    """From which entry on each contract rules: it is final, and a successor has taken effect."""
    effect = {entry.pub["new"]: index for index, entry in history.of(EntryType.CONTRACT_AMENDED)}
    found = {}
    for named, index in finalized.items():
        contract = history.contracts.get(named)
        if contract is None or contract.supersedes is None:
            found[named] = index
        elif named in effect:
            found[named] = effect[named]
    return found


def kinds_of_amendments(history: History) -> dict[str, set[str]]:
    """Kinds under which successors took effect, by their digests."""
    found: dict[str, set[str]] = defaultdict(set)
    for _, entry in history.of(EntryType.CONTRACT_AMENDED):
        found[entry.pub["new"]].add(entry.pub["kind"])
    return dict(found)


def is_tightening(history: History, named: str, amended: Mapping[str, set[str]]) -> bool:
    """Whether the log says so of a successor, or will once it takes effect; `check_successions` proves it.

    Args:
        history: Of the bundle.
        named: Digest of the successor.
        amended: From `kinds_of_amendments`.
    """
    return TIGHTEN in amended[named] if named in amended else _waits(history, named)


def _waits(history: History, named: str) -> bool:
    """Whether this, which no entry lets take effect, is a tightening: then the log names no proof of it."""
    contract, envelope = history.contracts.get(named), history.signatures.get(named)
    old = None if contract is None else history.contracts.get(contract.supersedes or "")
    if contract is None or envelope is None or old is None or is_executed(contract, envelope):
        return False
    life = history.life_before(old.digest, history.size)
    signed = set(who_signed(old, contract, envelope, {} if life is None else life.rotated))
    return contract.broker.party in signed and bool(signed & {one.party for one in old.contributors})


_BEFORE_IT = frozenset(
    {
        EntryType.CONTRACT_PROPOSED,
        EntryType.CONTRACT_SIGNED,
        EntryType.CONTRACT_FINALIZED,
        EntryType.CONTRACT_TERMINATED,  # a negotiation that ended without a contract
        EntryType.DECISION_RECORDED,  # it may well refuse because the contract is not final
        EntryType.INCIDENT_DECLARED,
    }
)
_ABOUT_IT = frozenset(
    {
        EntryType.CONTRACT_HALTED,
        EntryType.CONTRACT_RESUMED,
        EntryType.CONTRACT_EXITED,
        EntryType.CONTRACT_EXPIRED,
        EntryType.KEY_ROTATED,
    }
)


def _check_scopes(
    history: History, finalized: Mapping[str, int], ruling: Mapping[str, int], report: Report
) -> None:
    """Nothing but offers, signatures and their end happens under a contract that is not final.

    Under a successor that has not taken effect, only what its parties say about it.
    """
    about = {CODES[kind] for kind in _ABOUT_IT}
    free = {CODES[kind] for kind in _BEFORE_IT}
    final = {bytes.fromhex(named[7:]): index for named, index in finalized.items()}
    rules = {bytes.fromhex(named[7:]): index for named, index in ruling.items()}
    for index, (code, flags, scope) in history.ledger.columns("code", "flags", "scope"):
        if not flags & SCOPED or code in free:
            continue
        since = final if code in about else rules
        if since.get(scope, index) >= index:
            kind = KINDS[code - 1]
            report.add("AUD-050", f"{kind} under a contract that is not final", index=index)


def _check_finalized(history: History, named: str, index: int, report: Report, *, alone: bool) -> None:
    """1. there and pinned; 2. broker's key; 3. all signatures; 4. the signatures logged; 5. in time.

    Args:
        history: Of the bundle.
        named: Digest of the contract.
        index: Of its `contract.finalized`.
        report: Gets the findings.
        alone: Whether it entered as a tightening, which not everybody signs.
    """
    contract, envelope = history.contracts.get(named), history.signatures.get(named)
    entry = history.entries[index]
    if contract is None or envelope is None:  # 1.
        report.add("AUD-050", f"contract {named} or its signatures are not in the bundle", index=index)
        return
    if history.policy.contracts and named not in history.policy.contracts:
        report.add("AUD-050", f"contract {named} is not in your policy", index=index)
    if contract.broker.key != key_text(history.policy.broker):  # 2.
        report.add("AUD-050", "the contract names another broker key than your policy", index=index)
    try:  # 3.
        if not alone:
            executed(contract, envelope)
    except IriaiError as error:
        report.add("AUD-050", f"{error.code}: needs {error.need}; found {error.found}", index=index)
    life = history.life_before(contract.supersedes, index)
    keys = [one.key for one in contract.parties] + list(() if life is None else life.rotated.values())
    known = {key_id(parse_key(one)) for one in keys}
    if [hint for hint, _ in envelope.signatures if hint not in known]:
        report.add("AUD-050", "a signature by nobody that the contract names", index=index)
    if digest(envelope.to_bytes()) != entry.pub["signatures"]:  # 4.
        report.add("AUD-050", "the logged signatures are others", index=index)
    _check_prose(contract, entry, index, report)
    if not alone:
        _check_signers(history, contract, index, report)
    if entry.ts[:16] > contract.sign_by[:16]:  # 5.; the entry shows the minute only
        report.add("AUD-050", f"final at {entry.ts}, sign_by {contract.sign_by}", index=index)


def _check_prose(contract: Contract, entry: Entry, index: int, report: Report) -> None:
    """The text for people that the log names is the one that the contract binds."""
    if entry.pub["prose"] != (None if contract.prose is None else f"sha256:{contract.prose.sha256}"):
        report.add("AUD-050", "the logged text for people is another", index=index)


def _check_signers(history: History, contract: Contract, index: int, report: Report) -> None:
    """Every contributor has a `contract.signed` before the contract is final."""
    signed = {
        history.sender_party(at)
        for at, entry in history.of(EntryType.CONTRACT_SIGNED)
        if at < index and entry.pub["contract"] == contract.digest == entry.scope
    }
    missing = [one.party for one in contract.contributors if one.party not in signed]
    if missing and history.grade == "auditor":
        report.add("AUD-050", "no contract.signed of " + " ".join(missing), index=index)


def check_runs(history: History, report: Report) -> None:
    """AUD-051: runs, rounds and their entries keep contract and recipe; AUD-050: rounds open in the term."""
    for index, entry in history.of(EntryType.RUN_OPENED):
        contract = history.contracts.get(entry.pub["contract"])
        recipe = entry.pub["recipe"]
        if entry.scope != entry.pub["contract"]:
            report.add("AUD-051", "scope is not the run's contract", index=index)
        if contract is not None and contract.recipe(recipe) is None:
            report.add("AUD-051", "the contract does not list the recipe", index=index)
        if recipe not in history.recipes:
            report.add("AUD-051", f"recipe {recipe} is not in the bundle", index=index)
    for index, entry in history.of(*_IN_RUN):
        _check_in_run(history, index, entry, report)


def _check_in_run(history: History, index: int, entry: Entry, report: Report) -> None:
    opened = history.run_opened(entry.run)
    if opened is None:
        report.add("AUD-051", f"run {entry.run} was never opened", index=index)
        return
    chain = history.successors(opened.scope or "", before=index)
    if entry.scope not in chain:
        report.add("AUD-051", "another contract than the run's, or its successors", index=index)
    elif entry.type is EntryType.ROUND_OPENED:
        _check_opened(history, index, entry, opened, chain, report=report)
    elif entry.round is not None and entry.scope not in (history.scopes_of(entry.run, entry.round) or chain):
        report.add("AUD-051", "another contract than its round's", index=index)


def _check_opened(
    history: History, index: int, entry: Entry, opened: Entry, chain: tuple[str, ...], *, report: Report
) -> None:
    """A round opens under the contract in force, for the run's recipe, within the term."""
    if entry.scope != chain[-1]:
        report.add("AUD-051", f"a round under a contract that {chain[-1]} superseded", index=index)
    if entry.pub["recipe"] != opened.pub["recipe"]:
        report.add("AUD-051", "another recipe than the run's", index=index)
    contract = history.contracts.get(entry.scope or "")
    if contract is None:
        return
    if entry.scope != opened.scope and contract.recipe(entry.pub["recipe"]) is None:
        report.add("AUD-051", "the successor does not list the round's recipe", index=index)
    if not contract.term.effective[:16] <= entry.ts[:16] <= contract.term.expires[:16]:
        report.add("AUD-050", f"{entry.ts} is outside the contract's term", index=index)
