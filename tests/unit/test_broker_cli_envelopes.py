# SPDX-License-Identifier: Apache-2.0
"""Every command of ``iriai-broker``: one envelope with ``--json``, ``--dry-run`` that changes nothing, one exit code as listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import pytest
import typer
from click.testing import CliRunner

from broker import commands as work
from broker.answers import coloured, finish
from broker.cli import app
from broker.cli.changes import confirm
from broker.errors import NotConfirmedError, UsageError
from broker.keyfiles import write_private
from broker.remote import NotSentError
from policies.identity import SigningKey, fingerprint, key_text
from tests.brokersim import operator_key

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXIT_CODES = {0, 2, 3, 4, 5, 6, 7, 75}
NODE_KEY = SigningKey.from_seed(b"n" * 32).public
DIGEST = "sha256:" + "a" * 64
KITA = {
    "org": "org_aaaaaaaaaaaaaaaa",
    "node": "node_aaaaaaaaaaaaaaaa",
    "state": "waiting-approval",
    "since_ms": 0,
    "node_key": key_text(NODE_KEY),
    "node_fingerprint": fingerprint(NODE_KEY),
    "fleet_key_pem": "pem",
    "legal_name": "Kita Robot KK",
    "country": "JP",
    "group": "kita",
    "approved_by": [],
}


def _walk(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _walk(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


PROGRAM = typer.main.get_command(app)
COMMANDS = dict(_walk(PROGRAM))
CHANGES = sorted(
    name
    for name, one in COMMANDS.items()
    if "--dry-run" in {text for part in one.params for text in part.opts}
)
LOOKS = {
    *("status", "members", "doctor", "print-unit", "openapi", "serve", "recipe check"),
    *(
        name
        for name in COMMANDS
        if name.split()[-1] in {"list", "show", "check", "verify", "status", "search"}
    ),
    *("run watch", "release gate", "log entries", "contract lifecycle", "contract diff", "contract dry-run"),
    *("contract lint", "contract schema", "contract new", "contract export", "contract import"),
    *("audit grants", "audit policy", "audit rows", "audit vectors"),
    *("catalogue export", "contract prove"),
}
"""What only looks, or writes nothing but the file that it was asked for."""


def line_of(name: str, folder: Path) -> list[str]:
    """A line with everything that a command cannot do without, of the right kind and meaning nothing."""
    words = name.split()
    for one in COMMANDS[name].params:
        if not one.required:
            continue
        kind = one.type.name
        value = "1" if "int" in kind else str(folder / "file") if "path" in kind else _value(one.name or "")
        value = MEANT.get((name, one.name), value)
        words += [value] if isinstance(one, click.Argument) else [one.opts[0], value]
    return words


MEANT = {
    ("contract withdraw", "name"): "neg_aaaaaaaaaaaaaaaa",
    ("node revoke", "name"): KITA["org"],
    ("org approve", "name"): KITA["org"],
    ("audit bundle", "out"): "none.zip",  # a file that is there is refused before anybody is asked
}
"""Names of a form of their own."""


def _value(name: str) -> str:
    return {"digest": DIGEST, "org": KITA["org"], "reason": "key-lost", "successor": "h.example/log/b"}.get(
        name, DIGEST if name in {"contract", "model"} else "name"
    )


def run(words: list[str], **options: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and the one envelope."""
    done = CliRunner().invoke(PROGRAM, [*words, "--json"], catch_exceptions=False, **options)
    documents = done.stdout.splitlines()
    assert len(documents) == 1, (words, done.stdout, done.stderr)
    return done.exit_code, json.loads(documents[0])


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No broker is at a default place, and the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    for name in [one for one in os.environ if one.startswith("IRIAI_")]:
        monkeypatch.delenv(name)
    (tmp_path / "file").write_text("nothing that anybody understands")
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve"}))
def test_every_command_answers_with_one_envelope_and_an_exit_code_of_the_list(name, tmp_path):
    code, envelope = run(line_of(name, tmp_path))
    assert code in EXIT_CODES, envelope
    if envelope["status"] == "error":
        assert code != 0
        assert set(envelope["error"]) == {"code", "clause", "need", "found", "remedy"}
        assert all(envelope["error"][part] for part in ("code", "need", "found", "remedy"))
    else:
        assert isinstance(envelope["data"], dict)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_refuses_a_line_that_it_cannot_read_by_one_envelope(name, tmp_path):
    code, envelope = run([*line_of(name, tmp_path), "--no-such-option"])
    assert (code, envelope["error"]["code"]) == (2, "broker.usage")
    assert "--no-such-option" in envelope["error"]["found"]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve"}))
def test_every_command_takes_the_language_and_one_that_works_on_a_broker_its_settings_file(name):
    options = {text for one in COMMANDS[name].params for text in one.opts}
    assert {"--lang", "--json"} <= options
    assert ("--config" in options) == ("--dir" in options)


