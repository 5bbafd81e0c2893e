# SPDX-License-Identifier: Apache-2.0
"""One question to a time-stamping authority, from the operator's machine; nothing is sent but a hash.

The address may be plain ``http``, as most authorities': what counts is the signature on the answer, under
certificates that the operator named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from broker.auditing.errors import AuthorityError
from broker.auditing.timestamps import ask, check_reply
from policies.limits import TSA_REPLY_BYTES, TSA_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

__all__ = ["stamped"]

_QUERY: Final = "application/timestamp-query"


def stamped(
    text: bytes,
    url: str,
    anchors: Sequence[x509.Certificate],
    *,
    transport: httpx.BaseTransport | None = None,
) -> tuple[bytes, int]:
    """The authority's reply about a text, checked, and the time that it says, in milliseconds.

    Args:
        text: What is stamped.
        url: Of the authority.
        anchors: From `broker.auditing.timestamps.trusted`.
        transport: Of httpx, for an authority in the same process.

    Raises:
        AuthorityError: No answer, or no use for it.
        TimestampInvalidError: The answer does not hold.
        TimestampsMissingError: The library is not installed.
    """
    asked = ask(text)
    reply = _post(url, asked.as_bytes(), transport)
    return reply, check_reply(reply, text, asked=asked, anchors=anchors)


def _post(url: str, body: bytes, transport: httpx.BaseTransport | None) -> bytes:
    data = b""
    try:
        with (
            httpx.Client(transport=transport, timeout=TSA_S, trust_env=False) as client,
            client.stream("POST", url, content=body, headers={"content-type": _QUERY}) as response,
        ):
            if not response.is_success:
                raise _refused(url, f"HTTP {response.status_code}")
            for piece in response.iter_bytes():
                data += piece
                if len(data) > TSA_REPLY_BYTES:
                    raise _refused(url, f"more than {TSA_REPLY_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _refused(url, type(error).__name__) from error
    return data


def _refused(url: str, found: str) -> AuthorityError:
    return AuthorityError(
        need=f"a time-stamping authority at {url}",
        found=found,
        remedy="correct --tsa, or use another authority",
    )
