# SPDX-License-Identifier: Apache-2.0
"""What a command of ``iriai-broker`` gives: facts for programs, sentences for people, one exit code.

- ``--json`` puts exactly one envelope on standard output: ``{"schema":"1","status":"ok","data":…}`` or
  ``{"schema":"1","status":"error","error":{code,clause,need,found,remedy}}``. Text for people goes to
  standard error.
- Without ``--json``, a command that makes one thing to hand on (an invitation, a digest) prints it alone on
  standard output.
- Colour only repeats what words say. It is for terminals; ``NO_COLOR`` takes it away, ``FORCE_COLOR`` gives
  it.
- Text that another party wrote is shown with its control characters escaped.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.errors import DiskFullError
from policies.command_lines import completed
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Result", "coloured", "finish", "plain", "short", "table"]

_SCHEMA = "1"
_COLOURS = {"red": "31", "green": "32"}
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a command.

    Attributes:
        data: For programs.
        text: For people, on standard error.
        plain_output: The one thing to hand on, on standard output when there is no ``--json``.
        exit_code: Other than 0 where the command worked and what it looked at did not pass.
    """

    data: dict[str, Any]
    text: tuple[str, ...] = ()
    plain_output: str | None = None
    exit_code: int = 0


def plain(text: object) -> str:
    """Text of another party, with control and format characters escaped so that it cannot move the cursor."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(text)
    )


def coloured(text: str, colour: str) -> str:
    """Text for standard error in ``red`` or ``green``, where colours are wanted."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if _wants_colour() else text


def _wants_colour() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stderr.isatty() and os.environ.get("TERM") not in {None, "dumb"}


def short(digest: str) -> str:
    """A digest for the eye: its first 12 hex digits."""
    return digest.removeprefix("sha256:")[:12]


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> tuple[str, ...]:
    """Lines of a table with aligned columns; without rows, the sentence that says why and what to do."""
    if not rows:
        return (empty,)
    cells = [tuple(plain(cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return tuple("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in cells)


def finish(work: Callable[[], Result], *, as_json: bool, say: Callable[[str], str] = str) -> int:
    """Runs the body of a command, prints its result or its refusal, and gives the exit code.

    This is the one place of the broker where an error becomes text for a terminal. ``say`` completes command
    lines in what is proposed (`policies.command_lines`).
    """
    try:
        result = work()
    except IriaiError as error:
        return _refuse(error, as_json=as_json, say=say)
    except OSError as error:
        return _refuse(_of_the_system(error), as_json=as_json, say=say)
    except KeyboardInterrupt:
        return 130
    for line in result.text:
        print(say(line), file=sys.stderr)  # noqa: T201  the output of a command
    if as_json:
        _envelope({"schema": _SCHEMA, "status": "ok", "data": completed(result.data, say)})
    elif result.plain_output is not None:
        print(result.plain_output)  # noqa: T201  the output of a command
    return result.exit_code


def _of_the_system(error: OSError) -> IriaiError:
    if error.errno in _NO_ROOM:
        return DiskFullError(
            need="space on the disk",
            found="none",
            remedy="make room and repeat the command; nothing was lost",
        )
    where = f" {error.filename}" if error.filename else ""
    return FileTroubleError(
        need=f"access to{where}" if where else "access to the files",
        found=error.strerror or type(error).__name__,
        remedy="correct the path or the permissions and repeat the command",
    )


class FileTroubleError(IriaiError):
    """A file of the command line, or of the broker's folder, that cannot be opened."""

    code = "broker.file"
    exit_code = 2


def _refuse(error: IriaiError, *, as_json: bool, say: Callable[[str], str]) -> int:
    told = completed(error.as_dict(), say)
    fields = {key: plain(value) if value is not None else None for key, value in told.items()}
    clause = f" [clause {fields['clause']}]" if fields["clause"] else ""
    print(f"{coloured(str(fields['code']), 'red')}{clause}", file=sys.stderr)  # noqa: T201
    for name in ("need", "found", "remedy"):
        print(f"  {name + ':':<8}{fields[name]}", file=sys.stderr)  # noqa: T201
    if as_json:
        _envelope({"schema": _SCHEMA, "status": "error", "error": fields})
    return error.exit_code


def _envelope(envelope: dict[str, Any]) -> None:
    try:
        print(json.dumps(envelope, ensure_ascii=False, sort_keys=True), flush=True)  # noqa: T201
    except BrokenPipeError:  # the reader has gone; there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
