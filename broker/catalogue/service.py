# SPDX-License-Identifier: Apache-2.0
"""The catalogue: one signed, coarse descriptor per data set. Nothing else about data ever arrives here.

- A descriptor is a DSSE document of the node that sends it; `policies.messages.open_descriptor` says what
  may stand in it.
- A newer descriptor of the same data set replaces the older one. Each publication has a number, which its
  node never gets again.
- Its owner takes a data set back out by a signed withdrawal (`policies.withdrawal`) of that one publication:
  its words and its certificate are deleted here, and the withdrawal stays in their place as the record. It is
  in no listing and no search from then on; owner and operators see that it was withdrawn. The same withdrawal
  again changes nothing, and after a new publication it is refused. Contracts are not touched.
- A member sees its own descriptors whole, and of the others' what `policies.shown_data` says, or less where
  their owner chose; operators see all. A search looks only at what the caller sees.
- A certificate of quality comes before the descriptor that names it. Its content stays with its owner, the
  operators and auditors; others see its digest, while it is the one that is held and says ``admitted``.
- What is stored was verified when it came; a listing verifies it again, by the key that was in force then,
  which must be of its owner's line (`broker.log.rotations`), for nodes change their keys. What does not
  verify is left out, and named to operators: never an error for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, func, insert, select, update

from broker.catalogue.errors import (
    CatalogueFullError,
    ForeignDescriptorError,
    NoCertificateError,
    NotPublishedError,
    OtherPublicationError,
)
from broker.log.rotations import Rotations
from broker.membership.directory import Directory, Member, Operator
from broker.store.tables import certificate, descriptor
from policies.errors import IriaiError, SignatureInvalidError
from policies.identity import key_id, key_text, parse_key
from policies.limits import DESCRIPTORS_PER_NODE
from policies.messages import Descriptor, open_descriptor
from policies.quality_certificate import QualityCertificate, open_certificate
from policies.shown_data import Sought, open_view, whole_view
from policies.signing import Envelope
from policies.withdrawal import Withdrawal, open_withdrawal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row, Table

    from broker.store import Session
    from policies.encoding import Json
    from policies.shown_data import Shown

__all__ = ["Catalogue", "Certified", "Listing", "Published", "Withdrawn"]

_EVERYTHING = Sought()
_WITHDRAWN: Final = "withdrawn"  # in the place of what others see


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A descriptor whose signature and content hold, with the envelope that it came in."""

    descriptor: Descriptor
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A certificate of quality whose signature and content hold, with its envelope."""

    certificate: QualityCertificate
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A withdrawal whose signature and content hold, with its envelope."""

    withdrawal: Withdrawal
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a caller gets.

    Attributes:
        datasets: That have what is sought.
        unverified: For operators those that do not verify: organisation, data set.
        withdrawn: The caller's own that were withdrawn, for operators all: organisation, data set.
    """

    datasets: list[dict[str, Json]]
    unverified: list[tuple[str, str]]
    withdrawn: list[tuple[str, str]]


class Catalogue:
    """The service; see the module for its rules."""

    def __init__(self, *, directory: Directory) -> None:
        self._directory = directory

    def read(self, member: Member, envelope: Envelope) -> Published:
        """A member's descriptor; before any transaction.

        Raises:
            SignatureInvalidError, EncodingError, DescriptorKeyError: See `open_descriptor`.
            ForeignDescriptorError: It names another node.
        """
        found = open_descriptor(envelope, member.key)
        _check_own(member, found.node, "descriptor")
        return Published(descriptor=found, envelope=envelope)

    def read_certificate(self, member: Member, envelope: Envelope) -> Certified:
        """A member's certificate of quality; before any transaction.

        Raises:
            SignatureInvalidError, EncodingError, CertificateInvalidError: See `open_certificate`.
            ForeignDescriptorError: It names another node.
        """
        found = open_certificate(envelope, member.key)
        _check_own(member, found.node, "certificate")
        return Certified(certificate=found, envelope=envelope)

    def read_withdrawal(self, member: Member, envelope: Envelope) -> Withdrawn:
        """A member's withdrawal of a descriptor; before any transaction.

        Raises:
            SignatureInvalidError, EncodingError, WithdrawalInvalidError: See `open_withdrawal`.
            ForeignDescriptorError: It names another node.
        """
        found = open_withdrawal(envelope, member.key)
        _check_own(member, found.node, "withdrawal")
        return Withdrawn(withdrawal=found, envelope=envelope)

    def certify(self, session: Session, member: Member, certified: Certified) -> dict[str, Json]:
        """Stores a certificate in place of an older one of the same data set.

        Raises:
            CatalogueFullError: As many data sets as one member may describe.
        """
        name, digest = certified.certificate.dataset, certified.certificate.digest
        self._replace(session, certificate, member, name)
        session.execute(
            insert(certificate).values(
                node_id=member.node,
                dataset=name,
                digest=digest,
                bytes=certified.envelope.to_bytes(),
                signed_by=key_text(member.key),
            )
        )
        return {"dataset": name, "digest": digest}

    def publish(
        self, session: Session, member: Member, published: Published, *, shown: Shown = "open"
    ) -> dict[str, Json]:
        """Stores a descriptor in place of an older one of the same data set.

        Args:
            session: Of the change.
            member: Whose it is.
            published: From `read`.
            shown: What other members see of it.

        Raises:
            CatalogueFullError: As many data sets as one member may describe.
            NoCertificateError: It names a certificate that is not here.
        """
        found = published.descriptor
        self._check_certificate(session, member, found)
        number = _next_number(session, member)
        self._replace(session, descriptor, member, found.dataset)
        session.execute(
            insert(descriptor).values(
                node_id=member.node,
                dataset=found.dataset,
                digest=found.digest,
                bytes=published.envelope.to_bytes(),
                shown=shown,
                signed_by=key_text(member.key),
                number=number,
            )
        )
        return {"dataset": found.dataset, "digest": found.digest}

    def withdraw(self, session: Session, member: Member, withdrawn: Withdrawn) -> dict[str, Json]:
        """Takes a data set out of the catalogue.

        In this order: (1) the data set is there, (2) it is the publication that the withdrawal names, (3) it
        is not withdrawn yet, else nothing changes, (4) the withdrawal takes the descriptor's place and the
        certificate goes.

        Raises:
            NotPublishedError: Nothing of this data set is here.
            OtherPublicationError: Another publication stands than the one that is named.
        """
        found = withdrawn.withdrawal
        here = (descriptor.c.node_id == member.node) & (descriptor.c.dataset == found.dataset)
        row = session.execute(select(descriptor).where(here)).one_or_none()
        if row is None:  # 1
            raise NotPublishedError(
                need=f"{found.dataset} in the catalogue",
                found="nothing of this data set",
                remedy="nothing: others see nothing of it",
            )
        if (row.number, row.digest) != (found.number, found.descriptor):  # 2
            raise OtherPublicationError(
                need=f"a withdrawal of publication {row.number}",
                found=f"one of publication {found.number}; nothing was withdrawn",
                remedy="iriai-node data withdraw, which names the one that stands",
            )
        if row.shown != _WITHDRAWN:  # 3
            there = (certificate.c.node_id == member.node) & (certificate.c.dataset == found.dataset)
            session.execute(delete(certificate).where(there))  # 4
            session.execute(
                update(descriptor)
                .where(here)
                .values(bytes=withdrawn.envelope.to_bytes(), shown=_WITHDRAWN, signed_by=key_text(member.key))
            )
        return {"dataset": found.dataset, "digest": found.descriptor, "number": found.number}

    def _check_certificate(self, session: Session, member: Member, found: Descriptor) -> None:
        if found.quality is None:
            return
        here = (certificate.c.node_id == member.node) & (certificate.c.dataset == found.dataset)
        if session.scalar(select(certificate.c.digest).where(here)) != found.quality:
            raise NoCertificateError(
                need=f"the certificate {found.quality[:19]} of {found.dataset}, published before",
                found="another one, or none",
                remedy="iriai-node data publish sends both",
            )

    def _replace(self, session: Session, table: Table, member: Member, dataset: str) -> None:
        """Makes room for a row: that of the same data set goes, else the oldest that was withdrawn."""
        mine = table.c.node_id == member.node
        session.execute(delete(table).where(mine & (table.c.dataset == dataset)))
        if _count(session, table, member) >= DESCRIPTORS_PER_NODE and table is descriptor:
            ended = mine & (descriptor.c.shown == _WITHDRAWN)
            oldest = select(func.min(descriptor.c.number)).where(ended).scalar_subquery()
            session.execute(delete(descriptor).where(ended & (descriptor.c.number == oldest)))
        if _count(session, table, member) >= DESCRIPTORS_PER_NODE:
            raise CatalogueFullError(
                need=f"at most {DESCRIPTORS_PER_NODE} data sets",
                found="more",
                remedy="describe fewer, larger data sets",
            )

    def list_for(self, session: Session, caller: Member | Operator, sought: Sought = _EVERYTHING) -> Listing:
        """Data sets of all active members that have what is sought, by node and data set."""
        listed: list[dict[str, Json]] = []
        unverified, withdrawn = [], []
        for owner, row, keys, held in self._stored(session):
            whole = isinstance(caller, Operator) or caller.org == owner.org
            try:
                found = _opened(row, keys)
            except IriaiError:
                unverified.append((owner.org, str(row.dataset)))
                continue
            if isinstance(found, Withdrawal):
                withdrawn += [(owner.org, str(row.dataset))] if whole else []
                continue
            certified = found.quality is not None and found.quality == _admitting(held, keys)
            view = whole_view(found) if whole else open_view(found, shown=row.shown, certified=certified)
            if sought.matches(view, certified=certified):
                listed.append(_listed(owner, row, view, whole=whole, certified=certified))
        return Listing(
            datasets=listed,
            unverified=unverified if isinstance(caller, Operator) else [],
            withdrawn=withdrawn,
        )

    def _stored(self, session: Session) -> Iterator[tuple[Member, Row[Any], _Line, Row[Any] | None]]:
        """Descriptors of active members, each with its owner's line of keys and the certificate beside it."""
        rotations = Rotations.read(session)
        members = {one.node: one for one in self._directory.members() if one.active}
        rows = session.execute(select(descriptor).order_by(descriptor.c.node_id, descriptor.c.dataset)).all()
        held = {(row.node_id, row.dataset): row for row in session.execute(select(certificate))}
        for row in rows:
            owner = members.get(row.node_id)
            if owner is not None:
                line = _Line(frozenset(rotations.line(owner.key_id)))
                yield owner, row, line, held.get((row.node_id, row.dataset))


