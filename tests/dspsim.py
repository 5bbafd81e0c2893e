# SPDX-License-Identifier: Apache-2.0
"""The Dataspace Protocol from the other side: its official schemas and contexts, and contracts to show as policies.

Schemas, examples and contexts are read from the shared vectors and never fetched; where they are absent, tests skip with the path.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from policies.contract import Contract, from_tree, load
from policies.contract.templates import TEMPLATES, PartyRow, RecipeFacts, blanks_of, fill
from tests.contractsim import authored, contract, runnable, without_privacy

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
VECTORS = SHARED / "vectors" / "dsp-2025-1"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no vectors at {VECTORS}")
_BASE = "https://w3id.org/dspace/2025/1/"
_CONTEXTS = {
    f"{_BASE}context.jsonld": "context/dspace.jsonld",
    f"{_BASE}odrl-profile.jsonld": "context/odrl.jsonld",
}
# @type of a message -> its schema
SCHEMAS = {
    "ContractAgreementMessage": "negotiation/contract-agreement-message",
    "ContractAgreementVerificationMessage": "negotiation/contract-agreement-verification-message",
    "ContractNegotiation": "negotiation/contract-negotiation",
    "ContractNegotiationError": "negotiation/contract-negotiation-error",
    "ContractNegotiationEventMessage": "negotiation/contract-negotiation-event-message",
    "ContractNegotiationTerminationMessage": "negotiation/contract-negotiation-termination-message",
    "ContractOfferMessage": "negotiation/contract-offer-message",
    "ContractRequestMessage": "negotiation/contract-request-message",
    "Catalog": "catalog/catalog",
    "CatalogError": "catalog/catalog-error",
    "CatalogRequestMessage": "catalog/catalog-request-message",
    "Dataset": "catalog/dataset",
    "versions": "common/protocol-version",
}


def read(name: str) -> Any:
    """One file of the vectors."""
    return json.loads((VECTORS / name).read_text("utf-8"))


def examples() -> list[str]:
    """Every official example message, by path."""
    return sorted(str(one.relative_to(VECTORS)) for one in VECTORS.glob("*/example/*.json"))


@functools.cache
def _validator(kind: str) -> Any:
    import jsonschema
    import referencing
    import referencing.jsonschema

    found = [read(str(path.relative_to(VECTORS))) for path in sorted(VECTORS.glob("*/*-schema.json"))]
    spec = referencing.jsonschema.DRAFT201909
    registry = referencing.Registry().with_resources((one["$id"], spec.create_resource(one)) for one in found)
    schema = read(f"{SCHEMAS[kind]}-schema.json")
    return jsonschema.Draft201909Validator(schema, registry=registry)


def schema_errors(message: Any, kind: str | None = None) -> list[str]:
    """What the official schema of a message's type says against it."""
    validator = _validator(kind or message["@type"])
    return [f"{one.json_path}: {one.message[:200]}" for one in validator.iter_errors(message)]


def expand(message: Any) -> list[Any]:
    """The expanded form of a JSON-LD document; a context that is not in the vectors is an error."""
    from pyld import jsonld

    def loader(url: str, _options: Any) -> dict[str, Any]:
        if url not in _CONTEXTS:
            raise AssertionError(f"a context was to be fetched: {url}")
        return {
            "contentType": "application/ld+json",
            "contextUrl": None,
            "documentUrl": url,
            "document": read(_CONTEXTS[url]),
        }

    # a warm cache makes pyld 3.3 lose terms of scoped contexts, in the official examples too
    jsonld._resolved_context_cache.clear()
    return list(jsonld.expand(message, {"documentLoader": loader}))


def dropped(message: Any) -> list[str]:
    """What expansion loses of a message: properties that become none, leaves that are gone, names that are no IRI."""
    expanded = expand(message)
    before, after = _count(message), _count(expanded)
    lost = [] if before == after else [f"(properties, leaves) {before} -> {after}"]
    return lost + [f"{name} is no IRI" for name in _names(expanded) if ":" not in name]


def _count(node: Any) -> tuple[int, int]:
    """How many properties and how many leaves; contexts are none."""
    if isinstance(node, dict):
        below = [_count(value) for key, value in node.items() if key != "@context"]
        own = sum(not key.startswith("@") for key in node)
        return own + sum(one[0] for one in below), sum(one[1] for one in below)
    if isinstance(node, list):
        below = [_count(one) for one in node]
        return sum(one[0] for one in below), sum(one[1] for one in below)
    return 0, 1


