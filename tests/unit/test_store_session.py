# SPDX-License-Identifier: Apache-2.0
"""An open store, on either database: migrated tables that refuse what must not happen, readers with one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from broker.store import Store, tables
from broker.store.migrations import HEADS, config
from broker.store.prepared import Prepared
from broker.store.upserts import insert_or_ignore, insert_or_update, updating
from tests.logsim import store_of

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
METADATA = {"main": tables.main, "private": tables.private, "signer": tables.signer}


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[Store]:
    made = store_of(tmp_path, database)
    yield made
    made.close()


@pytest.mark.parametrize("name", sorted(HEADS))
def test_migrations_give_exactly_the_declared_tables(store: Store, name: str) -> None:
    with getattr(store, name).connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": METADATA[name]})
        assert compare_metadata(context, METADATA[name]) == []
    assert ScriptDirectory.from_config(config(name)).get_current_head() == HEADS[name]


def test_foreign_keys_hold(store: Store) -> None:
    with pytest.raises(IntegrityError), store.main.begin() as session:
        session.execute(insert(tables.candidate).values(digest="d", run_id="nobody", state="open"))


@pytest.mark.parametrize("table", [tables.log_entry, tables.log_envelope], ids=str)
@pytest.mark.parametrize("how", ["update", "delete", "upsert"])
def test_log_rows_are_never_changed(store: Store, table: object, how: str) -> None:
    row = ENTRY if table is tables.log_entry else ENVELOPE
    with store.main.begin() as session:
        session.execute(insert(table).values(row))  # type: ignore[arg-type]

    def change() -> None:
        with store.main.begin() as session:
            if how == "upsert":
                insert_or_update(session, table, row)  # type: ignore[arg-type]
            else:
                session.execute(update(table).values(idx=1) if how == "update" else delete(table))  # type: ignore[arg-type]

    with pytest.raises(DBAPIError, match=r"append-only|permission denied"):
        change()
    with store.read() as session:
        assert len(session.execute(select(table)).all()) == 1  # type: ignore[call-overload]


def test_a_reader_sees_one_snapshot_and_writes_nothing(store: Store) -> None:
    with store.read() as session:
        before = session.execute(select(tables.operator)).all()
        with store.main.begin() as writing:
            writing.execute(insert(tables.operator).values(name="a", key="k", state="s"))
        assert session.execute(select(tables.operator)).all() == before == []
        with pytest.raises(DBAPIError, match=r"readonly|read-only"):
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
    with store.read() as session, pytest.raises((KeyError, DBAPIError)):
        prepared.all(session, {})


def test_one_prepared_statement_serves_both_databases(store: Store) -> None:
    row = {"event_id": b"e", "field": "f", "salt": b"1", "value": b"2"}
    with store.private.begin() as session:
        for salt in (b"1", b"3"):
            PREPARED.many(session, [row | {"salt": salt}])
    with store.read_private() as session:
        assert session.execute(select(tables.log_private)).all() == [(b"e", "f", b"3", b"2")]


PREPARED = Prepared(updating(tables.log_private))


def test_an_insert_leaves_or_updates_the_row_that_is_there(store: Store) -> None:
    with store.main.begin() as session:
        for state in ("first", "second"):
            insert_or_ignore(session, tables.operator, {"name": "left", "key": "k", "state": state})
            insert_or_update(session, tables.operator, {"name": "updated", "key": "k", "state": state})
    with store.read() as session:
        found = dict(session.execute(select(tables.operator.c.name, tables.operator.c.state)).all())  # type: ignore[arg-type]
    assert found == {"left": "first", "updated": "second"}


def test_an_insert_that_is_ignored_leaves_every_other_constraint_to_the_old_row(store: Store) -> None:
    """Another unique column stands in the way: `insert_or_ignore` leaves that row too."""
    row = {"id": "a", "secret_sha256": b"s", "legal_name": "n", "country": "DE", "state": "open"}
    row |= {"expires_ms": 1, "created_by": "op"}
    with store.main.begin() as session:
        insert_or_ignore(session, tables.invite, row)
        insert_or_ignore(session, tables.invite, row | {"id": "b"})
    with store.read() as session:
        assert session.scalars(select(tables.invite.c.id)).all() == ["a"]


def test_a_rolled_back_savepoint_takes_only_its_own_rows(store: Store) -> None:
    with store.main.begin() as session:
        session.execute(insert(tables.operator).values(name="a", key="k", state="s"))
        inner = session.begin_nested()
        session.execute(insert(tables.operator).values(name="b", key="k", state="s"))
        inner.rollback()
    with store.read() as session:
        assert session.scalars(select(tables.operator.c.name)).all() == ["a"]


def test_text_sorts_by_its_bytes(store: Store) -> None:
    names = ["a", "B", "ä", "_", "Z", "é", "0"]
    with store.main.begin() as session:
        session.execute(insert(tables.operator), [{"name": one, "key": "k", "state": "s"} for one in names])
    with store.read() as session:
        found = session.scalars(select(tables.operator.c.name).order_by(tables.operator.c.name)).all()
    assert found == sorted(names, key=lambda one: one.encode())
