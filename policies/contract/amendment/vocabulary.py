# SPDX-License-Identifier: Apache-2.0
"""Every name that a request about these contracts can hold, by fact, and one stranger for the rest.

No check compares a name with anything but names of its contract, names of the language and other facts of the
request. So two names that appear in neither contract are alike, and a finite list stands for all strings.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from policies.contract.clauses import PrivacyClause
from policies.contract.grammar import Choice, Nullable, Rule, rules_of
from policies.contract.registry import EVIDENCE, RECIPIENTS, VIEWS
from policies.contract.requests import PUBLIC, PlanFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.contract.clauses import Contract

__all__ = ["vocabulary"]

_STRANGER: Final = "stranger"
_NO_COUNTRY: Final = "ZZ"
_NO_KEY: Final = "ed25519:" + "0" * 64
_NO_DIGEST: Final = "sha256:" + "0" * 64
_A_DIGEST: Final = "sha256:" + "d" * 64  # of a model, a notice, an attestation: any digest will do
_COHORTS: Final = (
    "approvals",
    "attestations",
    "cohort",
    "earlier_cohorts",
    "epsilon_after",
    "exited_parties",
    "newcomers",
    "party",
    "signers",
    "survivors",
    "validation",
    "vetoes",
)


def vocabulary(*contracts: Contract) -> Mapping[str, tuple[str, ...]]:
    """The names of each fact that holds names; the stranger is the last one."""
    parties = [one.party for contract in contracts for one in contract.parties]
    keys = [one.key for contract in contracts for one in contract.parties]
    words = {name: _with(_STRANGER, [*parties, PUBLIC]) for name in _COHORTS}
    words |= {
        "attestation": _with(_STRANGER, ["none", _A_DIGEST]),
        "canaries_fired": _with(_STRANGER, _secret_fields(contracts)),
        "country": _with(_NO_COUNTRY, _countries(contracts)),
        "dataset": _with(
            _STRANGER, (ref.dataset for one in contracts for recipe in one.recipes for ref in recipe.datasets)
        ),
        "evidence": _with(_STRANGER, EVIDENCE),
        "fields": _with(
            _STRANGER, [*_secret_fields(contracts), *(f for c in contracts for f in c.fields.allow)]
        ),
        "group_mac": _with(_STRANGER, ("off", "on")),
        "groups": _with(_STRANGER, (one.group for contract in contracts for one in contract.parties)),
        "key": _with(_NO_KEY, keys),
        "keys": _with(_NO_KEY, keys),
        "kind": _with(_STRANGER, ("change", "tighten")),
        "log_origin": _with(_STRANGER, (one.audit.log_origin for one in contracts if one.audit is not None)),
        "model": _with(_STRANGER, [_A_DIGEST]),
        "notice": _with(_STRANGER, [_A_DIGEST]),
        "purpose": _with(_STRANGER, (one.id for contract in contracts for one in contract.purposes)),
        "recipe_digest": _with(_NO_DIGEST, (one.recipe_digest for c in contracts for one in c.recipes)),
        "rotated_keys": _with(_NO_KEY, keys),
        "secure_aggregation": _with(_STRANGER, ("off", "required")),
        "seed_consents": _with(_NO_DIGEST, _consents(contracts)),
        "seed_set": _with(_NO_DIGEST, ["none", *(one.seed_set for c in contracts for one in c.seed_sets)]),
        "stage": _with(_STRANGER, ("effect", "open")),
        "standing": _with(_STRANGER, ("in-force", "superseded", "terminated")),
        "subject": _with(_STRANGER, [*parties, "all"]),
        "supersedes": _with(_NO_DIGEST, (one.digest for one in contracts)),
        "tier": _with(_STRANGER, RECIPIENTS),
        "unreleased_models": _with(_STRANGER, ("discard", "retrain")),
        "view": _with(_STRANGER, VIEWS),
    }
    terms = rules_of(PrivacyClause)
    words |= {
        one.name: _with(_STRANGER, _options(terms[one.name]))
        for one in fields(PlanFacts)
        if one.name != "delta"
    }
    return words


def _with(stranger: str, names: Iterable[str]) -> tuple[str, ...]:
    return (*sorted(set(names) - {stranger}), stranger)


def _options(rule: Rule) -> tuple[str, ...]:
    inner = rule.of if isinstance(rule, Nullable) else rule
    return inner.options if isinstance(inner, Choice) else ()


def _secret_fields(contracts: Iterable[Contract]) -> list[str]:
    return [name for one in contracts for secret in one.fields.trade_secret for name in secret.fields]


def _countries(contracts: Iterable[Contract]) -> list[str]:
    found = [one.country for contract in contracts for one in contract.parties]
    for contract in contracts:
        found += contract.export_control.embargoed if contract.export_control is not None else ()
    return found


def _consents(contracts: Iterable[Contract]) -> list[str]:
    return [gift.consent for one in contracts for seed in one.seed_sets for gift in seed.donations]
