# SPDX-License-Identifier: Apache-2.0
"""Step 3, second half: rules about entries as such."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.log.entries import EntryType
from policies.verify.ledger import CODES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_entries"]

_T = EntryType
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SUBMISSION = frozenset({_T.SUBMISSION_RECEIVED})
_VERDICTS = frozenset({_T.CONTRIBUTION_ACCEPTED, _T.CONTRIBUTION_REFUSED, _T.CONTRIBUTION_WITHDRAWN})
_EVIDENCE = frozenset(
    {
        _T.CANDIDATE_EVALUATED,
        _T.EVALUATION_RECEIVED,
        _T.VOTE_CAST,
        _T.DECISION_RECORDED,
        _T.AGGREGATE_RELEASED,
        _T.MODEL_RELEASED,
    }
)
_ROUND = _SUBMISSION | _VERDICTS | {_T.ROUND_OPENED, _T.DECISION_RECORDED, _T.EPSILON_SPENT}
REFS: Mapping[EntryType, frozenset[EntryType]] = {
    _T.CONTRIBUTION_ACCEPTED: _SUBMISSION | {_T.DECISION_RECORDED},
    _T.CONTRIBUTION_REFUSED: _SUBMISSION | {_T.DECISION_RECORDED},
    _T.CONTRIBUTION_WITHDRAWN: _SUBMISSION,
    _T.AGGREGATE_RELEASED: _ROUND,
    _T.ROUND_CLOSED: _ROUND | {_T.AGGREGATE_RELEASED},
    _T.ROUND_OPENED: frozenset({_T.RUN_OPENED, _T.DECISION_RECORDED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED}),
    _T.ROUND_JUDGED: frozenset({_T.ROUND_VOTED, _T.AGGREGATE_RELEASED}),
    _T.ROUND_CHOSEN: frozenset({_T.ROUND_SCORED}),
    _T.SUM_WITHDRAWN: frozenset({_T.AGGREGATE_RELEASED}),
    _T.RUN_OPENED: frozenset({_T.CONTRACT_FINALIZED, _T.DECISION_RECORDED}),
    _T.RUN_CLOSED: frozenset({_T.RUN_OPENED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED}),
    _T.CANDIDATE_EVALUATED: _EVIDENCE,
    _T.MODEL_RELEASED: _EVIDENCE,
    _T.MODEL_REFUSED: _EVIDENCE,
    _T.MODEL_EXPORTED: _EVIDENCE,
    _T.CONTRACT_FINALIZED: frozenset({_T.CONTRACT_SIGNED, _T.CONTRACT_PROPOSED}),
}
"""Types that an entry of a type may refer to; a type that is not here may refer to any."""


def check_entries(history: History, report: Report) -> None:
    """AUD-033 (the policy), AUD-036 and AUD-090; what needs one entry alone is done by the scan."""
    frozen: int | None = None
    latest: int | None = None
    code = CODES[_T.LOG_FROZEN]
    for index, (own, minute) in history.ledger.columns("code", "minute"):
        if frozen is not None:
            report.add("AUD-036", f"the log was frozen at {frozen}", index=index)
        if own == code:
            frozen = index
        if latest is None or minute >= latest:
            latest = minute
        else:
            report.add("AUD-090", f"{_minute(minute)} after {_minute(latest)}", index=index)
    _check_policy(history, report)


def _minute(minutes: int) -> str:
    return (_EPOCH + dt.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:00Z")


def _check_policy(history: History, report: Report) -> None:
    """AUD-033: the policy in the bundle is one that the log names, in its genesis or since."""
    genesis = history.entries.get(0)
    first = genesis.pub.get("policy") if genesis is not None else None
    since = {entry.pub["digest"] for _, entry in history.of(_T.POLICY_ACTIVATED)}
    found = digest(history.files["policy"])
    if found not in since | {first}:
        report.add("AUD-033", f"the log does not name policy {found}; genesis names {first}", index=0)
