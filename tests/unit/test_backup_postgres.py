# SPDX-License-Identifier: Apache-2.0
"""Backups of a broker on PostgreSQL: dumped while it serves, restored on trial beside it, restored by two people."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from broker.backup import (
    BackupDamagedError,
    BackupServerError,
    BackupToolsError,
    Plan,
    Targets,
    create,
    open_manifest,
    programs,
    record,
    verify,
)
from broker.backup.manifest import MAIN_DUMP, PRIVATE_DUMP
from broker.log.errors import LogApprovalError
from broker.settings import Settings
from broker.store import UnsafeSettingsError
from policies.limits import BACKUP_PRIVATE_DAYS
from tests import pgserver
from tests.backupworld import World, add, approvals, opened, own, trial_databases, trials
from tests.pgserver import BROKER, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.services import Services

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Kept:
    """A broker, a backup that was made while it was open, and a plan to restore it."""

    world: World
    folder: Path
    size: int
    plan: Plan


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One for all: a trial takes databases that are made, and each is flushed when it is dropped."""
    place = tmp_path_factory.mktemp("world")
    world = World.on_postgres(place)
    with opened(world.folder, world.clock):
        made = create(world.settings, place / "kept", clock=world.clock)
    shutil.copy(world.folder / "signer.db", place / "signer.db")
    add(world.folder, world.clock, 6)
    yield Kept(world, place / "kept", made.size, world.plan(place / "kept", place / "again"))
    pgserver.shared().give_back()


@pytest.fixture
def copy(kept: Kept, tmp_path: Path) -> Path:
    """The backup, for a test that spoils it."""
    return Path(shutil.copytree(kept.folder, tmp_path / "copy"))


def held(services: Services) -> int:
    with services.store.read_private() as session:
        return int(session.scalar(text("SELECT count(*) FROM log_private")))


def test_a_trial_has_databases_of_its_own_that_are_gone_and_is_remembered(kept: Kept) -> None:
    world = kept.world
    found = verify(
        kept.folder,
        broker_key=own(world.folder),
        clock=world.clock,
        settings=world.settings,
        server=trials(),
    )
    assert (found.manifest.size, found.signed, found.private) == (kept.size, kept.size, True)
    assert sorted(found.operators.values()) == ["alice", "bob"]
    tested = record(world.settings).tested
    assert tested is not None
    assert tested.manifest == found.manifest.digest
    assert trial_databases() == []


def test_two_operators_restore_it_into_empty_databases_and_it_goes_on(kept: Kept, tmp_path: Path) -> None:
    world, into = kept.world, tmp_path / "again"
    plan = replace(kept.plan, into=into)
    said = json.loads(plan.subject())
    assert said["databases"] == {"main": plan.targets.main, "private": plan.targets.private}
    assert plan.apply(approvals(plan, "alice", "bob")) == ("alice", "bob")
    world.give_keys(into)
    restored = Settings.load(into)
    assert (restored.database_url, restored.private_db_url) == (plan.targets.main, plan.targets.private)
    assert not list(into.glob("*.dump"))
    assert (into / "models" / f"{'0' * 64}.f32").read_bytes() == b"weights"
    shutil.copy(world.folder.parent / "signer.db", into / "signer.db")
    add(into, world.clock, 8)
    with opened(world.folder, world.clock) as before, opened(into, world.clock) as after:
        assert after.writer.head().size == kept.size + 1 == before.writer.head().size
        assert held(after) == held(before) > 0
        with after.store.read() as session:
            granted = text("SELECT has_table_privilege('log_entry', 'UPDATE, DELETE, TRUNCATE')")
            assert session.scalar(granted) is False
            triggers = text("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
            assert session.scalar(triggers) >= 2


def test_dumps_are_files_of_the_manifest_that_nobody_else_may_read(kept: Kept) -> None:
    manifest = open_manifest(kept.folder)
    assert (manifest.main, manifest.private) == (MAIN_DUMP, PRIVATE_DUMP)
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.folder.glob("*.dump"))
    assert not list(kept.folder.glob("*.db"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entry SET body = '{}' WHERE idx = 2",
        "DELETE FROM log_entry WHERE idx = (SELECT max(idx) FROM log_entry)",
        "UPDATE log_head SET size = size - 1",
    ],
)
def test_a_log_that_is_damaged_already_is_not_taken_for_a_backup(tmp_path: Path, statement: str) -> None:
    world = World.on_postgres(tmp_path)
    engine = pgserver.shared().engine(str(world.settings.database_url))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    with pytest.raises(BackupDamagedError):
        create(world.settings, tmp_path / "kept", clock=world.clock)
    assert not (tmp_path / "kept").exists()
    assert record(world.settings).last is None


def test_a_role_that_may_not_read_all_of_it_makes_no_backup(tmp_path: Path) -> None:
    world = World.on_postgres(tmp_path)
    pgserver.shared().spoilt((str(world.settings.database_url), str(world.settings.private_db_url)))
    engine = pgserver.shared().engine(str(world.settings.database_url))
    with engine.begin() as connection:
        connection.execute(text("REVOKE SELECT ON person FROM iriai_broker"))
    engine.dispose()
    with pytest.raises(BackupServerError, match="permission denied for table person"):
        create(world.settings, tmp_path / "kept", clock=world.clock)
    assert not (tmp_path / "kept").exists()


