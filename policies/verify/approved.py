# SPDX-License-Identifier: Apache-2.0
"""What two people of the broker approved, as ``approvals/`` of a bundle has it: small documents by digest.

    {"action": …, "log": origin, "proposal": …, "proposer": …, "what": {…}}

One that is larger than a broker makes any is not read, and is a finding (`policies.verify.reading`); so is
one that no action of an operator names (`policies.verify.approvals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.encoding import digest, parse
from policies.errors import EncodingError
from policies.limits import APPROVAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.verify.history import History

__all__ = ["FOLDER", "approved_what"]

FOLDER = "approvals/"


def approved_what(history: History, action: str, subject: str | None) -> Mapping[str, Any] | None:
    """``what`` of the document that an action names.

    Empty if it is about another action or log, or no such document; None if there is none of this digest.
    """
    name = f"{FOLDER}{(subject or '').removeprefix('sha256:')}.json"
    found = history.files.container.find(name)
    if found is None or found.size > APPROVAL_BYTES:
        return None
    data = history.files[name]
    if digest(data) != subject:  # a finding already
        return None
    try:
        document = parse(data)
        what = document["what"]
        own = (document["action"], document["log"]) == (action, history.checkpoint.origin)
    except (EncodingError, KeyError, TypeError):
        return {}
    return what if own and isinstance(what, dict) else {}
