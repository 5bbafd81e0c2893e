# SPDX-License-Identifier: Apache-2.0
"""What recordings become by commands: the folder's own map, and one file that cannot be imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.answers import Answer
from client.data.errors import FileInvalidError
from client.deploy import serve_commands
from client.deploy.episode_files import EpisodeFiles
from client.deploy.recorder import EpisodeRecorder
from client.deploy.refusals import RequestError
from client.deploy.ring import Ring
from tests.datasetsim import Site
from tests.servesim import SaidModel, TimedServing, facts, question, tick_ns


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
        return Answer(data={"episodes_added": 1}, text=(source.name,))

    return add


def test_one_recording_that_cannot_be_imported_is_named_and_the_others_are(tmp_path, monkeypatch):
    folder = recorded(tmp_path, 3)
    monkeypatch.setattr(serve_commands, "_add", refusing("episode-000002.parquet"))
    answer = serve_commands.add_recorded(None, Answer(data={}), folder, dataset="kita/pick")  # type: ignore[arg-type]
    assert answer.data["imported"]["episodes_added"] == 2
    assert list(answer.data["skipped"]) == ["episode-000002.parquet"]
    assert "episode-000002.parquet: rows that are known" in answer.text[-1]
    every = [one.name for one in folder.glob("*.parquet")]
    monkeypatch.setattr(serve_commands, "_add", refusing(*every))
    with pytest.raises(FileInvalidError):
        serve_commands.add_recorded(None, Answer(data={}), folder, dataset="kita/pick")  # type: ignore[arg-type]


def test_an_observation_is_numbers_in_words():
    assert serve_commands._numbers_of("[0.1, -2 3e0]") == [0.1, -2.0, 3.0]
    for bad in ("", "[]", "a", "nan", "1 inf"):
        with pytest.raises(RequestError):
            serve_commands._numbers_of(bad)
