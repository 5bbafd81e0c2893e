# SPDX-License-Identifier: Apache-2.0
"""AUD-064: a second accountant where one is installed, and a plain word where none is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policies.log.policy import policy_text
from policies.privacy import tight
from policies.privacy.accounting import epsilon_rdp
from policies.privacy.statement import claim
from policies.verify.accountants import check_accounting
from policies.verify.report import Report
from tests.auditsim import PLAN, PoolSim

ROOT = Path(__file__).parents[2]
NUMBERS = {"q": 0.2, "sigma": 6.2244, "steps": 200, "delta": 1e-5}

CHILD = """
import importlib.abc, json, sys
from pathlib import Path

blocked, bundle, policy = sys.argv[1].split(), sys.argv[2], sys.argv[3]

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from policies.log.policy import parse_policy
from policies.verify import verify
before = sorted({name.split(".")[0] for name in sys.modules} & {"dp_accounting", "pydantic", "numpy"})
report = verify(Path(bundle).read_bytes(), parse_policy(Path(policy).read_text("utf-8")))
out = {"before": before, "counts": report.counts, "lines": report.lines(), "pydantic": "pydantic" in sys.modules}
json.dump(out, sys.stdout)
"""


def audited(folder: Path, *blocked: str) -> dict[str, Any]:
    """What a fresh interpreter says about the simulated pool, without some packages."""
    sim = PoolSim().build()
    (folder / "bundle.zip").write_bytes(sim.bundle())
    (folder / "policy").write_text(policy_text(sim.policy), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, " ".join(blocked), str(folder / "bundle.zip"), str(folder / "policy")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=120,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_without_the_library_the_report_says_that_nothing_was_recomputed(tmp_path):
    told = audited(tmp_path, "dp_accounting", "numpy", "scipy", "pydantic")
    assert (told["before"], told["counts"]) == ([], {})
    wanted = (
        "not checked: AUD-064: epsilon_pld not recomputed, only its bounds (dp-accounting is not installed)"
    )
    assert told["lines"].count(wanted) == 1


def test_with_the_library_alone_both_figures_are_recomputed_and_named(tmp_path):
    told = audited(tmp_path, "pydantic")
    assert (told["before"], told["counts"], told["pydantic"]) == ([], {}, False)
    assert not [one for one in told["lines"] if "not recomputed" in one]
    wanted = (
        "computed  AUD-064: epsilon_pld 1.834119 (stated 1.834000), epsilon_rdp 1.999976, by dp-accounting"
    )
    assert told["lines"].count(wanted) == 1


def checked(stated: str | None = None, **changes: Any) -> Report:
    report = Report()
    row = claim("a1b2", PLAN | changes, epsilon_pld=stated)
    check_accounting([row, row], 7, report)
    return report


@pytest.mark.parametrize(("stated", "found"), [("1.8245", 0), ("1.8435", 0), ("1.8235", 1), ("1.8445", 1)])
def test_a_stated_figure_may_differ_by_a_hundredth_and_no_more(stated, found):
    assert min(checked(stated).counts["AUD-064"], 1) == found


def test_without_a_stated_figure_the_other_one_is_still_compared():
    report = checked()
    assert report.findings == []
    assert report.facts["recomputed"] == [
        "AUD-064: epsilon_pld 1.834119 (none stated), epsilon_rdp 1.999976, by dp-accounting"
    ]


@pytest.mark.parametrize("off", [-1e-5, 1e-5])
def test_two_accountants_that_disagree_about_epsilon_rdp_are_a_finding(monkeypatch, off):
    own = epsilon_rdp(**NUMBERS)
    monkeypatch.setattr(tight, "second_figures", lambda **_: SimpleNamespace(pld=1.834, rdp=own + off))
    (one,) = checked("1.834").findings
    assert (one.id, one.index) == ("AUD-064", 7)
    assert "epsilon_rdp" in one.evidence


@pytest.mark.parametrize("error", [AttributeError("REPLACE_SPECIAL"), ValueError("x"), MemoryError()])
def test_a_library_that_cannot_is_no_finding_about_the_bundle(monkeypatch, error):
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(tight, "second_figures", fail)
    report = checked("1.834")
    assert report.findings == []
    assert type(error).__name__ in report.unchecked[0]


def test_a_plan_that_protects_nothing_costs_the_auditor_no_time(monkeypatch):
    monkeypatch.setattr(tight, "second_figures", lambda **_: pytest.fail("computed"))
    report = checked(noise_multiplier="0.1")
    assert report.unchecked == [
        "AUD-064: epsilon_pld not recomputed, only its bounds (epsilon_rdp is above 100)"
    ]


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta"),
    [(0.2, 6.2244, 200, 1e-5), (1.0, 5.0, 1, 1e-5), (0.05, 1.0, 200, 1e-5), (0.001, 50.0, 10, 1e-5)],
)
def test_the_second_renyi_accountant_agrees_with_ours(q, sigma, steps, delta):
    found = tight.second_figures(q=q, sigma=sigma, steps=steps, delta=delta)
    assert found.rdp == pytest.approx(epsilon_rdp(q, sigma, steps, delta), abs=1e-6)
    assert found.pld <= found.rdp + 0.01


def test_a_row_without_a_plan_has_no_figures_to_compare():
    report = Report()
    check_accounting([claim("a1b2", None)], 7, report)
    assert (report.findings, report.unchecked, report.facts) == ([], [], {})
