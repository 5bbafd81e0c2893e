# SPDX-License-Identifier: Apache-2.0
"""The sandbox's contract, as the YAML that an operator would write: `contract.yaml` with its blanks filled.

- A run without privacy (``--epsilon inf``) has a contract whose privacy clause says so.
- Every run has secure aggregation, also one without privacy: the broker sees sums.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from policies.log.policy import default_quorum
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PARTIES", "RECIPE_ID", "UPDATE_NORM_MAX", "Maker", "Signer", "contract_text", "makers"]

RECIPE_ID = "pick-place"
UPDATE_NORM_MAX = "10"  # far above any update here; gives the grid that updates are rounded to
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """A manufacturer of the sandbox and the cell that it runs."""

    party: str
    legal_name: str
    country: str
    cell: str

    @property
    def dataset(self) -> str:
        """Name of its data set."""
        return f"{self.party}/pick"


PARTIES = (
    Maker(party="kita", legal_name="Kita Robot KK", country="JP", cell="A"),
    Maker(party="nord", legal_name="Nordschweiss GmbH", country="DE", cell="B"),
    Maker(party="iber", legal_name="Iberpick SA", country="ES", cell="C"),
    Maker(party="hanbit", legal_name="Hanbit Automation", country="KR", cell="D"),
)


def makers(count: int) -> tuple[Maker, ...]:
    """So many manufacturers: the four first, then others, each in one of the four cells again."""
    more = (
        Maker(party=f"maker{at}", legal_name=f"Maker {at} SA", country="ES", cell="ABCD"[at % 4])
        for at in range(len(PARTIES), count)
    )
    return (*PARTIES, *more)[:count]


_BROKER = Maker(party="broker", legal_name="Neutral Broker eG", country="DE", cell="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs, with the ids and the key as enrolled."""

    maker: Maker
    org: str
    key: str


def contract_text(
    *,
    contract_id: str,
    start_ms: int,
    signers: Sequence[Signer],
    broker_org: str,
    broker_key: str,
    recipe_digest: str,
    rounds: int,
    local_steps: int,
    epsilon: str | None,
    delta: str,
    epsilon_total: str | None = None,
    honest_min: int | None = None,
    seeds: Mapping[str, Any] | None = None,
    log_origin: str | None = None,
) -> str:
    """The YAML text.

    Args:
        contract_id: ``ctr_…``.
        start_ms: Until when all must have signed, and from when it holds, for a year.
        signers: The makers.
        broker_org: ``org_…`` of the broker's own organisation.
        broker_key: ``ed25519:…``.
        recipe_digest: Of the recipe's bytes.
        rounds: ``max_rounds``, over all runs.
        local_steps: ``max_local_steps_per_round``.
        epsilon: Per release; None writes ``mode: none``.
        delta: Of the claim.
        epsilon_total: Of all releases together; None: as much as one.
        honest_min: Makers whose noise shares together are the whole noise; None writes ``local-full``.
        log_origin: Of the log that the makers witness; without one the contract demands no witnesses.
        seeds: What ``seed join`` said of the open seed set that the recipe starts from, if it does.
    """
    broker = Signer(maker=_BROKER, org=broker_org, key=broker_key)
    parties = [_party(one, "contributor") for one in signers] + [_party(broker, "broker")]
    datasets = [f"{{party: {one.maker.party}, dataset: {one.maker.dataset}}}" for one in signers]
    form = Template(files("sandbox").joinpath("contract.yaml").read_text("utf-8"))
    return form.substitute(
        contract_id=contract_id,
        start=iso_s(start_ms),
        end=iso_s(start_ms + _YEAR_MS),
        parties="\n".join(parties),
        recipe_digest=recipe_digest,
        rounds=rounds,
        local_steps=local_steps,
        datasets=", ".join(datasets),
        seed_sets=_seed_sets(seeds),
        privacy=_privacy(epsilon, delta, epsilon_total, honest_min),
        update_norm_max=UPDATE_NORM_MAX,
        audit="" if log_origin is None else _audit(log_origin, len(signers)),
    )


def _audit(origin: str, makers: int) -> str:
    """So many makers cosign the log that one of them may be away, and one may sign everything."""
    return (
        "audit: {clause: audit-1, who: [contributors], access: log-proofs, "
        f'log_origin: "{origin}", witness_quorum: {default_quorum(makers)}, '
        "ml_dsa: accept, notice_days: 10, raw_data: never}\n"
    )


def _party(signer: Signer, role: str) -> str:
    maker = signer.maker
    return "\n".join(
        [
            f"  - clause: party-{maker.party}",
            f"    party: {maker.party}",
            f"    org: {signer.org}",
            f"    role: {role}",
            f"    group: {maker.party}",
            f"    legal_name: {json.dumps(maker.legal_name)}",
            f"    country: {maker.country}",
            f'    key: "{signer.key}"',
        ]
    )


def _seed_sets(seeds: Mapping[str, Any] | None) -> str:
    if seeds is None:
        return "seed_sets: []"
    clause = {"clause": "seed-1", "recipe": RECIPE_ID, "seed_set": seeds["seed_set"]}
    return "seed_sets: " + json.dumps([clause | {"donations": seeds["donations"]}])


def _privacy(epsilon: str | None, delta: str, total: str | None, honest_min: int | None) -> str:
    if epsilon is None:
        return "privacy: {clause: dp-1, mode: none}"
    return "\n".join(
        [
            "privacy:",
            "  clause: dp-1",
            "  mode: dp",
            "  unit: episode",
            "  adjacency: zero-out",
            f'  delta: "{delta}"',
            f'  epsilon_per_release: "{epsilon}"',
            f'  epsilon_total: "{epsilon if total is None else total}"',
            "  filter: rdp-fixed-order",
            *_noise(honest_min),
        ]
    )


def _noise(honest_min: int | None) -> list[str]:
    if honest_min is None:
        return ["  noise: local-full"]
    return ["  noise: shares", f"  honest_min: {honest_min}"]
