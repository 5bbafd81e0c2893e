# SPDX-License-Identifier: Apache-2.0
"""Everything that leaves the nodes in a whole run: the update and signed documents without a number of data."""

from __future__ import annotations

import base64
import json
from typing import Any

from policies.exchange import ExchangeType
from policies.reply_body import REPLY_KEYS
from tests.federationsim import NAMES, ROUNDS, Said, payload_of, running

SLOT = 250


def _numbers_with_a_point(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [one for child in value.values() for one in _numbers_with_a_point(child)]
    if isinstance(value, list):
        return [one for child in value for one in _numbers_with_a_point(child)]
    return [value] if isinstance(value, float) else []


def test_the_recorded_traffic_of_a_run_holds_no_float_beyond_the_update_and_no_other_key() -> None:
    with running(torch=True, **{"privacy.reply_slot_ms": SLOT}) as (pool, go):
        heard: list[Said] = []

        def listen(said: Said) -> Said:
            heard.append(said)
            return said

        for node in pool.nodes.values():
            node.lies.append(listen)
        run = go(pool.run())
        assert pool.row(run).state == "completed", pool.journal.lines
        assert pool.verdicts(run) == [dict.fromkeys(NAMES, "accepted")] * ROUNDS
        pool.check_audit()
        trained = [one for one in heard if one.header.type is ExchangeType.CONTRIBUTE]
        assert len(trained) == ROUNDS * len(NAMES)
        for one in heard:
            header = one.header
            payload = json.loads(base64.b64decode(json.loads(one.raw)["payload"]))
            assert _numbers_with_a_point(payload) == []
            assert set(header.body) <= REPLY_KEYS[header.type]
            envelopes = [payload_of(item) for item in header.body.get("envelopes", [])]
            assert _numbers_with_a_point(envelopes) == []
            submitted = [item["body"] for item in envelopes if item["kind"] == "submission.received"]
            assert all(set(body) <= {"update", "plan", "steps", "attempt", "receipt"} for body in submitted)
            sized = None if one.tensor is None else len(one.tensor)
            assert sized in (None, 4 * pool.recipe.parameters)
            if header.type is ExchangeType.CONTRIBUTE:
                assert header.body["decision"]["request"]["reply_slot_ms"] == SLOT
        assert {one.header.type for one in heard} >= {ExchangeType.CONTRIBUTE, ExchangeType.JUDGE}


def test_the_broker_takes_no_reply_that_says_more() -> None:
    with running() as (pool, go):

        def chatty(said: Said) -> Said:
            if said.header.round != 1 or not said.contributes:
                return said
            return said.sealed(body={**said.header.body, "num_examples": 250})

        pool.nodes["kita"].lies.append(chatty)
        run = go(pool.run())
        seen = pool.verdicts(run)
        assert [one["kita"] for one in seen] == ["refused", "accepted", "accepted"]
        assert all(one[name] == "accepted" for one in seen for name in NAMES if name != "kita")
        assert pool.refusals(run) == [("kita", 1, "round-closed")]  # its envelopes came again later
        (line,) = pool.journal.of("reply.refused")
        assert line["code"] == "privacy.reply-field"
        pool.check_audit()
