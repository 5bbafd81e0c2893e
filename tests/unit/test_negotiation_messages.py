# SPDX-License-Identifier: Apache-2.0
"""Messages of a lane: exactly one form, exactly one signer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policies.contract.errors import LaneMessageError
from policies.contract.negotiation.lanes import (
    LANE_TYPE,
    LaneMessage,
    check_reason,
    new_message_id,
    open_message,
    read_message,
    seal_message,
)
from policies.encoding import canonical, digest
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import SigningKey
from policies.signing import Envelope

KITA, NORD = (SigningKey.from_seed(name * 8) for name in (b"kita", b"nord"))
ACCEPT = LaneMessage(
    id="msg_" + "a" * 16,
    negotiation="neg_" + "b" * 16,
    pid="lane_" + "c" * 16,
    round=1,
    party="kita",
    sender="contributor",
    type="accept",
    digest=digest(b"contract"),
    prev=digest(b"offer"),
    at="2026-11-01T08:00:00Z",
)
TERMINATE = replace(ACCEPT, type="terminate", code="price-too-high", clause="fees-1", text="Too much. 高い")
VERIFY = replace(ACCEPT, type="verify", acknowledged=("lint.a:k-1", "lint.b:fees-1"))


@pytest.mark.parametrize("message", [ACCEPT, TERMINATE, VERIFY, replace(ACCEPT, prev=None)])
def test_a_message_comes_back_as_it_was_sealed(message: LaneMessage) -> None:
    sent = Envelope.from_bytes(seal_message(message, KITA).to_bytes())
    found = open_message(sent, KITA.public)
    assert found == message
    assert found.hash == digest(sent.payload)


def test_the_payload_has_exactly_the_fields_of_the_format() -> None:
    names = "acknowledged at clause code digest id negotiation party pid prev round schema sender text type"
    assert " ".join(sorted(json.loads(ACCEPT.payload))) == names


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "msg_short"},
        {"id": "lane_" + "a" * 16},
        {"negotiation": "neg_" + "A" * 16},
        {"pid": "lane_" + "1" * 16},
        {"round": 0},
        {"round": 21},
        {"round": True},
        {"round": "1"},
        {"party": "Kita"},
        {"sender": "operator"},
        {"sender": "broker"},
        {"type": "agree"},
        {"type": "counter"},
        {"digest": "sha256:short"},
        {"prev": ""},
        {"at": "2026-11-31T08:00:00Z"},
        {"at": "2026-11-01T08:00:00.000Z"},
        {"code": "price-too-high"},
        {"clause": "fees-1"},
        {"text": "Too much."},
        {"acknowledged": ("lint.a:k-1",)},
        {"type": "terminate"},
        {"type": "terminate", "code": "Price too high"},
        {"type": "terminate", "code": "a" * 101},
        {"type": "terminate", "code": "price", "clause": "Fees 1"},
        {"type": "terminate", "code": "price", "text": "two\nlines"},
        {"type": "terminate", "code": "price", "text": "hid\u202eden"},
        {"type": "terminate", "code": "price", "text": "x" * 501},
        {"type": "terminate", "code": "price", "text": ""},
        {"type": "verify", "acknowledged": ("b", "a")},
        {"type": "verify", "acknowledged": ("a", "a")},
        {"type": "verify", "acknowledged": ("a b",)},
        {"type": "verify", "acknowledged": tuple(f"{n:04}" for n in range(1001))},
    ],
)
def test_another_form_is_refused_at_both_ends(changes: dict[str, object]) -> None:
    wrong = replace(ACCEPT, **changes)
    with pytest.raises(LaneMessageError):
        seal_message(wrong, KITA)
    with pytest.raises(LaneMessageError):
        open_message(Envelope.seal(wrong.payload, LANE_TYPE, KITA), KITA.public)


def test_missing_and_unknown_fields_are_refused() -> None:
    tree = json.loads(ACCEPT.payload)
    for changed in ({**tree, "extra": None}, {name: tree[name] for name in tree if name != "text"}, [tree]):
        with pytest.raises(LaneMessageError):
            read_message(canonical(changed))


def test_bytes_that_are_not_canonical_are_refused() -> None:
    with pytest.raises(EncodingError):
        read_message(ACCEPT.payload + b" ")


def test_a_message_that_is_too_large_is_refused() -> None:
    with pytest.raises(LaneMessageError, match="65536 bytes"):
        read_message(b" " * (64 * 1024 + 1))


def test_only_the_expected_key_opens_a_message() -> None:
    with pytest.raises(SignatureInvalidError):
        open_message(seal_message(ACCEPT, NORD), KITA.public)


def test_a_document_of_another_type_is_no_message() -> None:
    other = Envelope.seal(ACCEPT.payload, "application/vnd.iriai.notice.v1+json", KITA)
    with pytest.raises(SignatureInvalidError):
        open_message(other, KITA.public)


def test_a_second_signature_or_another_key_id_is_refused() -> None:
    sealed = seal_message(ACCEPT, KITA)
    twice = sealed.with_signature(NORD.public, seal_message(ACCEPT, NORD).signatures[0][1])
    renamed = replace(sealed, signatures=(("0" * 16, sealed.signatures[0][1]),))
    for one in (twice, renamed):
        with pytest.raises(LaneMessageError):
            open_message(one, KITA.public)


def test_a_reason_is_checked_before_anything_ends() -> None:
    check_reason("pool-called-off", None, None)
    check_reason("pool-called-off", "local:fields", "A reason.")
    for code, clause, text in (("", None, None), ("a b", None, None), ("a", "", None), ("a", None, "\x00")):
        with pytest.raises(LaneMessageError):
            check_reason(code, clause, text)


def test_ids_are_made_of_80_random_bits() -> None:
    assert new_message_id(bytes(10)) == "msg_" + "a" * 16
    with pytest.raises(EncodingError):
        new_message_id(bytes(9))
