# SPDX-License-Identifier: Apache-2.0
"""``explain``: a rule and how to redo it by hand, an entry type, or one entry of a bundle in prose.

With a bundle and a policy, a rule is also run: its findings in that bundle are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.log.schema import EntryType
from policies.verify.commands.answers import EXIT_USAGE, answer, say
from policies.verify.commands.inputs import read_bundle, read_policy
from policies.verify.commands.look import opened
from policies.verify.errors import InputError
from policies.verify.prose import entry_prose, type_prose
from policies.verify.report import EXIT_CLEAN, EXIT_ERROR, EXIT_REVIEW, Report, plain, rules_of
from policies.verify.rules import RULES
from policies.verify.run import verify
from policies.verify.words import checks_of, hand_of, words

if TYPE_CHECKING:
    import argparse

__all__ = ["run"]

Json = Any


def run(options: argparse.Namespace) -> int:
    """Runs ``explain``."""
    if (options.bundle is None) != (options.policy is None):
        raise InputError(
            need="a bundle together with --policy", found="one of them", remedy="give both, or neither"
        )
    asked = options.what
    if asked.upper() in RULES:
        return _rule(options, asked.upper())
    if asked in set(EntryType):
        lines = type_prose(EntryType(asked), options.lang)
    elif asked.isascii() and asked.isdecimal() and options.bundle is not None:
        return _entry(options, int(asked[:16]))
    else:
        say(
            f"no rule, entry type or entry {plain(asked)} here; an entry needs BUNDLE and --policy",
            "rules: " + " ".join(RULES),
            "entry types: " + " ".join(EntryType),
        )
        return EXIT_USAGE
    _tell(options, lines)
    return 0


def _tell(options: argparse.Namespace, lines: list[str]) -> None:
    say(*lines)
    if options.json:
        answer({"about": options.what, "lang": options.lang, "lines": lines})


def _rule(options: argparse.Namespace, name: str) -> int:
    rule, told = RULES[name], words(options.lang)
    lines = [
        f"{name} ({told['severity_' + rule.severity]})",
        f"{told['checks']}   {checks_of(name, options.lang)}",
        f"{told['by_hand']}  {hand_of(name, options.lang)}",
    ]
    code = EXIT_CLEAN
    if options.bundle is not None:
        report = verify(read_bundle(options.bundle), read_policy(options.policy))
        if report.untrusted:
            code = report.exit_code
        elif report.counts[name]:
            code = {"error": EXIT_ERROR, "review": EXIT_REVIEW}.get(rule.severity, EXIT_CLEAN)
        lines.append(f"{told['found_here']} {report.counts[name]}")
        lines += [
            f"  {'' if one.index is None else one.index} {one.evidence}"
            for one in report.findings
            if one.id == name
        ]
        lines += [f"  {told['not_checked']}: {one}" for one in report.gaps if name in rules_of(one)]
        if report.untrusted:
            lines.append(plain(report.untrusted))
    _tell(options, lines)
    return code


def _entry(options: argparse.Namespace, index: int) -> int:
    report = Report()
    history = opened(options, report)
    if history is None:
        say(*report.lines(options.lang))
        return report.exit_code
    entry = history.entries.get(index)
    if entry is None:
        say(f"entry {index}: the bundle has readable entries 0 to {history.size - 1}")
        return EXIT_USAGE
    _tell(options, entry_prose(index, entry, options.lang, history))
    return report.exit_code
