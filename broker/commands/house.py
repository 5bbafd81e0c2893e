# SPDX-License-Identifier: Apache-2.0
"""What the commands on the broker's own host do: doctor, settings, backups, unit file, its keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from broker.answers import Result, coloured, plain, table
from broker.clock import SystemClock
from broker.settings import DEFAULTS, KNOWN, Settings, settings_file
from policies.ports import iso_s

if TYPE_CHECKING:
    from pathlib import Path

    from broker.doctor import Check

__all__ = ["config_check", "config_show", "doctor", "print_unit"]

_FAILED = 3
_HIDDEN = ("secret", "password", "token")


def doctor(place: Path) -> Result:
    """Runs every check; exit 3 if one failed."""
    from broker.doctor import checks

    found = checks(place, clock=SystemClock())
    failed = [one.code for one in found if not one.ok]
    lines = [line for one in found for line in _lines(one)]
    last = f"{len(failed)} of {len(found)} failed" if failed else f"all {len(found)} hold"
    return Result(
        data={"checks": [_shown(one) for one in found], "failed": failed},
        text=(*lines, last),
        exit_code=_FAILED if failed else 0,
    )


def _shown(one: Check) -> dict[str, Any]:
    return {
        "number": one.number,
        "code": one.code,
        "ok": one.ok,
        "found": plain(one.found),
        "remedy": plain(one.remedy),
        "docs": one.docs,
    }


def _lines(one: Check) -> list[str]:
    word = coloured("ok    ", "green") if one.ok else coloured("FAILED", "red")
    first = f"{one.number:>2}  {word}  {one.code:<24}  {plain(one.found)}"
    if one.ok:
        return [first]
    return [first, f"            do: {plain(one.remedy)}", f"            see {one.docs}"]


def config_show(place: Path) -> Result:
    """Every setting with its value and where that comes from; secrets are not shown.

    Raises:
        SettingsError: The file or the environment cannot be read.
    """
    found = Settings.layers(place)
    shown = []
    for name in KNOWN:
        value = found[name].value if name in found else DEFAULTS.get(name)
        source = found[name].source if name in found else "default"
        shown.append({"name": name, "value": _redacted(name, value), "source": source})
    rows = [(one["name"], "-" if one["value"] is None else one["value"], one["source"]) for one in shown]
    return Result(
        data={"file": str(settings_file(place)), "settings": shown},
        text=table(("SETTING", "VALUE", "FROM"), rows, empty=""),
    )


def _redacted(name: str, value: Any) -> Any:  # noqa: ANN401  a value of TOML
    """The value, or three dots where it could be a secret or hold one."""
    if value is None:
        return None
    if name.endswith(_HIDDEN):
        return "…"
    text = str(value)
    if "://" in text and "@" in text:
        user = text.partition("://")[2].rpartition("@")[0]
        return text.replace(user, user.partition(":")[0] + ":…") if ":" in user else value
    return value


def config_check(place: Path) -> Result:
    """Reads every setting as the broker would when it starts.

    Raises:
        SettingsError: A name or a value that nobody understands.
    """
    settings = Settings.load(place)
    found = {"file": str(settings.file), "dir": str(settings.dir)}
    return Result(data=found, text=(f"{settings.file}: every name is known, every value fits",))


def print_unit(place: Path) -> Result:
    """A unit of systemd for the broker of a place."""
    from broker.unit import unit_of

    settings = Settings.load(place)
    text = unit_of(settings, program=sys.argv[0])
    return Result(
        data={"name": "iriai-broker.service", "unit": text},
        text=(
            "next: write it to /etc/systemd/system/iriai-broker.service;",
            "      systemctl enable --now iriai-broker",
        ),
        plain_output=text.rstrip("\n"),
    )


def age(now_ms: int, at_ms: int | None) -> str:
    """A time and how long ago that was; ``never``."""
    if at_ms is None:
        return "never"
    hours = max(0, now_ms - at_ms) // 3_600_000
    return f"{iso_s(at_ms)}, {hours // 24} d {hours % 24} h ago"
