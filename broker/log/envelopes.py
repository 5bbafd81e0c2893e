# SPDX-License-Identifier: Apache-2.0
"""Envelopes as they are stored, compared with the entries that name them.

An entry's body has the digest of its envelope's payload, and the tree has the body: whoever changes an
envelope in the database is found out without a key. `damaged_envelope` names the first entry whose envelope
is missing, is no envelope, has another payload, or whose row says something else than the payload does. An
envelope of an entry that has none is damage as well.

Signatures are not verified here: they need keys, which are an audit's business.
"""

from __future__ import annotations

import binascii
import json
import re
from typing import TYPE_CHECKING, Final

from sqlalchemy import or_, select

from broker.log.errors import LogFrozenError
from broker.store import tables
from policies.encoding import sha256
from policies.errors import EncodingError
from policies.log.schema import SCHEMA
from policies.signing import Envelope

if TYPE_CHECKING:
    from typing import Any

    from broker.store import Session

__all__ = ["damaged_envelope", "stored_envelope"]

_ENTRY = tables.log_entry
_ENVELOPE = tables.log_envelope
_MEMBER_MADE: Final = tuple(name.value for name, schema in SCHEMA.items() if schema.member_made)
_CHUNK: Final = 2_000
_USUAL: Final = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/]+=*)","payloadType":"[a-z0-9./+]+",'
    rb'"signatures":\[\{"keyid":"([0-9a-f]{16})","sig":"[A-Za-z0-9+/]{86}=="\}\]\}'
)
_NAMES: Final = re.compile(rb'\{"actor":"[0-9a-z]+","env":(?:null|"(sha256:[0-9a-f]{64})"),')


def stored_envelope(index: int, dsse: bytes) -> Envelope:
    """The envelope of an entry, from its bytes in the database.

    Raises:
        LogFrozenError: They are not one.
    """
    try:
        return Envelope.from_bytes(bytes(dsse))
    except EncodingError as error:
        raise LogFrozenError(
            need=f"the envelope of entry {index} as it came",
            found=error.found,
            remedy="restart the broker, which then says more; restore a backup, then: log repair",
        ) from error


def damaged_envelope(session: Session) -> str | None:
    """What is wrong with the first damaged envelope; one pass over those entries that may have one."""
    query = (
        select(_ENTRY.c.idx, _ENTRY.c.body, *(one for one in _ENVELOPE.c if one.name != "idx"))
        .outerjoin(_ENVELOPE, _ENVELOPE.c.idx == _ENTRY.c.idx)
        .where(or_(_ENTRY.c.type.in_(_MEMBER_MADE), _ENVELOPE.c.idx.is_not(None)))
        .order_by(_ENTRY.c.idx)
    )
    for row in session.execute(query, execution_options={"yield_per": _CHUNK}):
        if (damage := _damage(row)) is not None:
            return f"the envelope of entry {row.idx} {damage}"
    return None


def _damage(row: Any) -> str | None:  # noqa: ANN401  a row of the query
    named = _named(row.body)
    if row.dsse is None or named is None:
        return None if row.dsse is None and named is None else "is missing, or should not be there"
    try:
        data, signers = _parts(bytes(row.dsse))
        payload = json.loads(data)
        said = (payload["chain"], payload["seq"], payload["seen"]["size"])
    except (EncodingError, ValueError, KeyError, TypeError):
        return "is none"
    found = sha256(data)
    if f"sha256:{found.hex()}" != named:
        return "has another payload than its entry names"
    if bytes(row.env) != found or said != (row.chain, row.seq, row.seen_size):
        return "has a row that differs from its payload"
    if signers != [row.signer]:
        return "has other signatures than its row says"
    return None


def _parts(dsse: bytes) -> tuple[bytes, list[str]]:
    """Payload and ids of the signers; of the usual form without a whole reading, a start has to be quick."""
    usual = _USUAL.fullmatch(dsse)
    if usual is not None:
        return binascii.a2b_base64(usual[1], strict_mode=True), [usual[2].decode("ascii")]
    envelope = Envelope.from_bytes(dsse)
    return envelope.payload, [hint for hint, _ in envelope.signatures]


def _named(body: bytes) -> str | None:
    """What an entry names as its envelope; a body that is no entry is found by its hash."""
    usual = _NAMES.match(body)
    if usual is not None:
        return None if usual[1] is None else usual[1].decode("ascii")
    try:
        named = json.loads(bytes(body))["env"]
    except (ValueError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) else None
