# SPDX-License-Identifier: Apache-2.0
"""The API for people who are signed in: its document, and the same as a page. Nothing is fetched for it.

The document is made where the application is put together (`broker.app`), because it describes the API, which
this package does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from broker.console.screens import ALL_PEOPLE, Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Folded, Foreign, Link, Nothing, T, Value
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View

__all__ = ["room"]

room = Room("reference")


@room.screen(
    "/docs",
    name="api",
    title=T("API"),
    roles=ALL_PEOPLE,
    sees=Sees.OPEN,
    command="iriai-broker openapi",
    nav=True,
)
def api(view: View) -> Screen:
    """What can be asked of the broker by program?"""
    wanted = view.query.get("q", "").lower()
    rows = [
        _row(one)
        for one in view.services.reference.rows()
        if wanted in f"{one['method']} {one['path']} {one['role']}".lower()
    ]
    search = Form(
        action="/docs",
        method="get",
        button=T("Show"),
        fields=(
            Field(name="q", label=T("Path, method or role"), value=view.query.get("q", ""), required=False),
        ),
    )
    table = Table(
        name="operations",
        caption=T("Operations"),
        columns=(
            Column("path", T("Path")),
            Column("method", T("Method")),
            Column("role", T("Whose key")),
            Column("what", T("What it does")),
            Column("takes", T("Takes")),
            Column("gives", T("Gives")),
            Column("refusals", T("Refusals")),
        ),
        rows=rows,
        empty=T("No operation fits. Drop the filter."),
        total=len(rows),
    )
    prose = (
        T(
            "Requests are signed by a key (RFC 9421); a login alone asks nothing. The document: {document}.",
            document=Link(Code("openapi.json"), "/openapi.json"),
        ),
    )
    facts = (Fact("operations", T("Operations"), Count(len(rows))),)
    return Screen(
        panels=(
            Panel(name="search", title=T("Look for"), forms=(search,)),
            Panel(
                name="operations",
                title=T("Operations"),
                prose=prose,
                facts=facts,
                table=table,
            ),
        )
    )


def _row(one: Mapping[str, str]) -> dict[str, Value]:
    return {
        "path": Code(one["path"]),
        "method": Code(one["method"]),
        "role": Code(one["role"]),
        "what": Foreign(one["summary"]),
        "takes": Code(one["takes"]) if one["takes"] else Nothing(),
        "gives": Code(one["gives"]) if one["gives"] else Nothing(),
        "refusals": _refusals(one["refusals"]),
    }


def _refusals(text: str) -> Value:
    """The codes, folded: a list of them would be higher than all else of its row."""
    if not text:
        return Nothing()
    return Folded(T("{n} codes", n=Count(text.count(",") + 1)), (Code(text),))


@room.file("/openapi.json", name="openapi", roles=ALL_PEOPLE, sees=Sees.OPEN)
def openapi(view: View) -> Response:
    """The OpenAPI document, as it is checked in."""
    return Response(canonical(view.services.reference.document()), media_type="application/json")
