# SPDX-License-Identifier: Apache-2.0
"""What recordings become by commands: the folder's own map, and one file that cannot be imported."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from client.answers import Answer
from client.cli import app
from client.cli.options import Open
from client.data.errors import FileInvalidError
from client.deploy import serve_commands
from client.deploy.episode_files import EpisodeFiles
from client.deploy.recorder import EpisodeRecorder
from client.deploy.refusals import FallbackError, RequestError
from client.deploy.ring import Ring
from client.deploy.service import Service
from client.deploy.token import draw_tokens
from client.errors import NoSuchThingError
from client.settings import Home
from tests.datasetsim import Site
from tests.learnsim import SeededEntropy
from tests.nodeworld import ready_world
from tests.servesim import MovedClock, SaidModel, TimedServing, facts, question, tick_ns


def recorded(folder: Path, episodes: int) -> Path:
    files = EpisodeFiles(folder / "deployed", facts(), "host", service="cell")
    sink = EpisodeRecorder(files, Ring.open(folder / "open.ring", facts()), free=lambda: 10**12)
    serving = TimedServing(SaidModel(), recorder=sink)
    for number in range(episodes):
        for tick in range(100 * number, 100 * number + 30):
            serving.infer(question(tick), now_ns=tick_ns(tick))
        sink.end("unknown", "").result(10)  # type: ignore[union-attr]
    sink.close()
    return files.folder


def test_a_folder_of_recordings_needs_no_map_to_be_named(tmp_path):
    folder = recorded(tmp_path, 2)
    added = Site(tmp_path).run("add", folder, "--dataset", "kita/pick", "--no-contract")
    assert (added.code, added.data["episodes_added"]) == (0, 2)


def refusing(*bad: str):
    """An import that refuses the folder, and files of these names."""

    def add(_one: object, source: Path, folder: Path, _dataset: str) -> Answer:
        if source == folder or source.name in bad:
            raise FileInvalidError(need="rows", found=f"{source.name}: rows that are known", remedy="none")
        return Answer(data={"episodes_added": 1}, text=("episodes   1 added", source.name))

    return add


def test_one_recording_that_cannot_be_imported_is_named_and_the_others_are(tmp_path, monkeypatch):
    folder = recorded(tmp_path, 3)
    monkeypatch.setattr(serve_commands, "_add", refusing("episode-000002.parquet"))
    answer = serve_commands.add_recorded(None, Answer(data={}), folder, dataset="kita/pick")  # type: ignore[arg-type]
    assert answer.data["imported"]["episodes_added"] == 2
    assert list(answer.data["skipped"]) == ["episode-000002.parquet"]
    assert "episode-000002.parquet: rows that are known" in answer.text[-1]
    assert [line for line in answer.text if line.startswith("episodes ")] == [
        "episodes   2 added, from files one by one"
    ]
    every = [one.name for one in folder.glob("*.parquet")]
    monkeypatch.setattr(serve_commands, "_add", refusing(*every))
    with pytest.raises(FileInvalidError):
        serve_commands.add_recorded(None, Answer(data={}), folder, dataset="kita/pick")  # type: ignore[arg-type]


def test_an_observation_is_numbers_in_words():
    assert serve_commands._numbers_of("[0.1, -2 3e0]") == [0.1, -2.0, 3.0]
    for bad in ("", "[]", "a", "nan", "1 inf"):
        with pytest.raises(RequestError):
            serve_commands._numbers_of(bad)


URL = "http://127.0.0.1:8000"


class Bridge(httpx.BaseTransport):
    """The way from a command to the application of a service in this process."""

    def __init__(self, app: Service) -> None:
        self._inner = httpx.ASGITransport(app=app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._inner) as client:
                return await client.request(
                    request.method, request.url, content=request.read(), headers=request.headers
                )

        answer = asyncio.run(ask())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture
def running(tmp_path, monkeypatch):
    """A folder in which a service runs, and its clock."""
    home, clock = Home(tmp_path), MovedClock()
    tokens = draw_tokens(home.serving / "cell", SeededEntropy(), url=URL)
    (home.serving / "cell" / "service.json").write_text(json.dumps({"url": URL}))
    bridge = Bridge(Service(TimedServing(SaidModel(), clock=clock), tokens, port=8000))
    real = httpx.Client
    monkeypatch.setattr(serve_commands.httpx, "Client", lambda **_: real(transport=bridge))
    return home, clock


def test_a_question_with_too_few_numbers_is_refused_as_one_and_not_as_a_service_that_is_away(running):
    home, clock = running
    with pytest.raises(RequestError) as raised:
        serve_commands.ask(home, "cell", "0.1, 0.2", clock=clock)
    assert (raised.value.code, raised.value.exit_code) == ("serve.request", 3)
    answer = serve_commands.ask(home, "cell", ", ".join(["0.1"] * 10), clock=clock)
    assert answer.error is None


def test_a_question_in_the_fallback_names_the_cause_and_the_remedy(running):
    home, clock = running
    answer = serve_commands.ask(home, "cell", " ".join(["9"] * 10), clock=clock)
    assert isinstance(answer.error, FallbackError)
    assert answer.error.exit_code == 7
    assert "models resume" in answer.error.remedy
    assert answer.text[-1] == f"state      fallback ({answer.error.found})"


def test_an_observation_may_begin_with_a_minus(tmp_path, monkeypatch):
    seen: list[tuple[str, str | None]] = []

    def ask(_home: Home, name: str, observation: str | None, **_: object) -> Answer:
        seen.append((name, observation))
        return Answer(data={})

    monkeypatch.setattr(serve_commands, "ask", ask)
    for words in (["-0.1, 0.75", "--name", "left"], ["--name", "left", "-0.1, 0.75"]):
        assert CliRunner().invoke(app, ["models", "ask", *words, "--dir", str(tmp_path)]).exit_code == 0
    assert seen == [("left", "-0.1, 0.75")] * 2


def test_a_data_set_that_no_contract_lists_is_refused_before_anything_is_served(tmp_path):
    world = ready_world(tmp_path)
    one = Open(home=world.home, member=world.member, shelf=world.worker.shelf, outbox=world.worker.outbox)
    with pytest.raises(NoSuchThingError, match="a data set of yours in the contract") as raised:
        serve_commands.can_record(one, "nobody/nothing")
    serve_commands.can_record(one, raised.value.need.rsplit(": ", 1)[1].split(", ")[0])
    world.worker.close()


def test_a_refused_import_comes_after_what_was_served_and_where_it_lies():
    refused = FileInvalidError(need="rows", found="none", remedy="none")
    served = Answer(data={"recorder": {"folder": "deployed/x"}}, text=("stopped    after 3 questions",))
    answer = serve_commands.not_imported(served, refused, dataset="kita/pick")
    assert answer.text[0] == "stopped    after 3 questions"
    assert "deployed/x" in answer.text[-1]
    assert answer.error is refused
    fallen = FallbackError(need="questions", found="range", remedy="look")
    both = serve_commands.not_imported(
        Answer(data=served.data, text=served.text, error=fallen), refused, dataset="kita/pick"
    )
    assert both.error is fallen
    assert any(refused.code in line for line in both.text)
