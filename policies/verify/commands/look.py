# SPDX-License-Identifier: Apache-2.0
"""``show``: one entry, with all that is needed to redo it; ``sample``: a work paper of entries drawn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from policies.encoding import b64
from policies.log.schema import EntryType
from policies.verify.commands.answers import EXIT_USAGE, answer, say
from policies.verify.commands.inputs import read_bundle, read_policy
from policies.verify.errors import InputError
from policies.verify.prose import entry_prose
from policies.verify.reading import Unreadable, read_history
from policies.verify.report import Report, plain
from policies.verify.sampling import candidates, draw, rank
from policies.verify.shown import visible
from policies.verify.words import words

if TYPE_CHECKING:
    import argparse

    from policies.verify.history import History

__all__ = ["opened", "sample", "show"]

Json = Any


def opened(options: argparse.Namespace, report: Report) -> History | None:
    """The history of the bundle that the options name; None where it cannot be read, the report says why."""
    try:
        return read_history(read_bundle(options.bundle), read_policy(options.policy), report)
    except Unreadable:
        return None


def show(options: argparse.Namespace) -> int:
    """Runs ``show``."""
    report = Report()
    history = opened(options, report)
    if history is None:
        say(*report.lines(options.lang))
        return report.exit_code
    if not 0 <= options.index < history.size:
        say(f"entry {options.index}: the bundle has entries 0 to {history.size - 1}")
        return EXIT_USAGE
    say(*_lines(history, options.index, options.lang))
    if options.json:
        answer(_json(history, options.index))
    return report.exit_code


def _lines(history: History, index: int, lang: str) -> list[str]:
    entry = history.entries.get(index)
    lines = [
        f"entry     {index} of {history.size}",
        f"leaf      {history.tree.leaf(index).hex()}",
        f"root      {history.checkpoint.root.hex()}",
        *(f"proof     {b64(one)}" for one in history.tree.inclusion(index)),
    ]
    if entry is None:
        return [*lines, "body      not readable: see the findings of verify"]
    lines += [f"says      {one}" for one in entry_prose(index, entry, lang, history)]
    lines.append(f"body      {plain(entry.body.decode('utf-8'), limit=20_000)}")
    envelope: Any = history.envelopes.get(index)
    if envelope is not None:
        lines.append(f"envelope  {plain(envelope.to_bytes().decode('utf-8'), limit=40_000)}")
    for name, value in sorted(history.opened.get(index, {}).items()):
        lines.append(f"disclosed {plain(name)} = {plain(json.dumps(value), limit=4_000)}")
    receipt = history.files.get(f"receipts/{index}.tlog-proof")
    if receipt is not None:
        lines += [f"receipt   {plain(line)}" for line in receipt.decode("utf-8", "replace").split("\n")]
    return lines


def _json(history: History, index: int) -> dict[str, Json]:
    entry, envelope = history.entries.get(index), history.envelopes.get(index)
    receipt = history.files.get(f"receipts/{index}.tlog-proof")
    return {
        "index": index,
        "size": history.size,
        "leaf": history.tree.leaf(index).hex(),
        "root": history.checkpoint.root.hex(),
        "proof": [b64(one) for one in history.tree.inclusion(index)],
        "body": None if entry is None else entry.body.decode("utf-8"),
        "envelope": None if envelope is None else envelope.to_json(),
        "disclosed": dict(history.opened.get(index, {})),
        "receipt": None if receipt is None else receipt.decode("utf-8", "replace"),
    }


def sample(options: argparse.Namespace) -> int:
    """Runs ``sample``."""
    kind = None
    if options.type is not None:
        if options.type not in set(EntryType):
            raise InputError(
                need="an entry type: " + " ".join(EntryType),
                found=plain(options.type),
                remedy="name one of these",
            )
        kind = EntryType(options.type)
    if options.n < 1:
        raise InputError(need="a sample of at least 1", found=str(options.n), remedy="give --n a number")
    report = Report()
    history = opened(options, report)
    if history is None:
        say(*report.lines(options.lang))
        return report.exit_code
    root, told = history.checkpoint.root, words(options.lang)
    drawn = draw(root, options.seed, candidates(history, kind=kind, number=options.round), options.n)
    if not drawn:
        raise InputError(
            need="entries to draw from",
            found=plain(f"none of type {options.type or 'any'} in round {_any(options.round)}"),
            remedy="ask for another type or round; `show` and `explain TYPE` help",
        )
    say(
        f"{told['sample_of']} {visible(history.checkpoint.origin)}, {told['size']} {history.size}",
        f"{told['root']} {root.hex()}",
        f"{told['seed']} {visible(options.seed) or told['nothing']}",
        told["sample_rule"],
    )
    for index in drawn:
        entry = history.entries.get(index)
        said = [told["unreadable"]] if entry is None else entry_prose(index, entry, options.lang, history)
        say("", f"[ ] {index}  {rank(root, options.seed, index).hex()[:16]}", *(f"    {one}" for one in said))
        say(f"    {told['notes']} " + "_" * 40)
    if options.json:
        answer(_sampled(history, options, drawn))
    return report.exit_code


def _any(number: int | None) -> str:
    return "any" if number is None else str(number)


def _sampled(history: History, options: argparse.Namespace, drawn: list[int]) -> dict[str, Json]:
    root = history.checkpoint.root
    return {
        "origin": history.checkpoint.origin,
        "size": history.size,
        "root": root.hex(),
        "seed": options.seed,
        "type": options.type,
        "round": options.round,
        "entries": [
            {
                "index": index,
                "rank": rank(root, options.seed, index).hex(),
                "type": None if (entry := history.entries.get(index)) is None else entry.type.value,
                "leaf": history.tree.leaf(index).hex(),
            }
            for index in drawn
        ],
    }
