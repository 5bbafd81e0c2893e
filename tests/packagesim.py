# SPDX-License-Identifier: Apache-2.0
"""Packages for tests: made by the real exporter once per process, then signed and changed at will."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from client.deploy.archive import read_archive, write_archive
from client.deploy.latency import SCHEMA
from client.deploy.manifest import PAYLOAD_TYPE
from client.deploy.package import Material, build_package
from client.deploy.recipe_facts import RecipeFacts
from client.deploy.sbom import sbom
from policies.encoding import canonical, digest, parse
from policies.identity import SigningKey
from policies.privacy.statement import PAYLOAD_TYPE as STATEMENT_TYPE
from policies.privacy.statement import Subject, Terms, build_statement, claim
from policies.recipe import Recipe, load
from policies.signing import Envelope
from sandbox.recipes import plain_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = SigningKey.from_seed(b"node".ljust(32, b"-"))
BROKER = SigningKey.from_seed(b"broker".ljust(32, b"-"))
STRANGER = SigningKey.from_seed(b"stranger".ljust(32, b"-"))
KEYS = [NODE.public, BROKER.public]
CONTRACT, RUN = digest(b"contract"), "run_aaaaaaaaaaaaaaaa"


def weights_of(recipe: Recipe, *, seed: int = 3) -> np.ndarray:
    """A model that moves: weights of the size that training gives, biases with them."""
    rng = np.random.Generator(np.random.PCG64(seed))
    parts = []
    for spec in recipe.tensors:
        fan = spec.shape[1] if len(spec.shape) > 1 else 8
        gain = 0.72 if spec.block == "head" else 1.0  # at the limits of the inputs the clamp is needed
        parts.append(gain * rng.normal(size=spec.size) / np.sqrt(fan))
    return np.concatenate(parts).astype(np.float32)


@functools.cache
def pick_recipe() -> Recipe:
    return load(plain_recipe(10))


def exported(ends: Any = None) -> Any:
    """The graph of the sandbox's recipe: exported once; with a site's adapter, each time."""
    return _exported_plain() if ends is None else _exported(ends)


@functools.cache
def _exported_plain() -> Any:
    return _exported(None)


def _exported(ends: Any) -> Any:
    from client.learning.export import export_graph

    recipe = pick_recipe()
    return export_graph(recipe, weights_of(recipe), RecipeFacts(recipe, ends).example, ends=ends)


def statement_of(recipe: Recipe, model: str, *, key: SigningKey = BROKER) -> bytes:
    """The broker's signed privacy statement about a model."""
    plan = None if recipe.plan is None else recipe.plan.document
    document = build_statement(
        subject=Subject(run=RUN, model=model, contract=CONTRACT, recipe=recipe.digest),
        claims=[claim("A1b2", plan), claim("C3d4", plan)],
        evaluation=recipe.evaluation.document,
        terms=Terms(),
    )
    return Envelope.seal(canonical(document), STATEMENT_TYPE, key).to_bytes()


def latency_of(graph: bytes) -> bytes:
    """A measurement with fixed figures."""
    machine = {"architecture": "x86_64", "cpu": "a processor", "cores": 2}
    figures = {"p50_us": "7.0", "p90_us": "7.5", "p99_us": "9.0", "load": "0.10", "runs": 1000}
    head = {
        "schema": SCHEMA,
        "graph": digest(graph),
        "runtime": "onnxruntime 1.32.0",
        "batch": 1,
        "threads": 1,
    }
    return canonical(head | figures | {"machine": machine})


def material(*, individual: bool = False, aasx: bool = False, ends: Any = None, **changes: Any) -> Material:
    """What `build_package` takes, for the sandbox's recipe."""
    recipe, made = pick_recipe(), exported(None if "graph" in changes else ends)
    model = digest(weights_of(recipe).tobytes())
    parent = digest(b"the released one") if individual else None
    named = {
        "id": "pick-place",
        "digest": model,
        "parent": parent,
        "tier": "private" if individual else "consortium",
        "individual": individual,
    }
    lineage = {
        "contract": CONTRACT,
        "recipe": recipe.digest,
        "run": RUN,
        "seed_set": None,
        "log": {"origin": "log.example", "kind": "vote.cast", "index": 7, "size": 9, "root": "ab" * 32},
    }
    facts = {
        "recipe": recipe,
        "rate_hz": None,
        "model": named,
        "graph": made.graph,
        "opset": made.opset,
        "chunk": made.chunk,
        "ends": ends,
        "lineage": lineage if individual else lineage | {"log": None},
        "statement": statement_of(recipe, parent or model),
        "evaluation": None,
        "licence": {"name": "consortium only", "uses": ["robot skills"], "forbidden": ["surveillance"]},
        "latency": latency_of(made.graph),
        "installed": {"python": "3.11.7", "onnx": "1.23.2"},
        "aasx": aasx,
    }
    return Material(**(facts | changes))


@functools.cache
def sound_package() -> bytes:
    """A package that loads."""
    return build_package(material(), NODE)


def taken_apart(data: bytes) -> dict[str, bytes]:
    """Members by name."""
    return {name: bytes(one.data) for name, one in read_archive(data).items()}


def signed_again(members: dict[str, bytes], *, key: SigningKey = NODE, edit: Any = None) -> bytes:
    """An archive of these members under a fresh manifest and signature: what a careless or false signer makes.

    Args:
        members: Without or with the former manifest and signature; listed as they are.
        key: Who signs.
        edit: Changes the manifest's document before it is signed.
    """
    document = parse(members["manifest.json"])
    content = {
        name: data for name, data in members.items() if name not in {"manifest.json", "signature.dsse"}
    }
    document["members"] = [
        {"name": name, "size": len(data), "sha256": digest(data)} for name, data in sorted(content.items())
    ]
    if edit is not None:
        edit(document)
    content["manifest.json"] = canonical(document)
    content["signature.dsse"] = Envelope.seal(content["manifest.json"], PAYLOAD_TYPE, key).to_bytes()
    return write_archive(content)


def with_graph(change: Callable[[Any], None], **members: bytes) -> bytes:
    """A package, signed by a pinned key, whose graph was changed, and all that is said about the graph."""
    import onnx

    model = onnx.load_from_string(taken_apart(sound_package())["model.onnx"])
    change(model)
    return with_bytes(model.SerializeToString(), **members)


def with_bytes(graph: bytes, **members: bytes) -> bytes:
    """`with_graph` for bytes that may be no graph."""
    parts = taken_apart(sound_package())
    document = parse(parts["manifest.json"])
    told = {
        "model.onnx": graph,
        "latency.json": canonical(parse(parts["latency.json"]) | {"graph": digest(graph)}),
        "sbom.json": sbom(
            model=document["model"]["digest"],
            name=document["model"]["id"],
            graph=digest(graph),
            installed=document["graph"]["versions"],
        ),
    }
    return signed_again(parts | told | members)
