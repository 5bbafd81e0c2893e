# SPDX-License-Identifier: Apache-2.0
"""``verify``: everything in a bundle is checked; the verdict as text, JSON, one HTML page and CSV tables.

1. nothing that is to be written is there yet; 2. policy, receipts, models and vectors are read; 3. the
   audit;
4. the text; 5. page and tables from the audited history, and with ``--json`` the envelope.

The envelope's ``data`` is the report, also where the verdict is an error; ``error`` is there whenever the
exit code is not 0.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from policies.log.errors import AuditError, QuorumError
from policies.ports import to_ms
from policies.verify.commands.answers import answer, say
from policies.verify.commands.inputs import (
    check_absent,
    read_bundle,
    read_models,
    read_policy,
    read_text,
    read_vectors,
    write_new,
)
from policies.verify.commands.notes import given_receipts, read_since
from policies.verify.errors import InputError
from policies.verify.page import Made, write_page
from policies.verify.page.controls import read_controls
from policies.verify.run import verify
from policies.verify.sampling import SAMPLE
from policies.verify.tables import table_files, write_tables
from policies.verify.words import words

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from policies.errors import IriaiError
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["audited", "refusal", "run"]

Json = Any
_CONTROLS_BYTES = 1024 * 1024


def audited(options: argparse.Namespace) -> tuple[Report, History | None]:
    """The report of the bundle that the options name, and its history as far as it could be read."""
    if options.jobs < 1:
        raise InputError(need="at least 1 job", found=str(options.jobs), remedy="give --jobs a number")
    kept: list[History] = []
    report = verify(
        read_bundle(options.bundle),
        read_policy(options.policy),
        receipts=given_receipts(options.receipts),
        grade=options.grade,
        models=read_models(options.model),
        vectors=read_vectors(options.vectors),
        then=kept.append,
        since=read_since(options.since),
        as_of_ms=time_option(options.as_of),
        jobs=options.jobs,
    )
    return report, kept[0] if kept else None


def time_option(text: str | None) -> int | None:
    """Milliseconds of a time that an option gives.

    Raises:
        InputError: It is none.
    """
    try:
        return None if text is None else to_ms(text)
    except ValueError as error:
        raise InputError(
            need="a time like 2026-12-05T10:04:00Z", found=text or "", remedy="write it in UTC, with Z"
        ) from error


def run(options: argparse.Namespace) -> int:
    """Runs ``verify``."""
    _check_outputs(options)
    check_absent(options.report, *(() if options.csv is None else table_files(options.csv)))  # 1.
    controls = read_controls(
        None if options.controls is None else read_text(options.controls, most=_CONTROLS_BYTES)
    )
    report, history = audited(options)  # 2. 3.
    say(*report.lines(options.lang))  # 4. first what was found: a full disk must not hide it
    if options.csv is not None:  # 5.
        write_tables(options.csv, history, report)
    if options.report is not None:
        made = Made(
            bundle=(options.bundle.name, _file_digest(options.bundle)),
            policy=(options.policy.name, _file_digest(options.policy)),
            controls=controls,
            seed=options.seed or "",
            sample=SAMPLE if options.sample is None else options.sample,
        )
        write_new(options.report, write_page(report, history, made, options.lang).encode("utf-8"))
    if options.json:
        answer(report.to_json(), refusal(report))
    return report.exit_code


def _check_outputs(options: argparse.Namespace) -> None:
    """What only the page shows is asked for together with it.

    Raises:
        InputError: It is asked for without the page, or the sample is of nothing.
    """
    for name in ("sample", "seed", "controls"):
        if getattr(options, name) is not None and options.report is None:
            raise InputError(
                need=f"--{name} together with --report",
                found=f"--{name} alone",
                remedy="name the page to write; a sample without a page is `iriai-verify sample`",
            )
    if options.sample is not None and options.sample < 1:
        raise InputError(
            need="a sample of at least 1", found=str(options.sample), remedy="give --sample a number"
        )


def refusal(report: Report) -> IriaiError | None:
    """What the envelope says where the exit code is not 0."""
    if report.exit_code == 0:
        return None
    kind = AuditError if report.untrusted is None else QuorumError
    return kind(
        need="a history without findings, signed by a log key of the policy",
        found=report.verdict,
        remedy=words("en")["todo_file"]
        if report.is_damaged
        else "redo the findings by hand; keep the bundle as evidence, ask members for their receipts",
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
