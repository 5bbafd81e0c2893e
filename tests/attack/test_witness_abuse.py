# SPDX-License-Identifier: Apache-2.0
"""A member that lies as a witness, or downloads without reading, spoils nothing for anybody else."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from broker.acts import bundles as api
from broker.auditing import exports
from broker.store import tables
from broker.witnessing.cosignatures import Arrived, Cosignature, Cosignatures
from broker.witnessing.errors import StaleCosignatureError
from policies.log.checkpoint import NOTE_BYTES, parse_note
from policies.log.cosignature import cosign, cosigner_vkey, merge_fitting
from policies.log.mldsa import MlDsaKey
from policies.log.policy import parse_policy
from policies.log.witness_keys import witness_name
from policies.verify import verify
from tests.brokersim import House, NodeSim, Signer, open_house, pool
from tests.unit.test_witness_broker import (
    FOUR,
    code,
    cosigned,
    head,
    line,
    register,
    send,
    statement,
    witness_key,
)

MINUTE_MS = 60_000


async def audited(house: House) -> list[str]:
    """Ids of the findings of an audit of everything."""
    answer = await house.alice.get("/operator/audit/bundle")
    assert answer.status_code == 200, answer.text
    return [one.id for one in verify(answer.content, parse_policy(house.services.policy)).findings]


async def grown(house: House, *nodes: NodeSim) -> dict[str, Any]:
    """Seven minutes later, with a new head that these cosigned."""
    house.clock.ms += 7 * MINUTE_MS
    await house.alice.invite("New GmbH", "DE", "new")
    shown = await head(house)
    await cosigned(house, *nodes)
    return shown


def planted(house: House, size: int, text: str) -> None:
    """Writes a line as an older broker would have taken it."""
    table = tables.log_cosignature
    name = text.split()[1]
    with house.services.store.main.begin() as session:
        session.execute(
            table.update().where((table.c.size == size) & (table.c.witness == name)).values(line=text)
        )


async def test_an_old_head_cosigned_today_is_refused_and_one_that_is_stored_ends_no_audit(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        heads = [await grown(house, *nodes) for _ in range(3)]
        assert await audited(house) == []
        house.clock.ms += MINUTE_MS
        evil, old = nodes[3], heads[0]
        late = line(evil, old["note"])
        assert code(await send(house, old["size"], late)) == (409, "witness.stale")
        planted(house, old["size"], late)
        assert await audited(house) == []
        await grown(house, *nodes[:3])
        assert await audited(house) == []


async def test_without_the_rule_of_the_export_the_planted_line_ends_the_audit(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("broker.log.sections.Sections._spoilt_lines", lambda _self: frozenset())
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        heads = [await grown(house, *nodes) for _ in range(3)]
        house.clock.ms += MINUTE_MS
        planted(house, heads[0]["size"], line(nodes[3], heads[0]["note"]))
        assert "AUD-092" in await audited(house)


@pytest.mark.parametrize("off_s", [-301, -1_000_000, 301])
async def test_a_clock_that_is_far_from_the_brokers_cosigns_nothing(tmp_path: Path, off_s: int):
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        await register(kita, nord)
        shown = await head(house)
        wrong = line(kita, shown["note"], at_s=house.clock.ms // 1000 + off_s)
        assert code(await send(house, shown["size"], wrong)) == (409, "witness.stale")
        await cosigned(house, kita, nord)
        assert await audited(house) == []


async def test_a_head_that_was_overtaken_is_cosigned_by_nobody_for_the_first_time(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        old = await grown(house, *nodes[:3])  # the fourth keeps back its first word
        await grown(house, *nodes[:3])
        house.clock.ms += 6 * MINUTE_MS
        assert code(await send(house, old["size"], line(nodes[3], old["note"]))) == (409, "witness.stale")


async def test_the_largest_head_is_cosigned_again_and_again_never_backwards(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        await register(kita)
        shown = await head(house)
        table = tables.log_cosignature
        for _ in range(3):
            house.clock.ms += MINUTE_MS
            newest = line(kita, shown["note"])
            assert (await send(house, shown["size"], newest)).json()["stored"] == 1
            assert (await send(house, shown["size"], newest)).json()["stored"] == 0
            earlier = line(kita, shown["note"], at_s=house.clock.ms // 1000 - 1)
            assert code(await send(house, shown["size"], earlier)) == (409, "witness.stale")
            with house.services.store.read() as session:
                kept = session.scalars(select(table.c.line).where(table.c.size == shown["size"])).all()
            assert kept == [newest]


async def test_requests_that_cross_each_other_are_put_in_order_by_the_database(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        await register(kita)
        old = await grown(house, kita)
        new = await grown(house, kita)
        cosignatures = house.services.witnessing.cosignatures
        now_s = house.clock.ms // 1000
        text = line(kita, old["note"])
        key = cosigner_vkey(witness_key("kita"), witness_name(kita.org))
        of = cosignatures._head(old["size"])
        crossed = Arrived(head=of, new=(Cosignature(key, old["size"], text, now_s, house.clock.ms),))
        with pytest.raises(StaleCosignatureError, match=f"a size not below {new['size']}"):
            await house.services.writer.run(lambda session, _tx: Cosignatures.store(session, crossed))


async def test_a_key_that_another_member_gave_up_is_taken_from_nobody(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        kita, evil = await pool(house, "kita", "hanbit")
        await register(kita, evil)
        assert (await kita.post("/witness/keys", statement(kita, name="new"))).status_code == 200
        assert code(await evil.post("/witness/keys", statement(evil, name="kita"))) == (422, "witness.key")
        assert (await evil.post("/witness/keys", statement(evil, name="fresh"))).status_code == 200


def test_more_large_signatures_than_a_note_holds_are_left_out_the_small_ones_first():
    note = "pool.example/log\n1\n" + "A" * 43 + "=\n\n— pool.example/log " + "A" * 92 + "\n"
    text = parse_note(note).text
    seeds = [hashlib.sha256(bytes([at])).digest() for at in range(24)]
    large = [
        cosign(MlDsaKey.from_seed(seed), name=f"org{at}/witness", text=text, time_s=1)
        for at, seed in enumerate(seeds)
    ]
    small = cosign(witness_key("kita"), name="kita/witness", text=text, time_s=1)
    full = merge_fitting(note, [small, *large])
    assert NOTE_BYTES - 4_000 < len(full.encode()) <= NOTE_BYTES
    assert small in full
    assert merge_fitting(note, [small]) == note + small


# --- downloads that nobody reads ---


class _Idle:
    """A client that asks for a bundle and reads no byte of it."""

    def __init__(self, house: House, who: Signer, path: str = "/audit/bundle") -> None:
        request = who.signed("GET", path)
        url = urlsplit(str(request.url))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (url.hostname, url.port or 443),
            "client": ("192.0.2.1", 1),
            "root_path": "",
        }
        self._never, self.started = asyncio.Event(), asyncio.Event()
        self._asked = False
        self.status = 0
        self.task = asyncio.ensure_future(house.port(self._scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            await self._never.wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.started.set()
        elif self.status == 200:
            await self._never.wait()

    async def cut(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def left_over(house: House) -> int:
    return len(list(house.services.settings.dir.glob(".bundle-*")))


async def idle(house: House, who: Signer, path: str = "/audit/bundle") -> _Idle:
    made = _Idle(house, who, path)
    await made.started.wait()
    house.clock.ms += 1_000
    return made


async def test_who_reads_nothing_holds_one_file_and_a_cut_download_gives_it_back(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        first = await idle(house, kita)
        others = [await idle(house, kita) for _ in range(5)]
        assert (first.status, {one.status for one in others}, left_over(house)) == (200, {429}, 1)
        await first.cut()
        assert left_over(house) == 0
        assert (await kita.get("/audit/bundle")).status_code == 200
        assert left_over(house) == 0


async def test_members_together_have_so_many_places_and_operators_one_of_their_own(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(exports, "EXPORTS_MAX", 2)
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, "kita", "nord", "iber")
        held = [await idle(house, one) for one in nodes]
        assert [one.status for one in held] == [200, 200, 429]
        assert (await house.alice.get("/operator/audit/bundle")).status_code == 200
        assert left_over(house) == 2
        for one in held:
            await one.cut()
        assert left_over(house) == 0


async def test_who_reads_too_slowly_loses_its_place(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(api, "EXPORT_SEND_S", 0.01)
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        slow = _Idle(house, kita)
        await asyncio.wait_for(slow.task, 20)
        assert left_over(house) == 0
        assert slow.status in {0, 200}
