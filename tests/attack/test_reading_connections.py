# SPDX-License-Identifier: Apache-2.0
"""An auditor asks for many bundles while the witnesses are away: nobody else waits for that."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from broker.acts import bundles
from tests.auditorsim import enrolled, granted
from tests.brokersim import URL, open_house, pool
from tests.consolesim import PersonSim
from tests.unit.test_witness_broker import cosigned, register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

DOWNLOADS = 40
TURNS = 200


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        yield opened


async def test_downloads_that_wait_for_witnesses_keep_no_connection_and_stop_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    kita, nord = await pool(house, "kita", "nord")
    ernst = await enrolled(house)
    await register(kita, nord)
    await cosigned(house, kita, nord)
    await granted(house, ernst)
    browser = await PersonSim.enter(house, ernst.name, role="auditor")
    monkeypatch.setattr(bundles, "WITNESS_RECEIPT_S", 60)
    asked = [asyncio.create_task(browser.send("GET", "/audit/bundle.zip")) for _ in range(DOWNLOADS)]
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert not any(one.done() for one in asked)
    assert house.services.store.readers.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert (await house.http.get(URL + "/readyz")).json() == {"ready": True, "not_ready": []}
    assert (await house.alice.get("/contracts")).status_code == 200
    await cosigned(house, kita, nord)
    found = Counter(one.status_code for one in await asyncio.gather(*asked))
    assert set(found) <= {200, 429}  # one bundle of a person at a time
    assert found[200] >= 1
