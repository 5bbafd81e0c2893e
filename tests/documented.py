# SPDX-License-Identifier: Apache-2.0
"""Holds every answer of a broker in a test against its OpenAPI document: status, kind, form, no undeclared name.

`brokersim.open_house` calls `check` on each response; an answer that the document does not tell fails the test that saw it.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import jsonschema_rs
from starlette.routing import compile_path

from broker.api.document import document
from broker.app import bare

if TYPE_CHECKING:
    import re

    import httpx

__all__ = ["UndocumentedError", "check", "faults_of", "hold"]

PROBLEM = "application/problem+json"
ELSEWHERE = ("/console", "/audit", "/models", "/static", "/docs", "/openapi.json", "/v1")
"""Pages and Flower's own paths: none of this document's."""


class UndocumentedError(AssertionError):
    """An answer that the document does not tell."""


@functools.cache
def closed_document() -> dict[str, Any]:
    return document(bare(), closed=True)


@functools.cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Pattern and name of each path, in the order of the routes: the first that fits serves a request."""
    greedy = {"/log/tile/entries/{name}", "/log/tile/{name}", "/api/v1/dsp/catalog/datasets/{dataset}"}
    spelled = [
        (name, name.replace("}", ":path}") if name in greedy else name) for name in closed_document()["paths"]
    ]
    return [(compile_path(text)[0], name) for name, text in spelled]


@functools.cache
def _validator(reference: str) -> Any:
    known = closed_document()["components"]
    return jsonschema_rs.validator_for({"$ref": reference, "components": known})


@functools.cache
def _told(path: str, method: str, status: str) -> dict[str, Any] | None:
    """What the document tells of an answer: media type → reference of its schema, or None."""
    operation = closed_document()["paths"][path].get(method.lower())
    if operation is None:
        return None
    told = operation["responses"].get(status)
    if told is None:
        return None
    if "$ref" in told:
        told = closed_document()["components"]["responses"][told["$ref"].rpartition("/")[2]]
    return {media: one["schema"].get("$ref") for media, one in told["content"].items()}


def faults_of(method: str, path: str, status: int, media: str, body: bytes) -> list[str]:
    """What the document does not tell of an answer; nothing for one that it does."""
    name = next((name for pattern, name in _paths() if pattern.match(path)), None)
    asked = "GET" if method == "HEAD" else method
    if name is None or asked.lower() not in closed_document()["paths"][name]:
        return _of_no_route(status, media)
    told = _told(name, asked, str(status))
    if told is None:
        return [f"status {status}"]
    fits = next((one for one in told if one == "*/*" or media.startswith(one)), None)
    if fits is None:
        return [f"{status} of kind {media}"]
    reference = told[fits]
    if reference is None or method == "HEAD" or not body:
        return []
    errors = _validator(reference).iter_errors(json.loads(body))
    return [f"{status} {'.'.join(map(str, one.instance_path))}: {one.message}"[:300] for one in errors]


def _of_no_route(status: int, media: str) -> list[str]:
    if status in {404, 405} and media in {PROBLEM, ""}:
        return []
    return [] if status in {422, 429, 500, 503} and media == PROBLEM else [f"no route, but {status} {media}"]


async def check(response: httpx.Response) -> None:
    """As a hook of an HTTP client; see `hold`."""
    if "json" in response.headers.get("content-type", ""):
        await response.aread()
        hold(response.request, response, response.content)
    else:
        hold(response.request, response, b"")


def hold(request: httpx.Request, response: httpx.Response, body: bytes) -> None:
    """Returns if an answer is as documented.

    Raises:
        UndocumentedError: Naming method, path and what is not told.
    """
    path = request.url.path
    if path == "/" or path.startswith(ELSEWHERE):
        return
    media = response.headers.get("content-type", "")
    faults = faults_of(request.method, path, response.status_code, media, body if "json" in media else b"")
    if faults:
        raise UndocumentedError(f"{request.method} {path} is not as documented: {'; '.join(faults)}")
