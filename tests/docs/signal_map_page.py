# SPDX-License-Identifier: Apache-2.0
"""The reference page of the signal map, from its models, the rules of fields, the units and the shipped profiles.

What a key means stands in `WORDS`; a key without words, or words without a key, is an error.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, BeforeValidator, StringConstraints

from client.data import signalmap
from client.data.embodiment import Adapter, Embodiment
from client.data.proposing import profile_names
from client.data.signalmap import TESTED_PROFILES, Clock, Label, Segment, UnitKey
from client.data.units import FIELD_RULES, ROTATION, UNITS
from policies.limits import SIGNALMAP_BYTES
from policies.messages import EMBODIMENT_CLASSES

__all__ = ["WORDS", "lacking", "sections"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

PARTS: dict[str, tuple[str, type[BaseModel]]] = {
    "": ("The document", signalmap._RawMap),
    "table": ("table", signalmap.Table),
    "clock": ("clock", Clock),
    "segment": ("segment", Segment),
    "signal": ("signal", signalmap._RawSignal),
    "label": ("label", Label),
    "unit": ("unit", UnitKey),
    "embodiment": ("embodiment", Embodiment),
    "adapter": ("embodiment.adapter", Adapter),
    "source": ("source", signalmap.Source),
}

SAID = {
    "": f"TOML, at most {SIGNALMAP_BYTES} bytes. A key that is not in these tables is refused with its line.",
    "table": "Text tables only. Nothing of it is guessed: a cell with the other decimal sign is refused.",
    "clock": "Not needed for formats that have stamps or a rate of their own.",
    "segment": (
        "How a continuous recording becomes episodes. A format's own episodes stand, whatever is said here. A gap above"
        " `max_gap_s` and a stamp that goes back always cut."
    ),
    "signal": "A list: one entry for each canonical field and role.",
    "label": "A list: yes-or-no columns. A word that `values` lacks is unknown, and so is an empty cell.",
    "unit": (
        "Whose an episode is. Without this table each episode is a unit of protection of its own. The value of the column is"
        " hashed under the node's key and never stored. The unit of a data set is fixed by its first import."
    ),
    "embodiment": (
        "One robot. Class, dof and action space may be described to others; the rest stays on the site. Limits are those of the"
        " data sheet: pairs `[low, high]` in SI."
    ),
    "adapter": (
        "From the controller's joints and commands to those of the store: joint `i` is the controller's joint `order[i]`, times"
        " `sign[i]`, plus `offset[i]`; commands are multiplied by `gain`."
    ),
    "source": "Who acted. What our own recorder writes says it by itself.",
}

WORDS = {
    "schema": "version of this format",
    "profile": "a shipped profile; keys of the file replace those of the profile, whole key by whole key",
    "table": "how a text table is written",
    "clock": "where stamps come from",
    "secret": "columns that are dropped while reading, in any case; `*` and `?` stand for other characters, `q{0..5}` for q0 to q5",
    "segment": "how it is cut into episodes",
    "signal": "which columns are which field",
    "label": "yes-or-no columns",
    "unit": "whose an episode is",
    "embodiment": "the robot",
    "keep_private": (
        "a mapped secret column is stored, marked, and opened by `models personalise` alone; else a map that maps one is refused"
    ),
    "source": "who acted",
    "task": "the task of all episodes, where the format says none",
    "table.delimiter": "one character",
    "table.decimal": "decimal sign of numbers",
    "table.strip_names": "blanks around names of columns are dropped",
    "table.drop_empty_columns": "columns without any value are left out and counted",
    "clock.column": "column of the stamps; left out, `rate_hz` makes them",
    "clock.unit": (
        "`rfc3339`: dates as 2026-11-24T10:00:00Z; the others count from any start. `count` is a row counter and needs `rate_hz`."
        " A wrong word here changes every velocity: compare the rate that `data add` and `data show` print"
    ),
    "clock.kind": (
        "whose clock: that of the recording computer, of the robot's controller, of a simulator; `derived` where stamps are made"
        " from a rate, and only there"
    ),
    "clock.rate_hz": "rows a second, where there is no clock",
    "segment.by": "the rule: see below",
    "segment.column": "for `column`: the id of the attempt; for `edge`: the signal",
    "segment.high": "for `edge`: words that mean high",
    "segment.below": "for `idle`: rad/s below which nothing moves; needs `joint_vel`",
    "segment.for_s": "for `idle`: seconds of it that separate episodes",
    "segment.length_s": "for `window`: seconds of each piece; needs `unit`",
    "segment.every_s": "for `window`: the same as `length_s`; windows never overlap",
    "segment.max_gap_s": "a longer step of the stamps cuts",
    "segment.min_frames": "shorter pieces are dropped and counted",
    "signal.field": "canonical field of the list below; or `x_` and a name of your own, which never leaves the site",
    "signal.columns": "columns in the field's order; `q{0..5}` stands for q0 to q5",
    "signal.unit": "unit of the source, converted to SI at import; never guessed",
    "signal.role": "`observation`: measured; `action`: commanded",
    "signal.optional": "left out where the source has none of its columns; one that has some is refused",
    "label.field": "name of the label; `outcome` says how an attempt ended: its last known value counts",
    "label.column": "the column",
    "label.values": "words of the source that mean true or false",
    "label.optional": "left out where the source lacks the column",
    "unit.kind": "the contract's unit of protection",
    "unit.column": "column of the key: all episodes with one value are one unit, now and later",
    "unit.space": "tells equal numbers of unrelated counters apart",
    "embodiment.class": "class of the robot with its tool, of the list below",
    "embodiment.dof": "joints",
    "embodiment.action_space": "what is commanded; `none` for recordings without actions",
    "embodiment.joint_names": "names, for findings and bags; `dof` of them",
    "embodiment.joint_pos_limit": "rad (m for a linear axis): one pair for each joint, or one for all; check 11",
    "embodiment.joint_vel_limit": "rad/s, likewise; checks 8 and 11",
    "embodiment.joint_torque_limit": "Nm, likewise; check 4",
    "embodiment.workspace": "m: three pairs, for x, y, z of the tool; check 11",
    "embodiment.control_rate_hz": "rate of the control loop, for packages",
    "embodiment.adapter": "from the controller's joints to those of the store",
    "adapter.gain": "of commands, not of `gripper_cmd`; not 0",
    "adapter.sign": "1 or -1 for each joint",
    "adapter.offset": "rad for each joint, positions only",
    "adapter.order": "each joint once, counted from 0",
    "source.kind": "`deployed`: a model acted; imitated only if a person saw it succeed",
    "source.model": "digest of that model, for `deployed` and no other",
}

RULES = {
    "file": ("none", "the whole recording is one episode"),
    "column": (
        "`column`",
        "the id changes, also backwards; an empty id goes on, one that returns is a new episode",
    ),
    "edge": ("`column`, `high`", "an episode lasts while the signal is high; the rest is none"),
    "idle": ("`below`, `for_s`", "stretches in which no joint moves separate episodes and belong to none"),
    "window": ("`length_s`, and the table `unit`", "pieces of one length that follow each other"),
}

ROTATIONS = {
    "rotvec": "3 columns: a rotation vector in rad",
    "euler-zyx": "3 columns: angles about Z, then the new Y, then the new X, in rad",
    "euler-zyx-deg": "the same in degrees: A, B, C of KUKA, R, P, W of FANUC",
}
_COLUMNS = {"joint": "as many as the robot has joints"}


def _name(name: str, info: Any) -> str:
    return str(info.alias or name)


def _keys() -> Iterator[str]:
    for part, (_, model) in PARTS.items():
        for name, info in model.model_fields.items():
            yield ".".join(one for one in (part, _name(name, info)) if one)


def lacking() -> list[str]:
    """Keys without words, and words without a key."""
    keys, rules = set(_keys()), set(get_args(Segment.model_fields["by"].annotation))
    found = [f"{one}: no words" for one in sorted((keys - set(WORDS)) | (rules - set(RULES)))]
    return found + [f"{one}: no such key" for one in sorted((set(WORDS) - keys) | (set(RULES) - rules))]


def _kind(given: Any) -> str:  # noqa: PLR0911  one arm per kind of value
    origin, inner = get_origin(given), get_args(given)
    if origin is Annotated:
        if _is_decimal(inner[1:]):
            return "number"
        return _kind(inner[0]) + _bounds(inner[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inner if one is not type(None))
    if origin is Literal:
        return " · ".join(f"`{one}`" for one in inner)
    if origin in (list, tuple):
        return f"list of {_kind(inner[0])}".replace("of list", "of lists").replace("of table", "of tables")
    if origin is dict:
        return f"{_kind(inner[0])} to {_kind(inner[1])}"
    if isinstance(given, type) and issubclass(given, BaseModel):
        return "table"
    names = {str: "text", bool: "true or false", int: "whole number", float: "number"}
    return names.get(given, str(getattr(given, "__name__", given)))


def _is_decimal(rules: tuple[Any, ...]) -> bool:
    """Whether it is kept as decimal text and written as a number."""
    return any(isinstance(one, BeforeValidator) for one in rules)


def _bounds(rules: tuple[Any, ...]) -> str:
    """What pydantic checks beside the type."""
    said = []
    for one in (inner for rule in rules for inner in getattr(rule, "metadata", [rule])):
        match one:
            case StringConstraints(max_length=int(most)):
                said.append(f"at most {most} characters" if most > 1 else "one character")
            case Ge(ge=least):
                said.append(f"from {least}")
            case Gt(gt=least):
                said.append(f"above {least}")
            case Le(le=most):
                said.append(f"to {most}")
            case MinLen(min_length=least):
                said.append(f"at least {least}")
    return (", " + ", ".join(said)) if said else ""


def _model(part: str, model: type[BaseModel]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, info in model.model_fields.items():
        key = _name(name, info)
        default = "required" if info.is_required() else _default(info)
        rules = tuple(info.metadata)
        kind = "number" if _is_decimal(rules) else _kind(info.annotation) + _bounds(rules)
        rows.append((f"`{key}`", kind, default, WORDS[".".join(one for one in (part, key) if one)]))
    return ("Key", "Value", "If left out", "What"), rows


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value == "" or isinstance(value, BaseModel) or value == []:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _fields() -> Table:
    rows: list[tuple[str, ...]] = []
    for name, rule in FIELD_RULES.items():
        units = [unit for unit, one in UNITS.items() if one.dimension in rule.dimensions]
        sizes = " or ".join(str(one) for one in sorted(rule.sizes)) or _COLUMNS[name.split("_")[0]]
        rows.append((f"`{name}`", sizes, " ".join(f"`{one}`" for one in units)))
    return ("Field", "Columns", "Units"), rows


def _units() -> Table:
    rows: list[tuple[str, ...]] = []
    for name, unit in UNITS.items():
        shown = "unit quaternion w, x, y, z" if unit.dimension == ROTATION else unit.dimension
        offset = f" + {unit.offset:g}" if unit.offset else ""
        factor = ROTATIONS.get(name) or f"value times {unit.factor:.10g}{offset}"
        rows.append((f"`{name}`", shown, factor))
    return ("Unit", "Stored as", "How"), rows


def _profiles() -> Table:
    rows: list[tuple[str, ...]] = []
    for name in profile_names():
        path = resources.files("client.data") / "profiles" / (name.replace("/", "-") + ".toml")
        text = path.read_text("utf-8")
        found = tomllib.loads(text)
        said = " ".join(one.removeprefix("# ") for one in text.splitlines() if one.startswith("# "))
        first = said.split(". ")[0]
        tested = "real recordings" if name in TESTED_PROFILES else "no real recording"
        fields = " ".join(f"`{one}`" for one in dict.fromkeys(signal["field"] for signal in found["signal"]))
        rows.append((f"`{name}`", first.rstrip("."), tested, fields))
    return ("Profile", "What", "Tested on", "Fields"), rows


def sections() -> Iterator[tuple[str, str, list[Table]]]:
    """Title, words and tables of each part of the page.

    Raises:
        KeyError: A key without words.
    """
    if lacking():
        raise KeyError(lacking())
    for part, (title, model) in PARTS.items():
        tables = [_model(part, model)]
        if part == "segment":
            rules: list[tuple[str, ...]] = [(f"`{one}`", *words) for one, words in RULES.items()]
            tables.append((("Rule", "Needs", "An episode"), rules))
        if part == "embodiment":
            tables.append((("Class",), [(f"`{one}`",) for one in sorted(EMBODIMENT_CLASSES)]))
        yield title, SAID[part], tables
    yield (
        "Fields",
        (
            "A field is mapped at most once for each role. More joint columns than `dof` (external axes) are allowed, fewer are not."
            " `tcp_rot` of three angles or a rotation vector becomes a quaternion; as a quaternion it has four columns of unit `1`."
        ),
        [_fields()],
    )
    yield "Units", "Converted once, at import. A missing value stays missing.", [_units()]
    yield (
        "Profiles",
        '`profile = "ur-rtde/1"` is a whole map. Compare a few values with your controller\'s display.',
        [_profiles()],
    )
