# SPDX-License-Identifier: Apache-2.0
"""The signed headers of an exchange: what the broker asks of a node, and what the node answers.

A request or a reply is one header and at most one tensor. The header is a DSSE envelope over a canonical
JSON payload; the tensor is
one flat little-endian vector, named in the header by the SHA-256 of its bytes, its dtype and its shape.

- `seal_request` and `seal_reply` write, `open_request` and `open_reply` read. Opening verifies payload type,
  signature, canonical
  bytes and the closed set of keys, in that order, and returns the parsed header; there is no way to get the
  fields of a header that
  was not verified.
- The types are closed: `ExchangeType`. The slot of an exchange is (contract, run, round, attempt, type).
- Ids, rounds and attempts have the log's own grammar (`policies.log.kinds`): what could not be told to the
  log is no request, so that nothing is spent for it.
- `check_answers` decides whether a reply answers a request: same slot, same node, and the digest of the
  request's payload.
- `RequestHeader.work` is the digest of what is asked, without the deadline and the news of the log. A broker
  that restarts asks the
  same work again under a new deadline; a node answers it with what it has already computed.
- Ed25519 signatures are deterministic: sealing the same reply twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from policies.encoding import canonical, digest, is_digest
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import SigningKey, key_id
from policies.limits import FLEET_HEADER_BYTES, INTEGER_MAX, NESTING_DEPTH, SHAPE_AXES, TENSOR_BYTES
from policies.log.kinds import ID, MECHANISM
from policies.ports import iso_ms, to_ms
from policies.signing import Envelope, parse_envelope_json

__all__ = [
    "DTYPES",
    "REPLY_PAYLOAD",
    "REQUEST_PAYLOAD",
    "ExchangeType",
    "ReplyHeader",
    "RequestHeader",
    "TensorSpec",
    "check_answers",
    "open_reply",
    "open_request",
    "seal_reply",
    "seal_request",
    "tensor_bytes",
    "tensor_spec",
]

REQUEST_PAYLOAD: Final = "application/vnd.iriai.request.v1+json"
REPLY_PAYLOAD: Final = "application/vnd.iriai.reply.v1+json"
VERSION: Final = 1
DTYPES: Final = {"float32": 4, "uint32": 4, "uint8": 1}  # bytes per element; nothing else travels
_NEWS: Final = frozenset({"log", "receipts", "closed"})  # body keys that carry no work
_CODE: Final = re.compile(r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+)+")
_REQUEST_KEYS: Final = frozenset(
    {"v", "contract", "recipe", "run", "round", "attempt", "type", "node", "deadline", "tensor", "body"}
)
_REPLY_KEYS: Final = frozenset(
    {
        "v",
        "contract",
        "run",
        "round",
        "attempt",
        "type",
        "node",
        "request",
        "tensor",
        "status",
        "code",
        "body",
    }
)

Json = Any  # a JSON value, as in `policies.encoding`


class ExchangeType(StrEnum):
    """Everything that a broker can ask of a node; the first word is Flower's category."""

    PING = "query.ping"
    CONTRIBUTE = "train.contribute"
    JUDGE = "evaluate.judge"
    SA_ADVERTISE = "query.sa_advertise"
    SA_SHARE = "query.sa_share"
    SA_OPEN = "query.sa_open"
    SA_CONTRIBUTE = "train.sa_contribute"
    SA_CONFIRM = "query.sa_confirm"
    SA_UNMASK = "query.sa_unmask"
    SA_JUDGE = "evaluate.sa_judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a header says about the tensor beside it."""

    digest: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Length of the tensor's bytes."""
        count = 1
        for axis in self.shape:
            count *= axis
        return count * DTYPES[self.dtype]

    def to_json(self) -> dict[str, Json]:
        """The JSON object in a header."""
        return {"digest": self.digest, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, obj: object) -> TensorSpec:
        """A spec from its JSON object.

        Raises:
            EncodingError: Other keys, an unknown dtype, or a size beyond the bound.
        """
        if not isinstance(obj, Mapping) or set(obj) != {"digest", "dtype", "shape"}:
            raise _refuse("a tensor of digest, dtype and shape", "other keys")
        shape = obj["shape"]
        if not is_digest(obj["digest"]) or obj["dtype"] not in DTYPES or not isinstance(shape, list):
            raise _refuse("a digest, one of " + ", ".join(DTYPES) + " and a shape", "other values")
        if len(shape) > SHAPE_AXES or not all(_is_count(axis) for axis in shape):
            raise _refuse(f"a shape of at most {SHAPE_AXES} axes", "another shape")
        spec = cls(digest=obj["digest"], dtype=obj["dtype"], shape=tuple(shape))
        if spec.size_bytes > TENSOR_BYTES:
            raise _refuse(f"a tensor of at most {TENSOR_BYTES} bytes", f"{spec.size_bytes}")
        return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeader:
    """A verified request: what is asked, of whom, until when.

    ``digest`` names the payload, ``work`` what is asked in it.
    """

    contract: str
    recipe: str
    run: str
    round: int
    attempt: int
    type: ExchangeType
    node: str
    deadline_ms: int
    tensor: TensorSpec | None
    body: Mapping[str, Json]
    digest: str
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHeader:
    """A verified reply. ``status`` is ``ok`` or ``refused``; a refusal has a ``code`` and no tensor."""

    contract: str
    run: str
    round: int
    attempt: int
    type: ExchangeType
    node: str
    request: str
    tensor: TensorSpec | None
    status: str
    code: str | None
    body: Mapping[str, Json]

    @property
    def ok(self) -> bool:
        """Whether the node did what was asked."""
        return self.status == "ok"


