# SPDX-License-Identifier: Apache-2.0
"""Proposes a signal map for a recording that nobody has mapped yet; a person corrects and confirms it.

Order, the first that fits wins:
1. channels with canonical names need no map, nor does a format that brings one (one robot's bag);
2. a shipped profile whose columns are all there: one line is enough;
3. else columns are grouped by name and number (``Current_J0`` to ``Current_J5``), and each group is offered
   as the field that its words suggest.

- Nothing is guessed that would change a value in silence: a unit that neither the format nor the column's
  name says is written as ``unit = "?"``, which no import accepts, beside the units that the field may have.
- Only the head of a file is read (client.data.heads).
- A column whose name cannot stand in a map (client.data.mapnames) is never proposed, but named as not read.

    found = propose(probe, head)          # head: of `client.data.heads`, for tables
    found.text                            # TOML to edit, or None where no map is needed
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

from client.data.admission import ACTION_SPACES
from client.data.errors import DataError
from client.data.heads import CLOCK_WORDS, COMMA_NUMBER, DATED
from client.data.mapnames import is_plain, quoted, shown
from client.data.signalmap import canonical_map, parse_map
from client.data.units import FIELD_RULES, UNITS
from policies.messages import EMBODIMENT_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client.data.heads import Head
    from client.data.series import Probe

__all__ = ["Proposal", "profile_names", "propose"]

_NUMBER: Final = re.compile(r"^-?\d+(\.\d*)?([eE][+-]?\d+)?$")
_NUMBERED: Final = re.compile(r"^(?P<stem>.*?)(?P<index>\d{1,18})(?P<tail>\D*)$")
_CUT_WORDS: Final = re.compile(r"^(cycle|episode|run|attempt|trial)([ _.-]?(id|no|number))?$", re.IGNORECASE)
_ACTION_WORDS: Final = re.compile(r"target|command|cmd|setpoint|planned|desired|\baction", re.IGNORECASE)
_TRUTH: Final = frozenset({"true", "false"})
_NAMED: Final = 20  # columns that a comment names
_OWN_EPISODES: Final = frozenset({"lerobot", "robomimic"})  # formats that cut themselves and keep no stamps
_BAGS: Final = frozenset({"rosbag", "mcap"})
_STANDARD: Final = {"Angle": "deg", "AngularVelocity": "deg/s", "Temperature": "degC", "PathPosition": "mm"}
_FIELD_WORDS: Final = (
    (r"tool.*current", "tool_current"),
    (r"(tcp|eef).*(force|wrench)|wrench|measuredforce", "tcp_force"),
    (r"(tcp|eef).*(speed|vel)", "tcp_vel"),
    (r"(tcp|eef).*(rot|orient|quat)|orient", "tcp_rot"),
    (r"tcp|(^|[_/])eef([_.]|$)|flange.*pos|pathposition", "tcp_pos"),
    (r"gripper.*(cmd|command)", "gripper_cmd"),
    (r"gripper", "gripper_width"),
    (r"temp", "joint_temp"),
    (r"torque|moment|effort", "joint_torque"),
    (r"current", "joint_current"),
    (r"acc|qdd", "joint_acc"),
    (r"speed|veloc|qd(?!d)", "joint_vel"),
    (r"speed.?scaling", "speed_scaling"),
    (r"payload", "payload_mass"),
    (r"pos|angle|joint|axis|(^|[_.])q", "joint_pos"),
)
_UNIT_IN_NAME: Final = re.compile(
    r"[\[(_ ](rad/s2|deg/s2|rad/s|deg/s|mm/s|m/s|rad|deg|mm|cm|m|Nm|N|mA|A|degC|K|kg|g)[\])]?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A map to edit. ``open`` are things a person must say; ``needed``: whether `data add` asks for a map."""

    text: str | None
    profile: str | None
    open: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    needed: bool = True


def profile_names() -> tuple[str, ...]:
    """Every shipped profile, as ``ur-rtde/1``."""
    files = (resources.files("client.data") / "profiles").iterdir()
    stems = sorted(one.name.removesuffix(".toml") for one in files if one.name.endswith(".toml"))
    return tuple(f"{name}/{version}" for name, version in (stem.rsplit("-", 1) for stem in stems))


