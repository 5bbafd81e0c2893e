# SPDX-License-Identifier: Apache-2.0
"""A chain that begins anew to lose what the old one said: only its own node ends it, and the log says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from policies.contract import Contract
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.log.envelope import ChainState
from policies.ports import to_ms
from tests.brokersim import House, NodeSim, final_contract, open_house, pool
from tests.noticespeech import say

FRESH = "feedfeedfeedfeed"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


@pytest.fixture
async def nodes(house: House) -> list[NodeSim]:
    return await pool(house)


@pytest.fixture
async def contract(house: House, nodes: list[NodeSim]) -> Contract:
    found = await final_contract(house, nodes)
    house.clock.ms = to_ms(found.term.effective)
    return found


async def reset(
    node: NodeSim, old: str, *, chain: str = FRESH, key: SigningKey | None = None, seq: int = 0, **place: Any
) -> httpx.Response:
    """What a node sends that begins another chain; the simulator's chain moves only if it is taken."""
    kept, own = node.chain, node.key
    node.chain = ChainState(chain=chain, next_seq=seq, prev="sha256:" + "0" * 64 if seq else None)
    node.key = key or own
    body = {"reason": "disk-loss", "old_chain": old, "last_seq": None}
    envelope = node.seal(EntryType.CHAIN_RESET, body, **{"scope": None, **place})
    node.key = own
    answer = await node.post("/membership/chain", {"envelope": envelope.to_json()})
    if not answer.is_success:
        node.chain = kept
    return answer


def code(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["code"])


def resets(house: House) -> int:
    return len(house.entries(EntryType.CHAIN_RESET))


async def test_a_second_chain_that_says_nothing_of_the_first_is_not_taken(house, nodes, contract):
    kita = nodes[0]
    kept, size = kita.chain, len(house.entries())
    kita.chain = ChainState(chain=FRESH)
    assert code(await say(kita, contract, "halt")) == "log.chain"
    assert len(house.entries()) == size
    kita.chain = kept
    assert (await say(kita, contract, "halt")).status_code == 200


@pytest.mark.parametrize("whose", ["another's", "nobody's"])
async def test_nobody_ends_a_chain_that_is_not_its_own(house, nodes, contract, whose):
    kita, nord, _ = nodes
    old = nord.chain.chain if whose == "another's" else "00" * 8
    assert code(await reset(kita, old)) == "log.chain"
    assert resets(house) == 0
    assert (await say(nord, contract, "halt")).status_code == 200


async def test_only_the_key_in_force_begins_a_chain(house, nodes, contract):
    kita, nord, _ = nodes
    for key in (nord.key, SigningKey.from_seed(b"S" * 32)):
        assert code(await reset(kita, kita.chain.chain, key=key)) == "identity.signature-invalid"
    assert resets(house) == 0


@pytest.mark.parametrize("changes", [{"seq": 1}, {"round": 1}, {"run": "run_aaaaaaaaaaaaaaaa"}])
async def test_a_reset_is_the_first_of_its_chain_and_about_nothing_else(house, nodes, contract, changes):
    assert code(await reset(nodes[0], nodes[0].chain.chain, **changes)) == "log.envelope-invalid"
    assert resets(house) == 0


async def test_what_was_ended_stays_ended_and_a_later_reset_names_the_newest(house, nodes, contract):
    kita = nodes[0]
    old = kita.chain
    assert (await reset(kita, old.chain)).status_code == 201
    new, kita.chain = kita.chain, old
    assert code(await say(kita, contract, "halt")) == "log.chain"  # also after a restart
    kita.chain = new
    assert code(await reset(kita, old.chain, chain="ab" * 8)) == "log.chain"
    assert (await reset(kita, new.chain, chain="ab" * 8)).status_code == 201
    assert (await say(kita, contract, "halt")).status_code == 200
    assert resets(house) == 2


async def test_what_is_ended_is_known_to_a_broker_that_starts_again(tmp_path: Path):
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house)
        contract = await final_contract(house, nodes)
        kita = nodes[0]
        old = kita.chain
        assert (await reset(kita, old.chain)).status_code == 201
        now_ms = to_ms(contract.term.effective)
    async with open_house(tmp_path / "b") as house:
        house.clock.ms = now_ms
        kita.house, kita.chain = house, old
        assert code(await say(kita, contract, "halt")) == "log.chain"


async def test_a_member_that_said_nothing_has_nothing_to_end(house, nodes):
    assert code(await reset(nodes[0], nodes[0].chain.chain)) == "log.chain"


async def test_the_log_gives_a_node_back_what_it_signed_and_nobody_else(house, nodes, contract):
    kita, nord, _ = nodes
    (one,) = (await kita.get("/membership/envelopes")).json()["envelopes"]
    assert set(one) == {"index", "envelope", "entry", "proof"}
    assert (await kita.get(f"/membership/envelopes?after={one['index']}")).json()["envelopes"] == []
    (theirs,) = (await nord.get("/membership/envelopes")).json()["envelopes"]
    assert theirs["envelope"] != one["envelope"]
    assert (await house.alice.get("/membership/envelopes")).status_code == 403
