# SPDX-License-Identifier: Apache-2.0
"""Rules about terms that this version cannot keep (`policies.contract.lint` says what a rule is).

Such a contract is safe and useless: a fact that nobody can state is unknown, and unknown refuses. The finding
says beforehand what would be refused: every round, every average, every release or every delivery. It is a
warning, because parties may sign today what a later version runs.
"""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract.lint.rows import names, warning
from policies.contract.registry import EVIDENCE_MADE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import Contract

__all__ = ["NOT_MADE"]


def _adjacency(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.privacy
    if clause.adjacency == "add-remove":
        yield clause.clause, clause.adjacency


def _evidence(contract: Contract) -> Iterator[tuple[str, str]]:
    missing = [one for one in contract.release.evidence if one not in EVIDENCE_MADE]
    if missing:
        yield contract.release.clause, names(missing)


def _contribution(contract: Contract) -> Iterator[tuple[str, str]]:
    for clause in contract.tiers:
        if clause.min_contribution is not None:
            yield clause.clause, clause.min_contribution


def _ml_dsa(contract: Contract) -> Iterator[tuple[str, str]]:
    clause = contract.audit
    if clause is not None and clause.ml_dsa == "require":
        yield clause.clause, clause.ml_dsa


NOT_MADE: Final = (
    warning(
        "adjacency-not-made",
        _adjacency,
        ("adjacency: zero-out, in this version", "この版では adjacency: zero-out"),
        (
            "write zero-out: size buckets are public, so no plan hides sizes; every round would be refused",
            "zero-out とする。規模は区分で公表され、それを隠す計画はないため、すべてのラウンドが拒否される",
        ),
    ),
    warning(
        "evidence-not-made",
        _evidence,
        (
            "only evidence that this version makes: " + names(sorted(EVIDENCE_MADE)),
            "この版が作る証拠資料のみ：" + names(sorted(EVIDENCE_MADE)),
        ),
        (
            "leave the named evidence out: every release would be refused",
            "挙げた証拠資料を外す。さもなければ公開はすべて拒否される",
        ),
    ),
    warning(
        "contribution-not-made",
        _contribution,
        ("no min_contribution, in this version", "この版では min_contribution を定めないこと"),
        (
            "leave it out: no share is computed, so every delivery of the tier would be refused",
            "定めない。寄与割合が計算されないため、この区分の引渡しはすべて拒否される",
        ),
    ),
    warning(
        "ml-dsa-not-made",
        _ml_dsa,
        ("ml_dsa: accept or off, in this version", "この版では ml_dsa: accept または off"),
        (
            "write accept: no checkpoint carries such a signature yet",
            "accept とする。その署名を持つチェックポイントはまだない",
        ),
    ),
)
