# SPDX-License-Identifier: Apache-2.0
"""What a Parquet file of our own recorder says of its episode: which model acted, and how it ended.

Under the key `KEY` of the file's metadata, canonical JSON: ``{"clock", "model", "outcome", "outcome_by",
"rate_hz", "schema", "seal"}``.

- The file is one attempt: no rule of a map cuts it.
- ``outcome_by`` is ``person`` where somebody looked; a cell's own word (``cell``) is kept and proves nothing.
- **Anybody who may write a file can write such words.** ``seal`` is an HMAC under the secret of the node that
  recorded it, over words and rows (`seal_of`). Without it, with a wrong one, or read by another node, the
  episode is a model's still, and how it ended is unknown: nobody is believed to have judged it.
- A file of the recorder's columns that lost its words is a model's too, and so is every file of a folder that
  holds recordings: actions of a model never become a person's by what was left out. A file that names another
  model than its map is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from client.data.errors import DataError, FileInvalidError
from client.data.readers import parquet
from client.data.series import Declared
from client.data.signalmap import load_map
from policies.encoding import canonical, is_digest
from policies.limits import EPISODE_FRAMES, SERVE_RING_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.data.signalmap import SignalMap

__all__ = [
    "KEY",
    "MAP_FILE",
    "OUTCOMES",
    "SCHEMA",
    "Recordings",
    "Word",
    "recorded_map",
    "seal_of",
    "word_of",
]

KEY: Final = b"iriai.deployed"
MAP_FILE: Final = "signalmap.toml"
SCHEMA: Final = "iriai-deployed/2"
OUTCOMES: Final = frozenset({"success", "fail", "unknown"})
_KEYS: Final = {"schema", "model", "outcome", "outcome_by"}  # of version 1, which had no seal
_MORE: Final = {"clock", "rate_hz", "seal"}
_TEXTS: Final = ("flags",)
_MOST_BYTES: Final = 4 * SERVE_RING_BYTES  # rows of four and eight bytes a value, from a ring of that size
_COLUMNS: Final = frozenset({"stamp_ns", "served_ns", "seq", "flags"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a file says of its episode; ``rate_hz`` is the rate that was asked for, empty where none was."""

    model: str
    outcome: str
    outcome_by: str
    clock: str = ""
    rate_hz: str = ""

    def _as_dict(self) -> dict[str, str]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "outcome": self.outcome,
            "outcome_by": self.outcome_by,
            "clock": self.clock,
            "rate_hz": self.rate_hz,
        }

    def to_bytes(self, seal: str) -> bytes:
        """As it stands in the file."""
        return canonical({**self._as_dict(), "seal": seal})

    def signed_bytes(self) -> bytes:
        """What the seal is over, beside the rows."""
        return canonical(self._as_dict())


def seal_of(key: bytes, table: Any, word: Word) -> str:  # noqa: ANN401  a pyarrow table
    """The seal of rows and words under a node's key, 64 hex digits."""
    rows = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        missing = column.is_null().to_numpy(zero_copy_only=False)
        if _is_words(column.type):
            kind, values = "words", json.dumps(column.to_pylist()).encode("ascii")
        else:
            kind = str(column.type)
            values = column.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
        for part in (name.encode("utf-8"), kind.encode("ascii"), missing.tobytes(), values):
            rows.update(len(part).to_bytes(8, "big") + part)
    text = b"iriai-deployed/2\0" + rows.digest() + word.signed_bytes()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _is_words(kind: Any) -> bool:  # noqa: ANN401  a type of the library
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _is_usual(kind: Any) -> bool:  # noqa: ANN401  a type of the library
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or _is_words(kind))


