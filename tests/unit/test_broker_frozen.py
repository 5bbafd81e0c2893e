# SPDX-License-Identifier: Apache-2.0
"""A frozen log is read, by signed requests that work once, and takes no change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker import nonces
from broker.log.signer import FreezeReason
from policies.limits import SIGNATURE_TTL_S
from policies.log.entries import EntryType
from policies.log.policy import parse_policy
from policies.verify import verify
from tests.brokersim import House, NodeSim, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

INVITE = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def freeze(house: House) -> None:
    """As the writer does it when the signer finds two histories."""
    writer = house.services.writer
    writer._freeze = writer._signer.freeze(FreezeReason.FORK, "two roots at one size")


async def frozen(house: House) -> NodeSim:
    node = await house.member("kita")
    freeze(house)
    return node


@pytest.mark.parametrize(
    "path",
    [
        "/log/checkpoint",
        "/log/consistency?old=1",
        "/membership/me",
        "/contracts",
        "/releases",
        "/runs",
        "/candidates",
        "/catalogue",
    ],
)
async def test_reads_are_answered_while_the_log_is_frozen(house, path):
    kita = await frozen(house)
    answer = await kita.get(path)
    assert answer.status_code == 200, answer.text


async def test_the_operators_see_that_it_is_frozen(house):
    await frozen(house)
    answer = await house.alice.get("/operator/status")
    assert "log.frozen" in answer.json()["log"]["frozen"]


async def test_a_read_works_once_also_while_the_log_is_frozen(house):
    kita = await house.member("kita")
    before, again = kita.signed("GET", "/membership/me"), kita.signed("GET", "/releases")
    assert (await house.http.send(before)).status_code == 200
    freeze(house)
    assert (await house.http.send(again)).status_code == 200
    for one in (before, again):
        answer = await house.http.send(one)
        assert (answer.status_code, answer.json()["code"]) == (409, "identity.replayed")


async def test_a_change_is_refused_while_the_log_is_frozen_and_its_signature_is_used_up(house):
    await frozen(house)
    entries, request = len(house.entries()), house.alice.signed("POST", "/operator/invites", b"{}")
    answer = await house.alice.post("/operator/invites", INVITE)
    assert (answer.status_code, answer.json()["code"]) == (503, "log.frozen")
    assert len(house.entries()) == entries
    assert (await house.http.send(request)).status_code == 422


async def test_a_download_is_a_change_and_refused(house):
    kita = await frozen(house)
    answer = await kita.get(f"/models/sha256:{'0' * 64}/weights")
    assert (answer.status_code, answer.json()["code"]) == (503, "log.frozen")


async def test_the_auditors_bundle_is_handed_out_and_says_that_it_is_not_on_record(house):
    opened = await house.alice.get("/operator/audit/bundle")
    assert "iriai-log" not in opened.headers
    assert len(house.entries(EntryType.EXPORT_AUDIT_BUNDLE)) == 1
    await frozen(house)
    answer = await house.alice.get("/operator/audit/bundle")
    assert (answer.status_code, answer.headers["iriai-log"]) == (200, "frozen")
    assert len(house.entries(EntryType.EXPORT_AUDIT_BUNDLE)) == 1
    report = verify(answer.content, parse_policy(house.services.policy))
    assert [str(one) for one in report.findings] == []
    assert not list(house.services.settings.dir.glob(".bundle-*"))


async def test_a_key_that_reads_too_often_waits_and_others_read_on(house, monkeypatch):
    kita = await frozen(house)
    monkeypatch.setattr(nonces, "FROZEN_NONCES", 3)
    answers = [(await kita.get("/releases")).status_code for _ in range(4)]
    assert answers == [200, 200, 200, 429]
    assert (await house.alice.get("/operator/status")).status_code == 200
    house.clock.ms += (SIGNATURE_TTL_S + 60) * 1000
    assert (await kita.get("/releases")).status_code == 200
