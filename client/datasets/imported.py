# SPDX-License-Identifier: Apache-2.0
"""What an import and the checks after it say, for programs and for people.

In this order: (1) names of source files are noted, (2) what a person left out before stays out, (3) the data
set is checked and certified, (4) three things are warned of that no check of an episode can know: a rate that
no robot log has, which is a clock read in the wrong unit; episodes of two maps in one data set; no episode
to train on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.answers import plain, short
from client.datasets.checking import certified, finding_rows
from client.datasets.origins import keep_names, origins
from client.datasets.wording import named_lines, note_lines, some_names, verdict_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.episodes import EpisodeMeta, StoredEpisode
    from client.data.importing import ImportReport
    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.ports import Clock

__all__ = ["told"]

_FASTEST_HZ: Final = 20_000.0
_SLOWEST_HZ: Final = 0.01


def told(
    home: Home, identity: NodeIdentity, clock: Clock, report: ImportReport, signal_map: Path | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts for programs and lines for people, behind an import.

    Args:
        home: The node's folder.
        identity: Signs the certificate.
        clock: Dates it.
        report: What the import did.
        signal_map: File of the map, if one was given.
    """
    from client.data import Store
    from client.data.judging import renew

    keep_names(home.data, report.dataset, report.files)  # 1
    renew(home.data, report.dataset)  # 2
    quality, certificate = certified(home, identity, report.dataset, clock=clock)  # 3
    stored = Store(home.data).episodes(report.dataset)
    metas = [one.meta for one in stored]
    found = origins(home.data, report.dataset, metas)
    warnings = list(_warnings(home.data, report, stored, signal_map))  # 4
    notes = [
        {"code": one.code, "count": one.count} | ({"named": list(one.named)} if one.named else {})
        for one in report.findings
    ]
    facts = {
        "dataset_id": report.dataset,
        "dataset": report.dataset,
        "lineage": report.lineage,
        "episodes": quality.episodes,
        "frames": quality.frames,
        "episodes_added": report.episodes_added,
        "held_out_added": report.held_out_added,
        "frames_added": report.frames_added,
        "duplicates": report.duplicates,
        "excluded": report.excluded,
        "dropped_columns": list(report.dropped_columns),
        "fields": list(report.fields),
        "certificate": certificate,
        "findings": [*(fact for fact, _ in warnings), *notes, *finding_rows(quality, found)],
    }
    added = f"{report.episodes_added} added, {report.held_out_added} of them held out"
    text = (
        f"data set   {report.dataset}",
        f"episodes   {added}" + (f"; {report.duplicates} were there" if report.duplicates else ""),
        f"fields     {', '.join(report.fields) or 'none'}",
        f"not read   {some_names(report.dropped_columns) or 'nothing was left out'}",
        *note_lines({one.code: one.count for one in report.findings}),
        *(line for one in report.findings for line in named_lines(one.named)),
        *(line for _, lines in warnings for line in lines),
        *verdict_lines(quality, found),
    )
    return facts, text


_Warning = tuple[dict[str, Any], tuple[str, ...]]


def _warnings(
    root: Path, report: ImportReport, stored: list[StoredEpisode], signal_map: Path | None
) -> Iterator[_Warning]:
    metas = [one.meta for one in stored]
    if report.episodes_added:
        yield from _rate(root, report.dataset, stored[-1], signal_map)
        yield from _maps(report.dataset, metas, report.episodes_added)
    if not any(one.split == "train" and not one.excluded for one in metas):
        yield (
            {"code": "no-training-episodes", "count": len(metas)},
            (
                f"WARNING    no episode to train on: held out or excluded are all {len(metas)}",
                "           add more episodes; one in five units is held out for good",
            ),
        )


def _rate(root: Path, dataset: str, last: StoredEpisode, signal_map: Path | None) -> Iterator[_Warning]:
    """The rate of the episode that came last, where no log of a robot has such a one."""
    found = _measured(root, dataset, last)
    if found is None or _SLOWEST_HZ <= found <= _FASTEST_HZ:
        return
    number, line = _clock_line(signal_map)
    fact = {"code": "rate-implausible", "count": 1, "rate_hz": f"{found:.4g}"}
    fact |= {"map_line": number} if number else {}
    lines = [
        f"WARNING    {_rate_words(found)} rows a second by the clock: its unit is most likely another one"
    ]
    if number and signal_map is not None:
        lines.append(f"           {plain(signal_map.name)} line {number}: {plain(line.strip())}")
    lines.append(f"           correct the map, then iriai-node data remove {dataset}, and add it again")
    yield fact, tuple(lines)


def _rate_words(rate_hz: float) -> str:
    return f"{rate_hz:.0f}" if rate_hz >= 1 else f"{rate_hz:.4g}"


def _measured(root: Path, dataset: str, episode: StoredEpisode) -> float | None:
    from client.data import Store
    from client.data.admission import measured_rate
    from client.data.layout import STAMPS, data_file

    if episode.meta.clock == "derived":
        return None
    import pyarrow.parquet as pq

    store = Store(root)
    folder = store.folder(dataset, store.catalogue().dataset(dataset))
    table = pq.read_table(folder / data_file(episode.chunk, episode.file), columns=[STAMPS, "index"])
    first = episode.start - table["index"][0].as_py()
    return measured_rate(table[STAMPS].to_numpy()[first : first + episode.meta.length])


def _clock_line(signal_map: Path | None) -> tuple[int | None, str]:
    from client.data.maplines import line_of

    if signal_map is None:
        return None, ""
    text = signal_map.read_text("utf-8", errors="replace")
    number = line_of(text, ("clock",))
    return number, text.splitlines()[number - 1] if number else ""


def _maps(dataset: str, metas: list[EpisodeMeta], added: int) -> Iterator[_Warning]:
    """Episodes of this import were read by another map than others of the data set."""
    new = metas[-1].signal_map
    others = sorted({one.signal_map for one in metas[:-added]} - {new})
    if others:
        named = ", ".join(map(short, others))
        yield (
            {"code": "several-maps", "count": len(others) + 1},
            (
                f"WARNING    read by map {short(new)}; other episodes of {dataset} by {named}",
                f"           do both say the same units? iriai-node data show {dataset}",
            ),
        )
