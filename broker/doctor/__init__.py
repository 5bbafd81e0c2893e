# SPDX-License-Identifier: Apache-2.0
"""Numbered checks of a broker: each with a code, what was found, what to do, and where to read on.

    checks(place, clock=clock)      all of them, in this order; the console shows the same

- The order and the codes are stable; a check that cannot look has failed and says why.
- Nothing is changed, migrated or signed, and nobody but this machine and its name server is asked.
- Where the settings cannot be read nothing else can be looked at: there is one check then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.doctor import databases, folder, machine, names, served, upkeep
from broker.doctor.findings import Check, FailedError, looked
from broker.settings import Settings, settings_file
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.doctor.names import Resolve
    from broker.doctor.served import Ask
    from policies.ports import Clock

__all__ = ["Check", "FailedError", "checks"]

SETTINGS = "doctor.settings"


def checks(
    place: Path | Settings, *, clock: Clock, ask: Ask | None = None, resolve: Resolve | None = None
) -> tuple[Check, ...]:
    """Runs every check.

    Args:
        place: The broker's folder or settings file, or its settings.
        clock: What time it is.
        ask: How the port is asked; by default over TLS, as anybody would.
        resolve: How names are resolved; by default as this machine does.
    """
    try:
        settings = place if isinstance(place, Settings) else Settings.load(place)
    except IriaiError as error:
        return (
            Check(
                number=1,
                code=SETTINGS,
                ok=False,
                found=f"{error.need}; found {error.found}",
                remedy=error.remedy,
            ),
        )
    listed = (
        *_listed(settings, clock, ask or served.asking(settings)),
        ("doctor.name", lambda: names.resolves(settings, clock, resolve or names.system_resolve)),
    )
    return tuple(looked(number, code, look) for number, (code, look) in enumerate(listed, 1))


def _listed(settings: Settings, clock: Clock, ask: Ask) -> tuple[tuple[str, Callable[[], str]], ...]:
    return (
        (SETTINGS, lambda: f"{settings_file(settings.file)}, every name is known"),
        ("doctor.keys", lambda: folder.key_files(settings)),
        ("doctor.clock", lambda: folder.clock_fits(settings, clock)),
        ("doctor.tls", lambda: folder.tls(settings, clock)),
        ("doctor.expiry", lambda: folder.expiry(settings, clock)),
        ("doctor.packages", machine.package_names),
        ("doctor.versions", machine.versions),
        ("doctor.disk", lambda: machine.disk(settings)),
        ("doctor.fsync", lambda: machine.fsync(settings, clock)),
        ("doctor.synchronous", lambda: databases.synchronous(settings)),
        ("doctor.database", lambda: databases.integrity(settings)),
        ("doctor.migrations", lambda: databases.schema(settings)),
        ("doctor.log", lambda: databases.head(settings)),
        ("doctor.frozen", lambda: databases.frozen(settings)),
        ("doctor.contracts", lambda: upkeep.contracts(settings, clock)),
        ("doctor.backup", lambda: upkeep.backup(settings, clock)),
        ("doctor.restore", lambda: upkeep.restore(settings, clock)),
        ("console.vendored-changed", upkeep.vendored),
        ("doctor.port", lambda: served.answers(settings, ask)),
        ("doctor.flower", lambda: served.flower(ask)),
    )
