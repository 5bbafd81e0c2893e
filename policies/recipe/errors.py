# SPDX-License-Identifier: Apache-2.0
"""What is refused about a recipe.

RecipeError
  RecipeInvalidError           recipe.invalid               not canonical, incomplete, or blocks do not fit
  UnknownArchitectureError     recipe.unknown-architecture  an id that names no code of this version
  RecipeManifestError          recipe.manifest-mismatch     tensors that are not the architecture's
  RecipeNormaliserError        recipe.private-normaliser    constants that follow from no public rule
  RecipePrivateUnplannedError  recipe.private-unplanned     private tensors under a privacy plan
  RecipeVariantError           recipe.variant-unfit         no variant, or several, for the data of a site
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "RecipeError",
    "RecipeInvalidError",
    "RecipeManifestError",
    "RecipeNormaliserError",
    "RecipePrivateUnplannedError",
    "RecipeVariantError",
    "UnknownArchitectureError",
    "bad_constant",
    "invalid",
]


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


class RecipePrivateUnplannedError(RecipeError):
    """Private tensors under a privacy plan: what they do to the shared part is in no accounting."""

    code = "recipe.private-unplanned"
    exit_code = 4


class RecipeVariantError(RecipeError):
    """The data of this site fit none of the recipe's variants, or several; or none was chosen."""

    code = "recipe.variant-unfit"


def invalid(need: str, found: str) -> RecipeInvalidError:
    """The refusal of a recipe whose blocks do not fit, to raise."""
    return RecipeInvalidError(
        need=need,
        found=found,
        remedy="correct the recipe; its digest changes, so the contract must name the new one",
    )


def bad_constant(where: str, need: str, found: str) -> RecipeNormaliserError:
    """The refusal of a constant, to raise."""
    return RecipeNormaliserError(
        need=f"{where}: {need}",
        found=found,
        remedy="take constants from the task's drawing or the robot's limits, never from recordings",
    )
