# SPDX-License-Identifier: Apache-2.0
"""``conclude``: the audit is run again, its report written, and the conclusion about it signed.

``--out FILE`` is the envelope; beside it ``FILE.report.json`` is the report that it names by digest. Give
the first to the broker (`iriai-broker audit conclude FILE`), keep both, and begin the next audit with
``--since`` and the note of this checkpoint, which is written as ``FILE.checkpoint``.

``key``: the auditor's own key, made on first use; what its operator enrols is the line on standard output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.identity import fingerprint, key_text
from policies.verify.commands.answers import answer, give, say
from policies.verify.commands.audit import audited
from policies.verify.commands.inputs import check_absent, read_key, write_new
from policies.verify.concluding import conclude, report_bytes
from policies.verify.report import plain
from policies.verify.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    import argparse

__all__ = ["key", "run"]


def run(options: argparse.Namespace) -> int:
    """Runs ``conclude``; its exit code is 0 once the conclusion is signed, whatever it says."""
    beside = {
        suffix: options.out.with_name(options.out.name + suffix) for suffix in (".report.json", ".checkpoint")
    }
    check_absent(options.out, *beside.values())
    signing = read_key(options.key)
    report, history = audited(options)
    say(*report.lines(options.lang))
    envelope = conclude(
        report,
        history,
        signing,
        conclusion=options.conclusion,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    written = report_bytes(report)
    write_new(beside[".report.json"], written)
    if history is not None:
        write_new(beside[".checkpoint"], history.files["checkpoint"])
    write_new(options.out, envelope.to_bytes())
    say(
        f"concluded {options.conclusion}, about size {report.size}, report {digest(written)}",
        f"next      iriai-broker audit conclude {plain(str(options.out))}; begin the next audit with"
        f" --since {plain(str(beside['.checkpoint']))}",
    )
    if options.json:
        answer(
            {
                "conclusion": options.conclusion,
                "size": report.size,
                "report": digest(written),
                "envelope": envelope.to_json(),
                "verdict": report.verdict,
            }
        )
    return 0


def key(options: argparse.Namespace) -> int:
    """Runs ``key``."""
    public = read_key(options.file, entropy=SystemEntropy()).public
    say(f"fingerprint {fingerprint(public)}")
    if options.json:
        answer({"key": key_text(public), "fingerprint": fingerprint(public)})
    else:
        give(key_text(public))
    return 0
