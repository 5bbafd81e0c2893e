# SPDX-License-Identifier: Apache-2.0
"""The privacy statements that are here: one for each pulled model, with its verdict; nothing is asked.

The verdict is the one that was checked when the model was pulled; `statement show` checks it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from policies.ports import iso_s

if TYPE_CHECKING:
    from pathlib import Path

    from client.settings import Home

__all__ = ["statement_list"]


def statement_list(home: Home) -> Answer:
    """Statements of the models that are here, the newest pull first; a damaged file says so."""
    try:
        folders = [one for one in home.models.iterdir() if not one.name.startswith("individual-")]
    except OSError:
        folders = []
    rows = [_row(one) for one in folders if (one / "model.json").is_file()]
    rows.sort(key=lambda one: -(one["pulled_ms"] or 0))
    if not rows:
        return Answer(
            data={"statements": []}, text=("none yet: iriai-node models pull MODEL brings one along",)
        )
    lines = table(("model", "verdict", "tier", "pulled", "statement"), [_line(one) for one in rows])
    return Answer(data={"statements": rows}, text=lines)


def _row(folder: Path) -> dict[str, Any]:
    names = ("tier", "contract", "run", "statement", "verdict", "pulled_ms")
    model = f"sha256:{folder.name}"
    try:
        facts = json.loads((folder / "model.json").read_bytes())
        return {"model": model, **{name: facts.get(name) for name in names}, "readable": True}
    except (ValueError, AttributeError, OSError):
        return {"model": model, **dict.fromkeys(names), "readable": False}


def _line(one: dict[str, Any]) -> tuple[object, ...]:
    if not one["readable"]:
        return (short(one["model"]), "UNREADABLE: pull the model again", "-", "-", "-")
    pulled = "-" if one["pulled_ms"] is None else iso_s(one["pulled_ms"])
    return (short(one["model"]), one["verdict"], one["tier"], pulled, short(str(one["statement"])))
