# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of our own for a measurement: in a folder that goes away, with its default durability.

    with server() as databases:          its process ends with the block
        databases.main, databases.private      as the broker, whose tables are not there yet
        databases.owner                        the main one, as the owner of its tables

The program is the newest of the distribution's packages. It listens on a socket in its folder and nowhere
else; who reaches that is let in without a password.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Databases", "server"]

_PROGRAMS: Final = Path("/usr/lib/postgresql")
_PATIENCE_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Databases:
    """URLs of two empty databases, and the process of their server."""

    main: str
    private: str
    owner: str
    pid: int = 0

    def serving(self) -> list[int]:
        """Processes that serve the broker's connections now; none where the system does not tell."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                parent = int((path / "stat").read_text("utf-8").rpartition(")")[2].split()[1])
                if parent == self.pid and b": writer " in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
        return found


@contextmanager
def server() -> Iterator[Databases]:
    """A server on a Unix socket, its roles owner, writer and reader, and two databases.

    Raises:
        FileNotFoundError: Its programs are not here, or nobody may run them.
    """
    programs = sorted(_PROGRAMS.glob("*/bin/postgres"), key=lambda one: float(one.parts[-3]))
    if not programs:
        raise FileNotFoundError(f"no PostgreSQL in {_PROGRAMS}; name a database with --database-url")
    rights = _not_root()
    place = Path(tempfile.mkdtemp(prefix="iriai-bench-pg-"))
    try:
        if rights:
            os.chown(place, pwd.getpwnam("postgres").pw_uid, -1)
        made = ["-D", str(place / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        first = [*rights, str(programs[-1].with_name("initdb")), *made]
        subprocess.run(first, check=True, capture_output=True)  # noqa: S603  our own arguments
        where = ["-D", str(place / "data"), "-k", str(place), "-c", "listen_addresses="]
        with subprocess.Popen(  # noqa: S603  our own arguments
            [*rights, str(programs[-1]), *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield replace(_databases(place), pid=process.pid)
            finally:
                process.send_signal(signal.SIGQUIT)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _not_root() -> list[str]:
    if os.geteuid() != 0:
        return []
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        raise FileNotFoundError("PostgreSQL does not run as root, and there is no account postgres") from None
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _databases(place: Path) -> Databases:
    import psycopg

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            session = psycopg.connect(_url(place, "postgres", "postgres"), autocommit=True)
            break
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    with session:
        for role in ("owner", "writer", "reader"):
            session.execute(f"CREATE ROLE {role} LOGIN")
        for name, owner in (("main", "owner"), ("private", "writer")):
            session.execute(f"CREATE DATABASE {name} OWNER {owner}")
    return Databases(
        main=_url(place, "main", "writer"),
        private=_url(place, "private", "writer"),
        owner=_url(place, "main", "owner"),
    )


def _url(place: Path, name: str, role: str) -> str:
    return f"postgresql://{role}@/{name}?host={place}"
