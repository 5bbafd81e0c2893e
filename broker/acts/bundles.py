# SPDX-License-Identifier: Apache-2.0
"""A bundle for somebody: written whole, then logged with its digest, then sent.

    order = await auditors_order(services, "eva", since=0, request=request)
    return await sent(services, order, holder=key_id)

- It reaches up to the newest checkpoint with the quorum that the broker's policy asks for.
- An operator's bundle opens every confidential value; an auditor's, what grants in force open; a member's,
  its own. Whatever is confidential leaves the broker only once the log says so.
- Of a frozen log operators and members still get what they would get; an auditor's bundle then opens
  nothing. ``Iriai-Log: frozen`` says that the bundle is not on record.
- An auditor's bundle reaches beyond the newest word on its grants: else what it opens and keeps back would
  look wrong. A grant that ends while the bundle is made ends the bundle too.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, Response

from broker.apart import apart
from broker.auditing.errors import GrantUnknownError
from broker.auditing.grants import check_in_force, newest_word, used
from broker.federation.secure.files import Transcripts
from broker.log.bundle import Exported, View, export
from broker.log.errors import LogFrozenError, LogUnavailableError
from broker.membership.records import console_action
from policies.limits import EXPORT_SEND_S, WITNESS_RECEIPT_S
from policies.log.entries import EntryType, Event
from policies.log.policy import Policy, policy_text
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from broker.auditing.exports import Exports
    from broker.log import Head, LogTx
    from broker.membership.directory import Operator
    from broker.services import Services
    from broker.store import Session
    from policies.log.access import Grant
    from policies.signing import Envelope

__all__ = ["Order", "auditors_order", "exported", "nothing_more", "operators_order", "sent"]


def nothing_more(_session: Session, _tx: LogTx, _taken: Exported) -> None:
    """A bundle that leaves the entry of the export, and no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which bundle, and what the log says of it.

    Attributes:
        head: Up to where.
        view: What of it is opened.
        contracts: Texts and envelopes that go along.
        since: Size that the receiver audited already.
        work: Further entries about it, in the transaction of the export's own.
    """

    head: Head
    view: View
    contracts: Sequence[tuple[bytes, Envelope]]
    since: int = 0
    work: Callable[[Session, LogTx, Exported], None] = nothing_more


def operators_order(services: Services, operator: Operator, *, signed: bool, request: str) -> Order:
    """An operator's bundle; with ``signed`` up to the newest signed head, whoever cosigned it."""

    def work(_session: Session, tx: LogTx, taken: Exported) -> None:
        tx.add(console_action(operator, "audit.bundle", subject=taken.digest, request=request))

    head = services.writer.head() if signed else services.witnessing.checkpoint()
    return Order(head=head, view=View(), contracts=services.contracts.documents(), work=work)


async def auditors_order(services: Services, name: str, *, head: Head, since: int, request: str) -> Order:
    """An auditor's bundle, from a checkpoint on.

    Raises:
        GrantUnknownError: There is no grant in force.
        LogUnavailableError: No checkpoint covers the newest word on them yet.
    """
    head, grants = await _granted(services, name, head)

    def work(session: Session, tx: LogTx, _taken: Exported) -> None:
        check_in_force(session, grants, tx.now_ms)
        for one in grants:
            tx.add(used(one, request))

    view = View(grade="auditor", grants=() if services.writer.frozen is not None else grants)
    contracts = services.contracts.documents()
    return Order(head=head, view=view, contracts=contracts, since=since, work=work)


async def _granted(services: Services, name: str, head: Head) -> tuple[Head, tuple[Grant, ...]]:
    """Grants of an auditor, and a checkpoint that covers the newest word on them.

    Raises:
        GrantUnknownError: There is none in force.
        LogUnavailableError: No checkpoint covers it yet; a frozen log, which opens nothing, waits for none.
    """
    with services.store.read() as session:
        grants = services.grants.of(session, name)
        index = newest_word(session, name, start=head.size)
    if not grants:
        raise GrantUnknownError(
            need="a grant in force",
            found=f"none for {name}",
            remedy="ask an operator: iriai-broker audit grant NAME --fields … --dir DIR --key FILE",
        )
    if index is None or services.writer.frozen is not None:
        return head, grants
    head = await services.witnessing.covering(index, wait_s=WITNESS_RECEIPT_S)
    if head.size <= index:
        missing = ", ".join(services.witnessing.missing())
        raise LogUnavailableError(
            need=f"a checkpoint that covers the grants of {name}, at entry {index}",
            found=f"one of {head.size} entries" + (f"; not heard of: {missing}" if missing else ""),
            remedy="try again when these witnesses are back; "
            "an operator: iriai-broker status --dir DIR --key FILE"
            if missing
            else "try again in a moment, when witnesses have cosigned a newer one",
        )
    return head, grants


async def exported(services: Services, path: Path, order: Order) -> Exported:
    """Writes a bundle to a file, beside the event loop; says nothing to the log."""
    return await apart(
        lambda: export(
            services.store,
            services.writer,
            path,
            policy=services.policy,
            first_policy=_first_policy(services),
            software=version("iriai"),
            contracts=order.contracts,
            transcript=Transcripts(services.settings.dir).read,
            head=order.head,
            view=order.view,
        )
    )


async def sent(services: Services, order: Order, *, holder: str, is_operator: bool = False) -> Response:
    """Writes a bundle, logs it, and sends it; whatever fails before that leaves no file.

    Args:
        services: Of the broker.
        order: Which bundle.
        holder: Whose place among the downloads it takes: one at a time.
        is_operator: Operators always find a place.

    Raises:
        ExportBusyError, ExportRefusedError: No place, or no room on the disk.
        LogFrozenError: It would open confidential values, and the log cannot say so.
    """
    place = services.exports.room(holder, is_operator=is_operator)
    async with place as path:
        taken = await exported(services, path, order)

        def logged(session: Session, tx: LogTx) -> None:
            order.work(session, tx, taken)
            tx.add(_export_entry(taken, order.view.grade, order.since))

        headers = {"Cache-Control": "no-store"}
        try:
            await services.writer.run(logged)
        except LogFrozenError:
            if order.view.grants:
                raise  # it froze meanwhile: what grants open never leaves unsaid
            headers["Iriai-Log"] = "frozen"
    return _Sent(services.exports, path, headers)


def _first_policy(services: Services) -> str:
    """The policy before there were witnesses, which the log's first entry names."""
    logs = (VerifierKey.parse(services.keys.log_vkey),)
    return policy_text(Policy(logs=logs, broker=services.keys.broker.public))


def _export_entry(taken: Exported, grade: str, since: int) -> Event:
    sizes = {"from_size": since, "to_size": taken.entries}
    pub = {**sizes, "grade": grade, "bundle": taken.digest}
    return Event(type=EntryType.EXPORT_AUDIT_BUNDLE, pub=pub)


class _Sent(FileResponse):
    """A bundle that is gone once it was sent, was cut, or took longer than `EXPORT_SEND_S`."""

    def __init__(self, exports: Exports, path: Path, headers: dict[str, str]) -> None:
        super().__init__(path, media_type="application/zip", headers=headers)
        self._exports = exports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file; the server closes the connection where it ends early."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXPORT_SEND_S):
                    await super().__call__(scope, receive, send)
        finally:
            self._exports.release(Path(self.path))
