# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from client import node
from client.answers import Answer, finish, plain, table
from client.doctor import doctor
from client.errors import NoSuchThingError, remote_refusal
from client.federation.errors import KeyUnknownError
from client.membership import status
from client.settings import Home, locked
from policies.contract.lint import lint
from tests.nodesim import SeedEntropy
from tests.nodeworld import World, ready_world

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import click
    import typer
    from typer.testing import CliRunner

    from client.cli import app
    from client.cli.options import accept, retype

COMMANDS = [
    ["init"],
    ["join", "https://127.0.0.1:1", "x", "--yes"],
    ["status"],
    ["pause"],
    ["resume"],
    ["doctor"],
    ["withdraw"],
    ["withdraw", "run_aaaaaaaaaaaaaaaa"],
    ["withdraw", "0" * 12, "--unreleased", "retrain", "--dry-run"],
    ["key", "show"],
    ["key", "rotate", "--dry-run"],
    ["page"],
    ["page", "--again"],
    ["data", "add", "nothing", "--dataset", "kita/pick"],
    ["data", "list"],
    ["data", "show", "kita/pick"],
    ["data", "check", "kita/pick"],
    ["data", "publish", "kita/pick"],
    ["data", "withdraw", "kita/pick"],
    ["data", "export", "kita/pick", "--lerobot", "unused"],
    ["data", "mark", "kita/pick", "ep_x", "--outcome", "success", "--by", "A"],
    ["data", "fingerprints", "--for", "nord", "--out", "unused"],
    ["data", "compare", "nothing", "--from", "nord"],
    ["data", "remove", "kita/pick"],
    ["contract", "list"],
    ["contract", "status", "0" * 12],
    ["contract", "lifecycle", "0" * 12],
    ["contract", "rotate-key"],
    ["contract", "show"],
    ["contract", "sign", "sha256:" + "0" * 64, "--yes"],
    ["contract", "sign", "0" * 12, "--yes"],
    ["contract", "diff"],
    ["contract", "counter", "none.yaml"],
    ["contract", "refuse", "sha256:" + "0" * 64, "--reason", "terms.too-loose"],
    ["contract", "explain", "run_aaaaaaaaaaaaaaaa"],
    ["guard", "log"],
    ["guard", "explain", "run_aaaaaaaaaaaaaaaa"],
    ["budget", "show"],
    ["budget", "tighten", "--lineage", "lin_x", "--epsilon", "1"],
    ["budget", "reconcile"],
    ["privacy", "plan", "--recipe", "none.json"],
    ["privacy", "audit", "--recipe", "none.json"],
    ["seed", "donate", "--recipe", "no.json", "--dataset", "a/b", "--licence", "CC0", "--out", "unused"],
    ["seed", "fit", "--recipe", "none.json", "--seed-set", "none.json", "--out", "unused"],
    ["seed", "check"],
    ["seed", "check", "--recipe", "none.json"],
    ["outbox", "list"],
    ["outbox", "show", "0" * 12],
    ["outbox", "export", "--out", "unused.csv"],
    ["chain", "show"],
    ["witness", "cosign"],
    ["receipt", "list"],
    ["receipt", "fetch"],
    ["receipt", "verify"],
    ["receipt", "export", "--out", "unused"],
    ["receipts", "fetch"],
    ["receipts", "verify"],
    ["receipts", "export", "--out", "unused"],
    ["release", "list"],
    ["release", "show", "sha256:" + "0" * 64],
    ["release", "report", "sha256:" + "0" * 64],
    ["statement", "list"],
    ["release", "approve", "sha256:" + "0" * 64],
    ["release", "veto", "sha256:" + "0" * 64],
    ["release", "approve", "sha256:" + "0" * 64, "--dry-run"],
    ["models", "list"],
    ["models", "report"],
    ["models", "pull", "sha256:" + "0" * 64],
    ["models", "personalise", "sha256:" + "0" * 64],
]


