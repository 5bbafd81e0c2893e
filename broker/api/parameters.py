# SPDX-License-Identifier: Apache-2.0
"""Query parameters: those that the route names, each once; every other request is ``request.invalid``.

A filter that is spelled wrong would otherwise be no filter, and the answer would say too much or the wrong
thing. One dependency (`only_named`) holds for every route below ``/api/v1``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations

from broker.errors import RequestInvalidError

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

__all__ = ["only_named", "query_names"]


async def only_named(request: Request) -> None:
    """Returns if every query parameter is one of the route's, and there once.

    Raises:
        RequestInvalidError: Another one, or one twice.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    known = query_names(request.scope["route"].dependant)
    wrong = sorted({name for name in given if name not in known or given.count(name) > 1})
    if wrong:
        raise RequestInvalidError(
            need="each of these at most once, and no other: " + (", ".join(sorted(known)) or "no parameters"),
            found=ascii(", ".join(wrong))[1:-1][:120],
            remedy="see docs/reference/http-api.md",
        )


def query_names(dependant: Dependant) -> frozenset[str]:
    """Names of the query parameters of a route, those of its dependencies among them."""
    own = frozenset(one.alias for one in dependant.query_params)
    return own.union(*(query_names(one) for one in dependant.dependencies))
