# SPDX-License-Identifier: Apache-2.0
"""A unit of systemd for a broker: a user of its own, a folder of its own, and little else.

- ``DynamicUser`` and ``StateDirectory``: the broker's folder is ``/var/lib/iriai-broker``, for it alone.
- The settings file is root's, and is read only.
- A secret of somebody else's (a password file of PostgreSQL) comes by ``LoadCredential``: systemd reads it as
  root and shows it to this service alone.
- ``Type=notify`` and ``WatchdogSec``: the broker says when it serves, and that it lives (`broker.lifesign`).
  One that hangs is ended and started anew. A first start reads the whole log, and may take long.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broker.settings import Settings

__all__ = ["unit_of"]

_STATE: Final = "/var/lib/iriai-broker"
_CREDENTIALS: Final = "/run/credentials/iriai-broker.service"
_PRIVILEGED_BELOW: Final = 1024

_UNIT: Final = """\
[Unit]
Description=iriai broker {origin}
Documentation=https://iriai.example/docs/how-to/operator
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=120
TimeoutStartSec=900
ExecStart={program} serve --config {config}
Environment=IRIAI_BROKER__DIR={state}
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
LimitNOFILE=65536
{credentials}
DynamicUser=yes
StateDirectory=iriai-broker
StateDirectoryMode=0700
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged

[Install]
WantedBy=multi-user.target
"""


def unit_of(settings: Settings, *, program: str) -> str:
    """The unit's text.

    Args:
        settings: Of the broker.
        program: How this program was started; made absolute where it is a file.
    """
    path = Path(program)
    started = str(path.absolute()) if path.is_file() else "/usr/bin/env iriai-broker"
    more = [f"ReadWritePaths={one}" for one in _elsewhere(settings)]
    return _UNIT.format(
        origin=settings.origin,
        program=started,
        config=settings.file.absolute(),
        state=_STATE,
        credentials="\n".join([*_credentials(settings), *more]) + "\n",
        capabilities="CAP_NET_BIND_SERVICE" if settings.listen_port < _PRIVILEGED_BELOW else "",
    )


def _credentials(settings: Settings) -> list[str]:
    """A line for each file of a secret that a setting names in the folder of credentials."""
    urls = (settings.database_url or "", settings.private_db_url or "", settings.oidc.client_secret_file)
    named = sorted(
        {one.partition(f"{_CREDENTIALS}/")[2].partition("&")[0] for one in urls if _CREDENTIALS in one}
    )
    if not named:
        return [
            f"# a password of PostgreSQL: ?passfile={_CREDENTIALS}/pgpass in the URL, and",
            "# LoadCredential=pgpass:/etc/iriai/pgpass",
        ]
    return [f"LoadCredential={name}:/etc/iriai/{name}" for name in named]


def _elsewhere(settings: Settings) -> list[Path]:
    """Folders outside the state's own in which databases lie."""
    paths = (settings.signer_db, settings.private_db)
    found = {one.parent.absolute() for one in paths if one is not None}
    return sorted(one for one in found if not one.is_relative_to(_STATE))
