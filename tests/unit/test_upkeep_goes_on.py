# SPDX-License-Identifier: Apache-2.0
"""The daily upkeep goes on the next day, whatever went wrong the day before."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from broker.auditing import upkeep
from broker.auditing.upkeep import Upkeep
from broker.log.errors import LogUnavailableError
from tests.brokersim import open_house

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = (
    OperationalError("SELECT", None, Exception("the server went away")),
    OSError("disk"),
    LogUnavailableError(need="a database", found="none", remedy="wait"),
    ValueError("a fault of ours"),
)


async def test_an_error_of_any_kind_is_told_and_the_next_turn_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults, done = list(FAULTS), asyncio.Event()

    def orphans(_after: bytes | None) -> tuple[list[bytes], None]:
        if faults:
            raise faults.pop(0)
        done.set()
        return [], None

    async with open_house(tmp_path / "broker") as house:
        services = house.services
        monkeypatch.setattr(services.erasure, "orphans", orphans)
        monkeypatch.setattr(upkeep, "UPKEEP_H", 0)
        kept = Upkeep(writer=services.writer, erasure=services.erasure, exports=services.exports)
        with caplog.at_level(logging.WARNING, "iriai.broker"):
            kept.start()
            await asyncio.wait_for(done.wait(), 20)
            await kept.stop()
    said = [one for one in caplog.records if one.getMessage().startswith("upkeep: ")]
    assert [one.levelname for one in said] == ["ERROR", "ERROR", "WARNING", "ERROR"]
    assert [one.exc_info is not None for one in said] == [True, True, False, True]
