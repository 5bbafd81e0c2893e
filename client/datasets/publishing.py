# SPDX-License-Identifier: Apache-2.0
"""What leaves about a data set: its certificate of quality and its descriptor, noted in the outbox.

In this order: (0) a choice to show less is kept, (1) the certificate is one that this node signed, (2) the
descriptor is made, with the words that the owner lets leave, (3) it says what the last one said, or comes
late enough, or shows less, or has a reason (`client.datasets.published`), (4) that is remembered here, (5)
the certificate is noted and sent, (6) the descriptor that names it, and that it arrived is remembered. A dry
run leaves out the first step and ends after the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from client.answers import plain, short
from client.datasets.published import check_again, content_of, keep_narrow, read_published, save_published
from client.ledgers import AGAIN
from policies.encoding import digest
from policies.messages import DESCRIPTOR_TYPE
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from client.contract.shelf import Held
    from client.datasets.published import Asked
    from client.membership import Member
    from client.outbox import Outbox
    from policies.shown_data import Shown
    from policies.signing import Envelope

__all__ = ["Sent", "publish"]

_REASON_CHARS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent.

    Attributes:
        digest: Of the descriptor's envelope.
        size_bytes: Of both documents.
        shown: What other members see of it.
        tasks: Words for the tasks in it.
        left_out: Words for tasks that the data set has and the descriptor does not.
    """

    digest: str
    size_bytes: int
    shown: Shown
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]


def publish(
    member: Member,
    outbox: Outbox,
    held: Held,
    recipes: Mapping[str, int],
    *,
    contracts: Collection[str],
    dataset: str,
    allow: Collection[str],
    tasks: Collection[str],
    asked: Asked,
    dry_run: bool = False,
) -> Sent:
    """Sends the certificate, then the descriptor that names it.

    Args:
        member: Identity and the way to the broker.
        outbox: Notes what leaves, before it does.
        held: The signed contract whose field clause allows it.
        recipes: Recipe digest to the training episodes that it needs.
        contracts: The contract and the versions that it superseded: of what was imported under them.
        dataset: Of this site.
        allow: Fields and labels that may be named.
        tasks: Tasks of these recipes: their names may leave where the data set has them.
        asked: What the owner wants this time.
        dry_run: Nothing is kept or sent; what is given would be.

    Raises:
        CertificateVoidError: There is none that this node signed.
        DescriptorKeyError: A value that is too fine.
        DescribedLatelyError: Another descriptor follows too soon, and no reason is given.
    """
    from client.data import describe, seal, task_words
    from client.data.quality import read_certificate

    if not dry_run:
        keep_narrow(member.home, dataset, asked.shown)  # 0
    keys = [member.identity.key.public, *member.identity.former]
    certificate, sealed = read_certificate(member.home.data, dataset, keys)  # 1
    record = read_published(member.home, dataset).asked(asked)
    words = task_words(member.home.data, dataset, contracts)
    told = tuple(sorted({*record.tasks, *(words & set(tasks))}))
    descriptor = describe(  # 2
        member.home.data,
        dataset,
        node=member.identity.node,
        allow=allow,
        clock=member.clock,
        recipes=recipes,
        tasks=told,
        quality=certificate.digest,
        contracts=contracts,
    )
    now_ms, content = member.clock.now_ms(), content_of(descriptor)
    again = check_again(record, content, now_ms, dataset=dataset, asked=asked)  # 3
    record = record.told(content, now_ms)
    envelope = seal(descriptor, member.identity.key)
    made = Sent(
        digest=digest(envelope.to_bytes()),
        size_bytes=len(sealed.to_bytes()) + len(envelope.to_bytes()),
        shown=record.shown,
        tasks=told,
        left_out=tuple(sorted(words - set(told))),
    )
    if dry_run:
        return made
    save_published(member.home, dataset, record)  # 4
    if again:
        _keep_reason(outbox, now_ms, dataset, made.digest, asked.again)
    _send(member, outbox, held, "/catalogue/certificates", sealed)  # 5
    path = f"/catalogue/descriptors?{urlencode({'shown': record.shown})}"
    _send(member, outbox, held, path, envelope)  # 6
    save_published(member.home, dataset, record.arrived())
    return made


def _send(member: Member, outbox: Outbox, held: Held, path: str, envelope: Envelope) -> None:
    """Notes an envelope, then sends it."""
    kind = "descriptor" if envelope.payload_type == DESCRIPTOR_TYPE else "certificate"
    data = envelope.to_bytes()
    name = digest(data)
    with outbox.writing() as letters:
        letters.note(
            kind=kind,
            size_bytes=len(data),
            digest=name,
            clause=held.contract.fields.clause,
            contract=held.contract.digest,
        )
    key = f"{kind}-{name[7:31]}-{member.clock.now_ms()}"  # sent again later, it takes effect again
    member.client.post(path, envelope.to_json(), idempotency_key=key)


def _keep_reason(outbox: Outbox, now_ms: int, dataset: str, name: str, reason: str) -> None:
    """The reason stays here; `outbox list` shows it."""
    said = f"{iso_s(now_ms)} {dataset} {short(name)}: {plain(reason.strip())[:_REASON_CHARS]}"
    with outbox.writing() as letters:
        letters.keep(f"{AGAIN} {now_ms} {dataset} {short(name)}", said)
