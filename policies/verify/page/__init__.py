# SPDX-License-Identifier: Apache-2.0
"""The auditor's report as one HTML page: no script, no external part, readable on screen and on paper.

Ten sections, each with the one question that it answers: verdict, findings, rounds, privacy ledger,
contracts and policies, lineage, operators, entries in detail, keys and witnesses, sample. Its
Content-Security-Policy is ``default-src 'none'`` with styles in the page alone. Whatever stands in a
bundle is text here, never markup.
"""

from __future__ import annotations

from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from policies.verify.page.content import DETAILS, Made, Page
from policies.verify.page.details import details, sample
from policies.verify.page.ledger import ledger
from policies.verify.page.lineage import lineage
from policies.verify.page.markup import Html, Words, escaped, join, tag
from policies.verify.page.people import agreements, operators, trust
from policies.verify.page.rounds import rounds
from policies.verify.page.verdict import findings, verdict
from policies.verify.sampling import draw
from policies.verify.words import words

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["Made", "write_page"]

_SECTIONS = (
    verdict,
    findings,
    rounds,
    ledger,
    agreements,
    lineage,
    operators,
    details,
    trust,
    sample,
)


def write_page(report: Report, history: History | None, made: Made, lang: str = "en") -> str:
    """The page.

    Args:
        report: Of the audit.
        history: That was audited; None where it could not be read.
        made: What it was made from.
        lang: ``en`` or ``ja``.
    """
    told = Words(lang, words(lang))
    page = Page(
        report=report,
        history=history,
        made=made,
        words=told,
        found=_found(report, history),
        drawn=()
        if history is None
        else tuple(draw(history.checkpoint.root, made.seed, range(history.size), made.sample)),
    )
    contents = tag(
        "ol",
        *(
            tag("li", Html(f'<a href="#s{number}">{escaped(told[f"s{number}"])}</a>'))
            for number in range(1, len(_SECTIONS) + 1)
        ),
    )
    here = files("policies.verify.page")
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        lang=lang,
        style=here.joinpath("page.css").read_text("utf-8"),
        title=escaped(told["title"]),
        origin=escaped(told.fill("of_log", origin=report.origin or told["unknown"])),
        made=escaped(told["made_note"]),
        contents_head=escaped(told["contents"]),
        contents=contents,
        sections=join(one(page) for one in _SECTIONS),
    )


def _found(report: Report, history: History | None) -> tuple[int, ...]:
    """Entries that findings name, the gravest first, as far as the bundle has them."""
    if history is None:
        return ()
    order = ("error", "review", "note")
    indexes = [
        one.index
        for one in sorted(report.findings, key=lambda one: order.index(one.severity))
        if one.index is not None and one.index < history.size
    ]
    return tuple(list(dict.fromkeys(indexes))[:DETAILS])
