# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker catalogue`` does: searches the data sets that members describe, and exports them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from broker.answers import Result, plain, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from broker.commands import Where

__all__ = ["asked", "export", "search"]


def asked(
    embodiment: str | None, task: str | None, episodes: str | None, field: str | None, *, certified: bool
) -> dict[str, str]:
    """The query of a search."""
    named = {"embodiment_class": embodiment, "task": task, "episodes": episodes, "field": field}
    found = {name: value for name, value in named.items() if value is not None}
    return found | ({"certified": "true"} if certified else {})


def search(where: Where, query: Mapping[str, str]) -> Result:
    """Lists data sets."""
    with where.client() as client:
        found = client.get(f"/catalogue?{urlencode(query)}" if query else "/catalogue")
    listed, bad = found["datasets"], found.get("unverified", [])
    head = ("ORGANISATION", "DATA SET", "CLASS", "TASKS", "EPISODES", "FIELDS", "CERTIFICATE")
    rows = [(plain(one["legal_name"]), plain(one["dataset"]), *_words(one)) for one in listed]
    empty = "no such data set; members publish theirs with iriai-node data add"
    notes = [
        f"left out: {plain(one['dataset'])} of {plain(one['org'])}, whose descriptor does not verify; let its"
        " owner publish it again (iriai-node data publish)"
        for one in bad
    ]
    data = {"datasets": listed, "unverified": bad}
    return Result(data=data, text=(*table(head, rows, empty=empty), *notes))


def _words(row: Mapping[str, Any]) -> tuple[str, ...]:
    view = row["view"]
    return (
        view["embodiment_class"],
        ", ".join(view["tasks"]) or "-",
        view["episodes"],
        ", ".join(view["fields"]),
        view["quality"][7:19] if row["certified"] else "none in force",
    )


def export(where: Where, out: Path) -> Result:
    """Writes the catalogue as DCAT."""
    with where.client() as client:
        found = client.get("/catalogue/dcat")
    out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    count = len(found["dcat:dataset"])
    return Result(data={"file": str(out), "datasets": count}, text=(f"{count} data sets in {out}",))
