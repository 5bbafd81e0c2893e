# SPDX-License-Identifier: Apache-2.0
"""What a recipe will do, in sentences for people and as facts for programs.

described(recipe)        # ("task       pick-place: …", "reads      …", …)
facts_of(recipe)         # {"recipe", "task", "fields", "parameters", "tensors", …}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.deploy.recipe_facts import DEFAULTS
from policies.privacy.accounting import epsilon_text
from policies.recipe import (
    BaseStart,
    BinaryLoss,
    ClassLoss,
    SeedStart,
    ServerAdam,
    ServerMean,
    ServerMomentum,
    TrainAdam,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.recipe import Recipe, Variant

__all__ = ["described", "facts_of"]

_KINDS: Final = {
    "behaviour-cloning": "imitates what was commanded",
    "inverse-dynamics": "predicts what was measured",
    "detection": "tells the chance of a label",
}


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """What a program asks of a recipe; ``own_parameters`` by variant, and of all sites alike under ``""``."""
    plan = recipe.plan
    return {
        "recipe": recipe.digest,
        "task": recipe.task.model_dump(mode="json"),
        "architecture": recipe.architecture.model_dump(mode="json"),
        "fields": list(recipe.fields),
        "label": recipe.label,
        "parameters": recipe.parameters,
        "own_parameters": {one.variant or "": one.own_parameters for one in _sites(recipe)},
        "tensors": [one.model_dump(mode="json") for one in recipe.tensors],
        "variants": [one.name for one in recipe.variants or ()],
        "rounds": recipe.rounds,
        "need": recipe.need,
        "private": recipe.is_private,
        "epsilon": None if plan is None else epsilon_text(plan.epsilon_rdp),
        "start": None if recipe.start is None else recipe.start.model_dump(mode="json"),
        "quality": None if recipe.quality is None else recipe.quality.model_dump(mode="json"),
    }


def _sites(recipe: Recipe) -> list[Recipe]:
    """The recipe as each of its variants reads it."""
    if recipe.variants is None:
        return [recipe]
    return [recipe.as_variant(one.name) for one in recipe.variants]


def described(recipe: Recipe) -> tuple[str, ...]:
    """What it will do; one thing a line."""
    task = recipe.task
    return (
        f"recipe     {recipe.digest}",
        f"task       {task.name}, {task.kind}: {_KINDS[task.kind]}",
        *(line for one in _sites(recipe) for line in _observed(recipe, one)),
        f"model      {_model(recipe)}",
        f"time base  {f'{recipe.rate_hz} Hz' if recipe.rate_hz else 'frames as they were recorded'}",
        f"training   {_training(recipe)}",
        f"server     {_server(recipe)}",
        f"rounds     {recipe.rounds}, each with at least {recipe.need} sites, within {recipe.deadline_s} s",
        *_privacy(recipe),
        f"judged     {_judged(recipe)}",
        f"quality    {_quality(recipe)}",
        f"start      {_start(recipe)}",
        f"guards     {_guards(recipe)}",
    )


def _observed(recipe: Recipe, part: Recipe) -> Iterator[str]:
    """Embodiment, inputs, features and outputs of a recipe, or of one variant."""
    chosen: Recipe | Variant = part
    if part.variant is None:
        yield f"robot      {part.task.embodiment_class}"
    else:
        chosen = next(one for one in recipe.variants or () if one.name == part.variant)
        yield f"variant    {chosen.name}: {chosen.embodiment_class}"
    yield f"reads      {_listed([f'{one.field} [{one.size}] {one.unit}' for one in part.inputs])}"
    operations = [f"{one.op} {' - '.join(one.sources)}" for one in part.features]
    yield f"features   {part.input_size} values a frame: {_listed(operations)}"
    if isinstance(part.loss, BinaryLoss | ClassLoss):
        yield f"gives      {_label(part.loss)}"
        return
    gives = [f"{one.field} [{one.size}] {one.unit}" for one in part.outputs]
    ahead = f", {part.chunk} frames at once of which {part.execute} are run" if part.chunk > 1 else ""
    yield f"gives      {_listed(gives)}{ahead}"


def _label(loss: BinaryLoss | ClassLoss) -> str:
    if isinstance(loss, BinaryLoss):
        said = f"the chance of {loss.label}; where it is true, a frame counts {loss.positive_weight} times"
    else:
        said = f"the chance of each class of {loss.label}: {_listed(loss.classes)}"
    return f"{said}; by {loss.per}"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing"


def _model(recipe: Recipe) -> str:
    sizes = ", ".join(
        f"{one.own_parameters - one.parameters} of {one.variant}" for one in _sites(recipe) if one.variant
    )
    stay = f"; private, never sent: {sizes}" if sizes else "; none stays private"
    args = recipe.architecture.args.model_dump(mode="json")
    told = ", ".join(f"{name} {value}" for name, value in args.items())
    return f"{recipe.architecture.id} ({told}): {recipe.parameters} parameters travel{stay}"


def _training(recipe: Recipe) -> str:
    train = recipe.train
    if not isinstance(train, TrainAdam):
        return "one clipped and noised gradient of each site a round"
    near = f", held near the round's model by {train.proximal}" if train.proximal else ""
    held = "; private tensors rest until the rounds are over" if train.private else ""
    return (
        f"{train.local_steps} local steps of {train.batch} frames a round, "
        f"rate {train.rate_first} to {train.rate_last}{near}{held}"
    )


def _server(recipe: Recipe) -> str:
    server = recipe.server
    if isinstance(server, ServerMean):
        return "the mean is added (FedAvg)"
    if isinstance(server, ServerMomentum):
        return f"momentum {server.decay} at rate {server.rate} (FedAvgM)"
    return f"Adam on the mean {_update(server)}, rate {server.rate}, running average {server.average}"


def _update(server: ServerAdam) -> str:
    return "gradient" if server.update == "gradient" else "difference (FedAdam)"


def _privacy(recipe: Recipe) -> Iterator[str]:
    plan = recipe.plan
    if plan is None:
        yield "privacy    NOT PRIVATE: no plan; the contract alone bounds what leaves"
        return
    if plan.test_only:
        yield "privacy    NOT PRIVATE: the plan is for tests"
    noise = "all of it at each site"
    if plan.honest_min is not None:
        noise = f"in shares, sound while {plan.honest_min} sites are honest"
    yield (
        f"privacy    epsilon {epsilon_text(plan.epsilon_rdp)} at delta {plan.delta} for each {plan.unit}, "
        f"over {plan.steps} steps; noise {plan.noise_multiplier} times {plan.clip_norm}, {noise}"
    )
    drawn = f"{plan.sampling_prob} of the units, {plan.frames_per_unit} frames of each"
    yield f"           each step draws {drawn}"


def _judged(recipe: Recipe) -> str:
    plan = recipe.evaluation
    return (
        f"each site votes yes up to a mean loss of {plan.threshold} on its held-out {plan.unit}s, "
        f"noised, {plan.steps} times at most (epsilon {epsilon_text(plan.epsilon_rdp)})"
    )


def _quality(recipe: Recipe) -> str:
    block = recipe.quality
    if block is None:
        return "nothing is asked of a data set's certificate"
    unsure = f"; undetermined is enough for {_listed(block.accept_undetermined)}"
    bound = f"; tracking within {block.tracking_p95}" if block.tracking_p95 else ""
    return f"PASS for {_listed(block.require)}{unsure if block.accept_undetermined else ''}{bound}"


def _start(recipe: Recipe) -> str:
    start = recipe.start
    if isinstance(start, BaseStart):
        return f"the public checkpoint {start.base}, {start.licence}; an annex of the contract"
    if isinstance(start, SeedStart):
        return f"the model {start.model}, fitted to the seed set {start.seed_set}; annexes of the contract"
    return f"weights drawn from seed {recipe.architecture.args.seed}"


def _guards(recipe: Recipe) -> str:
    block = recipe.package
    if block is None:
        return f"the defaults of packages: {', '.join(f'{name} {value}' for name, value in DEFAULTS.items())}"
    bound = "the clamp alone" if block.max_delta_per_tick is None else _listed(block.max_delta_per_tick)
    return (
        f"{block.fallback} after {block.watchdog_ms} ms without an observation or above "
        f"{block.ood_share_max} of strange inputs; change a tick: {bound}"
    )
