# SPDX-License-Identifier: Apache-2.0
"""Successors of a contract, as a contributor or the operators bring them to a broker, and the time at which they rule."""

from __future__ import annotations

from typing import Any

import httpx

from policies.contract import Contract, from_tree
from policies.encoding import b64
from policies.log.entries import EntryType, alias
from policies.ports import to_ms
from tests.brokersim import House, NodeSim
from tests.lanesim import contract_signature, warnings_of

SIGN_BY = "2026-12-12T00:00:00Z"
EFFECTIVE = "2026-12-13T00:00:00Z"
EFFECTIVE_MS = to_ms(EFFECTIVE)


def successor(
    old: Contract, *, sign_by: str = SIGN_BY, effective: str = EFFECTIVE, **changes: Any
) -> Contract:
    """The next version with these changes; ``a.b`` names a field of a section, ``a.0.b`` one of a row."""
    tree = old.document
    tree |= {"version": old.version + 1, "supersedes": old.digest, "sign_by": sign_by}
    tree["term"] = tree["term"] | {"effective": effective}
    for path, value in changes.items():
        at: Any = tree
        *parents, last = path.replace("__", ".").split(".")
        for part in parents:
            at = at[int(part) if part.isdigit() else part]
        at[last] = value
    return from_tree(tree)


def tighter(old: Contract, **changes: Any) -> Contract:
    """A successor with a smaller budget for all."""
    return successor(old, **({"privacy.epsilon_total": "2.6"} | changes))


def looser(old: Contract, **changes: Any) -> Contract:
    """A successor with a larger budget for all."""
    return successor(old, **({"privacy.epsilon_total": "9"} | changes))


def tightening_body(node: NodeSim, new: Contract, **changes: Any) -> dict[str, Any]:
    """What a contributor posts: text, signature, and the entry that says so."""
    own = {"contract": new.digest, "party": alias(node.alias_key, new.digest, None, None)}
    warnings = list(warnings_of(new))
    own |= {"acknowledged": warnings} if warnings else {}
    envelope = node.seal(EntryType.CONTRACT_SIGNED, own, scope=new.digest)
    return {
        "kind": "tighten",
        "contract": new.canonical.decode(),
        "recipes": [],
        "signature": contract_signature(new, node.key),
        "envelope": envelope.to_json(),
    } | changes


async def tighten(node: NodeSim, old: Contract, new: Contract, **changes: Any) -> httpx.Response:
    return await node.post(f"/contracts/{old.digest}/amendments", tightening_body(node, new, **changes))


async def change(
    node: NodeSim, old: Contract, new: Contract, recipes: tuple[bytes, ...] = ()
) -> httpx.Response:
    body = {"kind": "change", "contract": new.canonical.decode(), "recipes": [b64(one) for one in recipes]}
    return await node.post(f"/contracts/{old.digest}/amendments", body)


async def reach(house: House, new: Contract) -> None:
    """The successor's term begins; the broker looks at what is due."""
    house.clock.ms = max(house.clock.ms, to_ms(new.term.effective))
    assert await house.services.desk.bring_up_to_date()


def standing(house: House, contract: Contract) -> str:
    return house.services.contracts.standing(contract)


def amended(house: House) -> list[tuple[str, str, str, str | None]]:
    """(old, new, kind, proof) of each `contract.amended`."""
    return [
        (one.pub["old"], one.pub["new"], one.pub["kind"], one.pub["proof"])
        for one in house.entries(EntryType.CONTRACT_AMENDED)
    ]
