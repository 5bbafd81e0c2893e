# SPDX-License-Identifier: Apache-2.0
"""What is known of a candidate before one votes: who judged it, what the tests for leaks found, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer, short
from client.errors import DigestMismatchError, NoSuchThingError, PeerAnswerError
from policies.encoding import digest, parse
from policies.errors import EncodingError
from policies.privacy.leakage import CANARIES, MEMBERSHIP, SAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.membership import Member

__all__ = ["release_report"]

Json = Any


def release_report(member: Member, candidate: str) -> Answer:
    """The evaluation report of a candidate, checked against its digest.

    Raises:
        NoSuchThingError: No such candidate, or it was not evaluated yet.
        DigestMismatchError: The broker sent another report.
        PeerAnswerError: It is no report.
    """
    answer = member.client.get("/candidates")
    rows = answer.get("candidates", []) if isinstance(answer, dict) else []
    row = next((one for one in rows if isinstance(one, dict) and one.get("candidate") == candidate), None)
    if row is None or not isinstance(row.get("report"), str):
        raise NoSuchThingError(
            need="a candidate that was evaluated",
            found=short(candidate),
            remedy="iriai-node release list shows candidates",
        )
    data = member.client.get_bytes(f"/reports/{row['report']}")
    if digest(data) != row["report"]:
        raise DigestMismatchError(
            need=row["report"], found="another report", remedy="ask again; tell the others if it repeats"
        )
    try:
        report = parse(data)
        text = tuple(_words(report))
    except (EncodingError, KeyError, TypeError, AttributeError) as error:
        raise PeerAnswerError(
            need="an evaluation report", found=type(error).__name__, remedy="compare both versions"
        ) from error
    return Answer(data={"report": report, "digest": row["report"]}, text=text)


def _words(report: dict[str, Json]) -> Iterator[str]:
    groups = "enough" if report["passed"] else "too few"
    yield f"judged by   {len(report['evaluations'])} parties ({groups} groups)"
    leaks = report.get("leaks")
    if leaks is None:
        yield "canaries    none: the contract asks for no report on them"
    else:
        yield from _leaks(leaks)
    for name, one in sorted(report.get("audits", {}).items()):
        yield from _audits(name, one)


def _leaks(leaks: dict[str, Json]) -> Iterator[str]:
    yield f"canaries    {leaks['canaries']} of {len(leaks['parties'])} parties, {leaks['trained']} trained on"
    if leaks["missing"]:
        yield f"            {len(leaks['missing'])} parties revealed none: {leaks['code']}"
    if leaks["auc"] is not None:
        area = leaks["auc"]
        bound = f"at most {leaks['auc_max']}"
        yield f"membership  AUC {area['value']}, 95 % from {area['low']} ({bound}) to {area['high']}"
        yield f"            highest lower end of each party and of all but one: {leaks['auc_worst']}"
        yield f"            {leaks['tpr_at_1_percent_fpr']} true at 1 % false ones"
        yield f"one run     epsilon at least {leaks['epsilon_low']}, claimed {leaks['claim'] or 'nothing'}"
    for name in leaks["untrained"]:
        yield f"            {name} did not train on the canaries that it committed to: {leaks['code']}"
    verdicts = ", ".join(f"{name} {_VERDICT[leaks['passed'][name]]}" for name in (CANARIES, MEMBERSHIP))
    yield f"verdict     {verdicts}"
    yield SAYS


_VERDICT = {True: "passed", False: "FAILED"}


def _audits(name: str, audits: dict[str, Json]) -> Iterator[str]:
    conformance, mix = audits["conformance"], audits["property"]
    if conformance is not None:
        yield (
            f"conformance {name}: mu {conformance['mu']}, expected {conformance['mu_expected']},"
            f" epsilon at least {conformance['eps_low']}: {conformance['verdict']}"
        )
    if mix is not None:
        yield f"mix         {name}: skill {mix['skill']}: {mix['verdict']}"
