# SPDX-License-Identifier: Apache-2.0
"""What one person proposes and another one approves: a machine without clock and dice, and its rows.

    proposed  --two different people stand behind it-->  approved
        |----- somebody refuses it -------------------->  refused
        |----- `PROPOSAL_TTL_H` hours later ----------->  expired
        `----- what it is about is not so any more ---->  void

- The **subject** is the canonical JSON of exactly what will happen: action, log, id and proposer of the
  proposal, and the facts. People sign its bytes; its digest names it in the log. As the id is in it, no
  approval of one proposal says anything about another one.
- People are told apart by their names, however they prove who they are. Nobody counts twice.
- Who proposes stands behind it. A text that a counter-offer put in the place of the proposed one was
  proposed by nobody of the broker: there `approve` is said by two people (``behind`` begins empty).
- `approve` checks in this order, and changes nothing before all of it holds: 1. it is open; 2. its time is
  not over; 3. the person does not stand behind it yet; 4. the person saw this digest; 5. the evidence holds
  over the subject's bytes.
- Whether the world is still as the subject says is for `broker.acts` to look at, before `approve`.

    made = propose(id=..., kind="org.remove", facts={...}, payload={...}, proposer="alice", ...)
    done = approve(made, "bob", digest=made.digest, evidence=signed_by(key, signature), now_ms=now)
    done.state                                  # "approved": the caller lets it happen, in this transaction
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.auth.proposal_errors import (
    ProposalClosedError,
    ProposalDigestError,
    ProposalError,
    ProposalExpiredError,
    ProposalOwnError,
    ProposalUnknownError,
)
from broker.store.tables import proposal as table
from broker.store.upserts import insert_or_update
from policies.encoding import Json, b64, canonical, digest, unb64
from policies.limits import APPROVALS_NEEDED, LIST_ROWS, PROPOSAL_TTL_H
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, RowMapping

    from broker.store import Session

__all__ = [
    "PROPOSAL_TYPE",
    "Behind",
    "Check",
    "Evidence",
    "Outcome",
    "Proposal",
    "Proposals",
    "State",
    "approve",
    "expired",
    "propose",
    "refuse",
    "signed_by",
    "subject_of",
    "void",
]

PROPOSAL_TYPE: Final = "application/vnd.iriai.proposal.v1+json"
"""DSSE payload type of an approval by key file; the payload is the subject."""
_HOUR_MS: Final = 3_600_000
_LOOK: Final = "look at it again: iriai-broker proposal show ID --dir DIR --key FILE; approve what is shown"


class State(StrEnum):
    """Where a proposal stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What proves a person's word: ``key``, ``passkey``, ``password`` or ``request``, and its bytes."""

    how: str
    data: bytes


Check = Callable[[bytes], Evidence]
"""Takes the subject's bytes; gives the evidence that somebody said yes to them, or raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Somebody who stands behind a proposal, since when, and by which evidence."""

    name: str
    at_ms: int
    how: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One proposal.

    Attributes:
        id: ``prop_…``.
        kind: Name of the act, such as ``org.remove``.
        payload: What was asked for, canonical JSON: the subject is made again from it.
        subject: Canonical JSON of exactly what will happen.
        proposer: Name of who proposed it; of a countered text, of who offered the first one.
        state: As stored; `at` knows the time as well.
        created_ms: When it was proposed.
        expires_ms: From then on nobody can approve it.
        behind: Who stands behind it.
        decided_by: Name of who approved or refused it; None otherwise.
        decided_ms: When it ended.
        why: Reason code of a refusal, or what changed; None otherwise.
    """

    id: str
    kind: str
    payload: bytes
    subject: bytes
    proposer: str
    state: State
    created_ms: int
    expires_ms: int
    behind: tuple[Behind, ...] = ()
    decided_by: str | None = None
    decided_ms: int | None = None
    why: str | None = None

    @property
    def digest(self) -> str:
        """Of the subject."""
        return digest(self.subject)

    @property
    def facts(self) -> dict[str, Any]:
        """What will happen, as the subject says it."""
        return dict(json.loads(self.subject)["what"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of who stands behind it, in the order of their words."""
        return tuple(one.name for one in self.behind)

    def at(self, now_ms: int) -> State:
        """Where it stands now."""
        late = self.state is State.PROPOSED and now_ms >= self.expires_ms
        return State.EXPIRED if late else self.state

    def waits_for(self, name: str, now_ms: int) -> bool:
        """Whether this person's approval would count."""
        return self.at(now_ms) is State.PROPOSED and name not in self.names

    def to_json(self, now_ms: int) -> dict[str, Json]:
        """As operators see it; the evidence itself is not shown."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.at(now_ms).value,
            "digest": self.digest,
            "subject": b64(self.subject),
            "what": self.facts,
            "proposer": self.proposer,
            "behind": [{"name": one.name, "how": one.how, "at_ms": one.at_ms} for one in self.behind],
            "needs": APPROVALS_NEEDED,
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms,
            "decided_by": self.decided_by,
            "decided_ms": self.decided_ms,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a word about a proposal.

    Attributes:
        proposal: As it stands now.
        result: What the act gave, once it happened.
        refusal: Why nothing happened although something was stored (it became void, or expired); else None.
        after: Steps that follow the commit; each is repeatable.
    """

    proposal: Proposal
    result: Mapping[str, Json] | None = None
    refusal: ProposalError | None = None
    after: tuple[Callable[[], None], ...] = ()


