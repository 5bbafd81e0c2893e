# SPDX-License-Identifier: Apache-2.0
"""A store on PostgreSQL: unsafe servers refused by name, three roles that may do what they are for, migrations with data."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from broker.store import (
    NotMigratedError,
    SchemaUnknownError,
    Store,
    StoreError,
    StoreUnreachableError,
    UnsafeSettingsError,
    holds_log,
    tables,
)
from broker.store.migrations import HEADS, config
from broker.store.postgres import writing_engine
from broker.store.roles import prepare
from tests import pgserver
from tests.pgserver import AUDITOR, BROKER, OWNER, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tests.pgserver import Server

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))
ENTRY = {
    "idx": 0,
    "event_id": b"e" * 16,
    "req_sha256": b"r" * 32,
    "leaf_hash": b"l" * 32,
    "body": b"{}",
    "type": "log.genesis",
    "actor": "broker",
    "ts_ms": 1,
}


@pytest.fixture
def server() -> Iterator[Server]:
    yield pgserver.shared()
    pgserver.shared().give_back()


@pytest.fixture
def pair(server: Server) -> tuple[str, str]:
    return server.databases()


@contextmanager
def engine_of(server: Server, url: str, role: str) -> Iterator[Engine]:
    """A database as somebody else sees it."""
    engine = writing_engine(server.url(name_of(url), role))
    try:
        yield engine
    finally:
        engine.dispose()


def run_as(server: Server, url: str, role: str, sql: str) -> None:
    with engine_of(server, url, role) as engine, engine.connect() as session:
        session.execute(text(sql))


def fresh(server: Server, name: str) -> str:
    """A database without tables, for its owner; the name is this test's."""
    server.sql(f"DROP DATABASE IF EXISTS {name}")
    return server.empty(name)


# --- the server's settings ---


@contextmanager
def configured(server: Server, name: str, value: str) -> Iterator[None]:
    """A server whose operator changed its configuration."""
    server.sql(f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")
    server.reloaded(name, value)
    try:
        yield
    finally:
        server.sql(f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")
        server.reloaded(name, "on")


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_may_lose_a_commit_is_refused_by_name(
    server: Server, pair: tuple[str, str], tmp_path: Path, name: str
) -> None:
    with configured(server, name, "off"), pytest.raises(UnsafeSettingsError) as refused:
        Store.open(*pair, tmp_path / "signer.db")
    assert (refused.value.code, refused.value.exit_code) == ("log.unsafe-settings", 3)
    assert refused.value.need.startswith(f"{name} = on")
    assert refused.value.found == "off"
    Store.open(*pair, tmp_path / "signer.db").close()


def test_a_role_that_does_not_wait_for_the_disk_is_refused(
    server: Server, pair: tuple[str, str], tmp_path: Path
) -> None:
    server.sql(f"ALTER ROLE {BROKER} IN DATABASE {name_of(pair[1])} SET synchronous_commit = off")
    with pytest.raises(UnsafeSettingsError, match="synchronous_commit"):
        Store.open(*pair, tmp_path / "signer.db")
    server.sql(f"ALTER ROLE {BROKER} IN DATABASE {name_of(pair[1])} RESET ALL")


def test_settings_are_read_again_when_the_writer_connects_again(
    server: Server, pair: tuple[str, str], tmp_path: Path
) -> None:
    store = Store.open(*pair, tmp_path / "signer.db")
    with configured(server, "fsync", "off"):
        store.reset()
        with pytest.raises(UnsafeSettingsError, match="fsync"):
            store.main.connect()
    store.close()


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("ENCODING 'SQL_ASCII' LOCALE 'C'", "server_encoding = UTF8"),
        ("ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en'", "LC_COLLATE = C"),
    ],
)
def test_a_database_with_another_encoding_or_order_is_refused(server: Server, made: str, named: str) -> None:
    server.sql("DROP DATABASE IF EXISTS odd")
    try:
        server.sql(f"CREATE DATABASE odd OWNER {OWNER} TEMPLATE template0 {made}")
    except Exception as error:  # noqa: BLE001  a server without ICU cannot be wrong in this way
        pytest.skip(str(error))
    with pytest.raises(UnsafeSettingsError) as refused:
        prepare(server.url("odd", OWNER), broker=server.url("odd"))
    assert refused.value.need.startswith(named)


