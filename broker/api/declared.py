# SPDX-License-Identifier: Apache-2.0
"""What a route gives and takes, said beside it: the source of the OpenAPI document (`broker.api.document`).

    @router.post("/operator/runs")
    @gives(RunOpened, status=201, takes=RunBody)
    async def open_run(call: OperatorCall) -> Response: ...

- Nothing here runs when a request is served: handlers answer canonical bytes of their own.
- That it is true is tested: every answer that any test of a whole broker sees is held against it
  (`tests.documented`).
- The role comes from the kind of call; ``role`` is for routes without one.
- Refusals that any signed request can meet are not repeated; ``refuses`` names the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BINARY", "JSON_TYPE", "TEXT", "ZIP", "Declared", "Shown", "declared", "gives"]

JSON_TYPE: Final = "application/json"
ZIP: Final = "application/zip"
BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
_NAME: Final = "__iriai_declared__"
_E = TypeVar("_E", bound="Callable[..., Any]")


class Shown(BaseModel):
    """Base of what answers hold.

    Tests refuse names that are not declared; clients must ignore those that they do not know, because a later
    version may add some.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What was said of a route.

    Attributes:
        answer: Model of the JSON that it answers; None for bytes of another kind.
        statuses: HTTP statuses of that answer.
        media: Media types of that answer.
        takes: Model of the JSON that it reads.
        role: Who may ask, where no signature is needed.
        refuses: Statuses of refusals beyond those that every request can meet.
        tagged: Whether the answer has an ``ETag``.
        matches: Whether a change may, or must, name one: ``may``, ``must`` or empty.
    """

    answer: type[BaseModel] | None
    statuses: tuple[int, ...]
    media: tuple[str, ...]
    takes: type[BaseModel] | None
    role: str | None
    refuses: frozenset[int]
    tagged: bool
    matches: str


def gives(
    answer: type[BaseModel] | None = None,
    *,
    status: int | tuple[int, ...] = 200,
    media: str | tuple[str, ...] = JSON_TYPE,
    takes: type[BaseModel] | None = None,
    role: str | None = None,
    refuses: tuple[int, ...] = (),
    tagged: bool = False,
    matches: str = "",
) -> Callable[[_E], _E]:
    """Says of a route what it gives and takes; see `Declared`."""
    said = Declared(
        answer=answer,
        statuses=(status,) if isinstance(status, int) else status,
        media=(media,) if isinstance(media, str) else media,
        takes=takes,
        role=role,
        refuses=frozenset(refuses),
        tagged=tagged,
        matches=matches,
    )

    def keep(endpoint: _E) -> _E:
        setattr(endpoint, _NAME, said)
        return endpoint

    return keep


def declared(endpoint: object) -> Declared | None:
    """What was said of a route's endpoint; None if nobody did."""
    said = getattr(endpoint, _NAME, None)
    return said if isinstance(said, Declared) else None
