# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of our own for the tests: in a folder that goes away, on a Unix socket, with its default durability.

- One per process, started when the first test asks (`shared`), ended with the process, even if that is killed.
- Its roles are those of an operator's guide: `OWNER` migrates, `BROKER` may not change the log, `AUDITOR` reads; `postgres` is the superuser.
- `databases` gives a pair, migrated, with rights set, without rows: copies of a template, or such that an earlier test gave back.
- The program is the newest of the distribution's packages. Where there is none, `unavailable` says so and tests skip with its sentence.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import create_engine, insert, make_url, select

from broker.settings import Settings
from broker.store import tables
from broker.store.migrations import migrate
from broker.store.postgres import writing_engine
from broker.store.roles import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine, MetaData

OWNER, BROKER, AUDITOR = "iriai_owner", "iriai_broker", "iriai_auditor"
_PACKAGES = Path("/usr/lib/postgresql")
_PATIENCE_S = 60
_TEMPLATE = "empty_main", "empty_private"
_EMPTY_MAIN = "".join(f'DELETE FROM "{one}";' for one in tables.main.tables)  # noqa: S608  our own names
_EMPTY_MAIN += "INSERT INTO log_head (id, size, frontier) VALUES (1, 0, '')"
_EMPTY_PRIVATE = "DELETE FROM log_private"
Pair = tuple[str, str]


def programs() -> Path | None:
    """Folder of ``initdb`` and ``postgres``."""
    found = sorted(_PACKAGES.glob("*/bin/initdb"), key=lambda one: float(one.parts[-3]))
    return found[-1].parent if found else None


def unavailable() -> str | None:
    """Why there can be no server here; None if there can."""
    if programs() is None:
        return f"no PostgreSQL in {_PACKAGES}: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "no psycopg: pip install 'iriai[postgres]'"
    if os.geteuid() == 0 and (_account() is None or shutil.which("setpriv") is None):
        return "PostgreSQL does not run as root, and there is no account postgres or no setpriv"
    return None


def _account() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return None


def _as_postgres() -> list[str]:
    """What a command line begins with that must not run as root."""
    account = _account()
    if os.geteuid() != 0 or account is None:
        return []
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def name_of(url: str) -> str:
    """Name of the database in a URL."""
    return urlsplit(url).path.strip("/")


@dataclass
class Server:
    """A running server."""

    folder: Path
    process: subprocess.Popen[bytes]
    superuser: Any
    taken: list[Pair] = field(default_factory=list)
    free: list[Pair] = field(default_factory=list)
    names: int = 0

    def url(self, name: str, role: str = BROKER) -> str:
        """URL of a database, for a role."""
        return f"postgresql://{role}@/{name}?host={self.folder}"

    def sql(self, *statements: str) -> None:
        """Executes statements as the superuser, in the database ``postgres``."""
        for one in statements:
            self.superuser.execute(one)

    def databases(self) -> Pair:
        """URLs of an empty main and an empty private database, as the broker opens them."""
        if self.free:
            pair = self.free.pop()
            for url, rows in zip(pair, (_EMPTY_MAIN, _EMPTY_PRIVATE), strict=True):
                with self._connected(name_of(url)) as session:
                    session.execute("SET session_replication_role = replica;" + rows)
        else:
            self.names += 1
            pair = self.url(f"main_{self.names}"), self.url(f"private_{self.names}")
            for url, source, owner in zip(pair, _TEMPLATE, (OWNER, BROKER), strict=True):
                self.sql(f"CREATE DATABASE {name_of(url)} TEMPLATE {source} OWNER {owner}")
        self.taken.append(pair)
        return pair

    def give_back(self) -> None:
        """Lets later tests have what was taken; whoever is connected still is put out."""
        gone, self.taken = self.taken, []
        names = [name_of(url) for pair in gone for url in pair]
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)"
        self.superuser.execute(end, [names])
        self.free += gone

    def spoilt(self, pair: Pair) -> None:
        """Nobody gets these again: a test changed more than rows."""
        self.taken.remove(pair)

    def empty(self, name: str, owner: str = OWNER) -> str:
        """A database without tables, as the operator's guide makes one; its URL for its owner."""
        self.sql(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        return self.url(name, owner)

    def _connected(self, name: str) -> Any:
        import psycopg

        return psycopg.connect(self.url(name, "postgres"), autocommit=True)

    def engine(self, url: str) -> Engine:
        """An engine past everybody's rights, on which no trigger fires and no foreign key is looked at."""
        parsed = make_url(url).set(drivername="postgresql+psycopg", username="postgres")
        return create_engine(parsed, connect_args={"options": "-c session_replication_role=replica"})

    def reloaded(self, name: str, value: str) -> None:
        """Waits until new connections have a setting."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            with self._connected("postgres") as session:
                if session.execute(f"SHOW {name}").fetchone() == (value,):
                    return
            assert time.monotonic() < until, name
            time.sleep(0.01)

    def restart(self) -> None:
        """Ends the server as a power cut would, and starts it again."""
        self.end(signal.SIGQUIT)
        self.process = _start(self.folder)
        self.superuser = self._connected("postgres")

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT closes all connections and ends; SIGQUIT just ends. A new start recovers."""
        self.superuser.close()
        self.process.send_signal(how)
        self.process.wait(_PATIENCE_S)

    def start(self) -> None:
        """Starts a server that was ended."""
        self.process = _start(self.folder)
        self.superuser = self._connected("postgres")


def _start(folder: Path) -> subprocess.Popen[bytes]:
    found = programs()
    assert found is not None
    line = ["-D", str(folder / "data"), "-k", str(folder), "-c", "listen_addresses="]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*(_as_postgres() or ["setpriv"]), "--pdeathsig", "QUIT", str(found / "postgres"), *line],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    until = time.monotonic() + _PATIENCE_S
    while "ready" not in _said(folder):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise RuntimeError((folder / "server.log").read_text()[-2000:])
        time.sleep(0.02)
    return process


