# SPDX-License-Identifier: Apache-2.0
"""Settings of a broker: one small file, ``broker.toml``, and what goes before it.

Order: option of the command line, environment, file, default (`policies.layered_settings`). Unknown names are
refused in file and environment, never ignored. An example with every name that there is:

    public_url  = "https://broker.example:8443"      what nodes and operators call
    origin      = "broker.example/log/2026a"         name of the log; never changed after the first entry
    dir         = "/var/lib/iriai-broker"            the broker's folder; default: the folder of this file
    listen_host = "0.0.0.0"
    listen_port = 8443
    signer_db   = "/other-disk/signer.db"            optional; best on another disk, never backed up
    private_db  = "/short-lived/private.db"          optional; what may have to be erased
    console_url = "https://broker.example:8443"      optional; where people open the console
    dsp.enabled = true                               optional; answer connectors of dataspaces

    oidc.issuer             = "https://login.example/realms/pool"    optional; people may log in there too
    oidc.client_id          = "iriai"
    oidc.client_secret_file = "/etc/iriai/oidc-secret"               mode 0600

In the environment the same are ``IRIAI_BROKER__LISTEN_PORT``, ``IRIAI_BROKER__DSP__ENABLED`` and so on.

A broker is named by its *place*: its folder, which holds ``broker.toml``, or another file like it, which says
where the folder is. Without a name it is ``/etc/iriai/broker.toml``, else ``iriai/broker.toml`` below
``$XDG_CONFIG_HOME`` (`default_place`).

On PostgreSQL instead of SQLite files, one or both (the signer's memory is always a file of its own):

    database_url   = "postgresql://iriai_broker@db.example/iriai?sslmode=verify-full"
    private_db_url = "postgresql://iriai_broker@/iriai_private?host=/run/postgresql"

- Both are URLs as libpq reads them, with a user and a database; the two databases must not be one.
- A secret never stands in a setting, and so never in the environment, which every child process inherits: a
  setting may name the file that holds one (mode 0600, or systemd's ``LoadCredential=``). libpq takes a
  password from ``PGPASSWORD``, from ``~/.pgpass``, or from the file that ``?passfile=/etc/iriai/pgpass``
  names; peer or certificate authentication needs none.
- The user of ``database_url`` owns no table (`broker.store.roles`); that of ``private_db_url`` owns its own.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from broker.keyfiles import replace_file
from policies.errors import IriaiError
from policies.layered_settings import Found, Kind, Layer, flat, of_environment, settle

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULTS",
    "ENVIRONMENT",
    "KNOWN",
    "Database",
    "DspSettings",
    "OidcSettings",
    "Settings",
    "SettingsError",
    "database_url",
    "default_place",
    "settings_file",
]

Database: TypeAlias = Path | str
"""A file of SQLite, or the URL of a database of PostgreSQL."""

FILE_NAME: Final = "broker.toml"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8443
ENVIRONMENT: Final = "IRIAI_BROKER__"
KNOWN: Final = MappingProxyType(
    {
        "dir": Kind.TEXT,
        "public_url": Kind.TEXT,
        "origin": Kind.TEXT,
        "listen_host": Kind.TEXT,
        "listen_port": Kind.WHOLE,
        "signer_db": Kind.TEXT,
        "private_db": Kind.TEXT,
        "database_url": Kind.TEXT,
        "private_db_url": Kind.TEXT,
        "console_url": Kind.TEXT,
        "dsp.enabled": Kind.FLAG,
        "oidc.issuer": Kind.TEXT,
        "oidc.client_id": Kind.TEXT,
        "oidc.client_secret_file": Kind.TEXT,
    }
)
"""Every setting by its dotted name."""
DEFAULTS: Final = MappingProxyType(
    {"listen_host": DEFAULT_HOST, "listen_port": DEFAULT_PORT, "dsp.enabled": False}
)
"""Values of settings that nobody set; what is not here has none."""
_ORIGIN = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*$")
_CONSOLE = re.compile(r"https://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_SCHEMES = ("postgresql", "postgresql+psycopg")
_REQUIRED = ("public_url", "origin")
_PATHS = ("signer_db", "private_db")
_PORT_MAX = 65_535
_SYSTEM: Final = Path("/etc/iriai")


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
class OidcSettings:
    """A provider at which people may log in (OpenID Connect); all three settings, or none.

    Attributes:
        issuer: As its tokens name it: an https URL.
        client_id: This broker's name there.
        client_secret_file: File that holds the secret of this name, and nothing else.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_file: str = ""

    def __post_init__(self) -> None:
        given = (self.issuer, self.client_id, self.client_secret_file)
        if any(given) and not all(given):
            raise _invalid("oidc", "issuer, client_id and client_secret_file", "some of them")
        if self.issuer and not self.issuer.startswith("https://"):
            raise _invalid("oidc.issuer", "an https URL", self.issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a broker lives and how it is called. All its paths are derived here.

    ``config`` is the file that it was read from, where that is not the one in its folder.
    """

    dir: Path
    public_url: str
    origin: str
    listen_host: str = DEFAULT_HOST
    listen_port: int = DEFAULT_PORT
    signer_db: Path | None = None
    private_db: Path | None = None
    database_url: str | None = None
    private_db_url: str | None = None
    console_url: str | None = None
    dsp: DspSettings = DspSettings()
    oidc: OidcSettings = OidcSettings()
    config: Path | None = None

    def __post_init__(self) -> None:
        if not self.public_url.startswith("https://") or self.public_url.endswith("/"):
            raise _invalid("public_url", "https://host[:port] without a slash at the end", self.public_url)
        if self.console_url is not None and not _CONSOLE.fullmatch(self.console_url):
            raise _invalid("console_url", "https://host[:port] without a path", self.console_url)
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
        return self.config or self.dir / FILE_NAME

    @property
    def console(self) -> str:
        """Where people open the console: ``https://host[:port]``, as their browsers write it."""
        return (self.console_url or self.public_url).removesuffix(":443")

    @property
    def tls_chain(self) -> Path:
        """Certificate chain of the public listener."""
        return self.dir / "tls.pem"

    @property
    def policy(self) -> Path:
        """The broker's own copy of an auditor's policy; the log's first entry names its digest."""
        return self.dir / "policy.txt"

    @property
    def log_keys(self) -> list[Path]:
        """Key files of the log: the first key's, then one for each time that it changed."""
        later = self.keys.glob("log-[0-9]*.key")
        ordered = sorted(later, key=lambda path: int(path.stem.removeprefix("log-")))
        return [self.keys / "log.key", *ordered]

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
    def load(
        cls,
        place: Path,
        *,
        environ: Mapping[str, str] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Settings:
        """Settings of the broker at a place.

        Args:
            place: Its folder, or a settings file.
            environ: Instead of the process's own environment.
            options: What the command line said, by dotted name.

        Raises:
            SettingsError: No file, no TOML, an unknown or missing name, or a value out of its range.
        """
        return cls.of(place, cls.layers(place, environ=environ, options=options))

    @classmethod
    def new(
        cls,
        place: Path,
        *,
        options: Mapping[str, object],
        defaults: Mapping[str, object],
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Settings of a broker that is made just now, at a place without a file."""
        given = _environment(place, environ)
        layers = (Layer("option", options), Layer("environment", given), Layer("default", defaults))
        return cls.of(place, settle(KNOWN, layers, _invalid))

    @staticmethod
    def layers(
        place: Path,
        *,
        environ: Mapping[str, str] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> dict[str, Found]:
        """Each setting that some layer sets, by dotted name, with the layer; see `load`."""
        file = settings_file(place)
        layers = (
            Layer("option", options or {}),
            Layer("environment", _environment(place, environ)),
            Layer(str(file), flat(_read(file))),
        )
        return settle(KNOWN, layers, _invalid)

    @classmethod
    def of(cls, place: Path, found: Mapping[str, Found]) -> Settings:
        """Settings out of what `layers` found."""
        file = settings_file(place)
        values: dict[str, Any] = {name: one.value for name, one in found.items()}
        for name in _REQUIRED:
            if name not in values:
                raise _invalid(name, "a value", "none")
        folder = file.parent / values.pop("dir", ".")
        values |= {name: Path(values[name]) for name in _PATHS if name in values}
        tables: dict[str, dict[str, Any]] = {}
        for name in [one for one in values if "." in one]:
            table, _, inner = name.partition(".")
            tables.setdefault(table, {})[inner] = values.pop(name)
        return cls(
            dir=folder,
            config=None if file == folder / FILE_NAME else file,
            dsp=DspSettings(**tables.get("dsp", {})),
            oidc=OidcSettings(**tables.get("oidc", {})),
            **values,
        )

    def write(self) -> None:
        """Writes ``broker.toml``; values at their default are left out, so that defaults can still change."""
        lines = [f"{name} = {json.dumps(getattr(self, name))}" for name in _REQUIRED]
        if self.dir != self.file.parent:
            lines.append(f"dir = {json.dumps(str(self.dir))}")
        lines.append(f"listen_host = {json.dumps(self.listen_host)}")
        lines.append(f"listen_port = {self.listen_port}")
        for name in ("signer_db", "private_db", "database_url", "private_db_url", "console_url"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name} = {json.dumps(str(value))}")
        if self.dsp.enabled:
            lines.append("dsp.enabled = true")
        if self.oidc.issuer:
            names = ("issuer", "client_id", "client_secret_file")
            lines += [f"oidc.{name} = {json.dumps(getattr(self.oidc, name))}" for name in names]
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


def settings_file(place: Path) -> Path:
    """The settings file of a place: the one in the folder, or the file itself."""
    named = place.is_file() or (place.suffix == ".toml" and not place.is_dir())
    return place if named else place / FILE_NAME


def default_place(environ: Mapping[str, str] | None = None) -> Path | None:
    """The settings file that is meant where nobody names one; None if there is none."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".config")
    places = (_SYSTEM / FILE_NAME, Path(home) / "iriai" / FILE_NAME)
    return next((one for one in places if one.is_file()), None)


def _environment(place: Path, environ: Mapping[str, str] | None) -> dict[str, object]:
    """What the environment says; of a place that is a folder, not which folder it is."""
    found = of_environment(ENVIRONMENT, os.environ if environ is None else environ, KNOWN, _unreadable)
    return found if settings_file(place) == place else {n: v for n, v in found.items() if n != "dir"}


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            need=str(path), found=error.strerror or "unreadable", remedy="run iriai-broker init"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            need=f"TOML in {path}", found=str(error)[:200], remedy="correct the file"
        ) from error


def _invalid(name: str, need: str, found: str) -> SettingsError:
    return SettingsError(
        need=f"{name}: {need}", found=found[:200], remedy=f"correct {FILE_NAME} and start again"
    )


def _unreadable(name: str, need: str, found: str) -> SettingsError:
    return SettingsError(
        need=f"{name}: {need}", found=found[:200], remedy="correct the environment, or leave it out"
    )