def propose(probe: Probe, head: Head | None = None) -> Proposal:
    """A signal map for what a reader found.

    Args:
        probe: Of the reader that claims the path.
        head: First rows, where the source is a table.

    Raises:
        MissingColumnError: Channels with canonical names that lack a component.
    """
    names, own = probe.extra.get("names"), probe.extra.get("map")
    if own:
        return Proposal(text=own, profile=None, needed=False)
    if names and canonical_map(names) is not None:
        return Proposal(text=None, profile=None, needed=False)
    channels = head.names if head is not None else probe.channels
    profile = _fitting_profile(channels)
    if profile is not None:
        return Proposal(text=f'profile = "{profile}"\n', profile=profile)
    return _Draft(probe, [one for one in channels if one], head).proposal()


def _fitting_profile(channels: Iterable[str]) -> str | None:
    there = list(channels)
    for name in profile_names():
        try:
            parse_map(f'profile = "{name}"\n'.encode()).require(there, "")
        except DataError:
            continue
        return name
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """One field of a draft."""

    field: str
    columns: list[str]
    unit: str
    role: str

    @property
    def line(self) -> str:
        """As TOML; where the unit is open, with the units that may stand there."""
        names = ", ".join(map(quoted, self.columns))
        why = "" if self.unit != "?" else f"  # say one of: {', '.join(_units_of(self.field))}"
        given = f'columns = [{names}], unit = "{self.unit}", role = "{self.role}"'
        return f'  {{field = "{self.field}", {given}}},{why}'


