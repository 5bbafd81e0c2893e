# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker run watch`` and ``run pause`` do."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, short
from broker.clock import SystemClock
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.commands import Where
    from broker.remote import OperatorClient
    from policies.ports import Timer

__all__ = ["run_pause", "run_watch"]

_FAILED: Final = 3
_COMPLETED: Final = "completed"
_NEXT: Final = ("the gate decides next: iriai-broker release list",)
_TOLD: Final = ("state", "outcome", "round", "stopping", "paused_ms", "waiting", "rejected", "short")


def run_pause(where: Where, run: str) -> Result:
    """Pauses a run."""
    with where.client() as client:
        done = client.post(f"/operator/runs/{run}/pause", {})
    name = plain(run)
    return Result(
        data=done,
        text=(
            f"run          {name} asks nobody once its open round is closed",
            f"next: iriai-broker run resume {name}, or run stop {name}",
        ),
    )


def run_watch(where: Where, run: str, *, every_s: int, lines: bool, timer: Timer | None = None) -> Result:
    """Follows a run until it is over: a line for each change, or with ``lines`` a JSON object.

    Exit code 0 if every round gave its model, 3 if it ended otherwise.
    """
    timer = SystemClock() if timer is None else timer
    last: dict[str, Any] = {}
    with where.client() as client:
        for last in _changes(client, run, timer, every_s * 1_000):
            at = iso_s(timer.now_ms())
            if lines:
                print(json.dumps({"at": at, **last}, ensure_ascii=False, sort_keys=True), flush=True)  # noqa: T201
            else:
                print(f"{at}  {_words(last)}", file=sys.stderr, flush=True)  # noqa: T201
    done = last["outcome"] == _COMPLETED
    return Result(
        data=last,
        text=(f"over         {plain(last['outcome'])}", *(_NEXT if done else ())),
        exit_code=0 if done else _FAILED,
    )


def _changes(client: OperatorClient, run: str, timer: Timer, pause_ms: int) -> Iterator[dict[str, Any]]:
    """The run each time that something about it is new, the last time when it is over."""
    told: dict[str, Any] | None = None
    while True:
        found = client.get(f"/operator/runs/{run}")
        shown = {name: found.get(name) for name in ("run", *_TOLD)}
        shown["model"] = found.get("model")
        shown["attempts"] = len(found["rounds"])
        if shown != told:
            told = shown
            yield shown
        if found["outcome"] is not None:
            return
        timer.pause_ms(pause_ms)


def _words(one: dict[str, Any]) -> str:
    parts = [f"round {one['round']}", f"attempts {one['attempts']}", plain(one["state"])]
    if one["model"]:
        parts.append(f"model {short(plain(one['model']))}")
    if one["stopping"]:
        parts.append("stopping")
    if one["paused_ms"]:
        parts.append(f"paused since {iso_s(one['paused_ms'])}")
    if one["waiting"]:
        parts.append(f"waits: {plain(one['waiting']['reason'])}")
    if one["rejected"]:
        parts.append(f"{one['rejected']['rounds']} models rejected in a row")
    if one["short"]:
        parts.append(f"short of {plain(', '.join(one['short']['names']))}")
    return ", ".join(parts)
