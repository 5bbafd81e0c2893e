# SPDX-License-Identifier: Apache-2.0
"""The official example messages through our checked import: each one is read, or refused by name and path."""

from __future__ import annotations

import pytest

from policies.contract.errors import DspMessageError, OdrlRefusedError
from policies.contract.odrl import dsp_messages as dsp
from policies.contract.odrl.reading import read_view
from tests.dspsim import VECTORS, examples, needs_vectors, read

_NAMES = examples() if VECTORS.is_dir() else []


def outcome(name: str) -> str:
    try:
        view = read_view(read(name))
    except OdrlRefusedError as error:
        return f"refused: {error.found}"
    return f"read: {view.digest}"


@needs_vectors
def test_every_official_example_is_read_or_refused_by_name():
    found = {name: outcome(name) for name in _NAMES}
    print()
    for name, said in found.items():
        print(f"{name}: {said[:160]}")
    refused = [name for name, said in found.items() if said.startswith("refused")]
    print(
        f"ODRL/DSP examples: {len(found)}, {len(found) - len(refused)} read, {len(refused)} refused by name"
    )
    assert len(found) == 27
    assert refused == _NAMES  # none of them is of our profile


@needs_vectors
def test_the_full_example_is_refused_for_each_thing_that_it_says():
    said = outcome("negotiation/example/contract-agreement-message-full.json")
    for place in (
        "agreement.profile: https://test.com/profile",
        "agreement.iriai:contractDigest: nothing",
        "agreement.permission[0].constraint[0].leftOperand: dateTime",
        "agreement.permission[1].constraint[0].and: and",
        "agreement.permission[2].constraint[0].or: or",
        "agreement.permission[4].constraint[0].andSequence: andSequence",
        "agreement.permission[5].constraint[0].xone: xone",
    ):
        assert place in said


@needs_vectors
@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (dsp.read_request, "contract-request-message"),
        (dsp.read_request, "contract-request-message_initial"),
        (dsp.read_event, "contract-negotiation-event-message"),
        (dsp.read_verification, "contract-agreement-verification-message"),
        (dsp.read_termination, "contract-negotiation-termination-message"),
    ],
)
def test_the_facade_reads_the_official_messages_of_a_consumer(reader, name):
    data = (VECTORS / f"negotiation/example/{name}.json").read_bytes()
    assert reader(dsp.read_json(data)) is not None


@needs_vectors
def test_the_facade_reads_the_official_question_to_the_catalogue():
    dsp.read_catalog_request(read("catalog/example/catalog-request-message.json"))
    with pytest.raises(DspMessageError):
        dsp.read_catalog_request(read("catalog/example/dataset-request-message.json"))
