# SPDX-License-Identifier: Apache-2.0
"""A contract is amended while a run is under way: rounds keep their contract, the run goes on under the successor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from client.budgets import cap_of
from policies.contract import Contract
from policies.contract.notices import seal_notice
from policies.encoding import digest, parse
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType, alias
from policies.log.envelope import Seen, seal_envelope
from policies.ports import iso_s, to_ms
from tests.brokersim import Signer
from tests.federationsim import SECURE, Killed, Pool, Said, SimNode, new_pool, running, simulate, tiny_recipe
from tests.lanesim import contract_signature, spoken, warnings_of
from tests.noticespeech import entry_body, said
from tests.succeedsim import successor

T = EntryType


def soon(pool: Pool, **changes: Any) -> Contract:
    """A successor that may be signed now and rules in ten seconds."""
    now = pool.clock.ms
    times = {"sign_by": iso_s(now + 5_000), "effective": iso_s(now + 10_000)}
    return successor(pool.contract, **times, **changes)


def signed_event(pool: Pool, node: SimNode, new: Contract) -> Any:
    """The node's own ``contract.signed``, from its outbox."""
    member = pool.services.contracts.member_of(pool.contract, node.name)
    warnings = list(warnings_of(new))
    body: dict[str, Any] = {
        "contract": new.digest,
        "party": alias(member.alias_key, new.digest, None, None),
    } | ({"acknowledged": warnings} if warnings else {})
    with node.worker.outbox.writing() as letters:
        return letters.seal("contract.signed", body=body, scope=new.digest, slot=f"signed {new.digest}")


async def tightened(pool: Pool, new: Contract, *, by: str = "kita") -> None:
    node = pool.nodes[by]
    answer = await node.owner().post(
        f"/contracts/{pool.contract.digest}/amendments",
        {
            "kind": "tighten",
            "contract": new.canonical.decode(),
            "recipes": [],
            "signature": contract_signature(new, node.key),
            "envelope": signed_event(pool, node, new).to_json(),
        },
    )
    assert answer.status_code == 201, answer.text


async def changed(pool: Pool, new: Contract, recipes: tuple[bytes, ...] = ()) -> None:
    """The operators offer it, everybody accepts and signs."""
    answer = await pool.house.alice.offer(new, recipes)
    assert answer.status_code == 201, answer.text
    name = answer.json()["negotiation"]
    owners = {one: node.owner() for one, node in pool.nodes.items()}
    for kind in ("accept", "verify"):
        for who, node in pool.nodes.items():
            view = (await owners[who].get(f"/negotiations/{name}")).json()
            body: dict[str, Any] = {"message": spoken(view, kind, node.key, now_ms=pool.clock.ms).to_json()}
            if kind == "verify":
                body["signature"] = contract_signature(new, node.key)
                body["envelope"] = signed_event(pool, node, new).to_json()
            said = await owners[who].post(f"/negotiations/{name}/messages", body)
            assert said.status_code == 200, said.text
    assert said.json()["state"] == "finalized"


def when(pool: Pool, round_number: int, then: Callable[[], None], *, after: str = "iber") -> None:
    """Something happens once, after a node's answer in this round."""
    done: list[int] = []

    def lie(said: Said) -> Said:
        if not done and said.contributes and said.header.round == round_number:
            done.append(1)
            then()
        return said

    pool.nodes[after].lies.append(lie)


def rule(pool: Pool, new: Contract) -> Callable[[], None]:
    """The successor's term begins, and the broker sees it at its next turn."""

    def now() -> None:
        pool.clock.ms = max(pool.clock.ms, to_ms(new.term.effective))
        pool.services.desk.stir()

    return now


def scopes(pool: Pool, run_id: str) -> list[tuple[int, int, str]]:
    """(round, attempt, contract) of each round that was opened."""
    opened = pool.entries(T.ROUND_OPENED, run_id)
    return [(one.round, one.pub["attempt"], one.scope) for one in opened]


@pytest.mark.parametrize("summed", [{}, SECURE], ids=["plain", "masked"])
def test_a_run_goes_on_under_a_tightened_successor(summed: dict[str, str]) -> None:
    with running(**summed) as (pool, go):
        old, new = pool.contract, soon(pool, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool, new))
        when(pool, 1, rule(pool, new))
        run_id = go(pool.run())
        assert scopes(pool, run_id) == [(1, 1, old.digest), (2, 1, new.digest), (3, 1, new.digest)]
        assert [one.pub["accepted"] for one in pool.entries(T.ROUND_CLOSED, run_id)] == [4, 4, 4]
        kinds = [one.type for one in pool.entries() if one.type in (T.CONTRACT_AMENDED, T.AGGREGATE_RELEASED)]
        assert kinds[0] is T.CONTRACT_AMENDED  # the first round was averaged after it, under its own contract
        assert (pool.row(run_id).contract, pool.row(run_id).outcome) == (new.digest, "completed")
        assert pool.expected_model(run_id) == pool.rounds(run_id)[-1].model
        pool.check_books(run_id)
        released = [one.scope for one in pool.entries(T.MODEL_RELEASED)]
        assert released == [new.digest]
        report = pool.check_audit()
        assert (report.facts["successions"], report.counts.get("AUD-058", 0)) == (1, 0)


