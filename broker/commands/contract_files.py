# SPDX-License-Identifier: Apache-2.0
"""Commands about the text of a contract that need no broker: lint it, show it in words, print the schema."""

# ruff: noqa: RUF001  full-width punctuation is how Japanese is written

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain
from broker.clock import SystemClock
from broker.errors import UsageError
from policies.contract import enforcement_map, load, plain_words
from policies.contract.lint import finding_words, lint
from policies.contract.render import LANGUAGES, LAW_ONLY, head_words
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from policies.contract import Contract
    from policies.contract.lint import LintFinding
    from policies.ports import Clock

__all__ = [
    "check_language",
    "contract_lint",
    "contract_schema",
    "contract_show_file",
    "finding_lines",
    "read_text",
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


def contract_lint(file: Path, *, lang: str = "en", clock: Clock | None = None) -> Result:
    """Loads a contract and lists what the linter finds; exit code 3 if an error is among it.

    Raises:
        ContractError: It does not load; the clause is named.
    """
    contract = load(read_text(file))
    check_language(lang)
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
            "clauses": total,
            "law_only": law_only,
        },
        text=(
            *finding_lines(findings, lang),
            *late,
            f"{contract.digest}{_colon(lang)}{_counts(errors, len(findings) - errors, lang)}",
            _law_only_line(law_only, total, lang),
        ),
        exit_code=_FAILED if errors else 0,
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
