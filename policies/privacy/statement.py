# SPDX-License-Identifier: Apache-2.0
"""The privacy statement of a model: the claim, what it rests on, and what it does not cover.

Order of fields follows the pyramid of NIST SP 800-226. Standard library only: an auditor rebuilds every
figure from the plan with `check_statement`. The broker signs the canonical bytes (DSSE), the statement
travels with every model.

- One row per contributor; no single epsilon is averaged over them.
- The claim is over the *planned* steps, also after an early stop.
- ``NOT PRIVATE`` if any contributor trained without a plan or under a test-only plan.

    row = claim("A1b2…", plan.document, epsilon_pld="1.834000")
    document = build_statement(run=…, model=…, contract=…, recipe=…, claims=[row], evaluation=plan_digest)
    check_statement(document)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical, digest_of
from policies.privacy.accounting import epsilon_rdp, epsilon_text
from policies.privacy.errors import StatementError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NOT_PRIVATE", "PAYLOAD_TYPE", "PRIVATE", "build_statement", "check_statement", "claim", "verdict"]

Json = dict[str, Any]
PAYLOAD_TYPE: Final = "application/vnd.iriai.privacy-statement.v1+json"
SCHEMA: Final = "iriai-privacy-statement/1"
PRIVATE: Final = "PRIVATE"
NOT_PRIVATE: Final = "NOT PRIVATE"
_PLD_TOLERANCE: Final = 0.01

_FIXED: Final[Json] = {
    "accountant": {"rdp": "iriai-rdp/1", "pld": "dp-accounting 0.6, interval 1e-4"},
    "trust": {
        "holds_against": ["auditor", "broker", "other members", "recipient"],
        "needs_secure_aggregation": False,
        "broker_verified": ["plan", "steps"],
    },
    "not_protected": [
        "product mix and other facts about many units",
        "existence of the membership",
        "time of replies",
        "data that the owner enrols twice unseen",
    ],
    "randomness": {"generator": "ChaCha20 (randomgen)", "keyed_by": "operating system"},
    "floating_point": "double-precision Gaussian; rounding to float32 after noise",
    "search": "none on private data",
    "silo": "No silo-level privacy: facts about a whole silo are protected by policy and audit only.",
}


def claim(
    party: str,
    plan: Mapping[str, Any] | None,
    *,
    epsilon_pld: str | None = None,
    lifetime: Mapping[str, Any] | None = None,
) -> Json:
    """One contributor's row.

    Args:
        party: Alias of the contributor.
        plan: Document of its plan (`DpPlan.document`), or None for training without one.
        epsilon_pld: The tight figure, where somebody computed it.
        lifetime: The contributor's own ledger figures, where it gives them: ``alpha_star, rho_spent_nano,
            rho_max_nano,
            epsilon_filter, ledger_head``.
    """
    if plan is None:
        return {"party": party, "claim": None, "plan": None, "lifetime": None}
    return {
        "party": party,
        "claim": {
            "unit": plan["unit"],
            "adjacency": plan["adjacency"],
            "epsilon_rdp": epsilon_text(_epsilon(plan)),
            "epsilon_pld": epsilon_pld,
            "delta": plan["delta"],
        },
        "plan": {"digest": digest_of(dict(plan)), "document": dict(plan)},
        "lifetime": dict(lifetime) if lifetime is not None else None,
    }


def _epsilon(plan: Mapping[str, Any]) -> float:
    return epsilon_rdp(
        q=float(plan["sampling_prob"]),
        sigma=float(plan["noise_multiplier"]),
        steps=int(plan["steps"]),
        delta=float(plan["delta"]),
    )


def verdict(claims: Sequence[Mapping[str, Any]]) -> str:
    """``PRIVATE`` if there is a contributor and each has a plan that is not for tests."""
    plans = [row["plan"] for row in claims]
    private = bool(plans) and all(p is not None and not p["document"]["test_only"] for p in plans)
    return PRIVATE if private else NOT_PRIVATE


def build_statement(
    *,
    run: str,
    model: str,
    contract: str,
    recipe: str,
    claims: Sequence[Mapping[str, Any]],
    evaluation: str,
) -> Json:
    """The statement as a JSON value; `canonical` of it is what the broker signs.

    Args:
        run: The run.
        model: Digest of the model.
        contract: Digest of the contract.
        recipe: Digest of the recipe.
        claims: Rows of `claim`, one per contributor; sorted here.
        evaluation: Digest of the evaluation plan.
    """
    rows = sorted((dict(row) for row in claims), key=lambda row: row["party"])
    return {
        "schema": SCHEMA,
        "subject": {"run": run, "model": model, "contract": contract, "recipe": recipe},
        "contributors": rows,
        "evaluation": {"plan": evaluation, "block": "held-out"},
        "verdict": verdict(rows),
        **_FIXED,
    }


def statement_bytes(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a statement."""
    return canonical(dict(document))


def check_statement(document: Mapping[str, Any]) -> None:
    """Recomputes every figure that follows from the plans.

    Raises:
        StatementError: A figure, digest or verdict is not the one that follows, or a fixed text was changed.
    """
    try:
        rows = document["contributors"]
        _check_rows(rows)
        expected = build_statement(
            claims=rows, evaluation=document["evaluation"]["plan"], **document["subject"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _wrong("a complete statement", type(error).__name__) from error
    if expected != dict(document):
        changed = sorted(k for k in expected.keys() | document.keys() if expected.get(k) != document.get(k))
        raise _wrong("the fields that follow from the claims", ", ".join(changed))


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        plan = row["plan"]["document"] if row["plan"] is not None else None
        tight = row["claim"]["epsilon_pld"] if row["claim"] is not None else None
        if claim(row["party"], plan, epsilon_pld=tight, lifetime=row["lifetime"]) != dict(row):
            raise _wrong(f"the claim of {row['party']} that follows from its plan", "another")
        if plan is not None and tight is not None and float(tight) > _epsilon(plan) + _PLD_TOLERANCE:
            raise _wrong("epsilon_pld at most epsilon_rdp + 0.01", str(tight))


def _wrong(need: str, found: str) -> StatementError:
    return StatementError(
        need=need, found=found, remedy="do not rely on this model; ask for the statement again"
    )