def test_the_budget_of_the_whole_run_counts_under_the_successor() -> None:
    with running() as (pool, go):
        new = soon(pool, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool, new))
        when(pool, 2, rule(pool, new))
        run_id = go(pool.run())
        for name, node in pool.nodes.items():
            held = node.worker.shelf.get(new.digest)
            assert held.tightens
            cap = cap_of(new, name, node.worker.shelf.earlier(new.digest))
            assert cap is not None
            stem = node.worker.budgets.lineages()[0]
            figures = node.worker.budgets.find(stem).figures(cap)
            own = sum(node.spends(run_id).values())
            assert own == 3
            assert figures.rho_spent_nano > 0
            only_new = node.worker.budgets.find(stem).figures(cap_of(new, name))
            assert only_new.rho_spent_nano < figures.rho_spent_nano


def test_a_cap_that_is_tighter_than_what_is_spent_lets_no_run_begin() -> None:
    with running() as (pool, go):
        new = soon(pool, **{"privacy.epsilon_total": "2.0001"})
        go(tightened(pool, new))
        # a second run's whole plan does not fit any more, though the first contract held both
        go(pool.run())
        rule(pool, new)()
        go(pool.services.desk.bring_up_to_date())
        answer = go(
            pool.house.alice.post("/operator/runs", {"contract": new.digest, "recipe": new.recipes[0].id})
        )
        assert answer.status_code == 409, answer.text
        assert (answer.json()["code"], answer.json()["clause"]) == ("budget.exhausted", "dp-1")
        assert len(pool.entries(T.RUN_OPENED)) == 1
        pool.check_audit()


def test_rounds_of_all_versions_count() -> None:
    with running() as (pool, go):
        new = soon(pool, **{"recipes.0.max_rounds": 4})
        go(tightened(pool, new))
        go(pool.run())
        rule(pool, new)()
        go(pool.services.desk.bring_up_to_date())
        answer = go(
            pool.house.alice.post("/operator/runs", {"contract": new.digest, "recipe": new.recipes[0].id})
        )
        go(pool.idle())
        second = str(answer.json()["run"])
        assert len(pool.rounds(second)) <= 1  # 3 rounds were run before, 4 may be run in all
        refused = [one for one in pool.entries(T.DECISION_RECORDED, second) if one.pub["outcome"] == "refuse"]
        assert "recipe-1" in {clause for one in refused for clause in one.pub["clauses"]}
        again = go(
            pool.house.alice.post("/operator/runs", {"contract": new.digest, "recipe": new.recipes[0].id})
        ).json()
        assert (again["code"], again["clause"]) == ("contract.refused", "recipe-1")
        assert "0 left" in again["found"]
        assert len(pool.entries(T.RUN_OPENED)) == 2
        pool.check_audit()


def test_a_successor_without_the_recipe_ends_the_run() -> None:
    other = tiny_recipe(rounds=5)
    with running() as (pool, go):
        new = soon(pool, **{"recipes.0.recipe_digest": other.digest})
        go(changed(pool, new, (other.canonical,)))
        when(pool, 1, rule(pool, new))
        run_id = go(pool.run())
        assert [one[2] for one in scopes(pool, run_id)] == [pool.contract.digest]
        assert (pool.row(run_id).outcome, pool.row(run_id).contract) == ("stopped", pool.contract.digest)
        shown = go(pool.house.alice.get(f"/runs/{run_id}")).json()
        assert new.digest in shown["ended"]["reason"]
        assert shown["ended"]["clauses"] == ["amend-1"]
        pool.check_audit()


def test_a_run_goes_on_under_a_change() -> None:
    with running() as (pool, go):
        new = soon(pool, **{"privacy.epsilon_total": "9", "title": "A larger pool"})
        go(changed(pool, new, (pool.recipe.canonical,)))
        when(pool, 1, rule(pool, new))
        run_id = go(pool.run())
        assert [one[2] for one in scopes(pool, run_id)] == [pool.contract.digest, new.digest, new.digest]
        pool.check_books(run_id)
        pool.check_audit()


