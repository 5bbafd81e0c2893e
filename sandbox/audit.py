# SPDX-License-Identifier: Apache-2.0
"""The auditor's process: ``iriai-verify``, from an environment with the base install only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sandbox.errors import CommandError

__all__ = ["verify_bundle"]

_TIMEOUT_S = 600


def verify_bundle(
    bundle: Path,
    policy: Path,
    *,
    verifier: Path | None,
    receipts: Path | None = None,
    vectors: Path | None = None,
    page: Path | None = None,
    language: str = "en",
) -> dict[str, Any]:
    """The verdict as the report shows it.

    Args:
        bundle: The zip.
        policy: The auditor's own list of keys.
        verifier: The auditor's command; None takes the one beside this interpreter.
        receipts: Folder with what members handed over.
        vectors: Folder with masked vectors that the broker handed over: sums are redone from them.
        page: Where the auditor's report goes, one HTML page; an earlier one is replaced.
        language: Of that page, ``en`` or ``ja``.

    Returns:
        ``origin, size, root, verified, summary, findings, not_checked, receipts, sums, sum_members,
        verifier, page``.

    Raises:
        CommandError: It printed no verdict.
    """
    command = verifier or Path(sys.executable).parent / "iriai-verify"
    if page is not None:
        page.unlink(missing_ok=True)
    given = [("--receipts", receipts), ("--vectors", vectors), ("--report", page)]
    kept = [word for name, folder in given if folder is not None for word in (name, str(folder))]
    done = subprocess.run(  # noqa: S603  our own command, no shell
        [str(command), "verify", str(bundle), "--policy", str(policy), *kept, "--lang", language, "--json"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    try:
        data = json.loads(done.stdout)["data"]
    except (ValueError, KeyError) as error:
        raise CommandError(
            need="a verdict of iriai-verify",
            found=done.stderr[-2_000:],
            remedy="run it by hand on the bundle",
        ) from error
    return {
        "origin": data["origin"],
        "size": data["size"],
        "root": data["root"],
        "verified": done.returncode == 0,
        "summary": data["verdict"],
        "findings": len(data["findings"]),
        "not_checked": data["not_checked"],
        "receipts": data["facts"].get("receipts", 0),
        "sums": data["facts"].get("sums", {"opened": 0, "redone": 0}),
        "sum_members": data["facts"].get("sum_members", {"fewest": 0, "most": 0}),
        "verifier": str(command),
        "page": None if page is None else page.name,
    }
