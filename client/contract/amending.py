# SPDX-License-Identifier: Apache-2.0
"""A contributor amends the contract in force: tightens it alone, or asks all parties for a change.

1. the text loads, and follows a contract that rules here; 2. the linter has no error, every recipe is here,
and this node could sign it; 3. a ``tighten`` is proven here first, by the order table or the prover: what
others would refuse is not sent; 4. a person is shown every difference and compares the digest; 5. it is sent:

- ``tighten`` with this node's signature and its entry ``contract.signed``, both durable before. The broker
  proves it again and signs; every other node proves it before it uses it.
- ``change`` with no signature: the broker opens a negotiation of this text, and everybody signs it there,
  this node too (``contract sign``).

Either way it takes effect when its term begins; until then the contract in force rules.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, short
from client.contract.comparing import change_lines, changes_for
from client.contract.consent import warnings_of
from client.contract.countering import annexes_of
from client.contract.negotiating import signed_body
from client.contract.reading import NOT_YET, fetch, fetch_envelope
from client.contract.shelf import Held, check_prose
from client.contract.signable import check_before_signing
from client.contract.starts import annexes_for
from client.errors import NoSuchThingError, NotConfirmedError, NotSignedError
from client.receipts import LogView, collect, fetch_consistency
from policies.contract import CONTRACT_TYPE, load
from policies.contract.amendment.succession import check_succession
from policies.contract.entering import CHANGE, TIGHTEN, no_looser
from policies.encoding import b64, canonical, digest
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract import Contract
    from policies.contract.amendment.verdict import Verdict
    from policies.contract.lint import LintFinding

__all__ = ["KINDS", "amend"]

KINDS: Final = (TIGHTEN, CHANGE)


def amend(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    text: str,
    *,
    kind: str,
    confirm: Callable[[str], bool],
    recipes: Iterable[bytes] = (),
    annexes: Iterable[bytes] = (),
    prose: bytes | None = None,
    tell: Callable[[tuple[str, ...]], None] = lambda _lines: None,
    lang: str = "en",
) -> Answer:
    """Sends a successor of the contract in force; see the module for the steps.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the log envelope.
        text: YAML or canonical JSON of the successor.
        kind: ``tighten`` or ``change``.
        confirm: Shows the first 12 hex digits to a person and gives their answer.
        recipes: Bytes of recipes that the contract in force does not have.
        annexes: Seed sets, consents and start models that it does not have.
        prose: The text for people, if a change binds another one.
        tell: Takes what stands above the question.
        lang: ``en`` or ``ja``.

    Raises:
        ContractError, NotASuccessorError, NoSuchThingError: Step 1.
        NotSignedError, BrokerKeyError, StaleOfferError, RefusedError: Step 2.
        RefusedError, ProofMissingError: Step 3: the clause is named, with a witness where there is one.
        NotConfirmedError: Step 4.
        RemoteRefusalError: The broker refused; nothing rules but what ruled before.
    """
    # 1.
    new = load(text)
    old = _ruling(member, shelf, new)
    check_succession(old.contract, new)
    # 2.
    warnings = warnings_of(new)
    found = annexes_of(shelf, old, new, recipes)
    opens = annexes_for(shelf, old, new, found, annexes)
    if prose is not None and new.prose is not None:
        check_prose(new.prose, prose)
    party = shelf.own_party(new)
    check_before_signing(member, shelf, Held(contract=new, party=party, envelope=None), found, opens)
    # 3.
    verdict = no_looser(old.contract, new, party.party) if kind == TIGHTEN else None
    # 4.
    changes = changes_for(old.contract, new, party.party)
    shown = change_lines(changes, party.party, lang)
    tell(_question(old.contract, new, verdict, warnings, changes=shown))
    if not confirm(short(new.digest)):
        raise NotConfirmedError(need="a person's word", found="no", remedy="nothing was sent")
    # 5.
    shelf.put(new, found, opens)
    known = set(shelf.annex_names(old.contract.digest))
    if prose is not None:
        shelf.put_prose(new, prose)
    body: dict[str, Any] = {
        "kind": kind,
        "contract": new.canonical.decode("utf-8"),
        "recipes": [b64(data) for name, data in found.items() if old.contract.recipe(name) is None],
        "annexes": [b64(data) for name, data in opens.items() if name not in known],
    }
    if verdict is None:
        body["prose"] = None if prose is None else b64(prose)
        _note_change(outbox, new, body)
    else:
        body |= _signed(member, outbox, new, sorted({one.id for one in warnings}))
    row = member.client.post(
        f"/contracts/{old.contract.digest}/amendments",
        body,
        idempotency_key=f"amend-{new.digest[7:47]}-{kind}",
    )
    if verdict is not None:
        _take_over(member, shelf, outbox, new)
    shelf.mark_shown(new)
    follows = {
        TIGHTEN: f"final: it rules from {new.term.effective}; until then version {old.contract.version} does",
        CHANGE: f"next: iriai-node contract sign {new.digest}",
    }[kind]
    told = row if isinstance(row, dict) else {}
    return Answer(
        data={
            "contract": new.digest,
            "supersedes": old.contract.digest,
            "kind": kind,
            "state": told.get("state"),
            "effective": new.term.effective,
            "negotiation": told.get("negotiation"),
            "verdict": None if verdict is None else verdict.digest,
            "changes": [dict(one) for one in changes],
        },
        text=(f"amended   {old.contract.digest}", f"successor {new.digest}", follows),
    )


def _ruling(member: Member, shelf: ContractShelf, new: Contract) -> Held:
    """The contract that the successor names, once it rules here.

    Raises:
        NoSuchThingError: It names none.
        NotSignedError: Not everybody signed it.
    """
    if new.supersedes is None:
        raise NoSuchThingError(
            need="a successor: version and supersedes of the contract in force",
            found="a first version",
            remedy="write the digest of the contract in force after supersedes: iriai-node contract list",
        )
    held = fetch(member, shelf, new.supersedes)
    if not held.is_executed:
        raise NotSignedError(
            need="a contract in force",
            found=f"{new.supersedes}, which not everybody has signed",
            remedy="counter the open offer instead: iriai-node contract counter",
        )
    return held


def _signed(member: Member, outbox: Outbox, new: Contract, acknowledged: list[str]) -> dict[str, Any]:
    """This node's signature over the successor, and the entry about it; durable when it returns."""
    signature = b64(Envelope.seal(new.canonical, CONTRACT_TYPE, member.identity.key).signatures[0][1])
    body = signed_body(member, new.digest, acknowledged)
    slot = f"contract.signed {new.digest} {digest(canonical(body))}"
    with outbox.writing() as letters:
        envelope = letters.seal("contract.signed", body=body, scope=new.digest, slot=slot)
        letters.note(
            kind="contract.signed",
            size_bytes=len(envelope.to_bytes()) + len(signature) + len(new.canonical),
            digest=digest(envelope.payload),
            contract=new.digest,
        )
    return {"signature": signature, "envelope": envelope.to_json()}


