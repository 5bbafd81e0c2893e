# SPDX-License-Identifier: Apache-2.0
"""What the commands about incidents do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Result, plain, table

if TYPE_CHECKING:
    from broker.commands import Where

__all__ = ["incident_close", "incident_list"]


def incident_list(where: Where) -> Result:
    """Lists incidents, the open ones first."""
    with where.client() as client:
        listed = client.every("/operator/incidents", "incidents")
    listed = sorted(listed, key=lambda one: (one["closed"] is not None, one["index"]))
    rows = [
        (
            str(one["index"]),
            "open" if one["closed"] is None else f"closed by {one['closed']}",
            one["kind"],
            one["run"] or "-",
            one["at"],
            one["evidence"],
        )
        for one in listed
    ]
    head = ("ENTRY", "STATE", "KIND", "RUN", "AT", "EVIDENCE")
    return Result(data={"incidents": listed}, text=table(head, rows, empty="no incident was declared"))


def incident_close(where: Where, index: int, *, reason: str) -> Result:
    """Closes an incident."""
    with where.client() as client:
        done = client.post(f"/operator/incidents/{index}/close", {"reason": reason})
    return Result(data=done, text=(f"{plain(done['kind'])}: closed by entry {done['closed']}",))
