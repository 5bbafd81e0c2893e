# SPDX-License-Identifier: Apache-2.0
"""Every message that we emit, against the official schemas and contexts of the Dataspace Protocol 2025-1."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from policies.contract.odrl import dsp_messages as dsp
from policies.contract.odrl import export, offer, pairs
from tests.contractsim import contract
from tests.dspsim import contracts, dropped, needs_vectors, schema_errors

PIDS = ("iriai:neg:1", "urn:uuid:32541fe6-c580-409e-85a8-8a9a32fbe833")


def others() -> list[dict]:
    """The messages that hold no policy, and the two of the catalogue."""
    shown = contract()
    datasets = [
        {
            "@id": one.target,
            "@type": "Dataset",
            "hasPolicy": [offer(one, target=False)],
            "distribution": [
                {"@type": "Distribution", "format": "iriai:release", "accessService": "iriai:dsp"}
            ],
        }
        for one in pairs(shown)
        if one.kind != "dataset"
    ]
    service = {"@id": "iriai:dsp", "@type": "DataService", "endpointURL": "https://broker.example/api/v1/dsp"}
    about = {"catalog_id": "iriai:catalog", "participant": "https://broker.example", "service": service}
    return [
        dsp.negotiation(*PIDS, "REQUESTED"),
        dsp.event_message(*PIDS, dsp.FINALIZED),
        dsp.termination_message(*PIDS, code="negotiation.deadline", reason="too late"),
        dsp.negotiation_error(*PIDS, code="negotiation.bad-transition", reason=["no"]),
        dsp.offer_message(*PIDS, offer(pairs(shown)[-1], target=True)),
        dsp.catalog_error(code="request.not-found", reason=["no"]),
        dsp.catalog(**about, datasets=datasets),
        dsp.catalog(**about, datasets=[]),
        dsp.with_context("Dataset", {key: value for key, value in datasets[0].items() if key != "@type"}),
    ]


@needs_vectors
def test_every_exported_message_passes_its_schema_and_loses_nothing_in_expansion():
    print()
    for name, shown in contracts().items():
        messages = export(shown)
        errors = {one["@type"]: schema_errors(one) for one in messages if schema_errors(one)}
        lost = [fault for one in messages for fault in dropped(one)]
        kinds = Counter(one["@type"] for one in messages)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        print(f"DSP 2025-1 {name}: {counts}; {len(errors)} schema errors, {len(lost)} terms dropped")
        assert (errors, lost) == ({}, [])


@needs_vectors
def test_every_other_message_passes_its_schema_and_loses_nothing_in_expansion():
    messages = others()
    assert [fault for one in messages for fault in schema_errors(one)] == []
    assert [fault for one in messages for fault in dropped(one)] == []
    assert schema_errors(dsp.versions("/api/v1/dsp"), "versions") == []
    print(f"\nDSP 2025-1 facade: {len(messages) + 1} kinds of message, 0 schema errors, 0 terms dropped")


@needs_vectors
@pytest.mark.parametrize(
    "fault",
    [
        lambda one: one["agreement"].update(permission=[]),
        lambda one: one["agreement"].pop("target"),
        lambda one: one.pop("consumerPid"),
        lambda one: one["agreement"]["permission"][0]["constraint"][0].update(rightOperand=4),
        lambda one: one["agreement"]["permission"][0]["constraint"][0].update(operator="atMost"),
        lambda one: one.update({"@context": ["https://example.com/context.jsonld"]}),
    ],
)
def test_the_schemas_do_refuse(fault):
    message = copy.deepcopy(export(contract())[0])
    fault(message)
    assert schema_errors(message) != []


@needs_vectors
def test_a_term_without_an_iri_is_seen_to_be_dropped():
    message = copy.deepcopy(export(contract())[0])
    constraint = message["agreement"]["permission"][0]["constraint"][0]
    constraint["clause"] = constraint.pop("iriai:clause")
    assert dropped(message) != []
