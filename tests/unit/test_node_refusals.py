# SPDX-License-Identifier: Apache-2.0
"""What a node refused outside its guard's decision: kept, listed and explained to its owner, once each."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client.contract.explaining import explain_any, explain_run
from client.data.errors import NoRightsError
from client.errors import NoSuchThingError
from client.federation.errors import RunRefusedError
from client.ledgers import guard_log
from policies.exchange import ExchangeType
from policies.limits import OUTBOX_PENDING
from policies.privacy.errors import BudgetUnknownError, PlanMismatchError
from tests.nodeworld import RUN, World, kinds, ready_world

if TYPE_CHECKING:
    from policies.errors import IriaiError


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def explained(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = explain_run(world.worker.outbox, world.shelf(), RUN).data["decisions"]
    return found


def test_data_without_rights_are_refused_and_the_remedy_names_contract_and_data_set(world: World) -> None:
    world.learner.fail = NoRightsError(
        need="an import under this contract",
        found="one under other rights",
        remedy=f"iriai-node data add PATH --dataset kita/pick --contract {world.contract.digest}",
    )
    _, reply = world.ask()
    assert (reply.status, reply.code) == ("refused", "data.no-rights")
    (shown,) = explained(world)
    assert shown["allow"] is False
    assert shown["decision"] is not None  # the guard had allowed it, and its record is kept
    (finding,) = shown["findings"]
    assert finding["clause"] == "local:data.no-rights"
    assert finding["remedy"].endswith(f"--contract {world.contract.digest}")
    assert "local:data.no-rights" in "\n".join(guard_log(world.worker.outbox, RUN).text)


@pytest.mark.parametrize(
    ("error", "who"),
    [
        (NoRightsError, "you, at this node: its data"),
        (BudgetUnknownError, "you, at this node: its budget ledger"),
        (PlanMismatchError, "you, at this node"),
    ],
)
def test_who_can_apply_a_remedy_is_the_place_where_it_is_applied(
    world: World, error: type[IriaiError], who: str
) -> None:
    world.learner.fail = error(need="what is needed", found="another", remedy="do it")
    world.ask()
    assert explained(world)[0]["findings"][-1]["who"] == who


def test_what_this_sites_settings_refuse_is_for_its_settings(world: World) -> None:
    world.rules(paused=True)
    world.ask()
    assert explained(world)[0]["findings"][-1]["who"] == "you, in this node's settings"


def test_a_ledger_that_is_another_kind_of_file_is_its_owners_affair_and_said_in_words(world: World) -> None:
    world.ask()
    (ledger,) = world.home.budget.glob("*.db")
    with sqlite3.connect(ledger) as opened:
        opened.execute("DROP TABLE head")
    _, reply = world.ask(round=2)
    assert reply.code == "budget.unknown"
    finding = explained(world)[0]["findings"][-1]
    assert finding["who"] == "you, at this node: its budget ledger"
    assert "no such table: head" in finding["found"]


def test_a_run_that_never_reached_this_node_is_explained_by_whom_to_ask(world: World) -> None:
    with pytest.raises(NoSuchThingError) as refused:
        explain_any(world.worker.outbox, world.shelf(), RUN)
    assert "was asked nothing about it" in refused.value.found
    assert f"iriai-broker run show {RUN}" in refused.value.remedy
    assert "iriai-node budget show" in refused.value.remedy
    with pytest.raises(NoSuchThingError, match="a run: run_"):
        explain_run(world.worker.outbox, world.shelf(), "run_1")


def test_the_same_refusal_of_the_same_slot_is_kept_once(world: World) -> None:
    body = {"plan": "sha256:" + "0" * 64}
    for _ in range(3):
        _, reply = world.ask(body=body)
        assert reply.code == "privacy.plan-mismatch"
    assert [one["round"] for one in explained(world)] == [1]
    world.ask(round=2, body=body)
    assert [one["round"] for one in explained(world)] == [2, 1]


def test_a_backlog_is_explained(world: World) -> None:
    world.ask()
    with world.worker.outbox.writing() as letters:
        for number in range(OUTBOX_PENDING):
            letters.seal(
                "vote.cast",
                body={"subject": f"sha256:{number:064}", "vote": "approve", "clause": None},
                scope=world.contract.digest,
                run=RUN,
            )
    _, reply = world.ask(round=2)
    assert (reply.status, reply.code) == ("refused", "outbox.backlog")
    assert "vote.cast" in kinds(reply)
    newest = explained(world)[0]
    assert (newest["round"], newest["clauses"]) == (2, ["local:outbox.backlog"])


def test_a_candidate_that_is_not_judged_is_explained_by_its_clause(world: World) -> None:
    world.rules(paused=True)
    _, reply = world.ask(ExchangeType.JUDGE)
    assert reply.code == "local.refused"
    (shown,) = explained(world)
    assert (shown["kind"], shown["clauses"]) == ("evaluate.judge", ["local:paused"])
    assert shown["findings"][0]["remedy"] == "iriai-node resume"
    assert shown["words"] == ["REFUSED evaluate.judge"]


def test_a_run_that_was_not_joined_is_explained(world: World) -> None:
    unknown = "sha256:" + "7" * 64
    for _ in range(2):
        with pytest.raises(RunRefusedError):
            world.ask(recipe=unknown)
    (shown,) = explained(world)
    assert (shown["kind"], shown["round"], shown["allow"]) == ("run.admit", 0, False)


def test_what_is_kept_counts_as_no_round(world: World) -> None:
    world.learner.fail = NoRightsError(need="a", found="b", remedy="c")
    world.ask()
    outbox = world.worker.outbox
    assert (
        outbox.left.rounds_elsewhere((world.contract.digest,), world.recipe.digest, "run_bbbbbbbbbbbbbbbb")
        == 0
    )
