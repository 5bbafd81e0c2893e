# SPDX-License-Identifier: Apache-2.0
"""How commands answer: lines for people on standard error, one JSON envelope on standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from policies.verify.report import plain

if TYPE_CHECKING:
    import argparse

    from policies.errors import IriaiError

__all__ = ["EXIT_USAGE", "answer", "fail", "give", "say"]

Json = Any
EXIT_USAGE = 2


def say(*lines: str) -> None:
    """Lines for people. What is said must be printable already."""
    encoding = sys.stderr.encoding or "ascii"
    for line in lines:
        shown = line.encode(encoding, "backslashreplace").decode(encoding)
        print(shown, file=sys.stderr)  # noqa: T201  the command's output


def give(line: str) -> None:
    """One line for another program, on standard output."""
    print(line)  # noqa: T201  the command's output


def answer(data: Json, error: IriaiError | None = None) -> None:
    """The envelope of ``--json``: ``data`` where there is some, also where the verdict is an error."""
    envelope: dict[str, Json] = {"schema": "1", "status": "ok" if error is None else "error"}
    if data is not None:
        envelope["data"] = data
    if error is not None:
        envelope["error"] = error.as_dict()
    print(json.dumps(envelope, ensure_ascii=True, sort_keys=True))  # noqa: T201  the command's output


def fail(options: argparse.Namespace, error: IriaiError) -> int:
    """Tells a refusal; gives its exit code."""
    say(plain(str(error), limit=2_000))
    if getattr(options, "json", False):
        answer(None, error)
    return error.exit_code
