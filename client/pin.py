# SPDX-License-Identifier: Apache-2.0
"""Who the broker is, by one key and one certificate, and nobody else."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from client.errors import (
    BrokerKeyError,
    PeerAnswerError,
    PeerUnreachableError,
    TlsPinError,
)
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import fingerprint, parse_key
from policies.signing import Envelope

__all__ = [
    "BROKER_TYPE",
    "Broker",
    "certificate_digest",
    "certificate_of",
    "leaf_of",
    "pinned_context",
    "read_broker",
    "unreachable",
]


BROKER_TYPE = "application/vnd.iriai.broker.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What the broker says about itself, once its signature holds under the pinned key.

    Attributes:
        origin: Name of the log.
        url: Base URL as members sign it.
        key: Raw Ed25519 key of the broker.
        log_vkey: Verifier key of the log (signed-note form).
        chain_pem: TLS certificate chain, leaf first.
        version: Of the broker's software.
    """

    origin: str
    url: str
    key: bytes
    log_vkey: str
    chain_pem: str
    version: str

    @property
    def tls_sha256(self) -> str:
        """SHA-256 of the leaf certificate, 64 hex digits: what invitations pin."""
        return certificate_digest(self.chain_pem)


def certificate_digest(chain_pem: str) -> str:
    """SHA-256 (hex) of the first certificate of a PEM chain.

    Raises:
        TlsPinError: There is none.
    """
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(leaf_of(chain_pem))).hexdigest()
    except ValueError as error:
        raise TlsPinError(
            need="a PEM certificate", found="something else", remedy="ask the operator for a new invitation"
        ) from error


def leaf_of(chain_pem: str) -> str:
    """The first certificate of a PEM chain.

    Raises:
        ValueError: There is none.
    """
    end = "-----END CERTIFICATE-----"
    return chain_pem[: chain_pem.index(end) + len(end)] + "\n"


def certificate_of(host: str, port: int, *, tls_sha256: str, timeout_s: float) -> str:
    """PEM of the certificate that a host shows, once it is the one that an invitation pins.

    Raises:
        TlsPinError: It is another one.
        PeerUnreachableError: Nothing answers there, or it speaks no TLS.
    """
    try:
        pem = ssl.get_server_certificate((host, port), timeout=timeout_s)
    except (OSError, ValueError) as error:
        raise unreachable(f"{host}:{port}", error) from error
    found = certificate_digest(pem)
    if found != tls_sha256:
        raise TlsPinError(
            need=f"the certificate sha256:{tls_sha256}",
            found=f"sha256:{found}",
            remedy="do not go on: somebody stands between, or the invitation is old; telephone the operator",
        )
    return pem


def pinned_context(leaf_pem: str) -> ssl.SSLContext:
    """A TLS context that trusts one certificate and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf itself is the anchor
    context.load_verify_locations(cadata=leaf_pem)
    return context


def read_broker(document: bytes, key: bytes) -> Broker:
    """The broker's document about itself, once it is signed by the key that the caller expects.

    Raises:
        BrokerKeyError: Another key signed it, or it names another one.
        PeerAnswerError: It has another form.
    """
    try:
        facts = Envelope.from_bytes(document).open_as(BROKER_TYPE, key)
        broker = Broker(
            origin=facts["origin"],
            url=facts["url"],
            key=parse_key(facts["broker_key"]),
            log_vkey=facts["log_vkey"],
            chain_pem=facts["tls_chain_pem"],
            version=facts["version"],
        )
    except SignatureInvalidError as error:
        raise _other_key(key, "a document by another key") from error
    except (EncodingError, KeyError, TypeError) as error:
        raise PeerAnswerError(
            need="the broker's signed document",
            found="another form",
            remedy="check the URL and both versions",
        ) from error
    if broker.key != key:
        raise _other_key(key, fingerprint(broker.key))
    return broker


def _other_key(key: bytes, found: str) -> BrokerKeyError:
    return BrokerKeyError(
        need=f"the broker key {fingerprint(key)}",
        found=found,
        remedy="compare the fingerprint with the operator by telephone; do not go on before it agrees",
    )


def unreachable(where: str, error: Exception) -> PeerUnreachableError | TlsPinError:
    """Why a connection failed: nobody answers, or somebody else does."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TlsPinError(
                need=f"the pinned certificate at {where}",
                found="another certificate",
                remedy="do not go on: somebody stands between, or the broker's certificate was replaced",
            )
        cause = cause.__cause__ or cause.__context__
    return PeerUnreachableError(
        need=f"an answer of the broker at {where}",
        found=type(error).__name__,
        remedy="check the network and the URL (iriai-node doctor), then try again; nothing was lost",
    )
