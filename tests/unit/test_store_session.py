# SPDX-License-Identifier: Apache-2.0
"""Opening the databases: safe settings, migrations, tables that refuse what must not happen."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from broker.store import SchemaUnknownError, Store, UnsafeSettingsError, tables
from broker.store.migrations import HEADS, config
from broker.store.prepared import Prepared
from broker.store.session import PRAGMAS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
ENVELOPE = {"idx": 0, "chain": "c", "seq": 0, "env": b"e" * 32, "signer": "k", "seen_size": 0, "dsse": b"{}"}


def paths(folder: Path) -> tuple[Path, Path, Path]:
    return folder / "broker.db", folder / "private.db", folder / "signer.db"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(*paths(tmp_path))
    yield made
    made.close()


def test_files_are_for_their_owner_only(store: Store, tmp_path: Path) -> None:
    del store
    assert {stat.S_IMODE(one.stat().st_mode) for one in paths(tmp_path)} == {0o600}


def test_pragmas_are_read_back_from_each_connection(store: Store) -> None:
    for engine in (store.main, store.private, store.signer, store.readers):
        with engine.connect() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
        assert found == ["wal", 2, 1, 5000]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("synchronous", "NORMAL"),
        ("synchronous", "OFF"),
        ("journal_mode", "DELETE"),
        ("foreign_keys", "OFF"),
        ("busy_timeout", "0"),
    ],
)
def test_a_weaker_setting_is_refused_by_name(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UnsafeSettingsError) as refused:
        Store.open(*paths(tmp_path), pragmas={**PRAGMAS, name: value})
    assert refused.value.code == "log.unsafe-settings"
    assert name in refused.value.need


@pytest.mark.parametrize("name", sorted(HEADS))
def test_migrations_give_exactly_the_declared_tables(store: Store, name: str) -> None:
    metadata = {"main": tables.main, "private": tables.private, "signer": tables.signer}[name]
    engine = {"main": store.main, "private": store.private, "signer": store.signer}[name]
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
        assert compare_metadata(context, metadata) == []
        for table in metadata.tables.values():
            sql = connection.scalar(
                text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table.name}
            )
            assert "STRICT" in sql
    assert ScriptDirectory.from_config(config(name)).get_current_head() == HEADS[name]


def test_a_strict_table_refuses_another_type(store: Store) -> None:
    with pytest.raises(IntegrityError), store.main.begin() as session:
        session.execute(text("INSERT INTO operator (name, key, state) VALUES ('a', x'00', 'b')"))


def test_foreign_keys_hold(store: Store) -> None:
    with pytest.raises(IntegrityError), store.main.begin() as session:
        session.execute(insert(tables.candidate).values(digest="d", run_id="nobody", state="open"))


@pytest.mark.parametrize("table", [tables.log_entry, tables.log_envelope], ids=str)
@pytest.mark.parametrize("how", ["update", "delete", "replace"])
def test_log_rows_are_never_changed(store: Store, table: object, how: str) -> None:
    row = ENTRY if table is tables.log_entry else ENVELOPE
    with store.main.begin() as session:
        session.execute(insert(table).values(row))  # type: ignore[arg-type]
    statement = {
        "update": lambda: update(table).values(idx=1),
        "delete": lambda: delete(table),
        "replace": lambda: insert(table).prefix_with("OR REPLACE").values(row),
    }[how]()
    with pytest.raises(DBAPIError, match="append-only"), store.main.begin() as session:
        session.execute(statement)
    with store.read() as session:
        assert len(session.execute(select(table)).all()) == 1  # type: ignore[call-overload]


def test_a_reader_sees_one_snapshot_and_writes_nothing(store: Store) -> None:
    with store.read() as session:
        before = session.execute(select(tables.operator)).all()
        with store.main.begin() as writing:
            writing.execute(insert(tables.operator).values(name="a", key="k", state="s"))
        assert session.execute(select(tables.operator)).all() == before == []
        with pytest.raises(DBAPIError, match="readonly"):
            session.execute(delete(tables.operator))
    with store.read() as session:
        assert len(session.execute(select(tables.operator)).all()) == 1


def test_a_prepared_statement_brings_its_own_values(store: Store) -> None:
    of_type = (tables.log_entry.c.type == "log.genesis") | (tables.log_entry.c.type == "log.other")
    query = select(tables.log_entry.c.idx).where((tables.log_entry.c.actor == bindparam("actor")) & of_type)
    prepared = Prepared(query)
    with store.main.begin() as session:
        session.execute(insert(tables.log_entry).values(**ENTRY))
    with store.read() as session:
        assert prepared.all(session, {"actor": "broker"}) == [(0,)]
        assert prepared.first(session, {"actor": "nobody"}) is None
        with pytest.raises(KeyError):
            prepared.all(session, {})


def test_a_rolled_back_savepoint_takes_only_its_own_rows(store: Store) -> None:
    with store.main.begin() as session:
        session.execute(insert(tables.operator).values(name="a", key="k", state="s"))
        inner = session.begin_nested()
        session.execute(insert(tables.operator).values(name="b", key="k", state="s"))
        inner.rollback()
    with store.read() as session:
        assert session.scalars(select(tables.operator.c.name)).all() == ["a"]


def test_a_schema_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store.open(*paths(tmp_path)).close()
    with sqlite3.connect(tmp_path / "broker.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'main_9999'")
    connection.close()
    before = (tmp_path / "broker.db").read_bytes()
    with pytest.raises(SchemaUnknownError, match="main_9999"):
        Store.open(*paths(tmp_path))
    assert (tmp_path / "broker.db").read_bytes() == before


def test_opening_a_current_database_loads_no_alembic(tmp_path: Path) -> None:
    Store.open(*paths(tmp_path)).close()
    code = (
        "import sys, pathlib; from broker.store import Store; "
        "Store.open(*[pathlib.Path(one) for one in sys.argv[1:]]).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths(tmp_path))], check=False)
    assert done.returncode == 0
