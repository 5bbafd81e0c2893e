# SPDX-License-Identifier: Apache-2.0
"""The auditor's story (`tests.auditsim`) under a contract that asks for canaries: commitments, reveals, a leak report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from policies.contract import Release
from policies.encoding import canonical, digest
from policies.leak_report import figure_fields, leak_figures, party_figures
from policies.log.entries import EntryType as T
from policies.privacy.canaries import CanarySecret, per_party
from policies.privacy.leakage import SAYS, SCHEMA, leak_checks, leak_facts, verdicts
from policies.privacy.statement import Terms
from tests.auditsim import DELTA, EPSILON, EVIDENCE, RECIPE, RUN, MakerSim, PoolSim

LEAKS = ("canary-report", "membership-inference-report")
AUC_MAX = "0.65"


def untouched(report: dict[str, Any]) -> dict[str, Any]:
    return report


@dataclass
class CanarySim(PoolSim):
    """`edit` changes the evaluation report before the broker writes it down."""

    evidence: tuple[str, ...] = tuple(sorted((*EVIDENCE, *LEAKS)))
    edit: Callable[[dict[str, Any]], dict[str, Any]] = untouched
    told: dict[str, Any] = field(default_factory=dict)

    def _tree(self) -> dict[str, Any]:
        tree = super()._tree()
        tree["release"] |= {"max_mia_auc": AUC_MAX}
        return tree

    def secret(self, maker: MakerSim) -> CanarySecret:
        seed = hashlib.sha256(f"canaries of {maker.party}".encode()).digest()
        count = per_party(self.evidence, self.contract.aggregation.min_parties)
        return CanarySecret(run=RUN, seed=seed, salt=seed[:16], count=count)

    def open_run(self) -> int | None:
        opened = super().open_run()
        for maker in self.makers.values():
            body = self.secret(maker).committed
            self.add(f"committed {maker.party}", self.said(maker, T.CANARY_COMMITTED, body, run=RUN))
        return opened

    def release(self, last: str) -> None:
        for maker in self.makers.values():
            body = self.secret(maker).revealed
            self.add(f"revealed {maker.party}", self.said(maker, T.CANARY_REVEALED, body, run=RUN))
        super().release(last)

    def checks(self) -> dict[str, str]:
        return super().checks() | leak_checks(self.told, self.evidence)

    def report(self, candidate: str, **changes: Any) -> dict[str, Any]:
        parties = {}
        for number, maker in enumerate(self.makers.values()):
            secret = self.secret(maker)
            parties[maker.alias(self.contract.digest, RUN)] = {
                "audit": secret.audit,
                "seed": secret.seed.hex(),
                "salt": secret.salt.hex(),
                "flips": secret.flips,
                "scores": [f"{(5 * one + number) % 17 / 100:.6f}" for one in range(secret.count)],
            }
        for name, own in party_figures(parties).items():
            parties[name] |= own
        rows = [one for _, one in sorted(parties.items())]
        flips = "".join(one["flips"] for one in rows)
        leaks = {
            "schema": SCHEMA,
            "says": SAYS,
            "candidate": candidate,
            "recipe": digest(RECIPE),
            "claim": EPSILON,
            "canaries": len(flips),
            "trained": flips.count("1"),
            "parties": parties,
            "missing": [],
            **figure_fields(
                leak_figures([s for one in rows for s in one["scores"]], flips, delta=float(DELTA))
            ),
        }
        leaks |= verdicts(leaks, auc_max=AUC_MAX)
        self.told = self.edit(super().report(candidate, leaks=leaks, **changes))
        return self.told

    def _release(self, candidate: str) -> Release:
        facts = leak_facts(self.told, fields=(), secrets=())
        return replace(
            super()._release(candidate), mia_auc=facts.mia_auc, canaries_fired=facts.canaries_fired
        )

    def claim_terms(self) -> Terms:
        """With the leak tests of the report."""
        tested = self.told.get("leaks") is not None
        return replace(
            super().claim_terms(),
            leak_report=digest(canonical(self.told)) if tested else None,
            mia_auc=leak_facts(self.told, fields=(), secrets=()).mia_auc,
        )
