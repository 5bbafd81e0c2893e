# SPDX-License-Identifier: Apache-2.0
"""AUD-058: each successor follows its contract, and entered as its kind asks.

1. the contract that it follows was final, in force and not superseded before; the entry's scope is it;
2. both are in the bundle; the successor has the same id, the next version, and names the other's digest;
3. it was final (AUD-050) before it took effect, a ``change`` by the signatures of everybody;
4. ``tighten``: signed by the initiator and the broker; the verdict that the entry names is in the bundle, is
   about these two, and is found again here. What rests on a proof needs the prover: without it the report
   says that the proof itself was not checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.amendment import recheck
from policies.contract.amendment.entitlements import entitlements_kept
from policies.contract.amendment.succession import check_succession
from policies.contract.amendment.verdict import read_verdict
from policies.contract.entering import TIGHTEN, who_signed
from policies.contract.errors import ProofMissingError
from policies.errors import IriaiError
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_successions"]


def check_successions(history: History, report: Report) -> None:
    """Every `contract.amended`, in order."""
    for index, entry in history.of(EntryType.CONTRACT_AMENDED):
        _check_predecessor(history, index, entry, report)  # 1.
        old, new = (history.contracts.get(entry.pub[name]) for name in ("old", "new"))
        if old is None or new is None:
            report.add("AUD-058", "a contract of it is not in the bundle", index=index)
            continue
        try:  # 2.
            check_succession(old, new)
        except IriaiError as error:
            report.add("AUD-058", f"needs {error.need}; found {error.found}", index=index)
        if history.life_before(new.digest, index) is None:  # 3.
            report.add("AUD-058", "a successor that was not final before it took effect", index=index)
        if entry.ts[:16] < new.term.effective[:16]:
            report.add(
                "AUD-058", f"in effect at {entry.ts}, its term begins {new.term.effective}", index=index
            )
        if entry.pub["kind"] == TIGHTEN:
            _check_tighten(history, index, entry, old, new, report=report)  # 4.
    report.facts["successions"] = sum(1 for _ in history.of(EntryType.CONTRACT_AMENDED))


def _check_predecessor(history: History, index: int, entry: Entry, report: Report) -> None:
    before = history.life_before(entry.pub["old"], index)
    if entry.scope != entry.pub["old"]:
        report.add("AUD-058", "its scope is not the contract that it supersedes", index=index)
    if before is None:
        report.add("AUD-058", "it supersedes a contract that is not final", index=index)
    elif before.superseded_by is not None:
        report.add("AUD-058", f"superseded before, by {before.superseded_by}", index=index)
    elif before.terminated is not None:
        report.add("AUD-058", f"ended before, by {before.terminated.clause}", index=index)


def _check_tighten(
    history: History, index: int, entry: Entry, old: Contract, new: Contract, *, report: Report
) -> None:
    """Signatures first: who started it is who signed, and the verdict says so too."""
    named = entry.pub["proof"]
    data = None if named is None else history.files.get(f"statements/{named.removeprefix('sha256:')}.json")
    if data is None:
        report.add("AUD-058", "no verdict in the bundle that it is no looser", index=index)
        return
    try:
        tree = read_verdict(data)
        if (tree["kind"], tree["no_looser"], tree["old"], tree["new"]) != (
            TIGHTEN,
            True,
            old.digest,
            new.digest,
        ):
            report.add(
                "AUD-058", "the verdict is about something else, or does not call it no looser", index=index
            )
            return
        _check_signers(history, index, old, new, tree["initiator"], report=report)
        if not recheck(old, new, data).no_looser:
            report.add("AUD-058", "looked at again, it is looser", index=index)
    except ProofMissingError:
        _check_without_prover(index, old, new, tree["initiator"], report)
    except IriaiError as error:
        report.add("AUD-058", f"verdict: {error.code}: needs {error.need}; found {error.found}", index=index)


def _check_without_prover(
    index: int, old: Contract, new: Contract, initiator: str | None, report: Report
) -> None:
    """What can be seen without z3: nobody else loses an entitlement."""
    for one in entitlements_kept(old, new, initiator):
        report.add("AUD-058", f"{one.clause} {one.words}", index=index)
    report.not_checked(
        f"AUD-058: the proof itself behind the tightening at {index}: it needs the prover (extra prove)"
    )


def _check_signers(
    history: History, index: int, old: Contract, new: Contract, initiator: str | None, *, report: Report
) -> None:
    envelope, life = history.signatures.get(new.digest), history.life_before(old.digest, index)
    rotated = {} if life is None else life.rotated
    signed = set() if envelope is None else set(who_signed(old, new, envelope, rotated))
    by_whom = old.party(initiator)
    if by_whom is None or by_whom.role != "contributor":
        report.add("AUD-058", "nobody who may tighten started it", index=index)
    missing = {new.broker.party, initiator or new.broker.party} - signed
    if missing:
        report.add("AUD-058", "not signed by " + " ".join(sorted(missing)), index=index)
