# SPDX-License-Identifier: Apache-2.0
"""What a package says twice must be the same: the loader computes it again, and believes no word of it.

    check_agreement(members, manifest, statement)        # PackageMismatchError, PackageStatementError

A signature says who packaged, not that it is true: a careless or false signer could widen a limit, or print
a better epsilon. So the recipe itself is a member, by its digest the one that contract and statement name,
and everything that follows from it is computed from it again. Steps, in this order; the first that fails
refuses:
1. ``recipe.json`` is the recipe of the lineage; ``adapter.json`` is there exactly where the manifest names an
   adapter, and is it; neither is in a common package beside what `client.deploy.manifest` allows there;
2. ports, limits, guards, rates, horizon, normaliser, example and seed set are those of the recipe, with
   variants of one of them, with an adapter of it; numbers to `_NEAR` of themselves, because another
   processor rounds otherwise; the example's tolerance is the program's;
3. the statement's figures follow from its plans, it rests on the recipe's plans, and what the manifest says
   of it is what follows from it (`privacy_of`);
4. latency is about this graph; in a common package it and the versions are told coarsely;
5. card, list of parts and shell are, byte for byte, those that this program makes of all that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from client.data.embodiment import Adapter
from client.deploy.aasx import shell_of
from client.deploy.adapters import ends_of
from client.deploy.card import model_card
from client.deploy.errors import PackageMismatchError, PackageStatementError
from client.deploy.latency import Latency, shared
from client.deploy.recipe_facts import TOLERANCE, RecipeFacts, decimal
from client.deploy.sbom import sbom, shared_versions
from client.deploy.signed_members import AASX, ADAPTER, CARD, GRAPH, LATENCY, RECIPE, SBOM, STATEMENT
from policies.encoding import digest, parse
from policies.errors import EncodingError, IriaiError
from policies.privacy.statement import PRIVATE, check_statement
from policies.recipe import load
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.deploy.adapters import Ends
    from client.deploy.archive import Stored
    from client.deploy.manifest import Manifest
    from policies.recipe import Recipe

__all__ = ["check_agreement", "of_recipe", "privacy_of"]

Json = dict[str, Any]
_NEAR: Final = 1e-6
_REMEDY: Final = "get the package again from whoever made it; it never runs like this"


def of_recipe(recipe: Recipe, ends: Ends | None, rate_hz: str | None) -> Json:
    """What a manifest says that follows from recipe and adapter; all but the answer to the example."""
    facts = RecipeFacts(recipe, ends, rate_hz=rate_hz)
    start = recipe.start
    return {
        "task": recipe.task.name,
        "embodiment": {
            "class": embodiment_class(recipe),
            "adapter": None if ends is None else ends.digest,
        },
        "inputs": facts.inputs,
        "outputs": facts.outputs,
        "normaliser": {"source": facts.normaliser},
        "safety": facts.safety,
        "horizon": recipe.chunk,
        "execute": recipe.execute,
        "seed_set": None if start is None else start.seed_set,
        "observation": [decimal(one) for one in facts.example],
        "tolerance": TOLERANCE,
    }


def embodiment_class(recipe: Recipe) -> str:
    """For which robots: with variants, those of the one that the recipe is read as."""
    chosen = [one for one in recipe.variants or () if one.name == recipe.variant]
    return chosen[0].embodiment_class if chosen else recipe.task.embodiment_class


def privacy_of(statement: bytes) -> Json:
    """What a signed statement says, in short: the largest epsilon of its contributors, or no claim.

    Args:
        statement: Canonical bytes of its envelope.
    """
    document = parse(Envelope.from_bytes(statement).payload)
    claims = [one["claim"] for one in document["contributors"]]
    found: Json = {"unit": None, "epsilon": None, "delta": None}
    if document["verdict"] == PRIVATE:
        worst = max(claims, key=lambda one: float(one["epsilon_rdp"]))
        found = {"unit": worst["unit"], "epsilon": worst["epsilon_rdp"], "delta": worst["delta"]}
    return {"statement": digest(statement), "verdict": document["verdict"], **found}


def check_agreement(members: Mapping[str, Stored], manifest: Manifest, statement: Mapping[str, Any]) -> None:
    """See the module.

    Args:
        members: Their bytes are the signed ones.
        manifest: Read, its limits complete.
        statement: The privacy statement, about this model.

    Raises:
        PackageMismatchError: Steps 1, 2, 4 and 5.
        PackageStatementError: Step 3.
        PackageLimitsError: The recipe leaves an input without limits.
    """
    document: Json = parse(manifest.canonical)
    recipe = _recipe(members, manifest)  # 1.
    adapter = _adapter(members, manifest)
    reading = _check_recipe(document, recipe, adapter)  # 2.
    _check_statement(members, document, statement, recipe)  # 3.
    latency = _latency(members, document)  # 4.
    defaults = reading.package is None
    card = model_card(document, statement, latency, kind=reading.task.kind, defaults=defaults)  # 5.
    _same_bytes(members, CARD, card)
    model = document["model"]
    graph = bytes(members[GRAPH].data)
    parts = sbom(
        model=model["digest"],
        name=model["id"],
        graph=digest(graph),
        installed=document["graph"]["versions"],
    )
    _same_bytes(members, SBOM, parts)
    if (AASX in members) != document["graph"]["aas"]:
        raise _differs("a shell exactly where the manifest says so", "otherwise")
    if AASX in members:
        _same_bytes(members, AASX, shell_of(document, graph, card))


def _recipe(members: Mapping[str, Stored], manifest: Manifest) -> Recipe:
    data = bytes(members[RECIPE].data)
    if digest(data) != manifest.lineage.recipe:
        raise _differs(f"the recipe {manifest.lineage.recipe}", digest(data))
    try:
        return load(data)
    except IriaiError as error:
        raise _differs(f"a recipe: {error.need}", error.found) from error


def _adapter(members: Mapping[str, Stored], manifest: Manifest) -> Adapter | None:
    named = manifest.embodiment.adapter
    if (ADAPTER in members) != (named is not None):
        raise _differs(f"{ADAPTER} exactly where the manifest names an adapter", "otherwise")
    if named is None:
        return None
    data = bytes(members[ADAPTER].data)
    try:
        found = Adapter.model_validate(parse(data)) if digest(data) == named else None
    except (EncodingError, ValidationError) as error:
        raise _differs("an adapter", "another document") from error
    if found is None or found.digest != named:
        raise _differs(f"the adapter {named}", "another")
    return found


def _check_recipe(document: Json, recipe: Recipe, adapter: Adapter | None) -> Recipe:
    """Step 2: gives the reading of the recipe that the manifest tells of."""
    told = {name: document[name] for name in ("task", "embodiment", "inputs", "outputs", "normaliser")}
    told |= {name: document[name] for name in ("safety", "horizon", "execute")}
    told |= {name: document["example"][name] for name in ("observation", "tolerance")}
    told["seed_set"] = document["lineage"]["seed_set"]
    rate = recipe.rate_hz
    if rate is None and document["model"]["individual"]:
        rate = document["inputs"][0]["rate_hz"]  # of the own recordings
    worst = "a variant"
    for reading in _readings(recipe):
        try:
            wanted = of_recipe(reading, ends_of(adapter, reading), rate)
        except (ValueError, IndexError, ArithmeticError):  # the adapter is for other joints
            continue
        found = _first_difference(wanted, told, "")
        if found is None:
            return reading
        worst = found
    raise _differs("what follows from the recipe", f"another {worst}")


def _readings(recipe: Recipe) -> list[Recipe]:
    if recipe.variants is None:
        return [recipe]
    return [recipe.as_variant(one.name) for one in recipe.variants]


def _first_difference(wanted: Any, told: Any, where: str) -> str | None:  # noqa: ANN401  JSON values
    """Where two values differ, by the names of the manifest; numbers may differ by their last digits."""
    if isinstance(wanted, dict) and isinstance(told, dict):
        if wanted.keys() != told.keys():
            return where or "set of parts"
        found = (_first_difference(wanted[one], told[one], f"{where}.{one}") for one in wanted)
    elif isinstance(wanted, list) and isinstance(told, list):
        if len(wanted) != len(told):
            return where
        found = (
            _first_difference(*pair, f"{where}.{at}")
            for at, pair in enumerate(zip(wanted, told, strict=True))
        )
    else:
        return None if wanted == told or _near(wanted, told) else where
    return next((one.lstrip(".") for one in found if one is not None), None)


def _near(wanted: object, told: object) -> bool:
    if not isinstance(wanted, str) or not isinstance(told, str):
        return False
    try:
        one, other = float(wanted), float(told)
    except ValueError:
        return False
    return abs(one - other) <= _NEAR * max(abs(one), _NEAR)


def _check_statement(
    members: Mapping[str, Stored], document: Json, statement: Mapping[str, Any], recipe: Recipe
) -> None:
    try:
        check_statement(statement)
        told = privacy_of(bytes(members[STATEMENT].data))
        plans = {None if one["plan"] is None else one["plan"]["digest"] for one in statement["contributors"]}
        judged = statement["evaluation"]["plan"]["digest"]
    except (IriaiError, KeyError, TypeError, ValueError) as error:
        raise _untrue("figures that follow from the statement's plans", type(error).__name__) from error
    if plans != {None if recipe.plan is None else recipe.plan.digest} or judged != recipe.evaluation.digest:
        raise _untrue("a statement under the recipe's own plans", "one under others")
    if told != document["privacy"]:
        raise _untrue("what the statement says, in the manifest", "something else")


def _untrue(need: str, found: str) -> PackageStatementError:
    return PackageStatementError(need=need, found=found, remedy=_REMEDY)


def _latency(members: Mapping[str, Stored], document: Json) -> Json:
    data = bytes(members[LATENCY].data)
    try:
        told: Json = parse(data)
        latency = Latency.model_validate(told)
    except (EncodingError, ValidationError) as error:
        raise _differs(f"{LATENCY} of this version", "another document") from error
    if latency.graph != digest(bytes(members[GRAPH].data)):
        raise _differs("latency of this graph", "of another")
    individual, versions = document["model"]["individual"], document["graph"]["versions"]
    if not individual and (shared(data) != data or shared_versions(versions) != versions):
        raise _differs(
            "a common package that does not describe a site's machine", "figures or versions of one"
        )
    if individual and (latency.machine is None or latency.load is None or latency.runs is None):
        raise _differs("latency of this site's machine in an individual package", "none")
    return told


def _same_bytes(members: Mapping[str, Stored], name: str, wanted: bytes) -> None:
    if members[name].data != wanted:
        raise _differs(f"{name} as it follows from the rest of the package", "another")


def _differs(need: str, found: str) -> PackageMismatchError:
    return PackageMismatchError(need=need, found=ascii(found)[1:-1][:160], remedy=_REMEDY)
