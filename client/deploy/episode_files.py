# SPDX-License-Identifier: Apache-2.0
"""Closed episodes as source files that ``iriai-node data add`` reads: a Parquet file each, and one map.

    deployed/<service>-<12 hex of the model>-<clock>/
        signalmap.toml              how the columns become fields
        episode-000001.parquet      a row per tick; its metadata: model, outcome, who says so, seal
        last-number                 of the newest episode

- Columns of a file: ``stamp_ns`` (the controller's), ``observation.tcp_pos_0`` …, ``action.…`` (what was
  sent); beside them, not mapped: ``measured.…``, ``served_ns``, ``seq``, ``flags``.
- A tick that was answered by the fallback has no action: its cells are empty, which is missing, never 0.
- Where the site's adapter is inside the model, its ports speak the controller's language: the map then has
  the adapter, and the import undoes it as for every recording of that controller.
- A file appears whole and durable, or not at all (write aside, fsync, rename, fsync). Numbers are never used
  twice, not even where recordings were moved away.
- The metadata says that actions are a model's (`client.data.readers.deployed`): without a person's
  ``success`` they are no example to clone. `judge` is how a person says it afterwards, before the import.
  Rows and words are sealed under the node's key: what is said without its seal is not believed.
- Stamps are the controller's own, taken when it sampled, whichever clock it used. So the map calls a host's
  clock ``controller`` too: its jitter is the cell's and no fault of the recording, and gaps and steps of
  another rate are still judged. Which clock it was, and the rate that was asked for, are in the metadata.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.data.errors import FileInvalidError
from client.data.readers.deployed import KEY, Word, seal_of, word_of
from client.deploy.refusals import RecordingError
from client.deploy.ring import FLAG_BITS
from client.settings import sync_folder, write_durably
from policies.encoding import decimal_text

if TYPE_CHECKING:
    from pathlib import Path

    from client.deploy.ports import Channel, Facts
    from client.deploy.serving import Outcome, Witness
    from client.deploy.states import ClockKind

__all__ = ["MAP_FILE", "EpisodeFiles", "find_episode", "judge", "map_text"]

MAP_FILE: Final = "signalmap.toml"
_NUMBER: Final = "last-number"
_NAMED: Final = re.compile(r"episode-(\d{6,})\.parquet", re.ASCII)


class EpisodeFiles:
    """The folder of one service's episodes of one model under one clock.

    Raises:
        RecordingError: The folder holds recordings under another map, or cannot be written.
    """

    def __init__(
        self, root: Path, facts: Facts, clock_kind: ClockKind, *, service: str, seal_key: bytes = b""
    ) -> None:
        self.folder = root / f"{service}-{facts.model.removeprefix('sha256:')[:12]}-{clock_kind}"
        self.map = self.folder / MAP_FILE
        self._facts, self._clock, self._key = facts, clock_kind, seal_key
        text = map_text(facts, clock_kind).encode("utf-8")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for aside in self.folder.glob(".*.new"):  # of a process that died while it wrote
                aside.unlink()
            if not self.map.exists():
                write_durably(self.map, text)
            kept = self.map.read_bytes()
            if kept == map_text(facts, clock_kind, kind=clock_kind).encode("utf-8"):  # of an earlier version
                write_durably(self.map, text)
                kept = text
            told = self._told_number()
        except OSError as error:
            raise _refused(f"a folder {self.folder} to write in", error.strerror or "an error") from error
        if kept != text:
            raise _refused("recordings under the map of this model", f"another {self.map}")
        there = (int(m[1]) for one in self.folder.iterdir() if (m := _NAMED.fullmatch(one.name)))
        self._number = max(told, max(there, default=0))

    def _told_number(self) -> int:
        try:
            return int((self.folder / _NUMBER).read_text("ascii"))
        except (FileNotFoundError, ValueError):  # a first start; a text of somebody else, which says nothing
            return 0

    def write(self, rows: npt.NDArray[Any], outcome: Outcome, by: Witness) -> Path:
        """Writes one episode; gives its file, which is durable.

        Raises:
            OSError: As the disk says; nothing is left.
        """
        import pyarrow as pa

        self._number += 1
        write_durably(self.folder / _NUMBER, str(self._number).encode("ascii"))
        path = self.folder / f"episode-{self._number:06d}.parquet"
        rate = self._facts.rate_hz
        word = Word(
            model=self._facts.model,
            outcome=outcome,
            outcome_by=by,
            clock=self._clock,
            rate_hz="" if rate is None else decimal_text(f"{rate:.6f}"),
        )
        table = _sealed(pa.table(self._columns(rows)), word, self._key)
        _write_whole(table, path.with_name(f".{path.name}.new"), path)
        return path

    def _columns(self, rows: npt.NDArray[Any]) -> dict[str, Any]:
        import pyarrow as pa

        facts = self._facts
        columns: dict[str, Any] = {"stamp_ns": pa.array(rows["stamp_ns"])}
        for role, part, channels in (
            ("observation", "observation", facts.inputs),
            ("action", "sent", facts.outputs),
            ("measured", "measured", facts.outputs),
        ):
            for at, name in enumerate(_names(role, channels)):
                values = rows[part][:, at]
                columns[name] = pa.array(values, mask=~np.isfinite(values))
        columns["served_ns"], columns["seq"] = pa.array(rows["served_ns"]), pa.array(rows["seq"])
        columns["flags"] = pa.array([_words(int(bits)) for bits in rows["flags"]])
        return columns


def _sealed(table: Any, word: Word, key: bytes) -> Any:  # noqa: ANN401  a table of the library
    """The table with its word and their seal; without a key it has none, and its outcome proves nothing."""
    seal = seal_of(key, table, word) if key else ""
    return table.replace_schema_metadata({KEY: word.to_bytes(seal)})


def find_episode(deployed: Path, named: Path) -> Path:
    """A recorded file, by its path or, if it has no folder, by its name in one of this node's folders.

    Raises:
        RecordingError: None, or several of this name.
    """
    if named.exists() or len(named.parts) != 1:
        return named
    name = named.name if named.suffix else f"{named.name}.parquet"
    found = sorted(deployed.glob(f"*/{_literal(name)}"))
    if len(found) != 1:
        raise RecordingError(
            need=f"one recorded episode {name} in {deployed}",
            found="none" if not found else "one in each of " + ", ".join(one.parent.name for one in found),
            remedy="name it by its path",
        )
    return found[0]


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def judge(path: Path, outcome: Outcome, *, key: bytes) -> str:
    """A person says how a recorded attempt ended, before it is imported; gives the digest of its model.

    Args:
        path: Of the file.
        outcome: As the person saw it.
        key: Of the node that recorded it; the seal is made anew under it.

    Raises:
        RecordingError: No file that this node recorded, or it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        word, seal = word_of(table.schema.metadata, where=path.name) or (None, "")
        if word is None:
            raise _refused("an episode that was recorded here", f"{path.name}: another file")
        if not hmac.compare_digest(seal.encode("utf-8", "replace"), seal_of(key, table, word).encode()):
            raise _refused(
                "an episode as this node recorded it",
                f"{path.name}: without the seal of this node, or changed since",
            )
        judged = replace(word, outcome=outcome, outcome_by="person")
        _write_whole(_sealed(table, judged, key), path.with_name(f".{path.name}.new"), path)
    except (OSError, pa.ArrowInvalid, FileInvalidError) as error:
        raise _refused(
            "an episode that can be read and written", f"{path.name}: {type(error).__name__}"
        ) from error
    return word.model


