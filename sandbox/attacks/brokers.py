# SPDX-License-Identifier: Apache-2.0
"""A broker that lies to its nodes: about what was spent, and about who takes part in a sum.

The operator stops the true program and starts a changed one over the same folder, keys and log; the nodes are
ours, unchanged, and stay where they are. That changed program (`sandbox.attacks.lying_broker`) is first let
do an honest run, or one that it may do, so that a refusal is one of the lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sandbox.attacks.attack import Attack, Finding, control, defence
from sandbox.attacks.ground import RUN_S, heard
from sandbox.attacks.lying_broker import BUDGET, COHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.attacks.ground import Ground
    from sandbox.federation import Site

__all__ = ["BUDGETS", "COHORTS"]

_TRAIN: Final = "train.sa_contribute"
_CONFIRM: Final = "query.sa_confirm"
_RUNS_MOST: Final = 4
_ASKED: Final = 2  # members that the lying broker names


def _budgets(ground: Ground) -> Iterator[Finding]:
    federation, clause = ground.federation, ground.clause("privacy")
    done = ground.trained()
    trained = [one[_TRAIN] for one in ground.sent(done).values()]
    yield control(
        "while there is budget, every node trains for the same recipe",
        held=all(trained),
        found=f"{sum(trained)} updates of {len(trained)} nodes",
    )
    code, words = _spend_all(ground)
    spent = [site for site in federation.sites if site.name in words]
    yield control(
        "once it is spent, the broker opens no run while it does not lie",
        held=code == "budget.exhausted" and bool(spent),
        found=words or "it did",
    )
    before = _spends(ground, spent)
    ground.lie(BUDGET)
    run = federation.open_run()
    yield control("lying, it says that nothing was spent, opens one, and asks", held=bool(run), found=run)
    federation.wait_for(
        f"answers in {run}", lambda: len(_declined(ground, run)) >= len(spent) or ground.over(run)
    )
    heard_of = _declined(ground, run)
    rows = _decisions(ground, spent, run, _TRAIN)
    refused = [name for name, found in rows.items() if found and not any(row["allow"] for row in found)]
    named = sorted({one for found in rows.values() for row in found for one in row["clauses"]})
    yield defence(
        "each node whose budget is spent refuses, by its own ledger and its own copy of the contract",
        by=f"the guard of {', '.join(refused) or 'nobody'}, before a byte of data is read",
        code=heard_of[0] if heard_of and len(refused) == len(spent) else "",
        wanted=("contract.refused",),
        found=f"{len(refused)} of {len(spent)} refused; clauses {' '.join(named) or 'none'}",
        clause=" ".join(named),
    )
    yield Finding(what="by the clause on privacy", held=named == [clause], found=" ".join(named))
    ground.stop_run(run)
    after = _spends(ground, spent)
    yield Finding(what="and spent nothing for it", held=before == after, found=_shown(after))


def _spend_all(ground: Ground) -> tuple[str, str]:
    """Lets a broker that does not lie do runs until it refuses one; the refusal."""

    def run() -> None:
        ground.federation.wait_run(ground.federation.open_run(), timeout_s=RUN_S)

    ground.lie("")
    for _ in range(_RUNS_MOST):
        code, words = heard(run)
        if code:
            return code, words
    return "", ""


def _declined(ground: Ground, run: str) -> list[str]:
    """Codes with which nodes declined to train, as the broker heard them."""
    return [str(one["code"]) for one in ground.events(run) if one["event"] == "reply.declined"]


def _spends(ground: Ground, sites: Sequence[Site]) -> dict[str, list[tuple[str, int]]]:
    """Site → part of its units and steps that were spent of them, by its own ledger."""
    told = ground.told(sites, "budget", "show")
    return {
        name: sorted((str(row["part"]), int(row["steps_spent"])) for row in one["budgets"])
        for name, one in told.items()
    }


def _shown(spends: dict[str, list[tuple[str, int]]]) -> str:
    steps = (f"{name} {dict(parts).get('train', 0)}" for name, parts in spends.items())
    return "steps of training: " + ", ".join(steps)


def _cohorts(ground: Ground) -> Iterator[Finding]:
    federation = ground.federation
    done = ground.trained()
    confirmed = [one[_CONFIRM] for one in ground.sent(done).values()]
    yield control(
        "in an honest run every node signs the members of a sum",
        held=all(confirmed),
        found=f"{sum(confirmed)} signatures of {len(confirmed)} nodes",
    )
    ground.lie(COHORT)
    run = federation.open_run()
    federation.wait_for(f"answers in {run}", lambda: bool(_unsigned(ground, run)) or ground.over(run))
    ground.stop_run(run)
    left = ground.sent(run).values()
    vectors, signed = [one[_TRAIN] for one in left], [one[_CONFIRM] for one in left]
    held = sum(1 for one in vectors if one) > _ASKED
    yield control(
        "the lying broker has the vectors of more than it names", held=held, found=f"{sum(vectors)} vectors"
    )
    refusals, codes = len(_unsigned(ground, run)), sorted(set(_unsigned(ground, run)))
    asked = _decisions(ground, federation.sites[:_ASKED], run, _CONFIRM)
    rows = [row for found in asked.values() for row in found]
    clauses = " ".join(sorted({clause for row in rows for clause in row["clauses"]}))
    yield defence(
        f"asked to open a sum of {_ASKED}, the nodes sign nothing",
        by="every member that was asked, by thresholds that follow from the contract and stand in no message",
        code=codes[0] if len(codes) == 1 and not any(signed) else "",
        wanted=("secagg.cohort-too-small",),
        found=f"{refusals} refusals, {sum(signed)} signatures; clauses {clauses or 'none'}",
        clause=clauses,
    )
    made = federation.broker("run", "show", run)["model"]
    yield Finding(what="and the run gave no model", held=made is None, found=str(made or "none"))


def _unsigned(ground: Ground, run: str) -> list[str]:
    """Codes with which nodes declined to confirm a set of members, as the broker heard them."""
    heard_of = [one for one in ground.events(run) if one["event"] == "secagg.declined"]
    return [str(one["code"]) for one in heard_of if one["type"] == _CONFIRM]


def _decisions(ground: Ground, sites: Sequence[Site], run: str, kind: str) -> dict[str, list[dict[str, Any]]]:
    """What the own gates of nodes decided about requests of a kind in a run."""
    told = ground.told(sites, "guard", "log", "--run", run)
    return {name: [row for row in one["decisions"] if row["kind"] == kind] for name, one in told.items()}


BUDGETS: Final = Attack(
    threat="T9",
    words="the broker asks for training that no budget holds, and lies about what was spent",
    tried="When the privacy budget is used up, the operator runs a changed broker: it opens another run and "
    "tells the nodes that nothing was spent.",
    gain="More looks at the same recordings than the contract allows: its epsilon would be worth nothing.",
    left="A node's whole folder that was put back from an older copy trains some rounds more; the log "
    "refuses what they spent. An auditor counts spends; what the broker says would be left, no rule reads.",
    act=_budgets,
)
COHORTS: Final = Attack(
    threat="I27",
    words="the broker asks members to open a sum of two",
    tried="A changed broker takes the masked vectors of all, hides half of the members, and asks the others "
    "to open what is left.",
    gain="A sum of two: each of them knows the other's update, and with one of them the broker does.",
    left="All other members together with the broker learn the last update; no protocol prevents that.",
    act=_cohorts,
)