def test_isolation_and_lock_wait_are_as_the_writer_needs_them(
    server: Server, pair: tuple[str, str], tmp_path: Path
) -> None:
    server.sql(f"ALTER ROLE {BROKER} SET default_transaction_isolation = 'serializable'")
    store = Store.open(*pair, tmp_path / "signer.db")
    server.sql(f"ALTER ROLE {BROKER} RESET ALL")
    asked = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
    asked += ", current_setting('lock_timeout')"
    for engine, want in (
        (store.main, ("read committed", "off", "5s")),
        (store.readers, ("repeatable read", "on", "0")),
    ):
        with engine.connect() as connection:
            assert connection.exec_driver_sql(asked).one() == want
    store.close()


# --- who may do what ---


@pytest.mark.parametrize("role", [OWNER, "postgres"])
def test_a_broker_that_could_change_the_log_does_not_start(
    server: Server, pair: tuple[str, str], tmp_path: Path, role: str
) -> None:
    with pytest.raises(UnsafeSettingsError, match="log_entry") as refused:
        Store.open(server.url(name_of(pair[0]), role), pair[1], tmp_path / "signer.db")
    assert "owner" in refused.value.found
    assert "db upgrade" in refused.value.remedy


@pytest.mark.parametrize("right", ["UPDATE", "DELETE", "TRUNCATE"])
def test_a_right_that_was_given_back_to_the_broker_is_found(
    server: Server, pair: tuple[str, str], tmp_path: Path, right: str
) -> None:
    with engine_of(server, pair[0], OWNER) as engine, engine.begin() as session:
        session.execute(text(f"GRANT {right} ON log_envelope TO {BROKER}"))
    with pytest.raises(UnsafeSettingsError, match="log_envelope"):
        Store.open(*pair, tmp_path / "signer.db")
    prepare(server.url(name_of(pair[0]), OWNER), broker=pair[0])  # which is the remedy
    Store.open(*pair, tmp_path / "signer.db").close()


@pytest.mark.parametrize("table", tables.APPEND_ONLY)
@pytest.mark.parametrize(
    "verb", ["UPDATE {} SET idx = 1", "DELETE FROM {}", "TRUNCATE {}", "TRUNCATE {} CASCADE"]
)
def test_not_even_the_owner_changes_the_log_by_accident(
    server: Server, pair: tuple[str, str], table: str, verb: str
) -> None:
    for role, answer in ((OWNER, f"{table} is append-only"), (BROKER, "permission denied")):
        with pytest.raises(DBAPIError, match=answer):
            run_as(server, pair[0], role, verb.format(table))


def test_the_broker_can_take_no_trigger_away(server: Server, pair: tuple[str, str]) -> None:
    with engine_of(server, pair[0], BROKER) as engine:
        for statement in (
            "ALTER TABLE log_entry DISABLE TRIGGER ALL",
            "DROP TRIGGER log_entry_append_only ON log_entry",
            "DROP FUNCTION append_only() CASCADE",
            "DROP TABLE log_entry",
            "SET session_replication_role = replica",
            "CREATE TABLE other (a int)",
            "UPDATE alembic_version SET version_num = 'main_0001'",
        ):
            with (
                engine.connect() as session,
                pytest.raises(DBAPIError, match=r"must be owner|permission denied"),
            ):
                session.execute(text(statement))


def test_the_auditor_reads_and_nothing_else(server: Server, pair: tuple[str, str]) -> None:
    with engine_of(server, pair[0], AUDITOR) as engine:
        for table in (*tables.main.sorted_tables, text("alembic_version")):
            name = str(table)
            with engine.connect() as session:
                if name in {"nonce", "idempotency", "credential", "login_session", "login_link"}:
                    with pytest.raises(DBAPIError, match="permission denied"):
                        session.execute(text(f"SELECT * FROM {name}"))  # noqa: S608  our own names
                    continue
                session.execute(text(f'SELECT * FROM "{name}"'))  # noqa: S608  our own names
        for statement in (
            insert(tables.log_entry).values(ENTRY),
            update(tables.run).values(state="x"),
            delete(tables.witness),
        ):
            with engine.connect() as session, pytest.raises(DBAPIError, match="permission denied"):
                session.execute(statement)


# --- migrations ---


def test_the_broker_makes_no_tables_and_says_who_does(server: Server, tmp_path: Path) -> None:
    owner, private = fresh(server, "bare"), server.databases()[1]
    with pytest.raises(NotMigratedError, match="db upgrade --dir DIR --database-owner") as refused:
        Store.open(server.url("bare"), private, tmp_path / "signer.db")
    assert refused.value.found == "one without tables"
    assert not holds_log(server.url("bare"))
    prepare(owner, broker=server.url("bare"))
    Store.open(server.url("bare"), private, tmp_path / "signer.db").close()
    prepare(owner, broker=server.url("bare"))  # safe to repeat


