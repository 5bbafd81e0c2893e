# SPDX-License-Identifier: Apache-2.0
"""Every command that changes something takes ``--dry-run``, and a dry run changes nothing anywhere."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import client.membership
from client.datasets.withdrawing import data_withdraw
from client.stopping_runs import StoppedRuns
from tests.docs import facts
from tests.nodeworld import World, write_recording
from tests.unit.test_datasets_contract import publish
from tests.unit.test_datasets_withdrawing import CatalogueSim

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app as node_app
    from sandbox.cli import app as sandbox_app

if TYPE_CHECKING:
    from pathlib import Path

READS = """
iriai-broker doctor
iriai-broker print-unit
iriai-broker members
iriai-broker status
iriai-broker openapi
iriai-broker operator list
iriai-broker org list
iriai-broker org show
iriai-broker invite list
iriai-broker node list
iriai-broker node show
iriai-broker proposal list
iriai-broker proposal show
iriai-broker contract lint
iriai-broker contract schema
iriai-broker contract list
iriai-broker contract show
iriai-broker contract status
iriai-broker contract lifecycle
iriai-broker contract diff
iriai-broker contract prove
iriai-broker contract dry-run
iriai-broker contract import
iriai-broker catalogue search
iriai-broker catalogue list
iriai-broker catalogue show
iriai-broker recipe check
iriai-broker recipe list
iriai-broker recipe show
iriai-broker run list
iriai-broker run show
iriai-broker budget show
iriai-broker release list
iriai-broker release show
iriai-broker release gate
iriai-broker audit policy
iriai-broker audit grants
iriai-broker auditor list
iriai-broker incident list
iriai-broker dsp counterparty list
iriai-broker log status
iriai-broker log entries
iriai-broker log verify
iriai-broker witness list
iriai-broker key list
iriai-broker config show
iriai-broker config check
iriai-broker db check
iriai-broker backup list
iriai-broker backup verify
iriai-node status
iriai-node doctor
iriai-node print-unit
iriai-node config show
iriai-node config check
iriai-node key show
iriai-node data list
iriai-node data show
iriai-node data compare
iriai-node catalogue search
iriai-node contract list
iriai-node contract show
iriai-node contract diff
iriai-node contract explain
iriai-node contract dry-run
iriai-node contract lifecycle
iriai-node contract status
iriai-node guard log
iriai-node guard explain
iriai-node budget show
iriai-node privacy plan
iriai-node privacy audit
iriai-node recipe check
iriai-node runs list
iriai-node seed check
iriai-node outbox list
iriai-node outbox show
iriai-node chain show
iriai-node receipt list
iriai-node receipt verify
iriai-node receipts list
iriai-node receipts verify
iriai-node witness status
iriai-node release list
iriai-node release report
iriai-node release show
iriai-node models list
iriai-node models report
iriai-node models check
iriai-node models ask
iriai-node models status
iriai-node statement list
iriai-sandbox status
iriai-sandbox attack list
iriai-sandbox cell list
iriai-sandbox scenario list
"""
"""What tells and changes nothing; what it read may be kept, as a contract is that was fetched once."""

FILES = """
iriai-broker contract new
iriai-broker contract export
iriai-broker catalogue export
iriai-broker audit vectors
iriai-broker audit rows
iriai-node data inspect
iriai-node data export
iriai-node data fingerprints
iriai-node catalogue export
iriai-node recipe new
iriai-node recipe format
iriai-node recipe base
iriai-node seed join
iriai-node seed fit
iriai-node outbox export
iriai-node receipt export
iriai-node receipts export
iriai-node witness evidence
iriai-node statement show
"""
"""What writes the file that its own line names, and nothing else."""

SERVICES = """
iriai-broker serve
iriai-broker run watch
iriai-node run
iriai-node page
iriai-node data record
iriai-node models serve
"""
"""What goes on until it is stopped."""

MEASUREMENTS = "iriai-sandbox bench "
"""What measures in folders of its own."""


def lines(text: str) -> list[str]:
    return text.split("\n")[1:-1]


def test_every_command_reads_or_goes_on_or_can_be_tried_without_doing_it() -> None:
    known = {
        one.line: one for one in facts.commands() if one.program != "iriai-verify"
    }  # that one only reads
    listed = [*lines(READS), *lines(FILES), *lines(SERVICES)]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(known), "a command that is no more"
    for line, one in known.items():
        can = one.option("--dry-run") is not None
        assert can != (line in listed or line.startswith(MEASUREMENTS)), (
            f"{line}: give it --dry-run if it changes anything, else say here what it is"
        )


def test_whoever_scripts_finds_it_under_one_name_and_as_a_switch() -> None:
    for one in facts.commands():
        option = one.option("--dry-run")
        assert option is None or (option.names, option.value) == (("--dry-run",), ""), one.line


# --- a dry run changes nothing ---


def digest_of(folder: Path) -> str:
    """Of every file with its name; of a database, of all that is in it."""
    found = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        if path.name.endswith(("-shm", "-wal")):  # of a database that is read whole
            continue
        found.update(str(path.relative_to(folder)).encode())
        if path.suffix == ".db":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                found.update("\n".join(database.iterdump()).encode())
        else:
            found.update(path.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A node with a contract, a published data set and a stopped run."""
    made = World(tmp_path_factory.mktemp("dry"))
    made.sign()
    made.finalize()
    made.add_data(publish=False)
    CatalogueSim(made)
    made.broker.routes |= {"/log/head": lambda _request, _body: {"note": made.broker.log.note()}}
    publish(made)
    StoppedRuns(made.home).stop("run_aaaaaaaaaaaaaaaa")
    write_recording(made.folder / "more", seed=7)
    return made


