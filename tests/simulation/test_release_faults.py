# SPDX-License-Identifier: Apache-2.0
"""From candidate to delivery: votes that come early, late, twice or not, vetoes, and who gets the model in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from broker.federation.checkpoints import model_digest
from policies.log.entries import EntryType
from policies.log.errors import LogError
from tests.federationsim import NAMES, Pool, Said, running


async def pull(pool: Pool, name: str, model: str) -> Any:
    """A download, as the organisation's own request."""
    return await pool.nodes[name].owner().get(f"/models/{model}/weights")


def only(candidates: dict[str, str]) -> tuple[str, str]:
    ((name, state),) = candidates.items()
    return name, state


def by_hand(pool: Pool, *names: str) -> None:
    """Their owners vote themselves."""
    for name in names:
        pool.nodes[name].rules(vote="manual")


def test_a_released_model_is_delivered_to_every_contributor_and_logged():
    async def story(pool: Pool) -> None:
        name, state = only(pool.candidates())
        assert state == "released"
        for one in NAMES:
            answer = await pull(pool, one, name)
            assert answer.status_code == 200, answer.text
            assert model_digest(np.frombuffer(answer.content, dtype="<f4")) == name
            assert answer.headers["iriai-tier"] == "consortium"
        exported = pool.entries(EntryType.MODEL_EXPORTED)
        assert {one.pub["recipient"] for one in exported} == {pool.alias(one, None, None) for one in NAMES}

    with running() as (pool, go):
        go(pool.run())
        go(story(pool))
        pool.check_audit()


def test_a_member_who_is_no_party_of_the_contract_does_not_even_learn_of_the_model():
    async def story(pool: Pool) -> None:
        name, _ = only(pool.candidates())
        stranger = await pool.house.member("solo")
        answer = await stranger.get(f"/models/{name}/weights")
        assert answer.status_code == 404
        assert (await stranger.get("/releases")).json() == {"releases": []}
        assert pool.entries(EntryType.MODEL_EXPORTED) == []

    with running() as (pool, go):
        go(pool.run())
        go(story(pool))
        pool.check_audit()


def test_a_vetoed_candidate_is_refused_and_nobody_can_pull_it():
    async def story(pool: Pool) -> None:
        name, state = only(pool.candidates())
        assert state == "refused"
        (refused,) = pool.entries(EntryType.MODEL_REFUSED)
        assert (refused.pub["model"], refused.pub["clause"]) == (name, "release-1")
        for one in NAMES:
            answer = await pull(pool, one, name)
            assert (answer.status_code, answer.json()["code"]) == (403, "contract.refused")
        assert pool.entries(EntryType.MODEL_EXPORTED) == []
        gate = [one for one in pool.entries(EntryType.DECISION_RECORDED) if one.pub["point"] == "gate"]
        assert [one.pub["outcome"] for one in gate] == ["refuse"] * 5  # its release, and four downloads

    with running() as (pool, go):
        pool.nodes["kita"].learner.accept = False  # owner of a clause that the contract lists for vetoes
        go(pool.run())
        go(story(pool))
        pool.check_audit()


def test_who_owns_no_such_clause_only_withholds_its_approval():
    with running() as (pool, go):
        pool.nodes["nord"].learner.accept = False
        go(pool.run())
        assert only(pool.candidates())[1] == "released"
        pool.check_audit()


def test_a_candidate_that_lacks_approvals_waits_until_owners_give_them():
    async def story(pool: Pool) -> None:
        run = await pool.run()
        name, state = only(pool.candidates())
        assert state == "waiting"
        assert pool.entries(EntryType.MODEL_REFUSED) == []
        answer = await pull(pool, "kita", name)
        assert answer.status_code == 403
        assert (await pool.nodes["iber"].vote(name, run, "approve")).status_code == 200
        await pool.idle()
        assert only(pool.candidates())[1] == "released"
        assert (await pull(pool, "kita", name)).status_code == 200
        late = await pool.nodes["nord"].vote(name, run, "veto")
        assert (late.status_code, late.json()["code"]) == (409, "release.closed")
        assert only(pool.candidates())[1] == "released"

    with running() as (pool, go):
        by_hand(pool, "iber", "nord")
        go(story(pool))
        pool.check_audit()


