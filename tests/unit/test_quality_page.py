# SPDX-License-Identifier: Apache-2.0
"""The page of a report: self-contained, in both languages, with a picture of every defect; no text gets in as markup."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from client.data.quality import QualityReport, accept, check_dataset, write_page
from client.data.quality.finding import CHECKS
from client.data.quality.page.drawing import _Scale
from client.data.quality.ratios import Ratio
from client.data.quality.traces import POINTS
from tests.qualitysim import SimClock, arm, changed, imported, planted

NAME = "kita/pick"
PLANTED = ("time", "jumps", "limits", "lag", "idle")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> QualityReport:
    tmp = tmp_path_factory.mktemp("page")
    frozen, gap, near = arm(40), arm(41), arm(1)
    position = frozen.columns["observation.joint_pos"].copy()
    position[:, 2] = position[0, 2]
    lacking = gap.columns["observation.joint_pos"].copy()
    lacking[50:70, 1] = np.nan
    close = near.columns["observation.joint_pos"] + np.float32(1e-4)
    episodes = [
        *(arm(i) for i in range(1, 9)),
        *(planted(one, arm(20 + at)) for at, one in enumerate(PLANTED)),
        changed(frozen, "observation.joint_pos", position),
        changed(gap, "observation.joint_pos", lacking),
        changed(near, "observation.joint_pos", close),
        arm(50, frames=900),
    ]
    root, _ = imported(tmp, episodes)
    accept(
        root,
        NAME,
        check_dataset(root, NAME).findings,
        10,
        by="A. <b>Sato</b>",
        clock=SimClock(),
        sealed=False,
    )
    return check_dataset(root, NAME)


class Tags(HTMLParser):
    """Which tags there are, and that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_page_stands_alone_and_draws_every_defect(
    report: QualityReport, tmp_path: Path, lang: str
) -> None:
    text = write_page(report, tmp_path / "q.html", lang).read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert tags.targets == []
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text
    assert tags.seen["svg"] == len(report.pictures)
    drawn = {one.finding.check for one in report.pictures}
    assert drawn == {"schema", "frozen", *PLANTED, "duplicates", "lengths"}
    assert f'lang="{lang}"' in text
    assert "<b>Sato</b>" not in text
    assert "&lt;b&gt;Sato&lt;/b&gt;" in text


def test_a_clean_data_set_has_a_short_page(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i) for i in range(9)])
    text = write_page(check_dataset(root, NAME), tmp_path / "q.html").read_text()
    assert "Admitted" in text
    assert "No check failed" in text


def test_both_languages_have_every_word_that_the_checks_say() -> None:
    words = json.loads(files("client.data.quality.page").joinpath("words.json").read_text("utf-8"))
    assert set(words["en"]) == set(words["ja"])
    assert all(f"{kind}_{name}" in words["en"] for name in CHECKS for kind in ("check", "means"))
    sources = "".join(
        one.read_text("utf-8") for one in files("client.data.quality").iterdir() if one.name.endswith(".py")
    )
    for why in set(re.findall(r'why="([a-z-]+)"', sources)) - {
        "no-joints",
        "no-limits",
        "no-actions",
        "no-bound",
    }:
        known = f"why_{why}" in words["en"]
        assert known or why in ("no-motion-channel", "no-joint-position", "no-path"), why


def test_every_figure_has_a_name(report: QualityReport) -> None:
    words = json.loads(files("client.data.quality.page").joinpath("words.json").read_text("utf-8"))["en"]
    for one in report.findings:
        assert all(f"fig_{name}" in words for name in one.figures), one


def test_a_missing_stretch_is_a_break_and_a_long_line_keeps_its_spikes(report: QualityReport) -> None:
    lines = {one.finding.check: one.trace.lines for one in report.pictures}
    assert any(math.isnan(one) for line in lines["schema"] for one in line.y)
    assert all(len(line.x) <= POINTS + 2 for one in lines.values() for line in one)
    assert max(lines["time"][0].y) > 49


def test_scales_are_told_apart_from_fine_ones(report: QualityReport, tmp_path: Path) -> None:
    from dataclasses import replace

    ratios = (
        Ratio(feature="raw tcp_pos", part=0, scale=1.0, spread=0.1),
        Ratio(feature="f", part=1, scale=1, spread=0.0),
    )
    text = write_page(replace(report, ratios=ratios), tmp_path / "q.html").read_text()
    assert text.count("too wide") == 2
    assert "inf" in text


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 3.0), (5.0, 5.0), (0.0, 0.0), (-1e-12, 1e-12), (9_000.0, 12_000.0)]
)
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    scale = _Scale(low, high, 0, 100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(scale.low - 1e-9 <= one <= scale.high + 1e-9 for one in ticks)
    assert all(0 <= scale(one) <= 100 for one in ticks)