def test_an_attempt_that_was_open_when_the_broker_died_is_ended_under_its_own_contract() -> None:
    with new_pool() as pool, simulate(pool.clock) as go:
        go(pool.open())
        new = soon(pool, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool, new))

        def die() -> None:
            raise Killed

        when(pool, 1, die)
        run_id = go(pool.open_run())
        with pytest.raises(Killed):
            go(pool.idle())
        go(pool.kill())
        pool.clock.ms = to_ms(new.term.effective)
        go(pool.open())
        go(pool.idle())
        assert scopes(pool, run_id) == [
            (1, 1, pool.contract.digest),
            (1, 2, new.digest),
            (2, 1, new.digest),
            (3, 1, new.digest),
        ]
        assert pool.entries(T.ROUND_CLOSED, run_id)[0].pub["outcome"] == "abandoned"
        assert pool.row(run_id).outcome == "completed"
        pool.check_books(run_id)
        pool.check_audit()
        go(pool.close())


def test_a_halt_of_the_successor_stops_the_round_that_is_open_under_its_predecessor() -> None:
    with running() as (pool, go):
        new = soon(pool, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool, new))
        when(pool, 1, rule(pool, new), after="hanbit")

        async def story() -> str:
            amended = asyncio.Event()
            pool.services.desk.amended = lambda _old, _new: amended.set()
            run_id = await pool.open_run()
            await amended.wait()
            why = {"code": "cell.incident", "clause": None, "text": None}
            answer = await pool.house.alice.post(f"/operator/contracts/{new.digest}/halt", why)
            assert answer.status_code == 201, answer.text
            await asyncio.sleep(60)
            return run_id

        run_id = go(story())
        assert scopes(pool, run_id) == [(1, 1, pool.contract.digest)]
        assert pool.entries(T.AGGREGATE_RELEASED, run_id) == []
        assert pool.entries(T.ROUND_CLOSED, run_id)[0].pub["outcome"] == "abandoned"
        assert (pool.row(run_id).outcome, pool.journal.of("run.halted")) != (None, [])
        pool.check_audit()


def test_a_candidate_that_waits_is_released_under_the_successor() -> None:
    with running(**{"aggregation.delay_hours": 1}) as (pool, go):
        new = soon(pool, **{"privacy.epsilon_total": "2.7"})
        go(tightened(pool, new))

        async def story() -> str:
            run_id = await pool.open_run()
            while not pool.journal.of("candidate.waits"):  # noqa: ASYNC110  a line of the broker, no event
                await asyncio.sleep(1)
            rule(pool, new)()
            await asyncio.sleep(1)
            assert pool.row(run_id).contract == new.digest
            await pool.idle()
            return run_id

        run_id = go(story())
        assert [one.scope for one in pool.entries(T.RUN_CLOSED, run_id)] == [pool.contract.digest]
        assert [one.scope for one in pool.entries(T.MODEL_RELEASED)] == [new.digest]
        pool.check_audit()


def test_who_rotated_its_key_may_tighten_by_the_new_one() -> None:
    with running() as (pool, go):
        fresh = SigningKey.from_seed(b"a second key of kita, 32 bytes.."[:32])
        kita = pool.nodes["kita"]
        notice = said(pool.house, pool.contract, "rotate", "kita", subject=key_text(fresh.public))
        member = pool.services.contracts.member_of(pool.contract, "kita")
        body = entry_body(pool.house, pool.contract, notice)
        with kita.worker.outbox.writing() as letters:
            entry = letters.seal("key.rotated", body=body, scope=pool.contract.digest, slot="rotation")
        sealed = seal_notice(notice, fresh, kita.key)
        answer = go(
            kita.owner().post(
                f"/contracts/{pool.contract.digest}/notices",
                {"notice": sealed.to_json(), "envelope": entry.to_json()},
            )
        )
        assert answer.status_code == 200, answer.text
        new = soon(pool, **{"privacy.epsilon_total": "2.7"})
        warnings = list(warnings_of(new))
        own: dict[str, Any] = {
            "contract": new.digest,
            "party": alias(member.alias_key, new.digest, None, None),
        }
        own |= {"acknowledged": warnings} if warnings else {}
        payload = parse(entry.payload)
        signed = seal_envelope(
            fresh,
            log=payload["log"],
            kind=T.CONTRACT_SIGNED,
            chain=payload["chain"],
            seq=payload["seq"] + 1,
            prev=digest(entry.payload),
            seen=Seen.from_json(payload["seen"]),
            time_ms=pool.clock.ms,
            nonce=b"n" * 16,
            scope=new.digest,
            run=None,
            round=None,
            ack=None,
            body=own,
        )
        owner = Signer(pool.house, fresh, "fresh")
        answer = go(
            owner.post(
                f"/contracts/{pool.contract.digest}/amendments",
                {
                    "kind": "tighten",
                    "contract": new.canonical.decode(),
                    "signature": contract_signature(new, fresh),
                    "envelope": signed.to_json(),
                },
            )
        )
        assert answer.status_code == 201, answer.text
        rule(pool, new)()
        go(pool.services.desk.bring_up_to_date())
        life = pool.services.contracts.life(new)
        assert life.rotated == {"kita": key_text(fresh.public)}
        assert len(pool.entries(T.CONTRACT_AMENDED)) == 1
        pool.check_audit()
