# SPDX-License-Identifier: Apache-2.0
"""The recipe: what is trained, on which fields, how, and under which privacy plan. Data, never code.

- Canonical JSON (``iriai-recipe/1``); its digest stands in the contract. `load` accepts exactly the canonical
  bytes, every field spelled out, unknown fields refused.
- An architecture id names code that is installed on the node. The wire manifest is `Recipe.tensors`: a tensor
  that is not listed has no place in an update.
- Normalisers are public constants chosen by rule, never learned from private data (robot-data-and-models.md,
  section 7): ``task-box`` and ``limit`` state their interval, and centre and scale must follow from it
  (middle, half / sqrt 3, rounded); ``approach`` states the distance that the task needs. Learned statistics
  would show as long decimals: at most three significant digits are allowed.
- With a plan there is one noisy step per round and the server descends a gradient (``adam`` with ``update:
  gradient``); without one, nodes run local steps and send a difference of weights, which the server adds
  (``mean``, ``momentum``, ``adam`` with ``update: difference``). Nothing mixes.
- Without a plan the names of the field are: FedAvg is ``mean``, FedAvgM ``momentum``, FedAdam ``adam``
  (`policies.server_step` says how the numbers map); each with ``proximal`` in ``train`` is also FedProx.

    recipe = load(data)                   # RecipeError, privacy.plan-incomplete
    recipe.digest, recipe.plan, recipe.evaluation, recipe.rounds, recipe.need, recipe.deadline_s
"""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003  pydantic reads annotations at run time
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from policies.encoding import Json, digest, parse
from policies.errors import EncodingError, IriaiError
from policies.limits import (
    ACTION_CHUNK,
    MODEL_PARAMETERS,
    PARTIES,
    RECIPE_BYTES,
    RECIPE_ROUNDS,
    ROUND_DEADLINE_S,
)
from policies.privacy.constants import asked_statistic, private_statistic
from policies.privacy.errors import EvalUnplannedError, PlanIncompleteError
from policies.privacy.plan import Dec, DpPlan, EvalPlan, PositiveDec, ProbabilityDec
from policies.privacy.plan_refusals import refuse_search

__all__ = [
    "FIELD_NAMES",
    "DiffFeature",
    "MlpChunk",
    "Output",
    "RawFeature",
    "Recipe",
    "RecipeError",
    "RecipeInvalidError",
    "RecipeManifestError",
    "RecipeNormaliserError",
    "ServerAdam",
    "ServerMean",
    "ServerMomentum",
    "TensorSpec",
    "UnknownArchitectureError",
    "load",
    "manifest",
]

FIELD_NAMES = frozenset(
    [
        "joint_pos",
        "joint_vel",
        "joint_acc",
        "joint_torque",
        "joint_current",
        "joint_temp",
        "tcp_pos",
        "tcp_rot",
        "tcp_vel",
        "tcp_force",
        "tcp_pose_delta",
        "gripper_width",
        "gripper_cmd",
        "tool_current",
        "object_pos",
        "goal_pos",
        "payload_mass",
        "speed_scaling",
        "robot_mode",
        "safety_mode",
        "weld_current_norm",
        "weld_voltage_norm",
        "outcome",
    ]
)
_NO_CONSTANTS = frozenset({"a", "architecture", "b", "field", "server", "task", "tensors", "train"})
_FIELD_SIZE = 64
_WIDTH = 1024
_SIGNIFICANT = 3
_RULE_TOLERANCE = 0.02  # constants are rounded to two digits


class RecipeError(IriaiError):
    """Root of what is refused about a recipe."""

    code = "recipe.refused"
    exit_code = 3
    http_status = 422


class RecipeInvalidError(RecipeError):
    """Not the canonical bytes of a complete recipe, or blocks that do not fit each other."""

    code = "recipe.invalid"


class UnknownArchitectureError(RecipeError):
    """The architecture id names no code of this version."""

    code = "recipe.unknown-architecture"


class RecipeManifestError(RecipeError):
    """The tensor manifest is not that of the architecture."""

    code = "recipe.manifest-mismatch"


class RecipeNormaliserError(RecipeError):
    """Constants that do not follow from a public rule, so perhaps from private data."""

    code = "recipe.private-normaliser"
    exit_code = 4


