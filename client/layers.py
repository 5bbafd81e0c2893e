# SPDX-License-Identifier: Apache-2.0
"""Where a node's settings come from, layer by layer: option, environment, file, default.

Which node is meant (`locate`), the first that says something:

1. ``--config FILE``, or ``IRIAI_NODE_CONFIG``: that file. The node's folder is ``--dir``, else
   ``IRIAI_NODE_DIR``, else the file's own ``dir`` (from the file's folder on), else the file's folder;
2. ``--dir``, or ``IRIAI_NODE_DIR``: that folder, with its own ``node.toml``;
3. ``./iriai-node``, if it holds a node;
4. ``/etc/iriai/node.toml``, else ``$XDG_CONFIG_HOME/iriai/node.toml``, if it is there: as 1;
5. ``./iriai-node``, which holds no node yet.

`effective` gives each setting with its value and the layer that it comes from. The site's own rules
(``[local]``) have no layer above the file: what only tightens must not be loosened by a variable that a
process inherits, and ``pause`` writes the file.

    home = locate(None, Path("/etc/iriai/node.toml"))
    for one in effective(home): print(one.name, one.value, one.source)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, table
from client.errors import SettingsError
from client.settings import (
    ENVIRONMENT,
    Home,
    LocalRules,
    NodeSettings,
    from_environment,
    load_settings,
    read_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FOLDER", "Effective", "config_check", "config_show", "default_places", "effective", "locate"]

FOLDER: Final = Path("iriai-node")
_SYSTEM: Final = Path("/etc/iriai/node.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A setting as it is in force.

    Attributes:
        name: As in the file, ``local.`` before those of the site's own rules.
        value: None where nothing is set.
        source: ``option``, ``environment``, ``file`` or ``default``.
    """

    name: str
    value: Any
    source: str


def default_places() -> tuple[Path, ...]:
    """Settings files that are looked for where none is named, in this order."""
    from platformdirs import user_config_path

    return (_SYSTEM, user_config_path("iriai") / "node.toml")


def locate(folder: Path | None, config: Path | None, environment: Mapping[str, str] = os.environ) -> Home:
    """The node that is meant; see the module for the order.

    Args:
        folder: ``--dir`` or ``IRIAI_NODE_DIR``.
        config: ``--config`` or ``IRIAI_NODE_CONFIG``.
        environment: For ``IRIAI_NODE__DIR``.

    Raises:
        SettingsError: The file that was named is not there, or is no TOML.
    """
    if config is not None:
        if not config.is_file():
            raise SettingsError(
                need=f"a settings file {config}", found="none", remedy="correct --config or IRIAI_NODE_CONFIG"
            )
        return _of_file(config, folder, environment)
    if folder is not None:
        return Home(folder)
    if not (Home(FOLDER).keys / "node.key").exists():
        for place in default_places():
            if place.is_file():
                return _of_file(place, None, environment)
    return Home(FOLDER)


def _of_file(config: Path, folder: Path | None, environment: Mapping[str, str]) -> Home:
    """A node whose settings are this file; the folder's own ``node.toml`` is no other file."""
    told = {**read_table(config), **from_environment(environment)}.get("dir", "")
    root = folder or (config.parent / str(told) if told else config.parent)
    return Home(root) if config.resolve() == (root / "node.toml").resolve() else Home(root, config)


def effective(home: Home, environment: Mapping[str, str] = os.environ) -> tuple[Effective, ...]:
    """Every setting in force, those of the first table first.

    Raises:
        SettingsError: As `load_settings`.
    """
    found = load_settings(home, environment)
    return tuple(_rows(found, read_table(home.settings), from_environment(environment)))


def _rows(
    found: NodeSettings, written: Mapping[str, object], given: Mapping[str, object]
) -> Iterator[Effective]:
    for one in fields(NodeSettings):
        if one.name != "local":
            source = "environment" if one.name in given else "file" if one.name in written else "default"
            yield Effective(name=one.name, value=getattr(found, one.name), source=source)
    local = written.get("local")
    for one in fields(LocalRules):
        source = "file" if isinstance(local, dict) and one.name in local else "default"
        yield Effective(name=f"local.{one.name}", value=getattr(found.local, one.name), source=source)


def config_show(home: Home, environment: Mapping[str, str] = os.environ) -> Answer:
    """Every setting in force, and where it comes from. There are no secrets among them."""
    rows = effective(home, environment)
    lines = table(("setting", "value", "from"), [(one.name, _shown(one.value), one.source) for one in rows])
    return Answer(
        data={
            "dir": str(home.root),
            "file": str(home.settings),
            "file_exists": home.settings.exists(),
            "settings": [{"name": one.name, "value": one.value, "source": one.source} for one in rows],
        },
        text=(f"folder   {home.root}", f"file     {home.settings}", *lines),
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return " ".join(value) if isinstance(value, tuple) else str(value) or '""'


def config_check(home: Home, environment: Mapping[str, str] = os.environ) -> Answer:
    """Whether everything that is set can be used; a name that does not exist is an error.

    Raises:
        SettingsError: Something cannot; it is named.
    """
    rows = effective(home, environment)
    given = sorted(name for name in environment if name.startswith(ENVIRONMENT))
    set_here = [one.name for one in rows if one.source != "default"]
    return Answer(
        data={"file": str(home.settings), "valid": True, "set": set_here, "environment": given},
        text=(f"{home.settings} can be used; {len(set_here)} settings are not at their default",),
    )
