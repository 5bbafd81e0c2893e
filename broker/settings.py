# SPDX-License-Identifier: Apache-2.0
"""Settings of a broker: one small file, ``broker.toml`` in its folder.

Unknown names are refused, never ignored. An example with every name that there is:

    public_url  = "https://broker.example:8443"      what nodes and operators call
    origin      = "broker.example/log/2026a"         name of the log; never changed after the first entry
    listen_host = "0.0.0.0"
    listen_port = 8443
    signer_db   = "/other-disk/signer.db"            optional; best on another disk, never backed up
    private_db  = "/short-lived/private.db"          optional; what may have to be erased
    dsp.enabled = true                               optional; answer connectors of dataspaces

On PostgreSQL instead of SQLite files, one or both (the signer's memory is always a file of its own):

    database_url   = "postgresql://iriai_broker@db.example/iriai?sslmode=verify-full"
    private_db_url = "postgresql://iriai_broker@/iriai_private?host=/run/postgresql"

- Both are URLs as libpq reads them, with a user and a database; the two databases must not be one.
- A password never stands in them. libpq takes it from ``PGPASSWORD``, from ``~/.pgpass``, or from the file
  that ``?passfile=/etc/iriai/pgpass`` names (mode 0600); peer or certificate authentication needs none.
- The user of ``database_url`` owns no table (`broker.store.roles`); that of ``private_db_url`` owns its own.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from broker.keyfiles import replace_file
from policies.errors import IriaiError

__all__ = ["Database", "DspSettings", "Settings", "SettingsError", "database_url"]

Database: TypeAlias = Path | str
"""A file of SQLite, or the URL of a database of PostgreSQL."""

FILE_NAME: Final = "broker.toml"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8443
_ORIGIN = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*$")
_TEXT = (
    "public_url",
    "origin",
    "listen_host",
    "signer_db",
    "private_db",
    "database_url",
    "private_db_url",
)
_SCHEMES = ("postgresql", "postgresql+psycopg")
_REQUIRED = ("public_url", "origin")
_PORT_MAX = 65_535


class SettingsError(IriaiError):
    """``broker.toml`` is missing, cannot be read, or says something that nobody understands."""

    code = "settings.invalid"
    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DspSettings:
    """The facade for connectors of dataspaces.

    Attributes:
        enabled: Whether the paths below ``/api/v1/dsp`` exist.
    """

    enabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a broker lives and how it is called. All its paths are derived here."""

    dir: Path
    public_url: str
    origin: str
    listen_host: str = DEFAULT_HOST
    listen_port: int = DEFAULT_PORT
    signer_db: Path | None = None
    private_db: Path | None = None
    database_url: str | None = None
    private_db_url: str | None = None
    dsp: DspSettings = DspSettings()

    def __post_init__(self) -> None:
        if not self.public_url.startswith("https://") or self.public_url.endswith("/"):
            raise _invalid("public_url", "https://host[:port] without a slash at the end", self.public_url)
        if not _ORIGIN.match(self.origin):
            raise _invalid("origin", "host/path in plain characters", self.origin)
        if not 0 <= self.listen_port <= _PORT_MAX:
            raise _invalid("listen_port", f"0..{_PORT_MAX}", str(self.listen_port))
        for name in ("database_url", "private_db_url"):
            if (url := getattr(self, name)) is not None:
                database_url(name, url)
        if self.database_url is not None and self.database_url == self.private_db_url:
            raise _invalid("private_db_url", "a database of its own", "the one of database_url")
        if self.private_db is not None and self.private_db_url is not None:
            raise _invalid("private_db_url", "private_db or private_db_url", "both")

    @property
    def file(self) -> Path:
        """The settings file itself."""
        return self.dir / FILE_NAME

    @property
    def main_database(self) -> Database:
        """Main database: business rows and the log."""
        return self.database_url or self.dir / "broker.db"

    @property
    def private_database(self) -> Database:
        """Database of salts and confidential values."""
        return self.private_db_url or self.private_db or self.dir / "private.db"

    @property
    def signer_path(self) -> Path:
        """The signer's own memory of what it signed."""
        return self.signer_db or self.dir / "signer.db"

    @property
    def keys(self) -> Path:
        """Folder of key files (``broker.key``, ``log.key``, ``tls.key``)."""
        return self.dir / "keys"

    @property
    def models(self) -> Path:
        """Folder of model files, named by digest."""
        return self.dir / "models"

    @property
    def fleet(self) -> Path:
        """Folder of the engine's disposable state."""
        return self.dir / "fleet"

    @classmethod
    def load(cls, directory: Path) -> Settings:
        """Settings of the broker in a folder.

        Raises:
            SettingsError: No file, no TOML, an unknown or missing name, or a value out of its range.
        """
        path = directory / FILE_NAME
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                need=str(path), found=error.strerror or "unreadable", remedy="run iriai-broker init"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(
                need=f"TOML in {path}", found=str(error)[:200], remedy="correct the file"
            ) from error
        known = {*_TEXT, "listen_port", "dsp"}
        for name in sorted(set(raw) - known):
            raise _invalid(name, "only " + ", ".join(sorted(known)), "an unknown name")
        for name in _REQUIRED:
            if name not in raw:
                raise _invalid(name, "a value", "none")
        text = {name: _text(raw, name) for name in _TEXT if name in raw}
        port = raw.get("listen_port", DEFAULT_PORT)
        if type(port) is not int:
            raise _invalid("listen_port", "a whole number", type(port).__name__)
        return cls(
            dir=directory,
            public_url=text["public_url"],
            origin=text["origin"],
            listen_host=text.get("listen_host", DEFAULT_HOST),
            listen_port=port,
            signer_db=Path(text["signer_db"]) if "signer_db" in text else None,
            private_db=Path(text["private_db"]) if "private_db" in text else None,
            database_url=text.get("database_url"),
            private_db_url=text.get("private_db_url"),
            dsp=_dsp(raw.get("dsp", {})),
        )

    def write(self) -> None:
        """Writes ``broker.toml``; values at their default are left out, so that defaults can still change."""
        lines = [f"{name} = {json.dumps(getattr(self, name))}" for name in _REQUIRED]
        lines.append(f"listen_host = {json.dumps(self.listen_host)}")
        lines.append(f"listen_port = {self.listen_port}")
        for name in ("signer_db", "private_db", "database_url", "private_db_url"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name} = {json.dumps(str(value))}")
        if self.dsp.enabled:
            lines.append("dsp.enabled = true")
        replace_file(self.file, ("\n".join(lines) + "\n").encode())


