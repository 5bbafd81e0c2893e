# SPDX-License-Identifier: Apache-2.0
"""What a command of ``iriai-node`` gives: facts for programs, sentences for people, one exit code.

- ``--json`` puts exactly one envelope on standard output: ``{"schema":"1","status":"ok","data":…}`` or
  ``{"schema":"1","status":"error","error":{code,clause,need,found,remedy}}``, with ``"data":…`` beside the
  error where figures belong to a refusal (`Answer.error`). People's text goes to standard error.
- Every line that is shown, whoever wrote it, has its control and format characters escaped here, in `finish`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.command_lines import completed
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Answer", "finish", "plain", "print_error", "ranges", "short", "table"]

_SCHEMA = "1"
_UNEXPECTED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Result of a command: ``data`` for programs, ``text`` for people, and the exit code.

    ``error`` is a refusal that has figures to show: text and data are shown, then the error, whose exit code
    holds. ``document`` is a text that is the result itself, as a file would hold it: it goes to standard
    output where no envelope does.
    """

    data: dict[str, Any]
    text: tuple[str, ...] = ()
    exit_code: int = 0
    error: IriaiError | None = None
    document: str | None = None


def plain(text: object) -> str:
    """Text of another party, with control and format characters escaped so that it cannot move the cursor."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text)
    )


def short(digest: str) -> str:
    """A digest for the eye: its first 12 hex digits."""
    return digest.removeprefix("sha256:")[:12]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> tuple[str, ...]:
    """Lines of a table with aligned columns, as plain text."""
    cells = [tuple(plain(cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return tuple("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in cells)


def ranges(numbers: Iterable[int]) -> str:
    """``1-3, 5`` for 1, 2, 3 and 5, which are in ascending order."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in found)


def finish(
    work: Callable[[], Answer],
    *,
    as_json: bool,
    told_before: bool = False,
    say: Callable[[str], str] = str,
) -> int:
    """Runs the body of a command, prints its result or its refusal, and gives the exit code.

    This is the one place of the node where an error becomes text for a terminal.

    Args:
        work: The body.
        as_json: Whether one envelope goes to standard output.
        told_before: Of a command that goes on until it is stopped: its envelope was printed when it was
            ready, and its end is none; a refusal is one all the same.
        say: Completes command lines in what is proposed (`policies.command_lines`).
    """
    try:
        answer = work()
    except IriaiError as error:
        return print_error(error, as_json=as_json, say=say)
    except KeyboardInterrupt:
        return 130
    for line in answer.text:
        print(plain(say(line)), file=sys.stderr)  # noqa: T201  the output of a command
    data = completed(answer.data, say)
    if answer.error is not None:
        return print_error(answer.error, as_json=as_json, data=data, say=say)
    if as_json and not told_before:
        _print_envelope({"schema": _SCHEMA, "status": "ok", "data": data})
    elif answer.document is not None:
        sys.stdout.write(answer.document)
    return answer.exit_code


def print_error(
    error: IriaiError,
    *,
    as_json: bool,
    data: dict[str, Any] | None = None,
    say: Callable[[str], str] = str,
) -> int:
    """Says a refusal to a person, and with ``as_json`` to a program; gives its exit code."""
    told = completed(error.as_dict(), say)
    fields = {key: plain(value) if value is not None else None for key, value in told.items()}
    clause = f" [clause {fields['clause']}]" if fields["clause"] else ""
    print(f"{fields['code']}{clause}", file=sys.stderr)  # noqa: T201
    for name in ("need", "found", "remedy"):
        print(f"  {name + ':':<8}{fields[name]}", file=sys.stderr)  # noqa: T201
    if as_json:
        figures = {} if data is None else {"data": data}
        _print_envelope({"schema": _SCHEMA, "status": "error", "error": fields, **figures})
    return error.exit_code


def _printable(text: str) -> str:
    """JSON text of one line; what could move a cursor is escaped as JSON does it and reads the same."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _print_envelope(envelope: dict[str, Any]) -> None:
    try:
        print(_printable(json.dumps(envelope, ensure_ascii=False, sort_keys=True)), flush=True)  # noqa: T201
    except BrokenPipeError:  # the reader has gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
