# SPDX-License-Identifier: Apache-2.0
"""Packs of a bundle: lines about the entries of one tile, each in its one spelling.

A line is canonical JSON with the ``index`` of an entry of the tile; indexes ascend, those of disclosures
by field too. What is wrong with a line is a finding, and the next one is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from policies.encoding import parse
from policies.errors import EncodingError
from policies.limits import STRING_CHARS
from policies.log.bundle import TILE, DecisionRecord, tile_name
from policies.log.entries import SALT_BYTES, commitment
from policies.log.kinds import DIGEST
from policies.signing import Envelope, parse_envelope_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from policies.log.entries import Entry
    from policies.verify.report import Report

__all__ = ["RULES_OF", "envelope_of", "pack_name", "read_decisions", "read_envelopes", "read_opened"]

Json = Any
RULES_OF: Mapping[str, str] = {"envelopes": "AUD-040", "decisions": "AUD-059", "disclosures": "AUD-082"}
"""Folders of packs, and the rule that a broken line breaks."""
_OPENED = {"field", "index", "salt", "value"}
_PLAIN = re.compile(  # what most disclosures are: a text that needs no escape
    r'\{"field":"([a-z0-9_]{1,64})","index":(0|[1-9][0-9]{0,14})'
    r',"salt":"([0-9a-f]*)","value":"([ !#-\[\]-~]*)"\}'
)


def pack_name(folder: str, tile: int) -> str:
    """Name of the pack of a tile."""
    return f"{folder}/{tile_name(tile)}.jsonl"


def envelope_of(obj: Json) -> Envelope:
    """An envelope in its one spelling.

    Raises:
        EncodingError: Other keys, or base64 in another spelling.
    """
    envelope = Envelope.from_json(obj)
    if envelope.to_json() != obj:
        raise EncodingError(need="standard base64", found="another spelling", remedy="send it unchanged")
    return envelope


def _lines(
    data: bytes, folder: str, tile: int, size: int, report: Report
) -> Iterator[tuple[int, dict[str, Json]]]:
    rule, name = RULES_OF[folder], pack_name(folder, tile)
    start, end = tile * TILE, min((tile + 1) * TILE, size)
    read = _READERS[folder]
    last = (-1, "")
    for line in data.split(b"\n")[:-1]:
        try:
            one = read(line)
            index = one["index"]
            fits = type(index) is int and start <= index < end
            place = (index, str(one.get("field", "")))
            ordered = fits and place > last
        except (EncodingError, TypeError, KeyError, AttributeError) as error:
            report.add(rule, f"{name}: {type(error).__name__}")
            continue
        if not fits or not ordered:
            report.add(rule, f"{name}: line of entry {index} out of place")
            continue
        last = place
        yield index, one
    if not data.endswith(b"\n"):
        report.add(rule, f"{name}: no whole lines")


def _parse_disclosure(line: bytes) -> Json:
    """`parse`, without a parser where one expression says that the line is canonical."""
    found = _PLAIN.fullmatch(line.decode("ascii")) if line.isascii() and len(line) <= STRING_CHARS else None
    if found is None:
        return parse(line)
    name, index, salt, value = found.groups()
    return {"field": name, "index": int(index), "salt": salt, "value": value}


_READERS: Mapping[str, Callable[[bytes], Json]] = {
    "envelopes": parse_envelope_json,
    "decisions": parse,
    "disclosures": _parse_disclosure,
}


def read_envelopes(data: bytes, tile: int, size: int, report: Report) -> dict[int, Envelope]:
    """Envelopes of a pack, by index. AUD-040."""
    found = {}
    for index, one in _lines(data, "envelopes", tile, size, report):
        if set(one) != {"envelope", "index"}:
            report.add("AUD-040", "the line has other keys", index=index)
            continue
        try:
            found[index] = envelope_of(one["envelope"])
        except EncodingError as error:
            report.add("AUD-040", f"needs {error.need}; found {error.found}", index=index)
    return found


def read_decisions(data: bytes, tile: int, size: int, report: Report) -> dict[int, DecisionRecord]:
    """Records of a pack, by index. AUD-059."""
    found = {}
    for index, one in _lines(data, "decisions", tile, size, report):
        record = _decision(index, one)
        if record is None:
            report.add("AUD-059", "the record has other fields", index=index)
        else:
            found[index] = record
    return found


def _decision(index: int, one: dict[str, Json]) -> DecisionRecord | None:
    if set(one) != {"decision", "index", "request", "salt", "state"} or not DIGEST.holds(one["decision"]):
        return None
    salt = _salt(one["salt"])
    if salt is None:
        return None
    return DecisionRecord(
        index=index, decision=one["decision"], request=one["request"], state=one["state"], salt=salt
    )


def _salt(text: Json) -> bytes | None:
    """Bytes of 32 lower-case hex digits, or None."""
    if not isinstance(text, str) or len(text) != 2 * SALT_BYTES:
        return None
    try:
        salt = bytes.fromhex(text)
    except ValueError:
        return None
    return salt if salt.hex() == text else None


def read_opened(
    data: bytes, tile: int, size: int, entries: Mapping[int, Entry], report: Report
) -> dict[int, dict[str, Json]]:
    """Disclosed values of a pack that open their commitment, by index and field. AUD-082, AUD-031."""
    found: dict[int, dict[str, Json]] = {}
    for index, one in _lines(data, "disclosures", tile, size, report):
        if one.keys() != _OPENED or not isinstance(one["field"], str) or _salt(one["salt"]) is None:
            report.add("AUD-082", "a disclosure with other fields", index=index)  # also of no entry at all
            continue
        entry = entries.get(index)
        if entry is not None and _opens(one, entry, index, report):
            found.setdefault(index, {})[one["field"]] = one["value"]
    return found


def _opens(one: Mapping[str, Json], entry: Entry, index: int, report: Report) -> bool:
    salt = _salt(one["salt"])
    if salt is None or one["field"] not in entry.sd:
        report.add("AUD-082", "a disclosure of a field that the entry does not have", index=index)
        return False
    name, kind = one["field"], entry.schema.sd_kind(one["field"])
    if commitment(salt, name, one["value"]) != entry.sd[name]:
        report.add("AUD-082", f"{name}: the value does not open the commitment", index=index)
        return False
    if kind is None or not kind.holds(one["value"]):
        report.add("AUD-031", f"{name}: not {kind.name if kind else 'a field'}", index=index)
        return False
    return True
