# SPDX-License-Identifier: Apache-2.0
"""``iriai-node config``: every setting in force, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.cli.options import command, group

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["config"]

config = group("Settings in force: environment, file, default.")


@command(config, "show")
def config_show(home: Home) -> Answer:
    """Every setting with its value and its source; secrets are files, never settings."""
    from client import layers

    return layers.config_show(home)


@command(config, "check")
def config_check(home: Home) -> Answer:
    """Whether file and environment can be used; a name that does not exist is an error (exit 2)."""
    from client import layers

    return layers.config_check(home)
