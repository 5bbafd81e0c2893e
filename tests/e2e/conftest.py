# SPDX-License-Identifier: Apache-2.0
"""What browser tests share: one federation for all of them, started once, and one browser for each file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.consolepool import ConsolePool


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts what takes the federation last, so that it runs beside nothing else."""
    items.sort(key=lambda one: "pool" in getattr(one, "fixturenames", ()))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.browsersim import launch

    with launch() as one:
        yield one


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsolePool]:
    from tests import consolepool  # half of the code: only for those who need it

    made = consolepool.start(tmp_path_factory.mktemp("console"))
    try:
        yield made
    finally:
        made.stop()
