# SPDX-License-Identifier: Apache-2.0
"""The catalogue: one signed, coarse descriptor per data set. Nothing else about data ever arrives here.

- A descriptor is a DSSE document of the node that sends it; `policies.messages.open_descriptor` says what
  may stand in it.
- A newer descriptor of the same data set replaces the older one.
- A member sees its own descriptors whole and of the others' which recipes they fit; operators see all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from broker.catalogue.errors import CatalogueFullError, ForeignDescriptorError
from broker.membership.directory import Directory, Member, Operator
from broker.store.tables import descriptor
from policies.limits import DESCRIPTORS_PER_NODE
from policies.messages import Descriptor, open_descriptor
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["Catalogue", "Published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A descriptor whose signature and content hold, with the envelope that it came in."""

    descriptor: Descriptor
    envelope: Envelope


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
        if found.node != member.node:
            raise ForeignDescriptorError(
                need=f"a descriptor of {member.node}",
                found=found.node,
                remedy="let each node publish its own data sets",
            )
        return Published(descriptor=found, envelope=envelope)

    def publish(self, session: Session, member: Member, published: Published) -> dict[str, Json]:
        """Stores a descriptor in place of an older one of the same data set.

        Raises:
            CatalogueFullError: As many data sets as one member may describe.
        """
        name, shown = published.descriptor.dataset, published.descriptor.digest
        mine = descriptor.c.node_id == member.node
        session.execute(delete(descriptor).where(mine & (descriptor.c.dataset == name)))
        if (
            session.scalar(select(func.count()).select_from(descriptor).where(mine)) or 0
        ) >= DESCRIPTORS_PER_NODE:
            raise CatalogueFullError(
                need=f"at most {DESCRIPTORS_PER_NODE} data sets",
                found="more",
                remedy="describe fewer, larger data sets",
            )
        session.execute(
            insert(descriptor).values(
                node_id=member.node, dataset=name, digest=shown, bytes=published.envelope.to_bytes()
            )
        )
        return {"dataset": name, "digest": shown}

    def list_for(self, session: Session, caller: Member | Operator) -> list[dict[str, Json]]:
        """Descriptors of all active members, by node and data set."""
        members = {one.node: one for one in self._directory.members() if one.active}
        rows = session.execute(select(descriptor).order_by(descriptor.c.node_id, descriptor.c.dataset)).all()
        listed = []
        for row in rows:
            owner = members.get(row.node_id)
            if owner is None:
                continue
            envelope = Envelope.from_bytes(row.bytes)
            found = open_descriptor(envelope, owner.key)
            whole = isinstance(caller, Operator) or caller.org == owner.org
            listed.append(
                {
                    "org": owner.org,
                    "legal_name": owner.legal_name,
                    "dataset": row.dataset,
                    "digest": row.digest,
                    "fits": [one.model_dump() for one in found.fits],
                    "envelope": envelope.to_json() if whole else None,
                }
            )
        return listed
