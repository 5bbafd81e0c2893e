# SPDX-License-Identifier: Apache-2.0
"""The one way out of this site: signed requests to the one pinned broker.

- TLS trusts exactly one certificate, the one whose digest the invitation named; host name and validity are
  still checked. Proxies and trust stores of the machine are not used (``trust_env=False``).
- Each request is signed by the node's key over method, target and body digest (RFC 9421), writes also over
  their ``Idempotency-Key``. A write that is sent again keeps its key and bytes, so it takes effect once.
- A problem document (RFC 9457) becomes `RemoteRefusalError` with the broker's own code; silence becomes
  `PeerUnreachableError` (exit 5); something that is no broker becomes `PeerAnswerError`.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import httpx

from client.errors import (
    BrokerKeyError,
    PeerAnswerError,
    PeerUnreachableError,
    TlsPinError,
    remote_refusal,
)
from policies.encoding import canonical
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import SigningKey, fingerprint, parse_key
from policies.limits import BODY_BYTES_JSON, BROKER_ANSWER_BYTES, BROKER_ATTEMPTS
from policies.signing import Envelope, sign_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.ports import Clock, Entropy

__all__ = [
    "BROKER_TYPE",
    "Broker",
    "BrokerClient",
    "Reader",
    "certificate_of",
    "pinned_context",
    "read_broker",
]

BROKER_TYPE = "application/vnd.iriai.broker.v1+json"
_API = "/api/v1"
_JSON = "application/json"
_CHUNK = 1024 * 1024
_TRY_AGAIN = frozenset({429, 503})


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
        raise _unreachable(f"{host}:{port}", error) from error
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


def _unreachable(where: str, error: Exception) -> PeerUnreachableError | TlsPinError:
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


class Reader(Protocol):
    """Takes the bytes of a download, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Takes one piece."""
        ...


class BrokerClient:
    """Signed requests to one broker. One per process; `close` it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        *,
        key: SigningKey,
        clock: Clock,
        entropy: Entropy,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: Base URL, as the broker's document names it.
            key: The node's signing key.
            clock: Gives ``created``.
            entropy: Gives nonces and idempotency keys.
            tls: From `pinned_context`; needed unless ``transport`` is given.
            timeout_s: Of each step of a request.
            transport: Of httpx, for an application in the same process.
        """
        self.clock_difference_s = 0.0
        self._url = url.rstrip("/")
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._http = httpx.Client(
            verify=tls if tls is not None else True,
            timeout=timeout_s,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            headers={"accept": _JSON},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    @property
    def url(self) -> str:
        """Base URL."""
        return self._url

    def get(self, path: str) -> Any:  # noqa: ANN401  a JSON document
        """The JSON document behind a path under ``/api/v1``.

        Raises:
            RemoteRefusalError: The broker refused.
            PeerUnreachableError: Nothing answered.
            PeerAnswerError: The answer is no JSON.
        """
        return _json(self._exchange("GET", path, b"", None))

    def get_bytes(self, path: str) -> bytes:
        """The bytes behind a path under ``/api/v1``, whose digest or signature the caller checks.

        Raises:
            RemoteRefusalError: The broker refused.
            PeerUnreachableError: Nothing answered.
        """
        return self._exchange("GET", path, b"", None).content

    def post(self, path: str, body: object, *, idempotency_key: str | None = None) -> Any:  # noqa: ANN401
        """Sends a JSON document and gives the answer.

        Args:
            path: Under ``/api/v1``.
            body: Written as canonical bytes.
            idempotency_key: The same for the same effect; a fresh one if the effect has no key of its own.

        Raises:
            RemoteRefusalError: The broker refused.
            PeerUnreachableError: Nothing answered; sending the same again is safe.
            PeerAnswerError: The answer is no JSON.
        """
        idem = idempotency_key if idempotency_key is not None else self._entropy.token_bytes(16).hex()
        return _json(self._exchange("POST", path, canonical(body), idem))

    def download(self, path: str, into: Reader, *, most_bytes: int) -> str:
        """Streams what is behind a path and gives its digest (``sha256:`` and hex).

        Raises:
            RemoteRefusalError: The broker refused.
            PeerUnreachableError: Nothing answered, or it stopped in the middle.
            PeerAnswerError: More bytes than the caller expects.
        """
        url = self._url + _API + path
        headers = self._signed("GET", url, b"", None)
        hashed, size = hashlib.sha256(), 0
        try:
            with self._http.stream("GET", url, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _refusal(response)
                for piece in _pieces(response):
                    size += len(piece)
                    if size > most_bytes:
                        raise PeerAnswerError(
                            need=f"at most {most_bytes} bytes",
                            found="more",
                            remedy="report it to the operator",
                        )
                    hashed.update(piece)
                    into.write(piece)
        except httpx.HTTPError as error:
            raise _unreachable(self._url, error) from error
        return "sha256:" + hashed.hexdigest()

    def _signed(self, method: str, url: str, body: bytes, idem: str | None) -> dict[str, str]:
        return sign_request(
            self._key,
            method=method,
            url=url,
            body=body,
            now_ms=self._clock.now_ms(),
            nonce16=self._entropy.token_bytes(16),
            idempotency_key=idem,
        )

    def _exchange(self, method: str, path: str, body: bytes, idem: str | None) -> httpx.Response:
        if len(body) > BODY_BYTES_JSON:
            raise EncodingError(
                need=f"a body of at most {BODY_BYTES_JSON} bytes",
                found=f"{len(body)}",
                remedy="send its digest",
            )
        url = self._url + _API + path
        for attempt in range(BROKER_ATTEMPTS):
            headers = self._signed(method, url, body, idem)  # a fresh nonce, the same idempotency key
            if body:
                headers["content-type"] = _JSON
            try:
                response = self._http.request(method, url, content=body or None, headers=headers)
            except httpx.HTTPError as error:
                if attempt + 1 == BROKER_ATTEMPTS or not isinstance(error, httpx.RemoteProtocolError):
                    raise _unreachable(self._url, error) from error
                continue  # a kept connection that the broker had closed
            self._compare_clocks(response)
            if len(response.content) > BROKER_ANSWER_BYTES:
                raise PeerAnswerError(
                    need=f"an answer of at most {BROKER_ANSWER_BYTES} bytes", found="more", remedy="report it"
                )
            if response.is_success:
                return response
            raise _refusal(response)
        raise _unreachable(self._url, ConnectionError())

    def _compare_clocks(self, response: httpx.Response) -> None:
        """Remembers how far this clock is ahead of the broker's; whole seconds, for ``doctor``."""
        try:
            theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return
        self.clock_difference_s = self._clock.now_ms() / 1000 - theirs


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    return response.iter_bytes(_CHUNK)


def _json(response: httpx.Response) -> Any:  # noqa: ANN401  a JSON document
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise PeerAnswerError(
            need="a JSON answer",
            found=f"HTTP {response.status_code}",
            remedy="check the URL and both versions",
        ) from error


def _refusal(response: httpx.Response) -> Exception:
    """The error behind an answer that is no success."""
    try:
        problem = response.json()
        code = problem["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerAnswerError(
            need="a problem document",
            found=f"HTTP {response.status_code}",
            remedy="check the URL and both versions",
        )
    exit_code = problem.get("exit_code")
    clause = problem.get("clause")
    return remote_refusal(
        code=str(code)[:80],
        status=response.status_code,
        need=str(problem.get("need", ""))[:500],
        found=str(problem.get("found", ""))[:500],
        remedy=str(problem.get("remedy", ""))[:500],
        clause=str(clause)[:80] if clause is not None else None,
        exit_code=exit_code if isinstance(exit_code, int) else None,
    )
