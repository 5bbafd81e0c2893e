# SPDX-License-Identifier: Apache-2.0
"""The signal map (``iriai-signalmap/1``, TOML): how a source's columns become canonical fields in SI units.

    table   = {delimiter = ";", decimal = ",", strip_names = true, drop_empty_columns = true}
    clock   = {column = "Timestamp", unit = "rfc3339", kind = "host"}
    secret  = ["Program*", "part_number"]
    segment = {by = "column", column = "cycle", max_gap_s = 5.0, min_frames = 10}
    signal  = [{field = "joint_current", columns = ["Current_J{0..5}"], unit = "A", role = "observation"}]
    label   = [{field = "grip_lost", column = "grip_lost", values = {"True" = true, "False" = false}}]
    unit    = {kind = "work-piece", column = "cycle", space = "cell-2"}
    embodiment = {class = "6r-arm", dof = 6, action_space = "none"}
    source  = {kind = "deployed", model = "sha256:..."}
    task    = "pick-place"

- ``profile = "ur-rtde/1"`` brings the keys of a shipped profile; keys of the file replace those of the
  profile. Only profiles in `TESTED_PROFILES` were tested on real recordings; an import by another says so.
- ``optional = true`` in a signal or label: it is left out where the source has none of its columns, because
  most controllers log what their owner chose. A source that has some of them is still refused.
- A row counter is no clock: ``unit = "count"`` needs ``rate_hz`` and gives kind ``derived``, as does a clock
  without a column.
- ``secret`` patterns know ranges as ``signal`` does, and take any case and blanks around a name: a name that
  is written otherwise than thought must not slip through. Those that no column has are counted (`unmatched`).
- ``secret`` columns are dropped while reading; a map that also maps one is refused. With ``keep_private``
  it is stored, marked, and opened by nothing but `personalise`, as are site-private fields (``x_...``).
- ``unit`` names the column that says whose an episode is: all episodes with one value are one unit of
  protection. The value itself is never stored. ``space`` tells equal numbers of unrelated counters apart.
  Without ``unit`` each episode is a unit of its own.
- Refused as well: an unknown unit or field, a unit that does not fit the field, a field or column mapped
  twice, a wrong number of columns for the field or the robot's ``dof``. The message names the line.
- A map holds public constants only: one that asks for a statistic of the recordings ("auto", mean, min, max)
  is refused, because one unit would change what another is turned into.
- Formats whose channels already bear canonical names (``tcp_pos_0`` ...) need no map: `canonical_map` writes
  one.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import glob
import re
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from client.data.embodiment import Embodiment
from client.data.errors import DataError, MapInvalidError, MissingColumnError
from client.data.maplines import line_of
from client.data.mapnames import quoted
from client.data.units import FIELD_RULES, ROTATION, UNITS
from policies.encoding import digest
from policies.limits import SIGNALMAP_BYTES, SIGNALS
from policies.messages import EMBODIMENT_CLASSES
from policies.privacy.constants import asked_statistic, private_statistic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "TESTED_PROFILES",
    "Clock",
    "Embodiment",
    "Label",
    "Segment",
    "Signal",
    "SignalMap",
    "UnitKey",
    "canonical_map",
    "load_map",
    "parse_map",
]

TESTED_PROFILES: Final = frozenset({"ur-rtde/1"})  # read real recordings, with figures that a test repeats

_SAID: Final = {
    "extra_forbidden": "keys that a signal map knows",
    "missing": "this key, which every map needs",
    "too_short": "at least one entry",
}
_REMEDY: Final = "correct the signal map"
_SHOWN: Final = 5
_ANGLES: Final = 3  # of a rotation vector, or about three axes
_RANGE: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CANONICAL: Final = re.compile(r"(?P<field>[a-z_]{1,40}?)(?:_(?P<index>[0-9]{1,3}))?")
_NAME = r"^[a-z][a-z0-9_]{0,39}$"
_WORDS_OF_THE_SOURCE: Final = frozenset(
    ("column", "columns", "field", "high", "joint_names", "profile", "secret", "space", "task", "values")
)

FieldName = Annotated[str, StringConstraints(pattern=_NAME)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Table(_Part):
    """Text tables: how cells and names are written."""

    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    strip_names: bool = True
    drop_empty_columns: bool = True


class Clock(_Part):
    """Where stamps come from. Without a column, or for a row counter, ``rate_hz`` makes them."""

    column: Column | None = None
    unit: Literal["rfc3339", "s", "ms", "us", "ns", "count"] = "count"
    kind: Literal["host", "controller", "derived", "simulation"] = "derived"
    rate_hz: Annotated[float, Field(ge=0.01, le=100_000)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Clock:
        counted = self.column is None or self.unit == "count"
        if counted and self.rate_hz is None:
            raise ValueError("rate_hz, because a row counter is no clock")
        if counted and self.kind not in ("derived", "simulation"):
            raise ValueError('kind "derived" for stamps that are made from a rate')
        if not counted and self.kind == "derived":
            raise ValueError('kind "host" or "controller" for a clock with a unit')
        return self


class Segment(_Part):
    """How a continuous recording is cut into episodes (client.data.segment)."""

    by: Literal["column", "edge", "idle", "file", "window"] = "file"
    column: Column | None = None
    high: tuple[str, ...] = ("True", "true", "1")
    below: Annotated[float, Field(gt=0)] | None = None
    for_s: Annotated[float, Field(gt=0)] | None = None
    length_s: Annotated[float, Field(gt=0)] | None = None
    every_s: Annotated[float, Field(gt=0)] | None = None
    max_gap_s: Annotated[float, Field(gt=0)] | None = None
    min_frames: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:  # noqa: ANN401  raw TOML
        if isinstance(value, dict) and isinstance(value.get("high"), list):
            return {**value, "high": tuple(value["high"])}
        return value

    @model_validator(mode="after")
    def _whole(self) -> Segment:
        if self.by in ("column", "edge") and self.column is None:
            raise ValueError(f'column, for by = "{self.by}"')
        if self.by == "idle" and (self.below is None or self.for_s is None):
            raise ValueError('below (rad/s) and for_s, for by = "idle"')
        if self.by == "window" and self.length_s is None:
            raise ValueError('length_s, for by = "window"')
        if self.every_s is not None and self.every_s != self.length_s:
            raise ValueError("windows that follow each other: a frame belongs to exactly one episode")
        return self


class Label(_Part):
    """A yes-or-no column; a word that ``values`` lacks means unknown."""

    field: FieldName
    column: Column
    values: dict[str, bool]
    optional: bool = False


class Source(_Part):
    """Who acted: ``deployed`` with the digest of the model, or people and programs."""

    kind: Literal["recorded", "deployed"] = "recorded"
    model: Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if (self.kind == "deployed") != bool(self.model):
            raise ValueError('the digest of the model, for kind "deployed" and for no other')
        return self


class UnitKey(_Part):
    """Whose an episode is: all episodes with one value of a column are one unit of protection."""

    kind: Literal["work-piece", "order"]
    column: Column
    space: Annotated[str, StringConstraints(max_length=200)] = ""


class _RawSignal(_Part):
    field: FieldName
    columns: list[Column] = Field(min_length=1)
    unit: str
    role: Literal["observation", "action"]
    optional: bool = False


class _RawMap(_Part):
    schema_: Literal["iriai-signalmap/1"] = Field(default="iriai-signalmap/1", alias="schema")
    profile: str | None = None
    table: Table = Table()
    clock: Clock | None = None
    secret: list[Column] = Field(default_factory=list)
    segment: Segment = Segment()
    signal: list[_RawSignal] = Field(min_length=1)
    label: list[Label] = Field(default_factory=list)
    unit: UnitKey | None = None
    embodiment: Embodiment | None = None
    keep_private: bool = False
    source: Source = Field(default_factory=Source)
    task: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")] = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One canonical field: which columns, in which unit."""

    field: str
    role: Literal["observation", "action"]
    columns: tuple[str, ...]
    unit: str
    optional: bool = False

    @property
    def key(self) -> str:
        """Column of the store: ``observation.tcp_pos``."""
        return f"{self.role}.{self.field}"

    @property
    def size(self) -> int:
        """Values per frame in the store."""
        return 4 if UNITS[self.unit].dimension == ROTATION else len(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalMap:
    """A checked map. ``text`` are its exact bytes, ``digest`` is over them."""

    text: bytes
    table: Table
    clock: Clock | None
    secret: tuple[str, ...]
    segment: Segment
    signals: tuple[Signal, ...]
    labels: tuple[Label, ...]
    unit: UnitKey | None
    embodiment: Embodiment | None
    task: str
    profile: str | None = None
    keep_private: bool = False
    source: Source = dataclasses.field(default_factory=Source)

    @property
    def digest(self) -> str:
        """SHA-256 of the map's bytes."""
        return digest(self.text)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Mapped columns that hold numbers, in the map's order."""
        return tuple(column for signal in self.signals for column in signal.columns)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are read as words: labels, the segment column and the key of the unit."""
        named = [self.segment.column, self.unit.column if self.unit else None]
        words = [column for column in named if column]
        return tuple(dict.fromkeys([*words, *(label.column for label in self.labels)]))

    def is_secret(self, column: str) -> bool:
        """Whether a column must be dropped while reading."""
        return self._names_secret(column) and not (self.keep_private and column in self.number_columns)

    def _names_secret(self, column: str) -> bool:
        return any(_matches(column, patterns) for patterns in map(_patterns, self.secret))

    def unmatched(self, channels: Iterable[str]) -> tuple[str, ...]:
        """Patterns of ``secret`` that no channel has: a word that protects nothing."""
        names = tuple(channels)
        return tuple(one for one in self.secret if not any(_matches(name, _patterns(one)) for name in names))

    @property
    def private_keys(self) -> frozenset[str]:
        """Columns of the store that never leave the site: ``x_`` fields, and secret ones that are kept."""
        return frozenset(
            s.key
            for s in self.signals
            if s.field.startswith("x_") or any(self._names_secret(column) for column in s.columns)
        )

    def kept_private(self, columns: Iterable[str]) -> SignalMap:
        """The map that keeps these mapped columns to the site, as it says itself or not."""
        mine = [glob.escape(one) for one in columns if one in self.number_columns]
        return replace(self, secret=(*self.secret, *mine), keep_private=True) if mine else self

    def fitted(self, channels: Iterable[str]) -> SignalMap:
        """This map without its optional parts of which a source has no column at all."""
        there = set(channels)
        return replace(
            self,
            signals=tuple(s for s in self.signals if not s.optional or there.intersection(s.columns)),
            labels=tuple(one for one in self.labels if not one.optional or one.column in there),
        )

    def require(self, channels: Iterable[str], where: str) -> None:
        """Refuses a source that lacks a mapped column.

        Raises:
            MissingColumnError: Names the first ones.
        """
        there = set(channels)
        clock = [self.clock.column] if self.clock and self.clock.column else []
        lacking = [c for c in (*clock, *self.number_columns, *self.text_columns) if c not in there]
        if lacking:
            raise MissingColumnError(
                need="columns " + ", ".join(lacking[:_SHOWN]) + (" ..." if len(lacking) > _SHOWN else ""),
                found=f"{where} without them",
                remedy="correct the recording or the signal map",
            )


def load_map(path: Path) -> SignalMap:
    """The map of a TOML file.

    Raises:
        MapInvalidError: See the module docstring.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIGNALMAP_BYTES + 1)
    except OSError as error:
        raise _refuse("a readable signal map", f"{path.name}: {error.strerror}") from error
    if len(data) > SIGNALMAP_BYTES:
        raise _refuse(f"a signal map of at most {SIGNALMAP_BYTES} bytes", "a larger one")
    return parse_map(data)


