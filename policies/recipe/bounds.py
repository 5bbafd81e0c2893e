# SPDX-License-Identifier: Apache-2.0
"""How far the numbers of a recipe may go, so that a signed recipe can be trained, packaged and served.

1. **Constants are public.** Every number that stands for the task, the robot or the weight of a class has at
   most three significant digits, as those of a normaliser: a learned statistic shows as more. It is no larger
   than a robot's could be in its unit (`UNIT_MOST`), nor is what the clip lets through, so that neither clip
   nor clamp can be written away.
2. **Work per frame is bounded**: values that a model reads of a frame, values that its operations look at,
   and the size of an ``act-small/1``, whose cost goes with tokens times parameters.
3. **Safety limits fit the outputs** of every embodiment: a bound of change for each output, and a fallback
   that the outputs have a value for. Only a rate can be told to be zero, and only a position or a gripper to
   stay: a torque, a force or a current that is held goes on pushing, so with these the fallback is ``stop``.

    check_constants(recipe, part, "variants.0.")
    check_work(recipe_of_a_site, "variants.0.")
    check_package(recipe, part, "variants.0.")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.limits import (
    ACT_PARAMETERS,
    ACT_TOKENS,
    CLASS_WEIGHT,
    FRAME_VALUES,
    MODEL_INPUTS,
    RECIPE_CLIP,
)
from policies.recipe.architectures import ActSmall
from policies.recipe.blocks import BinaryLoss, ClassLoss, Output
from policies.recipe.errors import bad_constant, invalid
from policies.recipe.features import DiffFeature, HistoryFeature, RawFeature, SignSoftFeature
from policies.recipe.words import UNIT_MOST, plain_constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.recipe.blocks import Package, Variant
    from policies.recipe.document import Recipe
    from policies.recipe.features import Feature, Normaliser

__all__ = ["KEPT", "POSITIONS", "RATES", "check_constants", "check_package", "check_work"]

RATES: Final = frozenset({"tcp_pose_delta", "tcp_vel", "joint_vel", "joint_acc"})
"""Outputs that are still at zero."""
POSITIONS: Final = frozenset({"joint_pos", "tcp_pos", "tcp_rot"})
"""Outputs that are still where they stay."""
KEPT: Final = frozenset({"gripper_cmd", "gripper_width"})
"""Outputs that stay as they are, whatever the fallback is."""
Number = tuple[str, str, float]  # where, text, most


def check_constants(recipe: Recipe, part: Recipe | Variant, where: str) -> None:
    """Refuses constants that look learned, and those that no robot reaches.

    Raises:
        RecipeNormaliserError: With the place.
    """
    for at, text, most in (*_of_recipe(recipe), *_of_part(part, where)):
        try:
            plain_constant(text)
        except ValueError as error:
            raise bad_constant(at, str(error), text) from error
        if abs(float(text)) > most:
            raise bad_constant(at, f"at most {most:g}", text)
    for at, reach, most in _reaches(recipe, part, where):
        if reach > most:
            raise bad_constant(at, f"an input that is cut at {most:g} or below", f"{reach:.3g}")


def _reaches(recipe: Recipe, part: Recipe | Variant, where: str) -> Iterator[tuple[str, float, float]]:
    """Where the clip cuts a field, or a difference of two, in its unit: beyond it no guard sees a fault."""
    clip, units = float(recipe.clip), {one.field: UNIT_MOST[one.unit] for one in part.inputs}
    for number, feature in enumerate(part.features):
        one = feature.normaliser
        if not isinstance(feature, RawFeature | HistoryFeature | DiffFeature) or one.rule == "limit":
            continue
        gain = float(feature.gain) if isinstance(feature, DiffFeature) else 1.0
        reach = max(abs(float(c)) + clip * float(s) for c, s in zip(one.centre, one.scale, strict=True))
        yield f"{where}features.{number}", reach / gain, units[feature.sources[0]]


def _of_recipe(recipe: Recipe) -> Iterator[Number]:
    yield "clip", recipe.clip, RECIPE_CLIP
    if isinstance(recipe.loss, BinaryLoss):
        yield "loss.positive_weight", recipe.loss.positive_weight, CLASS_WEIGHT
    if isinstance(recipe.loss, ClassLoss):
        yield from (("loss.weights", one, CLASS_WEIGHT) for one in recipe.loss.weights)
    if recipe.quality is not None and recipe.quality.tracking_p95 is not None:
        yield "quality.tracking_p95", recipe.quality.tracking_p95, max(UNIT_MOST.values())
    if recipe.package is not None:
        yield from _of_package(recipe.package, "package")


def _of_part(part: Recipe | Variant, where: str) -> Iterator[Number]:
    units = {one.field: UNIT_MOST[one.unit] for one in part.inputs}
    for number, feature in enumerate(part.features):
        at, most = f"{where}features.{number}", units[feature.sources[0]]
        if isinstance(feature, SignSoftFeature):
            yield f"{at}.v", feature.v, most
        if isinstance(feature, RawFeature | HistoryFeature):
            yield from _of_normaliser(feature.normaliser, f"{at}.normaliser", most)
    for number, output in enumerate(part.outputs):
        at, most = f"{where}outputs.{number}", UNIT_MOST[output.unit]
        yield from _of_normaliser(output.normaliser, f"{at}.normaliser", most)
        texts = (output.limit,) if isinstance(output.limit, str) else output.limit
        yield from ((f"{at}.limit", one, most) for one in texts)
    if where and part.package is not None:
        yield from _of_package(part.package, f"{where}package")


def _of_normaliser(one: Normaliser, at: str, most: float) -> Iterator[Number]:
    yield from ((at, text, most) for text in (*one.low, *one.high, *one.centre, *one.scale))


def _of_package(package: Package, at: str) -> Iterator[Number]:
    yield f"{at}.ood_share_max", package.ood_share_max, 1.0
    most = max(UNIT_MOST.values())
    yield from ((f"{at}.max_delta_per_tick", one, most) for one in package.max_delta_per_tick or ())


def check_work(recipe: Recipe, where: str) -> None:
    """Refuses a recipe whose model of one site would cost more per frame than a site can be asked for.

    Raises:
        RecipeInvalidError: With the bound.
    """
    if recipe.input_size > MODEL_INPUTS:
        raise invalid(f"{where}features of at most {MODEL_INPUTS} values of a frame", f"{recipe.input_size}")
    looked_at = sum(_looked_at(one) for one in recipe.features)
    if looked_at > FRAME_VALUES:
        raise invalid(f"{where}features that look at most at {FRAME_VALUES} values", f"{looked_at}")
    if not isinstance(recipe.architecture, ActSmall):
        return
    if recipe.chunk > ACT_TOKENS:
        raise invalid(f"architecture.args.chunk at most {ACT_TOKENS} of act-small/1", f"{recipe.chunk}")
    if recipe.own_parameters > ACT_PARAMETERS:
        raise invalid(f"act-small/1 of at most {ACT_PARAMETERS} values", f"{recipe.own_parameters}")


def _looked_at(feature: Feature) -> int:
    """Values that an operation reads for one frame: its window, times the coordinates of its field."""
    window = max(feature.past + 1, len(feature.sources))
    return window * len(feature.normaliser.centre)


def check_package(recipe: Recipe, part: Recipe | Variant, where: str) -> None:
    """Refuses safety limits that no package of this embodiment could keep.

    Raises:
        RecipeInvalidError: With the place.
    """
    package = part.package or recipe.package
    if package is None:
        return
    bounds, size = package.max_delta_per_tick, sum(one.size for one in part.outputs)
    if bounds is not None and len(bounds) != size:
        raise invalid(f"{where}package.max_delta_per_tick: {size}, one for each output", str(len(bounds)))
    if package.fallback == "stop":
        return
    held = KEPT if package.fallback == "zero-velocity" else KEPT | POSITIONS
    strange = [one.field for one in part.outputs if one.field not in RATES | held]
    strange += [f"{one.field}, whose limits leave out 0" for one in _moving(part.outputs)]
    if strange:
        raise invalid(
            f"{where}package.fallback stop, or outputs that {package.fallback} has a value for",
            ", ".join(strange),
        )


def _moving(outputs: Sequence[Output]) -> list[Output]:
    """Rates that are clamped to an interval without zero: they cannot be still."""
    return [
        one
        for one in outputs
        if one.field in RATES
        and any(abs(float(c)) > most for c, most in zip(one.normaliser.centre, one.limits, strict=True))
    ]
