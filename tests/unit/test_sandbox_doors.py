# SPDX-License-Identifier: Apache-2.0
"""What a standing sandbox tells people to open, and what it writes down; commands are answered by hand, nothing is started."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import cli, doors, people, standing
from sandbox.contract_text import makers
from sandbox.errors import CommandError, UsageError
from sandbox.federation import PROCESSES, Federation
from sandbox.people import AUDITOR, CONSOLE, console_of, login_of
from sandbox.scenarios import SCENARIOS, play


class Told(Federation):
    """A federation whose broker answers by hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, makers=makers(3), console=CONSOLE)
        self.url = "https://127.0.0.1:4711"
        self.asked: list[tuple[int, tuple[str, ...]]] = []

    def broker(self, *arguments: str, operator: int = 0) -> dict[str, Any]:
        self.asked.append((operator, arguments))
        link = f"https://localhost:4711/console/enter/{len(self.asked)}"
        return {"link": link, "until": "2026-12-02T00:00:00Z"}


def test_everybody_has_a_login_of_their_own(tmp_path):
    federation = Told(tmp_path)
    made = [
        login_of(federation, name, role=role, first=True)
        for name, role in (("alice", "operator"), ("bob", "operator"), (AUDITOR, "auditor"))
    ]
    assert len({one["login"] for one in made}) == 3
    assert federation.asked == [
        (0, ("operator", "reset-login", "alice")),
        (1, ("operator", "reset-login", "bob")),  # with his own key: one's own login needs nobody else
        (0, ("operator", "add", AUDITOR, "--role", "auditor")),
    ]
    login_of(federation, AUDITOR, role="auditor", first=False)
    assert federation.asked[-1] == (0, ("operator", "reset-login", AUDITOR))
    assert console_of(federation) == "https://localhost:4711/console"


def test_an_auditor_whose_name_has_a_key_is_let_in_by_two(tmp_path):
    federation = Told(tmp_path)

    def asks(*arguments, operator=0):
        federation.asked.append((operator, arguments))
        until = {"link": "https://localhost:4711/console/enter/x", "until": "2026-12-02T00:00:00Z"}
        return until if operator else {"name": AUDITOR, "code": "abcd-efgh-2345-6777"}

    federation.broker = asks
    made = login_of(federation, AUDITOR, role="auditor", first=False)
    assert [number for number, _ in federation.asked] == [0, 1]
    assert (made["code"], made["login"][-2:]) == ("abcd-efgh-2345-6777", "/x")


def test_a_page_that_runs_is_asked_for_a_fresh_code_and_one_that_ended_is_started(tmp_path, monkeypatch):
    federation, started = Told(tmp_path), []
    asked: list[tuple[str, ...]] = []

    def command(*words: str) -> dict[str, Any]:
        asked.append(words)
        return {"page": "http://127.0.0.1:1/open/again"}

    def start(self: Federation, site: Any) -> Any:
        started.append(site.name)
        return lambda: "http://127.0.0.1:2/open/new"

    monkeypatch.setattr(doors, "command", command)
    monkeypatch.setattr(doors, "_started", start)
    found = doors.doors(federation, first=False, pids={"kita-page": os.getpid()})
    assert started == ["nord", "iber"]
    assert asked == [("iriai-node", "page", "--again", "--dir", str(tmp_path / "sites" / "kita"))]
    assert [one["page"][-5:] for one in found["nodes"]] == ["again", "n/new", "n/new"]
    said = "\n".join(doors.lines(found))
    for one in (*found["operators"], found["auditor"]):
        assert one["login"] in said
    coded = {**found, "auditor": found["auditor"] | {"code": "abcd-efgh"}}
    assert f"{found['auditor']['name']} needs the link and" in "\n".join(doors.lines(coded))
    assert "needs the link and" not in said


def test_the_address_of_a_page_is_read_from_what_it_printed(tmp_path):
    log = tmp_path / "kita-page.log"
    line = {"schema": "1", "status": "ok", "data": {"page": "http://127.0.0.1:9/open/x", "port": 9}}
    log.write_text("earlier\n" + "noise {\n" + json.dumps(line) + "\nnull\n")
    assert doors._pages(log, 0) == ["http://127.0.0.1:9/open/x"]
    assert doors._pages(log, log.stat().st_size) == []


def test_no_login_is_written_down_and_who_takes_part_is(tmp_path):
    federation = Told(tmp_path)
    federation.contract = "sha256:" + "a" * 64
    federation.write_down()
    standing._write_facts(federation)
    text = (tmp_path / standing.FACTS).read_text()
    assert "enter" not in text
    again = standing._standing(tmp_path)
    assert [one.name for one in again.sites] == ["kita", "nord", "iber"]
    assert (again.url, again.contract) == (federation.url, federation.contract)


@pytest.mark.parametrize("act", [standing.open_again, standing.status])
def test_a_folder_without_a_federation_that_came_up_is_refused(tmp_path, act):
    with pytest.raises(UsageError):
        act(tmp_path)
    (tmp_path / PROCESSES).write_text("{}")
    with pytest.raises(UsageError, match="came up"):
        act(tmp_path)
    (tmp_path / standing.FACTS).write_text('{"url": "u", "contract": "c", "makers": [{"party": 3}]}')
    with pytest.raises(UsageError, match="came up"):
        act(tmp_path)


