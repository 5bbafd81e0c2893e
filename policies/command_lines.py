# SPDX-License-Identifier: Apache-2.0
"""Command lines inside a sentence, made such that a person can type them as they stand.

A message says "next: iriai-node data check pick". Whoever asked about the node in ``iber`` has to type
``iriai-node data check --dir iber pick``: which node, or which broker and as whom, is known where a message
is printed and nowhere deeper. There, and there only, `typeable` completes every line of the program in a
text:

1. the words after the program's name are followed into its commands; what is no command stays as it is;
2. the command lasts to the next quote, semicolon, line end or name of a program of ours;
3. the options that were given (`Given`) are put right after the command's words, quoted for a shell: those
   that the command takes, unless the line says already which is meant.

    tree = Tree("iriai-node", {("data", "check"): frozenset({"--dir", "--page"})})
    typeable("next: iriai-node data check pick", tree, [Given(values={"--dir": "iber"})])
    # 'next: iriai-node data check --dir iber pick'
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Given", "Tree", "completed", "typeable"]

_END = re.compile(r"[`;\n]|\biriai-(?:broker|node|verify|sandbox)\b")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_WORD = re.compile(r" ([a-z][a-z0-9-]*)(?![\w=/.-]*[\w=/])")
_PROPOSING = frozenset({"next", "remedy", "fix", "need"})


@dataclass(frozen=True, slots=True)
class Tree:
    """A program: its name, and the options that each of its commands takes, by the command's words."""

    program: str
    commands: Mapping[tuple[str, ...], frozenset[str]]

    @classmethod
    def of(cls, program: str, root: Any) -> Tree:  # noqa: ANN401  a command as click has it
        """The tree below a root that has ``commands`` by name, each with ``params`` that have ``opts``."""
        return cls(program, dict(_walked(root, ())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Options that belong together, as they were given or as they have to be filled in.

    Attributes:
        values: Value by option.
        enough: A line that has one of these, or one of the options themselves, says already which is meant.
        takes: Only commands that take all of these are completed.
        unless: Commands that are left out: somebody else types them.
    """

    values: Mapping[str, str]
    enough: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    unless: frozenset[tuple[str, ...]] = frozenset()


def _walked(one: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:  # noqa: ANN401
    below = getattr(one, "commands", None)
    if below is None:
        yield words, frozenset(name for option in one.params for name in option.opts)
        return
    for name, command in below.items():
        yield from _walked(command, (*words, name))


def typeable(text: str, tree: Tree, given: Sequence[Given]) -> str:
    """The text, its lines of this program completed."""
    name = re.compile(rf"(?<![\w./-]){re.escape(tree.program)}(?![\w./-])")
    kept, start = [], 0
    for found in name.finditer(text):
        words, after = _command(text, found.end(), tree)
        if words is None:
            continue
        stop = _END.search(text, after)
        rest = text[after : stop.start() if stop else len(text)]
        more = _missing(rest, tree.commands[words], [one for one in given if words not in one.unless])
        if more:
            kept += [text[start:after], " ", more]
            start = after
    return "".join([*kept, text[start:]])


def _command(text: str, at: int, tree: Tree) -> tuple[tuple[str, ...] | None, int]:
    """1. The longest command whose words stand here, and where they end."""
    words: tuple[str, ...] = ()
    best: tuple[tuple[str, ...] | None, int] = (None, at)
    while (found := _WORD.match(text, at)) is not None:
        words, at = (*words, found[1]), found.end()
        if words in tree.commands:
            best = (words, at)
        if not any(one[: len(words)] == words for one in tree.commands):
            break
    return best


def _missing(rest: str, takes: frozenset[str], given: Sequence[Given]) -> str:
    """3. What the line lacks."""
    has = set(_OPTION.findall(rest))
    more: list[str] = []
    for one in given:
        if one.takes <= takes and not has & (one.enough | one.values.keys()):
            fits = {name: value for name, value in one.values.items() if name in takes}
            more += [f"{name} {shlex.quote(value)}" for name, value in fits.items()]
            has |= fits.keys()
    return " ".join(more)


def completed(data: Any, say: Callable[[str], str], *, proposes: bool = False) -> Any:  # noqa: ANN401  JSON
    """JSON data whose texts under ``next``, ``fix``, ``need`` and ``remedy`` are put through ``say``."""
    if isinstance(data, dict):
        return {key: completed(one, say, proposes=key in _PROPOSING) for key, one in data.items()}
    if isinstance(data, (list, tuple)):
        return [completed(one, say, proposes=proposes) for one in data]
    return say(data) if proposes and isinstance(data, str) else data