@dataclass(frozen=True, slots=True)
class _Line:
    """The keys that a member has or had, by their ids."""

    ids: frozenset[str]

    def of(self, row: Row[Any]) -> bytes:
        """The key that signed a row.

        Raises:
            IriaiError: It is no key, or of another line.
        """
        key = parse_key(row.signed_by)
        if key_id(key) not in self.ids:
            raise SignatureInvalidError(
                need="a key that the member has or had",
                found=key_id(key),
                remedy="let the member publish it again",
            )
        return key


def _opened(row: Row[Any], keys: _Line) -> Descriptor | Withdrawal:
    """What stands for a data set.

    Raises:
        IriaiError: It does not verify.
    """
    envelope = Envelope.from_bytes(row.bytes)
    if row.shown == _WITHDRAWN:
        return open_withdrawal(envelope, keys.of(row))
    return open_descriptor(envelope, keys.of(row))


def _admitting(row: Row[Any] | None, keys: _Line) -> str | None:
    """Digest of a certificate that is held, verifies and says ``admitted``."""
    if row is None:
        return None
    try:
        found = open_certificate(Envelope.from_bytes(row.bytes), keys.of(row))
    except IriaiError:
        return None
    return found.digest if found.verdict == "admitted" else None


def _listed(
    owner: Member, row: Row[Any], view: dict[str, Any], *, whole: bool, certified: bool
) -> dict[str, Json]:
    return {
        "org": owner.org,
        "legal_name": owner.legal_name,
        "dataset": row.dataset,
        "digest": row.digest if whole else None,
        "number": row.number if whole else None,
        "certified": certified and view.get("quality") is not None,
        "fits": view["fits"],
        "view": view,
        "envelope": Envelope.from_bytes(row.bytes).to_json() if whole else None,
    }


def _count(session: Session, table: Table, member: Member) -> int:
    return session.scalar(select(func.count()).select_from(table).where(table.c.node_id == member.node)) or 0


def _next_number(session: Session, member: Member) -> int:
    """Of a node's next publication; the highest that it had is never deleted before there is a higher one."""
    mine = descriptor.c.node_id == member.node
    return (session.scalar(select(func.max(descriptor.c.number)).where(mine)) or 0) + 1


def _check_own(member: Member, node: str, what: str) -> None:
    if node != member.node:
        raise ForeignDescriptorError(
            need=f"a {what} of {member.node}", found=node, remedy="let each node publish its own data sets"
        )
