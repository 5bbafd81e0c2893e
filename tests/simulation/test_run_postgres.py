# SPDX-License-Identifier: Apache-2.0
"""A whole run on PostgreSQL: the same model, steps and entries as on SQLite, also across a broker that was killed."""

from __future__ import annotations

import pytest

from tests import pgserver
from tests.federationsim import running
from tests.simulation.test_run_resume import check_as_if_nothing_had_been, through_kills, undisturbed

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))


@pytest.fixture(autouse=True)
def given_back():
    yield
    pgserver.shared().give_back()


def test_a_run_on_postgresql_takes_the_same_steps_and_gives_the_same_bundle_byte_by_byte():
    found = []
    for database in ("sqlite", "postgresql"):
        with running(database=database) as (pool, go):
            assert pool.services.store.main.dialect.name == database
            run = go(pool.run())
            check_as_if_nothing_had_been(pool, run)
            found.append((pool.steps.names, (pool.folder / "bundle.zip").read_bytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("which", [4, 13])
def test_a_broker_on_postgresql_that_is_killed_goes_on_at_the_last_settled_attempt(which):
    _, _, names = undisturbed()
    stored = [at for at, name in enumerate(names) if name.split()[-1] in {"commit", "file"}]
    with running(database="postgresql") as (pool, go):
        pool.steps.at = stored[which]
        run = go(through_kills(pool))
        assert pool._opened == 2
        check_as_if_nothing_had_been(pool, run)