def test_logins_of_a_broker_that_ended_are_not_made(tmp_path):
    federation = Told(tmp_path)
    federation.write_down()
    standing._write_facts(federation)
    with pytest.raises(UsageError, match="a broker that runs") as refused:
        standing.open_again(tmp_path)
    assert f"iriai-broker serve --dir {federation.broker_dir}" in refused.value.remedy
    assert "--delete" not in refused.value.remedy
    told = standing.status(tmp_path)
    assert (told["running"], told["nodes"], told["runs"]) == ({}, [], [])


def test_open_says_what_ends_by_it_and_fails_where_it_is_refused(tmp_path, monkeypatch, capsys):
    federation = Told(tmp_path)
    federation.write_down()
    standing._write_facts(federation)
    assert ended(monkeypatch, "open", "--dir", str(tmp_path)) == 2
    capsys.readouterr()
    (tmp_path / PROCESSES).write_text(json.dumps({"broker": os.getpid()}))
    person = {"name": "alice", "role": "operator", "login": "l"}
    made = {"console": "c", "operators": [person], "auditor": person, "nodes": []}
    monkeypatch.setattr(doors, "doors", lambda *_given, **_named: made)
    assert ended(monkeypatch, "open", "--dir", str(tmp_path)) == 0
    said = capsys.readouterr()
    assert "passwords and passkeys ended" in said.out
    assert said.err.startswith("this ends the sessions, passwords, passkeys and unused links of everybody")
    assert ended(monkeypatch, "open", "--dir", str(tmp_path), "--yes") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sandbox.cli.typer.confirm", lambda *_words, **_named: False)
    monkeypatch.setattr(doors, "doors", lambda *_given, **_named: pytest.fail("nobody said yes"))
    assert ended(monkeypatch, "open", "--dir", str(tmp_path)) == 7


def test_the_auditor_has_a_key_file_and_a_grant_after_the_login(tmp_path, monkeypatch):
    federation, made = Told(tmp_path), []
    monkeypatch.setattr(doors, "_page", lambda *_given: lambda: "p")

    def command(*words: str) -> dict[str, Any]:
        made.append(words)
        return {"key": "ed25519:ab"}

    monkeypatch.setattr(people, "command", command)
    path = str(tmp_path / "operators" / "carol.key")
    assert doors.doors(federation, first=True)["auditor"]["key"] == path
    assert made == [("iriai-verify", "key", path)]
    assert federation.asked[-3:] == [
        (0, ("operator", "add", AUDITOR, "--role", "auditor")),
        (0, ("auditor", "add", AUDITOR, "--auditor-key", "ed25519:ab", "--yes")),
        (0, ("audit", "grant", AUDITOR, "--fields", "*", "--yes")),
    ]
    doors.doors(federation, first=False)
    assert len(made) == 1


def test_noise_shares_need_four_makers_and_the_fifth_has_a_cell_again(tmp_path):
    with pytest.raises(UsageError, match="at least 4"):
        standing.bring_up(tmp_path / "up", episodes=10, epsilon="8", seed=0, nodes=3)
    assert not (tmp_path / "up").exists()
    assert [one.cell for one in makers(6)] == ["A", "B", "C", "D", "A", "B"]
    assert len({one.party for one in makers(8)}) == 8


def test_processes_of_an_earlier_command_stay_written_down(tmp_path):
    federation = Told(tmp_path)
    federation.known = {"broker": 1, "kita": 2}
    federation.write_down()
    assert json.loads((tmp_path / PROCESSES).read_text()) == {"broker": 1, "kita": 2}


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["iriai-sandbox", *words])
    monkeypatch.setattr(signal, "signal", lambda *_args: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_the_process_ends_with_the_code_of_its_command(tmp_path, monkeypatch, capsys):
    """Typer gives a code that nobody looks at, unless it runs the process."""
    monkeypatch.setattr(
        standing,
        "status",
        lambda _dir: {"running": {}, "ended": ["broker"], "nodes": [], "runs": []},
    )
    assert ended(monkeypatch, "status", "--dir", str(tmp_path), "--json") == 3
    assert json.loads(capsys.readouterr().out)["data"]["ended"] == ["broker"]


def test_scenarios_and_cells_are_listed_and_unknown_ones_refused(tmp_path, monkeypatch, capsys):
    assert ended(monkeypatch, "scenario", "list", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["data"]["scenarios"]) == set(SCENARIOS)
    assert ended(monkeypatch, "cell", "list", "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["data"]["cells"]] == list("ABCD")
    assert ended(monkeypatch, "scenario", "run", "none", "--dir", str(tmp_path / "s"), "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "sandbox.usage"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="empty folder"):
        play("veto", tmp_path)


def test_a_story_ends_its_processes_and_fails_where_a_check_does(tmp_path, monkeypatch):
    from sandbox import scenarios, staging

    stopped: list[str] = []
    monkeypatch.setattr(staging, "bring_into_force", lambda *_given, **_named: None)
    monkeypatch.setattr(Federation, "stop", lambda _self: stopped.append("all"))

    def tell(_federation: Federation) -> Any:
        yield staging.state("the run ends completed", "failed", "completed")
        yield staging.refused("nobody can fetch it", lambda: None)

        def refuse() -> None:
            raise CommandError(need="a", found="contract.halted", remedy="b")

        yield staging.refused("no run is opened", refuse)

    monkeypatch.setitem(scenarios.SCENARIOS, "planted", scenarios.Scenario(words="planted", tell=tell))
    found = play("planted", tmp_path / "s")
    assert [one["held"] for one in found["checks"]] == [False, False, True]
    assert (found["held"], stopped) == (False, ["all"])
