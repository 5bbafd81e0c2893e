# SPDX-License-Identifier: Apache-2.0
"""The auditor that attacks are shown to: ``iriai-verify`` in a process of its own, with a policy of its own.

heard = verify(bundle, policy)
heard.exit_code, heard.rule, heard.words        3, "AUD-020", "error AUD-020 …"
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from sandbox.processes import environment, script

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["BY", "Judged", "compare", "verify"]

BY: Final = "the auditor, offline, by iriai-verify"
_WIDTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the verifier said: how it ended, its first finding or its verdict.

    ``memory_mb`` is what its process used at most.
    """

    exit_code: int
    words: str
    memory_mb: int

    @property
    def rule(self) -> str:
        """The rule of the first finding; none where there is no finding: an empty text."""
        named = [word for word in self.words.split() if word.startswith("AUD-")]
        return named[0].rstrip(":") if self.exit_code and named else ""


def verify(bundle: Path, policy: Path) -> Judged:
    """Audits a bundle."""
    return _run(["verify", str(bundle)], policy)


def compare(notes: Sequence[Path], policy: Path, *, out: Path, bundle: Path | None = None) -> Judged:
    """Compares checkpoints; a contradiction is written as evidence."""
    against = [] if bundle is None else ["--bundle", str(bundle)]
    return _run(["compare-checkpoints", *map(str, notes), *against, "--out", str(out)], policy)


def _run(words: Sequence[str], policy: Path) -> Judged:
    argv = [script("iriai-verify"), *words, "--policy", str(policy), "--json"]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as said:
        process = subprocess.Popen(argv, stdout=out, stderr=said, env=environment())  # noqa: S603  our own command
        _, status, usage = os.wait4(process.pid, 0)  # what this one process used, not all that ever ran
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        told, lines = _envelope(out.read()), said.read().splitlines()
    lines = [one for one in lines if one.startswith(("error", "VERDICT"))]
    error = told.get("error") or {}
    first = lines[0] if lines else str(error.get("found", ""))
    return Judged(
        exit_code=process.returncode,
        words=" ".join(first.split())[:_WIDTH],
        memory_mb=usage.ru_maxrss // 1024,
    )


def _envelope(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
