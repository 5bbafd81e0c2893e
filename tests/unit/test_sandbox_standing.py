# SPDX-License-Identifier: Apache-2.0
"""A sandbox's folder: who may use it, what ends in it, when it may be deleted. No broker and no node is started."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import click
import pytest
import typer

from sandbox import audit, standing
from sandbox.cli import app
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


def test_a_folder_of_somebody_else_is_neither_used_nor_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for act in (up, standing.bring_down, standing.delete_folder):
        with pytest.raises(UsageError):
            act(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_auditor_is_given_the_members_receipts(tmp_path):
    verdict = {
        "origin": "o",
        "size": 1,
        "root": "r",
        "verdict": "v",
        "findings": [],
        "not_checked": [],
        "facts": {"receipts": 4},
    }
    verifier = tmp_path / "iriai-verify"
    verifier.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(tmp_path / 'line')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        f"print(json.dumps({{'data': {verdict!r}}}))\n"
    )
    verifier.chmod(0o755)
    kept = tmp_path / "receipts"
    found = audit.verify_bundle(tmp_path / "b.zip", tmp_path / "p.txt", verifier=verifier, receipts=kept)
    assert (found["verified"], found["receipts"]) == (True, 4)
    assert f"--receipts {kept}" in (tmp_path / "line").read_text()
