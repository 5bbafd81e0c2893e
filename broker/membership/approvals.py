# SPDX-License-Identifier: Apache-2.0
"""What an operator approves, byte for byte.

The broker and the operator's command line build it here, each from what it holds itself.
"""

from __future__ import annotations

from typing import Final

from policies.encoding import canonical

__all__ = ["APPROVAL_TYPE", "approval_subject"]

APPROVAL_TYPE: Final = "application/vnd.iriai.approval.v1+json"
"""DSSE payload type of an approval; the payload is `approval_subject`."""


def approval_subject(
    *, org: str, node: str, node_key: str, fleet_key: str, name: str, group: str, country: str
) -> bytes:
    """Canonical bytes of exactly these seven facts; their digest names the approval in the log."""
    return canonical(
        {
            "org": org,
            "node": node,
            "node_key": node_key,
            "fleet_key": fleet_key,
            "name": name,
            "group": group,
            "country": country,
        }
    )
