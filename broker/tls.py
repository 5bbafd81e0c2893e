# SPDX-License-Identifier: Apache-2.0
"""The certificate of the public listener: one that `init` makes for the URL's host, or the operator's own.

- The one that we make is P-256, self-signed, no CA, for the URL's host; of a loopback address for
  ``localhost`` and ``127.0.0.1`` both, because passkeys need a name and nodes may use the number. Members
  trust it because the invitation carries its digest, not because of a name.
- The operator's own file must hold the leaf first and, last, the certificate that signed itself, so that
  members can be given everything that they need to verify the connection.
- The pin is the SHA-256 of the leaf certificate (DER).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import TlsInvalidError
from policies.ports import Clock, Entropy, from_ms

__all__ = ["TlsMaterial", "check_own", "make_certificate", "pin_of", "split_url"]

_VALID_DAYS = 825
_BACKDATE = dt.timedelta(days=1)  # a member's clock may be behind
_COMMON_NAME_CHARS = 64  # X.520 upper bound


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """Certificate chain and private key as PEM, and the pin of the leaf (64 hex digits)."""

    chain_pem: bytes
    key_pem: bytes
    pin: str


def split_url(url: str) -> tuple[str, int]:
    """Host and port of the public URL.

    Raises:
        TlsInvalidError: Not ``https://host:port`` and nothing behind it.
    """
    remedy = "give it as https://host:port, as the members will reach it"
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise TlsInvalidError(
            need="a URL with a port number", found=ascii(url)[:80], remedy=remedy
        ) from error
    plain = not parts.path and not parts.query and not parts.fragment and parts.username is None
    if parts.scheme != "https" or not parts.hostname or not plain:
        raise TlsInvalidError(need="an https URL without a path", found=ascii(url)[:80], remedy=remedy)
    return parts.hostname, port


def pin_of(chain_pem: bytes) -> str:
    """SHA-256 of the first certificate of a PEM chain, 64 hex digits: what an invitation pins."""
    leaf = _load_chain(chain_pem)[0]
    return hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).hexdigest()


def make_certificate(url: str, *, clock: Clock, entropy: Entropy) -> TlsMaterial:
    """A fresh key and a certificate for the host of the URL, valid for 825 days."""
    host, _ = split_url(url)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:_COMMON_NAME_CHARS])])
    now = from_ms(clock.now_ms())
    own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(entropy.token_bytes(19), "big") | 1)
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_signing_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(own_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return TlsMaterial(chain_pem=chain_pem, key_pem=key_pem, pin=pin_of(chain_pem))


def check_own(url: str, chain_pem: bytes, key_pem: bytes, *, clock: Clock) -> TlsMaterial:
    """The operator's own certificate and key, once they fit the URL, each other and the time.

    Raises:
        TlsInvalidError: Another host, another key, expired, or a chain without its self-signed end.
    """
    remedy = "give a PEM file with the server's certificate first and its root last, and its key"
    host, _ = split_url(url)
    chain = _load_chain(chain_pem)
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise TlsInvalidError(need="an unencrypted PEM key", found="something else", remedy=remedy) from error
    leaf = chain[0]
    if _spki(key.public_key()) != _spki(leaf.public_key()):
        raise TlsInvalidError(need="the certificate's own key", found="another key", remedy=remedy)
    if not _covers(leaf, host):
        raise TlsInvalidError(need=f"a certificate for {host}", found="other names", remedy=remedy)
    now = from_ms(clock.now_ms())
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        found = f"valid until {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise TlsInvalidError(need="a certificate that is valid today", found=found, remedy=remedy)
    if chain[-1].issuer != chain[-1].subject:
        raise TlsInvalidError(need="the root as last certificate", found="an open chain", remedy=remedy)
    return TlsMaterial(chain_pem=chain_pem, key_pem=key_pem, pin=pin_of(chain_pem))


def _load_chain(chain_pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise TlsInvalidError(
            need="PEM certificates", found="something else", remedy="point to the certificate file"
        ) from error


def _names(host: str) -> list[x509.GeneralName]:
    """The names that the certificate of a host has."""
    both = ("localhost", "127.0.0.1")
    names = dict.fromkeys([host, *both] if host in {*both, "::1"} else [host])
    return [_general_name(one) for one in names]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _covers(leaf: x509.Certificate, host: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    wanted = _general_name(host)
    if wanted in list(names):
        return True
    parent = host.partition(".")[2]
    return isinstance(wanted, x509.DNSName) and x509.DNSName(f"*.{parent}") in list(names)


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _spki(key: object) -> bytes:
    public_bytes = getattr(key, "public_bytes", None)
    if public_bytes is None:
        return b""
    spki: bytes = public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return spki