def parse_map(data: bytes) -> SignalMap:
    """The map behind its TOML bytes.

    Raises:
        MapInvalidError: See the module docstring.
        PrivateStatisticError: It asks for a statistic of the recordings.
    """
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MapInvalidError(
            need="a file in TOML",
            found=str(error)[:120],
            remedy="correct that place; a table in { } stays on one line, a list in [ ] may go on",
        ) from error
    if "profile" in document:
        document = {**_profile(str(document["profile"]), text), **document}
    asked = asked_statistic(document, names=_WORDS_OF_THE_SOURCE)
    if asked:
        named, _, word = asked.partition(": ")
        raise private_statistic(f"{asked}{_line(text, *named.split('.'), value=word)}", _REMEDY)
    try:
        raw = _RawMap.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        need = _SAID.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise _refuse(need, f"{where or 'the map'}{_line(text, *first['loc'])}") from error
    return _checked(raw, data, text)


def canonical_map(channels: Mapping[str, str], *, task: str = "task") -> SignalMap | None:
    """A map for channels whose component names are canonical: ``tcp_pos_0``, ``tcp_pos_1``, ...

    Args:
        channels: Channel (``observation.state.tcp_pos_0``) to component name (``tcp_pos_0``).
        task: Task of the map.

    Returns:
        The map, or None if no channel bears a canonical name.

    Raises:
        MissingColumnError: A field lacks one of its components.
        MapInvalidError: A channel that the map needs has a name that cannot stand in it.
    """
    found: dict[tuple[str, str], dict[int, str]] = {}
    labels = []
    for channel, name in channels.items():
        if channel.startswith("label."):  # a folder that our own store wrote
            labels.append(
                f"  {{field = {quoted(name)}, column = {quoted(channel)}, "
                'values = {"1" = true, "0" = false}},\n'
            )
            continue
        match = _CANONICAL.fullmatch(name)
        if match is None or match["field"] not in FIELD_RULES:
            continue
        role = "action" if channel.split(".", 1)[0] == "action" else "observation"
        found.setdefault((role, match["field"]), {})[int(match["index"] or 0)] = channel
    lines = []
    for (role, field), components in sorted(found.items()):
        sizes = FIELD_RULES[field].sizes
        needed = min((s for s in sizes if s > max(components)), default=max(components) + 1)
        lacking = [f"{field}_{i}" for i in range(needed) if i not in components]
        if lacking:
            raise MissingColumnError(
                need=f"{role} columns " + ", ".join(lacking),
                found=f"only {len(components)} of {field}",
                remedy="record all components of the field, or map it by a signal map",
            )
        names = ", ".join(quoted(components[i]) for i in range(needed))
        lines.append(
            f'  {{field = "{field}", columns = [{names}], '
            f'unit = "{_default_unit(field)}", role = "{role}"}},\n'
        )
    if not lines:
        return None
    head = f'schema = "iriai-signalmap/1"\ntask = "{task}"\nsegment = {{by = "file"}}\n'
    return parse_map(
        (head + "signal = [\n" + "".join(lines) + "]\nlabel = [\n" + "".join(labels) + "]\n").encode("utf-8")
    )


