# SPDX-License-Identifier: Apache-2.0
"""Every command that the console shows can be typed as it stands: the real command lines take it.

Found in the sources of the console, and in the remedies of people and proposals, whose refusals are pages of it.
A word in capitals, ``{name}`` or ``…`` stands for what the reader fills in. A command that talks to a broker says
which (``--dir``) and as whom (``--key``).
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
import typer.main

import broker.console
from broker.cli import app as broker_app
from client.cli import app as node_app
from policies.verify.cli import _parser

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKER = Path(broker.console.__file__).parents[1]
ROOMS = ("console", "auth", "acts")
PROGRAM = re.compile(r"iriai-(?:broker|node|verify)\b[^\n]*")
FITS = re.compile(r"--?[a-z][a-z0-9-]*|[A-Z][A-Z_.]*|\S*[{}…/*]\S*|'[^']*'|[a-z0-9_]+[.:]\S*|X|\d+")
"""A word that belongs to a command and not to the sentence around it."""
TREES: dict[str, click.Command] = {
    "iriai-broker": typer.main.get_command(broker_app),
    "iriai-node": typer.main.get_command(node_app),
}


def shown(path: Path) -> Iterator[tuple[str, int]]:
    """Texts of a source that name a command line; what is put into an f-string counts as one word."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
    parts = {id(part) for one in ast.walk(tree) if isinstance(one, ast.JoinedStr) for part in one.values}
    for one in ast.walk(tree):
        if isinstance(one, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in one.values)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in docs | parts:
            text = one.value
        else:
            continue
        for found in PROGRAM.finditer(text):
            yield found[0], one.lineno


def command_of(text: str) -> list[str]:
    """The words of a command at the beginning of a text; what follows it in the sentence is left out."""
    line = re.split(r"[`;,](?: |$)|\.(?: |$)|\)", text)[0].rstrip(" .:;,")
    words = shlex.split(line, posix=False)
    group: click.Command | None = TREES.get(words[0])
    taken = words[:1]
    verbs = (
        "verify",
        "show",
        "sample",
        "key",
        "compare-checkpoints",
        "explain",
        "reconcile",
        "receipt",
        "witness",
    )
    for word in words[1:]:
        if isinstance(group, click.Group) and word in group.commands:
            group = group.commands[word]
        elif words[0] == "iriai-verify" and len(taken) == 1 and word in verbs:
            group = None
        elif not (FITS.fullmatch(word) or taken[-1].startswith("--")):
            break
        taken.append(word)
    return taken


def fault(words: list[str]) -> str:
    """What the real command line misses in a command; empty where it takes it."""
    if len(words) == 1:
        return ""  # the program itself
    if words[0] == "iriai-verify":
        return _verify_fault(words[1:])
    try:
        return _told(TREES[words[0]], words)
    except click.ClickException as error:
        return error.format_message()


def _told(tree: click.Command, words: list[str]) -> str:
    command, context, rest = tree, click.Context(tree, info_name=words[0]), words[1:]
    while isinstance(command, click.Group):
        if not rest:
            return f"{' '.join(words)} is a group of commands"
        name, command, rest = command.resolve_command(context, list(rest))
        context = click.Context(command, parent=context, info_name=name)
    given, left, _ = command.make_parser(context).parse_args(list(rest))
    if left:
        return f"takes no {left}"
    for one in command.params:
        value = given.get(one.name or "")
        if one.required and not (isinstance(value, (str, int, list, tuple)) and value):
            return f"misses {one.human_readable_name}"
    options = {name for one in command.params for name in one.opts}
    places = {"--dir", "--url", "--config", "--home"} & options
    if words[0] == "iriai-broker" and places and not places & set(words):
        return "does not say which broker: --dir DIR"
    if {"--key", "--url"} <= options and "--key" not in words:
        return "does not say as whom: --key FILE"
    return ""


def _verify_fault(words: list[str]) -> str:
    told: list[str] = []
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        _parser().parse_args(["1" if one == "X" else one for one in words])
    told += said.getvalue().splitlines()[-1:]
    return " ".join(told)


def all_shown() -> list[tuple[str, list[str]]]:
    return [
        (f"{path.relative_to(BROKER)}:{line}", command_of(text))
        for room in ROOMS
        for path in sorted((BROKER / room).rglob("*.py"))
        for text, line in shown(path)
    ]


def test_every_command_that_is_shown_is_whole():
    found = all_shown()
    assert len(found) > 60
    faults = [f"{where}: {' '.join(words)}: {told}" for where, words in found if (told := fault(words))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iriai-broker backup create", "misses out"),
        ("iriai-broker backup verify --dir DIR", "BACKUP"),
        ("iriai-broker operator reset-login NAME --key FILE", "which broker"),
        ("iriai-broker operator reset-login NAME --dir DIR", "as whom"),
        ("iriai-node contract", "group"),
        ("iriai-verify verify bundle.zip", "policy"),
    ],
)
def test_a_command_that_lacks_something_is_found(text: str, said: str):
    assert said.lower() in fault(command_of(text)).lower()


def test_the_sentence_around_a_command_is_no_part_of_it():
    assert command_of("iriai-broker proposal list shows them") == ["iriai-broker", "proposal", "list"]
    assert command_of("iriai-node shows, and then") == ["iriai-node"]
    asked = "iriai-broker operator add NAME --role ROLE --dir DIR --key FILE; then again"
    assert command_of(asked)[-1] == "FILE"
