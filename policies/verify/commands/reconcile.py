# SPDX-License-Identifier: Apache-2.0
"""``reconcile``: a bundle is audited, then the broker's tables are laid beside it.

The report is that of ``verify``, with the findings about rows (AUD-110 to AUD-114) among the others; exit
codes are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.verify.commands.answers import answer, say
from policies.verify.commands.audit import refusal
from policies.verify.commands.inputs import read_bundle, read_policy
from policies.verify.reconcile import reconcile
from policies.verify.rows import open_database, open_rows
from policies.verify.run import verify

if TYPE_CHECKING:
    import argparse

    from policies.verify.history import History

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Runs ``reconcile``."""
    kept: list[History] = []
    source = open_database(options.db) if options.rows is None else open_rows(options.rows)
    with source as rows:
        report = verify(read_bundle(options.bundle), read_policy(options.policy), then=kept.append)
        for history in kept:
            reconcile(history, rows, report)
    say(*report.lines(options.lang))
    if options.json:
        answer(report.to_json(), refusal(report))
    return report.exit_code
