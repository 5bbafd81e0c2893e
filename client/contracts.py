# SPDX-License-Identifier: Apache-2.0
"""The contracts that this node knows, as files of its own; nothing else decides about its data.

::

    contracts/<64 hex>/contract.json     canonical bytes; their digest is the folder's name
    contracts/<64 hex>/envelope.json     DSSE with the signatures, once it is executed
    contracts/<64 hex>/recipe-<64 hex>.json

- Whatever is read is checked again: digest, canonical form, clauses, signatures under the keys pinned in the
  contract itself.
- `sign` refuses a contract whose broker is not the pinned one, that pins another key for this organisation,
  whose annexes are missing or differ, whose ``sign_by`` is over, or whose recipes this node would have to
  refuse anyway.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from client.answers import Answer, table
from client.errors import (
    BrokerKeyError,
    NoSuchThingError,
    NotConfirmedError,
    NotJoinedError,
    NotSignedError,
    RemoteRefusalError,
)
from client.membership import alias_key, membership
from client.receipts import LogView, collect, fetch_consistency
from client.shelf import ContractShelf, Held, check_digest
from policies.contract import CONTRACT_TYPE, parse
from policies.contract.errors import NotExecutedError
from policies.encoding import b64, digest, is_digest
from policies.identity import fingerprint, key_text, parse_key
from policies.log.entries import alias
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.membership import Member
    from client.outbox import Outbox

__all__ = ["contract_list", "contract_show", "fetch", "fetch_envelope", "sign"]

_CONFIRM_HEX = 12


def fetch(member: Member, shelf: ContractShelf, contract: str) -> Held:
    """The contract with all its recipes and, once there are all, its signatures; fetched where missing.

    Raises:
        RemoteRefusalError: The broker has no such contract of which this node is a party.
        DigestMismatchError: Bytes differ from a digest; nothing was stored.
    """
    try:
        held = shelf.get(contract)
    except NoSuchThingError:
        if not is_digest(contract):
            raise
        parsed = parse(check_digest(member.client.get_bytes(f"/contracts/{contract}"), contract))
        annexes = {
            one.recipe_digest: check_digest(
                member.client.get_bytes(f"/contracts/{contract}/annexes/{one.recipe_digest}"),
                one.recipe_digest,
            )
            for one in parsed.recipes
        }
        shelf.own_party(parsed)
        held = shelf.put(parsed, annexes)
    if not held.is_executed:
        with contextlib.suppress(RemoteRefusalError, NotExecutedError):
            held = fetch_envelope(member, shelf, contract)
    return held


def fetch_envelope(member: Member, shelf: ContractShelf, contract: str) -> Held:
    """The contract with its signatures, fetched and verified under the keys pinned in the contract.

    Raises:
        NotExecutedError: Somebody has still to sign.
    """
    return shelf.put_envelope(
        contract, Envelope.from_bytes(member.client.get_bytes(f"/contracts/{contract}/envelope"))
    )


def contract_list(member: Member) -> Answer:
    """This node's contracts: state, deadline, and who is waited for."""
    answer = member.client.get("/contracts")
    rows = answer.get("contracts", answer) if isinstance(answer, dict) else answer
    lines = table(
        ("digest", "state", "sign by", "waiting for", "title"),
        [
            (
                one["digest"],
                one["state"],
                one["sign_by"],
                ", ".join(one["waiting_for"]) or "nobody",
                one["title"],
            )
            for one in rows
        ],
    )
    if not rows:
        lines = ("no contract yet: the operator offers one (iriai-broker contract offer)",)
    return Answer(data={"contracts": rows}, text=lines)


def latest(member: Member, shelf: ContractShelf) -> str:
    """Digest of the one contract to show where none is named.

    Raises:
        NoSuchThingError: There is none.
    """
    answer = member.client.get("/contracts")
    rows = answer.get("contracts", answer) if isinstance(answer, dict) else answer
    if rows:
        return str(rows[-1]["digest"])
    known = shelf.digests()
    if not known:
        raise NoSuchThingError(need="a contract", found="none", remedy="wait until the operator offers one")
    return known[-1]


def contract_show(member: Member, shelf: ContractShelf, contract: str | None) -> Answer:
    """The contract in plain words: own duties first, then each clause with its id."""
    from policies.contract import plain_words

    held = fetch(member, shelf, contract or latest(member, shelf))
    party = held.party.party
    own = [f"[{clause}] {words}" for clause, words in plain_words(held.contract, party)]
    text = (
        f"contract {held.contract.digest}",
        f"state    {'executed: everybody signed' if held.is_executed else 'not executed yet'}",
        f"you are  {party}",
        "",
        *own,
    )
    return Answer(
        data={
            "digest": held.contract.digest,
            "party": party,
            "executed": held.is_executed,
            "clauses": own,
            "document": held.contract.document,
        },
        text=text,
    )


