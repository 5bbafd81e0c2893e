# SPDX-License-Identifier: Apache-2.0
"""A person's word on exactly one digest in exactly one round, kept on this node until it is withdrawn.

    contracts/<64 hex>/consent.json
    {"schema":"iriai-consent/1","contract":digest,"party":short name,"at":"2026-11-20T09:00:00Z",
     "acknowledged":[lint warning ids, sorted],"prose":"<64 hex>"|null,
     "negotiation":"neg_…","round":number}

- It is written before ACCEPTED is sent and is the only thing by which the node ever sends VERIFIED: the
  next `iriai-node contract sign`, or the worker, acts on it later without asking again, for this digest
  in this round alone: the same text in another negotiation or round takes a word of its own.
- It ends with its lane, unless the lane ends by being signed.
- A consent that cannot be read, or that is about something else, is no consent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.errors import NotConfirmedError, NotSignedError
from client.settings import sync_folder, write_durably
from policies.contract.errors import UnacknowledgedError
from policies.contract.lint import lint
from policies.encoding import canonical, parse
from policies.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Collection

    from client.contract.shelf import ContractShelf
    from policies.contract import Contract
    from policies.contract.lint import LintFinding

__all__ = [
    "Consent",
    "consent_for",
    "consent_of",
    "end_consents",
    "give_consent",
    "unacknowledged",
    "warnings_of",
    "withdraw_consent",
]

_SCHEMA: Final = "iriai-consent/1"
_FILE: Final = "consent.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a person agreed to, in which round, and which warnings they acknowledged by id."""

    contract: str
    party: str
    at: str
    acknowledged: tuple[str, ...]
    prose: str | None
    negotiation: str
    round: int

    def to_json(self) -> dict[str, Any]:
        """The object of the file."""
        return {
            "schema": _SCHEMA,
            "contract": self.contract,
            "party": self.party,
            "at": self.at,
            "acknowledged": list(self.acknowledged),
            "prose": self.prose,
            "negotiation": self.negotiation,
            "round": self.round,
        }


def consent_of(shelf: ContractShelf, contract: Contract) -> Consent | None:
    """The consent to a contract, or ``None``.

    Raises:
        NotConfirmedError: There is one that cannot be read, or that is about something else.
    """
    try:
        data = (shelf.folder(contract.digest) / _FILE).read_bytes()
    except FileNotFoundError:
        return None
    found = _read(data)
    bound = contract.prose.sha256 if contract.prose is not None else None
    if found is None or (found.contract, found.prose) != (contract.digest, bound):
        raise _no_consent(contract)
    return found


def consent_for(shelf: ContractShelf, contract: Contract, negotiation: str, number: int) -> Consent | None:
    """The consent to a contract in this round of this negotiation, or ``None``.

    Raises:
        NotConfirmedError: See `consent_of`.
    """
    found = consent_of(shelf, contract)
    if found is None or (found.negotiation, found.round) != (negotiation, number):
        return None
    return found


def _read(data: bytes) -> Consent | None:
    """The consent in a file, or ``None`` if it is none."""
    try:
        tree = parse(data)
        found = Consent(
            contract=tree["contract"],
            party=tree["party"],
            at=tree["at"],
            acknowledged=tuple(tree["acknowledged"]),
            prose=tree["prose"],
            negotiation=tree["negotiation"],
            round=tree["round"],
        )
    except (EncodingError, KeyError, TypeError):
        return None
    return found if canonical(found.to_json()) == data else None


def give_consent(shelf: ContractShelf, consent: Consent) -> None:
    """Writes a consent durably."""
    write_durably(shelf.folder(consent.contract) / _FILE, canonical(consent.to_json()))


def withdraw_consent(shelf: ContractShelf, contract: str) -> bool:
    """Deletes a consent, so that nothing is signed by it any more; gives whether there was one."""
    path = shelf.folder(contract) / _FILE
    if not path.exists():
        return False
    path.unlink()
    sync_folder(
        path.parent
    )  # a withdrawal that a power cut undoes would be a signature against somebody's will
    return True


def end_consents(shelf: ContractShelf, negotiation: str, live: tuple[str, int] | None) -> None:
    """Deletes every consent of a negotiation but that to its present lane.

    Args:
        shelf: Contracts of this node.
        negotiation: ``neg_…``.
        live: Digest and round of a lane that is signed, or can still be; None: there is none.
    """
    for name in shelf.digests():
        path = shelf.folder(name) / _FILE
        found = _read(path.read_bytes()) if path.exists() else None
        if found is not None and found.negotiation == negotiation and (name, found.round) != live:
            withdraw_consent(shelf, name)


def _no_consent(contract: Contract) -> NotConfirmedError:
    return NotConfirmedError(
        need=f"a person's word on {contract.digest}",
        found=f"a {_FILE} that says something else",
        remedy=f"sign again: iriai-node contract sign {contract.digest}",
    )


def warnings_of(contract: Contract) -> tuple[LintFinding, ...]:
    """The linter's warnings about a contract.

    Raises:
        NotSignedError: It has errors.
    """
    found = lint(contract)
    for one in found:
        if one.severity == "error":
            raise NotSignedError(
                need=f"{one.rule}: {one.need}", found=one.found, remedy=one.remedy, clause=one.clause
            )
    return found


def unacknowledged(missing: Collection[str]) -> UnacknowledgedError:
    """The refusal of a signature that leaves these warnings open."""
    return UnacknowledgedError(
        need="each warning acknowledged: " + ", ".join(sorted(missing)),
        found="no word on them",
        remedy="read them, then sign with --acknowledge ID for each, or negotiate the terms",
    )
