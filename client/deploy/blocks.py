# SPDX-License-Identifier: Apache-2.0
"""Blocks of a package's manifest, as value objects; `client.deploy.manifest` puts them together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from policies.limits import WATCHDOG_MS

__all__ = [
    "Block",
    "Count",
    "Dec",
    "Decs",
    "Digest",
    "Embodiment",
    "Evaluation",
    "EvaluationRow",
    "Example",
    "Figure",
    "Graph",
    "Licence",
    "Line",
    "Lineage",
    "LogPlace",
    "Member",
    "ModelName",
    "Normalisation",
    "Ood",
    "Port",
    "Privacy",
    "Safety",
    "Word",
    "values",
]

_COORDINATES: Final = 4_096
Array64 = npt.NDArray[np.float64]
Dec = Annotated[str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,18})?$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+/-]{0,79}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Count = Annotated[int, Field(strict=True, ge=1, le=_COORDINATES)]
Decs = Annotated[Sequence[Dec], Field(min_length=1, max_length=_COORDINATES)]


def values(numbers: Sequence[str]) -> Array64:
    """Decimal strings as float64."""
    return np.array([float(one) for one in numbers], dtype=np.float64)


class Block(BaseModel):
    """A part of a manifest: every key spelled out, unknown keys refused, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ignored_types=(cached_property,))


class ModelName(Block):
    """Which model it is.

    Attributes:
        id: Name for people: the task.
        digest: Of the weights, little-endian float32 in the recipe's order.
        parent: Of the released model that an individual one was made from; null for the released one.
        tier: Under which the parent, or the model itself, was released; ``private`` for an individual one.
        individual: Whether it was trained on with this site's data, which it then contains.
    """

    id: Word
    digest: Digest
    parent: Digest | None
    tier: Literal["open", "consortium", "participant", "private"]
    individual: bool


class Embodiment(Block):
    """For which robots.

    Attributes:
        class_: Of the closed list of classes.
        adapter: Digest of the site's adapter in the graph, in individual packages alone. With one,
            observation and action are in the order and sense of the site's controller, as its recordings
            are; without, in those of the store.
    """

    class_: Word = Field(alias="class")
    adapter: Digest | None


class Port(Block):
    """One field that goes in, or comes out.

    Attributes:
        name: In programs and in OPC UA; unique among inputs and among outputs.
        field: Of the closed list of field names.
        shape: Coordinates per tick.
        unit: SI unit, or ``1``.
        frame: Frame of reference; null where none was stated.
        low: Lower limits, one per coordinate.
        high: Upper limits.
        rate_hz: Ticks per second that the model expects; null: as the recordings came.
    """

    name: Word
    field: Word
    shape: Annotated[Sequence[Count], Field(min_length=1, max_length=1)]
    unit: Word
    frame: Word | None
    low: Decs
    high: Decs
    rate_hz: Dec | None

    @property
    def size(self) -> int:
        """Coordinates."""
        return math.prod(self.shape)


class Ood(Block):
    """When an observation is far from what was trained on: the share of features beyond the clip."""

    kind: Literal["z-clip-share"]
    max: Dec


class Safety(Block):
    """Numbers of the guards around the graph.

    Attributes:
        clamp: Always true: the graph clamps its outputs to their limits.
        max_delta: Most change of each output coordinate from one tick to the next, SI.
        watchdog_ms: Age of an observation after which the fallback answers.
        fallback: What is answered instead: the last action, zeros, or nothing.
        ood: Guard against strange observations.
    """

    clamp: Literal[True]
    max_delta: Decs = Field(alias="max_delta_per_tick")
    watchdog_ms: Annotated[int, Field(strict=True, ge=1, le=WATCHDOG_MS)]
    fallback: Literal["hold", "zero-velocity", "stop"]
    ood: Ood

    @cached_property
    def max_delta_per_tick(self) -> Array64:
        """``[a]``, SI."""
        return values(self.max_delta)

    @property
    def ood_share_max(self) -> float:
        """From 0 to 1."""
        return float(self.ood.max)


class Normalisation(Block):
    """By which rules the constants in the graph were chosen."""

    source: Annotated[
        Sequence[Literal["approach", "limits", "task", "seed-set"]], Field(min_length=1, max_length=4)
    ]


class LogPlace(Block):
    """An entry of the public log, and the checkpoint that this site saw it under."""

    origin: Line
    kind: Word
    index: Annotated[int, Field(strict=True, ge=0)]
    size: Annotated[int, Field(strict=True, ge=1)]
    root: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Lineage(Block):
    """Where the model comes from."""

    contract: Digest
    recipe: Digest
    run: Word
    seed_set: Digest | None
    log: LogPlace | None


class Privacy(Block):
    """What the statement says, in four words; the statement itself is a member."""

    statement: Digest
    verdict: Literal["PRIVATE", "NOT PRIVATE"]
    unit: Word | None
    epsilon: Dec | None
    delta: Dec | None


class Figure(Block):
    """One measured number; ``low`` and ``high`` bound its 95 % interval where one was computed."""

    value: Dec
    low: Dec | None
    high: Dec | None


class EvaluationRow(Block):
    """Figures of one model in the own cell and in other cells; null was not measured."""

    model: Literal["local", "common", "individual"]
    own: Figure | None
    others: Figure | None


class Evaluation(Block):
    """The table of benefit: before (trained alone), and after (common, individual).

    Attributes:
        metric: What the figures are, with the number of units that they rest on.
        better: Whether a better model has a lower or a higher figure.
        rows: One for each model that was judged.
    """

    metric: Line
    better: Literal["lower", "higher"]
    rows: Annotated[Sequence[EvaluationRow], Field(min_length=1, max_length=3)]


class Example(Block):
    """One observation ``[n]`` and the chunk ``[H * a]`` that belongs to it.

    Attributes:
        tolerance: How far an answer may be from the chunk, as a part of the width of the output's limits.
    """

    observation: Decs
    action_chunk: Decs
    tolerance: Dec


class Member(Block):
    """A member of the package beside manifest and signature."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,60}(/[A-Za-z0-9_.-]{1,60})?$")]
    size: Annotated[int, Field(strict=True, ge=1)]
    sha256: Digest


class Graph(Block):
    """The ONNX graph: opset, exporter and what this package lacks.

    Attributes:
        opset: Of the default domain.
        versions: Of the programs that made it.
        window: Observations that one inference takes, the newest last; 1: it needs no memory.
        aas: Whether an Asset Administration Shell is inside.
    """

    opset: Annotated[int, Field(strict=True, ge=1, le=99)]
    window: Annotated[int, Field(strict=True, ge=1, le=1)]
    versions: dict[Word, Word]
    aas: bool


class Licence(Block):
    """What may be done with it, as the contract says: its purpose, and what nobody may do."""

    name: Line
    uses: Annotated[Sequence[Line], Field(max_length=32)]
    forbidden: Annotated[Sequence[Line], Field(max_length=64)]
