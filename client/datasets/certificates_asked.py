# SPDX-License-Identifier: Apache-2.0
"""Whether a contract of this node asks for the certificate of a data set at all.

A recipe without a ``quality`` block trains on data whose certificate says "refused": then the verdict is
information for the owner, and refuses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.contract.reading import standing_of
from client.contract.shelf import ContractShelf
from policies.contract.lifecycle import ACTIVE, HALTED, PENDING
from policies.errors import IriaiError

if TYPE_CHECKING:
    from client.identity import NodeIdentity
    from client.settings import Home

__all__ = ["certificate_asked"]

_BINDS: Final = (ACTIVE, HALTED, PENDING)


def certificate_asked(home: Home, identity: NodeIdentity, dataset: str, *, now_ms: int) -> bool | None:
    """Whether a recipe of a binding contract that reads the data set requires checks; None if none reads it.

    A contract that cannot be read leaves the answer open: nothing is said to be unasked that may be asked.
    """
    shelf = ContractShelf(home, own_key=identity.key.public)
    asked: list[bool] = []
    for digest in shelf.digests():
        try:
            held = shelf.get(digest)
            if not held.is_executed or standing_of(shelf, held, now_ms) not in _BINDS:
                continue
            asked += [
                shelf.recipe(digest, one.recipe_digest).quality is not None
                for one in held.contract.recipes
                if dataset in one.datasets_of(held.party.party)
            ]
        except IriaiError:
            return None
    return any(asked) if asked else None
