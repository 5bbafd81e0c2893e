# SPDX-License-Identifier: Apache-2.0
"""The auditor's story with votes on rounds: silos judge each round's model, the broker counts.

``verdicts`` says who rejects in which round; a quorum of two thirds of the three silos must accept. The run goes
on from the accepted model, and an operator's word ends a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from policies.contract import Aggregate
from policies.encoding import digest, digest_of
from policies.log.entries import EntryType, Event
from policies.robustness.plan import votes_plan, votes_subject
from tests.auditsim import DELTA, EVALUATION, ORDER, PARTIES, RUN, PoolSim

T = EntryType
VALIDATION = {
    "clause": "validate-1",
    "quorum": "0.66",
    "max_rejected_rounds": 1,
    "judge_episodes": 200,
    "gain_clip": "0.05",
    "max_judgings": 2,
    "epsilon": "0.5",
}


class VotingSim(PoolSim):
    """See the module."""

    against: ClassVar[Mapping[int, tuple[str, ...]]] = {}  # round → who rejects its model
    rejections = 0

    def _tree(self) -> dict[str, Any]:
        return {**super()._tree(), "validation": VALIDATION}

    def _aggregate(self, number: int, survivors: list[str]) -> Aggregate:
        return replace(super()._aggregate(number, survivors), rejected_rounds=self.rejections)

    def open_run(self) -> int | None:
        opened = super().open_run()
        plan = self.plan
        for maker in self.makers.values():
            body = {
                "unit": "episode",
                "adjacency": "zero-out",
                "delta": DELTA,
                "alpha_star": ORDER,
                "plan": digest_of(plan),
                "lineage": f"lineage-{maker.party}",
                "epsilon_max": "8",
            }
            self.add(f"budget {maker.party} votes", self.said(maker, T.BUDGET_OPENED, body, run=RUN))
        return opened

    @property
    def plan(self) -> dict[str, Any]:
        found = votes_plan(self.contract.validation, EVALUATION)
        assert found is not None
        return found

    def round(self, number: int, base: str, run_opened: int | None) -> str:
        model = super().round(number, base, run_opened)
        named = {"model": model, "against": base}
        subject = votes_subject(run=RUN, number=number, **named).removeprefix("sha256:")
        votes = []
        for maker in self.makers.values():
            spend = self.spend(maker, f"{RUN}/eval/{subject}", self.plan, number)
            self.add(f"spent {maker.party} vote {number}", spend)
            vote = "reject" if maker.party in self.against.get(number, ()) else "accept"
            body = {**named, "vote": vote, "evaluation": digest_of(named)}
            said = self.said(maker, T.ROUND_VOTED, body, run=RUN, round=number)
            votes.append(self.add(f"voted {maker.party} {number}", said))
        accepting = len(PARTIES) - len(self.against.get(number, ()))
        accepted = accepting * 100 >= len(PARTIES) * 66
        self.rejections = 0 if accepted else self.rejections + 1
        pub = {
            **named,
            "accepting": accepting,
            "voting": len(PARTIES),
            "verdict": "accepted" if accepted else "rejected",
            "rejected_rounds": self.rejections,
        }
        refs = self.refs(self.names.get(f"aggregate {number}"), *votes)
        self.add(f"judged {number}", self.by_broker(T.ROUND_JUDGED, pub, round=number, refs=refs))
        self.publish()
        if not accepted:
            self._resume()
        return model if accepted else base

    def _resume(self) -> None:
        self.rejections = 0
        pub = {
            "operator": "alice",
            "action": "run.resume",
            "subject": digest(RUN.encode()),
            "result": "done",
            "request": digest(b"resume"),
        }
        self.add("resumed", Event(type=T.CONSOLE_ACTION, pub=pub))
