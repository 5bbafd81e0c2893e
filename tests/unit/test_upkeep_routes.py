# SPDX-License-Identifier: Apache-2.0
"""Routes by which operators look after the pool: invitations, freezing the log, budgets."""

from __future__ import annotations

import shutil

import pytest

from broker.boot import policy_file
from broker.log import export
from broker.log.approvals import approve
from broker.log.repair import Repair
from broker.log.signer import FreezeReason
from policies.log.entries import EntryType
from tests.brokersim import open_house, operator_key


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path / "broker") as one:
        yield one


async def test_invitations_are_listed_without_their_secret_and_taken_back_once(house):
    token = await house.alice.invite("Kita KK", "JP", "kita")
    listed = (await house.bob.get("/operator/invites")).json()["invites"]
    (one,) = listed
    assert (one["legal_name"], one["state"], one["created_by"]) == ("Kita KK", "open", "alice")
    assert token not in str(listed)
    assert "secret" not in str(listed)
    done = await house.bob.post(f"/operator/invites/{one['id']}/revoke", {})
    assert (done.status_code, done.json()["state"]) == (200, "revoked")
    again = await house.bob.post(f"/operator/invites/{one['id']}/revoke", {})
    assert again.status_code >= 400
    assert again.json()["code"].startswith("membership.invite-")
    assert (await house.alice.get("/operator/invites")).json()["invites"][0]["state"] == "revoked"


async def test_an_invitation_whose_time_is_over_is_shown_as_expired(house):
    await house.alice.invite("Kita KK", "JP", "kita")
    house.clock.ms += 100 * 3_600_000
    assert (await house.alice.get("/operator/invites")).json()["invites"][0]["state"] == "expired"


async def test_a_node_may_not_look_after_the_pool(house):
    node = await house.member("kita")
    for path in ("/operator/invites", f"/operator/budgets/sha256:{'0' * 64}"):
        assert (await node.get(path)).status_code == 403
    assert (await node.post("/operator/log/freeze", {"reason": "because"})).status_code == 403
    assert house.services.writer.frozen is None


async def test_one_operator_freezes_the_log_and_the_order_is_on_record_before(house):
    done = await house.alice.post("/operator/log/freeze", {"reason": "intrusion-suspected"})
    assert (done.status_code, done.json()["frozen"]) == (200, "by alice: intrusion-suspected")
    assert house.services.writer.frozen is not None
    said = [one.pub for one in house.entries(EntryType.CONSOLE_ACTION)]
    assert (said[-1]["operator"], said[-1]["action"], said[-1]["result"]) == ("alice", "log.freeze", "done")
    refused = await house.bob.post("/operator/log/freeze", {"reason": "again"})
    assert refused.json()["code"] == "log.frozen"
    assert (await house.bob.get("/operator/status")).json()["log"]["frozen"] is not None


async def test_two_operators_open_it_again_by_a_repair_that_changes_no_entry(tmp_path):
    folder = tmp_path / "broker"
    async with open_house(folder) as house:
        await house.alice.post("/operator/log/freeze", {"reason": "drill"})
        text = policy_file(folder).read_text()
        export(house.services.store, house.services.writer, tmp_path / "kept.zip", policy=text, software="0")
        size = house.services.writer.head().size
    async with open_house(folder) as house:
        writer, store = house.services.writer, house.services.store
        assert writer.frozen is not None
        repair = Repair.plan(store, writer.signer, writer.origin, tmp_path / "kept.zip")
        assert (repair.reason, repair.start, repair.size) == (FreezeReason.ORDERED, size, size)
        assert approve(operator_key("alice"), repair.subject())
        repair.apply(store, writer.signer)
    async with open_house(folder) as house:
        assert house.services.writer.frozen is None
        assert (await house.bob.post("/operator/invites", INVITE)).status_code == 201
    shutil.rmtree(folder)


INVITE = {"legal_name": "Kita KK", "country": "JP", "group": "kita"}


async def test_a_contract_that_nobody_knows_has_no_budgets(house):
    found = await house.alice.get(f"/operator/budgets/sha256:{'0' * 64}")
    assert found.status_code == 404
    assert (await house.alice.get("/operator/budgets/none")).status_code == 422


async def test_a_run_that_nobody_opened_is_not_paused(house):
    found = await house.alice.post("/operator/runs/run_aaaaaaaaaaaaaaaa/pause", {})
    assert found.status_code == 404
