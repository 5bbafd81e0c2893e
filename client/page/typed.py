# SPDX-License-Identifier: Apache-2.0
"""Commands that a screen shows, such that they can be typed as they stand: about this node, whichever it is.

Screens say ``iriai-node data list``; the page was started for one folder, and its commands name it.

    typed(screen, say)        # every command, remedy and sentence of a program went through ``say``
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from client.page.values import Command, Problem, Screen, Spoken

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["typed"]

Shown = TypeVar("Shown")


def typed(shown: Shown, say: Callable[[str], str]) -> Shown:
    """The same value, screen or problem, its commands completed."""
    return shown if say is str else _typed(shown, say)


def _typed(shown: Any, say: Callable[[str], str]) -> Any:  # noqa: ANN401, PLR0911  any part of a screen
    match shown:
        case Command(line):
            return Command(say(line))
        case Spoken(text):
            return replace(shown, text=say(text))
        case Problem():
            return replace(shown, need=say(shown.need), remedy=say(shown.remedy))
        case dict():
            return {name: _typed(one, say) for name, one in shown.items()}
        case tuple():
            return tuple(_typed(one, say) for one in shown)
    if not is_dataclass(shown) or isinstance(shown, type):
        return shown
    found = {one.name: _typed(getattr(shown, one.name), say) for one in fields(shown)}
    if isinstance(shown, Screen):
        found["command"] = say(shown.command)
    return replace(shown, **found)
