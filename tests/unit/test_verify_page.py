# SPDX-License-Identifier: Apache-2.0
"""The auditor's page: inert whatever a bundle says, complete, bounded, the same bytes each time."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.policy import Policy
from policies.verify.errors import InputError
from policies.verify.page import Made, write_page
from policies.verify.page.content import DETAILS, ROWS, SAMPLED
from policies.verify.page.controls import read_controls
from policies.verify.page.drawing import bars, path_drawing, steps_up
from policies.verify.page.markup import Html, Words, escaped, table
from policies.verify.page.verdict import unchecked_rules
from policies.verify.report import Report, Witnessed
from policies.verify.rules import RULES
from policies.verify.run import verify
from policies.verify.words import LANGUAGES, words
from tests.auditsim import PoolSim

SIM = PoolSim(eventful=True).build()
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>&\x1b[2J\u202e"
VOID = {"meta", "br", "rect", "path"}


def made(**changes) -> Made:
    told = {
        "bundle": ("audit.zip", "sha256:" + "0" * 64),
        "policy": ("policy.txt", "sha256:" + "1" * 64),
        "controls": read_controls(None),
        "seed": "",
        "sample": 25,
    }
    return Made(**(told | changes))


def audited(sim=SIM, policy: Policy | None = None):
    kept: list = []
    report = verify(sim.bundle(), policy or sim.policy, then=kept.append)
    return report, kept[0]


class Page(HTMLParser):
    """Well-formedness, tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def whole():
    return audited()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_has_ten_sections_no_script_and_loads_nothing(whole, lang) -> None:
    text = write_page(*whole, made(), lang)
    page = Page(text)
    assert page.tags.count("h1") == 1
    assert [value for tag, name, value in page.attributes if tag == "h2" and name == "id"] == [
        "contents",
        *(f"s{number}" for number in range(1, 11)),
    ]
    assert not {"script", "link", "img", "iframe", "object", "form", "input"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("src", "style")]
    hrefs = [value for _, name, value in page.attributes if name == "href"]
    assert all(one.startswith("#") for one in hrefs)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {one[1:] for one in hrefs} <= set(ids)
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert f'<html lang="{lang}">' in text


def test_every_table_has_column_heads_and_a_caption_and_every_drawing_a_title(whole) -> None:
    page = Page(write_page(*whole, made()))
    assert page.tags.count("caption") == page.tags.count("table") == page.tags.count("thead")
    heads = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert len(heads) == page.tags.count("th")
    labelled = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-labelledby")]
    titles = {value for tag, name, value in page.attributes if (tag, name) == ("title", "id")}
    assert labelled
    assert set(labelled) <= titles


def test_the_same_audit_gives_the_same_page(whole) -> None:
    assert write_page(*whole, made()) == write_page(*audited(), made())


def test_it_tells_the_history_by_names(whole) -> None:
    text = " ".join(Page(write_page(*whole, made())).text)
    for told in (
        "complete up to size",
        "update.norm (1)",
        "nord halted the contract",
        "org.approve",
        "4.907921",
    ):
        assert told in text
    assert "OK" not in text.split()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_texts_of_a_bundle_are_inert(whole, lang) -> None:
    _, history = whole
    hostile = Report(origin=HOSTILE, size=history.size, root=HOSTILE, remarks=[HOSTILE])
    hostile.add("AUD-031", HOSTILE, index=3)
    hostile.not_checked(HOSTILE)
    text = write_page(hostile, history, made(bundle=(HOSTILE, HOSTILE), seed=HOSTILE), lang)
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert all(one == "\n" or one.isprintable() for one in text)
    assert "&lt;script&gt;" in text
    assert any("<script>alert(1)</script>" in one for one in page.text)


