# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker dsp`` does: connectors of dataspaces that may talk to this broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Result, plain, table

if TYPE_CHECKING:
    from broker.commands import Where

__all__ = ["counterparty_add", "counterparty_list", "counterparty_remove"]

_ROOM = "/operator/dsp/counterparties"


def counterparty_add(
    where: Where, name: str, *, callback: str, participant: str | None, org: str | None
) -> Result:
    """Registers a connector; the token is shown once."""
    asked = {"name": name, "callback": callback, "participant": participant, "org": org}
    with where.client() as client:
        made = client.post(_ROOM, asked)
    return Result(
        data=made,
        text=(
            f"connector    {plain(made['name'])} as {plain(made['participant'])}",
            f"is told at   {plain(made['callback'])}, nowhere else",
            f"speaks for   {plain(made['org'] or 'nobody: open tiers only')}",
            "Hand over this token; it is stored nowhere, and a former one has ended:",
        ),
        plain_output=str(made["token"]),
    )


def counterparty_list(where: Where) -> Result:
    """Lists connectors."""
    with where.client() as client:
        listed = client.get(_ROOM)["counterparties"]
    rows = [
        (one["name"], one["state"], one["participant"], one["callback"], one["org"] or "-") for one in listed
    ]
    head = ("NAME", "STATE", "PARTICIPANT", "CALLBACK", "SPEAKS FOR")
    empty = "none yet; iriai-broker dsp counterparty add NAME --callback URL --key FILE"
    return Result(data={"counterparties": listed}, text=table(head, rows, empty=empty))


def counterparty_remove(where: Where, name: str) -> Result:
    """Ends a connector's token."""
    with where.client() as client:
        done = client.post(f"{_ROOM}/{name}/remove", {})
    return Result(data=done, text=(f"{plain(name)}: its token is refused from now on; what it agreed stays",))
