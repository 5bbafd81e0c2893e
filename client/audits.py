# SPDX-License-Identifier: Apache-2.0
"""Audits of this node's training: run in a process of their own, and kept for statement and gate.

::

    audits/<64 hex of the plan's digest>.json         the newest report `iriai-conformance/1` about a plan
    audits/<64 hex of the recipe's digest>.mix.json   the newest `iriai-property-audit/1` about a recipe

A report that is kept here is what the node says about itself. It is not a permission: the worker makes its
own before it trains (`client.conforming`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.naming import named_here
from client.settings import write_durably
from policies.encoding import canonical
from policies.limits import AUDIT_S
from policies.privacy.conformance import ConformanceReport, sentences
from policies.privacy.errors import AuditFailedError, PlanIncompleteError
from policies.privacy.property_skill import PropertyReport

if TYPE_CHECKING:
    from pathlib import Path

    from client.settings import Home
    from policies.recipe import Recipe

__all__ = [
    "audit",
    "audit_mix",
    "in_child",
    "keep",
    "kept",
    "kept_mix",
    "mix_sentences",
    "read_recipe",
    "told",
]

_LITTLE: Final = 0.35  # an upper bound of skill below which a mix is said to be hidden for the most part


def _path(home: Home, plan: str) -> Path:
    return home.audits / f"{plan.removeprefix('sha256:')}.json"


def keep(home: Home, report: ConformanceReport) -> Path:
    """Writes a report beside the node's other files; gives the file."""
    path = _path(home, report.plan)
    write_durably(path, canonical(report.document))
    return path


def kept(home: Home, plan: str) -> ConformanceReport | None:
    """The newest report about a plan, or None.

    Args:
        home: The node's folder.
        plan: Digest of the plan.

    Raises:
        PlanIncompleteError: The file is there and is no report.
    """
    try:
        data = _path(home, plan).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return ConformanceReport.load(json.loads(data))
    except ValueError as error:
        raise PlanIncompleteError(
            need=f"a report in {_path(home, plan)}",
            found="no JSON",
            remedy="run the audit again: iriai-node privacy audit",
        ) from error


def kept_mix(home: Home, recipe: str) -> PropertyReport | None:
    """The newest audit of product mixes under a recipe, or None.

    Args:
        home: The node's folder.
        recipe: Digest of the recipe.

    Raises:
        PlanIncompleteError: The file is there and is no report.
    """
    try:
        data = _mix_path(home, recipe).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return PropertyReport.load(json.loads(data))
    except ValueError as error:
        raise PlanIncompleteError(
            need=f"a report in {_mix_path(home, recipe)}",
            found="no JSON",
            remedy="run the audit again: iriai-node privacy audit --mix",
        ) from error


def _mix_path(home: Home, recipe: str) -> Path:
    return home.audits / f"{recipe.removeprefix('sha256:')}.mix.json"


def read_recipe(home: Home, name: str, *, contract: str | None) -> Recipe:
    """The recipe to audit, which must have a plan.

    Args:
        home: The node's folder.
        name: A file with the recipe's canonical bytes; with a contract also its digest, 12 hex digits do.
        contract: Digest of a contract that is here; 12 hex digits do.

    Raises:
        NoSuchThingError: No such file, no such contract here, or no such recipe of the contract.
        RecipeError: It is no recipe.
        PlanIncompleteError: It has no plan.
    """
    recipe = named_here(home, name, contract=contract).recipe
    if recipe.plan is None:
        raise PlanIncompleteError(
            need="a recipe with a privacy plan",
            found="NOT PRIVATE: its plan is null",
            remedy="nothing can be audited where nothing is claimed",
        )
    return recipe