def _names(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [key for key in node if not key.startswith("@")]
        return own + [name for value in node.values() for name in _names(value)]
    return [name for one in node for name in _names(one)] if isinstance(node, list) else []


# --- contracts ---

_RECIPE = RecipeFacts(
    digest="",
    fields=("gripper_width", "tcp_pos"),
    rounds=10,
    local_steps=1,
    unit="episode",
    adjacency="zero-out",
    delta="0.00001",
    noise="local-full",
    epsilon="0.5",
)
_ANSWERS = {
    "sign_by": "2026-11-30T00:00:00Z",
    "effective": "2026-12-01T00:00:00Z",
    "expires": "2028-12-01T00:00:00Z",
    "governing": "DE",
    "forum": "DIS arbitration, Zurich",
    "log_origin": "broker.example/weldpick",
    "liability_cap_eur": "2000000",
    "prose_sha256": "9d1f4e6a3c5b7081920a1b2c3d4e5f60718293a4b5c6d7e8f9010203040506aa",
}


def template_contract(name: str) -> Contract:
    """A template with every blank filled in, by five makers."""
    template = TEMPLATES[name]
    rows = [
        PartyRow(**{key: one[key] for key in PartyRow.__dataclass_fields__}) for one in authored()["parties"]
    ]
    kita = next(one for one in rows if one.party == "kita")
    from tests.contractsim import key

    fifth = PartyRow(
        **asdict(kita)
        | {"party": "fifth", "group": "fifth", "org": "org_aaaaaaaaaaaaaaaa", "key": key("fifth")}
    )
    parties = [*(one for one in rows if one.role != "auditor"), fifth]
    recipes = {
        slot: RecipeFacts(**asdict(_RECIPE) | {"digest": "sha256:" + f"{i + 1:x}" * 64})
        for i, slot in enumerate(template.slots)
    }
    blanks = blanks_of(template.defaults, parties, recipes)
    answers = {one.name: _ANSWERS[one.name] for one in blanks if one.default is None}
    filled = fill(
        template, contract_id="ctr_lkihp6tr36wod3m4", answers=answers, parties=parties, recipes=recipes
    )
    return load(filled.text)


def contracts() -> dict[str, Contract]:
    """Contracts of every shape: all clause kinds, no privacy, fixed weights, what runs today, the three templates."""
    fixed = authored()
    fixed["aggregation"] |= {
        "weights": "fixed",
        "fixed_weights": [{"party": name, "weight": "1.5"} for name in ("hanbit", "iber", "kita", "nord")],
    }
    return {
        "every clause": contract(),
        "no privacy": without_privacy(),
        "fixed weights": from_tree(fixed),
        "runs today": from_tree(runnable()),
        **{f"template {name}": template_contract(name) for name in TEMPLATES},
    }


# --- Catena-X ---

# made up for the tests in the form of the profile; no policy of anybody
CATENAX = {
    "@context": ["https://w3id.org/catenax/2025/9/policy/odrl.jsonld"],
    "@type": "Set",
    "@id": "example",
    "permission": [
        {
            "action": "use",
            "constraint": [
                {
                    "and": [
                        {"leftOperand": "Membership", "operator": "eq", "rightOperand": "active"},
                        {
                            "leftOperand": "https://w3id.org/catenax/policy/UsagePurpose",
                            "operator": "isAnyOf",
                            "rightOperand": ["cx.example.purpose:1"],
                        },
                        {
                            "leftOperand": "cx-policy:DataUsageEndDate",
                            "operator": "eq",
                            "rightOperand": "2028-12-01T00:00:00Z",
                        },
                        {
                            "or": [
                                {"leftOperand": "Liability", "operator": "eq", "rightOperand": "x:1"},
                                {"leftOperand": "Warranty", "operator": "eq", "rightOperand": "x:1"},
                            ]
                        },
                    ]
                }
            ],
        }
    ],
    "prohibition": [
        {
            "action": "use",
            "constraint": {"leftOperand": "madeUp", "operator": "eq", "rightOperand": "x"},
        }
    ],
    "obligation": [
        {"action": "use", "constraint": [{"leftOperand": "Precedence", "rightOperand": "cx.p:1"}]}
    ],
}
