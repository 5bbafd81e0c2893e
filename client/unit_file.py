# SPDX-License-Identifier: Apache-2.0
"""A systemd unit that keeps a node's worker running and shuts it in.

- The node's folder is the only place that the unit may write to; the rest of the system is read-only to it.
- No secret is in the unit or in the environment: child processes inherit that. Keys are files of the folder.
- ``Type=notify`` and ``WatchdogSec``: the node says that it is there, and that it lives (`client.lifesign`);
  one that hangs is ended and started anew. The worker is another process of the same unit, and says it too.
- Device access stays open where a GPU is used: ``PrivateDevices`` would hide it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from client.answers import Answer
from client.errors import SettingsError

if TYPE_CHECKING:
    from client.settings import Home

__all__ = ["print_unit", "unit_text"]

_WORDS = " \t\n\"'%\\$"  # what systemd would read as something else


def unit_text(home: Home, *, program: Path, user: str) -> str:
    """The unit's text.

    Args:
        home: Of the node; absolute paths are written.
        program: The ``iriai-node`` that is started.
        user: Account that the folder belongs to.

    Raises:
        SettingsError: A path or a name holds what systemd reads as something else.
    """
    root = home.root.absolute()
    line = [
        str(program),
        "run",
        *(one if one.startswith("-") else str(Path(one).absolute()) for one in home.options),
    ]
    for word in (*line, user, str(root)):
        if any(char in word for char in _WORDS):
            raise SettingsError(
                need="paths and a user without blanks, quotes, % and $",
                found=word[:80],
                remedy="move the node's folder to a plain path, then print the unit again",
            )
    return f"""[Unit]
Description=iriai node in {root}
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=all
WatchdogSec=300
ExecStart={" ".join(line)}
User={user}
Restart=on-failure
RestartSec=10
# exits that a person has to look at first: usage, identity, needs a human
RestartPreventExitStatus=2 6 7
KillSignal=SIGTERM
TimeoutStopSec=60
UMask=0077
ReadWritePaths={root}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ProtectClock=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def print_unit(home: Home, *, user: str) -> Answer:
    """The unit for this node, with the command that is installed here.

    Raises:
        SettingsError: As `unit_text`.
    """
    program = Path(sys.executable).with_name("iriai-node")
    text = unit_text(home, program=program, user=user)
    return Answer(
        data={"unit": text, "name": "iriai-node.service", "user": user},
        text=(
            "next, as root: put this into /etc/systemd/system/iriai-node.service, then",
            "  systemctl daemon-reload && systemctl enable --now iriai-node.service",
        ),
        document=text,
    )
