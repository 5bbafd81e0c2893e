# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random and at each named moment: what was acknowledged stays, indices stay contiguous, nothing is doubled.

`python -m tests.log_kills --kills 300` does the same for longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.log.failpoints import Moment
from tests.log_kills import Killing, Nursery, Tally, run
from tests.pgserver import log_urls

KILLS = {"sqlite": 24, "postgresql": 12}
SEED = 20_26


def place(folder: Path, database: str) -> dict[str, object]:
    folder.mkdir()
    return {"folder": folder, **log_urls(database)}


@pytest.mark.slow
def test_no_acknowledged_entry_is_lost_over_many_kills(tmp_path: Path, database: str) -> None:
    tally = run(KILLS[database], SEED, Tally(), lambda at: place(tmp_path / str(at), database))
    assert (tally.lost, tally.doubled) == (0, 0)
    assert sum(tally.kills.values()) == KILLS[database]
    assert tally.acknowledged > KILLS[database]
    assert tally.sent_again > 0
    assert tally.worst_recovery_s < 5


@pytest.mark.slow
def test_a_death_at_any_moment_of_the_first_batch_leaves_the_same_history(
    tmp_path: Path, database: str
) -> None:
    """Also of a log that holds nothing but its genesis; the receipt of an entry is the same after every restart."""
    with Nursery() as nursery:
        killing = Killing(folder=tmp_path, nursery=nursery, tally=Tally(), **log_urls(database))
        for moment in Moment:
            killing.at(moment, 2 if moment is Moment.SHOWN else 1)
        assert killing.tally.kills.keys() == {one.value for one in Moment}
        assert (killing.tally.lost, killing.tally.doubled) == (0, 0)
