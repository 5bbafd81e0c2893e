# SPDX-License-Identifier: Apache-2.0
"""Commands about the text of a contract that need no broker: lint it, show it in words, print the schema."""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain
from broker.clock import SystemClock
from broker.errors import UsageError
from policies.contract import enforcement_map, load, plain_words
from policies.contract.lint import finding_words, lint
from policies.contract.render import LANGUAGES, LAW_ONLY, head_words
from policies.ports import iso_s
from policies.recipe import load as load_recipe
from policies.robustness.whole_runs import runs_without_room

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from policies.contract import Contract
    from policies.contract.lint import LintFinding
    from policies.ports import Clock
    from policies.robustness.whole_runs import WithoutRoom

__all__ = [
    "check_language",
    "contract_lint",
    "contract_schema",
    "contract_show_file",
    "finding_lines",
    "read_text",
    "room_lines",
    "too_late_lines",
    "word_lines",
]

_FAILED = 3


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        UsageError: Not UTF-8.
    """
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            need=f"UTF-8 text in {file}", found="other bytes", remedy="save it as UTF-8"
        ) from error


def check_language(lang: str) -> str:
    """The language, if there are words in it.

    Raises:
        UsageError: There are none.
    """
    if lang not in LANGUAGES:
        raise UsageError(need="--lang " + " or ".join(LANGUAGES), found=lang, remedy="name one of them")
    return lang


def contract_lint(
    file: Path, *, recipes: Iterable[Path] = (), lang: str = "en", clock: Clock | None = None
) -> Result:
    """Loads a contract and lists what the linter finds; exit code 3 if an error is among it.

    With the recipes' files it also names those of which no whole run fits under the caps.

    Raises:
        ContractError: It does not load; the clause is named.
        RecipeError: A file is no recipe.
        UsageError: A recipe that the contract does not name.
    """
    contract = load(read_text(file))
    check_language(lang)
    without = runs_without_room(contract, _plans(contract, recipes))
    findings = lint(contract)
    errors = sum(1 for one in findings if one.severity == "error")
    law_only = [one.clause for one in enforcement_map(contract) if one.label == LAW_ONLY]
    total = sum(1 for _ in contract.clauses())
    late = too_late_lines(contract, clock or SystemClock(), lang)
    return Result(
        data={
            "digest": contract.digest,
            "errors": errors,
            "warnings": len(findings) - errors,
            "findings": [one.to_json() for one in findings],
            "too_late": bool(late),
            "without_room": [asdict(one) for one in without],
            "clauses": total,
            "law_only": law_only,
        },
        text=(
            *finding_lines(findings, lang),
            *room_lines(without, lang),
            *late,
            f"{contract.digest}{_colon(lang)}{_counts(errors, len(findings) - errors, lang)}",
            _law_only_line(law_only, total, lang),
        ),
        exit_code=_FAILED if errors else 0,
    )


def _plans(contract: Contract, files: Iterable[Path]) -> dict[str, dict[str, Any] | None]:
    """The training plans of recipes, by their digests."""
    loaded = [load_recipe(one.read_bytes()) for one in files]
    named = {one.recipe_digest for one in contract.recipes}
    strange = [one.digest for one in loaded if one.digest not in named]
    if strange:
        raise UsageError(
            need="recipes with the digests " + ", ".join(sorted(named)),
            found=", ".join(strange),
            remedy="name the files that the contract was written for",
        )
    return {one.digest: one.plan_document for one in loaded}


def room_lines(without: Iterable[WithoutRoom], lang: str = "en") -> tuple[str, ...]:
    """Recipes of which no whole run fits; no finding of the linter, which knows no recipe's plan."""
    form = (
        "warning {clause} budget：必要 epsilon_total {total} の枠内で 1 実行、実際 {found}（{who}）。"
        "対処 epsilon_total を上げるか、ε の小さい計画にする。"
        "このままでは最初の実行が budget.exhausted で拒否される"
        if lang == "ja"
        else "warning {clause} budget: needs one whole run within epsilon_total {total}, "
        "found {found} ({who}); raise epsilon_total, or take a plan of less epsilon: "
        "the first run is refused (budget.exhausted)"
    )
    return tuple(
        form.format(clause=one.clause, total=one.total, found=one.found, who=" ".join(one.parties))
        for one in without
    )


def _colon(lang: str) -> str:
    return "：" if lang == "ja" else ": "


def _counts(errors: int, warnings: int, lang: str) -> str:
    """How many there are, as a person says it."""
    if lang == "ja":
        return f"エラー {errors} 件、警告 {warnings} 件"
    said = ((errors, "error"), (warnings, "warning"))
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in said)


def _law_only_line(law_only: list[str], total: int, lang: str) -> str:
    if lang == "ja":
        return f"法的拘束のみの条項（全 {total} 件中 {len(law_only)} 件）：{' '.join(law_only) or 'なし'}"
    return f"law only, {len(law_only)} of {total} clauses: {' '.join(law_only) or 'none'}"


def too_late_lines(contract: Contract, clock: Clock, lang: str = "en") -> tuple[str, ...]:
    """Says that nobody can sign the text any more; no finding of the linter, which knows no time."""
    now = iso_s(clock.now_ms())
    if now < contract.sign_by:
        return ()
    form = (
        "期限切れ sign_by: 必要 現在（{now}）より後の時刻、実際 {sign_by}。対処 sign_by を後の時刻にする"
        if lang == "ja"
        else "too late sign_by: needs a time after now ({now}), found {sign_by}; write a later one"
    )
    return (form.format(now=now, sign_by=contract.sign_by),)


def finding_lines(findings: Iterable[LintFinding], lang: str = "en") -> tuple[str, ...]:
    """One line for each finding, errors first."""
    lines = []
    for one in findings:
        need, found, remedy = finding_words(one, lang)
        said = (
            f"必要 {need}、実際 {plain(found)}。対処 {remedy}"
            if lang == "ja"
            else f"needs {need}, found {plain(found)}; {remedy}"
        )
        lines.append(f"{one.severity} {one.clause} {one.rule}: {said}")
    return tuple(lines)


def word_lines(contract: Contract, lang: str) -> tuple[str, ...]:
    """The document and its clauses in plain words, law-only clauses last."""
    return (
        *(plain(line) for line in head_words(contract, lang)),
        "",
        *(f"{clause:<16} {plain(sentence)}" for clause, sentence in plain_words(contract, lang=lang)),
    )


def contract_show_file(file: Path, *, lang: str = "en") -> Result:
    """Shows the contract of a file in plain words.

    Raises:
        ContractError: It does not load; the clause is named.
    """
    contract = load(read_text(file))
    check_language(lang)
    points = [
        {"clause": one.clause, "label": one.label, "points": list(one.points)}
        for one in enforcement_map(contract)
    ]
    data: dict[str, Any] = {
        "digest": contract.digest,
        "lang": lang,
        "enforcement": points,
        "words": [list(pair) for pair in plain_words(contract, lang=lang)],
        "document": contract.document,
    }
    return Result(data=data, text=(contract.digest, *word_lines(contract, lang)))


def contract_schema() -> Result:
    """The JSON Schema of what an author writes."""
    from policies.contract import json_schema

    schema = json_schema()
    return Result(
        data={"schema": schema}, plain_output=json.dumps(schema, ensure_ascii=False, indent=1, sort_keys=True)
    )
