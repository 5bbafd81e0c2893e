# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: ``limit`` and ``cursor`` in the query, ``next`` in the answer while there is more.

    @router.get("/things")
    async def things(call: PartyCall, asked: Asked) -> Response:
        page = asked.of("things", rows, key=lambda one: (one["at_ms"], one["id"]))
        return json_response({"things": page.rows, **page.more})

- Without parameters a list is what it always was, up to `LIST_ROWS`.
- A cursor is a place in the order, not a number of rows: what is added meanwhile moves no page, and no row
  comes twice or is left out.
- It is opaque and of one list. It holds the key of the last row that was shown, so rows are chosen by what
  the caller may see before they are cut into pages. One that this list did not make is ``request.invalid``.
- A list that may be long is read page by page, by its index: `PageAsked.after` and `indexed`.
- Lists of what happened last (`newest=True`) begin with the newest page, each page still oldest first.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from fastapi import Depends
from fastapi import Query as QueryParam

from broker.errors import RequestInvalidError
from policies.encoding import Json, canonical, parse
from policies.errors import EncodingError
from policies.limits import LIST_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Asked", "Page", "PageAsked", "indexed"]

_R = TypeVar("_R")
_Key = tuple[int | str, ...]
CURSOR_CHARS: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[_R]):
    """Rows of one page, and the cursor of the next one."""

    rows: list[_R]
    next: str | None

    @property
    def more(self) -> dict[str, Json]:
        """``next`` while there is more; nothing at the end."""
        return {} if self.next is None else {"next": self.next}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageAsked:
    """Which page a caller asks for."""

    limit: int
    cursor: str | None

    def of(
        self, name: str, rows: Iterable[_R], *, key: Callable[[_R], _Key], newest: bool = False
    ) -> Page[_R]:
        """The page of a list.

        Args:
            name: Of the list; a cursor fits no other.
            rows: Everything that the caller may see.
            key: Place of a row: unique, and never changed.
            newest: Whether pages go from the newest rows to older ones.

        Raises:
            RequestInvalidError: A cursor that this list did not make.
        """
        ordered = sorted(rows, key=key, reverse=newest)
        if self.cursor is not None:
            last = _read(name, self.cursor)
            try:
                ordered = [one for one in ordered if (key(one) < last if newest else key(one) > last)]
            except TypeError as error:  # a key of other kinds than this list's
                raise _unknown() from error
        shown = ordered[: self.limit]
        more = _written(name, key(shown[-1])) if len(ordered) > self.limit else None
        return Page(rows=shown[::-1] if newest else shown, next=more)

    def after(self, name: str) -> int | None:
        """Index behind which the page begins, of a list that is read by its index; None at its begin.

        Raises:
            RequestInvalidError: A cursor that this list did not make.
        """
        if self.cursor is None:
            return None
        found = _read(name, self.cursor)
        if len(found) != 1 or not isinstance(found[0], int) or found[0] < 0:
            raise _unknown()
        return found[0]


def indexed(name: str, rows: list[_R], *, last: int | None) -> Page[_R]:
    """The page of a list that is read by its index.

    Args:
        name: Of the list.
        rows: Those of the page.
        last: Index of the last one, if there are more; else None.
    """
    return Page(rows=rows, next=None if last is None else _written(name, (last,)))


def _written(name: str, key: _Key) -> str:
    return urlsafe_b64encode(canonical([name, *key])).decode("ascii").rstrip("=")


def _read(name: str, cursor: str) -> _Key:
    try:
        data = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        found: Any = parse(data)
    except (EncodingError, UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise _unknown() from error
    if (
        not isinstance(found, list)
        or found[:1] != [name]
        or not all(type(one) in {int, str} for one in found)
    ):
        raise _unknown()
    if _written(name, tuple(found[1:])) != cursor:  # one spelling
        raise _unknown()
    return tuple(found[1:])


def _unknown() -> RequestInvalidError:
    return RequestInvalidError(
        need="the cursor that this list gave as next",
        found="another text",
        remedy="send it unchanged, with the same filters; or begin again without one",
    )


async def _asked(
    limit: Annotated[int, QueryParam(ge=1, le=LIST_ROWS)] = LIST_ROWS,
    cursor: Annotated[str | None, QueryParam(min_length=1, max_length=CURSOR_CHARS)] = None,
) -> PageAsked:
    return PageAsked(limit=limit, cursor=cursor)


Asked = Annotated[PageAsked, Depends(_asked)]
"""``limit`` and ``cursor`` of a list."""
