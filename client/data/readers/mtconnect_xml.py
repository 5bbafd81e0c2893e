# SPDX-License-Identifier: Apache-2.0
"""One saved answer of an MTConnect agent to ``/sample``, parsed as a stream: no tree, no DTD, no entities.

- A document type declaration is refused where it begins: without one there are no entities to expand and no
  other file to open.
- A data item goes by its id, its name, and its type with or without component and subtype: ``j1a``,
  ``J1pos``, ``J1.Angle``, ``J1.Angle.ACTUAL``, ``Angle``, ``Angle.ACTUAL``. Types are as elements spell
  them. A value of three numbers (``PathPosition``) has ``..._0`` to ``..._2``. `Wanted` binds a mapped column
  to the one item that answers to it; two that do are refused.
- Items of `SECRET_TYPES` are not read, whatever a map says, but for the column that cuts episodes or owns
  them: its values are never stored.
- ``UNAVAILABLE`` is missing: an empty text.
- Nothing is gathered without a bound: a value ends within `TEXT_ROW_BYTES`, a tag or comment within
  `MTCONNECT_TAG_BYTES`.

Source: MTConnect Standard Part 1 (headers, sequence, instanceId) and Part 3 (streams).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from client.data.errors import CellInvalidError, FileInvalidError, MapInvalidError, TooLargeError
from policies.limits import MTCONNECT_OBSERVATIONS, MTCONNECT_TAG_BYTES, TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.data.signalmap import SignalMap

__all__ = ["SECRET_TYPES", "Document", "Header", "Item", "Wanted", "read_document", "read_header"]

SECRET_TYPES: Final = frozenset(
    {
        *("Program", "ProgramComment", "ProgramEditName", "ProgramHeader", "Block", "LineLabel", "Message"),
        *("PartCount", "PartId", "PartNumber", "PartUniqueId", "PartGroupId", "PartKindId", "PalletId"),
        *("SerialNumber", "OperatorId", "User"),
    }
)
_CHUNK: Final = 256 * 1024
_MISSING: Final = "UNAVAILABLE"
_THREE: Final = 3
_SEQUENCE_DIGITS: Final = 15
_KINDS: Final = frozenset({"Samples", "Events"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Of an answer: the run of the agent, when it answered, and the sequence after its last observation."""

    instance: str
    created: str
    first: int
    following: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A data item as its first observation shows it. ``event``: its values are words."""

    name: str
    component: str
    kind: str
    subtype: str
    event: bool

    def aliases(self, ident: str) -> list[str]:
        """What it goes by, the shortest that says its type first."""
        typed = [self.kind, f"{self.component}.{self.kind}"]
        if self.subtype:
            typed += [f"{one}.{self.subtype}" for one in typed]
        return [*typed, ident] if not self.name else [self.name, *typed, ident]


@dataclass(slots=True)
class Document:
    """Mapped observations of one answer in the order of the file, column by column of a long table."""

    header: Header | None = None
    stamps: list[str] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    lowest: int = 0
    observations: int = 0
    items: dict[str, Item] = field(default_factory=dict)  # by id; no secret ones


class Wanted:
    """Which mapped column a data item fills; keeps its bindings over all documents of a source."""

    def __init__(self, signals: SignalMap | None) -> None:
        numbers = signals.number_columns if signals else ()
        texts = signals.text_columns if signals else ()
        self.columns = (*numbers, *texts)
        self.numbers = len(numbers)
        self.owners: dict[str, str] = {}  # column to the item that fills it
        self.secrets: set[str] = set()
        self._signals = signals
        self._bound: dict[str, list[tuple[int, int | None]]] = {}
        self._open = frozenset(_never_stored(signals)) if signals else frozenset()

    def bind(self, item: str, aliases: list[str], kind: str) -> list[tuple[int, int | None]]:
        """Columns of an item, each with the number of its component or None. Decided once per item."""
        if item in self._bound:
            return self._bound[item]
        names = frozenset(aliases)
        found: list[tuple[int, int | None]] = []
        for at, column in enumerate(self.columns):
            base, _, part = column.rpartition("_")
            if column in names:
                found.append((at, None))
            elif base in names and part in ("0", "1", "2"):
                found.append((at, int(part)))
        if kind in SECRET_TYPES or (self._signals and any(map(self._signals.is_secret, names))):
            self.secrets.add(item)
            self._refuse_secret(found)
        for at, _ in found:
            self._own(self.columns[at], item)
        self._bound[item] = found
        return found

    def _refuse_secret(self, found: list[tuple[int, int | None]]) -> None:
        shown = next((self.columns[at] for at, _ in found if self.columns[at] not in self._open), None)
        if shown is not None:
            raise MapInvalidError(
                need="names of programs, parts and persons that are not mapped",
                found=f"{ascii(shown)[:60]} as a signal or label",
                remedy="take it out of the map; it may cut episodes (segment) or own them (unit)",
            )

    def _own(self, column: str, item: str) -> None:
        if self.owners.setdefault(column, item) != item:
            raise MapInvalidError(
                need=f"one data item for {ascii(column)[:60]}",
                found="two of that name or type",
                remedy="name it by its dataItemId in the signal map",
            )


def _never_stored(signals: SignalMap) -> set[str]:
    """Columns whose values only cut episodes or tell their owners apart."""
    words = {signals.segment.column, signals.unit.column if signals.unit else None}
    stored = {*signals.number_columns, *(label.column for label in signals.labels)}
    return {word for word in words if word} - stored


class _Target:
    """Takes what the parser finds. One observation is open at a time."""

    def __init__(self, wanted: Wanted, where: str) -> None:
        self.document = Document()
        self._wanted, self._where = wanted, where
        self._root = self._component = self._kind = ""
        self._met: set[str] = set()
        self._observation: Mapping[str, str] | None = None
        self._bound: list[tuple[int, int | None]] = []
        self._text: list[str] = []
        self._text_size = 0
        self.heard = 0  # events so far

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """A DTD begins."""
        del name, pubid, system
        raise _invalid(self._where, "an answer without a document type", "one with it")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self.heard += 1
        name = tag.rpartition("}")[2]
        if not self._root:
            self._root = name
            if name != "MTConnectStreams":
                raise _invalid(self._where, "an answer to /sample (MTConnectStreams)", ascii(name)[:40])
        elif self._observation is not None:
            if self._bound:
                raise _invalid(self._where, "one value per mapped observation", "a table or a set of them")
        elif self._kind:
            self._begin(name, attributes)
        elif name in _KINDS:
            self._kind = name
        elif name == "ComponentStream":
            self._component = attributes.get("name") or attributes.get("component") or ""
        elif name == "Header":
            self.document.header = _header(attributes, self._where)

    def _begin(self, kind: str, attributes: Mapping[str, str]) -> None:
        item = attributes.get("dataItemId", "")
        sequence = attributes.get("sequence", "")
        if not item or not _is_sequence(sequence):
            raise _invalid(self._where, "dataItemId and sequence of each observation", f"{kind} without")
        document, number = self.document, int(sequence)
        document.lowest = min(document.lowest or number, number)
        document.observations += 1
        self._observation = attributes
        if item not in self._met:
            self._meet(item, kind, attributes)
        self._bound = self._wanted.bind(item, [], kind)

    def _meet(self, item: str, kind: str, attributes: Mapping[str, str]) -> None:
        """Learns a data item at its first observation."""
        self._met.add(item)
        found = Item(
            name=attributes.get("name", ""),
            component=self._component,
            kind=kind,
            subtype=attributes.get("subType", ""),
            event=self._kind == "Events",
        )
        self._wanted.bind(item, found.aliases(item), kind)
        if item not in self._wanted.secrets:
            self.document.items[item] = found

    def data(self, text: str) -> None:
        """Text of the open observation."""
        self.heard += 1
        if self._bound:
            self._text.append(text)
            self._text_size += len(text)
            if self._text_size > TEXT_ROW_BYTES:
                raise self._no_value(self._observation or {})

    def end(self, tag: str) -> None:
        """An element ends."""
        self.heard += 1
        if self._observation is not None:
            if self._bound:
                self._keep(self._observation, "".join(self._text).strip())
            self._observation, self._bound = None, []
            self._text.clear()
            self._text_size = 0
        elif self._kind and tag.rpartition("}")[2] == self._kind:
            self._kind = ""

    def _keep(self, attributes: Mapping[str, str], text: str) -> None:
        value = "" if text == _MISSING else text
        parts = value.split() if any(part is not None for _, part in self._bound) else []
        if len(value) > TEXT_ROW_BYTES or "sampleCount" in attributes or len(parts) not in (0, _THREE):
            raise self._no_value(attributes)
        document, sequence = self.document, int(attributes["sequence"])
        for column, part in self._bound:
            document.columns.append(column)
            document.stamps.append(attributes.get("timestamp", ""))
            document.sequences.append(sequence)
            document.values.append(value if part is None else parts[part] if parts else "")
        if len(document.columns) > MTCONNECT_OBSERVATIONS:
            raise TooLargeError(
                need=f"answers of at most {MTCONNECT_OBSERVATIONS} mapped observations",
                found=f"{self._where}: more",
                remedy="ask the agent for fewer with count, and save more answers",
            )

    def _no_value(self, attributes: Mapping[str, str]) -> CellInvalidError:
        return CellInvalidError(
            need="one value per mapped observation, or three of a position",
            found=f"{self._where}, sequence {attributes.get('sequence')}: others",
            remedy="map another data item",
        )

    def close(self) -> Document:
        """The document."""
        return self.document


def read_document(path: Path, wanted: Wanted) -> Document:
    """The mapped observations of a file.

    Raises:
        FileInvalidError: Not the XML of an answer to ``/sample``, or with a document type.
        CellInvalidError: A mapped item that is no single value.
        MapInvalidError: Two items answer to one mapped column, or a secret one is mapped.
        TooLargeError: Too many observations in one answer.
    """
    target = _Target(wanted, path.name)
    parser = ET.XMLParser(target=target)  # noqa: S314  see `_Target.doctype`
    for chunk in _chunks(path, target):
        _fed(parser, chunk, path)
    try:
        parser.close()
    except ET.ParseError as error:
        raise _cut(path) from error
    if target.document.header is None:
        raise _invalid(path.name, "a Header", "none")
    return target.document


def read_header(path: Path) -> Header:
    """The header alone; reads no further than it."""
    target = _Target(Wanted(None), path.name)
    parser = ET.XMLParser(target=target)  # noqa: S314  see `_Target.doctype`
    for chunk in _chunks(path, target):
        _fed(parser, chunk, path)
        if target.document.header is not None:
            return target.document.header
    raise _invalid(path.name, "a Header", "none")


def _chunks(path: Path, target: _Target) -> Iterator[bytes]:
    """The file in parts, as long as the parser comes to something in them."""
    heard, silent = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
            silent = silent + len(chunk) if target.heard == heard else 0
            heard = target.heard
            if silent > MTCONNECT_TAG_BYTES:
                raise TooLargeError(
                    need=f"tags and comments of at most {MTCONNECT_TAG_BYTES} bytes",
                    found=f"{path.name}: a longer one",
                    remedy="save the agent's answer again",
                )


def _fed(parser: ET.XMLParser, chunk: bytes, path: Path) -> None:
    try:
        parser.feed(chunk)
    except (ET.ParseError, ValueError, LookupError) as error:  # the last: an encoding nobody knows
        raise _cut(path) from error


def _cut(path: Path) -> FileInvalidError:
    return _invalid(path.name, "well-formed XML to the end", "a damaged or cut file")


def _is_sequence(text: str) -> bool:
    """A number that a thousand runs may add up in 64 bits; an agent counts to 2^64 and never comes there."""
    return text.isascii() and text.isdigit() and len(text) <= _SEQUENCE_DIGITS


def _header(attributes: Mapping[str, str], where: str) -> Header:
    first, following = attributes.get("firstSequence", ""), attributes.get("nextSequence", "")
    instance, created = attributes.get("instanceId", ""), attributes.get("creationTime", "")
    if not (instance and created and _is_sequence(first) and _is_sequence(following)):
        raise _invalid(where, "instanceId, creationTime, firstSequence and nextSequence", "others")
    return Header(instance=instance, created=created, first=int(first), following=int(following))


def _invalid(where: str, need: str, found: str) -> FileInvalidError:
    return FileInvalidError(need=need, found=f"{where}: {found}", remedy="save the agent's answer again")
