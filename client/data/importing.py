# SPDX-License-Identifier: Apache-2.0
"""`import_path`: a recording as it really exists becomes clean episodes in the store, or is refused whole.

Order, and nothing is stored before the last step:
1. exactly one reader claims the path; the signal map is loaded, or made from canonical names;
2. needed and allowed fields are there;
3. each series is cut into episodes, converted to SI, checked; NaN, infinity and a missing column refuse the
   import;
4. its one owner is found (client.data.owners); an episode that the data set has already is the same unit: it
   is counted as a duplicate and left alone, and refused where another owner claims it; so is one whose rows
   or frames are, cut or saved otherwise, in other episodes of the store;
5. the split is fixed: as it was if the episode or its unit was seen before, else as the format declares it
   for the unit's first episode, else by ``HMAC(node key, unit) mod 100 < held_out_percent``;
6. lineage and block are found (client.data.catalogue);
7. the store switches over to the new generation in one step. If nothing is new, nothing is written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.catalogue import (
    Catalogue,
    EpisodeKey,
    Known,
    check_dataset_name,
    episode_id,
    keyed,
    lineage_id,
    one_lineage,
)
from client.data.errors import (
    FieldNotAllowedError,
    MapInvalidError,
    MissingColumnError,
    NoEpisodesError,
    TooLargeError,
)
from client.data.frames import Frames, frames_of
from client.data.owners import EPISODE, owners, unit_of
from client.data.places import Rows
from client.data.quality import failed_checks
from client.data.readers import claimed
from client.data.segment import cut
from client.data.signalmap import Embodiment, SignalMap, canonical_map, load_map
from client.data.store import Draft, EpisodeMeta, Store
from policies.encoding import decimal_text
from policies.errors import invariant
from policies.limits import EPISODE_FRAMES
from policies.messages import EMBODIMENT_CLASSES
from policies.ports import Clock, iso_s
from policies.privacy.errors import LineageUnknownError, UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from client.data.series import Probe, Series, Split

__all__ = ["Finding", "ImportReport", "import_path"]

_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a person should know: a short code and how often."""

    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did. It stays on the site."""

    dataset: str
    lineage: str
    episodes_added: int
    held_out_added: int
    frames_added: int
    duplicates: int
    excluded: int
    dropped_columns: tuple[str, ...]
    findings: tuple[Finding, ...]
    fields: tuple[str, ...]
    generation: int


def import_path(
    root: Path,
    source: Path,
    *,
    dataset: str,
    signal_map: Path | None = None,
    allow: frozenset[str],
    rights: str,
    node_key: bytes,
    clock: Clock,
    required: frozenset[str] = frozenset(),
    units: Collection[str] = (),
    held_out_percent: int = 20,
    source_format: str | None = None,
    fields_clause: str = "fields-1",
) -> ImportReport:
    """Imports a file or folder into a data set.

    Args:
        root: Folder of the store; made if absent.
        source: What to read; never written to.
        dataset: Name, as ``kita/pick``.
        signal_map: TOML file; not needed where channels bear canonical names.
        allow: Fields that may enter the store: those of the contract that the node's own list has too. Others
            are dropped.
        rights: Digest of the contract, or a consent id, under which the data may be used.
        node_key: Secret bytes of this node, at least 16; unit ids, split and names hang on them.
        clock: Dates the block.
        required: Fields that the contract's recipes need; an import without one is refused.
        units: Units of protection that the contract's recipes have; an import with another is refused.
        held_out_percent: Share of units that are never trained on, where the format declares no split.
        source_format: Name of the reader, where two claim the path.
        fields_clause: Clause of the contract that lists the fields; named in refusals.

    Returns:
        What was done. A second import of the same bytes adds nothing and writes nothing.

    Raises:
        DataError: With its code (client.data.errors); the store is as it was.
        UnitRefusedError: Another unit than the recipes' or the data set's; an episode of no owner, or of two.
        LineageUnknownError: Rows or frames that other episodes of the store have, cut or saved otherwise.
        PrivateStatisticError: The signal map asks for a statistic of the recordings.
    """
    check_dataset_name(dataset)
    invariant(len(node_key) >= _KEY_BYTES, f"a node key of at least {_KEY_BYTES} bytes")
    reader = claimed(source, chosen=source_format)
    signals = load_map(signal_map) if signal_map else None
    probe = reader.probe(source, signals)
    signals = signals or _map_of(probe)
    _check_fields(signals, allow, required, fields_clause)
    _check_unit(signals, units, "the recipes of the contract")
    store = Store(root)
    notes: Counter[str] = Counter()
    with store.locked(), store.draft(dataset, signals, rate_hz="1") as draft:
        _check_unit(signals, (draft.current.unit,) if draft.current else (), f"data set {dataset}")
        work = _Import(
            draft,
            signals,
            allow=allow,
            rights=rights,
            node_key=node_key,
            held_out_percent=held_out_percent,
            notes=notes,
        )
        declared = probe.rate_hz or (signals.clock.rate_hz if signals.clock else None)
        if declared:
            draft.set_rate(_rate_text(declared))
        for series in reader.read(source, probe, signals, lambda what, count: notes.update({what: count})):
            if not declared:
                declared = _measured_rate(series)
                draft.set_rate(_rate_text(declared))
            work.take(series)
        return work.finish(
            _dropped(probe, signals, allow), _embodiment(signals, probe), iso_s(clock.now_ms()), dataset
        )


class _Import:
    """Steps 3 to 7 for one draft."""

    def __init__(
        self,
        draft: Draft,
        signals: SignalMap,
        *,
        allow: frozenset[str],
        rights: str,
        node_key: bytes,
        held_out_percent: int,
        notes: Counter[str],
    ) -> None:
        self._draft, self._signals, self._allow, self._rights = draft, signals, allow, rights
        self._key, self._held_out_percent, self._notes = node_key, held_out_percent, notes
        self._index = draft.catalogue.index()
        self._unit = unit_of(signals)
        self._marks: dict[str, str] = {}
        self._splits: dict[bytes, Split] = {}
        self._added: list[EpisodeMeta] = []
        self._touched: set[str] = set()
        self._duplicates = 0

    def take(self, series: Series) -> None:
        """Cuts a series and adds what is new."""
        found = cut(series, self._signals)
        self._notes["pieces-too-short"] += found.dropped
        for first, last in found.pieces:
            if last - first > EPISODE_FRAMES:
                raise TooLargeError(
                    need=f"episodes of at most {EPISODE_FRAMES} frames",
                    found=f"{series.name}, rows {first} to {last}: more",
                    remedy="cut it by a segment rule of the signal map",
                )
            frames = frames_of(series, self._signals, first, last, self._allow)
            self._notes["missing-rows"] += frames.missing_rows
            self._add(frames, series, first)

    def _add(self, frames: Frames, series: Series, first: int) -> None:
        digest, last = frames.digest, first + frames.length
        at, end = series.span(first, last)
        place = str(Rows(series.source.file_sha256, at, end))
        known = self._known(frames.content, place)
        content = known.content if known else frames.content  # other fields of a known episode: its unit
        mine = owners(series, self._signals, first, last, node_key=self._key, content=content)
        if digest in self._draft.owners:
            self._check_owner(self._unit == EPISODE or self._draft.owners[digest] == mine, series, at)
            self._duplicates += 1
            return
        (unit,) = mine
        self._check_owner(known is None or known.unit == self._name(unit), series, at)
        if known is None and self._index.is_taken(place, frames.marks):
            raise _taken(series, at, self._holders(series))
        self._index.take(place, frames.marks)
        self._marks[frames.content] = frames.marks
        self._touched |= (
            {known.lineage} if known else self._index.by_file.get(series.source.file_sha256, set())
        )
        failed = failed_checks(frames)
        self._notes.update(f"excluded-by-{check}" for check in failed)
        meta = EpisodeMeta(
            episode_id=episode_id(self._key, digest),
            digest=digest,
            content=frames.content,
            lineage="",
            block=0,
            unit_ids=mine,
            split=known.split if known else self._split(series, unit),
            task=series.declared.task if series.declared else self._signals.task,
            outcome=frames.outcome,
            reader=series.source.reader,
            file_sha256=series.source.file_sha256,
            first_row=at,
            last_row=end,
            signal_map=self._signals.digest,
            clock=frames.clock,
            start_ns=None if frames.clock == "derived" else int(frames.stamps_ns[0]),
            length=frames.length,
            rights=self._rights,
            excluded=",".join(failed),
        )
        self._draft.add(frames, meta)
        self._added.append(meta)

    def _known(self, content: str, place: str) -> Known | None:
        return self._index.by_content.get(content) or self._index.by_place.get(place)

    def _name(self, unit: bytes) -> str:
        """How the catalogue names a unit: an episode that is its own unit goes by its content."""
        return "" if self._unit == EPISODE else unit.hex()

    def _check_owner(self, holds: bool, series: Series, first: int) -> None:  # noqa: FBT001  the check itself
        if not holds:
            raise UnitRefusedError(
                need=f"for each episode one owner, the same ever since its first import ({self._unit})",
                found=f"another: {series.name}, the episode of row {first}, in {self._holders(series)}",
                remedy="import it with the unit of its first import; budget and held-out set hang on it",
            )

    def _holders(self, series: Series) -> str:
        """The data sets that hold rows of this file."""
        lineages = self._index.by_file.get(series.source.file_sha256, set())
        return self._draft.catalogue.named(lineages) or "a data set that another file was imported into"

    def _split(self, series: Series, unit: bytes) -> Split:
        """Split of an episode that was not seen before; all episodes of a unit have one."""
        wanted = series.declared.split if series.declared else None
        known = self._index.by_unit.get(self._name(unit))
        if known is not None:
            self._touched.add(known.lineage)
            self._splits[unit] = known.split
        if unit not in self._splits:
            draw = int.from_bytes(keyed(self._key, "iriai-split/1", unit), "big") % 100
            self._splits[unit] = wanted or ("held-out" if draw < self._held_out_percent else "train")
        self._notes["split-follows-unit"] += wanted not in (None, self._splits[unit])
        return self._splits[unit]

    def finish(
        self, dropped: tuple[str, ...], embodiment: Mapping[str, Any] | None, opened: str, dataset: str
    ) -> ImportReport:
        """Finds lineage and blocks and commits, unless nothing is new."""
        draft = self._draft
        if not self._added and not self._duplicates:
            raise NoEpisodesError(
                need="at least one episode",
                found="none",
                remedy="check the segment rule and min_frames of the map",
            )
        current = draft.current.lineage if draft.current else None
        lineage = one_lineage(self._touched, current) or lineage_id(
            self._key, (m.content for m in self._added)
        )
        old_rights = draft.current.rights if draft.current else ()
        rights = old_rights if self._rights in old_rights else (*old_rights, self._rights)
        generation = draft.current.generation if draft.current else 0
        if self._added or rights != old_rights:
            catalogue, blocks = self._blocks(lineage, opened)
            draft.commit(
                lineage=lineage,
                blocks=blocks,
                rights=rights,
                catalogue=catalogue,
                embodiment=(draft.current.embodiment if draft.current else None) or embodiment,
            )
            generation += 1
        return ImportReport(
            dataset=dataset,
            lineage=lineage,
            episodes_added=len(self._added),
            held_out_added=sum(meta.split == "held-out" for meta in self._added),
            frames_added=sum(meta.length for meta in self._added),
            duplicates=self._duplicates,
            excluded=sum(bool(meta.excluded) for meta in self._added),
            dropped_columns=dropped,
            findings=tuple(Finding(code=c, count=n) for c, n in sorted(self._notes.items()) if n),
            fields=tuple(sorted({s.field for s in self._signals.signals} & self._allow)),
            generation=generation,
        )

    def _blocks(self, lineage: str, opened: str) -> tuple[Catalogue, dict[str, int]]:
        """The catalogue with the blocks of new episodes, and the block of each added one."""
        index = self._index
        new: dict[Split, list[EpisodeKey]] = {"train": [], "held-out": []}
        joining: dict[int, list[EpisodeKey]] = {}
        blocks: dict[str, int] = {}
        for meta in self._added:
            place = str(Rows(meta.file_sha256, meta.first_row, meta.last_row))
            row = (meta.content, place, self._name(meta.unit_id), self._marks[meta.content])
            known = index.by_content.get(meta.content) or index.by_place.get(place)
            home = known or index.by_unit.get(row[2])
            if home is None:
                new["train" if meta.split == "train" else "held-out"].append(row)
                continue
            blocks[meta.content] = home.block
            if known is None:
                joining.setdefault(home.block, []).append(row)
        catalogue = self._draft.catalogue.with_blocks(lineage, new, opened, joining=joining)
        for block in catalogue.lineages.get(lineage, ()):
            blocks |= {content: block.block for content, *_ in block.episodes if content not in blocks}
        return catalogue, blocks


def _taken(series: Series, first: int, holders: str) -> LineageUnknownError:
    return LineageUnknownError(
        need="rows that are in no other episode of the store, or in one that was cut at the same rows",
        found=f"{series.name}, the episode of row {first}: some are in episodes of another cut or file, "
        f"in {holders}",
        remedy="import it by the segment rule of its first import: budget and held-out set hang on that cut",
    )


def _map_of(probe: Probe) -> SignalMap:
    names = probe.extra.get("names")
    found = canonical_map(names) if names else None
    if found is None:
        raise MapInvalidError(
            need="a signal map, or channels with canonical names (tcp_pos_0, ...)",
            found=f"{probe.reader} with the channels " + ", ".join(probe.channels[:5]),
            remedy="write a signal map and name it with --map",
        )
    return found


def _check_fields(signals: SignalMap, allow: frozenset[str], required: frozenset[str], clause: str) -> None:
    mapped = {s.field for s in signals.signals} | {label.field for label in signals.labels}
    if required - allow:
        raise FieldNotAllowedError(
            need="fields " + ", ".join(sorted(required - allow)),
            found="they are not on the allow-list",
            remedy="amend the contract or this node's list, or use another recipe",
            clause=clause,
        )
    if required - mapped:
        raise MissingColumnError(
            need="fields " + ", ".join(sorted(required - mapped)),
            found="a recording without them: " + (", ".join(sorted(mapped)) or "nothing"),
            remedy="record them, or map their columns",
        )
    if not {s.field for s in signals.signals} & allow:
        raise FieldNotAllowedError(
            need="at least one field of the allow-list",
            found="only " + ", ".join(sorted(mapped)),
            remedy="map the fields that the contract names",
            clause=clause,
        )


def _check_unit(signals: SignalMap, allowed: Collection[str], whose: str) -> None:
    """Refuses data whose unit is another than somebody's.

    Raises:
        UnitRefusedError: It is.
    """
    found, wanted = unit_of(signals), sorted(allowed)
    if not wanted or found in wanted:
        return
    keys = [f'unit = {{kind = "{one}", column = ...}}' for one in wanted if one != EPISODE]
    if EPISODE in wanted:
        remedy = f"remove the unit line from the signal map, or sign a contract whose unit is {found}"
    else:
        remedy = f"name the key in the signal map: {' or '.join(keys)}"
    raise UnitRefusedError(
        need=f"unit {' or '.join(wanted)}, as {whose} protects it", found=found, remedy=remedy
    )


def _dropped(probe: Probe, signals: SignalMap, allow: frozenset[str]) -> tuple[str, ...]:
    """Channels that did not reach the store, secret ones not named."""
    kept = {c for s in signals.signals if s.field in allow for c in s.columns}
    kept |= {signals.clock.column} if signals.clock and signals.clock.column else set()
    kept |= {label.column for label in signals.labels if label.field in allow}
    return tuple(c for c in probe.channels if c not in kept and not signals.is_secret(c))


def _measured_rate(series: Series) -> float:
    step = np.diff(series.stamps_ns)
    rising = step[step > 0]
    return 1e9 / float(np.median(rising)) if len(rising) else 1.0


def _rate_text(rate_hz: float) -> str:
    return decimal_text(f"{float(f'{rate_hz:.3g}'):.6f}")


def _embodiment(signals: SignalMap, probe: Probe) -> Mapping[str, Any] | None:
    """Of the map, else of a ``robot_type`` that is an embodiment class."""
    found: Embodiment | None = signals.embodiment
    if found is not None:
        return {"class": found.class_, "dof": found.dof, "action_space": found.action_space}
    if probe.robot_type not in EMBODIMENT_CLASSES:
        return None
    actions = {s.field for s in signals.signals if s.role == "action"}
    spaces = {
        "tcp_pose_delta": "ee-delta",
        "joint_pos": "joint-pos",
        "joint_vel": "joint-vel",
        "joint_torque": "joint-torque",
    }
    space = next((space for field, space in spaces.items() if field in actions), "none")
    return {"class": probe.robot_type, "dof": int(probe.robot_type.split("r-", 1)[0]), "action_space": space}
