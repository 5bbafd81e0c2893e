# SPDX-License-Identifier: Apache-2.0
"""A node's settings and where it keeps things.

- One folder per node (`Home`), one TOML file: ``node.toml`` in it, or another one that was named and says
  where the folder is (`client.layers`). Order: option, environment ``IRIAI_NODE__KEY``, file, default.
- A key that does not exist is an error, so that a misspelt tightening never goes unnoticed.
- The folder is 0700 and every file in it 0600 (`PRIVATE_UMASK`): it holds episodes and individual models.
- Secrets are files of mode 0600 in ``keys/``, never settings and never environment variables.
- The ``local`` rules only tighten what the signed contract allows; none of them can widen it.
  ``epsilon_lifetime`` is about something else: the owner's cap over the life of new data, whatever contract.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import tempfile
import tomllib
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from client.errors import NodeBusyError, NotInitialisedError, SettingsError
from policies.encoding import decimal_text
from policies.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENVIRONMENT",
    "LANGUAGES",
    "Home",
    "LocalRules",
    "NodeSettings",
    "from_environment",
    "load_settings",
    "locked",
    "read_table",
    "save_settings",
]

_NEAR = 4
PRIVATE_UMASK = 0o077  # of every process of a node: files 0600, folders 0700
ENVIRONMENT = "IRIAI_NODE__"
LANGUAGES = ("en", "ja")


@dataclass(frozen=True, slots=True)
class Home:
    """The node's folder: every path in it has a name here and nowhere else.

    Attributes:
        root: The folder.
        config: The settings file, where it is not the folder's own ``node.toml``.
    """

    root: Path
    config: Path | None = None

    @property
    def settings(self) -> Path:
        """The settings file: ``node.toml``, or the one that was named."""
        return self.config or self.root / "node.toml"

    @property
    def options(self) -> list[str]:
        """How another process of this node is told of both."""
        return ["--dir", str(self.root), *(() if self.config is None else ("--config", str(self.config)))]

    def command(self, words: str) -> str:
        """A command line about this node, as a person repeats it: ``iriai-node WORDS --dir DIR``."""
        return f"iriai-node {words} {shlex.join(self.options)}"

    @property
    def keys(self) -> Path:
        """Private keys, mode 0700; each file 0600."""
        return self.root / "keys"

    @property
    def broker(self) -> Path:
        """The broker-signed document that is pinned (DSSE)."""
        return self.root / "broker.json"

    @property
    def certificate(self) -> Path:
        """PEM of the one TLS certificate that is trusted."""
        return self.root / "broker.pem"

    @property
    def contracts(self) -> Path:
        """One folder per contract digest: document, envelope, annexes."""
        return self.root / "contracts"

    @property
    def data(self) -> Path:
        """Canonical episode store."""
        return self.root / "data"

    @property
    def published(self) -> Path:
        """What others were told about each data set (`client.datasets.published`)."""
        return self.root / "published"

    @property
    def donations(self) -> Path:
        """Which episodes were openly given away (`client.seeds.donated`)."""
        return self.root / "donations.json"

    @property
    def models(self) -> Path:
        """Released models that were pulled, and individual ones."""
        return self.root / "models"

    @property
    def serving(self) -> Path:
        """Services that act: a folder per name, with tokens and open episode (`client.deploy.running`)."""
        return self.root / "serving"

    @property
    def deployed(self) -> Path:
        """Episodes that models of this site acted in (`client.deploy.episode_files`)."""
        return self.root / "deployed"

    @property
    def private(self) -> Path:
        """Private parts of models, which never leave (`client.private_parts`)."""
        return self.root / "private"

    @property
    def stopped(self) -> Path:
        """Runs that the owner stopped (`client.stopping_runs`)."""
        return self.root / "stopped.json"

    @property
    def audits(self) -> Path:
        """Reports of audits, by recipe (`client.audits`)."""
        return self.root / "audits"

    @property
    def outbox(self) -> Path:
        """What left this site (SQLite)."""
        return self.root / "outbox.db"

    @property
    def budget(self) -> Path:
        """Privacy budget ledgers, one file per lineage of data."""
        return self.root / "budget"

    @property
    def fleet(self) -> Path:
        """Idempotency ledger of the engine (SQLite)."""
        return self.root / "fleet.db"

    @property
    def flwr(self) -> Path:
        """State folder of the fleet client."""
        return self.root / "flwr"

    @property
    def lock(self) -> Path:
        """Held by the running worker."""
        return self.root / "run.lock"

    @property
    def state(self) -> Path:
        """What the running worker says about itself, for ``status``."""
        return self.root / "run.json"

    def need(self) -> Home:
        """Itself, once the folder holds a node.

        Raises:
            NotInitialisedError: It does not.
        """
        if not (self.keys / "node.key").exists():
            raise NotInitialisedError(
                need=f"a node in {self.root}",
                found="no keys/node.key",
                remedy=f"give --dir of the node's folder{self._near()}; only for a new node: "
                + self.command("init"),
            )
        return self

    def _near(self) -> str:
        """Folders beside this one, or in the one that the command was typed in, that hold a node."""
        found = {
            one.parent.parent
            for place in (self.root.parent, self.root.parent.parent, Path())
            for one in islice(place.glob("*/keys/node.key"), _NEAR)
        }
        shown = sorted(str(one) for one in found)[:_NEAR]
        return f" (nodes are near, in {' and '.join(map(shlex.quote, shown))})" if shown else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRules:
    """The site's own, tighter rules. Each refuses as ``local:<rule>``.

    Attributes:
        paused: Nothing is trained, nothing is judged; pings are answered.
        datasets: Data sets that may be used at all; ``None``: those of the contract.
        fields: Fields that may be read at all; ``None``: those of the contract.
        epsilon_total: A cap below the contract's, as a decimal string; ``None``: the contract's.
        epsilon_lifetime: With which the ledger of new data is opened, as a decimal string, for all contracts
            together; ``None``: the cap of the first contract that trains on them. It refuses nothing by
            itself, and changes no ledger that is open.
        vote: ``auto`` votes by the recipe's rule, ``manual`` leaves it to ``release approve|veto``.
    """

    paused: bool = False
    datasets: tuple[str, ...] | None = None
    fields: tuple[str, ...] | None = None
    epsilon_total: str | None = None
    epsilon_lifetime: str | None = None
    vote: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Settings of one node.

    Attributes:
        broker_url: Base URL of the pinned broker, empty before ``join``.
        legal_name: Of the organisation.
        country: ISO 3166-1 alpha-2.
        threads: CPU threads of the training process.
        timeout_s: Of one request to the broker.
        lang: Language of what commands say, ``en`` or ``ja``, where they have both.
        dir: In a settings file outside the node's folder: where that folder is.
        local: The site's own rules.
    """

    broker_url: str = ""
    legal_name: str = ""
    country: str = ""
    threads: int = 1
    timeout_s: int = 30
    lang: str = "en"
    dir: str = ""
    local: LocalRules = LocalRules()