# --- the machine ---


def propose(
    *,
    id: str,  # noqa: A002  the field's own name
    kind: str,
    log: str,
    facts: Mapping[str, Json],
    payload: Mapping[str, Json],
    proposer: str,
    now_ms: int,
    evidence: Check | None,
) -> Proposal:
    """A new proposal. Without evidence nobody stands behind it yet: two people have to approve it."""
    subject = subject_of(id=id, kind=kind, log=log, facts=facts, proposer=proposer)
    return Proposal(
        id=id,
        kind=kind,
        payload=canonical(dict(payload)),
        subject=subject,
        proposer=proposer,
        state=State.PROPOSED,
        created_ms=now_ms,
        expires_ms=now_ms + PROPOSAL_TTL_H * _HOUR_MS,
        behind=() if evidence is None else (_behind(proposer, evidence(subject), now_ms),),
    )


def subject_of(
    *,
    id: str,  # noqa: A002  the field's own name
    kind: str,
    log: str,
    facts: Mapping[str, Json],
    proposer: str,
) -> bytes:
    """Canonical bytes of exactly what will happen."""
    return canonical({"action": kind, "log": log, "proposal": id, "proposer": proposer, "what": dict(facts)})


def approve(found: Proposal, name: str, *, digest: str, evidence: Check, now_ms: int) -> Proposal:
    """The proposal with one more person behind it; approved, if that makes two. See the module.

    Raises:
        ProposalClosedError: Step 1.
        ProposalExpiredError: Step 2.
        ProposalOwnError: Step 3.
        ProposalDigestError: Step 4.
        IriaiError: Step 5, as ``evidence`` raises it.
    """
    # 1. and 2.
    _check_open(found, now_ms)
    # 3.
    if name in found.names:
        raise ProposalOwnError(
            need=f"another person than {', '.join(found.names)}",
            found=ascii(name)[1:-1][:60],
            remedy="let a second person look at it and approve it",
        )
    # 4.
    if digest != found.digest:
        raise ProposalDigestError(
            need=f"an approval of {found.digest}", found=ascii(digest)[1:-1][:80], remedy=_LOOK
        )
    # 5.
    behind = (*found.behind, _behind(name, evidence(found.subject), now_ms))
    grown = replace(found, behind=behind)
    if len(set(grown.names)) < APPROVALS_NEEDED:
        return grown
    return replace(grown, state=State.APPROVED, decided_by=name, decided_ms=now_ms)


def refuse(found: Proposal, name: str, *, why: str, now_ms: int) -> Proposal:
    """The proposal, refused; who proposed it may as well.

    Raises:
        ProposalClosedError, ProposalExpiredError: It is not open.
    """
    _check_open(found, now_ms)
    return replace(found, state=State.REFUSED, decided_by=name, decided_ms=now_ms, why=why)


def void(found: Proposal, *, why: str, now_ms: int) -> Proposal:
    """The proposal, about something that is not so any more; one that has ended stays as it is."""
    if found.state is not State.PROPOSED:
        return found
    return replace(found, state=State.VOID, decided_ms=now_ms, why=why)


def expired(found: Proposal, now_ms: int) -> Proposal:
    """The proposal with what time made of it."""
    if found.state is State.PROPOSED and found.at(now_ms) is State.EXPIRED:
        return replace(found, state=State.EXPIRED, decided_ms=found.expires_ms)
    return found