@pytest.fixture
def answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line reaches this broker."""
    real = client.membership.open_member

    def reached(home: Any, *, clock: Any, entropy: Any, transport: Any = None) -> Any:
        del clock, transport
        return real(home, clock=world.clock, entropy=entropy, transport=world.broker.transport)

    monkeypatch.setattr(client.membership, "open_member", reached)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


EPISODE = "EPISODE"
DRY: list[tuple[list[str], dict[str, Any]]] = [
    (["data", "add", "MORE", "--dataset", "kita/pick"], {"episodes_added": 6}),
    (["data", "add", "MORE", "--dataset", "kita/pick", "--no-contract"], {"episodes_added": 6}),
    (["data", "publish", "kita/pick"], {"published": None, "shown": "open"}),
    (["data", "publish", "kita/pick", "--fits-only"], {"published": None, "shown": "fits"}),
    (["data", "withdraw", "kita/pick"], {"withdrawn": False}),
    (["data", "check", "kita/pick"], {"verdict": "admitted"}),
    (["data", "mark", "kita/pick", EPISODE, "--outcome", "fail", "--by", "A"], {"outcome": "fail"}),
    (["data", "exclude", "kita/pick", EPISODE, "--by", "A"], {"usable": 5}),
    (["data", "remove", "kita/pick"], {}),
    (["runs", "resume", "run_aaaaaaaaaaaaaaaa"], {"still_stopped": []}),
    (["receipt", "fetch"], {}),
    (["witness", "cosign"], {"cosigned_before": 0}),
    (["budget", "reconcile"], {"appended": []}),
    (["audit", "bundle", "--out", "none.zip"], {}),
    (["pause"], {"would_be": True}),
]


@pytest.mark.parametrize(("words", "told"), DRY, ids=[" ".join(one) for one, _ in DRY])
def test_a_dry_run_of_a_node_tells_figures_and_changes_neither_folder_nor_broker(
    world: World, answers: None, here: Path, words: list[str], told: Any
) -> None:
    from client.data import Store

    episode = next(one.meta.episode_id for one in Store(world.home.data).episodes("kita/pick"))
    meant = {"MORE": str(world.folder / "more"), EPISODE: episode}
    line = [meant.get(one, one) for one in words]
    before, changes = digest_of(world.home.root), changes_of(world)
    done = CliRunner().invoke(node_app, [*line, "--dir", str(world.home.root), "--dry-run", "--json"])
    envelope = json.loads(done.stdout)
    assert (done.exit_code, envelope["status"]) == (0, "ok"), envelope
    assert envelope["data"]["dry_run"] is True
    assert {name: envelope["data"][name] for name in told} == told
    assert digest_of(world.home.root) == before
    assert changes_of(world) == changes
    assert list(here.iterdir()) == []


def changes_of(world: World) -> list[Any]:
    return [one for one in world.broker.seen_requests if one[0] != "GET" or "/audit/bundle" in one[1]]


def test_a_dry_run_is_refused_where_the_real_one_would_be_with_the_same_exit_code(
    world: World, answers: None
) -> None:
    runs = [
        ["data", "add", str(world.folder / "none"), "--dataset", "kita/pick"],
        ["data", "publish", "kita/none"],
        ["data", "mark", "kita/pick", "ep_none", "--outcome", "fail", "--by", "A"],
        ["data", "exclude", "kita/pick", "ep_none", "--by", "A"],
        ["runs", "resume", "run_bbbbbbbbbbbbbbbb"],
        ["models", "personalise", "sha256:" + "0" * 64],
        ["models", "judge", "none.parquet", "fail"],
        ["models", "resume"],
    ]
    before = digest_of(world.home.root)
    for line in runs:
        codes = []
        for dry in ([], ["--dry-run"]):
            words = [*line, "--dir", str(world.home.root), *dry, "--json"]
            done = CliRunner().invoke(node_app, words)
            codes.append((done.exit_code, json.loads(done.stdout)["error"]["code"]))
        assert codes[0] == codes[1], line
        assert codes[0][0] != 0
    assert digest_of(world.home.root) == before


def test_the_digest_sees_a_real_change(world: World) -> None:
    before = digest_of(world.home.root)
    outbox = world.outbox()
    with closing(outbox):
        data_withdraw(world.member, world.shelf(), outbox, dataset="kita/pick")
    assert digest_of(world.home.root) != before
    world.clock.ms += 1000
    publish(world)


# --- the sandbox ---


def test_a_dry_run_of_the_sandbox_starts_makes_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "processes.json").write_text('{"broker": 999999999}')
    before = digest_of(tmp_path), sorted(tmp_path.rglob("*"))
    expected = {
        ("demo", "--episodes", "20"): 0,
        ("up", "--dir", "new", "--nodes", "3"): 0,
        ("up", "--dir", "ours"): 2,
        ("down", "--dir", "ours", "--delete"): 0,
        ("down", "--dir", "new"): 2,
        ("cell", "record", "A", "--out", "new"): 0,
        ("scenario", "run", "none", "--dir", "new"): 2,
        ("attack", "run", "all", "--dir", "new"): 0,
    }
    for words, code in expected.items():
        done = CliRunner().invoke(sandbox_app, [*words, "--dry-run", "--json"])
        found = getattr(done.exception, "exit_code", done.exit_code) if done.exception else done.exit_code
        assert found == code, (words, done.output)
        if code == 0:
            assert json.loads(done.stdout)["data"]["dry_run"] is True
    assert (digest_of(tmp_path), sorted(tmp_path.rglob("*"))) == before