_LOCAL_TYPES: dict[str, type] = {
    "paused": bool,
    "datasets": list,
    "fields": list,
    "epsilon_total": str,
    "epsilon_lifetime": str,
    "vote": str,
}
_TYPES: dict[str, type] = {
    "broker_url": str,
    "legal_name": str,
    "country": str,
    "threads": int,
    "timeout_s": int,
    "lang": str,
    "dir": str,
}


def _typed(where: str, types: Mapping[str, type], table: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        want = types.get(key)
        if want is None:
            raise SettingsError(
                need="one of " + ", ".join(sorted(types)),
                found=f"{where}{key}",
                remedy="correct or remove the line",
            )
        if type(value) is not want:
            raise SettingsError(
                need=f"{where}{key} as {want.__name__}",
                found=type(value).__name__,
                remedy="correct the value",
            )
        found[key] = value
    return found


def _cap(key: str, text: str) -> str:
    try:
        cap = decimal_text(text)
    except EncodingError as error:
        raise SettingsError(
            need=f"local.{key} as a decimal", found=error.found, remedy="correct it"
        ) from error
    if Decimal(cap) <= 0:
        raise SettingsError(need=f"local.{key} above 0", found=cap, remedy="correct it, or pause the node")
    return cap


def _local(table: Mapping[str, object]) -> LocalRules:
    found = _typed("local.", _LOCAL_TYPES, table)
    for key in ("datasets", "fields"):
        value = found.get(key)
        if isinstance(value, list):
            if not all(isinstance(one, str) for one in value):
                raise SettingsError(
                    need=f"local.{key} as a list of names", found="something else", remedy="correct it"
                )
            found[key] = tuple(value)
    for key in ("epsilon_total", "epsilon_lifetime"):
        if key in found:
            found[key] = _cap(key, found[key])
    if found.get("vote", "auto") not in {"auto", "manual"}:
        raise SettingsError(
            need="local.vote auto or manual", found=str(found["vote"])[:40], remedy="correct it"
        )
    return replace(LocalRules(), **found)


def load_settings(home: Home, environment: Mapping[str, str] = os.environ) -> NodeSettings:
    """Settings of the node; a missing file gives the defaults.

    Args:
        home: The node's folder.
        environment: ``IRIAI_NODE__BROKER_URL`` and so on go before the file; text and integers only.

    Raises:
        SettingsError: The file is no TOML, a key does not exist, or a value has another type.
    """
    table = read_table(home.settings)
    local = table.pop("local", {})
    if not isinstance(local, dict):
        raise SettingsError(need="[local] as a table", found=type(local).__name__, remedy="correct the file")
    table |= from_environment(environment)
    found = replace(NodeSettings(local=_local(local)), **_typed("", _TYPES, table))
    if found.lang not in LANGUAGES:
        raise SettingsError(
            need="lang: one of " + ", ".join(LANGUAGES), found=found.lang[:40], remedy="correct it"
        )
    if found.dir and home.config is None:
        raise SettingsError(
            need="no dir in the folder's own node.toml", found=found.dir[:80], remedy="remove the line"
        )
    return found


def read_table(path: Path) -> dict[str, object]:
    """What a settings file says; nothing if it is not there.

    Raises:
        SettingsError: It is no TOML, or cannot be read.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(need=f"TOML in {path}", found=str(error), remedy="correct the file") from error
    except OSError as error:
        raise SettingsError(
            need=f"a settings file that can be read: {path}",
            found=error.strerror or type(error).__name__,
            remedy="correct its name or its permissions",
        ) from error


def from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The settings that the environment gives, by their names in the file."""
    found: dict[str, object] = {}
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT):
            key = name[len(ENVIRONMENT) :].lower()
            found[key] = int(text) if _TYPES.get(key) is int and text.isdecimal() else text
    return found


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    escaped = "".join(
        f"\\u{ord(char):04x}" if ord(char) < 0x20 or char in '"\\' or char == "\x7f" else char  # noqa: PLR2004
        for char in str(value)
    )
    return f'"{escaped}"'


