# SPDX-License-Identifier: Apache-2.0
"""Who becomes a member, and who stops being one.

    invited  --join (single use, signed by the joining key)-->  waiting-approval
    waiting-approval  --two approvals by different operator keys-->  active
    active  --suspend (one operator, at once)-->  suspended  --restore (two people)-->  active
    any  --remove (two people)-->  revoked

- The secret of an invitation is known to its receiver; here lies its SHA-256.
- An approval counts for `PROPOSAL_TTL_H` hours, while its person is in force (`broker.membership.approvers`).
- An approval is an operator's signature over exactly {org, node, node_key, fleet_key, name, group,
  country}. If one of these is not what the operator saw, the approval is void.
- One enrolment per organisation, node, node key and fleet key, for ever: a revoked key never comes back.
- The second approval makes the organisation active, gives it its alias key and writes ``org.onboarded`` and
  ``key.added``, all in one transaction. The engine is told after the commit, and again at each start
  (`roster`).

Methods named like what happens take a session and the log's transaction; they are units of work of the
writer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, insert, or_, select, update

from broker.log.rotations import Rotations
from broker.membership.approvals import APPROVAL_TYPE, approval_subject
from broker.membership.approvers import approvers_of
from broker.membership.directory import (
    ACTIVE,
    REVOKED,
    SUSPENDED,
    WAITING,
    Directory,
    Member,
    Operator,
    member_of_row,
)
from broker.membership.errors import (
    AlreadyEnrolledError,
    ApprovalTwiceError,
    InviteExpiredError,
    InviteMismatchError,
    InviteUnknownError,
    InviteUsedError,
    NotMemberError,
    NotWaitingError,
    SubjectChangedError,
)
from broker.membership.fleetkeys import check_fleet_key
from broker.membership.invites import Invite, secret_digest
from broker.membership.records import console_action, key_added
from broker.store.tables import approval, invite, organisation
from broker.store.upserts import insert_or_update
from policies.encoding import Json, canonical, digest, new_id, unb64
from policies.identity import check_public_key, fingerprint, key_id, key_text
from policies.limits import APPROVALS_NEEDED, INVITE_TTL_H
from policies.log.entries import EntryType, Event, alias
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.log import LogTx
    from broker.store import Session
    from policies.ports import Clock, Entropy

__all__ = [
    "JoinRequest",
    "Membership",
    "approved_by",
    "check_fleet_key",
    "console_action",
    "key_added",
    "subject_of",
]

_OPEN: Final = "open"
_USED: Final = "used"
_INVITE_REMEDY: Final = (
    "if this is the right invitation, it is unused: write the name as the operator did (ask them), by "
    "repeating iriai-node init --legal-name NAME --country CC in the same folder, then join again; else use "
    "the invitation that was made for this organisation"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What a node asks for, signed by ``node_key``. ``None``: as the invitation says."""

    invite_secret: str
    org: str
    node: str
    node_key: bytes
    fleet_key_pem: str
    legal_name: str | None
    country: str | None
    group: str | None


def subject_of(member: Member) -> bytes:
    """Canonical bytes of what an operator approves."""
    return approval_subject(
        org=member.org,
        node=member.node,
        node_key=key_text(member.key),
        fleet_key=member.fleet_key_pem,
        name=member.legal_name,
        group=member.group,
        country=member.country,
    )


