# SPDX-License-Identifier: Apache-2.0
"""Witness statements: whose key it is, said by a key that is known already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from policies.encoding import canonical, digest
from policies.errors import IriaiError, SignatureInvalidError, WeakKeyError
from policies.identity import SigningKey
from policies.log.checkpoint import KeyKind, VerifierKey
from policies.log.cosignature import cosigner_vkey
from policies.log.errors import WitnessStatementError
from policies.log.mldsa import MlDsaKey
from policies.log.witness_keys import (
    PAYLOAD_TYPE,
    open_statement,
    seal_statement,
    shows_possession,
    witness_name,
)
from policies.signing import Envelope

if TYPE_CHECKING:
    from typing import Any

LOG = "pool.example/log/2026a"
ORG = "org_aaaabbbbccccdddd"
NODE, WITNESS, OTHER = (SigningKey.from_seed(bytes([one]) * 32) for one in b"NWO")
VKEY = cosigner_vkey(WITNESS, witness_name(ORG))
TIME_MS = 1_790_000_000_123
PAYLOAD = {"v": 1, "log": LOG, "org": ORG, "vkey": VKEY.text(), "time": "2026-09-21T14:13:20.123Z"}


def seal(**changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "witness": WITNESS,
        "log": LOG,
        "org": ORG,
        "vkey": VKEY.text(),
        "time_ms": TIME_MS,
    }
    return seal_statement(NODE, **(fields | changes))


def test_a_statement_opens_under_the_key_that_signed_it() -> None:
    sealed = seal()
    assert sealed.payload == canonical(PAYLOAD)
    statement = open_statement(Envelope.from_bytes(sealed.to_bytes()), NODE.public, log=LOG)
    assert (statement.log, statement.org, statement.key, statement.time_ms) == (LOG, ORG, VKEY, TIME_MS)
    assert (statement.proven, statement.digest) == (True, digest(sealed.payload))


def test_a_statement_of_an_earlier_version_opens_and_proves_nothing_of_the_witness_key() -> None:
    sealed = seal(witness=None)
    assert not open_statement(sealed, NODE.public, log=LOG).proven
    assert not shows_possession(sealed, VKEY)


@pytest.mark.parametrize("holder", [OTHER, NODE])
def test_who_does_not_hold_the_witness_key_proves_nothing(holder: SigningKey) -> None:
    """Neither with another key, nor with a proof for another name, log, or owner."""
    with pytest.raises(WitnessStatementError):
        open_statement(seal(witness=holder), NODE.public, log=LOG)
    for changes in ({"log": "other.example/log"}, {"time_ms": TIME_MS + 1}):
        borrowed = replace(seal(), signatures=(seal().signatures[0], seal(**changes).signatures[1]))
        with pytest.raises(WitnessStatementError):
            open_statement(borrowed, NODE.public, log=LOG)
    hinted = replace(seal(), signatures=(seal().signatures[0], ("0" * 16, seal().signatures[1][1])))
    with pytest.raises(WitnessStatementError):
        open_statement(hinted, NODE.public, log=LOG)


def test_a_post_quantum_witness_and_an_auditor_can_state_their_keys() -> None:
    held = MlDsaKey.from_seed(b"Q" * 32)
    quantum = cosigner_vkey(held, "auditor/witness")
    sealed = seal(witness=held, org="auditor", vkey=quantum.text())
    said = open_statement(sealed, NODE.public, log=LOG)
    assert (said.key, said.proven) == (quantum, True)


def test_another_signer_another_log_or_a_third_signature_is_refused() -> None:
    sealed = seal()
    with pytest.raises(SignatureInvalidError):
        open_statement(sealed, OTHER.public, log=LOG)
    with pytest.raises(WitnessStatementError):
        open_statement(sealed, NODE.public, log="other.example/log")
    for keys in ((NODE, OTHER), (WITNESS, NODE), (NODE, WITNESS, OTHER)):
        with pytest.raises(WitnessStatementError):
            open_statement(Envelope.seal(sealed.payload, PAYLOAD_TYPE, *keys), NODE.public, log=LOG)
    hinted = replace(sealed, signatures=(("0" * 16, sealed.signatures[0][1]),))
    with pytest.raises(WitnessStatementError):
        open_statement(hinted, NODE.public, log=LOG)
    with pytest.raises(SignatureInvalidError):
        open_statement(Envelope.seal(sealed.payload, "text/plain", NODE), NODE.public, log=LOG)


@pytest.mark.parametrize(
    "payload",
    [
        PAYLOAD | {"v": 2},
        PAYLOAD | {"v": True},
        PAYLOAD | {"extra": 1},
        {name: value for name, value in PAYLOAD.items() if name != "time"},
        PAYLOAD | {"time": "2026-09-21T13:33:20Z"},
        PAYLOAD | {"time": "2026-13-21T13:33:20.123Z"},
        PAYLOAD | {"org": "nord"},
        PAYLOAD | {"org": ""},
        PAYLOAD | {"log": "two words"},
        PAYLOAD | {"vkey": "x"},
        PAYLOAD | {"vkey": VKEY.text().replace(VKEY.hash4.hex(), "00000000")},
        PAYLOAD | {"vkey": VerifierKey(VKEY.name, WITNESS.public, KeyKind.LOG).text()},
        PAYLOAD | {"vkey": cosigner_vkey(WITNESS, ORG).text()},
        PAYLOAD | {"vkey": cosigner_vkey(WITNESS, "org_other/witness").text()},
        PAYLOAD | {"vkey": cosigner_vkey(NODE, VKEY.name).text()},
        [],
        "text",
        None,
    ],
)
def test_a_statement_of_another_form_is_refused_though_signed(payload: Any) -> None:
    sealed = Envelope.seal(canonical(payload), PAYLOAD_TYPE, NODE)
    with pytest.raises(WitnessStatementError) as refused:
        open_statement(sealed, NODE.public, log=LOG)
    assert refused.value.remedy


def test_a_weak_witness_key_is_refused_on_both_sides() -> None:
    weak = VerifierKey(VKEY.name, b"\x01" + bytes(31), KeyKind.COSIGNER).text()
    with pytest.raises(WeakKeyError):
        seal(vkey=weak)
    sealed = Envelope.seal(canonical(PAYLOAD | {"vkey": weak}), PAYLOAD_TYPE, NODE)
    with pytest.raises(WeakKeyError):
        open_statement(sealed, NODE.public, log=LOG)


@pytest.mark.parametrize("changes", [{"log": ""}, {"org": "nord"}, {"vkey": ""}, {"org": "a\nb"}])
def test_nothing_is_sealed_that_could_not_be_opened(changes: dict[str, Any]) -> None:
    with pytest.raises(WitnessStatementError):
        seal(**changes)


def test_bytes_that_are_not_canonical_are_refused() -> None:
    sealed = Envelope.seal(canonical(PAYLOAD) + b" ", PAYLOAD_TYPE, NODE)
    with pytest.raises(IriaiError):
        open_statement(sealed, NODE.public, log=LOG)
