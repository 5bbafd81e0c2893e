# SPDX-License-Identifier: Apache-2.0
"""Logging in at an identity provider (OpenID Connect): there, back, and what its word proves.

Authorization code with PKCE (S256) and nonce; the secret of this broker stands in a file. The provider only
says who somebody is there; who that is here was said before, by whoever added the person.

    url = await oidc.begin(challenge)                       the browser goes there, its ticket in a cookie
    sub = await oidc.finish(query, challenge)               back at `CALLBACK`

State, nonce and verifier are computed from the challenge (`broker.auth.challenges`), so that nothing is kept
for strangers who only begin. `finish` checks, in this order:

1. the answer is to this state and, where it says so, from this provider; it is no refusal;
2. the code is exchanged at the provider's own endpoint, over https;
3. the token is signed by a key that the provider publishes, with an algorithm of `_ALGORITHMS`;
4. it is of this issuer, for this client alone, in its time, and to this nonce; it names somebody.

What it needs is imported at the first use: a broker without a provider does not load it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from broker.auth.errors import OidcError
from broker.keyfiles import read_private
from policies.limits import CLOCK_SKEW_S, OIDC_BYTES, OIDC_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from broker.settings import OidcSettings
    from policies.ports import Clock

__all__ = ["CALLBACK", "Oidc"]

CALLBACK: Final = "/console/oidc/back"
_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"]
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_CLIENT_ERROR: Final = 400
_SECOND_MS: Final = 1_000


class Oidc:
    """One provider. For one event loop."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        console_url: str,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.redirect_uri = console_url + CALLBACK
        self._clock = clock
        self._transport = transport
        self._known: dict[str, Any] | None = None
        self._lock = asyncio.Lock()

    @property
    def there(self) -> bool:
        """Whether there is a provider."""
        return bool(self.settings.issuer)

    async def begin(self, challenge: bytes) -> str:
        """Where the browser goes.

        Raises:
            OidcError: There is no provider, or it does not answer.
        """
        known = await self._provider()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": _part(challenge, "state"),
            "nonce": _part(challenge, "nonce"),
            "code_challenge": _b64(hashlib.sha256(_part(challenge, "verifier").encode("ascii")).digest()),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(known["authorization_endpoint"]).query else "?"
        return str(known["authorization_endpoint"]) + joint + urlencode(asked)

    async def finish(self, query: Mapping[str, str], challenge: bytes) -> str:
        """Who came back, as the provider calls them (``sub``); see the module for its steps.

        Raises:
            OidcError: The provider refused, did not answer, or its answer proves nothing.
        """
        # 1.
        if not hmac.compare_digest(query.get("state", "").encode(), _part(challenge, "state").encode()):
            raise _refuse("an answer to this login", "one to another")
        if query.get("iss", self.settings.issuer) != self.settings.issuer:
            raise _refuse(f"an answer of {self.settings.issuer}", "one of another provider")
        if "code" not in query:
            raise _refuse("a code", f"a refusal: {ascii(query.get('error', ''))[1:-1][:80]}")
        # 2.
        known = await self._provider()
        token = await self._exchange(known, query["code"], _part(challenge, "verifier"))
        # 3.
        claims = await self._claims(known, token)
        # 4.
        return self._check(claims, _part(challenge, "nonce"))

    def _check(self, claims: Mapping[str, Any], nonce: str) -> str:
        now_s = self._clock.now_ms() // _SECOND_MS
        audience = claims.get("aud")
        expires, issued = claims.get("exp"), claims.get("iat")
        if claims.get("iss") != self.settings.issuer:
            raise _refuse(f"a token of {self.settings.issuer}", "one of another issuer")
        if audience not in (self.settings.client_id, [self.settings.client_id]):
            raise _refuse(f"a token for {self.settings.client_id} alone", "one for others")
        if claims.get("azp", self.settings.client_id) != self.settings.client_id:
            raise _refuse(f"a token that was given to {self.settings.client_id}", "one of another client")
        if not isinstance(expires, int) or not isinstance(issued, int):
            raise _refuse("a token with exp and iat", "one without")
        if not issued - CLOCK_SKEW_S <= now_s < expires + CLOCK_SKEW_S:
            raise _refuse("a token in its time", "an older or later one")
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise _refuse("a token for this login", "one for another")
        sub = claims.get("sub")
        if not isinstance(sub, str) or not sub:
            raise _refuse("a token that names somebody", "one that does not")
        return sub

    async def _provider(self) -> dict[str, Any]:
        """What the provider says of itself, read once; keys are read again when one is missing.

        Raises:
            OidcError: There is none, it does not answer, or it is another one.
        """
        if not self.there:
            raise _refuse("a provider (setting oidc)", "none")
        async with self._lock:
            if self._known is None:
                found = await self._get(
                    self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
                )
                if found.get("issuer") != self.settings.issuer:
                    raise _refuse(f"the provider {self.settings.issuer}", "another one answers there")
                for name in _ENDPOINTS:
                    if not str(found.get(name, "")).startswith("https://"):
                        raise _refuse(f"{name} as an https URL", "another one")
                self._known = {**found, "keys": await self._get(found["jwks_uri"])}
            return self._known

    async def _claims(self, known: dict[str, Any], token: str) -> Mapping[str, Any]:
        """Claims of a token whose signature holds; with keys that are read again, once."""
        try:
            return _verified(token, known["keys"])
        except OidcError:
            known["keys"] = await self._get(known["jwks_uri"])
            return _verified(token, known["keys"])

    async def _exchange(self, known: Mapping[str, Any], code: str, verifier: str) -> str:
        secret = read_private(Path(self.settings.client_secret_file)).decode("utf-8", "replace").strip()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        ways = known.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in ways:
            answer = await self._ask("POST", known["token_endpoint"], data=form, auth=self._basic(secret))
        else:
            own = {"client_id": self.settings.client_id, "client_secret": secret}
            answer = await self._ask("POST", known["token_endpoint"], data=form | own)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refuse("an id_token", "an answer without")
        return token

    def _basic(self, secret: str) -> tuple[str, str]:
        """Name and secret as OAuth wants them: each form-encoded first (RFC 6749, section 2.3.1)."""
        name, word = (urlencode({"": one})[1:] for one in (self.settings.client_id, secret))
        return name, word

    async def _get(self, url: str) -> dict[str, Any]:
        return await self._ask("GET", url)

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        data: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """One JSON object of the provider, bounded in time and size; redirects are not followed."""
        import httpx

        body = bytearray()
        try:
            async with (
                asyncio.timeout(OIDC_S),
                httpx.AsyncClient(transport=self._transport, timeout=OIDC_S) as http,
                http.stream(method, url, data=data, auth=auth) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > OIDC_BYTES:
                        raise _refuse(f"at most {OIDC_BYTES} bytes", "more")
                status = answer.status_code
            found = httpx.Response(status, content=bytes(body)).json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError, RecursionError) as error:
            raise _refuse("an answer of the provider", type(error).__name__) from error
        if status >= _CLIENT_ERROR or not isinstance(found, dict):
            raise _refuse("a JSON object of the provider", f"HTTP {status}")
        return found


def _verified(token: str, keys: Any) -> Mapping[str, Any]:  # noqa: ANN401  a JSON document
    from joserfc import jwt
    from joserfc.jwk import KeySet

    try:
        return dict(jwt.decode(token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS).claims)
    except Exception as error:  # whatever the library stumbles over
        raise _refuse("a token signed by a key of the provider", type(error).__name__) from error


def _part(challenge: bytes, name: str) -> str:
    return _b64(hmac.digest(challenge, f"iriai/oidc/{name}".encode("ascii"), "sha256"))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _refuse(need: str, found: str) -> OidcError:
    return OidcError(
        need=need, found=found, remedy="try again; if it stays so, log in by passkey; see the setting oidc"
    )
