# SPDX-License-Identifier: Apache-2.0
"""What the commands about organisations do, beyond listing and approving them: stop, let in again, end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Result, plain
from broker.commands.proposals import proposed
from broker.errors import UsageError
from policies.identity import fingerprint, parse_key
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.commands import Where

__all__ = ["org_remove", "org_restore", "org_show", "org_suspend"]


def org_show(where: Where, org: str) -> Result:
    """Shows one organisation.

    Raises:
        UsageError: There is none.
    """
    with where.client() as client:
        listed = client.get("/operator/organisations")["organisations"]
    found = next((one for one in listed if one["org"] == org), None)
    if found is None:
        raise UsageError(
            need="an organisation that joined", found=plain(org), remedy="iriai-broker org list shows them"
        )
    seen = iso_s(found["seen_ms"]) if found.get("seen_ms") else "not since the broker started"
    return Result(
        data=found,
        text=(
            f"organisation  {plain(found['legal_name'])} ({plain(found['country'])})",
            f"id            {plain(found['org'])}, group {plain(found['group'])}",
            f"state         {plain(found['state'])} since {iso_s(found['since_ms'])}",
            f"node          {plain(found['node'])}, {'online' if found.get('online') else 'not online'}",
            f"last seen     {seen}",
            f"node key      {plain(found['node_key'])}",
            f"fingerprint   {fingerprint(parse_key(found['node_key']))}",
            f"approved by   {plain(', '.join(found['approved_by'])) or 'nobody yet'}",
        ),
    )


def org_suspend(where: Where, org: str, *, reason: str) -> Result:
    """Stops an organisation at once."""
    with where.client() as client:
        done = client.post(f"/operator/organisations/{org}/suspend", {"reason": reason})
    return Result(
        data=done,
        text=(
            f"{plain(org)}: {plain(done['state'])}; its node is put out, its keys stay, it witnesses on",
            "next: iriai-broker org restore, or iriai-broker org remove; either takes a second person",
        ),
    )


def org_restore(where: Where, org: str, *, reason: str) -> Result:
    """Proposes to let a suspended organisation in again."""
    with where.client() as client:
        return proposed(client.post(f"/operator/organisations/{org}/restore", {"reason": reason}))


def org_remove(where: Where, org: str, *, reason: str, left: bool = False) -> Result:
    """Proposes the end of a membership."""
    with where.client() as client:
        body = {"reason": reason, "left": left}
        return proposed(client.post(f"/operator/organisations/{org}/revoke", body))
