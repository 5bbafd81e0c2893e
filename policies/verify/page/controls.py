# SPDX-License-Identifier: Apache-2.0
"""Which rules speak for which control of a framework: a data file that the auditor may replace.

``{"v":1,"controls":[{"framework","control","en","ja","rules":["AUD-nnn",...]},...]}``; ours is
``controls.json``. It is an aid for judgement: no rule of ours proves that a control is met, only that it
was not seen to fail.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from policies.verify.errors import InputError
from policies.verify.report import plain

__all__ = ["Control", "read_controls"]

Json = Any
_RULE = re.compile(r"AUD-\d{3}")
_FIELDS = ("framework", "control", "en", "ja")
_MOST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One row: ``asks`` by language."""

    framework: str
    control: str
    asks: dict[str, str]
    rules: tuple[str, ...]


def read_controls(text: str | None) -> list[Control]:
    """Controls of a file's text; ours without one.

    Raises:
        InputError: It has another form.
    """
    ours = files("policies.verify.page").joinpath("controls.json")
    try:
        told: Json = json.loads(ours.read_text("utf-8") if text is None else text)
        return [_control(one) for one in _rows(told)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            need='{"v":1,"controls":[{"framework","control","en","ja","rules"}]}',
            found=plain(f"{type(error).__name__}: {error}"),
            remedy="start from policies/verify/page/controls.json",
        ) from error


def _rows(told: Json) -> list[Json]:
    rows = told["controls"]
    if told["v"] != 1 or not isinstance(rows, list) or len(rows) > _MOST:
        raise ValueError(f"version 1 and at most {_MOST} controls")
    return rows


def _control(row: Json) -> Control:
    texts = {name: row[name] for name in _FIELDS}
    rules = tuple(row["rules"])
    if not all(isinstance(one, str) for one in (*texts.values(), *rules)):
        raise TypeError("texts")
    if not all(_RULE.fullmatch(one) for one in rules):
        raise ValueError("rules like AUD-020")
    return Control(
        framework=texts["framework"],
        control=texts["control"],
        asks={"en": texts["en"], "ja": texts["ja"]},
        rules=rules,
    )
