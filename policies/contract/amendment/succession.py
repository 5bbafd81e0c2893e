# SPDX-License-Identifier: Apache-2.0
"""What makes a contract the successor of another, and a request about the one the same about the other.

- A successor has the contract id of its predecessor, its version plus one, and names its digest. A short name
  stays with its organisation: notices, votes and budgets are counted by it over all versions.
- A request that names the contract it is asked under (`Join`: which digest is superseded, by which version)
  means its own contract. `as_under` gives the request that means the same under another one; without it, no
  two contracts could ever be compared on such requests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from policies.contract.errors import NotASuccessorError
from policies.contract.requests import Join, Request

if TYPE_CHECKING:
    from policies.contract.clauses import Contract

__all__ = ["as_under", "check_succession"]


def check_succession(old: Contract, new: Contract) -> None:
    """Returns if the new contract says that it follows the old one.

    1. the same contract id
    2. the next version
    3. the digest of the old one
    4. no short name goes to another organisation, and no organisation to another short name

    Raises:
        NotASuccessorError: It says something else.
    """
    for what, need, found in (
        ("contract_id", old.contract_id, new.contract_id),  # 1
        ("version", str(old.version + 1), str(new.version)),  # 2
        ("supersedes", old.digest, str(new.supersedes)),  # 3
    ):
        if need != found:
            raise NotASuccessorError(
                need=f"{what} {need}",
                found=found,
                remedy="amend the contract that is in force, by its digest",
            )
    was, becomes = ({one.party: one.org for one in each.parties} for each in (old, new))  # 4
    for name, org in becomes.items():
        known = next((one for one, other in was.items() if other == org), name)
        if was.get(name, org) != org or known != name:
            raise NotASuccessorError(
                need=f"{was.get(name, org)} as {known}, as before",
                found=f"{org} as {name}",
                remedy="leave each organisation its short name; who is new gets a new one",
                clause=f"party-{name}",
            )


def as_under(request: Request, meant: Contract, other: Contract) -> Request:
    """The request that says about the other contract what this one says about the contract it means."""
    if not isinstance(request, Join):
        return request
    version = None if request.version is None else request.version - meant.version + other.version
    supersedes = other.digest if request.supersedes == meant.digest else request.supersedes
    return replace(request, supersedes=supersedes, version=version)
