# SPDX-License-Identifier: Apache-2.0
"""What parties say about a contract in force, as a node posts it: the signed notice and its log envelope."""

from __future__ import annotations

from typing import Any

import httpx

from policies.contract import Contract
from policies.contract.notices import Notice, seal_notice
from policies.encoding import digest
from policies.identity import SigningKey, key_text, parse_key
from policies.log.entries import EntryType
from policies.ports import iso_s
from tests.brokersim import House, NodeSim

ENTRY = {
    "halt": EntryType.CONTRACT_HALTED,
    "resume": EntryType.CONTRACT_RESUMED,
    "exit": EntryType.CONTRACT_EXITED,
    "rotate": EntryType.KEY_ROTATED,
}
CODES = {
    "halt": "cell.incident",
    "resume": "cause.removed",
    "exit": "party.leaves",
    "rotate": "key.age",
    "attest": "use.attested",
    "admit": "checked",
}


def said(house: House, contract: Contract, kind: str, party: str, **terms: Any) -> Notice:
    """The next notice of a party; ``terms`` replace its fields."""
    life = house.services.contracts.life(contract)
    fields = {
        "contract": contract.digest,
        "party": party,
        "seq": life.next_seq(party),
        "at": iso_s(house.clock.ms),
        "code": CODES[kind],
    }
    return Notice(kind=kind, **(fields | terms))


def entry_body(house: House, contract: Contract, notice: Notice) -> dict[str, Any]:
    """What the log is told of a notice."""
    if notice.kind != "rotate":
        return {
            "contract": contract.digest,
            "clause": notice.clause,
            "reason": notice.code,
            "notice": notice.digest,
        }
    life = house.services.contracts.life(contract)
    clause = contract.party(notice.party)
    assert clause is not None
    old = life.rotated.get(notice.party, clause.key)
    return {
        "old": digest(parse_key(old)),
        "new": digest(parse_key(str(notice.subject))),
        "role": "node",
        "vkey": notice.subject,
    }


def posted(
    node: NodeSim, contract: Contract, notice: Notice, *keys: SigningKey, **changes: Any
) -> dict[str, Any]:
    """Body of the request; ``changes`` replace parts of it."""
    envelope = None
    if notice.kind in ENTRY:
        body = entry_body(node.house, contract, notice)
        envelope = node.seal(ENTRY[notice.kind], body, scope=contract.digest).to_json()
    sealed = seal_notice(notice, *(keys or (node.key,)))
    return {"notice": sealed.to_json(), "envelope": envelope} | changes


async def say(node: NodeSim, contract: Contract, kind: str, **terms: Any) -> httpx.Response:
    """A party says something, as its node does."""
    notice = said(node.house, contract, kind, node.name, **terms)
    return await node.post(f"/contracts/{contract.digest}/notices", posted(node, contract, notice))


async def rotate(node: NodeSim, contract: Contract, fresh: SigningKey) -> httpx.Response:
    """A party changes its key; from the answer on, its node signs by the new one."""
    notice = said(node.house, contract, "rotate", node.name, subject=key_text(fresh.public))
    body = posted(node, contract, notice, node.key, fresh)
    answer = await node.post(f"/contracts/{contract.digest}/notices", body)
    if answer.status_code == 200:
        node.key = fresh
    return answer
