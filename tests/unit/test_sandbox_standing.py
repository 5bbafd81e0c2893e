# SPDX-License-Identifier: Apache-2.0
"""A sandbox's folder: who may use it, what ends in it, when it may be deleted. No broker and no node is started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import click
import pytest
import typer
from typer.testing import CliRunner

from sandbox import audit, processes, standing
from sandbox.asked import epsilon_of
from sandbox.cli import app, main
from sandbox.errors import StartError, UsageError
from sandbox.federation import PROCESSES, Federation
from sandbox.processes import is_running, start

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class Cells:
    """A workshop that records nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def record(self, *_folders: object, **_options: object) -> None:
        pass


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEP)
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    yield process
    process.kill()
    reaper.join(10)


def up(folder: Path) -> None:
    standing.bring_up(folder, episodes=1, epsilon=None, seed=0)


def test_every_option_says_what_it_does():
    def walk(group: click.Group) -> None:
        for name, one in group.commands.items():
            for option in one.params:
                assert isinstance(option, click.Argument) or option.help, f"{name} {option.opts}"
            if isinstance(one, click.Group):
                walk(one)

    walk(typer.main.get_command(app))


def test_a_failed_up_leaves_no_process_and_a_folder_that_down_frees(tmp_path, monkeypatch, capsys):
    folder, seen = tmp_path / "tour", []

    def fail(self: Federation) -> None:
        log = self.folder / "logs" / "broker.log"
        self.services["broker"] = start("broker", SLEEP, log=log)
        self.write_down()
        seen.append(json.loads((folder / PROCESSES).read_text())["broker"])
        raise StartError(need="the broker to serve", found="it ended", remedy="see its log file")

    monkeypatch.setattr(standing, "Workshop", Cells)
    monkeypatch.setattr(Federation, "start_broker", fail)
    with pytest.raises(StartError):
        up(folder)
    assert not is_running(seen[0])
    way_out = f"iriai-sandbox down --dir {folder} --delete"
    assert way_out in capsys.readouterr().err
    with pytest.raises(UsageError) as refused:
        up(folder)
    assert way_out in refused.value.remedy
    assert standing.bring_down(folder) == []
    standing.delete_folder(folder)
    with pytest.raises(StartError):  # as far as the first time
        up(folder)
    assert len(seen) == 2


def test_down_ends_what_was_written_down_and_can_be_repeated(tmp_path, sleeper):
    (tmp_path / PROCESSES).write_text(json.dumps({"broker": sleeper.pid}))
    with pytest.raises(UsageError, match="broker"):
        standing.delete_folder(tmp_path)
    with pytest.raises(UsageError, match="running: broker"):
        up(tmp_path)
    assert standing.bring_down(tmp_path) == ["broker"]
    assert standing.bring_down(tmp_path) == []
    with pytest.raises(UsageError, match="--delete"):
        up(tmp_path)
    standing.delete_folder(tmp_path)
    assert not tmp_path.exists()


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)


