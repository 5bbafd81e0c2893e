# SPDX-License-Identifier: Apache-2.0
"""A store in files of SQLite: modes, pragmas that are read back, strict tables, migrations with data."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from broker.store import SchemaUnknownError, Store, StoreUnreachableError, UnsafeSettingsError, tables
from broker.store.migrations import HEADS, config
from broker.store.sqlite import PRAGMAS, make_file, writing_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def test_all_tables_are_strict(store: Store) -> None:
    for metadata, engine in (
        (tables.main, store.main),
        (tables.private, store.private),
        (tables.signer, store.signer),
    ):
        with engine.connect() as connection:
            for name in metadata.tables:
                query = text("SELECT sql FROM sqlite_master WHERE name = :name")
                assert "STRICT" in connection.scalar(query, {"name": name})
    with pytest.raises(IntegrityError), store.main.begin() as session:
        session.execute(text("INSERT INTO operator (name, key, state) VALUES ('a', x'00', 'b')"))


def test_a_replacement_fires_the_trigger_too(store: Store) -> None:
    row = {"idx": 0, "chain": "c", "seq": 0, "env": b"e", "signer": "k", "seen_size": 0, "dsse": b"{}"}
    with store.main.begin() as session:
        session.execute(insert(tables.log_envelope).values(row))
    with pytest.raises(IntegrityError, match="append-only"), store.main.begin() as session:
        session.execute(insert(tables.log_envelope).prefix_with("OR REPLACE").values(row))


def test_rows_of_an_earlier_version_are_there_after_a_migration(tmp_path: Path) -> None:
    make_file(paths(tmp_path)[0])
    engine = writing_engine(paths(tmp_path)[0], PRAGMAS)
    made = config("main")
    with engine.begin() as connection:
        made.attributes["connection"] = connection
        command.upgrade(made, "main_0005")
        connection.execute(insert(tables.operator).values(name="alice", key="k", state="active"))
        connection.execute(tables.log_head.update().values(size=7))
    engine.dispose()
    store = Store.open(*paths(tmp_path))
    with store.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == HEADS["main"]
        assert session.scalars(select(tables.operator.c.name)).all() == ["alice"]
        assert session.scalar(select(tables.log_head.c.size)) == 7
        assert session.execute(select(tables.log_tile)).all() == []
    store.close()


def test_a_schema_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store.open(*paths(tmp_path)).close()
    with sqlite3.connect(tmp_path / "broker.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'main_9999'")
    connection.close()
    before = (tmp_path / "broker.db").read_bytes()
    with pytest.raises(SchemaUnknownError, match="main_9999"):
        Store.open(*paths(tmp_path))
    assert (tmp_path / "broker.db").read_bytes() == before


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    paths(tmp_path)[0].write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreUnreachableError, match="not a database"):
        Store.open(*paths(tmp_path))


def test_opening_a_current_database_loads_no_alembic(tmp_path: Path) -> None:
    Store.open(*paths(tmp_path)).close()
    code = (
        "import sys, pathlib; from broker.store import Store; "
        "Store.open(*[pathlib.Path(one) for one in sys.argv[1:]]).close(); "
        "sys.exit('alembic' in sys.modules or 'psycopg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths(tmp_path))], check=False)
    assert done.returncode == 0
