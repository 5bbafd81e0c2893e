# SPDX-License-Identifier: Apache-2.0
"""What two operators sign before the log is repaired, ended or gets another key: one document, by each.

The command that wants to do it prints the document: canonical JSON that names the log, what is to be done,
and the digests of everything that it depends on. Each operator reads it, signs it on their own machine
(``iriai-broker log approve``), and hands over a small file. Nobody has to be reachable, and the log, which is
frozen at that time, is not needed.

    approval = approve(key, subject)                       {"approval": DSSE envelope, "key": "ed25519:…"}
    names = approvers(subject, [approval, …], name_of)     raises unless two different people signed this
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from broker.log.errors import LogApprovalError
from policies.encoding import canonical, digest
from policies.errors import EncodingError, IdentityError
from policies.identity import key_text, parse_key
from policies.limits import APPROVAL_BYTES, APPROVALS_NEEDED
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from policies.identity import SigningKey

__all__ = ["APPROVAL_TYPE", "approve", "approvers"]

APPROVAL_TYPE: Final = "application/vnd.iriai.log-approval.v1+json"
"""DSSE payload type; the payload is the document."""


def approve(key: SigningKey, subject: bytes) -> bytes:
    """An operator's approval of a document, as a file.

    Raises:
        LogApprovalError: It is not a document about a log.
    """
    try:
        document = json.loads(subject)
        whole = isinstance(document, dict) and canonical(document) == subject
    except (ValueError, EncodingError):
        whole = False
    if not whole or not str(document.get("action", "")).startswith("log."):
        raise _refuse(
            "the document that iriai-broker log repair, log succeed or key rotate printed", "something else"
        )
    signed = Envelope.seal(subject, APPROVAL_TYPE, key)
    return canonical({"approval": signed.to_json(), "key": key_text(key.public)})


def approvers(
    subject: bytes, approvals: Iterable[bytes], name_of: Callable[[bytes], str | None]
) -> tuple[str, ...]:
    """Names of the operators that signed exactly this document.

    1. each file is an approval of this document; 2. its key is that of an operator; 3. the signature holds;
    4. there are two different operators.

    Args:
        subject: Canonical bytes of the document.
        approvals: Files from `approve`.
        name_of: Name of the operator that has a public key; None if nobody has it.

    Raises:
        LogApprovalError: Steps 1 to 4.
    """
    names: dict[bytes, str] = {}
    for data in approvals:
        key, envelope = _parts(data)
        if envelope.payload_type != APPROVAL_TYPE or envelope.payload != subject:  # 1.
            raise _refuse(
                f"approvals of the document {digest(subject)}", f"one of {digest(envelope.payload)}"
            )
        name = name_of(key)
        if name is None:  # 2.
            raise _refuse("a key of an operator", key_text(key))
        if not envelope.signed_by(key):  # 3.
            raise _refuse(f"a signature by {name}", "one that does not verify")
        names[key] = name
    if len(names) < APPROVALS_NEEDED:  # 4.
        signed = ", ".join(sorted(names.values())) or "nobody"
        raise _refuse(f"approvals of {APPROVALS_NEEDED} operators", signed)
    return tuple(sorted(names.values()))


def _parts(data: bytes) -> tuple[bytes, Envelope]:
    if len(data) > 2 * APPROVAL_BYTES:
        raise _refuse("an approval file", f"{len(data)} bytes")
    try:
        parsed: Any = json.loads(data)
        return parse_key(parsed["key"]), Envelope.from_bytes(canonical(parsed["approval"]))
    except (ValueError, KeyError, TypeError, EncodingError, IdentityError) as error:
        raise _refuse("an approval file", "something else") from error


def _refuse(need: str, found: str) -> LogApprovalError:
    return LogApprovalError(
        need=need,
        found=found,
        remedy="let two operators read the document and run: iriai-broker log approve DOCUMENT --key FILE",
    )
