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
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.keyfiles import replace_file
from policies.errors import IriaiError

__all__ = ["DspSettings", "Settings", "SettingsError"]

FILE_NAME: Final = "broker.toml"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8443
_ORIGIN = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*$")
_TEXT = ("public_url", "origin", "listen_host", "signer_db", "private_db")
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
    dsp: DspSettings = DspSettings()

    def __post_init__(self) -> None:
        if not self.public_url.startswith("https://") or self.public_url.endswith("/"):
            raise _invalid("public_url", "https://host[:port] without a slash at the end", self.public_url)
        if not _ORIGIN.match(self.origin):
            raise _invalid("origin", "host/path in plain characters", self.origin)
        if not 0 <= self.listen_port <= _PORT_MAX:
            raise _invalid("listen_port", f"0..{_PORT_MAX}", str(self.listen_port))

    @property
    def file(self) -> Path:
        """The settings file itself."""
        return self.dir / FILE_NAME

    @property
    def main_path(self) -> Path:
        """Main database: business rows and the log."""
        return self.dir / "broker.db"

    @property
    def private_path(self) -> Path:
        """Database of salts and confidential values."""
        return self.private_db or self.dir / "private.db"

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
            dsp=_dsp(raw.get("dsp", {})),
        )

    def write(self) -> None:
        """Writes ``broker.toml``; values at their default are left out, so that defaults can still change."""
        lines = [f"{name} = {json.dumps(getattr(self, name))}" for name in _REQUIRED]
        lines.append(f"listen_host = {json.dumps(self.listen_host)}")
        lines.append(f"listen_port = {self.listen_port}")
        for name in ("signer_db", "private_db"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name} = {json.dumps(str(value))}")
        if self.dsp.enabled:
            lines.append("dsp.enabled = true")
        replace_file(self.file, ("\n".join(lines) + "\n").encode())


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
