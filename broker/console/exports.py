# SPDX-License-Identifier: Apache-2.0
"""A screen for programs: the same facts as JSON, a table of it as CSV. Independent of the reader's language.

{"screen": "members", "at": "2026-…", "facts": {"list": {"enrolled": {"value": 4, "as_of": null}}},
 "tables": {"members": [{"org": "org_…", …}]}, "more": {"members": {"after": "…"}}, "errors": {}}
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from broker.console.values import plain
from policies.ports import iso_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.console.screens import Panel, Screen, Table
    from policies.encoding import Json

__all__ = ["as_csv", "as_json", "tables_of"]

_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r")


def tables_of(panels: tuple[Panel, ...] | list[Panel]) -> Iterator[Table]:
    """Every table of the panels, those behind pictures too."""
    for panel in panels:
        if panel.table is not None:
            yield panel.table
        if panel.drawing is not None:
            yield panel.drawing.table


def as_json(name: str, screen: Screen, now_ms: int) -> dict[str, Json]:
    """Everything that the screen shows."""
    panels = list(screen.panels)
    return {
        "screen": name,
        "at": iso_ms(now_ms),
        "facts": {panel.name: _facts(panel) for panel in panels if panel.facts},
        "prose": {panel.name: [plain(one) for one in panel.prose] for panel in panels if panel.prose},
        "tables": {one.name: _rows(one) for one in tables_of(panels)},
        "more": {one.name: dict(one.more) for one in tables_of(panels) if one.more},
        "errors": {panel.name: panel.error.as_dict() for panel in panels if panel.error is not None},
    }


def as_csv(table: Table) -> str:
    """A table as CSV with a head; cells that a spreadsheet would calculate are escaped with ``'``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    names = [one.name for one in table.columns]
    writer.writerow(names)
    for row in table.rows:
        writer.writerow([_cell(plain(row[name])) if name in row else "" for name in names])
    return out.getvalue()


def _facts(panel: Panel) -> dict[str, Json]:
    return {
        one.name: {
            "value": plain(one.value),
            "as_of": None if one.as_of_ms is None else iso_ms(one.as_of_ms),
        }
        for one in panel.facts
    }


def _rows(table: Table) -> list[Json]:
    return [{name: plain(value) for name, value in row.items()} for row in table.rows]


def _cell(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "hidden by " + str(value.get("hidden_by"))
    text = str(value)
    return "'" + text if isinstance(value, str) and text.startswith(_DANGEROUS) else text