def _constant(text: str) -> str:
    """A constant of a normaliser: plain decimal, signed, at most three significant digits."""
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError("a decimal as a string") from error
    digits = text.lstrip("-").replace(".", "").lstrip("0").rstrip("0")
    plain = format(value, ".9f").rstrip("0").rstrip(".")
    if not math.isfinite(value) or plain != text or text == "-0":
        raise ValueError(f"plain notation, {plain!r}")
    if len(digits) > _SIGNIFICANT:
        raise ValueError(
            "a public constant of at most three significant digits (learned statistics have more)"
        )
    return text


def _part(text: str) -> str:
    if float(text) > 1:
        raise ValueError("from 0 to 1")
    return text


PartDec = Annotated[Dec, AfterValidator(_part)]
Constant = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,6}(\.[0-9]{1,9})?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
UnitName = Literal["m", "rad", "N", "Nm", "A", "s", "K", "1", "m/s", "rad/s"]
Size = Annotated[int, Field(strict=True, ge=1, le=_FIELD_SIZE)]
DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Whole = Annotated[int, Field(strict=True, ge=1, le=RECIPE_ROUNDS)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ignored_types=(cached_property,))


class Normaliser(_Block):
    """``z = (x - centre) / scale`` per coordinate, all public constants.

    Attributes:
        rule: ``task-box`` (a workspace of the task), ``limit`` (of the robot), ``approach`` (a distance that
            the task needs).
        low: Lower end of the interval per coordinate; empty for ``approach``.
        high: Upper end, likewise.
    """

    rule: Literal["task-box", "limit", "approach"]
    low: Sequence[Constant]
    high: Sequence[Constant]
    centre: Sequence[Constant]
    scale: Sequence[Constant]

    def check(self, size: int, where: str) -> None:
        """Refuses constants that the rule does not give.

        Raises:
            RecipeNormaliserError: With the place.
        """
        for text in (*self.low, *self.high, *self.centre, *self.scale):
            try:
                _constant(text)
            except ValueError as error:
                raise _bad_constant(where, str(error), text) from error
        if len(self.centre) != size or len(self.scale) != size or any(float(s) <= 0 for s in self.scale):
            raise _bad_constant(where, f"{size} centres and {size} scales above 0", "others")
        expected = 0 if self.rule == "approach" else size
        if len(self.low) != expected or len(self.high) != expected:
            raise _bad_constant(where, f"{expected} interval ends under rule {self.rule}", "others")
        for low, high, centre, scale in zip(self.low, self.high, self.centre, self.scale, strict=False):
            self._follows(float(low), float(high), float(centre), float(scale), where)

    def _follows(self, low: float, high: float, centre: float, scale: float, where: str) -> None:
        half = (high - low) / 2
        fits = half > 0 and abs(centre - (low + high) / 2) <= _RULE_TOLERANCE * half
        if not fits or abs(scale - half / math.sqrt(3)) > _RULE_TOLERANCE * half:
            raise _bad_constant(
                where,
                f"the middle and half / sqrt 3 of [{low}, {high}]",
                f"centre {centre}, scale {scale}",
            )


def _bad_constant(where: str, need: str, found: str) -> RecipeNormaliserError:
    return RecipeNormaliserError(
        need=f"{where}: {need}",
        found=found,
        remedy="take constants from the task's drawing or the robot's limits, never from recordings",
    )


class InputField(_Block):
    """A recorded field that the recipe reads."""

    field: FieldName
    size: Size
    unit: UnitName


class RawFeature(_Block):
    """The field itself."""

    op: Literal["raw"]
    field: FieldName
    normaliser: Normaliser


class DiffFeature(_Block):
    """``gain * (a - b)`` of two fields of one size."""

    op: Literal["diff"]
    a: FieldName
    b: FieldName
    gain: Constant
    normaliser: Normaliser


class Output(_Block):
    """A field of the action. The policy's output is clamped to ``centre ± limit`` (SI)."""

    field: FieldName
    size: Size
    unit: UnitName
    normaliser: Normaliser
    limit: PositiveDec


class Task(_Block):
    """What is learned, in words that the catalogue uses."""

    kind: Literal["behaviour-cloning"]
    name: Name
    embodiment_class: Annotated[str, StringConstraints(pattern=r"^[a-z0-9+-]{1,60}$")]


