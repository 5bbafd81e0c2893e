# SPDX-License-Identifier: Apache-2.0
"""The recipe: what is trained, on which fields, how, and under which privacy plan. Data, never code.

- Canonical JSON (``iriai-recipe/1``); its digest stands in the contract. `load` accepts exactly the canonical
  bytes, every field spelled out, unknown fields refused. The blocks ``loss``, ``quality``, ``package`` and
  ``variants`` may be absent, which means none.
- An architecture id names code that is installed on the node. The wire manifest is the shared tensors of
  `Recipe.tensors`: a tensor that is not listed, or is private, has no place in an update.
- Normalisers are public constants chosen by rule, never learned from private data (robot-data-and-models.md,
  section 7): ``task-box`` and ``limit`` state their interval, and centre and scale must follow from it
  (middle, half / sqrt 3, rounded); ``approach`` states the distance that the task needs; ``bounded`` takes
  values in [-1, 1] as they are. Learned statistics would show as long decimals: at most three significant
  digits are allowed.
- With a plan there is one noisy step per round and the server descends a gradient (``adam`` with ``update:
  gradient``); without one, nodes run local steps and send a difference of weights, which the server adds
  (``mean``, ``momentum``, ``adam`` with ``update: difference``). Nothing mixes.
- Without a plan the names of the field are: FedAvg is ``mean``, FedAvgM ``momentum``, FedAdam ``adam``
  (`policies.server_step` says how the numbers map); each with ``proximal`` in ``train`` is also FedProx.
- ``variants`` are embodiments that share a trunk. Stem and head of each are private: they start from the
  recipe's seed, stay on the node and are no part of any message. They exclude a privacy plan.

    recipe = load(data)                   # RecipeError, privacy.plan-incomplete
    recipe.digest, recipe.plan, recipe.evaluation, recipe.rounds, recipe.need, recipe.deadline_s
    here = recipe.site(columns, "6r-arm+parallel-gripper")     # itself, if it has no variants
    recipe.parameters, here.own_parameters                     # values on the wire, of the model here
"""

from __future__ import annotations

from policies.recipe.architectures import (
    ARCHITECTURES,
    ActSmall,
    LinearDetect,
    MlpChunk,
    MlpDetect,
    MlpInvdyn,
    architecture_manifest,
    manifest,
)
from policies.recipe.blocks import (
    BaseStart,
    BinaryLoss,
    ClassLoss,
    MseLoss,
    NmseLoss,
    Output,
    Package,
    Quality,
    SeedStart,
    TensorSpec,
    Variant,
)
from policies.recipe.document import Recipe
from policies.recipe.errors import (
    RecipeError,
    RecipeInvalidError,
    RecipeManifestError,
    RecipeNormaliserError,
    RecipePrivateUnplannedError,
    RecipeVariantError,
    UnknownArchitectureError,
)
from policies.recipe.features import (
    CosFeature,
    DeltaFeature,
    DiffFeature,
    HistoryFeature,
    InputField,
    Normaliser,
    RawFeature,
    RollingStdFeature,
    SavgolFeature,
    SignSoftFeature,
    SinFeature,
)
from policies.recipe.loading import load
from policies.recipe.training import ServerAdam, ServerMean, ServerMomentum, TrainAdam, TrainDp
from policies.recipe.words import FIELD_NAMES

__all__ = [
    "ARCHITECTURES",
    "FIELD_NAMES",
    "ActSmall",
    "BaseStart",
    "BinaryLoss",
    "ClassLoss",
    "CosFeature",
    "DeltaFeature",
    "DiffFeature",
    "HistoryFeature",
    "InputField",
    "LinearDetect",
    "MlpChunk",
    "MlpDetect",
    "MlpInvdyn",
    "MseLoss",
    "NmseLoss",
    "Normaliser",
    "Output",
    "Package",
    "Quality",
    "RawFeature",
    "Recipe",
    "RecipeError",
    "RecipeInvalidError",
    "RecipeManifestError",
    "RecipeNormaliserError",
    "RecipePrivateUnplannedError",
    "RecipeVariantError",
    "RollingStdFeature",
    "SavgolFeature",
    "SeedStart",
    "ServerAdam",
    "ServerMean",
    "ServerMomentum",
    "SignSoftFeature",
    "SinFeature",
    "TensorSpec",
    "TrainAdam",
    "TrainDp",
    "UnknownArchitectureError",
    "Variant",
    "architecture_manifest",
    "load",
    "manifest",
]
