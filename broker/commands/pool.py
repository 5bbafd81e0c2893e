# SPDX-License-Identifier: Apache-2.0
"""What the commands about the pool do: invitations, nodes, recipes, budgets, witnesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, short, table
from broker.commands.contract_names import whole_digest
from broker.commands.proposals import proposed
from broker.commands.witnesses import witness_lines
from broker.errors import UsageError
from policies.contract import parse
from policies.encoding import digest as digest_of
from policies.encoding import is_digest
from policies.ports import iso_s
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.commands import Where
    from broker.remote import OperatorClient
    from policies.recipe import Recipe

__all__ = [
    "budget_show",
    "invite_list",
    "invite_revoke",
    "node_list",
    "node_revoke",
    "node_show",
    "recipe_check",
    "recipe_list",
    "recipe_show",
    "witness_list",
    "witness_remove",
]

_NODE_HEAD: Final = ("NODE", "STATE", "ORGANISATION", "NAME", "LAST SEEN")


# --- invitations ---


def invite_list(where: Where) -> Result:
    """Lists invitations and what became of them."""
    with where.client() as client:
        listed = client.get("/operator/invites")["invites"]
    rows = [
        (
            one["id"],
            one["state"],
            one["legal_name"],
            one["country"],
            one["group"],
            iso_s(one["expires_ms"]),
            one["created_by"],
        )
        for one in listed
    ]
    head = ("INVITATION", "STATE", "FOR", "COUNTRY", "GROUP", "UNTIL", "MADE BY")
    empty = "none yet; iriai-broker invite create --name … --country … --group …"
    return Result(data={"invites": listed}, text=table(head, rows, empty=empty))


def invite_revoke(where: Where, name: str) -> Result:
    """Takes an invitation back."""
    with where.client() as client:
        done = client.post(f"/operator/invites/{name}/revoke", {})
    return Result(data=done, text=(f"{plain(done['id'])}: {plain(done['state'])}; nobody can join by it",))


# --- nodes ---


def _nodes(client: OperatorClient) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = client.get("/operator/organisations")["organisations"]
    return listed


def _state(one: dict[str, Any]) -> str:
    """A node's state: that of its organisation, and whether it was heard."""
    if one["state"] != "active":
        return str(one["state"])
    if one.get("online"):
        return "online"
    return "stale" if one.get("seen_ms") else "not heard"


def _seen(one: dict[str, Any]) -> str:
    return iso_s(one["seen_ms"]) if one.get("seen_ms") else "not since the broker started"


def node_list(where: Where) -> Result:
    """Lists nodes: whose each is, whether it is online, when it was heard."""
    with where.client() as client:
        listed = _nodes(client)
    rows = [(one["node"], _state(one), one["org"], one["legal_name"], _seen(one)) for one in listed]
    nodes = [{"node": one["node"], "org": one["org"], "state": _state(one)} | _heard(one) for one in listed]
    empty = "nobody joined yet; iriai-broker invite create --name … --country … --group …"
    return Result(data={"nodes": nodes}, text=table(_NODE_HEAD, rows, empty=empty))


def _heard(one: dict[str, Any]) -> dict[str, Any]:
    return {"legal_name": one["legal_name"], "seen_ms": one.get("seen_ms"), "since_ms": one.get("since_ms")}


def _node(client: OperatorClient, name: str) -> dict[str, Any]:
    found = next((one for one in _nodes(client) if name in {one["node"], one["org"]}), None)
    if found is None:
        raise UsageError(
            need="the id of a node, or of its organisation",
            found=ascii(name)[1:-1][:60],
            remedy="iriai-broker node list shows them",
        )
    return found


def node_show(where: Where, name: str) -> Result:
    """Shows a node: its keys, its state, when it was heard."""
    with where.client() as client:
        one = _node(client, name)
    return Result(
        data=one,
        text=(
            f"node         {plain(one['node'])}  {_state(one)}",
            f"of           {plain(one['legal_name'])} ({plain(one['country'])}), {plain(one['org'])}",
            f"last seen    {_seen(one)}",
            f"key          {plain(one['node_key'])}",
            f"fingerprint  {plain(one['node_fingerprint'])}",
        ),
    )


def node_revoke(where: Where, name: str, *, reason: str) -> Result:
    """Proposes the end of a node, which is that of its organisation: each has one."""
    with where.client() as client:
        org = _node(client, name)["org"]
        return proposed(
            client.post(f"/operator/organisations/{org}/revoke", {"reason": reason, "left": False})
        )


# --- recipes ---


def recipe_check(file: Path) -> Result:
    """Reads a recipe as the broker would.

    Raises:
        RecipeError: It could not run; the error says which rule it breaks.
    """
    data = file.read_bytes()
    return _recipe(load_recipe(data), digest_of(data))


