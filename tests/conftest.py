# SPDX-License-Identifier: Apache-2.0
"""What many folders of tests share: which database a broker runs on, and which files go first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import pgserver

if TYPE_CHECKING:
    from collections.abc import Iterator


LONGEST = {
    *("test_conformance_table.py", "test_conformance_audit.py", "test_amendment_attacks.py"),
    *(
        "test_template_runs.py",
        "test_contract_refinement.py",
        "test_bench_cobotops.py",
        "test_audit_flips.py",
    ),
}
"""Files of many seconds: begun last, one of them would keep a single worker busy while the others are done."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, after the order was drawn."""
    items.sort(key=lambda one: one.path.name not in LONGEST)


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
