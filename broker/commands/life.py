# SPDX-License-Identifier: Apache-2.0
"""What the commands about contracts in force do: where one stands, and the broker's own halt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, short, table
from broker.commands.comparing import contract_of
from broker.commands.contract_names import whole_digest
from broker.errors import BrokerError

if TYPE_CHECKING:
    from broker.commands import Where

__all__ = ["ResumeNotOursError", "contract_halt", "contract_lifecycle", "contract_resume"]


def contract_lifecycle(where: Where, name: str) -> Result:
    """Where a contract stands, and every notice about it."""
    with where.client() as client:
        found = client.get(f"/contracts/{whole_digest(client, name)}/lifecycle")
    return Result(data=found, text=_shown(found))


def contract_halt(where: Where, name: str, *, code: str, clause: str | None, text: str | None) -> Result:
    """Stops a contract by a notice that the broker signs."""
    with where.client() as client:
        digest = whole_digest(client, name)
        body = {"code": code, "clause": clause, "text": text}
        done = client.post(f"/operator/contracts/{digest}/halt", body)
        life = client.get(f"/contracts/{digest}/lifecycle")
    return Result(data=done, text=_shown(life), plain_output=str(done["notice"]))


class ResumeNotOursError(BrokerError):
    """A halt ends by the word of every contributor; the broker, also if it halted, has none."""

    code = "contract.resume-not-ours"
    exit_code = 4


def contract_resume(where: Where, name: str) -> Result:
    """Says why an operator cannot let a halted contract go on, and who can.

    Raises:
        ResumeNotOursError: Always, with the clause of the contract that was named.
    """
    contract = contract_of(where, name)
    raise ResumeNotOursError(
        clause=contract.halt.clause,
        need="a resume by every contributor: " + ", ".join(one.party for one in contract.contributors),
        found="an operator of the broker",
        remedy=f"each of them at its own node: iriai-node contract resume {contract.digest}",
    )


def _shown(life: dict[str, Any]) -> tuple[str, ...]:
    since = "" if life["since"] is None else f" since {plain(life['since'])}"
    lines = [f"contract  {plain(life['digest'])}", f"standing  {plain(life['standing'])}{since}"]
    closed = life.get("closed")
    if closed is not None:
        where = f"in round {closed['round']} of {plain(closed['negotiation'])} by {plain(closed['party'])}"
        why = plain(closed["code"]) + (f" [{plain(closed['clause'])}]" if closed["clause"] else "")
        lines.append(f"ended     {where}: {why}")
    for halt, parties in sorted(life["resumed_by"].items()):
        lines.append(f"halt      {short(plain(halt))} resumed by {plain(', '.join(parties)) or 'nobody yet'}")
    lines += [
        f"left      {plain(name)} at {plain(one['at'])}" for name, one in sorted(life["exited"].items())
    ]
    if life["terminated"] is not None:
        lines.append(
            f"ended     by {plain(life['terminated']['clause'])}: {plain(life['terminated']['code'])}"
        )
    rows = [
        (one["at"], one["party"], one["kind"], one["code"], one["clause"] or "-", one["text"] or "-")
        for one in life["notices"]
    ]
    head = ("AT", "PARTY", "NOTICE", "CODE", "CLAUSE", "TEXT")
    return (*lines, *table(head, rows, empty="no notice about it"))
