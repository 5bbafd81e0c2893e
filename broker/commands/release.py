# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker release`` does: candidates and releases, what the gate tested, what is not its to do.

The gate opens by itself, once the votes and the clauses allow it. A vote is a party's: the broker has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, table
from broker.errors import BrokerError, UsageError
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.commands import Where
    from broker.remote import OperatorClient

__all__ = ["NotOursError", "refuse", "release_gate", "release_show"]

_SHORTEST: Final = 12
_WHY: Final = {
    "approve": (
        "the vote of a party whose contract asks for it",
        "the party votes at its own node: iriai-node release approve CANDIDATE",
    ),
    "veto": (
        "the veto of a party whose contract gives it one",
        "the party vetoes at its own node: iriai-node release veto CANDIDATE",
    ),
    "publish": (
        "votes and evidence that open the gate, which then releases by itself",
        "iriai-broker release gate CANDIDATE shows what is missing, and who may vote",
    ),
    "withdraw": (
        "a release that can be taken back",
        "who fetched it has it: iriai-broker contract halt stops more deliveries, the parties agree on more",
    ),
}


class NotOursError(BrokerError):
    """A release is decided by the parties and by their contract, never by the broker."""

    code = "release.not-ours"
    exit_code = 4


def refuse(what: str) -> Result:
    """Says why an operator cannot do this, and who can."""
    need, remedy = _WHY[what]
    raise NotOursError(need=need, found="an operator of the broker", remedy=remedy)


def release_show(where: Where, name: str) -> Result:
    """Shows a candidate, or a released model."""
    with where.client() as client:
        candidate, released = _found(client, name)
    lines = [] if candidate is None else _candidate(candidate)
    rows = [(one["tier"], one["recipe_id"], iso_s(one["at_ms"]), one["statement"] or "-") for one in released]
    if rows:
        lines += table(("TIER", "RECIPE", "RELEASED", "STATEMENT"), rows, empty="")
    return Result(data={"candidate": candidate, "releases": released}, text=tuple(lines))


def release_gate(where: Where, name: str) -> Result:
    """Shows what the gate tested of a candidate, with its evidence, and what it waits for."""
    with where.client() as client:
        candidate, _ = _found(client, name)
        if candidate is None:
            raise UsageError(
                need="a candidate", found="a released model", remedy="iriai-broker release list names both"
            )
        report = None
        if candidate["report"] is not None:
            report = client.get(f"/reports/{candidate['report']}")
    tests = _tests(report)
    rows = [(one["test"], one["result"], one["evidence"]) for one in tests]
    return Result(
        data={"candidate": candidate, "tests": tests, "report": report},
        text=(
            *_candidate(candidate),
            *table(("TEST", "RESULT", "EVIDENCE"), rows, empty="nothing was tested yet: the run is judged"),
        ),
    )


def _found(client: OperatorClient, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The candidate and the releases of a model, by its digest or the first 12 digits."""
    wanted = name.removeprefix("sha256:")

    def fits(digest: str) -> bool:
        return digest.removeprefix("sha256:").startswith(wanted)

    waiting = [one for one in client.get("/candidates")["candidates"] if fits(one["candidate"])]
    released = [one for one in client.get("/releases")["releases"] if fits(one["model"])]
    models = {one["candidate"] for one in waiting} | {one["model"] for one in released}
    if len(wanted) < _SHORTEST or len(models) != 1:
        raise UsageError(
            need=f"one candidate or model, by its digest or its first {_SHORTEST} digits",
            found=f"{len(models)}" if len(wanted) >= _SHORTEST else ascii(name)[1:-1][:40],
            remedy="iriai-broker release list names them",
        )
    return (waiting[0] if waiting else None), released


def _candidate(one: dict[str, Any]) -> list[str]:
    votes = ", ".join(f"{plain(party)} {plain(said)}" for party, said in sorted((one["votes"] or {}).items()))
    lines = [
        f"candidate    {plain(one['candidate'])}  {plain(one['state'])}",
        f"run          {plain(one['run'])} of {plain(one['contract'])}",
        f"votes        {votes or 'none yet'}",
    ]
    lines += [f"refused by   {plain(clause)}" for clause in one["refused_by"]]
    lines += [f"waits for    {_need(need)}" for need in one.get("waits_for") or ()]
    if one.get("opens_ms") is not None:
        lines.append(f"opens        at {iso_s(one['opens_ms'])} at the earliest")
    return lines


def _need(need: Any) -> str:  # noqa: ANN401  a JSON document
    if not isinstance(need, dict):
        return plain(need)
    words = (need.get(name) for name in ("clause", "check", "need", "found"))
    return " ".join(plain(word) for word in words if word is not None)


def _tests(report: Any) -> list[dict[str, Any]]:  # noqa: ANN401  a JSON document
    """Every part of a report that is a test, with its result and its evidence on one line."""
    if not isinstance(report, dict):
        return []
    found = []
    for name, value in sorted(report.items()):
        if isinstance(value, dict):
            result = next((value[key] for key in ("verdict", "outcome", "result") if key in value), "-")
            shown = {key: one for key, one in value.items() if not isinstance(one, dict | list)}
            evidence = ", ".join(f"{key} {one}" for key, one in sorted(shown.items()))
            found.append({"test": name, "result": str(result), "evidence": evidence or "-"})
        elif not isinstance(value, list):
            found.append({"test": name, "result": str(value), "evidence": "-"})
    return found
