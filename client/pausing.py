# SPDX-License-Identifier: Apache-2.0
"""The owner's pause: from the moment it is written nothing is trained or judged, also by a running worker.

Every request reads the settings again (`client.guard.Guard`), so that no process has to be told:

    set_paused(home, paused=True)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from client.answers import Answer
from client.settings import load_settings, save_settings

if TYPE_CHECKING:
    from client.settings import Home

__all__ = ["set_paused"]


def set_paused(home: Home, *, paused: bool, dry_run: bool = False) -> Answer:
    """Pauses, or ends a pause; with ``dry_run`` says what would be, and changes nothing."""
    settings = load_settings(home.need(), {})
    was = settings.local.paused
    if dry_run:
        words = ("is" if was == paused else "would be") + (" paused" if paused else " not paused")
        data = {"dry_run": True, "paused": was, "would_be": paused}
        return Answer(data=data, text=(f"this node {words}; nothing was changed",))
    save_settings(home, replace(settings, local=replace(settings.local, paused=paused)))
    words = "paused: nothing is trained or judged until `iriai-node resume`" if paused else "not paused"
    return Answer(data={"paused": paused}, text=(words,))
