# SPDX-License-Identifier: Apache-2.0
"""Every text of the console has its Japanese: extracted from the sources, compared with the catalogues."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

import broker.console
from broker.console.languages import LOCALE, catalogue, chosen, speech

CONSOLE = Path(broker.console.__file__).parent
JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
SOURCES = re.compile(r"""\bT\(\s*"((?:[^"\\]|\\.)*)"((?:\s*,\s*\w+=)?)""")
SAME = re.compile(r"(API|\{[^}]*\}|[\s/])*")  # what Japanese writes so too
HEAD = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'


def places(text: str) -> frozenset[str]:
    """Names of the places for values in a text."""
    return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name is not None)


def in_python(source: str, name: str) -> dict[str, str]:
    """Msgids of a Python file with where they stand; one that is no literal is a fault."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "T"):
            continue
        where = f"{name}:{node.lineno}"
        text = node.args[0] if node.args else None
        assert isinstance(text, ast.Constant), f"{where}: a msgid is a literal"
        assert isinstance(text.value, str), f"{where}: a msgid is a text"
        given = frozenset(one.arg for one in node.keywords)
        assert None in given or given == places(text.value), f"{where}: other values than places"
        found[text.value] = where
    return found


def in_template(source: str, name: str) -> dict[str, str]:
    """Msgids of a template with where they stand."""
    return {found.group(1): name for found in SOURCES.finditer(source)}


def used() -> dict[str, str]:
    """Every msgid of the console."""
    found: dict[str, str] = {}
    for path in sorted(CONSOLE.rglob("*.py")):
        found |= in_python(path.read_text(encoding="utf-8"), str(path.relative_to(CONSOLE)))
    for path in sorted((CONSOLE / "templates").glob("*.html")):
        found |= in_template(path.read_text(encoding="utf-8"), path.name)
    return found


def faults(msgids: dict[str, str], folder: Path) -> list[str]:
    """What is wrong with the Japanese of these msgids."""
    found, told = [], {}
    for path in sorted((folder / "ja" / "LC_MESSAGES").glob("*.po")):
        with path.open("rb") as file:
            for message in read_po(file, locale="ja"):
                if not message.id:
                    continue
                text = str(message.string)
                if message.fuzzy:
                    found.append(f"{path.name}: fuzzy: {message.id}")
                if message.id not in msgids:
                    found.append(f"{path.name}: nothing says this: {message.id}")
                elif text and places(text) != places(str(message.id)):
                    found.append(f"{path.name}: other places: {message.id}")
                if text and not JAPANESE.search(text) and not SAME.fullmatch(text):
                    found.append(f"{path.name}: not Japanese: {message.id}")
                if told.setdefault(message.id, text) != text:
                    found.append(f"{path.name}: another translation elsewhere: {message.id}")
    missing = [f"{where}: no Japanese: {one}" for one, where in msgids.items() if not told.get(one)]
    return found + sorted(missing)


def test_every_text_has_its_japanese():
    assert faults(used(), LOCALE) == []


def test_texts_are_found_in_sources_and_templates():
    found = used()
    assert "hidden from you by clause {clause}" in found
    assert "Sign out" in found  # of a template alone
    assert len(found) > 200


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("", "x.py:1: no Japanese: Open {n}"),
        ('msgid "Open {n}"\nmsgstr ""\n', "x.py:1: no Japanese: Open {n}"),
        ('#, fuzzy\nmsgid "Open {n}"\nmsgstr "開く {n}"\n', "x.po: fuzzy: Open {n}"),
        ('msgid "Open {n}"\nmsgstr "開く {m}"\n', "x.po: other places: Open {n}"),
        ('msgid "Open {n}"\nmsgstr "Open {n}"\n', "x.po: not Japanese: Open {n}"),
        (
            'msgid "Open {n}"\nmsgstr "開く {n}"\n\nmsgid "Old"\nmsgstr "古い"\n',
            "x.po: nothing says this: Old",
        ),
    ],
)
def test_a_planted_fault_is_named(tmp_path, entry, fault):
    folder = tmp_path / "ja" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "x.po").write_text(HEAD + entry, encoding="utf-8")
    assert faults({"Open {n}": "x.py:1"}, tmp_path) == [fault]


def test_two_rooms_that_translate_differently_are_a_fault(tmp_path):
    folder = tmp_path / "ja" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for name, text in (("a", "開く"), ("b", "ひらく")):
        (folder / f"{name}.po").write_text(HEAD + f'msgid "Open"\nmsgstr "{text}"\n', encoding="utf-8")
    assert faults({"Open": "x.py:1"}, tmp_path) == ["b.po: another translation elsewhere: Open"]
    with pytest.raises(ValueError, match="another translation"):
        catalogue("ja", tmp_path)


def test_a_msgid_that_is_put_together_is_a_fault():
    with pytest.raises(AssertionError, match="a literal"):
        in_python('T("a" + b)', "x.py")
    with pytest.raises(AssertionError, match="other values"):
        in_python('T("{n} of {m}", n=1)', "x.py")


def test_the_language_is_asked_for_chosen_accepted_or_english():
    assert chosen("ja", None, accept="en") == "ja"
    assert chosen("de", "ja", accept="en") == "ja"
    assert chosen(None, accept="fr;q=0.9, ja-JP;q=0.8") == "ja"
    assert chosen(None, accept="zz") == "en"


def test_moments_numbers_and_sizes_are_written_as_each_language_does():
    ms = 1_795_435_200_000
    assert speech("ja").moment(ms) == "2026/11/23 12:00:00 UTC"
    assert speech("en").moment(ms) == "2026-11-23 12:00:00 UTC"
    assert speech("en").away(ms - 7_200_000, ms) == "2 hours ago"
    assert speech("ja").away(ms + 7_200_000, ms) == "2 時間後"
    assert speech("en").number(1234567) == speech("ja").number(1234567) == "1,234,567"
    assert speech("en").size(1_234_000) == "1.2 MB"
