# SPDX-License-Identifier: Apache-2.0
"""What helps against a member's refusal, by its code: words for operators, who ask the member's owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["remedy_of"]

_OF: Final = (
    ("budget.exhausted", "a new contract with a larger cap, or a cheaper plan: this data's budget is spent"),
    ("budget.unknown", "its owner restores the newest copy of budget/, then: iriai-node budget reconcile"),
    ("budget.diverged", "its owner: iriai-node budget reconcile; what that says goes to the auditor"),
    ("budget.", "its owner: iriai-node budget show"),
    ("data.dataset-unknown", "its owner imports the data set of the recipe: iriai-node data add"),
    ("data.", "its owner: iriai-node data show; then import again with iriai-node data add"),
    ("local.refused", "its owner's own rules: iriai-node guard explain RUN there; a pause ends by resume"),
    ("privacy.audit-failed", "its owner: iriai-node privacy audit; an update of the node, if it fails"),
    ("privacy.", "the plan does not fit that node: iriai-node guard explain RUN there"),
    ("node.not-found", "its owner: iriai-node contract show, which fetches contract and recipe"),
    ("contract.not-begun", "wait until the contract's term begins; if it has begun: that node's clock"),
    ("contract.halted", "every contributor resumes; iriai-broker contract status says who halted"),
    ("secagg.key-not-pinned", "its node has another key than the contract pins: amend the contract with it"),
    ("secagg.", "nothing, if the next round passes; else compare contract and versions of node and broker"),
    ("log.unwitnessed", "bring the witnesses back: iriai-broker status says who was heard last"),
    ("log.equivocation", "its owner and you compare checkpoints: iriai-verify compare-checkpoints"),
    ("outbox.", "nothing: its oldest envelopes go out first"),
)
_ANY: Final = "its owner: iriai-node guard explain RUN"


def remedy_of(codes: Iterable[str], run: str) -> str:
    """What to do about refusals with these codes in a run, each remedy once."""
    found = dict.fromkeys(_one(code).replace("RUN", run) for code in sorted(set(codes)))
    return "; ".join(found)


def _one(code: str) -> str:
    return next((words for start, words in _OF if code.startswith(start)), _ANY)
