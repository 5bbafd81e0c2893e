# SPDX-License-Identifier: Apache-2.0
"""Members' envelopes and the state machine of a chain."""

from __future__ import annotations

import pytest

from policies.encoding import canonical
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import SigningKey
from policies.log.entries import EntryType, check_entry, entry_body, from_envelope, private_values
from policies.log.envelope import PAYLOAD_TYPE, ChainState, Seen, open_envelope, payload_digest, seal_envelope
from policies.log.errors import (
    ChainError,
    EntryError,
    MemberEnvelopeError,
    SeenError,
    SeqGapError,
    SlotTakenError,
)
from policies.signing import Envelope
from tests.auditsim import ORIGIN, START_MS, digest_from, seeded

KEY = SigningKey.from_seed(b"K" * 32)
OTHER = SigningKey.from_seed(b"O" * 32)
CHAIN = "00112233aabbccdd"
VOTE = {"subject": digest_from("model"), "vote": "approve", "clause": None}
SPENT = {
    "mechanism": "run_aaaaaaaaaaaaaaaa/3/1",
    "plan": digest_from("plan"),
    "steps": 1,
    "lineage": "lineage-1",
    "rho_nano": 12,
    "epsilon_after": "1.5",
}


def sealed(
    kind: EntryType = EntryType.VOTE_CAST, body: dict[str, object] | None = None, **changes: object
) -> Envelope:
    fields: dict[str, object] = {
        "log": ORIGIN,
        "kind": kind,
        "chain": CHAIN,
        "seq": 0,
        "prev": None,
        "seen": Seen(4, bytes(32)),
        "time_ms": START_MS,
        "nonce": seeded("nonce", 16),
        "scope": digest_from("contract"),
        "run": "run_aaaaaaaaaaaaaaaa",
        "round": None,
        "ack": None,
        "body": VOTE if body is None else body,
    }
    return seal_envelope(KEY, **(fields | changes))


def payload(seq: int, prev: dict[str, object] | None, **changes: object) -> dict[str, object]:
    envelope = sealed(seq=seq, prev=None if prev is None else payload_digest(prev), **changes)
    return open_envelope(envelope, KEY.public)


def test_an_envelope_opens_under_its_key_and_no_other() -> None:
    opened = open_envelope(sealed(), KEY.public)
    assert (opened["kind"], opened["chain"], opened["body"]) == ("vote.cast", CHAIN, VOTE)
    with pytest.raises(SignatureInvalidError):
        open_envelope(sealed(), OTHER.public)


def holds(data: bytes) -> bool:
    """Whether bytes are a good envelope in its one spelling (base64 has several; a reader compares)."""
    try:
        envelope = Envelope.from_bytes(data)
        open_envelope(envelope, KEY.public)
    except (EncodingError, MemberEnvelopeError, SignatureInvalidError):
        return False
    return envelope.to_bytes() == data


def test_no_byte_of_an_envelope_can_change() -> None:
    data = sealed().to_bytes()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert not holds(changed)


def test_the_keyid_must_be_the_signers() -> None:
    one = sealed()
    named = Envelope(
        payload_type=one.payload_type, payload=one.payload, signatures=(("0" * 16, one.signatures[0][1]),)
    )
    with pytest.raises(MemberEnvelopeError):
        open_envelope(named, KEY.public)
    twice = Envelope(payload_type=one.payload_type, payload=one.payload, signatures=one.signatures * 2)
    with pytest.raises(MemberEnvelopeError):
        open_envelope(twice, KEY.public)


def test_another_payload_type_is_refused() -> None:
    one = Envelope.seal(sealed().payload, PAYLOAD_TYPE + "x", KEY)
    with pytest.raises(SignatureInvalidError):
        open_envelope(one, KEY.public)


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": "0011"},
        {"chain": "ZZ112233aabbccdd"},
        {"seq": -1},
        {"seq": 1},
        {"prev": digest_from("x")},
        {"nonce": b"short"},
        {"scope": "x"},
        {"run": "x"},
        {"round": -1},
        {"log": ""},
        {"kind": EntryType.RUN_OPENED},
        {"ack": {"index": 1}},
        {"ack": {"index": 1, "leaf_hash": "x"}},
        {"seen": Seen(4, b"short")},
        {"body": {}},
        {"body": VOTE | {"reason": "because"}},
        {"body": VOTE | {"vote": "perhaps"}},
        {"body": VOTE | {"chain": CHAIN}},
    ],
)
def test_an_envelope_of_another_form_is_never_sealed(changes: dict[str, object]) -> None:
    with pytest.raises(MemberEnvelopeError):
        sealed(**changes)


def test_a_foreign_payload_is_refused_even_if_signed() -> None:
    for foreign in ({}, {"v": 1}, []):
        with pytest.raises(MemberEnvelopeError):
            open_envelope(Envelope.seal(canonical(foreign), PAYLOAD_TYPE, KEY), KEY.public)


def test_an_envelope_becomes_an_entry_with_its_confidential_fields_committed() -> None:
    envelope = sealed(EntryType.EPSILON_SPENT, SPENT, round=3)
    event = from_envelope(envelope, open_envelope(envelope, KEY.public), actor="0" * 16)
    assert set(event.pub) == {"mechanism", "plan", "steps"}
    assert event.private == {"lineage": "lineage-1", "rho_nano": 12, "epsilon_after": "1.5"}
    salts = {name: seeded(name, 16) for name in private_values(event, START_MS)}
    entry = check_entry(entry_body(event, log=ORIGIN, now_ms=START_MS, salts=salts))
    assert entry.env == event.env
    assert entry.id == seeded_id(event.env)


def seeded_id(env: str | None) -> bytes:
    assert env is not None
    return bytes.fromhex(env.removeprefix("sha256:"))[:16]


def test_chain_and_sequence_are_committed_where_the_schema_says_so() -> None:
    envelope = sealed()
    event = from_envelope(envelope, open_envelope(envelope, KEY.public), actor="0" * 16)
    assert event.private == {"chain": CHAIN, "seq": 0}


def test_the_broker_cannot_log_it_as_its_own() -> None:
    envelope = sealed()
    event = from_envelope(envelope, open_envelope(envelope, KEY.public), actor="broker")
    salts = {name: seeded(name, 16) for name in private_values(event, START_MS)}
    with pytest.raises(EntryError):
        entry_body(event, log=ORIGIN, now_ms=START_MS, salts=salts)


def test_a_chain_counts_and_links() -> None:
    first = payload(0, None)
    second = payload(1, first)
    state = ChainState(chain=CHAIN).accept(first).accept(second)
    assert (state.next_seq, state.prev, state.seen_size) == (2, payload_digest(second), 4)


def test_what_does_not_follow_is_refused() -> None:
    first = payload(0, None)
    second = payload(1, first)
    state = ChainState(chain=CHAIN).accept(first)
    with pytest.raises(SeqGapError, match="seq 1"):
        state.accept(payload(2, second))
    with pytest.raises(SlotTakenError):
        state.accept(payload(0, None, nonce=seeded("another", 16)))
    with pytest.raises(ChainError):
        state.accept(payload(1, payload(0, None, nonce=seeded("another", 16))))
    with pytest.raises(ChainError):
        state.accept(payload(1, first, chain="ffffffffffffffff"))
    with pytest.raises(SeenError):
        state.accept(payload(1, first, seen=Seen(3, bytes(32))))