def test_a_folder_without_a_node_is_named_before_a_second_node_is_made(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IRIAI_NODE_DIR", raising=False)
    monkeypatch.setattr("client.layers.default_places", tuple)
    done = CliRunner().invoke(app, ["status"])
    assert (done.exit_code, "node.not-initialised" in done.stderr) == (3, True)
    new = "; only for a new node: iriai-node init --dir iriai-node"
    assert f"remedy: give --dir of the node's folder{new}\n" in done.stderr
    for name in ("kita", "iber"):
        (tmp_path / name / "keys").mkdir(parents=True)
        (tmp_path / name / "keys" / "node.key").touch()
    done = CliRunner().invoke(app, ["status"])
    near = " (nodes are near, in iber and kita)"
    assert f"remedy: give --dir of the node's folder{near}{new}\n" in done.stderr


def test_a_worker_that_is_not_approved_says_what_to_ask_for(tmp_path: Path, monkeypatch, capsys):
    def unknown(_home: Home) -> None:
        raise KeyUnknownError(need="a fleet key that the broker knows", found="401", remedy="ask")

    monkeypatch.setattr(node, "serve", unknown)
    assert node.main(["--dir", str(tmp_path / "my node")]) == 6
    (told,) = [one for one in capsys.readouterr().err.splitlines() if not one.startswith("{")]
    assert told.startswith(
        "not approved yet, or revoked: the node tries again by itself every 5 minutes; ask"
    )
    assert told.endswith(f"iriai-node key show --dir '{tmp_path}/my node'")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_writes_one_json_document_and_ends_with_its_code(tmp_path: Path, command: list[str]):
    done = CliRunner().invoke(app, [*command, "--dir", str(tmp_path / "none"), "--json"])
    envelope = json.loads(done.stdout)
    assert envelope["schema"] == "1"
    if envelope["status"] == "error":
        assert done.exit_code in {2, 3, 4, 5, 6, 7, 75}
        assert set(envelope["error"]) == {"code", "clause", "need", "found", "remedy"}
        assert all(envelope["error"][name] for name in ("code", "need", "found", "remedy"))
    else:
        assert command[0] == "init"


def test_every_option_says_what_it_does():
    def walk(group: click.Group) -> None:
        for name, one in group.commands.items():
            assert one.help, name
            for option in one.params:
                assert isinstance(option, click.Argument) or option.help, f"{name} {option.opts}"
            if isinstance(one, click.Group):
                walk(one)

    walk(typer.main.get_command(app))


def test_init_twice_is_the_same_node(tmp_path: Path):
    first, again = (
        json.loads(CliRunner().invoke(app, ["init", "--dir", str(tmp_path / "n"), "--json"]).stdout)["data"]
        for _ in range(2)
    )
    assert first == again


def test_a_usage_error_is_exit_2(tmp_path: Path):
    assert CliRunner().invoke(app, ["join", "--dir", str(tmp_path)]).exit_code == 2
    (tmp_path / "node.toml").write_text("nonsense = 1\n")
    done = CliRunner().invoke(app, ["init", "--dir", str(tmp_path), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (2, "node.settings")


def test_text_of_another_party_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]):
    def work() -> Answer:
        raise remote_refusal(
            code="sim.refused",
            status=403,
            need="\x1b[2J",
            found="a\u202eb\nc",
            remedy="\x07",
            clause="k-1",
            exit_code=4,
        )

    assert finish(work, as_json=True) == 4
    out, err = capsys.readouterr()
    assert "\x1b" not in err + out
    assert "\u202e" not in err
    assert json.loads(out)["error"]["clause"] == "k-1"
    assert plain("x\x1b[0m") == "x\\x1b[0m"
    assert table(("a",), [("\x1b",)]) == ("a", "\\x1b")


def test_a_refusal_with_figures_shows_both_and_ends_with_the_code_of_its_error(
    capsys: pytest.CaptureFixture[str],
):
    refused = NoSuchThingError(need="a", found="b", remedy="c")
    assert finish(lambda: Answer(data={"x": 1}, text=("words",), error=refused), as_json=True) == 3
    out, err = capsys.readouterr()
    envelope = json.loads(out)
    assert (envelope["status"], envelope["data"]) == ("error", {"x": 1})
    assert envelope["error"]["code"] == "node.not-found"
    assert err.index("words") < err.index("node.not-found")
    assert finish(lambda: Answer(data={}, error=refused), as_json=False) == 3
    assert capsys.readouterr().out == ""


def test_no_line_and_no_document_of_any_command_moves_the_cursor(capsys: pytest.CaptureFixture[str]):
    hostile = "state  active\x1b]0;pwned\x07\x1b[2J\r\n\u202eok\x9b1A \U000e0041"
    done = finish(
        lambda: Answer(data={"state": hostile}, text=(f"state  {hostile}", "", "日本")), as_json=True
    )
    assert done == 0
    out, err = capsys.readouterr()
    for text in (out, err):
        assert all(char.isprintable() for char in text.replace("\n", ""))
    assert json.loads(out)["data"] == {"state": hostile}
    assert (len(out.splitlines()), len(err.splitlines())) == (1, 3)
    assert err.endswith("日本\n")


def test_a_hostile_state_of_the_membership_reaches_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    world = World(tmp_path)
    answer = {"state": "active\x1b]0;pwned\x07\x1b[2J", "since_ms": 1}
    world.broker.routes["/membership/me"] = lambda _request, _body: answer
    assert finish(lambda: status(world.member), as_json=False) == 0
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("program", ["client.cli", "client.node"])
def test_what_a_node_writes_is_this_accounts_alone(tmp_path: Path, program: str):
    folder = tmp_path / "node"
    command = [sys.executable, "-m", "client.cli", "init", "--dir", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, umask=0o022, timeout=60)
    assert done.returncode == 0, done.stderr
    if program == "client.node":
        folder.chmod(0o755)
        worker = [sys.executable, "-m", program, "--dir", str(folder)]
        done = subprocess.run(worker, check=False, capture_output=True, umask=0o022, timeout=60)
        assert done.returncode == 3, done.stderr  # it has joined no broker
    modes = {path.relative_to(folder): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600, 0o700}, modes


def supervised(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "client.cli", "run", "--dir", str(folder)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_a_node_that_lost_its_ledger_ends_and_says_why_in_words(tmp_path: Path):
    world = ready_world(tmp_path)
    world.ask()
    world.worker.close()
    shutil.rmtree(world.home.budget)
    done = supervised(world.home.root)
    assert done.returncode == 7, done.stderr
    assert done.stderr.count("worker-started") == 1
    assert "budget.unknown\n  need:   the ledger of lin_" in done.stderr
    assert "  remedy: restore the newest copy of the budget folder" in done.stderr


def test_a_second_run_of_a_node_is_refused_at_once(tmp_path: Path):
    world = ready_world(tmp_path)
    world.worker.close()
    lock = locked(world.home)
    done = supervised(world.home.root)
    lock.close()
    assert done.returncode == 75
    assert "node.busy\n  need:   no other worker of this node" in done.stderr
    assert "worker-started" not in done.stderr


def test_an_answer_with_a_finding_keeps_its_exit_code(capsys: pytest.CaptureFixture[str]):
    assert finish(lambda: Answer(data={"x": 1}, text=("words",), exit_code=7), as_json=True) == 7
    out, err = capsys.readouterr()
    assert (json.loads(out)["data"], err) == ({"x": 1}, "words\n")


def test_a_refusal_without_an_exit_code_gets_one_from_its_status():
    common = {"code": "x.y", "need": "", "found": "", "remedy": "", "clause": None, "exit_code": None}
    assert [
        remote_refusal(status=one, **common).exit_code for one in (401, 403, 404, 409, 429, 500, 503)
    ] == [
        6,
        4,
        3,
        3,
        75,
        5,
        75,
    ]
    assert issubclass(NoSuchThingError, Exception)


def test_without_a_terminal_nobody_agrees_to_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (warning, *_) = lint(World(tmp_path).contract)
    assert retype("question", yes=False)("0123456789ab") is False
    assert retype("question", yes=True)("0123456789ab") is True
    assert accept(everything=False, lang="en")(warning) is False
    assert accept(everything=True, lang="ja")(warning) is True
    shown = capsys.readouterr().err
    assert shown.count("0123456789ab") == 2
    assert shown.count(warning.id) == 2
    assert retype("question", yes=True, quiet=True)("0123456789ab") is True
    assert accept(everything=True, lang="en", quiet=True)(warning) is True
    assert retype("question", yes=False, quiet=True)("0123456789ab") is False
    assert accept(everything=False, lang="en", quiet=True)(warning) is False
    shown = capsys.readouterr().err
    assert (shown.count("0123456789ab"), shown.count(warning.id)) == (1, 1)  # what nobody agreed to before


def test_doctor_names_what_is_broken_and_what_to_do(tmp_path: Path):
    world = World(tmp_path)
    shown = doctor(
        world.home, clock=world.clock, entropy=SeedEntropy(b"doctor"), transport=world.broker.transport
    )
    assert (shown.exit_code, shown.data["failed"]) == (0, [])
    (world.home.keys / "node.key").chmod(0o644)
    world.home.settings.write_text("wrong = 1\n")
    world.broker.down = True
    shown = doctor(
        world.home, clock=world.clock, entropy=SeedEntropy(b"again"), transport=world.broker.transport
    )
    assert shown.exit_code == 3
    assert set(shown.data["failed"]) >= {"keys", "settings", "reach"}
    assert all(one["remedy"] for one in shown.data["checks"])


def test_pause_and_resume_are_in_the_file(tmp_path: Path):
    home = Home(tmp_path / "n")
    CliRunner().invoke(app, ["init", "--dir", str(home.root)])
    assert CliRunner().invoke(app, ["pause", "--dir", str(home.root)]).exit_code == 0
    assert "paused = true" in home.settings.read_text()
    assert CliRunner().invoke(app, ["resume", "--dir", str(home.root)]).exit_code == 0
    assert "paused = false" in home.settings.read_text()


def test_neither_the_commands_nor_the_gate_load_torch():
    modules = "client.cli client.guard client.outbox client.transport client.contract.reading client.duties client.models"
    code = (
        "import sys, importlib\n"
        f"for name in {modules.split()!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'opacus', 'flwr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
