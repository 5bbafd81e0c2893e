# SPDX-License-Identifier: Apache-2.0
"""Made-up requests for every operation of the OpenAPI document, really signed: each answer is one that the document tells.

`tests.apifuzz` runs the same for as long as one likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.api import incidents
from tests import apifuzz

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20
CASES = 9
"""Of each operation: eight hundred in all, ten seconds."""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apifuzz.Pool]:
    with apifuzz.open_pool(tmp_path_factory.mktemp("fuzz") / "broker") as one:
        yield one


def operation(path: str):
    return next(one for one in apifuzz.ordered(apifuzz.schema()) if one.path == path)


def test_an_error_that_nobody_expected_is_found(there, monkeypatch):
    def broken(_session, **_):
        raise ValueError("planted")

    monkeypatch.setattr(incidents, "since", broken)
    tally = apifuzz.Tally()
    apifuzz.one_operation(there, operation("/api/v1/operator/incidents"), tally, number=SEED, cases=3)
    ((where, found),) = tally.fell.items()
    assert where == "GET /api/v1/operator/incidents"
    assert "Server error" in found[0]


def test_an_answer_that_is_not_documented_is_found(there, monkeypatch):
    monkeypatch.setattr(incidents, "since", lambda _session, **_: ([{"index": 1, "planted": "x"}], False))
    tally = apifuzz.Tally()
    apifuzz.one_operation(there, operation("/api/v1/operator/incidents"), tally, number=SEED, cases=3)
    assert "is not as documented" in tally.fell["GET /api/v1/operator/incidents"][0]


def test_no_made_up_request_is_answered_otherwise_than_documented(there):
    tally = apifuzz.one_pass(there, number=SEED, cases=CASES)
    assert tally.fell == {}
    assert tally.operations > 90
    assert tally.cases > 700
    assert {200, 201, 400, 401, 404, 422} <= set(tally.statuses), "nothing was reached, or nothing refused"
    assert sum(count for status, count in tally.statuses.items() if status < 300) > tally.cases / 10
