# SPDX-License-Identifier: Apache-2.0
"""What a form must be before anybody looks into it: from a page of ours, of a bounded size, here in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect

from broker.console.errors import CrossSiteError, FormError
from broker.errors import BodyTooLargeError, BodyTooSlowError
from policies.limits import BODY_READ_S

if TYPE_CHECKING:
    from starlette.requests import Request

    from broker.services import Services

__all__ = ["check_site", "read_form"]

_FORM_BYTES: Final = 262_144


def check_site(request: Request, services: Services) -> None:
    """A form must come from a page of ours.

    Raises:
        CrossSiteError: It came from elsewhere, or does not say where from.
    """
    headers = request.headers
    site = headers.get("sec-fetch-site")
    ours = {_origin(services.settings.console), _origin(services.settings.public_url)}
    from_us = site == "same-origin" if site is not None else headers.get("origin") in ours
    if not from_us:
        raise CrossSiteError(
            need="a form that was sent from a page of this console",
            found=f"one from elsewhere ({(site or 'no origin')[:20]})",
            remedy="open the console itself and do it there",
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def read_form(request: Request) -> dict[str, str]:
    """Fields of a form; the last one of a name counts.

    Raises:
        BodyTooLargeError: More than a form may hold.
        BodyTooSlowError: It did not arrive.
        FormError: No form.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_READ_S):
            async for piece in request.stream():
                data += piece
                if len(data) > _FORM_BYTES:
                    raise BodyTooLargeError(
                        need=f"at most {_FORM_BYTES} bytes",
                        found="more",
                        remedy="use the command for large files",
                    )
    except (TimeoutError, ClientDisconnect) as error:
        raise BodyTooSlowError(
            need=f"the whole form within {BODY_READ_S} s",
            found="a part of it",
            remedy="check the network, then send it again",
        ) from error
    try:
        pairs = parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=200)
    except ValueError as error:
        raise FormError(
            need="a form in UTF-8", found="something else", remedy="send it from the page"
        ) from error
    return {name: value for name, value in pairs if "\0" not in name + value}