def signed_by(key: bytes, signature: str) -> Check:
    """Evidence by key file: an Ed25519 signature (base64) over the subject, as DSSE of `PROPOSAL_TYPE`.

    The check raises `SignatureInvalidError` for a signature by another key, or over other bytes.
    """

    def check(subject: bytes) -> Evidence:
        empty = Envelope(payload_type=PROPOSAL_TYPE, payload=subject, signatures=())
        return Evidence(how="key", data=empty.with_signature(key, unb64(signature)).to_bytes())

    return check


def _check_open(found: Proposal, now_ms: int) -> None:
    state = found.at(now_ms)
    if state is State.EXPIRED:
        raise ProposalExpiredError(
            need=f"a word before {iso_s(found.expires_ms)}", found=iso_s(now_ms), remedy="propose it again"
        )
    if state is not State.PROPOSED:
        by = f" by {found.decided_by}" if found.decided_by else ""
        done = state is State.APPROVED
        raise ProposalClosedError(
            need="a proposal that is open",
            found=f"one that is {state.value}{by}",
            remedy="nothing is left to do: two people approved it" if done else "propose it again",
        )


def _behind(name: str, evidence: Evidence, now_ms: int) -> Behind:
    return Behind(name=name, at_ms=now_ms, how=evidence.how, data=evidence.data)


# --- rows ---


class Proposals:
    """The rows; methods that write are parts of a unit of work of the writer."""

    def find(self, session: Session, name: str) -> Proposal:
        """The proposal of an id.

        Raises:
            ProposalUnknownError: There is none.
        """
        row = session.execute(select(table).where(table.c.id == name)).mappings().first()
        if row is None:
            raise ProposalUnknownError(
                need="the id of a proposal",
                found=ascii(name)[1:-1][:60],
                remedy="iriai-broker proposal list --dir DIR --key FILE shows them",
            )
        return _of_row(row)

    def newest(self, session: Session) -> list[Proposal]:
        """The newest ones, newest first, in whatever state."""
        return self._read(session, table.c.id.is_not(None))[:LIST_ROWS]

    def open(self, session: Session, now_ms: int) -> list[Proposal]:
        """Those that wait for somebody, newest first."""
        still = (table.c.state == State.PROPOSED.value) & (table.c.expires_ms > now_ms)
        return self._read(session, still)

    def of(self, session: Session, kind: str, payload: Mapping[str, Json]) -> list[Proposal]:
        """Every proposal that asked for the same, newest first."""
        return self._read(session, (table.c.kind == kind) & (table.c.payload == canonical(dict(payload))))

    def keep(self, session: Session, made: Proposal) -> None:
        """Stores a proposal as it stands."""
        behind = [
            {"name": one.name, "at_ms": one.at_ms, "how": one.how, "data": b64(one.data)}
            for one in made.behind
        ]
        row = {
            "id": made.id,
            "kind": made.kind,
            "payload": made.payload,
            "subject": made.subject,
            "digest": made.digest,
            "proposer": made.proposer,
            "state": made.state.value,
            "created_ms": made.created_ms,
            "expires_ms": made.expires_ms,
            "behind": canonical(behind),
            "decided_by": made.decided_by,
            "decided_ms": made.decided_ms,
            "why": made.why,
        }
        insert_or_update(session, table, row)

    def _read(self, session: Session, where: ColumnElement[bool]) -> list[Proposal]:
        order = (table.c.created_ms.desc(), table.c.id)
        rows = session.execute(select(table).where(where).order_by(*order).limit(LIST_ROWS)).mappings()
        return [_of_row(row) for row in rows]


def _of_row(row: RowMapping) -> Proposal:
    return Proposal(
        id=row["id"],
        kind=row["kind"],
        payload=bytes(row["payload"]),
        subject=bytes(row["subject"]),
        proposer=row["proposer"],
        state=State(row["state"]),
        created_ms=row["created_ms"],
        expires_ms=row["expires_ms"],
        behind=tuple(
            Behind(name=one["name"], at_ms=one["at_ms"], how=one["how"], data=unb64(one["data"]))
            for one in json.loads(bytes(row["behind"]))
        ),
        decided_by=row["decided_by"],
        decided_ms=row["decided_ms"],
        why=row["why"],
    )