def test_rows_of_an_earlier_version_are_there_after_a_migration(server: Server, tmp_path: Path) -> None:
    owner, private = fresh(server, "earlier"), server.databases()[1]
    engine, made = writing_engine(owner), config("main")
    with engine.begin() as connection:
        made.attributes["connection"] = connection
        command.upgrade(made, "main_0005")
        connection.execute(insert(tables.operator).values(name="alice", key="k", state="active"))
        connection.execute(insert(tables.log_entry).values(ENTRY))
        connection.execute(text(f"GRANT SELECT ON alembic_version TO {BROKER}"))
    engine.dispose()
    with pytest.raises(NotMigratedError, match="main_0005"):
        Store.open(server.url("earlier"), private, tmp_path / "signer.db")
    prepare(owner, broker=server.url("earlier"))
    store = Store.open(server.url("earlier"), private, tmp_path / "signer.db")
    with store.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == HEADS["main"]
        assert session.scalars(select(tables.operator.c.name)).all() == ["alice"]
        assert session.scalars(select(tables.log_entry.c.body)).all() == [b"{}"]
    store.close()
    assert holds_log(server.url("earlier"))


def test_a_schema_of_another_version_is_refused(
    server: Server, pair: tuple[str, str], tmp_path: Path
) -> None:
    with engine_of(server, pair[0], OWNER) as engine, engine.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'main_9999'"))
    with pytest.raises(SchemaUnknownError, match="main_9999"):
        Store.open(*pair, tmp_path / "signer.db")
    with pytest.raises(SchemaUnknownError, match="main_9999"):
        prepare(server.url(name_of(pair[0]), OWNER), broker=pair[0])
    server.spoilt(pair)


def test_one_database_is_not_both(server: Server, pair: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SchemaUnknownError, match="this is the main one"):
        Store.open(pair[0], pair[0] + "&application_name=x", tmp_path / "signer.db")


def test_roles_that_cannot_be_are_refused(server: Server, pair: tuple[str, str]) -> None:
    owner = server.url(name_of(pair[0]), OWNER)
    with pytest.raises(UnsafeSettingsError, match="one role twice"):
        prepare(owner, broker=owner)
    with pytest.raises(UnsafeSettingsError, match="one role twice"):
        prepare(owner, broker=pair[0], auditor=BROKER)
    with pytest.raises(StoreError, match='role "nobody" does not exist'):
        prepare(owner, broker=pair[0], auditor="nobody")
    with pytest.raises(StoreError, match="needs an owner of the database"):
        prepare(server.url("elsewhere", OWNER), broker=pair[0])
    with pytest.raises(StoreError, match=r"must be owner|permission denied"):
        prepare(server.url(name_of(pair[0]), AUDITOR), broker=pair[0])


def test_a_hostile_role_name_is_quoted(server: Server, pair: tuple[str, str]) -> None:
    hostile = 'a"; DROP TABLE log_head; --'
    with pytest.raises(StoreError, match="does not exist"):
        prepare(server.url(name_of(pair[0]), OWNER), broker=pair[0], auditor=hostile)
    assert not holds_log(pair[0])  # and the tables are there


# --- reaching it ---


def test_a_server_that_is_not_there_is_told_and_no_password_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "correct-horse")
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:battery-staple\n")
    passfile.chmod(0o600)
    url = f"postgresql://iriai_broker@/iriai?host={tmp_path}&passfile={passfile}"
    for call in (
        lambda: Store.open(url, url, tmp_path / "signer.db"),
        lambda: holds_log(url),
        lambda: prepare(url.replace("iriai_broker", "owner"), broker=url),
    ):
        with pytest.raises(StoreUnreachableError) as refused:
            call()
        assert refused.value.exit_code == 5
        assert "No such file or directory" in refused.value.found
        shown = f"{refused.value} {refused.value.__cause__!r}"
        assert "correct-horse" not in shown
        assert "battery-staple" not in shown


def test_a_database_that_does_not_exist_is_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match='database "nowhere" does not exist'):
        Store.open(server.url("nowhere"), server.url("nowhere"), tmp_path / "signer.db")


def test_without_the_driver_the_remedy_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from broker.store import Store, StoreUnreachableError\n"
        "try: Store.open('postgresql://a@/b', 'postgresql://a@/c', None)\n"
        "except StoreUnreachableError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "iriai[broker,postgres]" in done.stdout, done.stderr
