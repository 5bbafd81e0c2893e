# SPDX-License-Identifier: Apache-2.0
"""Every command that a document, or a refusal's remedy, tells somebody to type exists with these options."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.docs import facts
from tests.docs.commandlines import blocks, command_lines, complaints, documents, inline_commands
from tests.docs.facts import ROOT


@pytest.fixture(scope="module")
def known():
    return facts.commands()


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_exists_with_its_options(path, known):
    text, wrong = path.read_text("utf-8"), []
    for block in blocks(text):
        if block.language == "sh":
            for line in command_lines(block.text):
                wrong += [f"{path.name}:{block.line}: {one}" for one in complaints(line, known)]
    for line in inline_commands(text):
        wrong += [f"{path.name}: {one}" for one in complaints(line, known, whole=False)]
    assert wrong == []


def _remedies() -> list[tuple[str, str]]:
    """Texts after ``remedy=`` and ``next:`` in the source, with their module; blanks for what is filled in."""
    found = []
    for path in facts.sources(ROOT):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = _text(node)
            if text and "iriai-" in text and " " in text:
                found.append((facts.module_of(ROOT, path), text))
    return found


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "$X" for one in node.values)
    return (
        node.value
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value
        else ""
    )


_COMMAND = re.compile(
    r"\biriai-(?:broker|node|verify|sandbox)(?: (?:--?[a-z0-9][a-z0-9-]*|[a-z]+|[A-Z$/:.…=][^ `)]*))*"
)


def test_commands_that_the_programs_themselves_name_exist(known):
    """A refusal whose remedy cannot be typed is worse than none."""
    names = {one.path[0] for one in known}
    wrong = []
    for module, text in _remedies():
        for line in _COMMAND.findall(text):
            second = ([*line.split(), ""])[1]
            if second in names or second.startswith("-"):
                words = _known_part(line.split(), known)
                wrong += [f"{module}: {one}" for one in complaints(" ".join(words), known, whole=False)]
                wrong += [f"{module}: {one}" for one in _in_no_help(words, known)]
    assert wrong == []


def _in_no_help(words: list[str], known: list[facts.Command]) -> list[str]:
    """A name that ``--help`` does not list helps nobody who looks there for what to type."""
    return [
        f"{one.line} is in no help"
        for one in known
        if one.hidden and one.program == words[0] and one.path == tuple(words[1 : 1 + len(one.path)])
    ]


def test_commands_of_the_documented_remedies_exist_and_are_in_the_help(known):
    remedies = tomllib.loads((ROOT / "tests/docs/words.toml").read_text("utf-8"))["remedies"]
    wrong = []
    for code, text in remedies.items():
        for line in inline_commands(text):
            words = _known_part(line.split(), known)
            found = complaints(" ".join(words), known, whole=False) + _in_no_help(words, known)
            wrong += [f"{code}: {one}" for one in found]
    assert wrong == []


def test_a_planted_hidden_name_is_named(known):
    assert _in_no_help(["iriai-broker", "members"], known) == ["iriai-broker members is in no help"]
    assert _in_no_help(["iriai-broker", "org", "list"], known) == []


def _known_part(words: list[str], known: list[facts.Command]) -> list[str]:
    """The command without the sentence that follows it: lower-case words end it once a command is complete."""
    paths = {one.path for one in known if one.program == words[0]}
    depth = next((n for n in (2, 1) if tuple(words[1 : 1 + n]) in paths), 1)
    kept = words[: 1 + depth]
    for word in words[1 + depth :]:
        if word[0].islower():
            break
        kept.append(word)
    return kept


def test_options_that_a_remedy_names_exist(known):
    """``choose with --format`` helps nobody if there is no such option."""
    options = {name for one in known for option in one.options for name in option.names}
    wrong = []
    for path in facts.sources(ROOT):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.keyword) or node.arg not in {"remedy", "need"}:
                continue
            wrong += [
                f"{facts.module_of(ROOT, path)}: {name}"
                for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", _text(node.value))
                if name not in options
            ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("iriai-node data erase x", "no such command"),
        ("iriai-node data add x --datset y", "has no option --datset"),
        ("iriai-node data add x", "needs --dataset"),
        ("iriai-node data add --dataset y", "needs PATH"),
        ("iriai-node contract sign a b", "takes 1 arguments, not 2"),
        ("iriai-broker conract list", "no such command"),
        ("iriai-verify audit.zip", "needs --policy"),
        ("iriai-verify explain", "needs WHAT"),
        ("iriai-node join 'x", "No closing quotation"),
    ],
)
def test_a_planted_mistake_is_named(known, line, complaint):
    assert any(complaint in one for one in complaints(line, known))


@pytest.mark.parametrize(
    "line",
    [
        "iriai-node data add x --dataset y --dir=d",
        "iriai-verify audit.zip --policy policy.txt --json",
        "iriai-broker run list $operator",
        "iriai-node",
        "iriai-broker --help",
        "iriai-node contract show",
    ],
)
def test_a_right_line_has_no_complaint(known, line):
    assert complaints(line, known) == []


def test_commands_are_found_in_a_script():
    script = (
        "# iriai-node never\n"
        'x=$(iriai-broker contract list $operator 2>&1 | grep -o "sha256:.*")\n'
        "iriai-node data add a \\\n  --dataset b  # what\n"
        "cd iriai-node && ls\n"
    )
    assert next(one.split("|")[0].strip() for one in command_lines(script)).startswith(
        "iriai-broker contract list $operator 2>&1"
    )
    assert " ".join(command_lines(script)[1].split()) == "iriai-node data add a --dataset b"