def _default_unit(field: str) -> str:
    dimensions = FIELD_RULES[field].dimensions
    if dimensions == {"m", "rad"} and field != "joint_pos":
        return "m"
    order = ("rad", "rad/s", "N", "m/s") if field.startswith("joint") else ("m", "m/s", "N")
    for unit in order:
        if unit in dimensions:
            return unit
    return min(dimensions - {ROTATION})


def _profile(name: str, text: str) -> dict[str, Any]:
    if re.fullmatch(r"[a-z0-9-]+/[0-9]+", name):
        file = resources.files("client.data") / "profiles" / (name.replace("/", "-") + ".toml")
        if file.is_file():
            return tomllib.loads(file.read_text(encoding="utf-8"))
    raise _refuse("a profile that is shipped", f"profile {ascii(name)[:60]}{_line(text, 'profile')}")


def _checked(raw: _RawMap, data: bytes, text: str) -> SignalMap:
    signals = tuple(
        Signal(
            field=s.field,
            role=s.role,
            columns=_expand(s.columns, _line(text, "signal", number)),
            unit=s.unit,
            optional=s.optional,
        )
        for number, s in enumerate(raw.signal)
    )
    keys = [(signal.key, ("signal", number)) for number, signal in enumerate(signals)]
    keys += [(f"label.{label.field}", ("label", number)) for number, label in enumerate(raw.label)]
    columns = [column for signal in signals for column in signal.columns]
    mapped = [(column, ("signal", at)) for at, signal in enumerate(signals) for column in signal.columns]
    _check_once(keys, "field", text)
    _check_once(mapped, "column", text)
    if len(_expand(raw.secret, _line(text, "secret"))) > SIGNALS:
        raise _refuse(f"at most {SIGNALS} secret columns", f"more{_line(text, 'secret')}")
    if len(columns) > SIGNALS:
        raise _refuse(f"at most {SIGNALS} signals", str(len(columns)))
    for number, signal in enumerate(signals):
        _check_signal(signal, raw.embodiment, _line(text, "signal", number))
    robot = raw.embodiment
    if robot is not None and robot.class_ not in EMBODIMENT_CLASSES:
        need = "one of the classes " + " ".join(sorted(EMBODIMENT_CLASSES))
        raise _refuse(need, f"{ascii(robot.class_)[:40]}{_line(text, 'embodiment', 'class')}")
    found = SignalMap(
        text=data,
        table=raw.table,
        clock=raw.clock,
        secret=tuple(raw.secret),
        segment=raw.segment,
        signals=signals,
        labels=tuple(raw.label),
        unit=raw.unit,
        embodiment=raw.embodiment,
        task=raw.task,
        profile=raw.profile,
        keep_private=raw.keep_private,
        source=raw.source,
    )
    clock = [raw.clock.column] if raw.clock and raw.clock.column else []
    shown = next((c for c in (*clock, *columns, *found.text_columns) if found.is_secret(c)), None)
    if shown:
        raise _refuse("secret columns that are not mapped", f"{shown} in both{_line(text, 'secret')}")
    return found


