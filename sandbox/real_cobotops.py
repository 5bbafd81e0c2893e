# SPDX-License-Identifier: Apache-2.0
"""UR3 CobotOps, second by second: is the grip lost now. Cycles of one cobot, cut by time into sites.

The same recording as `sandbox.cobotops`, which asks about a whole cycle with features that physics suggests;
here a small network sees raw readings, as somebody begins who does not know the robot.

- **Sites** are quarters of the cycles by time, each a unit. Of a site's cycles, in an order that follows from
  the seed, the first ``share`` train, a tenth selects and three tenths report; selecting and reporting cycles
  are the same for every share. The cycles between are unlabelled: nobody looked at them.
- **Inputs** per channel: value, first difference, standard deviation of the last five seconds. **Output**: a
  logit. About one second in thirty is positive, and counts ten times.
- **Constants** are those of `sandbox.cobotops.CONSTANTS`: data sheet and hall, never the recording.
- **Figure**: area under the ROC curve over the seconds whose label is known. Undefined where a site's
  reporting cycles have one class only; such a site has no figure in that seed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.learning.tensors import EpisodeArrays, unit_frames
from policies.encoding import canonical
from policies.forward import Forward
from policies.recipe import architecture_manifest, load
from sandbox.bench_cobotops import auroc
from sandbox.cobotops import CHANNELS, runs
from sandbox.real_problem import SITES, Problem, RealSite, arrays, evaluation, known, shuffled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from policies.recipe import Recipe

__all__ = ["LABEL", "SHARES", "problems", "read", "recipe_bytes", "sites"]

FILE: Final = "ur3-cobotops/dataset_02052023.csv"
LABEL: Final = "grip_lost"
SHARES: Final = (0.2, 0.6)  # of a site's cycles that somebody labelled for training
_SELECT: Final = 0.1
_REPORT: Final = 0.3
_POSITIVE: Final = "10"
_UNITS: Final = {"joint_current": "A", "joint_temp": "K", "joint_vel": "rad/s", "tool_current": "A"}
_LIMITS: Final = {  # low, high, centre, scale: `sandbox.cobotops.CONSTANTS`, rounded
    "joint_current": ("-2", "2", "0", "1.15"),
    "joint_temp": ("303", "323", "313", "5.77"),
    "joint_vel": ("-1", "1", "0", "0.577"),
    "tool_current": ("0", "0.6", "0.3", "0.173"),
}
_WINDOW: Final = 5
Unit = list[EpisodeArrays]  # the runs of one cycle


def problems(data: Path) -> list[Problem]:
    """One problem per share of labelled cycles, on the recording below a folder.

    Raises:
        DataError: The file is not what its map says.
    """
    cycles, recipe = read(data / FILE), load(recipe_bytes())
    return [
        Problem(
            name=f"cobotops-grip-lost-{round(100 * share)}-percent-labelled",
            figure="AUROC",
            lower_is_better=False,
            recipe=recipe,
            alone_steps=1_200,
            sites=partial(sites, cycles, share=share),
            score=_score,
            undefined="reporting cycles of one class only",
        )
        for share in SHARES
    ]


def read(path: Path) -> list[Unit]:
    """Cycles in the order in which they first occur, each with its runs.

    Raises:
        DataError: The file is not what its map says.
    """
    units: dict[bytes, Unit] = {}
    for unit, recorded in runs(path):
        episode = arrays(recorded, slice(None), unit=unit)
        if len(next(iter(episode.observation.values()))) and known(episode, LABEL):
            units.setdefault(unit, []).append(episode)
    return list(units.values())


def sites(cycles: Sequence[Unit], seed: int, *, share: float) -> tuple[RealSite, ...]:
    """Quarters by time; which cycles train, select and report follows from the seed."""
    found = []
    for site, part in enumerate(np.array_split(np.arange(len(cycles)), SITES)):
        drawn = [cycles[part[at]] for at in shuffled(len(part), seed=seed, site=site)]
        train, report = round(share * len(part)), round((1 - _REPORT) * len(part))
        select = report - round(_SELECT * len(part))
        found.append(
            RealSite(
                train=_runs_of(drawn[:train]),
                select=_runs_of(drawn[select:report]),
                report=_runs_of(drawn[report:]),
            )
        )
    return tuple(found)


def _runs_of(cycles: Sequence[Unit]) -> list[EpisodeArrays]:
    return [run for cycle in cycles for run in cycle]


def _score(
    recipe: Recipe, weights: npt.NDArray[np.float32], episodes: Sequence[EpisodeArrays]
) -> float | None:
    frames, forward = unit_frames(recipe, episodes), Forward(recipe, weights)
    inputs, targets, mask = (
        np.concatenate([getattr(one, name) for one in frames]) for name in ("inputs", "targets", "mask")
    )
    seen = mask[:, 0] > 0
    return auroc(forward(inputs)[seen, 0], targets[seen, 0] > 0)


def _normalisers(field: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of a value, and of a difference of two: the same scale about zero."""
    low, high, centre, scale = ([one] * CHANNELS[field] for one in _LIMITS[field])
    of_value = {"rule": "limit", "low": low, "high": high, "centre": centre, "scale": scale}
    of_change = {"rule": "approach", "low": [], "high": [], "centre": ["0"] * CHANNELS[field], "scale": scale}
    return of_value, of_change


def _features() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for field in CHANNELS:
        of_value, of_change = _normalisers(field)
        found += [
            {"op": "raw", "field": field, "normaliser": of_value},
            {"op": "delta", "field": field, "lag": 1, "normaliser": of_change},
            {"op": "rolling_std", "field": field, "n": _WINDOW, "normaliser": of_change},
        ]
    return found


def recipe_bytes() -> bytes:
    """Canonical bytes of the recipe: plain averaging, 80 rounds of 30 local steps.

    On seeds 100 to 102, a fifth labelled: AUROC 0.85, and 0.84 with 40 rounds; pooled 0.86.
    """
    architecture = {"id": "mlp-detect/1", "args": {"width": 32, "seed": 2}}
    return canonical(
        {
            "schema": "iriai-recipe/1",
            "task": {"kind": "detection", "name": "grip-lost", "embodiment_class": "6r-arm"},
            "architecture": architecture,
            "inputs": [
                {"field": field, "size": size, "unit": _UNITS[field]} for field, size in CHANNELS.items()
            ],
            "features": _features(),
            "outputs": [],
            "clip": "5",
            "rate_hz": None,
            "start": None,
            "tensors": architecture_manifest(
                architecture, input_size=3 * sum(CHANNELS.values()), output_size=1
            ),
            "loss": {"kind": "bce", "label": LABEL, "per": "frame", "positive_weight": _POSITIVE},
            "train": {
                "kind": "adam-local",
                "local_steps": 30,
                "batch": 128,
                "rate_first": "0.002",
                "rate_last": "0.00004",
                "weight_decay": "0.03",
                "proximal": None,
            },
            "server": {"kind": "mean"},
            "rounds": 80,
            "need": 3,
            "deadline_s": 60,
            "plan": None,
            "evaluation": evaluation(round((_SELECT + _REPORT) * 60)),
        }
    )
