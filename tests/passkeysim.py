# SPDX-License-Identifier: Apache-2.0
"""A software passkey, for tests: real keys, real signatures, and whatever a test lets it do wrong.

key = Passkey("ES256");  answer = key.create(options, origin)       options: WebAuthn's JSON, as a page carries it
answer = key.get(options, origin, challenge=b"...")                 any field may be replaced
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from webauthn.helpers import base64url_to_bytes as unb
from webauthn.helpers import bytes_to_base64url as b64

UP, UV, BACKED_UP, ATTESTED = 0x01, 0x04, 0x18, 0x40


@dataclass
class Passkey:
    """One passkey on one device. ``counts``: whether its counter grows, as those of security keys do."""

    alg: str = "ES256"
    counts: bool = True
    seed: str = "passkey"
    count: int = 0
    user: bytes = b""
    key: Any = field(init=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        seed = hashlib.sha256(self.seed.encode()).digest()
        self.id = hashlib.sha256(b"id" + seed).digest()
        if self.alg == "ES256":
            self.key = ec.derive_private_key(int.from_bytes(seed, "big") >> 1 or 1, ec.SECP256R1())
        else:
            self.key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def cose(self) -> bytes:
        """The public key as COSE has it."""
        if self.alg == "ES256":
            point = self.key.public_key().public_numbers()
            x, y = (one.to_bytes(32, "big") for one in (point.x, point.y))
            return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        return cbor2.dumps({1: 1, 3: -8, -1: 6, -2: self.key.public_key().public_bytes_raw()})

    def create(self, options: dict[str, Any], origin: str, **changes: Any) -> str:
        """What a browser answers to ``navigator.credentials.create``."""
        self.user = unb(options["user"]["id"])
        client = self._client("webauthn.create", options, origin, changes)
        key = len(self.id).to_bytes(2, "big") + self.id + self.cose
        data = (
            self._data(changes.get("rp", options["rp"]["id"]), changes.get("flags", UP | UV | ATTESTED))
            + bytes(16)
            + key
        )
        made = {"fmt": changes.get("fmt", "none"), "attStmt": changes.get("statement", {}), "authData": data}
        return self._answer({"clientDataJSON": b64(client), "attestationObject": b64(cbor2.dumps(made))})

    def get(self, options: dict[str, Any], origin: str, **changes: Any) -> str:
        """What a browser answers to ``navigator.credentials.get``."""
        client = self._client("webauthn.get", options, origin, changes)
        self.count += self.counts
        data = self._data(changes.get("rp", options.get("rpId", "")), changes.get("flags", UP | UV))
        signed = data + hashlib.sha256(client).digest()
        response = {
            "clientDataJSON": b64(client),
            "authenticatorData": b64(data),
            "signature": b64(self._sign(signed)),
        }
        user = changes.get("user", self.user)
        return self._answer(response | ({"userHandle": b64(user)} if user else {}))

    def confirm(self, subject: bytes, origin: str, rp: str, **changes: Any) -> str:
        """The answer that confirms exactly these bytes, as the page's script asks for it."""
        challenge = changes.pop("challenge", hashlib.sha256(subject).digest())
        return self.get({"challenge": b64(challenge), "rpId": rp}, origin, **changes)

    def _client(self, kind: str, options: dict[str, Any], origin: str, changes: dict[str, Any]) -> bytes:
        challenge = b64(changes["challenge"]) if "challenge" in changes else options["challenge"]
        said = {
            "type": changes.get("type", kind),
            "challenge": challenge,
            "origin": origin,
            "crossOrigin": changes.get("framed", False),
        }
        return json.dumps(said).encode()

    def _data(self, rp: str, flags: int) -> bytes:
        return (
            hashlib.sha256(rp.encode()).digest()
            + bytes([flags])
            + (self.count if self.counts else 0).to_bytes(4, "big")
        )

    def _sign(self, data: bytes) -> bytes:
        if self.alg == "ES256":
            return self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        return self.key.sign(data)

    def _answer(self, response: dict[str, Any]) -> str:
        whole = {"id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "response": response}
        return json.dumps(whole | {"clientExtensionResults": {}})
