# SPDX-License-Identifier: Apache-2.0
"""The one fixture that many folders of tests share: which database a broker runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import pgserver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test once on each; skips, and says why, where PostgreSQL is not installed."""
    if request.param == "sqlite":
        yield request.param
        return
    reason = pgserver.unavailable()
    if reason is not None:
        pytest.skip(reason)
    yield request.param
    pgserver.shared().give_back()