def _said(folder: Path) -> str:
    """Last line of the file that the server keeps about its state."""
    with contextlib.suppress(OSError):
        return (folder / "data" / "postmaster.pid").read_text().rpartition("\n")[0].rpartition("\n")[2]
    return ""


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server with the roles and an empty, migrated template; ended and removed at the end."""
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    found = programs()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="iriai-pg-"))
    try:
        account = _account()
        if os.geteuid() == 0 and account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        made = ["-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run([*_as_postgres(), str(found / "initdb"), *made], check=True, capture_output=True)
        one = Server(folder, _start(folder), None)
        try:
            one.superuser = one._connected("postgres")
            _furnish(one)
            yield one
        finally:
            if one.process.poll() is None:
                one.end(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _furnish(one: Server) -> None:
    for role in (OWNER, BROKER, AUDITOR):
        one.sql(f"CREATE ROLE {role} LOGIN")
    main, private = one.empty(_TEMPLATE[0]), one.empty(_TEMPLATE[1], BROKER)
    prepare(main, broker=one.url(_TEMPLATE[0]), auditor=AUDITOR)
    engine = writing_engine(private)
    migrate(engine, "private")
    engine.dispose()


@functools.cache
def shared() -> Server:
    """The server of this process."""
    held = contextlib.ExitStack()
    atexit.register(held.close)
    return held.enter_context(server())


def log_urls(database: str) -> dict[str, str]:
    """What `LogSim` takes for a database of the fixture ``database``."""
    if database == "sqlite":
        return {}
    main, private = shared().databases()
    return {"main": main, "private": private}


def move(folder: Path, database: str) -> None:
    """Moves the rows of a broker's closed files to a database of the fixture ``database``; `broker.toml` says so."""
    if database == "sqlite":
        return
    main, private = shared().databases()
    settings = Settings.load(folder)
    for metadata, source, target in (
        (tables.main, settings.main_database, main),
        (tables.private, settings.private_database, private),
    ):
        _copy(metadata, Path(source), target)
        Path(source).unlink()
    replace(settings, database_url=main, private_db_url=private).write()


def _copy(metadata: MetaData, source: Path, target: str) -> None:
    old, new = create_engine(f"sqlite:///{source}"), shared().engine(target)
    with old.connect() as reading, new.begin() as writing:
        for table in metadata.sorted_tables:
            rows = [dict(one) for one in reading.execute(select(table)).mappings()]
            writing.execute(table.delete())
            if rows:
                writing.execute(insert(table), rows)
    old.dispose()
    new.dispose()
