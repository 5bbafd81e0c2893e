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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from client.errors import (
    BrokerKeyError,
    DigestMismatchError,
    NoSuchThingError,
    NotJoinedError,
    RemoteRefusalError,
)
from client.membership import alias_key, membership
from client.receipts import LogView, collect, fetch_consistency
from client.settings import write_durably
from policies.contract import CONTRACT_TYPE, executed, parse
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
    from client.settings import Home
    from policies.contract import Contract
    from policies.contract.clauses import PartyClause
    from policies.recipe import Recipe

__all__ = ["ContractShelf", "Held", "contract_list", "contract_show", "fetch", "fetch_envelope", "sign"]

_CONFIRM_HEX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A contract on this node.

    Attributes:
        contract: Parsed from its canonical bytes.
        party: The clause that pins this node's key.
        envelope: Its signatures, all of them verified; ``None`` before it is executed.
    """

    contract: Contract
    party: PartyClause
    envelope: Envelope | None

    @property
    def is_executed(self) -> bool:
        """Whether every contributor and the broker have signed."""
        return self.envelope is not None


class ContractShelf:
    """Contracts of one node; parsed ones are kept, because bytes behind a digest cannot change."""

    def __init__(self, home: Home, *, own_key: bytes) -> None:
        self._home = home
        self._own = key_text(own_key)
        self._held: dict[str, Held] = {}
        self._recipes: dict[str, Recipe] = {}

    def digests(self) -> tuple[str, ...]:
        """Digests of the contracts that are here, in order."""
        if not self._home.contracts.exists():
            return ()
        return tuple(sorted(f"sha256:{one.name}" for one in self._home.contracts.iterdir() if one.is_dir()))

    def get(self, contract: str) -> Held:
        """The contract of a digest; signatures are verified again unless it was found executed before.

        Raises:
            NoSuchThingError: It is not here, or this node is no party.
            DigestMismatchError: The file was changed.
            IriaiError: The contract does not parse under this version's rules.
        """
        known = self._held.get(contract)
        if known is not None and known.is_executed:
            return known
        folder = self._folder(contract)
        try:
            data = (folder / "contract.json").read_bytes()
        except FileNotFoundError as error:
            raise NoSuchThingError(
                need="a contract on this node",
                found=short(contract),
                remedy=f"iriai-node contract show {contract}",
            ) from error
        parsed = parse(check_digest(data, contract))
        held = Held(contract=parsed, party=self.own_party(parsed), envelope=_executed(folder, parsed))
        self._held[contract] = held
        return held

    def own_party(self, contract: Contract) -> PartyClause:
        """The clause that pins this node's key.

        Raises:
            NoSuchThingError: None does.
        """
        party = contract.party_of_key(self._own)
        if party is None:
            raise NoSuchThingError(
                need="a contract that pins this node's key", found="other keys", remedy="ask who drafted it"
            )
        return party

    def recipe(self, contract: str, recipe: str) -> Recipe:
        """The recipe of a contract, from its annex.

        Raises:
            NoSuchThingError: The contract names no such recipe, or its annex is not here.
            DigestMismatchError: The annex was changed.
        """
        found = self._recipes.get(recipe)
        if found is None:
            from policies.recipe import load

            found = self._recipes[recipe] = load(self.recipe_bytes(contract, recipe))
        return found

    def recipe_bytes(self, contract: str, recipe: str) -> bytes:
        """Bytes of a recipe, once they are the ones that the contract names."""
        path = self._folder(contract) / f"recipe-{recipe.removeprefix('sha256:')}.json"
        if self.get(contract).contract.recipe(recipe) is None or not path.exists():
            raise NoSuchThingError(
                need="a recipe of the contract",
                found=short(recipe),
                remedy=f"iriai-node contract show {contract}",
            )
        return check_digest(path.read_bytes(), recipe)

    def put(self, contract: Contract, annexes: dict[str, bytes]) -> Held:
        """Stores a contract and its annexes, which the caller has checked by digest."""
        folder = self._folder(contract.digest)
        for name, data in annexes.items():
            write_durably(folder / f"recipe-{name.removeprefix('sha256:')}.json", data)
        write_durably(folder / "contract.json", contract.canonical)
        return self.get(contract.digest)

    def put_envelope(self, contract: str, envelope: Envelope) -> Held:
        """Stores the signatures of a contract, once all of them hold.

        Raises:
            NotExecutedError: A signature is missing or does not verify.
        """
        held = self.get(contract)
        executed(held.contract, envelope)
        write_durably(self._folder(contract) / "envelope.json", envelope.to_bytes())
        return self.get(contract)

    def _folder(self, contract: str) -> Any:  # noqa: ANN401  a Path; pathlib stays out of the run-time imports
        if not is_digest(contract):
            raise NoSuchThingError(
                need="sha256: and 64 hex digits",
                found=ascii(contract)[:80],
                remedy="iriai-node contract list",
            )
        return self._home.contracts / contract.removeprefix("sha256:")


def check_digest(data: bytes, wanted: str) -> bytes:
    """The bytes, if they have the digest.

    Raises:
        DigestMismatchError: They do not.
    """
    found = digest(data)
    if found != wanted:
        raise DigestMismatchError(
            need=wanted,
            found=found,
            remedy="fetch it again; if it repeats, report who sent it and do not sign",
        )
    return data


def _executed(folder: Any, contract: Contract) -> Envelope | None:  # noqa: ANN401  a Path
    try:
        envelope = Envelope.from_bytes((folder / "envelope.json").read_bytes())
    except FileNotFoundError:
        return None
    executed(contract, envelope)
    return envelope


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
        NoSuchThingError: It pins this node's key under another organisation or role.
        DigestMismatchError: A recipe is missing or differs.
        IriaiError: A recipe is not sound, or ``sign_by`` is over.
    """
    contract, party = held.contract, held.party
    if contract.broker.key != key_text(member.broker.key):
        raise BrokerKeyError(
            need=f"the broker that this node joined, {fingerprint(member.broker.key)}",
            found=fingerprint(parse_key(contract.broker.key)),
            remedy="do not sign; ask who drafted it",
        )
    if party.org != member.identity.org or party.role != "contributor":
        raise NoSuchThingError(
            need=f"this node's key pinned for contributor {member.identity.org}",
            found=f"{party.role} {party.org}",
            remedy="do not sign; ask for a corrected offer",
        )
    for one in contract.recipes:
        recipe = shelf.recipe(contract.digest, one.recipe_digest)
        strangers = sorted(set(recipe.fields) - set(contract.fields.allow))
        if strangers:
            raise DigestMismatchError(
                need="recipes that read allowed fields only",
                found=", ".join(strangers),
                remedy=f"do not sign: {contract.fields.clause} and recipe {one.id} contradict each other",
            )
    if iso_s(member.clock.now_ms()) >= contract.sign_by:
        raise NoSuchThingError(
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
        raise NotJoinedError(need="a person's word", found="no", remedy="read it: iriai-node contract show")
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
