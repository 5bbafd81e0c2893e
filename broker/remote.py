# SPDX-License-Identifier: Apache-2.0
"""An operator's signed requests to a running broker: what most commands are made of.

- TLS trusts exactly one certificate: the one in the broker's own folder, or the one whose digest the
  operator gave.
- Each request is signed by the operator's own key; the broker has no other way to know who asks.
- A problem document becomes an error with the broker's own code.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

from broker.errors import (
    CertificatePinError,
    NotInitialisedError,
    OperatorKeyError,
    UnreachableError,
    UsageError,
    answered,
)
from broker.keyfiles import KeyFileError, load_key
from broker.settings import Settings, settings_file
from broker.tls import split_url
from policies.encoding import canonical
from policies.errors import WeakKeyError
from policies.limits import BROKER_ANSWER_BYTES, BUNDLE_BYTES
from policies.signing import sign_request

if TYPE_CHECKING:
    from pathlib import Path

    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = [
    "NotSentError",
    "OperatorClient",
    "Target",
    "leaf_of",
    "load_operator_key",
    "pinned",
    "target_of",
]

_API = "/api/v1"
_TIMEOUT_S = 60.0
_CHUNK = 1024 * 1024
_NO_FILE = (
    "check the path: the name, and the folder that you are in; `iriai-broker operator new FILE` makes a key, "
    "which counts once somebody has added it"
)
_SIGNED = frozenset({"signature", "signatures", "sig", "envelope", "approval", "dsse"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the broker answers, and the PEM of the one certificate that it may show."""

    url: str
    certificate: str


