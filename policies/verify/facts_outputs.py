# SPDX-License-Identifier: Apache-2.0
"""Facts of what goes out (`Release`, `Deliver`, `Query`), compared with the log: names of those that differ.

Times are compared to the second where the exact time is disclosed, else to the minute that stands in clear.
What only other members' entries could show is left alone in a member's bundle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.contract.requests import PUBLIC
from policies.limits import WITNESS_CLOCK_S
from policies.log.entries import EntryType
from policies.ports import iso_s, to_ms
from policies.privacy.leakage import LeakFacts, leak_facts
from policies.verify.documents import find_report

if TYPE_CHECKING:
    from policies.contract.requests import Deliver, Query, Release
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["deliver_facts", "ms_of", "origin_facts", "query_facts", "recipe_facts", "release_facts"]

Json = Any
_T = EntryType
# Figures that only the report of the last evaluation can give.
_REPORTED: Final = ("mia_auc", "property_skill", "canaries_fired")
_MINUTE_S: Final = 60  # ``ts`` shows the minute
# The release names the one, the checkpoint is the other.
_ALWAYS: Final = frozenset({"privacy-statement", "log-root"})


def ms_of(text: str) -> int:
    """Milliseconds of a time; one that is none is from the future."""
    try:
        return to_ms(text)
    except ValueError:
        return 2**60


def recipe_facts(history: History, run: str | None, said: str | None) -> list[str]:
    """The recipe is the one that the run was opened for."""
    recipe = history.recipe_of(run)
    return [] if recipe is None or said is None or said == recipe else ["recipe_digest"]


def origin_facts(history: History, said: str | None) -> list[str]:
    """The log is this one."""
    return [] if said in (None, history.checkpoint.origin) else ["log_origin"]


def release_facts(history: History, index: int, entry: Entry, request: Release) -> list[str]:
    """Evidence, figures, votes, times and cohorts of a candidate."""
    wrong = origin_facts(history, request.log_origin)
    wrong += [] if _made(history, index, entry.run, request.made_at) else ["made_at"]
    wrong += _witness_facts(history, index, entry, request.witnesses)
    passed = _passed(history, index, entry, request.model)
    if request.evidence is not None and set(request.evidence) - passed - _ALWAYS:
        wrong.append("evidence")
    figures = _figures(history, index, entry, request)
    wrong += [name for name in _REPORTED if getattr(request, name) not in (None, getattr(figures, name))]
    if history.grade != "auditor":
        return wrong
    if request.validation is not None and dict(request.validation) != _accepted(
        history, index, entry, request.model
    ):
        wrong.append("validation")
    said = request.earlier_cohorts
    if said is not None and {frozenset(one) for one in said} != _earlier(history, index, entry, request):
        wrong.append("earlier_cohorts")
    return wrong


def _witness_facts(history: History, index: int, entry: Entry, said: int | None) -> list[str]:
    """So many voters of the auditor's policy had cosigned a checkpoint by then.

    What the log says of witnesses vouches for nobody. Only what a figure has beyond the quorum may come from
    witnesses that the log had and the policy has not: AUD-084 names each of them. A policy without witnesses
    has nothing to compare.
    """
    policy = history.policy
    by_s = to_ms(entry.ts) // 1000 + _MINUTE_S + WITNESS_CLOCK_S
    votes = max(
        (count for size, at_s, count in history.cosigned if size <= index and at_s <= by_s), default=0
    )
    if said is None or said <= votes:
        return []
    mine = {key.text() for key in policy.witnesses.values()}
    added = (one.pub["vkey"] for at, one in history.of(_T.WITNESS_ADDED) if at < index)
    surplus = votes + len(set(added) - mine)
    contract = history.contracts.get(entry.scope or "")
    audit = None if contract is None else contract.audit
    asked = max(policy.k, 0 if audit is None else audit.witness_quorum) if policy.n else 0
    return [] if votes >= asked and said <= surplus else ["witnesses"]


def _evaluated(history: History, index: int, entry: Entry, model: str | None) -> Entry | None:
    """The last evaluation of a candidate before an entry."""
    found = None
    for at, one in history.of(_T.CANDIDATE_EVALUATED):
        if at < index and (one.run, one.pub["candidate"]) == (entry.run, model):
            found = one
    return found


def _passed(history: History, index: int, entry: Entry, model: str | None) -> set[str]:
    """Names of evidence that the last evaluation of a candidate passed."""
    last = _evaluated(history, index, entry, model)
    return set() if last is None else {name for name, one in last.pub["checks"].items() if one == "pass"}


def _figures(history: History, index: int, entry: Entry, request: Release) -> LeakFacts:
    """What the report of the last evaluation says of leaks; nothing where it does not say it."""
    last = _evaluated(history, index, entry, request.model)
    report, contract = (
        None if last is None else find_report(history, last),
        history.contracts[entry.scope or ""],
    )
    recipe = history.recipes.get(history.recipe_of(entry.run) or "", {})
    try:
        return leak_facts(
            report or {},
            fields=[one["field"] for one in recipe.get("inputs", ())],
            secrets=[field for one in contract.fields.trade_secret for field in one.fields],
        )
    except (KeyError, TypeError, AttributeError, ValueError):  # AUD-078 has the form
        return LeakFacts(mia_auc=None, property_skill=None, canaries_fired=None)


def _accepted(history: History, index: int, entry: Entry, model: str | None) -> dict[str, bool]:
    """Who judged a candidate on its own held-out episodes, and whether its last vote approves."""
    heard = {
        history.sender_party(at)
        for at, one in history.of(_T.EVALUATION_RECEIVED)
        if at < index and (one.run, one.pub["candidate"]) == (entry.run, model)
    }
    votes: dict[str, bool] = {}
    for at, one in history.of(_T.VOTE_CAST):
        party = history.sender_party(at)
        if at < index and (one.run, one.pub["subject"]) == (entry.run, model) and party in heard and party:
            votes[party] = one.pub["vote"] == "approve"
    return votes


def _earlier(history: History, index: int, entry: Entry, request: Release) -> set[frozenset[str]]:
    """Cohorts of what was released before under this recipe, in all versions of the contract."""
    scopes = history.versions(entry.scope)
    return {
        frozenset(history.trained(one.run, before=at))
        for at, one in history.releases()
        if at < index
        and one.scope in scopes
        and one.pub["model"] != request.model
        and history.recipe_of(one.run) == request.recipe_digest
    }


def _made(history: History, index: int, run: str | None, said: str | None) -> bool:
    """Whether a run's last aggregate was made at this time."""
    if said is None:
        return True
    aggregates = history.shown(run).of(_T.AGGREGATE_RELEASED)
    last = max((at for at, one in aggregates if at < index and one.run == run), default=None)
    return last is not None and _at(history, last, said)