def tensor_bytes(array: np.ndarray) -> bytes:
    """Little-endian bytes of a vector, the form in which tensors travel and are hashed."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()


def tensor_spec(array: np.ndarray) -> TensorSpec:
    """The spec of a vector.

    Raises:
        EncodingError: A dtype that does not travel.
    """
    if array.dtype.name not in DTYPES:
        raise _refuse("one of " + ", ".join(DTYPES), array.dtype.name)
    return TensorSpec(digest=digest(tensor_bytes(array)), dtype=array.dtype.name, shape=tuple(array.shape))


def digest_of_parts(parts: Iterable[bytes | memoryview]) -> str:
    """Digest of a tensor that is read part by part."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return "sha256:" + state.hexdigest()


def seal_request(
    key: SigningKey,
    *,
    contract: str,
    recipe: str,
    run: str,
    round: int,  # noqa: A002  the header's own word
    attempt: int,
    type: ExchangeType,  # noqa: A002  the header's own word
    node: str,
    deadline_ms: int,
    tensor: TensorSpec | None,
    body: Mapping[str, Json],
) -> bytes:
    """Bytes of a request header, signed by the broker.

    Raises:
        EncodingError: The header is larger than the bound, or would not open again.
    """
    payload = {
        "v": VERSION,
        "contract": contract,
        "recipe": recipe,
        "run": run,
        "round": round,
        "attempt": attempt,
        "type": type.value,
        "node": node,
        "deadline": iso_ms(deadline_ms),
        "tensor": None if tensor is None else tensor.to_json(),
        "body": dict(body),
    }
    _request(payload, b"")
    return _seal(payload, REQUEST_PAYLOAD, key)


def open_request(data: bytes, broker_key: bytes) -> RequestHeader:
    """The request behind header bytes, once the broker's signature holds.

    Raises:
        SignatureInvalidError: Not signed by this broker as a request.
        EncodingError: Not a request header.
    """
    payload, obj = _open(data, REQUEST_PAYLOAD, broker_key)
    return _request(obj, payload)


def seal_reply(
    key: SigningKey,
    request: RequestHeader,
    *,
    status: str,
    code: str | None,
    tensor: TensorSpec | None,
    body: Mapping[str, Json],
) -> bytes:
    """Bytes of the header that answers a request, signed by the node.

    The same answer always has the same bytes.

    Raises:
        EncodingError: The header is larger than the bound, or would not open again.
    """
    payload = {
        "v": VERSION,
        "contract": request.contract,
        "run": request.run,
        "round": request.round,
        "attempt": request.attempt,
        "type": request.type.value,
        "node": request.node,
        "request": request.digest,
        "tensor": None if tensor is None else tensor.to_json(),
        "status": status,
        "code": code,
        "body": dict(body),
    }
    _reply(payload)
    return _seal(payload, REPLY_PAYLOAD, key)


def open_reply(data: bytes, node_key: bytes) -> ReplyHeader:
    """The reply behind header bytes, once the node's signature holds.

    Raises:
        SignatureInvalidError: Not signed by this node as a reply.
        EncodingError: Not a reply header.
    """
    return _reply(_open(data, REPLY_PAYLOAD, node_key)[1])


def check_answers(reply: ReplyHeader, request: RequestHeader) -> ReplyHeader:
    """The reply, if it answers this request and no other.

    Raises:
        EncodingError: Another slot, node or request.
    """
    for name in ("contract", "run", "round", "attempt", "type", "node"):
        if getattr(reply, name) != getattr(request, name):
            raise _refuse(f"the {name} of the request", "another one")
    if reply.request != request.digest:
        raise _refuse("the digest of the request", "another one")
    return reply


def peek_request(data: bytes) -> RequestHeader:
    """A request header as its own author reads it back: nothing is verified. For the broker's engine only.

    Raises:
        EncodingError: Not a request header.
    """
    envelope = _envelope(data)
    return _request(_parse(envelope.payload), envelope.payload)


def peek_reply(data: bytes) -> ReplyHeader:
    """A reply header as its own author reads it back: nothing is verified. For the node that sealed it only.

    Raises:
        EncodingError: Not a reply header.
    """
    return _reply(_parse(_envelope(data).payload))


