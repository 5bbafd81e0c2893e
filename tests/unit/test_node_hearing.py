# SPDX-License-Identifier: Apache-2.0
"""How long a node goes by what it heard of halts, and that the part of it that hears never ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import client.contract.notices
from client import node
from client.contract.notices import Notices
from client.contract.posting import keep_up
from policies.contract.notices import Notice, seal_notice
from policies.exchange import ExchangeType
from policies.limits import HALT_ASK_S, HALT_FRESH_S, RECEIPT_POLL_S, WORKER_BACKOFF_CAP_S
from policies.ports import iso_s
from tests.nodesim import SeedEntropy
from tests.nodeworld import World, ready_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = ready_world(tmp_path)
    one.ask(ExchangeType.PING)  # admits the run: the signatures are fetched
    yield one
    one.worker.close()


def path(world: World) -> str:
    return f"/contracts/{world.contract.digest}/lifecycle"


def deaf(_request: Any, _body: Any) -> Any:
    raise httpx.ReadTimeout("nothing")


def later(world: World, seconds: int) -> None:
    world.clock.ms += seconds * 1000


def halted_by_nord(world: World) -> None:
    """The broker has a halt of nord, and shows it."""
    said = Notice(
        kind="halt",
        contract=world.contract.digest,
        party="nord",
        seq=1,
        at=iso_s(world.clock.ms),
        code="cell.incident",
    )
    sealed = seal_notice(said, world.keys["nord"])
    base = f"/contracts/{world.contract.digest}"
    world.broker.routes[path(world)] = lambda *_: {"notices": [{"digest": said.digest}]}
    world.broker.routes[f"{base}/notices/{said.digest[7:]}"] = lambda *_: sealed.to_bytes()


# --- how old what was heard may be ---


def test_a_round_is_judged_by_notices_that_were_asked_for_just_before(world: World):
    assert world.ask(round=1)[1].status == "ok"
    later(world, HALT_ASK_S + 1)
    halted_by_nord(world)  # and nothing of the node that tidies lives
    assert world.ask(round=2)[1].code == "contract.halted"


def test_a_broker_that_shows_no_notices_trains_here_until_the_bound_and_no_longer(world: World):
    world.broker.routes[path(world)] = deaf
    later(world, HALT_FRESH_S)
    assert world.ask(round=1)[1].status == "ok"
    later(world, 1)
    _, reply = world.ask(round=2)
    assert (reply.code, world.learner.trained[1:]) == ("contract.halted", [])
    del world.broker.routes[path(world)]
    later(world, HALT_ASK_S)
    assert world.ask(round=3)[1].status == "ok"


@pytest.mark.parametrize(
    "nonsense", [{"notices": "none"}, [], b"[" * 900 + b"]" * 900, {"notices": [{"digest": 1}]}]
)
def test_nonsense_about_notices_is_no_news(world: World, nonsense: Any):
    world.broker.routes[path(world)] = lambda *_: nonsense
    later(world, HALT_FRESH_S + 1)
    assert world.ask()[1].code == "contract.halted"


def test_who_never_heard_anything_does_not_train(tmp_path: Path):
    world = ready_world(tmp_path)
    world.broker.routes[path(world)] = deaf
    assert world.ask()[1].code == "contract.halted"
    world.worker.close()


def test_a_clock_that_was_set_back_is_no_news(world: World):
    world.broker.routes[path(world)] = deaf
    world.clock.ms -= 60_000
    assert world.ask()[1].code == "contract.halted"


def test_a_mark_that_cannot_be_read_is_no_news(world: World):
    (world.shelf().folder(world.contract.digest) / "notices/.heard").write_bytes(b"yesterday")
    world.broker.routes[path(world)] = deaf
    later(world, HALT_ASK_S)
    assert world.ask()[1].code == "contract.halted"


def test_a_node_that_is_heard_all_the_time_asks_for_nothing_more(world: World):
    asked: list[int] = []
    world.broker.routes[path(world)] = lambda *_: bool(asked.append(1)) or {"notices": []}
    for number in (1, 2, 3):
        later(world, RECEIPT_POLL_S)
        keep_up(world.member, world.shelf(), world.worker.outbox)
        before = len(asked)
        world.ask(round=number)
        assert len(asked) == before


def test_a_round_that_ends_after_the_bound_keeps_its_update(world: World):
    """What was heard when the round began is too old when it ends, and the broker says nothing."""
    update = world.learner.update

    def slow(*args: Any, **named: Any) -> Any:
        later(world, HALT_FRESH_S + HALT_ASK_S)
        world.broker.routes[path(world)] = deaf
        return update(*args, **named)

    world.learner.update = slow
    answer, reply = world.ask()
    assert (reply.code, answer.tensor) == ("contract.halted", None)


# --- who hears never ends ---


class _Over(BaseException):
    """The test has seen enough."""


def turns(world: World, monkeypatch: pytest.MonkeyPatch, most: int) -> list[float]:
    """Runs the loop of the worker for so many turns; gives its pauses."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > most:
            raise _Over

    real = node.open_member
    monkeypatch.setattr(node.time, "sleep", sleep)
    monkeypatch.setattr(
        node, "open_member", lambda home, **terms: real(home, transport=world.broker.transport, **terms)
    )
    with pytest.raises(_Over):
        node._tidy_for_ever(world.home, world.clock, SeedEntropy(b"tidy"))
    return pauses


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), OSError(28, "No space left"), MemoryError(), KeyError("x")]
)
def test_who_hears_goes_on_after_any_error_and_backs_off(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
):
    def fail(*_args: Any) -> Any:
        raise error

    for name in ("keep_up", "collect", "tend"):
        monkeypatch.setattr(node, name, fail)
    pauses = turns(world, monkeypatch, 6)
    assert pauses[0] == RECEIPT_POLL_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == WORKER_BACKOFF_CAP_S
    assert f'"error": "{type(error).__name__}"' in capsys.readouterr().err


def test_who_hears_goes_on_when_its_files_could_not_be_opened(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real, tries = node.Outbox.of, []

    def locked(*args: Any, **terms: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(28, "No space left")
        return real(*args, **terms)

    monkeypatch.setattr(node.Outbox, "of", locked)
    halted_by_nord(world)
    turns(world, monkeypatch, 4)
    assert Notices(world.shelf()).life(world.shelf().get(world.contract.digest)).halts


def test_a_full_disk_delays_a_halt_and_does_not_lose_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    halted_by_nord(world)
    real, writes = client.contract.notices.write_durably, []

    def full(*args: Any, **terms: Any) -> None:
        writes.append(1)
        if len(writes) < 3:
            raise OSError(28, "No space left")
        real(*args, **terms)

    monkeypatch.setattr(client.contract.notices, "write_durably", full)
    turns(world, monkeypatch, 5)
    assert '"OSError"' in capsys.readouterr().err
    world.broker.routes[path(world)] = deaf
    assert world.ask()[1].code == "contract.halted"


def test_one_contract_does_not_keep_another_from_being_heard(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (world.home.contracts / ("0" * 64)).mkdir()  # comes first
    (world.home.contracts / ("0" * 64) / "contract.json").mkdir()  # cannot be read: OSError
    halted_by_nord(world)
    turns(world, monkeypatch, 1)
    assert "IsADirectoryError" in capsys.readouterr().err
    held = world.shelf().get(world.contract.digest)
    assert Notices(world.shelf()).life(held).halts
