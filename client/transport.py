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

import copy
import hashlib
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from client.errors import (
    PeerAnswerError,
    remote_refusal,
)
from client.pin import (
    unreachable,
)
from policies.encoding import canonical
from policies.errors import EncodingError
from policies.limits import BROKER_ANSWER_BYTES, BROKER_ATTEMPTS, OFFER_BODY_BYTES
from policies.signing import sign_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    import httpx

    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["BrokerClient", "NotSentError", "Reader"]

_API = "/api/v1"
_JSON = "application/json"
_CHUNK = 1024 * 1024
_TRY_AGAIN = frozenset({429, 503})


class Reader(Protocol):
    """Takes the bytes of a download, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Takes one piece."""
        ...


class NotSentError(Exception):
    """What a client that looks only did not do: a change, or a file that was not fetched (``--dry-run``)."""

    def __init__(self, method: str, path: str, size_bytes: int) -> None:
        super().__init__(f"{method} {path}")
        self.method, self.path, self.size_bytes = method, _API + path, size_bytes


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
        self._tls = tls
        self._timeout_s = timeout_s
        self._transport = transport
        self._opened: httpx.Client | None = None
        self._looks_only = False

    @property
    def _http(self) -> httpx.Client:
        """The connections; their library is loaded by the first request, not by commands that make none."""
        if self._opened is None:
            import httpx

            self._opened = httpx.Client(
                verify=self._tls if self._tls is not None else True,
                timeout=self._timeout_s,
                transport=self._transport,
                trust_env=False,
                follow_redirects=False,
                headers={"accept": _JSON},
            )
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._opened is not None:
            self._opened.close()

    def under(self, key: SigningKey) -> BrokerClient:
        """A client of the same broker over the same connections, whose requests are signed by this key."""
        other = copy.copy(self)
        other._key = key  # noqa: SLF001  one of its own kind
        return other

    def within(self, timeout_s: float) -> BrokerClient:
        """A client of the same broker that waits no longer than this, over connections of its own."""
        other = copy.copy(self)
        other._timeout_s, other._opened = min(timeout_s, self._timeout_s), None  # noqa: SLF001  likewise
        return other

    @property
    def timeout_s(self) -> float:
        """How long one step of a request may take: a question that is held must be answered sooner."""
        return self._timeout_s

    def look_only(self) -> None:
        """Reads from now on, and ends with `NotSentError` where it would do more."""
        self._looks_only = True

    def patience(self, timeout_s: float) -> None:
        """Waits no longer than this for a step of a request; said before the first one."""
        self._timeout_s = min(self._timeout_s, timeout_s)

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

    def get_static(self, path: str) -> bytes:
        """The bytes behind a path of the static log (``/log/…``), which are public and asked for unsigned.

        Raises:
            RemoteRefusalError: The broker has nothing there.
            PeerUnreachableError: Nothing answered.
        """
        import httpx

        for attempt in range(BROKER_ATTEMPTS):
            try:
                response = self._http.get(self._url + path)
            except httpx.HTTPError as error:
                if attempt + 1 == BROKER_ATTEMPTS or not isinstance(error, httpx.RemoteProtocolError):
                    raise unreachable(self._url, error) from error
                continue  # a kept connection that the broker had closed
            return _bounded(response).content
        raise unreachable(self._url, ConnectionError())

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
            NotSentError: Of a client that looks only.
        """
        if self._looks_only:
            raise NotSentError("POST", path, len(canonical(body)))
        idem = idempotency_key if idempotency_key is not None else self._entropy.token_bytes(16).hex()
        return _json(self._exchange("POST", path, canonical(body), idem))

    def download(self, path: str, into: Reader, *, most_bytes: int) -> str:
        """Streams what is behind a path and gives its digest (``sha256:`` and hex).

        Raises:
            RemoteRefusalError: The broker refused.
            PeerUnreachableError: Nothing answered, or it stopped in the middle.
            PeerAnswerError: More bytes than the caller expects.
            NotSentError: Of a client that looks only.
        """
        if self._looks_only:
            raise NotSentError("GET", path, most_bytes)
        import httpx

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
            raise unreachable(self._url, error) from error
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
        import httpx

        if len(body) > OFFER_BODY_BYTES:  # the broker takes so much where a text is offered, elsewhere less
            raise EncodingError(
                need=f"a body of at most {OFFER_BODY_BYTES} bytes",
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
                    raise unreachable(self._url, error) from error
                continue  # a kept connection that the broker had closed
            self._compare_clocks(response)
            return _bounded(response)
        raise unreachable(self._url, ConnectionError())

    def _compare_clocks(self, response: httpx.Response) -> None:
        """Remembers how far this clock is ahead of the broker's; whole seconds, for ``doctor``."""
        try:
            theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return
        self.clock_difference_s = self._clock.now_ms() / 1000 - theirs


def _bounded(response: httpx.Response) -> httpx.Response:
    """An answer of a bounded size that is no refusal."""
    if len(response.content) > BROKER_ANSWER_BYTES:
        raise PeerAnswerError(
            need=f"an answer of at most {BROKER_ANSWER_BYTES} bytes", found="more", remedy="report it"
        )
    if response.is_success:
        return response
    raise _refusal(response)


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