def _check_once(names: list[tuple[str, tuple[str, int]]], what: str, text: str) -> None:
    """Refuses a name that stands twice, at the line of the second."""
    seen: set[str] = set()
    for name, place in names:
        if name in seen:
            raise _refuse(f"each {what} once", f"{name} twice{_line(text, *place)}")
        seen.add(name)


def _check_signal(signal: Signal, embodiment: Embodiment | None, line: str) -> None:
    private = signal.field.startswith("x_")
    if signal.field not in FIELD_RULES and not private:
        raise _refuse("a field of the closed list, or x_...", f"{signal.field}{line}")
    if signal.unit not in UNITS:
        raise _refuse("one of the units " + " ".join(UNITS), f"{ascii(signal.unit)[:20]}{line}")
    if private:
        return
    rule = FIELD_RULES[signal.field]
    if UNITS[signal.unit].dimension not in rule.dimensions:
        raise _refuse(f"a unit of {', '.join(sorted(rule.dimensions))}", f"{signal.unit}{line}")
    if rule.sizes and len(signal.columns) not in rule.sizes:
        sizes = " or ".join(str(size) for size in sorted(rule.sizes))
        raise _refuse(f"{sizes} columns for {signal.field}", f"{len(signal.columns)}{line}")
    if UNITS[signal.unit].dimension == ROTATION and len(signal.columns) != _ANGLES:
        raise _refuse("3 columns for a rotation", f"{len(signal.columns)}{line}")
    if embodiment and signal.field.startswith("joint_") and len(signal.columns) < embodiment.dof:
        raise _refuse(f"{embodiment.dof} columns for {signal.field}", f"{len(signal.columns)}{line}")


@functools.lru_cache(maxsize=1024)
def _patterns(secret: str) -> tuple[str, ...]:
    """A word of ``secret`` as patterns for names without blanks around them, in lower case."""
    return tuple(one.strip().casefold() for one in _expand([secret], ""))


def _matches(column: str, patterns: tuple[str, ...]) -> bool:
    name = column.strip().casefold()
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _expand(columns: Iterable[str], line: str) -> tuple[str, ...]:
    names: list[str] = []
    for column in columns:
        match = _RANGE.search(column)
        if match is None:
            names.append(column)
            continue
        first, last = int(match[1]), int(match[2])
        if last < first or last - first >= SIGNALS:
            raise _refuse("a rising range of columns", f"{ascii(column)[:60]}{line}")
        names += [column[: match.start()] + str(i) + column[match.end() :] for i in range(first, last + 1)]
    return tuple(names)


def _line(text: str, *path: str | int, value: str = "") -> str:
    """`` (line 4)`` of a place in the map; empty if its table is not in the file."""
    number = line_of(text, path, value=value)
    return "" if number is None else f" (line {number})"


def _refuse(need: str, found: str) -> DataError:
    return MapInvalidError(need=need, found=found, remedy=_REMEDY)
