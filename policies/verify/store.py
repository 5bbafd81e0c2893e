# SPDX-License-Identifier: Apache-2.0
"""Entries, envelopes, decisions and disclosures of a bundle that was scanned, read again when asked for.

Everything here passed `policies.verify.scan`, so it is read the short way; a pack with a finding is read
the long way again, that what is wrong in it stays absent. Only the newest few tiles and values are kept.

`Entries` and the others are mappings by index whose items come in order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from policies.log.bundle import TILE, DecisionRecord, split_tile
from policies.log.entries import Entry, known_entry
from policies.log.tiles import entries_path
from policies.signing import Envelope
from policies.verify.ledger import KINDS
from policies.verify.packs import pack_name, read_decisions, read_envelopes, read_opened
from policies.verify.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from policies.log.schema import EntryType
    from policies.verify.ledger import Ledger
    from policies.verify.source import Files

__all__ = ["Decisions", "Entries", "Envelopes", "Newest", "Opened", "Store"]

Json = Any
Key = TypeVar("Key", bound="Hashable")
Value = TypeVar("Value")
TILES_KEPT = 24
VALUES_KEPT = 4_096
BROKEN = {"envelopes": 1, "decisions": 2, "disclosures": 4}
"""Bits of `Store.broken`: which packs of a tile have findings."""


class Newest(dict[Key, Value]):
    """The values that were made last.

    Args:
        most: So many are kept.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def through(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is not there."""
        if key in self:
            return self[key]
        value = self[key] = make()
        if len(self) > self._most:
            del self[next(iter(self))]
        return value


def _number(line: bytes, start: int) -> int:
    """The digits from a place on."""
    end = start
    while line[end : end + 1].isdigit():
        end += 1
    return int(line[start:end])


class Store:
    """See the module.

    Args:
        files: Of the bundle.
        ledger: Of its entries.
    """

    def __init__(self, files: Files, ledger: Ledger) -> None:
        self.files = files
        self.ledger = ledger
        self.size = ledger.size
        self.broken = bytearray(-(-self.size // TILE))
        self._tiles: Newest[int, list[bytes]] = Newest(TILES_KEPT)
        self._packs: Newest[tuple[str, int], dict[int, Any]] = Newest(3 * TILES_KEPT)
        self._entries: Newest[int, Entry] = Newest(VALUES_KEPT)
        self.requests: Newest[int, Any] = Newest(VALUES_KEPT)
        self._payloads: Newest[int, Mapping[str, Json]] = Newest(VALUES_KEPT)

    def has(self, index: int) -> bool:
        """Whether an entry is there and could be read."""
        return 0 <= index < self.size and self.ledger.codes[index] > 0

    def kind(self, index: int) -> EntryType:
        """Type of an entry that could be read."""
        return KINDS[self.ledger.codes[index] - 1]

    def body(self, index: int) -> bytes:
        """Bytes of an entry."""
        return self._tiles.through(index // TILE, lambda: self._tile(index // TILE))[index % TILE]

    def _tile(self, tile: int) -> list[bytes]:
        width = min(TILE, self.size - tile * TILE)
        return split_tile(self.files[entries_path(tile, width)], width)

    def entry(self, index: int) -> Entry:
        """An entry that could be read."""
        found = self._entries.get(index)
        return self._entries.through(index, lambda: self._entry(index)) if found is None else found

    def _entry(self, index: int) -> Entry:
        return known_entry(self.body(index))

    def payload(self, index: int) -> Mapping[str, Json]:
        """Payload of an envelope that its sender signed."""
        return self._payloads.through(index, lambda: json.loads(self._envelope(index).payload))

    def _envelope(self, index: int) -> Envelope:
        found = self.envelope(index)
        if found is None:
            raise KeyError(index)
        return found

    def envelope(self, index: int) -> Envelope | None:
        """The envelope of an entry."""
        found = self._pack("envelopes", index // TILE).get(index)
        return _sealed(json.loads(found)["envelope"]) if isinstance(found, bytes) else found

    def decision(self, index: int) -> DecisionRecord | None:
        """The record of a decision."""
        found = self._pack("decisions", index // TILE).get(index)
        if not isinstance(found, bytes):
            return found
        told = json.loads(found)
        return DecisionRecord(
            index=index,
            decision=told["decision"],
            request=told["request"],
            state=told["state"],
            salt=bytes.fromhex(told["salt"]),
        )

    def opened(self, index: int) -> dict[str, Json] | None:
        """Disclosed values of an entry that open their commitments."""
        found: dict[str, Json] | None = self._pack("disclosures", index // TILE).get(index)
        return found

    def _pack(self, folder: str, tile: int) -> dict[int, Any]:
        return self._packs.through((folder, tile), lambda: self._read_pack(folder, tile))

    def _read_pack(self, folder: str, tile: int) -> dict[int, Any]:
        data = self.files.get(pack_name(folder, tile)) if 0 <= tile < len(self.broken) else None
        if data is None:
            return {}
        if self.broken[tile] & BROKEN[folder]:
            return self._read_broken(data, folder, tile)
        lines = data.split(b"\n")[:-1]
        if folder == "envelopes":
            return {_number(line, line.rindex(b":") + 1): line for line in lines}
        if folder == "decisions":
            return {_number(line, line.index(b'"index":') + 8): line for line in lines}
        found: dict[int, dict[str, Json]] = {}
        for line in lines:
            one = json.loads(line)
            found.setdefault(one["index"], {})[one["field"]] = one["value"]
        return found

    def _read_broken(self, data: bytes, folder: str, tile: int) -> dict[int, Any]:
        unheard = Report()
        if folder == "envelopes":
            return dict(read_envelopes(data, tile, self.size, unheard))
        if folder == "decisions":
            return dict(read_decisions(data, tile, self.size, unheard))
        indexes = range(tile * TILE, min((tile + 1) * TILE, self.size))
        entries = {index: self.entry(index) for index in indexes if self.has(index)}
        return dict(read_opened(data, tile, self.size, entries, unheard))


def _sealed(told: Mapping[str, Json]) -> Envelope:
    decode = base64.b64decode
    return Envelope(
        payload_type=told["payloadType"],
        payload=decode(told["payload"]),
        signatures=tuple((one["keyid"], decode(one["sig"])) for one in told["signatures"]),
    )


class _ByIndex(Mapping[int, Value]):
    """A mapping over what the store has, in order."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def _get(self, index: int) -> Value | None:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Value:
        found = self._get(index)
        if found is None:
            raise KeyError(index)
        return found

    def __iter__(self) -> Iterator[int]:
        return (index for index in range(self.store.size) if index in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Entries(_ByIndex[Entry]):
    """Entries that could be read."""

    def __getitem__(self, index: int) -> Entry:
        if not self.store.has(index):
            raise KeyError(index)
        return self.store.entry(index)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self.store.has(index)

    def __len__(self) -> int:
        return self.store.size - self.store.ledger.codes.count(0)


class Envelopes(_ByIndex[Envelope]):
    """Envelopes as found in the bundle."""

    def _get(self, index: int) -> Envelope | None:
        return self.store.envelope(index)


class Decisions(_ByIndex[DecisionRecord]):
    """Records of decisions."""

    def _get(self, index: int) -> DecisionRecord | None:
        return self.store.decision(index)


class Opened(_ByIndex[dict[str, Json]]):
    """Disclosed values, by field."""

    def _get(self, index: int) -> dict[str, Json] | None:
        return self.store.opened(index)
