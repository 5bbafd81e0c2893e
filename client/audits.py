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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.answers import Answer
from client.errors import NoSuchThingError
from client.settings import write_durably
from policies.encoding import canonical
from policies.limits import AUDIT_S, RECIPE_BYTES
from policies.privacy.conformance import ConformanceReport, sentences
from policies.privacy.errors import AuditFailedError, PlanIncompleteError
from policies.privacy.property_skill import PropertyReport
from policies.recipe import load

if TYPE_CHECKING:
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["audit", "audit_mix", "in_child", "keep", "kept", "kept_mix", "read_recipe"]


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
        name: A file with the recipe's canonical bytes; with a contract, the recipe's digest.
        contract: Digest of a contract that is here.

    Raises:
        NoSuchThingError: No such file, or no such recipe of the contract.
        RecipeError: It is no recipe.
        PlanIncompleteError: It has no plan.
    """
    if contract is None:
        recipe = load(_file(Path(name)))
    else:
        from client.identity import load_identity
        from client.shelf import ContractShelf

        shelf = ContractShelf(home, own_key=load_identity(home).key.public)
        recipe = shelf.recipe(contract, name)
    if recipe.plan is None:
        raise PlanIncompleteError(
            need="a recipe with a privacy plan",
            found="NOT PRIVATE: its plan is null",
            remedy="nothing can be audited where nothing is claimed",
        )
    return recipe


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(RECIPE_BYTES + 1)
    except OSError as error:
        raise NoSuchThingError(
            need=f"the file {path}", found=type(error).__name__, remedy="check its name"
        ) from error


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


def audit(home: Home, name: str, *, contract: str | None = None) -> tuple[ConformanceReport, Answer]:
    """Runs the conformance audit of a recipe's plan, keeps the report, and gives it in both forms.

    Raises:
        NoSuchThingError: No such recipe.
        PlanIncompleteError: It has no plan.
        AuditFailedError: The process ended without a report. A report of a failure is given back.
    """
    recipe = read_recipe(home, name, contract=contract)
    report = ConformanceReport.load(in_child(home, recipe, "conformance"))
    path = keep(home, report)
    data = {"report": report.document, "digest": report.digest, "file": str(path)}
    return report, Answer(data=data, text=(*sentences(report), f"report      {path}"))


def audit_mix(home: Home, name: str, *, contract: str | None = None) -> Answer:
    """How well updates under a recipe's plan give a site's product mix away, on made-up silos.

    Raises:
        NoSuchThingError: No such recipe.
        PlanIncompleteError: It has no plan.
        AuditFailedError: The process ended without a report.
    """
    report = PropertyReport.load(in_child(home, read_recipe(home, name, contract=contract), "property"))
    write_durably(_mix_path(home, report.recipe), canonical(report.document))
    rows = [
        f"{words:<12}skill {report.skills[view]['value']}"
        f" (95 %: {report.skills[view]['low']} to {report.skills[view]['high']})"
        for view, words in (("update", "one site"), ("sum", f"sum of {report.silos}"))
    ]
    return Answer(
        data={"report": report.document, "digest": report.digest},
        text=(
            f"plan        {report.plan}",
            f"tested      {report.shadows} made-up sites of {report.units} units, {report.steps} rounds each",
            *rows,
            "A skill of 1 is certainty, 0 a guess. Differential privacy of units does not hide a mix;",
            "secure aggregation shows the sum instead of one site.",
            f"took        {report.seconds} s",
        ),
    )
