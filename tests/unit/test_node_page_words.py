# SPDX-License-Identifier: Apache-2.0
"""Every sentence of the node's page is there in Japanese, and a reader gets the language they read."""

from __future__ import annotations

import ast
import io
import re
import string
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

import client.page
from client.page.words import Words, catalogue, language, sentences_in

ROOT = Path(client.page.__file__).parent
PO = ROOT / "locale" / "ja" / "LC_MESSAGES" / "page.po"


def sentences() -> set[str]:
    """Every first argument of `msg`, and every sentence of a template."""
    found: set[str] = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "msg":
                first = node.args[0]
                assert isinstance(first, ast.Constant), f"{path.name}:{node.lineno} is no literal"
                found.add(first.value)
    for path in ROOT.rglob("*.html"):
        found |= {one[1] for one in re.findall(r"""\b_\((["'])(.*?)\1""", path.read_text("utf-8"))}
    return found


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_sentence_has_japanese_words_with_the_same_values_and_none_is_left_over():
    japanese = catalogue("ja")
    assert sorted(sentences() - japanese.keys()) == []
    assert sorted(japanese.keys() - sentences()) == []
    assert [one for one, told in japanese.items() if not told or names(one) != names(told)] == []


def test_no_entry_is_fuzzy_or_doubled():
    with PO.open("rb") as file:
        entries = [one for one in read_po(file) if one.id]
    assert [one.id for one in entries if one.fuzzy] == []
    assert PO.read_text("utf-8").count('\nmsgid "') == len(entries) + 1


def test_a_fuzzy_entry_is_shown_in_english():
    told = sentences_in(io.BytesIO('#, fuzzy\nmsgid "Budget"\nmsgstr "予算"\n'.encode()), "ja")
    assert told == {}
    assert Words("ja", told).sentence("Budget") == "Budget"


@pytest.mark.parametrize(
    ("asked", "accepted", "found"),
    [
        ("ja", "en", "ja"),
        (None, "ja,en;q=0.9", "ja"),
        (None, "en-US,en;q=0.9,ja;q=0.8", "en"),
        (None, "fr, ja;q=0.3", "ja"),
        ("fr", "", "en"),
        (None, "de", "en"),
        (None, "ja;q=x, en;q=0.1", "en"),
        (None, "," * 10_000, "en"),
    ],
)
def test_the_address_goes_before_the_browser_and_english_comes_last(asked, accepted, found):
    assert language(asked, accepted) == found