def word_of(metadata: Mapping[bytes, bytes] | None, *, where: str) -> tuple[Word, str] | None:
    """What the metadata of a file says, and its seal; None if our recorder did not write it.

    Args:
        metadata: Of the Parquet file.
        where: Name of the file, for a refusal.

    Raises:
        FileInvalidError: It bears the key and another text.
    """
    data = (metadata or {}).get(KEY)
    if data is None:
        return None
    try:
        told = json.loads(data)
        fits = told.keys() in (_KEYS, _KEYS | _MORE) and all(isinstance(one, str) for one in told.values())
        fits = fits and told["schema"] in (SCHEMA, "iriai-deployed/1") and is_digest(told["model"])
        fits = fits and told["outcome"] in OUTCOMES and told["outcome_by"] in ("", "cell", "person")
    except (ValueError, AttributeError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise FileInvalidError(
            need=f"{SCHEMA} under {KEY.decode()}",
            found=f"{where}: another text",
            remedy="copy the file again from the folder that it was recorded in",
        )
    seal = told.pop("seal", "")
    del told["schema"]
    return Word(**told), seal


def recorded_map(folder: Path) -> Path | None:
    """The map that our recorder wrote into a folder of recordings; None where there is none."""
    path = folder / MAP_FILE
    if not path.is_file():
        return None
    try:
        return path if load_map(path).source.kind == "deployed" else None
    except DataError:
        return None


class Recordings:
    """What is declared of the files of one source; see the module."""

    def __init__(self, source: Path, signals: SignalMap, key: bytes) -> None:
        self._signals, self._key = signals, key
        files = source.glob("*.parquet") if source.is_dir() else ()
        self._all = recorded_map(source if source.is_dir() else source.parent) is not None or any(
            KEY in _metadata(one) for one in files if not one.name.startswith(".")
        )

    def declared(self, file: Path) -> Declared | None:
        """What a file declares, or its folder for it; None where a map's rules cut it.

        Raises:
            FileInvalidError: Words that are none, or another model than the map's.
        """
        is_parquet = file.suffix.lower() == ".parquet"
        found = word_of(_metadata(file), where=file.name) if is_parquet else None
        if found is None:
            ours = self._all or (is_parquet and _names(file) >= _COLUMNS)
            return self._unproven(self._signals.source.model) if ours else None
        word, seal = found
        named = self._signals.source.model
        if named and word.model != named:
            raise FileInvalidError(
                need=f"recordings of the map's model {named[:19]}",
                found=f"{file.name}: of {word.model[:19]}",
                remedy="add it from the folder that it was recorded in",
            )
        if not self._is_sealed(file, word, seal):
            return self._unproven(word.model)
        return Declared(
            task=self._signals.task,
            split=None,
            source_kind="deployed",
            model=word.model,
            outcome=word.outcome,
            outcome_by="person" if word.outcome_by == "person" else "",
            own=True,
        )

    def _is_sealed(self, file: Path, word: Word, seal: str) -> bool:
        if not self._key or not seal:
            return False
        with parquet.opened(file, _TEXTS) as opened, parquet.refusing(file):
            names, rows = opened.schema_arrow.names, opened.metadata.num_rows
            usual = len(set(names)) == len(names) and all(map(_is_usual, opened.schema_arrow.types))
            if not usual or rows > EPISODE_FRAMES or rows * len(names) * 8 > _MOST_BYTES:
                return False
            parts = list(parquet.batches(opened, names, where=file.name))
            wanted = seal_of(self._key, pa.Table.from_batches(parts), word) if parts else ""
        return hmac.compare_digest(wanted.encode("ascii"), seal.encode("utf-8", "replace"))

    def _unproven(self, model: str) -> Declared:
        return Declared(
            task=self._signals.task, split=None, source_kind="deployed", model=model, outcome="unknown"
        )


def _metadata(file: Path) -> Mapping[bytes, bytes]:
    try:
        with parquet.opened(file) as opened:
            return opened.schema_arrow.metadata or {}
    except FileInvalidError:  # whoever reads it says so
        return {}


def _names(file: Path) -> frozenset[str]:
    with parquet.opened(file) as opened:
        return frozenset(opened.schema_arrow.names)
