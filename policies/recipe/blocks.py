# SPDX-License-Identifier: Apache-2.0
"""Small blocks of a recipe: task, outputs, tensors, start, loss, and what data and packages must keep.

``quality``, ``package``, ``loss`` and ``variants`` may be absent, which means none; they are never null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from policies.limits import MODEL_PARAMETERS, WATCHDOG_MS
from policies.privacy.plan import PositiveDec  # noqa: TC001  pydantic reads annotations at run time
from policies.recipe.features import Feature, InputField, Normaliser  # noqa: TC001
from policies.recipe.words import FIELD_SIZE, Block, DigestText, FieldName, Name, PartDec, Size, UnitName

__all__ = [
    "BaseStart",
    "BinaryLoss",
    "ClassLoss",
    "Loss",
    "MseLoss",
    "NmseLoss",
    "Output",
    "Package",
    "Quality",
    "SeedStart",
    "Start",
    "Task",
    "TensorSpec",
    "Variant",
]


_CLASSES: Final = 32
_VARIANTS: Final = 16
_LICENCE_CHARS: Final = 200
EmbodimentClass = Annotated[str, StringConstraints(pattern=r"^[a-z0-9+-]{1,60}$")]
CheckName = Literal[
    "schema", "time", "frozen", "saturation", "lag", "tracking", "idle", "jumps", "duplicates", "lengths",
    "limits", "personal",
]  # fmt: skip


class Task(Block):
    """What is learned, in words that the catalogue uses."""

    kind: Literal["behaviour-cloning", "inverse-dynamics", "detection"]
    name: Name
    embodiment_class: EmbodimentClass


class Output(Block):
    """A field of the action, or of what is predicted. The output is clamped to ``centre ± limit`` (SI).

    Attributes:
        limit: One for all coordinates, or one for each.
    """

    field: FieldName
    size: Size
    unit: UnitName
    normaliser: Normaliser
    limit: PositiveDec | Sequence[PositiveDec]

    @property
    def limits(self) -> tuple[float, ...]:
        """The limit of each coordinate."""
        if isinstance(self.limit, str):
            return (float(self.limit),) * self.size
        return tuple(float(one) for one in self.limit)

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if not isinstance(self.limit, str) and len(self.limit) != self.size:
            raise ValueError("one limit, or one for each coordinate")
        return self


class TensorSpec(Block):
    """One tensor of the model, in wire order. A private one has no place on the wire."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,60}$")]
    shape: Sequence[Annotated[int, Field(strict=True, ge=1, le=MODEL_PARAMETERS)]]
    dtype: Literal["float32"]
    scope: Literal["shared", "private"]
    block: Literal["stem", "trunk", "head"]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_shared(self) -> bool:
        """Whether it travels."""
        return self.scope == "shared"


class SeedStart(Block):
    """Where training begins: at a model that was fitted to openly donated episodes.

    Attributes:
        seed_set: Digest of the openly donated episodes (`policies.seeds`).
        model: Digest of the weights that were fitted to them, little-endian float32: what every node begins
            with. They come from open data alone, so they cost no budget.
    """

    seed_set: DigestText
    model: DigestText


class BaseStart(Block):
    """Where training begins: at a public checkpoint.

    Attributes:
        base: Digest of its weights, little-endian float32 in wire order; the bytes are an annex of the
            contract. It was made of public data, or of data that are spent already: it costs no budget.
        licence: Under which everybody may use it.
    """

    base: DigestText
    licence: Annotated[str, StringConstraints(min_length=1, max_length=_LICENCE_CHARS)]

    @property
    def model(self) -> str:
        """Digest of the weights, as `SeedStart` calls it."""
        return self.base

    @property
    def seed_set(self) -> None:
        """None: no episodes stand behind it."""
        return

    @model_validator(mode="after")
    def _shows(self) -> Self:
        if not self.licence.isprintable() or self.licence != self.licence.strip():
            raise ValueError("a licence in one line that shows, without outer blanks")
        return self


Start = SeedStart | BaseStart


