# SPDX-License-Identifier: Apache-2.0
"""Sections 8 and 10: entries with all that is needed to redo them, and the sample as a work paper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from policies.verify.page.content import SAMPLED, section
from policies.verify.page.drawing import path_drawing, steps_up
from policies.verify.page.markup import Html, code, facts, items, link, para, table, tag
from policies.verify.prose import entry_prose, sentence
from policies.verify.sampling import rank
from policies.verify.shown import visible

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.page.content import Page

__all__ = ["details", "sample"]

_PAPER = 500  # rows of the work paper
_RANK_HEX = 10


def details(page: Page) -> Html:
    """Section 8."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 8, para(words["history_unread"]))
    told = [_entry(page, history, index) for index in sorted(page.detailed)]
    if len(page.drawn) > SAMPLED:
        told.append(para(words["more_entries"], class_="soft"))
    return section(words, 8, *(told or [para(words["entries_none"])]))


def _entry(page: Page, history: History, index: int) -> Html:
    words = page.words
    entry, leaf = history.entries.get(index), history.tree.leaf(index)
    why = [words["why_finding"]] if index in page.found else []
    why += [words["why_sample"]] if index in page.drawn else []
    head = tag("h3", f"{words['at_entry']} {index}", Html(" "), tag("small", ", ".join(why), class_="soft"))
    parts: list[object] = [head]
    if entry is None:
        parts.append(para(words["unreadable"]))
    else:
        parts += [para(one) for one in entry_prose(index, entry, words.lang, history)]
    parts.append(facts(_rows(page, history, index)))
    steps = steps_up(leaf, index, history.size, history.tree.inclusion(index))
    drawing = path_drawing(
        leaf,
        steps,
        title=words.fill("path_title", index=index, size=history.size),
        name=f"path-{index}",
    )
    parts.append(tag("figure", drawing, tag("figcaption", f"{words['path']}. {words['path_legend']}")))
    return tag("article", *parts, id=f"entry-{index}", class_="entry")


def _rows(page: Page, history: History, index: int) -> list[tuple[object, object]]:
    words = page.words
    entry, envelope = history.entries.get(index), history.envelopes.get(index)
    rows: list[tuple[object, object]] = [(words["leaf"], code(history.tree.leaf(index).hex()))]
    if entry is not None:
        rows.append((words["body"], code(entry.body.decode("utf-8", "replace"))))
    if envelope is not None:
        rows.append((words["envelope"], code(envelope.payload.decode("utf-8", "replace"))))
    opened = history.opened.get(index, {})
    if opened:
        lines = [
            f"{name} = {visible(json.dumps(value, ensure_ascii=False))}"
            for name, value in sorted(opened.items())
        ]
        rows.append((words["opened"], items(code(one) for one in lines)))
    receipt = history.files.get(f"receipts/{index}.tlog-proof")
    rows.append((words["receipt"], words["no"] if receipt is None else words["yes"]))
    return rows


def sample(page: Page) -> Html:
    """Section 10."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 10, para(words["history_unread"]))
    root, seed = history.checkpoint.root, page.made.seed
    rows = []
    for index in page.drawn[:_PAPER]:
        entry = history.entries.get(index)
        said = words["unreadable"] if entry is None else sentence(entry, words.lang, history)
        rows.append(
            [
                Html('<span class="box"></span>'),
                link(index, page.detailed),
                "" if entry is None else entry.type.value,
                said,
                tag("span", code(rank(root, seed, index).hex()[:_RANK_HEX]), class_="sev none"),
                Html('<span class="rule"></span>'),
            ]
        )
    heads = [words[key] for key in ("done", "at_entry", "what", "happened", "rank_head", "your_notes")]
    command = (
        f"iriai-verify sample {page.made.bundle[0]} --policy {page.made.policy[0]} --n {page.made.sample}"
        + (f" --seed {json.dumps(seed)}" if seed else "")
    )
    signed = [
        tag("span", words[key], Html('<i class="line"></i>'))
        for key in ("signed_name", "signed_date", "signed_signature")
    ]
    return section(
        words,
        10,
        para(words["sample_rule"]),
        facts(
            [
                (words["full_root"], code(root.hex())),
                (words["seed_head"], seed or words["nothing"]),
                (words["redo_rank"], code(command)),
            ]
        ),
        table(words, words["s10"], heads, rows, class_="text paper", more=len(page.drawn) - _PAPER),
        para(*signed, class_="signed"),
    )
