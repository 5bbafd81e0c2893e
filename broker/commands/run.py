# SPDX-License-Identifier: Apache-2.0
"""What the commands ``iriai-broker run`` do. `broker.cli` imports this module only when one of them runs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, short, table
from broker.commands.contract_names import whole_digest
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.commands import Where

__all__ = ["run_list", "run_open", "run_resume", "run_show", "run_stop"]

_STOPPING: Final = "stopping     an operator ended it; its open round is closed first"
_COUNTS: Final = ("accepted", "unused", "refused", "silent", "unasked")


def run_open(where: Where, *, contract: str, recipe: str) -> Result:
    """Opens a run."""
    with where.client() as client:
        named = {"contract": whole_digest(client, contract), "recipe": recipe}
        done = client.post("/operator/runs", named)
    return Result(
        data=done,
        text=(
            f"run          {plain(done['run'])} of {plain(recipe)}",
            *([f"rounds       {done['rounds_left']} left in the contract"] if "rounds_left" in done else []),
            f"next: iriai-broker run show {plain(done['run'])}",
        ),
        plain_output=str(done["run"]),
    )


def run_list(where: Where) -> Result:
    """Lists runs."""
    with where.client() as client:
        listed = client.get("/operator/runs")["runs"]
    rows = [
        (
            one["run"],
            one["recipe_id"],
            one["state"],
            one["round"],
            one["outcome"] or "-",
            short(one["model"] or "-"),
            _waits_for(one),
        )
        for one in listed
    ]
    head = ("RUN", "RECIPE", "STATE", "ROUND", "OUTCOME", "MODEL", "WAITS FOR")
    return Result(
        data={"runs": listed},
        text=table(head, rows, empty="none yet; iriai-broker run open --contract DIGEST --recipe ID"),
    )


def _waits_for(one: dict[str, Any]) -> str:
    """Who keeps a run waiting, by which code, and until when it waits; or whose node is off."""
    waiting, rejected = one.get("waiting"), one.get("rejected")
    if one.get("stopping"):
        return "its open round, then it is stopped"
    if rejected is not None:
        return f"an operator: {rejected['rounds']} models in a row were rejected"
    if waiting is None:
        return _missing(one.get("short"))
    who = " ".join(f"{party}:{code or '?'}" for party, code in sorted(waiting.get("codes", {}).items()))
    return f"{who} until {iso_s(int(waiting['until_ms']))}".strip()


def _missing(short: Any) -> str:  # noqa: ANN401  a JSON document
    """What a run is short of, and whose nodes are off."""
    if short is None:
        return "-"
    found = f"{short['groups']} of {short['groups_needed']} groups online"
    if short["members"] < short["members_needed"]:
        found += f", {short['members']} of {short['members_needed']} members"
    return f"{', '.join(short['names'])}: {found}"


def run_stop(where: Where, run: str) -> Result:
    """Ends a run."""
    with where.client() as client:
        done = client.post(f"/operator/runs/{run}/stop", {})
    name = plain(run)
    return Result(
        data=done,
        text=(
            f"run          {name} ends once its open round is closed; in a pause, within a minute",
            f"next: iriai-broker run show {name}",
        ),
    )


def run_resume(where: Where, run: str) -> Result:
    """Lets a run go on after rejections."""
    with where.client() as client:
        done = client.post(f"/operator/runs/{run}/resume", {})
    name = plain(run)
    return Result(
        data=done,
        text=(
            f"run          {name} goes on within a minute, from its last accepted model",
            f"next: iriai-broker run show {name}",
        ),
    )


def run_show(where: Where, run: str) -> Result:
    """Shows one run."""
    with where.client() as client:
        found = client.get(f"/operator/runs/{run}")
    rounds = found["rounds"]
    steps = "" if found["plan"] is None else f", {found['steps']} noisy steps"
    rows = [_one_line(equal) for equal in _equal(rounds)]
    text = (
        f"run          {plain(found['run'])}  {plain(found['state'])}  {plain(found['outcome'] or '')}",
        f"recipe       {plain(found['recipe_id'])}  {plain(found['recipe'])}",
        f"contract     {plain(found['contract'])}",
        f"round        {found['round']}{steps}",
        *_why(found["ended"]),
        *([_STOPPING] if found.get("stopping") else []),
        *_waits(found.get("waiting")),
        *_short(found.get("short")),
        *_away(found.get("away", ())),
        *_rejected(found.get("rejected")),
        *_out(found.get("out", ())),
        *_suspects(found.get("suspects", ())),
        *table(("ROUNDS", "ATTEMPT", *map(str.upper, _COUNTS), "MODEL"), rows, empty="no round closed yet"),
    )
    return Result(data=found, text=text)


def _equal(rounds: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Attempts that follow each other and differ in round and model alone, together."""

    def said(one: dict[str, Any]) -> tuple[Any, ...]:
        return (one["attempt"], one["model"] is None, *(one[name] for name in _COUNTS))

    return [list(equal) for _, equal in itertools.groupby(rounds, said)]


