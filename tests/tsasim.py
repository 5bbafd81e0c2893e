# SPDX-License-Identifier: Apache-2.0
"""A time-stamping authority (RFC 3161) in this process: a root, a signing certificate, replies in DER.

The reply's CMS leaves the certificates out: the client was given them beforehand. `TsaSim` can be told to lie.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from policies.ports import from_ms

__all__ = ["TsaSim"]

SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
SIGNED_DATA, TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE, MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2036, 1, 1, tzinfo=dt.UTC)


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element."""
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def seq(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def set_of(*parts: bytes) -> bytes:
    return der(0x31, *sorted(parts))


def integer(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(text: str) -> bytes:
    first, second, *rest = (int(one) for one in text.split("."))
    out = bytes([first * 40 + second])
    for value in rest:
        groups = [value & 0x7F]
        while value := value >> 7:
            groups.insert(0, value & 0x7F | 0x80)
        out += bytes(groups)
    return der(0x06, out)


def octets(data: bytes) -> bytes:
    return der(0x04, data)


def algorithm(name: str) -> bytes:
    return seq(oid(name))


def _certificate(
    name: str, key: Any, *, by: Any = None, issuer: str = "", stamps: bool = False
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer or name))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        .not_valid_before(START)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=not stamps, path_length=None), critical=True)
    )
    if stamps:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(by or key, hashes.SHA256())


def _key(name: str) -> Any:
    return ec.derive_private_key(
        int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") >> 1, ec.SECP256R1()
    )


@dataclass
class TsaSim:
    """The authority. What it is told to lie about replaces the truth in its next replies."""

    now_ms: int
    name: str = "tsa"
    status: int = 0
    imprint: bytes | None = None
    nonce: int | None = None
    garbage: bytes | None = None
    http_status: int = 200
    asked: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._root_key, self._key = _key(f"{self.name} root"), _key(self.name)
        self.root = _certificate(f"{self.name} root", self._root_key)
        self.leaf = _certificate(
            self.name, self._key, by=self._root_key, issuer=f"{self.name} root", stamps=True
        )

    @property
    def pem(self) -> bytes:
        """What an operator keeps in a file: root and signing certificate."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in (self.root, self.leaf))

    @property
    def transport(self) -> httpx.MockTransport:
        """For httpx."""
        return httpx.MockTransport(self._serve)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/timestamp-query"
        self.asked.append(request.content)
        return httpx.Response(self.http_status, content=self.reply(request.content))

    def reply(self, query: bytes) -> bytes:
        """The answer to a question: TimeStampResp."""
        if self.garbage is not None:
            return self.garbage
        from rfc3161_client._rust import parse_timestamp_request

        asked = parse_timestamp_request(query)
        status = seq(integer(self.status))
        if self.status > 1:
            return seq(status)
        imprint = self.imprint or asked.message_imprint.message
        made = from_ms(self.now_ms).strftime("%Y%m%d%H%M%SZ").encode()
        info = seq(
            integer(1),
            oid("1.3.6.1.4.1.99999.1"),
            seq(algorithm(SHA256), octets(imprint)),
            integer(1),
            der(0x18, made),
            integer(asked.nonce if self.nonce is None else self.nonce),
        )
        return seq(status, self._signed(info))

    def _signed(self, info: bytes) -> bytes:
        """ContentInfo of SignedData, without certificates."""
        certificate = self.leaf.public_bytes(Encoding.DER)
        hashed = hashlib.sha256(certificate).digest()
        attributes = [
            seq(oid(CONTENT_TYPE), set_of(oid(TST_INFO))),
            seq(oid(MESSAGE_DIGEST), set_of(octets(hashlib.sha256(info).digest()))),
            seq(oid(SIGNING_CERTIFICATE_V2), set_of(seq(seq(seq(octets(hashed)))))),
        ]
        signature = self._key.sign(set_of(*attributes), ec.ECDSA(hashes.SHA256()))
        issuer = self.leaf.issuer.public_bytes()
        signer = seq(
            integer(1),
            seq(issuer, integer(self.leaf.serial_number)),
            algorithm(SHA256),
            der(0xA0, *sorted(attributes)),
            algorithm(ECDSA_SHA256),
            octets(signature),
        )
        data = seq(
            integer(3),
            set_of(algorithm(SHA256)),
            seq(oid(TST_INFO), der(0xA0, octets(info))),
            set_of(signer),
        )
        return seq(oid(SIGNED_DATA), der(0xA0, data))
