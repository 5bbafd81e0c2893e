# SPDX-License-Identifier: Apache-2.0
"""What a model sees of a frame: fields turned by operations of a closed list, each with a public normaliser.

Every operation acts on one episode and knows no other. ``past`` and ``ahead`` say how many frames before and
after a frame it looks at; what lies before the first frame is the first frame.

| ``op`` | value at frame t |
|---|---|
| ``raw`` | x[t] |
| ``diff`` | gain (a[t] - b[t]) |
| ``sin``, ``cos`` | of an angle in rad |
| ``sign_soft`` | tanh(x[t] / v): the sign of a velocity, soft below v |
| ``delta`` | x[t] - x[t-1], zero at the first frame |
| ``rolling_std`` | standard deviation of x over the frames t-n+1 to t that the episode has |
| ``history`` | x[t], x[t-1], …, x[t-n+1] side by side |
| ``savgol_derivative`` | derivative per second of the polynomial through the window around t |

``savgol_derivative`` looks ahead by half its window: a model that acts cannot see that, so it is refused for
behaviour cloning, and it needs the recipe's time base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003  pydantic reads annotations at run time
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from policies.privacy.plan import PositiveDec  # noqa: TC001  pydantic reads annotations at run time
from policies.recipe.errors import bad_constant
from policies.recipe.words import Block, Constant, FieldName, Size, UnitName, plain_constant

__all__ = [
    "CosFeature",
    "DeltaFeature",
    "DiffFeature",
    "Feature",
    "HistoryFeature",
    "InputField",
    "Normaliser",
    "RawFeature",
    "RollingStdFeature",
    "SavgolFeature",
    "SignSoftFeature",
    "SinFeature",
]

_RULE_TOLERANCE: Final = 0.02  # constants are rounded to two digits
_WINDOW: Final = 128  # frames that an operation may look at; a second at 125 Hz
_ORDER: Final = 5


class Normaliser(Block):
    """``z = (x - centre) / scale`` per coordinate, all public constants.

    Attributes:
        rule: ``task-box`` (a workspace of the task), ``limit`` (of the robot), ``approach`` (a distance that
            the task needs), ``bounded`` (of an operation whose values lie in [-1, 1]: taken as they are).
        low: Lower end of the interval per coordinate; empty for ``approach`` and ``bounded``.
        high: Upper end, likewise.
    """

    rule: Literal["task-box", "limit", "approach", "bounded"]
    low: Sequence[Constant]
    high: Sequence[Constant]
    centre: Sequence[Constant]
    scale: Sequence[Constant]

    def check(self, size: int, where: str, *, bounded: bool = False) -> None:
        """Refuses constants that the rule does not give.

        Args:
            size: Coordinates.
            where: The place, for the refusal.
            bounded: Whether the values lie in [-1, 1] whatever was recorded.

        Raises:
            RecipeNormaliserError: With the place.
        """
        for text in (*self.low, *self.high, *self.centre, *self.scale):
            try:
                plain_constant(text)
            except ValueError as error:
                raise bad_constant(where, str(error), text) from error
        if len(self.centre) != size or len(self.scale) != size or any(float(s) <= 0 for s in self.scale):
            raise bad_constant(where, f"{size} centres and {size} scales above 0", "others")
        expected = size if self.rule in {"task-box", "limit"} else 0
        if len(self.low) != expected or len(self.high) != expected:
            raise bad_constant(where, f"{expected} interval ends under rule {self.rule}", "others")
        if self.rule == "bounded" and not (bounded and {*self.centre} == {"0"} and {*self.scale} == {"1"}):
            raise bad_constant(where, "centre 0 and scale 1, of sin, cos or sign_soft", "others")
        for low, high, centre, scale in zip(self.low, self.high, self.centre, self.scale, strict=False):
            self._follows(float(low), float(high), float(centre), float(scale), where)

    def _follows(self, low: float, high: float, centre: float, scale: float, where: str) -> None:
        half = (high - low) / 2
        fits = half > 0 and abs(centre - (low + high) / 2) <= _RULE_TOLERANCE * half
        if not fits or abs(scale - half / math.sqrt(3)) > _RULE_TOLERANCE * half:
            raise bad_constant(
                where,
                f"the middle and half / sqrt 3 of [{low}, {high}]",
                f"centre {centre}, scale {scale}",
            )


class InputField(Block):
    """A recorded field that the recipe reads."""

    field: FieldName
    size: Size
    unit: UnitName


class _Operation(Block):
    """What all operations have."""

    normaliser: Normaliser

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the fields that it reads."""
        raise NotImplementedError

    @property
    def copies(self) -> int:
        """How often the coordinates of the field occur in its value."""
        return 1

    @property
    def size(self) -> int:
        """Values per frame."""
        return self.copies * len(self.normaliser.centre)

    @property
    def past(self) -> int:
        """Frames before a frame that its value depends on."""
        return 0

    @property
    def ahead(self) -> int:
        """Frames after a frame that its value depends on."""
        return 0

    @property
    def bounded(self) -> bool:
        """Whether its values lie in [-1, 1], whatever was recorded."""
        return False