def in_child(home: Home, recipe: Recipe, kind: str) -> Any:  # noqa: ANN401  JSON of a process of our own
    """What an audit in a process of its own prints.

    Args:
        home: The node's folder.
        recipe: What is audited; its bytes go to the process.
        kind: ``conformance`` or ``property``.

    Raises:
        AuditFailedError: The process ended without a report.
    """
    command = [sys.executable, "-m", "client.node", "--dir", str(home.root), "--audit", kind]
    try:
        done = subprocess.run(  # noqa: S603
            command, input=recipe.canonical, capture_output=True, timeout=AUDIT_S, check=False
        )
        said = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        said = None
    if said is None:
        raise AuditFailedError(
            need="a report of the audit",
            found="a process that ended without one",
            remedy=f"see its own words: {' '.join(command[1:])} < the recipe",
        )
    return said


def audit(home: Home, name: str, *, contract: str | None = None) -> Answer:
    """Runs the conformance audit of a recipe's plan and keeps the report; one of a failure is a refusal.

    Raises:
        NoSuchThingError: No such recipe.
        PlanIncompleteError: It has no plan.
        AuditFailedError: The process ended without a report.
    """
    recipe = read_recipe(home, name, contract=contract)
    report = ConformanceReport.load(in_child(home, recipe, "conformance"))
    return told(report, keep(home, report))


def told(report: ConformanceReport, path: Path) -> Answer:
    """A report that is kept in a file, for person and program; with its refusal if the audit failed."""
    failed = None
    try:
        report.need_passed()
    except AuditFailedError as error:
        failed = error
    return Answer(
        data={"report": report.document, "digest": report.digest, "file": str(path)},
        text=(*sentences(report), f"report      {path}"),
        error=failed,
    )


def audit_mix(home: Home, name: str, *, contract: str | None = None) -> Answer:
    """How well updates under a recipe's plan give a site's product mix away, on made-up silos.

    Raises:
        NoSuchThingError: No such recipe.
        PlanIncompleteError: It has no plan.
        AuditFailedError: The process ended without a report.
    """
    recipe = read_recipe(home, name, contract=contract)
    report = PropertyReport.load(in_child(home, recipe, "property"))
    write_durably(_mix_path(home, report.recipe), canonical(report.document))
    target = None if recipe.plan is None else recipe.plan.strata_target
    return Answer(
        data={"report": report.document, "digest": report.digest, "strata_target": target},
        text=mix_sentences(report, strata_target=target),
    )


def mix_sentences(report: PropertyReport, *, strata_target: str | None) -> tuple[str, ...]:
    """An audit of product mixes for people: figures first, then what hides a mix here, or does not."""
    rows = [
        f"{words:<12}skill {report.skills[view]['value']}"
        f" (95 %: {report.skills[view]['low']} to {report.skills[view]['high']})"
        for view, words in (("update", "one site"), ("sum", f"sum of {report.silos}"))
    ]
    return (
        f"plan        {report.plan}",
        f"tested      {report.shadows} made-up sites of {report.units} units, {report.steps} rounds each",
        *rows,
        "A skill of 1 is certainty, 0 a guess. Differential privacy of units does not hide a mix.",
        *_mix_verdict(report, strata_target),
        f"took        {report.seconds} s",
    )


def _mix_verdict(report: PropertyReport, strata_target: str | None) -> tuple[str, ...]:
    hidden, summed = (float(report.skills[view]["high"]) < _LITTLE for view in ("update", "sum"))
    if strata_target is not None and hidden:
        return (
            f"Equal weight per stratum (strata_target {strata_target}) hides it here:",
            "one site's updates give little of it away, with or without secure aggregation.",
        )
    if hidden:
        return (
            "The noise of this plan leaves little of it in so many rounds; nothing claims that it stays so.",
        )
    first = (
        "One site's updates give it away; strata_target in the plan gives each stratum equal weight."
        if strata_target is None
        else f"One site's updates give it away although strata_target is {strata_target}; take a smaller one."
    )
    second = (
        "Secure aggregation shows the sum instead of one site, and the sum gives little away."
        if summed
        else f"The sum of {report.silos}, all that secure aggregation shows, gives it away too."
    )
    return (first, second)
