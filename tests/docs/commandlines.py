# SPDX-License-Identifier: Apache-2.0
"""Commands as documents show them, checked against the programs that there are."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.docs import facts

FENCE = re.compile(r"^```(\w+)?(?: (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:iriai-(?:broker|node|verify|sandbox))[^`\n]*)`")
_PROGRAM = re.compile(r"\biriai-(?:broker|node|verify|sandbox)\b")
_ENDS = {"|", "||", "&&", ";", ">", ">>", "2>", "2>&1", "&"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its mark (``run``), its text, and the line on which it begins."""

    language: str
    mark: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """Every fenced block of a document."""
    return [
        Block(one[1] or "", one[2] or "", one[3], text[: one.start()].count("\n") + 1)
        for one in FENCE.finditer(text)
    ]


def command_lines(script: str) -> list[str]:
    """Each command of one of our programs in a shell script, as one line."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        code = line.partition(" #")[0]
        if code.lstrip().startswith("#"):
            continue
        for start in [one.start() for one in _PROGRAM.finditer(code)]:
            before = code[:start]
            if before.endswith(("/", "=", "-", ".")) and not before.endswith("bin/"):
                continue
            found.append(code[start:].split(")")[0] if "$(" in before else code[start:])
    return found


def inline_commands(text: str) -> list[str]:
    """Commands in code quotes outside fenced blocks."""
    return [one.strip() for one in INLINE.findall(FENCE.sub("", text))]


def complaints(line: str, known: list[facts.Command], *, whole: bool = True) -> list[str]:
    """What is wrong with one command line.

    Args:
        line: From the program's name on.
        known: All commands.
        whole: Whether required options and arguments must be there; not in running text.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return [f"{line}: {error}"]
    words = words[: next((i for i, word in enumerate(words) if word in _ENDS), len(words))]
    program, rest = words[0], words[1:]
    if program == "iriai-verify" and rest and rest[0].endswith(".zip"):
        rest.insert(0, "verify")
    candidates = [one for one in known if one.program == program and tuple(rest[: len(one.path)]) == one.path]
    if not candidates:
        return _without_command(line, program, rest, known, whole=whole)
    return _against(line, max(candidates, key=lambda one: len(one.path)), rest, whole=whole)


def _without_command(
    line: str, program: str, rest: list[str], known: list[facts.Command], *, whole: bool
) -> list[str]:
    groups = {one.path[: len(rest)] for one in known if one.program == program}
    if not rest or rest == ["--help"] or (not whole and tuple(rest) in groups):
        return []
    return [f"{line}: no such command"]


def _against(line: str, command: facts.Command, rest: list[str], *, whole: bool) -> list[str]:
    found, given, positional = [], set(), 0
    queue = rest[len(command.path) :]
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if word == "--help" or word.startswith("$"):  # a variable may hold options
            whole = False
            continue
        if not word.startswith("-") or word in {"-", "…"}:
            positional += 1
            continue
        option = command.option(name)
        if option is None:
            found.append(f"{line}: {command.line} has no option {name}")
            continue
        given.add(option.names[0])
        if option.value and not equals:
            if not queue:
                if whole:
                    found.append(f"{line}: {name} needs a value")
                break
            queue.pop(0)
    many = any(one.endswith("...") for one in command.arguments)
    if positional > len(command.arguments) and not many:
        found.append(f"{line}: {command.line} takes {len(command.arguments)} arguments, not {positional}")
    if whole:
        needed = [one for one in command.arguments if not one.startswith("[")]
        if positional < len(needed):
            found.append(f"{line}: {command.line} needs {' '.join(needed)}")
        found += [
            f"{line}: {command.line} needs {one.names[0]}"
            for one in command.options
            if one.required and one.names[0] not in given
        ]
    return found


def documents(root: Path = facts.ROOT) -> list[Path]:
    """Every document that a reader may copy a command from."""
    return [
        root / "README.md",
        root / "SECURITY.md",
        root / "CHANGELOG.md",
        *sorted((root / "docs").rglob("*.md")),
    ]