class _OfField(_Operation):
    field: FieldName

    @property
    def sources(self) -> tuple[str, ...]:
        """The one field."""
        return (self.field,)


class RawFeature(_OfField):
    """The field itself."""

    op: Literal["raw"]


class DiffFeature(_Operation):
    """``gain * (a - b)`` of two fields of one size."""

    op: Literal["diff"]
    a: FieldName
    b: FieldName
    gain: Constant

    @property
    def sources(self) -> tuple[str, ...]:
        """Both fields."""
        return (self.a, self.b)


class _Bounded(_OfField):
    @property
    def bounded(self) -> bool:
        """Yes."""
        return True


class SinFeature(_Bounded):
    """Sine of an angle."""

    op: Literal["sin"]


class CosFeature(_Bounded):
    """Cosine of an angle."""

    op: Literal["cos"]


class SignSoftFeature(_Bounded):
    """``tanh(x / v)``; ``v`` in the unit of the field."""

    op: Literal["sign_soft"]
    v: PositiveDec


class DeltaFeature(_OfField):
    """Difference to the frame ``lag`` before; version 1 knows lag 1."""

    op: Literal["delta"]
    lag: Literal[1]

    @property
    def past(self) -> int:
        """The lag."""
        return self.lag


class RollingStdFeature(_OfField):
    """Standard deviation over the last ``n`` frames."""

    op: Literal["rolling_std"]
    n: Annotated[int, Field(strict=True, ge=2, le=_WINDOW)]

    @property
    def past(self) -> int:
        """All but the frame itself."""
        return self.n - 1


class HistoryFeature(_OfField):
    """The last ``n`` frames side by side, the newest first; each under the one normaliser."""

    op: Literal["history"]
    n: Annotated[int, Field(strict=True, ge=2, le=_WINDOW)]

    @property
    def copies(self) -> int:
        """One per frame."""
        return self.n

    @property
    def past(self) -> int:
        """All but the frame itself."""
        return self.n - 1


class SavgolFeature(_OfField):
    """Derivative per second of a polynomial of ``order`` fitted to the ``window`` frames around a frame."""

    op: Literal["savgol_derivative"]
    window: Annotated[int, Field(strict=True, ge=3, le=_WINDOW - 1)]
    order: Annotated[int, Field(strict=True, ge=1, le=_ORDER)]

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.window % 2 == 0 or self.order >= self.window:
            raise ValueError("an odd window above the order")
        return self

    @property
    def past(self) -> int:
        """Half the window; near the ends the whole of it lies on one side."""
        return self.window - 1

    @property
    def ahead(self) -> int:
        """Half the window; near the ends the whole of it lies on one side."""
        return self.window - 1


Feature = Annotated[
    RawFeature
    | DiffFeature
    | SinFeature
    | CosFeature
    | SignSoftFeature
    | DeltaFeature
    | RollingStdFeature
    | HistoryFeature
    | SavgolFeature,
    Field(discriminator="op"),
]
