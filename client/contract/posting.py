# SPDX-License-Identifier: Apache-2.0
"""Notices between this node and its broker: those of others come in, own ones go out.

- What the broker took is fetched and verified first, so that an own notice meets the life that it will meet.
- Own notices go oldest first, each with its envelope for the log, and with the envelopes of lost replies that
  have smaller numbers: under a halt no round would ask for them.
- The same bytes go again until the broker has taken them. A void notice is taken as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.contract.notices import Notices
from client.errors import PeerAnswerError, PeerUnreachableError, RemoteRefusalError
from client.receipts import LogView, collect, fetch_consistency
from policies.contract.lifecycle import standing
from policies.encoding import digest, is_digest
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.limits import REPLY_ENVELOPES
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from client.contract.notices import Rejected
    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.notices import Notice

__all__ = ["Told", "exchange", "hear", "keep_up"]

_LOGGED: Final = {
    "halt": "contract.halted",
    "resume": "contract.resumed",
    "exit": "contract.exited",
    "rotate": "key.rotated",
}

Told = tuple[str, dict[str, str]]
"""An event and its facts, for the worker's log."""


def keep_up(member: Member, shelf: ContractShelf, outbox: Outbox) -> list[Told]:
    """What the worker does now and then: own notices go out, those of others come in.

    Gives lines for the worker's log; one contract does not keep another waiting.

    Raises:
        PeerUnreachableError: The broker is away; nothing was done.
    """
    told: list[Told] = []
    for name in shelf.digests():
        try:
            held = shelf.get(name)
            if held.is_executed:
                told += exchange(member, shelf, outbox, held)
        except PeerUnreachableError:
            raise
        except IriaiError as error:
            told.append(("notices-wait", {"contract": name, "code": error.code}))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one, the halts of the others are heard
            told.append(("notices-wait", {"contract": name, "error": type(error).__name__}))
    return told


def exchange(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    held: Held,
    *,
    anew: bool = False,
    upto: int | None = None,
    afterwards: Member | None = None,
    told: list[Told] | None = None,
) -> list[Told]:
    """Fetches what was taken, sends what was not; steps 2 and 3 of the module.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the envelopes.
        held: The contract.
        anew: See `client.contract.notices.Notices.restore`; what it puts aside is told as
            ``notice-rejected``.
        upto: Own notices with a larger number stay here; None: all are sent.
        afterwards: Who asks once they are sent, where they change this node's key; None: the same.
        told: Takes each line as soon as it is true, so that what was sent is known if a later step fails.

    Raises:
        PeerUnreachableError: The broker is away.
        NoticesRewrittenError: The broker took something back.
        RemoteRefusalError: It does not take a notice, and keeps nothing of it.
    """
    notices = Notices(shelf)
    before = None if anew else standing(held.contract, notices.life(held), _now(member))
    told = [] if told is None else told
    told += [_rejected(held, one) for one in _fetch(member, notices, held, anew=anew)]
    due = [one for one in notices.unsent(held) if upto is None or one.seq <= upto]
    for one in due:
        told.append(_send(member, outbox, notices, held, one))
    if due:
        member = member if afterwards is None else afterwards
        _fetch(member, notices, held)
        view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
        collect(member.client, outbox, view, older_than_ms=member.clock.now_ms())
    after = standing(held.contract, notices.life(held, _now(member)), _now(member))
    if after != before:
        told.append(("contract-stands", {"contract": held.contract.digest, "standing": after}))
    return told


def _fetch(member: Member, notices: Notices, held: Held, *, anew: bool = False) -> tuple[Rejected, ...]:
    base, asked_ms = f"/contracts/{held.contract.digest}", member.clock.now_ms()
    order = _order(member.client.get(f"{base}/lifecycle"))
    fetched = [
        Envelope.from_bytes(member.client.get_bytes(f"{base}/notices/{one.removeprefix('sha256:')}"))
        for one in notices.missing(held, order)
    ]
    rejected: tuple[Rejected, ...] = ()
    if anew:
        rejected = notices.restore(held, order, fetched)
    else:
        notices.learn(held, order, fetched)
    notices.hear(held, asked_ms)
    return rejected