def database_url(name: str, text: str) -> str:
    """The URL of a database of PostgreSQL, as it was given; ``name`` is the setting or option it comes from.

    Raises:
        SettingsError: Another form, or a password in it. The URL itself is in no message.
    """
    try:
        url = urlsplit(text)
        secrets = [key for key, _ in parse_qsl(url.query) if key.endswith("password")]
        known, user = url.scheme in _SCHEMES, url.username
    except ValueError:
        raise _invalid(name, "a URL", "something else") from None
    if not known or not user or not url.path.strip("/"):
        raise _invalid(name, "postgresql://user@host/database", "another form")
    if url.password is not None or secrets:
        raise SettingsError(
            need=f"{name}: a URL without a password",
            found="one with a password",
            remedy="take it out; set PGPASSWORD, write ~/.pgpass, or end the URL with ?passfile=FILE (0600)",
        )
    return text


def _dsp(table: object) -> DspSettings:
    if not isinstance(table, dict):
        raise _invalid("dsp", "a table, as in dsp.enabled = true", type(table).__name__)
    for name in sorted(set(table) - {"enabled"}):
        raise _invalid(f"dsp.{name}", "only dsp.enabled", "an unknown name")
    enabled = table.get("enabled", False)
    if not isinstance(enabled, bool):
        raise _invalid("dsp.enabled", "true or false", type(enabled).__name__)
    return DspSettings(enabled=enabled)


def _text(raw: dict[str, object], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str) or not value:
        raise _invalid(name, "text", type(value).__name__)
    return value


def _invalid(name: str, need: str, found: str) -> SettingsError:
    return SettingsError(
        need=f"{name}: {need}", found=found[:200], remedy=f"correct {FILE_NAME} and start again"
    )
