# SPDX-License-Identifier: Apache-2.0
"""What members say of the sums that they were shown: broker and auditor compare it with what was opened and logged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from broker.federation.secure import teams
from broker.federation.secure.sums import MaskedSum
from broker.federation.secure.vectors import export
from broker.store.tables import log_envelope
from client.contributing import Leaving, Made
from client.secagg.masking import _Masking
from policies.encoding import digest
from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, SECURE, Pool, payload_of, running

MAC = {**SECURE, "aggregation.group_mac": "on"}
LIE = {"round": 1, "attempt": 1, "sums": [digest(b"another sum")]}
LAST = f"AUD-098: 1 of {ROUNDS} sums, which no member's next update names"


def told(pool: Pool, run: str) -> list[tuple[int, Mapping[str, Any] | None]]:
    """Round, and the sum that its submission names, of every submission in the log."""
    with pool.services.store.read() as session:
        rows = session.execute(select(log_envelope.c.dsse).order_by(log_envelope.c.idx)).all()
    found = [payload_of(json.loads(row.dsse)) for row in rows]
    return [
        (one["round"], one["body"].get("checked"))
        for one in found
        if (one["kind"], one["run"]) == (EntryType.SUBMISSION_RECEIVED.value, run)
    ]


def test_every_update_names_the_sum_before_it_and_every_model_is_computed_again(tmp_path: Path) -> None:
    with running(**MAC) as (pool, go):
        run = go(pool.run())
        sums = [one.pub["aggregate"] for one in pool.entries(EntryType.AGGREGATE_RELEASED, run)]
        said = told(pool, run)
        assert [one for number, one in said if number == 1] == [None] * len(NAMES)
        for number in range(2, ROUNDS + 1):
            shown = {"round": number - 1, "attempt": 1, "sums": [sums[number - 2]]}
            assert [one for at, one in said if at == number] == [shown] * len(NAMES)
        names = export(pool.folder / "broker", run, tmp_path / "vectors", pool.clock.now_ms())
        report = pool.audit({f"sha256:{one}": (tmp_path / "vectors" / one).read_bytes() for one in names})
        assert (report.findings, report.facts["models"]) == ([], {"rounds": ROUNDS, "recomputed": ROUNDS})
        assert [one for one in report.unchecked if "AUD-097" in one or "AUD-098" in one] == [LAST]


@pytest.mark.parametrize("lie", [LIE, None], ids=["another sum", "none"])
def test_a_member_that_names_another_sum_is_refused_and_the_broker_is_no_liar(
    monkeypatch: pytest.MonkeyPatch, lie: Mapping[str, Any] | None
) -> None:
    honest = _Masking.leave

    def lying(self: _Masking, made: Made) -> Leaving:
        found = honest(self, made)
        if self.seat.party != "kita" or self.header.round == 1:
            return found
        return replace(found, said={} if lie is None else {"checked": lie})

    monkeypatch.setattr(_Masking, "leave", lying)
    with running(**MAC) as (pool, go):
        run = go(pool.run())
        assert pool.refusals(run)[0] == ("kita", 2, "secagg.context-mismatch")
        assert {name for name, _, _ in pool.refusals(run)} == {"kita"}
        assert pool.verdicts(run)[-1]["kita"] != "accepted"
        report = pool.check_audit()
        assert LAST in report.unchecked
        assert any("other sums in refused updates of kita" in one for one in report.unchecked) == bool(lie)


def test_a_broker_that_shows_one_sum_and_logs_another_is_found_without_any_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = MaskedSum.opened

    def other(data: bytes) -> str:
        return digest(b"not " + data)

    async def opened(self: MaskedSum, remove: Any) -> tuple[np.ndarray, str]:
        z, _ = await honest(self, remove)
        return z, other(z.tobytes())

    monkeypatch.setattr(MaskedSum, "opened", opened)
    monkeypatch.setattr(teams, "digest", other)
    with running(**MAC) as (pool, go):
        go(pool.run())
        assert set(pool.audit().counts) == {"AUD-098"}
