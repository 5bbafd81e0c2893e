# SPDX-License-Identifier: Apache-2.0
"""The contract: one language, one digest, one evaluator for the node, the broker, the gate and the auditor.

Names resolve on first use (PEP 562): reading a signed contract and judging a request needs the standard
library only, `load` of a text needs pydantic, and YAML text needs PyYAML.

    contract = load(text)                      # strict YAML or canonical JSON; an error names the clause
    executed(contract, envelope)               # raises unless all contributors and the broker signed it
    decision = evaluate(contract, state, request)     # pure; a finding per check; allow if all are satisfied
    decision.require()                         # raises contract.refused, naming the clause
    record = decision_bytes(
        decision, contract_digest=contract.digest, point="node", request=request, state=state, salt16=salt
    )
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.contract.clauses import Contract, parse
    from policies.contract.decision import (
        Decision,
        Finding,
        Outcome,
        decision_bytes,
        evaluate,
        replay,
    )
    from policies.contract.document import from_tree, json_schema, load
    from policies.contract.render import enforcement_map, explain, plain_words
    from policies.contract.requests import (
        PUBLIC,
        Aggregate,
        ContractState,
        Deliver,
        EpsilonAfter,
        Exit,
        Join,
        PlanFacts,
        Query,
        Release,
        Request,
        TrainRound,
        request_from_json,
        request_to_json,
        state_from_json,
        state_to_json,
    )
    from policies.contract.signatures import CONTRACT_TYPE, executed, open_contract, seal, signers

_HOME = {
    "clauses": ("Contract", "parse"),
    "decision": ("Decision", "Finding", "Outcome", "decision_bytes", "evaluate", "replay"),
    "document": ("from_tree", "json_schema", "load"),
    "render": ("enforcement_map", "explain", "plain_words"),
    "requests": (
        "PUBLIC",
        "Aggregate",
        "ContractState",
        "Deliver",
        "EpsilonAfter",
        "Exit",
        "Join",
        "PlanFacts",
        "Query",
        "Release",
        "Request",
        "TrainRound",
        "request_from_json",
        "request_to_json",
        "state_from_json",
        "state_to_json",
    ),
    "signatures": ("CONTRACT_TYPE", "executed", "open_contract", "seal", "signers"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CONTRACT_TYPE",
    "PUBLIC",
    "Aggregate",
    "Contract",
    "ContractState",
    "Decision",
    "Deliver",
    "EpsilonAfter",
    "Exit",
    "Finding",
    "Join",
    "Outcome",
    "PlanFacts",
    "Query",
    "Release",
    "Request",
    "TrainRound",
    "decision_bytes",
    "enforcement_map",
    "evaluate",
    "executed",
    "explain",
    "from_tree",
    "json_schema",
    "load",
    "open_contract",
    "parse",
    "plain_words",
    "replay",
    "request_from_json",
    "request_to_json",
    "seal",
    "signers",
    "state_from_json",
    "state_to_json",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'policies.contract' has no attribute {name!r}")
    return getattr(importlib.import_module(f"policies.contract.{_WHERE[name]}"), name)
