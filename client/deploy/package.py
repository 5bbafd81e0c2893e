# SPDX-License-Identifier: Apache-2.0
"""Makes a model package: deterministic, signed, and opened once by the loader before anybody gets it.

    data = build_package(material, key)          # bytes of the .iriai file

::

    manifest.json   model.onnx   recipe.json   MODEL_CARD.md   statement.json   latency.json   sbom.json
    [adapter.json]   [aas/model.aasx]   signature.dsse

- **The same material gives the same bytes**: canonical JSON, a fixed archive, Ed25519. What is measured
  (latency) is material and not measured here.
- ``statement.json`` is the broker's signed statement (DSSE) about the common model; for an individual model
  it is about the parent, and the manifest says so.
- ``recipe.json`` is the recipe, canonical, as contract and statement name it by digest: whoever opens the
  package computes limits and guards from it again (`client.deploy.agreement`). ``adapter.json`` is the site's
  adapter, in individual packages that have one in the graph.
- **A common package tells nothing of the site** beside the key that signed it: no adapter, no place of its
  vote in the log, latency as an order of magnitude, versions without patch level. The material may have all
  of that; it is left out here.
- **Signed by the node.** A site signs what it packages: an individual model, and a common one that it wraps
  for its own controller. The broker's word about a common model is the statement inside.
- **Checked by the loader.** The finished bytes pass all seven steps of `client.deploy.loader` under the
  signing key, so what is written can be opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.deploy.aasx import aasx_of
from client.deploy.agreement import of_recipe, privacy_of
from client.deploy.archive import write_archive
from client.deploy.card import model_card
from client.deploy.latency import shared
from client.deploy.loader import open_package
from client.deploy.manifest import PAYLOAD_TYPE, SCHEMA
from client.deploy.recipe_facts import decimal
from client.deploy.sbom import sbom, shared_versions
from client.deploy.signed_members import (
    AASX,
    ADAPTER,
    CARD,
    GRAPH,
    LATENCY,
    MANIFEST,
    RECIPE,
    SBOM,
    SIGNATURE,
    STATEMENT,
)
from policies.encoding import canonical, digest, parse
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from client.deploy.adapters import Ends
    from policies.identity import SigningKey
    from policies.recipe import Recipe

__all__ = ["Material", "build_package", "privacy_of"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything that a package is made of.

    Attributes:
        recipe: As the site reads it.
        rate_hz: Ticks per second that the model expects; None: nobody stated it.
        model: ``ModelName`` of the manifest, as a JSON value.
        graph: ``model.onnx``, as `client.learning.export` gives it.
        opset: Of the graph.
        chunk: ``[H, a]``, the answer to the example of `RecipeFacts`.
        ends: The site's adapter in the graph, if there is one.
        lineage: ``Lineage`` of the manifest.
        statement: The envelope of the privacy statement, canonical bytes.
        evaluation: ``Evaluation`` of the manifest, or None.
        licence: ``Licence`` of the manifest.
        latency: ``latency.json``.
        installed: Names and versions of the programs (`client.deploy.sbom.versions`).
        aasx: Whether an Asset Administration Shell is put in.
    """

    recipe: Recipe
    rate_hz: str | None
    model: Json
    graph: bytes
    opset: int
    chunk: npt.NDArray[np.float64]
    ends: Ends | None
    lineage: Json
    statement: bytes
    evaluation: Json | None
    licence: Json
    latency: bytes
    installed: Mapping[str, str]
    aasx: bool


def build_package(material: Material, key: SigningKey) -> bytes:
    """The package of this material.

    Args:
        material: See `Material`.
        key: Of the node that packages.

    Raises:
        PackageError: The result would not be loaded; nothing is written.
        AasMissingError: A wrapper was asked for, and its library is not installed.
    """
    document = _document(material)
    individual = material.model["individual"]
    latency = material.latency if individual else shared(material.latency)
    statement = parse(Envelope.from_bytes(material.statement).payload)
    members = {
        GRAPH: material.graph,
        RECIPE: material.recipe.canonical,
        STATEMENT: material.statement,
        LATENCY: latency,
        CARD: model_card(
            document,
            statement,
            parse(latency),
            kind=material.recipe.task.kind,
            defaults=material.recipe.package is None,
        ),
        SBOM: sbom(
            model=material.model["digest"],
            name=material.model["id"],
            graph=digest(material.graph),
            installed=document["graph"]["versions"],
        ),
    }
    if material.ends is not None:
        members[ADAPTER] = material.ends.adapter
    if material.aasx:
        members[AASX] = aasx_of(document, material.graph, members[CARD])
    document["members"] = [
        {"name": name, "size": len(data), "sha256": digest(data)} for name, data in sorted(members.items())
    ]
    members[MANIFEST] = canonical(document)
    members[SIGNATURE] = Envelope.seal(members[MANIFEST], PAYLOAD_TYPE, key).to_bytes()
    data = write_archive(members)
    open_package(data, [key.public])
    return data


def _document(material: Material) -> Json:
    """The manifest without its list of members."""
    individual = material.model["individual"]
    found = of_recipe(material.recipe, material.ends, material.rate_hz)
    found.pop("seed_set")  # the lineage has it
    observation, tolerance = found.pop("observation"), found.pop("tolerance")
    installed = dict(material.installed) if individual else shared_versions(material.installed)
    return found | {
        "schema": SCHEMA,
        "model": material.model,
        "lineage": material.lineage if individual else material.lineage | {"log": None},
        "privacy": privacy_of(material.statement),
        "evaluation": material.evaluation,
        "licence": material.licence,
        "graph": {"opset": material.opset, "window": 1, "versions": installed, "aas": material.aasx},
        "example": {
            "observation": observation,
            "action_chunk": [decimal(one) for one in material.chunk.reshape(-1)],
            "tolerance": tolerance,
        },
    }