def test_what_changes_something_can_be_tried_without_doing_it():
    assert set(COMMANDS) - set(CHANGES) <= LOOKS
    assert not set(CHANGES) & LOOKS


READS_FIRST = {"contract resume", "audit timestamp", "proposal approve"}
"""What looks at an answer of the broker, which this wire does not give, before it would send anything."""


class Wire:
    """A broker that is asked and never told; every read gives the one organisation that there is."""

    def __init__(self) -> None:
        self.key = operator_key("alice")
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def get(self, path: str, *, logged: bool = False) -> Any:
        if logged:
            raise NotSentError("GET", path, None)
        self.asked.append(path)
        return {"organisations": [KITA], "size": 3, "contracts": [], "proposals": [], "you": "alice"}

    def post(self, path: str, body: object) -> Any:
        raise NotSentError("POST", path, body)

    def download(self, path: str, _into: Path) -> str:
        raise NotSentError("GET", path, None)


@pytest.mark.parametrize("name", [one for one in CHANGES if one not in READS_FIRST])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(name, tmp_path, monkeypatch):
    monkeypatch.setattr(work.Where, "client", lambda _self: Wire())
    before = sorted(tmp_path.rglob("*"))
    place = (
        ["--dir", str(tmp_path)]
        if "--dir" in _options(name) and "--dir" not in line_of(name, tmp_path)
        else []
    )
    code, envelope = run([*line_of(name, tmp_path), *place, "--dry-run", "--yes"])
    assert sorted(tmp_path.rglob("*")) == before
    if envelope["status"] == "error":  # a file that nobody understands is found out before anything is sent
        assert name in {"contract offer", "audit conclude", "auditor witness", "witness add", "auditor add"}
        return
    data = envelope["data"]
    assert (code, data["dry_run"]) == (0, True)
    assert data["effect"]
    assert "{" not in data["effect"]
    if data["request"] is not None:
        assert data["request"]["path"].startswith("/api/v1/")
        assert "signature" not in json.dumps(data["request"]) or '"signature": "…"' in json.dumps(
            data["request"], ensure_ascii=False
        )


def _options(name: str) -> set[str]:
    return {text for one in COMMANDS[name].params for text in one.opts}


def test_a_dry_run_never_shows_a_signature_that_somebody_could_use(monkeypatch, tmp_path):
    monkeypatch.setattr(work.Where, "client", lambda _self: Wire())
    _, envelope = run(["org", "approve", KITA["org"], "--yes", "--dry-run"])
    body = envelope["data"]["request"]["body"]
    assert body["signature"] == "…"
    assert body["subject_digest"].startswith("sha256:")


def test_an_older_name_of_a_command_means_the_same_and_is_not_listed(monkeypatch):
    monkeypatch.setattr(work.Where, "client", lambda _self: Wire())
    words = ["--name", "Kita KK", "--country", "JP", "--group", "kita", "--dry-run"]
    assert run(["invite", *words]) == run(["invite", "create", *words])
    shown = CliRunner().invoke(PROGRAM, ["contract", "--help"]).stdout
    assert "status" in shown
    assert "lifecycle" not in shown


def test_a_person_at_a_terminal_is_asked_before_something_ends(monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, goes_on in ((True, True), (False, False)):
        monkeypatch.setattr(typer, "confirm", lambda *_a, answer=answer, **_n: answer)
        if goes_on:
            confirm("the run ends")
        else:
            with pytest.raises(NotConfirmedError, match="the run ends"):
                confirm("the run ends")


def test_folder_and_settings_file_together_are_refused(tmp_path):
    code, envelope = run(["config", "show", "--dir", str(tmp_path), "--config", str(tmp_path / "b.toml")])
    assert (code, envelope["error"]["code"]) == (2, "broker.usage")


def test_a_language_that_there_is_not_is_refused_by_every_command(tmp_path):
    for words in (["status"], ["contract", "lint", str(tmp_path / "file")], ["doctor"]):
        code, envelope = run([*words, "--lang", "de"])
        assert (code, envelope["error"]["code"]) == (2, "broker.usage")


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, False),
    ],
)
def test_colour_is_for_who_wants_it_and_never_in_an_envelope(monkeypatch, capsys, environment, colour):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (coloured("x", "red") != "x") is colour

    def refused() -> Any:
        raise UsageError(need="n", found="f", remedy="r")

    finish(refused, as_json=True)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out
    assert ("\x1b[31m" in shown.err) is colour


def test_completion_is_offered_for_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert "complete" in done.stdout + done.stderr


def test_an_operators_key_alone_is_not_a_broker(tmp_path):
    write_private(tmp_path / "alice.key", operator_key("alice").to_pem())
    code, envelope = run(["run", "pause", "run_aaaaaaaaaaaaaaaa", "--key", str(tmp_path / "alice.key")])
    assert (code, envelope["error"]["code"]) == (2, "broker.usage")