class _Draft:
    """Step 3: groups of columns, each offered as a field."""

    def __init__(self, probe: Probe, channels: Sequence[str], head: Head | None) -> None:
        self._probe, self._head = probe, head
        self._channels = [one for one in channels if is_plain(one)]
        self._odd = [one for one in channels if not is_plain(one)]
        self._open: list[str] = []
        self._used: set[str] = set()

    def proposal(self) -> Proposal:
        lines = [*self._table(), self._clock(), self._segment()]
        signals, labels = self._signals(), self._labels()
        lines += ["signal = [", *(one.line for one in signals), "]"]
        lines += ["label = [", *labels, "]"] if labels else []
        lines.append(self._embodiment(signals))
        unused = (*(one for one in self._channels if one not in self._used), *self._odd)
        if not signals:
            self._open.append("signals: no column's name says which field it is; map them by hand")
        if unused:
            more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
            lines.append("# not mapped, and so not read: " + ", ".join(map(shown, unused[:_NAMED])) + more)
        text = "\n".join(line for line in lines if line) + "\n"
        return Proposal(text=text, profile=None, open=tuple(self._open), unused=unused)

    def _cells(self, name: str) -> list[str]:
        return self._head.cells(name) if self._head is not None and name in self._head.names else []

    def _table(self) -> list[str]:
        if self._head is None or not self._head.delimiter:
            return []
        delimiter = {"\t": "\\t"}.get(self._head.delimiter, self._head.delimiter)
        return [f'table = {{delimiter = "{delimiter}", decimal = "{self._head.decimal}"}}']

    def _clock(self) -> str:
        if self._probe.rate_hz is not None or self._probe.reader == "mtconnect":
            return ""  # the format has a rate or stamps of its own
        for name in self._channels:
            cells = self._cells(name)
            if not CLOCK_WORDS.search(name) or (self._head is not None and not cells):
                continue
            self._used.add(name)
            if self._probe.reader in _BAGS:
                return f'clock = {{column = {quoted(name)}, unit = "ns", kind = "host"}}'
            if cells and DATED.match(cells[0]):
                return f'clock = {{column = {quoted(name)}, unit = "rfc3339", kind = "host"}}'
            self._open.append(f"clock {name}: unit s, ms, us, ns or count, and kind host or controller")
            return f'clock = {{column = {quoted(name)}, unit = "?", kind = "?"}}'
        self._open.append("clock: no column looks like one; say rate_hz")
        return 'clock = {rate_hz = "?"}'

    def _segment(self) -> str:
        if self._probe.reader in _OWN_EPISODES:
            return ""
        found = next((one for one in self._channels if _CUT_WORDS.match(one)), None)
        if found is None:
            return 'segment = {by = "file", max_gap_s = 1.0, min_frames = 10}'
        self._used.add(found)
        return f'segment = {{by = "column", column = {quoted(found)}, max_gap_s = 5.0, min_frames = 10}}'

    def _signals(self) -> list[_Signal]:
        found: dict[tuple[str, str], _Signal] = {}
        for columns in self._groups():
            field, role = _field_of(columns)
            if field is None or (field, role) in found or not self._fits(field, columns):
                continue
            self._used.update(columns)
            unit = self._unit(columns, field)
            found[field, role] = _Signal(field=field, columns=columns, unit=unit, role=role)
            if unit == "?":
                self._open.append(f"{field} ({columns[0]} ...): its unit, {' or '.join(_units_of(field))}")
        return list(found.values())

    def _fits(self, field: str, columns: Sequence[str]) -> bool:
        sizes = FIELD_RULES[field].sizes
        return not sizes or len(columns) in sizes

    def _unit(self, columns: Sequence[str], field: str) -> str:
        told = {self._probe.units.get(one) for one in columns}
        if len(told) == 1 and (said := next(iter(told))) in UNITS:
            return str(said)
        standard = _STANDARD.get(re.split(r"[._]", columns[0])[-1 if "." in columns[0] else 0])
        if self._probe.reader == "mtconnect" and standard is not None:
            return standard
        found = _UNIT_IN_NAME.search(columns[0])
        if found is not None and UNITS[found[1]].dimension in FIELD_RULES[field].dimensions:
            return found[1]
        units = _units_of(field)
        return units[0] if len(units) == 1 else "?"

    def _groups(self) -> list[list[str]]:
        """Columns that differ in one number, in its order; a column without number is a group of its own."""
        groups: dict[tuple[str, str], dict[int, str]] = {}
        for name in self._channels:
            if name in self._used or not self._numeric(name):
                continue
            found = _NUMBERED.match(name)
            stem, index = (found["stem"], int(found["index"])) if found else (name, 0)
            tail = found["tail"] if found else ""
            key = re.sub(r"[_.\[ ]*[A-Z]?$", "", stem), tail  # Temperature_T0 among Temperature_J1 ...
            groups.setdefault(key, {}).setdefault(index, name)
        return [[group[at] for at in sorted(group)] for group in groups.values()]

    def _numeric(self, name: str) -> bool:
        if name in self._probe.texts:
            return False
        cells = self._cells(name)
        if self._head is None:
            return True
        sign = re.compile(COMMA_NUMBER) if self._head.decimal == "," else _NUMBER
        return bool(cells) and all(sign.match(one) or _NUMBER.match(one) for one in cells)

    def _embodiment(self, signals: Sequence[_Signal]) -> str:
        """The robot, as far as the signals say it."""
        if self._probe.robot_type in EMBODIMENT_CLASSES:
            return ""  # an import takes it from the format
        acts = {one.field for one in signals if one.role == "action"}
        space = next((space for field, space in ACTION_SPACES.items() if field in acts), "none")
        dof = next((str(len(one.columns)) for one in signals if one.field.startswith("joint_")), '"?"')
        fits = [one for one in sorted(EMBODIMENT_CLASSES) if dof == '"?"' or one.startswith(f"{dof}r-")]
        self._open.append("embodiment: its class, " + (" or ".join(fits) or "which is none that is known"))
        return f'embodiment = {{class = "?", dof = {dof}, action_space = "{space}"}}'

    def _labels(self) -> list[str]:
        lines = []
        for name in self._channels:
            words = {one.lower() for one in self._cells(name)}
            field = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
            if name in self._used or not words or not words <= _TRUTH or not re.match(r"^[a-z]", field):
                continue
            self._used.add(name)
            values = ", ".join(
                f'"{one}" = {one.lower()}' for one in sorted(set(self._cells(name)) | {"True", "False"})
            )
            lines.append(f'  {{field = "{field[:40]}", column = {quoted(name)}, values = {{{values}}}}},')
        return lines


def _field_of(columns: Sequence[str]) -> tuple[str | None, str]:
    name = columns[0].lower()
    role = "action" if _ACTION_WORDS.search(name) else "observation"
    return next((field for words, field in _FIELD_WORDS if re.search(words, name)), None), role


def _units_of(field: str) -> list[str]:
    return [name for name, unit in UNITS.items() if unit.dimension in FIELD_RULES[field].dimensions]
