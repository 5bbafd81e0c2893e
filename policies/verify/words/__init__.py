# SPDX-License-Identifier: Apache-2.0
"""The auditor's words, in English and Japanese: data beside this file, one set of keys in each language.

``entries.<lang>.json``: one sentence per entry type, with ``$name`` for its fields. ``page.<lang>.json``:
what the report says around them. ``rules.ja.json``: what each rule checks and how to redo it, in Japanese;
the English ones are `policies.verify.rules`.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from policies.verify.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LANGUAGES", "checks_of", "hand_of", "sentences", "words"]

Json = Any
LANGUAGES = ("en", "ja")


@functools.cache
def _read(name: str) -> dict[str, Json]:
    found: dict[str, Json] = json.loads(files("policies.verify.words").joinpath(name).read_text("utf-8"))
    return found


def words(lang: str) -> Mapping[str, str]:
    """What the report says, by key."""
    return _read(f"page.{lang}.json")


def sentences(lang: str) -> Mapping[str, str]:
    """The sentence of each entry type."""
    return _read(f"entries.{lang}.json")


def checks_of(rule: str, lang: str) -> str:
    """What a rule checks."""
    told = _read("rules.ja.json").get(rule) if lang == "ja" else None
    return str(told["checks"]) if told else RULES[rule].checks


def hand_of(rule: str, lang: str) -> str:
    """How a rule is redone by hand."""
    told = _read("rules.ja.json").get(rule) if lang == "ja" else None
    return str(told["by_hand"]) if told else RULES[rule].by_hand
