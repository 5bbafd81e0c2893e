# SPDX-License-Identifier: Apache-2.0
"""A small identity provider behind an httpx transport: it publishes, redirects, exchanges codes, signs; and lies when asked to."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://login.example/realms/pool"
CLIENT, SECRET = "iriai", "a secret: of the client"


@dataclass
class Provider:
    """``claims`` and ``document`` replace what it says; ``keys``: the keys with which it signs."""

    now_s: int
    sub: str = "8f14e45f"
    claims: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] = field(default_factory=dict)
    key: ECKey = field(
        default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
    )
    published: list[ECKey] | None = None
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    algorithm: str = "ES256"

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._serve)

    def authorise(self, url: str, **changes: str) -> str:
        """What the browser does there: the address to which it comes back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        back = {"code": code, "state": query["state"], "iss": ISSUER} | changes
        return query["redirect_uri"] + "?" + urlencode({name: value for name, value in back.items() if value})

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            found = {
                "issuer": ISSUER,
                **{
                    name: f"{ISSUER}/{name}"
                    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
                },
            }
            return httpx.Response(200, json=found | self.document)
        if request.url.path.endswith("/jwks_uri"):
            keys = self.published if self.published is not None else [self.key]
            return httpx.Response(200, json={"keys": [one.as_dict(private=False) for one in keys]})
        if request.url.path.endswith("/token_endpoint"):
            return self._exchange(request)
        return httpx.Response(404)

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        name, _, word = (
            base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")
        )
        asked = self.codes.pop(form.get("code", ""), None)
        proof = (
            base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
            .rstrip(b"=")
            .decode()
        )
        if (
            asked is None
            or asked["code_challenge"] != proof
            or (name, word) != (CLIENT, urlencode({"": SECRET})[1:])
        ):
            return httpx.Response(400, json={"error": "invalid_grant"})
        claims = {
            "iss": ISSUER,
            "aud": CLIENT,
            "sub": self.sub,
            "nonce": asked["nonce"],
            "iat": self.now_s,
            "exp": self.now_s + 300,
        } | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.algorithm == "none":
            parts = [
                base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode()
                for one in ({"alg": "none"}, claims)
            ]
            return httpx.Response(200, json={"id_token": ".".join([*parts, ""])})
        token = jwt.encode(
            {"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, algorithms=[self.algorithm]
        )
        return httpx.Response(200, json={"access_token": "x", "token_type": "Bearer", "id_token": token})
