# SPDX-License-Identifier: Apache-2.0
"""``pg_dump`` and ``pg_restore`` of a server's own major version, called so that no secret shows.

- An older one refuses a newer server, and what a newer one writes an older server may not read: the major
  version has to be the server's. Looked for where distributions keep them side by side, then on ``PATH``,
  where a wrapper of the distribution may pick another one at each call.
- Settings hold no password (`broker.settings`). One in ``PGPASSWORD`` is put into a file of mode 0600 for
  the program, which gets neither that variable nor any other that PostgreSQL does not read.
- It may ask for none: a password that is missing is an error and no prompt.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url

from broker.backup.errors import BackupServerError, BackupToolsError
from broker.keyfiles import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["call", "find"]

_SIDE_BY_SIDE: Final = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
_VERSION: Final = re.compile(r"\(PostgreSQL\) ([0-9]+)")
_PASSED: Final = frozenset({"HOME", "PATH", "TMPDIR", "USER", "LOGNAME", "KRB5CCNAME", "KRB5_CONFIG"})
_PASSWORD: Final = "PGPASSWORD"  # noqa: S105  the name of a variable
_DEFAULTS: Final = {"PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "iriai-broker backup", "LC_ALL": "C"}
_SAID_CHARS: Final = 300


def find(name: str, major: int, *, environ: Mapping[str, str] = os.environ) -> Path:
    """The program of a name and a major version.

    Raises:
        BackupToolsError: There is none of this version.
    """
    folders = (*(one.format(major=major) for one in _SIDE_BY_SIDE), environ.get("PATH", ""))
    candidates = dict.fromkeys(shutil.which(name, path=one) for one in folders)
    seen: list[str] = []
    for path in filter(None, candidates):
        version = _version(path)
        if version == major:
            return Path(path)
        seen.append(f"{path} of version {version or '?'}")
    raise BackupToolsError(
        need=f"{name} of PostgreSQL {major}, the server's version",
        found=", ".join(seen) or "none on PATH",
        remedy=f"install it on this host: postgresql-client-{major}, from your distribution",
    )


def _version(path: str) -> int | None:
    try:
        said = subprocess.run([path, "--version"], check=False, capture_output=True, text=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(said.stdout)
    return int(found[1]) if found else None


def call(
    program: Path,
    options: Sequence[str],
    url: str,
    *,
    remedy: str,
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Runs a program on a database; ``file`` is an archive that it reads, ``remedy`` what helps if it fails.

    Raises:
        BackupServerError: It ends with an error; what it said is in it.
    """
    with _without_secrets(url, environ) as (shown, passed):
        line = [str(program), "--no-password", *options, f"--dbname={shown}"]
        done = subprocess.run(  # noqa: S603  our own arguments, and URLs that settings checked
            [*line, *([] if file is None else [str(file)])],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=passed,
        )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit {done.returncode}"
        raise BackupServerError(
            need=f"{program.name} to end without an error",
            found=said[:_SAID_CHARS],
            remedy=remedy,
        )


@contextmanager
def _without_secrets(url: str, environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A URL for a command line, and an environment, neither with a password in it."""
    parsed = make_url(url).set(drivername="postgresql")
    passed = {name: value for name, value in environ.items() if name in _PASSED or name.startswith("PG")}
    passed |= {name: value for name, value in _DEFAULTS.items() if name not in passed}
    password = passed.pop(_PASSWORD, None)
    if not password:
        yield parsed.render_as_string(), passed
        return
    with tempfile.TemporaryDirectory(prefix="iriai-pg-") as folder:  # mode 0700
        path = Path(folder) / "pgpass"
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        write_private(path, f"*:*:*:*:{escaped}\n".encode())
        # libpq prefers the variable to any file: the file that a URL names was never read
        parsed = parsed.difference_update_query(["passfile"])
        yield parsed.render_as_string(), passed | {"PGPASSFILE": str(path)}
