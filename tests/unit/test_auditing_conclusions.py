# SPDX-License-Identifier: Apache-2.0
"""An auditor's conclusion enters the log that it is about: signed, chained, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policies.log.entries import EntryType
from policies.log.envelope import Seen
from policies.log.merkle import EMPTY_ROOT
from tests.auditorsim import AuditorSim, enrolled
from tests.brokersim import House, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def test_a_conclusion_becomes_an_entry_of_the_auditors(house):
    ernst = await enrolled(house)
    answer = await ernst.post("/audit/conclusions", ernst.conclusion("reservations").to_json())
    assert answer.status_code == 201
    assert len(answer.json()["receipts"]) == 1
    (entry,) = house.entries(EntryType.AUDIT_CONCLUDED)
    assert (entry.actor, entry.pub["conclusion"]) == ("auditor", "reservations")


async def test_an_operator_hands_one_in_and_is_named(house):
    ernst = await enrolled(house)
    answer = await house.bob.post("/audit/conclusions", ernst.conclusion().to_json())
    assert answer.status_code == 201
    assert house.entries(EntryType.CONSOLE_ACTION)[-1].pub["action"] == "audit.conclude"
    assert len(house.entries(EntryType.AUDIT_CONCLUDED)) == 1


async def test_the_same_again_is_the_same_entry(house):
    ernst = await enrolled(house)
    envelope = ernst.conclusion().to_json()
    indexes = [(await ernst.post("/audit/conclusions", envelope)).json()["index"] for _ in range(2)]
    assert indexes[0] == indexes[1]
    assert len(house.entries(EntryType.AUDIT_CONCLUDED)) == 1


async def test_conclusions_of_one_auditor_follow_each_other(house):
    ernst = await enrolled(house)
    kept = ernst.chain
    await ernst.post("/audit/conclusions", ernst.conclusion().to_json())
    assert (await ernst.post("/audit/conclusions", ernst.conclusion().to_json())).status_code == 201
    ernst.chain = kept
    again = await ernst.post("/audit/conclusions", ernst.conclusion("adverse").to_json())
    assert code(again) == (409, "audit.concluded")
    assert "newer bundle" in again.json()["remedy"]


async def test_a_chain_is_one_auditors(house):
    ernst, other = await enrolled(house), await enrolled(house, "other")
    await ernst.post("/audit/conclusions", ernst.conclusion().to_json())
    other.chain = ernst.chain
    answer = await other.post("/audit/conclusions", other.conclusion().to_json())
    assert answer.json()["code"] == "log.chain"


async def test_nobody_concludes_for_somebody_else(house):
    ernst, other = await enrolled(house), await enrolled(house, "other")
    answer = await other.post("/audit/conclusions", ernst.conclusion().to_json())
    assert code(answer) == (404, "audit.auditor-unknown")
    stranger = AuditorSim(house, "stranger")
    answer = await house.alice.post("/audit/conclusions", stranger.conclusion().to_json())
    assert code(answer) == (404, "audit.auditor-unknown")
    by_operator = ernst.conclusion(key=house.alice.key)
    answer = await house.alice.post("/audit/conclusions", by_operator.to_json())
    assert code(answer) == (404, "audit.auditor-unknown")
    kita = await house.member("kita")
    answer = await kita.post("/audit/conclusions", ernst.conclusion().to_json())
    assert code(answer) == (403, "identity.wrong-role")
    assert house.entries(EntryType.AUDIT_CONCLUDED) == []


async def test_a_revoked_auditor_concludes_nothing_through_nobody(house):
    ernst = await enrolled(house)
    envelope = ernst.conclusion().to_json()
    await house.alice.post("/operator/auditors/ernst/revoke", {"reason": "over"})
    answer = await house.alice.post("/audit/conclusions", envelope)
    assert code(answer) == (404, "audit.auditor-unknown")


async def test_a_conclusion_is_about_a_checkpoint_of_this_history(house):
    ernst = await enrolled(house)
    head = house.services.writer.head()
    for seen, wanted in (
        (Seen(0, EMPTY_ROOT), "log.envelope-invalid"),
        (Seen(head.size, b"\0" * 32), "log.seen-unknown"),
        (Seen(head.size + 100, head.root), "log.seen-unknown"),
    ):
        kept = ernst.chain
        answer = await ernst.post("/audit/conclusions", ernst.conclusion(seen=seen).to_json())
        assert answer.json()["code"] == wanted
        ernst.chain = kept


@pytest.mark.parametrize(
    "changes",
    [
        {
            "kind": EntryType.VOTE_CAST,
            "body": {"subject": "sha256:" + "0" * 64, "vote": "veto", "clause": None},
        },
        {"scope": "sha256:" + "0" * 64},
        {"run": "run_aaaaaaaaaaaaaaaa"},
        {"round": 1},
    ],
)
async def test_an_auditor_signs_conclusions_and_nothing_else(house, changes):
    ernst = await enrolled(house)
    answer = await ernst.post("/audit/conclusions", ernst.conclusion(**changes).to_json())
    assert answer.json()["code"] == "log.envelope-invalid"


@pytest.mark.parametrize(
    "body", [{}, {"payload": "x"}, [], {"payloadType": 1, "payload": "", "signatures": []}]
)
async def test_what_is_no_envelope_is_refused(house, body):
    ernst = await enrolled(house)
    answer = await ernst.post("/audit/conclusions", body)
    assert 400 <= answer.status_code < 500
    code(answer)
