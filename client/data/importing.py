# SPDX-License-Identifier: Apache-2.0
"""`import_path`: a recording as it really exists becomes clean episodes in the store, or is refused whole.

Order, and nothing is stored before the last step:
1. exactly one reader claims the path; the signal map is loaded, or made from canonical names;
2. needed and allowed fields are there, and the unit is that of the recipes (client.data.admission);
3. each series is cut into episodes as it comes in, converted to SI, checked; NaN, infinity and a missing
   column refuse the import (this and the next: client.data.intake);
4. its one owner is found (client.data.owners); an episode that the data set has already is the same unit: it
   is counted as a duplicate and left alone, and refused where another owner claims it; so is one whose rows
   or frames are, cut or saved otherwise, in other episodes of the store (or it is left out and named, if the
   caller asks for that: ``skip_known``); and other values of rows of the data
   set whose budget was opened (`SealedError`): what is new comes in a new block;
5. the split is fixed: as it was if the episode or its unit was seen before, else as the format declares it
   for the unit's first episode, else by ``HMAC(node key, unit) mod 100 < held_out_percent``;
6. lineage and block are found (client.data.catalogue);
7. no file of the source has changed since the first step: digests, rows and budget are of the same bytes;
8. the store switches over to the new generation in one step. If nothing is new, nothing is written.

A process that was killed in between left a journal: called again with the same map, data set, fields and
rights, the import passes over the source files that are done, if the source still has them, and writes the
same bytes as an import that was never interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.data.admission import (
    check_fields,
    check_shape,
    check_unit,
    check_windows,
    dropped_columns,
    embodiment_of,
    map_of,
)
from client.data.catalogue import check_dataset_name, keyed
from client.data.intake import KNOWN_ELSEWHERE, Intake, StaleDraftError, Taken
from client.data.progress import Progress, Watched
from client.data.quality import refuse_personal
from client.data.readers import claimed
from client.data.series import ReadOptions
from client.data.signalmap import TESTED_PROFILES, SignalMap, load_map
from client.data.sources import Watch, private_columns
from client.data.store import Store
from policies.encoding import canonical, digest, digest_of, is_digest
from policies.errors import invariant
from policies.ports import Clock, iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from client.data.series import Probe, Reader, Series

__all__ = ["Finding", "ImportReport", "Progress", "import_path"]

_KEY_BYTES: Final = 16
_SERIES_OF_THEIR_OWN: Final = frozenset({"lerobot", "robomimic"})  # named by number, not by file


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a person should know: a short code, how often, and what, where that is named."""

    code: str
    count: int
    named: tuple[str, ...] = ()


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
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 to name; no other place keeps names


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
    accept_truncated: bool = False,
    consent: str | None = None,
    model: str = "",
    is_sealed: Callable[[str], bool] = lambda lineage: not lineage,
    skip_known: bool = False,
    names: Callable[[str], Mapping[str, str]] = lambda _: {},
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Imports a file or folder into a data set.

    Args:
        root: Folder of the store; made if absent.
        source: What to read; never written to.
        dataset: Name, as ``kita/pick``.
        signal_map: TOML file; not needed where channels bear canonical names.
        allow: Fields that may enter the store: those of the contract that the node's own list has too. Others
            are dropped, but for site-private ones of the map, which are stored and marked.
        rights: Digest of the contract, or a consent id, under which the data may be used.
        node_key: Secret bytes of this node, at least 16; unit ids, split and names hang on them.
        clock: Dates the block.
        required: Fields that the contract's recipes need; an import without one is refused.
        units: Units of protection that the contract's recipes have; an import with another is refused.
        held_out_percent: Share of units that are never trained on, where the format declares no split.
        source_format: Name of the reader, where two claim the path.
        fields_clause: Clause of the contract that lists the fields; named in refusals.
        accept_truncated: Takes the complete messages of a container that was cut.
        consent: Id of the consent of those whom its video or audio shows; these stay out of the store.
        model: Digest of the model that acted in all these episodes; empty where none did, or where the format
            says it.
        is_sealed: Whether the budget of a lineage was opened.
        skip_known: Leaves out episodes that have rows or frames of others, counts and names them
            (``known-elsewhere``).
        names: Names of source files by data set, SHA-256 to name; for refusals.
        progress: Told after each part of the source.

    Returns:
        What was done. A second import of the same bytes adds nothing and writes nothing.

    Raises:
        DataError: With its code (client.data.errors); the store is as it was.
        ChangedWhileReadError: A file of the source changed while it was read.
        UnitRefusedError: Another unit than the recipes' or the data set's; an episode of no owner, or of two;
            windows without a unit key.
        LineageUnknownError: Rows or frames that other episodes of the store have, cut or saved otherwise.
        PrivateStatisticError: The signal map asks for a statistic of the recordings.
    """
    check_dataset_name(dataset)
    invariant(len(node_key) >= _KEY_BYTES, f"a node key of at least {_KEY_BYTES} bytes")
    reader = claimed(source, chosen=source_format)
    watch = Watch(source)
    signals = load_map(signal_map) if signal_map else None
    probe = reader.probe(source, signals)
    signals = (signals or map_of(probe)).fitted(probe.channels)
    signals = signals.kept_private(private_columns(source, probe))
    check_fields(signals, allow, required, fields_clause)
    check_unit(signals, units, "the recipes of the contract")
    check_windows(signals)
    current = Store(root).catalogue().datasets.get(dataset)
    if current is not None:
        check_shape(signals, allow, current.columns, dataset)
    refuse_personal(
        {}, media=probe.extra.get("media", ()), consent=consent if is_digest(rights) else consent or rights
    )
    work = _Work(
        store=Store(root),
        source=source,
        watch=watch,
        dataset=dataset,
        reader=reader,
        probe=probe,
        signals=signals,
        allow=allow,
        rights=rights,
        node_key=node_key,
        held_out_percent=held_out_percent,
        accept_truncated=accept_truncated,
        model=model,
        is_sealed=is_sealed,
        skip_known=skip_known,
        names=names,
        opened=iso_s(clock.now_ms()),
        progress=progress or (lambda _: None),
    )
    with work.store.locked():
        try:
            taken = work.run()
        except StaleDraftError:  # that threw the draft away, so this begins anew
            taken = work.run()
    notes = dict(taken.notes)
    if signals.profile is not None and signals.profile not in TESTED_PROFILES:
        notes["profile.untested-on-real-data"] = 1
    notes["secret-matched-nothing"] = len(signals.unmatched(probe.channels))
    return ImportReport(
        dataset=dataset,
        lineage=taken.lineage,
        episodes_added=len(taken.added),
        held_out_added=sum(meta.split == "held-out" for meta in taken.added),
        frames_added=sum(meta.length for meta in taken.added),
        duplicates=taken.duplicates,
        excluded=sum(bool(meta.excluded) for meta in taken.added),
        dropped_columns=dropped_columns(probe, signals, allow),
        findings=tuple(
            Finding(code=c, count=n, named=taken.skipped if c == KNOWN_ELSEWHERE else ())
            for c, n in sorted(notes.items())
            if n
        ),
        fields=tuple(sorted({s.field for s in signals.signals} & allow)),
        generation=taken.generation,
        files=dict(work.files),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """An import that was admitted, from the first row to the commit."""

    store: Store
    source: Path
    watch: Watch
    dataset: str
    reader: Reader
    probe: Probe
    signals: SignalMap
    allow: frozenset[str]
    rights: str
    node_key: bytes
    held_out_percent: int
    accept_truncated: bool
    model: str
    is_sealed: Callable[[str], bool]
    skip_known: bool
    names: Callable[[str], Mapping[str, str]]
    opened: str
    progress: Callable[[Progress], None]
    files: dict[str, str] = field(default_factory=dict)

    def run(self) -> Taken:
        """Reads, adds, commits.

        Raises:
            StaleDraftError: The interrupted import that it went on with was of another source.
        """
        signals = self.signals
        with self.store.draft(self.dataset, signals, rate_hz="1", key=self._key()) as draft:
            current = (draft.current.unit,) if draft.current else ()
            check_unit(signals, current, f"data set {self.dataset}")
            intake = Intake(
                draft,
                signals,
                allow=self.allow,
                rights=self.rights,
                node_key=self.node_key,
                held_out_percent=self.held_out_percent,
                rate_hz=self.probe.rate_hz or (signals.clock.rate_hz if signals.clock else None),
                model=self.model,
                is_sealed=self.is_sealed,
                skip_known=self.skip_known,
                names=self.names,
            )
            watched = Watched(self.source, self.probe)
            options = ReadOptions(
                accept_truncated=self.accept_truncated, finished=intake.finished, node_key=self.node_key
            )
            for series in self.reader.read(self.source, self.probe, signals, intake.note, options):
                intake.take(series)
                self.files.setdefault(series.source.file_sha256, self._name_of(series))
                watched.saw(series, resumed=intake.is_done(series))
                self.progress(watched.at(intake.episodes))
            self.watch.check()
            taken = intake.finish(embodiment_of(signals, self.probe), self.opened)
        self.progress(watched.at(len(taken.added) + taken.duplicates, ended=True))
        return taken

    def _name_of(self, series: Series) -> str:
        """Name of a source file; where a format names its series otherwise, that of the whole source."""
        own = self.source.is_dir() and self.reader.name not in _SERIES_OF_THEIR_OWN
        return series.name if own else self.source.name

    def _key(self) -> str:
        """Digest of all that decides what an import writes, but for the source's bytes."""
        said = {
            "program": _program(),
            "dataset": self.dataset,
            "reader": self.reader.name,
            "map": self.signals.digest,
            "allow": sorted(self.allow),
            "rights": self.rights,
            "held_out_percent": self.held_out_percent,
            "accept_truncated": self.accept_truncated,
            "model": self.model,
            "skip_known": self.skip_known,
        }
        return keyed(self.node_key, "iriai-import/1", canonical(said)).hex()


@cache
def _program() -> str:
    """Digest of the sources that import: another version of them begins anew."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return digest_of(
        {str(path.relative_to(Path(__file__).parent)): digest(path.read_bytes()) for path in files}
    )
