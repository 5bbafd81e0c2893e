# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker doctor``: each planted fault fails its own check, and nothing is changed by looking."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from broker.backup import create, verify
from broker.boot import initialise, load_keys, open_services
from broker.doctor import Check, checks
from broker.doctor.findings import FailedError
from broker.doctor.machine import package_names, versions
from broker.doctor.served import Answered, asking
from broker.doctor.upkeep import contracts, vendored
from broker.fleet import NoFleet
from broker.keyfiles import load_key
from broker.log.signer import FreezeReason
from broker.settings import Settings
from policies.contract import from_tree
from policies.encoding import canonical
from policies.identity import key_text
from policies.limits import BACKUP_AGE_H, EXPIRY_WARNING_DAYS, RESTORE_TEST_DAYS
from policies.ports import to_ms
from policies.signing import Envelope
from tests.brokersim import URL, HandClock, SeedEntropy, operator_key
from tests.contractsim import authored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ORIGIN = "pool.example/log/a"


class PortSim:
    """What a broker's port answers, without one; ``open_paths`` are there although they should not be."""

    def __init__(self, settings: Settings) -> None:
        self.said = {"origin": settings.origin, "url": settings.public_url, "version": "0.1.0"}
        self.key = load_keys(settings).broker
        self.open_paths: set[str] = set()
        self.down = False

    def __call__(self, _method: str, path: str) -> Answered:
        if self.down:
            raise FailedError("nothing answers", "start it")
        if path == "/api/v1/broker":
            said = canonical(self.said | {"broker_key": key_text(self.key.public)})
            sealed = Envelope.seal(said, "application/vnd.iriai.broker.v1+json", self.key)
            return Answered(200, sealed.to_bytes())
        return Answered(200 if path in self.open_paths else 404, b"")


class Ward:
    """A healthy broker, and everything that a test can make wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, HandClock()
        self.settings = Settings.load(folder)
        self.port = PortSim(self.settings)

    def failed(self) -> set[str]:
        return {one.code for one in self.checks() if not one.ok}

    def checks(self) -> tuple[Check, ...]:
        """All of them; every name means an address here."""
        return checks(
            self.folder, clock=self.clock, ask=self.port, resolve=lambda _host, timeout_s: ["192.0.2.7"]
        )

    def execute(self, database: str, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / database)) as connection:
            for one in statements:
                connection.execute(one)
            connection.commit()

    def freeze(self) -> None:
        services = open_services(
            self.folder, clock=self.clock, entropy=SeedEntropy(), engine=NoFleet(), threaded=False
        )
        services.writer.signer.freeze(FreezeReason.FORK, "another history")
        services.close()

    def contract(self) -> int:
        """Puts a contract in force into the database; when it ends."""
        contract = from_tree(authored())
        row = {"digest": contract.digest, "bytes": canonical(contract.document), "contract_id": "c"}
        with closing(sqlite3.connect(self.folder / "broker.db")) as connection:
            connection.execute(
                "INSERT INTO contract_document VALUES (:digest, :bytes, :contract_id, 1, NULL, 'finalized', 0)",
                row,
            )
            connection.commit()
        return to_ms(contract.term.expires)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy broker with a tested backup; each test has a copy."""
    folder = tmp_path_factory.mktemp("doctor") / "broker"
    clock = HandClock()
    operators = {name: operator_key(name).public for name in ("alice", "bob")}
    initialise(folder, url=URL, operators=operators, clock=clock, entropy=SeedEntropy(), origin=ORIGIN)
    create(Settings.load(folder), folder.parent / "kept", clock=clock)
    own = load_key(folder / "keys/broker.key").public
    verify(folder.parent / "kept", broker_key=own, clock=clock, settings=Settings.load(folder))
    return folder


@pytest.fixture
def ward(tmp_path: Path, healthy: Path) -> Ward:
    shutil.copytree(healthy, tmp_path / "broker")
    return Ward(tmp_path / "broker")


def test_a_healthy_broker_passes_every_numbered_check_and_looking_changes_nothing(ward):
    def state() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in ward.folder.glob("*.db")}

    before = state()
    found = ward.checks()
    assert [(one.code, one.found) for one in found if not one.ok] == []
    assert [one.number for one in found] == list(range(1, 22))
    assert len({one.code for one in found}) == 21
    assert state() == before


def _mode(ward: Ward) -> None:
    (ward.folder / "keys/broker.key").chmod(0o644)


def _no_key(ward: Ward) -> None:
    (ward.folder / "keys/log.key").unlink()


def _behind(ward: Ward) -> None:
    ward.clock.ms -= HOUR_MS


def _url(ward: Ward) -> None:
    path = ward.folder / "broker.toml"
    path.write_text(path.read_text().replace("127.0.0.1", "127.0.0.2", 1))


def _expiring(ward: Ward) -> None:
    ward.clock.ms += (825 - EXPIRY_WARNING_DAYS + 1) * DAY_MS


def _journal(ward: Ward) -> None:
    ward.execute("private.db", "PRAGMA journal_mode=DELETE")


def _page(ward: Ward) -> None:
    path = ward.folder / "private.db"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)


def _schema(ward: Ward) -> None:
    ward.execute("private.db", "UPDATE alembic_version SET version_num = 'private_0000'")


def _head(ward: Ward) -> None:
    ward.execute("signer.db", "UPDATE last_signed SET size = size + 1")


def _backup_old(ward: Ward) -> None:
    ward.clock.ms += (BACKUP_AGE_H + 1) * HOUR_MS


def _test_old(ward: Ward) -> None:
    ward.clock.ms += (RESTORE_TEST_DAYS + 1) * DAY_MS


