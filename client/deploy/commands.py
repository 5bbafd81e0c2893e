# SPDX-License-Identifier: Apache-2.0
"""``models package`` and ``models check``: the commands about package files; neither imports torch.

A package is made by the worker's program in a process of its own, because export needs torch
(`client.deploy.site`); its refusal is said here under its own code. A package is checked here, by the keys of
this node, of its broker, and those that are named: it needs no node, so that whoever is given a package can
check it beside the controller.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from client.answers import Answer, plain, short, table
from client.deploy.errors import PackageSignerError, PackagingError
from client.deploy.loader import load_package
from client.deploy.own_data import not_beaten
from client.deploy.taken import check_free
from client.errors import NoSuchThingError
from client.identity import load_identity
from client.membership import pinned_broker
from client.models import is_individual, model_folder, model_here, read_model
from policies.identity import fingerprint, key_text, parse_key
from policies.limits import PACKAGE_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from client.deploy.blocks import Port
    from client.deploy.loader import LoadedPackage
    from client.settings import Home

__all__ = ["check", "package", "pinned_keys"]

_MOST_EXIT = 75
_FACTS = ("need", "found", "remedy")


def package(
    home: Home,
    model: str,
    out: Path,
    *,
    individual: bool = False,
    aasx: bool | None = None,
    measure: bool = False,
    force: bool = False,
) -> Answer:
    """Makes the package of a model that is here.

    Args:
        home: The node's folder.
        model: Digest of the released model, or its first 12 hex digits.
        out: File to write.
        individual: The one that was trained on here.
        aasx: With an Asset Administration Shell; None: if its library is here.
        measure: Measures latency, also where it was measured before.
        force: Writes over a file that is there.

    Raises:
        NoSuchThingError: The model is not here, or the individual one is the common one.
        FileTakenError: Something is where it would be written.
        PackagingError: The worker refused, under the code of its refusal, or ended without a word.
    """
    check_free(out, force=force)
    model = model_here(home, model)
    read_model(home, model)
    if individual and not (model_folder(home, model, individual=True) / "model.json").exists():
        raise NoSuchThingError(
            need="an individual model that was trained on here",
            found="none",
            remedy=f"iriai-node models personalise {model}",
        )
    if individual and not is_individual(home, model):
        raise not_beaten()
    command = [sys.executable, "-m", "client.node", *home.options]
    command += ["--package", model, "--out", str(out.absolute())]
    command += ["--individual"] if individual else []
    command += ["--measure"] if measure else []
    command += ["--force"] if force else []
    command += [] if aasx is None else ["--aasx" if aasx else "--no-aasx"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PACKAGE_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise PackagingError(
            need=f"a package within {PACKAGE_S} s", found="none", remedy="free the machine, then try again"
        ) from error
    if done.returncode != 0:
        raise _refusal(done.stderr, done.returncode)
    facts: dict[str, Any] = json.loads(done.stdout)
    return Answer(data=facts, text=_told(facts))


def _refusal(told: bytes, exit_code: int) -> PackagingError:
    """The worker's refusal with its own code; it is the last line that says ``stopped``."""
    for line in reversed(told.decode("utf-8", errors="replace").splitlines()):
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict) and facts.get("event") == "stopped" and isinstance(facts.get("code"), str):
            kind = type(
                "PackagingError",
                (PackagingError,),
                {"code": facts["code"], "exit_code": exit_code if 1 < exit_code <= _MOST_EXIT else 3}
                | {"__doc__": PackagingError.__doc__},
            )
            error: PackagingError = kind(
                **{name: str(facts.get(name)) for name in _FACTS}, clause=facts.get("clause")
            )
            return error
    last = told.decode("utf-8", errors="replace").strip().splitlines()[-1:]
    return PackagingError(
        need="a package",
        found=f"a process that ended without one: {plain(last[0])[:200] if last else 'no word'}",
        remedy="run the command again on a machine that has the extra [client], with memory to spare",
    )


def _told(facts: dict[str, Any]) -> tuple[str, ...]:
    kind = "individual, contains this site's data: do not pass it on" if facts["individual"] else "common"
    return (
        f"package    {facts['file']}, {facts['size_bytes']} bytes",
        f"model      {facts['model']} ({kind})",
        f"adapter    {facts['adapter'] or 'none: SI units, in the order of the store'}",
        f"shell      {'aas/model.aasx' if facts['aasx'] else 'none'}",
        f"latency    p50 {facts['p50_us']} µs, p99 {facts['p99_us']} µs at load {facts['load']}",
        f"next: iriai-node models serve {facts['file']}",
    )


def pinned_keys(home: Home, named: Sequence[str] = ()) -> list[bytes]:
    """Keys whose signature counts: named ones, and where the folder holds a node, its own and its broker's.

    Raises:
        WeakKeyError: A named key is none.
        PackageSignerError: There is none at all.
    """
    keys = [parse_key(one) for one in named]
    if (home.keys / "node.key").exists():
        identity = load_identity(home)
        keys += [identity.key.public, *identity.former]
        if home.broker.exists():
            keys.append(pinned_broker(home).key)
    if not keys:
        raise PackageSignerError(
            need="a key to check the signature by",
            found="none: the folder holds no node",
            remedy="--dir of the node that packaged, or --key ed25519:… compared by telephone",
        )
    return keys


def check(home: Home, path: Path, *, keys: Sequence[str] = ()) -> Answer:
    """Loads a package as the server does, and shows what it says.

    Raises:
        PackageError: It would not be loaded.
    """
    loaded = load_package(path, pinned_keys(home, keys))
    manifest = loaded.manifest
    return Answer(
        data={
            "digest": loaded.digest,
            "size_bytes": loaded.size,
            "signer": key_text(loaded.signer),
            "statement_signed": loaded.statement_signed,
            "manifest": manifest.model_dump(mode="json", by_alias=True),
            "latency": loaded.latency,
        },
        text=_shown(loaded),
    )


def _shown(loaded: LoadedPackage) -> tuple[str, ...]:
    manifest = loaded.manifest
    model, privacy, safety = manifest.model, manifest.privacy, manifest.safety
    word = "signed by a pinned key" if loaded.statement_signed else "on the word of the package's signer"
    log = manifest.lineage.log
    none = "none known" if model.individual else "a common package names no entry of its site"
    return (
        f"package    {loaded.digest}",
        f"signed by  {fingerprint(loaded.signer)}",
        f"model      {model.digest} ({'individual: do not pass on' if model.individual else model.tier})",
        f"for        {plain(manifest.task)}, {plain(manifest.embodiment.class_)}",
        f"lineage    contract {short(manifest.lineage.contract)}, run {plain(manifest.lineage.run)}",
        f"log        {none if log is None else f'{log.kind} at {log.index} of {plain(log.origin)}'}",
        f"privacy    {privacy.verdict}, epsilon {privacy.epsilon or '-'}; statement {word}",
        f"guards     {safety.watchdog_ms} ms, fallback {safety.fallback}, strange above {safety.ood.max}",
        *table(
            ("", "field", "values", "unit", "low", "high"),
            [
                *(_row("in", one) for one in manifest.inputs),
                *(_row("out", one) for one in manifest.outputs),
            ],
        ),
        "holds      signature, members, recipe, limits, statement, card, graph, example",
    )


def _row(side: str, port: Port) -> tuple[object, ...]:
    return side, port.name, port.size, port.unit, " ".join(port.low), " ".join(port.high)
