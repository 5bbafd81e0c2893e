# SPDX-License-Identifier: Apache-2.0
"""Who has signed a contract: parties by their pinned key, each once, over exactly these bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.contract import CONTRACT_TYPE, executed, from_tree, open_contract, parse, seal, signers
from policies.contract.errors import (
    ContractInvalidError,
    ContractSignatureError,
    NotCanonicalError,
    NotExecutedError,
)
from policies.encoding import canonical
from policies.errors import SignatureInvalidError, WeakKeyError
from policies.identity import check_public_key, key_text, parse_key, verify
from policies.limits import CONTRACT_SIGNATURES
from policies.signing import Envelope, pae
from tests.contractsim import CONTRIBUTORS, authored, contract, key_of

CONTRACT = contract()
ALL = (*CONTRIBUTORS, "broker")
P = 2**255 - 19


def sealed(*names: str) -> Envelope:
    return seal(CONTRACT, *(key_of(name) for name in names))


def small_order_encodings() -> list[bytes]:
    """The 48 encodings of contract.md, section 6: y of small order, or y >= p, each with both sign bits."""
    order8 = [
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ]
    small = [0, 1, P - 1, *(int.from_bytes(one, "little") for one in order8)]
    values = {*small, *range(P, 2**255)}
    return [(y | sign << 255).to_bytes(32, "little") for y in sorted(values) for sign in (0, 1)]


def test_all_signatures_execute_it():
    executed(CONTRACT, sealed(*ALL))
    executed(CONTRACT, sealed(*reversed(ALL), *ALL))  # order and repetition mean nothing
    assert signers(CONTRACT, sealed("kita", "kita")) == ("kita",)


@pytest.mark.parametrize("missing", ALL)
def test_one_party_that_has_not_signed_is_named(missing):
    with pytest.raises(NotExecutedError) as refused:
        executed(CONTRACT, sealed(*(name for name in ALL if name != missing)))
    assert refused.value.clause == f"party-{missing}"
    assert refused.value.found.endswith(f"not signed by {missing}")
    assert refused.value.exit_code == 4


def test_a_repeated_signature_counts_once():
    with pytest.raises(NotExecutedError) as refused:
        executed(CONTRACT, sealed("kita", "kita", "kita", "kita", "kita"))
    assert refused.value.found.startswith("1;")


def test_a_stranger_does_not_stand_in_for_a_party():
    with pytest.raises(NotExecutedError):
        executed(CONTRACT, sealed("kita", "nord", "iber", "mallory", "broker"))
    executed(CONTRACT, sealed(*ALL, "mallory"))  # one more signature is no harm


def test_the_key_id_decides_nothing():
    envelope = sealed(*ALL)
    hints = [hint for hint, _ in envelope.signatures]
    rotated = tuple((hints[i - 1], signature) for i, (_, signature) in enumerate(envelope.signatures))
    executed(CONTRACT, replace(envelope, signatures=rotated))
    posing = sealed("kita", "nord", "iber", "mallory", "broker")
    named = tuple((hint, signature) for hint, (_, signature) in zip(hints, posing.signatures, strict=True))
    with pytest.raises(NotExecutedError):
        executed(CONTRACT, replace(posing, signatures=named))


def test_every_flipped_signature_is_missed():
    envelope = sealed(*ALL)
    for index, (hint, signature) in enumerate(envelope.signatures):
        flipped = bytes([signature[0] ^ 1]) + signature[1:]
        other = [*envelope.signatures]
        other[index] = (hint, flipped)
        with pytest.raises(NotExecutedError):
            executed(CONTRACT, replace(envelope, signatures=tuple(other)))


def test_signatures_over_another_version_do_not_carry_over():
    tree = authored()
    tree["title"] = "Another pool"
    other = from_tree(tree)
    with pytest.raises(ContractSignatureError) as refused:
        executed(other, sealed(*ALL))
    assert refused.value.exit_code == 6
    moved = replace(sealed(*ALL), payload=other.canonical)
    with pytest.raises(NotExecutedError):
        executed(other, moved)


def test_another_payload_type_is_another_document():
    envelope = Envelope.seal(CONTRACT.canonical, "application/vnd.iriai.request.v1+json", *map(key_of, ALL))
    for read in (lambda: executed(CONTRACT, envelope), lambda: open_contract(envelope)):
        with pytest.raises(ContractSignatureError):
            read()
    relabelled = replace(envelope, payload_type=CONTRACT_TYPE)
    with pytest.raises(NotExecutedError):
        executed(CONTRACT, relabelled)


def test_a_flood_of_signatures_is_refused_before_any_is_checked():
    envelope = sealed("kita")
    flood = replace(envelope, signatures=envelope.signatures * (CONTRACT_SIGNATURES + 1))
    with pytest.raises(ContractSignatureError):
        executed(CONTRACT, flood)


def test_the_envelope_travels_as_bytes():
    envelope = Envelope.from_bytes(sealed(*ALL).to_bytes())
    assert open_contract(envelope) == CONTRACT
    executed(CONTRACT, envelope)
    with pytest.raises(NotCanonicalError):
        open_contract(replace(envelope, payload=envelope.payload + b"\n"))
    with pytest.raises(ContractInvalidError):
        open_contract(replace(envelope, payload=b"{}"))


def test_signatures_are_added_as_they_come():
    envelope = seal(CONTRACT)
    for name in ALL:
        key = key_of(name)
        envelope = envelope.with_signature(key.public, key.sign(pae(CONTRACT_TYPE, CONTRACT.canonical)))
    executed(CONTRACT, envelope)
    with pytest.raises(SignatureInvalidError):
        envelope.with_signature(key_of("kita").public, b"\x00" * 64)


def test_all_48_weak_encodings_are_refused_as_keys_and_as_parties():
    encodings = small_order_encodings()
    assert len(encodings) == 48
    for raw in encodings:
        with pytest.raises(WeakKeyError):
            check_public_key(raw)
        with pytest.raises(WeakKeyError):
            parse_key(key_text(raw))
        with pytest.raises(WeakKeyError):
            verify(raw, b"\x00" * 64, b"any message")
        tree = authored()
        tree["parties"][0]["key"] = key_text(raw)
        with pytest.raises(WeakKeyError) as refused:
            from_tree(tree)
        assert refused.value.code == "identity.weak-key"
        assert refused.value.clause == "party-kita"
        signed = CONTRACT.document
        signed["parties"][-1]["key"] = key_text(raw)
        with pytest.raises(WeakKeyError):
            parse(canonical(signed))
    print(f"\nweak keys: {len(encodings)} of 48 encodings refused at load and at verify")


def test_the_forgery_that_fits_every_message_is_refused():
    neutral = b"\x01" + b"\x00" * 31
    forged = (
        neutral + b"\x00" * 32
    )  # R is the neutral element, S is 0: the library accepts it for any message
    for message in (b"", b"pay", CONTRACT.canonical):
        with pytest.raises(WeakKeyError):
            verify(neutral, forged, message)
