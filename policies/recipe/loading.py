# SPDX-License-Identifier: Apache-2.0
"""`load`: from bytes to a recipe whose blocks fit each other, or a refusal by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from policies.encoding import Json, parse
from policies.errors import EncodingError
from policies.limits import MODEL_PARAMETERS, RECIPE_BYTES
from policies.privacy.constants import asked_statistic, private_statistic
from policies.privacy.errors import EvalUnplannedError, PlanIncompleteError
from policies.privacy.plan_refusals import refuse_search
from policies.recipe.architectures import ARCHITECTURES, check_known, tensor_rows
from policies.recipe.blocks import BinaryLoss, ClassLoss, NmseLoss, Variant
from policies.recipe.bounds import check_constants, check_package, check_work
from policies.recipe.document import Recipe
from policies.recipe.errors import RecipeManifestError, RecipePrivateUnplannedError, invalid
from policies.recipe.features import DiffFeature, SavgolFeature
from policies.recipe.training import ServerAdam, TrainAdam, TrainDp
from policies.recipe.words import FIELD_NAMES, plain_constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from policies.recipe.blocks import TensorSpec

__all__ = ["load"]

_NO_CONSTANTS: Final = frozenset(
    {"a", "architecture", "b", "classes", "field", "label", "licence", "name", "server", "task", "tensors"}
    | {"train"}
)


def load(data: bytes) -> Recipe:
    """The recipe behind canonical bytes.

    1. size and canonical form
    2. what deserves an error of its own: evaluation plan, plan, statistics, architecture
    3. schema, privacy plan and evaluation plan
    4. a document with variants, or one without: what each has to leave out
    5. fields, features, normalisers and every other constant, of each variant
    6. task, architecture, loss, package, start fit each other, of each variant
    7. tensor manifest, and the work per frame, of each variant
    8. plan, train and server fit each other

    Raises:
        RecipeInvalidError: Not canonical, incomplete, or blocks that do not fit.
        UnknownArchitectureError: The id is not installed.
        RecipeNormaliserError: Constants do not follow from their rule.
        PrivateStatisticError: A constant is asked for by the name of a statistic ("auto", mean, min, max).
        RecipeManifestError: The tensors are not those of the architecture.
        RecipePrivateUnplannedError: Private tensors together with a privacy plan.
        EvalUnplannedError: No evaluation plan.
        PrivacyError: The plan is refused (`DpPlan.load`).
    """
    # 1.
    if len(data) > RECIPE_BYTES:
        raise invalid(f"at most {RECIPE_BYTES} bytes", f"{len(data)}")
    try:
        document = parse(data)
    except EncodingError as error:
        raise invalid(error.need, error.found) from error
    # 2.
    _check_heads(document)
    # 3.
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid(f"{where}: {first['msg']}", repr(first["input"])[:80]) from error
    recipe.attach(data)
    # 4.
    _check_split(recipe, document)
    # 5.
    for part, where in _parts(recipe):
        _check_fields(recipe, part, where)
        check_constants(recipe, part, where)
    # 6.
    _check_task(recipe)
    # 7.
    _check_manifest(recipe)
    # 8.
    _check_fit(recipe)
    return recipe


def _check_heads(document: Json) -> None:
    """What deserves an own error before the schema speaks."""
    if not isinstance(document, dict):
        raise invalid("a JSON object", type(document).__name__)
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
    check_known(document.get("architecture"))


def _parts(recipe: Recipe) -> list[tuple[Recipe | Variant, str]]:
    """What has inputs, features and outputs, and where it stands."""
    if recipe.variants is None:
        return [(recipe, "")]
    return [(one, f"variants.{number}.") for number, one in enumerate(recipe.variants)]


def _check_split(recipe: Recipe, document: dict[str, Json]) -> None:
    for block, name, where in _absent_keys(document):
        if name in block and block[name] is None:
            raise invalid(f"{where}{name}, or no such key", "null")
    if recipe.variants is None:
        if any(not one.is_shared for one in recipe.tensors):
            raise invalid("shared tensors in a recipe without variants", "private ones")
        if not recipe.inputs or not recipe.features:
            raise invalid("inputs and features", "none")
        return
    if recipe.plan is not None:
        raise RecipePrivateUnplannedError(
            need="a plan over every tensor that private data reach, or no plan",
            found="private tensors beside a privacy plan",
            remedy="share all tensors, or write the recipe without a plan: it is NOT PRIVATE then",
        )
    if recipe.inputs or recipe.features or recipe.outputs:
        raise invalid("empty inputs, features and outputs beside variants, which have their own", "others")
    names = [one.name for one in recipe.variants]
    if len(set(names)) != len(names):
        raise invalid("each variant under a name of its own", ", ".join(names))


def _absent_keys(document: dict[str, Json]) -> Iterator[tuple[dict[str, Json], str, str]]:
    """Keys that may be absent, which is the one way to say none: another way would be another digest."""
    for name in ("loss", "quality", "package", "variants"):
        yield document, name, ""
    for name, key in (("train", "private"), ("quality", "tracking_p95")):
        block = document.get(name)
        if isinstance(block, dict):
            yield block, key, f"{name}."
    variants = document.get("variants")
    for number, one in enumerate(variants if isinstance(variants, list) else ()):
        if isinstance(one, dict):
            yield one, "package", f"variants.{number}."


def _check_fields(recipe: Recipe, part: Recipe | Variant, where: str) -> None:
    sizes = {f.field: f.size for f in part.inputs}
    named = [f.field for f in part.inputs] + [o.field for o in part.outputs]
    foreign = sorted(set(named) - FIELD_NAMES)
    if foreign or len(set(named)) != len(named):
        raise invalid("each field once, from the closed list", ", ".join(foreign) or "a field twice")
    used: set[str] = set()
    for number, feature in enumerate(part.features):
        at = f"{where}features.{number}"
        if any(name not in sizes for name in feature.sources):
            raise invalid(f"{at}: input fields", ", ".join(feature.sources))
        if len({sizes[name] for name in feature.sources}) != 1:
            raise invalid(f"{at}: input fields of one size", ", ".join(feature.sources))
        if isinstance(feature, DiffFeature):
            _positive_gain(feature.gain, at)
        if isinstance(feature, SavgolFeature) and recipe.rate_hz is None:
            raise invalid(f"{at}: a time base, rate_hz, to take derivatives by", "null")
        feature.normaliser.check(sizes[feature.sources[0]], at, bounded=feature.bounded)
        used |= set(feature.sources)
    if used != set(sizes):
        raise invalid("every input in a feature", ", ".join(sorted(set(sizes) - used)))
    for number, output in enumerate(part.outputs):
        output.normaliser.check(output.size, f"{where}outputs.{number}")


def _positive_gain(gain: str, at: str) -> None:
    try:
        plain_constant(gain)
    except ValueError as error:
        raise invalid(f"{at}.gain: {error}", gain) from error
    if float(gain) <= 0:
        raise invalid(f"{at}.gain above 0", gain)


def _check_manifest(recipe: Recipe) -> None:
    if recipe.variants is None:
        _compare(recipe, recipe.tensors)
        check_work(recipe, "")
        return
    for number, one in enumerate(recipe.variants):
        here = recipe.as_variant(one.name)
        _compare(here, recipe.tensors, one.tensors)
        check_work(here, f"variants.{number}.")


def _compare(recipe: Recipe, *given: Sequence[TensorSpec]) -> None:
    """Tensors of the document, and of a variant, against those of the model that it makes."""
    rows = recipe.architecture.rows(input_size=recipe.input_size, output_size=recipe.output_size)
    wanted = tensor_rows(rows, split=recipe.has_private)
    parts = [[one for one in wanted if one["scope"] == "shared"]]
    if recipe.has_private:
        parts.append([one for one in wanted if one["scope"] == "private"])
    size = sum(spec.size for part in given for spec in part)
    for expected, specs in zip(parts, given, strict=True):
        found = [spec.model_dump(mode="json") for spec in specs]
        if found != expected or size > MODEL_PARAMETERS:
            wrong = next((e["name"] for e, f in zip(expected, found, strict=False) if e != f), "their number")
            raise RecipeManifestError(
                need=f"the tensors of {recipe.architecture.id}, at most {MODEL_PARAMETERS} values",
                found=f"another {wrong}",
                remedy="write the manifest that the architecture gives",
            )


def _check_task(recipe: Recipe) -> None:
    kind, args = recipe.task.kind, recipe.architecture.args
    if recipe.architecture.id not in ARCHITECTURES[kind]:
        raise invalid(f"{kind} by {' or '.join(sorted(ARCHITECTURES[kind]))}", recipe.architecture.id)
    if args.execute > args.chunk:
        raise invalid("execute at most chunk", f"{args.execute} of {args.chunk}")
    blocks = {block for _, _, block in recipe.architecture.rows(input_size=1, output_size=1)}
    if recipe.has_private and "trunk" not in blocks:
        raise invalid("an architecture with a trunk to share", recipe.architecture.id)
    if recipe.has_private and recipe.start is not None and recipe.start.seed_set is not None:
        raise invalid("a start that every variant can read: a base checkpoint of the trunk", "a seed set")
    detects = isinstance(recipe.loss, BinaryLoss | ClassLoss)
    if detects != (kind == "detection"):
        raise invalid(f"a loss of {kind}", recipe.objective.kind)
    for part, where in _parts(recipe):
        if bool(part.outputs) == detects:
            raise invalid(f"{where}outputs: none of a label, else at least one field", "others")
        _check_acting(recipe, part, where)
        check_package(recipe, part, where)


def _check_acting(recipe: Recipe, part: Recipe | Variant, where: str) -> None:
    if recipe.task.kind == "behaviour-cloning" and any(one.ahead for one in part.features):
        raise invalid(
            f"{where}features: operations of a model that acts, which sees no frame ahead",
            "savgol_derivative",
        )
    rules = {one.normaliser.rule for one in part.outputs}
    if isinstance(recipe.objective, NmseLoss) and rules != {"limit"}:
        raise invalid(f"{where}outputs: scales by rule limit under nmse", ", ".join(sorted(rules)))


def _check_fit(recipe: Recipe) -> None:
    plan, server = recipe.plan, recipe.server
    update = "difference" if plan is None else "gradient"
    if isinstance(server, ServerAdam) and server.update != update:
        raise invalid(f"server.update {update}: what nodes of this recipe send", server.update)
    if plan is None:
        if not isinstance(recipe.train, TrainAdam):
            raise invalid("train adam-local without a plan", recipe.train.kind)
        if recipe.train.private is not None and not recipe.has_private:
            raise invalid("train.private in a recipe with variants alone", recipe.train.private)
        return
    if not isinstance(recipe.train, TrainDp) or not isinstance(server, ServerAdam):
        raise invalid("train dp-step and server adam with a plan", "other kinds")
    if plan.steps_per_round != 1:
        raise invalid("steps_per_round 1", str(plan.steps_per_round))
    if recipe.rounds * plan.steps_per_round > plan.steps:
        raise invalid(
            "rounds * steps_per_round at most the plan's steps", f"{recipe.rounds} rounds, {plan.steps} steps"
        )
