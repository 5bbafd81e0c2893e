# SPDX-License-Identifier: Apache-2.0
"""The static log: what tlog-tiles says, one name for each resource, nothing that was not signed."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from broker.log.static import StaticLog
from policies.log.bundle import split_tile
from policies.log.checkpoint import open_checkpoint
from policies.log.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from policies.log.policy import parse_policy
from policies.log.tiles import TileTree, tile_path
from policies.log.vkeys import VerifierKey
from policies.signing import sign_request
from tests.brokersim import URL, House, open_house
from tests.logsim import LogSim, console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogSim]:
    """A log of 3, 4 and then 600 entries."""
    folder = tmp_path_factory.mktemp("static")
    with LogSim(folder) as made:
        made.started(entries=3)
        made.add(console(500))
        made.add(*(console(number) for number in range(1_000, 1_596)))
        yield made


def static(sim: LogSim) -> StaticLog:
    assert sim.writer is not None
    return StaticLog(sim.store, sim.writer.receipts)


# --- the log's own rules ---


def test_tiles_hold_the_hashes_of_the_tree(sim: LogSim) -> None:
    log, receipts = static(sim), sim.writer.receipts
    assert receipts.head().size == 600
    first = log.read("tile/0/000")
    leaves = [leaf_hash(receipts.body(index)) for index in range(600)]
    assert first == b"".join(leaves[:256])
    assert log.read("tile/0/002.p/88") == b"".join(leaves[512:])
    level = leaves[:256]
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    assert (log.read("tile/1/000.p/2") or b"")[:32] == level[0]


def test_proofs_made_from_tiles_alone_hold(sim: LogSim) -> None:
    log, receipts = static(sim), sim.writer.receipts
    tree = TileTree(600, lambda level, n, width: log.read(tile_path(level, n, width)) or b"")
    head = receipts.head()
    assert tree.root(600) == head.root
    for index in (0, 255, 256, 511, 512, 599):
        verify_inclusion(tree.leaf(index), index, 600, tree.inclusion(index, 600), head.root)
    verify_consistency(4, 600, receipts.root(4), head.root, tree.consistency(4, 600))


def test_bundles_of_entries_hold_the_bodies(sim: LogSim) -> None:
    log, receipts = static(sim), sim.writer.receipts
    assert split_tile(log.read("tile/entries/001") or b"", 256) == [
        receipts.body(index) for index in range(256, 512)
    ]
    assert split_tile(log.read("tile/entries/002.p/88") or b"", 88)[-1] == receipts.body(599)


@pytest.mark.parametrize("width", [3, 4])
def test_a_partial_tile_is_there_for_each_published_size(sim: LogSim, width: int) -> None:
    for kind in ("0", "entries"):
        assert static(sim).read(f"tile/{kind}/000.p/{width}")


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/000.p/1",  # never published
        "tile/0/000.p/255",
        "tile/0/002.p/87",
        "tile/0/002.p/89",  # not yet
        "tile/0/002",
        "tile/1/000.p/1",  # no published size has one full tile alone
        "tile/1/000.p/3",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/63/000",
        "tile/entries/000.p/1",
        "tile/entries/002",
        "tile/entries/003",
        "tile/entries/x999/x999/x999/x999/999",
    ],
)
def test_what_was_never_signed_is_not_there(sim: LogSim, path: str) -> None:
    assert static(sim).read(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/",
        "tile/0",
        "tile/00/000",
        "tile/+0/000",
        "tile/-1/000",
        "tile/64/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/X000/000",
        "tile/0/-01",
        "tile/0/000/",
        "tile/0//000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/03",
        "tile/0/000.p/3/",
        "tile/0/000.P/3",
        "tile/0/000.p",
        "tile/0/000.p/3\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/../0/000",
        "tile/Entries/000",
        "tile/entries/000/..",
    ],
)
def test_a_name_has_one_spelling(sim: LogSim, path: str) -> None:
    assert static(sim).read(path) is None


# --- over HTTP ---


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def test_anybody_reads_the_checkpoint(house: House) -> None:
    answer = await house.http.get("/log/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=2"
    key = VerifierKey.parse(house.services.keys.log_vkey)
    assert open_checkpoint(answer.text, [key]).size == house.services.writer.head().size


async def test_anybody_reads_tiles_and_may_keep_them(house: House) -> None:
    size = house.services.writer.head().size
    answer = await house.http.get(f"/log/tile/0/000.p/{size}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert len(answer.content) == 32 * size
    assert code(await house.http.get(f"/log/tile/0/000.p/{size + 1}")) == (404, "request.not-found")
    assert "no-store" in (await house.http.get("/log/tile/0/000")).headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["/log/tile/0/%30%30%30.p/5", "/log/tile/0/000%2Ep/5", "/log/tile/0/000.p/5/", "/log/", "/log"]
)
async def test_another_spelling_in_a_url_is_nothing(house: House, path: str) -> None:
    assert code(await house.http.get(path)) == (404, "request.not-found")


async def _entries(house: House, signer, path: str, **headers: str):
    url = f"{URL}/log/tile/entries/{path}"
    signed = sign_request(
        signer.key,
        method="GET",
        url=url,
        body=b"",
        now_ms=house.clock.ms,
        nonce16=signer.entropy.token_bytes(16),
        idempotency_key=None,
    )
    return await house.http.get(url, headers={**signed, **headers})


async def test_entries_are_for_who_is_enrolled(house: House) -> None:
    size = house.services.writer.head().size
    path = f"000.p/{size}"
    assert code(await house.http.get(f"/log/tile/entries/{path}")) == (401, "identity.request-unsigned")
    kita = await house.member("kita")
    for one in (kita, house.alice):
        answer = await _entries(house, one, path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert split_tile(answer.content, size)[0] == house.services.writer.receipts.body(0)
    assert code(await _entries(house, kita, "000.p/1")) == (404, "request.not-found")


async def test_entries_are_compressed_for_who_takes_it(house: House) -> None:
    path = f"000.p/{house.services.writer.head().size}"
    plain = await _entries(house, house.alice, path, **{"accept-encoding": "identity, gzip;q=0"})
    assert "content-encoding" not in plain.headers
    packed = await _entries(house, house.alice, path, **{"accept-encoding": "gzip, identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content  # the client has unpacked it
    assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, 4, mtime=0))
    assert int(packed.headers["content-length"]) < len(plain.content)
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


async def test_the_brokers_copies_say_what_they_are_worth(house: House) -> None:
    policy = await house.http.get("/log/policy")
    assert "compare with yours" in policy.text
    assert parse_policy(policy.text).logs == (VerifierKey.parse(house.services.keys.log_vkey),)
    keys = await house.http.get("/log/vkeys")
    assert f"log {house.services.keys.log_vkey}" in keys.text.splitlines()
    assert "compare with yours" in keys.text


async def test_a_head_that_is_not_signed_is_not_shown(house: House) -> None:
    before = (await house.http.get("/log/checkpoint")).text
    size = house.services.writer.head().size
    connection = house.services.store.signer.raw_connection()
    connection.driver_connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    connection.close()
    house.services.writer.submit(lambda _session, log: log.add(console(1))).exception()
    assert (await house.http.get("/log/checkpoint")).text == before
    assert code(await house.http.get(f"/log/tile/0/000.p/{size + 1}")) == (404, "request.not-found")