def test_hostile_names_inside_the_history_are_inert() -> None:
    sim = PoolSim().build()
    report, history = audited(sim)
    for entry in list(history.entries.values()):
        for name, value in entry.pub.items():
            if isinstance(value, str) and not re.fullmatch(r"[0-9a-f]{16}|sha256:.*", value):
                entry.pub[name] = HOSTILE  # whatever a later version lets through
    for opened in history.opened.values():
        opened["lineage"] = HOSTILE
    text = write_page(report, history, made())
    assert not {"script", "img"} & set(Page(text).tags)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_bundle_that_cannot_be_read_gives_a_page_that_says_so() -> None:
    for report in (Report(untrusted="needs a key; found none"), Report()):
        report.add("AUD-001", "needs a bundle; found a picture")
        page = Page(write_page(report, None, made()))
        assert page.tags.count("section") == 10
        assert any("could not be read so far" in one for one in page.text)


def test_large_tables_are_cut_and_say_how_much_is_left() -> None:
    told = Words("en", words("en"))
    assert "7 more: --csv writes them all" in table(told, "x", ["a"], [["b"]], more=7)
    report, history = audited(PoolSim().build())
    for index in range(60):
        report.add("AUD-031", "x", index=index % 50)
    text = write_page(report, history, made(sample=60))
    details = set(re.findall(r'id="entry-(\d+)"', text))
    assert len(details) <= DETAILS + SAMPLED
    assert ROWS >= DETAILS
    assert "AUD-031: 10 more, counted and not shown" in text


def test_a_members_view_and_a_witnessed_one_are_told_apart(whole) -> None:
    _, history = whole
    report = Report(size=87, witnessed=Witnessed(have=3, voters=4, needed=3, time_s=1_796_500_000))
    text = write_page(report, history, made())
    assert "complete up to size 87, witnessed 3/4 at 2026-12-05T19:46:40Z (needed: 3)" in text
    assert "サイズ 87 まで完全、証人 3/4、2026-12-05T19:46:40Z(必要数 3)" in write_page(
        report, history, made(), "ja"
    )
    member = Report(size=87, grade="member")
    assert "NOT an audit" in write_page(member, history, made())


def test_paths_lead_to_the_root_in_trees_of_every_small_size() -> None:
    for size in range(1, 40):
        tree = MemoryTree(leaf_hash(bytes([number])) for number in range(size))
        for index in range(size):
            steps = steps_up(tree.leaf(index), index, size, tree.inclusion(index))
            assert (steps[-1].above if steps else tree.leaf(index)) == tree.root()
            drawing = path_drawing(tree.leaf(index), steps, title=HOSTILE, name="x")
            found = ET.fromstring(drawing)  # noqa: S314  our own
            assert len(found.findall("rect")) == 2 * len(steps) + 1


def test_bars_show_what_was_accepted_and_refused() -> None:
    drawn = bars([("1.1", 3, 0), ("2.1", 2, 1)], title="t", name="n", words=("yes", "no"))
    found = ET.fromstring(drawn)  # noqa: S314  our own
    assert len(found.findall("rect")) == 6
    assert bars([], title="t", name="n", words=("yes", "no")) == ""
    assert bars([("1.1", 0, 0)], title="t", name="n", words=("yes", "no")) == ""


def test_our_controls_name_only_rules_that_there_are() -> None:
    controls = read_controls(None)
    assert {rule for one in controls for rule in one.rules} <= set(RULES)
    assert {one.framework for one in controls} == {"SOC 2 (TSC 2017)", "OWASP AISVS 1.0", "EU AI Act"}
    assert all(set(one.asks) == set(LANGUAGES) for one in controls)


