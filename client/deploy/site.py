# SPDX-License-Identifier: Apache-2.0
"""Packages a model of this site, in the worker's process: gathers what the package says, and writes the file.

    facts = package_model(home, Wish(model=…, out=…), export=export_graph)

Only files of this node are read; no connection is opened. In this order; the first that fails ends it, and no
file is written:
1. the model is here and unchanged, and so are contract and recipe; an individual one was trained here;
2. the privacy statement is signed by the broker that this node pins, and is about this model;
3. the graph is exported, with the site's adapter for an individual model, and compared with torch and numpy;
4. latency is taken over from an earlier package of this graph, or measured (`client.deploy.latency`);
5. the log's place, for an individual model alone: of this node's envelopes of the run that have a receipt,
   its vote on the model, else the newest, as the outbox holds it;
6. the package is made, signed by the node and opened by the loader (`client.deploy.package`);
7. it is written whole, or not at all; what is there already is written over only where that was asked for.

The export is handed in, so that this package never imports torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.clock import SystemClock
from client.contract.shelf import ContractShelf
from client.deploy.aasx import aas_installed
from client.deploy.errors import PackageFileError, PackageStatementError
from client.deploy.latency import measure, read_kept
from client.deploy.loader import session_of
from client.deploy.own_data import read_here
from client.deploy.package import Material, build_package
from client.deploy.recipe_facts import RecipeFacts
from client.deploy.sbom import versions
from client.deploy.taken import check_free
from client.entropy import SystemEntropy
from client.identity import load_identity
from client.membership import pinned_broker
from client.models import model_folder, read_model
from client.outbox import Outbox
from client.settings import write_durably
from policies.encoding import digest, parse
from policies.errors import EncodingError
from policies.log.proofs import parse_receipt
from policies.privacy.statement import PAYLOAD_TYPE, check_statement
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from client.deploy.graphs import Exported
    from client.identity import NodeIdentity
    from client.outbox.rows import Stored
    from client.settings import Home
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Wish", "package_model"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for.

    Attributes:
        model: Digest of the released model.
        out: File to write.
        individual: The one that was trained on here, in place of the released one.
        aasx: With an Asset Administration Shell; None: if its library is here.
        measure: Measures latency, also where it was measured before.
        force: Writes over a file that is there.
    """

    model: str
    out: Path
    individual: bool = False
    aasx: bool | None = None
    measure: bool = False
    force: bool = False


def package_model(home: Home, wish: Wish, *, export: Callable[..., Exported]) -> Json:
    """The package in its file; gives what is known of it. For the steps see the module.

    Args:
        home: The node's folder.
        wish: What was asked for.
        export: `client.learning.export.export_graph`.

    Raises:
        NoSuchThingError: Model, contract or recipe is not here.
        DigestMismatchError: A file was changed.
        FileTakenError: Something is where it would be written.
        PackageError: The package is refused, or cannot be written.
    """
    check_free(wish.out, force=wish.force)
    identity, broker = load_identity(home), pinned_broker(home)
    shelf = ContractShelf(home, own_key=identity.key.public)
    released, _ = read_model(home, wish.model)  # 1.
    known, weights = read_model(home, wish.model, individual=wish.individual)
    contract = shelf.get(released["contract"]).contract
    here = read_here(home, shelf, known, individual=wish.individual)
    statement = _statement(home, released, broker.key)  # 2.
    example = RecipeFacts(here.recipe, here.ends).example
    exported = export(here.recipe, weights, example, ends=here.ends)  # 3.
    latency = _latency(home, wish, exported.graph, example)  # 4.
    place = _log_place(home, identity, released, broker.origin) if wish.individual else None  # 5.
    start = here.recipe.start
    material = Material(
        recipe=here.recipe,
        rate_hz=here.rate_hz,
        model=_named(here.recipe, released, known, wish),
        graph=exported.graph,
        opset=exported.opset,
        chunk=exported.chunk,
        ends=here.ends,
        lineage={
            "contract": released["contract"],
            "recipe": released["recipe"],
            "run": released["run"],
            "seed_set": None if start is None else start.seed_set,
            "log": place,
        },
        statement=statement,
        evaluation=_evaluation(known) if wish.individual else None,
        licence=_licence(contract, released),
        latency=latency,
        installed=versions(),
        aasx=aas_installed() if wish.aasx is None else wish.aasx,
    )
    data = build_package(material, identity.key)  # 6.
    _write(wish, data)  # 7.
    return _told(wish, data, material)