def test_the_last_vote_of_a_party_counts():
    async def story(pool: Pool) -> None:
        run = await pool.run()
        name, _ = only(pool.candidates())
        for verdict in ("approve", "veto"):  # kita changes its mind before there are enough
            assert (await pool.nodes["kita"].vote(name, run, verdict)).status_code == 200
        await pool.idle()
        assert only(pool.candidates())[1] == "refused"

    with running() as (pool, go):
        by_hand(pool, "iber", "kita", "nord")
        go(story(pool))
        pool.check_audit()


def test_a_vote_while_the_silos_still_judge_does_not_decide_for_want_of_evidence():
    async def story(pool: Pool) -> None:
        votes: list[asyncio.Task[Any]] = []

        def judged(said: Said) -> Said:
            if said.header.type.value == "evaluate.judge":
                ((name, _),) = pool.candidates().items()
                votes.append(asyncio.ensure_future(pool.nodes["iber"].vote(name, said.header.run, "approve")))
            return said

        pool.nodes["hanbit"].lies.append(judged)  # it is asked first
        await pool.run()
        (answer,) = await asyncio.gather(*votes)
        assert answer.status_code == 200, answer.text
        gates = [line for line in pool.journal.lines if line[0] in {"run.closed", "candidate.decided"}]
        assert [event for event, _ in gates] == ["run.closed", "candidate.decided"]
        assert only(pool.candidates())[1] == "released"

    with running() as (pool, go):
        by_hand(pool, "iber")
        go(story(pool))
        pool.check_audit()


def test_a_vote_that_comes_with_a_later_run_opens_the_gate():
    with running() as (pool, go):
        by_hand(pool, "iber")

        def lost(said: Said) -> Said | None:
            return None if said.header.type.value == "evaluate.judge" and said.header.run == first else said

        first = go(pool.open_run())
        pool.nodes["nord"].lies.append(lost)
        go(pool.idle())
        name, state = only(pool.candidates())
        assert state == "waiting"  # hanbit and kita approved, nord's vote never arrived
        go(pool.run())
        assert pool.candidates()[name] == "released"
        pool.check_audit()


@pytest.mark.parametrize("state", ["waiting", "released"])
def test_a_gate_whose_log_does_not_answer_looks_again(state: str):
    async def story(pool: Pool) -> None:
        run = await pool.run()
        name, _ = only(pool.candidates())
        pool.steps.at, pool.steps.error = len(pool.steps.names), _unavailable
        if state == "released":
            assert (await pool.nodes["iber"].vote(name, run, "approve")).status_code == 200
        await pool.idle()
        assert only(pool.candidates())[1] == state
        assert len(pool.journal.of("gate.waiting")) == (state == "released")

    with running() as (pool, go):
        by_hand(pool, "iber", "nord")
        go(story(pool))
        pool.check_audit()


def _unavailable() -> LogError:
    from broker.log.errors import LogUnavailableError

    return LogUnavailableError(need="a database that can be written", found="SQLITE_FULL", remedy="make room")


def test_a_restart_looks_at_votes_that_the_last_process_had_no_time_for():
    async def story(pool: Pool) -> None:
        run = await pool.run()
        name, _ = only(pool.candidates())
        pool.runner.voted = lambda _candidate: None  # type: ignore[method-assign]
        assert (await pool.nodes["iber"].vote(name, run, "approve")).status_code == 200
        assert only(pool.candidates())[1] == "waiting"
        await pool.kill()
        await pool.open()
        await pool.idle()
        assert only(pool.candidates())[1] == "released"

    with running() as (pool, go):
        by_hand(pool, "iber", "nord")
        go(story(pool))
        pool.check_audit()


def test_votes_of_all_at_once_decide_once():
    async def story(pool: Pool) -> None:
        run = await pool.run()
        name, _ = only(pool.candidates())
        for one in NAMES:
            assert (await pool.nodes[one].vote(name, run, "approve")).status_code in {200, 409}
            pool.runner.voted(name)
        await pool.idle()
        assert only(pool.candidates())[1] == "released"
        assert len(pool.entries(EntryType.MODEL_RELEASED)) == 1

    with running() as (pool, go):
        by_hand(pool, *NAMES)
        go(story(pool))
        pool.check_audit()


def test_a_model_file_that_was_changed_on_the_disk_is_not_sent():
    async def story(pool: Pool) -> None:
        name, _ = only(pool.candidates())
        path = pool.services.settings.models / f"{name.removeprefix('sha256:')}.f32"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
        answer = await pull(pool, "kita", name)
        assert answer.status_code == 500

    with running() as (pool, go):
        go(pool.run())
        go(story(pool))
