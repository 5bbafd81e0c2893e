# SPDX-License-Identifier: Apache-2.0
"""What the commands about people do. `broker.cli` imports this module only when one of them runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, table

if TYPE_CHECKING:
    from broker.commands import Where

__all__ = ["operator_add", "operator_disable", "operator_list", "operator_login", "operator_reset_login"]


def operator_list(where: Where) -> Result:
    """Lists everybody."""
    with where.client() as client:
        found = client.get("/operator/people")["people"]
    rows = [
        (
            one["name"],
            one["role"],
            one["org"] or "-",
            one["state"],
            _ways(one),
            one["since"] or "from the start",
        )
        for one in found
    ]
    head = ("NAME", "ROLE", "ORGANISATION", "STATE", "LOGS IN BY", "SINCE")
    empty = "nobody yet; iriai-broker operator add NAME --role operator"
    return Result(data={"people": found}, text=table(head, rows, empty=empty))


def operator_add(where: Where, name: str, *, role: str, org: str | None, sub: str | None) -> Result:
    """Adds somebody, or proposes them."""
    body = {"name": name, "role": role, "org": org, "sub": sub}
    with where.client() as client:
        made = client.post(
            "/operator/people", {key: value for key, value in body.items() if value is not None}
        )
    proposal = made.get("proposal")
    if proposal is None:
        return _link(made)
    return Result(
        data=made,
        text=(
            f"proposal     {plain(proposal['id'])}: {plain(name)} as {plain(role)}",
            "             it takes two people, because alone you would be a second person, or look as one",
            f"next: another operator runs iriai-broker proposal approve {plain(proposal['id'])} --key FILE",
            f"then: both run iriai-broker operator reset-login {plain(name)} --key FILE",
            "      one of them gets a code, the other one the link",
        ),
        plain_output=str(proposal["id"]),
    )


def operator_disable(where: Where, name: str) -> Result:
    """Ends what somebody may do."""
    with where.client() as client:
        done = client.post(f"/operator/people/{name}/disable", {})
    key = "; the key file is revoked" if done["key_revoked"] else ""
    return Result(
        data=done, text=(f"{plain(done['name'])}: {plain(done['state'])}; logged out everywhere{key}",)
    )


def operator_login(where: Where) -> Result:
    """A new way to log in for the operator whose key asks."""
    with where.client() as client:
        name = client.get("/operator/people")["you"]
    return operator_reset_login(where, str(name))


def operator_reset_login(where: Where, name: str) -> Result:
    """A new way to log in."""
    with where.client() as client:
        made = client.post(f"/operator/people/{name}/reset-login", {})
    if "code" not in made:
        return _link(made)
    return Result(
        data=made,
        text=(
            f"code         for {plain(name)}; the link comes from the other operator",
            f"next: another operator runs iriai-broker operator reset-login {plain(name)} --key FILE",
            "Tell it to them in person, and to nobody else; it is stored nowhere:",
        ),
        plain_output=str(made["code"]),
    )


def _link(made: dict[str, Any]) -> Result:
    if "link" not in made:
        return Result(data=made, text=("the link was told when this was done; ask for another one",))
    needs = ("they also need the code that the first operator was told",) if made.get("needs_code") else ()
    return Result(
        data=made,
        text=(
            f"link         for {plain(made['name'])}, until {plain(made['until'])}; it works once",
            *needs,
            "Hand it over in person or by a safe way; it is stored nowhere:",
        ),
        plain_output=str(made["link"]),
    )


def _ways(one: dict[str, Any]) -> str:
    count = one["passkeys"]
    ways = [f"{count} passkey{'s' if count > 1 else ''}"] if count else []
    ways += [word for name, word in (("password", "password"), ("provider", "provider")) if one[name]]
    return ", ".join(ways) or "nothing yet"