def hear(member: Member, shelf: ContractShelf, held: Held) -> Told | None:
    """Takes over what the broker shows of a contract now; gives a line for the worker's log if that failed.

    It never raises: who asks goes by what is known afterwards (`client.contract.notices.Notices.heard`).
    """
    try:
        _fetch(member, Notices(shelf), held)
    except IriaiError as error:
        return "notices-wait", {"contract": held.contract.digest, "code": error.code}
    except Exception as error:  # noqa: BLE001  whatever a broker sends: nothing new is known
        return "notices-wait", {"contract": held.contract.digest, "error": type(error).__name__}
    return None


def _rejected(held: Held, one: Rejected) -> Told:
    facts = {"contract": held.contract.digest, "file": one.file, "kind": one.kind or "?"}
    return "notice-rejected", {**facts, "need": one.need, "found": one.found}


def _order(answer: object) -> tuple[str, ...]:
    rows = answer.get("notices") if isinstance(answer, dict) else None
    if not isinstance(rows, list):  # how many: the answer itself is bounded (BROKER_ANSWER_BYTES)
        raise _no_notices()
    found = [one.get("digest") if isinstance(one, dict) else None for one in rows]
    if not all(is_digest(one) for one in found) or len(set(found)) != len(found):
        raise _no_notices()
    return tuple(str(one) for one in found)


def _no_notices() -> PeerAnswerError:
    return PeerAnswerError(
        need="the notices of a contract", found="another form", remedy="check both versions"
    )


def _send(member: Member, outbox: Outbox, notices: Notices, held: Held, one: Notice) -> Told:
    """Sends an own notice; one that is void was taken all the same, and the line says why."""
    contract = held.contract.digest
    sealed = None if one.kind not in _LOGGED else _log_envelope(outbox, one)
    body = {
        "notice": notices.envelope(held, one.digest).to_json(),
        "envelope": None if sealed is None else sealed.to_json(),
        "earlier": [] if sealed is None else _earlier(outbox, one),
    }
    facts = {"contract": contract, "kind": one.kind, "notice": one.digest}
    try:
        member.client.post(
            f"/contracts/{contract}/notices", body, idempotency_key=f"notice-{one.digest[7:47]}"
        )
    except RemoteRefusalError as error:
        if one.digest not in _order(member.client.get(f"/contracts/{contract}/lifecycle")):
            raise
        return "notice-void", {**facts, "code": error.code}
    return "notice-taken", facts


def _log_envelope(outbox: Outbox, one: Notice) -> Envelope:
    kind = _LOGGED[one.kind]
    body = {"contract": one.contract, "clause": one.clause, "reason": one.code, "notice": one.digest}
    if one.kind == "rotate":  # sealed by the old key
        new = str(one.subject)
        old, role = digest(outbox.key.public), "node"
        body = {"old": old, "new": digest(parse_key(new)), "role": role, "vkey": new}
    with outbox.writing() as letters:
        sealed = letters.seal(kind, body=body, scope=one.contract, slot=_slot(one))
        letters.note(
            kind=kind,
            size_bytes=len(sealed.to_bytes()) + len(one.payload),
            digest=one.digest,
            clause=one.clause,
            contract=one.contract,
        )
    return sealed


def _earlier(outbox: Outbox, one: Notice) -> list[Any]:
    """Envelopes of lost replies: under a halt no round asks for them, and numbers are not skipped."""
    stored = outbox.find(_slot(one))
    before = 0 if stored is None else stored.seq
    return [each.envelope.to_json() for each in outbox.pending(REPLY_ENVELOPES) if each.seq < before]


def _slot(one: Notice) -> str:
    return f"{_LOGGED[one.kind]} {one.digest}"


def _now(member: Member) -> str:
    return iso_s(member.clock.now_ms())
