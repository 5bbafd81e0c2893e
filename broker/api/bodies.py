# SPDX-License-Identifier: Apache-2.0
"""Request bodies: bounded in size and time before they are read, canonical JSON, exactly the named fields.

Where a text is offered, seed sets and start models may come along: those routes take more (`largest_body`).

A refusal names fields and kinds of error, never the values that were sent.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from broker.api.faults import said
from broker.errors import BodyTooLargeError, BodyTooSlowError, RequestInvalidError
from policies.limits import BODY_BYTES_JSON, BODY_READ_S, OFFER_BODY_BYTES
from policies.signing import parse_envelope_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from starlette.requests import Request

    from policies.encoding import Json

__all__ = ["Body", "largest_body", "read_body", "read_document", "read_raw"]


_FAULTS: Final = 100
_OFFERS: Final = re.compile(
    r"/api/v1/(operator/contracts|contracts/[^/]+/amendments|negotiations/[^/]+/messages)"
)


def largest_body(method: str, path: str) -> int:
    """The most bytes that a route takes."""
    return OFFER_BODY_BYTES if method == "POST" and _OFFERS.fullmatch(path) else BODY_BYTES_JSON


class Body(BaseModel):
    """Base of request bodies: exactly the named fields, exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_B = TypeVar("_B", bound=Body)


def read_document(body: bytes) -> Json:
    """A body as JSON, in canonical bytes.

    Raises:
        EncodingError: It is not.
    """
    return parse_envelope_json(body)


def read_body(body: bytes, model: type[_B]) -> _B:
    """A body as a model; see `Call.read`."""
    tree = read_document(body)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise RequestInvalidError(
            need="the fields " + ", ".join(model.model_fields),
            found=ascii(_faults(error))[1:-1][:300],
            remedy="see docs/reference/http-api.md",
        ) from error


def _faults(error: ValidationError) -> str:
    """The first faults; of very many their number alone: to list them would take longer than to refuse."""
    if error.error_count() > _FAULTS:
        return f"{error.error_count()} faults"
    return "; ".join(_told(one) for one in error.errors(include_url=False, include_input=False)[:5])


def _told(one: ErrorDetails) -> str:
    """Where a field differs, and what it has to be instead."""
    return ".".join(str(part) for part in one["loc"]) + ": " + said(one["type"], one.get("ctx", {}))


async def read_raw(request: Request, *, most: int = BODY_BYTES_JSON) -> bytes:
    """The raw body, up to the bounds of size and time.

    Raises:
        BodyTooLargeError: Announced or sent more.
        BodyTooSlowError: It did not arrive.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > most:
        raise _too_large(announced, most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_READ_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large("more", most)
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        raise BodyTooSlowError(
            need=f"the whole body within {BODY_READ_S} s",
            found="a part of it",
            remedy="check the network, then send the same again",
        ) from error
    return b"".join(parts)


def _too_large(found: str, most: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        need=f"at most {most} bytes", found=ascii(found)[:40], remedy="send less in one request"
    )
