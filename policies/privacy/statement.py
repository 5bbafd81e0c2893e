# SPDX-License-Identifier: Apache-2.0
"""The privacy statement of a model: the claim, what it rests on, and what it does not cover.

Order of fields follows the pyramid of NIST SP 800-226. Standard library only: an auditor rebuilds every
figure from the plan with `check_statement`. The broker signs the canonical bytes of a model's statement
(DSSE), which travels with every model; a node signs one about its own run, with its ledger's figures.

- One row per contributor; no single epsilon is averaged over them.
- The claim is over the *planned* steps, also after an early stop.
- Held-out units are in a block of their own. ``evaluation`` says what one of them pays in all: the queries
  about candidates and, where the contract asks for them, the votes on rounds, together at one delta.
- Noise shares: the claim rests on ``honest_min`` honest silos, and stands beside `epsilon_by_colluders`: the
  figure for each number of other silos that collude with the broker. Its last row, own share only, is also
  the figure if secure aggregation fails.
- ``secure_aggregation: required`` is said where it was done: every sum of the run was opened by its members,
  with a transcript in the log. It hides whose a fact is; what it leaves open (the sum itself, and one site
  where all the others work with the broker) stands among what is not protected.
- ``NOT PRIVATE`` if any contributor trained without a plan, under a test-only plan, with an engine that
  failed its conformance audit, with noise shares that no secure aggregation summed, or with data that are
  used without privacy elsewhere, where the contributor tells so.
- What is not protected stands in the same signed document (`policies.privacy.statement_words`).

    row = claim("A1b2…", plan.document, epsilon_pld="1.834000")
    document = build_statement(subject=Subject(run=…, model=…, contract=…, recipe=…), claims=[row],
                               evaluation=eval_plan.document, votes=None, terms=Terms())
    check_statement(document)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import canonical, digest_of
from policies.errors import EncodingError
from policies.privacy.accounting import epsilon_rdp, epsilon_text, epsilon_together, epsilons_by_colluders
from policies.privacy.blocks import HELD_OUT
from policies.privacy.caps import plan_facts
from policies.privacy.errors import BudgetError, PlanIncompleteError, StatementError
from policies.privacy.statement_words import holds_against, not_protected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "NOT_PRIVATE",
    "PAYLOAD_TYPE",
    "PRIVATE",
    "Subject",
    "Terms",
    "build_statement",
    "check_statement",
    "claim",
    "held_out",
    "verdict",
]

Json = dict[str, Any]
PAYLOAD_TYPE: Final = "application/vnd.iriai.privacy-statement.v1+json"
SCHEMA: Final = "iriai-privacy-statement/1"
PRIVATE: Final = "PRIVATE"
NOT_PRIVATE: Final = "NOT PRIVATE"
PASSED: Final = "pass"
SHARES: Final = "shares"
REQUIRED: Final = "required"
_PLD_TOLERANCE: Final = 0.01
_MALFORMED: Final = (
    PlanIncompleteError,
    BudgetError,
    EncodingError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)

_FIXED: Final[Json] = {
    "accountant": {"rdp": "iriai-rdp/1", "pld": "dp-accounting 0.6, interval 1e-4"},
    "randomness": {"generator": "ChaCha20 (randomgen)", "keyed_by": "operating system"},
    "floating_point": "double-precision Gaussian; rounding to float32 after noise",
    "search": "none on private data",
    "silo": (
        "No silo-level privacy. Contents are protected per unit; facts about a whole silo by secure "
        "aggregation, policy and audit only."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a statement is about: digests, and the run's id; ``model`` is None for a node's own run."""

    run: str
    model: str | None
    contract: str
    recipe: str

    def __post_init__(self) -> None:
        if not all(isinstance(one, str) for one in (self.run, self.model or "", self.contract, self.recipe)):
            raise ValueError("text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What else the claim depends on.

    Raises:
        ValueError: ``secure_aggregation`` is neither, a slot below 0, or no text where one belongs.

    Attributes:
        secure_aggregation: ``off`` or ``required``, as the contract says and as it was done.
        reply_slot_ms: Slots in which nodes answered; 0 at once.
        seed_set: Digest of the openly donated episodes that training started from, or None.
        leak_report: Digest of the leak tests of the candidate, or None where none was asked for.
        mia_auc: Area under the curve of membership inference in that report.
    """

    secure_aggregation: str = "off"
    reply_slot_ms: int = 0
    seed_set: str | None = None
    leak_report: str | None = None
    mia_auc: str | None = None

    def __post_init__(self) -> None:
        texts = (self.secure_aggregation, self.seed_set or "", self.leak_report or "", self.mia_auc or "")
        whole = type(self.reply_slot_ms) is int and all(isinstance(one, str) for one in texts)
        if not whole or self.secure_aggregation not in {"off", REQUIRED} or self.reply_slot_ms < 0:
            raise ValueError("secure_aggregation off or required, a slot of at least 0 ms")


def claim(
    party: str,
    plan: Mapping[str, Any] | None,
    *,
    summed: int | None = None,
    epsilon_pld: str | None = None,
    lifetime: Mapping[str, Any] | None = None,
    audit: Mapping[str, Any] | None = None,
) -> Json:
    """One contributor's row.

    Args:
        party: Alias of the contributor.
        plan: Document of its plan (`DpPlan.document`), or None for training without one.
        summed: Silos in the smallest sum that may be opened (`policies.contract.thresholds.smallest_sum`);
            needed with noise shares.
        epsilon_pld: The tight figure, where somebody computed it.
        lifetime: The contributor's own ledger figures, where it gives them: ``alpha_star, rho_spent_nano,
            rho_max_nano, epsilon_filter, ledger_head``; and ``waived``, the contracts under which its data
            are used without privacy, if there are any.
        audit: Its conformance audit: ``report, mu, mu_expected, eps_low, verdict``.
    """
    row: Json = {"party": party, "claim": None, "plan": None, "lifetime": None, "audit": None}
    if plan is None:
        return row
    shared = plan["noise"] == SHARES
    return {
        "party": party,
        "claim": {
            "unit": plan["unit"],
            "adjacency": plan["adjacency"],
            "epsilon_rdp": epsilon_text(_epsilon(plan)),
            "epsilon_pld": epsilon_pld,
            "delta": plan["delta"],
            "rests_on_honest_silos": plan["honest_min"],
            "epsilon_by_colluders": _by_colluders(plan, summed or 0) if shared else [],
        },
        "plan": _named(plan),
        "lifetime": dict(lifetime) if lifetime is not None else None,
        "audit": dict(audit) if audit is not None else None,
    }


def _epsilon(plan: Mapping[str, Any]) -> float:
    """Best-order epsilon of all planned steps."""
    return epsilon_rdp(
        q=float(plan["sampling_prob"]),
        sigma=float(plan["noise_multiplier"]),
        steps=int(plan["steps"]),
        delta=float(plan["delta"]),
    )


def _by_colluders(plan: Mapping[str, Any], summed: int) -> list[Json]:
    """Epsilon while 0, 1, ... other silos of the smallest sum collude with the broker."""
    honest_min = int(plan["honest_min"])
    if summed < honest_min:
        raise _wrong(f"at least {honest_min} silos in every sum of noise shares", str(summed))
    table = epsilons_by_colluders(
        q=float(plan["sampling_prob"]),
        sigma=float(plan["noise_multiplier"]),
        steps=int(plan["steps"]),
        delta=float(plan["delta"]),
        summed=summed,
        honest_min=honest_min,
    )
    return [{"colluders": bad, "epsilon_rdp": epsilon_text(one)} for bad, one in enumerate(table)]


def verdict(claims: Sequence[Mapping[str, Any]], terms: Terms | None = None) -> str:
    """``PRIVATE`` if there is a contributor and every one's claim holds; see the module."""
    summed = (terms or Terms()).secure_aggregation == REQUIRED
    private = bool(claims) and all(_holds(row, summed=summed) for row in claims)
    return PRIVATE if private else NOT_PRIVATE


def _holds(row: Mapping[str, Any], *, summed: bool) -> bool:
    if row["plan"] is None:
        return False
    plan = row["plan"]["document"]
    passed = row["audit"] is None or row["audit"].get("verdict") == PASSED
    waived = row["lifetime"] is not None and bool(row["lifetime"].get("waived"))
    return not plan["test_only"] and passed and not waived and (plan["noise"] != SHARES or summed)


def build_statement(
    *,
    subject: Subject,
    claims: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any],
    terms: Terms,
    votes: Mapping[str, Any] | None = None,
) -> Json:
    """The statement as a JSON value; `canonical` of it is what is signed.

    Args:
        subject: What it is about.
        claims: Rows of `claim`, one per contributor; sorted here.
        evaluation: Document of the evaluation plan.
        terms: What else the claim depends on.
        votes: Document of the plan of votes on rounds (`policies.robustness.plan`); None without any.
    """
    rows = sorted((dict(row) for row in claims), key=lambda row: row["party"])
    shared = any(row["plan"] is not None and row["plan"]["document"]["noise"] == SHARES for row in rows)
    return {
        "schema": SCHEMA,
        "subject": asdict(subject),
        "verdict": verdict(rows, terms),
        "contributors": rows,
        "terms": asdict(terms),
        "trust": {
            "holds_against": holds_against(shared=shared),
            "needs_secure_aggregation": shared,
            "broker_verified": ["plan", "steps"] + (["canary reveal"] if terms.leak_report else []),
        },
        "not_protected": not_protected(
            shared=shared,
            summed=terms.secure_aggregation == REQUIRED,
            slotted=terms.reply_slot_ms > 0,
            seeded=terms.seed_set is not None,
        ),
        "evaluation": held_out(evaluation, votes),
        **_FIXED,
    }