def _note_change(outbox: Outbox, new: Contract, body: dict[str, Any]) -> None:
    data = canonical(body)
    with outbox.writing() as letters:
        letters.note(kind="contract.change", size_bytes=len(data), digest=digest(data), contract=new.digest)


def _take_over(member: Member, shelf: ContractShelf, outbox: Outbox, new: Contract) -> None:
    """Fetches the broker's signature, and the receipt of this node's entry."""
    with contextlib.suppress(*NOT_YET):
        fetch_envelope(member, shelf, new.digest)
    view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
    collect(member.client, outbox, view, older_than_ms=member.clock.now_ms())


def _question(
    old: Contract,
    new: Contract,
    verdict: Verdict | None,
    warnings: Iterable[LintFinding],
    *,
    changes: tuple[str, ...],
) -> tuple[str, ...]:
    kind = (f"{CHANGE}    negotiated: it takes the signatures of all", "the whole text; it is no signature")
    if verdict is not None:
        proof = "the order of the terms" if verdict.basis == "order" else "the prover"
        kind = (f"{TIGHTEN}   no looser, by {proof}; everybody proves it again", "it, with your signature")
    return (
        f"rules     {old.digest} (version {old.version})",
        f"yours     {new.digest} (version {new.version}), in force from {new.term.effective}",
        *changes,
        "warnings  " + (", ".join(one.id for one in warnings) or "none"),
        kind[0],
        f"sent      {kind[1]}",
    )
