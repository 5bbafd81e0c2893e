# SPDX-License-Identifier: Apache-2.0
"""broker.toml: read strictly, written whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from broker.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = 'public_url = "https://pool.example:8443"\norigin = "pool.example/log/2026a"\n'


def write(folder: Path, text: str) -> None:
    (folder / "broker.toml").write_text(text, encoding="utf-8")


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = Settings(
        dir=tmp_path,
        public_url="https://pool.example:8443",
        origin="pool.example/log/2026a",
        listen_host="192.0.2.7",
        listen_port=9443,
        signer_db=tmp_path / 'other "disk"' / "signer.db",
    )
    made.write()
    assert Settings.load(tmp_path) == made
    assert made.private_database == tmp_path / "private.db"
    assert made.signer_path.parent.name == 'other "disk"'


def test_databases_of_postgresql_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = Settings(
        dir=tmp_path,
        public_url="https://pool.example:8443",
        origin="pool.example/log/2026a",
        database_url="postgresql://iriai_broker@db.example:5433/iriai?sslmode=verify-full",
        private_db_url="postgresql+psycopg://iriai_broker@/private?host=/run/postgresql&passfile=/etc/pgpass",
    )
    made.write()
    assert Settings.load(tmp_path) == made
    assert (made.main_database, made.private_database) == (made.database_url, made.private_db_url)
    assert made.signer_path == tmp_path / "signer.db"


@pytest.mark.parametrize("name", ["database_url", "private_db_url"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://iriai:correct-horse@db/iriai", "without a password"),
        ("postgresql://iriai@db/iriai?password=correct-horse", "without a password"),
        ("postgresql://iriai@db/iriai?sslpassword=correct-horse", "without a password"),
        ("postgresql://:correct-horse@db/iriai", "user@host"),
        ("mysql://iriai:correct-horse@db/iriai", "user@host"),
        ("postgresql://db/correct-horse", "user@host"),
        ("postgresql://iriai@correct-horse", "user@host"),
        ("postgresql://iriai@[correct-horse/iriai", "a URL"),
        ("correct-horse", "user@host"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_and_not_shown(
    tmp_path: Path, name: str, url: str, said: str
) -> None:
    write(tmp_path, GOOD + f"{name} = {json.dumps(url)}\n")
    with pytest.raises(SettingsError, match=name) as refused:
        Settings.load(tmp_path)
    assert said in refused.value.need
    assert "correct-horse" not in f"{refused.value} {refused.value.__cause__!r} {refused.value.__context__!r}"


def test_the_private_database_is_another_one_and_named_once(tmp_path: Path) -> None:
    url = "postgresql://iriai@db/iriai"
    for text in (
        f'database_url = "{url}"\nprivate_db_url = "{url}"\n',
        f'private_db = "/other/private.db"\nprivate_db_url = "{url}"\n',
    ):
        write(tmp_path, GOOD + text)
        with pytest.raises(SettingsError, match="private_db_url"):
            Settings.load(tmp_path)


def test_defaults_are_loopback(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    loaded = Settings.load(tmp_path)
    assert (loaded.listen_host, loaded.listen_port) == ("127.0.0.1", 8443)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (GOOD + "listn_port = 1\n", "listn_port"),
        ('public_url = "https://pool.example"\n', "origin"),
        (GOOD + 'listen_port = "8443"\n', "listen_port"),
        (GOOD + "listen_port = true\n", "listen_port"),
        (GOOD + "listen_port = 70000\n", "listen_port"),
        (GOOD.replace("https", "http"), "public_url"),
        (GOOD.replace(":8443", ":8443/"), "public_url"),
        (GOOD.replace("/log/2026a", "/log/2026 a"), "origin"),
        (GOOD + "listen_host = 3\n", "listen_host"),
        ("public_url = ", "TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    write(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        Settings.load(tmp_path)
    assert refused.value.code == "settings.invalid"
    assert named in str(refused.value)


def test_a_folder_without_a_broker_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="iriai-broker init"):
        Settings.load(tmp_path)
