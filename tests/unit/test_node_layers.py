# SPDX-License-Identifier: Apache-2.0
"""Which node is meant, and where each of its settings comes from: option, environment, file, default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client import layers
from client.cli import app
from client.errors import SettingsError
from client.layers import effective, locate
from client.settings import Home, NodeSettings, load_settings, save_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no settings file of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers, "_SYSTEM", tmp_path / "etc" / "node.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    for name in ("IRIAI_NODE_DIR", "IRIAI_NODE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def sources(home: Home, environment: dict[str, str]) -> dict[str, tuple[object, str]]:
    return {one.name: (one.value, one.source) for one in effective(home, environment)}


def test_each_layer_goes_before_the_next(tmp_path: Path):
    home = Home(tmp_path / "n")
    home.root.mkdir()
    assert sources(home, {})["threads"] == (1, "default")
    written(home.settings, 'threads = 2\ntimeout_s = 9\n[local]\nvote = "manual"\n')
    found = sources(home, {"IRIAI_NODE__THREADS": "3", "UNRELATED": "x"})
    assert found["threads"] == (3, "environment")
    assert found["timeout_s"] == (9, "file")
    assert found["local.vote"] == ("manual", "file")
    assert found["local.paused"] == (False, "default")


def test_the_environment_loosens_no_rule_of_the_site(tmp_path: Path):
    home = Home(tmp_path / "n")
    home.root.mkdir()
    written(home.settings, "[local]\npaused = true\n")
    with pytest.raises(SettingsError, match="local__paused"):
        load_settings(home, {"IRIAI_NODE__LOCAL__PAUSED": "false"})


@pytest.mark.parametrize(
    "text", ["thraeds = 1", 'lang = "fr"', 'dir = "elsewhere"', "threads = true", "=", "\xff"]
)
def test_what_cannot_be_used_is_refused_with_exit_2(tmp_path: Path, text: str):
    folder = tmp_path / "n"
    folder.mkdir()
    (folder / "node.toml").write_bytes(text.encode("latin-1"))
    for command in ("show", "check"):
        done = CliRunner().invoke(app, ["config", command, "--dir", str(folder), "--json"])
        assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (2, "node.settings")


def test_a_named_file_says_where_the_folder_is(tmp_path: Path):
    config = written(tmp_path / "etc-iriai" / "node.toml", 'dir = "../srv/node"\nthreads = 4\n')
    home = locate(None, config, {})
    assert home.root.resolve() == (tmp_path / "srv" / "node").resolve()
    assert home.settings == config
    assert load_settings(home, {}).threads == 4
    assert home.options == ["--dir", str(home.root), "--config", str(config)]


def test_an_option_goes_before_what_the_file_says_of_the_folder(tmp_path: Path):
    config = written(tmp_path / "c.toml", 'dir = "one"\n')
    assert locate(tmp_path / "two", config, {}).root == tmp_path / "two"
    assert locate(None, config, {"IRIAI_NODE__DIR": "three"}).root == tmp_path / "three"
    beside = written(tmp_path / "n" / "node.toml", "threads = 1\n")
    assert locate(None, beside, {}) == Home(tmp_path / "n")


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path):
    done = CliRunner().invoke(app, ["config", "show", "--config", str(tmp_path / "none.toml"), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (2, "node.settings")


def test_the_default_places_are_looked_at_in_order(tmp_path: Path):
    assert locate(None, None, {}) == Home(Path("iriai-node"))
    own = written(tmp_path / "xdg" / "iriai" / "node.toml", f'dir = "{tmp_path / "user"}"\n')
    assert locate(None, None, {}) == Home(tmp_path / "user", own)
    system = written(tmp_path / "etc" / "node.toml", f'dir = "{tmp_path / "srv"}"\n')
    assert locate(None, None, {}) == Home(tmp_path / "srv", system)
    written(tmp_path / "iriai-node" / "keys" / "node.key", "")
    assert locate(None, None, {}) == Home(Path("iriai-node"))
    assert locate(tmp_path / "named", None, {}) == Home(tmp_path / "named")


def test_commands_read_and_write_the_file_that_was_named(tmp_path: Path):
    config = written(tmp_path / "etc" / "iriai.toml", f'dir = "{tmp_path / "n"}"\nthreads = 2\n')
    run = CliRunner().invoke
    assert run(app, ["init", "--config", str(config)]).exit_code == 0
    assert run(app, ["pause", "--config", str(config)]).exit_code == 0
    assert load_settings(Home(tmp_path / "n", config), {}).local.paused
    assert load_settings(Home(tmp_path / "n", config), {}).threads == 2
    assert not (tmp_path / "n" / "node.toml").exists()
    shown = json.loads(run(app, ["config", "show", "--config", str(config), "--json"]).stdout)["data"]
    assert (shown["file"], shown["dir"]) == (str(config), str(tmp_path / "n"))
    assert {"name": "threads", "value": 2, "source": "file"} in shown["settings"]


def test_settings_that_cannot_be_written_are_said_and_not_lost(tmp_path: Path):
    home = Home(tmp_path / "n")
    home.root.mkdir()
    (home.root / "node.toml").mkdir()
    with pytest.raises(SettingsError, match="can be written"):
        save_settings(home, NodeSettings())


def test_the_language_of_the_words_is_a_setting(tmp_path: Path):
    from inspect import signature

    from client.answers import Answer
    from client.cli.options import Language, _in_its_place, _signature

    seen: list[object] = []

    def body(home: Home, *, lang: Language = Language.EN) -> Answer:
        seen.append(lang)
        return Answer(data={})

    home = Home(tmp_path / "n")
    home.root.mkdir()
    written(home.settings, 'lang = "ja"\n')
    own = signature(body).parameters
    assert _signature(own).parameters["lang"].default is None
    for asked in (None, Language.EN):
        _in_its_place(body, own, {"folder": home.root, "config": None, "lang": asked})
    assert seen == [Language.JA, Language.EN]


def test_a_dry_run_changes_nothing_and_says_what_would_be(tmp_path: Path):
    run, folder = CliRunner().invoke, tmp_path / "n"
    would = run(app, ["init", "--dir", str(folder), "--dry-run", "--json"])
    assert (json.loads(would.stdout)["data"], folder.exists()) == ({"dry_run": True, "exists": False}, False)
    run(app, ["init", "--dir", str(folder)])
    before = (folder / "node.toml").read_bytes()
    would = run(app, ["pause", "--dir", str(folder), "--dry-run", "--json"])
    assert json.loads(would.stdout)["data"]["would_be"] is True
    assert (folder / "node.toml").read_bytes() == before


def test_a_line_that_no_command_understands_is_one_envelope_too():
    for words in (["contrat"], ["pause", "--wrong"], ["withdraw", "x", "--unreleased", "maybe"]):
        done = CliRunner().invoke(app, [*words, "--json"])
        assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (2, "node.usage")


def test_shells_can_complete_words():
    done = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in done.stdout
    assert "--show-completion" in done.stdout


def test_a_unit_holds_no_secret_and_shuts_the_node_in(tmp_path: Path):
    run, folder = CliRunner().invoke, tmp_path / "n"
    run(app, ["init", "--dir", str(folder)])
    done = run(app, ["print-unit", "--dir", str(folder), "--user", "robot", "--json"])
    unit = json.loads(done.stdout)["data"]["unit"]
    assert f"run --dir {folder}" in unit
    for line in ("User=robot", "NoNewPrivileges=yes", "ProtectSystem=strict", f"ReadWritePaths={folder}"):
        assert line in unit.splitlines()
    for line in ("Type=notify", "NotifyAccess=all", "WatchdogSec=300", "Restart=on-failure"):
        assert line in unit.splitlines()
    assert "Environment" not in unit
    plain = run(app, ["print-unit", "--dir", str(folder)])
    assert plain.stdout.startswith("[Unit]\n")
    bad = run(app, ["print-unit", "--dir", str(tmp_path / "a b"), "--json"])
    assert json.loads(bad.stdout)["error"]["code"] == "node.settings"
