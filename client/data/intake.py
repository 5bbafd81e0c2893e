# SPDX-License-Identifier: Apache-2.0
"""`Intake`: from the series of one source to the episodes of a draft; steps 3 to 7 of `importing`.

- Series come in the reader's order; each episode is owned, split and added as soon as its last row is there,
  so that memory holds one part and one open episode, however long the source is.
- An interrupted import goes on: series of source files that are done are dropped, in the order in which they
  were done. Where the source gives others, `StaleDraftError` says that it is not the source of then.
- What a reader notes counts for the series that follows the note.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.data.admission import measured_rate, rate_text, robot_of
from client.data.blocks import with_episodes
from client.data.catalogue import EpisodeKey, Known, episode_id, keyed, lineage_id, one_lineage
from client.data.episodes import EpisodeMeta
from client.data.errors import CellInvalidError, NoEpisodesError, SealedError
from client.data.forgetting import seals_of
from client.data.frames import Frames, frames_of
from client.data.holders import Holder, Holders, remedy, words
from client.data.owners import EPISODE, owners, unit_of
from client.data.places import Rows
from client.data.quality import failed_checks, refuse_personal, spec_of, texts_of
from client.data.segment import Cutter
from policies.privacy.errors import LineageUnknownError, UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from client.data.draft import Draft
    from client.data.series import Declared, Series, SourceKind, Split
    from client.data.signalmap import SignalMap

__all__ = ["KNOWN_ELSEWHERE", "Intake", "StaleDraftError", "Taken"]

KNOWN_ELSEWHERE: Final = "known-elsewhere"
_STAMP_NS: Final = 1 << 62
_LOOKED_UP: Final = 20


class StaleDraftError(Exception):
    """The source is not the one that the interrupted import read; the draft is thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What an import added, counted and found, and where the data set stands."""

    added: tuple[EpisodeMeta, ...]
    duplicates: int
    notes: Mapping[str, int]
    lineage: str
    generation: int
    skipped: tuple[str, ...] = ()  # left out, since others have their rows or frames; in words


@dataclass(frozen=True, slots=True)
class _Acted:
    """Who acted in an episode, and how it ended, where something says so."""

    kind: SourceKind
    model: str
    outcome: str
    outcome_by: str


class Intake:
    """One import.

    Args:
        draft: Where episodes go; its checkpoints are taken up.
        signals: The map.
        allow: Fields that may enter, site-private ones not among them: these enter in any case.
        rights: Contract or consent.
        node_key: Secret of this node.
        held_out_percent: Share of units that are never trained on, where the format declares no split.
        rate_hz: Of the source, where it declares one; else the first episode says it.
        model: Digest of the model that acted; empty where people or programs did, or the format says it.
        is_sealed: Whether the budget of a lineage was opened.
        skip_known: Leaves out episodes that have rows or frames of others, in place of a refusal.
        names: Names of source files by data set, SHA-256 to name.
    """

    def __init__(
        self,
        draft: Draft,
        signals: SignalMap,
        *,
        allow: frozenset[str],
        rights: str,
        node_key: bytes,
        held_out_percent: int,
        rate_hz: float | None,
        model: str,
        is_sealed: Callable[[str], bool],
        skip_known: bool = False,
        names: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._draft, self._signals, self._allow, self._rights = draft, signals, allow, rights
        self._key, self._held_out_percent, self._model = node_key, held_out_percent, model
        self._is_sealed, self._skip_known = is_sealed, skip_known
        self._holders = Holders(
            draft.root, draft.catalogue, node_key=node_key, is_sealed=is_sealed, names=names
        )
        self._skipped: list[str] = []
        self._files: dict[str, str] = {}  # names of source files of this import
        self._cutter = Cutter(signals)
        self._index = draft.index()
        self._unit = unit_of(signals)
        self._spec = spec_of(signals.embodiment)
        self._notes: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()  # noted, for the series that follows
        self._marks: list[tuple[str, str]] = []  # of each added episode, and the content it is known by
        self._splits: dict[bytes, Split] = {}
        self._added: list[EpisodeMeta] = []
        self._touched: set[str] = set()
        self._duplicates = 0
        self._granted: list[str] = []  # since the last checkpoint: known episodes that got this right
        self._rated = rate_hz is not None
        if rate_hz is not None:
            draft.set_rate(rate_text(rate_hz))
        self._file: str | None = None
        self._ended: set[str] = set()
        # files of the interrupted import, in order, that were not seen again yet; and the last that was
        self._done: list[str] = []
        self._passed: str | None = None
        self._take_up()
        self.finished = frozenset(self._ended)

    @property
    def episodes(self) -> int:
        """Episodes found so far, known ones too."""
        return len(self._added) + self._duplicates

    def note(self, what: str, count: int) -> None:
        """What a reader left out."""
        self._waiting[what] += count

    def take(self, series: Series) -> None:
        """Cuts a series and adds what is new.

        Raises:
            DataError: A row, an episode or a split that may not be; words that name a person.
            UnitRefusedError: An episode of no owner, or of two.
            LineageUnknownError: Rows or frames that other episodes have, cut or saved otherwise.
            StaleDraftError: Another source than the interrupted import read.
        """
        file = series.source.file_sha256
        if file in self.finished:
            self._pass_over(file)
            return
        if self._done:
            raise StaleDraftError
        self._passed = None
        if file != self._file:
            self._end_of_file()
            self._file = file
        self._notes.update(self._waiting)
        self._waiting.clear()
        refuse_personal(texts_of(series, self._signals))
        _check_stamps(series)
        for piece in self._cutter.feed(series):
            frames = frames_of(piece, self._signals, 0, piece.length, self._allow)
            self._notes["missing-rows"] += frames.missing_rows
            self._add(frames, piece)

    def is_done(self, series: Series) -> bool:
        """Whether the interrupted import had this source file already."""
        return series.source.file_sha256 in self.finished

    def _take_up(self) -> None:
        for one in self._draft.checkpoints:
            self._done += one.files
            for stored, marks in one.episodes:
                meta = stored.meta
                self._index.take(_place(meta), marks)
                known = self._known(meta.content, _place(meta))
                self._marks.append((known.content if known else meta.content, marks))
                self._splits[meta.unit_id] = "train" if meta.split == "train" else "held-out"
                self._added.append(meta)
            state = one.state
            for digest in state["granted"]:
                self._draft.grant(digest, self._rights)
            self._notes = Counter(state["notes"])
            self._skipped = list(map(str, state["skipped"]))
            self._touched, self._duplicates = set(state["touched"]), int(state["duplicates"])
            self._rated = bool(state["rated"])
            self._cutter.dropped = int(state["dropped"])
        self._ended = set(self._done)

    def _pass_over(self, file: str) -> None:
        """A file that is done comes in its turn, and does not come back: then it was not done."""
        self._waiting.clear()
        if self._done and self._done[0] == file:
            self._passed = self._done.pop(0)
        elif file != self._passed:
            raise StaleDraftError

    def _end_of_file(self) -> None:
        """Behind the last series of a source file; one that comes back later ends all checkpoints."""
        if self._file is None:
            return
        if self._file in self._ended:
            self._draft.keep_no_journal()
        self._ended.add(self._file)
        state: dict[str, Any] = {
            "notes": dict(self._notes),
            "touched": sorted(self._touched),
            "duplicates": self._duplicates,
            "rated": self._rated,
            "dropped": self._cutter.dropped,
            "granted": self._granted,
            "skipped": self._skipped,
        }
        if self._draft.end_of_source(self._file, state):
            self._granted = []

    def _add(self, frames: Frames, piece: Series) -> None:
        digest = frames.digest
        at, end = piece.span(0, piece.length)
        place = str(Rows(piece.source.file_sha256, at, end))
        known = self._known(frames.content, place)
        content = known.content if known else frames.content  # other fields of a known episode: its unit
        mine = owners(piece, self._signals, 0, piece.length, node_key=self._key, content=content)
        if digest in self._draft.owners:
            self._check_owner(self._unit == EPISODE or self._draft.owners[digest] == mine, piece, at)
            self._duplicates += 1
            if self._rights and self._draft.grant(digest, self._rights):
                self._granted.append(digest)
            return
        (unit,) = mine
        self._check_owner(known is None or known.unit == self._name(unit), piece, at)
        if known is None and self._index.is_taken(place, frames.runs):
            if self._skip_known:
                self._skip(piece, place, frames)
                return
            raise self._taken(piece, place, frames)
        self._check_unsealed(known, frames, piece, at)
        marks = frames.marks
        self._marks.append((content, marks))
        self._files.setdefault(piece.source.file_sha256, piece.name)
        self._index.take(place, marks)
        self._touched |= (
            {known.lineage} if known else self._index.by_file.get(piece.source.file_sha256, set())
        )
        failed = failed_checks(frames, self._spec)
        self._notes.update(f"excluded-by-{check}" for check in failed)
        declared = piece.declared
        acted = self._acted(declared, frames.content, content)
        meta = EpisodeMeta(
            episode_id=episode_id(self._key, digest),
            digest=digest,
            content=frames.content,
            lineage="",
            block=0,
            unit_ids=mine,
            split=known.split if known else self._split(piece, unit),
            task=declared.task if declared else self._signals.task,
            outcome=acted.outcome or frames.outcome,
            reader=piece.source.reader,
            file_sha256=piece.source.file_sha256,
            first_row=at,
            last_row=end,
            signal_map=self._signals.digest,
            clock=frames.clock,
            start_ns=None if frames.clock == "derived" else int(frames.stamps_ns[0]),
            length=frames.length,
            rights=(self._rights,) if self._rights else (),
            excluded=",".join(failed),
            unit_weak=declared is None and self._signals.segment.by == "window",
            source_kind=acted.kind,
            model=acted.model,
            outcome_by=acted.outcome_by,
        )
        self._measure(frames)
        self._draft.add(frames, meta, marks)
        self._added.append(meta)

    def _acted(self, declared: Declared | None, *contents: str) -> _Acted:
        """Who acted, and how it ended, as this node remembers, else as caller, format and map say.

        That a person judged is not believed of a folder that anybody may have written.
        """
        outcome = declared.outcome if declared else ""
        judged = "" if declared is None or not declared.own else declared.outcome_by
        acts = self._draft.catalogue.acts
        told = next((acts[one] for one in contents if one in acts), None)
        if told is not None and told.outcome_by:
            outcome, judged = told.outcome, told.outcome_by
        if told is not None:
            return _Acted("deployed", self._model or told.model, outcome, judged)
        said = self._signals.source
        if self._model:
            return _Acted("deployed", self._model, outcome, judged)
        if declared is not None and (declared.model or declared.source_kind == "deployed"):
            return _Acted("deployed", declared.model, outcome, judged)
        if said.kind == "deployed":
            return _Acted("deployed", said.model, outcome, judged)
        return _Acted("recorded", "", outcome, judged)

    def _measure(self, frames: Frames) -> None:
        """The rate of the data set, from its first episode that has one."""
        if not self._rated:
            found = measured_rate(frames.stamps_ns)
            self._draft.set_rate(rate_text(found or 1.0))
            self._rated = found is not None

    def _known(self, content: str, place: str) -> Known | None:
        return self._index.by_content.get(content) or self._index.by_place.get(place)

    def _name(self, unit: bytes) -> str:
        """How the catalogue names a unit: an episode that is its own unit goes by its content."""
        return "" if self._unit == EPISODE else unit.hex()

    def _check_owner(self, holds: bool, series: Series, first: int) -> None:  # noqa: FBT001  the check itself
        if not holds:
            raise UnitRefusedError(
                need=f"for each episode one owner, the same ever since its first import ({self._unit})",
                found=f"another: {series.name}, the episode of row {first}, in {self._datasets(series)}",
                remedy="import it with the unit of its first import; budget and held-out set hang on it",
            )

    def _check_unsealed(self, known: Known | None, frames: Frames, piece: Series, at: int) -> None:
        """The same rows with other values are a change of the data set, not an addition to it."""
        current = self._draft.current
        changed = known is not None and current is not None and known.content != frames.content
        if changed and known is not None and self._is_sealed(known.lineage):
            raise SealedError(
                need="episodes as they were when the budget of their lineage was opened",
                found=f"{piece.name}, the episode of row {at}: other values of rows that the data set has",
                remedy="import new recordings: they open a new block; or use a data set of another name, "
                "which goes on with what was spent",
            )

    def _found(self, series: Series, place: str, frames: Frames) -> tuple[Holder, ...]:
        """Episodes that have rows or frames of one that comes, in the store or in this import."""
        fresh = (
            (meta, marks, self._files.get(meta.file_sha256, ""))
            for meta, (_, marks) in zip(self._added, self._marks, strict=True)
        )
        stored = self._holders.of(place, frames.runs, series.name)
        return (*stored, *self._holders.among(place, frames.runs, fresh))

    def _taken(self, series: Series, place: str, frames: Frames) -> LineageUnknownError:
        rows, found = Rows.read(place), self._found(series, place, frames)
        episode = f"{series.name}, the episode of rows {rows.first + 1} to {rows.last}"
        return LineageUnknownError(
            need="rows and frames that no other episode has, or one that was cut at the same rows",
            found=f"{episode}: some are in {words(found)}",
            remedy=remedy(found),
        )

    def _skip(self, series: Series, place: str, frames: Frames) -> None:
        """Leaves an episode out; of the first ones it is said who has them."""
        self._notes[KNOWN_ELSEWHERE] += 1
        rows = Rows.read(place)
        told = f"{series.name} rows {rows.first + 1} to {rows.last}"
        if len(self._skipped) < _LOOKED_UP:
            told += f", in {words(self._found(series, place, frames))}"
        self._skipped.append(told)

    def _datasets(self, series: Series) -> str:
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

    def finish(self, embodiment: Mapping[str, Any] | None, opened: str) -> Taken:
        """Finds lineage and blocks and commits, unless nothing is new.

        Raises:
            NoEpisodesError: None was found.
            LineageMixedError: Episodes of two lineages.
            ShapeChangedError: The data set is of another robot.
            StaleDraftError: A file that the interrupted import read is not in the source.
        """
        draft = self._draft
        if self._done:
            raise StaleDraftError
        self._notes.update(self._waiting)
        self._notes["pieces-too-short"] += self._cutter.dropped
        self._notes["unit-weak"] += sum(meta.unit_weak for meta in self._added)
        if self._skipped and not self._added and draft.current is None:
            raise NoEpisodesError(
                need="at least one episode that no other data set has",
                found=f"{len(self._skipped)}, and others have them all: {self._skipped[0]}",
                remedy="there is nothing to add",
            )
        if not self._added and not self._duplicates and not self._skipped:
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
        changed = bool(self._added) or rights != old_rights or draft.has_grants
        generation = draft.current.generation if draft.current else 0
        known = draft.current.embodiment if draft.current else None
        robot = robot_of(known, embodiment)
        if changed or robot != known:
            catalogue, blocks = with_episodes(
                draft.catalogue, self._index, self._keys(), lineage=lineage, opened=opened
            )
            if not self._rights:
                fresh = [key for _, key in self._keys() if self._known(key[0], key[1]) is None]
                catalogue = catalogue.with_unbound(seals_of(self._key, lineage, fresh))
            draft.commit(
                lineage=lineage,
                blocks=blocks,
                rights=rights,
                catalogue=catalogue,
                marks=self._marks,
                embodiment=robot,
            )
            generation += 1
        return Taken(
            added=tuple(self._added),
            duplicates=self._duplicates,
            notes=self._notes,
            lineage=lineage,
            generation=generation,
            skipped=tuple(self._skipped),
        )

    def _keys(self) -> list[tuple[Split, EpisodeKey]]:
        """Split, and how the catalogue names it, of each added episode."""
        return [
            (
                "train" if meta.split == "train" else "held-out",
                (
                    meta.content,
                    _place(meta),
                    self._name(meta.unit_id),
                    "",
                ),
            )
            for meta in self._added
        ]


def _check_stamps(series: Series) -> None:
    """Stamps that did not fit 64 bits of nanoseconds lie at their edge, whatever the reader made of them."""
    if series.length and not -_STAMP_NS < series.stamps_ns.min() <= series.stamps_ns.max() < _STAMP_NS:
        raise CellInvalidError(
            need="stamps of the years 1824 to 2116",
            found=f"{series.name}: others",
            remedy="check the clock's unit in the signal map; repair the recording",
        )


def _place(meta: EpisodeMeta) -> str:
    return str(Rows(meta.file_sha256, meta.first_row, meta.last_row))