class MlpChunkArgs(_Block):
    """Arguments of ``mlp-chunk/1``."""

    width: Annotated[int, Field(strict=True, ge=1, le=_WIDTH)]
    chunk: Annotated[int, Field(strict=True, ge=1, le=ACTION_CHUNK)]
    execute: Annotated[int, Field(strict=True, ge=1, le=ACTION_CHUNK)]
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]


class MlpChunk(_Block):
    """Two hidden tanh layers, then a chunk of the next ``chunk`` actions, of which ``execute`` are run."""

    id: Literal["mlp-chunk/1"]
    args: MlpChunkArgs


class TensorSpec(_Block):
    """One tensor of the model, in wire order."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,60}$")]
    shape: Sequence[Annotated[int, Field(strict=True, ge=1, le=MODEL_PARAMETERS)]]
    dtype: Literal["float32"]
    scope: Literal["shared"]
    block: Literal["stem", "trunk", "head"]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Start(_Block):
    """Where training begins, if not at weights drawn from the architecture's seed.

    Attributes:
        seed_set: Digest of the openly donated episodes (`policies.seeds`).
        model: Digest of the weights that were fitted to them, little-endian float32: what every node begins
            with. They come from open data alone, so they cost no budget.
    """

    seed_set: DigestText
    model: DigestText


class TrainDp(_Block):
    """Private rounds: one noisy step of the plan; no other knob touches the data."""

    kind: Literal["dp-step"]


class TrainAdam(_Block):
    """Non-private rounds: local Adam with fresh state, learning rate by cosine over the rounds.

    Attributes:
        proximal: mu of FedProx: each local step also descends ``mu / 2 * norm(w - w_round)^2``, which holds
            local weights near the round's base model; null or 0 adds nothing.
    """

    kind: Literal["adam-local"]
    local_steps: Whole
    batch: Whole
    rate_first: PositiveDec
    rate_last: PositiveDec
    weight_decay: PositiveDec
    proximal: Dec | None


class ServerMean(_Block):
    """FedAvg: model += mean."""

    kind: Literal["mean"]


class ServerMomentum(_Block):
    """FedAvgM: v = decay v + mean; model += rate v. Decay 0 is FedAvg at a server's rate."""

    kind: Literal["momentum"]
    decay: PartDec
    rate: PositiveDec


class ServerAdam(_Block):
    """Adam on the mean; rate falls by ``decay`` over ``steps``; the running average is released.

    Attributes:
        update: What the mean is of: a ``gradient`` is descended, a ``difference`` of weights is added
            (FedAdam). It follows from the plan and is written all the same, because it is a sign.
        decay: Part of the rate that is gone at the end; 0 keeps it.
        average: Weight of the past in what is released; 0 releases the last weights.
    """

    kind: Literal["adam"]
    update: Literal["gradient", "difference"]
    rate: PositiveDec
    decay: PartDec
    beta1: ProbabilityDec
    beta2: ProbabilityDec
    epsilon: PositiveDec
    average: PartDec
    steps: Whole

    @model_validator(mode="after")
    def _below_one(self) -> Self:
        if any(float(beta) >= 1 for beta in (self.beta1, self.beta2, self.average)):
            raise ValueError("beta1, beta2 and average below 1")
        return self