def check_before_signing(member: Member, shelf: ContractShelf, held: Held) -> None:
    """Refuses what must not be signed; see the module.

    Raises:
        BrokerKeyError: The contract pins another broker.
        NotSignedError: It pins this node's key under another organisation or role, a recipe reads fields that
            the contract does not allow, or ``sign_by`` is over.
        NoSuchThingError, DigestMismatchError: A recipe is missing or differs.
    """
    contract, party = held.contract, held.party
    if contract.broker.key != key_text(member.broker.key):
        raise BrokerKeyError(
            need=f"the broker that this node joined, {fingerprint(member.broker.key)}",
            found=fingerprint(parse_key(contract.broker.key)),
            remedy="do not sign; ask who drafted it",
        )
    if party.org != member.identity.org or party.role != "contributor":
        raise NotSignedError(
            need=f"this node's key pinned for contributor {member.identity.org}",
            found=f"{party.role} {party.org}",
            remedy="do not sign; ask for a corrected offer",
        )
    for one in contract.recipes:
        recipe = shelf.recipe(contract.digest, one.recipe_digest)
        strangers = sorted(set(recipe.fields) - set(contract.fields.allow))
        if strangers:
            raise NotSignedError(
                need="recipes that read allowed fields only",
                found=", ".join(strangers),
                remedy=f"do not sign: {contract.fields.clause} and recipe {one.id} contradict each other",
            )
    if iso_s(member.clock.now_ms()) >= contract.sign_by:
        raise NotSignedError(
            need=f"a signature before {contract.sign_by}", found="a later time", remedy="ask for a new offer"
        )


def sign(
    member: Member, shelf: ContractShelf, outbox: Outbox, contract: str, *, confirm: Callable[[str], bool]
) -> Answer:
    """Signs a contract and sends the signature with its envelope; repeating it sends the same bytes.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the envelope.
        contract: The whole digest.
        confirm: Shows the digest to a person and gives their answer.

    Raises:
        NotJoinedError: The organisation is not approved yet.
        IriaiError: See `check_before_signing`.
    """
    held = fetch(member, shelf, contract)
    check_before_signing(member, shelf, held)
    key = alias_key(member.home)
    if key is None:
        state = membership(member)["state"]
        key = alias_key(member.home)
        if key is None:
            raise NotJoinedError(
                need="an approved organisation",
                found=str(state),
                remedy="two operators approve it; then sign",
            )
    if not confirm(contract.removeprefix("sha256:")[:_CONFIRM_HEX]):
        raise NotConfirmedError(
            need="a person's word", found="no", remedy="read it: iriai-node contract show"
        )
    seal = Envelope.seal(held.contract.canonical, CONTRACT_TYPE, member.identity.key)
    body = {"contract": contract, "party": alias(key, contract, None, None)}
    with outbox.writing() as letters:
        envelope = letters.seal(
            "contract.signed", body=body, scope=contract, slot=f"contract.signed {contract}"
        )
        sent = {"signature": b64(seal.signatures[0][1]), "envelope": envelope.to_json()}
        letters.note(
            kind="contract.signed",
            size_bytes=len(envelope.to_bytes()) + len(sent["signature"]),
            digest=digest(envelope.payload),
            contract=contract,
        )
    answer = member.client.post(
        f"/contracts/{contract}/signatures", sent, idempotency_key=f"sign-{digest(envelope.payload)[7:47]}"
    )
    view = LogView(outbox, member.broker.log_vkey, fetch=fetch_consistency(member.client))
    collect(member.client, outbox, view, older_than_ms=member.clock.now_ms())
    with contextlib.suppress(RemoteRefusalError, NotExecutedError):
        held = fetch_envelope(member, shelf, contract)
    waiting = list(answer.get("waiting_for", [])) if isinstance(answer, dict) else []
    state = str(answer.get("state", "offered")) if isinstance(answer, dict) else "offered"
    return Answer(
        data={"contract": contract, "state": state, "waiting_for": waiting, "executed": held.is_executed},
        text=(
            f"signed   {contract}",
            f"state    {state}",
            "waiting  " + (", ".join(waiting) or "for nobody"),
            f"next: iriai-node run --dir {member.home.root}",
        ),
    )