def target_of(directory: Path | None, url: str | None, tls_sha256: str | None) -> Target:
    """The broker that a command line means.

    Args:
        directory: The broker's own folder or settings file, on its host.
        url: Public URL, from elsewhere.
        tls_sha256: SHA-256 of the certificate (64 hex digits); needed with ``url``.

    Raises:
        UsageError: Neither a folder nor both of URL and digest.
        NotInitialisedError: No broker in the folder.
        UnreachableError: Nothing answers at the URL.
        CertificatePinError: Something else answers there.
    """
    if directory is not None and url is None:
        settings = Settings.load(directory) if settings_file(directory).exists() else None
        if settings is None or not settings.tls_chain.exists():
            raise NotInitialisedError(
                need=f"a broker in {directory}",
                found="none",
                remedy="check --dir, or give --url; only for a new broker: iriai-broker init",
            )
        return Target(url=settings.public_url, certificate=leaf_of(settings.tls_chain.read_text("ascii")))
    if url is None or tls_sha256 is None:
        raise UsageError(
            need="--dir DIR, or --url URL with --tls-sha256 DIGEST",
            found="neither",
            remedy="`iriai-broker init` printed the digest; on the broker's host use --dir",
        )
    host, port = split_url(url)
    try:
        pem = ssl.get_server_certificate((host, port), timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise _unreachable(url, error) from error
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if found != tls_sha256.removeprefix("sha256:").lower():
        raise CertificatePinError(
            need=f"the certificate sha256:{tls_sha256}",
            found=f"sha256:{found}",
            remedy="somebody may stand between; ask by telephone before you go on",
        )
    return Target(url=url.rstrip("/"), certificate=pem)


def load_operator_key(path: Path) -> SigningKey:
    """The operator's key in a file.

    Raises:
        OperatorKeyError: Missing, readable by others, or something else.
    """
    try:
        return load_key(path)
    except (KeyFileError, WeakKeyError) as error:
        remedy = error.remedy if path.exists() else _NO_FILE
        raise OperatorKeyError(need=error.need, found=error.found, remedy=remedy) from error


class NotSentError(Exception):
    """A request that was made up and not sent (``--dry-run``)."""

    def __init__(self, method: str, path: str, body: Any) -> None:  # noqa: ANN401  a JSON document
        super().__init__(f"{method} {path}")
        self._method = method
        self._path = path
        self._body = body

    def shown(self) -> dict[str, Any]:
        """The request without signatures: whoever reads it has none of them."""
        return {"method": self._method, "path": _API + self._path, "body": _without_signatures(self._body)}


class OperatorClient:
    """Signed requests to one broker; a context manager."""

    def __init__(
        self,
        target: Target,
        *,
        key: SigningKey,
        clock: Clock,
        entropy: Entropy,
        transport: httpx.BaseTransport | None = None,
        dry_run: bool = False,
    ) -> None:
        """Opens no connection yet.

        ``transport``: of httpx, for an application in the same process. ``dry_run``: reads are sent, and
        what would change something is not.
        """
        self._dry_run = dry_run
        self._url = target.url
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._http = httpx.Client(
            verify=pinned(target.certificate) if transport is None else True,
            transport=transport,
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    @property
    def key(self) -> SigningKey:
        """The operator's key."""
        return self._key

    def get(self, path: str, *, logged: bool = False) -> Any:  # noqa: ANN401  a JSON document
        """The JSON document behind a path under ``/api/v1``.

        ``logged``: the log tells that it was asked for, so that this is a change.

        Raises:
            AnsweredError: The broker refused.
            UnreachableError: No answer.
            NotSentError: Of a client that must not change anything, about what is logged.
        """
        if logged and self._dry_run:
            raise NotSentError("GET", path, None)
        return _document(self._send("GET", path, b""))

    def every(self, path: str, name: str) -> list[Any]:
        """Every row of a list, page after page; see `get`."""
        found: list[Any] = []
        page = self.get(path)
        while True:
            found += page[name]
            if page.get("next") is None:
                return found
            page = self.get(f"{path}?cursor={page['next']}")

    def get_bytes(self, path: str) -> bytes:
        """The bytes behind a path; see `get`."""
        return self._send("GET", path, b"").content

    def published(self, path: str) -> bytes:
        """The bytes behind a path of the static log, which is for anybody; see `get`."""
        return self._send("GET", path, b"", base="").content

    def post(self, path: str, body: Any) -> Any:  # noqa: ANN401  a JSON document
        """Sends a change and gives the answer; see `get`.

        Raises:
            NotSentError: Of a client that must not change anything.
        """
        if self._dry_run:
            raise NotSentError("POST", path, body)
        return _document(self._send("POST", path, canonical(body)))

    def download(self, path: str, into: Path) -> str:
        """Writes what is behind a path to a new file and gives its digest; logged; see `get`."""
        if self._dry_run:
            raise NotSentError("GET", path, None)
        url = self._url + _API + path
        hashed, size = hashlib.sha256(), 0
        try:
            with self._http.stream("GET", url, headers=self._signed("GET", url, b"")) as response:
                if not response.is_success:
                    response.read()
                    raise _problem(response)
                with into.open("wb") as file:
                    for piece in response.iter_bytes(_CHUNK):
                        size += len(piece)
                        if size > BUNDLE_BYTES:
                            raise UnreachableError(
                                need=f"at most {BUNDLE_BYTES} bytes",
                                found="more",
                                remedy="look at the broker",
                            )
                        hashed.update(piece)
                        file.write(piece)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        return "sha256:" + hashed.hexdigest()

    def _signed(self, method: str, url: str, body: bytes) -> dict[str, str]:
        return sign_request(
            self._key,
            method=method,
            url=url,
            body=body,
            now_ms=self._clock.now_ms(),
            nonce16=self._entropy.token_bytes(16),
            idempotency_key=self._entropy.token_bytes(16).hex() if method == "POST" else None,
        )

    def _send(self, method: str, path: str, body: bytes, *, base: str = _API) -> httpx.Response:
        url = self._url + base + path
        headers = {**self._signed(method, url, body), "content-type": "application/json"}
        try:
            response = self._http.request(method, url, content=body or None, headers=headers)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        if len(response.content) > BROKER_ANSWER_BYTES:
            raise UnreachableError(
                need=f"an answer of at most {BROKER_ANSWER_BYTES} bytes",
                found="more",
                remedy="look at the broker",
            )
        if not response.is_success:
            raise _problem(response)
        return response


def _without_signatures(body: Any) -> Any:  # noqa: ANN401  a JSON document
    if not isinstance(body, dict):
        return body
    return {name: "…" if name in _SIGNED else _without_signatures(value) for name, value in body.items()}


def pinned(leaf_pem: str) -> ssl.SSLContext:
    """TLS that trusts one certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf itself is the anchor
    context.load_verify_locations(cadata=leaf_pem)
    return context


def leaf_of(chain_pem: str) -> str:
    """The first certificate of a chain."""
    end = "-----END CERTIFICATE-----"
    return chain_pem[: chain_pem.index(end) + len(end)] + "\n"


def _document(response: httpx.Response) -> Any:  # noqa: ANN401  a JSON document
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise UnreachableError(
            need="a JSON answer", found=f"HTTP {response.status_code}", remedy="check the URL"
        ) from error


def _problem(response: httpx.Response) -> Exception:
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        problem = {}
    return answered(problem if isinstance(problem, dict) else {}, status=response.status_code)


def _unreachable(url: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        need=f"a broker that answers at {url}",
        found=type(error).__name__,
        remedy="start it with iriai-broker serve, or correct the URL",
    )
