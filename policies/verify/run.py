# SPDX-License-Identifier: Apache-2.0
"""The audit itself: the ten steps of `policies.verify`, in order, over the file of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.verify.access import check_access, check_disclosed
from policies.verify.acks import check_acks, check_resets, finish_acks
from policies.verify.approvals import check_approvals
from policies.verify.budgets import check_budgets, check_plans
from policies.verify.checkpoints import check_checkpoints, check_receipts, check_since
from policies.verify.consents import check_consents
from policies.verify.contracts import check_contracts, check_runs
from policies.verify.contradictions import SignedNotes
from policies.verify.decisions import check_decisions, finish_decisions
from policies.verify.exports import check_exports
from policies.verify.incidents import check_incidents
from policies.verify.judgements import check_judgements
from policies.verify.keyring import keyring_of
from policies.verify.leaks import check_leaks
from policies.verify.lives import check_halts, check_lives, read_lives
from policies.verify.members import check_aliases, check_chains, check_envelopes, check_ids
from policies.verify.parallel import in_order
from policies.verify.payments import check_payments
from policies.verify.possession import check_possession
from policies.verify.reading import Unreadable, read_history
from policies.verify.recount import Tables
from policies.verify.releases import check_releases, finish_releases
from policies.verify.report import Report
from policies.verify.rounds import check_rounds, check_updates, finish_rounds
from policies.verify.settlements import check_settlements
from policies.verify.since import check_concluded
from policies.verify.stamps import check_stamps
from policies.verify.statements import check_statements
from policies.verify.steps import check_steps
from policies.verify.successions import check_successions
from policies.verify.sums import check_sums, finish_sums
from policies.verify.times import check_as_of, check_times
from policies.verify.tree_rules import check_entries
from policies.verify.withdrawals import check_withdrawals
from policies.verify.witnesses import (
    check_absence,
    check_quorum,
    check_trust,
    most_votes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from policies.log.policy import Policy
    from policies.verify.history import History

__all__ = ["audit", "verify"]

_BATCH = 2_048  # entries that are worth a task of their own


def audit(
    history: History,
    receipts: Mapping[str, str],
    report: Report,
    *,
    models: Mapping[str, bytes],
    vectors: Mapping[str, bytes | memoryview],
    since: str | None = None,
    as_of_ms: int | None = None,
    jobs: int = 1,
) -> None:
    """Steps 3 (second half) to 10 over a history that was read."""
    check_entries(history, report)  # 3.
    check_ids(history, report)
    note = history.files["checkpoint"].decode("utf-8")  # 4.; it was read before
    signed = SignedNotes(history, report)
    check_quorum(history, note, report)
    cosigned = check_checkpoints(history, signed, report)
    history.cosigned = most_votes(history.policy, cosigned)
    check_since(history, since, signed, report)
    check_receipts(history, receipts, signed, report)
    signed.close()
    check_absence(history, cosigned, report, as_of_ms=as_of_ms)
    check_times(history, cosigned, report)
    check_stamps(history.files.container.names("timestamps/"), report)
    read_lives(history, report)  # 5. before 6.: which keys are in force follows from notices
    check_envelopes(history, keyring_of(history), report)  # 6. before 5.: who signed follows from envelopes
    check_contracts(history, report)  # 5.
    check_lives(history, report)
    check_successions(history, report)
    check_consents(history, report)
    check_approvals(history, report)
    check_trust(history, note, report)
    check_statements(history, report)
    check_possession(history, note, cosigned, report)
    check_chains(history, report)  # 6.
    check_aliases(history, report)
    check_resets(history, report)
    check_disclosed(history, report)
    check_access(history, report)
    check_concluded(history, since, report)
    _audit_runs(history, report, models=models, vectors=vectors, jobs=jobs)  # 5. to 10. in runs
    check_updates(history, report)
    check_budgets(history, report)  # 9.
    check_settlements(history, report)  # 10.
    check_incidents(history, report)
    report.facts["grade"] = history.grade


def _audit_runs(
    history: History,
    report: Report,
    *,
    models: Mapping[str, bytes],
    vectors: Mapping[str, bytes | memoryview],
    jobs: int,
) -> None:
    """Rules about what happens in a run: one run after the other, several at a time with more jobs."""
    history.prepare()
    tables = Tables(history)

    def audited(runs: Sequence[str | None]) -> Report:
        part = Report(grade=history.grade)
        for run in runs:
            _audit_run(history.view(run), tables, part, models=models, vectors=vectors)
        return part

    for part in in_order(audited, history.ledger.batches(_BATCH), jobs):
        report.take(part)
    finish_rounds(report)
    finish_sums(history, report, vectors)
    finish_acks(report)
    finish_decisions(report)
    finish_releases(history, report)
    report.facts |= {name: report.tallies[name] for name in ("rejected_rounds", "withdrawn")}


def _audit_run(
    view: History,
    tables: Tables,
    report: Report,
    *,
    models: Mapping[str, bytes],
    vectors: Mapping[str, bytes | memoryview],
) -> None:
    check_halts(view, report)  # 5.
    check_runs(view, report)
    check_rounds(view, report)  # 7.
    check_sums(view, report, vectors, models)
    check_judgements(view, report)
    check_withdrawals(view, report)
    check_acks(view, report)
    check_decisions(view, tables, report)  # 8.
    check_plans(view, report)  # 9.
    check_payments(view, report)
    check_steps(view, report)
    check_releases(view, report)  # 10.
    check_leaks(view, report, models)
    check_exports(view, report)


def verify(
    data: bytes | Path,
    policy: Policy,
    *,
    receipts: Mapping[str, str] | None = None,
    grade: str = "auditor",
    models: Mapping[str, bytes] | None = None,
    vectors: Mapping[str, bytes | memoryview] | None = None,
    then: Callable[[History], None] | None = None,
    since: str | None = None,
    as_of_ms: int | None = None,
    jobs: int = 1,
) -> Report:
    """Audits a bundle.

    Args:
        data: The bundle's bytes, or the path of its file: then it is never whole in memory.
        policy: The auditor's own, from `policies.log.policy.parse_policy`.
        receipts: The auditor's own receipts: text by file name.
        grade: ``auditor``; ``member`` looks at one member's view, and its verdict is never that of an audit.
        models: Bytes of models that the auditor has, by digest: scores of their leak reports are recomputed;
            what opened sums make of a start model is too.
        vectors: Masked vectors that the auditor has, by digest: sums over them are redone.
        then: Called with the audited history, if it could be read: for reports and tables.
        since: The note that the audit before this one concluded about, or any other that must be a prefix.
        as_of_ms: When the auditor looks: how old the newest quorum may be is counted from there.
        jobs: Processes that work at the same time.

    Returns:
        Findings, verdict, and what was not checked. Whatever the bytes are, this returns.

    Raises:
        InputError: ``as_of_ms`` lies before what the bundle shows: nobody can have looked at it then.
        OSError: The file cannot be read, or there is no room for temporary files.
    """
    report = Report(grade=grade)
    try:
        history = read_history(data, policy, report, grade=grade, jobs=jobs)
    except Unreadable:
        return report
    check_as_of(history, history.files["checkpoint"].decode("utf-8"), as_of_ms)
    audit(
        history,
        receipts or {},
        report,
        models=models or {},
        vectors=vectors or {},
        since=since,
        as_of_ms=as_of_ms,
        jobs=jobs,
    )
    if history.files.source.changed():
        report.add("AUD-001", "the file was written to while it was read")
    if then is not None:
        then(history)
    return report
