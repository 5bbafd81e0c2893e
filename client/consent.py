# SPDX-License-Identifier: Apache-2.0
"""A person's word on exactly one digest, kept on this node until it is withdrawn.

    contracts/<64 hex>/consent.json
    {"schema":"iriai-consent/1","contract":digest,"party":short name,"at":"2026-11-20T09:00:00Z",
     "acknowledged":[lint warning ids, sorted],"prose":"<64 hex>"|null}

- It is written before ACCEPTED is sent and is the only thing by which the node ever sends VERIFIED: the
  next `iriai-node contract sign`, or the worker, acts on it later without asking again, for this digest
  alone.
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

    from client.shelf import ContractShelf
    from policies.contract import Contract
    from policies.contract.lint import LintFinding

__all__ = [
    "Consent",
    "consent_of",
    "give_consent",
    "unacknowledged",
    "warnings_of",
    "withdraw_consent",
]

_SCHEMA: Final = "iriai-consent/1"
_FILE: Final = "consent.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a person agreed to, and which warnings they acknowledged by id."""

    contract: str
    party: str
    at: str
    acknowledged: tuple[str, ...]
    prose: str | None

    def to_json(self) -> dict[str, Any]:
        """The object of the file."""
        return {
            "schema": _SCHEMA,
            "contract": self.contract,
            "party": self.party,
            "at": self.at,
            "acknowledged": list(self.acknowledged),
            "prose": self.prose,
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
    try:
        tree = parse(data)
        found = Consent(
            contract=tree["contract"],
            party=tree["party"],
            at=tree["at"],
            acknowledged=tuple(tree["acknowledged"]),
            prose=tree["prose"],
        )
    except (EncodingError, KeyError, TypeError) as error:
        raise _no_consent(contract) from error
    bound = contract.prose.sha256 if contract.prose is not None else None
    if canonical(found.to_json()) != data or (found.contract, found.prose) != (contract.digest, bound):
        raise _no_consent(contract)
    return found


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
