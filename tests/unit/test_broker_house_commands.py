# SPDX-License-Identifier: Apache-2.0
"""Commands on the broker's own host: doctor, settings, unit file, schema, keys, the log, backups from end to end."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import CliRunner

from broker.boot import initialise, open_services
from broker.cli import app
from broker.clock import SystemClock
from broker.doctor import FailedError
from broker.entropy import SystemEntropy
from broker.federation.occupying import occupy
from broker.fleet import NoFleet
from broker.keyfiles import write_private
from broker.settings import Settings
from broker.unit import unit_of
from policies.identity import SigningKey, key_text
from tests.brokersim import operator_key

PROGRAM = typer.main.get_command(app)
ORIGIN = "broker.example/log/a"
URL = "https://broker.example:8443"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house") / "broker"
    operators = {name: operator_key(name).public for name in ("alice", "bob")}
    initialise(
        folder, url=URL, operators=operators, clock=SystemClock(), entropy=SystemEntropy(), origin=ORIGIN
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    for name in ("alice", "bob"):
        write_private(tmp_path / f"{name}.key", operator_key(name).to_pem())
    shutil.copytree(made, tmp_path / "broker")
    return tmp_path / "broker"


def run(*words: str | Path, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(PROGRAM, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == code, (done.stdout, done.stderr)
    envelope = json.loads(done.stdout)
    return envelope["data"] if envelope["status"] == "ok" else envelope["error"]


def test_a_backup_from_end_to_end_by_the_commands_alone(folder, tmp_path):
    kept, again = tmp_path / "kept", tmp_path / "again"
    assert run("backup", "list", "--dir", folder)["backups"] == []
    made = run("backup", "create", "--dir", folder, "--out", kept)
    assert run("backup", "verify", kept, code=2)["code"] == "broker.usage"
    own = made["broker_key"]
    assert run("backup", "verify", kept, "--broker-key", own)["remembered"] is False
    stranger = key_text(SigningKey.from_seed(b"Z" * 32).public)
    assert run("backup", "verify", kept, "--broker-key", stranger, code=6)["code"] == "backup.foreign"
    both = ("--dir", folder, "--broker-key", stranger)
    assert run("backup", "verify", kept, *both, code=2)["code"] == "broker.usage"
    assert run("backup", "verify", kept, "--dir", folder)["remembered"] is True
    listed = run("backup", "list", "--dir", folder)
    assert (listed["backups"][0]["manifest"], listed["tested"]["manifest"]) == (made["manifest"],) * 2
    assert run("backup", "restore", kept, "--into", again, code=2)["code"] == "broker.usage"
    whose = ("--into", again, "--broker-key", own)
    asked = run("backup", "restore", kept, *whose, code=7)
    assert (
        run("backup", "restore", kept, "--into", again, "--dir", folder, code=7)["document"]
        == asked["document"]
    )
    assert not again.exists()
    (tmp_path / "document").write_text(json.dumps(asked["document"], sort_keys=True, separators=(",", ":")))
    signed: list[str | Path] = []
    for name in ("alice", "bob"):
        done = run("log", "approve", tmp_path / "document", "--key", tmp_path / f"{name}.key")
        (tmp_path / f"{name}.json").write_text(json.dumps(done["approval"]))
        signed += ["--approval", tmp_path / f"{name}.json"]
    assert run("backup", "restore", kept, *whose, *signed[:2], code=7)["code"] == "log.approval"
    assert run("backup", "restore", kept, *whose, *signed)["approved_by"] == ["alice", "bob"]
    shutil.copytree(folder / "keys", again / "keys", dirs_exist_ok=True)
    shutil.copy(folder / "signer.db", again / "signer.db")
    assert run("log", "status", "--dir", again)["state"] == "open"
    assert run("backup", "restore", kept, *whose, code=2)["code"] == "backup.folder"


def test_the_doctor_tells_what_failed_by_its_exit_code_and_a_remedy_each(folder, monkeypatch):
    def nobody(_method: str, _path: str) -> Any:
        raise FailedError("nothing answers", "start it")

    monkeypatch.setattr("broker.doctor.served.asking", lambda _settings: nobody)
    monkeypatch.setattr("broker.doctor.names.system_resolve", lambda _host, timeout_s: ["192.0.2.7"])
    data = run("doctor", "--dir", folder, code=3)
    assert {"doctor.backup", "doctor.restore", "doctor.port", "doctor.flower"} <= set(data["failed"])
    assert set(data["failed"]) <= {
        *("doctor.backup", "doctor.restore", "doctor.port", "doctor.flower"),
        *("doctor.disk", "doctor.fsync", "doctor.versions", "console.vendored-changed"),
    }
    for one in data["checks"]:
        assert one["docs"]
        assert bool(one["remedy"]) is not one["ok"]


def test_settings_are_shown_with_where_they_come_from(folder, monkeypatch):
    monkeypatch.setenv("IRIAI_BROKER__LISTEN_PORT", "9999")
    found = {one["name"]: one for one in run("config", "show", "--dir", folder)["settings"]}
    assert (found["listen_port"]["value"], found["listen_port"]["source"]) == (9999, "environment")
    assert (found["origin"]["value"], found["origin"]["source"]) == (ORIGIN, str(folder / "broker.toml"))
    assert (found["dsp.enabled"]["value"], found["dsp.enabled"]["source"]) == (False, "default")
    assert run("config", "check", "--config", folder / "broker.toml")["dir"] == str(folder)
    monkeypatch.setenv("IRIAI_BROKER__LISTEN_PORTS", "1")
    assert run("config", "check", "--dir", folder, code=2)["code"] == "settings.invalid"


def test_what_could_be_a_secret_is_not_shown(folder):
    with (folder / "broker.toml").open("a") as file:
        file.write('database_url = "postgresql://iriai:correct-horse@db/iriai"\n')
    shown = json.dumps(run("config", "show", "--dir", folder))
    assert "correct-horse" not in shown
    assert "db/iriai" in shown
    assert run("config", "check", "--dir", folder, code=2)["code"] == "settings.invalid"


def test_the_settings_file_may_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/iriai").mkdir(parents=True)
    file = tmp_path / "config/iriai/broker.toml"
    made = run("init", "--dir", tmp_path / "state", "--config", file, "--url", "https://127.0.0.1:7443")
    assert made["fresh"] is True
    assert not (tmp_path / "state/broker.toml").exists()
    assert run("config", "check")["dir"] == str(tmp_path / "state")
    assert run("log", "status")["state"] == "open"
    again = run("init", "--dir", tmp_path / "state", "--config", file, "--url", "https://127.0.0.1:7443")
    assert again["fresh"] is False
    other = run(
        "init", "--dir", tmp_path / "state", "--config", file, "--url", "https://127.0.0.1:7444", code=3
    )
    assert other["code"] == "broker.already-initialised"


def test_a_unit_holds_the_service_down_and_knows_its_folder(folder):
    unit = run("print-unit", "--dir", folder)["unit"]
    for line in (
        *("DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "StateDirectory=iriai-broker"),
        *("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "SystemCallFilter=@system-service"),
        *("Environment=IRIAI_BROKER__DIR=/var/lib/iriai-broker", "CapabilityBoundingSet="),
    ):
        assert line in unit.splitlines()
    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=120", "Restart=on-failure"):
        assert line in unit.splitlines()


def test_a_unit_gives_the_rights_and_secrets_that_the_settings_ask_for(tmp_path):
    url = "postgresql://a@/b?host=/run/postgresql&passfile=/run/credentials/iriai-broker.service/pgpass"
    unit = unit_of(
        Settings(
            dir=tmp_path,
            public_url="https://h",
            origin="h.example/log",
            listen_port=443,
            signer_db=Path("/other/signer.db"),
            database_url=url,
        ),
        program="iriai-broker",
    )
    for line in (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "LoadCredential=pgpass:/etc/iriai/pgpass",
        "ReadWritePaths=/other",
    ):
        assert line in unit.splitlines()


def test_a_schema_is_checked_and_brought_up_to_date_while_the_broker_is_stopped(folder):
    assert run("db", "check", "--dir", folder)["ok"] is True
    with closing(sqlite3.connect(folder / "private.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'private_9999'")
        connection.commit()
    assert run("db", "check", "--dir", folder, code=3)["ok"] is False
    assert run("db", "upgrade", "--dir", folder, code=3)["code"] == "store.schema-unknown"
    with closing(sqlite3.connect(folder / "private.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'private_0001'")
        connection.commit()
    assert "main" in run("db", "upgrade", "--dir", folder)["revisions"]
    with occupy(Settings.load(folder).fleet):
        assert run("db", "upgrade", "--dir", folder, code=75)["code"] == "engine.already-running"


def test_keys_are_listed_with_age_and_end(folder):
    found = {one["purpose"]: one for one in run("key", "list", "--dir", folder)["keys"]}
    assert set(found) == {"broker", "log", "tls"}
    assert found["broker"]["id"].startswith("ed25519:")
    assert found["broker"]["since_ms"]
    assert found["log"]["since_ms"]
    assert found["tls"]["until_ms"] > found["tls"]["since_ms"]


def test_the_log_is_hashed_again_while_the_broker_serves(folder):
    services = open_services(
        folder, clock=SystemClock(), entropy=SystemEntropy(), engine=NoFleet(), threaded=False
    )
    try:
        assert run("log", "verify", "--dir", folder)["entries"] == services.writer.head().size
    finally:
        services.close()
    with closing(sqlite3.connect(folder / "broker.db")) as connection:
        connection.execute("UPDATE log_tile SET data = zeroblob(length(data))")
        connection.commit()
    assert run("log", "verify", "--dir", folder, code=3)["code"] == "backup.damaged"