class Membership:
    """The service; see the module for its rules."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Entropy,
        directory: Directory,
        url: str,
        broker_key: bytes,
        tls_sha256: str,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._directory = directory
        self._url = url
        self._broker_key = broker_key
        self._tls_sha256 = tls_sha256

    # --- invitations ---

    def new_invite(self) -> Invite:
        """A fresh invitation, not stored yet."""
        expires_ms = self._clock.now_ms() + INVITE_TTL_H * 3_600_000
        return Invite(
            url=self._url,
            broker_key=key_text(self._broker_key),
            tls_sha256=self._tls_sha256,
            id=new_id("inv", self._entropy.token_bytes(10)),
            secret=self._entropy.token_bytes(32).hex(),
            expires=iso_s(expires_ms),
        )

    def invite(
        self,
        session: Session,
        tx: LogTx,
        *,
        made: Invite,
        expires_ms: int,
        operator: Operator,
        legal_name: str,
        country: str,
        group: str,
        request: str,
    ) -> None:
        """Stores what is needed to recognise the invitation, bound to one organisation."""
        session.execute(
            insert(invite).values(
                id=made.id,
                secret_sha256=bytes.fromhex(secret_digest(made.secret)),
                legal_name=legal_name,
                country=country,
                grp=group,
                state=_OPEN,
                expires_ms=expires_ms,
                created_by=operator.name,
            )
        )
        subject = digest(canonical([made.id, legal_name, country, group]))
        tx.add(console_action(operator, "invite.create", subject=subject, request=request))

    def revoke_invite(
        self, session: Session, tx: LogTx, *, name: str, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Takes back an invitation that nobody used yet; one person is enough.

        Raises:
            InviteUnknownError: No invitation has this id.
            InviteUsedError: It was used, or taken back already.
        """
        row = session.execute(select(invite).where(invite.c.id == name)).mappings().first()
        if row is None:
            raise InviteUnknownError(
                need="the id of an invitation", found=ascii(name)[1:-1][:60], remedy="look at the list again"
            )
        if row["state"] != _OPEN:
            raise InviteUsedError(
                need="an invitation that nobody used",
                found=f"one that is {row['state']}",
                remedy="whoever joined by it is on the list of members",
            )
        session.execute(update(invite).where(invite.c.id == name).values(state=REVOKED))
        subject = digest(canonical([name, row["legal_name"], row["country"], row["grp"]]))
        tx.add(console_action(operator, "invite.revoke", subject=subject, request=request))
        return {"id": name, "state": REVOKED}

    # --- joining ---

    def join(self, session: Session, _tx: LogTx, request: JoinRequest) -> dict[str, Json]:
        """Uses the invitation up and lets the organisation wait for two approvals.

        1. the invitation exists, is unused, has not expired; 2. it was made for this organisation; 3. the
           keys are sound; 4. nobody enrolled any of them.

        Raises:
            InviteUnknownError, InviteUsedError, InviteExpiredError: Step 1.
            InviteMismatchError: Step 2; the invitation stays unused.
            WeakKeyError, FleetKeyError: Step 3.
            AlreadyEnrolledError: Step 4.
        """
        now_ms = self._clock.now_ms()
        # 1.
        secret = bytes.fromhex(secret_digest(request.invite_secret))
        row = session.execute(select(invite).where(invite.c.secret_sha256 == secret)).mappings().first()
        found = _usable_invite(dict(row) if row else None, now_ms)
        # 2.
        for name, column in (("legal_name", "legal_name"), ("country", "country"), ("group", "grp")):
            claimed = getattr(request, name)
            if claimed is not None and claimed != found[column]:
                raise InviteMismatchError(
                    need=f"the {name} of the invitation",
                    found=ascii(claimed)[:80],
                    remedy=_INVITE_REMEDY,
                )
        # 3.
        check_public_key(request.node_key)
        fleet_key = check_fleet_key(request.fleet_key_pem)
        # 4.
        self._refuse_known(session, request, fleet_key)
        session.execute(update(invite).where(invite.c.id == found["id"]).values(state=_USED))
        session.execute(
            insert(organisation).values(
                org_id=request.org,
                alias_key=b"",
                legal_name=found["legal_name"],
                country=found["country"],
                grp=found["grp"],
                state=WAITING,
                node_id=request.node,
                node_key=key_text(request.node_key),
                fleet_key=fleet_key,
                created_ms=now_ms,
            )
        )
        return {"state": WAITING, "org": request.org, "node": request.node, "since_ms": now_ms}

    def _refuse_known(self, session: Session, request: JoinRequest, fleet_key: str) -> None:
        same = or_(
            organisation.c.org_id == request.org,
            organisation.c.node_id == request.node,
            organisation.c.node_key == key_text(request.node_key),
            organisation.c.fleet_key == fleet_key,
        )
        taken = session.scalar(select(func.count()).select_from(organisation).where(same))
        kid = key_id(request.node_key)
        if taken or self._directory.knows(kid) or Rotations.read(session).gave_up(kid):
            raise AlreadyEnrolledError(
                need="organisation, node and keys that are new here",
                found="one that is enrolled",
                remedy="make a new node (iriai-node init in an empty folder) and ask for a new invitation",
            )

    # --- approval ---

    def approve(
        self,
        session: Session,
        tx: LogTx,
        *,
        org: str,
        operator: Operator,
        subject: str,
        signature: str = "",
        evidence: Callable[[bytes], str] | None = None,
        request: str,
    ) -> dict[str, Json]:
        """Records one person's approval; the second one makes the organisation active.

        1. it waits; 2. the person signed exactly what waits, with their key file, or confirmed it in person
        (``evidence`` gives what is kept of that, or raises); 3. no approval of theirs counts yet; 4. record;
        5. with two different people whose approvals count now: active.

        Raises:
            NotMemberError, NotWaitingError: Step 1.
            SubjectChangedError, SignatureInvalidError: Step 2.
            ApprovalTwiceError: Step 3.
        """
        # 1.
        member = _load(session, org)
        if member.state != WAITING:
            raise NotWaitingError(
                need=f"{org} waiting for approval", found=member.state, remedy="iriai-broker org list"
            )
        # 2.
        document = subject_of(member)
        if subject != digest(document):
            raise SubjectChangedError(
                need=f"an approval of {digest(document)}",
                found=ascii(subject)[:80],
                remedy="look at it again and approve what is shown",
            )
        if evidence is None:
            Envelope(payload_type=APPROVAL_TYPE, payload=document, signatures=()).with_signature(
                operator.key, unb64(signature)
            )
            word = signature
        else:
            word = evidence(document)
        # 3.
        now_ms = self._clock.now_ms()
        if operator.name in approvers_of(session, org, subject=subject, now_ms=now_ms):
            raise ApprovalTwiceError(
                need="an approval by another operator's key",
                found=f"{operator.name} again",
                remedy="let a second operator compare fingerprints and approve",
            )
        # 4.
        row = {"org_id": org, "operator": operator.name, "subject_digest": subject}
        insert_or_update(session, approval, row | {"signature": word, "at_ms": now_ms})
        tx.add(console_action(operator, "org.approve", subject=subject, request=request))
        # 5.
        approvers = approvers_of(session, org, subject=subject, now_ms=now_ms)
        lapsed = (approval.c.org_id == org) & approval.c.operator.not_in(approvers)
        session.execute(delete(approval).where(lapsed))
        active = len(approvers) >= APPROVALS_NEEDED
        if active:
            self._onboard(session, tx, member, subject=subject, approvers=approvers)
        return {"org": org, "state": ACTIVE if active else WAITING, "approved_by": sorted(approvers)}

    def _onboard(
        self, session: Session, tx: LogTx, member: Member, *, subject: str, approvers: frozenset[str]
    ) -> None:
        alias_key = self._entropy.token_bytes(32)
        session.execute(
            update(organisation)
            .where(organisation.c.org_id == member.org)
            .values(state=ACTIVE, alias_key=alias_key, created_ms=self._clock.now_ms())
        )
        tx.add(
            Event(
                type=EntryType.ORG_ONBOARDED,
                pub={
                    "org": alias(alias_key, None, None, None),
                    "evidence": subject,
                    "approvers": sorted(approvers),
                },
                private={"org": member.org},
            )
        )
        tx.add(key_added("node", "ed25519", member.key, shown=key_text(member.key)))
        tx.add(key_added("fleet", "ecdsa-p256", member.fleet_key_pem.encode("ascii")))

    # --- suspension and removal ---

    def suspend(
        self, session: Session, tx: LogTx, *, org: str, operator: Operator, reason: str, request: str
    ) -> dict[str, Json]:
        """Stops an organisation at once; one operator is enough. Its keys stay, and it can be let in again.

        It witnesses on: else one operator could take voters from the log's quorum.

        Raises:
            NotMemberError: No such organisation.
            NotWaitingError: It does not take part.
        """
        member = _load(session, org)
        if not member.active:
            raise NotWaitingError(need=f"{org} active", found=member.state, remedy="iriai-broker org list")
        self._set_state(session, org, SUSPENDED)
        subject = digest(subject_of(member))
        tx.add(console_action(operator, "org.suspend", subject=subject, request=request))
        tx.add(_change(EntryType.ORG_SUSPENDED, member, reason=reason, request=request))
        return {"org": org, "state": SUSPENDED}

    def restorable(self, session: Session, org: str) -> dict[str, Json]:
        """What letting a suspended organisation in again is about.

        Raises:
            NotMemberError: No such organisation.
            NotWaitingError: It is not suspended.
        """
        member = _load(session, org)
        if not member.suspended:
            raise NotWaitingError(need=f"{org} suspended", found=member.state, remedy="iriai-broker org list")
        return {**_shown(member), "suspended_ms": member.since_ms}

    def restore(self, session: Session, tx: LogTx, *, org: str, reason: str, request: str) -> dict[str, Json]:
        """Lets a suspended organisation in again; two people's word is the caller's to check.

        Raises:
            NotMemberError, NotWaitingError: See `restorable`.
        """
        self.restorable(session, org)
        self._set_state(session, org, ACTIVE)
        tx.add(_change(EntryType.ORG_REINSTATED, _load(session, org), reason=reason, request=request))
        return {"org": org, "state": ACTIVE}

    def removable(self, session: Session, org: str) -> dict[str, Json]:
        """What the end of a membership is about.

        Raises:
            NotMemberError: No such organisation.
            NotWaitingError: It is removed already.
        """
        member = _load(session, org)
        if member.revoked:
            raise NotWaitingError(need=f"{org} in force", found=REVOKED, remedy="nothing is left to do")
        return _shown(member)

    def remove(
        self, session: Session, tx: LogTx, *, org: str, reason: str, request: str, left: bool = False
    ) -> dict[str, Json]:
        """Ends a membership for good; two people's word is the caller's to check.

        The log says ``org.left`` of who asked for it, and ``org.suspended`` of everybody else; the keys are
        revoked in both cases.

        Raises:
            NotMemberError, NotWaitingError: See `removable`.
        """
        self.removable(session, org)
        member = _load(session, org)
        self._set_state(session, org, REVOKED)
        if member.alias_key:
            kind = EntryType.ORG_LEFT if left else EntryType.ORG_SUSPENDED
            tx.add(_change(kind, member, reason=reason, request=request))
            for key in (member.key, member.fleet_key_pem.encode("ascii")):
                tx.add(
                    Event(
                        type=EntryType.KEY_REVOKED,
                        pub={"kid": digest(key), "reason": reason, "valid_until": tx.size},
                    )
                )
        return {"org": org, "state": REVOKED}

    def _set_state(self, session: Session, org: str, state: str) -> None:
        session.execute(
            update(organisation)
            .where(organisation.c.org_id == org)
            .values(state=state, created_ms=self._clock.now_ms())
        )

    # --- reading ---

    def list_members(self, session: Session) -> list[dict[str, Json]]:
        """Everybody enrolled, as operators see them, with what an approval is about."""
        return [
            {
                "org": member.org,
                "node": member.node,
                "state": member.state,
                "since_ms": member.since_ms,
                "legal_name": member.legal_name,
                "country": member.country,
                "group": member.group,
                "node_key": key_text(member.key),
                "node_fingerprint": fingerprint(member.key),
                "fleet_key_pem": member.fleet_key_pem,
                "subject_digest": digest(subject_of(member)),
                "approved_by": sorted(approved_by(session, member, self._clock.now_ms())),
            }
            for member in self._directory.members()
        ]


