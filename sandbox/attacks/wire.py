# SPDX-License-Identifier: Apache-2.0
"""Requests on the wire, as an attacker who sees, keeps and changes them does: over TLS, to the real broker.

wire = Wire(url, certificate)
request = wire.signed(key, "GET", "/contracts")     # what a node or an operator's command would send
wire.send(request)                                  # Heard(status=200, code="", body={…})
wire.send(request)                                  # Heard(status=409, code="identity.replayed", …)
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from policies.encoding import canonical
from policies.signing import sign_request
from sandbox.clock import now_ms, random_bytes

if TYPE_CHECKING:
    from policies.identity import SigningKey

__all__ = ["Heard", "Wire"]

_API: Final = "/api/v1"
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer: its status, the broker's own code where it refused, and the document."""

    status: int
    code: str
    body: dict[str, Any]

    @property
    def accepted(self) -> bool:
        """Whether the broker did what it was asked."""
        return httpx.codes.is_success(self.status)

    @property
    def words(self) -> str:
        """What it said, in one line."""
        if self.accepted:
            return f"HTTP {self.status}"
        return (
            f"HTTP {self.status} {self.code}: needs {self.body.get('need')}; found {self.body.get('found')}"
        )


class Wire:
    """A connection to one broker under its own certificate."""

    def __init__(self, url: str, certificate: str) -> None:
        """Opens nothing yet.

        Args:
            url: Of the broker.
            certificate: PEM, as everybody who connects sees it.
        """
        tls = ssl.create_default_context(cadata=certificate)
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._url = url
        self._http = httpx.Client(verify=tls, timeout=_TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def signed(self, key: SigningKey, method: str, path: str, body: object = None) -> httpx.Request:
        """A request as our own programs sign it; it is not sent."""
        url, data = self._url + _API + path, b"" if body is None else canonical(body)
        headers = sign_request(
            key,
            method=method,
            url=url,
            body=data,
            now_ms=now_ms(),
            nonce16=random_bytes(16),
            idempotency_key=random_bytes(16).hex() if method == "POST" else None,
        )
        if data:
            headers["content-type"] = "application/json"
        return httpx.Request(method, url, headers=headers, content=data or None)

    def with_body(self, request: httpx.Request, body: object, **headers: str) -> httpx.Request:
        """The request with another body under the headers that were signed."""
        kept = {name: value for name, value in request.headers.items() if name != "content-length"}
        return httpx.Request(request.method, request.url, headers=kept | headers, content=canonical(body))

    def with_path(self, request: httpx.Request, path: str) -> httpx.Request:
        """The signed headers, sent to another path."""
        return httpx.Request(request.method, self._url + _API + path, headers=request.headers)

    def send(self, request: httpx.Request) -> Heard:
        """Sends a request as it is, as often as one likes."""
        answer = self._http.send(request)
        kind = answer.headers.get("content-type", "")
        body = answer.json() if "json" in kind else {}
        said = body if isinstance(body, dict) else {"value": body}
        return Heard(status=answer.status_code, code=str(said.get("code", "")), body=said)

    def ask(self, key: SigningKey, method: str, path: str, body: object = None) -> Heard:
        """A request as its sender means it."""
        return self.send(self.signed(key, method, path, body))

    def public(self, path: str) -> str:
        """What everybody may read, unsigned: the static log."""
        return self._http.get(self._url + path).raise_for_status().text
