# SPDX-License-Identifier: Apache-2.0
"""Making a broker on PostgreSQL: who migrates, what is written down, what a repeated or a mistaken init does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from broker.boot import initialise
from broker.commands.db import migrate
from broker.errors import AlreadyInitialisedError, UsageError
from broker.keyfiles import KeyFileError
from broker.settings import Settings, SettingsError
from broker.store import NotMigratedError, Store, StoreUnreachableError
from policies.log.entries import EntryType
from tests import pgserver
from tests.brokersim import ORIGIN, URL, HandClock, SeedEntropy, open_house, operator_key
from tests.pgserver import AUDITOR, BROKER, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from broker.boot import Initialised
    from tests.pgserver import Server

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))


@pytest.fixture
def server() -> Iterator[Server]:
    yield pgserver.shared()
    pgserver.shared().give_back()


@pytest.fixture
def urls(server: Server) -> dict[str, str]:
    """Databases as an operator's guide makes them: empty, and what `initialise` is told of them."""
    server.sql("DROP DATABASE IF EXISTS first", "DROP DATABASE IF EXISTS first_private")
    server.empty("first")
    server.empty("first_private", BROKER)
    return {"database": server.url("first"), "private_database": server.url("first_private")}


def make(folder: Path, urls: dict[str, str], **changes: Any) -> Initialised:
    fields: dict[str, Any] = {
        "url": URL,
        "operators": {name: operator_key(name).public for name in ("alice", "bob")},
        "clock": HandClock(),
        "entropy": SeedEntropy(),
        "origin": ORIGIN,
    }
    return initialise(folder, **(fields | urls | changes))


async def test_a_broker_is_made_by_owner_and_broker_and_serves(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    made = make(folder, urls, database_owner=server.url("first", OWNER))
    assert made.fresh
    settings = Settings.load(folder)
    assert (settings.database_url, settings.private_db_url) == tuple(urls.values())
    assert OWNER not in settings.file.read_text()
    assert not {"broker.db", "private.db"} & {one.name for one in folder.iterdir()}
    again = make(folder, {})  # the file says where
    assert (again.fresh, again.operators, again.log_vkey) == (False, made.operators, made.log_vkey)
    async with open_house(folder) as house:
        assert house.services.store.main.dialect.name == "postgresql"
        await house.member("kita")
        assert EntryType.ORG_ONBOARDED.value in house.kinds()


def test_without_the_owner_init_says_so_and_can_be_repeated(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    with pytest.raises(NotMigratedError, match="db upgrade"):
        make(folder, urls)
    result = migrate(folder, owner=server.url("first", OWNER), auditor=AUDITOR)
    assert result.data["auditor"] == AUDITOR
    assert make(folder, urls).fresh


def test_a_key_that_is_gone_is_not_made_anew_once_the_log_has_entries(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    make(folder, urls, database_owner=server.url("first", OWNER))
    (folder / "keys" / "log.key").unlink()
    with pytest.raises(KeyFileError):
        make(folder, urls)


def test_another_brokers_database_is_not_taken_over(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    make(tmp_path / "first", urls, database_owner=server.url("first", OWNER))
    with pytest.raises(KeyFileError):
        make(tmp_path / "second", urls)


def test_a_folder_keeps_its_database(server: Server, urls: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    make(folder, urls, database_owner=server.url("first", OWNER))
    with pytest.raises(AlreadyInitialisedError, match="database_url"):
        make(folder, urls | {"database": server.url("other")})
    make(tmp_path / "files", {})
    with pytest.raises(AlreadyInitialisedError, match="database_url absent"):
        make(tmp_path / "files", urls)
    with pytest.raises(UsageError, match="--database"):
        make(tmp_path / "files", {}, database_owner=server.url("first", OWNER))
    with pytest.raises(UsageError, match="migrated when the broker starts"):
        migrate(tmp_path / "files", owner=server.url("first", OWNER), auditor=None)


def test_an_owner_with_a_password_in_the_url_is_refused_and_not_shown(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="--database-owner") as refused:
        make(tmp_path / "b", urls, database_owner="postgresql://iriai_owner:correct-horse@/first")
    assert "correct-horse" not in str(refused.value)
    assert not (tmp_path / "b").exists()


def test_a_server_that_is_not_there_leaves_no_folder_behind(tmp_path: Path) -> None:
    urls = {"database": f"postgresql://{BROKER}@/first?host={tmp_path}"}
    with pytest.raises(StoreUnreachableError):
        make(tmp_path / "b", urls)
    assert not (tmp_path / "b").exists()


def test_what_the_operators_guide_says_to_the_server_makes_roles_that_suffice(
    server: Server, tmp_path: Path
) -> None:
    guide = (Path(__file__).parents[2] / "docs/how-to/operator.md").read_text()
    block = next(one for one in guide.split("```") if one.startswith("\nCREATE ROLE iriai_owner"))
    block = block.replace("iriai", "guide")
    server.sql(*(one for line in block.splitlines() for one in [line.partition(" --")[0].strip()] if one))
    owner = server.url("guide", "guide_owner")
    urls = {
        "database": server.url("guide", "guide_broker"),
        "private_database": server.url("guide_private", "guide_broker"),
    }
    assert make(tmp_path / "b", urls, database_owner=owner).fresh
    migrate(tmp_path / "b", owner=owner, auditor="guide_auditor")
    reads = create_engine(server.url("guide", "guide_auditor").replace("postgresql", "postgresql+psycopg", 1))
    with reads.connect() as session:
        assert session.scalar(text("SELECT count(*) FROM log_entry")) > 0
    reads.dispose()
    with pytest.raises(StoreUnreachableError, match="permission denied for database"):
        Store.open(server.url("guide_private", "guide_auditor"), tmp_path / "p.db", tmp_path / "s.db")


async def test_only_the_private_rows_may_be_in_files_and_only_they(
    server: Server, urls: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    make(folder, {"database": urls["database"]}, database_owner=server.url("first", OWNER))
    assert (folder / "private.db").exists()
    async with open_house(folder) as house:
        node = await house.member("kita")
        with house.services.store.read_private() as session:
            assert session.scalar(text("SELECT count(*) FROM log_private")) > 0
        assert (await node.get("/membership/me")).status_code == 200