def is_code(text: object) -> bool:
    """Whether a value has the form of an error code; nothing else that a node says about an error is kept."""
    return isinstance(text, str) and len(text) <= 64 and _CODE.fullmatch(text) is not None  # noqa: PLR2004


def _refuse(need: str, found: str) -> EncodingError:
    return EncodingError(need=need, found=found, remedy="send exactly the header of this version")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX


def _seal(payload: Mapping[str, Json], payload_type: str, key: SigningKey) -> bytes:
    data = Envelope.seal(canonical(payload), payload_type, key).to_bytes()
    if len(data) > FLEET_HEADER_BYTES:
        raise _refuse(f"a header of at most {FLEET_HEADER_BYTES} bytes", f"{len(data)}")
    return data


def _envelope(data: bytes) -> Envelope:
    if len(data) > FLEET_HEADER_BYTES:
        raise _refuse(f"a header of at most {FLEET_HEADER_BYTES} bytes", f"{len(data)}")
    return Envelope.from_bytes(data)


def _open(data: bytes, payload_type: str, key: bytes) -> tuple[bytes, Json]:
    envelope = _envelope(data)
    if envelope.payload_type != payload_type or not envelope.signed_by(key):
        raise SignatureInvalidError(
            need=f"{payload_type} signed by {key_id(key)}",
            found="another type or signature",
            remedy="compare key fingerprints by another way",
        )
    return envelope.payload, _parse(envelope.payload)


def _parse(payload: bytes) -> Json:
    """A canonical payload; unlike other signed documents it holds whole envelopes, so strings may be long."""
    obj = parse_envelope_json(payload)
    _no_floats(obj, 0)
    return obj


def _no_floats(obj: Json, depth: int) -> None:
    if depth > NESTING_DEPTH or isinstance(obj, float):
        raise _refuse("no floats and shallow nesting", "another document")
    children = obj.values() if isinstance(obj, dict) else obj if isinstance(obj, list) else ()
    for child in children:
        _no_floats(child, depth + 1)


def _slot(obj: Json, keys: frozenset[str]) -> ExchangeType:
    if not isinstance(obj, dict) or set(obj) != keys:
        raise _refuse("exactly the keys " + ", ".join(sorted(keys)), "others")
    if obj["v"] != VERSION or obj["type"] not in set(ExchangeType):
        raise _refuse("version 1 and a known type", "another version or type")
    if not is_digest(obj["contract"]) or not isinstance(obj["body"], dict):
        raise _refuse("a contract digest and a body", "something else")
    names = (obj["run"], obj["node"])
    if not all(ID.holds(name) for name in names):
        raise _refuse("identifiers of run and node as the log has them", "something else")
    if not _is_count(obj["round"]) or not _is_count(obj["attempt"]):
        raise _refuse("whole numbers for round and attempt", "something else")
    if not MECHANISM.holds(f"{obj['run']}/{obj['round']}/{obj['attempt']}"):
        raise _refuse("a round and an attempt that a budget entry can name", "larger ones")
    return ExchangeType(obj["type"])


def _request(obj: Json, payload: bytes) -> RequestHeader:
    kind = _slot(obj, _REQUEST_KEYS)
    if not is_digest(obj["recipe"]) or not isinstance(obj["deadline"], str):
        raise _refuse("a recipe digest and a deadline", "something else")
    try:
        deadline_ms = to_ms(obj["deadline"])
    except ValueError as error:
        raise _refuse("a deadline in UTC with milliseconds", "another form") from error
    tensor = None if obj["tensor"] is None else TensorSpec.from_json(obj["tensor"])
    body = {name: value for name, value in obj["body"].items() if name not in _NEWS}
    work = {name: value for name, value in obj.items() if name != "deadline"} | {"body": body}
    return RequestHeader(
        contract=obj["contract"],
        recipe=obj["recipe"],
        run=obj["run"],
        round=obj["round"],
        attempt=obj["attempt"],
        type=kind,
        node=obj["node"],
        deadline_ms=deadline_ms,
        tensor=tensor,
        body=obj["body"],
        digest=digest(payload),
        work=digest(canonical(work)),
    )


def _reply(obj: Json) -> ReplyHeader:
    kind = _slot(obj, _REPLY_KEYS)
    tensor = None if obj["tensor"] is None else TensorSpec.from_json(obj["tensor"])
    ok = obj["status"] == "ok" and obj["code"] is None
    refused = obj["status"] == "refused" and is_code(obj["code"]) and tensor is None
    if not is_digest(obj["request"]) or not (ok or refused):
        raise _refuse(
            "the request's digest; ok without code, or refused with a code and no tensor", "another answer"
        )
    return ReplyHeader(
        contract=obj["contract"],
        run=obj["run"],
        round=obj["round"],
        attempt=obj["attempt"],
        type=kind,
        node=obj["node"],
        request=obj["request"],
        tensor=tensor,
        status=obj["status"],
        code=obj["code"],
        body=obj["body"],
    )
