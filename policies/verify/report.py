# SPDX-License-Identifier: Apache-2.0
"""Findings and the verdict. Text from a bundle never reaches a terminal raw: it goes through `plain`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from policies.verify.rules import LATER, RULES

__all__ = ["Finding", "Report", "plain"]

Json = Any
EVIDENCE_CHARS = 300
FINDINGS_PER_RULE = 50  # more are counted, not kept: a hostile bundle must not fill memory or screen

EXIT_CLEAN = 0
EXIT_ERROR = 3
EXIT_UNTRUSTED = 6
EXIT_REVIEW = 7


def plain(text: object, limit: int = EVIDENCE_CHARS) -> str:
    """Printable ASCII of anything: control, bidi and other characters are escaped, long text is cut."""
    shown = ascii(text)[1:-1] if isinstance(text, str) else ascii(text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a rule found. ``index`` is the entry it is about, if it is about one."""

    id: str
    index: int | None
    evidence: str

    @property
    def severity(self) -> str:
        """``error``, ``review`` or ``note``."""
        return RULES[self.id].severity

    def to_json(self) -> dict[str, Json]:
        """For ``--json``."""
        rule = RULES[self.id]
        return {
            "id": self.id,
            "severity": rule.severity,
            "index": self.index,
            "evidence": self.evidence,
            "checks": rule.checks,
            "by_hand": rule.by_hand,
        }


@dataclass(slots=True, kw_only=True)
class Report:
    """What an audit found. Rules add to it; nobody removes.

    Attributes:
        grade: ``auditor``, or ``member`` where somebody asked for a look at one member's view.
        origin: Of the log, once the checkpoint is trusted.
        size: Number of entries that the checkpoint signs.
        root: Its root, hex.
        findings: At most `FINDINGS_PER_RULE` per rule.
        counts: All findings by rule.
        unchecked: What could not be checked, in words.
        remarks: What a reader should know, in words.
        facts: Figures of the history for people.
        untrusted: Why no log key of the policy holds, if so.
    """

    grade: str = "auditor"
    origin: str | None = None
    size: int | None = None
    root: str | None = None
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unchecked: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, Json] = field(default_factory=dict)
    untrusted: str | None = None

    def add(self, rule: str, evidence: str, *, index: int | None = None) -> None:
        """Records a finding under a rule of the catalogue."""
        self.counts[rule] += 1
        if self.counts[rule] <= FINDINGS_PER_RULE:
            self.findings.append(Finding(id=rule, index=index, evidence=plain(evidence)))

    def not_checked(self, what: str) -> None:
        """Records what could not be checked; once."""
        text = plain(what)
        if text not in self.unchecked:
            self.unchecked.append(text)

    def recomputed(self, what: str) -> None:
        """Records what this audit computed again with more than the bundle or the standard library; once."""
        text, told = plain(what), self.facts.setdefault("recomputed", [])
        if text not in told:
            told.append(text)

    @property
    def exit_code(self) -> int:
        """0 no finding above note, 3 an error, 6 no log key of the policy, 7 only review findings.

        A member's view is never 0: most of what makes a history whole is not in it.
        """
        if self.untrusted is not None:
            return EXIT_UNTRUSTED
        severities = {RULES[rule].severity for rule in self.counts}
        if "error" in severities:
            return EXIT_ERROR
        return EXIT_REVIEW if "review" in severities or self.grade != "auditor" else EXIT_CLEAN

    @property
    def verdict(self) -> str:
        """One sentence; never "OK"."""
        if self.untrusted is not None:
            return "not trusted: no log key of the policy signed this bundle's checkpoint"
        if self.exit_code == EXIT_ERROR:
            return f"refused: {sum(self.counts.values())} findings"
        if self.grade != "auditor":
            return (
                f"a {self.grade}'s view up to size {self.size}, NOT an audit: envelopes, votes, decisions and"
                " spends of others were not checked; ask for the auditor's bundle"
            )
        tail = " (review findings: a person decides)" if self.exit_code == EXIT_REVIEW else ""
        return f"complete up to size {self.size}, witnesses: none required{tail}"

    def _later(self) -> list[str]:
        return [f"{ids}: {what}" for ids, what in LATER]

    def to_json(self) -> dict[str, Json]:
        """``data`` of the envelope that ``--json`` prints."""
        return {
            "tool": "iriai-verify",
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "complete": self.exit_code == EXIT_CLEAN,
            "grade": self.grade,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "untrusted": self.untrusted,
            "findings": [one.to_json() for one in self.findings],
            "counts": dict(sorted(self.counts.items())),
            "remarks": self.remarks,
            "facts": self.facts,
            "not_checked": [*self.unchecked, *self._later()],
        }

    def lines(self) -> list[str]:
        """The report for people, plain ASCII."""
        out = [f"log       {plain(self.origin or 'unknown')}", f"grade     {plain(self.grade)}"]
        if self.size is not None:
            out += [f"size      {self.size}", f"root      {self.root}"]
        if self.untrusted:
            out.append(f"untrusted {plain(self.untrusted)}")
        for one in self.findings:
            at = "" if one.index is None else f" entry {one.index}"
            out.append(f"{one.severity:7} {one.id}{at}: {RULES[one.id].checks}: {one.evidence}")
        for rule, count in sorted(self.counts.items()):
            if count > FINDINGS_PER_RULE:
                out.append(f"{RULES[rule].severity:7} {rule}: {count - FINDINGS_PER_RULE} more")
        out += [f"computed  {one}" for one in self.facts.get("recomputed", ())]
        out += [f"remark    {one}" for one in self.remarks]
        out += [f"not checked: {one}" for one in [*self.unchecked, *self._later()]]
        out.append(f"VERDICT   {self.verdict}")
        return out