def test_controls_of_the_auditors_own_take_their_place(whole) -> None:
    own = {
        "framework": "House",
        "control": "H<1>",
        "en": "a",
        "ja": "b",
        "rules": ["AUD-020", "AUD-999", "AUD-016"],
    }
    text = write_page(*whole, made(controls=read_controls(json.dumps({"v": 1, "controls": [own]}))))
    assert "H&lt;1&gt;" in text
    assert "no finding; not or partly checked: AUD-999 AUD-016" in text
    assert "SOC 2" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"v":2,"controls":[]}',
        '{"v":1,"controls":{}}',
        '{"v":1,"controls":[{"framework":"a"}]}',
        '{"v":1,"controls":[{"framework":"a","control":"b","en":"c","ja":1,"rules":[]}]}',
        '{"v":1,"controls":[{"framework":"a","control":"b","en":"c","ja":"d","rules":["X"]}]}',
        '{"v":1,"controls":[{"framework":"a","control":"b","en":"c","ja":"d","rules":[["AUD-001"]]}]}',
        "[" * 100_000,
    ],
)
def test_controls_of_another_form_are_refused(text) -> None:
    with pytest.raises(InputError):
        read_controls(text)


def test_gaps_are_read_from_what_was_not_checked() -> None:
    report = Report()
    report.not_checked("AUD-012, 017, 018: no witness")
    report.not_checked("AUD-059: epsilon (AUD-060 to 063)")
    report.not_checked("cosignatures of 123")
    assert unchecked_rules(report) == {"AUD-012", "AUD-017", "AUD-018", "AUD-059"}


def test_markup_is_escaped_once_and_only_once() -> None:
    assert escaped("<b>") == "&lt;b&gt;"
    assert escaped(Html("<b>")) == "<b>"


def part(text: str, number: int) -> str:
    """Text of one section."""
    return text.partition(f'<h2 id="s{number}"')[2].partition("<h2 ")[0]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_release_without_privacy_is_said_beside_the_verdict_and_in_the_ledger(whole, lang) -> None:
    _, history = whole
    loud = Report(size=history.size, facts={"privacy": "NOT PRIVATE"})
    text = write_page(loud, history, made(), lang)
    for number in (1, 4):
        assert re.search(r'class="verdict refused">NOT PRIVATE', part(text, number))
    quiet = Report(size=history.size, facts={"privacy": "PRIVATE"})
    assert "NOT PRIVATE" not in part(write_page(quiet, history, made(), lang), 4)
    assert words(lang)["privacy_none"] in part(write_page(Report(size=1), history, made(), lang), 1)


def test_a_ledger_without_spends_says_why(whole, monkeypatch) -> None:
    report, history = whole
    monkeypatch.setattr(sys.modules["policies.verify.page.ledger"], "newest", lambda *_: ([], 0))
    assert "No budget was spent in this log." in part(write_page(report, history, made()), 4)
    loud = Report(size=history.size, facts={"privacy": "NOT PRIVATE"})
    assert "No budget was spent" not in part(write_page(loud, history, made()), 4)


def test_attempts_name_their_run_and_the_drawing_says_which_it_shows(whole, monkeypatch) -> None:
    text = part(write_page(*whole, made()), 3)
    assert ">Run</th>" in text
    assert "the last" not in text
    monkeypatch.setattr(sys.modules["policies.verify.page.rounds"], "_BARS", 1)
    assert "Contributions per attempt, the last 1 of " in part(write_page(*whole, made()), 3)


def test_a_finding_for_review_is_no_error_under_controls(whole) -> None:
    _, history = whole
    report = Report(size=history.size)
    own = {"framework": "House", "control": "H1", "en": "a", "ja": "b", "rules": ["AUD-076", "AUD-020"]}
    controls = read_controls(json.dumps({"v": 1, "controls": [own]}))
    report.add("AUD-076", "x")
    text = write_page(report, history, made(controls=controls))
    assert '<b class="sev review">1 finding for review</b>' in text
    report.add("AUD-020", "x")
    text = write_page(report, history, made(controls=controls))
    assert '<b class="sev error">1 finding, 1 finding for review</b>' in text


def test_how_many_receipts_were_checked_is_told_by_grade() -> None:
    report = Report(size=1, facts={"receipts": 3, "receipts_by_grade": {"witnessed": 2}})
    assert "2 of 3 given were checked: witnessed 2, signed 0" in write_page(report, None, made())