def _change(kind: EntryType, member: Member, *, reason: str, request: str) -> Event:
    """An organisation is out, in again, or has left."""
    name = alias(member.alias_key, None, None, None)
    return Event(type=kind, pub={"org": name, "reason": reason, "request": request})


def _shown(member: Member) -> dict[str, Json]:
    """An organisation as two people are shown it before they decide about it."""
    return {
        "org": member.org,
        "legal_name": member.legal_name,
        "country": member.country,
        "group": member.group,
        "node": member.node,
        "node_key": key_text(member.key),
    }


def _usable_invite(row: dict[str, Json] | None, now_ms: int) -> dict[str, Json]:
    remedy = "ask the operators for a new invitation"
    if row is None:
        raise InviteUnknownError(
            need="an invitation of this broker", found="none with this secret", remedy=remedy
        )
    if row["state"] != _OPEN:
        raise InviteUsedError(
            need="an invitation that was not used",
            found="a used one",
            remedy="if you did not use it yourself, tell the operators at once; else " + remedy,
        )
    if now_ms > row["expires_ms"]:
        raise InviteExpiredError(need="an invitation in its time", found="an expired one", remedy=remedy)
    return row


def _load(session: Session, org: str) -> Member:
    row = session.execute(select(organisation).where(organisation.c.org_id == org)).mappings().first()
    if row is None:
        raise NotMemberError(
            need="an enrolled organisation", found=ascii(org)[:60], remedy="iriai-broker org list"
        )
    return member_of_row(row)


def approved_by(session: Session, member: Member, now_ms: int) -> frozenset[str]:
    """Whose approvals count; of an organisation that is in, who let it in."""
    if member.state == WAITING:
        return approvers_of(session, member.org, subject=digest(subject_of(member)), now_ms=now_ms)
    return frozenset(session.scalars(select(approval.c.operator).where(approval.c.org_id == member.org)))