class Recipe(_Block):
    """A loaded recipe; make it with `load`.

    Attributes:
        rate_hz: Time base that every node brings its episodes to before frames are drawn, so that their
            number says nothing about a cycle time; null takes them as recorded.
        start: The model that training begins with; null: weights drawn from the architecture's seed.
    """

    schema_: Literal["iriai-recipe/1"] = Field(alias="schema")
    task: Task
    architecture: MlpChunk
    inputs: Annotated[Sequence[InputField], Field(min_length=1, max_length=_FIELD_SIZE)]
    features: Annotated[
        Sequence[Annotated[RawFeature | DiffFeature, Field(discriminator="op")]],
        Field(min_length=1, max_length=_FIELD_SIZE),
    ]
    outputs: Annotated[Sequence[Output], Field(min_length=1, max_length=_FIELD_SIZE)]
    clip: PositiveDec
    rate_hz: PositiveDec | None
    start: Start | None
    tensors: Annotated[Sequence[TensorSpec], Field(min_length=1, max_length=1024)]
    train: Annotated[TrainDp | TrainAdam, Field(discriminator="kind")]
    server: Annotated[ServerMean | ServerMomentum | ServerAdam, Field(discriminator="kind")]
    rounds: Whole
    need: Annotated[int, Field(strict=True, ge=1, le=PARTIES)]
    deadline_s: Annotated[int, Field(strict=True, ge=1, le=ROUND_DEADLINE_S)]
    plan_document: dict[str, Any] | None = Field(alias="plan")
    evaluation_document: dict[str, Any] = Field(alias="evaluation")

    _plan: DpPlan | None = PrivateAttr(default=None)
    _evaluation: EvalPlan = PrivateAttr()
    _canonical: bytes = PrivateAttr(default=b"")

    def attach(self, data: bytes) -> None:
        """Loads the two plans; called once, by `load`.

        Raises:
            PrivacyError: A plan is refused.
        """
        self._canonical = data
        if self.plan_document is not None:
            self._plan = DpPlan.load(self.plan_document)
        self._evaluation = EvalPlan.load(self.evaluation_document)

    @property
    def canonical(self) -> bytes:
        """The bytes that the digest is taken over."""
        return self._canonical

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes."""
        return digest(self._canonical)

    @property
    def plan(self) -> DpPlan | None:
        """The privacy plan, or None: then every artefact says NOT PRIVATE."""
        return self._plan

    @property
    def evaluation(self) -> EvalPlan:
        """The plan of the one noised query per candidate."""
        return self._evaluation

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all recorded fields that enter a training tensor, sorted."""
        return tuple(sorted({f.field for f in self.inputs} | {o.field for o in self.outputs}))

    @property
    def parameters(self) -> int:
        """Length of the flat vector of weights."""
        return sum(spec.size for spec in self.tensors)

    @property
    def input_size(self) -> int:
        """Values per frame after the features."""
        return sum(len(feature.normaliser.centre) for feature in self.features)

    @property
    def output_size(self) -> int:
        """Values per action."""
        return sum(output.size for output in self.outputs)

    @property
    def local_steps(self) -> int:
        """Optimiser steps that a node runs per round."""
        return self._plan.steps_per_round if self._plan else getattr(self.train, "local_steps", 1)

    @property
    def is_private(self) -> bool:
        """Whether a claim of differential privacy may be made for its model."""
        return self._plan is not None and not self._plan.test_only


def load(data: bytes) -> Recipe:
    """The recipe behind canonical bytes.

    Checks, in this order: size and canonical form; schema; privacy plan and evaluation plan; architecture;
    fields and
    features; normalisers; tensor manifest; plan, train and server blocks fit each other.

    Raises:
        RecipeInvalidError: Not canonical, incomplete, or blocks that do not fit.
        UnknownArchitectureError: The id is not installed.
        RecipeNormaliserError: Constants do not follow from their rule.
        PrivateStatisticError: A constant is asked for by the name of a statistic ("auto", mean, min, max).
        RecipeManifestError: The tensors are not those of the architecture.
        EvalUnplannedError: No evaluation plan.
        PrivacyError: The plan is refused (`DpPlan.load`).
    """
    if len(data) > RECIPE_BYTES:
        raise _invalid(f"at most {RECIPE_BYTES} bytes", f"{len(data)}")
    try:
        document = parse(data)
    except EncodingError as error:
        raise _invalid(error.need, error.found) from error
    _check_heads(document)
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _invalid(f"{where}: {first['msg']}", repr(first["input"])[:80]) from error
    recipe.attach(data)
    _check_fields(recipe)
    _check_manifest(recipe)
    _check_fit(recipe)
    return recipe


def manifest(*, input_size: int, output_size: int, width: int, chunk: int) -> list[dict[str, Json]]:
    """Tensor manifest of ``mlp-chunk/1`` in wire order, as JSON values."""
    rows = [
        ("stem.weight", [width, input_size], "stem"),
        ("stem.bias", [width], "stem"),
        ("trunk.weight", [width, width], "trunk"),
        ("trunk.bias", [width], "trunk"),
        ("head.weight", [chunk * output_size, width], "head"),
        ("head.bias", [chunk * output_size], "head"),
    ]
    return [
        {"name": name, "shape": shape, "dtype": "float32", "scope": "shared", "block": block}
        for name, shape, block in rows
    ]


def _invalid(need: str, found: str) -> RecipeInvalidError:
    return RecipeInvalidError(
        need=need,
        found=found,
        remedy="correct the recipe; its digest changes, so the contract must name the new one",
    )