def held_out(evaluation: Mapping[str, Any], votes: Mapping[str, Any] | None) -> Json:
    """What was asked of held-out units, and what one of them pays for all of it.

    Args:
        evaluation: Document of the evaluation plan; its delta is that of both.
        votes: Document of the plan of votes on rounds, or None.
    """
    plans = [plan_facts(one)[:3] for one in (evaluation, votes) if one is not None]
    return {
        "plan": _named(evaluation),
        "votes": None if votes is None else _named(votes),
        "block": HELD_OUT,
        "epsilon_rdp": epsilon_text(epsilon_together(plans, float(evaluation["delta"]))),
        "delta": evaluation["delta"],
    }


def _named(plan: Mapping[str, Any]) -> Json:
    return {"digest": digest_of(dict(plan)), "document": dict(plan)}


def statement_bytes(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a statement."""
    return canonical(dict(document))


def check_statement(document: Mapping[str, Any]) -> None:
    """Recomputes every figure that follows from the plans.

    1. it has canonical bytes, so it is nested no deeper than they may be; 2. each row's claim follows from
    its plan; 3. the tight figure is not above the recomputed one; 4. verdict, texts, what held-out units pay
    and all other fields follow from the rows and the plans.

    Raises:
        StatementError: A figure, digest or verdict is not the one that follows, or a fixed text was changed.
    """
    try:
        statement_bytes(document)  # 1.
        rows = document["contributors"]
        _check_rows(rows)  # 2. 3.
        judged = document["evaluation"]
        expected = build_statement(
            subject=Subject(**document["subject"]),
            claims=rows,
            evaluation=judged["plan"]["document"],
            votes=None if judged["votes"] is None else judged["votes"]["document"],
            terms=Terms(**document["terms"]),
        )
    except _MALFORMED as error:
        raise _wrong("a complete statement", type(error).__name__) from error
    if expected != dict(document):  # 4.
        changed = sorted(k for k in expected.keys() | document.keys() if expected.get(k) != document.get(k))
        raise _wrong("the fields that follow from the claims", ", ".join(changed))


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        plan = row["plan"]["document"] if row["plan"] is not None else None
        told = row["claim"] or {}
        tight = told.get("epsilon_pld")
        again = claim(
            row["party"],
            plan,
            summed=len(told.get("epsilon_by_colluders", ())),
            epsilon_pld=tight,
            lifetime=row["lifetime"],
            audit=row["audit"],
        )
        if again != dict(row):
            raise _wrong(f"the claim of {row['party']} that follows from its plan", "another")
        if plan is not None and tight is not None and not float(tight) <= _epsilon(plan) + _PLD_TOLERANCE:
            raise _wrong("epsilon_pld at most epsilon_rdp + 0.01", str(tight))


def _wrong(need: str, found: str) -> StatementError:
    return StatementError(
        need=need, found=found, remedy="do not rely on this model; ask for the statement again"
    )
