# SPDX-License-Identifier: Apache-2.0
"""Whose witness key it is: a statement by the organisation's key that everybody knows already.

DSSE, payload type `PAYLOAD_TYPE`, canonical payload::

    {"v":1,"log":origin,"org":org id or the auditor's name,"vkey":"<org>/witness+<hash>+<key>",
     "time":RFC 3339 ms}

- A node signs with the identity key that the contract names, or that is in force for it; an auditor with the
  key under which it was enrolled. Whoever opens a statement brings that key: `open_statement` takes no key
  out of the statement.
- The witness key is a key of its own, of kind 0x04 or 0x06, and its name is ``<org>/witness``.
- A statement is of one log: the same key elsewhere needs another statement.
- The witness key signs it as well, behind the owner: that proves who holds it, under this name and for this
  log. Nobody can name a key that another one holds, or that nobody does. The payload type keeps this apart
  from what a witness key signs otherwise: a cosignature begins with other bytes.
- Statements of earlier versions have no such proof. They open, and are not `proven`; a broker takes none.

Example::

    sealed = seal_statement(
        identity, witness=witness_key, log=origin, org="org_kita", vkey=vkey.text(), time_ms=now_ms
    )
    said = open_statement(sealed, pinned_key, log=origin)
    said.key == vkey and said.proven
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from policies.encoding import canonical, digest
from policies.errors import SignatureInvalidError
from policies.identity import key_id, verify
from policies.log.errors import NoteError, WitnessStatementError
from policies.log.kinds import LABEL, ORIGIN, TIME_MS, VKEY, Kind
from policies.log.mldsa import verify_ml_dsa
from policies.log.vkeys import KeyKind, VerifierKey
from policies.ports import iso_ms, to_ms
from policies.signing import Envelope, pae

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.identity import SigningKey
    from policies.log.cosignature import CosigningKey

__all__ = [
    "PAYLOAD_TYPE",
    "SIGNATURES",
    "WitnessStatement",
    "open_statement",
    "seal_statement",
    "shows_possession",
    "witness_name",
]

Json = Any
PAYLOAD_TYPE = "application/vnd.iriai.witness.v1+json"
SIGNATURES = 2  # the owner's, the witness key's
_FIELDS: Mapping[str, Kind] = {
    "v": Kind("1", lambda value: value == 1 and not isinstance(value, bool)),
    "log": ORIGIN,
    "org": LABEL,
    "vkey": VKEY,
    "time": TIME_MS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessStatement:
    """An opened statement.

    Attributes:
        log: Origin of the log that is witnessed.
        org: Id of the organisation, or name of the auditor.
        key: Of the witness.
        time_ms: When it was stated.
        proven: Whether the witness key signed it too.
        digest: Of the payload; it names the statement's file in a bundle.
    """

    log: str
    org: str
    key: VerifierKey
    time_ms: int
    proven: bool
    digest: str


def witness_name(org: str) -> str:
    """Name of the witness key of an organisation or auditor."""
    return f"{org}/witness"


def _refuse(need: str, found: str) -> WitnessStatementError:
    return WitnessStatementError(
        need=need,
        found=ascii(found)[1:-1][:120],
        remedy="make the statement with the node that holds the witness key, and send it unchanged",
    )


def seal_statement(
    key: SigningKey, *, witness: CosigningKey | None, log: str, org: str, vkey: str, time_ms: int
) -> Envelope:
    """Signs a statement, by its owner and then by the witness key.

    Args:
        key: Identity key of the node, or enrolled key of the auditor.
        witness: The witness key; None leaves the proof out, as earlier versions did.
        log: Origin of the log.
        org: Id of the organisation, or name of the auditor.
        vkey: Verifier key of the witness.
        time_ms: Of the signer's clock.

    Raises:
        WitnessStatementError: A field is not of the format.
        WeakKeyError: The witness key proves nothing.
    """
    payload = {"v": 1, "log": log, "org": org, "vkey": vkey, "time": iso_ms(time_ms)}
    data = canonical(payload)
    _checked(payload, data, key.public)
    sealed = Envelope.seal(data, PAYLOAD_TYPE, key)
    if witness is None:
        return sealed
    proof = (key_id(witness.public), witness.sign(pae(PAYLOAD_TYPE, data)))
    return replace(sealed, signatures=(*sealed.signatures, proof))


def open_statement(envelope: Envelope, public_key: bytes, *, log: str) -> WitnessStatement:
    """The statement that this key signed about this log.

    1. payload type and signature; 2. the first signature has this key's ``keyid``, and there is at most one
    more; 3. canonical payload; 4. its fields; 5. of this log; 6. the witness key is one, is named after the
    organisation, and is not the signing key itself; 7. the second signature, where there is one, is the
    witness key's.

    Raises:
        SignatureInvalidError: Step 1.
        EncodingError: Step 3.
        WitnessStatementError: Steps 2 and 4 to 7.
        WeakKeyError: Step 6, a key under which a signature proves nothing.
    """
    payload = envelope.open_as(PAYLOAD_TYPE, public_key)
    hints = [hint for hint, _ in envelope.signatures]
    if hints[0] != key_id(public_key) or len(hints) > SIGNATURES:
        raise _refuse("a signature with the key's own id, then the witness key's", "other signatures or ids")
    statement = _checked(payload, envelope.payload, public_key)
    if statement.log != log:
        raise _refuse(f"a statement about {log}", statement.log)
    if len(hints) == 1:
        return statement
    if not shows_possession(envelope, statement.key):
        raise _refuse(f"a signature by {statement.key.name}, the witness key itself", "one by another key")
    return replace(statement, proven=True)


def shows_possession(envelope: Envelope, key: VerifierKey) -> bool:
    """Whether the second signature of a statement is by this witness key; who states it is not looked at."""
    if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != SIGNATURES:
        return False
    hint, signature = envelope.signatures[1]
    check = verify_ml_dsa if key.kind is KeyKind.ML_DSA_44 else verify
    try:
        check(key.public_key, signature, pae(PAYLOAD_TYPE, envelope.payload))
    except SignatureInvalidError:
        return False
    return hint == key_id(key.public_key)


def _checked(payload: Json, data: bytes, public_key: bytes) -> WitnessStatement:
    """Steps 4 and 6."""
    if not isinstance(payload, dict) or set(payload) != set(_FIELDS):
        raise _refuse("fields " + " ".join(_FIELDS), "other fields")
    for name, kind in _FIELDS.items():
        if not kind.holds(payload[name]):
            raise _refuse(f"{name}: {kind.name}", "another value")
    try:
        key = VerifierKey.parse(payload["vkey"])
    except NoteError as error:
        raise _refuse(error.need, error.found) from error
    if key.kind is KeyKind.LOG:
        raise _refuse("a vkey of type 0x04 or 0x06", payload["vkey"])
    if key.name != witness_name(payload["org"]):
        raise _refuse(f"the key name {witness_name(payload['org'])}", key.name)
    if key.public_key == public_key:
        raise _refuse("a witness key of its own", "the key that signs the statement")
    return WitnessStatement(
        log=payload["log"],
        org=payload["org"],
        key=key,
        time_ms=to_ms(payload["time"]),
        proven=False,
        digest=digest(data),
    )
