# SPDX-License-Identifier: Apache-2.0
"""The service of one model on this machine: HTTP over loopback, for one cell and its owner.

    POST /v1/infer         {observation, stamp_ns, seq, measured?} → {action_chunk, model, flags, state, …}
    POST /v1/episode/end   {outcome?: success | fail | unknown} → {recorded}, once the episode is durable
    POST /v1/resume        the owner's token → {state}
    GET  /v1/status        state, counts, latency, recorder
    GET  /v1/schema        names, order, units, limits

Every request, in this order; nothing of it reaches the model before all holds, and none of 1 to 5 changes the
state of the service:
1. ``Host`` is this machine's loopback and the service's port, and no web page sent it (no ``Origin``): a name
   that was bent to 127.0.0.1 by DNS finds nothing;
2. the path and its method exist;
3. the body has at most `SERVE_BODY_BYTES`, and arrives within `SERVE_BODY_S`;
4. its signature proves that who asks knows the cell's or the owner's token (`client.deploy.token`);
   ``resume`` needs the owner's. One that proves nothing is the last of its connection
   (`client.deploy.connections`);
5. the body is JSON with exactly these keys, each once;
6. the guards (`client.deploy.serving`).

Every answer to somebody who passed 4 bears ``Iriai-Proof``: another process that took the port has none.

An ``outcome`` under the owner's token is a person's word, under the cell's the cell's own; only a person's
``success`` makes actions of a model an example to clone.

``observation`` has the values of the schema, side by side. ``null`` and ``NaN`` are values that are missing:
the guards see them. ``action_chunk`` is null where no action is answered: the controller stops by its own
means. Errors are problem documents (RFC 9457) with need, found and remedy.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from client.deploy.refusals import (
    HostError,
    NotAdmittedError,
    RequestError,
    RequestSizeError,
    RouteError,
)
from client.deploy.serving import fallback_error
from client.deploy.states import Question
from client.deploy.token import PROOF
from policies.errors import IriaiError
from policies.limits import INTEGER_MAX, SERVE_BODY_BYTES, SERVE_BODY_S, SIGNALS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from client.deploy.ports import Array64
    from client.deploy.serving import Outcome, Serving, Witness
    from client.deploy.token import Caller, Tokens

__all__ = ["Service"]

Json = dict[str, Any]
_OUTCOMES: Final[dict[str, Outcome]] = {"success": "success", "fail": "fail", "unknown": "unknown"}
_STAMP_MAX: Final = 2**63 - 1
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"


class Service:
    """An ASGI application; see the module. ``port`` is the one that it is reached at."""

    def __init__(self, serving: Serving, tokens: Tokens, *, port: int) -> None:
        self._serving, self._tokens = serving, tokens
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._routes: dict[tuple[str, str], Callable[[bytes, Caller], Awaitable[Json]]] = {
            ("POST", "/v1/infer"): self._infer,
            ("POST", "/v1/episode/end"): self._end,
            ("POST", "/v1/resume"): self._resume,
            ("GET", "/v1/status"): self._status,
            ("GET", "/v1/schema"): self._schema,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":  # no lifespan, no web sockets
            return
        request = Request(scope, receive)
        caller: Caller | None = None
        try:
            work, data, caller = await self._admit(request)
            body, status, kind = await work(data, caller), 200, _JSON
        except IriaiError as error:
            body, status, kind = _problem(error), error.http_status, _PROBLEM
        except ClientDisconnect:  # nobody is there to be told
            return
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        text = json.dumps(body, allow_nan=False).encode("ascii")
        if caller is None:
            headers["connection"] = "close"
        else:
            headers[PROOF] = caller.proof(status, text)
        await Response(text, status, media_type=kind, headers=headers)(scope, receive, send)

    async def _admit(
        self, request: Request
    ) -> tuple[Callable[[bytes, Caller], Awaitable[Json]], bytes, Caller]:
        """What a request asks for, its body, and who it comes from."""
        # 1.
        headers = request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts or "origin" in headers:
            raise HostError(
                need="Host: " + " or ".join(sorted(self._hosts)) + ", and no Origin",
                found="another host, or a web page",
                remedy="ask this machine by its loopback address",
            )
        # 2.
        work = self._routes.get((request.method, request.scope["path"]))
        if work is None:
            raise RouteError(
                need=", ".join(f"{method} {path}" for method, path in self._routes),
                found="another path or method",
                remedy="use one of them",
            )
        # 3.
        data = await _body(request)
        # 4.
        owner = request.scope["path"] == "/v1/resume"
        path = str(request.scope["path"])
        found = self._tokens.caller(headers.get("authorization", ""), request.method, path, data)
        if found is None or (owner and found.who != "owner"):
            raise NotAdmittedError(
                need=f"a signature under the {'owner' if owner else 'cell'}'s token",
                found="none" if "authorization" not in headers else "another",
                remedy=f"sign as client/deploy/token.py says, with the token in "
                f"{self._tokens.file(owner=owner)}; it is drawn anew at each start",
            )
        connection = request.scope.get("state", {}).get("connection")
        if connection is not None:
            connection.admitted()
        # 5. and 6.
        return work, data, found

    async def _infer(self, data: bytes, _caller: Caller) -> Json:
        began = time.perf_counter_ns()
        document = _document(data, need={"observation", "stamp_ns", "seq"}, may={"measured"})
        question = Question(
            observation=_numbers(document["observation"], "observation"),
            stamp_ns=_whole(document["stamp_ns"], "stamp_ns", most=_STAMP_MAX),
            seq=_whole(document["seq"], "seq", most=INTEGER_MAX),
            measured=None if document.get("measured") is None else _numbers(document["measured"], "measured"),
        )
        answer = self._serving.infer(question)
        refused = fallback_error(answer.standing)
        found: Json = {
            "action_chunk": None if answer.rows is None else answer.rows.tolist(),
            "model": self._serving.facts.model,
            "flags": [one.value for one in answer.flags],
            "state": answer.standing.phase.value,
            "cause": [one.value for one in answer.standing.cause],
        }
        if refused is not None:
            found["problem"] = refused.as_dict()
        self._serving.took(time.perf_counter_ns() - began)
        return found

    async def _end(self, data: bytes, caller: Caller) -> Json:
        outcome = _document(data, need=set(), may={"outcome"}).get("outcome", "unknown")
        if not isinstance(outcome, str) or outcome not in _OUTCOMES:
            raise _bad("outcome: " + ", ".join(_OUTCOMES), "another")
        by: Witness = "person" if caller.who == "owner" else "cell"
        written = self._serving.end_episode(_OUTCOMES[outcome], by=by)
        path = None if written is None else await asyncio.wrap_future(written)
        return {"recorded": path is not None, "file": None if path is None else path.name}

    async def _resume(self, data: bytes, _caller: Caller) -> Json:
        _document(data, need=set(), may=set())
        standing = self._serving.resume()
        return {"state": standing.phase.value}

    async def _status(self, _data: bytes, _caller: Caller) -> Json:
        return self._serving.status()

    async def _schema(self, _data: bytes, _caller: Caller) -> Json:
        return self._serving.schema()


async def _body(request: Request) -> bytes:
    """The body, within its bounds."""
    data = bytearray()
    try:
        async with asyncio.timeout(SERVE_BODY_S):
            async for part in request.stream():
                data += part
                if len(data) > SERVE_BODY_BYTES:
                    raise RequestSizeError(
                        need=f"a body of at most {SERVE_BODY_BYTES} bytes",
                        found="a larger one",
                        remedy="send one observation at a time",
                    )
    except TimeoutError as error:
        raise _bad(f"a body within {SERVE_BODY_S} s", "a slower one") from error
    return bytes(data)


def _document(data: bytes, *, need: set[str], may: set[str]) -> Json:
    try:
        found = json.loads(data or b"{}", object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad("JSON", "another text") from error
    if not isinstance(found, dict) or not need <= found.keys() <= need | may:
        raise _bad("an object with " + (", ".join(sorted(need)) or "nothing"), "other keys, or another value")
    return found


def _once(pairs: list[tuple[str, Any]]) -> Json:
    """An object whose keys stand once: of two, another reader may have taken the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _numbers(value: object, name: str) -> Array64:
    """A flat list of numbers; null is a missing value, which is NaN."""
    if not isinstance(value, list) or len(value) > SIGNALS:
        raise _bad(f"{name} as a list of at most {SIGNALS} numbers", "something else")
    numbers = [math.nan if one is None else one for one in value]
    if not all(type(one) in (float, int) for one in numbers):
        raise _bad(f"{name} as numbers", "something else")
    try:
        return np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        raise _bad(f"{name} as numbers of 64 bits", "a larger one") from error


def _whole(value: object, name: str, *, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise _bad(f"{name} as a whole number from 0", "something else")
    return value


def _bad(need: str, found: str) -> RequestError:
    return RequestError(need=need, found=found, remedy="see GET /v1/schema")


def _problem(error: IriaiError) -> Json:
    told = error.as_dict()
    return {"type": "about:blank", "title": told["code"], "status": error.http_status, **told}