def _at(history: History, index: int, said: str) -> bool:
    """Whether an entry is of this time."""
    exact = history.opened.get(index, {}).get("at")
    if isinstance(exact, str):
        return iso_s(ms_of(exact)) == said
    return history.entries[index].ts[:16] == said[:16]


def deliver_facts(history: History, index: int, entry: Entry, request: Deliver) -> list[str]:
    """Release, times and recipient of a download."""
    scopes = history.versions(entry.scope)
    releases = [
        (at, one)
        for at, one in history.releases()
        if at < index and one.scope in scopes and one.pub["model"] == request.model
    ]
    tier = [at for at, one in releases if one.pub["tier"] == request.tier]
    wrong = []
    if request.released is not None and request.released != bool(tier):
        wrong.append("released")
    if request.released_at is not None and not (tier and _at(history, tier[0], request.released_at)):
        wrong.append("released_at")
    run = releases[0][1].run if releases else None
    if request.made_at is not None and releases and not _made(history, index, run, request.made_at):
        wrong.append("made_at")
    if releases:
        wrong += recipe_facts(history, run, request.recipe_digest)
    wrong += _recipient(history, entry, request)
    # nothing in the log of this version says what a share is
    return wrong + (["contribution_share"] if request.contribution_share is not None else [])


def _recipient(history: History, entry: Entry, request: Deliver) -> list[str]:
    contract = history.contracts[entry.scope or ""]
    clause, wrong = contract.party(request.party), []
    if request.party == PUBLIC and request.country is not None:
        wrong.append("country")
    if clause is not None and request.country not in (None, clause.country):
        wrong.append("country")
    if request.attestation not in (None, "none"):
        notice = history.attested.get(contract.digest, {}).get(str(request.attestation))
        if notice is None or (notice.kind, notice.party) != ("attest", request.party):
            wrong.append("attestation")
    return wrong


def query_facts(history: History, index: int, entry: Entry, request: Query) -> list[str]:
    """Subject and time of a view."""
    wrong = []
    if request.subject not in (None, "all", request.party):
        wrong.append("subject")
    if entry.run is None:
        return [*wrong, "run"]  # every view is one of a run: without it nothing can be compared
    if history.grade != "auditor":
        return wrong
    if request.made_at is not None and not _closed_at(history, index, entry.run, request.made_at):
        wrong.append("made_at")
    return wrong


def _closed_at(history: History, index: int, run: str, said: str) -> bool:
    """Whether a round of a run was closed, or the run opened, at this time."""
    kinds = (_T.RUN_OPENED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED, _T.CANDIDATE_EVALUATED)
    return any(at < index and one.run == run and _at(history, at, said) for at, one in history.of(*kinds))
