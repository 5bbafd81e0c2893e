# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from policies.encoding import canonical, digest
from policies.errors import EncodingError, SignatureInvalidError
from policies.exchange import (
    REQUEST_PAYLOAD,
    ExchangeType,
    TensorSpec,
    check_answers,
    open_reply,
    open_request,
    peek_request,
    seal_reply,
    tensor_bytes,
    tensor_spec,
)
from policies.signing import Envelope
from tests.fleetsim import BROKER, CONTRACT, START_MS, header_of, node_key

NODE = node_key(0)


def _payload(data: bytes) -> dict[str, object]:
    import json

    found: dict[str, object] = json.loads(Envelope.from_bytes(data).payload)
    return found


def _resealed(change: dict[str, object]) -> bytes:
    payload = _payload(header_of(tensor=np.zeros(3, np.float32))) | change
    return Envelope.seal(canonical(payload), REQUEST_PAYLOAD, BROKER).to_bytes()


def test_a_request_opens_to_what_was_sealed() -> None:
    tensor = np.arange(5, dtype=np.float32)
    request = open_request(header_of(tensor=tensor, body={"plan": None}), BROKER.public)
    assert request.contract == CONTRACT
    assert request.type is ExchangeType.CONTRIBUTE
    assert (request.round, request.attempt, request.deadline_ms) == (1, 0, START_MS + 60_000)
    assert request.tensor == tensor_spec(tensor)
    assert request.tensor is not None
    assert request.tensor.size_bytes == 20
    assert request.body == {"plan": None}


def test_another_key_or_another_payload_type_opens_nothing() -> None:
    data = header_of()
    with pytest.raises(SignatureInvalidError):
        open_request(data, NODE.public)
    with pytest.raises(SignatureInvalidError):
        open_reply(data, BROKER.public)


@pytest.mark.parametrize("at", range(0, 900, 13))
def test_a_changed_byte_opens_nothing_or_the_same(at: int) -> None:
    """The key id beside a signature is a hint that decides nothing (DSSE); every other byte counts."""
    original = header_of()
    data = bytearray(original)
    data[at % len(data)] ^= 1
    try:
        found = open_request(bytes(data), BROKER.public)
    except (SignatureInvalidError, EncodingError):
        return
    assert found == open_request(original, BROKER.public)
    assert original.index(b"keyid") < at < original.index(b'"sig"')


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"extra": 1},
        {"type": "train.other"},
        {"contract": "sha256:short"},
        {"run": "run_ABC-0189"},
        {"run": "run_simaaaaaaaaaaaaa\n"},
        {"node": "node_simaaaaaaaaaaaa0"},
        {"round": 1_000_000},
        {"attempt": 1_000_000},
        {"recipe": "none"},
        {"run": "../../etc"},
        {"round": -1},
        {"round": True},
        {"attempt": "0"},
        {"deadline": "tomorrow"},
        {"deadline": 5},
        {"body": []},
        {"body": {"x": 0.5}},
        {"tensor": {"digest": digest(b""), "dtype": "object", "shape": [1]}},
        {"tensor": {"digest": digest(b""), "dtype": "float32", "shape": [-1]}},
        {"tensor": {"digest": digest(b""), "dtype": "float32", "shape": [1] * 9}},
        {"tensor": {"digest": digest(b""), "dtype": "float32", "shape": [2**40]}},
        {"tensor": {"digest": digest(b""), "dtype": "float32"}},
    ],
)
def test_a_signed_header_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(EncodingError):
        open_request(_resealed(change), BROKER.public)


def test_a_header_holds_whole_envelopes_and_stays_below_its_bound() -> None:
    long = "x" * 20_000
    assert open_request(header_of(body={"receipts": [long]}), BROKER.public).body["receipts"] == [long]
    with pytest.raises(EncodingError):
        header_of(body={"receipts": ["x" * 60_000]})


def test_work_ignores_deadline_and_news_but_nothing_else() -> None:
    first = peek_request(header_of(body={"plan": "a", "log": {"note": "1"}}))
    again = peek_request(header_of(body={"plan": "a", "log": {"note": "2"}}, deadline_ms=START_MS + 1))
    other = peek_request(header_of(body={"plan": "b", "log": {"note": "1"}}))
    assert first.work == again.work
    assert first.digest != again.digest
    assert other.work != first.work


def test_the_same_reply_has_the_same_bytes_and_answers_one_request_only() -> None:
    request = open_request(header_of(), BROKER.public)
    other = open_request(header_of(attempt=1), BROKER.public)
    first = seal_reply(NODE, request, status="ok", code=None, tensor=None, body={"a": 1})
    assert first == seal_reply(NODE, request, status="ok", code=None, tensor=None, body={"a": 1})
    reply = open_reply(first, NODE.public)
    assert check_answers(reply, request) is reply
    with pytest.raises(EncodingError):
        check_answers(reply, other)


@pytest.mark.parametrize(
    ("status", "code"),
    [("ok", "some.code"), ("refused", None), ("refused", "Not a code: row 17"), ("done", None)],
)
def test_a_reply_is_good_without_code_or_refused_with_one(status: str, code: str | None) -> None:
    request = open_request(header_of(), BROKER.public)
    with pytest.raises(EncodingError):
        seal_reply(NODE, request, status=status, code=code, tensor=None, body={})


def test_a_refusal_has_no_tensor() -> None:
    request = open_request(header_of(), BROKER.public)
    with pytest.raises(EncodingError):
        seal_reply(
            NODE, request, status="refused", code="a.b", tensor=tensor_spec(np.zeros(1, np.float32)), body={}
        )


def test_tensors_travel_little_endian() -> None:
    big = np.array([1.0, 2.0], dtype=">f4")
    assert tensor_bytes(big) == np.array([1.0, 2.0], dtype="<f4").tobytes()
    assert tensor_spec(big) == TensorSpec(digest=digest(tensor_bytes(big)), dtype="float32", shape=(2,))
    with pytest.raises(EncodingError):
        tensor_spec(np.zeros(1, np.float64))
