# SPDX-License-Identifier: Apache-2.0
"""The demo's two results: ``report.json`` for programs, ``report.html`` for people."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sandbox.charts import Bar, Group, bar_chart, cell_map, timeline
from sandbox.claims import rests_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["losses", "write_report"]

_STAGES = (("local", "alone"), ("common", "common"), ("individual", "individual"))


def losses(success: Mapping[str, Any]) -> dict[str, str]:
    """Party → where pooling does worse than what it has alone; empty text if nowhere."""
    found = {}
    for party in success["local_own"]["per_party"]:
        worse = []
        for column, words in (
            ("common_own", "common model at home"),
            ("individual_own", "individual model at home"),
            ("common_others", "common model elsewhere"),
            ("individual_others", "individual model elsewhere"),
        ):
            alone = success[f"local_{column.split('_')[1]}"]["per_party"][party]["mean"]
            gap = success[column]["per_party"][party]["mean"] - alone
            if gap < 0:
                worse.append(f"{words} ({gap:+.0%})")
        found[party] = ", ".join(worse)
    return found


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes both files; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_html = folder / "report.json", folder / "report.html"
    as_json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    as_html.write_text(_html(report), "utf-8")
    return as_json, as_html


def _html(report: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from sandbox.cells import CELLS

    success, parties = report["success"], list(report["parties"])
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = env.from_string(files("sandbox").joinpath("report.html.j2").read_text("utf-8"))

    def chart(groups: list[Group], title: str) -> Markup:
        return Markup(bar_chart(groups, title=title))  # noqa: S704  built from figures, texts escaped there

    windows = [(f"{party}, cell {cell}", *CELLS[cell].object_x_m) for party, cell in report["cells"].items()]
    return page.render(
        report=report,
        parties=parties,
        pct=lambda value: f"{value:.0%}",
        losses=losses(success),
        rests_on=rests_on,
        overview=chart(
            [
                _group(success, place, caption)
                for place, caption in (("own", "own cell"), ("others", "the others' cells"))
            ],
            "Success over all makers, own cell and the others' cells",
        ),
        own=chart(
            [_party_group(success, "own", one) for one in parties], "Success per maker in its own cell"
        ),
        others=chart(
            [_party_group(success, "others", one) for one in parties],
            "Success per maker in the others' cells",
        ),
        cell_map=Markup(cell_map(windows, title="Where the parts of each cell lie")),  # noqa: S704
        phases=Markup(timeline([tuple(one) for one in report["phases"]], title="Seconds per phase")),  # noqa: S704
    )


def _bar(rate: Mapping[str, Any], kind: str, label: str) -> Bar:
    low, high = rate["interval"]
    return Bar(label=label, kind=kind, mean=rate["mean"], low=low, high=high)


def _group(success: Mapping[str, Any], place: str, caption: str) -> Group:
    bars = [_bar(success[f"{stage}_{place}"], stage, f"{words}, {caption}") for stage, words in _STAGES]
    return Group(caption=caption, bars=bars)


def _party_group(success: Mapping[str, Any], place: str, party: str) -> Group:
    bars = [
        _bar(success[f"{stage}_{place}"]["per_party"][party], stage, f"{party}, {words}")
        for stage, words in _STAGES
    ]
    return Group(caption=f"{party}, {'own' if place == 'own' else 'others'}", bars=bars)