def test_confidential_values_have_a_short_life_of_their_own(tmp_path: Path) -> None:
    world = World.on_postgres(tmp_path)
    create(world.settings, tmp_path / "old", clock=world.clock)
    world.clock.ms += (BACKUP_PRIVATE_DAYS + 1) * DAY_MS
    create(world.settings, tmp_path / "new", clock=world.clock, private=False)
    assert not (tmp_path / "old" / PRIVATE_DUMP).exists()
    assert open_manifest(tmp_path / "new").private is None


def test_a_role_that_may_make_no_database_is_told_which_could(kept: Kept) -> None:
    key, clock, live = own(kept.world.folder), kept.world.clock, kept.world.settings.database_url
    with pytest.raises(BackupServerError, match="permission denied to create database") as refused:
        verify(kept.folder, broker_key=key, clock=clock, server=live)
    assert "CREATEDB" in refused.value.remedy
    with pytest.raises(BackupServerError, match="--server"):
        verify(kept.folder, broker_key=key, clock=clock)


def test_a_trial_that_fails_half_way_leaves_no_database(kept: Kept, copy: Path) -> None:
    (copy / MAIN_DUMP).write_bytes(b"PGDMP no archive")
    kept.world.sealed_again(copy)
    with pytest.raises(BackupServerError, match="pg_restore"):
        verify(copy, broker_key=own(kept.world.folder), clock=kept.world.clock, server=trials())
    assert trial_databases() == []


def test_where_something_is_already_nothing_is_restored(kept: Kept, tmp_path: Path) -> None:
    live, good = str(kept.world.settings.database_url), kept.world.empty()
    with pytest.raises(BackupServerError, match="an empty database"):
        Targets(main=live, owner=live.replace(BROKER, OWNER)).check()
    with pytest.raises(BackupServerError, match="--database-owner"):
        replace(good, owner=None).check()
    with pytest.raises(UnsafeSettingsError, match="one role twice"):
        replace(good, owner=good.main).check()
    plan = replace(kept.plan, into=tmp_path / "late", targets=good)
    signed = approvals(plan, "alice", "bob")
    engine = pgserver.shared().engine(str(good.private))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE late (x int)"))
    engine.dispose()
    with pytest.raises(BackupServerError, match=pgserver.name_of(str(good.private))):
        plan.apply(signed)
    assert not (tmp_path / "late").exists()


def test_an_approval_is_for_the_databases_that_it_names(kept: Kept, tmp_path: Path) -> None:
    plan = replace(kept.plan, into=tmp_path / "again")
    signed = approvals(plan, "alice", "bob")
    with pytest.raises(LogApprovalError):
        replace(plan, targets=replace(plan.targets, main="postgresql://a@/other")).apply(signed)


def test_databases_that_are_named_are_those_that_the_backup_has(kept: Kept) -> None:
    dumps, said = open_manifest(kept.folder), kept.world.settings
    assert Targets().of(dumps, said) == Targets(main=said.database_url, private=said.private_db_url)
    with pytest.raises(BackupServerError, match="--database-url"):
        Targets().of(dumps, replace(said, database_url=None))
    files = tuple(replace(one, path=one.path.replace(".dump", ".db")) for one in dumps.files)
    on_files = replace(dumps, files=files)
    plain = replace(said, database_url=None, private_db_url=None)
    assert Targets().of(on_files, plain) == Targets()
    with pytest.raises(BackupServerError, match="leave --private-db-url out"):
        Targets(private="postgresql://a@/b").of(on_files, plain)


def test_a_version_that_is_not_here_is_named_with_its_package(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "bin"
    other.mkdir()
    (other / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (other / "pg_dump").chmod(0o755)
    monkeypatch.setattr(programs, "_SIDE_BY_SIDE", ())
    monkeypatch.setenv("PATH", str(other))
    with pytest.raises(BackupToolsError, match=r"pg_dump of version 9") as refused:
        create(kept.world.settings, tmp_path / "kept", clock=kept.world.clock)
    assert "postgresql-client-" in refused.value.remedy
    assert not (tmp_path / "kept").exists()


def test_a_password_is_in_no_command_line_and_in_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str], str, int]] = []

    def listens(line: list[str], *, env: dict[str, str], **_more: Any) -> subprocess.CompletedProcess[str]:
        file = Path(env["PGPASSFILE"])
        seen.append((line, env, file.read_text("utf-8"), file.stat().st_mode & 0o777))
        return subprocess.CompletedProcess(line, 0, "", "")

    monkeypatch.setattr(programs.subprocess, "run", listens)
    environ = {"PGPASSWORD": r"a:b\c", "PGSSLMODE": "require", "IRIAI_TOKEN": "s", "PATH": "/usr/bin"}
    url = "postgresql+psycopg://iriai@db.example/pool?passfile=/etc/other&sslmode=require"
    programs.call(tmp_path / "pg_dump", ["--x"], url, remedy="none", environ=environ)
    ((line, env, said, mode),) = seen
    assert line[-1] == "--dbname=postgresql://iriai@db.example/pool?sslmode=require"
    assert (said, mode) == ("*:*:*:*:a\\:b\\\\c\n", 0o600)
    assert not {"PGPASSWORD", "IRIAI_TOKEN"} & env.keys()
    assert r"a:b\c" not in " ".join([*line, *env.values()])
    assert not Path(env["PGPASSFILE"]).exists()