def _write_whole(table: Any, aside: Path, path: Path) -> None:  # noqa: ANN401  a table of the library
    """Writes a file so that a crash leaves the old one or the new one."""
    import pyarrow.parquet as pq

    try:
        pq.write_table(table, aside)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _names(role: str, channels: tuple[Channel, ...]) -> list[str]:
    return [f"{role}.{one.name}_{i}" for one in channels for i in range(one.size)]


def _words(bits: int) -> str:
    return " ".join(flag.value for flag, bit in FLAG_BITS.items() if bits & bit)


def map_text(facts: Facts, clock_kind: ClockKind, *, kind: str | None = None) -> str:
    """The signal map of a model's recordings: the same model and clock give the same bytes."""
    kind = kind or ("controller" if clock_kind == "host" else clock_kind)
    rate = "" if facts.rate_hz is None else f", rate_hz = {facts.rate_hz!r}"
    signals = [
        f'  {{field = "{one.field}", columns = ["{role}.{one.name}_{{0..{one.size - 1}}}"], '
        f'unit = "{one.unit}", role = "{role}"}},'
        for role, channels in (("observation", facts.inputs), ("action", facts.outputs))
        for one in channels
    ]
    robot = f'class = "{facts.embodiment_class}", dof = {facts.dof}, action_space = "{facts.action_space}"'
    if facts.adapter is not None:  # JSON's texts, numbers and lists are TOML's too
        parts = ", ".join(f"{key} = {json.dumps(value)}" for key, value in sorted(facts.adapter.items()))
        robot += f", adapter = {{{parts}}}"
    return "\n".join(
        [
            'schema = "iriai-signalmap/1"',
            f'task = "{facts.task.lower().replace("_", "-")}"',
            f'clock = {{column = "stamp_ns", unit = "ns", kind = "{kind}"{rate}}}',
            'segment = {by = "file"}',
            f'source = {{kind = "deployed", model = "{facts.model}"}}',
            f"embodiment = {{{robot}}}",
            "signal = [",
            *signals,
            "]",
            "",
        ]
    )


def _refused(need: str, found: str) -> RecordingError:
    return RecordingError(
        need=need, found=found, remedy="name another folder, or move the recordings away after data add"
    )