class MseLoss(Block):
    """Mean squared error of normalised outputs; zero beyond the end of the episode."""

    kind: Literal["mse"]


class NmseLoss(Block):
    """Squared error per joint in units of its public scale, which must follow from a ``limit``; the mean."""

    kind: Literal["nmse"]


class _LabelLoss(Block):
    """What both losses of detection have.

    Attributes:
        label: A label of the store. What is unknown is masked: never "false".
        per: ``frame``, or ``episode``: then every frame has the episode's last known value for target, and
            an episode's score is the mean over its frames.
    """

    label: FieldName
    per: Literal["frame", "episode"]


class BinaryLoss(_LabelLoss):
    """Cross-entropy of one logit; frames where the label is true count ``positive_weight`` times."""

    kind: Literal["bce"]
    positive_weight: PositiveDec

    @property
    def outputs(self) -> int:
        """Logits."""
        return 1


class ClassLoss(_LabelLoss):
    """Cross-entropy of a logit per class, each class with its weight; the label holds the class's number."""

    kind: Literal["cross-entropy"]
    classes: Annotated[Sequence[Name], Field(min_length=2, max_length=_CLASSES)]
    weights: Sequence[PositiveDec]

    @property
    def outputs(self) -> int:
        """Logits."""
        return len(self.classes)

    @model_validator(mode="after")
    def _each(self) -> Self:
        if len(self.weights) != len(self.classes) or len(set(self.classes)) != len(self.classes):
            raise ValueError("each class once, with a weight")
        return self


Loss = Annotated[MseLoss | NmseLoss | BinaryLoss | ClassLoss, Field(discriminator="kind")]


class Quality(Block):
    """What a data set's certificate has to say before it may be trained on.

    Attributes:
        require: Checks that must be ``PASS``.
        accept_undetermined: Of these, the checks that may be ``UNDETERMINED``: said openly.
        tracking_p95: Bound of the check ``tracking``: 95 of 100 frames follow their command within it (SI).
    """

    require: Annotated[Sequence[CheckName], Field(min_length=1, max_length=12)]
    accept_undetermined: Annotated[Sequence[CheckName], Field(max_length=12)]
    tracking_p95: PositiveDec | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        required, accepted = list(self.require), list(self.accept_undetermined)
        if (
            len({*required}) != len(required)
            or len({*accepted}) != len(accepted)
            or {*accepted} - {*required}
        ):
            raise ValueError("each check once; undetermined is accepted of required checks only")
        return self


class Package(Block):
    """Safety limits of the packages of its models; the loader refuses a package without them.

    Attributes:
        max_delta_per_tick: Most that each coordinate of the action may change in a tick (SI); null: no bound
            beside the clamp.
        watchdog_ms: Age of an observation from which the fallback answers.
        fallback: What the fallback is.
        ood_share_max: Share of inputs beyond the clip from which the fallback answers.
    """

    max_delta_per_tick: Annotated[Sequence[PositiveDec], Field(min_length=1, max_length=FIELD_SIZE)] | None
    watchdog_ms: Annotated[int, Field(strict=True, ge=1, le=WATCHDOG_MS)]
    fallback: Literal["hold", "zero-velocity", "stop"]
    ood_share_max: PartDec


class Variant(Block):
    """One embodiment that shares the trunk: what it observes and does, and the tensors that stay at home.

    Attributes:
        tensors: The private tensors, stem and head, in the order of the model.
        package: Safety limits of this variant, in place of the recipe's; absent: the recipe's.
    """

    name: Name
    embodiment_class: EmbodimentClass
    inputs: Annotated[Sequence[InputField], Field(min_length=1, max_length=FIELD_SIZE)]
    features: Annotated[Sequence[Feature], Field(min_length=1, max_length=FIELD_SIZE)]
    outputs: Annotated[Sequence[Output], Field(max_length=FIELD_SIZE)]
    tensors: Annotated[Sequence[TensorSpec], Field(min_length=1, max_length=64)]
    package: Package | None = None


Variants = Annotated[Sequence[Variant], Field(min_length=1, max_length=_VARIANTS)]
