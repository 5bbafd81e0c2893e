# SPDX-License-Identifier: Apache-2.0
"""The report of a data set as one HTML file for its owner: no script, no foreign request.

The verdict first, then the twelve checks, then every finding with a picture of the place: which joint froze,
where stamps jump, which two paths are the same. It shows what was recorded, so it stays on the site.

    write_page(report, Path("quality.html"), "ja")
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from client.data.quality.accepted import ANSWERABLE, is_answered
from client.data.quality.checks import EXCLUDING
from client.data.quality.finding import CHECKS
from client.data.quality.page.drawing import drawing
from policies.quality_certificate import RULES
from policies.verify.page.markup import Html, Words, code, escaped, facts, join, para, table, tag
from policies.verify.shown import brief

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.data.quality.finding import CheckName, Finding
    from client.data.quality.report import QualityReport

__all__ = ["page_of", "parts_of", "words_of", "write_page"]

_NAMED: Final = 5  # episodes that a finding names; the others are counted


def write_page(report: QualityReport, path: Path, lang: str = "en") -> Path:
    """Writes the page; returns its path.

    Args:
        report: Of `client.data.quality.check_dataset`.
        path: File to write.
        lang: ``en`` or ``ja``.
    """
    path.write_text(page_of(report, lang), encoding="utf-8")
    return path


def page_of(report: QualityReport, lang: str = "en") -> str:
    """The page as text."""
    words = Words(lang, _words()[lang])
    style = files("policies.verify.page").joinpath("page.css").read_text("utf-8")
    own = files("client.data.quality.page").joinpath("page.css").read_text("utf-8")
    return (
        files("client.data.quality.page")
        .joinpath("page.html")
        .read_text("utf-8")
        .replace("$lang", escaped(lang))
        .replace("$title", escaped(words["title"]))
        .replace("$style", style + own)
        .replace(
            "$body",
            join(
                (
                    _head(report, words),
                    _checks(report, words),
                    _found(report, words),
                    _ratios(report, words),
                    _foot(report, words),
                )
            ),
        )
    )


def parts_of(report: QualityReport, lang: str = "en") -> Html:
    """Checks and findings with their pictures, for a page that has a head and a style of its own."""
    words = Words(lang, _words()[lang])
    return join((_checks(report, words), _found(report, words)))


def words_of(lang: str) -> Mapping[str, str]:
    """The words of the page by their names, for others who say the same."""
    return _words()[lang]


@cache
def _words() -> dict[str, dict[str, str]]:
    text = files("client.data.quality.page").joinpath("words.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def _head(report: QualityReport, words: Words) -> Html:
    kind = "clear" if report.verdict == "admitted" else "refused"
    cards = (
        (report.episodes, "episodes"),
        (report.episodes - len(report.excluded), "usable"),
        (len(report.excluded), "excluded"),
        (report.frames, "frames"),
    )
    return join(
        (
            tag("h1", words["title"]),
            para(words.fill("of", dataset=report.dataset), class_="origin"),
            para(words["stays"], class_="soft"),
            para(words[report.verdict], class_=f"verdict {kind}"),
            tag("ul", *(tag("li", words[f"reason_{one}"]) for one in report.reasons))
            if report.reasons
            else Html(""),
            tag(
                "ul",
                *(tag("li", tag("b", f"{count:,}"), tag("span", words[name])) for count, name in cards),
                class_="cards",
            ),
        )
    )


def _checks(report: QualityReport, words: Words) -> Html:
    rows = [
        (
            str(number),
            words[f"check_{name}"],
            _state(words, report.states[name]),
            str(_failing(report, name) or ""),
            words[f"means_{name}"],
            words[f"effect_{_effect(name)}"],
        )
        for number, name in enumerate(CHECKS, 1)
    ]
    heads = [words[f"col_{one}"] for one in ("no", "check", "state", "fails", "means", "effect")]
    made = table(words, words["checks_caption"], heads, rows, class_="checks")
    return join((tag("h2", words["checks_head"]), made, para(words["state_note"], class_="soft")))


def _failing(report: QualityReport, name: CheckName) -> int:
    return len(
        {
            one
            for found in report.findings
            if found.check == name and found.state == "FAIL"
            for one in found.episodes
        }
    )


def _effect(name: CheckName) -> str:
    if name in EXCLUDING:
        return "exclude"
    return "refuse" if name == "personal" else "person" if name in ANSWERABLE else "warn"


def _state(words: Words, state: str) -> Html:
    return tag("span", words[state], class_=f"state {state.lower()}")


def _found(report: QualityReport, words: Words) -> Html:
    parts: list[Html] = [tag("h2", words["findings_head"])]
    if not report.findings:
        parts.append(para(words["none_found"]))
    for number, name in enumerate(CHECKS, 1):
        mine = [one for one in report.findings if one.check == name]
        if mine:
            parts.append(tag("h3", f"{number}  {words[f'check_{name}']}"))
            parts += [
                _group(report, words, mine, why)
                for why in dict.fromkeys((one.why, one.state) for one in mine)
            ]
    return tag("section", join(parts))


def _group(report: QualityReport, words: Words, found: list[Finding], kind: tuple[str, str]) -> Html:
    """Findings of one reason: what it means, whose answer there is, pictures, the episodes."""
    same = [one for one in found if (one.why, one.state) == kind]
    names = list(dict.fromkeys(name for one in same for name in one.episodes))
    parts = [para(_state(words, kind[1]), " ", words.told.get(f"why_{kind[0]}", kind[0]))]
    if same[0].check in ANSWERABLE and kind[1] == "FAIL":
        parts.append(_answer(report, words, same[0]))
    parts += [
        _picture(report, words, number)
        for number, one in enumerate(report.pictures)
        if (one.finding.check, one.finding.why, one.finding.state) == (same[0].check, *kind)
    ]
    if same[0].figures and not _drawn(report, same[0]):
        parts.append(
            facts((words.told.get(f"fig_{key}", key), value) for key, value in same[0].figures.items())
        )
    if len(names) > len([one for one in report.pictures if one.finding.check == same[0].check]):
        shown = join((code(name) for name in names[:_NAMED]), " ")
        more = f" {words.fill('also', count=len(names) - _NAMED)}" if len(names) > _NAMED else ""
        parts.append(para(words["episode"], ": ", shown, more, class_="soft"))
    return tag("div", join(parts), class_="entry")


def _drawn(report: QualityReport, finding: Finding) -> bool:
    return any(
        (one.finding.check, one.finding.why) == (finding.check, finding.why) for one in report.pictures
    )


def _answer(report: QualityReport, words: Words, finding: Finding) -> Html:
    if not is_answered(finding, report.accepted):
        return para(words["open"])
    answer = next(one for one in report.accepted if is_answered(finding, (one,)))
    return para(words.fill("answered", by=answer.by, at=answer.at))


def _picture(report: QualityReport, words: Words, number: int) -> Html:
    picture = report.pictures[number]
    finding, trace = picture.finding, picture.trace
    told = [words.told.get(f"line_{trace.title}", trace.title)]
    if finding.place is not None and finding.check != "idle":
        told.append(
            words.fill(
                "frames_at", first=finding.place.first, last=max(finding.place.last - 1, finding.place.first)
            )
        )
    told += [f"{words.told.get(f'fig_{key}', key)} {value}" for key, value in finding.figures.items()]
    title = f"{words[f'check_{finding.check}']}: {told[0]}"
    names = (
        join((code(name) for name in finding.episodes[:2]), " / ")
        if len(finding.episodes) < _NAMED
        else Html("")
    )
    caption = tag("figcaption", names, Html(" " if names else ""), " · ".join(told))
    return tag("figure", drawing(trace, words, name=f"t{number}", title=title), caption)


def _ratios(report: QualityReport, words: Words) -> Html:
    if not report.ratios:
        return Html("")
    rows = [
        (
            one.feature,
            str(one.part),
            one.as_dict()["scale"],
            one.as_dict()["spread"],
            one.as_dict()["ratio"],
            tag(
                "span",
                words["wide" if one.warns else "fine"],
                class_=f"state {'fail' if one.warns else 'pass'}",
            ),
        )
        for one in report.ratios
    ]
    heads = [words[f"col_{one}"] for one in ("feature", "part", "scale", "spread", "ratio")] + [""]
    made = table(words, words["ratios_caption"], heads, rows, class_="text")
    return join((tag("h2", words["ratios_head"]), para(words["ratios_note"]), made))


def _foot(report: QualityReport, words: Words) -> Html:
    told = words.fill("footer", rules=RULES, thresholds=brief(report.thresholds), lineage=report.lineage)
    return para(told, class_="soft")
