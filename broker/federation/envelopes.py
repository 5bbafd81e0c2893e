# SPDX-License-Identifier: Apache-2.0
"""The envelopes of a reply on their way into the log, and the rows that follow: budget mirror, votes.

- A member's envelope always gets its entry, whatever became of the update: its number would be missing from
  the chain otherwise. If the log does not take one (its number, what it has seen, its place), the whole
  transaction is given up and `EnvelopesRefusedError` names the sender, who is then settled as refused.
- Nor does it take one that would be an error in every later audit (`broker.federation.books`). Nothing of
  that reply is logged but an incident, which names the reply's digest; the reply is kept, and its node is
  out of the run: its chain has a gap that its operator must explain. So is the node of an update whose budget
  entry is missing.
- A contribution of an attempt that was settled before is refused as ``round-closed``. One of an attempt that
  is still open, in another run, waits for that run's own verdict.
- Every budget entry is mirrored, also one that comes after its attempt was settled.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.contracts.decisions import keep
from broker.contracts.lineage import scopes_of, versions
from broker.federation.books import DIFFERS, DIVERGED, MisfitError
from broker.federation.signed import ABOUT_CONTRACTS, slot_of_mechanism
from broker.runs.incidents import incidents_of
from broker.store.tables import candidate, ledger_mirror, log_entry, round_, statement, vote
from broker.store.upserts import insert_or_ignore, insert_or_update
from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.errors import LogError
from policies.privacy.errors import BudgetDivergedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.federation.books import Books
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.signed import Signed
    from broker.log import LogTx
    from broker.store import Session

__all__ = [
    "WAITING",
    "EnvelopesRefusedError",
    "Slot",
    "add_envelopes",
    "barred",
    "declare",
    "opened_attempt",
    "refusal",
    "store_votes",
]

WAITING = "waiting"
Slot = tuple[str, int | None, int | None]
"""Run, round, attempt."""


class EnvelopesRefusedError(IriaiError):
    """The log does not take what one node signed; nothing of the transaction was written."""

    code = "update.envelopes-refused"
    exit_code = 3
    http_status = 409

    def __init__(
        self,
        sender: Participant,
        *,
        need: str,
        found: str,
        reason: str = "envelope-malformed",
        evidence: bytes | None = None,
    ) -> None:
        self.sender = sender
        self.reason = reason
        self.evidence = evidence
        super().__init__(
            need=need, found=found, remedy="compare the node's outbox with its receipts; it is out until then"
        )


def opened_attempt(session: Session, run_id: str, number: int | None, attempt: int) -> dict[str, Any] | None:
    """The ``round.opened`` of an attempt, as it stands in the log."""
    of = (log_entry.c.run == run_id) & (log_entry.c.round == number)
    opened = log_entry.c.type == EntryType.ROUND_OPENED.value
    for body in session.scalars(select(log_entry.c.body).where(of & opened)):
        entry: dict[str, Any] = json.loads(body)
        if entry["pub"]["attempt"] == attempt:
            return entry
    return None


def add_envelopes(
    session: Session,
    tx: LogTx,
    sender: Participant,
    reply: NodeReply,
    *,
    contract: str,
    slot: Slot,
    books: Books,
) -> list[int]:
    """Logs every envelope of a reply in the order of its chain; judges what is late, mirrors budget entries.

    Args:
        session: Of the transaction.
        tx: Likewise.
        sender: Whose reply it is.
        reply: As `broker.federation.replies` read it.
        contract: Of the run.
        slot: Run, round and attempt of the exchange.
        books: What new envelopes must fit.

    Returns:
        The indexes.

    Raises:
        EnvelopesRefusedError: The log does not take one of them.
    """
    found, page, mine = [], books.page(session, sender), versions(session, contract)
    for one in reply.signed:
        payload = one.payload
        actor = sender.alias(payload["scope"], payload["run"], payload["round"])
        try:
            event = from_envelope(one.envelope, payload, actor=actor)
            known = tx.known(event)
            if known is None:
                _check_kind(sender, one)
                _check_place(session, sender, one, slot, contract)
                page.fit(one)
            found.append(tx.add(event) if known is None else known)
        except LogError as error:
            raise EnvelopesRefusedError(sender, need=error.need, found=error.found) from error
        except MisfitError as error:
            evidence = reply.raw if error.reason in DIFFERS else None
            raise EnvelopesRefusedError(
                sender, need=error.need, found=error.found, reason=error.reason, evidence=evidence
            ) from error
        if payload["scope"] in mine:
            _mirror(session, sender, one)
        late = one.kind is EntryType.SUBMISSION_RECEIVED and one is not reply.submission
        if late and _is_settled(session, one) and not _is_judged(session, one, found[-1]):
            tx.add(_late_event(payload, found[-1]))
    if reply.decision is not None:
        keep(
            session,
            contract=contract,
            point="node",
            record=reply.decision.record,
            request=reply.decision.request,
            state=reply.decision.state,
            salt=reply.decision.salt,
        )
    return found


def _check_kind(sender: Participant, one: Signed) -> None:
    """An entry about a notice comes in with its notice, and in no other way."""
    if one.kind in ABOUT_CONTRACTS:
        raise EnvelopesRefusedError(sender, need=f"the notice of {one.kind.value} first", found="none")


def _check_place(session: Session, sender: Participant, one: Signed, slot: Slot, contract: str) -> None:
    """An envelope about a run is about one of its contract; one about an attempt, about one that was opened.

    A submission is under the contract that its attempt was opened with.

    What is about the exchange's own slot was checked when the reply was read.
    """
    payload, body = one.payload, one.payload["body"]
    attempt = body.get("attempt")
    if one.kind is EntryType.EPSILON_SPENT:
        of = slot_of_mechanism(body["mechanism"])
        attempt = None if of is None else of[2]
        if of is not None and of[:2] != (payload["run"], payload["round"]):
            raise EnvelopesRefusedError(sender, need="a mechanism run of this run and round", found="another")
    submits = one.kind is EntryType.SUBMISSION_RECEIVED
    if payload["run"] is None:
        return
    if (payload["run"], payload["round"], attempt) == slot and (not submits or payload["scope"] == contract):
        return
    if payload["run"] != slot[0] and payload["scope"] not in scopes_of(session, payload["run"]):
        raise EnvelopesRefusedError(sender, need="a run of the envelope's contract", found="another")
    if attempt is None:
        return
    opened = opened_attempt(session, payload["run"], payload["round"], attempt)
    strange = opened is None or (submits and opened["scope"] != payload["scope"])
    if opened is None or strange or opened["pub"]["plan"] != body["plan"]:
        raise EnvelopesRefusedError(sender, need="an attempt that was opened, and its plan", found="another")


def _mirror(session: Session, sender: Participant, one: Signed) -> None:
    """Counts a training step; what was counted before stays."""
    body = one.payload["body"]
    slot = slot_of_mechanism(body["mechanism"]) if one.kind is EntryType.EPSILON_SPENT else None
    if slot is None:
        return
    row = {
        "party": sender.party,
        "run_id": slot[0],
        "round": slot[1],
        "attempt": slot[2],
        "plan_digest": body["plan"],
        "steps": body["steps"],
    }
    insert_or_ignore(session, ledger_mirror, row)


def declare(
    session: Session, tx: LogTx, evidence: bytes, reason: str, *, contract: str, run_id: str, number: int
) -> None:
    """Keeps a reply that the log cannot take, and declares the incident that puts its node out of the run.

    About budget entries it is ``budget.diverged``, about all others the reason of the refusal.
    """
    named = digest(evidence)
    insert_or_ignore(session, statement, {"digest": named, "bytes": evidence})
    tx.add(
        Event(
            type=EntryType.INCIDENT_DECLARED,
            scope=contract,
            run=run_id,
            round=number,
            pub={"kind": BudgetDivergedError.code if reason in DIVERGED else reason, "evidence": named},
        )
    )


def barred(session: Session, run_id: str) -> set[str]:
    """Nodes that are out of a run, by the incidents in the log."""
    return {one.node for one in incidents_of(session, run_id)}


def store_votes(
    session: Session, tx: LogTx, sender: Participant, reply: NodeReply, *, contract: str
) -> set[str]:
    """Stores the votes of a reply; gives the candidates that wait for votes and got one.

    The last vote of a party counts, in the order of the log, until the candidate is decided.
    """
    found, mine = set(), versions(session, contract)
    for one in reply.signed:
        if one.kind is not EntryType.VOTE_CAST:
            continue
        name, body = one.payload["body"]["subject"], one.payload["body"]
        waits = session.scalar(
            select(candidate.c.digest).where(
                (candidate.c.digest == name)
                & (candidate.c.run_id == one.payload["run"])
                & (candidate.c.state == WAITING)
            )
        )
        if waits is None:
            continue
        found.add(name)
        if one.payload["scope"] not in mine:
            continue  # the gate reads it from the log; what this party is called there is not known here
        row = {"candidate": name, "party": sender.party, "verdict": body["vote"], "at_ms": tx.now_ms}
        insert_or_update(session, vote, row)
    return found


def _is_settled(session: Session, one: Signed) -> bool:
    """Whether the attempt that a submission was made for is over."""
    payload = one.payload
    same = (
        (round_.c.run_id == payload["run"])
        & (round_.c.round == payload["round"])
        & (round_.c.attempt == payload["body"]["attempt"])
    )
    return session.scalar(select(round_.c.attempt).where(same)) is not None


def _is_judged(session: Session, one: Signed, submission: int) -> bool:
    """Whether a submission has its verdict."""
    of = (log_entry.c.run == one.payload["run"]) & (log_entry.c.round == one.payload["round"])
    verdicts = log_entry.c.type.in_(
        (EntryType.CONTRIBUTION_ACCEPTED.value, EntryType.CONTRIBUTION_REFUSED.value)
    )
    bodies = session.scalars(select(log_entry.c.body).where(of & verdicts))
    return any(json.loads(body)["refs"][:1] == [submission] for body in bodies)


def _late_event(payload: Mapping[str, Any], submission: int) -> Event:
    return refusal(
        payload["scope"],
        payload["run"],
        payload["round"],
        submission,
        reason="round-closed",
        need="a reply before the attempt was settled",
        found="a later one",
    )


def refusal(
    contract: str, run_id: str, number: int, submission: int, *, reason: str, need: str, found: str
) -> Event:
    """The ``contribution.refused`` about a submission."""
    return Event(
        type=EntryType.CONTRIBUTION_REFUSED,
        scope=contract,
        run=run_id,
        round=number,
        refs=(submission,),
        pub={"reason": reason, "clause": None},
        private={"need": need, "got": found},
    )
