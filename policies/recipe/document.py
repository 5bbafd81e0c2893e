# SPDX-License-Identifier: Apache-2.0
"""`Recipe`: the loaded document, and the same document as one site with its own embodiment reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from policies.encoding import digest
from policies.limits import PARTIES, ROUND_DEADLINE_S
from policies.privacy.plan import DpPlan, EvalPlan, PositiveDec
from policies.recipe.architectures import Architecture  # noqa: TC001  pydantic reads annotations at run time
from policies.recipe.blocks import (
    BinaryLoss,
    ClassLoss,
    Loss,
    MseLoss,
    NmseLoss,
    Output,
    Package,
    Quality,
    Start,
    Task,
    TensorSpec,
    Variant,
    Variants,
)
from policies.recipe.errors import RecipeVariantError
from policies.recipe.features import Feature, InputField  # noqa: TC001
from policies.recipe.training import Server, Train  # noqa: TC001  pydantic reads annotations
from policies.recipe.words import FIELD_SIZE, Block, Whole

__all__ = ["Recipe"]


class Recipe(Block):
    """A loaded recipe; make it with `load`.

    With ``variants`` the document's own ``inputs``, ``features`` and ``outputs`` are empty and ``tensors``
    lists the shared trunk; `site` gives the recipe as the holder of some data reads it, with the variant's
    blocks and all tensors of its model. Digest and canonical bytes stay those of the document.

    Attributes:
        rate_hz: Time base that every node brings its episodes to before frames are drawn, so that their
            number says nothing about a cycle time; null takes them as recorded.
        start: The model that training begins with; null: weights drawn from the architecture's seed.
        loss: What is descended; absent: `MseLoss` for behaviour cloning, `NmseLoss` for inverse dynamics.
        quality: What the certificate of a data set must say; absent: nothing is asked.
        package: Safety limits of model packages; absent: cautious defaults, which the card states.
        variants: Embodiments that share the trunk; absent: all nodes have one embodiment.
    """

    schema_: Literal["iriai-recipe/1"] = Field(alias="schema")
    task: Task
    architecture: Architecture
    inputs: Annotated[Sequence[InputField], Field(max_length=FIELD_SIZE)]
    features: Annotated[Sequence[Feature], Field(max_length=FIELD_SIZE)]
    outputs: Annotated[Sequence[Output], Field(max_length=FIELD_SIZE)]
    clip: PositiveDec
    rate_hz: PositiveDec | None
    start: Start | None
    tensors: Annotated[Sequence[TensorSpec], Field(min_length=1, max_length=1024)]
    train: Train
    server: Server
    rounds: Whole
    need: Annotated[int, Field(strict=True, ge=1, le=PARTIES)]
    deadline_s: Annotated[int, Field(strict=True, ge=1, le=ROUND_DEADLINE_S)]
    loss: Loss | None = None
    quality: Quality | None = None
    package: Package | None = None
    variants: Variants | None = None
    plan_document: dict[str, Any] | None = Field(alias="plan")
    evaluation_document: dict[str, Any] = Field(alias="evaluation")

    _plan: DpPlan | None = PrivateAttr(default=None)
    _evaluation: EvalPlan = PrivateAttr()
    _canonical: bytes = PrivateAttr(default=b"")
    _variant: str | None = PrivateAttr(default=None)

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
    def variant(self) -> str | None:
        """Name of the variant that this is read as; None without variants, or before `site` chose one."""
        return self._variant

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all recorded fields and labels that enter a training tensor, sorted; of all variants."""
        parts: Sequence[Recipe | Variant] = (self.variants or ()) if not self.inputs else (self,)
        named = {one.field for part in parts for one in part.inputs}
        named |= {one.field for part in parts for one in part.outputs}
        return tuple(sorted(named | ({self.label} if self.label else set())))

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the fields that features are made of, as the document lists them; of all variants."""
        parts: Sequence[Recipe | Variant] = (self.variants or ()) if not self.inputs else (self,)
        return tuple(dict.fromkeys(one.field for part in parts for one in part.inputs))

    @property
    def objective(self) -> MseLoss | NmseLoss | BinaryLoss | ClassLoss:
        """What is descended, also where the document leaves it to the kind of the task."""
        if self.loss is not None:
            return self.loss
        if self.task.kind == "inverse-dynamics":
            return NmseLoss(kind="nmse")
        return MseLoss(kind="mse")

    @property
    def label(self) -> str | None:
        """The label that is detected; None for other kinds."""
        return self.loss.label if isinstance(self.loss, BinaryLoss | ClassLoss) else None

    @property
    def parameters(self) -> int:
        """Length of the flat vector that travels: values of the shared tensors, in wire order."""
        return sum(spec.size for spec in self.tensors if spec.is_shared)

    @property
    def own_parameters(self) -> int:
        """Length of the flat vector of the whole model at a site, private tensors in their places."""
        self.need_site()
        return sum(spec.size for spec in self.tensors)

    @property
    def has_private(self) -> bool:
        """Whether a part of the model never leaves a site."""
        return self.variants is not None

    @property
    def input_size(self) -> int:
        """Values per frame after the features."""
        return sum(feature.size for feature in self.features)

    @property
    def output_size(self) -> int:
        """Values per action, or logits per frame."""
        if isinstance(self.loss, BinaryLoss | ClassLoss):
            return self.loss.outputs
        return sum(output.size for output in self.outputs)

    @property
    def chunk(self) -> int:
        """Actions per answer; 1 for kinds that do not act."""
        return self.architecture.args.chunk

    @property
    def execute(self) -> int:
        """Actions of an answer that are run before the next one is asked for."""
        return self.architecture.args.execute

    @property
    def target_size(self) -> int:
        """Values that the model gives per frame: a chunk of actions, or logits."""
        return self.chunk * self.output_size

    @property
    def past(self) -> int:
        """Frames before a frame that its inputs depend on."""
        return max((feature.past for feature in self.features), default=0)

    @property
    def ahead(self) -> int:
        """Frames after a frame that its inputs depend on: 0 for everything that acts."""
        return max((feature.ahead for feature in self.features), default=0)

    @property
    def local_steps(self) -> int:
        """Optimiser steps that a node runs per round."""
        return self._plan.steps_per_round if self._plan else getattr(self.train, "local_steps", 1)

    @property
    def is_private(self) -> bool:
        """Whether a claim of differential privacy may be made for its model."""
        return self._plan is not None and not self._plan.test_only

    def need_site(self) -> None:
        """Refuses a recipe with variants that was not read for a site.

        Raises:
            RecipeVariantError: No variant was chosen.
        """
        if self.variants is not None and self._variant is None:
            raise _misfit("a variant of the recipe", "none chosen for these data")

    def site(self, columns: Collection[str] | Mapping[str, int], embodiment_class: str) -> Recipe:
        """The recipe as the holder of some data reads it; itself without variants.

        Args:
            columns: Fields and labels of the data; as a mapping, with the size of each.
            embodiment_class: Of the data.

        Raises:
            RecipeVariantError: No variant fits, or several do.
        """
        if self.variants is None:
            return self
        fitting = [one for one in self.variants if _fits(one, columns, embodiment_class)]
        if len(fitting) != 1:
            names = ", ".join(one.name for one in fitting) or "none"
            raise _misfit(f"one variant for {embodiment_class} with these fields", names)
        return self.as_variant(fitting[0].name)

    def as_variant(self, name: str) -> Recipe:
        """The recipe as one of its variants reads it.

        Raises:
            RecipeVariantError: It has none of this name.
        """
        chosen = next((one for one in self.variants or () if one.name == name), None)
        if chosen is None:
            raise _misfit("a variant of the recipe", name[:60])
        found = self.model_copy(
            update={
                "inputs": chosen.inputs,
                "features": chosen.features,
                "outputs": chosen.outputs,
                "tensors": _in_model_order(self, chosen),
                "package": chosen.package or self.package,
            }
        )
        found._variant = name  # noqa: SLF001  a copy of its own class
        return found


def _fits(one: Variant, columns: Collection[str] | Mapping[str, int], embodiment_class: str) -> bool:
    if one.embodiment_class != embodiment_class:
        return False
    wanted = {field.field: field.size for field in one.inputs}
    wanted |= {field.field: field.size for field in one.outputs}
    if isinstance(columns, Mapping):
        return all(columns.get(name) == size for name, size in wanted.items())
    return wanted.keys() <= {*columns}


def _in_model_order(recipe: Recipe, chosen: Variant) -> list[TensorSpec]:
    """Stem, trunk, head: as the architecture lists them."""
    private = list(chosen.tensors)
    shared = [one for one in recipe.tensors if one.is_shared]
    stem = [one for one in private if one.block == "stem"]
    return [*stem, *shared, *(one for one in private if one.block != "stem")]


def _misfit(need: str, found: str) -> RecipeVariantError:
    return RecipeVariantError(
        need=need,
        found=found,
        remedy="let the signal map name the embodiment class and fields of a variant, or agree on one more",
    )
