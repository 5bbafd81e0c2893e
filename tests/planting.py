# SPDX-License-Identifier: Apache-2.0
"""Planted lies, each with the rule that must find it.

    PLANTS = Plants()

    @PLANTS.planted("AUD-092")
    def a_witness_whose_clock_goes_back() -> Told: ...

    @pytest.mark.parametrize("name", PLANTS.cases)
    def test_…(name): PLANTS.check(name)

`exercised` reads which rules the files of `tests/attack` plant something for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.verify import Report, verify
from policies.verify.rules import RULES

_PLANTED = re.compile(
    r"^@(?:PLANTS\.)?planted\(\s*\"(AUD-\d{3})\"|^    assert set\(report\.counts\) == \{\"(AUD-\d{3})\"\}",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an auditor is given: a bundle, the own policy, and whatever else the case needs."""

    bundle: bytes
    policy: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def audited(self) -> Report:
        return verify(self.bundle, self.policy, **self.options)


Case = Callable[[], Told]


@dataclass
class Plants:
    """The cases of one file."""

    cases: dict[str, tuple[str, Case, frozenset[str]]] = field(default_factory=dict)

    def planted(self, rule: str, *also: str) -> Callable[[Case], Case]:
        """Registers a case: the rule that must fire, and those that may fire beside it."""

        def register(case: Case) -> Case:
            assert case.__name__ not in self.cases
            self.cases[case.__name__] = (rule, case, frozenset(also))
            return case

        return register

    def check(self, name: str) -> Report:
        """Audits a case: its rule fires, no error rule beside those that were named, and the exit code fits."""
        rule, case, also = self.cases[name]
        report = case().audited()
        assert rule in report.counts, report.lines()
        assert set(report.counts) <= {rule} | also, report.lines()
        severities = {RULES[found].severity for found in report.counts}
        expected = 3 if "error" in severities else 7 if "review" in severities else 0
        assert report.exit_code == (expected if report.untrusted is None else 6)
        return report


def exercised(folder: Path) -> set[str]:
    """Rules that a test file of a folder plants something for."""
    files = sorted(folder.glob("test_audit_*.py"))
    found = (one for path in files for one in _PLANTED.findall(path.read_text(encoding="utf-8")))
    return {first or second for first, second in found}
