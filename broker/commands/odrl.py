# SPDX-License-Identifier: Apache-2.0
"""What ``contract export`` and ``contract import`` do: a contract as ODRL policies, and the checked way back.

- An export fetches the contract by its digest, checks that the bytes have it and that everybody signed, and
  writes one file per policy in a new folder, or all of them as one JSON array on standard output. Policies
  of a text that is not final would be agreements that nobody made.
- An import reads a file with one message or an array of them. With a broker it also fetches the contract and
  compares; without one it says that nothing was compared.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, table
from broker.commands.contract_names import whole_digest
from broker.errors import UnreachableError, UsageError
from policies.contract import parse
from policies.contract.errors import NotExecutedError
from policies.contract.negotiation.pool import FINALIZED
from policies.contract.odrl import export, pairs
from policies.contract.odrl.catenax import read_catenax
from policies.contract.odrl.dsp_messages import read_json
from policies.contract.odrl.reading import View, confirm, read_bundle
from policies.limits import ODRL_FILE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from broker.commands import Where
    from policies.contract import Contract

__all__ = ["contract_catenax", "contract_export", "contract_import"]

ODRL: Final = "odrl"


def contract_export(where: Where, digest: str, *, form: str, out: Path | None) -> Result:
    """Writes a contract as ODRL policies in messages of the Dataspace Protocol.

    Raises:
        UsageError: Another format, or the folder exists.
        UnreachableError: The broker gave other bytes than those of the digest.
        NotExecutedError: It is a draft: not everybody has signed it.
    """
    if form != ODRL:
        raise UsageError(need=f"--format {ODRL}", found=form[:40], remedy="name the one format that there is")
    if out is not None and out.exists():
        raise UsageError(need=f"no folder at {out}", found="one", remedy="name a new folder")
    contract = _fetch(where, digest, final=True)
    messages = export(contract)
    counts = Counter(one["@type"] for one in messages)
    files = [] if out is None else _write(out, contract, messages)
    data = {"digest": contract.digest, "messages": messages, "files": files, "counts": dict(counts)}
    text = (
        f"contract  {contract.digest}",
        *(f"{count:>8}  {kind}" for kind, count in sorted(counts.items())),
        f"written   {out}" if out is not None else "a view: the contract itself is what binds",
    )
    shown = None if out is not None else json.dumps(messages, ensure_ascii=False, indent=1)
    return Result(data=data, text=text, plain_output=shown)


def _fetch(where: Where, digest: str, *, final: bool = False) -> Contract:
    with where.client() as client:
        digest = whole_digest(client, digest)
        contract = parse(client.get_bytes(f"/contracts/{digest}"))
        rows = client.get("/contracts")["contracts"] if final and contract.digest == digest else []
    if contract.digest != digest:
        raise UnreachableError(
            need=f"the bytes of {digest}",
            found=contract.digest,
            remedy="this is no answer of that broker; look at it",
        )
    state = next(
        (str(one["state"]) for one in rows if one["digest"] == digest), "replaced by a counter-offer"
    )
    if final and state != FINALIZED:
        raise NotExecutedError(
            need="a contract that everybody signed: its policies are agreements",
            found=f"{digest}: {state}",
            remedy="export it once it is final: iriai-broker contract list",
        )
    return contract


def _write(out: Path, contract: Contract, messages: list[dict[str, Any]]) -> list[str]:
    out.mkdir(mode=0o700, parents=True)
    names = []
    for number, (pair, message) in enumerate(zip(pairs(contract), messages, strict=True), 1):
        name = f"{number:03d}-{pair.clause}-{pair.party or pair.kind}.json"
        (out / name).write_text(json.dumps(message, ensure_ascii=False, indent=1) + "\n", "utf-8")
        names.append(name)
    return names


def contract_import(where: Where | None, file: Path) -> Result:
    """Reads policies of our profile; compares them with the contract, if there is a broker to fetch it from.

    Raises:
        DspMessageError: No JSON.
        OdrlRefusedError: A policy says something else; every place is named.
        ViewDisagreesError: The contract says something else.
    """
    views = read_bundle(_messages(file))
    digest = views[0].digest
    compared = where is not None
    if where is not None:
        contract = _fetch(where, digest)
        for view in views:
            confirm(contract, view)
    rows = [
        (view.kind, view.clause, view.target, str(_terms(view)), "yes" if compared else "no")
        for view in views
    ]
    data = {
        "digest": digest,
        "compared": compared,
        "policies": [
            {
                "kind": view.kind,
                "clause": view.clause,
                "target": view.target,
                "assigner": view.assigner,
                "assignee": view.assignee,
                "terms": [
                    _term(rule.kind, rule.action, one) for rule in view.rules for one in rule.constraints
                ],
            }
            for view in views
        ],
    }
    said = (
        "every policy says what the contract says"
        if compared
        else "nothing was compared: name the broker (--dir, or --url and --tls-sha256, with --key)"
    )
    text = (
        f"contract  {digest}",
        *table(("POLICY", "CLAUSE", "TARGET", "TERMS", "COMPARED"), rows, empty="none"),
        said,
    )
    return Result(data=data, text=text, plain_output=digest)


def _messages(file: Path) -> list[Any]:
    if file.stat().st_size > ODRL_FILE_BYTES:
        raise UsageError(
            need=f"a file of at most {ODRL_FILE_BYTES} bytes", found="more", remedy="import a part of it"
        )
    tree = read_json(file.read_bytes(), most=ODRL_FILE_BYTES)
    return tree if isinstance(tree, list) else [tree]


def _terms(view: View) -> int:
    return sum(len(one.constraints) for one in view.rules)


def _term(kind: str, action: str, one: Any) -> dict[str, Any]:  # noqa: ANN401  a comparison
    value = list(one.value) if isinstance(one.value, tuple) else one.value
    return {
        "rule": kind,
        "action": action,
        "clause": one.clause,
        "left": one.left,
        "operator": one.operator,
        "value": value,
    }


def contract_catenax(file: Path) -> Result:
    """Lists what of a Catena-X policy a contract could say; nothing is imported.

    Raises:
        DspMessageError: No JSON.
        OdrlRefusedError: No policy in it.
    """
    found = [one for tree in _messages(file) for one in read_catenax(tree)]
    rows = [
        (
            one.path,
            one.left,
            one.kind or "-",
            "code" if one.enforced else "law only" if one.maps else "-",
            one.words,
        )
        for one in found
    ]
    mapped = sum(one.maps for one in found)
    data = {
        "constraints": [
            {
                "path": one.path,
                "left": one.left,
                "value": one.value,
                "kind": one.kind,
                "enforced": one.enforced,
                "words": one.words,
            }
            for one in found
        ],
        "maps": mapped,
        "does_not_map": len(found) - mapped,
    }
    head = ("CONSTRAINT", "SAYS", "CLAUSE KIND", "ENFORCED BY", "MIND")
    text = (
        *table(head, rows, empty="no constraint in it"),
        plain(f"{mapped} of {len(found)} have a kind of clause; a person writes it, nothing was imported"),
    )
    return Result(data=data, text=text)
