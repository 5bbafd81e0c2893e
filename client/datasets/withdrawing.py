# SPDX-License-Identifier: Apache-2.0
"""``data withdraw``: a data set leaves the catalogue again, by this node's signed word. The data stay here.

It is the reverse of ``data publish``, and ends no contract: what was signed stays signed, and a run that may
use the data set still may (``iriai-node withdraw`` ends taking part). Publishing again works at any time.

In this order: (1) the name is one, (2) the catalogue is asked what of it stands, (3) where nothing does, that
is said and nothing is sent, (4) what stands is this node's own, by its signature, (5) a dry run ends here,
(6) the withdrawal is signed, noted in the outbox and sent, (7) that is remembered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short
from client.data.catalogue import check_dataset_name
from client.datasets.published import read_published, save_published, standing, was_published
from client.errors import NoSuchThingError
from policies.encoding import digest
from policies.errors import IriaiError, SignatureInvalidError
from policies.messages import open_descriptor
from policies.ports import iso_s
from policies.signing import Envelope
from policies.withdrawal import Withdrawal, seal_withdrawal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox

__all__ = ["data_withdraw"]


def data_withdraw(
    member: Member, shelf: ContractShelf, outbox: Outbox, *, dataset: str, dry_run: bool = False
) -> Answer:
    """Takes a data set out of the catalogue; repeatable.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node; those that name the data set are told.
        outbox: Notes what leaves.
        dataset: Its name; it may have been removed here.
        dry_run: Ends before anything is signed.

    Raises:
        NoSuchThingError: Neither the catalogue nor this node knows the name.
        SignatureInvalidError: What stands there under this name is not this node's.
        RemoteRefusalError: The broker refuses.
    """
    check_dataset_name(dataset)  # 1
    found = member.client.get("/catalogue")  # 2
    row = next((one for one in found["datasets"] if one["dataset"] == dataset and one["digest"]), None)
    bound = tuple(_contracts(shelf, dataset))
    if row is None:  # 3
        ended = any(one["dataset"] == dataset for one in found.get("withdrawn", ()))
        return _nothing(member, dataset, ended=ended, bound=bound, dry_run=dry_run)
    _check_own(member, row, dataset)  # 4
    facts = {"dataset_id": dataset, "descriptor": row["digest"], "contracts": list(bound)}
    if dry_run:  # 5
        would = f"{dataset} would be withdrawn: 1 descriptor leaves the catalogue; nothing was changed"
        return Answer(data={"dry_run": True, "withdrawn": False, **facts}, text=(would, *_stays(bound)))
    now_ms = member.clock.now_ms()
    envelope = seal_withdrawal(
        Withdrawal.build(
            node=member.identity.node,
            dataset=dataset,
            descriptor=row["digest"],
            number=row.get("number", 0),  # of an older broker, which has no such route either
            at=iso_s(now_ms)[:10],
        ),
        member.identity.key,
    )
    _send(member, outbox, envelope)  # 6
    _remember(member, dataset, now_ms)  # 7
    words = (
        f"{dataset} withdrawn: no member finds it in the catalogue any more; the data stay here",
        f"again      iriai-node data publish {dataset}",
    )
    return Answer(data={"withdrawn": True, **facts}, text=(*words, *_stays(bound)))


def _nothing(member: Member, dataset: str, *, ended: bool, bound: tuple[str, ...], dry_run: bool) -> Answer:
    """That nothing of it stands, which is what was asked for.

    Raises:
        NoSuchThingError: Nobody ever heard the name.
    """
    from client.data import Store

    here = dataset in Store(member.home.data).catalogue().datasets
    if not ended and not here and standing(member.home, dataset) == "never":
        raise NoSuchThingError(
            need="a data set that this node published",
            found=dataset,
            remedy="iriai-node data list; iriai-node catalogue search",
        )
    if was_published(member.home, dataset) and not dry_run:
        _remember(member, dataset, member.clock.now_ms())
    facts = {"dataset_id": dataset, "withdrawn": ended, "descriptor": None, "contracts": list(bound)}
    words = "was withdrawn before" if ended else "is not in the catalogue"
    return Answer(
        data=facts | ({"dry_run": True} if dry_run else {}),
        text=(f"{dataset} {words}: nothing was sent", *_stays(bound)),
    )


def _check_own(member: Member, row: Mapping[str, Any], dataset: str) -> None:
    """What the broker shows as ours is what this node signed.

    Raises:
        SignatureInvalidError: By none of its keys, or of another data set.
    """
    envelope = Envelope.from_json(row["envelope"])
    for key in (member.identity.key.public, *member.identity.former):
        try:
            said = open_descriptor(envelope, key)
        except SignatureInvalidError:
            continue
        if (said.node, said.dataset, said.digest) == (member.identity.node, dataset, row["digest"]):
            return
    raise SignatureInvalidError(
        need=f"a descriptor of {dataset} that this node signed",
        found="another",
        remedy="telephone the operator: the broker shows something else as yours",
    )


def _contracts(shelf: ContractShelf, dataset: str) -> Iterator[str]:
    """Contracts in force here, or to come, that name the data set as this party's."""
    for name in shelf.digests():
        try:
            held = shelf.get(name)
        except IriaiError:  # nobody can say whether it names it
            continue
        party = held.party.party
        if held.is_executed and any(dataset in one.datasets_of(party) for one in held.contract.recipes):
            yield name


def _stays(bound: tuple[str, ...]) -> tuple[str, ...]:
    """That contracts go on."""
    if not bound:
        return ("contracts  none here names it",)
    names = ", ".join(map(short, bound))
    return (
        f"contracts  {len(bound)} signed that name it ({names}): untouched, runs under them may use it still",
        "           to end taking part: iriai-node withdraw CONTRACT",
    )


def _send(member: Member, outbox: Outbox, envelope: Envelope) -> None:
    """Notes it, then sends it."""
    data = envelope.to_bytes()
    name = digest(data)
    with outbox.writing() as letters:
        letters.note(kind="withdrawal", size_bytes=len(data), digest=name)
    member.client.post(
        "/catalogue/withdrawals", envelope.to_json(), idempotency_key=f"withdrawal-{name[7:31]}"
    )


def _remember(member: Member, dataset: str, now_ms: int) -> None:
    """A note that cannot be read stays as it is: to show less is never refused."""
    if standing(member.home, dataset) == "unknown":
        return
    record = read_published(member.home, dataset)
    save_published(member.home, dataset, replace(record, wide=False, withdrawn_ms=now_ms))
