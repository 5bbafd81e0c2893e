# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker catalogue`` does: searches the data sets that members describe, and exports them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from broker.answers import Result, plain, table
from broker.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from broker.commands import Where

__all__ = ["asked", "export", "search", "show"]


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
    ended = found.get("withdrawn", [])
    notes += [f"withdrawn: {plain(one['dataset'])} of {plain(one['org'])}, by its owner" for one in ended]
    data = {"datasets": listed, "unverified": bad, "withdrawn": ended}
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


def show(where: Where, name: str) -> Result:
    """Shows one data set.

    Raises:
        UsageError: None of that name, or several owners have one.
    """
    org, _, dataset = name.rpartition("/")
    with where.client() as client:
        listed = client.get("/catalogue")["datasets"]
    found = [
        one for one in listed if one["dataset"] == dataset and org in {"", one["org"], one["legal_name"]}
    ]
    if len(found) != 1:
        raise UsageError(
            need="one data set, as NAME or ORG/NAME",
            found=f"{len(found)} of that name",
            remedy="iriai-broker catalogue list shows them",
        )
    one = found[0]
    lines = [
        f"{part:<18} {plain(', '.join(map(str, value)) if isinstance(value, list) else value)}"
        for part, value in sorted(one["view"].items())
    ]
    certificate = "in force" if one["certified"] else "none in force"
    text = (f"data set           {plain(one['dataset'])} of {plain(one['legal_name'])}", *lines)
    return Result(data=one, text=(*text, f"certificate        {certificate}"))


def export(where: Where, out: Path) -> Result:
    """Writes the catalogue as DCAT."""
    with where.client() as client:
        found = client.get("/catalogue/dcat")
    out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    count = len(found["dcat:dataset"])
    return Result(data={"file": str(out), "datasets": count}, text=(f"{count} data sets in {out}",))
