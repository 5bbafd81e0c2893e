# SPDX-License-Identifier: Apache-2.0
"""`check_dataset`: the twelve checks over a data set of the store, streamed, as one report for its owner.

    report = check_dataset(root, "kita/pick")
    report.verdict, report.states["time"], report.findings

- The state of a check is the worst of the episodes that training would get; those that a check excluded are
  counted beside it. Episode for episode, a verdict does not depend on the others.
- ``admitted`` needs: at least one usable episode; every episode that fails an excluding check excluded in the
  store (it was imported under today's checks); findings 9 and 10 answered by a person; no personal data.
- The same store gives the same bytes, in whatever order its files came in. No clock is read.
- Everything here stays on the site; what leaves is the certificate (client.data.quality.certificate).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from client.data.quality.accepted import ANSWERABLE, Accepted, answers_of, is_answered
from client.data.quality.checks import EPISODE_CHECKS, EXCLUDING, check_episode
from client.data.quality.finding import CHECKS, CheckName, Finding, State, worst
from client.data.quality.personal import check_personal
from client.data.quality.ratios import Ratio, Spreads
from client.data.quality.reading import stored_frames
from client.data.quality.sets import check_duplicates, check_lengths, near_pairs, path_of
from client.data.quality.spec import QualitySpec, spec_of
from client.data.quality.traces import Trace, lengths_trace, pair_trace, trace_of
from client.data.store import EpisodeMeta, Store
from policies.encoding import canonical
from policies.quality_certificate import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from client.data.frames import Frames
    from client.data.series import Array64
    from policies.recipe import Recipe

__all__ = ["Picture", "QualityReport", "check_dataset", "facts_of"]

PICTURES: Final = 3  # of one check
_PASSED: Final[frozenset[State]] = frozenset({"PASS", "NOT_APPLICABLE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A finding and what is drawn of it."""

    finding: Finding
    trace: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """What the owner is told. ``facts`` of episodes are what the certificate binds."""

    dataset: str
    lineage: str
    thresholds: str
    signal_maps: tuple[str, ...]
    episodes: int
    frames: int
    excluded: Mapping[str, str]
    states: Mapping[CheckName, State]
    counts: Mapping[CheckName, Mapping[State, int]]
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    accepted: tuple[Accepted, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    facts: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    pictures: tuple[Picture, ...] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        """``admitted``, or ``refused`` for `reasons`."""
        return "refused" if self.reasons else "admitted"

    @property
    def excluded_word(self) -> str:
        """How many episodes are excluded, as coarse as the certificate says it."""
        share = len(self.excluded) / self.episodes if self.episodes else 1.0
        return "none" if share < 0.05 else "few" if share < 0.25 else "many"  # noqa: PLR2004  section 5

    def as_dict(self) -> dict[str, Any]:
        """JSON value, figures as text."""
        return {
            "schema": "iriai-quality-report/1",
            "rules": RULES,
            "thresholds": self.thresholds,
            "dataset": self.dataset,
            "lineage": self.lineage,
            "signal_maps": list(self.signal_maps),
            "episodes": self.episodes,
            "frames": self.frames,
            "excluded": dict(sorted(self.excluded.items())),
            "states": {name: self.states[name] for name in CHECKS},
            "counts": {name: dict(self.counts.get(name, {})) for name in CHECKS},
            "findings": [one.as_dict() for one in self.findings],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "accepted": [one.as_dict() for one in self.accepted],
            "ratios": [one.as_dict() for one in self.ratios],
        }

    def to_bytes(self) -> bytes:
        """Canonical bytes; equal for equal data."""
        return canonical(self.as_dict())


def check_dataset(
    root: Path, dataset: str, *, recipe: Recipe | None = None, spec: QualitySpec | None = None
) -> QualityReport:
    """Checks a data set of the store, one episode in memory at a time.

    Args:
        root: Folder of the store.
        dataset: Its name.
        recipe: Compares its normalisers with the site's own spread, and bounds the tracking error.
        spec: What to measure against; made from the store's embodiment and the recipe if left out.

    Raises:
        DatasetUnknownError: No such data set.
        StoreDamagedError: The files are not what was imported.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    stored = store.episodes(dataset)
    work = _Work(spec or spec_of(entry.embodiment, recipe), Spreads(recipe) if recipe is not None else None)
    for meta, frames in stored_frames(store.folder(dataset, entry), stored):
        work.take(meta, frames)
    maps = tuple(sorted({one.meta.signal_map for one in stored}))
    texts = {
        "task": {one.meta.task for one in stored},
        "labels": set(entry.labels),
        **_map_texts(store, dataset),
    }
    return work.report(dataset, entry.lineage, maps, check_personal(texts), answers_of(root, dataset))


def _map_texts(store: Store, dataset: str) -> dict[str, list[str]]:
    """The signal maps that are kept, as words: a comment may hold an address."""
    folder = store.folder(dataset, store.catalogue().dataset(dataset)) / "iriai/signalmaps"
    return {
        f"signal map {one.stem}": one.read_text("utf-8", errors="replace").splitlines()
        for one in sorted(folder.glob("*.toml"))
    }


def facts_of(meta: EpisodeMeta, frames: Frames) -> dict[str, str]:
    """What the certificate binds of an episode: values, stamps, labels, clock, map, and what was excluded."""
    labels = hashlib.sha256()
    for name in sorted(frames.labels):
        labels.update(canonical([name, frames.length]))
        labels.update(frames.labels[name].tobytes())
    return {
        "episode": meta.digest,
        "stamps": hashlib.sha256(frames.stamps_ns.astype("<i8").tobytes()).hexdigest(),
        "labels": labels.hexdigest(),
        "clock": meta.clock,
        "map": meta.signal_map,
        "excluded": meta.excluded,
    }


class _Work:
    """What is gathered while episodes go by."""

    def __init__(self, spec: QualitySpec, spreads: Spreads | None) -> None:
        self.spec, self.spreads = spec, spreads
        self.frames = 0
        self.excluded: dict[str, str] = {}
        self.admitted_failures: set[str] = set()
        self.counts: dict[CheckName, Counter[State]] = {name: Counter() for name in EPISODE_CHECKS}
        self.usable: dict[CheckName, set[State]] = {name: set() for name in EPISODE_CHECKS}
        self.failures: list[Finding] = []
        self.open: dict[tuple[CheckName, str], list[str]] = {}
        self.lengths: dict[str, int] = {}
        self.paths: dict[str, Array64] = {}
        self.column: str | None = None
        self.mixed = False
        self.facts: list[dict[str, str]] = []
        self.pictures: dict[CheckName, dict[str, Picture]] = {}

    def take(self, meta: EpisodeMeta, frames: Frames) -> None:
        """Checks one episode."""
        findings = [one.about(meta.episode_id) for one in check_episode(frames, self.spec)]
        failed = [one.check for one in findings if one.state == "FAIL" and one.check in EXCLUDING]
        out = sorted({*failed, *(meta.excluded.split(",") if meta.excluded else ())})
        if out:
            self.excluded[meta.episode_id] = ",".join(out)
        if failed and not meta.excluded:
            self.admitted_failures.add(meta.episode_id)
        for one in findings:
            self._note(one, usable=not out)
            if one.state == "FAIL":
                self._draw(one, frames, meta.episode_id)
        self.frames += frames.length
        self.facts.append(facts_of(meta, frames))
        if not out:
            self._keep(meta, frames)

    def _note(self, finding: Finding, *, usable: bool) -> None:
        self.counts[finding.check][finding.state] += 1
        if usable:
            self.usable[finding.check].add(finding.state)
        if finding.state == "FAIL":
            self.failures.append(finding)
        elif finding.state == "UNDETERMINED":
            self.open.setdefault((finding.check, finding.why), []).extend(finding.episodes)

    def _draw(self, finding: Finding, frames: Frames, name: str) -> None:
        """Keeps the pictures of the first episodes by name, so that the order of files does not matter."""
        kept = self.pictures.setdefault(finding.check, {})
        if len(kept) >= PICTURES and name > max(kept):
            return
        trace = trace_of(finding, frames, self.spec)
        if trace is not None:
            kept[name] = Picture(finding=finding, trace=trace)
        if len(kept) > PICTURES:
            del kept[max(kept)]

    def _keep(self, meta: EpisodeMeta, frames: Frames) -> None:
        """What the checks of the set and the ratios need of a usable episode."""
        self.lengths[meta.episode_id] = frames.length
        found = path_of(frames, self.spec)
        if found is not None:
            self.mixed |= self.column not in (None, found[0])
            self.column, self.paths[meta.episode_id] = found
        if self.spreads is not None and meta.split == "train":
            self.spreads.take(frames)

    def report(
        self,
        dataset: str,
        lineage: str,
        maps: tuple[str, ...],
        personal: Finding,
        answers: tuple[Accepted, ...],
    ) -> QualityReport:
        """Checks the set and gives the whole."""
        of_set = self._of_set(personal)
        states: dict[CheckName, State] = {name: worst(self.usable[name]) for name in EPISODE_CHECKS}
        states |= {one.check: one.state for one in of_set}
        opened = [
            Finding(check=check, state="UNDETERMINED", why=why, episodes=tuple(sorted(names)))
            for (check, why), names in self.open.items()
        ]
        found = [*self.failures, *opened, *(one for one in of_set if one.state not in _PASSED)]
        return QualityReport(
            dataset=dataset,
            lineage=lineage,
            thresholds=self.spec.thresholds.digest,
            signal_maps=maps,
            episodes=len(self.facts),
            frames=self.frames,
            excluded=self.excluded,
            states={name: states[name] for name in CHECKS},
            counts={name: dict(sorted(one.items())) for name, one in self.counts.items()},
            findings=tuple(sorted(found, key=_order)),
            reasons=tuple(self._reasons(of_set, answers)),
            accepted=answers,
            ratios=self.spreads.ratios() if self.spreads is not None else (),
            facts=tuple(sorted(self.facts, key=lambda one: one["episode"])),
            pictures=tuple(
                kept[name]
                for check in CHECKS
                for kept in [self.pictures.get(check, {})]
                for name in sorted(kept)
            ),
        )

    def _of_set(self, personal: Finding) -> list[Finding]:
        pairs = [] if self.mixed else near_pairs(self.paths, self.spec)
        near = check_duplicates(pairs, paths=len(self.paths), unequal=self.mixed)
        lengths = check_lengths(self.lengths, self.spec)
        if pairs and self.column:
            self.pictures["duplicates"] = {
                f"{number:03d}": Picture(
                    finding=near.about(pair.one, pair.other),
                    trace=pair_trace(pair, self.paths, self.column, self.spec),
                )
                for number, pair in enumerate(pairs[:PICTURES])
            }
        if lengths.state == "FAIL":
            fences = (float(lengths.figures["from"]), float(lengths.figures["to"]))
            self.pictures["lengths"] = {
                "": Picture(finding=lengths, trace=lengths_trace(self.lengths, *fences))
            }
        return [near, lengths, personal]

    def _reasons(self, of_set: list[Finding], answers: tuple[Accepted, ...]) -> list[str]:
        reasons = [] if self.lengths else ["no-episodes"]
        if self.admitted_failures:
            reasons.append("not-excluded")
        unanswered = (one.check for one in of_set if one.state == "FAIL" and not is_answered(one, answers))
        return reasons + [f"{name}-open" if name in ANSWERABLE else name for name in unanswered]


def _order(finding: Finding) -> tuple[int, str, str, tuple[str, ...]]:
    return CHECKS.index(finding.check), finding.state, finding.why, finding.episodes
