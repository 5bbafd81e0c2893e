# SPDX-License-Identifier: Apache-2.0
"""What commands show of witnesses: standing per contract, last cosignature, evidence."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short
from client.errors import EquivocationError, NoSuchThingError, UnwitnessedError
from client.membership import worker_of
from client.settings import write_durably
from client.witnessing.key import witness_key
from client.witnessing.loop import EVIDENCE, Watch
from client.witnessing.running import trust_of
from client.witnessing.vouching import Vouching
from policies.log.checkpoint import open_checkpoint
from policies.log.cosignature import cosigner_vkey
from policies.log.equivocation import parse_evidence
from policies.log.witness_keys import witness_name
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from client.witnessing.vouching import Standing

__all__ = ["standings", "witness_cosign", "witness_evidence", "witness_look", "witness_status"]


def standings(member: Member, shelf: ContractShelf, outbox: Outbox) -> tuple[Standing, ...]:
    """How the log stands, contract by contract."""
    trust = trust_of(member, shelf)
    vouching = Vouching(outbox, trust, member.clock)
    return tuple(vouching.standing(held) for held in trust.contracts())


def witness_status(member: Member, shelf: ContractShelf, outbox: Outbox) -> Answer:
    """This node's witness key, what it cosigned last, and how the log stands for each contract."""
    last, found = outbox.cosigning.cosigned(), standings(member, shelf, outbox)
    own: dict[str, Any] | None = None
    first = "cosigned   nothing yet: iriai-node run does it"
    if last is not None:
        own = {"size": last.size, "root": last.root.hex(), "time_s": last.time_s}
        first = f"cosigned   size {last.size} at {iso_s(last.time_s * 1000)}"
    late = sum(one.late for one in found)
    vkey = cosigner_vkey(witness_key(member.home, member.entropy), witness_name(member.identity.org))
    lines = [f"witness    {vkey.text()}", first]
    lines += [line for one in found for line in _standing(one)]
    running = worker_of(member.home)["running"]
    lines += [] if running else ["worker     not running: nothing is cosigned until iriai-node run"]
    lines += [f"receipts   {late} without enough witnesses in time"] if late else []
    bad = any(not one.fresh for one in found)
    return Answer(
        data={
            "vkey": vkey.text(),
            "cosigned": own,
            "contracts": [_shown(one) for one in found],
            "late": late,
            "worker": running,
        },
        text=tuple(lines),
        exit_code=UnwitnessedError.exit_code if bad else 0,
    )


def _standing(one: Standing) -> Iterator[str]:
    """How the log stands for a contract; an alarm with what it stops and what to do."""
    yield f"contract   {'' if one.fresh else 'ALARM '}{short(one.contract)}: {one.words}"
    if one.k and one.missing:
        yield f"missing    {' '.join(one.missing)}, in the newest checkpoint with the quorum"
    if not one.fresh:
        yield "remedy     no round begins until their nodes run; the operator's status says whose does not"


def _shown(one: Standing) -> dict[str, Any]:
    return asdict(one) | {
        "voters": list(one.voters),
        "missing": list(one.missing),
        "tolerates": one.tolerates,
        "fresh": one.fresh,
    }


def witness_look(member: Member, outbox: Outbox) -> Answer:
    """What `witness_cosign` would cosign: the newest head, by a log key that is believed; nothing is kept.

    Raises:
        EquivocationError: The log told two histories; the node is stopped.
        CheckpointError: The head is signed by no log key that is believed.
    """
    outbox.check_open()
    state = outbox.cosigning.cosigned()
    before = 0 if state is None else state.size
    shown = member.client.get("/log/head?after=0&witnessed=0&wait=0")
    note = shown.get("note")
    size = open_checkpoint(note, member.log_keys.all()).size if isinstance(note, str) else before
    words = f"size {size} would be compared and cosigned; {before} was cosigned before; nothing was changed"
    return Answer(data={"dry_run": True, "size": size, "cosigned_before": before}, text=(words,))


def witness_cosign(member: Member, shelf: ContractShelf, outbox: Outbox) -> Answer:
    """One turn of the witness, without waiting for a new head (`client.witnessing.loop`).

    Raises:
        EquivocationError: The log told two histories; the node is stopped.
    """
    before = outbox.cosigning.cosigned()
    Watch(member, outbox, trust_of(member, shelf)).turn(wait_s=0)
    after = outbox.cosigning.cosigned()
    size = 0 if after is None else after.size
    new = after is not None and (before is None or before.time_s != after.time_s or before.size != size)
    words = f"cosigned   size {size}" if new else f"nothing to cosign: size {size} was cosigned before"
    return Answer(data={"cosigned": new, "size": size}, text=(words,))


def witness_evidence(member: Member, outbox: Outbox, out: Path | None) -> Answer:
    """The evidence in the node's folder, checked again under the pinned log key.

    Raises:
        NoSuchThingError: There is none.
        ProofError: What is there proves nothing.
    """
    path = member.home.root / EVIDENCE
    if not path.exists():
        stopped = outbox.evidence()
        raise NoSuchThingError(
            need=f"evidence in {path}",
            found="none" if not stopped else f"a stop without it: {stopped[0][1]}",
            remedy="iriai-node receipt verify shows why a node was stopped",
        )
    data = path.read_bytes()
    words = parse_evidence(data.decode("utf-8")).check(member.log_keys.all())
    if out is not None:
        write_durably(out, data)
    return Answer(
        data={"file": str(out or path), "contradiction": words},
        text=(
            f"PROVEN     {words}",
            f"file       {out or path}",
            "next: send it to all members and the auditor",
        ),
        exit_code=EquivocationError.exit_code,
    )