def _named(recipe: Recipe, released: Json, known: Json, wish: Wish) -> Json:
    """``ModelName`` of the manifest."""
    return {
        "id": f"{recipe.task.name}-{'individual' if wish.individual else 'common'}",
        "digest": known["individual"] if wish.individual else wish.model,
        "parent": wish.model if wish.individual else None,
        "tier": "private" if wish.individual else released["tier"],
        "individual": wish.individual,
    }


def _statement(home: Home, released: Json, broker: bytes) -> bytes:
    """Step 2: the envelope that was pulled."""
    path = model_folder(home, released["model"]) / "statement.dsse"
    try:
        data = path.read_bytes()
        document = Envelope.from_bytes(data).open_as(PAYLOAD_TYPE, broker)
        check_statement(document)
    except (OSError, EncodingError) as error:
        raise PackageStatementError(
            need="the signed statement beside the model",
            found=type(error).__name__,
            remedy=f"iriai-node models pull {released['model']}",
        ) from error
    if digest(data) != released["statement"]:
        raise PackageStatementError(
            need=f"the statement {released['statement']}",
            found="another",
            remedy=f"iriai-node models pull {released['model']}",
        )
    return data


def _latency(home: Home, wish: Wish, graph: bytes, example: np.ndarray) -> bytes:
    """Step 4."""
    path = model_folder(home, wish.model, individual=wish.individual) / "latency.json"
    kept = None if wish.measure else read_kept(path, graph)
    if kept is not None:
        return kept
    data = measure(graph, example, session=session_of(graph))
    write_durably(path, data)
    return data


def _log_place(home: Home, identity: NodeIdentity, released: Json, origin: str) -> Json | None:
    """Step 5."""
    if not home.outbox.exists():
        return None
    outbox = Outbox.of(home, identity, origin=origin, clock=SystemClock(), entropy=SystemEntropy())
    try:
        told = [one for one in outbox.envelopes(run=released["run"]) if one.receipt is not None]
    finally:
        outbox.close()
    votes = [one for one in told if one.kind == "vote.cast" and _is_about(one, released["model"])]
    chosen = (votes or told)[-1:]
    return _place(chosen[0], origin) if chosen else None


def _is_about(one: Stored, model: str) -> bool:
    """Whether a vote names the model."""
    try:
        return bool(parse(one.envelope.payload)["body"]["subject"] == model)
    except (EncodingError, KeyError, TypeError):
        return False


def _place(one: Stored, origin: str) -> Json | None:
    """``LogPlace`` of the manifest, by the receipt of the best grade."""
    kept = one.witnessed or one.receipt
    if kept is None or one.log_index is None:
        return None
    checkpoint = parse_receipt(str(json.loads(kept)["proof"])).checkpoint
    return {
        "origin": origin,
        "kind": one.kind,
        "index": one.log_index,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
    }


def _evaluation(known: Json) -> Json | None:
    """What training at home measured: own cell alone; other cells are nobody's to see from here."""
    before, after = known.get("held_out_loss_common"), known.get("held_out_loss")
    if before is None or after is None:
        return None
    units = known.get("report_units")
    metric = "mean loss on own held-out units" + (f" ({units} that chose nothing)" if units else "")
    return {
        "metric": metric,
        "better": "lower",
        "rows": [
            {"model": name, "own": {"value": value, "low": None, "high": None}, "others": None}
            for name, value in (("common", before), ("individual", after))
        ],
    }


def _licence(contract: Contract, released: Json) -> Json:
    """Of the tier that the model was released under, with the contract's purpose and forbidden uses."""
    clause = contract.recipe(released["recipe"])
    name = None if clause is None else clause.id
    purpose = None if clause is None else clause.purpose
    tiers = [one for one in contract.tiers if one.tier == released["tier"] and one.recipe == name]
    return {
        "name": tiers[0].licence if tiers else "as the contract says",
        "uses": [one.text[:500] for one in contract.purposes if one.id == purpose],
        "forbidden": [one.use for one in contract.forbidden],
    }


def _write(wish: Wish, data: bytes) -> None:
    out = wish.out
    check_free(out, force=wish.force)  # it took a while
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_durably(out, data)
    except OSError as error:
        raise PackageFileError(
            need=f"a file that can be written: {out}",
            found=error.strerror or type(error).__name__,
            remedy="name another file with --out",
        ) from error


def _told(wish: Wish, data: bytes, material: Material) -> Json:
    latency = json.loads(material.latency)
    return {
        "file": str(wish.out),
        "size_bytes": len(data),
        "sha256": digest(data),
        "model": material.model["digest"],
        "parent": material.model["parent"],
        "individual": wish.individual,
        "adapter": None if material.ends is None else material.ends.digest,
        "aasx": material.aasx,
        "log": material.lineage["log"],
        **{name: latency[name] for name in ("p50_us", "p90_us", "p99_us", "load")},
    }