def _recipe(found: Recipe, named: str) -> Result:
    plan = found.plan
    facts: dict[str, Any] = {
        "digest": named,
        "kind": found.task.kind,
        "task": found.task.name,
        "embodiment_class": found.task.embodiment_class,
        "rounds": found.rounds,
        "parameters": found.parameters,
        "plan": None if plan is None else plan.digest,
        "epsilon": None if plan is None else plan.epsilon_rdp,
    }
    privacy = "none: NOT PRIVATE" if plan is None else f"{plan.digest}, epsilon {plan.epsilon_rdp:.3f}"
    return Result(
        data=facts,
        text=(
            f"recipe       {named}",
            f"task         {plain(found.task.name)} ({found.task.kind})",
            f"model        {found.parameters} parameters, {found.rounds} rounds",
            f"plan         {privacy}",
        ),
    )


def recipe_list(where: Where) -> Result:
    """Lists the recipes of every contract that is offered or in force."""
    with where.client() as client:
        listed = list(_recipes(client))
    rows = [
        (one["id"], short(one["recipe"]), one["max_rounds"], " ".join(one["participants"]), one["contract"])
        for one in listed
    ]
    head = ("RECIPE", "DIGEST", "ROUNDS", "PARTIES", "CONTRACT")
    empty = "no contract yet; iriai-broker contract offer FILE --recipe FILE"
    return Result(data={"recipes": listed}, text=table(head, rows, empty=empty))


def _recipes(client: OperatorClient) -> Iterator[dict[str, Any]]:
    for row in client.get("/contracts")["contracts"]:
        contract = parse(client.get_bytes(f"/contracts/{row['digest']}"))
        for one in contract.recipes:
            yield {
                "id": one.id,
                "recipe": one.recipe_digest,
                "contract": contract.digest,
                "state": row["state"],
                "max_rounds": one.max_rounds,
                "participants": list(one.participants),
                "clause": one.clause,
            }


def recipe_show(where: Where, name: str) -> Result:
    """Shows one recipe of a contract, by its digest, 12 hex digits of it, or its id."""
    with where.client() as client:
        wanted = name if is_digest(name) else f"sha256:{name.removeprefix('sha256:')}"
        found = [one for one in _recipes(client) if one["id"] == name or one["recipe"].startswith(wanted)]
        if len({one["recipe"] for one in found}) != 1:
            raise UsageError(
                need="one recipe of a contract, by id or digest",
                found=str(len({one["recipe"] for one in found})),
                remedy="iriai-broker recipe list shows them",
            )
        one = found[-1]
        data = client.get_bytes(f"/contracts/{one['contract']}/annexes/{one['recipe']}")
    shown = _recipe(load_recipe(data), one["recipe"])
    lines = [f"in           {entry['contract']} ({entry['clause']}, {entry['state']})" for entry in found]
    return Result(data={**shown.data, "contracts": found}, text=(*shown.text, *lines))


# --- budgets ---


def budget_show(where: Where, name: str) -> Result:
    """Shows what is left of a contract's privacy budgets."""
    with where.client() as client:
        found = client.get(f"/operator/budgets/{whole_digest(client, name)}")
    parties = [
        (
            one["party"],
            one["epsilon_spent"],
            one["epsilon_with_reserved"],
            one["epsilon_total"] or "-",
            one["steps"],
        )
        for one in found["parties"]
    ]
    recipes = [
        (
            one["recipe_id"],
            one["rounds_used"],
            one["rounds_left"],
            "-" if one["runs_left"] is None else one["runs_left"],
            one["first_spent"] or "-",
        )
        for one in found["recipes"]
    ]
    return Result(
        data=found,
        text=(
            f"contract     {plain(found['contract'])}",
            *table(
                ("PARTY", "EPSILON SPENT", "WITH RESERVED", "CAP", "STEPS"),
                parties,
                empty="this contract has no caps: nothing is promised, and nothing is counted",
            ),
            "",
            *table(
                ("RECIPE", "ROUNDS USED", "ROUNDS LEFT", "WHOLE RUNS LEFT", "FIRST SPENT"),
                recipes,
                empty="no recipe",
            ),
            "by the broker's own count; the ledger of each node decides",
        ),
    )


# --- witnesses ---


def witness_list(where: Where) -> Result:
    """Lists witnesses: whose each is, when it was heard, and the quorum."""
    with where.client() as client:
        found = client.get("/operator/status")["witnesses"]
    return Result(data=found, text=witness_lines(found))


def witness_remove(where: Where, name: str, *, reason: str) -> Result:
    """Proposes that a witness votes no longer."""
    body = {"kind": "witness.remove", "payload": {"witness": name, "reason": reason}}
    with where.client() as client:
        return proposed(client.post("/operator/proposals", body))
