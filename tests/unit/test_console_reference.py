# SPDX-License-Identifier: Apache-2.0
"""The API's document and its page are for people who are signed in; answers are compressed, tokens masked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.console.formtoken import fits, masked
from tests.brokersim import open_house
from tests.consolesim import PersonSim

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path / "broker") as opened:
        yield opened


async def test_the_document_that_is_served_is_the_one_that_is_checked_in(house):
    nobody = PersonSim(house)
    for path in ("/openapi.json", "/docs"):
        refused = await nobody.send("GET", path)
        assert (refused.status_code, refused.headers["location"][:14]) == (303, "/console/login")
    member = await house.member("kita")
    eve = await PersonSim.enter(house, "eve", role="member", org=member.org)
    served = json.loads((await eve.send("GET", "/openapi.json")).content)
    assert served == json.loads((ROOT / "docs/reference/openapi.json").read_text("utf-8"))


async def test_every_operation_of_the_document_stands_on_its_page(house):
    alice = await PersonSim.enter(house, "alice")
    page = await alice.page("/docs")
    served = json.loads((await alice.send("GET", "/openapi.json")).content)
    wanted = {(path, method.upper()) for path, one in served["paths"].items() for method in one}
    assert {(row["path"], row["method"]) for row in page.rows("operations")} == wanted
    assert {row["path"] for row in (await alice.page("/docs?q=/witness")).rows("operations")} == {
        path for path, _ in wanted if "/witness" in path
    }


async def test_a_page_is_compressed_only_where_it_is_wanted_and_is_the_same(house):
    alice = await PersonSim.enter(house, "alice")
    plain = await alice.send("GET", "/docs?format=json", headers={"Accept-Encoding": "identity"})
    small = await alice.send("GET", "/docs?format=json", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert (small.headers["content-encoding"], small.headers["vary"]) == ("gzip", "accept-encoding")
    assert int(small.headers["content-length"]) < len(plain.content) / 3
    assert json.loads(small.content) == json.loads(plain.content)


async def test_the_token_of_forms_is_written_differently_on_each_page_and_always_fits(house):
    alice = await PersonSim.enter(house, "alice")
    seen = {(await alice.page("/docs")).root.first("input", name="csrf").attrs["value"] for _ in range(3)}
    assert len(seen) == 3
    assert all(fits(one, alice.csrf) for one in seen)
    assert not any(alice.csrf in one for one in seen)


@pytest.mark.parametrize("given", ["", ".", "a.b", "=.=", "é.ü", "AAAA.", ".AAAA", "x" * 10_000])
def test_a_token_that_was_made_up_never_fits(given):
    assert not fits(given, "right")


def test_a_masked_token_fits_its_own_and_no_other():
    token = masked("right", b"\x01\x02\x03")
    assert fits(token, "right")
    assert not fits(token, "wrong")
    assert fits("right", "right")
