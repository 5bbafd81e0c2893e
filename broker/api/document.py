# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of ``/api/v1``, made from the routes and from what stands beside them.

    document(app)                    the document, as docs/reference/openapi.json holds it
    text_of(document(app))           its bytes: sorted, indented by one
    reference_rows(document(app))    one row for each operation, for a page

- Parameters come from the routes, bodies and answers from `broker.api.declared`, refusals from the role and
  the method. One schema, ``Problem``, is the refusal of all of them.
- In the document answers are open: a later version of ``v1`` may add names. ``closed=True`` makes the form
  that tests use, in which an undeclared name is a fault. Requests are closed in both.
- It says how requests are signed, but no generator of clients can sign them: ``x-iriai-signature``.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic.json_schema import models_json_schema

from broker.api import dsp
from broker.api.answers.dsp import DspAnswer
from broker.api.answers.values import ORG, SHA256, Problem
from broker.api.bodies import largest_body
from broker.api.declared import JSON_TYPE, Declared, declared
from broker.api.ending import ending_of
from broker.api.problems import MEDIA_TYPE as PROBLEM
from broker.api.signed import ROLES
from policies.limits import CLOCK_SKEW_S, IDEMPOTENCY_KEY_CHARS, SIGNATURE_TTL_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from pydantic import BaseModel

    from policies.encoding import Json

__all__ = ["Operation", "Row", "document", "operations", "reference_rows", "role_of", "text_of"]

