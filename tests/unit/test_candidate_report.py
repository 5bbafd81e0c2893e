# SPDX-License-Identifier: Apache-2.0
"""What an owner reads of a candidate before it votes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from client.candidate_report import release_report
from client.errors import DigestMismatchError, NoSuchThingError, PeerAnswerError
from client.learning.weights import initial_weights
from policies.canary_units import weights_of
from policies.encoding import canonical, digest
from policies.leak_report import leak_report
from policies.privacy.canaries import CanarySecret
from tests.learnsim import small_recipe

CANDIDATE = digest(b"candidate")
AUDITS = {
    "conformance": {
        "report": digest(b"r"),
        "mu": "0.45",
        "mu_expected": "0.454",
        "eps_low": "1.31",
        "verdict": "pass",
    },
    "property": {"report": digest(b"p"), "skill": "0.2", "verdict": "pass"},
}


@dataclass
class BrokerSim:
    """Answers what ``iriai-node release show`` asks."""

    report: dict[str, Any]
    sent: bytes | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [{"candidate": CANDIDATE, "report": digest(canonical(self.report))}]

    @property
    def client(self) -> BrokerSim:
        return self

    def get(self, path: str) -> Any:
        assert path == "/candidates"
        return {"candidates": self.rows}

    def get_bytes(self, path: str) -> bytes:
        assert path == f"/reports/{self.rows[0]['report']}"
        return canonical(self.report) if self.sent is None else self.sent


def report(*, missing: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    recipe = small_recipe()
    leaks = leak_report(
        candidate=CANDIDATE,
        recipe=recipe,
        weights=weights_of(initial_weights(recipe).tobytes()),
        reveals={
            f"{n:016x}": CanarySecret(
                run="run_aaaaaaaaaaaaaaaa", seed=bytes([n]) * 32, salt=b"s" * 16, count=22
            )
            for n in range(3)
        },
        missing=missing,
        auc_max=None,
    )
    told = {
        "evaluations": {"a" * 16: digest(b"e")},
        "passed": True,
        "leaks": leaks,
        "audits": {"a" * 16: AUDITS},
    }
    return told | changes


def test_an_owner_reads_figures_verdicts_and_that_they_are_no_proof():
    answer = release_report(BrokerSim(report()), CANDIDATE)  # type: ignore[arg-type]
    text = "\n".join(answer.text)
    for words in (
        "66 of 3 parties",
        "at most 0.65",
        "canary-report passed",
        "never a proof",
        "skill 0.2: pass",
        "mu 0.45",
    ):
        assert words in text, text
    assert answer.data["report"]["leaks"]["code"] is None


def test_a_missing_reveal_is_said_with_its_code():
    text = "\n".join(release_report(BrokerSim(report(missing=("f" * 16,))), CANDIDATE).text)  # type: ignore[arg-type]
    assert "1 parties revealed none: privacy.canary-missing" in text
    assert "canary-report FAILED" in text


def test_a_contract_without_canaries_says_so():
    told = {name: one for name, one in report().items() if name not in {"leaks", "audits"}}
    assert "none: the contract asks" in "\n".join(release_report(BrokerSim(told), CANDIDATE).text)  # type: ignore[arg-type]


def test_another_report_than_the_named_one_is_refused():
    broker = BrokerSim(report(), sent=canonical({"leaks": None}))
    with pytest.raises(DigestMismatchError):
        release_report(broker, CANDIDATE)  # type: ignore[arg-type]


def test_what_is_no_report_is_refused():
    with pytest.raises(PeerAnswerError):
        release_report(BrokerSim({"passed": True}), CANDIDATE)  # type: ignore[arg-type]


def test_a_candidate_that_nobody_evaluated_has_no_report():
    broker = BrokerSim(report())
    broker.rows = [{"candidate": CANDIDATE, "report": None}]
    with pytest.raises(NoSuchThingError):
        release_report(broker, CANDIDATE)  # type: ignore[arg-type]