def save_settings(home: Home, settings: NodeSettings) -> None:
    """Writes the settings file as a whole: a temporary file, fsync, rename. ``None`` values are left out.

    Raises:
        SettingsError: It cannot be written there.
    """
    lines = [
        f"{one.name} = {_toml(getattr(settings, one.name))}"
        for one in fields(settings)
        if one.name != "local"
    ]
    lines += ["", "[local]"]
    lines += [
        f"{one.name} = {_toml(getattr(settings.local, one.name))}"
        for one in fields(settings.local)
        if getattr(settings.local, one.name) is not None
    ]
    try:
        write_durably(home.settings, ("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        raise SettingsError(
            need=f"a settings file that can be written: {home.settings}",
            found=error.strerror or type(error).__name__,
            remedy="give this account the right to write there, or change the file by hand",
        ) from error


def private_file(path: Path) -> None:
    """Makes a file for this account alone, empty if it was missing, before a database is opened in it.

    A file that is there is never opened here. Whoever closes any descriptor of a file gives up all POSIX
    locks that this process has on it, those of an open database too: the next process that closes the
    database takes itself for the last one and removes the write-ahead log that is still written here. So a
    missing file is closed before it gets its name.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        descriptor, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(made, path)
        os.unlink(made)  # noqa: PTH108  a text, as it was given
    path.chmod(0o600)


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a file so that a crash leaves the old one or the new one (fsync, rename, fsync)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def locked(home: Home) -> IO[bytes]:
    """The lock of the one process that trains, as an open file; closing it gives it back.

    Raises:
        NodeBusyError: Another process of this node holds it.
    """
    lock = home.lock.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise NodeBusyError(
            need="no other worker of this node",
            found="one that runs",
            remedy="stop it first, or look at its log",
        ) from error
    return lock


def sync_folder(folder: Path) -> None:
    """Makes durable which files are in a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