_API: Final = "/api/v1/"
_DSP: Final = "/api/v1/dsp/"
_REF: Final = "#/components/schemas/{model}"
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ROLES: Final[dict[Any, str]] = {**ROLES, **dsp.ROLES}
_WORDS: Final = {
    400: "The request is not in the form that is signed: no canonical JSON, no Idempotency-Key.",
    401: "No signature, or none that holds now, or by nobody who is enrolled.",
    403: "A key for something else, or a rule that refuses; `clause` names the contract's.",
    404: "There is no such thing, or it is not for the one who asks.",
    408: "The body did not arrive in time.",
    409: "A copy of a request, an Idempotency-Key of another one, or a state that does not allow it.",
    410: "It is over.",
    412: "What the change is about is not any more as its sender saw it.",
    413: "The body is larger than this route reads.",
    422: "Another form than the one that is documented here.",
    428: "A change that needs an `If-Match`.",
    429: "More requests than one address or one key may send at a time, or than are remembered of a key.",
    500: "An error of the broker's own; tell the operators its id.",
    503: "Not now: the log is frozen or cannot be written. Send the same again later.",
    507: "No space on the broker's disk; nothing was stored.",
}
_SIGNED: Final = frozenset({400, 401, 403, 408, 409, 413, 422, 429, 500, 503, 507})
_OPEN: Final = frozenset({422, 429, 500, 503})
_OPEN_BODY: Final = frozenset({400, 408, 413})
_PATTERNS: Final = {
    "digest": SHA256,
    "org": ORG,
    "run_id": r"^run_[a-z2-7]{16}$",
    "event_id": r"^[0-9a-f]{64}$",
}
_SAID: Final = {
    "digest": "Digest of a document; every other text is found nowhere (404).",
    "org": "Id of an organisation; every other text is found nowhere (404).",
    "run_id": "Id of a run; every other text is found nowhere (404).",
    "event_id": "Event id of an entry in hex; every other text is found nowhere (404).",
}
_IDEMPOTENCY: Final[dict[str, Json]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "One for each change, kept when it is sent again: the same answer, and no second effect.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_CHARS,
        "pattern": "^[ -~]+$",
    },
}
_IF_MATCH: Final = "ETag of the state that was seen; another one now is 412."
_SECURITY: Final[dict[str, Json]] = {
    "signed": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": (
            "RFC 9421 with Ed25519: headers Signature, Signature-Input and Content-Digest (RFC 9530, SHA-256,"
            " also of an empty body). The key decides who asks."
        ),
        "x-iriai-signature": {
            "label": "iriai",
            "tag": "iriai/1",
            "algorithm": "ed25519",
            "components": ["@method", "@target-uri", "content-digest"],
            "components-of-changes": ["idempotency-key"],
            "parameters": ["created", "expires", "nonce", "keyid", "tag"],
            "nonce": "32 lower-case hex digits, served once",
            "lifetime_s": SIGNATURE_TTL_S,
            "clock_skew_s": CLOCK_SKEW_S,
        },
    },
    "connector": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a registered connector of a dataspace.",
    },
}
_ABOUT: Final = (
    "The broker's API. Requests are signed; bodies are JSON in canonical bytes (RFC 8785) with exactly the"
    " documented names. Every query parameter is documented, and given once. Refusals are problem documents"
    " (RFC 9457). Within v1 changes only add: readers ignore names that they do not know."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: its path as the document spells it, and what was declared of it."""

    method: str
    path: str
    role: str
    said: Declared
    endpoint: Any

    @property
    def room(self) -> str:
        """Name of the module that serves it."""
        return str(self.endpoint.__module__).rpartition(".")[2]

    @property
    def is_dsp(self) -> bool:
        """Whether it speaks the protocol of dataspaces."""
        return self.path.startswith(_DSP)

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return self.method in _WRITES

    @property
    def is_signed(self) -> bool:
        """Whether a request has to be signed."""
        return self.role not in {"anyone", "counterparty"}

    @property
    def refusals(self) -> tuple[int, ...]:
        """Statuses of its refusals."""
        if self.room == "health":
            return (429,)
        found = set(_SIGNED if self.is_signed else _OPEN) | self.said.refuses
        if self.role == "counterparty":
            found |= _SIGNED
        if "{" in self.path or (self.is_write and self.role != "anyone"):
            found.add(404)
        if not self.is_signed and self.is_write:
            found |= _OPEN_BODY
        if self.said.matches:
            found |= {412, 428} if self.said.matches == "must" else {412}
        return tuple(sorted(found))


def role_of(context: RouteContext) -> str | None:
    """Who may ask: by the kind of its call, else as it was declared; None if nobody said."""
    roles = [_ROLES[one.call] for one in context.dependant.dependencies if one.call in _ROLES]
    said = declared(context.endpoint)
    return roles[0] if roles else None if said is None else said.role


def operations(app: FastAPI) -> Iterator[tuple[RouteContext, Operation]]:
    """Every declared operation, in the order of the routes."""
    for context in iter_route_contexts(app.routes):
        said, role = declared(context.endpoint), None
        if said is None:
            continue
        role = role_of(context)
        for method in sorted(context.methods or ()):
            yield (
                context,
                Operation(
                    method=method,
                    path=str(context.path_format),
                    role=role or "UNKNOWN",
                    said=said,
                    endpoint=context.endpoint,
                ),
            )


def document(app: FastAPI, *, closed: bool = False) -> dict[str, Any]:
    """The document of an application; see the module."""
    found = list(operations(app))
    routed = get_openapi(title="-", version="-", routes=[one for one, _ in found])
    names, schemas = _schemas([one for _, one in found], closed=closed)
    schemas |= _named_parameters(routed)
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for _, one in found:
        made = _operation(one, routed["paths"][one.path][one.method.lower()], names, used)
        paths.setdefault(one.path, {})[one.method.lower()] = made
    return {
        "openapi": "3.1.0",
        "info": {"title": "iriai broker", "version": "v1", "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": _untitled(schemas),
            "responses": _refusals(names),
            "securitySchemes": _SECURITY,
        },
    }


def text_of(made: dict[str, Any]) -> str:
    """The text of a document: one spelling, good to compare."""
    return json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _operation(
    one: Operation, routed: dict[str, Any], names: dict[Any, dict[str, Json]], used: set[str]
) -> dict[str, Any]:
    words = inspect.cleandoc(one.endpoint.__doc__ or "")
    made: dict[str, Any] = {
        "operationId": _id(one, used),
        "tags": [one.room],
        "summary": words.partition("\n\n")[0].replace("\n", " "),
        "description": words,
        "security": _security(one),
        "x-iriai-role": one.role,
        "responses": _responses(one, names),
    }
    if parameters := [*map(_parameter, routed.get("parameters", ())), *_headers(one)]:
        made["parameters"] = parameters
    if one.said.takes is not None:
        schema = names[one.said.takes]
        made["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    if one.is_write:
        made["x-iriai-max-bytes"] = largest_body(one.method, one.path)
    if ending_of(one.path) is not None:
        made["deprecated"] = True
    return made


def _id(one: Operation, used: set[str]) -> str:
    """Its room and function, as actions are called in the log; a second path of one function says which."""
    name = f"{one.room}.{one.endpoint.__name__}".replace("_", "-")
    if name in used:
        name += "-of-operators" if "/operator/" in one.path else "-again"
    used.add(name)
    return name


def _security(one: Operation) -> list[Json]:
    if one.role == "counterparty":
        return [{"connector": []}]
    return [{"signed": []}] if one.is_signed else []


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    made = {name: value for name, value in given.items() if name != "schema"}
    made["schema"] = _untitled(given["schema"])
    name = str(given["name"])
    if given["in"] == "path" and name in _PATTERNS and made["schema"].get("type") == "string":
        made["schema"] |= {"pattern": _PATTERNS[name]}
        made["description"] = _SAID[name]
    return made


def _headers(one: Operation) -> list[Json]:
    found: list[Json] = [_IDEMPOTENCY] if one.is_write and one.is_signed else []
    if one.said.matches:
        must = one.said.matches == "must"
        schema = {"type": "string", "maxLength": 200}
        found.append(
            {"name": "If-Match", "in": "header", "required": must, "description": _IF_MATCH, "schema": schema}
        )
    return found


def _responses(one: Operation, names: dict[Any, dict[str, Json]]) -> dict[str, Any]:
    said = one.said
    schema: dict[str, Any] = {} if said.answer is None else names[said.answer]
    made: dict[str, Any] = {}
    for status in said.statuses:
        content = {media: {"schema": schema} for media in said.media}
        made[str(status)] = {"description": _of_answer(said), "content": content}
        if said.tagged:
            made[str(status)]["headers"] = {"ETag": {"schema": {"type": "string"}}}
    kind = "Connector" if one.is_dsp else "Refused"
    return made | {str(status): {"$ref": f"#/components/responses/{kind}{status}"} for status in one.refusals}


def _refusals(names: dict[Any, dict[str, Json]]) -> dict[str, Any]:
    """The refusals by status, for all rooms; for connectors also in their protocol's own form."""
    made: dict[str, Any] = {}
    for status, words in _WORDS.items():
        told: dict[str, Any] = {"description": words, "content": {PROBLEM: {"schema": names[Problem]}}}
        if status in {429, 503}:
            told["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        made[f"Refused{status}"] = told
        both = {PROBLEM: {"schema": names[Problem]}, JSON_TYPE: {"schema": names[DspAnswer]}}
        made[f"Connector{status}"] = {**told, "content": both}
    return made


def _of_answer(said: Declared) -> str:
    if said.answer is None:
        return "Bytes, as they were hashed or signed."
    return inspect.cleandoc(said.answer.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _schemas(found: list[Operation], *, closed: bool) -> tuple[dict[Any, dict[str, Json]], dict[str, Any]]:
    """References to the models of these operations, and the schemas that they refer to."""
    taken: set[type[BaseModel]] = {one.said.takes for one in found if one.said.takes is not None}
    given: set[type[BaseModel]] = {one.said.answer for one in found if one.said.answer is not None}
    models = sorted(taken | given | {Problem, DspAnswer}, key=lambda one: (one.__name__, one.__module__))
    inputs: Any = [(one, "validation") for one in models]
    refs, made = models_json_schema(inputs, ref_template=_REF)
    names: dict[Any, dict[str, Json]] = {model: ref for (model, _), ref in refs.items()}
    schemas: dict[str, Any] = made.get("$defs", {})
    if not closed:
        kept = _reached([names[one] for one in taken], schemas)
        for name, schema in schemas.items():
            if name not in kept and schema.get("additionalProperties") is False:
                del schema["additionalProperties"]
    return names, schemas


def _reached(given: Json, schemas: dict[str, Any]) -> set[str]:
    """Names of the schemas that these refer to."""
    found: set[str] = set()
    left = [given]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left.extend(one)
        elif isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                left.append(schemas[name])
            left.extend(one.values())
    return found


def _named_parameters(routed: dict[str, Any]) -> dict[str, Any]:
    """Schemas that parameters refer to."""
    known = routed.get("components", {}).get("schemas", {})
    asked = [
        one.get("parameters", []) for operations_ in routed["paths"].values() for one in operations_.values()
    ]
    return {name: known[name] for name in _reached(asked, known)}


def _untitled(schema: Any) -> Any:  # noqa: ANN401  a JSON schema
    """A schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_untitled(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: one for name, one in schema.items() if name != "title" or not isinstance(one, str)}
    return {
        name: {key: _untitled(value) for key, value in one.items()}
        if name in {"properties", "$defs"}
        else _untitled(one)
        for name, one in made.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation for a reference page; everything is text."""

    method: str
    path: str
    role: str
    summary: str
    takes: str
    gives: str
    refusals: tuple[str, ...]
    parameters: tuple[str, ...]


def reference_rows(made: dict[str, Any]) -> tuple[Row, ...]:
    """One row for each operation of a document, by path."""
    return tuple(
        _row(method.upper(), path, one)
        for path, methods in sorted(made["paths"].items())
        for method, one in sorted(methods.items())
    )


def _row(method: str, path: str, one: dict[str, Any]) -> Row:
    answers = {status: told for status, told in one["responses"].items() if int(status) < 400}  # noqa: PLR2004
    body = one.get("requestBody", {}).get("content", {})
    return Row(
        method=method,
        path=path,
        role=one["x-iriai-role"],
        summary=one["summary"],
        takes=", ".join(map(_shape, body.items())),
        gives="; ".join(
            f"{status} {', '.join(map(_shape, told['content'].items()))}"
            for status, told in sorted(answers.items())
        ),
        refusals=tuple(sorted(set(one["responses"]) - set(answers))),
        parameters=tuple(str(each["name"]) for each in one.get("parameters", ())),
    )


def _shape(content: tuple[str, Any]) -> str:
    media, told = content
    return str(told["schema"].get("$ref", media)).rpartition("#/components/schemas/")[2]
