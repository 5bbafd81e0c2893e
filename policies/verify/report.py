# SPDX-License-Identifier: Apache-2.0
"""Findings and the verdict. Text from a bundle never reaches a terminal raw: it goes through `plain`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from string import Template
from typing import Any

from policies.ports import iso_s
from policies.verify.rules import LATER, RULES
from policies.verify.words import checks_of, words

__all__ = ["Finding", "Report", "Witnessed", "plain", "rules_of"]

Json = Any
EVIDENCE_CHARS = 300
_FILE_RULES = frozenset({"AUD-001", "AUD-002", "AUD-003"})  # of the file, before anything in it is believed
FINDINGS_PER_RULE = 50  # more are counted, not kept: a hostile bundle must not fill memory or screen

_NUMBER = re.compile(r"(?<!\d)\d{3}(?!\d)")

EXIT_CLEAN = 0
EXIT_ERROR = 3
EXIT_UNTRUSTED = 6
EXIT_REVIEW = 7


def rules_of(gap: str) -> set[str]:
    """Rules that a line of what was not checked begins with."""
    head = gap.partition(":")[0] if gap.startswith("AUD-") else ""
    return {f"AUD-{number}" for number in _NUMBER.findall(head)}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """Who cosigned the bundle's checkpoint, by the auditor's own policy.

    Attributes:
        have: Votes that hold; an organisation has one.
        voters: Votes that there are.
        needed: Votes that the quorum asks for; 0 where none is required.
        time_s: When the quorum was reached by the cosigners' clocks, in seconds since 1970; None without
            one.
    """

    have: int
    voters: int
    needed: int
    time_s: int | None = None

    def to_json(self) -> dict[str, Json]:
        """For ``--json``."""
        return {
            "have": self.have,
            "voters": self.voters,
            "needed": self.needed,
            "time": None if self.time_s is None else iso_s(self.time_s * 1000),
        }

    def text(self, lang: str) -> str:
        """In words."""
        told = words(lang)
        if not self.voters:
            return told["witnessed_none"]
        time = "" if self.time_s is None else iso_s(self.time_s * 1000)
        at = Template(told["witnessed_at"]).substitute(time=time) if time else ""
        return Template(told["witnessed_some"]).substitute(
            have=self.have, voters=self.voters, at=at, needed=self.needed
        )


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
        tallies: Counts that rules about one run after the other add up; facts are made of them at the end.
        untrusted: Why no log key or quorum of the policy holds, if so.
        witnessed: Who cosigned the checkpoint; None before that was looked at.
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
    tallies: Counter[str] = field(default_factory=Counter)
    untrusted: str | None = None
    witnessed: Witnessed | None = None

    def add(self, rule: str, evidence: str, *, index: int | None = None) -> None:
        """Records a finding under a rule of the catalogue."""
        self.counts[rule] += 1
        if self.counts[rule] <= FINDINGS_PER_RULE:
            self.findings.append(Finding(id=rule, index=index, evidence=plain(evidence)))

    def take(self, part: Report) -> None:
        """What a report about a part of the same history found; parts come in order."""
        kept = Counter(one.id for one in self.findings)
        for one in part.findings:
            if kept[one.id] < FINDINGS_PER_RULE:
                kept[one.id] += 1
                self.findings.append(one)
        self.counts += part.counts
        self.tallies += part.tallies
        for text in part.unchecked:
            self.not_checked(text)
        self.facts |= {name: value for name, value in part.facts.items() if name != "recomputed"}
        for text in part.facts.get("recomputed", ()):
            self.recomputed(text)

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
        return self.verdict_in("en")

    def verdict_in(self, lang: str) -> str:
        """The verdict in another language."""
        told = words(lang)
        if self.untrusted is not None:
            return told["verdict_untrusted"]
        if self.exit_code == EXIT_ERROR:
            count = sum(self.counts.values())
            return Template(told["verdict_refused" + ("_one" if count == 1 else "")]).substitute(count=count)
        if self.grade != "auditor":
            return Template(told["verdict_member"]).substitute(grade=self.grade, size=self.size)
        witnessed = (self.witnessed or Witnessed(have=0, voters=0, needed=0)).text(lang)
        complete = Template(told["verdict_complete"]).substitute(size=self.size, witnessed=witnessed)
        return complete + (told["verdict_review"] if self.exit_code == EXIT_REVIEW else "")

    def privacy_in(self, lang: str) -> str:
        """What the privacy statements of releases come to; empty without one that holds."""
        return words(lang).get(f"privacy_{self.facts.get('privacy')}", "")

    def receipts_in(self, lang: str) -> str:
        """How many receipts of members were checked, by grade; empty where none was given."""
        grades: dict[str, int] = self.facts.get("receipts_by_grade", {})
        if not self.facts.get("receipts"):
            return ""
        shown = ", ".join(f"{grade} {grades.get(grade, 0)}" for grade in ("witnessed", "signed"))
        told = Template(words(lang)["receipts_checked"])
        return told.substitute(count=sum(grades.values()), given=self.facts["receipts"], grades=shown)

    @property
    def gaps(self) -> list[str]:
        """Everything that was not checked: by this run, and by this version at all."""
        return [*self.unchecked, *(f"{ids}: {what}" for ids, what in LATER)]

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
            "witnessed": None if self.witnessed is None else self.witnessed.to_json(),
            "findings": [one.to_json() for one in self.findings],
            "counts": dict(sorted(self.counts.items())),
            "remarks": self.remarks,
            "facts": self.facts,
            "not_checked": self.gaps,
        }

    def lines(self, lang: str = "en") -> list[str]:
        """The report for people: ASCII in English, what comes from the bundle in every language."""
        out = [f"log       {plain(self.origin or 'unknown')}", f"grade     {plain(self.grade)}"]
        if self.size is not None:
            out += [f"size      {self.size}", f"root      {self.root}"]
        if self.untrusted:
            out.append(f"untrusted {plain(self.untrusted)}")
        if (english := words(lang)["english_lines"]) and (self.findings or self.gaps):
            out.append(f"language  {english}")
        for one in self.findings:
            at = "" if one.index is None else f" entry {one.index}"
            out.append(f"{one.severity:7} {one.id}{at}: {checks_of(one.id, lang)}: {one.evidence}")
        for rule, count in sorted(self.counts.items()):
            if count > FINDINGS_PER_RULE:
                out.append(f"{RULES[rule].severity:7} {rule}: {count - FINDINGS_PER_RULE} more")
        out += [f"computed  {one}" for one in self.facts.get("recomputed", ())]
        out += [f"remark    {one}" for one in self.remarks]
        out += [f"not checked: {one}" for one in self.gaps]
        if self.receipts_in(lang):
            out.append(f"receipts  {self.receipts_in(lang)}")
        if self.privacy_in(lang):
            out.append(f"PRIVACY   {self.privacy_in(lang)}")
        out.append(f"VERDICT   {self.verdict_in(lang)}")
        if self.is_damaged:
            out.append(f"to do     {words(lang)['todo_file']}")
        return out

    @property
    def is_damaged(self) -> bool:
        """Whether the file itself is no bundle, so that it says nothing about the log."""
        return bool(self.counts.keys() & _FILE_RULES)
