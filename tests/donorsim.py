# SPDX-License-Identifier: Apache-2.0
"""The auditor's story (`tests.auditsim`) under a contract whose recipe starts from openly donated episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.consents import Consent, seal_consent
from policies.encoding import canonical, digest
from policies.identity import SigningKey, key_text
from policies.log.bundle import Contents
from policies.privacy.statement import Terms
from tests.auditsim import EVALUATION, PLAN, PoolSim, digest_from

SEED_SET = digest_from("seed set")
LICENCE = "CC-BY-4.0"
DONORS = ("kita", "nord")
STARTED: dict[str, Any] = {
    "schema": "iriai-recipe/1",
    "plan": PLAN,
    "evaluation": EVALUATION,
    "inputs": [{"field": "tcp_pos"}, {"field": "goal_pos"}],
    "outputs": [{"field": "gripper_cmd"}],
    "start": {"seed_set": SEED_SET, "model": digest_from("start model")},
}


def unchanged(_party: str) -> dict[str, Any]:
    return {}


@dataclass
class DonorSim(PoolSim):
    """``words`` changes what a donor's consent says, ``signers`` by whose key, ``left_out`` what is exported."""

    recipe: bytes = canonical(STARTED)
    words: Callable[[str], dict[str, Any]] = unchanged
    signers: Mapping[str, SigningKey] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    @property
    def consents(self) -> dict[str, bytes]:
        """Every donor's signed consent."""
        return {party: self._consent(party) for party in DONORS}

    def _consent(self, party: str) -> bytes:
        key = self.signers.get(party, self.makers[party].key)
        said: dict[str, Any] = {
            "party": party,
            "key": key_text(key.public),
            "dataset": f"{party}/pick",
            "licence": LICENCE,
            "purpose": "pick-place",
            "episodes": (digest_from(f"episode of {party}"),),
            "observation": ("goal_pos", "tcp_pos"),
            "action": ("gripper_cmd",),
            "at": "2026-10-01T08:00:00Z",
        }
        return seal_consent(Consent(**(said | self.words(party))), key)

    def _tree(self) -> dict[str, Any]:
        tree = super()._tree()
        tree["fields"]["allow"].append("gripper_cmd")
        rows = [
            {"party": party, "dataset": f"{party}/pick", "consent": digest(data), "licence": LICENCE}
            for party, data in self.consents.items()
        ]
        tree["seed_sets"] = [{"clause": "seed-1", "recipe": "pick", "seed_set": SEED_SET, "donations": rows}]
        return tree

    def start(self) -> dict[str, Any]:
        return {"seed_set": SEED_SET, "seed_consents": tuple(map(digest, self.consents.values()))}

    def claim_terms(self) -> Terms:
        return replace(super().claim_terms(), seed_set=SEED_SET)

    def contents(self, **changes: Any) -> Contents:
        kept = [data for party, data in self.consents.items() if party not in self.left_out]
        return super().contents(**({"consents": kept} | changes))
