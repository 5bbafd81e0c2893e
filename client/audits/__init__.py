# SPDX-License-Identifier: Apache-2.0
"""Audits of this node's training: run in a process of their own, and kept for statement and gate.

::

    audits/<64 hex of the plan's digest>.json         the newest report `iriai-conformance/1` about a plan
    audits/<64 hex of the recipe's digest>.mix.json   the newest `iriai-property-audit/1` about a recipe

A report that is kept here is what the node says about itself. It is not a permission: the worker makes its
own before it trains (`client.audits.conforming`). An audit can be run where there is no node: its report
is shown and not kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.errors import NotInitialisedError
from client.naming import named_here
from client.settings import write_durably
from client.software import software
from policies.encoding import canonical, parse
from policies.errors import EncodingError
from policies.limits import AUDIT_S
from policies.privacy.conformance import ConformanceReport, check_about, sentences
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

_REPORT_BYTES: Final = 64 * 1024  # ten times the longest
_LITTLE: Final = 0.35  # an upper bound of skill below which a mix is said to be hidden for the most part


def _path(home: Home, recipe: str) -> Path:
    return home.audits / f"{recipe.removeprefix('sha256:')}.json"


def keep(home: Home, report: ConformanceReport) -> Path:
    """Writes a report beside the node's other files; gives the file."""
    path = _path(home, report.recipe)
    write_durably(path, canonical(report.document))
    return path


def kept(home: Home, recipe: Recipe) -> ConformanceReport | None:
    """The newest report about a recipe and the software that is here, or None.

    Args:
        home: The node's folder.
        recipe: With its plan.

    Raises:
        PlanIncompleteError: The file is there and is no report.
        AuditFailedError: It is about another recipe or plan.
    """
    data = None if recipe.plan is None else _read(_path(home, recipe.digest), "iriai-node privacy audit")
    if data is None or recipe.plan is None:
        return None
    report = ConformanceReport.load(data)
    check_about(report, recipe.plan.document, recipe=recipe.digest)
    return report if report.software == software() else None


def kept_mix(home: Home, recipe: str) -> PropertyReport | None:
    """The newest audit of product mixes under a recipe, or None.

    Args:
        home: The node's folder.
        recipe: Digest of the recipe.

    Raises:
        PlanIncompleteError: The file is there and is no report.
        AuditFailedError: It is about another recipe.
    """
    path = _mix_path(home, recipe)
    data = _read(path, "iriai-node privacy audit --mix")
    if data is None:
        return None
    report = PropertyReport.load(data)
    if report.recipe != recipe:
        raise AuditFailedError(
            need=f"an audit of product mixes under {recipe[:19]} in {path}",
            found=f"one under {report.recipe[:19]}",
            remedy="run the audit again: iriai-node privacy audit --mix",
        )
    return report


def _read(path: Path, command: str) -> Any:  # noqa: ANN401  checked by who asked
    """The JSON value in a file, or None where there is no file.

    Raises:
        PlanIncompleteError: No canonical JSON, too deep, or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_REPORT_BYTES + 1)
    except FileNotFoundError:
        return None
    again = f"run the audit again: {command}"
    if len(data) > _REPORT_BYTES:
        raise PlanIncompleteError(
            need=f"a report of at most {_REPORT_BYTES} bytes in {path}", found="more", remedy=again
        )
    try:
        value = parse(data)
    except EncodingError as error:
        found = f"{error.found} instead of {error.need}"
        raise PlanIncompleteError(need=f"a report in {path}", found=found, remedy=again) from error
    if value is None:  # no absent file
        raise PlanIncompleteError(need=f"a report in {path}", found="null", remedy=again)
    return value


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


def _is_node(home: Home) -> bool:
    try:
        home.need()
    except NotInitialisedError:
        return False
    return True


def audit(home: Home, name: str, *, contract: str | None = None) -> Answer:
    """Runs the conformance audit of a recipe's plan and keeps the report; one of a failure is a refusal.

    Without a node in the folder the report is only shown.

    Raises:
        NoSuchThingError: No such recipe.
        PlanIncompleteError: It has no plan.
        AuditFailedError: The process ended without a report.
    """
    recipe = read_recipe(home, name, contract=contract)
    report = ConformanceReport.load(in_child(home, recipe, "conformance"))
    return told(report, keep(home, report) if _is_node(home) else None)


def told(report: ConformanceReport, path: Path | None) -> Answer:
    """A report, kept in a file or nowhere, for person and program; with its refusal if the audit failed."""
    failed = None
    try:
        report.need_passed()
    except AuditFailedError as error:
        failed = error
    return Answer(
        data={
            "report": report.document,
            "digest": report.digest,
            "file": None if path is None else str(path),
        },
        text=(*sentences(report), f"report      {path or 'not kept: no node in the folder (--dir)'}"),
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
    if _is_node(home):
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
