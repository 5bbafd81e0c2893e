# SPDX-License-Identifier: Apache-2.0
"""The one place where an error becomes an HTTP answer: RFC 9457 ``application/problem+json``.

- Connectors of dataspaces are answered in their protocol's own form (`broker.api.dsp`).
- Every `IriaiError` shows its code, clause, need, found and remedy, and the exit code that a command line
  shall end with.
- One that is ours but no bug (a full disk, no quorum) is one line in the process's log.
- A database that cannot be read now is ``log.unavailable``, as one that cannot be written.
- Anything else is our bug: ``internal.error`` with a request id, and nothing of the exception; the
  traceback goes to the process's log.
- A path or method that does not exist is ``request.not-found`` or ``request.method``, in the same form; with
  ``Allow``, which names every method of the path.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response

from broker.api.edge import allowed
from broker.dataspace.offers import DSP_PATH
from broker.errors import DiskFullError, NotFoundError, RequestInvalidError, retry_headers
from broker.log.units import is_storage, unavailable
from policies.encoding import Json, canonical
from policies.errors import IriaiError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from broker.services import Services

__all__ = ["MEDIA_TYPE", "install", "problem_document", "problem_response", "request_id"]

MEDIA_TYPE = "application/problem+json"
_DOCS = "https://iriai.example/errors/"
_BUG = 500
_NOT_FOUND = 404
_log = logging.getLogger("iriai.broker")


def request_id(services: Services) -> str:
    """A fresh id by which an operator finds the traceback of an answer in the log."""
    return f"req_{services.entropy.token_bytes(8).hex()}"


def problem_document(error: IriaiError, *, given_id: str | None = None) -> dict[str, Json]:
    """The problem document of an error."""
    document: dict[str, Json] = {
        "type": _DOCS + error.code,
        "title": error.code,
        "status": error.http_status,
        "detail": str(error),
        "exit_code": error.exit_code,
        **error.as_dict(),
    }
    if given_id is not None:
        document["request_id"] = given_id
    return document


def problem_response(
    error: IriaiError, *, given_id: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    """The HTTP answer of an error."""
    return Response(
        canonical(problem_document(error, given_id=given_id)),
        error.http_status,
        headers={"Cache-Control": "no-store", **(headers or {}), **retry_headers(error)},
        media_type=MEDIA_TYPE,
    )


class _NoSuchMethodError(NotFoundError):
    """The path exists, the method does not."""

    code = "request.method"
    http_status = 405


def _not_found(status: int) -> IriaiError:
    kind = _NoSuchMethodError if status == _NoSuchMethodError.http_status else NotFoundError
    return kind(need="a documented path and method", found="another", remedy="see docs/reference/http-api.md")


def _storage_error(error: Exception) -> IriaiError | None:
    """What to say of a disk or a database that cannot be used now, or not for this."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(
            need="space on the broker's disk", found="none", remedy="send the same request later"
        )
    if isinstance(error, DataError):
        return RequestInvalidError(
            need="values that a database can hold: no character U+0000, no larger numbers",
            found="another",
            remedy="see docs/reference/http-api.md",
        )
    return unavailable(error) if isinstance(error, DBAPIError) and is_storage(error) else None


def install(app: FastAPI, services: Services) -> None:
    """Registers the handlers; nothing else in the broker builds an error answer."""

    async def refused(_request: Request, error: Exception) -> Response:
        if not isinstance(error, IriaiError):  # pragma: no cover  registered for IriaiError only
            raise error
        given_id = None
        if error.http_status >= 500:  # noqa: PLR2004  ours, not the caller's
            given_id = request_id(services)
            ours = error.http_status == _BUG  # a state that the words tell needs no traceback
            _log.error("%s %s", given_id, error, exc_info=error if ours else None)
        return problem_response(error, given_id=given_id)

    methods_of = allowed(app)

    async def no_route(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException) or error.status_code != _NoSuchMethodError.http_status:
            return problem_response(_not_found(_NOT_FOUND))
        if request.url.path.startswith(f"{DSP_PATH}/") and not services.settings.dsp.enabled:
            return problem_response(_not_found(_NOT_FOUND))  # what is off has no methods either
        return problem_response(
            _not_found(error.status_code), headers={"Allow": ", ".join(methods_of(request.url.path))}
        )

    async def invalid(_request: Request, error: Exception) -> Response:
        wrong = error.errors() if isinstance(error, RequestValidationError) else ()
        names = ", ".join(sorted({str(one["loc"][-1]) for one in wrong}))
        return problem_response(
            RequestInvalidError(
                need=f"a usable value for {names}",
                found="another",
                remedy="see docs/reference/http-api.md",
            )
        )

    async def storage(_request: Request, error: Exception) -> Response:
        known = _storage_error(error)
        return await (unknown(_request, error) if known is None else refused(_request, known))

    async def unknown(_request: Request, error: Exception) -> Response:
        given_id = request_id(services)
        _log.error("%s internal.error", given_id, exc_info=error)
        hidden = IriaiError(
            need="a request that the broker can serve",
            found="an error of the broker's own",
            remedy=f"tell the operator this id: {given_id}",
        )
        return problem_response(hidden, given_id=given_id)

    app.add_exception_handler(IriaiError, refused)
    app.add_exception_handler(HTTPException, no_route)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(OSError, storage)
    app.add_exception_handler(DBAPIError, storage)
    app.add_exception_handler(Exception, unknown)
