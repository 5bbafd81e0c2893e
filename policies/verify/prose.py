# SPDX-License-Identifier: Apache-2.0
"""An entry in prose, in English and Japanese: one sentence per entry type, filled in from the entry.

Who made it stands by a party's short name where the bundle discloses the alias key, else by its alias.
What is behind a commitment is told where it was opened, and named where it was not.
"""

from __future__ import annotations

import json
from string import Template
from typing import TYPE_CHECKING, Any

from policies.log.schema import SCHEMA, EntryType
from policies.verify.shown import actor_of, brief, value_text, visible
from policies.verify.words import sentences, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["entry_prose", "sentence", "type_prose"]

Json = Any
_OPENED_CHARS = 200


def sentence(entry: Entry, lang: str, history: History | None = None) -> str:
    """What happened, in one sentence."""
    told = words(lang)
    nothing = told["nothing"]
    values = {
        name: value_text(
            one, entry, history, told.get(f"null_{name}", nothing), names=_names(entry, name, lang)
        )
        for name, one in entry.pub.items()
    }
    values |= {
        "who": visible(actor_of(history, entry)),
        "ref": str(entry.refs[0]) if entry.refs else nothing,
    }
    said = Template(sentences(lang)[entry.type.value]).safe_substitute(values)
    return said.replace("….", "…")  # a digest that is cut short ends the sentence by itself


def _names(entry: Entry, field: str, lang: str) -> Mapping[str, str]:
    """Words for the values of an enum, also inside lists and objects; nothing for other fields."""
    return words(lang) if "one of " in SCHEMA[entry.type].pub[field].name else {}


def entry_prose(index: int, entry: Entry, lang: str, history: History | None = None) -> list[str]:
    """An entry in prose: where and when, what happened, what it rests on, what is confidential."""
    told, nothing = words(lang), words(lang)["nothing"]
    place = {
        "index": index,
        "time": entry.ts,
        "type": entry.type.value,
        "scope": brief(entry.scope) if entry.scope else nothing,
        "run": visible(entry.run or nothing),
        "round": nothing if entry.round is None else entry.round,
    }
    lines = [Template(told["entry_place"]).substitute(place), sentence(entry, lang, history)]
    if entry.refs:
        lines.append(Template(told["entry_refs"]).substitute(refs=", ".join(str(one) for one in entry.refs)))
    if entry.env is not None:
        lines.append(Template(told["entry_signed"]).substitute(env=brief(entry.env)))
    opened: Mapping[str, Json] = {} if history is None else history.opened.get(index, {})
    if opened:
        shown = "; ".join(
            f"{name} = {visible(json.dumps(value, ensure_ascii=False), _OPENED_CHARS)}"
            for name, value in sorted(opened.items())
        )
        lines.append(Template(told["entry_opened"]).substitute(fields=shown))
    closed = sorted(set(entry.sd) - set(opened))
    if closed:
        lines.append(Template(told["entry_closed"]).substitute(fields=", ".join(closed)))
    return lines


def type_prose(kind: EntryType, lang: str) -> list[str]:
    """What entries of a type say, who may make them, and their fields."""
    told, schema = words(lang), SCHEMA[kind]
    names = {name: f"<{name}>" for name in (*schema.pub, "who", "ref")}
    clear = [f"{name}: {one.name}" for name, one in schema.pub.items()]
    hidden = [*sorted({*schema.sd, *schema.sd_optional}), "at"]
    return [
        f"{kind.value}: {Template(sentences(lang)[kind.value]).safe_substitute(names)}",
        f"{told['made_by']} {told['made_by_' + schema.by]}",
        f"{told['in_clear']} {'; '.join(clear) or told['nothing']}",
        f"{told['behind_commitments']} {', '.join(hidden)}",
    ]
