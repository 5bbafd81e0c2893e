# SPDX-License-Identifier: Apache-2.0
"""Who would amend a contract past the others: a lying broker, a greedy member, an old version, a death in between."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import broker.contracts.amendments
import broker.contracts.tightening
import broker.federation.moving
from broker.federation.standing import Standing
from client.contract.reading import fetch
from client.contract.signable import check_not_stale
from client.errors import StaleOfferError
from policies.contract import Contract, from_tree
from policies.contract.amendment import judge_amendment
from policies.contract.amendment.verdict import Verdict
from policies.encoding import canonical
from policies.log.entries import EntryType
from policies.ports import to_ms
from tests.attack.test_negotiation_killed import snapshot
from tests.brokersim import HandClock, final_contract, open_house, pool, statements
from tests.federationsim import NAMES, running
from tests.nodeworld import IN_TERM_MS
from tests.simulation.test_run_amended import rule, scopes, soon, tightened, when
from tests.succeedsim import amended, change, looser, reach, successor, tighten, tightening_body, tighter

T = EntryType


# --- a broker that calls a loosening a tightening ---


def call_it_no_looser(old: Contract, new: Contract, initiator: str) -> Verdict:
    """What a bribed broker says."""
    found = judge_amendment(old, new, kind="tighten", initiator=initiator)
    return replace(found, no_looser=True, objections=(), witnesses=())


def test_a_loosening_that_the_broker_pushes_as_a_tightening_trains_nobody_and_is_found_by_the_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker.contracts.tightening, "no_looser", call_it_no_looser)
    with running() as (pool_, go):
        new = soon(pool_, **{"privacy.epsilon_total": "9"})
        go(tightened(pool_, new))
        when(pool_, 1, rule(pool_, new))
        run_id = go(pool_.run())
        assert pool_.row(run_id).contract == new.digest  # the broker went on under it
        accepted = [one.scope for one in pool_.entries(T.CONTRIBUTION_ACCEPTED, run_id)]
        assert set(accepted) == {pool_.contract.digest}
        assert all(len(node.learner.trained) == 1 for node in pool_.nodes.values())
        assert pool_.entries(T.MODEL_RELEASED) == []  # nobody judges a candidate under it either
        for name in NAMES:
            assert new.digest not in executed_here(pool_, name)
        assert pool_.audit().counts["AUD-058"] >= 1


def executed_here(pool_: Any, name: str) -> set[str]:
    shelf = pool_.nodes[name].worker.shelf
    return {one for one in shelf.digests() if shelf.get(one).is_executed}


# --- a broker that goes on under what was superseded ---


def test_a_broker_that_goes_on_under_the_old_contract_is_refused_by_every_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Standing, "superseded", lambda *_a, **_k: False)
    monkeypatch.setattr(Standing, "_why_over", lambda *_a, **_k: None)
    monkeypatch.setattr(broker.federation.moving, "ruling", lambda _t, _s, contract, _r: contract)
    with running() as (pool_, go):
        new = soon(pool_, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool_, new))
        contracts = pool_.services.contracts
        honest = contracts.state
        contracts.state = lambda contract, session=None: replace(  # type: ignore[method-assign]
            honest(contract, session), standing="in-force"
        )
        for node in pool_.nodes.values():
            fetch(node.worker.member, node.worker.shelf, new.digest)
        when(pool_, 1, rule(pool_, new), after="nord")
        run_id = go(pool_.run())
        assert {one[2] for one in scopes(pool_, run_id)} == {pool_.contract.digest}
        assert {one.round for one in pool_.entries(T.CONTRIBUTION_ACCEPTED, run_id)} == {1}
        refused = [one for one in pool_.entries(T.DECISION_RECORDED, run_id) if one.env and one.round == 2]
        assert {tuple(one.pub["clauses"]) for one in refused} == {("@standing",)}
        assert pool_.audit().counts["AUD-057"] >= 1


def test_an_older_version_is_not_signed_again(tmp_path: Path) -> None:
    with running() as (pool_, go):
        new = soon(pool_, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool_, new))
        shelf = pool_.nodes["nord"].worker.shelf
        fetch(pool_.nodes["nord"].worker.member, shelf, new.digest)
        again = from_tree(pool_.contract.document | {"title": "The old terms again"})
        for stale in (again, from_tree(new.document | {"title": "Another second version"})):
            with pytest.raises(StaleOfferError) as raised:
                check_not_stale(shelf, stale)
            assert raised.value.code == "contract.superseded"


# --- a member that would gain by tightening ---


@pytest.fixture
async def house(tmp_path: Path):
    async with open_house(tmp_path / "broker", clock=HandClock()) as opened:
        yield opened


@pytest.mark.parametrize(
    ("what", "clause"),
    [
        ({"tiers.0.min_contribution": "0.2"}, "tier-consortium"),
        ({"tiers.0.embargo_days": 90}, "tier-consortium"),
        ({"release.approvals.min": 3}, "release-1"),
        ({"exit.notice_days": 90}, "exit-1"),
    ],
    ids=str,
)
async def test_a_rivals_entitlement_is_not_tightened_away(
    house: Any, what: dict[str, Any], clause: str
) -> None:
    nodes = await pool(house)
    old = await final_contract(house, nodes)
    house.clock.ms = IN_TERM_MS
    new = successor(old, **what)
    refused = await tighten(nodes[0], old, new)
    assert refused.status_code == 403, refused.text
    assert (refused.json()["code"], refused.json()["clause"]) == ("contract.refused", clause)
    assert (await house.services.desk.bring_up_to_date(), amended(house)) == (True, [])
    assert (await change(nodes[0], old, new)).status_code == 201  # all may agree to it


async def test_the_verdict_of_a_member_counts_for_nothing(house: Any) -> None:
    nodes = await pool(house)
    old = await final_contract(house, nodes)
    house.clock.ms = IN_TERM_MS
    body = tightening_body(nodes[0], looser(old)) | {"verdict": "no-looser"}
    refused = await nodes[0].post(f"/contracts/{old.digest}/amendments", body)
    assert refused.json()["code"] == "request.invalid"


async def test_a_tightening_of_one_contract_is_none_of_another(house: Any) -> None:
    nodes = await pool(house)
    old = await final_contract(house, nodes)
    other = await final_contract(house, nodes, contract_id="ctr_" + "b" * 16)
    house.clock.ms = IN_TERM_MS
    refused = await tighten(nodes[0], other, tighter(old))
    assert refused.json()["code"] == "contract.not-a-successor"


# --- a death at any statement ---


def _looked(folder: Path, new: str) -> dict[str, int]:
    """What a restart finds of the successor."""
    with closing(sqlite3.connect(folder / "broker.db")) as database:

        def count(query: str) -> int:
            return int(database.execute(query, (new,)).fetchone()[0])

        return {
            "document": count(
                "SELECT count(*) FROM contract_document WHERE digest = ? AND state = 'finalized'"
            ),
            "signatures": count("SELECT count(*) FROM contract_signature WHERE digest = ?"),
            "recipes": count(
                "SELECT count(*) FROM contract_annex WHERE contract = ? AND sha256 LIKE 'sha256:%'"
            ),
            "verdict": count("SELECT count(*) FROM contract_annex WHERE contract = ? AND sha256 = 'verdict'"),
            "entries": count("SELECT count(*) FROM log_entry WHERE scope = ?"),
        }


async def test_killed_at_any_statement_a_tightening_is_all_there_or_not_at_all(tmp_path: Path) -> None:
    folder, copies = tmp_path / "broker", []
    async with open_house(folder, clock=HandClock()) as house:
        nodes = await pool(house)
        old = await final_contract(house, nodes)
        house.clock.ms = IN_TERM_MS
        new = tighter(old)
        body = canonical(tightening_body(nodes[0], new))
        request = nodes[0].signed("POST", f"/contracts/{old.digest}/amendments", body)

        def kill(_sql: str) -> None:
            copies.append(tmp_path / f"copy{len(copies):03}")
            snapshot(folder, copies[-1])

        with statements(house, kill):
            answer = await house.http.send(request)
        assert answer.status_code == 201, answer.text
    found = [_looked(one, new.digest) for one in copies]
    whole = {"document": 1, "signatures": 2, "recipes": 1, "verdict": 1, "entries": 3}
    assert all(one in (whole, dict.fromkeys(whole, 0)) for one in found), found
    turns = [number for number, one in enumerate(found) if one == whole]
    assert turns == list(range(turns[0], len(found)))
    print(f"\n{len(copies)} statements, final from statement {turns[0]} on")


async def test_killed_at_any_statement_a_successor_rules_or_its_predecessor_does(tmp_path: Path) -> None:
    folder, copies = tmp_path / "broker", []
    clock = HandClock()
    async with open_house(folder, clock=clock) as house:
        nodes = await pool(house)
        old = await final_contract(house, nodes)
        clock.ms = IN_TERM_MS
        new = tighter(old)
        assert (await tighten(nodes[0], old, new)).status_code == 201

        def kill(_sql: str) -> None:
            copies.append(tmp_path / f"copy{len(copies):03}")
            snapshot(folder, copies[-1])

        with statements(house, kill):
            await reach(house, new)
        assert len(amended(house)) == 1

    def told(copy: Path) -> tuple[int, int]:
        with closing(sqlite3.connect(copy / "broker.db")) as database:
            rows = database.execute(
                "SELECT type, count(*) FROM log_entry WHERE scope = ? GROUP BY type", (old.digest,)
            )
            counted = dict(rows.fetchall())
            return counted.get("contract.amended", 0), counted.get("decision.recorded", 0)

    ends = [told(one) for one in copies]
    assert set(ends) == {(0, 1), (1, 2)}  # the entry and its decision, or neither
    first = ends.index((1, 2))
    assert ends[first:] == [(1, 2)] * (len(ends) - first)
    for number in {first - 1, first}:
        for part in copies[number].iterdir():
            (folder / part.name).write_bytes(part.read_bytes())
        async with open_house(folder, clock=HandClock(to_ms(new.term.effective))) as house:
            assert len(amended(house)) == 1
            assert house.services.contracts.standing(new) == "ACTIVE"
    print(f"\n{len(copies)} statements, in effect from statement {first} on")
