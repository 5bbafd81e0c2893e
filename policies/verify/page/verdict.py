# SPDX-License-Identifier: Apache-2.0
"""Sections 1 and 2: the verdict with what it rests on, the findings, and what they mean for controls."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from policies.privacy.statement import NOT_PRIVATE
from policies.verify.page.content import section
from policies.verify.page.markup import Html, code, escaped, facts, items, join, link, para, table, tag
from policies.verify.report import EXIT_CLEAN, EXIT_REVIEW, FINDINGS_PER_RULE, Witnessed, rules_of
from policies.verify.rules import RULES
from policies.verify.toolid import tool_digest, tool_version
from policies.verify.words import checks_of, hand_of

if TYPE_CHECKING:
    from policies.verify.page.content import Page
    from policies.verify.page.controls import Control
    from policies.verify.report import Finding, Report

__all__ = ["findings", "privacy_note", "unchecked_rules", "verdict"]


def verdict(page: Page) -> Html:
    """Section 1."""
    report, words = page.report, page.words
    state = {EXIT_CLEAN: "clear", EXIT_REVIEW: "review"}.get(report.exit_code, "refused")
    witnessed = report.witnessed or Witnessed(have=0, voters=0, needed=0)
    unknown = words["unknown"]
    cards = [
        (unknown if report.size is None else report.size, words["entries"]),
        (sum(report.counts.values()), words["findings"]),
        (
            f"{witnessed.have} / {witnessed.voters}" if witnessed.voters else words["nothing"],
            words["witnesses"],
        ),
        (_span(page), words["time_span"]),
    ]
    gaps = report.gaps
    told: list[object] = [
        para(report.verdict_in(words.lang), class_=f"verdict {state}"),
        *privacy_note(page),
        tag("ul", *(tag("li", tag("b", one), tag("span", name)) for one, name in cards), class_="cards"),
        tag("h3", words["not_checked"]),
        _own_words(page) if gaps else Html(""),
        items(gaps) if gaps else para(words["not_checked_none"]),
    ]
    computed = report.facts.get("recomputed", ())
    for key, lines in (("remarks", report.remarks), ("recomputed", computed)):
        if lines:
            told += [tag("h3", words[key]), _own_words(page), items(lines)]
    told += [tag("h3", words["figures"]), facts(_basis(page))]
    return section(words, 1, *told)


def privacy_note(page: Page) -> list[Html]:
    """That a released model has no promise of privacy, where it is so: as loud as the verdict."""
    if page.report.facts.get("privacy") != NOT_PRIVATE:
        return []
    return [para(page.report.privacy_in(page.words.lang), class_="verdict refused")]


def _own_words(page: Page) -> Html:
    """Says that what follows is not in the language of the page, where it is not."""
    return Html("") if page.words.lang == "en" else para(page.words["english_note"], class_="soft")


def _span(page: Page) -> Html | str:
    """Time of the first and of the last entry that can be read."""
    if page.history is None or not page.history.size:
        return page.words["unknown"]
    entries = page.history.entries
    first, last = entries.get(0), entries.get(page.history.size - 1)
    shown = [page.words["unknown"] if one is None else one.ts[:10] for one in (first, last)]
    return tag("span", escaped(shown[0]), Html("<br>"), escaped(shown[1]), class_="span")


def _basis(page: Page) -> list[tuple[object, object]]:
    report, words, made = page.report, page.words, page.made
    since = report.facts.get("since")
    return [
        (words["origin"], code(report.origin or words["unknown"])),
        (words["full_root"], code(report.root or words["unknown"])),
        (words["witnesses"], (report.witnessed or Witnessed(have=0, voters=0, needed=0)).text(words.lang)),
        (words["grade"], report.grade),
        (words["privacy"], report.privacy_in(words.lang) or words["privacy_none"]),
        (words["receipts"], report.receipts_in(words.lang) or words["not_given"]),
        (words["since_size"], words["not_given"] if since is None else since),
        (words["bundle_file"], join((made.bundle[0], code(made.bundle[1])), " ")),
        (words["policy_file"], join((made.policy[0], code(made.policy[1])), " ")),
        (words["tool"], join((f"iriai-verify {tool_version()}", code(tool_digest())), " ")),
    ]


def findings(page: Page) -> Html:
    """Section 2, with the controls."""
    report, words = page.report, page.words
    rows = [
        (
            tag("b", words[f"severity_{one.severity}"], class_=f"sev {one.severity}"),
            tag("span", one.id, class_="sev none"),
            "" if one.index is None else link(one.index, page.detailed),
            checks_of(one.id, words.lang),
            code(one.evidence),
            hand_of(one.id, words.lang),
        )
        for one in sorted(report.findings, key=_gravity)
    ]
    heads = [
        words[key] for key in ("severity", "rule", "at_entry", "checks_head", "evidence", "by_hand_head")
    ]
    over = [
        words.fill("more_findings", rule=rule, count=count - FINDINGS_PER_RULE)
        for rule, count in sorted(report.counts.items())
        if count > FINDINGS_PER_RULE
    ]
    return section(
        words,
        2,
        table(words, words["s2"], heads, rows, class_="text") if rows else para(words["no_findings"]),
        items(over) if over else Html(""),
        tag("h3", words["controls"]),
        para(words["controls_note"], class_="soft"),
        _controls(page),
    )


def _gravity(one: Finding) -> tuple[int, str]:
    return ("error", "review", "note").index(one.severity), one.id


def _controls(page: Page) -> Html:
    words = page.words
    unread = unchecked_rules(page.report)
    heads = [words[key] for key in ("control", "asks", "rules", "result")]
    rows = [
        (
            join((tag("b", one.control), one.framework), " "),
            one.asks[words.lang],
            join((tag("span", rule, class_="sev none") for rule in one.rules), " "),
            _result(page, one, unread),
        )
        for one in page.made.controls
    ]
    return table(words, words["controls"], heads, rows, class_="text")


def _result(page: Page, control: Control, unread: set[str]) -> Html | str:
    """What the rules of a control found, and which of them were not run, or not on everything."""
    words = page.words
    if page.history is None:
        return words["result_unread"]
    worst, result = _found(page, control)
    gaps = [one for one in control.rules if one in unread or one not in RULES]
    if gaps:
        result = words.fill("result_partly", result=result, rules=" ".join(gaps))
    return result if worst is None else tag("b", result, class_=f"sev {worst}")


def _found(page: Page, control: Control) -> tuple[str | None, str]:
    """The gravest kind of finding under a control, and how many there are of it and of others."""
    words = page.words
    counts = Counter[str]()
    for one in control.rules:
        if page.report.counts[one]:
            counts[RULES[one].severity] += page.report.counts[one]
    worst = next((one for one in ("error", "review", "note") if counts[one]), None)
    if worst is None:
        return None, words["result_clear"]
    shown = [
        words.fill(f"result_{kind}" + ("_one" if counts[kind] == 1 else ""), count=counts[kind])
        for kind in ("error", "review", "note")
        if counts[kind]
    ]
    return worst, ", ".join(shown)


def unchecked_rules(report: Report) -> set[str]:
    """Rules that a line of what was not checked begins with."""
    return {rule for line in report.gaps for rule in rules_of(line)}