def _one_line(equal: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    """Equal attempts as one line, with the model of the last."""
    first, last = equal[0], equal[-1]
    rounds = first["round"] if len(equal) == 1 else f"{first['round']}-{last['round']}"
    return (rounds, last["attempt"], *(last[name] for name in _COUNTS), short(last["model"] or "-"))


def _why(ended: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """Lines about why a run ended before its last round."""
    if ended is None:
        return []
    return [
        f"why          {plain(ended['reason'])}",
        *([f"code         {plain(ended['code'])}"] if ended.get("code") else []),
        *([f"remedy       {plain(ended['remedy'])}"] if ended.get("remedy") else []),
        *(
            f"  {plain(one['clause']):<11}needs {plain(one['check'])} {plain(one['need'])}; "
            f"found {plain(one['found'])}"
            for one in ended["findings"]
        ),
    ]


def _waits(waiting: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """A line about a run that pauses because members said no."""
    if waiting is None:
        return []
    until, ends = (iso_s(int(waiting[name])) for name in ("until_ms", "ends_ms"))
    return [
        f"waiting      until {until}: {plain(waiting['reason'])}",
        f"             it asks again then, and ends if it is refused from {ends} on",
        *([f"remedy       {plain(waiting['remedy'])}"] if "remedy" in waiting else []),
    ]


def _short(short: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """Lines about a run that waits until enough nodes are online."""
    if short is None:
        return []
    return [f"waits for    {plain(_missing(short))}", f"remedy       {plain(short['remedy'])}"]


def _away(members: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """A line about each member whose node is off, or that did not answer when it was asked last."""
    return [
        f"away         {plain(one['name'])} ({plain(one['party'])}) "
        + (f"since {iso_s(int(one['since_ms']))}" if one["since_ms"] else "all along")
        + ("; online, and silent in the newest round" if one["online"] else "; offline")
        for one in members
    ]


def _rejected(rejected: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """Lines about a run that waits for an operator, because silos rejected its models."""
    if rejected is None:
        return []
    return [
        f"rejected     {rejected['rounds']} models in a row; the one of round {rejected['stands']} stands",
        f"remedy       {plain(rejected['remedy'])}",
    ]


def _suspects(parties: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """A line about members that stood in every team that was left out of a model."""
    if not parties:
        return []
    return [
        f"suspects     {' '.join(map(plain, parties))}: in every team that was left out; ask their owners"
    ]


def _out(members: Any) -> list[str]:  # noqa: ANN401  a JSON document
    """Lines about members that are asked for no further round of a run."""
    return [
        f"out          {plain(one['party'] or one['node'])}: {plain(one['kind'])} in round {one['round']}; "
        f"evidence {plain(one['evidence'])}"
        for one in members
    ]
