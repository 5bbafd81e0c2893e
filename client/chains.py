# SPDX-License-Identifier: Apache-2.0
"""A new chain for a node that lost its outbox, or has an old copy of it: ``iriai-node chain reset``.

A number that was used once is never used again, so a chain whose end is not known here cannot go on. Order:

1. the worker does not run; a person says yes;
2. everything that this node signed and the log has comes back from the broker, and is believed only under the
   node's own keys, with a receipt in the history that this node knows (`client.receipts`). Without it spends
   would be told twice, and rounds counted wrongly;
3. one transaction: the new chain begins, and its first envelope ``chain.reset`` names the old one and the
   last number that the log has of it. What the old chain never got a receipt for is void for good;
4. it is sent, and its receipt is checked. Repeating the command goes on at this step.

The auditor is told of every new chain (AUD-047), and a person asks what the old one held. What only the lost
file knew does not come back: what left besides envelopes, decisions of the guard, secrets of canaries, caps
that their owner tightened, which sums were opened. So this node gives nothing more to the runs it was in
(`lost_runs`); others go on.

`require_known_chain` is asked when a worker starts: a file without any receipt, of a node that the log knows,
is a lost one, and nothing is signed on it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.errors import (
    NoSuchThingError,
    NotConfirmedError,
    OutboxError,
    PeerAnswerError,
    RemoteRefusalError,
)
from client.outbox.rows import Decided
from client.receipts import LogView, fetch_consistency
from client.settings import locked
from policies.encoding import digest
from policies.errors import EncodingError, IdentityError
from policies.exchange import ExchangeType
from policies.log.entries import EntryType
from policies.log.envelope import open_envelope
from policies.log.errors import LogError
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client.membership import Member
    from client.outbox import Outbox

__all__ = ["chain_show", "lost_runs", "require_known_chain", "reset_chain"]

_SLOTS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "budget.opened": lambda said: f"{said['body']['lineage']} {said['body']['plan']}",
    "epsilon.spent": lambda said: said["body"]["mechanism"],
    "evaluation.received": lambda said: said["body"]["candidate"],
    "canary.committed": lambda said: said["run"],
    "canary.revealed": lambda said: said["run"],
    "round.ack": lambda said: f"{said['run']}/{said['body']['closed']}",
    "contract.halted": lambda said: said["body"]["notice"],
    "contract.resumed": lambda said: said["body"]["notice"],
    "contract.exited": lambda said: said["body"]["notice"],
}
"""What stands behind the kind in the slot of an envelope that may not be sealed twice (`client.outbox`)."""


def reset_chain(member: Member, outbox: Outbox, *, reason: str, confirm: Callable[[str], bool]) -> Answer:
    """Begins a new chain; see the module for the order.

    Args:
        member: Identity and the way to the broker.
        outbox: As it is: new and empty, or an old copy.
        reason: ``disk-loss`` or ``restore``.
        confirm: Shows a person what is about to end, and gives their answer.

    Raises:
        NodeBusyError: Step 1, the worker runs.
        NotConfirmedError: Step 1, nobody said yes.
        NoSuchThingError: The log has nothing of this node: nothing needs an end.
        PeerAnswerError, ReceiptError, EquivocationError: Step 2, what came back proves nothing.
        RemoteRefusalError: Step 4; repeat the command.
    """
    lock = locked(member.home)
    try:
        outbox.check_settled()
        waiting = next((one.envelope for one in outbox.pending(1) if one.kind == _RESET), None)
        if waiting is None:
            waiting = _begun(member, outbox, reason, confirm)
        return _sent(member, outbox, waiting)  # 4.
    finally:
        lock.close()


_LOST: Final = "lost run"
_RESET: Final = EntryType.CHAIN_RESET.value


def _begun(member: Member, outbox: Outbox, reason: str, confirm: Callable[[str], bool]) -> Envelope:
    """Steps 1 to 3."""
    own = list(_own_envelopes(member))
    if not own:
        raise NoSuchThingError(
            need="an envelope of this node in the log", found="none", remedy="iriai-node run: nothing is lost"
        )
    last = own[-1][1]
    if not confirm(f"chain {last['chain']} ends at {last['seq']}; what waits in this outbox is void"):  # 1.
        raise NotConfirmedError(
            need="a person who says yes", found="no confirmation", remedy="repeat the command (--yes)"
        )
    _take_back(member, outbox, own)  # 2.
    with outbox.writing() as letters:  # 3.
        letters.begin_chain()
        body = {"reason": reason, "old_chain": last["chain"], "last_seq": last["seq"]}
        made = letters.seal(_RESET, body=body)
        letters.note(kind=_RESET, size_bytes=len(made.to_bytes()), digest=digest(made.payload))
    return made


def _take_back(
    member: Member, outbox: Outbox, own: list[tuple[Envelope, Mapping[str, Any], dict[str, str]]]
) -> None:
    runs = {str(payload["run"]): None for _, payload, _ in own if payload["run"] is not None}
    recipes = {run: _recipe_of(member, run) for run in runs}
    known = frozenset(lost_runs(outbox))
    with outbox.writing() as letters:
        for envelope, payload, _ in own:
            slot = _SLOTS.get(payload["kind"])
            name = None if slot is None else f"{payload['kind']} {slot(payload)}"
            if letters.take_back(envelope, payload, name) and payload["kind"] == "decision.recorded":
                letters.decided(_decision(payload, recipes[payload["run"]]))
        for run in runs:
            if run not in known:
                letters.keep(f"{_LOST} {run}", run)
    view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
    for _, _, receipt in own:
        view.news(None, [receipt])


def chain_show(outbox: Outbox) -> Answer:
    """The chain that is sealed on, and the ends of those before it."""
    name, first = outbox.chain_and_first()
    stored = outbox.envelopes()
    live = [one for one in stored if one.seq >= first]
    ends = [json.loads(one.envelope.payload)["body"] for one in stored if one.kind == _RESET]
    waiting, lost = outbox.pending_count(), lost_runs(outbox)
    return Answer(
        data={
            "chain": name,
            "envelopes": len(live),
            "last_seq": len(live) - 1 if live else None,
            "without_receipt": waiting,
            "earlier": [
                {"chain": one["old_chain"], "last_seq": one["last_seq"], "reason": one["reason"]}
                for one in ends
            ],
            "lost_runs": list(lost),
        },
        text=(
            f"chain      {name}",
            f"envelopes  {len(live)}, of which {waiting} wait for a receipt",
            *(f"before it  {one['old_chain']}, ended at {one['last_seq']}: {one['reason']}" for one in ends),
            *(f"lost run   {one}" for one in lost),
        ),
    )


def lost_runs(outbox: Outbox) -> tuple[str, ...]:
    """Runs that this node was in when it lost its outbox: it gives nothing more to them."""
    return outbox.listed(_LOST)


def _recipe_of(member: Member, run: str) -> str:
    try:
        answer = member.client.get(f"/runs/{run}")
    except RemoteRefusalError:  # the contract does not let this party see it
        return ""
    return str(answer.get("recipe", "")) if isinstance(answer, dict) else ""


def _decision(payload: Mapping[str, Any], recipe: str) -> Decided:
    """What is left of a decision of the guard: its outcome, so that rounds are counted as before."""
    body = payload["body"]
    return Decided(
        at_ms=to_ms(payload["time"]),
        contract=payload["scope"],
        recipe=recipe,
        run=payload["run"],
        round=payload["round"],
        attempt=1,
        kind=ExchangeType.CONTRIBUTE.value,
        allow=body["outcome"] == "allow",
        clauses=tuple(body["clauses"]),
        document={},
    )


def _own_envelopes(member: Member) -> Iterator[tuple[Envelope, Mapping[str, Any], dict[str, str]]]:
    """What this node signed and the log has, in its order, each with its receipt (which is not checked yet).

    Raises:
        PeerAnswerError: Something that none of this node's keys signed, or another form.
    """
    keys = (member.identity.key.public, *member.identity.former)
    after = -1
    while True:
        answer = member.client.get(f"/membership/envelopes?after={after}")
        rows = answer.get("envelopes") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise _strange("another form")
        if not rows:
            return
        for one in rows:
            if not isinstance(one, dict) or not isinstance(one.get("index"), int) or one["index"] <= after:
                raise _strange("another form")
            after = one["index"]
            yield *_opened(one.get("envelope"), keys), {"entry": one["entry"], "proof": one["proof"]}


def _opened(document: object, keys: tuple[bytes, ...]) -> tuple[Envelope, Mapping[str, Any]]:
    try:
        envelope = Envelope.from_json(document)
        key = next((one for one in keys if envelope.signed_by(one)), None)
        if key is None:
            raise _strange("an envelope that none of its keys signed")
        return envelope, open_envelope(envelope, key)
    except (EncodingError, IdentityError, LogError) as error:
        raise _strange(error.found) from error


def _strange(found: str) -> PeerAnswerError:
    return PeerAnswerError(
        need="the envelopes of this node", found=found, remedy="tell the operator; nothing was changed"
    )


def _sent(member: Member, outbox: Outbox, envelope: Envelope) -> Answer:
    name = digest(envelope.payload)
    answer = member.client.post(
        "/membership/chain", {"envelope": envelope.to_json()}, idempotency_key=f"chain-{name[7:47]}"
    )
    receipts = answer.get("receipts") if isinstance(answer, dict) else None
    LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client)).news(None, receipts)
    stored = outbox.by_env(name)
    if stored is None or stored.receipt is None:
        raise _strange("no receipt for the chain.reset")
    taken = sum(one.receipt is not None for one in outbox.envelopes())
    return Answer(
        data={"chain": outbox.chain, "index": stored.log_index, "envelopes": taken},
        text=(
            f"chain      {outbox.chain} begins with entry {stored.log_index}",
            f"envelopes  {taken} with a receipt are here",
            "next: tell the other members and the auditor what happened; then iriai-node run",
        ),
    )


def require_known_chain(member: Member, outbox: Outbox) -> None:
    """Returns unless this outbox is a fresh one of a node that the log knows, or its new chain is not taken.

    Raises:
        OutboxError: It is.
    """
    if any(one.kind == _RESET for one in outbox.pending(1)):
        raise _lost("a chain that the log knows", "a chain.reset that was not taken yet")
    if outbox.envelopes() and outbox.pending_count() < len(outbox.envelopes()):
        return
    try:
        own = next(_own_envelopes(member), None)
    except RemoteRefusalError:  # not let in yet
        return
    if own is not None and own[1]["chain"] != outbox.chain:
        raise _lost(f"the outbox with chain {own[1]['chain']}", "a fresh one")


def _lost(need: str, found: str) -> OutboxError:
    return OutboxError(
        need=need, found=found, remedy="restore outbox.db; if it is lost for good: iriai-node chain reset"
    )
