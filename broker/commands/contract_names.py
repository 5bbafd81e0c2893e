# SPDX-License-Identifier: Apache-2.0
"""What an operator types for a contract: its whole digest, or 12 hex digits of it where they suffice.

    whole_digest(client, "fafe00112233")    # the one listed contract that begins so

A draft that a counter-offer replaced is not listed: it is named by its whole digest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from broker.errors import UsageError
from policies.encoding import is_digest

if TYPE_CHECKING:
    from broker.remote import OperatorClient

__all__ = ["may_name", "whole_digest"]

_SHORT: Final = re.compile(r"(sha256:)?[0-9a-f]{12,64}", re.ASCII)
_REMEDY: Final = "iriai-broker contract list shows the whole ones"


def may_name(name: str) -> bool:
    """Whether a name has the form of a digest, whole or shortened."""
    return _SHORT.fullmatch(name) is not None


def whole_digest(client: OperatorClient, name: str) -> str:
    """The digest behind a name; the broker is asked only if it is not whole.

    Raises:
        UsageError: No digest, or no contract begins so, or several do.
    """
    if is_digest(name):
        return name
    if not may_name(name):
        raise UsageError(
            need="the digest of a contract, or its first 12 hex digits",
            found=ascii(name)[1:-1][:80],
            remedy=_REMEDY,
        )
    start = "sha256:" + name.removeprefix("sha256:")
    listed = {str(one["digest"]) for one in client.get("/contracts")["contracts"]}
    found = [one for one in sorted(listed) if one.startswith(start)]
    if len(found) != 1 or not is_digest(found[0]):
        raise UsageError(need=f"one contract that begins with {start}", found=str(len(found)), remedy=_REMEDY)
    return found[0]
