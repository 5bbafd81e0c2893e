# SPDX-License-Identifier: Apache-2.0
"""Pause, resume, withdraw and vote on the node's page: the effect stands there first, the commands' functions do it."""

from __future__ import annotations

from typing import Any

import pytest

from client.contract.notices import Notices
from client.page import acts
from client.page.acts import ACTS
from client.settings import load_settings
from client.stopping_runs import StoppedRuns
from tests.nodeworld import RUN, World, ready_world
from tests.pagesim import CANDIDATE, told_by_broker, visiting


@pytest.fixture(autouse=True)
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path) -> World:
    made = ready_world(tmp_path)
    made.ask()
    return made


async def effects(visitor: Any, path: str, act: str) -> list[str]:
    panels = (await visitor.get(f"{path}?format=json")).json()["data"]["panels"]
    return [
        line
        for panel in panels.values()
        for one in panel.get("acts", ())
        if one["act"] == act
        for line in one["effects"]
    ]


async def test_pause_and_resume_work_at_once_and_say_so_on_the_next_page(world):
    async with visiting(world) as visitor:
        assert "Runs that go on now, and get no more of this node: 1." in await effects(visitor, "/", "pause")
        assert (await visitor.act("pause")).headers["location"] == "/"
        assert load_settings(world.home).local.paused
        text = (await visitor.get("/")).text
        assert "Paused." in text
        assert "paused: nothing is trained or judged until" in text
        assert "Paused." not in (await visitor.get("/")).text  # it is said once
        assert (await visitor.act("resume")).status_code == 303
    assert not load_settings(world.home).local.paused


async def test_a_run_is_stopped_after_its_numbers_and_may_go_on_again(world):
    async with visiting(world) as visitor:
        shown = await effects(visitor, "/withdraw", "run-stop")
        assert shown[1].startswith("Given for good: 1 rounds, 1 messages, ")
        assert shown[2] == "Without you 2 groups remain; a round needs 3."
        assert shown[3] == "That is too few: rounds of the others fail."
        await visitor.act("run-stop", path="/withdraw", run=RUN)
        assert StoppedRuns(world.home).is_stopped(RUN)
        assert await effects(visitor, "/withdraw", "run-resume")
        await visitor.act("run-resume", path="/withdraw", run=RUN)
    assert not StoppedRuns(world.home).is_stopped(RUN)


async def test_a_contract_is_left_as_the_command_leaves_it(world):
    async with visiting(world) as visitor:
        shown = await effects(visitor, "/withdraw", "leave")
        assert f"Runs under it that end for this node: 1 ({RUN})." in shown
        assert "Your duties run on for 30 days [exit-1]." in shown
        assert "That is too few: the contract ends for everybody." in shown
        assert (await visitor.get("/withdraw")).text.count(
            "<option"
        ) == 1  # what the contract lets one choose
        refused = await visitor.act(
            "leave", path="/withdraw", contract=world.contract.digest, choice="forget"
        )
        assert (refused.status_code, "page.form" in refused.text) == (403, True)
        done = await visitor.act("leave", path="/withdraw", contract=world.contract.digest, choice="retrain")
        assert done.status_code == 303
        text = (await visitor.get("/withdraw")).text
    assert "It cannot be left now" in text
    life = Notices(world.shelf()).life(world.shelf().get(world.contract.digest))
    assert life.exited["kita"].choice == "retrain"


async def test_a_vote_is_signed_noted_and_sent(world):
    told_by_broker(world)
    sent: list[Any] = []
    world.broker.routes = {
        f"/candidates/{CANDIDATE}/votes": lambda _request, body: sent.append(body) or {},
        **world.broker.routes,
    }
    async with visiting(world) as visitor:
        done = await visitor.act("veto", path="/models", candidate=CANDIDATE, choice="release-1")
        assert done.status_code == 303
        unknown = await visitor.act("approve", path="/models", candidate="sha256:" + 64 * "0")
        assert (unknown.status_code, "node.not-found" in unknown.text) == (404, True)
        wrong = await visitor.act("approve", path="/models", candidate="../etc/passwd")
        assert (wrong.status_code, "page.form" in wrong.text) == (403, True)
    assert len(sent) == 1
    outbox = world.outbox()
    assert [one.clause for one in outbox.left.sent() if one.kind == "vote.cast"] == ["release-1"]
    outbox.close()


async def test_an_act_that_fails_says_its_code_and_changes_nothing(world):
    world.broker.down = True
    async with visiting(world) as visitor:
        answer = await visitor.act("run-stop", path="/", run="run_cccccccccccccccc")
        assert "node.not-found" in answer.text
        assert "Traceback" not in answer.text
        answer = await visitor.act("approve", path="/", candidate=CANDIDATE)
        assert "peer.unreachable" in answer.text
    assert StoppedRuns(world.home).all() == frozenset()


def test_each_act_calls_a_function_of_the_commands():
    assert set(ACTS) == {"pause", "resume", "run-stop", "run-resume", "leave", "approve", "veto"}
    called = {
        acts.pausing.__name__,
        acts.withdrawing.__name__,
        acts.owner_runs.__name__,
        acts.releases.__name__,
    }
    assert called == {"client.pausing", "client.withdrawing", "client.owner_runs", "client.releases"}
