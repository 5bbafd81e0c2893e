# SPDX-License-Identifier: Apache-2.0
"""Who signed a contract: one DSSE envelope over the canonical bytes, n Ed25519 signatures.

- ``keyid`` decides nothing: for each party the key that the contract pins is tried, and parties are counted,
  not signatures.
- **Executed** means a valid signature of every contributor and of the broker. That they were in the log
  before ``sign_by`` is the log's statement, not the envelope's.
- The payload is parsed once, by `open_contract`; everybody works on the object that it returns.
"""

from __future__ import annotations

from typing import Final

from policies.contract.clauses import Contract, parse
from policies.contract.errors import ContractSignatureError, NotExecutedError
from policies.identity import SigningKey, parse_key
from policies.limits import CONTRACT_SIGNATURES
from policies.signing import Envelope

__all__ = ["CONTRACT_TYPE", "executed", "open_contract", "seal", "signers"]

CONTRACT_TYPE: Final = "application/vnd.iriai.contract.v1+json"


def seal(contract: Contract, *keys: SigningKey) -> Envelope:
    """The contract's envelope, signed by these keys (none yet is fine: signatures are added as they come)."""
    return Envelope.seal(contract.canonical, CONTRACT_TYPE, *keys)


def open_contract(envelope: Envelope) -> Contract:
    """The contract in an envelope, parsed strictly. Says nothing about signatures: see `executed`.

    Raises:
        ContractSignatureError: Another payload type, or more signatures than parties can have.
        NotCanonicalError: The payload is not canonical.
        ContractInvalidError: The payload is no contract.
    """
    _check_envelope(envelope)
    return parse(envelope.payload)


def signers(contract: Contract, envelope: Envelope) -> tuple[str, ...]:
    """Parties whose pinned key signed exactly these bytes, each once, sorted.

    Raises:
        ContractSignatureError: The envelope holds another type or other bytes.
    """
    _check_envelope(envelope)
    if envelope.payload != contract.canonical:
        raise ContractSignatureError(
            need=f"an envelope over {contract.digest}",
            found="one over other bytes",
            remedy="fetch contract and envelope again by the digest",
        )
    return tuple(sorted(one.party for one in contract.parties if envelope.signed_by(parse_key(one.key))))


def executed(contract: Contract, envelope: Envelope) -> None:
    """Returns if every contributor and the broker signed by the pinned key.

    Raises:
        ContractSignatureError: The envelope holds another type or other bytes.
        NotExecutedError: Names who has not signed.
    """
    signed = signers(contract, envelope)
    needed = [*contract.contributors, contract.broker]
    missing = [one for one in needed if one.party not in signed]
    if missing:
        raise NotExecutedError(
            clause=missing[0].clause,
            need=f"{len(needed)} signatures over {contract.digest}",
            found=f"{len(needed) - len(missing)}; not signed by " + " ".join(one.party for one in missing),
            remedy="wait for the signatures that are missing, or compare key fingerprints by another way",
        )


def _check_envelope(envelope: Envelope) -> None:
    if envelope.payload_type != CONTRACT_TYPE:
        raise ContractSignatureError(
            need=f"payload type {CONTRACT_TYPE}",
            found=ascii(envelope.payload_type)[:80],
            remedy="fetch the right document",
        )
    if len(envelope.signatures) > CONTRACT_SIGNATURES:
        raise ContractSignatureError(
            need=f"at most {CONTRACT_SIGNATURES} signatures",
            found=str(len(envelope.signatures)),
            remedy="send each signature once",
        )
