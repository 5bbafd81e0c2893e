# SPDX-License-Identifier: Apache-2.0
"""The operator's command line: streams, exit codes, and text of others made harmless."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Self

import click
import pytest
import typer
from typer.testing import CliRunner

from broker import commands as work
from broker.answers import Result, finish, plain, table
from broker.cli import app
from broker.errors import answered
from broker.remote import target_of
from policies.errors import IriaiError
from policies.identity import SigningKey, fingerprint, key_text

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "approve",
    "audit bundle",
    "audit conclude",
    "audit disclosures",
    "audit erase",
    "audit grant",
    "audit grants",
    "audit policy",
    "audit revoke",
    "audit rows",
    "audit timestamp",
    "audit vectors",
    "auditor add",
    "auditor list",
    "auditor revoke",
    "auditor witness",
    "backup create",
    "backup list",
    "backup restore",
    "backup verify",
    "budget show",
    "catalogue export",
    "catalogue list",
    "catalogue search",
    "catalogue show",
    "config check",
    "config show",
    "contract diff",
    "contract dry-run",
    "contract export",
    "contract halt",
    "contract import",
    "contract lifecycle",
    "contract lint",
    "contract list",
    "contract new",
    "contract offer",
    "contract prove",
    "contract resume",
    "contract schema",
    "contract show",
    "contract status",
    "contract withdraw",
    "db check",
    "db migrate",
    "db upgrade",
    "doctor",
    "dsp counterparty add",
    "dsp counterparty list",
    "dsp counterparty remove",
    "incident close",
    "incident list",
    "init",
    "invite create",
    "invite list",
    "invite revoke",
    "key list",
    "key rotate",
    "log approve",
    "log entries",
    "log freeze",
    "log repair",
    "log rotate-key",
    "log status",
    "log succeed",
    "log verify",
    "members",
    "node list",
    "node revoke",
    "node show",
    "openapi",
    "operator add",
    "operator disable",
    "operator list",
    "operator login",
    "operator new",
    "operator reset-login",
    "org approve",
    "org list",
    "org remove",
    "org restore",
    "org show",
    "org suspend",
    "print-unit",
    "proposal approve",
    "proposal list",
    "proposal refuse",
    "proposal show",
    "recipe check",
    "recipe list",
    "recipe show",
    "release approve",
    "release gate",
    "release list",
    "release publish",
    "release show",
    "release veto",
    "release withdraw",
    "revoke",
    "run list",
    "run open",
    "run pause",
    "run resume",
    "run show",
    "run stop",
    "run watch",
    "serve",
    "status",
    "witness add",
    "witness list",
    "witness remove",
}
LOCAL = {
    "audit rows",
    "audit vectors",
    "backup create",
    "backup list",
    "backup restore",
    "backup verify",
    "config check",
    "config show",
    "contract lint",
    "contract schema",
    "db check",
    "db migrate",
    "db upgrade",
    "doctor",
    "init",
    "key list",
    "key rotate",
    "log approve",
    "log repair",
    "log rotate-key",
    "log status",
    "log succeed",
    "log verify",
    "openapi",
    "operator new",
    "print-unit",
    "recipe check",
    "release approve",
    "release publish",
    "release veto",
    "release withdraw",
    "serve",
}
"""What works on files, on the broker's host or anywhere, and talks to no broker."""


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def test_the_commands_are_these_and_each_says_what_it_does():
    found = commands(typer.main.get_command(app))
    assert set(found) == COMMANDS
    for name, command in found.items():
        assert command.help, name
        options = {option for one in command.params for option in one.opts}
        assert "--json" in options, name
        for one in command.params:
            assert isinstance(one, click.Argument) or one.help, f"{name} {one.opts}"


def test_every_command_that_talks_to_a_broker_takes_folder_url_pin_and_key():
    for name, command in commands(typer.main.get_command(app)).items():
        options = {option for one in command.params for option in one.opts}
        if name not in LOCAL:
            assert {"--dir", "--url", "--tls-sha256", "--key"} <= options, name


