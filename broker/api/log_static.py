# SPDX-License-Identifier: Apache-2.0
"""Routes of the static log below ``/log``: what C2SP tlog-tiles says, beside what makes it convenient.

- Checkpoint and hash tiles are for anybody: they hold hashes. Entries are for who is enrolled.
- What never changes may be kept for a year: by everybody if it is public, by the caller alone if it is not.
- A name has one spelling. Every other one, and what there is not yet, is ``request.not-found``.
- The broker's own copies of policy and keys say on top that they are worth nothing by themselves.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response

from broker.api.declared import BINARY, TEXT, gives
from broker.api.signed import ReaderCall, services_of
from broker.errors import NotFoundError
from policies.limits import CHECKPOINT_AGE_S, STATIC_AGE_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.services import Services

__all__ = ["router"]

router = APIRouter()

_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_GZIP: Final = 4  # a bundle of entries in two milliseconds
_COMPARE: Final = (
    "# compare with yours: this is the broker's own copy. What you trust has to reach you by another way",
    "# (telephone, paper, a member's file).",
)


@router.get("/log/checkpoint")
@gives(media=TEXT, role="anyone", refuses=(404,))
async def checkpoint(request: Request) -> Response:
    """The newest checkpoint with the quorum that the broker's policy asks for, as a signed note."""
    note = services_of(request).published_note()
    if not note:
        raise _nothing(request)
    return Response(
        note.encode("utf-8"),
        media_type=_TEXT,
        headers={"Cache-Control": f"public, max-age={CHECKPOINT_AGE_S}"},
    )


@router.get("/log/tile/entries/{name:path}")
@gives(media=BINARY)
async def entries(call: ReaderCall, request: Request, name: str) -> Response:
    """A bundle of entries, each behind its length; compressed for who accepts gzip."""
    data = _read(call.services, request, f"tile/entries/{name}")
    headers = {"Cache-Control": f"private, max-age={STATIC_AGE_S}, immutable", "Vary": "Accept-Encoding"}
    if _takes_gzip(request.headers.get("accept-encoding", "")):
        data = gzip.compress(data, compresslevel=_GZIP, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(data, media_type=_BYTES, headers=headers)


@router.get("/log/tile/{name:path}")
@gives(media=BINARY, role="anyone")
async def tile(request: Request, name: str) -> Response:
    """A hash tile: up to 256 hashes of 32 bytes."""
    data = _read(services_of(request), request, f"tile/{name}")
    headers = {"Cache-Control": f"public, max-age={STATIC_AGE_S}, immutable"}
    return Response(data, media_type=_BYTES, headers=headers)


@router.get("/log/policy")
@gives(media=TEXT, role="anyone")
async def policy(request: Request) -> Response:
    """The policy file as this broker sees itself and its witnesses; to be compared with one's own."""
    return _copy([services_of(request).policy])


@router.get("/log/vkeys")
@gives(media=TEXT, role="anyone")
async def vkeys(request: Request) -> Response:
    """The verifier keys of log and witnesses, one a line; to be compared with one's own."""
    lines = [line.split() for line in services_of(request).policy.splitlines()]
    return _copy(" ".join(words) for words in lines if words[:1] in (["log"], ["witness"]))


def _read(services: Services, request: Request, path: str) -> bytes:
    spelled = request.scope.get("raw_path", b"").split(b"?")[0]
    data = None
    if spelled in {b"", f"/log/{path}".encode()}:  # nothing percent-encoded: one name, one resource
        data = services.static.read(path)
    if data is None:
        raise _nothing(request)
    return data


def _copy(lines: Iterable[str]) -> Response:
    text = "\n".join([*_COMPARE, *lines]).rstrip("\n") + "\n"
    return Response(text.encode("utf-8"), media_type=_TEXT, headers={"Cache-Control": "no-store"})


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with weight 0 (RFC 9110, 12.5.3)."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _nothing(request: Request) -> NotFoundError:
    return NotFoundError(
        need="a name of the static log, of a size that a checkpoint showed",
        found=ascii(request.url.path)[1:-1][:120],
        remedy="read /log/checkpoint, then ask for tiles of that size (C2SP tlog-tiles)",
    )
