# SPDX-License-Identifier: Apache-2.0
"""What an import and its checks found, as lines for people: what happened, where, and what to do next.

Programs read codes and figures (``--json``); the words of checks are those of the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.answers import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from client.data.quality import QualityReport
    from client.data.quality.finding import Finding, Place
    from client.datasets.origins import Origin

__all__ = ["named_lines", "note_lines", "some_names", "verdict_lines"]

_SHOWN: Final = 6
_NAMES: Final = 8
_EXCLUDED: Final = "excluded-by-"
_ASKED: Final = frozenset({"duplicates", "lengths"})
_NOTES: Final = {
    "empty-columns": "columns without any value, left out",
    "header-stamp-never-set": "topics whose header has no time, so the time of writing is used",
    "insecure": "recorded without encryption, so nobody knows who answered",
    "joined-values-too-old": "values older than one period when topics were joined, missing",
    "known-elsewhere": "episodes whose rows or frames other episodes have, left out",
    "keys-not-read": "keys of the file that are not mapped, left out",
    "messages-of-others": "messages of other robots or devices, left out",
    "missing-rows": "rows that lack most values, and whose labels are unknown",
    "padding-rows": "empty rows at the end, left out",
    "pieces-too-short": "pieces shorter than min_frames, dropped",
    "profile.untested-on-real-data": "no real recording tested this profile (compare a few values)",
    "repeated-answers": "answers that say nothing new, left out",
    "repeated-observations": "observations that are there twice, taken once",
    "secret-columns": "secret columns, never read",
    "secret-matched-nothing": "words of secret that name no column (look for a slip in the map)",
    "sequence-gaps": "gaps in the sequence, where it was cut",
    "sequence-unproven": "places where the sequence cannot show whether something was lost",
    "split-follows-unit": "episodes that stay in the split of their unit, against the format's word",
    "truncated": "files that were cut, whose complete messages are taken",
    "unit-weak": "windows, of which two may share an attempt",
    "unknown-types": "messages of types that the file does not describe, left out",
    "video-or-image-features": "video or image features, never opened",
}


def some_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are; ``--json`` has all."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(map(plain, names[:_NAMES])) + more


def note_lines(notes: Mapping[str, int]) -> tuple[str, ...]:
    """What an import left out or was unsure of."""
    return tuple(f"noted      {_note(code, count)}" for code, count in sorted(notes.items()))


def named_lines(names: Sequence[str]) -> tuple[str, ...]:
    """What a note is about, the first few; ``--json`` has all."""
    lines = tuple(f"           {plain(one)}" for one in names[:_SHOWN])
    more = len(names) - _SHOWN
    return (*lines, f"           and {more} more: --json lists all") if more > 0 else lines


def _note(code: str, count: int) -> str:
    if code.startswith(_EXCLUDED):
        return f"episodes that fail the check {code.removeprefix(_EXCLUDED)}, not trained on: {count}"
    return f"{_NOTES.get(code, plain(code))}: {count}"


def verdict_lines(report: QualityReport, origins: Mapping[str, Origin]) -> tuple[str, ...]:
    """The verdict and why, checks that are not simply passed, findings with their places, what to do next.

    Args:
        report: Of the checks.
        origins: Where episodes came from, by their ids.
    """
    from client.data.quality.page import words_of

    words = words_of("en")
    lines = [f"quality    {report.verdict}"]
    lines += [f"because    {words[f'reason_{one}']}" for one in report.reasons]
    lines.append(f"checks     {_states(report)}")
    found = sorted(report.findings, key=lambda one: one.state != "FAIL")
    lines += [line for one in found[:_SHOWN] for line in _finding(one, words, set(report.excluded), origins)]
    if len(found) > _SHOWN:
        all_of_them = f"iriai-node data check {report.dataset} --json lists all"
        lines.append(f"           and {len(found) - _SHOWN} more: {all_of_them}")
    lines += _accepted(report)
    return (*lines, *_next(report, found))


def _states(report: QualityReport) -> str:
    parts = [
        f"{state} {', '.join(names)}"
        for state in ("FAIL", "UNDETERMINED")
        if (names := [name for name, found in report.states.items() if found == state])
    ]
    return "; ".join(parts) or "all pass, or do not apply"


def _accepted(report: QualityReport) -> Iterator[str]:
    """What a person answered, of findings that are still there."""
    from client.data.quality.accepted import is_answered

    for one in report.accepted:
        if any(is_answered(finding, (one,)) for finding in report.findings):
            yield f"accepted   {one.check} by {plain(one.by)} on {one.at}"


def _finding(
    finding: Finding, words: Mapping[str, str], out: set[str], origins: Mapping[str, Origin]
) -> Iterator[str]:
    """Two lines: what it is, and where with the figures behind it."""
    why = words.get(f"why_{finding.why}", plain(finding.why))
    failed = finding.state == "FAIL"
    effect = _effect(finding, out) if failed else ""
    yield f"{'FAIL' if failed else 'unclear':<11}{finding.check}: {why}{effect}"
    origin = origins.get(finding.episodes[0]) if finding.episodes else None
    parts = [_episodes(finding.episodes), *_where(finding.place), *_source(finding.place, origin)]
    parts += [f"{words.get(f'fig_{name}', name)} {plain(value)}" for name, value in finding.figures.items()]
    told = ", ".join(one for one in parts if one)
    if told:
        yield f"           {told}"


def _effect(finding: Finding, out: set[str]) -> str:
    """What a failure does: to episodes that were left out, or that nobody leaves out."""
    from client.data.quality.accepted import ANSWERABLE
    from client.data.quality.checks import EXCLUDING

    if finding.check in ANSWERABLE:
        return ""
    if finding.check not in EXCLUDING:
        return " A warning: nothing is left out."
    return " Not trained on." if out.issuperset(finding.episodes) else ""


def _episodes(names: Sequence[str]) -> str:
    if len(names) > 1:
        return f"{len(names)} episodes, the first {names[0]}"
    return names[0] if names else ""


def _where(place: Place | None) -> Iterator[str]:
    if place is None:
        return
    if place.column:
        yield f"{place.column}[{place.part}]"
    if place.last > place.first + 1:
        yield f"frames {place.first} to {place.last - 1}"
    elif place.last > place.first:
        yield f"frame {place.first}"


def _source(place: Place | None, origin: Origin | None) -> Iterator[str]:
    """Where the first episode lies in its source; the rows of the place, where frames have rows."""
    if origin is None:
        return
    rows = None if place is None else origin.rows_of(place.first, place.last)
    if rows is None:
        yield origin.words
    elif rows[0] == rows[1]:
        yield f"{plain(origin.file)} row {rows[0]}"
    else:
        yield f"{plain(origin.file)} rows {rows[0]} to {rows[1]}"


def _next(report: QualityReport, found: Sequence[Finding]) -> Iterator[str]:
    """The commands by which a person answers what is open."""
    dataset, reasons = report.dataset, report.reasons
    open_ones = [
        str(number) for why, number in (("duplicates-open", 9), ("lengths-open", 10)) if why in reasons
    ]
    if set(reasons) & {"no-episodes", "personal"}:
        yield "next       mend recording or signal map as the findings say, then add it again"
    if open_ones:
        yield "next       look at them, then accept them, or leave one out:"
        yield f"           iriai-node data check {dataset} --page quality.html"
    for number in open_ones:
        yield f'           iriai-node data check {dataset} --accept {number} --by "YOUR NAME"'
    if open_ones:
        first = next((one.episodes[0] for one in found if one.check in _ASKED and one.episodes), "EPISODE")
        yield f'           iriai-node data exclude {dataset} {first} --by "YOUR NAME"'