def test_down_waits_for_a_process_that_ends_slowly_and_names_what_does_not_end(tmp_path, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it ignores the signal from now on
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    (tmp_path / PROCESSES).write_text(json.dumps({"broker": process.pid}))
    with monkeypatch.context() as patch:
        patch.setattr(standing, "stop_pid", lambda _pid: False)
        done = CliRunner().invoke(app, ["down", "--dir", str(tmp_path)])
    assert done.exit_code == 75
    assert done.stdout.startswith("stopped nothing\n")
    assert f"still running broker (process {process.pid})" in done.stdout
    monkeypatch.setattr(processes, "_END_S", 0.1)
    assert standing.bring_down(tmp_path) == ["broker"]  # killed, and waited for
    reaper.join(10)
    process.stdout.close()


def test_a_folder_of_somebody_else_is_neither_used_nor_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for act in (up, standing.bring_down, standing.delete_folder):
        with pytest.raises(UsageError):
            act(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Exit code of a command as a shell has it."""
    monkeypatch.setattr(sys, "argv", ["iriai-sandbox", *words])
    monkeypatch.setattr(signal, "signal", lambda *_args: None)
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.parametrize("epsilon", ["abc", "-1", "0", "nan", "Infinity", "0.01", "0.1", "1e40", ""])
@pytest.mark.parametrize(
    "command", [("up",), ("demo",), ("demo", "--noise", "local-full"), ("bench", "pooling")], ids=" ".join
)
def test_an_epsilon_that_is_none_is_refused_before_anything_is_made(
    tmp_path, monkeypatch, capsys, command, epsilon
):
    folder = tmp_path / "folder"
    where = "--out" if command[0] == "demo" else "--dir"
    code = ended(monkeypatch, *command, where, str(folder), "--epsilon", epsilon, "--json")
    out, err = capsys.readouterr()
    envelope = json.loads(out)
    assert (code, envelope["error"]["code"]) == (2, "sandbox.usage")
    assert "--epsilon 8" in envelope["error"]["remedy"]
    assert "Traceback" not in err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "meant"), [("inf", None), ("8.0", "8"), ("2", "2"), ("1e1", "10"), ("0.2", "0.2")]
)
def test_an_epsilon_is_spelled_as_contracts_do(text: str, meant: str | None):
    assert epsilon_of(text, "local-full") == epsilon_of(text, "shares") == meant


@pytest.mark.parametrize("command", ["up", "demo"])
def test_nobody_can_give_away_more_episodes_than_are_recorded(tmp_path, monkeypatch, capsys, command):
    folder = tmp_path / "folder"
    where = "--out" if command == "demo" else "--dir"
    words = ("--episodes", "2", "--seed-episodes", "5", "--json")
    assert ended(monkeypatch, command, where, str(folder), *words) == 2
    assert json.loads(capsys.readouterr().out)["error"]["found"] == "5 of 2"
    assert not folder.exists()


def test_a_verifier_that_cannot_run_is_refused_at_the_start(tmp_path, monkeypatch, capsys):
    for path in ("/nix", "/dev/null/iriai-verify", __file__):
        words = ("--verifier", path, "--out", str(tmp_path / "out"), "--json")
        assert ended(monkeypatch, "demo", *words) == 2
        assert json.loads(capsys.readouterr().out)["error"]["found"] == str(Path(path).resolve())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("up",), ("bench", "pooling", "--seeds", "a"), ("down", "--dir")], ids=str)
def test_options_that_do_not_fit_are_an_envelope_too(monkeypatch, capsys, words):
    assert ended(monkeypatch, *words, "--json") == 2
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["status"], envelope["error"]["code"]) == ("error", "sandbox.usage")


@pytest.mark.parametrize("mb", ["abc", "", "0", "nan", "-1", "1000", "1,", "1,1", "inf"])
def test_sizes_that_are_none_are_refused_before_anything_is_started(monkeypatch, capsys, mb):
    assert ended(monkeypatch, "bench", "exchange", "--mb", mb, "--json") == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert "different sizes from 0.0001 to 400 megabytes" in told["found"]


def test_rounds_with_noise_shares_need_four_nodes(monkeypatch, capsys):
    assert ended(monkeypatch, "bench", "rounds", "--nodes", "3", "--json") == 2
    assert "4<=x<=16" in json.loads(capsys.readouterr().out)["error"]["found"]


@pytest.mark.parametrize("asked", [("8", 10, True), ("8", 250, False), (None, 10, False)], ids=str)
def test_too_few_episodes_for_a_release_are_warned_of_beforehand(tmp_path, monkeypatch, capsys, asked):
    epsilon, episodes, warned = asked

    def fail(_self: Federation) -> None:
        raise StartError(need="a broker", found="none", remedy="none")

    monkeypatch.setattr(standing, "Workshop", Cells)
    monkeypatch.setattr(Federation, "start_broker", fail)
    with pytest.raises(StartError):
        standing.bring_up(tmp_path / "tour", episodes=episodes, epsilon=epsilon, seed=0)
    said = capsys.readouterr().err
    assert ("the release will probably be refused" in said) == warned
    assert ("--episodes 250" in said) == warned


def test_the_auditor_is_given_the_members_receipts_and_the_masked_vectors(tmp_path):
    verdict = {
        "origin": "o",
        "size": 1,
        "root": "r",
        "verdict": "v",
        "findings": [],
        "not_checked": [],
        "facts": {"receipts": 4, "sums": {"opened": 3, "redone": 2}},
    }
    verifier = tmp_path / "iriai-verify"
    verifier.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(tmp_path / 'line')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        f"print(json.dumps({{'data': {verdict!r}}}))\n"
    )
    verifier.chmod(0o755)
    kept, masked = tmp_path / "receipts", tmp_path / "vectors"
    found = audit.verify_bundle(
        tmp_path / "b.zip", tmp_path / "p.txt", verifier=verifier, receipts=kept, vectors=masked
    )
    assert (found["verified"], found["receipts"]) == (True, 4)
    assert found["sums"] == {"opened": 3, "redone": 2}
    assert f"--receipts {kept} --vectors {masked}" in (tmp_path / "line").read_text()
