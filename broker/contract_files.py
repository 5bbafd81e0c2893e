# SPDX-License-Identifier: Apache-2.0
"""Commands about the text of a contract that need no broker: lint it, show it in words, print the schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain
from broker.errors import UsageError
from policies.contract import enforcement_map, load, plain_words
from policies.contract.lint import finding_words, lint
from policies.contract.render import LANGUAGES, LAW_ONLY, head_words

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from policies.contract import Contract
    from policies.contract.lint import LintFinding

__all__ = [
    "check_language",
    "contract_lint",
    "contract_schema",
    "contract_show_file",
    "finding_lines",
    "read_text",
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


def contract_lint(file: Path, *, lang: str = "en") -> Result:
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
    return Result(
        data={
            "digest": contract.digest,
            "errors": errors,
            "warnings": len(findings) - errors,
            "findings": [one.to_json() for one in findings],
            "clauses": total,
            "law_only": law_only,
        },
        text=(
            *finding_lines(findings, lang),
            f"{contract.digest}: {errors} errors, {len(findings) - errors} warnings",
            f"law only, {len(law_only)} of {total} clauses: {' '.join(law_only) or 'none'}",
        ),
        exit_code=_FAILED if errors else 0,
    )


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
