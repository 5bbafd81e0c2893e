# SPDX-License-Identifier: Apache-2.0
"""Check 2: stamps. What can be judged is decided by the kind of clock that they came from.

``derived``: nothing was measured, so nothing can be said. ``simulation``: nothing to measure. ``controller``:
gaps and mixed rates are judged, jitter is not. ``host``: gaps and jitter; steps that are all equal were made,
not measured (``looks-derived``). Further streams are mapped as ``x_skew_<stream>``: their stamp less the
frame's, in s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from client.data.quality.finding import Finding, Place, State, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["check_time"]

_SKEW: Final = ".x_skew_"
_NS: Final = 1e9


def check_time(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: stamps that do not rise, too many gaps, jitter (host clock), streams too far apart."""
    limits = spec.thresholds
    step = np.diff(frames.stamps_ns).astype(np.float64)
    if frames.clock == "simulation":
        return _said("NOT_APPLICABLE", "simulation")
    if frames.clock == "derived" or not len(step):
        return _said("UNDETERMINED", "derived" if frames.clock == "derived" else "too-short")
    period = float(np.median(step))
    gaps = step > limits.gap_periods * period
    figures = {"period_ms": number(period / 1e6), "gaps": str(int(gaps.sum()))}
    many = bool(gaps.sum() > max(1, limits.gap_share * frames.length))
    if (step <= 0).any() or many:
        at = np.flatnonzero(gaps if many else step <= 0)
        figures["longest_ms"] = number(float(step.max()) / 1e6)
        return _said("FAIL", "gaps" if many else "order", figures, at)
    apart = _skew(frames, spec)
    if apart is not None:
        return apart
    if frames.clock == "controller":
        return _rates(step, period, frames.length, spec, figures)
    return _jitter(step, gaps, period, spec, figures)


def _rates(step: Array64, period: float, length: int, spec: QualitySpec, figures: dict[str, str]) -> Finding:
    """A controller keeps its period: many steps far below it are rows of another rate."""
    short = step < spec.thresholds.short_periods * period
    if short.sum() <= max(1, spec.thresholds.gap_share * length):
        return _said("PASS", figures=figures)
    figures |= {"short": str(int(short.sum())), "shortest_ms": number(float(step.min()) / 1e6)}
    return _said("FAIL", "rates", figures, np.flatnonzero(short[1:] != short[:-1]) + 1)


def _jitter(
    step: Array64, gaps: npt.NDArray[np.bool_], period: float, spec: QualitySpec, figures: dict[str, str]
) -> Finding:
    """The part that only a host clock has: even steps look made, uneven ones are too loose."""
    limits = spec.thresholds
    if len(step) >= limits.even_frames and np.ptp(step) <= limits.even_periods * period:
        return _said("UNDETERMINED", "looks-derived", figures)
    usual = step[~gaps]
    jitter = float(usual.std())
    figures["jitter_periods"] = number(jitter / period)
    if jitter > limits.jitter_periods * period:
        worst = np.abs(np.where(gaps, period, step) - float(usual.mean()))
        return _said("FAIL", "jitter", figures, np.array([int(np.argmax(worst))]))
    return _said("PASS", figures=figures)


def _skew(frames: Frames, spec: QualitySpec) -> Finding | None:
    """Streams whose stamps are more than 1 ms from the frame's, in more frames than gaps are allowed."""
    for column, values in sorted(frames.columns.items()):
        if _SKEW not in column:
            continue
        far = (np.abs(values) > spec.thresholds.skew_s).any(axis=1)
        if far.sum() > max(1, spec.thresholds.gap_share * frames.length):
            figures = {"skew_ms": number(float(np.nanmax(np.abs(values))) * 1e3)}
            first = int(np.argmax(far))
            place = Place(column=column, first=first, last=first + 1)
            return Finding(check="time", state="FAIL", why="streams-apart", figures=figures, place=place)
    return None


def _said(
    state: State, why: str = "", figures: dict[str, str] | None = None, at: npt.NDArray[np.intp] | None = None
) -> Finding:
    place = None if at is None else Place(first=int(at[0]), last=int(at[0]) + 2)
    return Finding(check="time", state=state, why=why, figures=figures or {}, place=place)