def _never(ward: Ward) -> None:
    (ward.folder / "backups.json").unlink()


def _other_broker(ward: Ward) -> None:
    ward.port.said["origin"] = "other.example/log/a"


def _down(ward: Ward) -> None:
    ward.port.down = True


def _flower(ward: Ward) -> None:
    ward.port.open_paths.add("/v1/control/start-run")


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (_mode, {"doctor.keys"}),
        (_no_key, {"doctor.keys"}),
        (_behind, {"doctor.clock"}),
        (_url, {"doctor.tls"}),
        (_expiring, {"doctor.expiry", "doctor.backup", "doctor.restore"}),
        (_journal, {"doctor.synchronous"}),
        (_page, {"doctor.database"}),
        (_schema, {"doctor.migrations"}),
        (_head, {"doctor.log"}),
        (Ward.freeze, {"doctor.frozen"}),
        (_backup_old, {"doctor.backup"}),
        (_test_old, {"doctor.backup", "doctor.restore"}),
        (_never, {"doctor.backup", "doctor.restore"}),
        (_other_broker, {"doctor.port"}),
        (_down, {"doctor.port", "doctor.flower"}),
        (_flower, {"doctor.flower"}),
    ],
)
def test_a_planted_fault_fails_its_own_check(ward, fault: Callable[[Ward], None], codes):
    fault(ward)
    assert codes <= ward.failed() <= codes | {"doctor.database", "doctor.migrations", "doctor.port"}


def test_a_contract_that_ends_soon_is_told_until_a_successor_is_there(ward):
    ends_ms = ward.contract()
    ward.clock.ms = ends_ms - (EXPIRY_WARNING_DAYS + 10) * DAY_MS
    assert "1 in force" in contracts(ward.settings, ward.clock)
    ward.clock.ms = ends_ms - (EXPIRY_WARNING_DAYS - 10) * DAY_MS
    assert "doctor.contracts" in ward.failed()
    ward.execute("broker.db", "UPDATE contract_document SET supersedes = digest")
    assert "0 in force" in contracts(ward.settings, ward.clock)
    ward.execute("broker.db", "UPDATE contract_document SET supersedes = NULL")
    ward.clock.ms = ends_ms
    assert "0 in force" in contracts(ward.settings, ward.clock)


def test_settings_that_cannot_be_read_are_the_only_check(ward):
    with (ward.folder / "broker.toml").open("a") as file:
        file.write("listn_port = 1\n")
    (found,) = checks(ward.folder, clock=ward.clock, ask=ward.port)
    assert (found.code, found.ok) == ("doctor.settings", False)
    assert "listn_port" in found.found


def test_a_full_disk_and_a_slow_one_are_told(ward, monkeypatch):
    class Usage:
        free = 1024

    class Slow(HandClock):
        def now_ms(self) -> int:
            self.ms += 1_000
            return self.ms

    monkeypatch.setattr("broker.doctor.machine.shutil.disk_usage", lambda _path: Usage)
    assert ward.failed() == {"doctor.disk"}
    ward.clock = Slow()
    assert "doctor.fsync" in ward.failed()


def test_another_package_of_our_name_is_named():
    with pytest.raises(FailedError, match="broker is also of celery-broker"):
        package_names({"broker": ["iriai", "celery-broker"], "client": ["iriai"]})
    assert package_names({"broker": ["iriai"]})


@pytest.mark.parametrize(
    ("line", "version", "holds"),
    [
        ("fastapi<0.139,>=0.138; extra == 'broker'", "0.138.2", True),
        ("fastapi<0.139,>=0.138; extra == 'broker'", "0.139.0", False),
        ("flwr==1.41.*; extra == 'broker'", "1.41.3", True),
        ("flwr==1.41.*; extra == 'broker'", "1.42.0", False),
        ("torch==2.13.*; extra == 'client'", "1.0", True),
        ("uvicorn[standard]<0.50,>=0.49; extra == 'broker'", "0.49.1+local", True),
        ("rfc8785>=0.1.4", "0.1.3", False),
        ("numpy~=2.2", "2.9", True),
        ("numpy~=2.2", "3.0", False),
        ("numpy!=2.2", "2.2.0", False),
    ],
)
def test_versions_are_held_against_their_bounds(line, version, holds):
    if holds:
        assert versions([line], lambda _name: version)
    else:
        with pytest.raises(FailedError, match=version.partition("+")[0]):
            versions([line], lambda _name: version)


def test_a_package_that_is_not_there_is_named():
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    with pytest.raises(FailedError, match="httpx is not installed"):
        versions(["httpx>=0.28; extra == 'broker'"], missing)


def test_a_file_of_others_that_was_changed_by_one_byte_is_named(tmp_path):
    assert vendored(tmp_path)
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/x.js").write_bytes(b"good")
    listed = {"path": "vendor/x.js", "package": "x", "version": "1", "sha256": ""}
    listed["sha256"] = hashlib.sha256(b"good").hexdigest()
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in listed.items())
    (tmp_path / "VENDORED.toml").write_text(f"[[file]]\n{lines}\n")
    assert vendored(tmp_path)
    (tmp_path / "vendor/x.js").write_bytes(b"goof")
    with pytest.raises(FailedError, match=r"vendor/x\.js is not x 1"):
        vendored(tmp_path)


def test_a_port_that_nobody_has_is_told_as_such(ward, monkeypatch):
    def refused(*_args: Any, **_named: Any) -> None:
        import httpx

        raise httpx.ConnectError("refused")

    monkeypatch.setattr("broker.doctor.served.httpx.Client.request", refused)
    with pytest.raises(FailedError, match=r"https://127\.0\.0\.1:7443"):
        asking(ward.settings)("GET", "/api/v1/broker")
