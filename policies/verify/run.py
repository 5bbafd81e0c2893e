# SPDX-License-Identifier: Apache-2.0
"""The audit itself: the ten steps of `policies.verify`, in order, over bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.verify.budgets import check_budgets
from policies.verify.consents import check_consents
from policies.verify.contracts import check_contracts, check_runs
from policies.verify.decisions import check_decisions
from policies.verify.judgements import check_judgements
from policies.verify.leaks import check_leaks
from policies.verify.lives import check_lives, read_lives
from policies.verify.members import check_aliases, check_chains, check_disclosed, check_envelopes
from policies.verify.payments import check_payments
from policies.verify.reading import Unreadable, read_history
from policies.verify.releases import check_releases
from policies.verify.report import Report
from policies.verify.rounds import check_rounds
from policies.verify.steps import check_steps
from policies.verify.successions import check_successions
from policies.verify.sums import check_sums
from policies.verify.tree_rules import check_checkpoints, check_entries, check_receipts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.checkpoint import Policy
    from policies.verify.history import History

__all__ = ["audit", "verify"]


def audit(
    history: History,
    receipts: Mapping[str, str],
    report: Report,
    *,
    models: Mapping[str, bytes],
    vectors: Mapping[str, bytes | memoryview],
) -> None:
    """Steps 3 (second half) to 10 over a history that was read."""
    check_entries(history, report)  # 3.
    check_checkpoints(history, report)  # 4.
    check_receipts(history, receipts, report)
    read_lives(history, report)  # 5. before 6.: which keys are in force follows from notices
    check_envelopes(history, report)  # 6. before the rest of 5.: who signed follows from envelopes
    check_contracts(history, report)  # 5.
    check_lives(history, report)
    check_successions(history, report)
    check_runs(history, report)
    check_consents(history, report)
    check_chains(history, report)  # 6.
    check_aliases(history, report)
    check_disclosed(history, report)
    check_rounds(history, report)  # 7.
    check_sums(history, report, vectors, models)
    check_judgements(history, report)
    check_decisions(history, report)  # 8.
    check_budgets(history, report)  # 9.
    check_payments(history, report)
    check_steps(history, report)
    check_releases(history, report)  # 10.
    check_leaks(history, report, models)
    if history.policy.witnesses:
        report.not_checked("cosignatures of " + " ".join(history.policy.witnesses))
    report.facts["grade"] = history.grade


def verify(
    data: bytes,
    policy: Policy,
    *,
    receipts: Mapping[str, str] | None = None,
    grade: str = "auditor",
    models: Mapping[str, bytes] | None = None,
    vectors: Mapping[str, bytes | memoryview] | None = None,
) -> Report:
    """Audits a bundle.

    Args:
        data: The bundle's bytes.
        policy: The auditor's own, from `policies.log.checkpoint.parse_policy`.
        receipts: The auditor's own receipts: text by file name.
        grade: ``auditor``; ``member`` looks at one member's view, and its verdict is never that of an audit.
        models: Bytes of models that the auditor has, by digest: scores of their leak reports are recomputed;
            what opened sums make of a start model is too.
        vectors: Masked vectors that the auditor has, by digest: sums over them are redone.

    Returns:
        Findings, verdict, and what was not checked. Whatever the bytes are, this returns.
    """
    report = Report(grade=grade)
    try:
        history = read_history(data, policy, report, grade=grade)
    except Unreadable:
        return report
    audit(history, receipts or {}, report, models=models or {}, vectors=vectors or {})
    return report
