# SPDX-License-Identifier: Apache-2.0
"""Panels whose sources may fail: then the panel says so, with the code, and the rest of the page stays.

    shown("state", msg("State"), lambda: Panel(name="state", ...))

A source that is missing is not an empty one: what could not be read is never shown as "none".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from client.page.errors import SourceError
from client.page.values import Panel, Problem
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client.page.reading import Site
    from client.page.values import Text

__all__ = ["ROWS", "Asked", "heard", "problem_of", "shown"]

ROWS: Final = 50  # of a table of which there may be many pages
_CURSOR_DIGITS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an address asks for: the filters in it, the language, and the name that its path ends in."""

    query: Mapping[str, str]
    lang: str = "en"
    name: str = ""

    def cursor(self) -> int | None:
        """Before which row; None for the newest."""
        text = self.query.get("before", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _CURSOR_DIGITS else None

    def text(self, name: str) -> str | None:
        """A filter; None where it is not there, or empty."""
        return self.query.get(name) or None


def problem_of(error: IriaiError) -> Problem:
    """A refusal as it is shown."""
    return Problem(
        code=error.code, need=error.need, found=error.found, remedy=error.remedy, clause=error.clause
    )


def shown(name: str, title: Text, make: Callable[[], Panel]) -> Panel:
    """A panel, or why there is none."""
    try:
        return make()
    except IriaiError as error:
        return Panel(name=name, title=title, problem=problem_of(error))
    except Exception as error:  # noqa: BLE001  the edge of a panel: a file of another form costs no page
        told = SourceError(
            need="a source of this panel that can be read",
            found=type(error).__name__,
            remedy="iriai-node doctor; if it repeats, report the code and the type",
        )
        return Panel(name=name, title=title, problem=problem_of(told))


def heard(site: Site, path: str, panel: Panel) -> Panel:
    """A panel of what the broker said: with its time, and with the error where it says nothing newer."""
    error = site.heard.error(path)
    found = None if error is None else problem_of(error)
    return replace(panel, as_of=site.heard.moment(path), problem=found)
