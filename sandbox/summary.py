# SPDX-License-Identifier: Apache-2.0
"""The report as a table on a terminal: party by party, where pooling helped and where it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.claims import rests_on
from sandbox.report import losses
from sandbox.scores import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["summary"]


def summary(report: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the table, the claim and the verdict of the log."""
    success = report["success"]
    yield f"{'success':10}" + "".join(f"{column.replace('_', ' '):>19}" for column in COLUMNS)
    for party in report["parties"]:
        yield f"{party:10}" + "".join(_cell(success[column]["per_party"][party]) for column in COLUMNS)
    yield f"{'all':10}" + "".join(_cell(success[column]) for column in COLUMNS)
    worse = {party: words for party, words in losses(success).items() if words}
    for party, words in worse.items():
        yield f"pooling lost at {party}: {words}"
    if not worse:
        yield "pooling lost nowhere"
    privacy, log = report["privacy"], report["log"]
    if privacy["private"]:
        claim = f"epsilon {privacy['epsilon']}, delta {privacy['delta']}, per {privacy['unit']}"
        yield f"privacy    {claim}; noise {privacy['noise']}"
        if rests_on(privacy):
            yield f"           {rests_on(privacy)}"
    else:
        yield "privacy    NOT PRIVATE"
    if report["sums"]["secure_aggregation"]:
        sums = report["sums"]
        over = "" if sums["members"] == "0" else f", each over {sums['members']} makers"
        yield f"sums       {sums['opened']} opened by secure aggregation{over}, and no maker's update"
        yield f"           {sums['redone']} of them redone by the auditor from the masked vectors"
    yield f"contract   {report['contract_digest']}"
    yield f"log        {log['origin']} size {log['size']} {'verified' if log['verified'] else 'NOT VERIFIED'}"
    yield f"           {log['summary']}"
    if log["witnesses"]["contribution_to_quorum_ms"] is not None:
        witnesses = log["witnesses"]
        late_s = witnesses["contribution_to_quorum_ms"] / 1000
        needed = f"{witnesses['k']} of {witnesses['n']} needed"
        yield f"witnesses  {needed}; cosigned {late_s:.2f} s after a contribution"
    loop = report["loop"]
    acted = (
        f"{loop['successes']} of {loop['attempts']} attempts of {loop['party']}'s model in its cell succeeded"
    )
    yield f"loop       {acted}; {loop['episodes_added']} came back as data"
    yield f"auditor    {log['page']}, bundle.zip, policy.txt"
    yield f"time       {report['timings']['total']} s"


def _cell(rate: Mapping[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{rate['mean']:>7.0%} [{low:.0%}, {high:.0%}]".rjust(19)
