# SPDX-License-Identifier: Apache-2.0
"""What the worker does about contracts by itself: it goes on where a person said yes or no, and fetches.

Per contract of this node, each time:

1. a final one is fetched with its signatures; a successor that tightens is proven here first;
2. in a lane of an open round, what the kept consent or refusal allows is said
   (`client.contract.negotiating.carry_on`): messages on their way out go again, VERIFIED is completed;
3. a lane in AGREED whose round has closed is ended, and a consent ends with its lane.

It never consents, and never asks: without a person's word nothing is said. What fails is reported by its
code and tried again later; one contract does not keep another waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.contract.consent import end_consents
from client.contract.conversation import Conversation
from client.contract.lane_book import LaneBook
from client.contract.negotiating import carry_on
from client.contract.reading import broker_rows, fetch, fetch_envelope
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox

__all__ = ["tend"]

Told = tuple[str, dict[str, str]]


def tend(member: Member, shelf: ContractShelf, outbox: Outbox) -> list[Told]:
    """Looks at every contract once; gives what was done or could not be, as lines for the worker's log.

    Raises:
        PeerUnreachableError: The broker is away; nothing was done.
    """
    with LaneBook(member.home).alone(wait=False) as mine:
        if not mine:  # a command of the owner is at it
            return []
        return [told for row in broker_rows(member) for told in _tended(member, shelf, outbox, row)]


def _tended(member: Member, shelf: ContractShelf, outbox: Outbox, row: Mapping[str, Any]) -> Iterator[Told]:
    contract = str(row["digest"])
    try:
        if row.get("state") == "finalized":
            yield from _fetched(member, shelf, contract)
        elif not isinstance(row.get("negotiation"), str):
            return
        elif _over(row):
            end_consents(shelf, str(row["negotiation"]), _signed(row))
        else:
            said = carry_on(member, shelf, outbox, Conversation(member, outbox, str(row["negotiation"])))
            if said is not None:
                yield "contract-said", {"contract": contract, "said": said}
    except IriaiError as error:
        yield "contract-waits", {"contract": contract, "code": error.code}


def _over(row: Mapping[str, Any]) -> bool:
    """Whether the lane has ended, by the broker's word: then nothing can be said in it."""
    lane = row.get("lane")
    return isinstance(lane, dict) and lane.get("state") in {"FINALIZED", "TERMINATED"}


def _signed(row: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Digest and round of a lane that ended by being signed."""
    lane = row["lane"]
    return (str(row["digest"]), lane.get("round")) if lane.get("state") == "FINALIZED" else None


def _fetched(member: Member, shelf: ContractShelf, contract: str) -> Iterator[Told]:
    if contract in shelf.digests() and shelf.get(contract).is_executed:
        return
    if not fetch(member, shelf, contract).is_executed:
        fetch_envelope(member, shelf, contract)  # once more, for the reason
    yield "contract-final", {"contract": contract}