def test_help_takes_less_than_half_a_second_of_cpu():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-m", "broker.cli", "--help"]
    subprocess.run(program, check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_command_line_imports_nothing_heavy_before_a_command_runs():
    program = (
        "import sys, broker.cli; heavy = {'sqlalchemy', 'fastapi', 'httpx', 'flwr', 'pydantic', 'numpy', 'cryptography'};"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_a_refusal_is_one_envelope_on_stdout_and_words_on_stderr(tmp_path):
    result = CliRunner().invoke(
        app, ["status", "--dir", str(tmp_path), "--key", str(tmp_path / "k"), "--json"]
    )
    assert result.exit_code == 6
    envelope = json.loads(result.stdout)
    assert envelope["status"] == "error"
    assert set(envelope["error"]) == {"code", "clause", "need", "found", "remedy"}
    assert envelope["error"]["code"] == "broker.operator-key"
    assert result.stderr.startswith("broker.operator-key\n")


def test_without_json_nothing_of_a_refusal_is_on_stdout(tmp_path):
    result = CliRunner().invoke(app, ["status", "--dir", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (6, "")


def test_an_operators_key_is_made_once_and_only_its_public_half_is_shown(tmp_path):
    path = tmp_path / "alice.key"
    first = CliRunner().invoke(app, ["operator", "new", str(path)])
    assert first.exit_code == 0
    assert first.stdout.startswith("ed25519:")
    assert "PRIVATE" not in first.stdout + first.stderr
    again = CliRunner().invoke(app, ["operator", "new", str(path)])
    assert again.exit_code == 6
    assert "identity.key-file-exists" in again.stderr


def test_a_whole_broker_is_made_by_three_commands(tmp_path):
    runner = CliRunner()
    keys = [
        runner.invoke(app, ["operator", "new", str(tmp_path / name)]).stdout.strip() for name in ("a", "b")
    ]
    options = ["--operator", f"alice={keys[0]}", "--operator", f"bob={keys[1]}"]
    line = ["init", "--dir", str(tmp_path / "D"), "--url", "https://127.0.0.1:7443", *options, "--json"]
    made = runner.invoke(app, line)
    assert made.exit_code == 0, made.stderr
    data = json.loads(made.stdout)["data"]
    assert data["operators"] == ["alice", "bob"]
    assert "next: iriai-broker serve" in made.stderr
    target = target_of(tmp_path / "D", None, None)
    assert target.url == "https://127.0.0.1:7443"
    other = runner.invoke(app, ["init", "--dir", str(tmp_path / "D"), "--url", "https://127.0.0.1:7444"])
    assert other.exit_code == 3
    alone = runner.invoke(
        app, ["init", "--dir", str(tmp_path / "E"), "--url", "https://h:1", "--tls-cert", "c.pem"]
    )
    assert alone.exit_code == 2


def test_one_operator_is_told_that_two_are_needed(tmp_path):
    runner = CliRunner()
    key = runner.invoke(app, ["operator", "new", str(tmp_path / "a")]).stdout.strip()
    line = [
        "init",
        "--dir",
        str(tmp_path / "D"),
        "--url",
        "https://127.0.0.1:7443",
        "--operator",
        f"alice={key}",
    ]
    assert "two operators" in runner.invoke(app, line).stderr


def test_where_the_broker_is_must_be_said(tmp_path):
    runner = CliRunner()
    runner.invoke(app, ["operator", "new", str(tmp_path / "k")])
    for where in ([], ["--url", "https://127.0.0.1:1"]):
        result = runner.invoke(app, ["members", "--key", str(tmp_path / "k"), *where])
        assert result.exit_code == 2
        assert "broker.usage" in result.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Kita\x1b[2J", "Kita\\x1b[2J"), ("a\u202eb", "a\\u202eb"), ("北", "北"), ("x\ny", "x\\ny")],
)
def test_control_characters_of_others_are_escaped(text, shown):
    assert plain(text) == shown


def test_tables_align_and_say_why_they_are_empty():
    assert table(("A", "B"), [("1", "x"), ("22", "y\x07")], empty="none") == ("A   B", "1   x", "22  y\\x07")
    assert table(("A",), [], empty="none; next: do it") == ("none; next: do it",)


def test_errors_of_the_system_are_refusals_with_a_remedy(capsys):
    def full() -> Result:
        raise OSError(28, "No space left on device")

    def missing() -> Result:
        raise FileNotFoundError(2, "No such file or directory", "recipe.json")

    assert finish(full, as_json=False) == 75
    assert "broker.disk-full" in capsys.readouterr().err
    assert finish(missing, as_json=False) == 2
    shown = capsys.readouterr().err
    assert "recipe.json" in shown
    assert "remedy" in shown


def test_a_brokers_refusal_keeps_its_code_and_exit_code():
    problem = {"code": "membership.approval-twice", "exit_code": 7, "need": "n", "found": "f", "remedy": "r"}
    error = answered(problem, status=409)
    assert isinstance(error, IriaiError)
    assert (error.code, error.exit_code, error.http_status) == ("membership.approval-twice", 7, 409)
    for junk in ({}, {"exit_code": 0}, {"exit_code": 4096}, {"exit_code": "x"}):
        assert answered(junk, status=502).exit_code == 1


class Wire:
    """A broker's answers without a broker; keeps what was posted."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.key = SigningKey.from_seed(b"a" * 32)
        self.posted: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def get(self, path: str):
        return self.answers[path.rsplit("/", 1)[-1]]

    def post(self, path: str, _body: object):
        self.posted.append(path)
        return {"state": "waiting-approval", "approved_by": ["alice"]}


NODE_KEY = SigningKey.from_seed(b"n" * 32).public
KITA = {
    "org": "org_aaaaaaaaaaaaaaaa",
    "node": "node_aaaaaaaaaaaaaaaa",
    "state": "waiting-approval",
    "node_key": key_text(NODE_KEY),
    "node_fingerprint": fingerprint(NODE_KEY),
    "fleet_key_pem": "pem",
    "legal_name": "Kita Robot KK",
    "country": "JP",
    "group": "kita",
    "approved_by": [],
}


@pytest.fixture
def wire(monkeypatch):
    one = Wire(organisations={"organisations": [KITA]})
    monkeypatch.setattr(work.Where, "client", lambda _self: one)
    return one


@pytest.mark.parametrize(
    ("options", "exit_code", "found"),
    [
        ([], 7, "broker.not-confirmed"),
        (["--fingerprint", "0000 0000"], 6, "identity.fingerprint"),
        (["--fingerprint", KITA["node_fingerprint"][:9]], 6, "identity.fingerprint"),
        (["--fingerprint", KITA["node_fingerprint"]], 0, None),
        (["--yes"], 0, None),
    ],
)
def test_approving_without_a_terminal_takes_a_compared_fingerprint(wire, options, exit_code, found):
    done = CliRunner().invoke(app, ["approve", KITA["org"], *options, "--json"])
    assert done.exit_code == exit_code, done.stderr
    assert len(wire.posted) == (exit_code == 0)
    if found is not None:
        assert json.loads(done.stdout)["error"]["code"] == found


def test_a_beginning_of_the_fingerprint_is_asked_for_whole_and_another_one_is_not_approved(wire):
    def refused(given: str) -> dict[str, str]:
        done = CliRunner().invoke(app, ["approve", KITA["org"], "--fingerprint", given, "--json"])
        return json.loads(done.stdout)["error"]

    beginning = refused(KITA["node_fingerprint"][:9])
    assert beginning["remedy"].startswith("give all of it")
    assert KITA["node_fingerprint"] not in beginning["found"]  # nothing to copy instead of comparing
    assert "do not approve" in refused("0000 0000")["remedy"]
    assert wire.posted == []


def test_the_lists_show_what_a_drafter_of_a_contract_needs(wire):
    shown = CliRunner().invoke(app, ["members"]).stderr
    assert KITA["org"] in shown
    assert KITA["node_key"] in shown
    wire.answers["status"] = {
        "url": "https://h:1",
        "broker_key": "ed25519:00",
        "origin": "o",
        "log": {"size": 1, "frozen": None},
        "members": {},
        "runs": {"open": 0, "all": 0},
    }
    assert "broker key   ed25519:00" in CliRunner().invoke(app, ["status"]).stderr


def test_a_run_says_why_it_ended_and_nothing_of_noise_without_a_plan(wire):
    finding = {"clause": "term-1", "check": "not-after", "need": "< 2028", "found": "2029"}
    shown = {
        "run": "run_aaaaaaaaaaaaaaaa",
        "state": "stopped",
        "outcome": "stopped",
        "recipe_id": "pick",
        "recipe": "sha256:aa",
        "contract": "sha256:bb",
        "round": 2,
        "steps": 3,
        "plan": None,
        "rounds": [],
        "ended": {"reason": "refused in round 3 by term-1", "findings": [finding]},
    }
    wire.answers[shown["run"]] = shown
    words = CliRunner().invoke(app, ["run", "show", shown["run"]]).stderr
    assert "noisy" not in words
    assert "why          refused in round 3 by term-1" in words
    assert "term-1     needs not-after < 2028; found 2029" in words
    shown |= {"plan": "sha256:cc", "ended": None}
    words = CliRunner().invoke(app, ["run", "show", shown["run"]]).stderr
    assert "2, 3 noisy steps" in words
    assert "why" not in words


def test_the_list_of_runs_says_who_keeps_one_waiting_and_by_which_code(wire):
    one = dict.fromkeys(("run", "recipe_id", "state", "model"), "r") | {"round": 30, "outcome": None}
    waiting = {"until_ms": 0, "ends_ms": 86_400_000, "codes": {"kita": "budget.unknown"}}
    wire.answers["runs"] = {"runs": [one | {"waiting": waiting}]}
    words = CliRunner().invoke(app, ["run", "list"]).stderr
    assert "kita:budget.unknown until 1970-01-01T00:00:00Z" in words


def test_a_run_is_stopped_by_a_request_of_its_own(wire):
    done = CliRunner().invoke(app, ["run", "stop", "run_aaaaaaaaaaaaaaaa"])
    assert done.exit_code == 0, done.stderr
    assert wire.posted == ["/operator/runs/run_aaaaaaaaaaaaaaaa/stop"]


def test_a_refused_candidate_is_listed_with_its_clause(wire):
    one = {
        "candidate": "sha256:aa",
        "state": "refused",
        "voted": 3,
        "run": "run_a",
        "refused_by": ["party-kita"],
    }
    wire.answers |= {"candidates": {"candidates": [one]}, "releases": {"releases": []}}
    assert "party-kita" in CliRunner().invoke(app, ["release", "list"]).stderr
    one["votes"] = {"hanbit": "veto", "kita": "veto", "nord": "approve"}
    assert "3: 1 approve, 2 veto" in CliRunner().invoke(app, ["release", "list"]).stderr


def test_masked_vectors_of_a_folder_without_a_broker_are_refused_as_such(tmp_path):
    options = [
        "--dir",
        str(tmp_path / "nowhere"),
        "--run",
        "run_aaaaaaaaaaaaaaaa",
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(app, ["audit", "vectors", *options, "--json"])
    assert json.loads(done.stdout)["error"]["code"] == "broker.not-initialised"


def test_the_list_of_members_says_who_is_online_and_when_each_was_heard_last(wire):
    away = KITA | {"org": "org_b", "online": False, "seen_ms": None}
    wire.answers["organisations"] = {"organisations": [KITA | {"online": True, "seen_ms": 61_000}, away]}
    head, kita, other = CliRunner().invoke(app, ["members"]).stderr.splitlines()
    assert head.split()[1:5] == ["STATE", "ONLINE", "LAST", "SEEN"]
    assert "yes     1970-01-01T00:01:01Z" in kita
    assert "no      not since the broker started" in other


SHORT = {
    "groups": 2,
    "groups_needed": 3,
    "members": 2,
    "members_needed": 0,
    "names": ["Kita KK", "Nord GmbH"],
}
AWAY = {"party": "hanbit", "name": "Hanbit Automation", "online": False, "since_ms": 61_000}


def test_a_run_that_waits_for_nodes_names_them_with_the_remedy(wire):
    one = dict.fromkeys(("run", "recipe_id", "recipe", "contract", "state", "model"), "r") | {
        "round": 30,
        "outcome": None,
        "plan": None,
        "rounds": [],
        "ended": None,
        "short": SHORT | {"remedy": "start them"},
        "away": [AWAY, AWAY | {"online": True}, AWAY | {"since_ms": None}],
    }
    wire.answers |= {"runs": {"runs": [one]}, "r": one}
    assert "Kita KK, Nord GmbH: 2 of 3 groups online" in CliRunner().invoke(app, ["run", "list"]).stderr
    lines = CliRunner().invoke(app, ["run", "show", "r"]).stderr.splitlines()
    since = "away         Hanbit Automation (hanbit) since 1970-01-01T00:01:01Z"
    for line in (
        "waits for    Kita KK, Nord GmbH: 2 of 3 groups online",
        "remedy       start them",
        f"{since}; offline",
        f"{since}; online, and silent in the newest round",
        "away         Hanbit Automation (hanbit) all along; offline",
    ):
        assert line in lines


def test_rounds_that_went_alike_are_one_line(wire):
    def settled(number: int, *, accepted: int = 4, attempt: int = 1) -> dict[str, object]:
        counts = dict.fromkeys(("unused", "refused", "silent", "unasked"), 0) | {"accepted": accepted}
        return {"round": number, "attempt": attempt, "model": f"sha256:{number:064x}", **counts}

    rounds = [*map(settled, range(1, 129)), settled(129, accepted=3), *map(settled, range(130, 381))]
    wire.answers["r"] = dict.fromkeys(("run", "recipe_id", "recipe", "contract", "state", "outcome"), "r") | {
        "round": 380,
        "plan": None,
        "ended": None,
        "rounds": rounds,
    }
    lines = CliRunner().invoke(app, ["run", "show", "r"]).stderr.splitlines()[-4:]
    assert [line.split()[:3] for line in lines] == [
        ["ROUNDS", "ATTEMPT", "ACCEPTED"],
        ["1-128", "1", "4"],
        ["129", "1", "3"],
        ["130-380", "1", "4"],
    ]
