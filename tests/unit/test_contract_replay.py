# SPDX-License-Identifier: Apache-2.0
"""A decision's record is the same bytes for everybody who is given its request: also for an auditor without our libraries."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import policies
from policies.contract import (
    decision_bytes,
    evaluate,
    replay,
    request_to_json,
    state_to_json,
)
from policies.contract.errors import RequestMalformedError
from policies.encoding import canonical, digest, parse
from tests.contractsim import (
    STATE,
    aggregate,
    allowed,
    contract,
    deliver,
    join,
    leave,
    query,
    release,
    train_round,
)

CONTRACT = contract()
SALT = bytes(range(16))
POINTS = {
    "TrainRound": "node",
    "Aggregate": "broker",
    "Release": "gate",
    "Deliver": "gate",
    "Query": "broker",
    "Join": "broker",
    "Exit": "node",
}

FRESH = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "pydantic_core", "yaml", "numpy", "http_message_signatures", "sqlalchemy"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from policies.contract.clauses import parse
from policies.contract.decision import replay
from policies.contract.signatures import executed
given = json.load(sys.stdin)
contract = parse(given["contract"].encode())
out = [replay(contract, point=c["point"], request=c["request"], state=c["state"], salt16=bytes.fromhex(c["salt"])).hex()
       for c in given["cases"]]
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"pydantic", "yaml", "numpy", "torch"})
json.dump({"records": out, "loaded": loaded}, sys.stdout)
"""


def requests():
    bad = [
        train_round("nord", epsilon_after_total="4.1"),
        train_round(fields=("x_shift_id",)),
        train_round(privacy=None),
        aggregate(survivors=("kita", "nord"), weights={"kita": "1", "nord": "0.5"}),
        release(vetoes=("nord",), approvals=()),
        deliver("mallory"),
        query(cohort=("kita",), view=None),
        join(signers=("broker",), kind=None),
        leave(notice_at="2027-12-03T00:00:00Z"),
    ]
    return [*allowed().values(), *bad]


def record(request, *, state=STATE, salt=SALT, point=None):
    decision = evaluate(CONTRACT, state, request)
    return decision_bytes(
        decision,
        contract_digest=CONTRACT.digest,
        point=point or POINTS[request.TYPE],
        request=request,
        state=state,
        salt16=salt,
    )


def test_a_record_says_what_was_decided_and_hides_the_request():
    data = record(train_round("nord", epsilon_after_total="4.1"))
    tree = parse(data)
    assert set(tree) == {
        "schema",
        "semantics",
        "contract",
        "point",
        "request_type",
        "request",
        "allow",
        "findings",
    }
    assert (tree["schema"], tree["semantics"]) == ("iriai-decision/1", "iriai-eval/1")
    assert tree["contract"] == CONTRACT.digest
    assert (tree["point"], tree["request_type"], tree["allow"]) == ("node", "TrainRound", False)
    request, state = request_to_json(train_round("nord", epsilon_after_total="4.1")), state_to_json(STATE)
    message = SALT + canonical({"request": request, "state": state})
    assert tree["request"] == "sha256:" + hashlib.sha256(message).hexdigest()
    order = [(one["clause"], one["check"]) for one in tree["findings"]]
    assert order == sorted(order)


STATES = (
    STATE,
    replace(STATE, now=None, rotated_keys=None),
    replace(STATE, halted=True, standing="superseded", exited_parties=("nord",), rotated_keys={"kita": "k"}),
)


def test_replay_gives_the_same_bytes():
    for state in STATES:
        for request in requests():
            again = replay(
                CONTRACT,
                point=POINTS[request.TYPE],
                request=parse(canonical(request_to_json(request))),
                state=parse(canonical(state_to_json(state))),
                salt16=SALT,
            )
            assert again == record(request, state=state)


def test_replay_in_a_fresh_interpreter_without_pydantic_and_yaml_gives_the_same_bytes():
    cases = [
        {
            "point": POINTS[request.TYPE],
            "request": request_to_json(request),
            "state": state_to_json(state),
            "salt": SALT.hex(),
        }
        for state in STATES
        for request in requests()
    ]
    root = Path(policies.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-B", "-c", FRESH],
        input=json.dumps({"contract": CONTRACT.canonical.decode(), "cases": cases}),
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    here = [record(request, state=state) for state in STATES for request in requests()]
    assert [bytes.fromhex(one) for one in answer["records"]] == here
    print(f"\n{len(here)} decisions replayed in a fresh interpreter, byte for byte")
    assert answer["loaded"] == []


def test_the_records_of_this_version_do_not_change():
    """Golden digest: if it changes, old decisions no longer replay; after the first release that needs a new id of the semantics."""
    data = canonical([json.loads(record(request)) for request in requests()])
    print(digest(data))
    assert digest(data) == GOLDEN


GOLDEN = "sha256:61ce8da048aef82b8836b73c9879857a85de925dfd75de779e7a342f36d404ed"


def test_every_changed_fact_changes_the_record():
    seen = {record(train_round())}
    for changes in ({"round": 8}, {"epsilon_after_total": "3.22"}, {"cohort": ("kita", "nord", "iber")}):
        seen.add(record(train_round(**changes)))
    seen.add(record(train_round(), state=replace(STATE, now="2026-12-02T00:00:01Z")))
    seen.add(record(train_round(), salt=b"\x01" * 16))
    seen.add(record(train_round(), point="broker"))
    assert len(seen) == 7


def test_a_record_needs_a_full_salt_and_a_point_where_the_request_is_asked():
    with pytest.raises(RequestMalformedError):
        record(train_round(), salt=b"short")
    for request, point in (
        (train_round(), "gate"),
        (release(), "node"),
        (aggregate(), "auditor"),
        (deliver(), "x"),
    ):
        with pytest.raises(RequestMalformedError):
            record(request, point=point)


def test_the_order_of_a_mapping_does_not_matter():
    one = aggregate(weights={"kita": "1", "iber": "1", "nord": "1"})
    other = aggregate(weights={"nord": "1", "kita": "1", "iber": "1"})
    assert record(one) == record(other)