def _check_heads(document: Json) -> None:
    """What deserves an own error before the schema speaks."""
    if not isinstance(document, dict):
        raise _invalid("a JSON object", type(document).__name__)
    if document.get("evaluation") is None:
        raise EvalUnplannedError(
            need="an evaluation plan",
            found="none",
            remedy="add an EvalPlan: every candidate is judged under one",
        )
    if "plan" not in document:
        raise PlanIncompleteError(
            need="a plan, or null",
            found="no such key",
            remedy='write "plan": null for a recipe without privacy',
        )
    if document["plan"] is not None:
        refuse_search(document)
    asked = asked_statistic(document, names=_NO_CONSTANTS)
    if asked:
        raise private_statistic(asked, "write the number; its digest is what the parties sign")
    architecture = document.get("architecture")
    name = architecture.get("id") if isinstance(architecture, dict) else None
    if isinstance(name, str) and name != "mlp-chunk/1":
        raise UnknownArchitectureError(
            need="mlp-chunk/1", found=name[:60], remedy="update the node, or name another"
        )


def _check_fields(recipe: Recipe) -> None:
    sizes = {f.field: f.size for f in recipe.inputs}
    named = [f.field for f in recipe.inputs] + [o.field for o in recipe.outputs]
    foreign = sorted(set(named) - FIELD_NAMES)
    if foreign or len(set(named)) != len(named):
        raise _invalid("each field once, from the closed list", ", ".join(foreign) or "a field twice")
    used = set()
    for number, feature in enumerate(recipe.features):
        sources = (feature.field,) if isinstance(feature, RawFeature) else (feature.a, feature.b)
        if any(name not in sizes for name in sources) or len({sizes[name] for name in sources}) != 1:
            raise _invalid(f"features.{number}: input fields of one size", ", ".join(sources))
        if isinstance(feature, DiffFeature):
            _positive_gain(feature.gain, number)
        feature.normaliser.check(sizes[sources[0]], f"features.{number}")
        used |= set(sources)
    if used != set(sizes):
        raise _invalid("every input in a feature", ", ".join(sorted(set(sizes) - used)))
    for number, output in enumerate(recipe.outputs):
        output.normaliser.check(output.size, f"outputs.{number}")


def _positive_gain(gain: str, number: int) -> None:
    try:
        _constant(gain)
    except ValueError as error:
        raise _invalid(f"features.{number}.gain: {error}", gain) from error
    if float(gain) <= 0:
        raise _invalid(f"features.{number}.gain above 0", gain)


def _check_manifest(recipe: Recipe) -> None:
    args = recipe.architecture.args
    expected = manifest(
        input_size=recipe.input_size, output_size=recipe.output_size, width=args.width, chunk=args.chunk
    )
    found = [spec.model_dump(mode="json") for spec in recipe.tensors]
    if found != expected or recipe.parameters > MODEL_PARAMETERS:
        wrong = next((e["name"] for e, f in zip(expected, found, strict=False) if e != f), "their number")
        raise RecipeManifestError(
            need=f"the tensors of mlp-chunk/1, at most {MODEL_PARAMETERS} values",
            found=f"another {wrong}",
            remedy="write the manifest that the architecture gives",
        )


def _check_fit(recipe: Recipe) -> None:
    args, plan, server = recipe.architecture.args, recipe.plan, recipe.server
    if args.execute > args.chunk:
        raise _invalid("execute at most chunk", f"{args.execute} of {args.chunk}")
    update = "difference" if plan is None else "gradient"
    if isinstance(server, ServerAdam) and server.update != update:
        raise _invalid(f"server.update {update}: what nodes of this recipe send", server.update)
    if plan is None:
        if not isinstance(recipe.train, TrainAdam):
            raise _invalid("train adam-local without a plan", recipe.train.kind)
        return
    if not isinstance(recipe.train, TrainDp) or not isinstance(server, ServerAdam):
        raise _invalid("train dp-step and server adam with a plan", "other kinds")
    if plan.steps_per_round != 1:
        raise _invalid("steps_per_round 1", str(plan.steps_per_round))
    if recipe.rounds * plan.steps_per_round > plan.steps:
        raise _invalid(
            "rounds * steps_per_round at most the plan's steps", f"{recipe.rounds} rounds, {plan.steps} steps"
        )
